//! What the gate tells the request log: one decision for each request that it judged.
//!
//! A [`Seen`] goes along with a request. Its time counts until the answer's head is ready. Dropped before
//! that, after the gate has judged, it notes the request all the same: its caller has gone (status 499), or its
//! handler has panicked (500). A request that the gate could not judge, as the database was away, is no
//! decision, and is not noted.
//!
//! A verification of a key of an api is a decision of its own ([`note_verification`]).
//!
//! It costs the request two small allocations and a push; all text is made by the log's writer.

use std::net::IpAddr;
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use axum::extract::MatchedPath;
use axum::http::StatusCode;
use axum::http::request::Parts;
use listmill_shared::app::abuse;
use listmill_shared::app::key_service::verify::Verified;
use listmill_shared::domain::id::KeyId;
use listmill_shared::domain::key::Key;
use listmill_shared::domain::request::{Decision, Outcome, VERIFICATION};
use listmill_shared::domain::root_key::RootKey;

use crate::Api;
use crate::health::method_name;
use crate::request_id::RequestId;
use crate::v2::root::Root;

/// The status of a request whose caller did not wait for the answer.
const CALLER_GONE: u16 = 499;

/// A request on its way through the gate.
pub struct Seen<'a> {
    api: &'a Api,
    started: Instant,
    /// `None`: nothing is logged, or all is noted.
    decision: Option<Decision>,
    /// Tells the presented key apart where nobody has it.
    print: Option<i64>,
    /// The outcome is the gate's.
    judged: bool,
}

impl<'a> Seen<'a> {
    /// A request has arrived.
    pub fn begin(api: &'a Api, parts: &Parts) -> Self {
        let at = api.app.now();
        let decision = api.log.is_on().then(|| Decision {
            at,
            account: None,
            key: None,
            outcome: Outcome::Malformed,
            ip: None,
            route: Arc::from(parts.extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str)),
            method: method_name(&parts.method),
            status: 0,
            latency_us: 0,
            request_id: parts
                .extensions
                .get::<RequestId>()
                .map_or_else(String::new, |id| id.as_str().to_owned()),
        });
        Self { api, started: Instant::now(), decision, print: None, judged: false }
    }

    /// It comes from this address and presents this key, deleted ones included; `None` = one that nobody has,
    /// or none.
    pub fn found(&mut self, ip: Option<IpAddr>, key: Option<&Key>) {
        if let Some(decision) = &mut self.decision {
            decision.ip = ip;
            decision.account = key.map(|key| key.account);
            decision.key = key.map(|key| key.id);
        }
    }

    /// It comes from this address and presents this root key, deleted ones included.
    pub fn found_root(&mut self, ip: Option<IpAddr>, root: Option<&RootKey>) {
        if let Some(decision) = &mut self.decision {
            decision.ip = ip;
            decision.account = root.map(|root| root.account);
            decision.key = root.map(|root| KeyId(root.id.0));
        }
    }

    /// Nobody has the key that it presents.
    pub fn unknown(&mut self, presented: &str) {
        if self.decision.is_some() {
            self.print = Some(abuse::print(presented));
        }
    }

    /// Its key opens at a time to come: it is not dead, though it is refused as one that has expired.
    pub fn not_yet(&mut self) {
        self.print = Some(abuse::NOT_YET);
    }

    /// The gate has judged it.
    pub fn judged(&mut self, outcome: Outcome) {
        self.judged = true;
        if let Some(decision) = &mut self.decision {
            decision.outcome = outcome;
        }
    }

    /// The head of its answer is ready.
    pub fn end(&mut self, status: StatusCode) {
        self.note(status.as_u16());
    }

    fn note(&mut self, status: u16) {
        if let Some(mut decision) = self.decision.take() {
            decision.status = status;
            decision.latency_us =
                u32::try_from(self.started.elapsed().as_micros()).unwrap_or(u32::MAX);
            self.api.log.note_presented(decision, self.print);
        }
    }
}

/// Notes what was said of a key of an api that was presented at `from`, after `began`: a use of that key. The
/// request that asked is noted by itself.
pub fn note_verification(
    api: &Api,
    root: &Root,
    verified: &Verified,
    from: Option<IpAddr>,
    began: Instant,
) {
    static ROUTE: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from(VERIFICATION));
    if !api.log.is_on() {
        return;
    }
    api.log.note(Decision {
        at: api.app.now(),
        account: Some(root.key.account),
        key: verified.presented,
        outcome: verified.outcome(),
        ip: from,
        route: ROUTE.clone(),
        method: "POST",
        // Every verdict is answered so.
        status: StatusCode::OK.as_u16(),
        latency_us: u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX),
        request_id: root.origin.request_id.clone().unwrap_or_default(),
    });
}

impl Drop for Seen<'_> {
    fn drop(&mut self) {
        if self.judged {
            self.note(if std::thread::panicking() { 500 } else { CALLER_GONE });
        }
    }
}

//! What the gate tells the request log: one decision for each request that it judged.
//!
//! A [`Seen`] goes along with a request. Its time counts until the answer's head is ready. Dropped before
//! that, after the gate has judged, it notes the request all the same: its caller has gone (status 499), or its
//! handler has panicked (500). A request that the gate could not judge, as the database was away, is no
//! decision, and is not noted.
//!
//! It costs the request two small allocations and a push; all text is made by the log's writer.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::MatchedPath;
use axum::http::StatusCode;
use axum::http::request::Parts;
use listmill_shared::domain::key::Key;
use listmill_shared::domain::request::{Decision, Outcome};

use crate::Api;
use crate::health::method_name;
use crate::request_id::RequestId;

/// The status of a request whose caller did not wait for the answer.
const CALLER_GONE: u16 = 499;

/// A request on its way through the gate.
pub struct Seen<'a> {
    api: &'a Api,
    started: Instant,
    /// `None`: nothing is logged, or all is noted.
    decision: Option<Decision>,
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
        Self { api, started: Instant::now(), decision, judged: false }
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
            self.api.log.note(decision);
        }
    }
}

impl Drop for Seen<'_> {
    fn drop(&mut self) {
        if self.judged {
            self.note(if std::thread::panicking() { 500 } else { CALLER_GONE });
        }
    }
}

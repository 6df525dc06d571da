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
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use listmill_shared::domain::clock::Millis;
use listmill_shared::domain::id::{AccountId, KeyId};
use listmill_shared::domain::request::{Decision, Outcome};

use crate::Api;
use crate::health::method_name;

/// The status of a request whose caller did not wait for the answer.
const CALLER_GONE: u16 = 499;
/// Characters of a request id that a caller may choose.
const ID: usize = 64;

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
            request_id: request_id(&parts.headers).unwrap_or_else(|| new_request_id(api, at)),
        });
        Self { api, started: Instant::now(), decision, judged: false }
    }

    /// It comes from this address.
    pub fn caller(&mut self, ip: IpAddr) {
        if let Some(decision) = &mut self.decision {
            decision.ip = Some(ip);
        }
    }

    /// It presents this key, deleted ones included; `None` = one that nobody has, or none.
    pub fn key(&mut self, key: Option<(AccountId, KeyId)>) {
        if let Some(decision) = &mut self.decision {
            decision.account = key.map(|(account, _)| account);
            decision.key = key.map(|(_, key)| key);
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

/// The request's name, if its caller gave it a usable one.
fn request_id(headers: &HeaderMap) -> Option<String> {
    let text = headers.get("x-request-id")?.to_str().ok()?;
    let usable = (1..=ID).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    usable.then(|| text.to_owned())
}

/// A name for a request that has none.
fn new_request_id(api: &Api, at: Millis) -> String {
    format!("req_{}", api.app.ids.uuid(at).simple())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_may_name_a_request() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-request-id", text.parse().unwrap());
            request_id(&headers)
        };
        assert_eq!(of("abc-123/Z").as_deref(), Some("abc-123/Z"));
        assert_eq!(of(&"x".repeat(64)).map(|id| id.len()), Some(64));
        for text in ["", "two words", "tab\there", &"x".repeat(65)] {
            assert_eq!(of(text), None, "{text:?}");
        }
        assert_eq!(request_id(&HeaderMap::new()), None);
    }
}

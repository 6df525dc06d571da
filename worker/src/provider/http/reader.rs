//! Replies and faults, read: what they say of the address, and what of the service.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hyper::StatusCode;
use listmill_shared::domain::verdict::{Reason, Verdict};
use serde::Serialize;
use serde_json::Value;

use super::exchange::{Fault, Reply};
use super::mapping::{Decided, Mapping, Meaning};
use super::secrets::Secrets;

/// Octets of an answer, or of what went wrong, that are kept.
pub const MAX_TEXT: usize = 500;
/// Octets of a service's word that are kept.
const MAX_WORD: usize = 80;
/// Different words that no rule knows of which the log tells.
const MAX_TOLD: usize = 50;

/// What a verdict rests on; stored as JSON with the result.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// The service's HTTP status; absent: no answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<u16>,
    /// Where the deciding word stood (RFC 6901).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    /// The deciding word, or those that no rule knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub word: Option<String>,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// The answer's beginning; at most [`MAX_TEXT`] octets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Requests made.
    pub requests: u32,
}

/// What a request came to.
#[derive(Debug)]
pub enum Outcome {
    /// This is known of the address, if anything.
    Verdict(Box<Verdict>, Evidence),
    /// The service will answer nobody; people must act.
    Refused(Evidence),
    /// The service wants to be asked more slowly.
    Busy(Option<Duration>, Evidence),
    /// The service works on it; the same question later finds the answer.
    Unfinished(Evidence),
    /// It may go better the next time; if not, this is why.
    Failed(Reason, Evidence),
}

/// See the module.
pub struct Reader {
    mapping: Mapping,
    secrets: Secrets,
    told: Mutex<HashSet<String>>,
}

impl Reader {
    /// Nothing told yet.
    pub fn new(mapping: Mapping, secrets: Secrets) -> Self {
        Self { mapping, secrets, told: Mutex::default() }
    }

    /// Reads the end of one request.
    pub fn read(&self, ended: Result<Reply, Fault>) -> Outcome {
        let reply = match ended {
            Ok(reply) => reply,
            Err(fault) => return self.fault(&fault),
        };
        let mut evidence = Evidence {
            http: Some(reply.status.as_u16()),
            text: self.excerpt(&String::from_utf8_lossy(&reply.body)),
            ..Evidence::default()
        };
        let mut because = |problem: String| {
            evidence.problem = Some(problem);
            std::mem::take(&mut evidence)
        };
        match reply.status {
            StatusCode::ACCEPTED => {
                Outcome::Unfinished(because("the service is not done yet".into()))
            }
            status if status.is_success() => self.answer(&reply.body, evidence),
            StatusCode::UNAUTHORIZED => Outcome::Refused(because(
                "the service does not know our key: check http_key and http_header".into(),
            )),
            StatusCode::PAYMENT_REQUIRED => Outcome::Refused(because(
                "the service wants to be paid: top up the credit there".into(),
            )),
            StatusCode::FORBIDDEN => Outcome::Refused(because(
                "the service refuses us: check the key's rights and its list of allowed addresses"
                    .into(),
            )),
            status if status.is_redirection() => {
                let to = reply.location.as_deref().unwrap_or("elsewhere");
                Outcome::Refused(because(format!(
                    "the service redirects to {to}, and redirects are not followed, since they \
                     could carry the key elsewhere: set http_url to where it is now"
                )))
            }
            StatusCode::TOO_MANY_REQUESTS => {
                Outcome::Busy(reply.retry_after, because("the service is asked too often".into()))
            }
            StatusCode::SERVICE_UNAVAILABLE if reply.retry_after.is_some() => Outcome::Busy(
                reply.retry_after,
                because("the service is not available for a while".into()),
            ),
            status if status.is_server_error() => {
                Outcome::Failed(Reason::SmtpUnavailable, because("the service has a fault".into()))
            }
            _ => not_understood(false, because("the service does not take the request".into())),
        }
    }

    /// A text with nothing secret in it, and not too long.
    pub fn shown(&self, text: &str, most: usize) -> String {
        let text = self.secrets.hide(text);
        text[..text.floor_char_boundary(most)].to_owned()
    }

    fn excerpt(&self, text: &str) -> Option<String> {
        let text = self.shown(text.trim(), MAX_TEXT);
        // PostgreSQL takes no NUL, nobody takes the others.
        let text: String = text.chars().filter(|c| !c.is_control()).collect();
        (!text.is_empty()).then_some(text)
    }

    fn fault(&self, fault: &Fault) -> Outcome {
        let problem = Some(self.shown(&fault.to_string(), MAX_TEXT));
        let evidence = Evidence { problem, ..Evidence::default() };
        match fault {
            Fault::Timeout => Outcome::Failed(Reason::Timeout, evidence),
            Fault::Connect(_) => Outcome::Failed(Reason::NoConnect, evidence),
            Fault::Broken(_) => Outcome::Failed(Reason::SmtpUnavailable, evidence),
            Fault::TooLong => not_understood(true, evidence),
        }
    }

    fn answer(&self, body: &[u8], mut evidence: Evidence) -> Outcome {
        // Something in between may have answered in the service's place: worth asking again.
        let Ok(answer) = serde_json::from_slice::<Value>(body) else {
            evidence.problem = Some("the answer is not JSON".into());
            return not_understood(true, evidence);
        };
        let Some(Decided { pointer, word, meaning }) = self.mapping.decide(&answer) else {
            let words = self.shown(&self.mapping.words(&answer), MAX_WORD);
            self.tell(&words);
            evidence.problem = Some("no line of http_map fits the answer".into());
            evidence.word = Some(words);
            return not_understood(false, evidence);
        };
        evidence.pointer = Some(pointer.to_owned());
        evidence.word = Some(self.shown(&word, MAX_WORD));
        match meaning {
            Meaning::Down => {
                evidence.problem = Some(format!(
                    "the service says {:?} at {pointer}: check the key and the credit there",
                    evidence.word.as_deref().unwrap_or_default()
                ));
                Outcome::Refused(evidence)
            }
            Meaning::Says { reason, temporary } => {
                let verdict = self.mapping.verdict(&answer, reason, temporary);
                Outcome::Verdict(Box::new(verdict), evidence)
            }
        }
    }

    /// Logs words that no rule knows, once.
    fn tell(&self, words: &str) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() < MAX_TOLD && told.insert(words.to_owned()) {
            tracing::warn!(
                words,
                "the service answers {words:?}, which no line of http_map knows; such addresses are \
                 unknown, and not charged"
            );
        }
    }
}

fn not_understood(temporary: bool, evidence: Evidence) -> Outcome {
    let verdict = Verdict { temporary, ..Verdict::of(Reason::InternalError) };
    Outcome::Verdict(Box::new(verdict), evidence)
}

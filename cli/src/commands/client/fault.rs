//! What can go wrong between us and a server, in words for people.
//!
//! | fault | the server has | sent again |
//! | --- | --- | --- |
//! | `Unreached` | seen nothing of the request | only where an earlier try got through |
//! | `Broken` | perhaps done it | yes |
//! | `Silent` | perhaps done it | no: whoever waits has waited long enough |
//! | `Refused` | said why | where it asks to come again |
//! | `Foreign` | answered what no Listmill answers | no |

use std::error::Error;
use std::io::ErrorKind;
use std::time::Duration;

use rustls::CertificateError;
use serde_json::Value;

/// Characters of what a server says.
const WORDS: usize = 600;

/// See the module.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// No connection.
    #[error("no connection to {server}: {why}")]
    Unreached { server: String, why: String },
    /// The connection ended before the answer did.
    #[error("the connection to {server} broke: {why}")]
    Broken { server: String, why: String },
    /// Nothing came.
    #[error("{server} has been silent for {} s", limit.as_secs_f32())]
    Silent { server: String, limit: Duration },
    /// It says no.
    #[error("{0}")]
    Refused(Refusal),
    /// It is something else.
    #[error("{server} {what}. Is the address right?")]
    Foreign { server: String, what: String },
}

/// An answer that is none of success.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.text())]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// The stable `code` of a problem.
    pub code: Option<String>,
    /// Why.
    words: String,
    /// When to come again.
    pub wait: Option<Duration>,
}

impl Refusal {
    /// `None`: no answer of this product.
    pub fn read(status: u16, wait: Option<Duration>, body: &[u8]) -> Option<Self> {
        let passing = matches!(status, 429 | 502..=504);
        let body = serde_json::from_slice::<Value>(body).unwrap_or_default();
        let text = |field: &str| body[field].as_str().filter(|text| !text.is_empty());
        let words = match (text("detail"), text("error").or(text("title"))) {
            (Some(detail), _) => detail.to_owned(),
            (None, Some(error)) => match text("reason").or(text("message")) {
                Some(reason) => format!("{error}: {reason}"),
                None => error.to_owned(),
            },
            // What stands before a server says this as well.
            (None, None) if passing => String::from("the server cannot answer now"),
            (None, None) => return None,
        };
        let said = body["retry_after_seconds"].as_u64().map(Duration::from_secs);
        let code = text("code").map(printable);
        Some(Self { status, code, words: printable(&words), wait: wait.or(said) })
    }

    /// May the same succeed later, by itself?
    pub fn is_passing(&self) -> bool {
        matches!(self.status, 429 | 502..=504)
            || self.code.as_deref() == Some("idempotency_in_progress")
    }

    fn text(&self) -> String {
        let (status, words) = (self.status, self.words.trim_end_matches('.'));
        match (status, self.wait) {
            (401, _) => format!("the server does not take this key ({status}): {words}"),
            (402, _) => format!("not enough credits ({status}): {words}"),
            (_, Some(wait)) => format!("{words} ({status}); again in {} s", wait.as_secs()),
            _ => format!("{words} ({status})"),
        }
    }
}

impl Fault {
    /// What a failed request means.
    pub fn of(server: &str, error: &reqwest::Error) -> Self {
        let server = server.to_owned();
        let causes = causes(error);
        let why = causes.iter().find_map(|cause| meaning(*cause));
        if why.is_none() && causes.iter().any(|cause| cause.to_string().contains("HTTP version")) {
            return Self::Foreign {
                server,
                what: "does not speak HTTP (but perhaps https)".into(),
            };
        }
        let why = why.unwrap_or_else(|| match (error.is_timeout(), causes.last()) {
            (true, _) => String::from("nobody answers there in time"),
            (false, Some(last)) => printable(&last.to_string()),
            (false, None) => String::from("for no known reason"),
        });
        match error.is_connect() {
            true => Self::Unreached { server, why },
            false => Self::Broken { server, why },
        }
    }

    /// Would another key or another id be needed?
    pub fn is_final(&self) -> bool {
        match self {
            Self::Refused(refusal) => !refusal.is_passing() && refusal.status < 500,
            Self::Foreign { .. } => true,
            Self::Unreached { .. } | Self::Broken { .. } | Self::Silent { .. } => false,
        }
    }
}

/// What stands on a terminal as it is, and not for ever.
pub fn printable(text: &str) -> String {
    text.chars().take(WORDS).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// An error and what lies below it, what is wrapped as an I/O error included.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> Vec<&'a (dyn Error + 'static)> {
    let mut all = Vec::new();
    let mut next = Some(error);
    while let Some(cause) = next {
        all.push(cause);
        let wrapped = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = match wrapped {
            Some(wrapped) => Some(wrapped),
            None => cause.source(),
        };
    }
    all
}

fn meaning(cause: &(dyn Error + 'static)) -> Option<String> {
    if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
        return Some(match tls {
            rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
                "its certificate is signed by nobody that this machine trusts; --ca-file names an \
                 authority of your own"
                    .into()
            }
            rustls::Error::InvalidCertificate(why) if why.to_string().contains("CaUsedAs") => {
                "its certificate is that of an authority, which no server may show; make one with \
                 basicConstraints=CA:FALSE"
                    .into()
            }
            rustls::Error::InvalidCertificate(why) => {
                format!("its certificate cannot be trusted: {}", printable(&why.to_string()))
            }
            rustls::Error::InvalidMessage(_) => {
                String::from("it does not speak TLS there; is it http:// ?")
            }
            other => format!("TLS: {}", printable(&other.to_string())),
        });
    }
    if cause.to_string() == "dns error" {
        return Some(String::from("this name is not known"));
    }
    match cause.downcast_ref::<std::io::Error>()?.kind() {
        ErrorKind::ConnectionRefused => Some(String::from(
            "nobody listens there (connection refused). Is the server running, and the port right?",
        )),
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
            Some(String::from("it was closed by the other side"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(status: u16, body: &str) -> Option<String> {
        Refusal::read(status, None, body.as_bytes()).map(|refusal| refusal.to_string())
    }

    #[test]
    fn a_refusal_says_what_the_server_said() {
        let problem = r#"{"title":"Not found","detail":"There is no such task.","code":"x"}"#;
        assert_eq!(read(404, problem).unwrap(), "There is no such task (404)");
        let gate = r#"{"error":"API key is suspended","reason":"too fast\u001b[2J"}"#;
        assert_eq!(read(403, gate).unwrap(), "API key is suspended: too fast [2J (403)");
        let limit = r#"{"error":"Rate limit exceeded","retry_after_seconds":45}"#;
        assert_eq!(read(429, limit).unwrap(), "Rate limit exceeded (429); again in 45 s");
        assert!(read(401, r#"{"error":"Invalid or inactive API key"}"#).unwrap().contains("key"));
        assert!(read(404, "<html>").is_none());
        assert!(read(502, "<html>").is_some());
    }

    #[test]
    fn only_what_passes_is_asked_again() {
        let passing =
            |status, body: &str| Refusal::read(status, None, body.as_bytes()).unwrap().is_passing();
        assert!(passing(429, "{}") && passing(503, ""));
        assert!(passing(409, r#"{"title":"x","code":"idempotency_in_progress"}"#));
        assert!(!passing(409, r#"{"title":"x","code":"idempotency_key_reused"}"#));
        assert!(!passing(402, r#"{"title":"x"}"#));
    }
}

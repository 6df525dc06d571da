//! How far a check got, and what kept a server from a usable answer.

use serde::Serialize;

use super::reply::{Reply, ReplyError};

/// Octets of a server's words that are kept.
pub const MAX_TEXT: usize = 500;

/// How far a check got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Decided without asking anybody.
    #[default]
    List,
    /// DNS.
    Dns,
    /// TCP.
    Connect,
    /// The server's greeting.
    Banner,
    /// EHLO or HELO.
    Ehlo,
    /// STARTTLS.
    Tls,
    /// MAIL FROM (or RSET before it).
    Mail,
    /// RCPT TO.
    Rcpt,
}

/// A server that gave no usable answer.
#[derive(Debug, thiserror::Error)]
#[error("{stage:?}: {kind}")]
pub struct Fault {
    /// When.
    pub stage: Stage,
    /// How.
    pub kind: FaultKind,
}

/// See [`Fault`].
#[derive(Debug, thiserror::Error)]
pub enum FaultKind {
    #[error("no answer in time")]
    Timeout,
    #[error("the server closed the connection")]
    Closed,
    #[error("{0}")]
    Io(std::io::Error),
    #[error("{0}")]
    Garbled(ReplyError),
    #[error("{}", .0.excerpt(MAX_TEXT))]
    Refused(Reply),
    #[error("the address needs SMTPUTF8, which the server does not offer")]
    NoSmtpUtf8,
}

impl Fault {
    pub(super) fn new(stage: Stage, kind: FaultKind) -> Self {
        Self { stage, kind }
    }
}

//! What is submitted, and what becomes of it.

use super::doubt::MostlyInvalid;
use super::read::{Book, Format, ReadError, Said, Understood};
use super::source::BodyError;
use crate::domain::audit::{Actor, Origin};
use crate::domain::id::{AccountId, KeyId, TaskId};
use crate::domain::task::{Submitted, Task};
use crate::store::StoreError;
use crate::store::idempotency::RequestKey;

/// Renders a task, and how its list was understood, as the answer to its submission: status and body.
pub type Answer = fn(&Task, &Understood, now: i64) -> (i16, String);

/// A list to be received.
pub struct Submission {
    /// Who pays.
    pub account: AccountId,
    /// The key that submits it; history only.
    pub key: Option<KeyId>,
    /// The person who submits it, where no key does: written down in the audit log.
    pub by: Option<Origin>,
    /// The key has a limit of credits of its own.
    pub key_limited: bool,
    /// It is a test key: the sandbox verifies, and nothing is held or charged.
    pub sandbox: bool,
    /// How the list is written.
    pub format: Format,
    /// What else was said of it.
    pub said: Said,
    /// Whether it is packed with gzip on its way.
    pub gzip: bool,
    /// Take it however much of it is no address.
    pub allow_invalid: bool,
    /// The owner's name for it; a name in a JSON body wins.
    pub name: Option<String>,
    /// Run until credits end, instead of refusing.
    pub allow_partial: bool,
    /// Count only; nothing is stored.
    pub dry_run: bool,
    /// The client's idempotency key, and what else of the request belongs to its fingerprint.
    pub idempotency: Option<(RequestKey, String)>,
    /// Renders the answer that is remembered.
    pub answer: Answer,
}

impl Submission {
    /// Credits that such a list costs at most.
    pub(super) fn cost(&self, submitted: Submitted) -> i64 {
        if self.sandbox { 0 } else { submitted.chargeable() }
    }

    /// The person who submits it, by their email.
    pub(super) fn person(&self) -> Option<String> {
        match self.by.as_ref().map(|by| &by.actor) {
            Some(Actor::Person(email)) => Some(email.clone()),
            _ => None,
        }
    }
}

/// What a submission came to.
#[derive(Debug)]
pub enum Accepted {
    /// A task, with the answer as rendered.
    Task {
        /// Its id.
        id: Option<TaskId>,
        /// The answer's status.
        status: i16,
        /// The answer's body.
        body: String,
        /// The answer of an earlier request with the same idempotency key.
        replayed: bool,
    },
    /// Counted only.
    Counted {
        /// What the list holds.
        submitted: Submitted,
        /// Credits that it costs at most.
        cost: i64,
        /// What may be spent.
        balance: i64,
        /// What was read of a workbook.
        book: Option<Book>,
        /// What was found out of it.
        understood: Box<Understood>,
        /// Why it would not be taken.
        doubt: Option<Box<MostlyInvalid>>,
    },
}

/// Why a submission was refused; nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// The list itself.
    #[error(transparent)]
    Read(ReadError),
    /// A test key submits more than it may.
    #[error(
        "A test key takes lists of up to {limit} addresses. Send fewer, or submit the list with a live key."
    )]
    SandboxTooLong {
        /// The setting `test_task_addresses`.
        limit: u64,
    },
    /// How it came in.
    #[error(transparent)]
    Body(BodyError),
    /// So much of it is no address that it is probably another file than was meant.
    #[error(transparent)]
    MostlyInvalid(Box<MostlyInvalid>),
    /// It costs more than there is.
    #[error("the list needs {needed} credits, the balance is {balance}")]
    Insufficient {
        /// Chargeable addresses.
        needed: i64,
        /// What may be spent.
        balance: i64,
    },
    /// It costs more than is left of the key's own limit.
    #[error("the list needs {needed} credits, {left} are left of the key's limit of {limit}")]
    KeyLimit {
        /// Chargeable addresses.
        needed: i64,
        /// What is left of the limit.
        left: i64,
        /// The limit.
        limit: i64,
    },
    /// The idempotency key was used for another body.
    #[error("this Idempotency-Key was used with another request")]
    KeyReused,
    /// A part that is not offered.
    #[error("{0}")]
    Unsupported(&'static str),
    /// It took so long without a sign of life that the sweeper removed it.
    #[error("the submission was idle for too long and has been removed")]
    Abandoned,
    /// The database.
    #[error(transparent)]
    Store(StoreError),
}

impl From<StoreError> for SubmitError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::RowCount { what: "touch task" | "accept task", rows: 0, .. } => {
                SubmitError::Abandoned
            }
            error => SubmitError::Store(error),
        }
    }
}

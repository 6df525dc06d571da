//! A task: one bulk submission, owned by the account.
//!
//! ```text
//! ingesting → queued → running → completed
//!                ↑↓        ↑↓   ↘ cancelled (from queued, running and paused)
//!                 paused ──┘
//! ```
//!
//! `ingesting` is never shown. Counters of ended batches are folded into the task row; those of
//! open batches are added when it is read.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::audit::Actor;
use super::clock::Millis;
use super::id::{AccountId, KeyId, TaskId};
use super::verdict::{Credit, Status};

/// Where a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TaskStatus {
    /// Being received; nobody sees it.
    Ingesting,
    /// Accepted, no address started.
    Queued,
    /// At work.
    Running,
    /// Standing still, see [`PauseReason`].
    Paused,
    /// Ended by its owner.
    Cancelled,
    /// Every address has its result.
    Completed,
    /// Ended because its stored list is damaged.
    Failed,
}

/// Why a task stands still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PauseReason {
    /// The balance is empty; goes on by itself after a grant.
    InsufficientCredits,
    /// The owner asked for it.
    Requested,
    /// No worker can verify: outbound SMTP is blocked, say. Goes on by itself when one can.
    ProviderUnavailable,
}

impl TaskStatus {
    /// Every status that is shown.
    pub const SHOWN: &[TaskStatus] = &[
        TaskStatus::Queued,
        TaskStatus::Running,
        TaskStatus::Paused,
        TaskStatus::Cancelled,
        TaskStatus::Completed,
        TaskStatus::Failed,
    ];

    /// The name, outside and in SQL.
    pub const fn as_str(self) -> &'static str {
        match self {
            TaskStatus::Ingesting => "ingesting",
            TaskStatus::Queued => "queued",
            TaskStatus::Running => "running",
            TaskStatus::Paused => "paused",
            TaskStatus::Cancelled => "cancelled",
            TaskStatus::Completed => "completed",
            TaskStatus::Failed => "failed",
        }
    }

    /// May its batches be leased?
    pub const fn is_active(self) -> bool {
        matches!(self, TaskStatus::Queued | TaskStatus::Running)
    }

    /// Does it never change again?
    pub const fn has_ended(self) -> bool {
        matches!(self, TaskStatus::Cancelled | TaskStatus::Completed | TaskStatus::Failed)
    }
}

impl fmt::Display for TaskStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for TaskStatus {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.as_str())
    }
}

/// A name that is not a task's status.
#[derive(Debug, thiserror::Error)]
#[error("unknown task status; known: queued, running, paused, cancelled, completed, failed")]
pub struct BadStatus;

impl FromStr for TaskStatus {
    type Err = BadStatus;

    fn from_str(text: &str) -> Result<Self, BadStatus> {
        Self::SHOWN.iter().copied().find(|s| s.as_str() == text).ok_or(BadStatus)
    }
}

impl PauseReason {
    /// The name, outside and in SQL.
    pub const fn as_str(self) -> &'static str {
        match self {
            PauseReason::InsufficientCredits => "insufficient_credits",
            PauseReason::Requested => "requested",
            PauseReason::ProviderUnavailable => "provider_unavailable",
        }
    }

    /// From the stored name.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "insufficient_credits" => Some(PauseReason::InsufficientCredits),
            "requested" => Some(PauseReason::Requested),
            "provider_unavailable" => Some(PauseReason::ProviderUnavailable),
            _ => None,
        }
    }
}

/// Verdicts and credits counted over addresses; adds up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Addresses by status.
    pub deliverable: i64,
    /// See `deliverable`.
    pub undeliverable: i64,
    /// See `deliverable`.
    pub risky: i64,
    /// See `deliverable`.
    pub unknown: i64,
    /// Addresses that cost a credit.
    pub charged: i64,
    /// Addresses whose held credit went back with an unknown verdict.
    pub refunded: i64,
}

impl Tally {
    /// Counts one result.
    pub fn count(&mut self, status: Status, credit: Credit) {
        *match status {
            Status::Deliverable => &mut self.deliverable,
            Status::Undeliverable => &mut self.undeliverable,
            Status::Risky => &mut self.risky,
            Status::Unknown => &mut self.unknown,
        } += 1;
        match credit {
            Credit::Charged => self.charged += 1,
            Credit::Refunded => self.refunded += 1,
            Credit::Free => {}
        }
    }

    /// Addresses with a result.
    pub fn processed(&self) -> i64 {
        self.deliverable + self.undeliverable + self.risky + self.unknown
    }

    /// Held credits that these results have used, either way.
    pub fn resolved(&self) -> i64 {
        self.charged + self.refunded
    }
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.deliverable += other.deliverable;
        self.undeliverable += other.undeliverable;
        self.risky += other.risky;
        self.unknown += other.unknown;
        self.charged += other.charged;
        self.refunded += other.refunded;
    }
}

/// What a submission held, counted while it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Submitted {
    /// Rows with an address, valid or not.
    pub submitted: i64,
    /// Distinct addresses; each gets one result.
    pub unique: i64,
    /// Rows that repeat an address.
    pub duplicates: i64,
    /// Distinct addresses with bad syntax; free.
    pub invalid_syntax: i64,
}

impl Submitted {
    /// Addresses that may cost a credit.
    pub fn chargeable(&self) -> i64 {
        self.unique - self.invalid_syntax
    }
}

/// A task as read, its open batches included.
#[derive(Debug, Clone)]
pub struct Task {
    /// Its id.
    pub id: TaskId,
    /// Its owner.
    pub account: AccountId,
    /// The key that submitted it; history only, nothing depends on it.
    pub created_by_key: Option<KeyId>,
    /// The person who submitted it, by their email; likewise.
    pub created_by_person: Option<String>,
    /// A test key submitted it: the sandbox verifies, and nothing is held or charged. Never changes.
    pub sandbox: bool,
    /// The owner's name for it.
    pub name: Option<String>,
    /// Where it stands.
    pub status: TaskStatus,
    /// Why, when paused.
    pub pause_reason: Option<PauseReason>,
    /// What came in.
    pub submitted: Submitted,
    /// What is done.
    pub tally: Tally,
    /// Credits held now.
    pub held: i64,
    /// Held credits that the cancellation gave back.
    pub released: i64,
    /// When it was accepted.
    pub created_at: Millis,
    /// When its first address started.
    pub started_at: Option<Millis>,
    /// When it ended.
    pub finished_at: Option<Millis>,
    /// Batches in all.
    pub batches: i64,
}

impl Task {
    /// Who submitted it.
    pub fn created_by(&self) -> Actor {
        match (&self.created_by_person, self.created_by_key) {
            (Some(email), _) => Actor::Person(email.clone()),
            (None, Some(key)) => Actor::Key(key),
            (None, None) => Actor::Operator,
        }
    }

    /// When it is erased with its results, where those are kept for `ttl` (0: for ever); not known before its end.
    pub fn results_expire_at(&self, ttl: Duration) -> Option<Millis> {
        let ttl = i64::try_from(ttl.as_millis()).ok().filter(|ttl| *ttl > 0)?;
        self.finished_at?.checked_add(ttl)
    }

    /// Share of addresses done, 0 to 100, floored so that 100 means all.
    pub fn progress(&self) -> i64 {
        match self.submitted.unique {
            0 => 100,
            unique => self.tally.processed() * 100 / unique,
        }
    }

    /// Seconds to go at the pace so far; none unless running with something done.
    pub fn eta_seconds(&self, now: Millis) -> Option<i64> {
        let done = self.tally.processed();
        let started = self.started_at.filter(|_| self.status == TaskStatus::Running)?;
        (done > 0).then(|| {
            let left = self.submitted.unique - done;
            (now - started).max(0) * left / done / 1000
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shown_status_parses_back() {
        for status in TaskStatus::SHOWN {
            assert_eq!(status.as_str().parse::<TaskStatus>().unwrap(), *status);
        }
        assert!("ingesting".parse::<TaskStatus>().is_err());
    }

    #[test]
    fn a_tally_counts_each_result_once() {
        let mut tally = Tally::default();
        tally.count(Status::Deliverable, Credit::Charged);
        tally.count(Status::Undeliverable, Credit::Free);
        tally.count(Status::Unknown, Credit::Refunded);
        assert_eq!((tally.processed(), tally.resolved()), (3, 2));
    }
}

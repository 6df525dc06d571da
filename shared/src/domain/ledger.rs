//! Credits: kinds, movements and the account of them.
//!
//! A credit is in one of three places: the balance, held, or charged. Every entry moves `amount`
//! (always positive, but for `adjust`) in the direction that its type names:
//!
//! | type | moves |
//! | --- | --- |
//! | `grant` | from outside to the balance |
//! | `adjust` | outside ↔ balance, signed |
//! | `hold` | balance → held |
//! | `charge` | held → charged |
//! | `refund` | held → balance |
//!
//! So per account and kind, always: grants + adjustments = balance + held + charged.

use serde::Serialize;

use super::clock::Millis;
use super::id::{AccountId, TaskId};

/// Kinds of credit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Pays for addresses.
    Email,
    /// Pays for phone numbers.
    Phone,
}

impl Kind {
    /// Every kind.
    pub const ALL: &[Kind] = &[Kind::Email, Kind::Phone];

    /// The name, outside and in SQL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Email => "email",
            Kind::Phone => "phone",
        }
    }

    /// From its name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.as_str() == name)
    }
}

/// Types of entry; see the module's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryType {
    /// Credits bought or given.
    Grant,
    /// Credits taken for started addresses.
    Hold,
    /// Held credits used.
    Charge,
    /// Held credits given back.
    Refund,
    /// A correction by an operator.
    Adjust,
}

impl EntryType {
    /// Every type.
    pub const ALL: &[EntryType] = &[
        EntryType::Grant,
        EntryType::Hold,
        EntryType::Charge,
        EntryType::Refund,
        EntryType::Adjust,
    ];

    /// From its name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|entry| entry.as_str() == name)
    }

    /// The name, outside and in SQL.
    pub const fn as_str(self) -> &'static str {
        match self {
            EntryType::Grant => "grant",
            EntryType::Hold => "hold",
            EntryType::Charge => "charge",
            EntryType::Refund => "refund",
            EntryType::Adjust => "adjust",
        }
    }
}

/// Movements of one account and kind that happen together, to be posted.
#[derive(Debug, Clone)]
pub struct Transfer {
    /// Whose.
    pub account: AccountId,
    /// Which kind of credit.
    pub kind: Kind,
    /// What moves, in this order.
    pub movements: Vec<Movement>,
}

/// One movement, to be posted.
#[derive(Debug, Clone)]
pub struct Movement {
    /// Which way.
    pub entry: EntryType,
    /// How many.
    pub amount: i64,
    /// For which task, if any.
    pub task: Option<TaskId>,
    /// The step that moved them; a step writes each type of entry at most once.
    pub step: Option<i64>,
    /// For people.
    pub note: Option<String>,
}

impl Movement {
    /// What it adds to the balance.
    pub fn delta(&self) -> i64 {
        match self.entry {
            EntryType::Grant | EntryType::Refund | EntryType::Adjust => self.amount,
            EntryType::Hold => -self.amount,
            EntryType::Charge => 0,
        }
    }
}

/// The books of one account and kind, read in one snapshot.
#[derive(Debug, Clone, Serialize)]
pub struct Books {
    /// Whose.
    pub account: AccountId,
    /// Its email, for people.
    pub email: String,
    /// Which kind.
    pub kind: String,
    /// Sum of `grant` and `adjust` entries.
    pub granted: i64,
    /// What may be spent.
    pub balance: i64,
    /// Held by leases and single verifications.
    pub held: i64,
    /// Results and single verifications that cost a credit.
    pub charged: i64,
    /// Sum of `charge` entries.
    pub ledger_charged: i64,
    /// Balance as the entries give it.
    pub ledger_balance: i64,
    /// Held as the entries give it.
    pub ledger_held: i64,
}

impl Books {
    /// Is there anything to show? Every account has a balance of each kind, used or not.
    pub fn is_used(&self) -> bool {
        let Self { granted, balance, held, charged, .. } = *self;
        let sums = [granted, balance, held, charged];
        self.kind == Kind::Email.as_str() || sums != [0; 4] || !self.faults().is_empty()
    }

    /// What is wrong with them, in words; empty when exact.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut same = |what: &str, left: i64, right: i64| {
            if left != right {
                faults.push(format!("{what}: {left} is not {right}"));
            }
        };
        same(
            "grants + adjustments = balance + held + charged",
            self.granted,
            self.balance + self.held + self.charged,
        );
        same("ledger's charges = charged results", self.ledger_charged, self.charged);
        same("ledger's balance = balance", self.ledger_balance, self.balance);
        same("ledger's holds = held", self.ledger_held, self.held);
        if self.balance < 0 {
            faults.push(format!("balance {} is below zero", self.balance));
        }
        faults
    }
}

/// When an entry was written, with its number.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its number, ascending per account.
    pub id: i64,
    /// Which kind of credit.
    pub kind: String,
    /// Which way.
    pub entry: String,
    /// How many.
    pub amount: i64,
    /// The balance afterwards.
    pub balance_after: i64,
    /// For which task.
    pub task: Option<TaskId>,
    /// When.
    pub created_at: Millis,
    /// For people.
    pub note: Option<String>,
}

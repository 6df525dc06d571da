//! Why the store could not do it, and what that means for whoever has to write.
//!
//! Every code of the database has a [`Class`]; a code that nobody thought of is [`Class::Unknown`], which
//! loses nothing either: it is told loudly and tried again. Sources: PostgreSQL manual, Appendix A, "PostgreSQL
//! Error Codes"; SQLite, "Result and Extended Result Codes".

use std::time::Duration;

/// Why the store could not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database is away, or refused the statement.
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
    /// The database did not answer in time; the connection was given up.
    #[error("database: no answer within {0:?}")]
    Slow(Duration),
    /// Every connection was in use, or none could be made in time.
    #[error("database: no connection within {0:?}")]
    NoConnection(Duration),
    /// The connection was given up by an earlier statement.
    #[error("database: the connection was given up")]
    Broken,
    /// The look-up was not answered; the cause is logged where it happened.
    #[error("database: the look-up was not answered")]
    Away,
    /// The schema could not be brought up to date.
    #[error("migration: {0}")]
    Migrate(#[source] sqlx::migrate::MigrateError),
    /// The schema is from a later version of Listmill.
    #[error(
        "the database's schema (version {found}) is newer than this program knows ({known}): \
         run a newer listmill, or restore the backup made before the upgrade"
    )]
    SchemaTooNew {
        /// In the database.
        found: i64,
        /// In this program.
        known: i64,
    },
    /// The schema is older than this program needs.
    #[error("the database's schema is not up to date: run `listmill migrate` first")]
    SchemaTooOld,
    /// A statement touched other rows than it must: a bug, and nothing was written.
    #[error("{what} touched {rows} rows instead of {want}")]
    RowCount {
        /// Which statement.
        what: &'static str,
        /// Rows touched.
        rows: u64,
        /// Rows wanted.
        want: u64,
    },
    /// A stored value that this program cannot read.
    #[error("stored {what} is damaged: {detail}")]
    Damaged {
        /// What kind of value.
        what: &'static str,
        /// What is wrong.
        detail: String,
    },
}

/// What a failure means for a write that must not be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// It passes by itself: try again.
    Retry,
    /// It would fail for ever: this very write is wrong.
    Poison,
    /// Nobody knows: keep the write, try again, and say so loudly.
    Unknown,
}

impl StoreError {
    /// What it means for a write.
    pub fn class(&self) -> Class {
        match self {
            StoreError::Slow(_)
            | StoreError::NoConnection(_)
            | StoreError::Broken
            | StoreError::Away => Class::Retry,
            StoreError::Database(error) => class_of(error),
            StoreError::RowCount { .. } | StoreError::Damaged { .. } => Class::Poison,
            StoreError::Migrate(_) | StoreError::SchemaTooNew { .. } | StoreError::SchemaTooOld => {
                Class::Unknown
            }
        }
    }

    /// Is it worth trying again by itself?
    pub fn is_transient(&self) -> bool {
        self.class() == Class::Retry
    }

    /// Did a unique key refuse it?
    pub fn is_conflict(&self) -> bool {
        matches!(self, StoreError::Database(sqlx::Error::Database(e)) if e.is_unique_violation())
    }

    /// Is there no room left on the database's disk?
    pub fn is_full(&self) -> bool {
        // SQLITE_FULL; SQLITE_IOERR_SHMSIZE: no room for the index of the log.
        self.code().is_some_and(|code| matches!(code.as_ref(), "53100" | "13" | "4874"))
    }

    /// Does the database take no writes: a standby, or one that was set so?
    pub fn is_read_only(&self) -> bool {
        self.code().is_some_and(|code| code == "25006" || sqlite_primary(&code) == Some(8))
    }

    /// Was it waited for in vain that somebody lets go of a row?
    pub fn is_held(&self) -> bool {
        self.code().is_some_and(|code| code == "55P03")
    }

    fn code(&self) -> Option<std::borrow::Cow<'_, str>> {
        match self {
            StoreError::Database(sqlx::Error::Database(error)) => error.code(),
            _ => None,
        }
    }
}

fn class_of(error: &sqlx::Error) -> Class {
    match error {
        sqlx::Error::Database(database) => match database.code() {
            Some(code) => class_of_code(&code),
            None => Class::Unknown,
        },
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::BeginFailed
        | sqlx::Error::WorkerCrashed => Class::Retry,
        sqlx::Error::RowNotFound
        | sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::Decode(_)
        | sqlx::Error::Encode(_) => Class::Poison,
        _ => Class::Unknown,
    }
}

/// SQLSTATEs have five characters, SQLite's codes are numbers of at most four digits.
fn class_of_code(code: &str) -> Class {
    if code.len() == 5 { class_of_sqlstate(code) } else { class_of_sqlite(code) }
}

fn class_of_sqlstate(code: &str) -> Class {
    match (&code[..2], code) {
        // A plan that a migration made stale; a prepared statement that a pooler or failover lost.
        (_, "0A000") | ("26", _) => Class::Retry,
        // Connections, transactions begun or ended by others, log-in, rollback, resources, limits, locks,
        // operators, the server's own disks.
        ("08" | "0B" | "25" | "28" | "2D" | "40" | "53" | "55" | "57" | "58" | "72", _) => {
            Class::Retry
        }
        // Values and constraints: the data itself.
        ("20" | "21" | "22" | "23" | "27" | "44" | "54" | "P0", _) => Class::Poison,
        _ => Class::Unknown,
    }
}

fn class_of_sqlite(code: &str) -> Class {
    match sqlite_primary(code) {
        // ABORT, BUSY, LOCKED, NOMEM, READONLY, INTERRUPT, IOERR, FULL, CANTOPEN, PROTOCOL, SCHEMA.
        Some(4..=10 | 13..=15 | 17) => Class::Retry,
        // TOOBIG, CONSTRAINT, MISMATCH, RANGE.
        Some(18..=20 | 25) => Class::Poison,
        _ => Class::Unknown,
    }
}

/// The lowest byte of an extended code.
fn sqlite_primary(code: &str) -> Option<u32> {
    if code.len() == 5 { None } else { code.parse::<u32>().ok().map(|code| code & 0xff) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_by_itself_is_tried_again() {
        for code in [
            "08006", "25P02", "25P03", "25P04", "25006", "40001", "40P01", "53100", "53300",
            "55P03", "57014", "57P01", "58030", "26000", "0A000", "28P01", "5", "6", "8", "10",
            "13", "261", "266", "517", "778", "4874",
        ] {
            assert_eq!(class_of_code(code), Class::Retry, "{code}");
        }
    }

    #[test]
    fn wrong_data_is_poison_and_the_rest_is_kept() {
        for code in ["22001", "22P05", "23505", "23514", "54000", "19", "2067", "18", "20"] {
            assert_eq!(class_of_code(code), Class::Poison, "{code}");
        }
        for code in ["42P01", "42501", "XX000", "F0000", "HV000", "1", "11", "26", "x", ""] {
            assert_eq!(class_of_code(code), Class::Unknown, "{code}");
        }
    }
}

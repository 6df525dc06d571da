//! The database's state as a whole: does it take writes, who holds up whom, and which sessions belong to a
//! process that is frozen.
//!
//! A frozen process's transaction is ended by the server (`idle_in_transaction_session_timeout`), unless it
//! froze in the middle of a statement that the server waits for: those are ended by [`Store::end_frozen`].

use std::time::Duration;

use sqlx::FromRow;

use super::lend::LOOK_UP;
use super::{Result, Store, expect_rows, on, within};
use crate::domain::clock::Millis;

/// Can the database be worked with?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It takes writes.
    Ok,
    /// It answers, and takes no writes.
    ReadOnly,
    /// Its disk is full.
    Full,
    /// It does not answer.
    Away,
}

impl Health {
    /// As `/readyz` says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Health::Ok => "ok",
            Health::ReadOnly => "read_only",
            Health::Full => "full",
            Health::Away => "away",
        }
    }
}

/// A session that holds what others wait for.
#[derive(Debug, Clone, FromRow)]
pub struct Blocker {
    /// The server's process.
    pub pid: i32,
    /// What the session is called: role and process id for ours.
    pub name: String,
    /// What it is doing.
    pub state: String,
    /// Its transaction's age.
    pub seconds: f64,
    /// Sessions of ours that wait for it.
    pub waiting: i64,
}

/// A session of ours whose client stopped in the middle of a statement.
#[derive(Debug, Clone, FromRow)]
pub struct Frozen {
    /// The server's process.
    pub pid: i32,
    /// What the session is called.
    pub name: String,
}

impl Store {
    /// Can it be read and written? On SQLite by writing, as only that shows a full disk.
    pub async fn health(&self, now: Millis) -> Health {
        self.try_health(now).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "the database is not well");
            if error.is_full() {
                Health::Full
            } else if error.is_read_only() {
                Health::ReadOnly
            } else {
                Health::Away
            }
        })
    }

    async fn try_health(&self, now: Millis) -> Result<Health> {
        const READ_ONLY_PG: &str = "SELECT current_setting('transaction_read_only') = 'on'";
        const WRITTEN: &str = "INSERT INTO versions (name, value) VALUES ('written', $1)
            ON CONFLICT (name) DO UPDATE SET value = $1";
        match self {
            Store::Pg(lender) => {
                let mut lent = lender.lend(LOOK_UP).await?;
                let read_only: bool =
                    within!(&mut lent, c => sqlx::query_scalar(READ_ONLY_PG).fetch_one(c).await)?;
                Ok(if read_only { Health::ReadOnly } else { Health::Ok })
            }
            Store::Lite { .. } => {
                let mut tx = self.begin().await?;
                let rows = on!(&mut tx, c => sqlx::query(WRITTEN).bind(now)
                    .execute(c).await.map(|r| r.rows_affected()))?;
                expect_rows("written", rows, 1)?;
                tx.commit().await?;
                Ok(Health::Ok)
            }
        }
    }

    /// Who holds up sessions of ours for longer than a second; nobody on SQLite.
    pub async fn blockers(&self) -> Result<Vec<Blocker>> {
        const PG: &str = "SELECT b.pid, b.application_name AS name,
                concat_ws(' ', b.state, b.wait_event) AS state,
                COALESCE(extract(epoch FROM clock_timestamp() - b.xact_start), 0)::float8 AS seconds,
                count(*) AS waiting
            FROM (SELECT DISTINCT w.pid, unnest(pg_blocking_pids(w.pid)) AS blocker
                FROM pg_stat_activity w
                WHERE w.datname = current_database() AND w.wait_event_type = 'Lock'
                  AND w.application_name LIKE 'listmill%'
                  AND w.state_change < clock_timestamp() - interval '1 second') x
            JOIN pg_stat_activity b ON b.pid = x.blocker
            GROUP BY b.pid, b.application_name, b.state, b.wait_event, b.xact_start";
        let Store::Pg(lender) = self else { return Ok(Vec::new()) };
        let mut lent = lender.lend(LOOK_UP).await?;
        within!(&mut lent, c => sqlx::query_as(PG).fetch_all(c).await)
    }

    /// Ends sessions of ours that hold something and whose client has not gone on with a statement for
    /// `after`; none on SQLite.
    pub async fn end_frozen(&self, after: Duration) -> Result<Vec<Frozen>> {
        const PG: &str = "SELECT pid, name FROM (
                SELECT pid, application_name AS name, pg_terminate_backend(pid) AS ended
                FROM pg_stat_activity
                WHERE datname = current_database() AND usename = current_user
                  AND application_name LIKE 'listmill%' AND pid <> pg_backend_pid()
                  AND state = 'active' AND wait_event_type = 'Client' AND backend_xid IS NOT NULL
                  AND state_change < clock_timestamp() - make_interval(secs => $1)) f
            WHERE ended";
        let Store::Pg(lender) = self else { return Ok(Vec::new()) };
        let mut lent = lender.lend(LOOK_UP).await?;
        within!(&mut lent, c => sqlx::query_as(PG).bind(after.as_secs_f64()).fetch_all(c).await)
    }
}

//! Figures of the whole installation, for its operators: each read by an index, and counted up to a bound, so that
//! a page costs the same however much is stored.

use sqlx::FromRow;

use super::{Result, Store, read};
use crate::domain::clock::Millis;
use crate::domain::id::{AccountId, TaskId};

/// Rows that are counted at most.
pub const MOST: i64 = 100_000;

/// Batches that have not ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromRow)]
pub struct Batches {
    /// Nobody has been told of them yet.
    pub pending: i64,
    /// Sent, and in no worker's hands.
    pub queued: i64,
    /// In a worker's hands.
    pub leased: i64,
    /// They wait until a mail server wants to be asked again.
    pub deferred: i64,
    /// When the first of those is due.
    pub due_at: Option<Millis>,
    /// Since when an account has waited to be served.
    pub waiting_since: Option<Millis>,
}

/// The oldest task that no batch of was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromRow)]
pub struct OldestTask {
    /// Its id.
    pub id: TaskId,
    /// When it was submitted.
    pub created_at: Millis,
}

/// Leases of workers that send from one place.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Leased {
    /// From where.
    pub source: String,
    /// How many.
    pub leases: i64,
    /// When the first of them ends unless it is renewed.
    pub due_at: Millis,
}

/// A request's latency and status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromRow)]
pub struct Answered {
    /// HTTP status.
    pub status: i16,
    /// Microseconds until the answer's head was ready.
    pub latency_us: i32,
    /// When it arrived.
    pub at: Millis,
}

/// What an account waits for.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Waiting {
    /// Whose.
    pub account_id: AccountId,
    /// Its email.
    pub email: String,
    /// Tasks with addresses that nobody works at.
    pub tasks: i64,
    /// Batches of theirs that nobody works at.
    pub batches: i64,
    /// Addresses in those that have no result.
    pub addresses: i64,
    /// When the oldest of these tasks was submitted.
    pub since: Millis,
}

impl Store {
    /// What waits in the queue, by account, the longest wait first: batches of tasks that are not paused, and that
    /// are in no worker's hands; up to [`MOST`] of each state.
    pub async fn waiting_by_account(&self, limit: i64) -> Result<Vec<Waiting>> {
        const SQL: &str = "SELECT a.id AS account_id, a.email,
                count(DISTINCT w.task_id) AS tasks, count(*) AS batches,
                CAST(SUM(w.addresses) AS BIGINT) AS addresses, MIN(w.created_at) AS since
            FROM (SELECT t.account_id, t.created_at, b.task_id,
                    b.addresses - b.deliverable - b.undeliverable - b.risky - b.unknown AS addresses
                FROM (SELECT * FROM (SELECT task_id, no FROM batches WHERE state = 0 LIMIT $1) p
                    UNION ALL SELECT * FROM (SELECT task_id, no FROM batches
                        WHERE state IN (1, 2) AND state = 1 LIMIT $1) q
                    UNION ALL SELECT * FROM (SELECT task_id, no FROM batches
                        WHERE state = 5 LIMIT $1) d) n
                JOIN batches b ON b.task_id = n.task_id AND b.no = n.no
                JOIN tasks t ON t.id = n.task_id AND t.status IN ('queued', 'running')) w
            JOIN accounts a ON a.id = w.account_id
            GROUP BY a.id, a.email ORDER BY since, a.id LIMIT $2";
        read!(self, c => sqlx::query_as(SQL).bind(MOST).bind(limit).fetch_all(c).await)
    }

    /// Tasks that have not ended, by status and, when paused, by reason.
    pub async fn unended_tasks(&self) -> Result<Vec<(String, String, i64)>> {
        const SQL: &str = "SELECT status, reason, count(*) FROM (
                SELECT * FROM (SELECT status, '' AS reason FROM tasks
                    WHERE status IN ('queued', 'running') LIMIT $1) a
                UNION ALL SELECT * FROM (SELECT status, COALESCE(pause_reason, '') FROM tasks
                    WHERE status = 'paused' LIMIT $1) p
                UNION ALL SELECT * FROM (SELECT status, '' FROM tasks
                    WHERE status = 'ingesting' LIMIT $1) i) n
            GROUP BY status, reason ORDER BY status, reason";
        read!(self, c => sqlx::query_as(SQL).bind(MOST).fetch_all(c).await)
    }

    /// Tasks by status, of those whose id is not before `from`: ids follow the time.
    pub async fn tasks_since(&self, from: TaskId) -> Result<Vec<(String, i64)>> {
        const SQL: &str = "SELECT status, count(*) FROM (
                SELECT status FROM tasks WHERE id >= $1 ORDER BY id DESC LIMIT $2) n
            GROUP BY status ORDER BY status";
        read!(self, c => sqlx::query_as(SQL).bind(from).bind(MOST).fetch_all(c).await)
    }

    /// Batches that have not ended.
    pub async fn open_batches_by_state(&self) -> Result<Batches> {
        const SQL: &str = "SELECT
            (SELECT count(*) FROM (SELECT no FROM batches WHERE state = 0 LIMIT $1) n) AS pending,
            (SELECT count(*) FROM (SELECT no FROM batches
                WHERE state IN (1, 2) AND state = 1 LIMIT $1) n) AS queued,
            (SELECT count(*) FROM (SELECT no FROM batches
                WHERE state IN (1, 2) AND state = 2 LIMIT $1) n) AS leased,
            (SELECT count(*) FROM (SELECT no FROM batches WHERE state = 5 LIMIT $1) n) AS deferred,
            (SELECT MIN(due_at) FROM batches WHERE state = 5) AS due_at,
            (SELECT MIN(turn) FROM ready_accounts) AS waiting_since";
        read!(self, c => sqlx::query_as(SQL).bind(MOST).fetch_one(c).await)
    }

    /// The oldest task that waits to be begun.
    pub async fn oldest_queued(&self) -> Result<Option<OldestTask>> {
        const SQL: &str = "SELECT id, created_at FROM (
                SELECT id, created_at, status FROM tasks WHERE status IN ('queued', 'running')
                ORDER BY id LIMIT $1) n
            WHERE status = 'queued' ORDER BY id LIMIT 1";
        read!(self, c => sqlx::query_as(SQL).bind(MOST).fetch_optional(c).await)
    }

    /// What is leased, by where its worker sends from.
    pub async fn leases_by_source(&self) -> Result<Vec<Leased>> {
        const SQL: &str = "SELECT source, count(*) AS leases, MIN(due_at) AS due_at FROM (
                SELECT COALESCE(source, '') AS source, due_at FROM batches
                WHERE state IN (1, 2) AND state = 2 LIMIT $1) n
            GROUP BY source ORDER BY source LIMIT 500";
        read!(self, c => sqlx::query_as(SQL).bind(MOST).fetch_all(c).await)
    }

    /// Refused requests since an hour's beginning, by outcome: its number, and how many.
    pub async fn refusals_since(&self, hour: Millis) -> Result<Vec<(i16, i64)>> {
        const SQL: &str = "SELECT outcome, CAST(SUM(requests) AS BIGINT) FROM (
                SELECT outcome, requests FROM usage_hours WHERE at >= $1 AND outcome <> 0
                ORDER BY at DESC LIMIT $2) n
            GROUP BY outcome ORDER BY outcome";
        read!(self, c => sqlx::query_as(SQL).bind(hour).bind(MOST).fetch_all(c).await)
    }

    /// The newest requests of the log.
    pub async fn last_answers(&self, limit: i64) -> Result<Vec<Answered>> {
        const SQL: &str =
            "SELECT status, latency_us, at FROM request_log ORDER BY id DESC LIMIT $1";
        read!(self, c => sqlx::query_as(SQL).bind(limit).fetch_all(c).await)
    }
}

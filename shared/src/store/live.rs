//! What the live stream of an account asks, over and over: which tasks are open, which have ended or were erased
//! since a time, and the balance. Each statement goes by a partial index of its own, so it reads what it tells.

use sqlx::FromRow;

use super::{Result, Store, read};
use crate::domain::clock::Millis;
use crate::domain::id::{AccountId, KeyId, TaskId};

/// A task's place in one of these lists, and who may hear of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromRow)]
pub struct Mark {
    /// Which.
    pub id: TaskId,
    /// When it was accepted, ended or erased: what its list is sorted by.
    pub at: Millis,
    /// The family of the key that submitted it.
    pub family: Option<KeyId>,
    /// A sandbox task.
    pub sandbox: bool,
}

/// Email credits of an account at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromRow)]
pub struct Money {
    /// What may be spent.
    pub balance: i64,
    /// What is held for addresses that are being verified.
    pub held: i64,
}

impl Store {
    /// Tasks of an account that have not ended, newest first.
    pub async fn open_tasks(&self, account: AccountId, limit: i64) -> Result<Vec<Mark>> {
        const SQL: &str = "SELECT t.id, t.created_at AS at, t.sandbox,
                (SELECT k.family FROM api_keys k WHERE k.id = t.created_by_key) AS family
            FROM tasks t
            WHERE t.account_id = $1 AND t.status IN ('queued', 'running', 'paused')
              AND t.deleted_at IS NULL
            ORDER BY t.account_id DESC, t.id DESC LIMIT $2";
        Ok(read!(self, c => sqlx::query_as(SQL).bind(account).bind(limit).fetch_all(c).await)?)
    }

    /// Tasks of an account that ended at or after `from`, behind that task; in this order.
    pub async fn ended_tasks(
        &self,
        account: AccountId,
        from: (Millis, TaskId),
        limit: i64,
    ) -> Result<Vec<Mark>> {
        const SQL: &str = "SELECT t.id, t.finished_at AS at, t.sandbox,
                (SELECT k.family FROM api_keys k WHERE k.id = t.created_by_key) AS family
            FROM tasks t
            WHERE t.account_id = $1 AND t.finished_at >= $2 AND (t.finished_at > $2 OR t.id > $3)
              AND t.deleted_at IS NULL
            ORDER BY t.account_id, t.finished_at, t.id LIMIT $4";
        Ok(read!(self, c => sqlx::query_as(SQL).bind(account).bind(from.0).bind(from.1)
            .bind(limit).fetch_all(c).await)?)
    }

    /// Likewise, tasks that were erased; lists that came to nothing are no tasks.
    pub async fn erased_tasks(
        &self,
        account: AccountId,
        from: (Millis, TaskId),
        limit: i64,
    ) -> Result<Vec<Mark>> {
        const SQL: &str = "SELECT t.id, t.deleted_at AS at, t.sandbox,
                (SELECT k.family FROM api_keys k WHERE k.id = t.created_by_key) AS family
            FROM tasks t
            WHERE t.account_id = $1 AND t.deleted_at >= $2 AND (t.deleted_at > $2 OR t.id > $3)
              AND t.status <> 'ingesting'
            ORDER BY t.account_id, t.deleted_at, t.id LIMIT $4";
        Ok(read!(self, c => sqlx::query_as(SQL).bind(account).bind(from.0).bind(from.1)
            .bind(limit).fetch_all(c).await)?)
    }

    /// An account's email credits. What is held is summed over its open tasks and the single verifications
    /// under way, as no row holds the sum.
    pub async fn money(&self, account: AccountId) -> Result<Option<Money>> {
        const SQL: &str = "SELECT balance, CAST(
                (SELECT COALESCE(SUM(b.held), 0) FROM tasks t
                    JOIN batches b ON b.task_id = t.id AND b.touched = 1
                    WHERE t.account_id = $1 AND t.status IN ('queued', 'running', 'paused'))
                + (SELECT COALESCE(SUM(k.held), 0) FROM checks k
                    WHERE k.held = 1 AND k.account_id = $1) AS BIGINT) AS held
            FROM credit_balances WHERE account_id = $1 AND kind = 'email'";
        Ok(read!(self, c => sqlx::query_as(SQL).bind(account).fetch_optional(c).await)?)
    }
}

//! The lines that an owner, or an empty balance, draws through a task: cancel, pause, resume, erase.
//!
//! Each locks the task's row first, then its batches, then the account.

use sqlx::FromRow;

use super::credits::{move_balance, record};
use super::tasks::TallyRow;
use super::{Result, Store, StoreError, Tx, deferrals, expect_rows, on};
use crate::domain::clock::Millis;
use crate::domain::id::{AccountId, TaskId};
use crate::domain::ledger::{EntryType, Kind, Movement};
use crate::domain::task::{PauseReason, Tally, TaskStatus};

/// What a change of a task's course came to.
#[derive(Debug)]
pub enum Changed {
    /// Done.
    Done,
    /// The task is in a state that does not allow it.
    Refused(TaskStatus),
    /// No such task of this account.
    Missing,
}

/// A batch at the moment its task is cancelled.
#[derive(FromRow)]
struct OpenBatch {
    held: i64,
    #[sqlx(flatten)]
    tally: TallyRow,
}

impl Store {
    /// Cancels a task: one transaction that ends it, invalidates its leases and gives its holds
    /// back. After it, no result is added and no credit moves for this task.
    pub async fn cancel_task(
        &self,
        id: TaskId,
        account: AccountId,
        now: Millis,
    ) -> Result<Changed> {
        const CLOSE: &str = "UPDATE batches SET state = 4, lease_token = NULL
            WHERE task_id = $1 AND state IN (0, 1, 2, 5)
            RETURNING held, deliverable, undeliverable, risky, unknown, charged, refunded";
        const EMPTY: &str = "UPDATE batches SET held = 0, touched = 0
            WHERE task_id = $1 AND touched = 1";
        const END: &str = "UPDATE tasks SET status = 'cancelled', pause_reason = NULL,
                finished_at = $2, released = $3,
                deliverable = deliverable + $4, undeliverable = undeliverable + $5,
                risky = risky + $6, unknown = unknown + $7, charged = charged + $8,
                refunded = refunded + $9
            WHERE id = $1";
        let mut tx = self.begin().await?;
        match lock_task(&mut tx, id, Some(account)).await? {
            None => return Ok(Changed::Missing),
            Some(TaskStatus::Cancelled) => return Ok(Changed::Done),
            Some(status) if status.has_ended() => return Ok(Changed::Refused(status)),
            Some(_) => {}
        }
        lock_batches(&mut tx, id).await?;
        let open: Vec<OpenBatch> =
            on!(&mut tx, c => sqlx::query_as(CLOSE).bind(id).fetch_all(c).await)?;
        on!(&mut tx, c => sqlx::query(EMPTY).bind(id).execute(c).await.map(|_| ()))?;
        deferrals::forget_task(&mut tx, id).await?;
        let (mut held, mut tally) = (0, Tally::default());
        for batch in open {
            held += batch.held;
            tally += batch.tally.into();
        }
        let rows = on!(&mut tx, c => sqlx::query(END)
            .bind(id).bind(now).bind(held).bind(tally.deliverable).bind(tally.undeliverable)
            .bind(tally.risky).bind(tally.unknown).bind(tally.charged).bind(tally.refunded)
            .execute(c).await.map(|r| r.rows_affected()))?;
        expect_rows("cancel task", rows, 1)?;
        if held > 0 {
            let after = move_balance(&mut tx, account, Kind::Email, held).await?;
            let movement = Movement {
                account,
                kind: Kind::Email,
                entry: EntryType::Refund,
                amount: held,
                task: Some(id),
                step: None,
                note: Some(String::from("cancelled")),
            };
            record(&mut tx, &movement, after, now).await?;
        }
        tx.commit().await?;
        Ok(Changed::Done)
    }

    /// Ends a task whose stored list is damaged: its holds go back, nothing more is charged.
    pub async fn fail_task(&self, task: TaskId, account: AccountId, now: Millis) -> Result<()> {
        const SQL: &str =
            "UPDATE tasks SET status = 'failed' WHERE id = $1 AND status = 'cancelled'";
        self.cancel_task(task, account, now).await?;
        let mut tx = self.begin().await?;
        on!(&mut tx, c => sqlx::query(SQL).bind(task).execute(c).await.map(|_| ()))?;
        tx.commit().await
    }

    /// Stops a task from starting addresses until it is resumed.
    pub async fn pause_task(&self, id: TaskId, account: AccountId) -> Result<Changed> {
        let mut tx = self.begin().await?;
        match lock_task(&mut tx, id, Some(account)).await? {
            None => return Ok(Changed::Missing),
            Some(status) if status.has_ended() => return Ok(Changed::Refused(status)),
            Some(_) => {}
        }
        pause(&mut tx, id, PauseReason::Requested).await?;
        tx.commit().await?;
        Ok(Changed::Done)
    }

    /// Pauses a task that cannot go on at the moment; the sweeper lets it go on when it can, also if
    /// that came in between (a grant, say).
    pub async fn pause_for(&self, task: TaskId, reason: PauseReason) -> Result<()> {
        let mut tx = self.begin().await?;
        if lock_task(&mut tx, task, None).await?.is_some_and(TaskStatus::is_active) {
            pause(&mut tx, task, reason).await?;
        }
        tx.commit().await
    }

    /// Lets a paused task go on, whatever paused it.
    pub async fn resume_task(&self, id: TaskId, account: AccountId) -> Result<Changed> {
        let mut tx = self.begin().await?;
        match lock_task(&mut tx, id, Some(account)).await? {
            None => return Ok(Changed::Missing),
            Some(TaskStatus::Paused) => {}
            Some(status) if status.is_active() => return Ok(Changed::Done),
            Some(status) => return Ok(Changed::Refused(status)),
        }
        resume(&mut tx, id).await?;
        tx.commit().await?;
        Ok(Changed::Done)
    }

    /// Erases an ended task's results, rows and addresses. The task row stays, unseen, for the
    /// books.
    pub async fn erase_task(&self, id: TaskId, account: AccountId, now: Millis) -> Result<Changed> {
        const RESULTS: &str = "DELETE FROM results WHERE task_id = $1";
        const ROWS: &str = "DELETE FROM task_rows WHERE task_id = $1";
        const BATCHES: &str = "DELETE FROM batches WHERE task_id = $1";
        const MARK: &str = "UPDATE tasks SET deleted_at = $2, header = NULL, name = NULL
            WHERE id = $1 AND deleted_at IS NULL";
        let mut tx = self.begin().await?;
        match lock_task(&mut tx, id, Some(account)).await? {
            None => return Ok(Changed::Missing),
            Some(status) if !status.has_ended() => return Ok(Changed::Refused(status)),
            Some(_) => {}
        }
        for sql in [RESULTS, ROWS, BATCHES] {
            on!(&mut tx, c => sqlx::query(sql).bind(id).execute(c).await.map(|_| ()))?;
        }
        let rows = on!(&mut tx, c => sqlx::query(MARK).bind(id).bind(now)
            .execute(c).await.map(|r| r.rows_affected()))?;
        expect_rows("erase task", rows, 1)?;
        tx.commit().await?;
        Ok(Changed::Done)
    }
}

/// Locks a task's row and tells its status; `None` when there is none (of this account, if given).
pub(super) async fn lock_task(
    tx: &mut Tx,
    id: TaskId,
    account: Option<AccountId>,
) -> Result<Option<TaskStatus>> {
    // SQLite has one writer, and we are it; PostgreSQL locks the row.
    const LITE: &str = "SELECT status FROM tasks
        WHERE id = $1 AND (account_id = $2 OR $2 IS NULL)
          AND status <> 'ingesting' AND deleted_at IS NULL";
    const PG: &str = "SELECT status FROM tasks
        WHERE id = $1 AND (account_id = $2 OR $2 IS NULL)
          AND status <> 'ingesting' AND deleted_at IS NULL FOR NO KEY UPDATE";
    let sql = if matches!(tx, Tx::Pg(_)) { PG } else { LITE };
    let status: Option<String> = on!(tx, c => sqlx::query_scalar(sql).bind(id).bind(account)
        .fetch_optional(c).await)?;
    status
        .map(|name| {
            name.parse().map_err(|_| StoreError::Damaged { what: "task status", detail: name })
        })
        .transpose()
}

/// Locks a task's open batches in the order of their numbers. A lease locks several batches in that
/// order without the task's lock; an UPDATE that took them in another order could deadlock with it.
async fn lock_batches(tx: &mut Tx, id: TaskId) -> Result<()> {
    const PG: &str = "SELECT no FROM batches
        WHERE task_id = $1 AND state IN (0, 1, 2, 5) ORDER BY no FOR NO KEY UPDATE";
    // SQLite has one writer, and we are it.
    if let Tx::Pg(tx) = tx {
        sqlx::query(PG).bind(id).execute(&mut **tx).await?;
    }
    Ok(())
}

/// Pauses a task that has not ended; the caller holds its lock. Batches already leased go on until
/// their worker hears of it.
pub(super) async fn pause(tx: &mut Tx, id: TaskId, reason: PauseReason) -> Result<()> {
    const TASK: &str = "UPDATE tasks SET status = 'paused', pause_reason = $2 WHERE id = $1";
    const BATCHES: &str = "UPDATE batches SET state = 0 WHERE task_id = $1 AND state = 1";
    let rows = on!(&mut *tx, c => sqlx::query(TASK).bind(id).bind(reason.as_str())
        .execute(c).await.map(|r| r.rows_affected()))?;
    expect_rows("pause task", rows, 1)?;
    lock_batches(tx, id).await?;
    on!(&mut *tx, c => sqlx::query(BATCHES).bind(id).execute(c).await.map(|_| ()))?;
    Ok(())
}

/// Makes a paused task active again; the caller holds its lock.
pub(super) async fn resume(tx: &mut Tx, id: TaskId) -> Result<()> {
    const SQL: &str = "UPDATE tasks SET pause_reason = NULL,
            status = CASE WHEN started_at IS NULL THEN 'queued' ELSE 'running' END
        WHERE id = $1 AND status = 'paused'";
    let rows = on!(tx, c => sqlx::query(SQL).bind(id)
        .execute(c).await.map(|r| r.rows_affected()))?;
    expect_rows("resume task", rows, 1)
}

//! The lines that an owner, or an empty balance, draws through a task: cancel, pause, resume, erase.
//!
//! Each locks the task's row first, then its batches, then the account.

use sqlx::FromRow;

use super::audit_log::write_down;
use super::credits::{mark_broke, post};
use super::dispatch::{mark_ready, unmark};
use super::task_events::record;
use super::tasks::TallyRow;
use super::{Result, Store, StoreError, Tx, deferrals, expect_rows, on, within};
use crate::domain::audit::{Actor, Change, Origin};
use crate::domain::clock::Millis;
use crate::domain::id::{AccountId, TaskId};
use crate::domain::ledger::{EntryType, Kind, Movement, Transfer};
use crate::domain::task::{PauseReason, Tally, TaskStatus};
use crate::domain::task_event::{Happened, TaskEvent};

/// What a change of a task's course came to.
#[derive(Debug, PartialEq, Eq)]
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
    freed: i64,
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
        by: &Origin,
        now: Millis,
    ) -> Result<Changed> {
        self.end_task(id, account, TaskStatus::Cancelled, by, now).await
    }

    /// Ends a task whose stored list is damaged: its holds go back, nothing more is charged. One that has
    /// ended stays as it is.
    pub async fn fail_task(&self, task: TaskId, account: AccountId, now: Millis) -> Result<()> {
        let by = Origin::system();
        self.end_task(task, account, TaskStatus::Failed, &by, now).await.map(|_| ())
    }

    async fn end_task(
        &self,
        id: TaskId,
        account: AccountId,
        status: TaskStatus,
        by: &Origin,
        now: Millis,
    ) -> Result<Changed> {
        const CLOSE: &str = "UPDATE batches SET state = 4, lease_token = NULL, touched = 0,
                freed = held, held = 0
            WHERE task_id = $1 AND state IN (0, 1, 2, 5)
            RETURNING freed, deliverable, undeliverable, risky, unknown, charged, refunded";
        const END: &str = "UPDATE tasks SET status = $10, pause_reason = NULL,
                finished_at = $2, released = $3,
                deliverable = deliverable + $4, undeliverable = undeliverable + $5,
                risky = risky + $6, unknown = unknown + $7, charged = charged + $8,
                refunded = refunded + $9
            WHERE id = $1";
        let mut tx = self.begin().await?;
        match lock_task(&mut tx, id, Some(account)).await? {
            None => return Ok(Changed::Missing),
            Some(now) if now == status => return Ok(Changed::Done),
            Some(now) if now.has_ended() => return Ok(Changed::Refused(now)),
            Some(_) => {}
        }
        lock_batches(&mut tx, id).await?;
        let open: Vec<OpenBatch> =
            on!(&mut tx, c => sqlx::query_as(CLOSE).bind(id).fetch_all(c).await)?;
        deferrals::forget_task(&mut tx, id).await?;
        let (mut released, mut tally) = (0, Tally::default());
        for batch in open {
            released += batch.freed;
            tally += batch.tally.into();
        }
        let rows = on!(&mut tx, c => sqlx::query(END)
            .bind(id).bind(now).bind(released).bind(tally.deliverable).bind(tally.undeliverable)
            .bind(tally.risky).bind(tally.unknown).bind(tally.charged).bind(tally.refunded)
            .bind(status.as_str()).execute(c).await.map(|r| r.rows_affected()))?;
        expect_rows("end task", rows, 1)?;
        if status == TaskStatus::Cancelled {
            let event = TaskEvent::new(Happened::Cancelled, now, Some(by.actor.clone()));
            record(&mut tx, id, &event).await?;
        }
        unmark(&mut tx, id).await?;
        if released > 0 {
            let movement = Movement {
                entry: EntryType::Refund,
                amount: released,
                task: Some(id),
                step: None,
                note: Some(status.as_str().to_owned()),
            };
            let transfer = Transfer { account, kind: Kind::Email, movements: vec![movement] };
            post(&mut tx, &transfer, now).await?;
        }
        write_down_task(&mut tx, (id, account), by, "task.cancel", now).await?;
        tx.commit().await?;
        Ok(Changed::Done)
    }

    /// Stops a task from starting addresses until it is resumed.
    pub async fn pause_task(
        &self,
        id: TaskId,
        account: AccountId,
        by: &Origin,
        now: Millis,
    ) -> Result<Changed> {
        let mut tx = self.begin().await?;
        match lock_task(&mut tx, id, Some(account)).await? {
            None => return Ok(Changed::Missing),
            Some(status) if status.has_ended() => return Ok(Changed::Refused(status)),
            Some(_) => {}
        }
        pause(&mut tx, id, &paused(PauseReason::Requested, by.actor.clone(), now)).await?;
        write_down_task(&mut tx, (id, account), by, "task.pause", now).await?;
        tx.commit().await?;
        Ok(Changed::Done)
    }

    /// Pauses a task that cannot go on at the moment; the sweeper lets it go on when it can. Should credits
    /// have come in between, it is not paused for want of them.
    pub async fn pause_for(&self, task: TaskId, reason: PauseReason, now: Millis) -> Result<()> {
        self.pause_because(task, reason, None, now).await
    }

    /// Likewise; `why` says more, for people.
    pub async fn pause_because(
        &self,
        task: TaskId,
        reason: PauseReason,
        why: Option<String>,
        now: Millis,
    ) -> Result<()> {
        const OWNER: &str = "SELECT account_id FROM tasks WHERE id = $1";
        let mut tx = self.begin().await?;
        if lock_task(&mut tx, task, None).await?.is_some_and(TaskStatus::is_active) {
            let event = TaskEvent { detail: why, ..paused(reason, Actor::System, now) };
            pause(&mut tx, task, &event).await?;
            if reason == PauseReason::InsufficientCredits {
                let account: AccountId = on!(&mut tx, c => sqlx::query_scalar(OWNER)
                    .bind(task).fetch_one(c).await)?;
                if mark_broke(&mut tx, account, true).await? > 0 {
                    drop(tx);
                    return self.make_ready(task, account, now).await;
                }
            }
        }
        tx.commit().await
    }

    /// Lets the next round find an active task's pending batches; queued ones become pending, as their
    /// message may be gone.
    async fn make_ready(&self, task: TaskId, account: AccountId, now: Millis) -> Result<()> {
        const BATCHES: &str = "UPDATE batches SET state = 0 WHERE task_id = $1 AND state = 1";
        let mut tx = self.begin().await?;
        if lock_task(&mut tx, task, None).await?.is_some_and(TaskStatus::is_active) {
            lock_batches(&mut tx, task).await?;
            on!(&mut tx, c => sqlx::query(BATCHES).bind(task).execute(c).await.map(|_| ()))?;
            mark_ready(&mut tx, task, account, now).await?;
        }
        tx.commit().await
    }

    /// Lets a paused task go on, whatever paused it.
    pub async fn resume_task(
        &self,
        id: TaskId,
        account: AccountId,
        by: &Origin,
        now: Millis,
    ) -> Result<Changed> {
        let mut tx = self.begin().await?;
        match lock_task(&mut tx, id, Some(account)).await? {
            None => return Ok(Changed::Missing),
            Some(TaskStatus::Paused) => {}
            Some(status) if status.is_active() => return Ok(Changed::Done),
            Some(status) => return Ok(Changed::Refused(status)),
        }
        let event = TaskEvent::new(Happened::Resumed, now, Some(by.actor.clone()));
        resume(&mut tx, (id, account), &event, now).await?;
        write_down_task(&mut tx, (id, account), by, "task.resume", now).await?;
        tx.commit().await?;
        Ok(Changed::Done)
    }
}

/// A pause, as it is written down.
fn paused(reason: PauseReason, who: Actor, now: Millis) -> TaskEvent {
    TaskEvent { reason: Some(reason), ..TaskEvent::new(Happened::Paused, now, Some(who)) }
}

/// Writes down what a person or an operator does to a task: last before the commit. What keys do is in the request
/// log.
pub(super) async fn write_down_task(
    tx: &mut Tx,
    (id, account): (TaskId, AccountId),
    by: &Origin,
    action: &'static str,
    now: Millis,
) -> Result<()> {
    match by.actor {
        Actor::Person(_) | Actor::Operator => {
            write_down(tx, &Change::new(by, Some(account), action, id), now).await
        }
        _ => Ok(()),
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
    status.map(read_status).transpose()
}

/// Likewise, but passes by a task that somebody else has: for repairs that come again by themselves.
pub(super) async fn try_lock_task(tx: &mut Tx, id: TaskId) -> Result<Option<TaskStatus>> {
    const PG: &str = "SELECT status FROM tasks
        WHERE id = $1 AND status <> 'ingesting' AND deleted_at IS NULL
        FOR NO KEY UPDATE SKIP LOCKED";
    let Tx::Pg(lent) = tx else { return lock_task(tx, id, None).await };
    let status: Option<String> =
        within!(lent, c => sqlx::query_scalar(PG).bind(id).fetch_optional(c).await)?;
    status.map(read_status).transpose()
}

fn read_status(name: String) -> Result<TaskStatus> {
    name.parse().map_err(|_| StoreError::Damaged { what: "task status", detail: name })
}

/// Locks a task's open batches in the order of their numbers. A lease locks several batches in that
/// order without the task's lock; an UPDATE that took them in another order could deadlock with it.
async fn lock_batches(tx: &mut Tx, id: TaskId) -> Result<()> {
    const PG: &str = "SELECT no FROM batches
        WHERE task_id = $1 AND state IN (0, 1, 2, 5) ORDER BY no FOR NO KEY UPDATE";
    // SQLite has one writer, and we are it.
    if let Tx::Pg(lent) = tx {
        within!(lent, c => sqlx::query(PG).bind(id).execute(c).await)?;
    }
    Ok(())
}

/// Pauses a task that has not ended; the caller holds its lock. Batches already leased go on until
/// their worker hears of it. It is written down where something changes.
async fn pause(tx: &mut Tx, id: TaskId, event: &TaskEvent) -> Result<()> {
    const TASK: &str = "UPDATE tasks SET status = 'paused', pause_reason = $2
        WHERE id = $1 AND (status <> 'paused' OR COALESCE(pause_reason, '') <> $2)";
    const BATCHES: &str = "UPDATE batches SET state = 0 WHERE task_id = $1 AND state = 1";
    let reason = event.reason.map_or("", PauseReason::as_str);
    let changed = on!(&mut *tx, c => sqlx::query(TASK).bind(id).bind(reason)
        .execute(c).await.map(|r| r.rows_affected()))?;
    if changed > 0 {
        record(tx, id, event).await?;
    }
    lock_batches(tx, id).await?;
    on!(&mut *tx, c => sqlx::query(BATCHES).bind(id).execute(c).await.map(|_| ()))?;
    unmark(tx, id).await
}

/// Makes a paused task active again; the caller holds its lock.
pub(super) async fn resume(
    tx: &mut Tx,
    (id, account): (TaskId, AccountId),
    event: &TaskEvent,
    now: Millis,
) -> Result<()> {
    const SQL: &str = "UPDATE tasks SET pause_reason = NULL,
            status = CASE WHEN started_at IS NULL THEN 'queued' ELSE 'running' END
        WHERE id = $1 AND status = 'paused'";
    let rows = on!(&mut *tx, c => sqlx::query(SQL).bind(id)
        .execute(c).await.map(|r| r.rows_affected()))?;
    expect_rows("resume task", rows, 1)?;
    record(tx, id, event).await?;
    mark_ready(tx, id, account, now).await
}

//! Leasing batches, keeping leases alive, and the dispatch window.
//!
//! A lease is a state (`leased`), a fence (`lease_token`) and an end (`due_at`). Taking one holds
//! the credits of what will be started, in the same transaction.

use sqlx::FromRow;

use super::credits::{record, take_up_to};
use super::tasks::{lock_task, pause};
use super::{Result, Store, Tx, expect_rows, on, read};
use crate::domain::batch::{BatchRef, Lease};
use crate::domain::clock::Millis;
use crate::domain::id::{AccountId, TaskId};
use crate::domain::ledger::{EntryType, Kind, Movement};
use crate::domain::task::{PauseReason, TaskStatus};

/// What came of the wish to lease.
#[derive(Debug)]
pub enum Leasing {
    /// The batch is ours.
    Leased(Box<Lease>),
    /// Nothing to do here: done, cancelled, leased elsewhere, or its task stands still.
    Nothing,
    /// The balance is empty: the task is paused now.
    Broke,
}

/// A claim to be made.
#[derive(Debug, Clone, Copy)]
pub struct Claim {
    /// Which batch.
    pub batch: BatchRef,
    /// The new fence.
    pub token: i64,
    /// When the lease ends, unless renewed.
    pub until: Millis,
}

/// A lease as its holder knows it.
#[derive(Debug, Clone, Copy)]
pub struct Held {
    /// Which batch.
    pub batch: BatchRef,
    /// Its fence.
    pub token: i64,
}

#[derive(FromRow)]
struct Claimed {
    first_seq: i64,
    addresses: i32,
    chargeable: i32,
    attempt: i32,
    charged: i64,
    refunded: i64,
    processed: i64,
    payload: Vec<u8>,
}

impl Store {
    /// Leases a batch and holds credits for it: as many as its unfinished chargeable addresses
    /// need, or as the balance has.
    pub async fn lease(&self, claim: Claim, now: Millis) -> Result<Leasing> {
        const TASK: &str = "SELECT account_id, status FROM tasks WHERE id = $1";
        const START: &str = "UPDATE tasks SET status = 'running', started_at = COALESCE(started_at, $2)
            WHERE id = $1 AND status = 'queued'";
        const CLAIM: &str = "UPDATE batches SET state = 2, touched = 1, lease_token = $3,
                due_at = $4, attempt = attempt + 1
            WHERE task_id = $1 AND no = $2 AND state IN (0, 1)
            RETURNING first_seq, addresses, chargeable, attempt, charged, refunded,
                deliverable + undeliverable + risky + unknown AS processed, payload";
        const HOLD: &str = "UPDATE batches SET held = $4
            WHERE task_id = $1 AND no = $2 AND lease_token = $3";
        let BatchRef { task, no } = claim.batch;
        let mut tx = self.begin().await?;
        let found: Option<(AccountId, String)> =
            on!(&mut tx, c => sqlx::query_as(TASK).bind(task).fetch_optional(c).await)?;
        let Some((account, status)) = found else { return Ok(Leasing::Nothing) };
        match status.parse() {
            Ok(TaskStatus::Queued) => {
                on!(&mut tx, c => sqlx::query(START).bind(task).bind(now)
                    .execute(c).await.map(|_| ()))?;
            }
            Ok(TaskStatus::Running) => {}
            _ => {
                drop(tx);
                self.unqueue(claim.batch).await?;
                return Ok(Leasing::Nothing);
            }
        }
        let claimed: Option<Claimed> = on!(&mut tx, c => sqlx::query_as(CLAIM)
            .bind(task).bind(no).bind(claim.token).bind(claim.until)
            .fetch_optional(c).await)?;
        let Some(claimed) = claimed else { return Ok(Leasing::Nothing) };
        let want = i64::from(claimed.chargeable) - claimed.charged - claimed.refunded;
        let free = i64::from(claimed.addresses) - claimed.processed - want;
        let mut held = 0;
        if want > 0 {
            let (taken, after) = take_up_to(&mut tx, account, Kind::Email, want).await?;
            if taken == 0 && free == 0 {
                drop(tx);
                self.pause_broke(task).await?;
                return Ok(Leasing::Broke);
            }
            held = taken;
            if taken > 0 {
                let rows = on!(&mut tx, c => sqlx::query(HOLD)
                    .bind(task).bind(no).bind(claim.token).bind(held)
                    .execute(c).await.map(|r| r.rows_affected()))?;
                expect_rows("hold", rows, 1)?;
                let movement = Movement {
                    account,
                    kind: Kind::Email,
                    entry: EntryType::Hold,
                    amount: held,
                    task: Some(task),
                    step: Some(claim.token),
                    note: None,
                };
                record(&mut tx, &movement, after, now).await?;
            }
        }
        let done = match claimed.processed {
            0 => Vec::new(),
            _ => finished(&mut tx, task, claimed.first_seq, claimed.addresses).await?,
        };
        tx.commit().await?;
        Ok(Leasing::Leased(Box::new(Lease {
            batch: claim.batch,
            account,
            token: claim.token,
            first_seq: claimed.first_seq,
            payload: claimed.payload,
            held,
            done,
            attempt: claimed.attempt,
        })))
    }

    /// A message came for a batch whose task stands still: it waits for the window again.
    async fn unqueue(&self, batch: BatchRef) -> Result<()> {
        const SQL: &str = "UPDATE batches SET state = 0 WHERE task_id = $1 AND no = $2 AND state = 1";
        let mut tx = self.begin().await?;
        on!(&mut tx, c => sqlx::query(SQL).bind(batch.task).bind(batch.no)
            .execute(c).await.map(|_| ()))?;
        tx.commit().await
    }

    /// Pauses a task whose account's balance is empty. A grant that comes in between is seen by
    /// the sweeper, which lets the task go on.
    pub(super) async fn pause_broke(&self, task: TaskId) -> Result<()> {
        let mut tx = self.begin().await?;
        if lock_task(&mut tx, task, None).await?.is_some_and(TaskStatus::is_active) {
            pause(&mut tx, task, PauseReason::InsufficientCredits).await?;
        }
        tx.commit().await
    }

    /// Extends these leases; returns those that are not ours any more.
    pub async fn renew(&self, leases: &[Held], until: Millis) -> Result<Vec<BatchRef>> {
        const SQL: &str = "UPDATE batches SET due_at = $4
            WHERE task_id = $1 AND no = $2 AND lease_token = $3 AND state = 2";
        let mut lost = Vec::new();
        // One short transaction each: never more than one row lock at a time.
        for lease in leases {
            let mut tx = self.begin().await?;
            let rows = on!(&mut tx, c => sqlx::query(SQL)
                .bind(lease.batch.task).bind(lease.batch.no).bind(lease.token).bind(until)
                .execute(c).await.map(|r| r.rows_affected()))?;
            tx.commit().await?;
            if rows == 0 {
                lost.push(lease.batch);
            }
        }
        Ok(lost)
    }

    /// Moves pending batches of an active task to `queued`, until `window` of them are queued or
    /// leased; returns those to be sent. `resend_at`: when the sweeper takes the message for lost.
    pub async fn dispatch(
        &self,
        task: TaskId,
        window: i64,
        resend_at: Millis,
    ) -> Result<Vec<BatchRef>> {
        const OPEN: &str = "SELECT count(*) FROM batches WHERE task_id = $1 AND state IN (1, 2)";
        let open: i64 =
            read!(self, c => sqlx::query_scalar(OPEN).bind(task).fetch_one(c).await)?;
        if open >= window {
            return Ok(Vec::new());
        }
        let mut tx = self.begin().await?;
        lock_task(&mut tx, task, None).await?;
        let sent = queue_next(&mut tx, task, window - open, resend_at).await?;
        tx.commit().await?;
        Ok(sent)
    }
}

/// Moves up to `most` pending batches of an active task to `queued`.
pub(super) async fn queue_next(
    tx: &mut Tx,
    task: TaskId,
    most: i64,
    resend_at: Millis,
) -> Result<Vec<BatchRef>> {
    const SQL: &str = "UPDATE batches SET state = 1, due_at = $3
        WHERE task_id = $1 AND state = 0 AND no IN (
            SELECT no FROM batches WHERE task_id = $1 AND state = 0 ORDER BY no LIMIT $2)
          AND EXISTS (SELECT 1 FROM tasks WHERE id = $1 AND status IN ('queued', 'running'))
        RETURNING no";
    let mut numbers: Vec<i32> = on!(tx, c => sqlx::query_scalar(SQL)
        .bind(task).bind(most).bind(resend_at).fetch_all(c).await)?;
    numbers.sort_unstable();
    Ok(numbers.into_iter().map(|no| BatchRef { task, no }).collect())
}

/// `seq`s of a batch that have a result.
async fn finished(tx: &mut Tx, task: TaskId, first_seq: i64, addresses: i32) -> Result<Vec<i64>> {
    const SQL: &str = "SELECT seq FROM results
        WHERE task_id = $1 AND seq >= $2 AND seq < $3 ORDER BY seq";
    let end = first_seq + i64::from(addresses);
    Ok(on!(tx, c => sqlx::query_scalar(SQL).bind(task).bind(first_seq).bind(end)
        .fetch_all(c).await)?)
}

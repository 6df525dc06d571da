//! Leasing batches, keeping leases alive, and the dispatch window.
//!
//! A lease is a state (`leased`), a fence (`lease_token`) and an end (`due_at`). Taking one holds
//! the credits of what will be started, in the same transaction.

use sqlx::FromRow;

use super::control::lock_task;
use super::credits::{record, take_up_to};
use super::{Result, Store, Tx, deferrals, expect_rows, on, read};
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
    attempt: i32,
    held: i64,
    waiting: i64,
    processed: i64,
    payload: Vec<u8>,
}

/// A batch claimed in this transaction; `row.held` is what it wants, then what it got.
struct Taken {
    /// Which of the claims.
    at: usize,
    account: AccountId,
    row: Claimed,
}

impl Taken {
    /// Is there something to do without credits?
    fn has_free_work(&self) -> bool {
        let row = &self.row;
        i64::from(row.addresses) > row.processed + row.held + row.waiting
    }
}

impl Store {
    /// Leases batches and holds credits for them: as many as their unfinished chargeable addresses
    /// need that are not set aside beyond `horizon`, or as the balances have. Answers in the order of
    /// the claims. `source`: where the worker sends from.
    pub async fn lease(
        &self,
        claims: &[Claim],
        source: &str,
        horizon: Millis,
        now: Millis,
    ) -> Result<Vec<Leasing>> {
        let mut leasings: Vec<Leasing> = claims.iter().map(|_| Leasing::Nothing).collect();
        let mut order: Vec<usize> = (0..claims.len()).collect();
        order.sort_by_key(|&at| claims[at].batch);
        let mut tx = self.begin_unsynced().await?;
        let (mut taken, mut idle) = (Vec::new(), Vec::new());
        let mut known: Option<(TaskId, Option<AccountId>)> = None;
        for at in order {
            let batch = claims[at].batch;
            let payer = match known {
                Some((task, payer)) if task == batch.task => payer,
                _ => start_task(&mut tx, batch.task, now).await?,
            };
            known = Some((batch.task, payer));
            match payer {
                None => idle.push(batch),
                Some(account) => {
                    if let Some(row) = claim_batch(&mut tx, &claims[at], source, horizon).await? {
                        taken.push(Taken { at, account, row });
                    }
                }
            }
        }
        // Accounts come last, in one order for everybody.
        taken.sort_by_key(|one| (one.account, claims[one.at].batch));
        let mut broke = Vec::new();
        for of_account in taken.chunk_by_mut(|a, b| a.account == b.account) {
            broke.extend(hold(&mut tx, claims, of_account, now).await?);
        }
        for one in taken {
            if broke.contains(&one.at) {
                leasings[one.at] = Leasing::Broke;
            } else {
                let lease = into_lease(&mut tx, &claims[one.at], one, (horizon, now)).await?;
                leasings[lease.0] = Leasing::Leased(Box::new(lease.1));
            }
        }
        tx.commit().await?;
        for batch in idle {
            self.unqueue(batch).await?;
        }
        let mut tasks: Vec<TaskId> = broke.iter().map(|&at| claims[at].batch.task).collect();
        tasks.dedup();
        for task in tasks {
            self.pause_for(task, PauseReason::InsufficientCredits).await?;
        }
        Ok(leasings)
    }

    /// A message came for a batch whose task stands still: it waits for the window again.
    async fn unqueue(&self, batch: BatchRef) -> Result<()> {
        const SQL: &str =
            "UPDATE batches SET state = 0 WHERE task_id = $1 AND no = $2 AND state = 1";
        let mut tx = self.begin().await?;
        on!(&mut tx, c => sqlx::query(SQL).bind(batch.task).bind(batch.no)
            .execute(c).await.map(|_| ()))?;
        tx.commit().await
    }

    /// Extends these leases; returns those that are not ours any more.
    pub async fn renew(&self, leases: &[Held], until: Millis) -> Result<Vec<BatchRef>> {
        const SQL: &str = "UPDATE batches SET due_at = $4
            WHERE task_id = $1 AND no = $2 AND lease_token = $3 AND state = 2";
        let mut lost = Vec::new();
        // One short transaction each: never more than one row lock at a time.
        for lease in leases {
            let mut tx = self.begin_unsynced().await?;
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
        let open: i64 = read!(self, c => sqlx::query_scalar(OPEN).bind(task).fetch_one(c).await)?;
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

/// Who pays for a task, if it is active; its first lease makes it `running`.
async fn start_task(tx: &mut Tx, task: TaskId, now: Millis) -> Result<Option<AccountId>> {
    const TASK: &str = "SELECT account_id, status FROM tasks WHERE id = $1";
    const START: &str = "UPDATE tasks SET status = 'running', started_at = COALESCE(started_at, $2)
        WHERE id = $1 AND status = 'queued'";
    let found: Option<(AccountId, String)> =
        on!(&mut *tx, c => sqlx::query_as(TASK).bind(task).fetch_optional(c).await)?;
    let Some((account, status)) = found else { return Ok(None) };
    match status.parse() {
        Ok(TaskStatus::Queued) => {
            on!(tx, c => sqlx::query(START).bind(task).bind(now).execute(c).await.map(|_| ()))?;
            Ok(Some(account))
        }
        Ok(TaskStatus::Running) => Ok(Some(account)),
        _ => Ok(None),
    }
}

/// Takes the lease, wanting credits for every unfinished chargeable address that is not set aside
/// beyond `horizon`.
async fn claim_batch(
    tx: &mut Tx,
    claim: &Claim,
    source: &str,
    horizon: Millis,
) -> Result<Option<Claimed>> {
    const SQL: &str = "UPDATE batches SET state = 2, touched = 1, lease_token = $3, due_at = $4,
            attempt = attempt + 1, source = $5, held = chargeable - charged - refunded - (
                SELECT count(*) FROM deferrals d
                WHERE d.task_id = $1 AND d.no = $2 AND d.due_at > $6)
        WHERE task_id = $1 AND no = $2 AND state IN (0, 1)
        RETURNING first_seq, addresses, attempt, held,
            chargeable - charged - refunded - held AS waiting,
            deliverable + undeliverable + risky + unknown AS processed, payload";
    Ok(on!(tx, c => sqlx::query_as(SQL)
        .bind(claim.batch.task).bind(claim.batch.no).bind(claim.token).bind(claim.until)
        .bind(source).bind(horizon).fetch_optional(c).await)?)
}

/// Holds credits for claimed batches of one account, first come first served. A batch that gets
/// none, and has nothing free to do, is put back; returns which of the claims those are.
async fn hold(
    tx: &mut Tx,
    claims: &[Claim],
    taken: &mut [Taken],
    now: Millis,
) -> Result<Vec<usize>> {
    const LESS: &str = "UPDATE batches SET held = $4
        WHERE task_id = $1 AND no = $2 AND lease_token = $3";
    const BACK: &str = "UPDATE batches SET held = $4, state = 0, lease_token = NULL,
            attempt = attempt - 1
        WHERE task_id = $1 AND no = $2 AND lease_token = $3";
    let want: i64 = taken.iter().map(|one| one.row.held).sum();
    let Some(account) = taken.first().map(|one| one.account).filter(|_| want > 0) else {
        return Ok(Vec::new());
    };
    let (mut left, after) = take_up_to(tx, account, Kind::Email, want).await?;
    let mut balance = after + left;
    let mut broke = Vec::new();
    for of_task in taken.chunk_by_mut(|a, b| claims[a.at].batch.task == claims[b.at].batch.task) {
        let mut amount = 0;
        for one in of_task.iter_mut() {
            let (claim, wanted, free) = (&claims[one.at], one.row.held, one.has_free_work());
            one.row.held = wanted.min(left);
            left -= one.row.held;
            amount += one.row.held;
            let back = wanted > 0 && one.row.held == 0 && !free;
            if back {
                broke.push(one.at);
            }
            if one.row.held < wanted {
                let sql = if back { BACK } else { LESS };
                let rows = on!(&mut *tx, c => sqlx::query(sql)
                    .bind(claim.batch.task).bind(claim.batch.no).bind(claim.token)
                    .bind(one.row.held).execute(c).await.map(|r| r.rows_affected()))?;
                expect_rows("hold less", rows, 1)?;
            }
        }
        if amount > 0 {
            balance -= amount;
            let claim = &claims[of_task[0].at];
            let movement = Movement {
                account,
                kind: Kind::Email,
                entry: EntryType::Hold,
                amount,
                task: Some(claim.batch.task),
                step: Some(claim.token),
                note: None,
            };
            record(tx, &movement, balance, now).await?;
        }
    }
    Ok(broke)
}

async fn into_lease(
    tx: &mut Tx,
    claim: &Claim,
    taken: Taken,
    (horizon, now): (Millis, Millis),
) -> Result<(usize, Lease)> {
    let row = taken.row;
    let done = match row.processed {
        0 => Vec::new(),
        _ => finished(tx, claim.batch.task, row.first_seq, row.addresses).await?,
    };
    // A batch that was never leased before has nothing set aside.
    let deferred = match row.attempt {
        ..=1 => Vec::new(),
        _ => deferrals::of_batch(tx, claim.batch).await?,
    };
    let lease = Lease {
        batch: claim.batch,
        account: taken.account,
        token: claim.token,
        first_seq: row.first_seq,
        payload: row.payload,
        held: row.held,
        done,
        deferred,
        leased_at: now,
        horizon,
        attempt: row.attempt,
    };
    Ok((taken.at, lease))
}

/// Moves up to `most` pending batches of an active task to `queued`.
pub(super) async fn queue_next(
    tx: &mut Tx,
    task: TaskId,
    most: i64,
    resend_at: Millis,
) -> Result<Vec<BatchRef>> {
    // PostgreSQL passes by a batch that a doubled message is just leasing: waiting for several of
    // them in no order could end in a circle. SQLite has one writer, and we are it.
    const LITE: &str = "UPDATE batches SET state = 1, due_at = $3
        WHERE task_id = $1 AND state = 0 AND no IN (
            SELECT no FROM batches WHERE task_id = $1 AND state = 0 ORDER BY no LIMIT $2)
          AND EXISTS (SELECT 1 FROM tasks WHERE id = $1 AND status IN ('queued', 'running'))
        RETURNING no";
    const PG: &str = "WITH next AS MATERIALIZED (
            SELECT no FROM batches WHERE task_id = $1 AND state = 0 ORDER BY no LIMIT $2
            FOR NO KEY UPDATE SKIP LOCKED)
        UPDATE batches b SET state = 1, due_at = $3 FROM next
        WHERE b.task_id = $1 AND b.no = next.no
          AND EXISTS (SELECT 1 FROM tasks WHERE id = $1 AND status IN ('queued', 'running'))
        RETURNING b.no";
    let sql = if matches!(tx, Tx::Pg(_)) { PG } else { LITE };
    let mut numbers: Vec<i32> = on!(tx, c => sqlx::query_scalar(sql)
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

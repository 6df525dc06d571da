//! Leasing batches, and keeping leases alive.
//!
//! A lease is a state (`leased`), a fence (`lease_token`) and an end (`due_at`). Taking one holds
//! the credits of what will be started, in the same transaction.

use std::collections::HashMap;

use sqlx::FromRow;

use super::control::lock_task;
use super::credits::{lock_balance, post, post_filled, try_post};
use super::{Result, Store, Tx, deferrals, expect_rows, on, within};
use crate::domain::batch::{BatchRef, Held, Lease};
use crate::domain::clock::Millis;
use crate::domain::done::Done;
use crate::domain::id::{AccountId, TaskId};
use crate::domain::ledger::{EntryType, Kind, Movement, Transfer};
use crate::domain::task::{PauseReason, TaskStatus};

/// Pauses that may come between a look at a task and the claim of its batches until the claim is left alone.
const PAUSES_BETWEEN: usize = 3;

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
    /// Credits are off: what the balance lacks is granted. The same for all claims of a call.
    pub fill: bool,
}

impl Claim {
    /// The lease that it asks for.
    pub fn held(&self) -> Held {
        Held { batch: self.batch, token: self.token }
    }
}

#[derive(FromRow)]
struct Claimed {
    task_id: TaskId,
    no: i32,
    token: i64,
    first_seq: i64,
    addresses: i32,
    attempt: i32,
    lost: i32,
    held: i64,
    waiting: i64,
    processed: i64,
    done: Vec<u8>,
    payload: Vec<u8>,
}

/// A batch claimed in this transaction; `row.held` is what it wants, then what it got.
struct Taken {
    /// Which of the claims.
    at: usize,
    account: AccountId,
    /// Of a sandbox task, which wants nothing.
    sandbox: bool,
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
        for _ in 0..PAUSES_BETWEEN {
            if let Some(leasings) = self.lease_once(claims, source, horizon, now).await? {
                return Ok(leasings);
            }
        }
        // The sweeper brings those up again whose task goes on.
        Ok(claims.iter().map(|_| Leasing::Nothing).collect())
    }

    /// None: a task was paused in the middle, and nothing was leased.
    async fn lease_once(
        &self,
        claims: &[Claim],
        source: &str,
        horizon: Millis,
        now: Millis,
    ) -> Result<Option<Vec<Leasing>>> {
        let mut leasings: Vec<Leasing> = claims.iter().map(|_| Leasing::Nothing).collect();
        let mut order: Vec<usize> = (0..claims.len()).collect();
        order.sort_by_key(|&at| claims[at].batch);
        let mut tx = self.begin_unsynced().await?;
        let (mut open, mut idle) = (Vec::new(), Vec::new());
        for of_task in order.chunk_by(|&a, &b| claims[a].batch.task == claims[b].batch.task) {
            match start_task(&mut tx, claims[of_task[0]].batch.task, now).await? {
                None => idle.extend(of_task.iter().map(|&at| claims[at].batch)),
                Some(payer) => open.extend(of_task.iter().map(|&at| (at, payer))),
            }
        }
        let wanted: Vec<Claim> = open.iter().map(|&(at, _)| claims[at]).collect();
        let mut claimed = claim_batches(&mut tx, &wanted, source, horizon).await?;
        let mut taken: Vec<Taken> = open
            .into_iter()
            .filter_map(|(at, (account, sandbox))| {
                let row = claimed.remove(&claims[at].held())?;
                Some(Taken { at, account, sandbox, row })
            })
            .collect();
        if paused_meanwhile(&mut tx, &taken).await? {
            tx.rollback().await?;
            return Ok(None);
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
        // The leases stand: what fails here is repaired by the next message, or by the sweeper.
        for batch in idle {
            if let Err(error) = self.unqueue(batch).await {
                tracing::debug!(%error, ?batch, "its task stands still; it is not put back yet");
            }
        }
        let mut tasks: Vec<TaskId> = broke.iter().map(|&at| claims[at].batch.task).collect();
        tasks.dedup();
        for task in tasks {
            if let Err(error) = self.pause_for(task, PauseReason::InsufficientCredits, now).await {
                tracing::warn!(%error, %task, "the balance is empty, and the task not paused yet");
            }
        }
        Ok(Some(leasings))
    }

    /// A batch that must be alone begins, after `lost` lost leases: should this be the last that is heard of it,
    /// it was the cause. False: the lease is not ours any more.
    pub async fn begin_alone(&self, lease: Held, lost: i32) -> Result<bool> {
        const SQL: &str = "UPDATE batches SET lost = $4
            WHERE task_id = $1 AND no = $2 AND lease_token = $3 AND state = 2";
        let mut tx = self.begin().await?;
        let rows = on!(&mut tx, c => sqlx::query(SQL).bind(lease.batch.task).bind(lease.batch.no)
            .bind(lease.token).bind(lost + 1).execute(c).await.map(|r| r.rows_affected()))?;
        tx.commit().await?;
        Ok(rows == 1)
    }

    /// A message came for a batch whose task stands still: it is pending again, and found when somebody lets
    /// the task go on.
    async fn unqueue(&self, batch: BatchRef) -> Result<()> {
        const SQL: &str =
            "UPDATE batches SET state = 0 WHERE task_id = $1 AND no = $2 AND state = 1";
        let mut tx = self.begin().await?;
        let status = lock_task(&mut tx, batch.task, None).await?;
        // It goes on again: the sweeper finds that its message is gone.
        if status.is_none_or(|status| !status.is_active()) {
            on!(&mut tx, c => sqlx::query(SQL).bind(batch.task).bind(batch.no)
                .execute(c).await.map(|_| ()))?;
        }
        tx.commit().await
    }

    /// Extends these leases; tells what became of each. One whose row somebody is just writing is left for
    /// the next time: nothing here waits for a lock.
    pub async fn renew(&self, leases: &[Held], until: Millis) -> Result<Renewed> {
        const LITE: &str = "UPDATE batches SET due_at = $4
            WHERE task_id = $1 AND no = $2 AND lease_token = $3 AND state = 2";
        const PG: &str = "WITH ours AS MATERIALIZED (
                SELECT b.task_id, b.no FROM batches b
                JOIN UNNEST($1::UUID[], $2::INTEGER[], $3::BIGINT[]) AS l (task_id, no, token)
                  ON b.task_id = l.task_id AND b.no = l.no AND b.lease_token = l.token
                WHERE b.state = 2 FOR NO KEY UPDATE OF b SKIP LOCKED)
            UPDATE batches b SET due_at = $4 FROM ours
            WHERE b.task_id = ours.task_id AND b.no = ours.no
            RETURNING b.task_id, b.no";
        const HELD_PG: &str = "SELECT b.task_id, b.no FROM batches b
            JOIN UNNEST($1::UUID[], $2::INTEGER[], $3::BIGINT[]) AS l (task_id, no, token)
              ON b.task_id = l.task_id AND b.no = l.no AND b.lease_token = l.token
            WHERE b.state = 2";
        let mut renewed = Renewed::default();
        let mut tx = self.begin_unsynced().await?;
        match &mut tx {
            Tx::Pg(lent) => {
                let tasks: Vec<_> = leases.iter().map(|lease| lease.batch.task.0).collect();
                let numbers: Vec<i32> = leases.iter().map(|lease| lease.batch.no).collect();
                let tokens: Vec<i64> = leases.iter().map(|lease| lease.token).collect();
                let extended: Vec<(TaskId, i32)> = within!(&mut *lent, c => sqlx::query_as(PG)
                    .bind(&tasks).bind(&numbers).bind(&tokens).bind(until).fetch_all(c).await)?;
                let mut held = extended.clone();
                if extended.len() < leases.len() {
                    held = within!(lent, c => sqlx::query_as(HELD_PG)
                        .bind(&tasks).bind(&numbers).bind(&tokens).fetch_all(c).await)?;
                }
                let is_in = |all: &[(TaskId, i32)], lease: &Held| {
                    all.contains(&(lease.batch.task, lease.batch.no))
                };
                for lease in leases {
                    match (is_in(&extended, lease), is_in(&held, lease)) {
                        (true, _) => {}
                        (false, true) => renewed.later.push(*lease),
                        (false, false) => renewed.lost.push(*lease),
                    }
                }
            }
            Tx::Lite(lent) => {
                for lease in leases {
                    let rows = within!(&mut *lent, c => sqlx::query(LITE)
                        .bind(lease.batch.task).bind(lease.batch.no).bind(lease.token).bind(until)
                        .execute(c).await.map(|r| r.rows_affected()))?;
                    if rows == 0 {
                        renewed.lost.push(*lease);
                    }
                }
            }
        }
        tx.commit().await?;
        Ok(renewed)
    }
}

/// What became of leases that were to be extended; the others were.
#[derive(Debug, Default)]
pub struct Renewed {
    /// Not ours any more.
    pub lost: Vec<Held>,
    /// Ours, and not extended: to be tried again soon.
    pub later: Vec<Held>,
}

/// Whose task it is, if it is active, and whether it is a sandbox task; its first lease makes it `running`.
async fn start_task(tx: &mut Tx, task: TaskId, now: Millis) -> Result<Option<(AccountId, bool)>> {
    const TASK: &str = "SELECT account_id, sandbox, status FROM tasks WHERE id = $1";
    const START: &str = "UPDATE tasks SET status = 'running', started_at = COALESCE(started_at, $2)
        WHERE id = $1 AND status = 'queued'";
    let found: Option<(AccountId, bool, String)> =
        on!(&mut *tx, c => sqlx::query_as(TASK).bind(task).fetch_optional(c).await)?;
    let Some((account, sandbox, status)) = found else { return Ok(None) };
    match status.parse() {
        Ok(TaskStatus::Queued) => {
            on!(tx, c => sqlx::query(START).bind(task).bind(now).execute(c).await.map(|_| ()))?;
            Ok(Some((account, sandbox)))
        }
        Ok(TaskStatus::Running) => Ok(Some((account, sandbox))),
        _ => Ok(None),
    }
}

/// Was a task paused between the look at it and the claim of its batches? A pause locks the task, then its
/// batches: with those in hand, one that came first is seen by a fresh statement, and one that comes later waits
/// for us. SQLite has one writer, and that is us.
async fn paused_meanwhile(tx: &mut Tx, taken: &[Taken]) -> Result<bool> {
    const PG: &str = "SELECT count(*) FROM tasks WHERE id = ANY($1) AND status <> 'running'";
    let Tx::Pg(lent) = tx else { return Ok(false) };
    let mut tasks: Vec<uuid::Uuid> = taken.iter().map(|one| one.row.task_id.0).collect();
    tasks.dedup();
    if tasks.is_empty() {
        return Ok(false);
    }
    let still: i64 = within!(lent, c => sqlx::query_scalar(PG).bind(tasks).fetch_one(c).await)?;
    Ok(still > 0)
}

/// Takes leases `s`, wanting credits for every unfinished chargeable address that is not set aside beyond the
/// horizon. Held credits of a batch that nobody has leased would be a fault; they are never written over.
macro_rules! claim {
    ($with:literal, $claims:literal, $token:literal) => {
        concat!(
            $with,
            "UPDATE batches SET state = 2, touched = 1, lease_token = s.token, due_at = s.until,
                attempt = attempt + 1, source = $1,
                held = chargeable - charged - refunded - (SELECT count(*) FROM deferrals d
                    WHERE d.task_id = batches.task_id AND d.no = batches.no AND d.due_at > $2)
            FROM ",
            $claims,
            " WHERE batches.task_id = s.task_id AND batches.no = s.no AND state IN (0, 1) AND held = 0
            RETURNING batches.task_id, batches.no, ",
            $token,
            " AS token, first_seq, addresses, attempt, lost, held,
                chargeable - charged - refunded - held AS waiting,
                deliverable + undeliverable + risky + unknown AS processed, done, payload"
        )
    };
}

/// Takes what can be taken.
async fn claim_batches(
    tx: &mut Tx,
    claims: &[Claim],
    source: &str,
    horizon: Millis,
) -> Result<HashMap<Held, Claimed>> {
    // Locked in the order of their numbers, as everywhere. An array in a sub-select hides its length: who
    // knows it plans anew each time, which takes longer than the work. Materialized: where PostgreSQL takes
    // the table for an empty one, it would look for all of them again for each row of the table.
    const PG: &str = claim!(
        "WITH s AS MATERIALIZED (SELECT c.task_id, c.no, c.token, c.until
            FROM UNNEST((SELECT $3::UUID[]), (SELECT $4::INTEGER[]), (SELECT $5::BIGINT[]),
                (SELECT $6::BIGINT[])) AS c (task_id, no, token, until)
            JOIN batches o ON o.task_id = c.task_id AND o.no = c.no
            WHERE o.state IN (0, 1) ORDER BY c.task_id, c.no FOR NO KEY UPDATE OF o) ",
        "s",
        "s.token"
    );
    const LITE: &str = claim!(
        "",
        "(SELECT $3 AS task_id, $4 AS no, $5 AS token, $6 AS until) AS s",
        "CAST($5 AS BIGINT)"
    );
    if claims.is_empty() {
        return Ok(HashMap::new());
    }
    let mut rows: Vec<Claimed> = Vec::with_capacity(claims.len());
    match tx {
        // One round trip, however many.
        Tx::Pg(lent) => {
            rows = within!(lent, c => sqlx::query_as(PG).bind(source).bind(horizon)
                .bind(claims.iter().map(|claim| claim.batch.task.0).collect::<Vec<_>>())
                .bind(claims.iter().map(|claim| claim.batch.no).collect::<Vec<_>>())
                .bind(claims.iter().map(|claim| claim.token).collect::<Vec<_>>())
                .bind(claims.iter().map(|claim| claim.until).collect::<Vec<_>>())
                .fetch_all(c).await)?;
        }
        Tx::Lite(lent) => {
            for claim in claims {
                let row: Option<Claimed> = within!(&mut *lent, c => sqlx::query_as(LITE)
                    .bind(source).bind(horizon).bind(claim.batch.task).bind(claim.batch.no)
                    .bind(claim.token).bind(claim.until).fetch_optional(c).await)?;
                rows.extend(row);
            }
        }
    }
    let held = |row: &Claimed| {
        let batch = BatchRef { task: row.task_id, no: row.no };
        Held { batch, token: row.token }
    };
    Ok(rows.into_iter().map(|row| (held(&row), row)).collect())
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
    // Queued as before: its task is about to be paused, which makes it pending.
    const BACK: &str = "UPDATE batches SET held = $4, state = 1, lease_token = NULL,
            attempt = attempt - 1
        WHERE task_id = $1 AND no = $2 AND lease_token = $3";
    let want: i64 = taken.iter().map(|one| one.row.held).sum();
    let Some(account) = taken.first().map(|one| one.account).filter(|_| want > 0) else {
        return Ok(Vec::new());
    };
    // Mostly there is enough, and the balance need not be looked at first.
    if try_post(tx, &holds(account, claims, taken), now).await?.is_some() {
        return Ok(Vec::new());
    }
    if taken.iter().any(|one| claims[one.at].fill) {
        post_filled(tx, holds(account, claims, taken), now).await?;
        return Ok(Vec::new());
    }
    let mut left = lock_balance(tx, account, Kind::Email).await?.min(want);
    let mut broke = Vec::new();
    for one in taken.iter_mut() {
        let (claim, wanted, free) = (&claims[one.at], one.row.held, one.has_free_work());
        one.row.held = wanted.min(left);
        left -= one.row.held;
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
    let transfer = holds(account, claims, taken);
    if !transfer.movements.is_empty() {
        post(tx, &transfer, now).await?;
    }
    Ok(broke)
}

/// What claimed batches of one account hold, an entry for each task.
fn holds(account: AccountId, claims: &[Claim], taken: &[Taken]) -> Transfer {
    let of_task = |some: &[Taken]| {
        let (claim, amount) = (&claims[some[0].at], some.iter().map(|one| one.row.held).sum());
        let (task, step) = (Some(claim.batch.task), Some(claim.token));
        Movement { entry: EntryType::Hold, amount, task, step, note: None }
    };
    let tasks = taken.chunk_by(|a, b| claims[a.at].batch.task == claims[b.at].batch.task);
    let movements = tasks.map(of_task).filter(|one| one.amount > 0).collect();
    Transfer { account, kind: Kind::Email, movements }
}

async fn into_lease(
    tx: &mut Tx,
    claim: &Claim,
    taken: Taken,
    (horizon, now): (Millis, Millis),
) -> Result<(usize, Lease)> {
    let row = taken.row;
    // A batch that was never leased before has nothing set aside.
    let deferred = match row.attempt {
        ..=1 => Vec::new(),
        _ => deferrals::of_batch(tx, claim.batch).await?,
    };
    let lease = Lease {
        batch: claim.batch,
        account: taken.account,
        sandbox: taken.sandbox,
        token: claim.token,
        first_seq: row.first_seq,
        payload: row.payload,
        held: row.held,
        done: Done::from_bytes(row.done),
        deferred,
        leased_at: now,
        horizon,
        attempt: row.attempt,
        lost: row.lost,
    };
    Ok((taken.at, lease))
}

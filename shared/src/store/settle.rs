//! Settling: results, counters, ledger and balance of finished addresses, in one transaction of
//! one account.
//!
//! A settlement has a number, and each of its steps a fence. A step whose fence no longer holds
//! drops out alone; one that an earlier try of the same settlement has already applied (the answer
//! to its commit was lost) is recognised by the number on the batch row and not applied again.
//! Results and ledger entries carry the number too: it names the entries that moved a credit.
//!
//! *Once* is guarded by the batch row's bitmap of what has its result: a step says which addresses had theirs
//! before, and is refused where the row says otherwise.
//!
//! On PostgreSQL the results are written first, while nobody waits for anything, then fences, ledger and
//! balance under their locks: a process that is frozen while it sends results holds up nobody. Results of a
//! step that turns out to be fenced, or applied before, must not stay: the transaction is rolled back and
//! done again with the fences first. What a lease gives back is the row's own figure, never what its holder
//! remembers.

use std::collections::BTreeMap;

use sqlx::FromRow;

use super::blocks::{self, NewBlock};
use super::control::lock_task;
use super::credits::post;
use super::dispatch::mark_ready;
use super::tasks::TallyRow;
use super::{Result, Store, StoreError, Tx, deferrals, on};
use crate::domain::batch::{After, BatchRef, Settled, Step, place};
use crate::domain::clock::Millis;
use crate::domain::done::Done;
use crate::domain::id::{AccountId, TaskId};
use crate::domain::ledger::{EntryType, Kind, Movement, Transfer};
use crate::domain::task::Tally;

/// What a settlement came to.
#[derive(Debug, Default)]
pub struct Settlement {
    /// What became of each step, in the order given.
    pub outcomes: Vec<Settled>,
    /// Has a batch ended or gone back? Then others can be sent.
    pub room: bool,
    /// Batches that are done in several pieces.
    pub pieces: Vec<BatchRef>,
}

/// A batch after its step.
#[derive(FromRow)]
struct Fenced {
    addresses: i32,
    attempt: i32,
    freed: i64,
    #[sqlx(flatten)]
    tally: TallyRow,
}

/// What the steps of one task add up to.
#[derive(Default)]
struct TaskSums {
    charged: i64,
    returned: i64,
    ended: Tally,
    batches_ended: i64,
    /// Batches that are pending again.
    pending: bool,
}

/// What is written first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum First {
    Results,
    Fences,
}

impl Store {
    /// Applies steps of one account as settlement `number`; a retry gives the same number and the
    /// same steps.
    pub async fn settle(
        &self,
        account: AccountId,
        number: i64,
        steps: &[Step],
        now: Millis,
    ) -> Result<Settlement> {
        if matches!(self, Store::Pg(_)) {
            match self.try_settle(First::Results, account, number, steps, now).await {
                Ok(Some(settlement)) => return Ok(settlement),
                Ok(None) => {}
                // A result is there already: of an earlier try, or of who took the lease over.
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(error),
            }
        }
        let settled = self.try_settle(First::Fences, account, number, steps, now).await?;
        Ok(settled.unwrap_or_default())
    }

    /// `None`: results were written first that must not stay.
    async fn try_settle(
        &self,
        first: First,
        account: AccountId,
        number: i64,
        steps: &[Step],
        now: Millis,
    ) -> Result<Option<Settlement>> {
        let mut order: Vec<usize> = (0..steps.len()).collect();
        order.sort_by_key(|&i| steps[i].batch);
        let mut tx = self.begin().await?;
        if first == First::Results {
            let all: Vec<&Step> = order.iter().map(|&i| &steps[i]).collect();
            insert_results(&mut tx, number, &all).await?;
        }
        let mut locked = None;
        for &i in &order {
            let task = steps[i].batch.task;
            if locked.replace(task) != Some(task) {
                lock_task(&mut tx, task, None).await?;
            }
        }
        let mut outcomes = vec![Settled::Fenced; steps.len()];
        let mut sums: BTreeMap<TaskId, TaskSums> = BTreeMap::new();
        let mut stored = Vec::with_capacity(steps.len());
        let (mut answered, mut pieces) = (Vec::new(), Vec::new());
        for i in order {
            let step = &steps[i];
            match pass_fence(&mut tx, number, step).await? {
                Passed::Applied { batch_done, folded, leased_before, freed } => {
                    if leased_before && !step.findings.is_empty() {
                        answered.push(step);
                    }
                    if batch_done && !step.done.is_empty() {
                        pieces.push(step.batch);
                    }
                    let sum = sums.entry(step.batch.task).or_default();
                    add(sum, step, freed, batch_done.then_some(folded));
                    stored.push(step);
                    outcomes[i] = Settled::Stored { batch_done, task_done: false };
                }
                _ if first == First::Results => return tx.rollback().await.map(|()| None),
                Passed::Before { batch_done } => {
                    outcomes[i] = Settled::Stored { batch_done, task_done: false };
                }
                Passed::No => {}
            }
        }
        if first == First::Fences {
            insert_results(&mut tx, number, &stored).await?;
        }
        for step in answered {
            deferrals::forget_answered(&mut tx, step).await?;
        }
        deferrals::set_aside(&mut tx, &stored).await?;
        let mut room = false;
        for (task, sum) in &sums {
            if sum.batches_ended > 0 {
                let done = fold(&mut tx, *task, sum, now).await?;
                mark_done(&mut outcomes, steps, *task, done);
            }
            if sum.pending {
                mark_ready(&mut tx, *task, account, now).await?;
            }
            room |= sum.batches_ended > 0 || sum.pending;
        }
        post_sums(&mut tx, account, number, &sums, now).await?;
        tx.commit().await?;
        Ok(Some(Settlement { outcomes, room, pieces }))
    }
}

async fn insert_results(tx: &mut Tx, number: i64, steps: &[&Step]) -> Result<()> {
    let mut new = Vec::with_capacity(steps.len());
    for step in steps {
        new.extend(NewBlock::of_step(number, step)?);
    }
    blocks::insert(tx, &new).await
}

/// What has its result after a step; no address may get a second one.
fn done_after(step: &Step) -> Result<Done> {
    let mut done = step.done.clone();
    for finding in &step.findings {
        if !place(step.first_seq, finding.seq).is_some_and(|place| done.insert(place)) {
            let detail = format!("seq {} has its result already", finding.seq);
            return Err(StoreError::Damaged { what: "step", detail });
        }
    }
    Ok(done)
}

/// Moves the credits and writes the entries; last, so that the balance is locked briefly.
async fn post_sums(
    tx: &mut Tx,
    account: AccountId,
    number: i64,
    sums: &BTreeMap<TaskId, TaskSums>,
    now: Millis,
) -> Result<()> {
    let mut movements = Vec::new();
    for (task, sum) in sums {
        for (entry, amount) in [(EntryType::Charge, sum.charged), (EntryType::Refund, sum.returned)]
        {
            if amount > 0 {
                let (task, step) = (Some(*task), Some(number));
                movements.push(Movement { entry, amount, task, step, note: None });
            }
        }
    }
    if movements.is_empty() {
        return Ok(());
    }
    let transfer = Transfer { account, kind: Kind::Email, movements };
    post(tx, &transfer, now).await.map(|_| ())
}

fn add(sum: &mut TaskSums, step: &Step, freed: i64, folded: Option<Tally>) {
    let tally = step.tally();
    sum.charged += tally.charged;
    sum.returned += match step.after {
        After::Keep => tally.refunded + step.deferrals.len() as i64,
        After::Release | After::Wait(_) => freed,
    };
    sum.pending |= step.after == After::Release && folded.is_none();
    if let Some(folded) = folded {
        sum.ended += folded;
        sum.batches_ended += 1;
    }
}

fn mark_done(outcomes: &mut [Settled], steps: &[Step], task: TaskId, done: bool) {
    for (outcome, step) in outcomes.iter_mut().zip(steps) {
        if let Settled::Stored { task_done, .. } = outcome
            && step.batch.task == task
        {
            *task_done = done;
        }
    }
}

/// How the fence judged a step.
enum Passed {
    /// It holds; the batch row has the step's counts now. `freed`: what an ended lease gave back.
    Applied { batch_done: bool, folded: Tally, leased_before: bool, freed: i64 },
    /// An earlier try of this very step was applied.
    Before { batch_done: bool },
    /// The lease is not ours any more.
    No,
}

async fn pass_fence(tx: &mut Tx, number: i64, step: &Step) -> Result<Passed> {
    // Progress forgets lost leases, but not that the batch is under suspicion (5: see LOST_ALONE).
    const KEEP: &str = "UPDATE batches SET step = $4, held = held - $5,
            deliverable = deliverable + $6, undeliverable = undeliverable + $7,
            risky = risky + $8, unknown = unknown + $9, charged = charged + $10,
            refunded = refunded + $11, done = $14,
            lost = CASE WHEN lost < 5 AND $6 + $7 + $8 + $9 > 0 THEN 0 ELSE lost END
        WHERE task_id = $1 AND no = $2 AND lease_token = $3 AND state = 2
          AND (step IS NULL OR step <> $4) AND done = $13 AND CAST($12 AS BIGINT) IS NULL
        RETURNING addresses, attempt, CAST(0 AS BIGINT) AS freed,
            deliverable, undeliverable, risky, unknown, charged, refunded";
    // Done when every address has its result; else it is pending again, or waits for its time.
    const RELEASE: &str = "UPDATE batches SET step = $4, freed = held - $5, held = 0,
            lease_token = NULL,
            state = CASE WHEN deliverable + undeliverable + risky + unknown
                + $6 + $7 + $8 + $9 = addresses THEN 3
                WHEN CAST($12 AS BIGINT) IS NOT NULL THEN 5 ELSE 0 END,
            due_at = COALESCE(CAST($12 AS BIGINT), due_at),
            touched = CASE WHEN deliverable + undeliverable + risky + unknown
                + $6 + $7 + $8 + $9 = addresses THEN 0 ELSE 1 END,
            deliverable = deliverable + $6, undeliverable = undeliverable + $7,
            risky = risky + $8, unknown = unknown + $9, charged = charged + $10,
            refunded = refunded + $11, done = $14,
            lost = CASE WHEN lost > 5 AND $6 + $7 + $8 + $9 = 0 THEN lost - 1
                WHEN $6 + $7 + $8 + $9 = 0 THEN lost WHEN lost < 5 THEN 0 ELSE 5 END
        WHERE task_id = $1 AND no = $2 AND lease_token = $3 AND state = 2
          AND (step IS NULL OR step <> $4) AND done = $13
        RETURNING addresses, attempt, freed,
            deliverable, undeliverable, risky, unknown, charged, refunded";
    const WHY: &str = "SELECT state, COALESCE(step = $3, FALSE),
            COALESCE(lease_token = $4 AND state = 2, FALSE)
        FROM batches WHERE task_id = $1 AND no = $2";
    let (tally, after) = (step.tally(), done_after(step)?);
    let (sql, from_held, wait) = match step.after {
        After::Keep => (KEEP, step.resolved(), None),
        After::Release => (RELEASE, tally.charged, None),
        After::Wait(until) => (RELEASE, tally.charged, Some(until)),
    };
    let BatchRef { task, no } = step.batch;
    let row: Option<Fenced> = on!(&mut *tx, c => sqlx::query_as(sql)
        .bind(task).bind(no).bind(step.token).bind(number).bind(from_held)
        .bind(tally.deliverable).bind(tally.undeliverable).bind(tally.risky).bind(tally.unknown)
        .bind(tally.charged).bind(tally.refunded).bind(wait)
        .bind(step.done.as_bytes()).bind(after.as_bytes())
        .fetch_optional(c).await)?;
    if let Some(row) = row {
        let folded = Tally::from(row.tally);
        let batch_done =
            step.after != After::Keep && folded.processed() == i64::from(row.addresses);
        // A batch that was never leased before had nothing set aside.
        let leased_before = row.attempt > 1;
        return Ok(Passed::Applied { batch_done, folded, leased_before, freed: row.freed });
    }
    let why: Option<(i16, bool, bool)> = on!(&mut *tx, c => sqlx::query_as(WHY)
        .bind(task).bind(no).bind(number).bind(step.token).fetch_optional(c).await)?;
    match why {
        Some((state, true, _)) => {
            Ok(Passed::Before { batch_done: state == crate::domain::batch::state::DONE })
        }
        Some((_, false, true)) => Err(StoreError::Damaged {
            what: "step",
            detail: "the batch row knows of other results than the lease".to_owned(),
        }),
        _ => Ok(Passed::No),
    }
}

/// Adds ended batches to their task; the last one completes it. Tells whether it did.
async fn fold(tx: &mut Tx, task: TaskId, sum: &TaskSums, now: Millis) -> Result<bool> {
    const SQL: &str = "UPDATE tasks SET
            deliverable = deliverable + $3, undeliverable = undeliverable + $4,
            risky = risky + $5, unknown = unknown + $6, charged = charged + $7,
            refunded = refunded + $8, batches_ended = batches_ended + $2,
            status = CASE WHEN batches_ended + $2 = batches THEN 'completed' ELSE status END,
            pause_reason = CASE WHEN batches_ended + $2 = batches THEN NULL ELSE pause_reason END,
            finished_at = CASE WHEN batches_ended + $2 = batches THEN $9 ELSE finished_at END
        WHERE id = $1
        RETURNING batches_ended, batches";
    let ended = sum.ended;
    let (done, all): (i64, i64) = on!(tx, c => sqlx::query_as(SQL)
        .bind(task).bind(sum.batches_ended).bind(ended.deliverable).bind(ended.undeliverable)
        .bind(ended.risky).bind(ended.unknown).bind(ended.charged).bind(ended.refunded).bind(now)
        .fetch_one(c).await)?;
    Ok(done == all)
}

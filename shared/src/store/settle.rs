//! Settling: results, counters, ledger and balance of finished addresses, in one transaction of
//! one account.
//!
//! A settlement has a number, and each of its steps a fence. A step whose fence no longer holds
//! drops out alone; one that an earlier try of the same settlement has already applied (the answer
//! to its commit was lost) is recognised by the number on the batch row and not applied again.
//! Results and ledger entries carry the number too: it names the entries that moved a credit.
//!
//! On PostgreSQL the results are written first, while nobody waits for anything, then fences, ledger and
//! balance under their locks: a process that is frozen while it sends results holds up nobody. Results of a
//! step that turns out to be fenced, or applied before, must not stay: the transaction is rolled back and
//! done again with the fences first. What a lease gives back is the row's own figure, never what its holder
//! remembers.

use std::collections::BTreeMap;

use sqlx::{FromRow, QueryBuilder, Sqlite};

use super::control::lock_task;
use super::credits::post;
use super::dispatch::mark_ready;
use super::tasks::TallyRow;
use super::{Result, Store, Tx, deferrals, expect_rows, on, within};
use crate::domain::batch::{After, BatchRef, Finding, Settled, Step};
use crate::domain::clock::Millis;
use crate::domain::id::{AccountId, TaskId};
use crate::domain::ledger::{EntryType, Kind, Movement, Transfer};
use crate::domain::task::Tally;

/// Rows of one multi-row INSERT on SQLite: 14 values each, 32,766 allowed.
const LITE_ROWS: usize = 512;

/// What a settlement came to.
#[derive(Debug, Default)]
pub struct Settlement {
    /// What became of each step, in the order given.
    pub outcomes: Vec<Settled>,
    /// Has a batch ended or gone back? Then others can be sent.
    pub room: bool,
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
            insert_findings(&mut tx, number, &all).await?;
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
        let mut answered = Vec::new();
        for i in order {
            let step = &steps[i];
            match pass_fence(&mut tx, number, step).await? {
                Passed::Applied { batch_done, folded, leased_before, freed } => {
                    if leased_before && !step.findings.is_empty() {
                        answered.push(step.batch);
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
            insert_findings(&mut tx, number, &stored).await?;
        }
        for batch in answered {
            deferrals::forget_answered(&mut tx, batch).await?;
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
        Ok(Some(Settlement { outcomes, room }))
    }
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
            refunded = refunded + $11,
            lost = CASE WHEN lost < 5 AND $6 + $7 + $8 + $9 > 0 THEN 0 ELSE lost END
        WHERE task_id = $1 AND no = $2 AND lease_token = $3 AND state = 2
          AND (step IS NULL OR step <> $4) AND CAST($12 AS BIGINT) IS NULL
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
            refunded = refunded + $11,
            lost = CASE WHEN $6 + $7 + $8 + $9 = 0 THEN lost WHEN lost < 5 THEN 0 ELSE 5 END
        WHERE task_id = $1 AND no = $2 AND lease_token = $3 AND state = 2
          AND (step IS NULL OR step <> $4)
        RETURNING addresses, attempt, freed,
            deliverable, undeliverable, risky, unknown, charged, refunded";
    const BEFORE: &str = "SELECT state FROM batches WHERE task_id = $1 AND no = $2 AND step = $3";
    let tally = step.tally();
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
        .fetch_optional(c).await)?;
    if let Some(row) = row {
        let folded = Tally::from(row.tally);
        let batch_done =
            step.after != After::Keep && folded.processed() == i64::from(row.addresses);
        // A batch that was never leased before had nothing set aside.
        let leased_before = row.attempt > 1;
        return Ok(Passed::Applied { batch_done, folded, leased_before, freed: row.freed });
    }
    let state: Option<i16> = on!(&mut *tx, c => sqlx::query_scalar(BEFORE)
        .bind(task).bind(no).bind(number).fetch_optional(c).await)?;
    Ok(match state {
        Some(state) => Passed::Before { batch_done: state == crate::domain::batch::state::DONE },
        None => Passed::No,
    })
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

async fn insert_findings(tx: &mut Tx, number: i64, steps: &[&Step]) -> Result<()> {
    const COPY_PG: &str =
        "COPY results (task_id, seq, address, reason, score, flags, credit, attempts,
            step, checked_at, smtp_code, mx, did_you_mean, detail)
        FROM STDIN WITH (FORMAT binary)";
    let count: usize = steps.iter().map(|step| step.findings.len()).sum();
    if count == 0 {
        return Ok(());
    }
    let rows = match tx {
        // COPY takes a row at a third of the price of INSERT … UNNEST with text columns.
        Tx::Pg(lent) => {
            let bytes = copy_rows(number, steps);
            within!(lent, c => {
                let mut copy = c.copy_in_raw(COPY_PG).await?;
                copy.send(bytes).await?;
                copy.finish().await
            })?
        }
        Tx::Lite(lent) => {
            let all: Vec<(&Step, &Finding)> =
                steps.iter().flat_map(|s| s.findings.iter().map(move |f| (*s, f))).collect();
            let mut rows = 0;
            for part in all.chunks(LITE_ROWS) {
                let mut insert = insert_values(number, part);
                let query = insert.build().persistent(part.len() == LITE_ROWS);
                rows += within!(&mut *lent, c => query.execute(c).await)?.rows_affected();
            }
            rows
        }
    };
    expect_rows("insert results", rows, count as u64)
}

fn insert_values(number: i64, part: &[(&Step, &Finding)]) -> QueryBuilder<Sqlite> {
    let mut sql = QueryBuilder::new(
        "INSERT INTO results (task_id, seq, address, reason, score, flags, credit, attempts,
            step, checked_at, smtp_code, mx, did_you_mean, detail) ",
    );
    sql.push_values(part, |mut row, (step, finding)| {
        let verdict = &finding.verdict;
        row.push_bind(step.batch.task)
            .push_bind(finding.seq)
            .push_bind(finding.address.to_string())
            .push_bind(verdict.reason.code())
            .push_bind(verdict.score)
            .push_bind(verdict.flags.pack())
            .push_bind(finding.credit.code())
            .push_bind(finding.attempts)
            .push_bind(number)
            .push_bind(finding.checked_at)
            .push_bind(verdict.smtp_code)
            .push_bind(verdict.mx.clone())
            .push_bind(verdict.did_you_mean.clone())
            .push_bind(verdict.detail.clone());
    });
    sql
}

/// PostgreSQL's binary COPY format: a header, rows of length-prefixed fields, a trailer.
/// Source: PostgreSQL manual, COPY, "Binary Format".
fn copy_rows(number: i64, steps: &[&Step]) -> Vec<u8> {
    const FIELDS: i16 = 14;
    let count: usize = steps.iter().map(|step| step.findings.len()).sum();
    let mut out = Vec::with_capacity(32 + count * 160);
    out.extend_from_slice(b"PGCOPY\n\xff\r\n\0");
    out.extend_from_slice(&[0; 8]);
    for step in steps {
        for finding in &step.findings {
            let verdict = &finding.verdict;
            out.extend_from_slice(&FIELDS.to_be_bytes());
            field(&mut out, step.batch.task.0.as_bytes());
            field(&mut out, &finding.seq.to_be_bytes());
            field(&mut out, finding.address.as_bytes());
            field(&mut out, &verdict.reason.code().to_be_bytes());
            field(&mut out, &verdict.score.to_be_bytes());
            field(&mut out, &verdict.flags.pack().to_be_bytes());
            field(&mut out, &finding.credit.code().to_be_bytes());
            field(&mut out, &finding.attempts.to_be_bytes());
            field(&mut out, &number.to_be_bytes());
            field(&mut out, &finding.checked_at.to_be_bytes());
            nullable(&mut out, verdict.smtp_code.map(i16::to_be_bytes).as_ref().map(|b| &b[..]));
            nullable(&mut out, verdict.mx.as_deref().map(str::as_bytes));
            nullable(&mut out, verdict.did_you_mean.as_deref().map(str::as_bytes));
            nullable(&mut out, verdict.detail.as_deref().map(str::as_bytes));
        }
    }
    out.extend_from_slice(&(-1_i16).to_be_bytes());
    out
}

fn field(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as i32).to_be_bytes());
    out.extend_from_slice(bytes);
}

fn nullable(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => field(out, bytes),
        None => out.extend_from_slice(&(-1_i32).to_be_bytes()),
    }
}

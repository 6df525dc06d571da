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

use std::collections::{BTreeMap, HashMap};

use sqlx::FromRow;

use super::blocks::{self, NewBlock};
use super::control::lock_task;
use super::credits::post;
use super::dispatch::mark_ready;
use super::tasks::TallyRow;
use super::{Result, Store, StoreError, Tx, deferrals, on, within};
use crate::domain::batch::{After, BatchRef, Held, Settled, Step, place};
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
    task_id: TaskId,
    no: i32,
    token: i64,
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
        let ordered: Vec<&Step> = order.iter().map(|&i| &steps[i]).collect();
        if first == First::Results {
            insert_results(&mut tx, number, &ordered).await?;
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
        let passed = pass_fences(&mut tx, number, &ordered).await?;
        for (i, passed) in order.into_iter().zip(passed) {
            let step = &steps[i];
            match passed {
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

/// The fence: moves the batch rows of steps `s` on, where their leases hold. A lease that ends leaves a batch
/// that is done when every address has its result; else it is pending again, or waits for its time.
macro_rules! fence {
    ($steps:literal, $token:literal) => {
        concat!(
            "UPDATE batches SET step = $1,
                held = CASE WHEN s.keep THEN held - s.used ELSE 0 END,
                freed = CASE WHEN s.keep THEN freed ELSE held - s.used END,
                lease_token = CASE WHEN s.keep THEN lease_token END,
                state = CASE WHEN s.keep THEN 2
                    WHEN batches.deliverable + batches.undeliverable + batches.risky
                        + batches.unknown + s.found = addresses THEN 3
                    WHEN s.until IS NOT NULL THEN 5 ELSE 0 END,
                touched = CASE WHEN NOT s.keep
                    AND batches.deliverable + batches.undeliverable + batches.risky
                        + batches.unknown + s.found = addresses THEN 0 ELSE 1 END,
                due_at = COALESCE(s.until, due_at),
                deliverable = batches.deliverable + s.deliverable,
                undeliverable = batches.undeliverable + s.undeliverable,
                risky = batches.risky + s.risky,
                unknown = batches.unknown + s.unknown,
                charged = batches.charged + s.charged,
                refunded = batches.refunded + s.refunded,
                done = s.after, lost = s.lost_after
            FROM ",
            $steps,
            " WHERE batches.task_id = s.task_id AND batches.no = s.no AND lease_token = s.token
                AND state = 2 AND (step IS NULL OR step <> $1) AND done = s.before
            RETURNING batches.task_id, batches.no, ",
            $token,
            " AS token, addresses, attempt, freed, batches.deliverable, batches.undeliverable,
                batches.risky, batches.unknown, batches.charged, batches.refunded"
        )
    };
}

/// Tells of each step how the fence judged it; the caller has locked the tasks.
async fn pass_fences(tx: &mut Tx, number: i64, steps: &[&Step]) -> Result<Vec<Passed>> {
    // Sub-selects hide how long the arrays are: who knows it plans anew each time, which takes longer than
    // the work.
    const PG: &str = fence!(
        "UNNEST((SELECT $2::UUID[]), (SELECT $3::INTEGER[]), (SELECT $4::BIGINT[]),
            (SELECT $5::BOOLEAN[]), (SELECT $6::BIGINT[]), (SELECT $7::BIGINT[]),
            (SELECT $8::BIGINT[]), (SELECT $9::BIGINT[]), (SELECT $10::BIGINT[]),
            (SELECT $11::BIGINT[]), (SELECT $12::BIGINT[]), (SELECT $13::BIGINT[]),
            (SELECT $14::BYTEA[]), (SELECT $15::BYTEA[]), (SELECT $16::INTEGER[]),
            (SELECT $17::BIGINT[]))
        AS s (task_id, no, token, keep, used, until, deliverable, undeliverable, risky, unknown,
            charged, refunded, before, after, lost_after, found)",
        "s.token"
    );
    const LITE: &str = fence!(
        "(SELECT $2 AS task_id, $3 AS no, $4 AS token, $5 AS keep, $6 AS used, $7 AS until,
            $8 AS deliverable, $9 AS undeliverable, $10 AS risky, $11 AS unknown, $12 AS charged,
            $13 AS refunded, $14 AS before, $15 AS after, $16 AS lost_after, $17 AS found) AS s",
        "CAST($4 AS BIGINT)"
    );
    let moves = steps.iter().map(|step| Move::of(step)).collect::<Result<Vec<Move>>>()?;
    let mut rows: Vec<Fenced> = Vec::with_capacity(steps.len());
    match &mut *tx {
        // One round trip, however many.
        Tx::Pg(lent) => {
            fn all<T>(moves: &[Move], of: impl Fn(&Move) -> T) -> Vec<T> {
                moves.iter().map(of).collect()
            }
            let counts = |of: fn(&Tally) -> i64| all(&moves, |one| of(&one.tally));
            rows = within!(lent, c => sqlx::query_as(PG).bind(number)
                .bind(all(&moves, |one| one.step.batch.task.0))
                .bind(all(&moves, |one| one.step.batch.no))
                .bind(all(&moves, |one| one.step.token))
                .bind(all(&moves, |one| one.keep))
                .bind(all(&moves, |one| one.used))
                .bind(all(&moves, |one| one.until))
                .bind(counts(|tally| tally.deliverable))
                .bind(counts(|tally| tally.undeliverable))
                .bind(counts(|tally| tally.risky))
                .bind(counts(|tally| tally.unknown))
                .bind(counts(|tally| tally.charged))
                .bind(counts(|tally| tally.refunded))
                .bind(moves.iter().map(|one| one.step.done.as_bytes()).collect::<Vec<_>>())
                .bind(moves.iter().map(|one| one.after.as_bytes()).collect::<Vec<_>>())
                .bind(all(&moves, |one| one.step.lost))
                .bind(all(&moves, |one| one.tally.processed()))
                .fetch_all(c).await)?;
        }
        Tx::Lite(lent) => {
            for Move { step, tally, after, keep, used, until } in &moves {
                let BatchRef { task, no } = step.batch;
                let row: Option<Fenced> = within!(&mut *lent, c => sqlx::query_as(LITE)
                    .bind(number).bind(task).bind(no).bind(step.token).bind(keep).bind(used)
                    .bind(until).bind(tally.deliverable).bind(tally.undeliverable)
                    .bind(tally.risky).bind(tally.unknown).bind(tally.charged)
                    .bind(tally.refunded).bind(step.done.as_bytes()).bind(after.as_bytes())
                    .bind(step.lost).bind(tally.processed()).fetch_optional(c).await)?;
                rows.extend(row);
            }
        }
    }
    let key = |row: &Fenced| {
        let batch = BatchRef { task: row.task_id, no: row.no };
        Held { batch, token: row.token }
    };
    let mut held: HashMap<_, Fenced> = rows.into_iter().map(|row| (key(&row), row)).collect();
    let mut all = Vec::with_capacity(steps.len());
    for step in steps {
        all.push(match held.remove(&Held::from(*step)) {
            Some(row) => {
                let folded = Tally::from(row.tally);
                let batch_done =
                    step.after != After::Keep && folded.processed() == i64::from(row.addresses);
                // A batch that was never leased before had nothing set aside.
                let leased_before = row.attempt > 1;
                Passed::Applied { batch_done, folded, leased_before, freed: row.freed }
            }
            None => why_not(tx, number, step).await?,
        });
    }
    Ok(all)
}

/// A step as the fence takes it.
struct Move<'a> {
    step: &'a Step,
    tally: Tally,
    after: Done,
    keep: bool,
    /// Held credits that it uses up.
    used: i64,
    until: Option<Millis>,
}

impl<'a> Move<'a> {
    fn of(step: &'a Step) -> Result<Self> {
        let tally = step.tally();
        let (keep, used, until) = match step.after {
            After::Keep => (true, step.resolved(), None),
            After::Release => (false, tally.charged, None),
            After::Wait(until) => (false, tally.charged, Some(until)),
        };
        Ok(Self { after: done_after(step)?, step, tally, keep, used, until })
    }
}

/// What became of a step that the fence did not let pass.
async fn why_not(tx: &mut Tx, number: i64, step: &Step) -> Result<Passed> {
    const WHY: &str = "SELECT state, COALESCE(step = $3, FALSE),
            COALESCE(lease_token = $4 AND state = 2, FALSE)
        FROM batches WHERE task_id = $1 AND no = $2";
    let BatchRef { task, no } = step.batch;
    let why: Option<(i16, bool, bool)> = on!(tx, c => sqlx::query_as(WHY)
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

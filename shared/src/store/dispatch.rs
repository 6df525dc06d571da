//! Fair dispatch: which batches are sent next.
//!
//! A batch is *out* while it is queued or leased. What is out is bounded for the whole fleet, and shared
//! among the accounts that have work, then among the tasks of each: who has the fewest addresses out for
//! its weight comes next, and of those that have equally few the one that was served longest ago. An account
//! with nothing out gets a batch at once, bound or not, past the line.
//!
//! Sandbox tasks, which test keys submit, wait apart and have a room of their own: a round is of the one kind
//! or of the other, and what is free takes nothing of what is paid for, of its own account as of others.
//!
//! | table | a row is |
//! | --- | --- |
//! | `ready_tasks` | an active task that may have pending batches |
//! | `ready_accounts` | an account with such a task that is no sandbox task |
//! | `ready_sandbox` | an account with such a sandbox task |
//!
//! Invariants: whoever makes a batch pending marks its task in the same transaction ([`mark_ready`]); a mark
//! is removed only by who found no pending batch, and only if its stamp has not been raised meanwhile. So a
//! pending batch of an active task is always found, and what waits costs nothing: a round reads the marks of
//! as many accounts as have something out, and a few more. Any number of rounds may run at once: each passes
//! by the accounts that another is serving.
//!
//! Locks: a mark is taken after task and batch, before the account's balance.

use std::collections::HashMap;

use serde_json::json;

use super::audit_log::write_down;
use super::{Result, Store, Tx, expect_rows, on, read};
use crate::domain::audit::{Change, Origin};
use crate::domain::batch::{BatchRef, Room, Sent};
use crate::domain::clock::Millis;
use crate::domain::id::{AccountId, TaskId};

/// Picks of one round; the next round goes on.
const PICKS: usize = 64;
/// Accounts without anything out that one round looks at.
const NEWCOMERS: usize = 64;
/// Marked tasks of an account that are read at once, beyond those that have something out; and how often.
const PAGE: usize = 8;
const PAGES: usize = 32;
/// Batches of one task that are queued at once.
const MOST: i64 = 32;
/// Batches beyond the bound that all newcomers together may have out.
const FIRST_BEYOND: i64 = 1_000;

/// A statement about the marks of accounts: about those of the others, and of sandbox tasks.
macro_rules! marks {
    ($first:literal $(, $rest:literal)+) => {
        [
            concat!($first $(, "ready_accounts", $rest)+),
            concat!($first $(, "ready_sandbox", $rest)+),
        ]
    };
}

/// Which of [`marks`].
fn kind(sandbox: bool) -> usize {
    usize::from(sandbox)
}

/// What a task has out.
#[derive(Debug, sqlx::FromRow)]
struct Out {
    account_id: AccountId,
    task_id: TaskId,
    batches: i64,
    addresses: i64,
}

/// An account that has work.
#[derive(Debug, sqlx::FromRow)]
struct Ready {
    account_id: AccountId,
    weight: i32,
    turn: i64,
}

/// What is out at the moment, kept true through a round.
struct Standing {
    batches: i64,
    addresses: i64,
    accounts: HashMap<AccountId, i64>,
    tasks: HashMap<TaskId, i64>,
}

impl Standing {
    fn of(all: Vec<Out>) -> Self {
        let mut standing =
            Self { batches: 0, addresses: 0, accounts: HashMap::new(), tasks: HashMap::new() };
        for out in all {
            standing.add(out.account_id, out.task_id, out.batches, out.addresses);
        }
        standing
    }

    fn add(&mut self, account: AccountId, task: TaskId, batches: i64, addresses: i64) {
        self.batches += batches;
        self.addresses += addresses;
        *self.accounts.entry(account).or_default() += addresses;
        *self.tasks.entry(task).or_default() += addresses;
    }

    fn has_room(&self, room: Room) -> bool {
        self.addresses < room.addresses && self.batches < room.batches
    }

    fn of_account(&self, account: AccountId) -> i64 {
        self.accounts.get(&account).copied().unwrap_or(0)
    }

    /// Who comes next: the fewest out for its weight, then the one served longest ago.
    fn next(&self, ready: &[Ready]) -> Option<usize> {
        let rank = |one: &Ready| {
            // Exact in 128 bits, without fractions: a/x < b/y as a·y < b·x.
            (i128::from(self.of_account(one.account_id)), i128::from(one.weight.max(1)), one.turn)
        };
        (0..ready.len()).min_by(|&a, &b| {
            let ((a, x, since), (b, y, than)) = (rank(&ready[a]), rank(&ready[b]));
            (a * y).cmp(&(b * x)).then(since.cmp(&than))
        })
    }

    /// Batches that the next one may have at once: its part of what is left. As it has the fewest out for its
    /// weight, it is not more than its due.
    fn share(&self, ready: &[Ready], next: usize, room: Room) -> i64 {
        let weight = |one: &Ready| i128::from(one.weight.max(1));
        let left = i128::from(room.addresses - self.addresses) * weight(&ready[next]);
        let part = left / ready.iter().map(weight).sum::<i128>();
        i64::try_from(part / i128::from(room.batch.max(1))).map_or(MOST, |most| most.clamp(1, MOST))
    }
}

/// What a round has queued.
#[derive(Debug)]
pub struct Round {
    /// To be sent, in this order.
    pub sent: Vec<Sent>,
    /// What the next would find.
    pub next: Next,
}

/// What another round would find at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Work, and room for it.
    Work,
    /// No room.
    Full,
    /// Nothing to do.
    Nothing,
}

/// What came of serving an account.
enum Served {
    /// These batches, with their addresses; none: nothing of it is pending.
    Batches(Vec<(BatchRef, i64)>),
    /// Another round is serving it.
    Elsewhere,
}

impl Store {
    /// Queues what `room` allows, shared fairly; `resend_at`: when the queue is asked whether it still has
    /// the messages. Sandbox tasks are left alone.
    pub async fn dispatch(&self, room: Room, resend_at: Millis, now: Millis) -> Result<Round> {
        self.dispatch_kind(false, room, resend_at, now).await
    }

    /// Likewise, of sandbox tasks and nothing else.
    pub async fn dispatch_sandbox(
        &self,
        room: Room,
        resend_at: Millis,
        now: Millis,
    ) -> Result<Round> {
        self.dispatch_kind(true, room, resend_at, now).await
    }

    async fn dispatch_kind(
        &self,
        sandbox: bool,
        room: Room,
        resend_at: Millis,
        now: Millis,
    ) -> Result<Round> {
        if !self.has_ready(sandbox).await? {
            return Ok(Round { sent: Vec::new(), next: Next::Nothing });
        }
        let mut standing = Standing::of(self.out(sandbox).await?);
        let mut ready = self.ready(sandbox, &standing).await?;
        let mut round = Round { sent: Vec::new(), next: Next::Work };
        let mut busy = false;
        for _ in 0..PICKS {
            let Some(next) = standing.next(&ready) else {
                round.next = if busy { Next::Work } else { Next::Nothing };
                break;
            };
            let account = ready[next].account_id;
            let first = standing.of_account(account) == 0;
            let beyond = standing.batches < room.batches.saturating_add(FIRST_BEYOND);
            if !(standing.has_room(room) || first && beyond) {
                round.next = Next::Full;
                break;
            }
            let most = if first { 1 } else { standing.share(&ready, next, room) };
            match self.serve((account, sandbox), &standing, most, resend_at, now).await? {
                Served::Batches(batches) if !batches.is_empty() => {
                    ready[next].turn = now;
                    for (batch, addresses) in batches {
                        standing.add(account, batch.task, 1, addresses);
                        round.sent.push(Sent { batch, first, sandbox });
                    }
                }
                served => {
                    busy |= matches!(served, Served::Elsewhere);
                    ready.swap_remove(next);
                }
            }
        }
        Ok(round)
    }

    async fn out(&self, sandbox: bool) -> Result<Vec<Out>> {
        const SQL: &str = "SELECT t.account_id, o.task_id, o.batches, o.addresses FROM (
                SELECT task_id, count(*) AS batches, CAST(SUM(addresses) AS BIGINT) AS addresses
                FROM batches WHERE state IN (1, 2) GROUP BY task_id) o
            JOIN tasks t ON t.id = o.task_id WHERE t.sandbox = $1";
        read!(self, c => sqlx::query_as(SQL).bind(sandbox).fetch_all(c).await)
    }

    /// Has anybody work of this kind? Most of the time nobody has, and what is out need not be counted.
    pub async fn has_ready(&self, sandbox: bool) -> Result<bool> {
        const SQL: [&str; 2] =
            marks!("SELECT count(*) FROM (SELECT account_id FROM ", " LIMIT 1) one");
        let sql = SQL[kind(sandbox)];
        let any: i64 = read!(self, c => sqlx::query_scalar(sql).fetch_one(c).await)?;
        Ok(any > 0)
    }

    /// Accounts that have work, those served longest ago first: so many that some of them have nothing out, if
    /// any has not.
    async fn ready(&self, sandbox: bool, standing: &Standing) -> Result<Vec<Ready>> {
        const SQL: [&str; 2] = marks!(
            "SELECT r.account_id, a.weight, r.turn FROM ",
            " r JOIN accounts a ON a.id = r.account_id
            ORDER BY r.turn LIMIT (SELECT CAST($1 AS BIGINT))"
        );
        let (sql, limit) = (SQL[kind(sandbox)], (standing.accounts.len() + NEWCOMERS) as i64);
        read!(self, c => sqlx::query_as(sql).bind(limit).fetch_all(c).await)
    }

    /// Queues up to `most` batches of the account's task of this kind whose turn it is.
    async fn serve(
        &self,
        (account, sandbox): (AccountId, bool),
        standing: &Standing,
        most: i64,
        resend_at: Millis,
        now: Millis,
    ) -> Result<Served> {
        const SERVE_LITE: [&str; 2] =
            marks!("UPDATE ", " SET turn = $2 WHERE account_id = $1 RETURNING stamp");
        const SERVE_PG: [&str; 2] = marks!(
            "UPDATE ",
            " SET turn = $2 WHERE account_id = (SELECT account_id FROM ",
            " WHERE account_id = $1 FOR NO KEY UPDATE SKIP LOCKED) RETURNING stamp"
        );
        const TASKS: &str = "SELECT task_id, turn, stamp FROM ready_tasks
            WHERE account_id = $1 AND sandbox = $3 ORDER BY turn LIMIT $2";
        const TASK_SERVED: &str = "UPDATE ready_tasks SET turn = $2 WHERE task_id = $1";
        // A crash that undoes it leaves the batches pending, to be queued again.
        let mut tx = self.begin_unsynced().await?;
        let serve = if matches!(tx, Tx::Pg(_)) { SERVE_PG } else { SERVE_LITE };
        let sql = serve[kind(sandbox)];
        let stamp: Option<i64> = on!(&mut tx, c => sqlx::query_scalar(sql)
            .bind(account).bind(now).fetch_optional(c).await)?;
        let Some(stamp) = stamp else { return Ok(Served::Elsewhere) };
        let limit = standing.tasks.len() + PAGE;
        let out = |task: &TaskId| standing.tasks.get(task).copied().unwrap_or(0);
        let mut served = Vec::new();
        // Marks of tasks with nothing pending are removed on the way, a page at a time.
        for _ in 0..PAGES {
            let mut tasks: Vec<(TaskId, i64, i64)> = on!(&mut tx, c => sqlx::query_as(TASKS)
                .bind(account).bind(limit as i64).bind(sandbox).fetch_all(c).await)?;
            let last = tasks.len() < limit;
            tasks.sort_by_key(|(task, turn, _)| (out(task), *turn));
            let mut left = tasks.len();
            for (task, _, stamp) in tasks {
                served = queue_next(&mut tx, task, most, resend_at).await?;
                // Where it had several, it most likely has more: who finds none removes the mark.
                let more = most > 1 && served.len() as i64 == most;
                if !more && unmark_task(&mut tx, task, stamp).await? {
                    left -= 1;
                } else if left > 1 {
                    on!(&mut tx, c => sqlx::query(TASK_SERVED).bind(task).bind(now)
                        .execute(c).await.map(|_| ()))?;
                }
                if !served.is_empty() {
                    break;
                }
            }
            if left == 0 && last {
                unmark_account(&mut tx, account, sandbox, stamp).await?;
            }
            if last || !served.is_empty() {
                break;
            }
        }
        tx.commit().await?;
        Ok(Served::Batches(served))
    }

    /// Marks active tasks that have pending batches and no mark, as programs of an older schema leave them.
    pub async fn mark_forgotten(&self, limit: i64, now: Millis) -> Result<u64> {
        const SQL: &str = "SELECT t.id, t.account_id FROM tasks t
            WHERE t.status IN ('queued', 'running')
              AND NOT EXISTS (SELECT 1 FROM ready_tasks r WHERE r.task_id = t.id)
              AND EXISTS (SELECT 1 FROM batches b WHERE b.task_id = t.id AND b.state = 0)
            LIMIT $1";
        let forgotten: Vec<(TaskId, AccountId)> =
            read!(self, c => sqlx::query_as(SQL).bind(limit).fetch_all(c).await)?;
        for &(task, account) in &forgotten {
            let mut tx = self.begin().await?;
            mark_ready(&mut tx, task, account, now).await?;
            tx.commit().await?;
        }
        Ok(forgotten.len() as u64)
    }

    /// Changes an account's share of what is out; `false`: no such account.
    pub async fn set_weight(
        &self,
        account: AccountId,
        weight: i32,
        by: &Origin,
        now: Millis,
    ) -> Result<bool> {
        // SQLite has one writer, and we are it; PostgreSQL locks the row.
        const WAS_LITE: &str = "SELECT weight FROM accounts WHERE id = $1";
        const WAS_PG: &str = "SELECT weight FROM accounts WHERE id = $1 FOR NO KEY UPDATE";
        const SQL: &str = "UPDATE accounts SET weight = $2 WHERE id = $1";
        let mut tx = self.begin().await?;
        let sql = if matches!(tx, Tx::Pg(_)) { WAS_PG } else { WAS_LITE };
        let was: Option<i32> = on!(&mut tx, c => sqlx::query_scalar(sql).bind(account)
            .fetch_optional(c).await)?;
        match was {
            None => return Ok(false),
            Some(was) if was == weight => return Ok(true),
            Some(was) => {
                let rows = on!(&mut tx, c => sqlx::query(SQL).bind(account).bind(weight)
                    .execute(c).await.map(|r| r.rows_affected()))?;
                expect_rows("weight of an account", rows, 1)?;
                let change = Change::new(by, Some(account), "account.weight", account)
                    .before(json!({ "weight": was }))
                    .after(json!({ "weight": weight }));
                write_down(&mut tx, &change, now).await?;
            }
        }
        tx.commit().await?;
        Ok(true)
    }
}

/// A task has a pending batch, or goes on: it is found by the next round. The account's mark comes first, as
/// for who serves it.
pub(super) async fn mark_ready(
    tx: &mut Tx,
    task: TaskId,
    account: AccountId,
    now: Millis,
) -> Result<()> {
    const KIND: &str = "SELECT sandbox FROM tasks WHERE id = $1";
    const TASK: &str = "INSERT INTO ready_tasks (task_id, account_id, turn, stamp, sandbox)
        VALUES ($1, $2, $3, 0, $4)
        ON CONFLICT (task_id) DO UPDATE SET stamp = ready_tasks.stamp + 1";
    const ACCOUNT: [&str; 2] = marks!(
        "INSERT INTO ",
        " (account_id, turn, stamp) VALUES ($1, $2, 0)
        ON CONFLICT (account_id) DO UPDATE SET stamp = ",
        ".stamp + 1"
    );
    let sandbox: bool = on!(&mut *tx, c => sqlx::query_scalar(KIND).bind(task).fetch_one(c).await)?;
    on!(&mut *tx, c => sqlx::query(ACCOUNT[kind(sandbox)]).bind(account).bind(now)
        .execute(c).await.map(|_| ()))?;
    on!(tx, c => sqlx::query(TASK).bind(task).bind(account).bind(now).bind(sandbox)
        .execute(c).await.map(|_| ()))
}

/// A task stands still or has ended: whoever lets it go on marks it again.
pub(super) async fn unmark(tx: &mut Tx, task: TaskId) -> Result<()> {
    const SQL: &str = "DELETE FROM ready_tasks WHERE task_id = $1";
    on!(tx, c => sqlx::query(SQL).bind(task).execute(c).await.map(|_| ()))
}

/// Removes the mark of a task that has nothing pending, or stands still; tells whether it did.
async fn unmark_task(tx: &mut Tx, task: TaskId, stamp: i64) -> Result<bool> {
    const SQL: &str = "DELETE FROM ready_tasks WHERE task_id = $1 AND stamp = $2 AND NOT EXISTS (
        SELECT 1 FROM tasks t WHERE t.id = $1 AND t.status IN ('queued', 'running')
          AND EXISTS (SELECT 1 FROM batches b WHERE b.task_id = $1 AND b.state = 0))";
    let rows = on!(tx, c => sqlx::query(SQL).bind(task).bind(stamp)
        .execute(c).await.map(|r| r.rows_affected()))?;
    Ok(rows == 1)
}

/// Removes the mark of an account without marked tasks of this kind.
async fn unmark_account(tx: &mut Tx, account: AccountId, sandbox: bool, stamp: i64) -> Result<()> {
    const SQL: [&str; 2] = marks!(
        "DELETE FROM ",
        " WHERE account_id = $1 AND stamp = $2
        AND NOT EXISTS (SELECT 1 FROM ready_tasks WHERE account_id = $1 AND sandbox = $3)"
    );
    on!(tx, c => sqlx::query(SQL[kind(sandbox)]).bind(account).bind(stamp).bind(sandbox)
        .execute(c).await.map(|_| ()))
}

/// Moves up to `most` pending batches of an active task to `queued`; tells how many addresses each has.
async fn queue_next(
    tx: &mut Tx,
    task: TaskId,
    most: i64,
    resend_at: Millis,
) -> Result<Vec<(BatchRef, i64)>> {
    // PostgreSQL passes by a batch that a doubled message is just leasing: waiting for several of
    // them in no order could end in a circle. SQLite has one writer, and we are it. No join:
    // where PostgreSQL takes the task, or the table, for a small one, it would read all of it. Task and limit
    // are hidden in sub-selects: who knows them plans anew each time.
    const LITE: &str = "UPDATE batches SET state = 1, due_at = $3
        WHERE task_id = $1 AND state = 0 AND no IN (
            SELECT no FROM batches WHERE task_id = $1 AND state = 0 ORDER BY no LIMIT $2)
          AND EXISTS (SELECT 1 FROM tasks WHERE id = $1 AND status IN ('queued', 'running'))
        RETURNING no, addresses";
    const PG: &str = "WITH next AS MATERIALIZED (
            SELECT no FROM batches
            WHERE task_id = (SELECT CAST($1 AS UUID)) AND state = 0
            ORDER BY no LIMIT (SELECT CAST($2 AS BIGINT)) FOR NO KEY UPDATE SKIP LOCKED)
        UPDATE batches SET state = 1, due_at = $3
        WHERE task_id = (SELECT CAST($1 AS UUID)) AND no = ANY (ARRAY(SELECT no FROM next))
          AND EXISTS (SELECT 1 FROM tasks WHERE id = $1 AND status IN ('queued', 'running'))
        RETURNING no, addresses";
    let sql = if matches!(tx, Tx::Pg(_)) { PG } else { LITE };
    let mut queued: Vec<(i32, i32)> = on!(tx, c => sqlx::query_as(sql)
        .bind(task).bind(most).bind(resend_at).fetch_all(c).await)?;
    queued.sort_unstable();
    let batch = |(no, addresses)| (BatchRef { task, no }, i64::from(addresses));
    Ok(queued.into_iter().map(batch).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::id::Ids;

    proptest! {
        #[test]
        fn who_has_work_gets_its_part_of_the_room_by_weight(
            weights in proptest::collection::vec(1..20_i32, 1..12),
            batches in 1..2_000_i64,
        ) {
            let ids = Ids::seeded(7);
            let account = |weight| Ready { account_id: AccountId::new(&ids, 0), weight, turn: 0 };
            let mut ready: Vec<Ready> = weights.iter().copied().map(account).collect();
            let room = Room { addresses: batches * 500, batches, batch: 500, workers: 1, pace: 0 };
            let mut standing = Standing::of(Vec::new());
            let mut picks = 0;
            while standing.has_room(room) {
                let next = standing.next(&ready).expect("somebody has work");
                let share = standing.share(&ready, next, room);
                let account = ready[next].account_id;
                standing.add(account, TaskId::FIRST, share, share * room.batch);
                ready[next].turn += 1;
                picks += 1;
            }
            let all = i64::from(weights.iter().sum::<i32>());
            for one in &ready {
                let due = room.addresses * i64::from(one.weight) / all;
                let out = standing.of_account(one.account_id);
                prop_assert!(out <= due + room.batch, "{out} out, {due} due");
                prop_assert!(out + ready.len() as i64 * room.batch >= due, "{out} out, {due} due");
            }
            prop_assert!(
                picks <= 8 * ready.len() as i64 + 2 * batches / MOST,
                "{picks} picks for {batches} batches"
            );
        }
    }
}

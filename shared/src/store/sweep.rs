//! What the sweeper repairs: expired leases, lost messages, tasks whose account has credits again,
//! abandoned submissions. Every repair is idempotent, so any number of sweepers may run at once, and finds
//! what is due by an index: what waits for something else costs it nothing.

use std::collections::{BTreeMap, VecDeque};

use sqlx::FromRow;

use super::control::{resume, try_lock_task};
use super::credits::{mark_broke, post};
use super::dispatch::mark_ready;
use super::task_events::record;
use super::{Result, Store, Tx, on, read};
use crate::domain::audit::Actor;
use crate::domain::batch::{BatchRef, LOST_ALONE};
use crate::domain::clock::Millis;
use crate::domain::id::{AccountId, TaskId};
use crate::domain::ledger::{EntryType, Kind, Movement, Transfer};
use crate::domain::task::PauseReason;
use crate::domain::task_event::{Happened, TaskEvent};

/// Repairs of one account in one transaction.
const AT_ONCE: usize = 64;

/// Leases taken over at once.
const TAKEN_OVER: i64 = 500;

/// Why a lease is taken back.
#[derive(Debug, Clone, Copy)]
enum Why {
    /// Only if it was over by then.
    Over(Millis),
    /// Its holder gives it back.
    GivenBack,
    /// Its holder was ended from outside.
    Ended,
}

/// A lease that its holder has given up, or is thought to have.
#[derive(Debug, Clone, Copy, FromRow)]
pub struct Ended {
    /// The task.
    pub task_id: TaskId,
    /// The batch's number.
    pub no: i32,
    /// The lease's fence.
    pub lease_token: i64,
    /// Who pays.
    pub account_id: AccountId,
}

impl Store {
    /// Leases that are over.
    pub async fn expired_leases(&self, limit: i64, now: Millis) -> Result<Vec<Ended>> {
        const SQL: &str = "SELECT b.task_id, b.no, b.lease_token, t.account_id
            FROM batches b JOIN tasks t ON t.id = b.task_id
            WHERE b.state IN (1, 2) AND b.state = 2 AND b.due_at < $1
            ORDER BY b.due_at LIMIT $2";
        read!(self, c => sqlx::query_as(SQL).bind(now).bind(limit).fetch_all(c).await)
    }

    /// Makes the batch of a lease that ended without a word pending again, its hold goes back to the balance.
    /// Tells whether it did.
    pub async fn take_back(&self, lease: &Ended, now: Millis) -> Result<bool> {
        Ok(!self.take_back_all(std::slice::from_ref(lease), None, now).await?.is_empty())
    }

    /// Likewise for leases of one account, in one transaction; returns those that were taken back. `over`:
    /// only if the lease was over by then.
    pub async fn take_back_all(
        &self,
        leases: &[Ended],
        over: Option<Millis>,
        now: Millis,
    ) -> Result<Vec<BatchRef>> {
        let why = over.map_or(Why::GivenBack, Why::Over);
        let mut tx = self.begin().await?;
        match take_back_in(&mut tx, leases, why, now).await {
            Ok(back) if !back.is_empty() => tx.commit().await.map(|()| back),
            tried => {
                // At once: what is merely dropped keeps its locks for a moment.
                let undone = tx.rollback().await;
                tried.and_then(|none| undone.map(|()| none))
            }
        }
    }

    /// Takes back leases that are over, up to `limit`; returns which. An account whose rows somebody holds
    /// is left for the next time.
    pub async fn reclaim_leases(&self, limit: i64, now: Millis) -> Result<Vec<BatchRef>> {
        let mut leases = self.expired_leases(limit, now).await?;
        leases.sort_by_key(|lease| lease.account_id);
        let mut back = Vec::new();
        for of_account in leases.chunk_by(|a, b| a.account_id == b.account_id) {
            let mut groups: VecDeque<_> = of_account.chunks(AT_ONCE).collect();
            while let Some(some) = groups.pop_front() {
                let error = match self.take_back_all(some, Some(now), now).await {
                    Ok(batches) => {
                        back.extend(batches);
                        continue;
                    }
                    Err(error) => error,
                };
                let passes = error.is_transient();
                if !passes && some.len() > 1 {
                    // What is wrong with one of them must not keep the others.
                    groups.extend(some.chunks(1));
                    continue;
                }
                let account = some[0].account_id;
                tracing::warn!(%error, %account, "leases are over, and not taken back yet");
                if passes {
                    break;
                }
            }
        }
        Ok(back)
    }

    /// Nobody else works on this database, and whoever did has ended: every lease is taken back at once, every
    /// message is taken for lost, every worker for gone. That they were ended is no sign of anything, so no
    /// batch is run alone for it. Returns how many leases there were.
    pub async fn take_over(&self, now: Millis) -> Result<usize> {
        let mut count = 0;
        loop {
            let mut leases = self.expired_leases(TAKEN_OVER, Millis::MAX).await?;
            leases.sort_by_key(|lease| lease.account_id);
            let before = count;
            for of_account in leases.chunk_by(|a, b| a.account_id == b.account_id) {
                for some in of_account.chunks(AT_ONCE) {
                    let mut tx = self.begin().await?;
                    count += take_back_in(&mut tx, some, Why::Ended, now).await?.len();
                    tx.commit().await?;
                }
            }
            if count == before {
                break;
            }
        }
        self.forget_messages(now - 1).await?;
        self.forget_workers(now + 1).await?;
        Ok(count)
    }

    /// Queued batches that were sent a while ago, for the caller to ask the queue about; each is looked at
    /// again at `again_at`. Two sweepers never get the same.
    pub async fn unheard(
        &self,
        limit: i64,
        again_at: Millis,
        now: Millis,
    ) -> Result<Vec<BatchRef>> {
        const LITE: &str = "UPDATE batches SET due_at = $3 WHERE state = 1 AND (task_id, no) IN (
                SELECT task_id, no FROM batches
                WHERE state IN (1, 2) AND state = 1 AND due_at < $1 ORDER BY due_at LIMIT $2)
            RETURNING task_id, no";
        const PG: &str = "WITH due AS MATERIALIZED (
                SELECT task_id, no FROM batches
                WHERE state IN (1, 2) AND state = 1 AND due_at < $1 ORDER BY due_at LIMIT $2
                FOR NO KEY UPDATE SKIP LOCKED)
            UPDATE batches b SET due_at = $3 FROM due
            WHERE b.task_id = due.task_id AND b.no = due.no
            RETURNING b.task_id, b.no";
        // Most of the time there is nothing, and reading takes no lock.
        const ANY: &str = "SELECT count(*) FROM (SELECT no FROM batches
            WHERE state IN (1, 2) AND state = 1 AND due_at < $1 LIMIT 1) one";
        let any: i64 = read!(self, c => sqlx::query_scalar(ANY).bind(now).fetch_one(c).await)?;
        if any == 0 {
            return Ok(Vec::new());
        }
        let mut tx = self.begin_unsynced().await?;
        let sql = if matches!(tx, Tx::Pg(_)) { PG } else { LITE };
        let due: Vec<(TaskId, i32)> = on!(&mut tx, c => sqlx::query_as(sql)
            .bind(now).bind(limit).bind(again_at).fetch_all(c).await)?;
        tx.commit().await?;
        Ok(due.into_iter().map(|(task, no)| BatchRef { task, no }).collect())
    }

    /// The queue did not take these: they are looked for at once.
    pub async fn not_sent(&self, batches: &[BatchRef], now: Millis) -> Result<()> {
        const SQL: &str = "UPDATE batches SET due_at = $3
            WHERE task_id = $1 AND no = $2 AND state = 1 AND due_at > $3";
        let mut ordered = batches.to_vec();
        ordered.sort_unstable();
        let mut tx = self.begin_unsynced().await?;
        for batch in ordered {
            on!(&mut tx, c => sqlx::query(SQL).bind(batch.task).bind(batch.no).bind(now - 1)
                .execute(c).await.map(|_| ()))?;
        }
        tx.commit().await
    }

    /// Makes every queued batch due at once: the queue has lost its memory.
    pub async fn forget_messages(&self, now: Millis) -> Result<u64> {
        const LITE: &str = "UPDATE batches SET due_at = $1
            WHERE state IN (1, 2) AND state = 1 AND due_at > $1";
        // What somebody is just leasing needs no message.
        const PG: &str = "WITH queued AS MATERIALIZED (
                SELECT task_id, no FROM batches
                WHERE state IN (1, 2) AND state = 1 AND due_at > $1 FOR NO KEY UPDATE SKIP LOCKED)
            UPDATE batches b SET due_at = $1 FROM queued
            WHERE b.task_id = queued.task_id AND b.no = queued.no";
        let mut tx = self.begin().await?;
        let sql = if matches!(tx, Tx::Pg(_)) { PG } else { LITE };
        let rows = on!(&mut tx, c => sqlx::query(sql).bind(now)
            .execute(c).await.map(|r| r.rows_affected()))?;
        tx.commit().await?;
        Ok(rows)
    }

    /// Accounts whose tasks wait for credits and that have some.
    pub async fn funded_accounts(&self, limit: i64) -> Result<Vec<AccountId>> {
        const SQL: &str = "SELECT account_id FROM credit_balances
            WHERE broke AND kind = 'email' AND balance > 0 LIMIT $1";
        read!(self, c => sqlx::query_scalar(SQL).bind(limit).fetch_all(c).await)
    }

    /// Lets tasks go on that waited for credits, oldest first, as many as the account's balance can pay for at
    /// all (one at least); the others wait on. Returns how many.
    pub async fn resume_funded(&self, account: AccountId, limit: i64, now: Millis) -> Result<u64> {
        const WAITING: &str = "SELECT id, unique_addresses - invalid_syntax - charged - refunded
            FROM tasks WHERE status = 'paused' AND pause_reason = 'insufficient_credits'
              AND account_id = $1 ORDER BY id LIMIT $2";
        const BALANCE: &str = "SELECT balance FROM credit_balances
            WHERE account_id = $1 AND kind = 'email'";
        let waiting: Vec<(TaskId, i64)> = read!(self, c => sqlx::query_as(WAITING)
            .bind(account).bind(limit).fetch_all(c).await)?;
        let mut left: i64 =
            read!(self, c => sqlx::query_scalar(BALANCE).bind(account).fetch_one(c).await)?;
        let all = waiting.len() as u64;
        let mut enough = Vec::new();
        for (task, needs) in waiting {
            if left <= 0 {
                break;
            }
            left -= needs.max(1);
            enough.push(task);
        }
        let resumed =
            self.resume_if(&enough, account, PauseReason::InsufficientCredits, now).await?;
        if resumed == all && (all as i64) < limit {
            // Nobody waits any more; who is paused from now on marks it again, under the same lock.
            self.clear_broke(account).await?;
        }
        Ok(resumed)
    }

    async fn clear_broke(&self, account: AccountId) -> Result<()> {
        const WAITING: &str = "SELECT count(*) FROM tasks WHERE status = 'paused'
            AND pause_reason = 'insufficient_credits' AND account_id = $1";
        let mut tx = self.begin().await?;
        mark_broke(&mut tx, account, false).await?;
        let waiting: i64 =
            on!(&mut tx, c => sqlx::query_scalar(WAITING).bind(account).fetch_one(c).await)?;
        if waiting == 0 {
            tx.commit().await?;
        }
        Ok(())
    }

    /// Lets tasks of all accounts go on that wait for this. Returns how many.
    pub async fn resume_all(&self, reason: PauseReason, limit: i64, now: Millis) -> Result<u64> {
        const SQL: &str = "SELECT id, account_id FROM tasks WHERE status = 'paused'
            AND pause_reason = $2 ORDER BY account_id, id LIMIT $1";
        let paused: Vec<(TaskId, AccountId)> = read!(self, c => sqlx::query_as(SQL)
            .bind(limit).bind(reason.as_str()).fetch_all(c).await)?;
        let mut resumed = 0;
        for of_account in paused.chunk_by(|a, b| a.1 == b.1) {
            let tasks: Vec<TaskId> = of_account.iter().map(|(task, _)| *task).collect();
            resumed += self.resume_if(&tasks, of_account[0].1, reason, now).await?;
        }
        Ok(resumed)
    }

    /// Lets those of an account's tasks go on that still stand still for `reason`. Returns how many.
    async fn resume_if(
        &self,
        tasks: &[TaskId],
        account: AccountId,
        reason: PauseReason,
        now: Millis,
    ) -> Result<u64> {
        const STILL: &str = "SELECT count(*) FROM tasks
            WHERE id = $1 AND status = 'paused' AND pause_reason = $2";
        let mut tasks = tasks.to_vec();
        tasks.sort_unstable();
        let mut resumed = 0;
        for some in tasks.chunks(AT_ONCE) {
            let mut tx = self.begin().await?;
            let mut free = Vec::with_capacity(some.len());
            for &task in some {
                if try_lock_task(&mut tx, task).await?.is_some() {
                    free.push(task);
                }
            }
            for task in free {
                let still: i64 = on!(&mut tx, c => sqlx::query_scalar(STILL)
                    .bind(task).bind(reason.as_str()).fetch_one(c).await)?;
                if still == 1 {
                    let event = TaskEvent::new(Happened::Resumed, now, Some(Actor::System));
                    let event = TaskEvent { reason: Some(reason), ..event };
                    resume(&mut tx, (task, account), &event, now).await?;
                    resumed += 1;
                }
            }
            tx.commit().await?;
        }
        Ok(resumed)
    }

    /// Active tasks that need a provider, oldest first: the sandbox always works.
    pub async fn active_tasks(&self, limit: i64) -> Result<Vec<TaskId>> {
        const SQL: &str = "SELECT id FROM tasks
            WHERE status IN ('queued', 'running') AND NOT sandbox ORDER BY id LIMIT $1";
        read!(self, c => sqlx::query_scalar(SQL).bind(limit).fetch_all(c).await)
    }

    /// Submissions that were given up: last touched before `before`.
    pub async fn abandoned_ingests(&self, before: Millis, limit: i64) -> Result<Vec<TaskId>> {
        const SQL: &str = "SELECT id FROM tasks
            WHERE status = 'ingesting' AND touched_at < $1 AND deleted_at IS NULL
            ORDER BY touched_at LIMIT $2";
        Ok(read!(self, c => sqlx::query_scalar(SQL).bind(before).bind(limit)
            .fetch_all(c).await)?)
    }
}

/// Takes back, within a transaction; returns which. Leases are of one account.
async fn take_back_in(
    tx: &mut Tx,
    leases: &[Ended],
    why: Why,
    now: Millis,
) -> Result<Vec<BatchRef>> {
    // A batch that must be alone counts when it begins: it may have been waiting.
    const TAKE: &str = "UPDATE batches SET state = 0, lease_token = NULL,
            lost = CASE WHEN lost < $5 THEN lost + 1 ELSE lost END, freed = held, held = 0
        WHERE task_id = $1 AND no = $2 AND lease_token = $3 AND state = 2
          AND (due_at < $4 OR CAST($4 AS BIGINT) IS NULL)
        RETURNING freed";
    let Some(account) = leases.first().map(|lease| lease.account_id) else {
        return Ok(Vec::new());
    };
    let over = if let Why::Over(by) = why { Some(by) } else { None };
    // Below this, a loss counts.
    let alone = if let Why::Ended = why { 0 } else { LOST_ALONE };
    let mut leases = leases.to_vec();
    leases.sort_unstable_by_key(|lease| (lease.task_id, lease.no));
    let mut tasks = BTreeMap::new();
    for of_task in leases.chunk_by(|a, b| a.task_id == b.task_id) {
        let task = of_task[0].task_id;
        if let Some(status) = try_lock_task(tx, task).await? {
            tasks.insert(task, status);
        }
    }
    leases.retain(|lease| tasks.contains_key(&lease.task_id));
    let (mut back, mut movements) = (Vec::new(), Vec::new());
    for lease in leases {
        let freed: Option<i64> = on!(tx, c => sqlx::query_scalar(TAKE)
            .bind(lease.task_id).bind(lease.no).bind(lease.lease_token).bind(over)
            .bind(alone)
            .fetch_optional(c).await)?;
        // None: renewed, settled or taken back by another sweeper meanwhile.
        let Some(freed) = freed else { continue };
        back.push(BatchRef { task: lease.task_id, no: lease.no });
        if freed > 0 {
            movements.push(Movement {
                entry: EntryType::Refund,
                amount: freed,
                task: Some(lease.task_id),
                step: Some(lease.lease_token),
                note: Some(String::from("worker lost")),
            });
        }
    }
    for (task, status) in tasks {
        let batches = back.iter().filter(|batch| batch.task == task).count() as i64;
        // Given back by its holder, it is no loss.
        if batches > 0 && over.is_some() {
            let event = TaskEvent::new(Happened::WorkerLost, now, None);
            record(tx, task, &TaskEvent { batches, ..event }).await?;
        }
        if status.is_active() {
            mark_ready(tx, task, account, now).await?;
        }
    }
    if !movements.is_empty() {
        post(tx, &Transfer { account, kind: Kind::Email, movements }, now).await?;
    }
    Ok(back)
}

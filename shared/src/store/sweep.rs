//! What the sweeper repairs: expired leases, lost messages, tasks whose account has credits again,
//! abandoned submissions. Every repair is idempotent, so any number of sweepers may run at once, and finds
//! what is due by an index: what waits for something else costs it nothing.

use std::collections::HashSet;

use sqlx::FromRow;

use super::control::{resume, try_lock_task};
use super::credits::{mark_broke, post};
use super::dispatch::mark_ready;
use super::{Result, Store, Tx, expect_rows, on, read};
use crate::domain::batch::{BatchRef, Room};
use crate::domain::clock::Millis;
use crate::domain::id::{AccountId, TaskId};
use crate::domain::ledger::{EntryType, Kind, Movement, Transfer};
use crate::domain::task::PauseReason;

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
    /// `over`: only if the lease was over by then. Tells whether it did.
    pub async fn take_back(
        &self,
        lease: &Ended,
        over: Option<Millis>,
        now: Millis,
    ) -> Result<bool> {
        // A batch that must be alone counts when it begins (5: see LOST_ALONE): it may have been waiting.
        const TAKE: &str = "UPDATE batches SET state = 0, lease_token = NULL,
                lost = CASE WHEN lost < 5 THEN lost + 1 ELSE lost END, freed = held, held = 0
            WHERE task_id = $1 AND no = $2 AND lease_token = $3 AND state = 2
              AND (due_at < $4 OR CAST($4 AS BIGINT) IS NULL)
            RETURNING freed";
        let mut tx = self.begin().await?;
        let Some(status) = try_lock_task(&mut tx, lease.task_id).await? else { return Ok(false) };
        let freed: Option<i64> = on!(&mut tx, c => sqlx::query_scalar(TAKE)
            .bind(lease.task_id).bind(lease.no).bind(lease.lease_token).bind(over)
            .fetch_optional(c).await)?;
        // None: renewed, settled or taken back by another sweeper meanwhile.
        let Some(freed) = freed else { return Ok(false) };
        if status.is_active() {
            mark_ready(&mut tx, lease.task_id, lease.account_id, now).await?;
        }
        if freed > 0 {
            let movement = Movement {
                entry: EntryType::Refund,
                amount: freed,
                task: Some(lease.task_id),
                step: Some(lease.lease_token),
                note: Some(String::from("worker lost")),
            };
            let (account, kind) = (lease.account_id, Kind::Email);
            post(&mut tx, &Transfer { account, kind, movements: vec![movement] }, now).await?;
        }
        tx.commit().await?;
        Ok(true)
    }

    /// Takes back leases that are over, up to `limit`; returns which. An account whose rows somebody holds
    /// is left for the next time.
    pub async fn reclaim_leases(&self, limit: i64, now: Millis) -> Result<Vec<BatchRef>> {
        let (mut back, mut stuck) = (Vec::new(), HashSet::new());
        for lease in self.expired_leases(limit, now).await? {
            if stuck.contains(&lease.account_id) {
                continue;
            }
            match self.take_back(&lease, Some(now), now).await {
                Ok(true) => back.push(BatchRef { task: lease.task_id, no: lease.no }),
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(%error, account = %lease.account_id, "a lease is over, and not taken back yet");
                    stuck.insert(lease.account_id);
                }
            }
        }
        Ok(back)
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
        let (all, mut resumed) = (waiting.len() as u64, 0);
        for (task, needs) in waiting {
            if left <= 0 {
                break;
            }
            left -= needs.max(1);
            let reason = PauseReason::InsufficientCredits;
            resumed += u64::from(self.resume_if(task, account, reason, now).await?);
        }
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

    /// Lets tasks go on that waited for a provider. Returns how many.
    pub async fn resume_provided(&self, limit: i64, now: Millis) -> Result<u64> {
        const SQL: &str = "SELECT id, account_id FROM tasks WHERE status = 'paused'
            AND pause_reason = 'provider_unavailable' ORDER BY account_id, id LIMIT $1";
        let paused: Vec<(TaskId, AccountId)> =
            read!(self, c => sqlx::query_as(SQL).bind(limit).fetch_all(c).await)?;
        let mut resumed = 0;
        for (task, account) in paused {
            let reason = PauseReason::ProviderUnavailable;
            resumed += u64::from(self.resume_if(task, account, reason, now).await?);
        }
        Ok(resumed)
    }

    /// Lets a task go on if it still stands still for `reason`.
    async fn resume_if(
        &self,
        task: TaskId,
        account: AccountId,
        reason: PauseReason,
        now: Millis,
    ) -> Result<bool> {
        const STILL: &str = "SELECT count(*) FROM tasks
            WHERE id = $1 AND status = 'paused' AND pause_reason = $2";
        let mut tx = self.begin().await?;
        if try_lock_task(&mut tx, task).await?.is_none() {
            return Ok(false);
        }
        let still: i64 = on!(&mut tx, c => sqlx::query_scalar(STILL)
            .bind(task).bind(reason.as_str()).fetch_one(c).await)?;
        if still == 1 {
            resume(&mut tx, task, account, now).await?;
        }
        tx.commit().await?;
        Ok(still == 1)
    }

    /// Active tasks, oldest first.
    pub async fn active_tasks(&self, limit: i64) -> Result<Vec<TaskId>> {
        const SQL: &str = "SELECT id FROM tasks
            WHERE status IN ('queued', 'running') ORDER BY id LIMIT $1";
        read!(self, c => sqlx::query_scalar(SQL).bind(limit).fetch_all(c).await)
    }

    /// Submissions that were given up: last touched before `before`.
    pub async fn abandoned_ingests(&self, before: Millis, limit: i64) -> Result<Vec<TaskId>> {
        const SQL: &str = "SELECT id FROM tasks
            WHERE status = 'ingesting' AND touched_at < $1 ORDER BY touched_at LIMIT $2";
        Ok(read!(self, c => sqlx::query_scalar(SQL).bind(before).bind(limit)
            .fetch_all(c).await)?)
    }

    /// Tells that this worker lives, and with what concurrency; forgets those long silent.
    pub async fn worker_seen(
        &self,
        name: &str,
        concurrency: i64,
        now: Millis,
        forget_before: Millis,
    ) -> Result<()> {
        const SEEN: &str = "INSERT INTO workers (name, concurrency, seen_at) VALUES ($1, $2, $3)
            ON CONFLICT (name) DO UPDATE SET seen_at = $3, concurrency = $2";
        const FORGET: &str = "DELETE FROM workers WHERE seen_at < $1";
        let mut tx = self.begin().await?;
        let rows = on!(&mut tx, c => sqlx::query(SEEN).bind(name).bind(concurrency).bind(now)
            .execute(c).await.map(|r| r.rows_affected()))?;
        expect_rows("worker seen", rows, 1)?;
        on!(&mut tx, c => sqlx::query(FORGET).bind(forget_before).execute(c).await.map(|_| ()))?;
        tx.commit().await
    }

    /// Addresses that all living workers verify at once.
    pub async fn concurrency(&self, seen_after: Millis) -> Result<i64> {
        const SQL: &str = "SELECT CAST(COALESCE(SUM(concurrency), 0) AS BIGINT) FROM workers
            WHERE seen_at >= $1";
        read!(self, c => sqlx::query_scalar(SQL).bind(seen_after).fetch_one(c).await)
    }

    /// What may be out for the workers that live: for each twice what it verifies at once, and `least` full
    /// batches of `batch` addresses at the least, so that its settlements can be gathered; for one worker
    /// where none is known.
    pub async fn room(&self, seen_after: Millis, least: i64, batch: i64) -> Result<Room> {
        const SQL: &str = "SELECT count(*),
                CAST(COALESCE(SUM(CASE WHEN 2 * concurrency > $2 THEN 2 * concurrency ELSE $2 END), 0)
                    AS BIGINT),
                CAST(COALESCE(SUM(concurrency), 0) AS BIGINT)
            FROM workers WHERE seen_at >= $1 AND concurrency > 0";
        let (workers, addresses, concurrency): (i64, i64, i64) = read!(self, c => sqlx::query_as(SQL).bind(seen_after).bind(least * batch)
                .fetch_one(c).await)?;
        // Small batches: a worker has no more of them in hand than addresses, or a few dozen.
        let batches = 2 * concurrency + 128 * workers.max(1);
        Ok(Room { addresses: addresses.max(least * batch), batches, batch })
    }
}

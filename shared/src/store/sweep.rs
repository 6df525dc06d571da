//! What the sweeper repairs: expired leases, lost messages, empty dispatch windows, tasks whose
//! account has credits again, abandoned submissions. Every repair is idempotent, so any number of
//! sweepers may run at once.

use sqlx::FromRow;

use super::batches::queue_next;
use super::control::{lock_task, resume};
use super::credits::{move_balance, record};
use super::{Result, Store, expect_rows, on, read};
use crate::domain::batch::BatchRef;
use crate::domain::clock::Millis;
use crate::domain::id::{AccountId, TaskId};
use crate::domain::ledger::{EntryType, Kind, Movement};
use crate::domain::task::PauseReason;

#[derive(FromRow)]
struct Expired {
    task_id: TaskId,
    no: i32,
    lease_token: i64,
    account_id: AccountId,
}

impl Store {
    /// Returns batches whose lease is over to the queue, their holds to the balance. Returns those
    /// to be sent.
    pub async fn reclaim_leases(
        &self,
        limit: i64,
        resend_at: Millis,
        now: Millis,
    ) -> Result<Vec<BatchRef>> {
        const SQL: &str = "SELECT b.task_id, b.no, b.lease_token, t.account_id
            FROM batches b JOIN tasks t ON t.id = b.task_id
            WHERE b.state IN (1, 2) AND b.state = 2 AND b.due_at < $1
            ORDER BY b.due_at LIMIT $2";
        let expired: Vec<Expired> = read!(self, c => sqlx::query_as(SQL).bind(now).bind(limit)
            .fetch_all(c).await)?;
        let mut back = Vec::new();
        for lease in expired {
            if self.reclaim(&lease, resend_at, now).await? {
                back.push(BatchRef { task: lease.task_id, no: lease.no });
            }
        }
        Ok(back)
    }

    async fn reclaim(&self, lease: &Expired, resend_at: Millis, now: Millis) -> Result<bool> {
        // Back to the queue, or to the window when the task stands still.
        const TAKE: &str = "UPDATE batches SET lease_token = NULL, due_at = $5, state = CASE
                WHEN EXISTS (SELECT 1 FROM tasks WHERE id = $1 AND status IN ('queued', 'running'))
                THEN 1 ELSE 0 END
            WHERE task_id = $1 AND no = $2 AND lease_token = $3 AND state = 2 AND due_at < $4
            RETURNING state, held";
        const EMPTY: &str = "UPDATE batches SET held = 0 WHERE task_id = $1 AND no = $2";
        let mut tx = self.begin().await?;
        lock_task(&mut tx, lease.task_id, None).await?;
        let row: Option<(i16, i64)> = on!(&mut tx, c => sqlx::query_as(TAKE)
            .bind(lease.task_id).bind(lease.no).bind(lease.lease_token).bind(now).bind(resend_at)
            .fetch_optional(c).await)?;
        // None: renewed, settled or reclaimed by another sweeper meanwhile.
        let Some((state, held)) = row else { return Ok(false) };
        if held > 0 {
            on!(&mut tx, c => sqlx::query(EMPTY).bind(lease.task_id).bind(lease.no)
                .execute(c).await.map(|_| ()))?;
            let after = move_balance(&mut tx, lease.account_id, Kind::Email, held).await?;
            let movement = Movement {
                account: lease.account_id,
                kind: Kind::Email,
                entry: EntryType::Refund,
                amount: held,
                task: Some(lease.task_id),
                step: Some(lease.lease_token),
                note: Some(String::from("worker lost")),
            };
            record(&mut tx, &movement, after, now).await?;
        }
        tx.commit().await?;
        Ok(state == 1)
    }

    /// Batches whose message seems lost: to be sent again. Sending a message twice is harmless.
    pub async fn lost_messages(
        &self,
        limit: i64,
        resend_at: Millis,
        now: Millis,
    ) -> Result<Vec<BatchRef>> {
        const FIND: &str = "SELECT task_id, no FROM batches
            WHERE state IN (1, 2) AND state = 1 AND due_at < $1 ORDER BY due_at LIMIT $2";
        const TAKE: &str = "UPDATE batches SET due_at = $4
            WHERE task_id = $1 AND no = $2 AND state = 1 AND due_at < $3";
        let found: Vec<(TaskId, i32)> = read!(self, c => sqlx::query_as(FIND).bind(now).bind(limit)
            .fetch_all(c).await)?;
        let mut lost = Vec::new();
        for (task, no) in found {
            let mut tx = self.begin().await?;
            let rows = on!(&mut tx, c => sqlx::query(TAKE).bind(task).bind(no).bind(now)
                .bind(resend_at).execute(c).await.map(|r| r.rows_affected()))?;
            tx.commit().await?;
            if rows == 1 {
                lost.push(BatchRef { task, no });
            }
        }
        Ok(lost)
    }

    /// Makes every queued batch due at once: the queue has lost its memory.
    pub async fn forget_messages(&self, now: Millis) -> Result<u64> {
        const SQL: &str = "UPDATE batches SET due_at = $1
            WHERE state IN (1, 2) AND state = 1 AND due_at > $1";
        let mut tx = self.begin().await?;
        let rows = on!(&mut tx, c => sqlx::query(SQL).bind(now)
            .execute(c).await.map(|r| r.rows_affected()))?;
        tx.commit().await?;
        Ok(rows)
    }

    /// Fills the dispatch window of every active task that has pending batches.
    pub async fn fill_windows(
        &self,
        window: i64,
        limit: i64,
        resend_at: Millis,
    ) -> Result<Vec<BatchRef>> {
        const SQL: &str = "SELECT t.id, (SELECT count(*) FROM batches b
                    WHERE b.task_id = t.id AND b.state IN (1, 2)) AS open
            FROM tasks t
            WHERE t.status IN ('queued', 'running')
              AND EXISTS (SELECT 1 FROM batches b WHERE b.task_id = t.id AND b.state = 0)
            ORDER BY t.id LIMIT $1";
        let hungry: Vec<(TaskId, i64)> =
            read!(self, c => sqlx::query_as(SQL).bind(limit).fetch_all(c).await)?;
        let mut sent = Vec::new();
        for (task, open) in hungry {
            if open < window {
                let mut tx = self.begin().await?;
                lock_task(&mut tx, task, None).await?;
                sent.extend(queue_next(&mut tx, task, window - open, resend_at).await?);
                tx.commit().await?;
            }
        }
        Ok(sent)
    }

    /// Lets tasks go on that no longer stand still for `reason`: those whose account has credits
    /// again, or all that waited for a provider. Returns how many.
    pub async fn resume_paused(&self, reason: PauseReason, limit: i64) -> Result<u64> {
        const FUNDED: &str = "SELECT t.id FROM tasks t
            JOIN credit_balances c ON c.account_id = t.account_id AND c.kind = 'email'
            WHERE t.status = 'paused' AND t.pause_reason = $2 AND c.balance > 0
            ORDER BY t.id LIMIT $1";
        const ALL: &str = "SELECT t.id FROM tasks t
            WHERE t.status = 'paused' AND t.pause_reason = $2 ORDER BY t.id LIMIT $1";
        const STILL: &str = "SELECT count(*) FROM tasks
            WHERE id = $1 AND status = 'paused' AND pause_reason = $2";
        let sql = if reason == PauseReason::InsufficientCredits { FUNDED } else { ALL };
        let paused: Vec<TaskId> = read!(self, c => sqlx::query_scalar(sql)
            .bind(limit).bind(reason.as_str()).fetch_all(c).await)?;
        let mut resumed = 0;
        for task in paused {
            let mut tx = self.begin().await?;
            lock_task(&mut tx, task, None).await?;
            let still: i64 = on!(&mut tx, c => sqlx::query_scalar(STILL).bind(task).bind(reason.as_str())
                    .fetch_one(c).await)?;
            if still == 1 {
                resume(&mut tx, task).await?;
                resumed += 1;
            }
            tx.commit().await?;
        }
        Ok(resumed)
    }

    /// Active tasks, oldest first.
    pub async fn active_tasks(&self, limit: i64) -> Result<Vec<TaskId>> {
        const SQL: &str = "SELECT id FROM tasks
            WHERE status IN ('queued', 'running') ORDER BY id LIMIT $1";
        Ok(read!(self, c => sqlx::query_scalar(SQL).bind(limit).fetch_all(c).await)?)
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
        Ok(read!(self, c => sqlx::query_scalar(SQL).bind(seen_after).fetch_one(c).await)?)
    }
}

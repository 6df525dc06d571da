//! Addresses set aside: their mail server said "later".
//!
//! A row of `deferrals` is one of them, with the attempts so far and when it is due; it goes with the
//! transaction that stores its result, or cancels its task. Nothing is held for it meanwhile. A batch that has
//! nothing else to do is in state `waiting` until [`Store::wake`] queues it again; the worker that
//! set it aside comes first, as greylisting mail servers remember where a question came from.

use sqlx::QueryBuilder;

use super::control::try_lock_task;
use super::{Result, Store, Tx, expect_rows, on, read, within};
use crate::domain::batch::{BatchRef, Deferral, Step};
use crate::domain::clock::Millis;
use crate::domain::id::TaskId;

/// So many addresses set aside are counted, and one more.
pub const COUNTED: i64 = 10_000;

impl Store {
    /// Takes up batches that have waited long enough: those set aside by a worker that sends from `source`,
    /// and anybody's that were due before `anyones`. Returns those that are this worker's now, without a
    /// message; those of a task that stands still become pending.
    pub async fn wake(
        &self,
        source: &str,
        anyones: Millis,
        limit: i64,
        resend_at: Millis,
        now: Millis,
    ) -> Result<Vec<BatchRef>> {
        const FIND: &str = "SELECT task_id, no FROM batches
            WHERE state = 5 AND due_at <= $1 AND (source = $2 OR due_at < $3)
            ORDER BY due_at LIMIT $4";
        // Whoever lets the task go on finds it pending.
        const TAKE: &str = "UPDATE batches SET due_at = $3, state = CASE
                WHEN EXISTS (SELECT 1 FROM tasks WHERE id = $1 AND status IN ('queued', 'running'))
                THEN 1 ELSE 0 END
            WHERE task_id = $1 AND no = $2 AND state = 5
            RETURNING state";
        let due: Vec<(TaskId, i32)> = read!(self, c => sqlx::query_as(FIND)
            .bind(now).bind(source).bind(anyones).bind(limit).fetch_all(c).await)?;
        let mut woken = Vec::new();
        for (task, no) in due {
            // A crash that undoes it leaves the batch waiting, to be woken again.
            let mut tx = self.begin_unsynced().await?;
            // So that nobody lets the task go on, or stops it, in between.
            if try_lock_task(&mut tx, task).await?.is_none() {
                continue;
            }
            let state: Option<i16> = on!(&mut tx, c => sqlx::query_scalar(TAKE)
                .bind(task).bind(no).bind(resend_at).fetch_optional(c).await)?;
            tx.commit().await?;
            // None: cancelled, or woken by another sweeper meanwhile.
            if state == Some(1) {
                woken.push(BatchRef { task, no });
            }
        }
        Ok(woken)
    }

    /// How many addresses of these tasks are set aside, counted up to [`COUNTED`], and when the first of those
    /// counted is due; tasks without are left out.
    pub async fn waiting_of(&self, tasks: &[TaskId]) -> Result<Vec<(TaskId, i64, Millis)>> {
        const WAITING: &str = "SELECT t.id,
                (SELECT COUNT(*) FROM (SELECT 1 FROM deferrals d
                    WHERE d.task_id = t.id LIMIT 10001) counted) AS waiting,
                (SELECT MIN(due_at) FROM (SELECT d.due_at FROM deferrals d
                    WHERE d.task_id = t.id LIMIT 10001) counted) AS due
            FROM tasks t WHERE t.id IN (";
        macro_rules! find {
            ($pool:expr) => {{
                let mut sql = QueryBuilder::new(WAITING);
                let mut list = sql.separated(", ");
                for id in tasks {
                    list.push_bind(*id);
                }
                sql.push(")");
                sql.build_query_as().fetch_all($pool).await
            }};
        }
        if tasks.is_empty() {
            return Ok(Vec::new());
        }
        let rows: Vec<(TaskId, i64, Option<Millis>)> = match &mut self.reader().await? {
            Tx::Pg(lent) => within!(lent, c => find!(c)),
            Tx::Lite(lent) => within!(lent, c => find!(c)),
        }?;
        Ok(rows.into_iter().filter_map(|(id, waiting, due)| Some((id, waiting, due?))).collect())
    }

    /// How many addresses of a task are set aside, and when the first of them is due.
    pub async fn set_aside(&self, task: TaskId) -> Result<(i64, Option<Millis>)> {
        const SQL: &str = "SELECT count(*), MIN(due_at) FROM deferrals WHERE task_id = $1";
        Ok(read!(self, c => sqlx::query_as(SQL).bind(task).fetch_one(c).await)?)
    }
}

/// What is set aside of a batch, by `seq`.
pub(super) async fn of_batch(tx: &mut Tx, batch: BatchRef) -> Result<Vec<Deferral>> {
    const SQL: &str = "SELECT seq, attempts, due_at FROM deferrals
        WHERE task_id = $1 AND no = $2 ORDER BY seq";
    let rows: Vec<(i64, i16, i64)> = on!(tx, c => sqlx::query_as(SQL)
        .bind(batch.task).bind(batch.no).fetch_all(c).await)?;
    Ok(rows.into_iter().map(|(seq, attempts, due_at)| Deferral { seq, attempts, due_at }).collect())
}

/// Writes what steps set aside.
pub(super) async fn set_aside(tx: &mut Tx, steps: &[&Step]) -> Result<()> {
    const PG: &str = "INSERT INTO deferrals (task_id, no, seq, attempts, due_at)
        SELECT * FROM UNNEST($1::UUID[], $2::INTEGER[], $3::BIGINT[], $4::SMALLINT[], $5::BIGINT[])
        ON CONFLICT (task_id, no, seq)
            DO UPDATE SET attempts = excluded.attempts, due_at = excluded.due_at";
    const LITE: &str = "INSERT INTO deferrals (task_id, no, seq, attempts, due_at)
        VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (task_id, no, seq)
            DO UPDATE SET attempts = excluded.attempts, due_at = excluded.due_at";
    let all: Vec<(BatchRef, Deferral)> =
        steps.iter().flat_map(|s| s.deferrals.iter().map(|d| (s.batch, *d))).collect();
    if all.is_empty() {
        return Ok(());
    }
    let rows = match tx {
        // One round trip, however many.
        Tx::Pg(lent) => within!(lent, c => sqlx::query(PG)
            .bind(all.iter().map(|(batch, _)| batch.task.0).collect::<Vec<_>>())
            .bind(all.iter().map(|(batch, _)| batch.no).collect::<Vec<_>>())
            .bind(all.iter().map(|(_, one)| one.seq).collect::<Vec<_>>())
            .bind(all.iter().map(|(_, one)| one.attempts).collect::<Vec<_>>())
            .bind(all.iter().map(|(_, one)| one.due_at).collect::<Vec<_>>())
            .execute(c)
            .await
            .map(|r| r.rows_affected()))?,
        Tx::Lite(lent) => {
            let mut rows = 0;
            for (batch, one) in &all {
                rows += within!(&mut *lent, c => sqlx::query(LITE)
                    .bind(batch.task).bind(batch.no).bind(one.seq).bind(one.attempts)
                    .bind(one.due_at).execute(c).await.map(|r| r.rows_affected()))?;
            }
            rows
        }
    };
    expect_rows("set aside", rows, all.len() as u64)
}

/// Forgets what was set aside of a batch and has its result with this step.
pub(super) async fn forget_answered(tx: &mut Tx, step: &Step) -> Result<()> {
    const PG: &str = "DELETE FROM deferrals WHERE task_id = $1 AND no = $2 AND seq = ANY($3)";
    const LITE: &str = "DELETE FROM deferrals WHERE task_id = $1 AND no = $2 AND seq = $3";
    let BatchRef { task, no } = step.batch;
    match tx {
        Tx::Pg(lent) => {
            let seqs: Vec<i64> = step.findings.iter().map(|finding| finding.seq).collect();
            within!(lent, c => sqlx::query(PG).bind(task).bind(no).bind(seqs).execute(c).await)?;
        }
        Tx::Lite(lent) => {
            for finding in &step.findings {
                within!(&mut *lent, c => sqlx::query(LITE).bind(task).bind(no).bind(finding.seq)
                    .execute(c).await)?;
            }
        }
    }
    Ok(())
}

/// Forgets what was set aside of a task that is cancelled.
pub(super) async fn forget_task(tx: &mut Tx, task: TaskId) -> Result<()> {
    const SQL: &str = "DELETE FROM deferrals WHERE task_id = $1";
    on!(tx, c => sqlx::query(SQL).bind(task).execute(c).await.map(|_| ()))?;
    Ok(())
}

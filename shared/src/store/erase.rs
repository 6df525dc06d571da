//! Erasing a task: it is marked in one short transaction, and what it holds is removed in slices.
//!
//! From the mark on nobody sees the task. A row of `erasures` says that something of it is left: batches,
//! blocks of results, rows of the file, what happened to it. Whoever marks it removes what a moment allows, the
//! sweeper the rest; one of them at a time. The task row stays, unseen, for the books; that of a submission which
//! came to nothing goes last.

use super::control::{Changed, lock_task, write_down_task};
use super::{Result, Store, Tx, expect_rows, on, read};
use crate::domain::audit::Origin;
use crate::domain::clock::Millis;
use crate::domain::id::{AccountId, TaskId};

/// Rows of a table removed in one transaction.
const SLICE: i64 = 250;

impl Store {
    /// Marks an ended task as erased; [`Self::erase_slice`] removes what it holds.
    pub async fn erase_task(
        &self,
        id: TaskId,
        account: AccountId,
        by: &Origin,
        now: Millis,
    ) -> Result<Changed> {
        const MARK: &str = "UPDATE tasks SET deleted_at = $2, header = NULL, name = NULL
            WHERE id = $1 AND deleted_at IS NULL";
        let mut tx = self.begin().await?;
        match lock_task(&mut tx, id, Some(account)).await? {
            None => return Ok(Changed::Missing),
            Some(status) if !status.has_ended() => return Ok(Changed::Refused(status)),
            Some(_) => {}
        }
        mark(&mut tx, MARK, id, now).await?;
        write_down_task(&mut tx, (id, account), by, "task.erase", now).await?;
        tx.commit().await?;
        Ok(Changed::Done)
    }

    /// Marks a task that was being received as given up; [`Self::erase_slice`] removes what it holds, and
    /// then the task. Fails with a row count if it was accepted meanwhile.
    pub async fn drop_ingest(&self, id: TaskId, now: Millis) -> Result<()> {
        const MARK: &str = "UPDATE tasks SET deleted_at = $2
            WHERE id = $1 AND status = 'ingesting' AND deleted_at IS NULL";
        let mut tx = self.begin().await?;
        mark(&mut tx, MARK, id, now).await?;
        tx.commit().await
    }

    /// Tasks that ended before `before`, of any account, longest ago first.
    pub async fn tasks_ended_before(
        &self,
        before: Millis,
        limit: i64,
    ) -> Result<Vec<(TaskId, AccountId)>> {
        const SQL: &str = "SELECT id, account_id FROM tasks
            WHERE finished_at < $1 AND finished_at IS NOT NULL AND deleted_at IS NULL
            ORDER BY finished_at, id LIMIT $2";
        Ok(read!(self, c => sqlx::query_as(SQL).bind(before).bind(limit).fetch_all(c).await)?)
    }

    /// Tasks of which something is left to remove.
    pub async fn erasures(&self, limit: i64) -> Result<Vec<TaskId>> {
        const SQL: &str = "SELECT task_id FROM erasures ORDER BY task_id LIMIT $1";
        read!(self, c => sqlx::query_scalar(SQL).bind(limit).fetch_all(c).await)
    }

    /// Removes one slice of what a marked task holds. True: there is more. False: nothing is left, or
    /// somebody else is at it.
    pub async fn erase_slice(&self, id: TaskId) -> Result<bool> {
        const TURN_PG: &str =
            "SELECT 1::BIGINT FROM erasures WHERE task_id = $1 FOR UPDATE SKIP LOCKED";
        const TURN_LITE: &str = "SELECT 1 FROM erasures WHERE task_id = $1";
        const BATCHES: &str = "DELETE FROM batches WHERE task_id = $1 AND no <= (
            SELECT MAX(no) FROM (SELECT no FROM batches
                WHERE task_id = $1 ORDER BY no LIMIT $2) slice)";
        const BLOCKS: &str = "DELETE FROM result_blocks WHERE task_id = $1 AND first_seq <= (
            SELECT MAX(first_seq) FROM (SELECT first_seq FROM result_blocks
                WHERE task_id = $1 ORDER BY first_seq LIMIT $2) slice)";
        const ROWS: &str = "DELETE FROM task_rows WHERE task_id = $1 AND no <= (
            SELECT MAX(no) FROM (SELECT no FROM task_rows
                WHERE task_id = $1 ORDER BY no LIMIT $2) slice)";
        const EVENTS: &str = "DELETE FROM task_events WHERE task_id = $1 AND no <= (
            SELECT MAX(no) FROM (SELECT no FROM task_events
                WHERE task_id = $1 ORDER BY no LIMIT $2) slice)";
        const GIVEN_UP: &str = "DELETE FROM tasks WHERE id = $1 AND status = 'ingesting'";
        const DONE: &str = "DELETE FROM erasures WHERE task_id = $1";
        let mut tx = self.begin_unsynced().await?;
        let turn = if matches!(tx, Tx::Pg(_)) { TURN_PG } else { TURN_LITE };
        let ours: Option<i64> =
            on!(&mut tx, c => sqlx::query_scalar(turn).bind(id).fetch_optional(c).await)?;
        if ours.is_none() {
            return Ok(false);
        }
        // The batches first: who is merging their blocks has them locked, or finds none.
        for sql in [BATCHES, BLOCKS, ROWS, EVENTS] {
            let rows = on!(&mut tx, c => sqlx::query(sql).bind(id).bind(SLICE)
                .execute(c).await.map(|r| r.rows_affected()))?;
            if rows > 0 {
                tx.commit().await?;
                return Ok(true);
            }
        }
        on!(&mut tx, c => sqlx::query(GIVEN_UP).bind(id).execute(c).await.map(|_| ()))?;
        let rows = on!(&mut tx, c => sqlx::query(DONE).bind(id)
            .execute(c).await.map(|r| r.rows_affected()))?;
        expect_rows("end erasure", rows, 1)?;
        tx.commit().await?;
        Ok(false)
    }
}

async fn mark(tx: &mut Tx, sql: &'static str, id: TaskId, now: Millis) -> Result<()> {
    const LEFT: &str = "INSERT INTO erasures (task_id) VALUES ($1)";
    let rows = on!(&mut *tx, c => sqlx::query(sql).bind(id).bind(now)
        .execute(c).await.map(|r| r.rows_affected()))?;
    expect_rows("mark as erased", rows, 1)?;
    on!(tx, c => sqlx::query(LEFT).bind(id).execute(c).await.map(|_| ()))
}

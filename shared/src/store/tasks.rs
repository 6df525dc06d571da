//! Tasks: receiving, reading, and the lines that their owner draws (cancel, pause, resume, erase).
//!
//! A task row is locked first, then its batches, then the account.

use sqlx::{FromRow, QueryBuilder};

use super::credits::{move_balance, record};
use super::gather::Gather;
use super::{Result, Store, StoreError, Tx, expect_rows, on, read};
use crate::domain::clock::Millis;
use crate::domain::id::{AccountId, KeyId, TaskId};
use crate::domain::ledger::{EntryType, Kind, Movement};
use crate::domain::task::{PauseReason, Submitted, Tally, Task, TaskStatus};

#[derive(FromRow)]
struct TaskRow {
    id: TaskId,
    account_id: AccountId,
    created_by_key: Option<KeyId>,
    name: Option<String>,
    status: String,
    pause_reason: Option<String>,
    submitted: i64,
    unique_addresses: i64,
    duplicates: i64,
    invalid_syntax: i64,
    batches: i64,
    released: i64,
    created_at: i64,
    started_at: Option<i64>,
    finished_at: Option<i64>,
    deliverable: i64,
    undeliverable: i64,
    risky: i64,
    unknown: i64,
    charged: i64,
    refunded: i64,
    held: i64,
}

impl TryFrom<TaskRow> for Task {
    type Error = StoreError;

    fn try_from(row: TaskRow) -> Result<Self> {
        let status = row
            .status
            .parse()
            .map_err(|_| StoreError::Damaged { what: "task status", detail: row.status.clone() })?;
        Ok(Task {
            id: row.id,
            account: row.account_id,
            created_by_key: row.created_by_key,
            name: row.name,
            status,
            pause_reason: row.pause_reason.as_deref().and_then(PauseReason::from_name),
            submitted: Submitted {
                submitted: row.submitted,
                unique: row.unique_addresses,
                duplicates: row.duplicates,
                invalid_syntax: row.invalid_syntax,
            },
            tally: Tally {
                deliverable: row.deliverable,
                undeliverable: row.undeliverable,
                risky: row.risky,
                unknown: row.unknown,
                charged: row.charged,
                refunded: row.refunded,
            },
            held: row.held,
            released: row.released,
            created_at: row.created_at,
            started_at: row.started_at,
            finished_at: row.finished_at,
            batches: row.batches,
        })
    }
}

/// Tasks with the sums of their touched batches added: those whose own counters are not folded
/// into the task row yet.
const SELECT: &str =
    "SELECT t.id, t.account_id, t.created_by_key, t.name, t.status, t.pause_reason,
        t.submitted, t.unique_addresses, t.duplicates, t.invalid_syntax, t.batches,
        t.released, t.created_at, t.started_at, t.finished_at,
        t.deliverable + CAST(COALESCE(SUM(b.deliverable), 0) AS BIGINT) AS deliverable,
        t.undeliverable + CAST(COALESCE(SUM(b.undeliverable), 0) AS BIGINT) AS undeliverable,
        t.risky + CAST(COALESCE(SUM(b.risky), 0) AS BIGINT) AS risky,
        t.unknown + CAST(COALESCE(SUM(b.unknown), 0) AS BIGINT) AS unknown,
        t.charged + CAST(COALESCE(SUM(b.charged), 0) AS BIGINT) AS charged,
        t.refunded + CAST(COALESCE(SUM(b.refunded), 0) AS BIGINT) AS refunded,
        CAST(COALESCE(SUM(b.held), 0) AS BIGINT) AS held
    FROM tasks t LEFT JOIN batches b ON b.task_id = t.id AND b.touched = 1
    WHERE t.status <> 'ingesting' AND t.deleted_at IS NULL AND t.id IN (";

/// A task being received.
#[derive(Debug)]
pub struct NewTask {
    /// Its id.
    pub id: TaskId,
    /// Its owner.
    pub account: AccountId,
    /// The key that submits it.
    pub created_by_key: Option<KeyId>,
}

/// What the last transaction of a submission fixes.
#[derive(Debug)]
pub struct Accept {
    /// The owner's name for it.
    pub name: Option<String>,
    /// Counts of the list.
    pub submitted: Submitted,
    /// Batches stored.
    pub batches: i64,
    /// First record of a CSV.
    pub header: Option<Vec<u8>>,
    /// Delimiter of a CSV.
    pub delimiter: u8,
}

/// A stored block of a submission.
#[derive(Debug)]
pub enum NewBlock {
    /// A batch of addresses.
    Batch {
        /// Its number.
        no: i32,
        /// `seq` of its first address.
        first_seq: i64,
        /// Addresses in it.
        addresses: i32,
        /// Those that may cost a credit.
        chargeable: i32,
        /// The addresses, encoded.
        payload: Vec<u8>,
    },
    /// Rows of the submitted file.
    Rows {
        /// Their number.
        no: i32,
        /// The rows, encoded.
        payload: Vec<u8>,
    },
}

/// What a change of a task's course came to.
#[derive(Debug)]
pub enum Changed {
    /// Done.
    Done,
    /// The task is in a state that does not allow it.
    Refused(TaskStatus),
    /// No such task of this account.
    Missing,
}

impl Store {
    /// Opens a task for receiving; nobody sees it.
    pub async fn open_task(&self, task: &NewTask, now: Millis) -> Result<()> {
        const SQL: &str = "INSERT INTO tasks (id, account_id, created_by_key, status, delimiter,
                submitted, unique_addresses, duplicates, invalid_syntax, batches, batches_ended,
                deliverable, undeliverable, risky, unknown, charged, refunded, released,
                created_at, touched_at)
            VALUES ($1, $2, $3, 'ingesting', 44, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, $4, $4)";
        let mut tx = self.begin().await?;
        on!(&mut tx, c => sqlx::query(SQL)
            .bind(task.id).bind(task.account).bind(task.created_by_key).bind(now)
            .execute(c).await.map(|_| ()))?;
        tx.commit().await
    }

    /// Stores blocks of a task that is being received, in one transaction. Fails with a row count
    /// when the sweeper took the task for abandoned.
    pub async fn store_blocks(&self, task: TaskId, blocks: &[NewBlock], now: Millis) -> Result<()> {
        const TOUCH: &str = "UPDATE tasks SET touched_at = $2
            WHERE id = $1 AND status = 'ingesting'";
        const BATCH: &str = "INSERT INTO batches (task_id, no, first_seq, addresses, chargeable,
                payload, state, touched, held, due_at, attempt, deliverable, undeliverable, risky,
                unknown, charged, refunded)
            VALUES ($1, $2, $3, $4, $5, $6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)";
        const ROWS: &str = "INSERT INTO task_rows (task_id, no, payload) VALUES ($1, $2, $3)";
        let mut tx = self.begin().await?;
        let touched = on!(&mut tx, c => sqlx::query(TOUCH).bind(task).bind(now)
            .execute(c).await.map(|r| r.rows_affected()))?;
        expect_rows("touch task", touched, 1)?;
        for block in blocks {
            match block {
                NewBlock::Batch { no, first_seq, addresses, chargeable, payload } => {
                    on!(&mut tx, c => sqlx::query(BATCH)
                        .bind(task).bind(no).bind(first_seq).bind(addresses).bind(chargeable)
                        .bind(payload.as_slice())
                        .execute(c).await.map(|_| ()))?;
                }
                NewBlock::Rows { no, payload } => {
                    on!(&mut tx, c => sqlx::query(ROWS).bind(task).bind(no).bind(payload.as_slice())
                        .execute(c).await.map(|_| ()))?;
                }
            }
        }
        tx.commit().await
    }

    /// Makes a received task `queued`, inside the caller's transaction. Fails with a row count
    /// when the sweeper took it for abandoned.
    pub async fn accept_task(
        &self,
        tx: &mut Tx,
        task: TaskId,
        accept: &Accept,
        now: Millis,
    ) -> Result<()> {
        const SQL: &str = "UPDATE tasks SET status = 'queued', name = $2, submitted = $3,
                unique_addresses = $4, duplicates = $5, invalid_syntax = $6, batches = $7,
                header = $8, delimiter = $9, created_at = $10, touched_at = $10
            WHERE id = $1 AND status = 'ingesting'";
        let counts = accept.submitted;
        let rows = on!(tx, c => sqlx::query(SQL)
            .bind(task).bind(accept.name.as_deref()).bind(counts.submitted).bind(counts.unique)
            .bind(counts.duplicates).bind(counts.invalid_syntax).bind(accept.batches)
            .bind(accept.header.as_deref()).bind(i16::from(accept.delimiter)).bind(now)
            .execute(c).await.map(|r| r.rows_affected()))?;
        expect_rows("accept task", rows, 1)
    }

    /// Removes a task that was being received, with all its blocks.
    pub async fn drop_ingest(&self, task: TaskId) -> Result<()> {
        const BATCHES: &str = "DELETE FROM batches WHERE task_id = $1";
        const ROWS: &str = "DELETE FROM task_rows WHERE task_id = $1";
        const TASK: &str = "DELETE FROM tasks WHERE id = $1 AND status = 'ingesting'";
        let mut tx = self.begin().await?;
        for sql in [BATCHES, ROWS] {
            on!(&mut tx, c => sqlx::query(sql).bind(task).execute(c).await.map(|_| ()))?;
        }
        let rows = on!(&mut tx, c => sqlx::query(TASK).bind(task)
            .execute(c).await.map(|r| r.rows_affected()))?;
        // Zero: it was accepted meanwhile, and the transaction goes back.
        expect_rows("drop ingesting task", rows, 1)?;
        tx.commit().await
    }

    /// Gathered reads of tasks.
    pub fn gather_tasks(&self) -> Gather<TaskId, Task> {
        Gather::new(self, |store, ids| {
            Box::pin(async move {
                let tasks = store.tasks_by_id(&ids).await?;
                Ok(tasks.into_iter().map(|task| (task.id, task)).collect())
            })
        })
    }

    async fn tasks_by_id(&self, ids: &[TaskId]) -> Result<Vec<Task>> {
        macro_rules! find {
            ($pool:expr) => {{
                let mut sql = QueryBuilder::new(SELECT);
                let mut list = sql.separated(", ");
                for id in ids {
                    list.push_bind(*id);
                }
                sql.push(") GROUP BY t.id");
                sql.build_query_as::<TaskRow>().fetch_all($pool).await?
            }};
        }
        let rows = match self {
            Store::Pg(pool) => find!(pool),
            Store::Lite { read, .. } => find!(read),
        };
        rows.into_iter().map(Task::try_from).collect()
    }

    /// One task of an account, as it stands now.
    pub async fn task(&self, id: TaskId, account: AccountId) -> Result<Option<Task>> {
        let tasks = self.tasks_by_id(&[id]).await?;
        Ok(tasks.into_iter().find(|task| task.account == account))
    }

    /// Tasks of an account, newest first, before `cursor`.
    pub async fn tasks(
        &self,
        account: AccountId,
        status: Option<TaskStatus>,
        cursor: Option<TaskId>,
        limit: i64,
    ) -> Result<Vec<Task>> {
        const SQL: &str = "SELECT id FROM tasks
            WHERE account_id = $1 AND (status = $2 OR $2 IS NULL) AND (id < $3 OR $3 IS NULL)
              AND status <> 'ingesting' AND deleted_at IS NULL
            ORDER BY id DESC LIMIT $4";
        let ids: Vec<TaskId> = read!(self, c => sqlx::query_scalar(SQL)
            .bind(account).bind(status.map(TaskStatus::as_str)).bind(cursor).bind(limit)
            .fetch_all(c).await)?;
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut tasks = self.tasks_by_id(&ids).await?;
        tasks.sort_by_key(|task| std::cmp::Reverse(task.id));
        Ok(tasks)
    }

    /// Tasks that a key submitted and that have not ended.
    pub async fn unended_tasks_of_key(
        &self,
        account: AccountId,
        key: KeyId,
    ) -> Result<Vec<TaskId>> {
        const SQL: &str = "SELECT id FROM tasks
            WHERE account_id = $1 AND created_by_key = $2 AND deleted_at IS NULL
              AND status IN ('queued', 'running', 'paused') ORDER BY id";
        Ok(read!(self, c => sqlx::query_scalar(SQL).bind(account).bind(key)
            .fetch_all(c).await)?)
    }

    /// Statuses of these tasks now; unknown ids are left out.
    pub async fn task_statuses(&self, ids: &[TaskId]) -> Result<Vec<(TaskId, TaskStatus)>> {
        const SQL: &str = "SELECT status FROM tasks WHERE id = $1";
        let mut found = Vec::with_capacity(ids.len());
        for id in ids {
            let status: Option<String> = read!(self, c => sqlx::query_scalar(SQL).bind(*id)
                .fetch_optional(c).await)?;
            if let Some(status) = status.and_then(|s| s.parse().ok()) {
                found.push((*id, status));
            }
        }
        Ok(found)
    }

    /// Cancels a task: one transaction that ends it, invalidates its leases and gives its holds
    /// back. After it, no result is added and no credit moves for this task.
    pub async fn cancel_task(
        &self,
        id: TaskId,
        account: AccountId,
        now: Millis,
    ) -> Result<Changed> {
        const CLOSE: &str = "UPDATE batches SET state = 4, lease_token = NULL
            WHERE task_id = $1 AND state < 3
            RETURNING held, touched, deliverable, undeliverable, risky, unknown, charged, refunded";
        const EMPTY: &str = "UPDATE batches SET held = 0, touched = 0
            WHERE task_id = $1 AND touched = 1";
        const END: &str = "UPDATE tasks SET status = 'cancelled', pause_reason = NULL,
                finished_at = $2, released = $3,
                deliverable = deliverable + $4, undeliverable = undeliverable + $5,
                risky = risky + $6, unknown = unknown + $7, charged = charged + $8,
                refunded = refunded + $9
            WHERE id = $1";
        let mut tx = self.begin().await?;
        match lock_task(&mut tx, id, Some(account)).await? {
            None => return Ok(Changed::Missing),
            Some(TaskStatus::Cancelled) => return Ok(Changed::Done),
            Some(status) if status.has_ended() => return Ok(Changed::Refused(status)),
            Some(_) => {}
        }
        let open: Vec<OpenBatch> =
            on!(&mut tx, c => sqlx::query_as(CLOSE).bind(id).fetch_all(c).await)?;
        on!(&mut tx, c => sqlx::query(EMPTY).bind(id).execute(c).await.map(|_| ()))?;
        let (mut held, mut tally) = (0, Tally::default());
        for batch in &open {
            held += batch.held;
            tally += batch.tally();
        }
        let rows = on!(&mut tx, c => sqlx::query(END)
            .bind(id).bind(now).bind(held).bind(tally.deliverable).bind(tally.undeliverable)
            .bind(tally.risky).bind(tally.unknown).bind(tally.charged).bind(tally.refunded)
            .execute(c).await.map(|r| r.rows_affected()))?;
        expect_rows("cancel task", rows, 1)?;
        if held > 0 {
            let after = move_balance(&mut tx, account, Kind::Email, held).await?;
            let movement = Movement {
                account,
                kind: Kind::Email,
                entry: EntryType::Refund,
                amount: held,
                task: Some(id),
                step: None,
                note: Some(String::from("cancelled")),
            };
            record(&mut tx, &movement, after, now).await?;
        }
        tx.commit().await?;
        Ok(Changed::Done)
    }

    /// Stops a task from starting addresses until it is resumed.
    pub async fn pause_task(&self, id: TaskId, account: AccountId) -> Result<Changed> {
        let mut tx = self.begin().await?;
        match lock_task(&mut tx, id, Some(account)).await? {
            None => return Ok(Changed::Missing),
            Some(status) if status.has_ended() => return Ok(Changed::Refused(status)),
            Some(_) => {}
        }
        pause(&mut tx, id, PauseReason::Requested).await?;
        tx.commit().await?;
        Ok(Changed::Done)
    }

    /// Lets a paused task go on, whatever paused it.
    pub async fn resume_task(&self, id: TaskId, account: AccountId) -> Result<Changed> {
        let mut tx = self.begin().await?;
        match lock_task(&mut tx, id, Some(account)).await? {
            None => return Ok(Changed::Missing),
            Some(TaskStatus::Paused) => {}
            Some(status) if status.is_active() => return Ok(Changed::Done),
            Some(status) => return Ok(Changed::Refused(status)),
        }
        resume(&mut tx, id).await?;
        tx.commit().await?;
        Ok(Changed::Done)
    }

    /// Erases an ended task's results, rows and addresses. The task row stays, unseen, for the
    /// books.
    pub async fn erase_task(&self, id: TaskId, account: AccountId, now: Millis) -> Result<Changed> {
        const RESULTS: &str = "DELETE FROM results WHERE task_id = $1";
        const ROWS: &str = "DELETE FROM task_rows WHERE task_id = $1";
        const BATCHES: &str = "DELETE FROM batches WHERE task_id = $1";
        const MARK: &str = "UPDATE tasks SET deleted_at = $2, header = NULL, name = NULL
            WHERE id = $1 AND deleted_at IS NULL";
        let mut tx = self.begin().await?;
        match lock_task(&mut tx, id, Some(account)).await? {
            None => return Ok(Changed::Missing),
            Some(status) if !status.has_ended() => return Ok(Changed::Refused(status)),
            Some(_) => {}
        }
        for sql in [RESULTS, ROWS, BATCHES] {
            on!(&mut tx, c => sqlx::query(sql).bind(id).execute(c).await.map(|_| ()))?;
        }
        let rows = on!(&mut tx, c => sqlx::query(MARK).bind(id).bind(now)
            .execute(c).await.map(|r| r.rows_affected()))?;
        expect_rows("erase task", rows, 1)?;
        tx.commit().await?;
        Ok(Changed::Done)
    }

    /// Header and delimiter of the submitted CSV.
    pub async fn task_header(&self, id: TaskId) -> Result<(Option<Vec<u8>>, u8)> {
        const SQL: &str = "SELECT header, delimiter FROM tasks WHERE id = $1";
        let (header, delimiter): (Option<Vec<u8>>, i16) =
            read!(self, c => sqlx::query_as(SQL).bind(id).fetch_one(c).await)?;
        Ok((header, delimiter as u8))
    }
}

#[derive(FromRow)]
struct OpenBatch {
    held: i64,
    deliverable: i64,
    undeliverable: i64,
    risky: i64,
    unknown: i64,
    charged: i64,
    refunded: i64,
}

impl OpenBatch {
    fn tally(&self) -> Tally {
        Tally {
            deliverable: self.deliverable,
            undeliverable: self.undeliverable,
            risky: self.risky,
            unknown: self.unknown,
            charged: self.charged,
            refunded: self.refunded,
        }
    }
}

/// Locks a task's row and tells its status; `None` when there is none (of this account, if given).
pub(super) async fn lock_task(
    tx: &mut Tx,
    id: TaskId,
    account: Option<AccountId>,
) -> Result<Option<TaskStatus>> {
    // SQLite has one writer, and we are it; PostgreSQL locks the row.
    const LITE: &str = "SELECT status FROM tasks
        WHERE id = $1 AND (account_id = $2 OR $2 IS NULL)
          AND status <> 'ingesting' AND deleted_at IS NULL";
    const PG: &str = "SELECT status FROM tasks
        WHERE id = $1 AND (account_id = $2 OR $2 IS NULL)
          AND status <> 'ingesting' AND deleted_at IS NULL FOR NO KEY UPDATE";
    let sql = if matches!(tx, Tx::Pg(_)) { PG } else { LITE };
    let status: Option<String> = on!(tx, c => sqlx::query_scalar(sql).bind(id).bind(account)
        .fetch_optional(c).await)?;
    status
        .map(|name| {
            name.parse().map_err(|_| StoreError::Damaged { what: "task status", detail: name })
        })
        .transpose()
}

/// Pauses a task that has not ended; the caller holds its lock. Batches already leased go on until
/// their worker hears of it.
pub(super) async fn pause(tx: &mut Tx, id: TaskId, reason: PauseReason) -> Result<()> {
    const TASK: &str = "UPDATE tasks SET status = 'paused', pause_reason = $2 WHERE id = $1";
    const BATCHES: &str = "UPDATE batches SET state = 0 WHERE task_id = $1 AND state = 1";
    let rows = on!(&mut *tx, c => sqlx::query(TASK).bind(id).bind(reason.as_str())
        .execute(c).await.map(|r| r.rows_affected()))?;
    expect_rows("pause task", rows, 1)?;
    on!(&mut *tx, c => sqlx::query(BATCHES).bind(id).execute(c).await.map(|_| ()))?;
    Ok(())
}

/// Makes a paused task active again; the caller holds its lock.
pub(super) async fn resume(tx: &mut Tx, id: TaskId) -> Result<()> {
    const SQL: &str = "UPDATE tasks SET pause_reason = NULL,
            status = CASE WHEN started_at IS NULL THEN 'queued' ELSE 'running' END
        WHERE id = $1 AND status = 'paused'";
    let rows = on!(tx, c => sqlx::query(SQL).bind(id)
        .execute(c).await.map(|r| r.rows_affected()))?;
    expect_rows("resume task", rows, 1)
}

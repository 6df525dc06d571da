//! Tasks: receiving them, block by block, and reading them. What changes their course is in
//! [`super::control`].

use sqlx::{FromRow, QueryBuilder};

use super::dispatch::mark_ready;
use super::gather::Gather;
use super::{Result, Store, StoreError, Tx, expect_rows, on, read, statements, within};
use crate::domain::clock::Millis;
use crate::domain::id::{AccountId, KeyId, TaskId};
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
    held: i64,
    #[sqlx(flatten)]
    tally: TallyRow,
}

/// The counters that tasks and batches share.
#[derive(FromRow)]
pub(super) struct TallyRow {
    deliverable: i64,
    undeliverable: i64,
    risky: i64,
    unknown: i64,
    charged: i64,
    refunded: i64,
}

impl From<TallyRow> for Tally {
    fn from(row: TallyRow) -> Self {
        Tally {
            deliverable: row.deliverable,
            undeliverable: row.undeliverable,
            risky: row.risky,
            unknown: row.unknown,
            charged: row.charged,
            refunded: row.refunded,
        }
    }
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
            tally: row.tally.into(),
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
    /// Batches and rows stored.
    pub stored: i64,
    /// First record of a CSV.
    pub header: Option<Vec<u8>>,
    /// Delimiter of a CSV.
    pub delimiter: u8,
    /// Credits reserved of the limit of the key that submits it; `None` without a key.
    pub key_reserved: Option<i64>,
}

/// A batch of a submission.
#[derive(Debug)]
pub struct NewBatch {
    /// Its number.
    pub no: i32,
    /// `seq` of its first address.
    pub first_seq: i64,
    /// Addresses in it.
    pub addresses: i32,
    /// Those that may cost a credit.
    pub chargeable: i32,
    /// The addresses, encoded.
    pub payload: Vec<u8>,
}

/// Rows of the submitted file.
#[derive(Debug)]
pub struct NewRows {
    /// Their number.
    pub no: i32,
    /// The rows, encoded.
    pub payload: Vec<u8>,
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

    /// Stores batches and rows of a task that is being received, `before` of them stored so far, in one
    /// transaction. They reach the disk with what makes the task known, at the latest; until then the task
    /// row counts them, so that what a crash of the database undoes is missed. Fails with a row count then,
    /// or when the task was given up.
    pub async fn receive(
        &self,
        task: TaskId,
        before: i64,
        batches: &[NewBatch],
        rows: &[NewRows],
        now: Millis,
    ) -> Result<()> {
        const TOUCH: &str = "UPDATE tasks SET touched_at = $2, batches = $3 + $4
            WHERE id = $1 AND status = 'ingesting' AND deleted_at IS NULL AND batches = $3";
        let new = (batches.len() + rows.len()) as i64;
        let mut tx = self.begin_unsynced().await?;
        let touched = on!(&mut tx, c => sqlx::query(TOUCH).bind(task).bind(now).bind(before)
            .bind(new).execute(c).await.map(|r| r.rows_affected()))?;
        expect_rows("touch task", touched, 1)?;
        for some in statements(batches, |batch| batch.payload.len()) {
            insert_batches(&mut tx, task, some).await?;
        }
        insert_rows(&mut tx, task, rows).await?;
        tx.commit().await
    }

    /// Makes a received task `queued`, inside the caller's transaction. Fails with a row count when it was
    /// given up, or something of it is not stored.
    pub async fn accept_task(
        &self,
        tx: &mut Tx,
        task: TaskId,
        accept: &Accept,
        now: Millis,
    ) -> Result<()> {
        const SQL: &str = "UPDATE tasks SET status = 'queued', name = $2, submitted = $3,
                unique_addresses = $4, duplicates = $5, invalid_syntax = $6, batches = $7,
                header = $8, delimiter = $9, created_at = $10, touched_at = $10, key_reserved = $12
            WHERE id = $1 AND status = 'ingesting' AND deleted_at IS NULL AND batches = $11
            RETURNING account_id";
        let counts = accept.submitted;
        let account: Option<AccountId> = on!(&mut *tx, c => sqlx::query_scalar(SQL)
            .bind(task).bind(accept.name.as_deref()).bind(counts.submitted).bind(counts.unique)
            .bind(counts.duplicates).bind(counts.invalid_syntax).bind(accept.batches)
            .bind(accept.header.as_deref()).bind(i16::from(accept.delimiter)).bind(now)
            .bind(accept.stored).bind(accept.key_reserved)
            .fetch_optional(c).await)?;
        expect_rows("accept task", u64::from(account.is_some()), 1)?;
        match account {
            Some(account) if accept.batches > 0 => mark_ready(tx, task, account, now).await,
            _ => Ok(()),
        }
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
                sql.build_query_as().fetch_all($pool).await
            }};
        }
        let rows: Vec<TaskRow> = match &mut self.quick_reader().await? {
            Tx::Pg(lent) => within!(lent, c => find!(c)),
            Tx::Lite(lent) => within!(lent, c => find!(c)),
        }?;
        rows.into_iter().map(Task::try_from).collect()
    }

    /// One task of an account, as it stands now.
    pub async fn task(&self, id: TaskId, account: AccountId) -> Result<Option<Task>> {
        let tasks = self.tasks_by_id(&[id]).await?;
        Ok(tasks.into_iter().find(|task| task.account == account))
    }

    /// One task, whosever it is: for operators.
    pub async fn any_task(&self, id: TaskId) -> Result<Option<Task>> {
        Ok(self.tasks_by_id(&[id]).await?.pop())
    }

    /// Tasks of an account, newest first, before `cursor`; `family`: only those submitted by a key of it.
    pub async fn tasks(
        &self,
        account: AccountId,
        family: Option<KeyId>,
        status: Option<TaskStatus>,
        cursor: Option<TaskId>,
        limit: i64,
    ) -> Result<Vec<Task>> {
        const SQL: &str = "SELECT id FROM tasks
            WHERE account_id = $1 AND (status = $2 OR $2 IS NULL) AND (id < $3 OR $3 IS NULL)
              AND (created_by_key IN (SELECT k.id FROM api_keys k WHERE k.family = $5) OR $5 IS NULL)
              AND status <> 'ingesting' AND deleted_at IS NULL
            ORDER BY id DESC LIMIT $4";
        let ids: Vec<TaskId> = read!(self, c => sqlx::query_scalar(SQL)
            .bind(account).bind(status.map(TaskStatus::as_str)).bind(cursor).bind(limit)
            .bind(family).fetch_all(c).await)?;
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

    /// Lists of a key that are being received at this moment.
    pub async fn uploads_of_key(&self, key: KeyId) -> Result<Vec<TaskId>> {
        const SQL: &str = "SELECT id FROM tasks
            WHERE created_by_key = $1 AND deleted_at IS NULL AND status = 'ingesting' ORDER BY id";
        Ok(read!(self, c => sqlx::query_scalar(SQL).bind(key).fetch_all(c).await)?)
    }

    /// Statuses of these tasks now; unknown ids are left out.
    pub async fn task_statuses(&self, ids: &[TaskId]) -> Result<Vec<(TaskId, TaskStatus)>> {
        const STATUSES: &str = "SELECT id, status FROM tasks WHERE id IN (";
        macro_rules! find {
            ($pool:expr, $ids:expr) => {{
                let mut sql = QueryBuilder::new(STATUSES);
                let mut list = sql.separated(", ");
                for id in $ids {
                    list.push_bind(*id);
                }
                sql.push(")");
                sql.build_query_as().fetch_all($pool).await
            }};
        }
        let mut found = Vec::with_capacity(ids.len());
        for some in ids.chunks(1_000) {
            let rows: Vec<(TaskId, String)> = match &mut self.quick_reader().await? {
                Tx::Pg(lent) => within!(lent, c => find!(c, some)),
                Tx::Lite(lent) => within!(lent, c => find!(c, some)),
            }?;
            let known = rows.into_iter().filter_map(|(id, name)| Some((id, name.parse().ok()?)));
            found.extend(known);
        }
        Ok(found)
    }

    /// Header and delimiter of the submitted CSV.
    pub async fn task_header(&self, id: TaskId) -> Result<(Option<Vec<u8>>, u8)> {
        const SQL: &str = "SELECT header, delimiter FROM tasks WHERE id = $1";
        let (header, delimiter): (Option<Vec<u8>>, i16) =
            read!(self, c => sqlx::query_as(SQL).bind(id).fetch_one(c).await)?;
        Ok((header, delimiter as u8))
    }
}

/// The columns and values of a new batch.
macro_rules! new_batch {
    ($from:literal) => {
        concat!(
            "INSERT INTO batches (task_id, no, first_seq, addresses, chargeable, payload, state,
                touched, held, due_at, attempt, deliverable, undeliverable, risky, unknown, charged,
                refunded)
            SELECT $1, b.no, b.first_seq, b.addresses, b.chargeable, b.payload,
                0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0
            FROM ",
            $from
        )
    };
}

async fn insert_batches(tx: &mut Tx, task: TaskId, batches: &[NewBatch]) -> Result<()> {
    const PG: &str = new_batch!(
        "UNNEST($2::INTEGER[], $3::BIGINT[], $4::INTEGER[], $5::INTEGER[], $6::BYTEA[])
        AS b (no, first_seq, addresses, chargeable, payload)"
    );
    const LITE: &str = new_batch!(
        "(SELECT $2 AS no, $3 AS first_seq, $4 AS addresses, $5 AS chargeable, $6 AS payload) AS b"
    );
    let rows = match tx {
        // One round trip, however many.
        Tx::Pg(lent) => within!(lent, c => sqlx::query(PG).bind(task)
            .bind(batches.iter().map(|batch| batch.no).collect::<Vec<_>>())
            .bind(batches.iter().map(|batch| batch.first_seq).collect::<Vec<_>>())
            .bind(batches.iter().map(|batch| batch.addresses).collect::<Vec<_>>())
            .bind(batches.iter().map(|batch| batch.chargeable).collect::<Vec<_>>())
            .bind(batches.iter().map(|batch| batch.payload.as_slice()).collect::<Vec<_>>())
            .execute(c).await.map(|r| r.rows_affected()))?,
        Tx::Lite(lent) => {
            let mut rows = 0;
            for batch in batches {
                rows += within!(&mut *lent, c => sqlx::query(LITE).bind(task).bind(batch.no)
                    .bind(batch.first_seq).bind(batch.addresses).bind(batch.chargeable)
                    .bind(batch.payload.as_slice())
                    .execute(c).await.map(|r| r.rows_affected()))?;
            }
            rows
        }
    };
    expect_rows("insert batches", rows, batches.len() as u64)
}

async fn insert_rows(tx: &mut Tx, task: TaskId, rows: &[NewRows]) -> Result<()> {
    const SQL: &str = "INSERT INTO task_rows (task_id, no, payload) VALUES ($1, $2, $3)";
    for row in rows {
        let stored = on!(&mut *tx, c => sqlx::query(SQL).bind(task).bind(row.no)
            .bind(row.payload.as_slice()).execute(c).await.map(|r| r.rows_affected()))?;
        expect_rows("insert rows", stored, 1)?;
    }
    Ok(())
}

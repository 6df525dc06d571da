//! Receiving a task, block by block, under a task row that nobody sees until the last transaction.

use super::dispatch::mark_ready;
use super::{Result, Store, Tx, expect_rows, on, statements, within};
use crate::domain::clock::Millis;
use crate::domain::id::{AccountId, KeyId, TaskId};
use crate::domain::task::Submitted;

/// A task being received.
#[derive(Debug)]
pub struct NewTask {
    /// Its id.
    pub id: TaskId,
    /// Its owner.
    pub account: AccountId,
    /// The key that submits it.
    pub created_by_key: Option<KeyId>,
    /// The person who submits it, by their email.
    pub created_by_person: Option<String>,
    /// That is a test key.
    pub sandbox: bool,
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
    /// Its results begin with a byte order mark.
    pub bom: bool,
    /// The lines of its results end with CR and LF.
    pub crlf: bool,
    /// Credits reserved of the limit of the key that submits it; `None` without a key, and of a sandbox task.
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
    /// Those that may cost a credit: none of a sandbox task.
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
        const SQL: &str = "INSERT INTO tasks (id, account_id, created_by_key, created_by_person, sandbox, status, delimiter,
                submitted, unique_addresses, duplicates, invalid_syntax, batches, batches_ended,
                deliverable, undeliverable, risky, unknown, charged, refunded, released,
                created_at, touched_at)
            VALUES ($1, $2, $3, $6, $5, 'ingesting', 44, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, $4, $4)";
        let mut tx = self.begin().await?;
        on!(&mut tx, c => sqlx::query(SQL)
            .bind(task.id).bind(task.account).bind(task.created_by_key).bind(now)
            .bind(task.sandbox).bind(task.created_by_person.as_deref())
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
                header = $8, delimiter = $9, created_at = $10, touched_at = $10, key_reserved = $12,
                bom = $13, crlf = $14
            WHERE id = $1 AND status = 'ingesting' AND deleted_at IS NULL AND batches = $11
            RETURNING account_id";
        let counts = accept.submitted;
        let account: Option<AccountId> = on!(&mut *tx, c => sqlx::query_scalar(SQL)
            .bind(task).bind(accept.name.as_deref()).bind(counts.submitted).bind(counts.unique)
            .bind(counts.duplicates).bind(counts.invalid_syntax).bind(accept.batches)
            .bind(accept.header.as_deref()).bind(i16::from(accept.delimiter)).bind(now)
            .bind(accept.stored).bind(accept.key_reserved).bind(accept.bom).bind(accept.crlf)
            .fetch_optional(c).await)?;
        expect_rows("accept task", u64::from(account.is_some()), 1)?;
        match account {
            Some(account) if accept.batches > 0 => mark_ready(tx, task, account, now).await,
            _ => Ok(()),
        }
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

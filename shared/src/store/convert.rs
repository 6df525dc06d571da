//! Results that were stored as a row per address, before there were blocks: `listmill migrate` makes
//! blocks of them, then drops their table.
//!
//! Batches that have ended come first, some at a time, while everything else goes on: their results do not
//! change, and readers that know rows still find them. The rest is converted in one transaction that keeps
//! everybody from the table, then drops it: a worker that knows rows alone cannot settle any more, its
//! leases run out, and nothing is stored twice. Interrupted anywhere, the next run goes on where it was: a
//! batch that has a block is not converted again.

use sqlx::FromRow;

use super::blocks::{self, NewBlock};
use super::{Result, Store, StoreError, Told, Tx, expect_rows, on, read, within};
use crate::domain::batch::{BatchRef, place};
use crate::domain::block::Packed;
use crate::domain::done::Done;
use crate::domain::id::TaskId;
use crate::domain::verdict::{Credit, Flags, Reason};

/// Batches converted in one transaction.
const AT_ONCE: i64 = 32;

/// A batch with results and without a block.
#[derive(FromRow)]
struct Old {
    task_id: TaskId,
    no: i32,
    first_seq: i64,
    addresses: i32,
    state: i16,
    processed: i64,
}

#[derive(FromRow)]
struct Row {
    seq: i64,
    reason: i16,
    score: i16,
    flags: i16,
    credit: i16,
    attempts: i16,
    step: i64,
    checked_at: i64,
    smtp_code: Option<i16>,
    mx: Option<String>,
    did_you_mean: Option<String>,
    detail: Option<String>,
}

impl Row {
    fn packed(&self, old: &Old) -> Result<Packed<'_>> {
        let damaged =
            |what, code: i64| StoreError::Damaged { what, detail: format!("code {code}") };
        let place = place(old.first_seq, self.seq).and_then(|place| u32::try_from(place).ok());
        Ok(Packed {
            place: place.ok_or_else(|| damaged("seq", self.seq))?,
            reason: Reason::from_code(self.reason)
                .ok_or_else(|| damaged("reason", self.reason.into()))?,
            score: self.score,
            flags: Flags::unpack(self.flags),
            credit: Credit::from_code(self.credit)
                .ok_or_else(|| damaged("credit", self.credit.into()))?,
            attempts: self.attempts,
            step: self.step,
            checked_at: self.checked_at,
            smtp_code: self.smtp_code,
            mx: self.mx.as_deref(),
            did_you_mean: self.did_you_mean.as_deref(),
            detail: self.detail.as_deref(),
        })
    }
}

impl Store {
    /// Are there results in rows?
    pub(super) async fn has_rows(&self) -> Result<bool> {
        const PG: &str = "SELECT count(*) FROM information_schema.tables
            WHERE table_name = 'results' AND table_schema = current_schema()";
        const LITE: &str = "SELECT count(*) FROM sqlite_master WHERE name = 'results'";
        let sql = if matches!(self, Store::Pg(_)) { PG } else { LITE };
        let tables: i64 = read!(self, c => sqlx::query_scalar(sql).fetch_one(c).await)?;
        Ok(tables > 0)
    }

    /// Makes blocks of all results in rows, and drops their table.
    pub(super) async fn convert(&self, told: Told<'_>) -> Result<()> {
        const ENDED: &str = "SELECT task_id, no, first_seq, addresses, state,
                deliverable + undeliverable + risky + unknown AS processed
            FROM batches b
            WHERE state IN (3, 4) AND deliverable + undeliverable + risky + unknown > 0
              AND NOT EXISTS (SELECT 1 FROM result_blocks r
                WHERE r.task_id = b.task_id AND r.first_seq = b.first_seq)
              AND (task_id > $1 OR (task_id = $1 AND no > $2))
            ORDER BY task_id, no LIMIT $3";
        const REST: &str = "SELECT task_id, no, first_seq, addresses, state,
                deliverable + undeliverable + risky + unknown AS processed
            FROM batches b
            WHERE deliverable + undeliverable + risky + unknown > 0
              AND NOT EXISTS (SELECT 1 FROM result_blocks r
                WHERE r.task_id = b.task_id AND r.first_seq = b.first_seq)
            ORDER BY task_id, no";
        const ALONE_PG: &str = "LOCK TABLE results IN ACCESS EXCLUSIVE MODE";
        const DROP: &str = "DROP TABLE results";
        if !self.has_rows().await? {
            return Ok(());
        }
        let (mut done, all) = (0, self.rows_left().await?);
        let mut last = (TaskId::FIRST, -1);
        loop {
            let some: Vec<Old> = read!(self, c => sqlx::query_as(ENDED)
                .bind(last.0).bind(last.1).bind(AT_ONCE).fetch_all(c).await)?;
            let Some(old) = some.last() else { break };
            last = (old.task_id, old.no);
            let mut tx = self.begin_long().await?;
            convert_batches(&mut tx, &some).await?;
            tx.commit().await?;
            done += some.iter().map(|old| old.processed.unsigned_abs()).sum::<u64>();
            told(done, all.max(done));
        }
        let mut tx = self.begin_long().await?;
        if let Tx::Pg(lent) = &mut tx {
            within!(lent, c => sqlx::query(ALONE_PG).execute(c).await)?;
        }
        let rest: Vec<Old> = on!(&mut tx, c => sqlx::query_as(REST).fetch_all(c).await)?;
        convert_batches(&mut tx, &rest).await?;
        on!(&mut tx, c => sqlx::query(DROP).execute(c).await.map(|_| ()))?;
        tx.commit().await?;
        done += rest.iter().map(|old| old.processed.unsigned_abs()).sum::<u64>();
        told(done, all.max(done));
        self.shrink().await;
        Ok(())
    }

    /// Writes a SQLite file anew: the rows are gone, and a file that was made before free pages went back
    /// to the disk by themselves would keep their room.
    async fn shrink(&self) {
        const ANEW_LITE: &str = "PRAGMA auto_vacuum = INCREMENTAL; VACUUM";
        let Store::Lite { write, .. } = self else { return };
        let shrunk = async {
            let mut link = write.fresh().await?;
            sqlx::raw_sql(ANEW_LITE).execute(&mut link).await?;
            Ok::<(), StoreError>(())
        };
        if let Err(error) = shrunk.await {
            tracing::warn!(%error, "the database file keeps its size; all is well otherwise");
        }
    }

    /// How many results are to be converted.
    async fn rows_left(&self) -> Result<u64> {
        const SQL: &str =
            "SELECT CAST(COALESCE(SUM(deliverable + undeliverable + risky + unknown), 0) AS BIGINT)
            FROM batches b WHERE NOT EXISTS (SELECT 1 FROM result_blocks r
                WHERE r.task_id = b.task_id AND r.first_seq = b.first_seq)";
        let left: i64 = read!(self, c => sqlx::query_scalar(SQL).fetch_one(c).await)?;
        Ok(left.unsigned_abs())
    }
}

async fn convert_batches(tx: &mut Tx, all: &[Old]) -> Result<()> {
    const ROWS: &str = "SELECT seq, reason, score, flags, credit, attempts, step, checked_at,
            smtp_code, mx, did_you_mean, detail FROM results
        WHERE task_id = $1 AND seq >= $2 AND seq < $3 ORDER BY seq";
    const MARK: &str = "UPDATE batches SET done = $3 WHERE task_id = $1 AND no = $2";
    for part in all.chunks(AT_ONCE as usize) {
        let mut new = Vec::with_capacity(part.len());
        for old in part {
            let batch = BatchRef { task: old.task_id, no: old.no };
            let end = old.first_seq + i64::from(old.addresses);
            let rows: Vec<Row> = on!(&mut *tx, c => sqlx::query_as(ROWS)
                .bind(batch.task).bind(old.first_seq).bind(end).fetch_all(c).await)?;
            if rows.len() as i64 != old.processed {
                let detail = format!("{batch:?}: {} rows, counted {}", rows.len(), old.processed);
                return Err(StoreError::Damaged { what: "results", detail });
            }
            let packed: Vec<Packed> =
                rows.iter().map(|row| row.packed(old)).collect::<Result<_>>()?;
            let step = packed.iter().map(|result| result.step).max().unwrap_or(0);
            let mut done = Done::default();
            packed.iter().for_each(|result| {
                done.insert(result.place as usize);
            });
            new.push(NewBlock::of(batch, old.first_seq, step, &packed)?);
            if old.state != crate::domain::batch::state::DONE {
                let marked = on!(&mut *tx, c => sqlx::query(MARK).bind(batch.task).bind(batch.no)
                    .bind(done.as_bytes()).execute(c).await.map(|r| r.rows_affected()))?;
                expect_rows("mark what has its result", marked, 1)?;
            }
        }
        blocks::insert(tx, &new).await?;
    }
    Ok(())
}

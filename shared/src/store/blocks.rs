//! Blocks of results: written by settlements, merged when their batch is done.
//!
//! A row of `result_blocks` holds the results of one settled piece of a batch ([`crate::domain::block`]),
//! with its counts and masks of its reasons and flags beside it. Rows are only inserted; *once* is guarded by the
//! bitmap on the batch row, which the fence compares and moves on. When a batch is done, its pieces are
//! merged into one row: an order of its own, which may be left out, as readers take any number of pieces.

use sqlx::FromRow;

use super::{Result, Store, StoreError, Tx, expect_rows, on, statements, within};
use crate::domain::batch::{BatchRef, Finding, Step, place};
use crate::domain::block::{Block, Packed, Summary, decode, encode};
use crate::domain::payload::PayloadError;

/// A row that is to be written.
#[derive(Debug)]
pub(super) struct NewBlock {
    pub batch: BatchRef,
    pub first_seq: i64,
    pub step: i64,
    pub summary: Summary,
    pub payload: Vec<u8>,
}

/// Why a block cannot be written or read.
pub(super) fn damaged(error: PayloadError) -> StoreError {
    StoreError::Damaged { what: "block of results", detail: error.to_string() }
}

impl NewBlock {
    /// Of these results, in the order of their places.
    pub fn of(batch: BatchRef, first_seq: i64, step: i64, results: &[Packed]) -> Result<Self> {
        let payload = encode(batch, results).map_err(damaged)?;
        Ok(Self { batch, first_seq, step, summary: Summary::of(results), payload })
    }

    /// What a step of settlement `number` has found; `None` if that is nothing.
    pub fn of_step(number: i64, step: &Step) -> Result<Option<Self>> {
        if step.findings.is_empty() {
            return Ok(None);
        }
        let packed = step.findings.iter().map(|finding| pack(step.first_seq, number, finding));
        let mut results = packed.collect::<Result<Vec<Packed>>>()?;
        results.sort_unstable_by_key(|result| result.place);
        Self::of(step.batch, step.first_seq, number, &results).map(Some)
    }
}

fn pack(first_seq: i64, step: i64, finding: &Finding) -> Result<Packed<'_>> {
    let place = place(first_seq, finding.seq).and_then(|place| u32::try_from(place).ok());
    let verdict = &finding.verdict;
    Ok(Packed {
        place: place.ok_or_else(|| StoreError::Damaged {
            what: "finding",
            detail: format!("seq {} is not in its batch", finding.seq),
        })?,
        reason: verdict.reason,
        score: verdict.score,
        flags: verdict.flags,
        credit: finding.credit,
        attempts: finding.attempts,
        step,
        checked_at: finding.checked_at,
        smtp_code: verdict.smtp_code,
        mx: verdict.mx.as_deref(),
        did_you_mean: verdict.did_you_mean.as_deref(),
        detail: verdict.detail.as_deref(),
    })
}

/// Writes blocks; one that is there already is a conflict.
pub(super) async fn insert(tx: &mut Tx, blocks: &[NewBlock]) -> Result<()> {
    // What else a block has is a few dozen bytes.
    for some in statements(blocks, |block| block.payload.len() + 128) {
        insert_some(tx, some).await?;
    }
    Ok(())
}

async fn insert_some(tx: &mut Tx, blocks: &[NewBlock]) -> Result<()> {
    const PG: &str = "INSERT INTO result_blocks (task_id, first_seq, step, no, deliverable,
            undeliverable, risky, unknown, charged, refunded, reasons, payload, flags)
        SELECT * FROM UNNEST($1::UUID[], $2::BIGINT[], $3::BIGINT[], $4::INTEGER[], $5::INTEGER[],
            $6::INTEGER[], $7::INTEGER[], $8::INTEGER[], $9::INTEGER[], $10::INTEGER[],
            $11::BIGINT[], $12::BYTEA[], $13::SMALLINT[])";
    const LITE: &str = "INSERT INTO result_blocks (task_id, first_seq, step, no, deliverable,
            undeliverable, risky, unknown, charged, refunded, reasons, payload, flags)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)";
    let rows = match tx {
        // One round trip, and one write to the socket, however many.
        Tx::Pg(lent) => {
            let counts = |of: fn(&Summary) -> i64| -> Vec<i32> {
                blocks.iter().map(|block| of(&block.summary) as i32).collect()
            };
            within!(lent, c => sqlx::query(PG)
                .bind(blocks.iter().map(|block| block.batch.task.0).collect::<Vec<_>>())
                .bind(blocks.iter().map(|block| block.first_seq).collect::<Vec<_>>())
                .bind(blocks.iter().map(|block| block.step).collect::<Vec<_>>())
                .bind(blocks.iter().map(|block| block.batch.no).collect::<Vec<_>>())
                .bind(counts(|summary| summary.tally.deliverable))
                .bind(counts(|summary| summary.tally.undeliverable))
                .bind(counts(|summary| summary.tally.risky))
                .bind(counts(|summary| summary.tally.unknown))
                .bind(counts(|summary| summary.tally.charged))
                .bind(counts(|summary| summary.tally.refunded))
                .bind(blocks.iter().map(|block| block.summary.reasons).collect::<Vec<_>>())
                .bind(blocks.iter().map(|block| block.payload.as_slice()).collect::<Vec<_>>())
                .bind(blocks.iter().map(|block| block.summary.flags).collect::<Vec<_>>())
                .execute(c).await.map(|r| r.rows_affected()))?
        }
        Tx::Lite(lent) => {
            let mut rows = 0;
            for block in blocks {
                let tally = block.summary.tally;
                rows += within!(&mut *lent, c => sqlx::query(LITE)
                    .bind(block.batch.task).bind(block.first_seq).bind(block.step)
                    .bind(block.batch.no).bind(tally.deliverable).bind(tally.undeliverable)
                    .bind(tally.risky).bind(tally.unknown).bind(tally.charged)
                    .bind(tally.refunded).bind(block.summary.reasons)
                    .bind(block.payload.as_slice()).bind(block.summary.flags)
                    .execute(c).await.map(|r| r.rows_affected()))?;
            }
            rows
        }
    };
    expect_rows("insert blocks of results", rows, blocks.len() as u64)
}

/// A piece of a batch that is to be merged.
#[derive(FromRow)]
struct Piece {
    first_seq: i64,
    step: i64,
    payload: Vec<u8>,
}

impl Store {
    /// Makes one block of all of a batch that is done. Nothing happens to one that is being written, or
    /// erased.
    pub async fn merge_blocks(&self, batches: &[BatchRef]) -> Result<()> {
        // Erasing deletes the batch first, so it waits for this lock, or this finds nothing.
        const LOCK_PG: &str = "SELECT 1::BIGINT FROM batches
            WHERE task_id = $1 AND no = $2 AND state = 3 FOR SHARE SKIP LOCKED";
        const LOCK_LITE: &str =
            "SELECT 1 FROM batches WHERE task_id = $1 AND no = $2 AND state = 3";
        const TAKE: &str = "DELETE FROM result_blocks
            WHERE task_id = $1 AND first_seq = (
                SELECT first_seq FROM batches WHERE task_id = $1 AND no = $2)
            RETURNING first_seq, step, payload";
        // A crash that undoes it leaves the pieces as they were.
        let mut tx = self.begin_unsynced().await?;
        let lock = if matches!(tx, Tx::Pg(_)) { LOCK_PG } else { LOCK_LITE };
        let mut merged = Vec::with_capacity(batches.len());
        for &batch in batches {
            let found: Option<i64> = on!(&mut tx, c => sqlx::query_scalar(lock)
                .bind(batch.task).bind(batch.no).fetch_optional(c).await)?;
            if found.is_none() {
                continue;
            }
            let pieces: Vec<Piece> = on!(&mut tx, c => sqlx::query_as(TAKE)
                .bind(batch.task).bind(batch.no).fetch_all(c).await)?;
            merged.extend(merge(batch, &pieces)?);
        }
        insert(&mut tx, &merged).await?;
        tx.commit().await
    }
}

/// One block of all the pieces.
fn merge(batch: BatchRef, pieces: &[Piece]) -> Result<Option<NewBlock>> {
    let (Some(first), Some(step)) = (pieces.first(), pieces.iter().map(|piece| piece.step).max())
    else {
        return Ok(None);
    };
    let open = |piece: &Piece| decode(batch, &piece.payload).map_err(damaged);
    let blocks = pieces.iter().map(open).collect::<Result<Vec<Block>>>()?;
    let mut all = Vec::new();
    for block in &blocks {
        all.extend(block.results().map_err(damaged)?);
    }
    all.sort_unstable_by_key(|result| result.place);
    if all.windows(2).any(|pair| pair[0].place == pair[1].place) {
        let detail = format!("{batch:?} has two results of one address");
        return Err(StoreError::Damaged { what: "block of results", detail });
    }
    NewBlock::of(batch, first.first_seq, step, &all).map(Some)
}

//! Going through a task's blocks of results, batch by batch: which batches have blocks that may hold what is
//! wanted (their masks say so without opening them), then these blocks and the addresses of their batches. A
//! batch's pieces are read by one statement, so each result is seen once, merged or not.

use std::collections::HashMap;
use std::ops::Range;

use super::blocks::damaged;
use super::{Result, Store, StoreError, Tx, read, within};
use crate::domain::batch::BatchRef;
use crate::domain::block::{Block, Packed, decode};
use crate::domain::id::TaskId;
use crate::domain::payload::{Batch, PayloadError, decode_batch};
use crate::domain::result_filter::ResultFilter;

/// Batches read at once, at most.
pub(super) const AT_ONCE: i64 = 16;

/// A batch that has results.
#[derive(Debug, Clone, Copy)]
pub(super) struct At {
    pub first_seq: i64,
    pub no: i32,
}

/// A batch's addresses and the blocks of it that may hold what is wanted.
pub(super) struct Opened {
    first_seq: i64,
    batch: Batch,
    blocks: Vec<Block>,
}

impl Opened {
    /// The number of its last address.
    pub fn last_seq(&self) -> i64 {
        self.first_seq + self.batch.len() as i64 - 1
    }

    /// Gives its results to `take`, in `seq` order, each with its address.
    pub fn each(&self, mut take: impl FnMut(Place<'_>, &Packed)) -> Result<()> {
        let mut all = Vec::new();
        for block in &self.blocks {
            all.extend(block.results().map_err(damaged)?);
        }
        if self.blocks.len() > 1 {
            all.sort_unstable_by_key(|result| result.place);
        }
        for result in &all {
            let entry =
                self.batch.get(result.place as usize).ok_or_else(|| StoreError::Damaged {
                    what: "block of results",
                    detail: format!("its batch has no address {}", result.place),
                })?;
            let place = Place {
                seq: self.first_seq + i64::from(result.place),
                address: entry.text,
                submitted: self.batch.submitted(result.place as usize),
            };
            take(place, result);
        }
        Ok(())
    }
}

/// An address of a list.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    /// Its number in the task.
    pub seq: i64,
    /// As it is judged.
    pub address: &'a str,
    /// How the list has it, where that differs.
    pub submitted: Option<&'a str>,
}

/// A batch's number, and a payload of it.
type Stored = (i32, Vec<u8>);

/// Which results are wanted.
pub(super) struct Wanted<'a> {
    /// Numbers in the task.
    pub seqs: Range<i64>,
    /// Which of these.
    pub filter: &'a ResultFilter,
}

impl Wanted<'_> {
    /// Is this one wanted?
    pub fn has(&self, seq: i64, packed: &Packed) -> bool {
        self.seqs.contains(&seq) && self.filter.fits(packed.reason, packed.flags)
    }
}

impl Store {
    /// Gives batches with wanted results to `take`, in `seq` order, until it says that it has enough.
    pub(super) async fn walk(
        &self,
        task: TaskId,
        wanted: &Wanted<'_>,
        at_once: i64,
        mut take: impl FnMut(Opened) -> Result<bool>,
    ) -> Result<()> {
        // The batch that `from` is in, or one before it.
        const START: &str = "SELECT first_seq FROM result_blocks
            WHERE task_id = $1 AND first_seq <= $2 ORDER BY first_seq DESC LIMIT 1";
        // Grouped by what the index is sorted by, so that no more is read than is asked for.
        const NEXT: &str = "SELECT first_seq, MIN(no) FROM result_blocks
            WHERE task_id = $1 AND first_seq >= $2 AND first_seq < $3 AND reasons & $4 <> 0
              AND (flags IS NULL OR flags & $6 = $6)
            GROUP BY first_seq ORDER BY first_seq LIMIT $5";
        let (reasons, flags) = (wanted.filter.reason_bits(), wanted.filter.flag_bits());
        let mut from: i64 = match wanted.seqs.start {
            ..=0 => 0,
            seq => {
                let start: Option<i64> = read!(self, c => sqlx::query_scalar(START)
                    .bind(task).bind(seq).fetch_optional(c).await)?;
                start.unwrap_or(0)
            }
        };
        loop {
            let next: Vec<(i64, i32)> = read!(self, c => sqlx::query_as(NEXT)
                .bind(task).bind(from).bind(wanted.seqs.end).bind(reasons).bind(at_once).bind(flags)
                .fetch_all(c).await)?;
            let batches: Vec<At> =
                next.into_iter().map(|(first_seq, no)| At { first_seq, no }).collect();
            for opened in self.open_batches(task, &batches, wanted.filter).await? {
                if !take(opened)? {
                    return Ok(());
                }
            }
            match batches.last() {
                Some(last) if batches.len() as i64 == at_once => from = last.first_seq + 1,
                _ => return Ok(()),
            }
        }
    }

    /// Reads the addresses and blocks of these batches, ascending; one that was erased is left out.
    pub(super) async fn open_batches(
        &self,
        task: TaskId,
        all: &[At],
        filter: &ResultFilter,
    ) -> Result<Vec<Opened>> {
        // Joined by both columns of the key: with the task as a constant, PostgreSQL may take it for a small
        // one and read all of it.
        const BLOCKS_PG: &str = "SELECT r.no, r.payload FROM (
                SELECT CAST($1 AS UUID) AS task_id, w.at FROM UNNEST($2::BIGINT[]) AS w (at) OFFSET 0) w
            JOIN result_blocks r ON r.task_id = w.task_id AND r.first_seq = w.at
            WHERE r.reasons & $3 <> 0 AND (r.flags IS NULL OR r.flags & $4 = $4)
            ORDER BY r.first_seq, r.step";
        const BLOCKS_LITE: &str = "SELECT no, payload FROM result_blocks
            WHERE task_id = $1 AND first_seq IN (SELECT value FROM json_each($2))
              AND reasons & $3 <> 0 AND (flags IS NULL OR flags & $4 = $4)
            ORDER BY first_seq, step";
        const BATCHES_PG: &str = "SELECT b.no, b.payload FROM (
                SELECT CAST($1 AS UUID) AS task_id, w.no FROM UNNEST($2::INTEGER[]) AS w (no) OFFSET 0) w
            JOIN batches b ON b.task_id = w.task_id AND b.no = w.no";
        const BATCHES_LITE: &str = "SELECT no, payload FROM batches
            WHERE task_id = $1 AND no IN (SELECT value FROM json_each($2))";
        if all.is_empty() {
            return Ok(Vec::new());
        }
        let (reasons, flags) = (filter.reason_bits(), filter.flag_bits());
        let firsts: Vec<i64> = all.iter().map(|at| at.first_seq).collect();
        let numbers: Vec<i32> = all.iter().map(|at| at.no).collect();
        let (blocks, batches): (Vec<Stored>, Vec<Stored>) = match &mut self.reader().await? {
            Tx::Pg(lent) => (
                within!(&mut *lent, c => sqlx::query_as(BLOCKS_PG)
                    .bind(task).bind(&firsts).bind(reasons).bind(flags).fetch_all(c).await)?,
                within!(lent, c => sqlx::query_as(BATCHES_PG)
                    .bind(task).bind(&numbers).fetch_all(c).await)?,
            ),
            Tx::Lite(lent) => (
                within!(&mut *lent, c => sqlx::query_as(BLOCKS_LITE)
                    .bind(task).bind(list(&firsts)).bind(reasons).bind(flags).fetch_all(c).await)?,
                within!(lent, c => sqlx::query_as(BATCHES_LITE)
                    .bind(task).bind(list(&numbers)).fetch_all(c).await)?,
            ),
        };
        let mut pieces: HashMap<i32, Vec<Block>> = HashMap::new();
        for (no, payload) in blocks {
            let block = decode(BatchRef { task, no }, &payload).map_err(damaged)?;
            pieces.entry(no).or_default().push(block);
        }
        let mut addresses: HashMap<i32, Vec<u8>> = batches.into_iter().collect();
        let mut opened = Vec::with_capacity(all.len());
        for &At { first_seq, no } in all {
            let (Some(payload), Some(blocks)) = (addresses.remove(&no), pieces.remove(&no)) else {
                continue;
            };
            let batch = open_batch(&payload)?;
            opened.push(Opened { first_seq, batch, blocks });
        }
        Ok(opened)
    }
}

/// A batch's addresses.
pub(super) fn open_batch(payload: &[u8]) -> Result<Batch> {
    let damaged =
        |error: PayloadError| StoreError::Damaged { what: "batch", detail: error.to_string() };
    decode_batch(payload).map_err(damaged)
}

/// Numbers as SQLite's `json_each` takes them.
fn list(numbers: &[impl ToString]) -> String {
    let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
    format!("[{}]", numbers.join(","))
}

//! Reading results and the submitted rows; keyset pages by `seq`.
//!
//! Results are read batch by batch: which batches have blocks that may hold what is wanted (their counts
//! and masks say so without opening them), then these blocks and the addresses of their batches. A batch's
//! pieces are read by one statement, so each result is seen once, merged or not.

use std::collections::{BTreeMap, HashMap};

use super::blocks::damaged;
use super::{Result, Store, StoreError, Tx, read, within};
use crate::domain::batch::{BatchRef, place};
use crate::domain::block::{Block, Packed, decode, mask};
use crate::domain::clock::Millis;
use crate::domain::done::Done;
use crate::domain::id::TaskId;
use crate::domain::payload::{Batch, PayloadError, decode_batch};
use crate::domain::verdict::{Credit, Flags, Reason};

/// Batches read at once, at most.
const AT_ONCE: i64 = 16;

/// A stored verdict on one address.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its number in the task.
    pub seq: i64,
    /// The address, normalised.
    pub address: String,
    /// The finding; gives the status.
    pub reason: Reason,
    /// Chance of delivery, 0 to 100.
    pub score: i16,
    /// What else is known.
    pub flags: Flags,
    /// How it ended in the books.
    pub credit: Credit,
    /// How often it was asked.
    pub attempts: i16,
    /// When the verdict came.
    pub checked_at: Millis,
    /// Last reply code of the mail host.
    pub smtp_code: Option<i16>,
    /// The mail host that answered.
    pub mx: Option<String>,
    /// A likely intended address.
    pub did_you_mean: Option<String>,
}

impl Found {
    fn of(seq: i64, address: &str, packed: &Packed) -> Self {
        Self {
            seq,
            address: address.to_owned(),
            reason: packed.reason,
            score: packed.score,
            flags: packed.flags,
            credit: packed.credit,
            attempts: packed.attempts,
            checked_at: packed.checked_at,
            smtp_code: packed.smtp_code,
            mx: packed.mx.map(str::to_owned),
            did_you_mean: packed.did_you_mean.map(str::to_owned),
        }
    }
}

/// A batch that has results.
#[derive(Debug, Clone, Copy)]
struct At {
    first_seq: i64,
    no: i32,
}

/// A batch's addresses and the blocks of it that may hold what is wanted.
struct Opened {
    first_seq: i64,
    batch: Batch,
    blocks: Vec<Block>,
}

impl Opened {
    /// Gives its results to `take`, in `seq` order, each with its address.
    fn each(&self, mut take: impl FnMut(i64, &str, &Packed)) -> Result<()> {
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
            take(self.first_seq + i64::from(result.place), entry.text, result);
        }
        Ok(())
    }
}

/// Where the batches of a task begin, in order. It stays so for as long as there are any.
#[derive(Debug, Clone)]
pub struct Layout(Vec<At>);

impl Layout {
    /// The batches that these `seq`s, ascending, are in.
    fn batches_of(&self, seqs: &[i64]) -> Vec<At> {
        let mut batches: Vec<At> = Vec::new();
        for seq in seqs {
            let behind = self.0.partition_point(|at| at.first_seq <= *seq);
            if let Some(at) = behind.checked_sub(1).and_then(|at| self.0.get(at))
                && batches.last().is_none_or(|last| last.no != at.no)
            {
                batches.push(*at);
            }
        }
        batches
    }
}

/// A batch's number, and a payload of it.
type Stored = (i32, Vec<u8>);

/// Which results are wanted.
struct Wanted<'a> {
    from: i64,
    until: i64,
    reasons: Option<&'a [Reason]>,
}

impl Wanted<'_> {
    fn mask(&self) -> i64 {
        self.reasons.map_or(i64::MAX, mask)
    }

    fn has(&self, seq: i64, reason: Reason) -> bool {
        (self.from..self.until).contains(&seq)
            && self.reasons.is_none_or(|reasons| reasons.contains(&reason))
    }
}

impl Store {
    /// Up to `limit` results with `seq > after`, in `seq` order; `reasons` = only these.
    pub async fn results(
        &self,
        task: TaskId,
        after: i64,
        limit: i64,
        reasons: Option<&[Reason]>,
    ) -> Result<Vec<Found>> {
        let wanted = Wanted { from: after.saturating_add(1), until: i64::MAX, reasons };
        // A batch has hundreds of addresses; where only some of them are wanted, nobody knows how many.
        let at_once = if reasons.is_some() { AT_ONCE } else { (limit / 256).clamp(1, AT_ONCE) };
        let limit = usize::try_from(limit).unwrap_or(0);
        let mut found = Vec::new();
        self.walk(task, &wanted, at_once, |opened| {
            opened.each(|seq, address, packed| {
                if found.len() < limit && wanted.has(seq, packed.reason) {
                    found.push(Found::of(seq, address, packed));
                }
            })?;
            Ok(found.len() < limit)
        })
        .await?;
        Ok(found)
    }

    /// Results with `from ≤ seq < until`, in `seq` order; `reasons` = only these.
    pub async fn results_between(
        &self,
        task: TaskId,
        from: i64,
        until: i64,
        reasons: Option<&[Reason]>,
    ) -> Result<Vec<Found>> {
        let wanted = Wanted { from, until, reasons };
        let mut found = Vec::new();
        self.walk(task, &wanted, AT_ONCE, |opened| {
            opened.each(|seq, address, packed| {
                if wanted.has(seq, packed.reason) {
                    found.push(Found::of(seq, address, packed));
                }
            })?;
            Ok(true)
        })
        .await?;
        Ok(found)
    }

    /// Where the batches of a task begin.
    pub async fn layout(&self, task: TaskId) -> Result<Layout> {
        const SQL: &str = "SELECT first_seq, no FROM batches WHERE task_id = $1 ORDER BY first_seq";
        let all: Vec<(i64, i32)> =
            read!(self, c => sqlx::query_as(SQL).bind(task).fetch_all(c).await)?;
        Ok(Layout(all.into_iter().map(|(first_seq, no)| At { first_seq, no }).collect()))
    }

    /// Results of these `seq`s, ascending; those not stored yet are left out.
    pub async fn results_at(
        &self,
        task: TaskId,
        layout: &Layout,
        seqs: &[i64],
    ) -> Result<Vec<Found>> {
        let mut found = Vec::with_capacity(seqs.len());
        for part in layout.batches_of(seqs).chunks(AT_ONCE as usize) {
            for opened in self.open_batches(task, part, i64::MAX).await? {
                opened.each(|seq, address, packed| {
                    if seqs.binary_search(&seq).is_ok() {
                        found.push(Found::of(seq, address, packed));
                    }
                })?;
            }
        }
        Ok(found)
    }

    /// The addresses of these `seq`s, ascending, whether they have results or not; an error where one is
    /// gone, as its task was erased meanwhile.
    pub async fn addresses_at(
        &self,
        task: TaskId,
        layout: &Layout,
        seqs: &[i64],
    ) -> Result<Vec<(i64, String)>> {
        const BATCH: &str = "SELECT payload FROM batches WHERE task_id = $1 AND no = $2";
        let mut addresses = Vec::with_capacity(seqs.len());
        let mut left = seqs.iter().copied().peekable();
        for At { first_seq, no } in layout.batches_of(seqs) {
            let payload: Option<Vec<u8>> = read!(self, c => sqlx::query_scalar(BATCH)
                .bind(task).bind(no).fetch_optional(c).await)?;
            let Some(payload) = payload else { break };
            let batch = open_batch(&payload)?;
            while let Some(seq) = left.next_if(|seq| seq - first_seq < batch.len() as i64) {
                let entry = place(first_seq, seq).and_then(|place| batch.get(place));
                addresses.extend(entry.map(|entry| (seq, entry.text.to_owned())));
            }
        }
        match addresses.len() == seqs.len() {
            true => Ok(addresses),
            false => Err(StoreError::Damaged {
                what: "task",
                detail: format!("{task}: addresses are missing, or it was erased meanwhile"),
            }),
        }
    }

    /// One result, and what it rests on, as JSON.
    pub async fn result(&self, task: TaskId, seq: i64) -> Result<Option<(Found, Option<String>)>> {
        // The batch that it is in, if that has any result.
        const AT: &str = "SELECT first_seq, no FROM result_blocks
            WHERE task_id = $1 AND first_seq <= $2 ORDER BY first_seq DESC LIMIT 1";
        let at: Option<(i64, i32)> =
            read!(self, c => sqlx::query_as(AT).bind(task).bind(seq).fetch_optional(c).await)?;
        let Some((first_seq, no)) = at else { return Ok(None) };
        let mut one = None;
        for opened in self.open_batches(task, &[At { first_seq, no }], i64::MAX).await? {
            opened.each(|at, address, packed| {
                if at == seq {
                    let found = Found::of(at, address, packed);
                    one = Some((found, packed.detail.map(str::to_owned)));
                }
            })?;
        }
        Ok(one)
    }

    /// What the verdicts with `from ≤ seq < until` rest on, as JSON, in `seq` order; those without are
    /// left out.
    pub async fn details(&self, task: TaskId, from: i64, until: i64) -> Result<Vec<(i64, String)>> {
        let wanted = Wanted { from, until, reasons: None };
        let mut details = Vec::new();
        self.walk(task, &wanted, AT_ONCE, |opened| {
            opened.each(|seq, _, packed| {
                if let Some(detail) = packed.detail.filter(|_| wanted.has(seq, packed.reason)) {
                    details.push((seq, detail.to_owned()));
                }
            })?;
            Ok(true)
        })
        .await?;
        Ok(details)
    }

    /// How many results a task has of each reason it has any of.
    pub async fn reasons(&self, task: TaskId) -> Result<Vec<(Reason, i64)>> {
        let wanted = Wanted { from: 0, until: i64::MAX, reasons: None };
        let mut counts: BTreeMap<i16, (Reason, i64)> = BTreeMap::new();
        self.walk(task, &wanted, AT_ONCE, |opened| {
            opened.each(|_, _, packed| {
                counts.entry(packed.reason.code()).or_insert((packed.reason, 0)).1 += 1;
            })?;
            Ok(true)
        })
        .await?;
        Ok(counts.into_values().collect())
    }

    /// The first `seq` that may lack a result: below it there is no gap. For pages of a task that
    /// has not ended, where results come out of order.
    pub async fn first_gap(&self, task: TaskId) -> Result<i64> {
        const OPEN: &str = "SELECT first_seq, done FROM (
            SELECT * FROM (SELECT first_seq, done FROM batches
                WHERE task_id = $1 AND state = 0 ORDER BY no LIMIT 1) pending
            UNION ALL SELECT * FROM (SELECT first_seq, done FROM batches
                WHERE task_id = $1 AND state IN (1, 2) ORDER BY no LIMIT 1) sent
            UNION ALL SELECT * FROM (SELECT first_seq, done FROM batches
                WHERE task_id = $1 AND state = 5 ORDER BY no LIMIT 1) waiting) open
            ORDER BY first_seq LIMIT 1";
        let open: Option<(i64, Vec<u8>)> =
            read!(self, c => sqlx::query_as(OPEN).bind(task).fetch_optional(c).await)?;
        Ok(open.map_or(i64::MAX, |(first_seq, done)| {
            first_seq + Done::from_bytes(done).first_gap() as i64
        }))
    }

    /// Gives batches with wanted results to `take`, in `seq` order, until it says that it has enough.
    async fn walk(
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
            GROUP BY first_seq ORDER BY first_seq LIMIT $5";
        let mut from: i64 = match wanted.from {
            ..=0 => 0,
            seq => {
                let start: Option<i64> = read!(self, c => sqlx::query_scalar(START)
                    .bind(task).bind(seq).fetch_optional(c).await)?;
                start.unwrap_or(0)
            }
        };
        loop {
            let next: Vec<(i64, i32)> = read!(self, c => sqlx::query_as(NEXT)
                .bind(task).bind(from).bind(wanted.until).bind(wanted.mask()).bind(at_once)
                .fetch_all(c).await)?;
            let batches: Vec<At> =
                next.into_iter().map(|(first_seq, no)| At { first_seq, no }).collect();
            for opened in self.open_batches(task, &batches, wanted.mask()).await? {
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
    async fn open_batches(&self, task: TaskId, all: &[At], mask: i64) -> Result<Vec<Opened>> {
        // Joined by both columns of the key: with the task as a constant, PostgreSQL may take it for a small
        // one and read all of it.
        const BLOCKS_PG: &str = "SELECT r.no, r.payload FROM (
                SELECT CAST($1 AS UUID) AS task_id, w.at FROM UNNEST($2::BIGINT[]) AS w (at) OFFSET 0) w
            JOIN result_blocks r ON r.task_id = w.task_id AND r.first_seq = w.at
            WHERE r.reasons & $3 <> 0 ORDER BY r.first_seq, r.step";
        const BLOCKS_LITE: &str = "SELECT no, payload FROM result_blocks
            WHERE task_id = $1 AND first_seq IN (SELECT value FROM json_each($2))
              AND reasons & $3 <> 0 ORDER BY first_seq, step";
        const BATCHES_PG: &str = "SELECT b.no, b.payload FROM (
                SELECT CAST($1 AS UUID) AS task_id, w.no FROM UNNEST($2::INTEGER[]) AS w (no) OFFSET 0) w
            JOIN batches b ON b.task_id = w.task_id AND b.no = w.no";
        const BATCHES_LITE: &str = "SELECT no, payload FROM batches
            WHERE task_id = $1 AND no IN (SELECT value FROM json_each($2))";
        if all.is_empty() {
            return Ok(Vec::new());
        }
        let firsts: Vec<i64> = all.iter().map(|at| at.first_seq).collect();
        let numbers: Vec<i32> = all.iter().map(|at| at.no).collect();
        let (blocks, batches): (Vec<Stored>, Vec<Stored>) = match &mut self.reader().await? {
            Tx::Pg(lent) => (
                within!(&mut *lent, c => sqlx::query_as(BLOCKS_PG)
                    .bind(task).bind(&firsts).bind(mask).fetch_all(c).await)?,
                within!(lent, c => sqlx::query_as(BATCHES_PG)
                    .bind(task).bind(&numbers).fetch_all(c).await)?,
            ),
            Tx::Lite(lent) => (
                within!(&mut *lent, c => sqlx::query_as(BLOCKS_LITE)
                    .bind(task).bind(list(&firsts)).bind(mask).fetch_all(c).await)?,
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

    /// The block of submitted rows numbered `no`; `None` after the last.
    pub async fn task_rows(&self, task: TaskId, no: i32) -> Result<Option<Vec<u8>>> {
        const SQL: &str = "SELECT payload FROM task_rows WHERE task_id = $1 AND no = $2";
        Ok(read!(self, c => sqlx::query_scalar(SQL).bind(task).bind(no)
            .fetch_optional(c).await)?)
    }
}

fn open_batch(payload: &[u8]) -> Result<Batch> {
    let damaged =
        |error: PayloadError| StoreError::Damaged { what: "batch", detail: error.to_string() };
    decode_batch(payload).map_err(damaged)
}

/// Numbers as SQLite's `json_each` takes them.
fn list(numbers: &[impl ToString]) -> String {
    let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
    format!("[{}]", numbers.join(","))
}

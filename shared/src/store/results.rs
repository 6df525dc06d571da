//! Reading results and the submitted rows; keyset pages by `seq`. [`super::result_walk`] goes through the blocks.
//!
//! A block's masks say which reasons and which flags it has, not whether one result has both: for such a filter
//! blocks may be opened in vain, all of a task's in the end. So a page may be given a time, after which it says how
//! far it has looked.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::result_walk::{AT_ONCE, At, Place, Wanted, open_batch};
use super::{Result, Store, StoreError, read};
use crate::domain::batch::place;
use crate::domain::block::Packed;
use crate::domain::clock::Millis;
use crate::domain::done::Done;
use crate::domain::id::TaskId;
use crate::domain::result_filter::ResultFilter;
use crate::domain::verdict::{Credit, Flags, Reason};

/// A stored verdict on one address.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its number in the task.
    pub seq: i64,
    /// The address, normalised.
    pub address: String,
    /// How the list has it, where that differs.
    pub submitted: Option<String>,
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
    fn of(at: Place<'_>, packed: &Packed) -> Self {
        Self {
            seq: at.seq,
            address: at.address.to_owned(),
            submitted: at.submitted.map(str::to_owned),
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

/// Results that were found in the time that there was.
#[derive(Debug, Default)]
pub struct Part {
    /// In `seq` order.
    pub found: Vec<Found>,
    /// The time was over before there were enough: everything up to this `seq` has been looked at.
    pub looked: Option<i64>,
}

/// All results.
const ANY: &ResultFilter = &ResultFilter { reasons: None, flag: None };

impl Store {
    /// Up to `limit` results with `seq > after`, in `seq` order, of those that fit.
    pub async fn results(
        &self,
        task: TaskId,
        after: i64,
        limit: i64,
        filter: Option<&ResultFilter>,
    ) -> Result<Vec<Found>> {
        Ok(self.results_in_time(task, after, limit, filter, Duration::MAX).await?.found)
    }

    /// Likewise, looking for about so long.
    pub async fn results_in_time(
        &self,
        task: TaskId,
        after: i64,
        limit: i64,
        filter: Option<&ResultFilter>,
        patience: Duration,
    ) -> Result<Part> {
        let (began, filter) = (Instant::now(), filter.unwrap_or(ANY));
        let wanted = Wanted { seqs: after.saturating_add(1)..i64::MAX, filter };
        // A batch has hundreds of addresses; where only some of them are wanted, nobody knows how many.
        let at_once = if filter.is_open() { (limit / 256).clamp(1, AT_ONCE) } else { AT_ONCE };
        let limit = usize::try_from(limit).unwrap_or(0);
        let Part { mut found, mut looked } = Part::default();
        self.walk(task, &wanted, at_once, |opened| {
            opened.each(|at, packed| {
                if found.len() < limit && wanted.has(at.seq, packed) {
                    found.push(Found::of(at, packed));
                }
            })?;
            let on = found.len() < limit;
            // The batch that was looked at last is opened again where no other begins.
            let got_on = opened.last_seq() > after;
            if on && got_on && began.elapsed() >= patience {
                looked = Some(opened.last_seq());
            }
            Ok(on && looked.is_none())
        })
        .await?;
        Ok(Part { found, looked })
    }

    /// Results with `from ≤ seq < until` that fit, in `seq` order.
    pub async fn results_between(
        &self,
        task: TaskId,
        from: i64,
        until: i64,
        filter: Option<&ResultFilter>,
    ) -> Result<Vec<Found>> {
        let wanted = Wanted { seqs: from..until, filter: filter.unwrap_or(ANY) };
        let mut found = Vec::new();
        self.walk(task, &wanted, AT_ONCE, |opened| {
            opened.each(|at, packed| {
                if wanted.has(at.seq, packed) {
                    found.push(Found::of(at, packed));
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
            for opened in self.open_batches(task, part, ANY).await? {
                opened.each(|at, packed| {
                    if seqs.binary_search(&at.seq).is_ok() {
                        found.push(Found::of(at, packed));
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

    /// The `seq` of an address, as it is stored, among `batches` batches from number `from` on. `Err`: it is in
    /// none of them, and the search goes on with this number. `Ok(None)`: nor behind them.
    pub async fn seek_address(
        &self,
        task: TaskId,
        address: &str,
        from: i32,
        batches: i64,
    ) -> Result<std::result::Result<Option<i64>, i32>> {
        const SQL: &str = "SELECT no, first_seq, payload FROM batches
            WHERE task_id = $1 AND no >= $2 ORDER BY task_id, no LIMIT $3";
        let found: Vec<(i32, i64, Vec<u8>)> = read!(self, c => sqlx::query_as(SQL)
            .bind(task).bind(from).bind(batches).fetch_all(c).await)?;
        for (_, first_seq, payload) in &found {
            let batch = open_batch(payload)?;
            let at = (0..batch.len()).find(|at| batch.get(*at).is_some_and(|e| e.text == address));
            if let Some(at) = at {
                return Ok(Ok(Some(first_seq + at as i64)));
            }
        }
        Ok(match found.last() {
            Some((no, ..)) if found.len() as i64 == batches => Err(no + 1),
            _ => Ok(None),
        })
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
        for opened in self.open_batches(task, &[At { first_seq, no }], ANY).await? {
            opened.each(|at, packed| {
                if at.seq == seq {
                    let found = Found::of(at, packed);
                    one = Some((found, packed.detail.map(str::to_owned)));
                }
            })?;
        }
        Ok(one)
    }

    /// What the verdicts with `from ≤ seq < until` rest on, as JSON, in `seq` order; those without are
    /// left out.
    pub async fn details(&self, task: TaskId, from: i64, until: i64) -> Result<Vec<(i64, String)>> {
        let wanted = Wanted { seqs: from..until, filter: ANY };
        let mut details = Vec::new();
        self.walk(task, &wanted, AT_ONCE, |opened| {
            opened.each(|at, packed| {
                if let Some(detail) = packed.detail.filter(|_| wanted.has(at.seq, packed)) {
                    details.push((at.seq, detail.to_owned()));
                }
            })?;
            Ok(true)
        })
        .await?;
        Ok(details)
    }

    /// How many results a task has of each reason it has any of.
    pub async fn reasons(&self, task: TaskId) -> Result<Vec<(Reason, i64)>> {
        let wanted = Wanted { seqs: 0..i64::MAX, filter: ANY };
        let mut counts: BTreeMap<i16, (Reason, i64)> = BTreeMap::new();
        self.walk(task, &wanted, AT_ONCE, |opened| {
            opened.each(|_, packed| {
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

    /// The block of submitted rows numbered `no`; `None` after the last.
    pub async fn task_rows(&self, task: TaskId, no: i32) -> Result<Option<Vec<u8>>> {
        const SQL: &str = "SELECT payload FROM task_rows WHERE task_id = $1 AND no = $2";
        Ok(read!(self, c => sqlx::query_scalar(SQL).bind(task).bind(no)
            .fetch_optional(c).await)?)
    }
}

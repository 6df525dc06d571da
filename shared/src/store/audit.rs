//! The proof that every verdict is there, once, and unharmed: each block is opened and held against its
//! checksum, its own counts, and its batch.

use std::collections::HashMap;

use sqlx::FromRow;

use super::tasks::TallyRow;
use super::{Result, Store, Tx, on, read};
use crate::domain::batch::{BatchRef, state};
use crate::domain::block::{Summary, decode};
use crate::domain::done::Done;
use crate::domain::id::{AccountId, TaskId};
use crate::domain::task::Tally;

/// Batches read at once.
const AT_ONCE: i64 = 16;
/// Tasks named at once.
const TASKS: i64 = 1_000;

#[derive(FromRow)]
struct BatchRow {
    no: i32,
    first_seq: i64,
    addresses: i32,
    state: i16,
    done: Vec<u8>,
    #[sqlx(flatten)]
    tally: TallyRow,
}

#[derive(FromRow)]
struct BlockRow {
    no: i32,
    first_seq: i64,
    reasons: i64,
    flags: Option<i16>,
    payload: Vec<u8>,
    #[sqlx(flatten)]
    tally: TallyRow,
}

impl Store {
    /// Tasks after `after`, in the order of their ids, up to 1,000; `account` = of this one only.
    pub async fn all_tasks(
        &self,
        account: Option<AccountId>,
        after: TaskId,
    ) -> Result<Vec<TaskId>> {
        const SQL: &str = "SELECT id FROM tasks
            WHERE id > $1 AND (account_id = $2 OR $2 IS NULL)
              AND status <> 'ingesting' AND deleted_at IS NULL
            ORDER BY id LIMIT $3";
        Ok(read!(self, c => sqlx::query_scalar(SQL).bind(after).bind(account).bind(TASKS)
            .fetch_all(c).await)?)
    }

    /// How many tasks there are; `account` = of this one only.
    pub async fn count_tasks(&self, account: Option<AccountId>) -> Result<u64> {
        const SQL: &str = "SELECT count(*) FROM tasks
            WHERE (account_id = $1 OR $1 IS NULL)
              AND status <> 'ingesting' AND deleted_at IS NULL";
        let all: i64 = read!(self, c => sqlx::query_scalar(SQL).bind(account).fetch_one(c).await)?;
        Ok(all.unsigned_abs())
    }

    /// What is wrong with a task's results, a line for each fault; all of it is read in one snapshot, some
    /// batches at a time.
    pub async fn audit_task(&self, task: TaskId) -> Result<Vec<String>> {
        const BATCHES: &str = "SELECT no, first_seq, addresses, state, done, deliverable,
                undeliverable, risky, unknown, charged, refunded
            FROM batches WHERE task_id = $1 AND no > $2 ORDER BY no LIMIT $3";
        const BLOCKS: &str = "SELECT no, first_seq, reasons, flags, payload,
                CAST(deliverable AS BIGINT) AS deliverable,
                CAST(undeliverable AS BIGINT) AS undeliverable, CAST(risky AS BIGINT) AS risky,
                CAST(unknown AS BIGINT) AS unknown, CAST(charged AS BIGINT) AS charged,
                CAST(refunded AS BIGINT) AS refunded
            FROM result_blocks WHERE task_id = $1 AND first_seq >= $2 AND first_seq <= $3
            ORDER BY first_seq, step";
        const ALL: &str = "SELECT count(*) FROM result_blocks WHERE task_id = $1";
        const ERASED: &str = "SELECT count(*) FROM tasks WHERE id = $1 AND deleted_at IS NOT NULL";
        let mut tx = self.snapshot().await?;
        if count(&mut tx, ERASED, task).await? > 0 {
            return Ok(Vec::new());
        }
        let (mut faults, mut seen, mut last) = (Vec::new(), 0, -1);
        loop {
            let batches: Vec<BatchRow> = on!(&mut tx, c => sqlx::query_as(BATCHES)
                .bind(task).bind(last).bind(AT_ONCE).fetch_all(c).await)?;
            let (Some(first), Some(end)) = (batches.first(), batches.last()) else { break };
            last = end.no;
            let blocks: Vec<BlockRow> = on!(&mut tx, c => sqlx::query_as(BLOCKS)
                .bind(task).bind(first.first_seq).bind(end.first_seq).fetch_all(c).await)?;
            seen += blocks.len() as i64;
            let mut by_batch: HashMap<i64, Vec<BlockRow>> = HashMap::new();
            for block in blocks {
                by_batch.entry(block.first_seq).or_default().push(block);
            }
            for batch in batches {
                let blocks = by_batch.remove(&batch.first_seq).unwrap_or_default();
                let place = BatchRef { task, no: batch.no };
                let wrong = faults_of(place, batch, blocks);
                faults.extend(wrong.into_iter().map(|fault| format!("{place:?}: {fault}")));
            }
            for block in by_batch.into_values().flatten() {
                faults.push(format!("{task}: a block of no batch, at seq {}", block.first_seq));
            }
        }
        let all = count(&mut tx, ALL, task).await?;
        if all != seen {
            faults.push(format!("{task}: {} blocks of no batch", all - seen));
        }
        Ok(faults)
    }
}

async fn count(tx: &mut Tx, sql: &'static str, task: TaskId) -> Result<i64> {
    on!(tx, c => sqlx::query_scalar(sql).bind(task).fetch_one(c).await)
}

fn faults_of(place: BatchRef, batch: BatchRow, blocks: Vec<BlockRow>) -> Vec<String> {
    let mut faults = Vec::new();
    let (mut found, mut tally) = (Done::default(), Tally::default());
    for row in blocks {
        if row.no != place.no {
            faults.push(format!("a block says that it is of batch {}", row.no));
        }
        let opened = decode(place, &row.payload);
        let results = match opened.as_ref().map(|block| block.results()) {
            Ok(Ok(results)) => results,
            Ok(Err(error)) => {
                faults.push(format!("a block cannot be read: {error}"));
                continue;
            }
            Err(error) => {
                faults.push(format!("a block cannot be opened: {error}"));
                continue;
            }
        };
        let summary = Summary::of(&results);
        // A block from before flags were counted says nothing of them.
        let flags = row.flags.unwrap_or(summary.flags);
        let told = Summary { tally: row.tally.into(), reasons: row.reasons, flags };
        if summary != told {
            faults.push(format!("a block is counted as {told:?}, and holds {summary:?}"));
        }
        tally += summary.tally;
        for result in &results {
            if result.place as usize >= batch.addresses as usize {
                faults.push(format!("a result of address {}, which is not there", result.place));
            } else if !found.insert(result.place as usize) {
                faults.push(format!("two results of address {}", result.place));
            }
        }
    }
    let counted = Tally::from(batch.tally);
    if tally != counted {
        faults.push(format!("it is counted as {counted:?}, and its blocks hold {tally:?}"));
    }
    let whole = batch.state == state::DONE;
    if whole && found.len() != batch.addresses as usize {
        let missing = batch.addresses as usize - found.len().min(batch.addresses as usize);
        faults.push(format!("it is done, and {missing} of its results are missing"));
    }
    if !whole && found != Done::from_bytes(batch.done) {
        faults.push("its blocks hold other results than it knows of".to_owned());
    }
    faults
}

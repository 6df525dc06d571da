//! Reading results and the submitted rows; keyset pages by `seq`.

use sqlx::{FromRow, QueryBuilder};

use super::{Result, Store, StoreError, Tx, read, within};
use crate::domain::clock::Millis;
use crate::domain::id::TaskId;
use crate::domain::verdict::{Credit, Flags, Reason};

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

#[derive(FromRow)]
struct ResultRow {
    seq: i64,
    address: String,
    reason: i16,
    score: i16,
    flags: i16,
    credit: i16,
    attempts: i16,
    checked_at: i64,
    smtp_code: Option<i16>,
    mx: Option<String>,
    did_you_mean: Option<String>,
}

impl TryFrom<ResultRow> for Found {
    type Error = StoreError;

    fn try_from(row: ResultRow) -> Result<Self> {
        let damaged =
            |what, code: i16| StoreError::Damaged { what, detail: format!("code {code}") };
        Ok(Found {
            seq: row.seq,
            address: row.address,
            reason: Reason::from_code(row.reason).ok_or_else(|| damaged("reason", row.reason))?,
            score: row.score,
            flags: Flags::unpack(row.flags),
            credit: Credit::from_code(row.credit).ok_or_else(|| damaged("credit", row.credit))?,
            attempts: row.attempts,
            checked_at: row.checked_at,
            smtp_code: row.smtp_code,
            mx: row.mx,
            did_you_mean: row.did_you_mean,
        })
    }
}

const COLUMNS: &str = "SELECT seq, address, reason, score, flags, credit, attempts, checked_at,
        smtp_code, mx, did_you_mean FROM results WHERE task_id = ";

/// Runs a built query on whichever engine it is.
macro_rules! built {
    ($store:expr, $sql:ident => $build:block) => {
        match &mut $store.reader().await? {
            Tx::Pg(lent) => {
                let mut $sql = QueryBuilder::<sqlx::Postgres>::new(COLUMNS);
                $build
                within!(lent, c => $sql.build_query_as::<ResultRow>().fetch_all(c).await)?
            }
            Tx::Lite(lent) => {
                let mut $sql = QueryBuilder::<sqlx::Sqlite>::new(COLUMNS);
                $build
                within!(lent, c => $sql.build_query_as::<ResultRow>().fetch_all(c).await)?
            }
        }
    };
}

/// Adds the condition that lets only these reasons through.
macro_rules! only {
    ($sql:ident, $reasons:expr) => {
        if let Some(reasons) = $reasons {
            $sql.push(" AND reason IN (");
            let mut list = $sql.separated(", ");
            for reason in reasons {
                list.push_bind(reason.code());
            }
            $sql.push(")");
        }
    };
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
        let rows = built!(self, sql => {
            sql.push_bind(task).push(" AND seq > ").push_bind(after);
            only!(sql, reasons);
            sql.push(" ORDER BY seq LIMIT ").push_bind(limit);
        });
        rows.into_iter().map(Found::try_from).collect()
    }

    /// Results with `from ≤ seq < until`, in `seq` order; `reasons` = only these.
    pub async fn results_between(
        &self,
        task: TaskId,
        from: i64,
        until: i64,
        reasons: Option<&[Reason]>,
    ) -> Result<Vec<Found>> {
        let rows = built!(self, sql => {
            sql.push_bind(task).push(" AND seq >= ").push_bind(from);
            sql.push(" AND seq < ").push_bind(until);
            only!(sql, reasons);
            sql.push(" ORDER BY seq");
        });
        rows.into_iter().map(Found::try_from).collect()
    }

    /// Results of these `seq`s, ascending; those not stored yet are left out.
    pub async fn results_at(&self, task: TaskId, seqs: &[i64]) -> Result<Vec<Found>> {
        let mut found = Vec::with_capacity(seqs.len());
        // SQLite takes 32,766 values in a statement.
        for part in seqs.chunks(8_000) {
            let rows = built!(self, sql => {
                sql.push_bind(task).push(" AND seq IN (");
                let mut list = sql.separated(", ");
                for seq in part {
                    list.push_bind(*seq);
                }
                sql.push(") ORDER BY seq");
            });
            for row in rows {
                found.push(Found::try_from(row)?);
            }
        }
        Ok(found)
    }

    /// What the verdicts with `from ≤ seq < until` rest on, as JSON, in `seq` order; those without are
    /// left out.
    pub async fn details(&self, task: TaskId, from: i64, until: i64) -> Result<Vec<(i64, String)>> {
        const SQL: &str = "SELECT seq, detail FROM results
            WHERE task_id = $1 AND seq >= $2 AND seq < $3 AND detail IS NOT NULL ORDER BY seq";
        Ok(read!(self, c => sqlx::query_as(SQL).bind(task).bind(from).bind(until)
            .fetch_all(c).await)?)
    }

    /// How many results a task has of each reason it has any of.
    pub async fn reasons(&self, task: TaskId) -> Result<Vec<(Reason, i64)>> {
        const SQL: &str = "SELECT reason, COUNT(*) FROM results WHERE task_id = $1 GROUP BY reason";
        let rows: Vec<(i16, i64)> =
            read!(self, c => sqlx::query_as(SQL).bind(task).fetch_all(c).await)?;
        let known = |(code, count)| match Reason::from_code(code) {
            Some(reason) => Ok((reason, count)),
            None => Err(StoreError::Damaged { what: "reason", detail: format!("code {code}") }),
        };
        rows.into_iter().map(known).collect()
    }

    /// The first `seq` that may lack a result: below it there is no gap. For pages of a task that
    /// has not ended, where results come out of order.
    pub async fn first_gap(&self, task: TaskId) -> Result<i64> {
        const OPEN: &str = "SELECT MIN(first_seq) FROM batches WHERE task_id = $1 AND no IN (
            (SELECT MIN(no) FROM batches WHERE task_id = $1 AND state = 0),
            (SELECT MIN(no) FROM batches WHERE task_id = $1 AND state IN (1, 2)),
            (SELECT MIN(no) FROM batches WHERE task_id = $1 AND state = 5))";
        // More than a batch can have; a run that is longer is only known that far.
        const RUN: &str = "SELECT seq FROM results WHERE task_id = $1 AND seq >= $2
            ORDER BY seq LIMIT 5000";
        let open: Option<i64> =
            read!(self, c => sqlx::query_scalar(OPEN).bind(task).fetch_one(c).await)?;
        let Some(mut gap) = open else { return Ok(i64::MAX) };
        let run: Vec<i64> =
            read!(self, c => sqlx::query_scalar(RUN).bind(task).bind(gap).fetch_all(c).await)?;
        for seq in run {
            if seq != gap {
                break;
            }
            gap += 1;
        }
        Ok(gap)
    }

    /// The block of submitted rows numbered `no`; `None` after the last.
    pub async fn task_rows(&self, task: TaskId, no: i32) -> Result<Option<Vec<u8>>> {
        const SQL: &str = "SELECT payload FROM task_rows WHERE task_id = $1 AND no = $2";
        Ok(read!(self, c => sqlx::query_scalar(SQL).bind(task).bind(no)
            .fetch_optional(c).await)?)
    }
}

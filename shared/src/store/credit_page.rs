//! What the credits page shows of one account. Everything here is bounded by an account's tasks, grants and
//! single verifications, never by the addresses it has verified or the entries that they made:
//!
//! | figure | is read from |
//! | --- | --- |
//! | given | entries of grants and adjustments, by an index of their own |
//! | held, charged | the tasks' own counters, the batches that are not folded into them yet, single verifications |
//! | by hour | what was charged through keys, by hour; and tasks of no key, by their end |
//! | entries by type | the newest [`WINDOW`] before a place, then from where that ended |
//!
//! `admin reconcile` proves the same from the results themselves ([`super::reconcile`]).

use sqlx::FromRow;

use super::credits::EntryRow;
use super::{Result, Store, Tx, on, read};
use crate::domain::clock::Millis;
use crate::domain::id::{AccountId, TaskId};
use crate::domain::ledger::{Entry, EntryType, Kind};

/// Entries that one look at the ledger reads at most, however rare those are that are wanted.
pub const WINDOW: i64 = 5_000;

/// Where the credits of one kind are: granted + adjusted = balance + held + charged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountBooks {
    /// Which kind.
    pub kind: String,
    /// What came from outside, less what was taken back.
    pub given: i64,
    /// What may be spent.
    pub balance: i64,
    /// Held for addresses that are being verified.
    pub held: i64,
    /// Held for single verifications; part of `held`.
    pub held_singly: i64,
    /// Used.
    pub charged: i64,
    /// The last grant; 0 = there was none.
    pub last_grant: i64,
}

impl AccountBooks {
    /// Is there anything to show? Every account has a balance of each kind, used or not.
    pub fn is_used(&self) -> bool {
        let Self { given, balance, held, charged, .. } = *self;
        self.kind == Kind::Email.as_str() || [given, balance, held, charged] != [0; 4]
    }
}

/// A task that holds credits.
#[derive(Debug, Clone, FromRow)]
pub struct Holder {
    /// Which.
    pub id: TaskId,
    /// Its name.
    pub name: Option<String>,
    /// How many.
    pub held: i64,
}

/// Tasks that are paused for want of credits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Want {
    /// How many tasks.
    pub tasks: i64,
    /// What they need to end, at most.
    pub credits: i64,
}

/// An entry, with the name of its task where that is there.
#[derive(Debug, Clone)]
pub struct NamedEntry {
    /// The entry.
    pub entry: Entry,
    /// The task's name.
    pub task_name: Option<String>,
    /// The task can be looked at: it was not erased.
    pub task_is_there: bool,
}

/// Which entries are wanted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted {
    /// Of this task.
    pub task: Option<TaskId>,
    /// Of this kind.
    pub kind: Option<Kind>,
    /// Of this type.
    pub entry: Option<EntryType>,
}

/// Some entries, newest first.
#[derive(Debug, Clone, Default)]
pub struct Entries {
    /// Those that are wanted.
    pub rows: Vec<NamedEntry>,
    /// Where to go on: entries before this number. `None`: there are no more.
    pub next: Option<i64>,
}

#[derive(FromRow)]
struct NamedRow {
    #[sqlx(flatten)]
    entry: EntryRow,
    name: Option<String>,
    found: Option<TaskId>,
}

impl From<NamedRow> for NamedEntry {
    fn from(row: NamedRow) -> Self {
        let entry = row.entry.into();
        Self { entry, task_name: row.name, task_is_there: row.found.is_some() }
    }
}

impl Store {
    /// The books of one account, a row for each kind, in one snapshot.
    pub async fn account_books(&self, account: AccountId) -> Result<Vec<AccountBooks>> {
        const BALANCES: &str = "SELECT kind, balance FROM credit_balances WHERE account_id = $1
            ORDER BY kind";
        const GIVEN: &str = "SELECT kind, CAST(SUM(amount) AS BIGINT) FROM ledger_entries
            WHERE account_id = $1 AND type IN ('grant', 'adjust') GROUP BY kind";
        const LAST: &str = "SELECT amount FROM ledger_entries
            WHERE account_id = $1 AND type IN ('grant', 'adjust') AND type = 'grant' AND kind = $2
            ORDER BY account_id DESC, id DESC LIMIT 1";
        // Batches of a task that has ended are folded into it.
        const TASKS: &str = "SELECT CAST(COALESCE(SUM(t.charged), 0) AS BIGINT),
                CAST(COALESCE(SUM(CASE WHEN t.status IN ('queued', 'running', 'paused') THEN
                    (SELECT SUM(b.charged) FROM batches b WHERE b.task_id = t.id AND b.touched = 1)
                    END), 0) AS BIGINT),
                CAST(COALESCE(SUM(CASE WHEN t.status IN ('queued', 'running', 'paused') THEN
                    (SELECT SUM(b.held) FROM batches b WHERE b.task_id = t.id AND b.touched = 1)
                    END), 0) AS BIGINT)
            FROM tasks t WHERE t.account_id = $1";
        const CHECKS_HELD: &str = "SELECT count(*) FROM checks WHERE held = 1 AND account_id = $1";
        const CHECKS_CHARGED: &str =
            "SELECT count(*) FROM checks WHERE charged = 1 AND account_id = $1";
        let mut tx = self.snapshot().await?;
        let balances: Vec<(String, i64)> =
            on!(&mut tx, c => sqlx::query_as(BALANCES).bind(account).fetch_all(c).await)?;
        let given: Vec<(String, i64)> =
            on!(&mut tx, c => sqlx::query_as(GIVEN).bind(account).fetch_all(c).await)?;
        let (folded, open, held): (i64, i64, i64) =
            on!(&mut tx, c => sqlx::query_as(TASKS).bind(account).fetch_one(c).await)?;
        let held_singly: i64 =
            on!(&mut tx, c => sqlx::query_scalar(CHECKS_HELD).bind(account).fetch_one(c).await)?;
        let singly: i64 =
            on!(&mut tx, c => sqlx::query_scalar(CHECKS_CHARGED).bind(account).fetch_one(c).await)?;
        let mut books = Vec::with_capacity(balances.len());
        for (kind, balance) in balances {
            let last: Option<i64> = on!(&mut tx, c => sqlx::query_scalar(LAST).bind(account)
                .bind(&kind).fetch_optional(c).await)?;
            // Only email credits are held and charged.
            let email = i64::from(kind == Kind::Email.as_str());
            books.push(AccountBooks {
                given: given.iter().find(|(of, _)| *of == kind).map_or(0, |(_, sum)| *sum),
                balance,
                held: email * (held + held_singly),
                held_singly: email * held_singly,
                charged: email * (folded + open + singly),
                last_grant: last.unwrap_or(0),
                kind,
            });
        }
        Ok(books)
    }

    /// Tasks of an account that hold credits, the newest first.
    pub async fn holders(&self, account: AccountId, limit: i64) -> Result<Vec<Holder>> {
        const SQL: &str = "SELECT h.id, h.name, h.held FROM (SELECT t.id, t.name, CAST(COALESCE(
                    (SELECT SUM(b.held) FROM batches b WHERE b.task_id = t.id AND b.touched = 1), 0)
                    AS BIGINT) AS held
                FROM tasks t
                WHERE t.account_id = $1 AND t.status IN ('queued', 'running', 'paused')) h
            WHERE h.held > 0 ORDER BY h.id DESC LIMIT $2";
        Ok(read!(self, c => sqlx::query_as(SQL).bind(account).bind(limit).fetch_all(c).await)?)
    }

    /// What tasks need that are paused for want of credits.
    pub async fn wanted_credits(&self, account: AccountId) -> Result<Want> {
        const SQL: &str = "SELECT count(*), CAST(COALESCE(SUM(t.unique_addresses - t.invalid_syntax
                - t.charged - t.refunded - COALESCE((SELECT SUM(b.charged + b.refunded) FROM batches b
                    WHERE b.task_id = t.id AND b.touched = 1), 0)), 0) AS BIGINT)
            FROM tasks t WHERE t.status = 'paused' AND t.pause_reason = 'insufficient_credits'
              AND t.account_id = $1";
        let (tasks, credits): (i64, i64) =
            read!(self, c => sqlx::query_as(SQL).bind(account).fetch_one(c).await)?;
        Ok(Want { tasks, credits: credits.max(0) })
    }

    /// Credits charged by hour since `from`, in no order; several rows may be of one hour. Those of a task count
    /// when it ends.
    pub async fn charged_by_hour(
        &self,
        account: AccountId,
        from: Millis,
    ) -> Result<Vec<(Millis, i64)>> {
        const KEYS: &str = "SELECT hour, CAST(SUM(credits) AS BIGINT) FROM usage_credits
            WHERE account_id = $1 AND hour >= $2 GROUP BY hour";
        const PEOPLE: &str =
            "SELECT finished_at - finished_at % 3600000, CAST(SUM(charged) AS BIGINT)
            FROM tasks WHERE account_id = $1 AND created_by_key IS NULL AND charged > 0
              AND finished_at >= $2 GROUP BY 1";
        let mut reader = self.reader().await?;
        let mut rows: Vec<(Millis, i64)> = Vec::new();
        for sql in [KEYS, PEOPLE] {
            let some: Vec<(Millis, i64)> = on!(&mut reader, c => sqlx::query_as(sql).bind(account)
                .bind(from).fetch_all(c).await)?;
            rows.extend(some);
        }
        Ok(rows)
    }

    /// Entries of an account that are wanted, newest first, before the number `before`; `limit` at the most, and
    /// fewer where they are rare among the [`WINDOW`] newest.
    pub async fn wanted_entries(
        &self,
        account: AccountId,
        wanted: Wanted,
        before: Option<i64>,
        limit: i64,
    ) -> Result<Entries> {
        const ALL: &str =
            "SELECT f.id, f.kind, f.type, f.amount, f.balance_after, f.task_id, f.note,
                f.created_at, t.name, t.id AS found
            FROM (SELECT e.* FROM (SELECT * FROM ledger_entries WHERE account_id = $1 AND id < $2
                    ORDER BY account_id DESC, id DESC LIMIT $3) e
                WHERE (e.kind = $4 OR $4 IS NULL) AND (e.type = $5 OR $5 IS NULL)
                ORDER BY e.id DESC LIMIT $6) f
            LEFT JOIN tasks t ON t.id = f.task_id AND t.deleted_at IS NULL ORDER BY f.id DESC";
        const OF_TASK: &str =
            "SELECT f.id, f.kind, f.type, f.amount, f.balance_after, f.task_id, f.note,
                f.created_at, t.name, t.id AS found
            FROM (SELECT e.* FROM (SELECT * FROM ledger_entries
                    WHERE account_id = $1 AND id < $2 AND task_id = $7
                    ORDER BY task_id DESC, id DESC LIMIT $3) e
                WHERE (e.kind = $4 OR $4 IS NULL) AND (e.type = $5 OR $5 IS NULL)
                ORDER BY e.id DESC LIMIT $6) f
            LEFT JOIN tasks t ON t.id = f.task_id AND t.deleted_at IS NULL ORDER BY f.id DESC";
        const GRANTS: &str =
            "SELECT id, kind, type, amount, balance_after, task_id, note, created_at,
                CAST(NULL AS TEXT) AS name, task_id AS found
            FROM ledger_entries WHERE account_id = $1 AND id < $2 AND type IN ('grant', 'adjust')
              AND type = $3 AND (kind = $4 OR $4 IS NULL)
            ORDER BY account_id DESC, id DESC LIMIT $5";
        let (from, one_more) = (before.unwrap_or(i64::MAX), limit + 1);
        let (kind, entry) = (wanted.kind.map(Kind::as_str), wanted.entry.map(EntryType::as_str));
        let given = matches!(wanted.entry, Some(EntryType::Grant | EntryType::Adjust));
        let mut reader = self.reader().await?;
        let rows: Vec<NamedRow> = match wanted.task {
            Some(task) => on!(&mut reader, c => sqlx::query_as(OF_TASK).bind(account).bind(from)
                .bind(WINDOW).bind(kind).bind(entry).bind(one_more).bind(task).fetch_all(c).await),
            None if given => on!(&mut reader, c => sqlx::query_as(GRANTS).bind(account).bind(from)
                .bind(entry).bind(kind).bind(one_more).fetch_all(c).await),
            None => on!(&mut reader, c => sqlx::query_as(ALL).bind(account).bind(from).bind(WINDOW)
                .bind(kind).bind(entry).bind(one_more).fetch_all(c).await),
        }?;
        let mut rows: Vec<NamedEntry> = rows.into_iter().map(NamedEntry::from).collect();
        let next = if rows.len() as i64 > limit {
            rows.truncate(usize::try_from(limit).unwrap_or(0));
            rows.last().map(|row| row.entry.id)
        } else if given && wanted.task.is_none() {
            None
        } else {
            end_of_window(&mut reader, account, wanted.task, from).await?
        };
        Ok(Entries { rows, next })
    }
}

/// Where a full window before `from` ended.
async fn end_of_window(
    reader: &mut Tx,
    account: AccountId,
    task: Option<TaskId>,
    from: i64,
) -> Result<Option<i64>> {
    const ALL: &str = "SELECT count(*), CAST(COALESCE(MIN(e.id), 0) AS BIGINT) FROM (
            SELECT id FROM ledger_entries WHERE account_id = $1 AND id < $2
            ORDER BY account_id DESC, id DESC LIMIT $3) e";
    const OF_TASK: &str = "SELECT count(*), CAST(COALESCE(MIN(e.id), 0) AS BIGINT) FROM (
            SELECT id FROM ledger_entries WHERE account_id = $1 AND id < $2 AND task_id = $4
            ORDER BY task_id DESC, id DESC LIMIT $3) e";
    let (seen, last): (i64, i64) = match task {
        None => on!(reader, c => sqlx::query_as(ALL).bind(account).bind(from).bind(WINDOW)
            .fetch_one(c).await),
        Some(task) => {
            on!(reader, c => sqlx::query_as(OF_TASK).bind(account).bind(from).bind(WINDOW)
            .bind(task).fetch_one(c).await)
        }
    }?;
    Ok((seen >= WINDOW).then_some(last))
}

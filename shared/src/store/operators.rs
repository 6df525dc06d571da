//! What operators look up over all accounts: accounts, keys, what failed.
//!
//! Every list is a page, in the order of an index. Beginnings of words are compared by their bytes: on PostgreSQL
//! the indexes say so, on SQLite that is the usual order.

use sqlx::FromRow;
use uuid::Uuid;

use super::keys::{KeyRow, columns, shared};
use super::tasks::{Start, TaskFilter};
use super::{Result, Store, read};
use crate::domain::clock::Millis;
use crate::domain::id::{AccountId, KeyId, TaskId};
use crate::domain::key::Key;
use crate::domain::task::{Task, TaskStatus};

/// Unended tasks of an account that are counted.
const MOST_TASKS: i64 = 1_000;

/// An account, as operators see it.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct AccountRow {
    /// Its id.
    pub id: AccountId,
    /// Its email.
    pub email: String,
    /// Its share of the work.
    pub weight: i32,
    /// When it was made.
    pub created_at: Millis,
    /// Email credits that may be spent.
    pub balance: i64,
    /// Tasks that have not ended, up to 1,000.
    pub open_tasks: i64,
    /// Why it is suspended, if it is.
    pub suspended: Option<String>,
    /// When it submitted a list or made a request last, as far as is known.
    pub active_at: Option<Millis>,
}

/// A batch with results that are `internal_error`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromRow)]
pub struct FailedBatch {
    /// The task.
    pub task_id: TaskId,
    /// Whose it is.
    pub account_id: AccountId,
    /// `seq` of the batch's first address.
    pub first_seq: i64,
    /// How many addresses it has.
    pub addresses: i32,
}

/// A task that was given up.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct FailedTask {
    /// Its id.
    pub id: TaskId,
    /// Whose it is.
    pub account_id: AccountId,
    /// What it is called.
    pub name: Option<String>,
    /// Its addresses.
    pub unique_addresses: i64,
    /// When it ended.
    pub finished_at: Option<Millis>,
}

/// Which keys an operator looks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySearch {
    /// All of them, the newest first.
    All,
    /// This one, deleted or not.
    Id(KeyId),
    /// Those that begin so.
    Start(String),
    /// Those whose label begins so.
    Label(String),
    /// Those that were given to this external id.
    ExternalId(String),
    /// Those of this account, the newest first.
    Account(AccountId),
}

/// The first text that begins with none of what begins with this one.
fn behind(prefix: &str) -> String {
    // Behind every text that goes on from here, as none has this character.
    format!("{prefix}\u{10ffff}")
}

/// Facts of `accounts a`, and what is known of each.
macro_rules! accounts {
    ($where:literal) => {
        concat!(
            "SELECT a.id, a.email, a.weight, a.created_at,
                COALESCE((SELECT c.balance FROM credit_balances c
                    WHERE c.account_id = a.id AND c.kind = 'email'), 0) AS balance,
                (SELECT count(*) FROM (SELECT t.id FROM tasks t WHERE t.account_id = a.id
                    AND t.status IN ('queued', 'running', 'paused') LIMIT $1) n) AS open_tasks,
                (SELECT s.reason FROM suspended_accounts s WHERE s.account_id = a.id) AS suspended,
                (SELECT MAX(x.at) FROM (
                    SELECT (SELECT t.created_at FROM tasks t WHERE t.account_id = a.id
                        ORDER BY t.account_id DESC, t.id DESC LIMIT 1) AS at
                    UNION ALL SELECT (SELECT r.at FROM request_log r WHERE r.account_id = a.id
                        ORDER BY r.account_id DESC, r.id DESC LIMIT 1)) x) AS active_at
            FROM accounts a WHERE ",
            $where
        )
    };
}

impl Store {
    /// Accounts whose email begins with `prefix`, in any case, by email, behind `cursor`.
    pub async fn accounts(
        &self,
        prefix: &str,
        cursor: Option<&str>,
        limit: i64,
    ) -> Result<Vec<AccountRow>> {
        const ALL_PG: &str = accounts!(
            "a.email COLLATE \"C\" >= $2 AND a.email COLLATE \"C\" < $3
            ORDER BY a.email COLLATE \"C\" LIMIT $4"
        );
        const ALL_LITE: &str =
            accounts!("a.email >= $2 AND a.email < $3 ORDER BY a.email LIMIT $4");
        let sql = if matches!(self, Store::Pg(_)) { ALL_PG } else { ALL_LITE };
        // No email has such a character: this is the first text behind the cursor.
        let prefix = prefix.to_lowercase();
        let from = cursor.map_or_else(|| prefix.clone(), |cursor| format!("{cursor}\u{1}"));
        let end = behind(&prefix);
        read!(self, c => sqlx::query_as(sql).bind(MOST_TASKS).bind(&from).bind(&end).bind(limit)
            .fetch_all(c).await)
    }

    /// One account.
    pub async fn account(&self, id: AccountId) -> Result<Option<AccountRow>> {
        const ONE: &str = accounts!("a.id = $2");
        read!(self, c => sqlx::query_as(ONE).bind(MOST_TASKS).bind(id).fetch_optional(c).await)
    }

    /// Tasks of all accounts, or of one, that have this status, the newest first, before `before`.
    pub async fn search_tasks(
        &self,
        account: Option<AccountId>,
        status: Option<TaskStatus>,
        before: Option<TaskId>,
        limit: i64,
    ) -> Result<Vec<Task>> {
        // In the order of the table's own key.
        const ALL: &str = "SELECT id FROM tasks
            WHERE (status = $1 OR $1 IS NULL) AND (id < $2 OR $2 IS NULL)
              AND status <> 'ingesting' AND deleted_at IS NULL
            ORDER BY id DESC LIMIT $3";
        if let Some(account) = account {
            let filter = TaskFilter { status, ..TaskFilter::default() };
            let from = before.map_or(Start::Newest, Start::Before);
            return self.tasks(account, filter, from, limit).await;
        }
        let ids: Vec<TaskId> = read!(self, c => sqlx::query_scalar(ALL)
            .bind(status.map(TaskStatus::as_str)).bind(before).bind(limit).fetch_all(c).await)?;
        let mut tasks = self.tasks_by_id(&ids).await?;
        tasks.sort_by_key(|task| std::cmp::Reverse(task.id));
        Ok(tasks)
    }

    /// How many accounts there are, up to `most`.
    pub async fn count_accounts(&self, most: i64) -> Result<i64> {
        const SQL: &str = "SELECT count(*) FROM (SELECT id FROM accounts LIMIT $1) n";
        read!(self, c => sqlx::query_scalar(SQL).bind(most).fetch_one(c).await)
    }

    /// Keys that are looked for, whosever they are: without deleted ones, except by id. `after`: the last of the
    /// page before.
    pub async fn search_all_keys(
        &self,
        search: &KeySearch,
        after: Option<&Key>,
        limit: i64,
    ) -> Result<Vec<Key>> {
        const NEWEST: &str = concat!(
            "SELECT ",
            columns!(),
            " FROM api_keys k WHERE k.deleted_at IS NULL AND k.id < $1
            ORDER BY k.id DESC LIMIT $2"
        );
        const OF_ACCOUNT: &str = concat!(
            "SELECT ",
            columns!(),
            " FROM api_keys k
            WHERE k.account_id = $3 AND k.deleted_at IS NULL AND k.id < $1
            ORDER BY k.account_id DESC, k.id DESC LIMIT $2"
        );
        const GIVEN: &str = concat!(
            "SELECT ",
            columns!(),
            " FROM api_keys k
            WHERE k.external_id = $3 AND k.deleted_at IS NULL AND k.id < $1
            ORDER BY k.external_id DESC, k.id DESC LIMIT $2"
        );
        let id = after.map_or(KeyId(Uuid::max()), |key| key.id);
        let rows: Vec<KeyRow> = match search {
            KeySearch::All => read!(self, c => sqlx::query_as(NEWEST).bind(id).bind(limit)
                .fetch_all(c).await)?,
            KeySearch::Account(account) => read!(self, c => sqlx::query_as(OF_ACCOUNT)
                .bind(id).bind(limit).bind(*account).fetch_all(c).await)?,
            KeySearch::ExternalId(given) => read!(self, c => sqlx::query_as(GIVEN)
                .bind(id).bind(limit).bind(given).fetch_all(c).await)?,
            KeySearch::Id(one) => return Ok(self.any_key(*one, None).await?.into_iter().collect()),
            KeySearch::Start(begin) => {
                let from = after.map(|key| (key.start.as_str(), key.id));
                self.keys_beginning(BY_START, begin, from, limit).await?
            }
            KeySearch::Label(begin) => {
                let from = after.map(|key| (key.label.as_str(), key.id));
                self.keys_beginning(BY_LABEL, begin, from, limit).await?
            }
        };
        rows.into_iter().map(Key::try_from).collect()
    }

    async fn keys_beginning(
        &self,
        [pg, lite]: [&'static str; 2],
        begin: &str,
        after: Option<(&str, KeyId)>,
        limit: i64,
    ) -> Result<Vec<KeyRow>> {
        let sql = if matches!(self, Store::Pg(_)) { pg } else { lite };
        let (text, id) = after.unwrap_or((begin, KeyId::FIRST));
        let end = behind(begin);
        read!(self, c => sqlx::query_as(sql).bind(text).bind(id).bind(&end).bind(limit)
            .fetch_all(c).await)
    }

    /// Batches that have results which are `internal_error`, of the newest tasks first.
    pub async fn failed_batches(&self, limit: i64) -> Result<Vec<FailedBatch>> {
        // The bit, as the index has it.
        const SQL: &str = "SELECT f.task_id, t.account_id, f.first_seq, b.addresses FROM (
                SELECT DISTINCT n.task_id, n.first_seq, n.no FROM (
                    SELECT task_id, first_seq, no FROM result_blocks
                    WHERE (reasons & 34359738368) <> 0
                    ORDER BY task_id DESC, first_seq DESC LIMIT $1) n) f
            JOIN tasks t ON t.id = f.task_id
            JOIN batches b ON b.task_id = f.task_id AND b.no = f.no
            WHERE t.deleted_at IS NULL ORDER BY f.task_id DESC, f.first_seq DESC";
        read!(self, c => sqlx::query_as(SQL).bind(limit).fetch_all(c).await)
    }

    /// Tasks that were given up, the newest first.
    pub async fn failed_tasks(&self, limit: i64) -> Result<Vec<FailedTask>> {
        const SQL: &str = "SELECT id, account_id, name, unique_addresses, finished_at FROM tasks
            WHERE status = 'failed' AND deleted_at IS NULL ORDER BY id DESC LIMIT $1";
        read!(self, c => sqlx::query_as(SQL).bind(limit).fetch_all(c).await)
    }
}

/// Keys in the order of a text of theirs: those behind ($1, $2), and before the end $3 of a beginning.
macro_rules! beginning {
    ($column:literal) => {
        concat!(
            "SELECT ",
            columns!(),
            " FROM api_keys k WHERE (",
            $column,
            ", k.id) > ($1, $2) AND ",
            $column,
            " < $3 AND k.deleted_at IS NULL ORDER BY ",
            $column,
            ", k.id LIMIT $4"
        )
    };
}

const START_PG: &str = beginning!("k.start COLLATE \"C\"");
const START_LITE: &str = beginning!("k.start");
const LABEL_PG: &str = beginning!("k.label COLLATE \"C\"");
const LABEL_LITE: &str = beginning!("k.label");
const BY_START: [&str; 2] = [START_PG, START_LITE];
const BY_LABEL: [&str; 2] = [LABEL_PG, LABEL_LITE];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::block::mask;
    use crate::domain::verdict::Reason;

    #[test]
    fn what_begins_so_lies_before_the_end() {
        for text in ["a", "abc", "a\u{10fffe}", "a@example.com"] {
            assert!(*"a" <= *text && *text < *behind("a"), "{text}");
        }
        assert!("b" > behind("a").as_str());
        assert_eq!(mask(&[Reason::InternalError]), 34_359_738_368);
    }
}

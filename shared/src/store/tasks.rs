//! Tasks as they are read. Receiving them is in [`super::receive`], what changes their course in
//! [`super::control`].

use std::collections::HashSet;

use sqlx::{FromRow, QueryBuilder};

use super::gather::Gather;
use super::{Result, Store, StoreError, Tx, read, within};
use crate::domain::id::{AccountId, KeyId, TaskId};
use crate::domain::task::{PauseReason, Submitted, Tally, Task, TaskStatus};

#[derive(FromRow)]
struct TaskRow {
    id: TaskId,
    account_id: AccountId,
    created_by_key: Option<KeyId>,
    created_by_person: Option<String>,
    sandbox: bool,
    name: Option<String>,
    status: String,
    pause_reason: Option<String>,
    submitted: i64,
    unique_addresses: i64,
    duplicates: i64,
    invalid_syntax: i64,
    batches: i64,
    released: i64,
    created_at: i64,
    started_at: Option<i64>,
    finished_at: Option<i64>,
    held: i64,
    #[sqlx(flatten)]
    tally: TallyRow,
}

/// The counters that tasks and batches share.
#[derive(FromRow)]
pub(super) struct TallyRow {
    deliverable: i64,
    undeliverable: i64,
    risky: i64,
    unknown: i64,
    charged: i64,
    refunded: i64,
}

impl From<TallyRow> for Tally {
    fn from(row: TallyRow) -> Self {
        Tally {
            deliverable: row.deliverable,
            undeliverable: row.undeliverable,
            risky: row.risky,
            unknown: row.unknown,
            charged: row.charged,
            refunded: row.refunded,
        }
    }
}

impl TryFrom<TaskRow> for Task {
    type Error = StoreError;

    fn try_from(row: TaskRow) -> Result<Self> {
        let status = row
            .status
            .parse()
            .map_err(|_| StoreError::Damaged { what: "task status", detail: row.status.clone() })?;
        Ok(Task {
            id: row.id,
            account: row.account_id,
            created_by_key: row.created_by_key,
            created_by_person: row.created_by_person,
            sandbox: row.sandbox,
            name: row.name,
            status,
            pause_reason: row.pause_reason.as_deref().and_then(PauseReason::from_name),
            submitted: Submitted {
                submitted: row.submitted,
                unique: row.unique_addresses,
                duplicates: row.duplicates,
                invalid_syntax: row.invalid_syntax,
            },
            tally: row.tally.into(),
            held: row.held,
            released: row.released,
            created_at: row.created_at,
            started_at: row.started_at,
            finished_at: row.finished_at,
            batches: row.batches,
        })
    }
}

/// Tasks with the sums of their touched batches added: those whose own counters are not folded
/// into the task row yet.
const SELECT: &str =
    "SELECT t.id, t.account_id, t.created_by_key, t.created_by_person, t.sandbox, t.name, t.status, t.pause_reason,
        t.submitted, t.unique_addresses, t.duplicates, t.invalid_syntax, t.batches,
        t.released, t.created_at, t.started_at, t.finished_at,
        t.deliverable + CAST(COALESCE(SUM(b.deliverable), 0) AS BIGINT) AS deliverable,
        t.undeliverable + CAST(COALESCE(SUM(b.undeliverable), 0) AS BIGINT) AS undeliverable,
        t.risky + CAST(COALESCE(SUM(b.risky), 0) AS BIGINT) AS risky,
        t.unknown + CAST(COALESCE(SUM(b.unknown), 0) AS BIGINT) AS unknown,
        t.charged + CAST(COALESCE(SUM(b.charged), 0) AS BIGINT) AS charged,
        t.refunded + CAST(COALESCE(SUM(b.refunded), 0) AS BIGINT) AS refunded,
        CAST(COALESCE(SUM(b.held), 0) AS BIGINT) AS held
    FROM tasks t LEFT JOIN batches b ON b.task_id = t.id AND b.touched = 1
    WHERE t.status <> 'ingesting' AND t.deleted_at IS NULL AND t.id IN (";

/// Which tasks of an account.
#[derive(Debug, Clone, Copy, Default)]
pub struct TaskFilter<'a> {
    /// Submitted by a key of this family.
    pub family: Option<KeyId>,
    /// With this status.
    pub status: Option<TaskStatus>,
    /// Sandbox tasks, or the others.
    pub sandbox: Option<bool>,
    /// With this text somewhere in its name; in any case, as far as the database knows cases. No index has that: the tasks of the account are looked
    /// through, newest first, until the page is full.
    pub name: Option<&'a str>,
}

/// Where a page of tasks begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With the newest.
    Newest,
    /// With the first that is older than this one.
    Before(TaskId),
    /// So that it ends with the last that is newer than this one.
    After(TaskId),
}

/// What a text must match to hold `part`; `\` takes the meaning off a sign.
fn pattern(part: &str) -> String {
    let mut pattern = String::from("%");
    for sign in part.chars() {
        if matches!(sign, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(sign);
    }
    pattern.push('%');
    pattern
}

impl Store {
    /// Gathered reads of tasks.
    pub fn gather_tasks(&self) -> Gather<TaskId, Task> {
        Gather::new(self, |store, ids| {
            Box::pin(async move {
                let tasks = store.tasks_by_id(&ids).await?;
                Ok(tasks.into_iter().map(|task| (task.id, task)).collect())
            })
        })
    }

    /// These tasks as they stand now, in no order; unknown and erased ones are left out.
    pub async fn tasks_by_id(&self, ids: &[TaskId]) -> Result<Vec<Task>> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        macro_rules! find {
            ($pool:expr) => {{
                let mut sql = QueryBuilder::new(SELECT);
                let mut list = sql.separated(", ");
                for id in ids {
                    list.push_bind(*id);
                }
                sql.push(") GROUP BY t.id");
                sql.build_query_as().fetch_all($pool).await
            }};
        }
        let rows: Vec<TaskRow> = match &mut self.quick_reader().await? {
            Tx::Pg(lent) => within!(lent, c => find!(c)),
            Tx::Lite(lent) => within!(lent, c => find!(c)),
        }?;
        rows.into_iter().map(Task::try_from).collect()
    }

    /// One task of an account, as it stands now.
    pub async fn task(&self, id: TaskId, account: AccountId) -> Result<Option<Task>> {
        let tasks = self.tasks_by_id(&[id]).await?;
        Ok(tasks.into_iter().find(|task| task.account == account))
    }

    /// One task, whosever it is: for operators.
    pub async fn any_task(&self, id: TaskId) -> Result<Option<Task>> {
        Ok(self.tasks_by_id(&[id]).await?.pop())
    }

    /// A page of an account's tasks, newest first.
    pub async fn tasks(
        &self,
        account: AccountId,
        filter: TaskFilter<'_>,
        from: Start,
        limit: i64,
    ) -> Result<Vec<Task>> {
        // Each in the order of an index: by `id` alone, PostgreSQL may walk everybody's tasks.
        const OLDER: &str = "SELECT id FROM tasks
            WHERE account_id = $1 AND (status = $2 OR $2 IS NULL) AND (id < $3 OR $3 IS NULL)
              AND (created_by_key IN (SELECT k.id FROM api_keys k WHERE k.family = $5) OR $5 IS NULL)
              AND (sandbox = $6 OR $6 IS NULL)
              AND (name LIKE $7 ESCAPE '\\' OR LOWER(name) LIKE LOWER($7) ESCAPE '\\' OR $7 IS NULL)
              AND status <> 'ingesting' AND deleted_at IS NULL
            ORDER BY account_id DESC, id DESC LIMIT $4";
        const NEWER: &str = "SELECT id FROM tasks
            WHERE account_id = $1 AND (status = $2 OR $2 IS NULL) AND (id > $3 OR $3 IS NULL)
              AND (created_by_key IN (SELECT k.id FROM api_keys k WHERE k.family = $5) OR $5 IS NULL)
              AND (sandbox = $6 OR $6 IS NULL)
              AND (name LIKE $7 ESCAPE '\\' OR LOWER(name) LIKE LOWER($7) ESCAPE '\\' OR $7 IS NULL)
              AND status <> 'ingesting' AND deleted_at IS NULL
            ORDER BY account_id, id LIMIT $4";
        let (sql, cursor) = match from {
            Start::Newest => (OLDER, None),
            Start::Before(id) => (OLDER, Some(id)),
            Start::After(id) => (NEWER, Some(id)),
        };
        let ids: Vec<TaskId> = read!(self, c => sqlx::query_scalar(sql)
            .bind(account).bind(filter.status.map(TaskStatus::as_str)).bind(cursor).bind(limit)
            .bind(filter.family).bind(filter.sandbox).bind(filter.name.map(pattern))
            .fetch_all(c).await)?;
        let mut tasks = self.tasks_by_id(&ids).await?;
        tasks.sort_by_key(|task| std::cmp::Reverse(task.id));
        Ok(tasks)
    }

    /// Tasks that a key submitted and that have not ended.
    pub async fn unended_tasks_of_key(
        &self,
        account: AccountId,
        key: KeyId,
    ) -> Result<Vec<TaskId>> {
        const SQL: &str = "SELECT id FROM tasks
            WHERE account_id = $1 AND created_by_key = $2 AND deleted_at IS NULL
              AND status IN ('queued', 'running', 'paused') ORDER BY id";
        Ok(read!(self, c => sqlx::query_scalar(SQL).bind(account).bind(key)
            .fetch_all(c).await)?)
    }

    /// Lists of a key that are being received at this moment.
    pub async fn uploads_of_key(&self, key: KeyId) -> Result<Vec<TaskId>> {
        const SQL: &str = "SELECT id FROM tasks
            WHERE created_by_key = $1 AND deleted_at IS NULL AND status = 'ingesting' ORDER BY id";
        Ok(read!(self, c => sqlx::query_scalar(SQL).bind(key).fetch_all(c).await)?)
    }

    /// Statuses of these tasks now; unknown ids are left out.
    pub async fn task_statuses(&self, ids: &[TaskId]) -> Result<Vec<(TaskId, TaskStatus)>> {
        const STATUSES: &str = "SELECT id, status FROM tasks WHERE id IN (";
        macro_rules! find {
            ($pool:expr, $ids:expr) => {{
                let mut sql = QueryBuilder::new(STATUSES);
                let mut list = sql.separated(", ");
                for id in $ids {
                    list.push_bind(*id);
                }
                sql.push(")");
                sql.build_query_as().fetch_all($pool).await
            }};
        }
        let mut found = Vec::with_capacity(ids.len());
        for some in ids.chunks(1_000) {
            let rows: Vec<(TaskId, String)> = match &mut self.quick_reader().await? {
                Tx::Pg(lent) => within!(lent, c => find!(c, some)),
                Tx::Lite(lent) => within!(lent, c => find!(c, some)),
            }?;
            let known = rows.into_iter().filter_map(|(id, name)| Some((id, name.parse().ok()?)));
            found.extend(known);
        }
        Ok(found)
    }

    /// Which of these tasks are sandbox tasks.
    pub async fn sandbox_among(&self, ids: &[TaskId]) -> Result<HashSet<TaskId>> {
        const SANDBOX: &str = "SELECT id FROM tasks WHERE sandbox AND id IN (";
        macro_rules! find {
            ($pool:expr, $ids:expr) => {{
                let mut sql = QueryBuilder::new(SANDBOX);
                let mut list = sql.separated(", ");
                for id in $ids {
                    list.push_bind(*id);
                }
                sql.push(")");
                sql.build_query_scalar().fetch_all($pool).await
            }};
        }
        let mut found = HashSet::new();
        for some in ids.chunks(1_000) {
            let these: Vec<TaskId> = match &mut self.reader().await? {
                Tx::Pg(lent) => within!(lent, c => find!(c, some)),
                Tx::Lite(lent) => within!(lent, c => find!(c, some)),
            }?;
            found.extend(these);
        }
        Ok(found)
    }

    /// How the submitted list was written.
    pub async fn task_manner(&self, id: TaskId) -> Result<Manner> {
        const SQL: &str = "SELECT header, delimiter, bom, crlf FROM tasks WHERE id = $1";
        let (header, delimiter, bom, crlf): (Option<Vec<u8>>, i16, bool, bool) =
            read!(self, c => sqlx::query_as(SQL).bind(id).fetch_one(c).await)?;
        Ok(Manner { header, delimiter: delimiter as u8, bom, crlf })
    }
}

/// How a submitted list was written, as far as its results are written in the same way.
#[derive(Debug, Clone)]
pub struct Manner {
    /// The header of a CSV, one line without terminator.
    pub header: Option<Vec<u8>>,
    /// What is between its cells.
    pub delimiter: u8,
    /// It began with a byte order mark, or came in an encoding that was not UTF-8.
    pub bom: bool,
    /// Its lines end with CR and LF.
    pub crlf: bool,
}

#[cfg(test)]
mod tests {
    use super::pattern;

    #[test]
    fn a_pattern_means_what_it_says() {
        assert_eq!(pattern("May"), "%May%");
        assert_eq!(pattern(r"100%_\"), r"%100\%\_\\%");
    }
}

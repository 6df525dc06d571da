//! Suspended accounts.
//!
//! | table | a row is | key |
//! | --- | --- | --- |
//! | `suspended_accounts` | an account whose use an operator has stopped | account |
//!
//! The gates and the sessions read it along with the key or the person, on the state of this moment: there is
//! nothing to be dropped anywhere when it changes. Lock order: account → head of the audit log.

use serde_json::{Value, json};
use sqlx::FromRow;

use super::audit_log::write_down;
use super::{Result, Store, Tx, expect_rows, on, read};
use crate::domain::account::{Suspended, TasksThen};
use crate::domain::audit::{Change, Origin};
use crate::domain::clock::Millis;
use crate::domain::id::{AccountId, TaskId};

/// The columns of a [`SuspendedRow`], of `suspended_accounts x` that is joined from the left.
macro_rules! suspended {
    () => {
        "x.reason AS account_reason, x.contact AS account_contact, x.since AS account_since"
    };
}

pub(super) use suspended;

/// See [`suspended`]; nothing where the account is not suspended.
#[derive(FromRow, Clone)]
pub(super) struct SuspendedRow {
    account_reason: Option<String>,
    account_contact: Option<String>,
    account_since: Option<i64>,
}

impl SuspendedRow {
    pub(super) fn read(self) -> Option<Suspended> {
        let Self { account_reason, account_contact, account_since } = self;
        let (reason, contact) = (account_reason?, account_contact?);
        Some(Suspended { reason, contact, since: account_since? })
    }
}

/// A suspension as the audit log shows it.
fn shown(suspended: &Suspended) -> Value {
    json!({ "reason": suspended.reason, "contact": suspended.contact })
}

impl Store {
    /// Suspends an account, or says anew why; `false`: there is none. `tasks`: what is to become of its tasks, for
    /// the audit log.
    pub async fn suspend_account(
        &self,
        account: AccountId,
        suspended: &Suspended,
        tasks: TasksThen,
        by: &Origin,
    ) -> Result<bool> {
        // SQLite has one writer, and we are it; PostgreSQL locks the row.
        const LOCK_LITE: &str = "SELECT id FROM accounts WHERE id = $1";
        const LOCK_PG: &str = "SELECT id FROM accounts WHERE id = $1 FOR NO KEY UPDATE";
        const SQL: &str = "INSERT INTO suspended_accounts (account_id, reason, contact, since)
            VALUES ($1, $2, $3, $4)
            ON CONFLICT (account_id) DO UPDATE SET reason = $2, contact = $3, since = $4";
        let mut tx = self.begin().await?;
        let sql = if matches!(tx, Tx::Pg(_)) { LOCK_PG } else { LOCK_LITE };
        let found: Option<AccountId> =
            on!(&mut tx, c => sqlx::query_scalar(sql).bind(account).fetch_optional(c).await)?;
        if found.is_none() {
            return Ok(false);
        }
        let was = suspension_in(&mut tx, account).await?;
        if was.as_ref().is_some_and(|was| shown(was) == shown(suspended)) {
            return Ok(true);
        }
        let rows = on!(&mut tx, c => sqlx::query(SQL).bind(account).bind(&suspended.reason)
            .bind(&suspended.contact).bind(suspended.since)
            .execute(c).await.map(|r| r.rows_affected()))?;
        expect_rows("suspend account", rows, 1)?;
        let mut after = shown(suspended);
        after["tasks"] = json!(tasks.as_str());
        let change = Change::new(by, Some(account), "account.suspend", account).after(after);
        let change = match &was {
            Some(was) => change.before(shown(was)),
            None => change,
        };
        write_down(&mut tx, &change, suspended.since).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Lifts the suspension of an account, and tells what it was; none: it was not suspended.
    pub async fn unsuspend_account(
        &self,
        account: AccountId,
        reason: Option<&str>,
        by: &Origin,
        now: Millis,
    ) -> Result<Option<Suspended>> {
        const SQL: &str = "DELETE FROM suspended_accounts WHERE account_id = $1
            RETURNING reason AS account_reason, contact AS account_contact, since AS account_since";
        let mut tx = self.begin().await?;
        let row: Option<SuspendedRow> =
            on!(&mut tx, c => sqlx::query_as(SQL).bind(account).fetch_optional(c).await)?;
        let Some(was) = row.and_then(SuspendedRow::read) else { return Ok(None) };
        let change = Change::new(by, Some(account), "account.unsuspend", account);
        let change = Change { after: reason.map(|reason| json!({ "reason": reason })), ..change };
        write_down(&mut tx, &change.before(shown(&was)), now).await?;
        tx.commit().await?;
        Ok(Some(was))
    }

    /// Is an account suspended, and why?
    pub async fn suspension_of(&self, account: AccountId) -> Result<Option<Suspended>> {
        suspension_in(&mut self.reader().await?, account).await
    }

    /// Tasks of an account that have not ended and do not stand still because somebody wanted that, behind
    /// `after`; with `paused`, those too.
    pub async fn unended_tasks_of(
        &self,
        account: AccountId,
        after: TaskId,
        paused: bool,
        limit: i64,
    ) -> Result<Vec<TaskId>> {
        const SQL: &str = "SELECT id FROM tasks
            WHERE account_id = $1 AND id > $2 AND deleted_at IS NULL
              AND status IN ('queued', 'running', 'paused')
              AND ($3 OR pause_reason IS NULL OR pause_reason <> 'requested')
            ORDER BY account_id, id LIMIT $4";
        read!(self, c => sqlx::query_scalar(SQL).bind(account).bind(after).bind(paused).bind(limit)
            .fetch_all(c).await)
    }
}

async fn suspension_in(tx: &mut Tx, account: AccountId) -> Result<Option<Suspended>> {
    const SQL: &str =
        concat!("SELECT ", suspended!(), " FROM suspended_accounts x WHERE x.account_id = $1");
    let row: Option<SuspendedRow> =
        on!(tx, c => sqlx::query_as(SQL).bind(account).fetch_optional(c).await)?;
    Ok(row.and_then(SuspendedRow::read))
}

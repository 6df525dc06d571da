//! Accounts and their keys; blocked networks.
//!
//! Keys are never removed: a deleted one keeps its row, so that attempts with it can be told from
//! noise. Nothing here touches a task.

use serde_json::{Value, json};
use sqlx::FromRow;

use super::audit_log::write_down;
use super::{Result, Store, Tx, expect_rows, on, read};
use crate::domain::audit::{Change, Origin};
use crate::domain::clock::{Millis, rfc3339};
use crate::domain::id::{AccountId, KeyId};
use crate::domain::key::{Key, KeyHash};
use crate::domain::ledger::Kind;

#[derive(FromRow)]
pub(super) struct KeyRow {
    id: KeyId,
    account_id: AccountId,
    start: String,
    label: String,
    disabled: bool,
    suspended_reason: Option<String>,
    deleted_at: Option<i64>,
    expires_at: Option<i64>,
    rate_limit: Option<i64>,
    created_at: i64,
}

impl From<KeyRow> for Key {
    fn from(row: KeyRow) -> Self {
        Key {
            id: row.id,
            account: row.account_id,
            start: row.start,
            label: row.label,
            disabled: row.disabled,
            suspended: row.suspended_reason,
            deleted_at: row.deleted_at,
            expires_at: row.expires_at,
            rate_limit: row.rate_limit,
            created_at: row.created_at,
        }
    }
}

/// A key as the audit log shows it: what is shown outside, and no hash.
fn shown(key: &Key, now: Millis) -> Value {
    json!({
        "start": key.start,
        "label": key.label,
        "status": key.status(now),
        "disabled": key.disabled,
        "suspended_reason": key.suspended,
        "expires_at": key.expires_at.map(rfc3339),
        "rate_limit": key.rate_limit,
    })
}

/// A change of a key.
#[derive(Debug, Clone)]
pub enum KeyChange {
    /// Switched off by its owner.
    Disable,
    /// Switched on again.
    Enable,
    /// Gone for good.
    Delete,
    /// Suspended by an operator.
    Suspend(String),
    /// The suspension is lifted.
    Unsuspend,
}

impl Store {
    /// Makes an account with an empty balance of every kind. Conflict: the e-mail is taken.
    pub async fn create_account(
        &self,
        id: AccountId,
        email: &str,
        password_hash: Option<&str>,
        admin: bool,
        by: &Origin,
        now: Millis,
    ) -> Result<()> {
        const ACCOUNT: &str =
            "INSERT INTO accounts (id, email, password_hash, is_admin, created_at)
            VALUES ($1, $2, $3, $4, $5)";
        const BALANCE: &str =
            "INSERT INTO credit_balances (account_id, kind, balance) VALUES ($1, $2, 0)";
        let mut tx = self.begin().await?;
        on!(&mut tx, c => sqlx::query(ACCOUNT)
            .bind(id).bind(email).bind(password_hash).bind(admin).bind(now)
            .execute(c).await.map(|_| ()))?;
        for kind in Kind::ALL {
            on!(&mut tx, c => sqlx::query(BALANCE).bind(id).bind(kind.as_str())
                .execute(c).await.map(|_| ()))?;
        }
        let login = password_hash.is_some();
        let change = Change::new(by, Some(id), "account.create", id)
            .after(json!({ "email": email, "admin": admin, "login": login }));
        write_down(&mut tx, &change, now).await?;
        tx.commit().await
    }

    /// Finds an account by its e-mail.
    pub async fn account_by_email(&self, email: &str) -> Result<Option<AccountId>> {
        const SQL: &str = "SELECT id FROM accounts WHERE email = $1";
        Ok(read!(self, c => sqlx::query_scalar(SQL).bind(email).fetch_optional(c).await)?)
    }

    /// Is there such an account?
    pub async fn account_exists(&self, id: AccountId) -> Result<bool> {
        const SQL: &str = "SELECT id FROM accounts WHERE id = $1";
        let found: Option<AccountId> =
            read!(self, c => sqlx::query_scalar(SQL).bind(id).fetch_optional(c).await)?;
        Ok(found.is_some())
    }

    /// Is there any account at all?
    pub async fn has_accounts(&self) -> Result<bool> {
        const SQL: &str = "SELECT id FROM accounts LIMIT 1";
        let found: Option<AccountId> =
            read!(self, c => sqlx::query_scalar(SQL).fetch_optional(c).await)?;
        Ok(found.is_some())
    }

    /// Stores a new key; `key.disabled`, `suspended` and `deleted_at` are taken as unset.
    pub async fn create_key(&self, key: &Key, hash: &KeyHash, by: &Origin) -> Result<()> {
        const SQL: &str = "INSERT INTO api_keys
            (id, account_id, hash, start, label, disabled, expires_at, rate_limit, created_at)
            VALUES ($1, $2, $3, $4, $5, FALSE, $6, $7, $8)";
        let mut tx = self.begin().await?;
        on!(&mut tx, c => sqlx::query(SQL)
            .bind(key.id).bind(key.account).bind(&hash[..]).bind(&key.start).bind(&key.label)
            .bind(key.expires_at).bind(key.rate_limit).bind(key.created_at)
            .execute(c).await.map(|_| ()))?;
        let change = Change::new(by, Some(key.account), "key.create", key.id)
            .after(shown(key, key.created_at));
        write_down(&mut tx, &change, key.created_at).await?;
        tx.commit().await
    }

    /// One key that is not deleted; `account` = only if it owns it.
    pub async fn key(&self, id: KeyId, account: Option<AccountId>) -> Result<Option<Key>> {
        const SQL: &str = "SELECT id, account_id, start, label, disabled, suspended_reason,
                deleted_at, expires_at, rate_limit, created_at
            FROM api_keys
            WHERE id = $1 AND (account_id = $2 OR $2 IS NULL) AND deleted_at IS NULL";
        let row: Option<KeyRow> = read!(self, c => sqlx::query_as(SQL)
            .bind(id).bind(account).fetch_optional(c).await)?;
        Ok(row.map(Key::from))
    }

    /// Keys that are not deleted, oldest first, after `cursor`; `account: None` = everybody's.
    pub async fn keys(
        &self,
        account: Option<AccountId>,
        cursor: Option<KeyId>,
        limit: i64,
    ) -> Result<Vec<Key>> {
        const SQL: &str = "SELECT id, account_id, start, label, disabled, suspended_reason,
                deleted_at, expires_at, rate_limit, created_at
            FROM api_keys
            WHERE (account_id = $1 OR $1 IS NULL) AND (id > $2 OR $2 IS NULL)
              AND deleted_at IS NULL
            ORDER BY id LIMIT $3";
        let rows: Vec<KeyRow> = read!(self, c => sqlx::query_as(SQL)
            .bind(account).bind(cursor).bind(limit).fetch_all(c).await)?;
        Ok(rows.into_iter().map(Key::from).collect())
    }

    /// Changes a key that is not deleted; `account` = only if it owns it. Returns the new state,
    /// or `None` when there is no such key. When it has returned, every gate judges by the new
    /// state.
    pub async fn change_key(
        &self,
        id: KeyId,
        account: Option<AccountId>,
        change: &KeyChange,
        by: &Origin,
        now: Millis,
    ) -> Result<Option<Key>> {
        // SQLite has one writer, and we are it; PostgreSQL locks the row.
        const WAS_LITE: &str = "SELECT id, account_id, start, label, disabled, suspended_reason,
                deleted_at, expires_at, rate_limit, created_at
            FROM api_keys
            WHERE id = $1 AND (account_id = $2 OR $2 IS NULL) AND deleted_at IS NULL";
        const WAS_PG: &str = "SELECT id, account_id, start, label, disabled, suspended_reason,
                deleted_at, expires_at, rate_limit, created_at
            FROM api_keys
            WHERE id = $1 AND (account_id = $2 OR $2 IS NULL) AND deleted_at IS NULL
            FOR NO KEY UPDATE";
        const SQL: &str = "UPDATE api_keys SET
                disabled = CASE WHEN $3 = 'disable' THEN TRUE WHEN $3 = 'enable' THEN FALSE
                    ELSE disabled END,
                suspended_reason = CASE WHEN $3 = 'suspend' THEN $4 WHEN $3 = 'unsuspend' THEN NULL
                    ELSE suspended_reason END,
                deleted_at = CASE WHEN $3 = 'delete' THEN $5 ELSE deleted_at END
            WHERE id = $1 AND (account_id = $2 OR $2 IS NULL) AND deleted_at IS NULL
            RETURNING id, account_id, start, label, disabled, suspended_reason,
                deleted_at, expires_at, rate_limit, created_at";
        let (name, action, reason) = match change {
            KeyChange::Disable => ("disable", "key.disable", None),
            KeyChange::Enable => ("enable", "key.enable", None),
            KeyChange::Delete => ("delete", "key.delete", None),
            KeyChange::Suspend(reason) => ("suspend", "key.suspend", Some(reason.as_str())),
            KeyChange::Unsuspend => ("unsuspend", "key.unsuspend", None),
        };
        let mut tx = self.begin().await?;
        let sql = if matches!(tx, Tx::Pg(_)) { WAS_PG } else { WAS_LITE };
        let was: Option<KeyRow> = on!(&mut tx, c => sqlx::query_as(sql)
            .bind(id).bind(account).fetch_optional(c).await)?;
        let Some(was) = was.map(Key::from) else { return Ok(None) };
        let row: KeyRow = on!(&mut tx, c => sqlx::query_as(SQL)
            .bind(id).bind(account).bind(name).bind(reason).bind(now)
            .fetch_one(c).await)?;
        let key = Key::from(row);
        let (before, after) = (shown(&was, now), shown(&key, now));
        // What was so already is no change.
        if before != after {
            let change = Change::new(by, Some(key.account), action, id).before(before).after(after);
            write_down(&mut tx, &change, now).await?;
        }
        tx.commit().await?;
        Ok(Some(key))
    }

    /// Blocks a network (CIDR text) or lifts the block; `reason`: why. Returns whether that changed anything.
    pub async fn change_ip_block(
        &self,
        cidr: &str,
        blocked: bool,
        reason: Option<&str>,
        by: &Origin,
        now: Millis,
    ) -> Result<bool> {
        const BLOCK: &str = "INSERT INTO ip_blocks (cidr, reason, created_at) VALUES ($1, $2, $3)
            ON CONFLICT (cidr) DO NOTHING RETURNING reason";
        const UNBLOCK: &str = "DELETE FROM ip_blocks WHERE cidr = $1 RETURNING reason";
        const RAISE: &str = "UPDATE versions SET value = value + 1 WHERE name = 'ip_blocks'";
        let mut tx = self.begin().await?;
        let touched: Option<Option<String>> = if blocked {
            on!(&mut tx, c => sqlx::query_scalar(BLOCK).bind(cidr).bind(reason).bind(now)
                .fetch_optional(c).await)?
        } else {
            on!(&mut tx, c => sqlx::query_scalar(UNBLOCK).bind(cidr).fetch_optional(c).await)?
        };
        let Some(stored) = touched else { return Ok(false) };
        let raised = on!(&mut tx, c => sqlx::query(RAISE)
            .execute(c).await.map(|r| r.rows_affected()))?;
        expect_rows("raise ip_blocks", raised, 1)?;
        let (action, was) = match blocked {
            true => ("ip.block", json!({ "blocked": false })),
            false => ("ip.unblock", json!({ "blocked": true, "reason": stored })),
        };
        let change = Change::new(by, None, action, cidr)
            .before(was)
            .after(json!({ "blocked": blocked, "reason": reason }));
        write_down(&mut tx, &change, now).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Every blocked network.
    pub async fn ip_blocks(&self) -> Result<Vec<String>> {
        const SQL: &str = "SELECT cidr FROM ip_blocks ORDER BY cidr";
        Ok(read!(self, c => sqlx::query_scalar(SQL).fetch_all(c).await)?)
    }
}

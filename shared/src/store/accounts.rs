//! Accounts; blocked networks.

use serde_json::json;

use super::audit_log::write_down;
use super::{Result, Store, expect_rows, on, read};
use crate::domain::audit::{Change, Origin};
use crate::domain::clock::Millis;
use crate::domain::id::AccountId;
use crate::domain::ledger::Kind;

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

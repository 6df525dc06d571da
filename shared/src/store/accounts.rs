//! Accounts.

use serde_json::json;

use super::audit_log::write_down;
use super::people::{add_person, place};
use super::{Result, Store, Tx, on, read};
use crate::domain::audit::{Change, Origin};
use crate::domain::clock::Millis;
use crate::domain::id::{AccountId, PersonId};
use crate::domain::ledger::Kind;
use crate::domain::person::Role;

/// An account to be made.
#[derive(Debug, Clone, Copy)]
pub struct NewAccount<'a> {
    /// Its id.
    pub id: AccountId,
    /// Its owner's email, and its name.
    pub email: &'a str,
    /// Its owner's password.
    pub password_hash: Option<&'a str>,
    /// Is its owner an operator?
    pub admin: bool,
}

/// Makes an account with an empty balance of every kind, and its owner: who has this email already (told by an id
/// that is not the account's), or a new person with this password.
pub(super) async fn add_account(
    tx: &mut Tx,
    new: &NewAccount<'_>,
    by: &Origin,
    now: Millis,
) -> Result<PersonId> {
    const ACCOUNT: &str = "INSERT INTO accounts (id, email, created_at) VALUES ($1, $2, $3)";
    const BALANCE: &str =
        "INSERT INTO credit_balances (account_id, kind, balance) VALUES ($1, $2, 0)";
    let NewAccount { id, email, password_hash, admin } = *new;
    on!(&mut *tx, c => sqlx::query(ACCOUNT)
        .bind(id).bind(email).bind(now).execute(c).await.map(|_| ()))?;
    for kind in Kind::ALL {
        on!(&mut *tx, c => sqlx::query(BALANCE).bind(id).bind(kind.as_str())
            .execute(c).await.map(|_| ()))?;
    }
    let owner = (PersonId(id.0), &*email.to_lowercase());
    let person = add_person(tx, owner, password_hash, admin, now).await?;
    place(tx, id, person, Role::Owner, now).await?;
    let login = password_hash.is_some();
    let change = Change::new(by, Some(id), "account.create", id)
        .after(json!({ "email": email, "admin": admin, "login": login }));
    write_down(tx, &change, now).await?;
    Ok(person)
}

impl Store {
    /// Makes an account with an empty balance of every kind, and its owner. Conflict: the email is taken.
    pub async fn create_account(
        &self,
        id: AccountId,
        email: &str,
        password_hash: Option<&str>,
        admin: bool,
        by: &Origin,
        now: Millis,
    ) -> Result<()> {
        let new = NewAccount { id, email, password_hash, admin };
        let mut tx = self.begin().await?;
        add_account(&mut tx, &new, by, now).await?;
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
}

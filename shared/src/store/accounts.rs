//! Accounts. Each is called by its email, which is kept in lower case and found in any; two that are from before it
//! was, and whose emails differ in nothing else, keep theirs, and each is found as it is written.

use serde_json::json;

use super::audit_log::write_down;
use super::people::{add_person, place};
use super::person_links::end_links;
use super::{Result, Store, Tx, expect_rows, on, read};
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
    let email = &*email.to_lowercase();
    on!(&mut *tx, c => sqlx::query(ACCOUNT)
        .bind(id).bind(email).bind(now).execute(c).await.map(|_| ()))?;
    for kind in Kind::ALL {
        on!(&mut *tx, c => sqlx::query(BALANCE).bind(id).bind(kind.as_str())
            .execute(c).await.map(|_| ()))?;
    }
    let owner = (PersonId(id.0), email);
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

    /// Finds an account by its email, in any case.
    pub async fn account_by_email(&self, email: &str) -> Result<Option<AccountId>> {
        // One that is written just so comes first.
        const SQL: &str = "SELECT id FROM accounts WHERE email IN ($1, $2)
            ORDER BY CASE WHEN email = $1 THEN 0 ELSE 1 END LIMIT 1";
        let email = email.trim();
        Ok(read!(self, c => sqlx::query_scalar(SQL).bind(email).bind(email.to_lowercase())
            .fetch_optional(c).await)?)
    }

    /// Calls an account by another email (in lower case); with `login`, those of its owners who log in with the
    /// old one log in with this from now on. Tells the old one, and whether a log-in has changed; none: no such
    /// account. Conflict: an account or a person has this email.
    pub async fn rename_account(
        &self,
        account: AccountId,
        email: &str,
        login: bool,
        by: &Origin,
        now: Millis,
    ) -> Result<Option<(String, bool)>> {
        // SQLite has one writer, and we are it; PostgreSQL locks the row.
        const LOCK_LITE: &str = "SELECT email FROM accounts WHERE id = $1";
        const LOCK_PG: &str = "SELECT email FROM accounts WHERE id = $1 FOR NO KEY UPDATE";
        const OWNER: &str = "SELECT p.id FROM people p
            JOIN memberships m ON m.person_id = p.id AND m.account_id = $1 AND m.role = 'owner'
            WHERE p.email = $2";
        const ACCOUNT: &str = "UPDATE accounts SET email = $2 WHERE id = $1";
        const PERSON: &str = "UPDATE people SET email = $2 WHERE id = $1";
        let mut tx = self.begin().await?;
        let sql = if matches!(tx, Tx::Pg(_)) { LOCK_PG } else { LOCK_LITE };
        let old: Option<String> =
            on!(&mut tx, c => sqlx::query_scalar(sql).bind(account).fetch_optional(c).await)?;
        let Some(old) = old else { return Ok(None) };
        if old == email {
            return Ok(Some((old, false)));
        }
        let owner: Option<PersonId> = match login {
            true => on!(&mut tx, c => sqlx::query_scalar(OWNER).bind(account)
                .bind(old.to_lowercase()).fetch_optional(c).await)?,
            false => None,
        };
        let rows = on!(&mut tx, c => sqlx::query(ACCOUNT).bind(account).bind(email)
            .execute(c).await.map(|r| r.rows_affected()))?;
        expect_rows("rename account", rows, 1)?;
        if let Some(person) = owner {
            // They were sent to the old one.
            end_links(&mut tx, person).await?;
            let rows = on!(&mut tx, c => sqlx::query(PERSON).bind(person).bind(email)
                .execute(c).await.map(|r| r.rows_affected()))?;
            expect_rows("rename person", rows, 1)?;
        }
        let change = Change::new(by, Some(account), "account.rename", account)
            .before(json!({ "email": old }))
            .after(json!({ "email": email, "login": owner.is_some() }));
        write_down(&mut tx, &change, now).await?;
        tx.commit().await?;
        Ok(Some((old, owner.is_some())))
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

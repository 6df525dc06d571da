//! People and their places in accounts.
//!
//! | table | a row is | key |
//! | --- | --- | --- |
//! | `people` | who logs in | id; email, in lower case |
//! | `memberships` | a person's place in an account | account, person |
//! | `recovery_codes` | stands in for a one-time code, once | person, SHA-256 |
//!
//! Every account keeps an owner: the last one can neither leave nor become something else. (Links that were handed
//! out are in [`super::person_links`].)

use serde_json::json;
use sqlx::FromRow;

use super::audit_log::write_down;
use super::person_links::end_links;
use super::{Result, Store, Tx, expect_rows, on, read};
use crate::domain::audit::{Change, Origin};
use crate::domain::clock::Millis;
use crate::domain::id::{AccountId, PersonId};
use crate::domain::key::KeyHash;
use crate::domain::person::{Person, Role};
use crate::store::StoreError;

/// People of one account, and accounts of one person, that are listed.
const MOST: i64 = 1_000;

#[derive(FromRow)]
pub(super) struct PersonRow {
    id: PersonId,
    email: String,
    password_hash: Option<String>,
    operator: bool,
    code_salt: Option<Vec<u8>>,
    code_on: bool,
    code_step: i64,
}

impl From<PersonRow> for Person {
    fn from(row: PersonRow) -> Self {
        let PersonRow { id, email, password_hash, operator, code_salt, code_on, code_step } = row;
        Self { id, email, password_hash, operator, code_salt, code_on, code_step }
    }
}

pub(super) fn damaged(what: &'static str, detail: impl std::fmt::Display) -> StoreError {
    StoreError::Damaged { what, detail: detail.to_string() }
}

/// A person's place in an account.
#[derive(Debug, Clone, FromRow)]
pub struct Member {
    /// Who.
    pub person_id: PersonId,
    /// Their email.
    pub email: String,
    /// owner, member or viewer.
    pub role: String,
    /// Since when.
    pub created_at: Millis,
}

/// An account that a person has a place in.
#[derive(Debug, Clone, FromRow)]
pub struct Place {
    /// Which.
    pub account_id: AccountId,
    /// That account's email: its name.
    pub email: String,
    /// owner, member or viewer.
    pub role: String,
}

/// Adds a person unless there is one with this email; tells who has it now.
pub(super) async fn add_person(
    tx: &mut Tx,
    new: (PersonId, &str),
    password_hash: Option<&str>,
    operator: bool,
    now: Millis,
) -> Result<PersonId> {
    const ADD: &str = "INSERT INTO people (id, email, password_hash, operator, created_at)
        VALUES ($1, $2, $3, $4, $5) ON CONFLICT (email) DO NOTHING";
    const FIND: &str = "SELECT id FROM people WHERE email = $1";
    on!(&mut *tx, c => sqlx::query(ADD).bind(new.0).bind(new.1).bind(password_hash).bind(operator)
        .bind(now).execute(c).await.map(|_| ()))?;
    on!(tx, c => sqlx::query_scalar(FIND).bind(new.1).fetch_one(c).await)
}

/// Gives a person a place in an account, or another role there; an owner stays one.
pub(super) async fn place(
    tx: &mut Tx,
    account: AccountId,
    person: PersonId,
    role: Role,
    now: Millis,
) -> Result<()> {
    const SQL: &str = "INSERT INTO memberships (account_id, person_id, role, created_at)
        VALUES ($1, $2, $3, $4)
        ON CONFLICT (account_id, person_id) DO UPDATE SET role = excluded.role
        WHERE memberships.role <> 'owner'";
    on!(tx, c => sqlx::query(SQL).bind(account).bind(person).bind(role.as_str()).bind(now)
        .execute(c).await.map(|_| ()))
}

impl Store {
    /// A person by email (in lower case).
    pub async fn person_by_email(&self, email: &str) -> Result<Option<Person>> {
        const SQL: &str = "SELECT id, email, password_hash, operator, code_salt, code_on, code_step
            FROM people WHERE email = $1";
        let row: Option<PersonRow> =
            read!(self, c => sqlx::query_as(SQL).bind(email).fetch_optional(c).await)?;
        Ok(row.map(Person::from))
    }

    /// A person by id.
    pub async fn person(&self, id: PersonId) -> Result<Option<Person>> {
        const SQL: &str = "SELECT id, email, password_hash, operator, code_salt, code_on, code_step
            FROM people WHERE id = $1";
        let row: Option<PersonRow> =
            read!(self, c => sqlx::query_as(SQL).bind(id).fetch_optional(c).await)?;
        Ok(row.map(Person::from))
    }

    /// The account that a person looks at first: the one that they have been in for longest.
    pub async fn first_account(&self, person: PersonId) -> Result<Option<AccountId>> {
        const SQL: &str = "SELECT account_id FROM memberships WHERE person_id = $1
            ORDER BY created_at, account_id LIMIT 1";
        Ok(read!(self, c => sqlx::query_scalar(SQL).bind(person).fetch_optional(c).await)?)
    }

    /// The accounts that a person has a place in, the oldest place first.
    pub async fn accounts_of(&self, person: PersonId) -> Result<Vec<Place>> {
        const SQL: &str = "SELECT m.account_id, a.email, m.role
            FROM memberships m JOIN accounts a ON a.id = m.account_id
            WHERE m.person_id = $1 ORDER BY m.created_at, m.account_id LIMIT $2";
        Ok(read!(self, c => sqlx::query_as(SQL).bind(person).bind(MOST).fetch_all(c).await)?)
    }

    /// The people of an account, by email.
    pub async fn members(&self, account: AccountId) -> Result<Vec<Member>> {
        const SQL: &str = "SELECT m.person_id, p.email, m.role, m.created_at
            FROM memberships m JOIN people p ON p.id = m.person_id
            WHERE m.account_id = $1 ORDER BY p.email LIMIT $2";
        Ok(read!(self, c => sqlx::query_as(SQL).bind(account).bind(MOST).fetch_all(c).await)?)
    }

    /// Gives a person another password, and ends their sessions but `keep`, and the links that let them in.
    pub async fn set_password(
        &self,
        person: PersonId,
        hash: &str,
        keep: Option<KeyHash>,
        by: &Origin,
        now: Millis,
    ) -> Result<()> {
        const SQL: &str = "UPDATE people SET password_hash = $2 WHERE id = $1";
        const END: &str = "DELETE FROM sessions WHERE person_id = $1 AND token_hash <> $2";
        let mut tx = self.begin().await?;
        let rows = on!(&mut tx, c => sqlx::query(SQL).bind(person).bind(hash)
            .execute(c).await.map(|r| r.rows_affected()))?;
        expect_rows("set password", rows, 1)?;
        // No token has this hash.
        let keep = keep.unwrap_or([0; 32]);
        on!(&mut tx, c => sqlx::query(END).bind(person).bind(&keep[..]).execute(c).await.map(|_| ()))?;
        end_links(&mut tx, person).await?;
        write_down(&mut tx, &Change::new(by, None, "person.password", person), now).await?;
        tx.commit().await
    }

    /// Sets what one-time codes of a person follow from; they are not asked for yet.
    pub async fn offer_codes(&self, person: PersonId, salt: &[u8]) -> Result<()> {
        const SQL: &str = "UPDATE people SET code_salt = $2, code_step = 0
            WHERE id = $1 AND NOT code_on";
        let mut tx = self.begin().await?;
        let rows = on!(&mut tx, c => sqlx::query(SQL).bind(person).bind(salt)
            .execute(c).await.map(|r| r.rows_affected()))?;
        expect_rows("offer codes", rows, 1)?;
        tx.commit().await
    }

    /// Asks for one-time codes from now on, and stores the hashes of the recovery codes.
    pub async fn switch_codes_on(
        &self,
        person: PersonId,
        step: i64,
        recovery: &[KeyHash],
        by: &Origin,
        now: Millis,
    ) -> Result<()> {
        const SQL: &str = "UPDATE people SET code_on = TRUE, code_step = $2
            WHERE id = $1 AND code_salt IS NOT NULL AND NOT code_on";
        const CLEAR: &str = "DELETE FROM recovery_codes WHERE person_id = $1";
        const ADD: &str = "INSERT INTO recovery_codes (person_id, hash) VALUES ($1, $2)";
        let mut tx = self.begin().await?;
        let rows = on!(&mut tx, c => sqlx::query(SQL).bind(person).bind(step)
            .execute(c).await.map(|r| r.rows_affected()))?;
        expect_rows("switch codes on", rows, 1)?;
        on!(&mut tx, c => sqlx::query(CLEAR).bind(person).execute(c).await.map(|_| ()))?;
        for hash in recovery {
            on!(&mut tx, c => sqlx::query(ADD).bind(person).bind(&hash[..])
                .execute(c).await.map(|_| ()))?;
        }
        write_down(&mut tx, &Change::new(by, None, "person.codes_on", person), now).await?;
        tx.commit().await
    }

    /// Asks for no one-time codes any more.
    pub async fn switch_codes_off(&self, person: PersonId, by: &Origin, now: Millis) -> Result<()> {
        const SQL: &str = "UPDATE people SET code_on = FALSE, code_salt = NULL WHERE id = $1";
        const CLEAR: &str = "DELETE FROM recovery_codes WHERE person_id = $1";
        let mut tx = self.begin().await?;
        let rows = on!(&mut tx, c => sqlx::query(SQL).bind(person)
            .execute(c).await.map(|r| r.rows_affected()))?;
        expect_rows("switch codes off", rows, 1)?;
        on!(&mut tx, c => sqlx::query(CLEAR).bind(person).execute(c).await.map(|_| ()))?;
        write_down(&mut tx, &Change::new(by, None, "person.codes_off", person), now).await?;
        tx.commit().await
    }

    /// Takes a code of this step; `false`: that step's code, or a later one's, was taken before.
    pub async fn take_code(&self, person: PersonId, step: i64) -> Result<bool> {
        const SQL: &str = "UPDATE people SET code_step = $2 WHERE id = $1 AND code_step < $2";
        let mut tx = self.begin().await?;
        let rows = on!(&mut tx, c => sqlx::query(SQL).bind(person).bind(step)
            .execute(c).await.map(|r| r.rows_affected()))?;
        tx.commit().await?;
        Ok(rows == 1)
    }

    /// Takes a recovery code; `false`: it is none of theirs, or used.
    pub async fn take_recovery_code(&self, person: PersonId, hash: &KeyHash) -> Result<bool> {
        const SQL: &str = "DELETE FROM recovery_codes WHERE person_id = $1 AND hash = $2";
        let mut tx = self.begin().await?;
        let rows = on!(&mut tx, c => sqlx::query(SQL).bind(person).bind(&hash[..])
            .execute(c).await.map(|r| r.rows_affected()))?;
        tx.commit().await?;
        Ok(rows == 1)
    }

    /// Recovery codes that a person has left.
    pub async fn recovery_codes(&self, person: PersonId) -> Result<i64> {
        const SQL: &str = "SELECT count(*) FROM recovery_codes WHERE person_id = $1";
        Ok(read!(self, c => sqlx::query_scalar(SQL).bind(person).fetch_one(c).await)?)
    }

    /// Gives a person of an account another role, or (`None`) no place there. `false`: they have none, or are
    /// the last owner.
    pub async fn change_role(
        &self,
        account: AccountId,
        person: PersonId,
        role: Option<Role>,
        by: &Origin,
        now: Millis,
    ) -> Result<bool> {
        // All changes of one account's people take turns by its row.
        const LOCK: &str = "UPDATE accounts SET created_at = created_at WHERE id = $1";
        const OWNERS: &str = "SELECT count(*) FROM memberships
            WHERE account_id = $1 AND role = 'owner' AND person_id <> $2";
        const SET: &str =
            "UPDATE memberships SET role = $3 WHERE account_id = $1 AND person_id = $2";
        const REMOVE: &str = "DELETE FROM memberships WHERE account_id = $1 AND person_id = $2";
        const END: &str = "DELETE FROM sessions WHERE account_id = $1 AND person_id = $2";
        let mut tx = self.begin().await?;
        on!(&mut tx, c => sqlx::query(LOCK).bind(account).execute(c).await.map(|_| ()))?;
        let others: i64 = on!(&mut tx, c => sqlx::query_scalar(OWNERS).bind(account).bind(person)
            .fetch_one(c).await)?;
        if others == 0 && role != Some(Role::Owner) {
            return Ok(false);
        }
        let rows = match role {
            Some(role) => on!(&mut tx, c => sqlx::query(SET).bind(account).bind(person)
                .bind(role.as_str()).execute(c).await.map(|r| r.rows_affected()))?,
            None => {
                on!(&mut tx, c => sqlx::query(END).bind(account).bind(person)
                    .execute(c).await.map(|_| ()))?;
                on!(&mut tx, c => sqlx::query(REMOVE).bind(account).bind(person)
                    .execute(c).await.map(|r| r.rows_affected()))?
            }
        };
        if rows == 0 {
            return Ok(false);
        }
        let change = Change::new(by, Some(account), "person.role", person);
        let change = change.after(json!({ "role": role.map(Role::as_str) }));
        write_down(&mut tx, &change, now).await?;
        tx.commit().await?;
        Ok(true)
    }
}

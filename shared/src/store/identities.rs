//! Who an issuer of OpenID Connect says that a person is, and log-ins that are under way there.
//!
//! | table | a row is | key |
//! | --- | --- | --- |
//! | `person_identities` | a person, as an issuer names them | issuer, subject; person, issuer |
//! | `issuer_logins` | a log-in that began here and goes on there, or lacks a one-time code | SHA-256 of its token |
//!
//! A person has one identity at each issuer, and keeps it. A log-in is removed by its use: of many who use one
//! at once, one is served.

use sqlx::FromRow;

use super::audit_log::write_down;
use super::people::PersonRow;
use super::{Result, Store, on, read};
use crate::domain::audit::{Change, Origin};
use crate::domain::clock::Millis;
use crate::domain::id::PersonId;
use crate::domain::key::KeyHash;
use crate::domain::person::Person;

/// A log-in that an issuer has let pass, and that lacks a one-time code.
#[derive(Debug, Clone, FromRow)]
pub struct Pending {
    /// Who.
    pub person_id: PersonId,
    /// As whom the issuer knows them: itself, and their name there.
    pub issuer: String,
    /// See `issuer`.
    pub subject: String,
    /// The page to go on with.
    pub next: String,
}

impl Store {
    /// Notes a log-in that goes on at the issuer, and removes those that are over.
    pub async fn begin_issuer_login(
        &self,
        token_hash: &KeyHash,
        next: &str,
        ends_at: Millis,
        now: Millis,
    ) -> Result<()> {
        const CLEAR: &str = "DELETE FROM issuer_logins WHERE ends_at <= $1";
        const SQL: &str =
            "INSERT INTO issuer_logins (token_hash, next, ends_at) VALUES ($1, $2, $3)";
        let mut tx = self.begin_unsynced().await?;
        on!(&mut tx, c => sqlx::query(CLEAR).bind(now).execute(c).await.map(|_| ()))?;
        on!(&mut tx, c => sqlx::query(SQL).bind(&token_hash[..]).bind(next).bind(ends_at)
            .execute(c).await.map(|_| ()))?;
        tx.commit().await
    }

    /// Uses up a log-in that comes back from the issuer: the page to go on with. `None`: it is used or over.
    pub async fn take_issuer_login(
        &self,
        token_hash: &KeyHash,
        now: Millis,
    ) -> Result<Option<String>> {
        const SQL: &str = "DELETE FROM issuer_logins
            WHERE token_hash = $1 AND ends_at > $2 AND person_id IS NULL RETURNING next";
        let mut tx = self.begin().await?;
        let next = on!(&mut tx, c => sqlx::query_scalar(SQL).bind(&token_hash[..]).bind(now)
            .fetch_optional(c).await)?;
        tx.commit().await?;
        Ok(next)
    }

    /// Notes a log-in that lacks a one-time code.
    pub async fn add_pending_login(
        &self,
        token_hash: &KeyHash,
        pending: &Pending,
        ends_at: Millis,
    ) -> Result<()> {
        const SQL: &str =
            "INSERT INTO issuer_logins (token_hash, next, person_id, issuer, subject, ends_at)
            VALUES ($1, $2, $3, $4, $5, $6)";
        let mut tx = self.begin_unsynced().await?;
        on!(&mut tx, c => sqlx::query(SQL).bind(&token_hash[..]).bind(&pending.next)
            .bind(pending.person_id).bind(&pending.issuer).bind(&pending.subject).bind(ends_at)
            .execute(c).await.map(|_| ()))?;
        tx.commit().await
    }

    /// A log-in that lacks a one-time code.
    pub async fn pending_login(
        &self,
        token_hash: &KeyHash,
        now: Millis,
    ) -> Result<Option<Pending>> {
        const SQL: &str = "SELECT person_id, issuer, subject, next FROM issuer_logins
            WHERE token_hash = $1 AND ends_at > $2 AND person_id IS NOT NULL";
        Ok(read!(self, c => sqlx::query_as(SQL).bind(&token_hash[..]).bind(now)
            .fetch_optional(c).await)?)
    }

    /// Uses up a log-in that lacked a one-time code; `false`: it is used or over.
    pub async fn end_pending_login(&self, token_hash: &KeyHash, now: Millis) -> Result<bool> {
        const SQL: &str = "DELETE FROM issuer_logins
            WHERE token_hash = $1 AND ends_at > $2 AND person_id IS NOT NULL";
        let mut tx = self.begin().await?;
        let rows = on!(&mut tx, c => sqlx::query(SQL).bind(&token_hash[..]).bind(now)
            .execute(c).await.map(|r| r.rows_affected()))?;
        tx.commit().await?;
        Ok(rows == 1)
    }

    /// Whom an issuer means.
    pub async fn person_by_identity(&self, issuer: &str, subject: &str) -> Result<Option<Person>> {
        const SQL: &str =
            "SELECT p.id, p.email, p.password_hash, p.operator, p.code_salt, p.code_on,
                p.code_step
            FROM person_identities i JOIN people p ON p.id = i.person_id
            WHERE i.issuer = $1 AND i.subject = $2";
        let row: Option<PersonRow> = read!(self, c => sqlx::query_as(SQL).bind(issuer).bind(subject)
            .fetch_optional(c).await)?;
        Ok(row.map(Person::from))
    }

    /// Is there an identity of this person at this issuer already?
    pub async fn has_identity(&self, person: PersonId, issuer: &str) -> Result<bool> {
        const SQL: &str =
            "SELECT subject FROM person_identities WHERE person_id = $1 AND issuer = $2";
        let found: Option<String> = read!(self, c => sqlx::query_scalar(SQL).bind(person)
            .bind(issuer).fetch_optional(c).await)?;
        Ok(found.is_some())
    }

    /// Keeps as whom an issuer knows a person; `false`: it knows them, or somebody else, so already.
    pub async fn add_identity(
        &self,
        person: PersonId,
        issuer: &str,
        subject: &str,
        by: &Origin,
        now: Millis,
    ) -> Result<bool> {
        const SQL: &str = "INSERT INTO person_identities (issuer, subject, person_id, created_at)
            VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING";
        let mut tx = self.begin().await?;
        let rows = on!(&mut tx, c => sqlx::query(SQL).bind(issuer).bind(subject).bind(person).bind(now)
            .execute(c).await.map(|r| r.rows_affected()))?;
        if rows == 0 {
            return Ok(false);
        }
        let change = Change::new(by, None, "person.identity", person);
        let change = change.after(serde_json::json!({ "issuer": issuer, "subject": subject }));
        write_down(&mut tx, &change, now).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Forgets as whom an issuer knows a person; `false`: it was not known.
    pub async fn remove_identity(
        &self,
        person: PersonId,
        issuer: &str,
        by: &Origin,
        now: Millis,
    ) -> Result<bool> {
        const SQL: &str = "DELETE FROM person_identities WHERE person_id = $1 AND issuer = $2";
        let mut tx = self.begin().await?;
        let rows = on!(&mut tx, c => sqlx::query(SQL).bind(person).bind(issuer)
            .execute(c).await.map(|r| r.rows_affected()))?;
        if rows == 0 {
            return Ok(false);
        }
        let change = Change::new(by, None, "person.identity_removed", person);
        let change = change.after(serde_json::json!({ "issuer": issuer }));
        write_down(&mut tx, &change, now).await?;
        tx.commit().await?;
        Ok(true)
    }
}

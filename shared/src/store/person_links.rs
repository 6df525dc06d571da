//! Links that were handed out to people.
//!
//! | table | a row is | key |
//! | --- | --- | --- |
//! | `person_links` | a link | SHA-256 of its token |
//!
//! Links are removed by their use: of many who use one at once, one is served. A new password ends a person's other
//! links, but for invitations, which let nobody in without it. An account has one invitation for an email: the
//! newest.

use serde_json::json;
use sqlx::FromRow;

use super::accounts::{NewAccount, add_account};
use super::audit_log::write_down;
use super::credits::give;
use super::people::{add_person, damaged, place};
use super::{Result, Store, Tx, on, read};
use crate::domain::audit::{Change, Origin};
use crate::domain::clock::Millis;
use crate::domain::id::{AccountId, PersonId};
use crate::domain::key::KeyHash;
use crate::domain::ledger::Kind;
use crate::domain::person::Role;

/// Invitations of one account that are listed.
pub const MOST_INVITES: i64 = 200;

/// What a link is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkKind {
    /// Logs the person in.
    Login,
    /// Lets the person set a password.
    Password,
    /// Takes a person into an account.
    Invite {
        /// Which.
        account: AccountId,
        /// As what.
        role: Role,
    },
    /// Makes an account of their own for somebody who is not known yet.
    SignUp,
}

impl LinkKind {
    fn as_str(&self) -> &'static str {
        match self {
            LinkKind::Login => "login",
            LinkKind::Password => "password",
            LinkKind::Invite { .. } => "invite",
            LinkKind::SignUp => "sign_up",
        }
    }
}

/// A link that is of use.
#[derive(Debug, Clone)]
pub struct PersonLink {
    /// What for.
    pub kind: LinkKind,
    /// For whom.
    pub email: String,
}

/// Somebody who was invited and has not come yet.
#[derive(Debug, Clone, FromRow)]
pub struct Invite {
    /// Who.
    pub email: String,
    /// owner, member or viewer.
    pub role: String,
    /// From then on the link is over.
    pub ends_at: Millis,
}

/// What came of signing up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignedUp {
    /// Who has an account now.
    Made(PersonId),
    /// Somebody has this email already.
    Known,
    /// The link is used or over.
    Gone,
}

#[derive(FromRow)]
struct LinkRow {
    kind: String,
    email: String,
    account_id: Option<AccountId>,
    role: Option<String>,
}

impl LinkRow {
    fn into_link(self) -> Result<PersonLink> {
        let kind = match (self.kind.as_str(), self.account_id, self.role.as_deref().map(str::parse))
        {
            ("login", ..) => LinkKind::Login,
            ("password", ..) => LinkKind::Password,
            ("sign_up", ..) => LinkKind::SignUp,
            ("invite", Some(account), Some(Ok(role))) => LinkKind::Invite { account, role },
            _ => return Err(damaged("link", &self.kind)),
        };
        Ok(PersonLink { kind, email: self.email })
    }
}

/// Takes a link; `None`: it is used or over.
async fn take(tx: &mut Tx, token_hash: &KeyHash, now: Millis) -> Result<Option<PersonLink>> {
    // Whoever uses links of one person takes turns: each of them may end the others.
    const LOCK: &str = "UPDATE people SET code_step = code_step
        WHERE email = (SELECT email FROM person_links WHERE token_hash = $1)";
    const TAKE: &str = "DELETE FROM person_links WHERE token_hash = $1 AND ends_at > $2
        RETURNING kind, email, account_id, role";
    on!(&mut *tx, c => sqlx::query(LOCK).bind(&token_hash[..]).execute(c).await.map(|_| ()))?;
    let row: Option<LinkRow> = on!(tx, c => sqlx::query_as(TAKE).bind(&token_hash[..])
        .bind(now).fetch_optional(c).await)?;
    row.map(LinkRow::into_link).transpose()
}

/// Ends the links of a person that would let somebody in.
pub(super) async fn end_links(tx: &mut Tx, person: PersonId) -> Result<()> {
    const SQL: &str = "DELETE FROM person_links
        WHERE email = (SELECT email FROM people WHERE id = $1) AND kind <> 'invite'";
    on!(tx, c => sqlx::query(SQL).bind(person).execute(c).await.map(|_| ()))
}

impl Store {
    /// Stores a link, and removes those that are over, and an earlier invitation of the same.
    pub async fn add_person_link(
        &self,
        token_hash: &KeyHash,
        link: &PersonLink,
        ends_at: Millis,
        by: &Origin,
        now: Millis,
    ) -> Result<()> {
        const CLEAR: &str = "DELETE FROM person_links WHERE ends_at <= $1";
        const REPLACE: &str = "DELETE FROM person_links WHERE account_id = $1 AND email = $2";
        const SQL: &str =
            "INSERT INTO person_links (token_hash, kind, email, account_id, role, ends_at)
            VALUES ($1, $2, $3, $4, $5, $6)";
        let (account, role) = match &link.kind {
            LinkKind::Invite { account, role } => (Some(*account), Some(role.as_str())),
            _ => (None, None),
        };
        let mut tx = self.begin().await?;
        on!(&mut tx, c => sqlx::query(CLEAR).bind(now).execute(c).await.map(|_| ()))?;
        if let Some(account) = account {
            on!(&mut tx, c => sqlx::query(REPLACE).bind(account).bind(&link.email)
                .execute(c).await.map(|_| ()))?;
        }
        on!(&mut tx, c => sqlx::query(SQL).bind(&token_hash[..]).bind(link.kind.as_str())
            .bind(&link.email).bind(account).bind(role).bind(ends_at)
            .execute(c).await.map(|_| ()))?;
        let change = Change::new(by, account, "person.link", &link.email);
        let change = change.after(json!({ "kind": link.kind.as_str(), "role": role }));
        write_down(&mut tx, &change, now).await?;
        tx.commit().await
    }

    /// A link that is still of use.
    pub async fn person_link(
        &self,
        token_hash: &KeyHash,
        now: Millis,
    ) -> Result<Option<PersonLink>> {
        const SQL: &str = "SELECT kind, email, account_id, role FROM person_links
            WHERE token_hash = $1 AND ends_at > $2";
        let row: Option<LinkRow> = read!(self, c => sqlx::query_as(SQL).bind(&token_hash[..])
            .bind(now).fetch_optional(c).await)?;
        row.map(LinkRow::into_link).transpose()
    }

    /// Uses a link up: the person is there afterwards, with the password if one is given, and in the account
    /// that an invitation is for. `None`: it is used or over.
    pub async fn use_person_link(
        &self,
        token_hash: &KeyHash,
        new: PersonId,
        password_hash: Option<&str>,
        by: &Origin,
        now: Millis,
    ) -> Result<Option<(PersonId, PersonLink)>> {
        const PASSWORD: &str = "UPDATE people SET password_hash = $2 WHERE id = $1";
        const END: &str = "DELETE FROM sessions WHERE person_id = $1";
        let mut tx = self.begin().await?;
        let Some(link) = take(&mut tx, token_hash, now).await? else { return Ok(None) };
        let person = add_person(&mut tx, (new, &link.email), None, false, now).await?;
        if let Some(hash) = password_hash {
            on!(&mut tx, c => sqlx::query(PASSWORD).bind(person).bind(hash)
                .execute(c).await.map(|_| ()))?;
            on!(&mut tx, c => sqlx::query(END).bind(person).execute(c).await.map(|_| ()))?;
            end_links(&mut tx, person).await?;
        }
        let mut account = None;
        if let LinkKind::Invite { account: into, role } = link.kind {
            account = Some(into);
            place(&mut tx, into, person, role, now).await?;
        }
        let change = Change::new(by, account, "person.link_used", person);
        let change = change.after(json!({ "kind": link.kind.as_str(), "email": link.email }));
        write_down(&mut tx, &change, now).await?;
        tx.commit().await?;
        Ok(Some((person, link)))
    }

    /// Makes an account for somebody who signs up, with their first credits, and uses up the link that has confirmed
    /// their address, if there was one. Conflict: there is an account with this email.
    pub async fn sign_up(
        &self,
        new: &NewAccount<'_>,
        credits: i64,
        token_hash: Option<&KeyHash>,
        by: &Origin,
        now: Millis,
    ) -> Result<SignedUp> {
        let mut tx = self.begin().await?;
        if let Some(token_hash) = token_hash {
            let link = take(&mut tx, token_hash, now).await?;
            if !link.is_some_and(|link| link.kind == LinkKind::SignUp && link.email == new.email) {
                return Ok(SignedUp::Gone);
            }
        }
        let person = add_account(&mut tx, new, by, now).await?;
        if person.0 != new.id.0 {
            return Ok(SignedUp::Known);
        }
        if credits > 0 {
            give(&mut tx, (new.id, Kind::Email), credits, Some("sign-up"), by, now).await?;
        }
        end_links(&mut tx, person).await?;
        tx.commit().await?;
        Ok(SignedUp::Made(person))
    }

    /// Invitations of an account that are of use, by email.
    pub async fn invites(&self, account: AccountId, now: Millis) -> Result<Vec<Invite>> {
        const SQL: &str = "SELECT email, role, ends_at FROM person_links
            WHERE account_id = $1 AND ends_at > $2 ORDER BY email LIMIT $3";
        Ok(read!(self, c => sqlx::query_as(SQL).bind(account).bind(now).bind(MOST_INVITES)
            .fetch_all(c).await)?)
    }

    /// Takes an invitation back: its link is of no use any more. `false`: there is none.
    pub async fn withdraw_invite(
        &self,
        account: AccountId,
        email: &str,
        by: &Origin,
        now: Millis,
    ) -> Result<bool> {
        const SQL: &str = "DELETE FROM person_links WHERE account_id = $1 AND email = $2";
        let mut tx = self.begin().await?;
        let rows = on!(&mut tx, c => sqlx::query(SQL).bind(account).bind(email)
            .execute(c).await.map(|r| r.rows_affected()))?;
        if rows == 0 {
            return Ok(false);
        }
        let change = Change::new(by, Some(account), "person.invite_withdrawn", email);
        write_down(&mut tx, &change, now).await?;
        tx.commit().await?;
        Ok(true)
    }
}

//! Sessions of people.
//!
//! | table | a row is | key |
//! | --- | --- | --- |
//! | `sessions` | a person who is logged in | SHA-256 of the token in the cookie |
//!
//! A session is judged with each request, on the state of this moment, with the person's role in its account:
//! who is no longer there is logged out. (What a database calls its sessions is [`super::sessions`].)

use sqlx::FromRow;

use super::audit_log::write_down;
use super::suspensions::{SuspendedRow, suspended};
use super::{Result, Store, expect_rows, on, read};
use crate::domain::audit::{Change, Origin};
use crate::domain::clock::Millis;
use crate::domain::id::{AccountId, PersonId, SessionId};
use crate::domain::key::KeyHash;
use crate::domain::person::{BadRole, Session};
use crate::store::StoreError;
use crate::store::people::damaged;

/// Sessions of one person: the oldest end when there are more.
const MOST: i64 = 100;

/// A session that begins.
#[derive(Debug, Clone)]
pub struct NewSession<'a> {
    /// Its id.
    pub id: SessionId,
    /// SHA-256 of its token.
    pub token_hash: KeyHash,
    /// Who.
    pub person: PersonId,
    /// The account that is looked at.
    pub account: AccountId,
    /// When the password was given; 0 = it was not.
    pub proven_at: Millis,
    /// From then on it is over.
    pub ends_at: Millis,
    /// The browser, as it names itself.
    pub agent: Option<&'a str>,
}

#[derive(FromRow)]
struct SessionRow {
    id: SessionId,
    person_id: PersonId,
    email: String,
    operator: bool,
    code_on: bool,
    account_id: AccountId,
    account_email: String,
    role: String,
    proven_at: Millis,
    created_at: Millis,
    seen_at: Millis,
    ip: Option<String>,
    agent: Option<String>,
    #[sqlx(flatten)]
    suspended: SuspendedRow,
}

impl TryFrom<SessionRow> for Session {
    type Error = StoreError;

    fn try_from(row: SessionRow) -> Result<Self> {
        Ok(Self {
            id: row.id,
            person: row.person_id,
            email: row.email,
            operator: row.operator,
            code_on: row.code_on,
            account: row.account_id,
            account_email: row.account_email,
            role: row.role.parse().map_err(|e: BadRole| damaged("role", e))?,
            proven_at: row.proven_at,
            created_at: row.created_at,
            seen_at: row.seen_at,
            ip: row.ip,
            agent: row.agent,
            suspended: row.suspended.read(),
        })
    }
}

macro_rules! sessions {
    ($which:literal) => {
        concat!(
            "SELECT s.id, s.person_id, p.email, p.operator, p.code_on, s.account_id,
                a.email AS account_email, m.role, s.proven_at, s.created_at, s.seen_at, s.ip, s.agent, ",
            suspended!(),
            " FROM sessions s JOIN people p ON p.id = s.person_id
            JOIN memberships m ON m.account_id = s.account_id AND m.person_id = s.person_id
            JOIN accounts a ON a.id = s.account_id
            LEFT JOIN suspended_accounts x ON x.account_id = s.account_id
            WHERE s.ends_at > $2 AND ",
            $which
        )
    };
}

impl Store {
    /// Begins a session. What is over is removed, and so are a person's oldest beyond [`MOST`].
    pub async fn begin_session(
        &self,
        new: &NewSession<'_>,
        by: &Origin,
        now: Millis,
    ) -> Result<()> {
        const CLEAR: &str = "DELETE FROM sessions WHERE ends_at <= $1";
        const CROWD: &str = "DELETE FROM sessions WHERE person_id = $1 AND token_hash NOT IN
            (SELECT token_hash FROM sessions WHERE person_id = $1 ORDER BY created_at DESC LIMIT $2)";
        const SQL: &str = "INSERT INTO sessions (token_hash, id, person_id, account_id, proven_at,
                created_at, seen_at, ends_at, ip, agent)
            VALUES ($1, $2, $3, $4, $9, $5, $5, $6, $7, $8)";
        let ip = by.ip.map(|ip| ip.to_string());
        let mut tx = self.begin().await?;
        on!(&mut tx, c => sqlx::query(CLEAR).bind(now).execute(c).await.map(|_| ()))?;
        on!(&mut tx, c => sqlx::query(CROWD).bind(new.person).bind(MOST - 1)
            .execute(c).await.map(|_| ()))?;
        on!(&mut tx, c => sqlx::query(SQL).bind(&new.token_hash[..]).bind(new.id).bind(new.person)
            .bind(new.account).bind(now).bind(new.ends_at).bind(&ip).bind(new.agent)
            .bind(new.proven_at).execute(c).await.map(|_| ()))?;
        let change = Change::new(by, Some(new.account), "session.begin", new.id);
        write_down(&mut tx, &change, now).await?;
        tx.commit().await
    }

    /// The session of a token, if it lasts.
    pub async fn session(&self, token_hash: &KeyHash, now: Millis) -> Result<Option<Session>> {
        const SQL: &str = sessions!("s.token_hash = $1");
        let row: Option<SessionRow> = read!(self, c => sqlx::query_as(SQL).bind(&token_hash[..])
            .bind(now).fetch_optional(c).await)?;
        row.map(Session::try_from).transpose()
    }

    /// Notes that a session was of use.
    pub async fn touch_session(&self, token_hash: &KeyHash, now: Millis) -> Result<()> {
        const SQL: &str = "UPDATE sessions SET seen_at = $2 WHERE token_hash = $1 AND seen_at < $2";
        let mut tx = self.begin_unsynced().await?;
        on!(&mut tx, c => sqlx::query(SQL).bind(&token_hash[..]).bind(now)
            .execute(c).await.map(|_| ()))?;
        tx.commit().await
    }

    /// Notes that the password was given in this session.
    pub async fn prove_session(&self, token_hash: &KeyHash, now: Millis) -> Result<()> {
        const SQL: &str = "UPDATE sessions SET proven_at = $2 WHERE token_hash = $1";
        let mut tx = self.begin().await?;
        let rows = on!(&mut tx, c => sqlx::query(SQL).bind(&token_hash[..]).bind(now)
            .execute(c).await.map(|r| r.rows_affected()))?;
        expect_rows("prove session", rows, 1)?;
        tx.commit().await
    }

    /// A person's sessions, the newest first.
    pub async fn sessions_of(&self, person: PersonId, now: Millis) -> Result<Vec<Session>> {
        const SQL: &str = sessions!("s.person_id = $1 ORDER BY s.created_at DESC LIMIT $3");
        let rows: Vec<SessionRow> = read!(self, c => sqlx::query_as(SQL).bind(person).bind(now)
            .bind(MOST).fetch_all(c).await)?;
        rows.into_iter().map(Session::try_from).collect()
    }

    /// Goes on in another account of the same person, with another token. `false`: the session is over, or they
    /// have no place there.
    pub async fn switch_account(
        &self,
        tokens: (&KeyHash, &KeyHash),
        person: PersonId,
        account: AccountId,
        by: &Origin,
        now: Millis,
    ) -> Result<bool> {
        const SQL: &str = "UPDATE sessions SET token_hash = $2, account_id = $4, seen_at = $5
            WHERE token_hash = $1 AND person_id = $3 AND ends_at > $5 AND EXISTS
                (SELECT 1 FROM memberships WHERE account_id = $4 AND person_id = $3)";
        let (old, new) = tokens;
        let mut tx = self.begin().await?;
        let rows = on!(&mut tx, c => sqlx::query(SQL).bind(&old[..]).bind(&new[..]).bind(person)
            .bind(account).bind(now).execute(c).await.map(|r| r.rows_affected()))?;
        if rows == 0 {
            return Ok(false);
        }
        write_down(&mut tx, &Change::new(by, Some(account), "session.switch", person), now).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Ends the session of a token.
    pub async fn end_session(&self, token_hash: &KeyHash) -> Result<()> {
        const SQL: &str = "DELETE FROM sessions WHERE token_hash = $1";
        let mut tx = self.begin().await?;
        on!(&mut tx, c => sqlx::query(SQL).bind(&token_hash[..]).execute(c).await.map(|_| ()))?;
        tx.commit().await
    }

    /// Ends one session of a person, or (`None`) all but the one with this token. How many ended.
    pub async fn end_sessions(
        &self,
        person: PersonId,
        which: Option<SessionId>,
        keep: &KeyHash,
        by: &Origin,
        now: Millis,
    ) -> Result<u64> {
        const ONE: &str =
            "DELETE FROM sessions WHERE person_id = $1 AND token_hash <> $2 AND id = $3";
        const OTHERS: &str = "DELETE FROM sessions WHERE person_id = $1 AND token_hash <> $2";
        let mut tx = self.begin().await?;
        let rows = match which {
            Some(id) => on!(&mut tx, c => sqlx::query(ONE).bind(person).bind(&keep[..]).bind(id)
                .execute(c).await.map(|r| r.rows_affected()))?,
            None => on!(&mut tx, c => sqlx::query(OTHERS).bind(person).bind(&keep[..])
                .execute(c).await.map(|r| r.rows_affected()))?,
        };
        if rows > 0 {
            let change = Change::new(by, None, "session.end", person);
            let change = change.after(serde_json::json!({ "sessions": rows, "session": which }));
            write_down(&mut tx, &change, now).await?;
        }
        tx.commit().await?;
        Ok(rows)
    }
}

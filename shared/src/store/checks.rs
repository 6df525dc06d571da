//! Single verifications: one held credit each, resolved once.

use super::credits::{post, post_filled, try_post};
use super::idempotency::{self, RequestKey};
use super::{Result, Store, key_credits, on, read};
use crate::domain::clock::Millis;
use crate::domain::id::{AccountId, CheckId, KeyId};
use crate::domain::ledger::{EntryType, Kind, Movement, Transfer};

/// A single verification that is under way.
#[derive(Debug, Clone, Copy)]
pub struct Check {
    /// Its id.
    pub id: CheckId,
    /// Who pays.
    pub account: AccountId,
    /// Names its ledger entries.
    pub step: i64,
    /// The key that asks.
    pub key: Option<KeyId>,
    /// It takes from the key's own limit, too.
    pub key_limited: bool,
    /// Credits are off: what the balance lacks is granted.
    pub fill: bool,
}

/// Whether a credit could be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opened {
    /// It is held.
    Held,
    /// The balance is empty.
    Poor,
    /// The key's own limit is used up.
    KeyPoor {
        /// The limit.
        limit: i64,
    },
}

/// An answer to be remembered for an `Idempotency-Key` in the very transaction that charges for it.
#[derive(Debug)]
pub struct Answered<'a> {
    /// Which request.
    pub request: &'a RequestKey,
    /// The fence: who has the request's place.
    pub salt: &'a [u8],
    /// The answer's status.
    pub status: i16,
    /// The answer's body.
    pub body: &'a str,
}

/// How a single verification was resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// As asked, and its answer is remembered.
    Done,
    /// The sweeper has given the credit back before.
    TooLate,
    /// Somebody else has the request's place; the credit went back.
    Fenced,
}

impl Check {
    fn transfer(&self, entry: EntryType, note: Option<&str>) -> Transfer {
        let note = note.map(str::to_owned);
        let movement = Movement { entry, amount: 1, task: None, step: Some(self.step), note };
        Transfer { account: self.account, kind: Kind::Email, movements: vec![movement] }
    }
}

impl Store {
    /// Holds one credit until `due_at`, of the balance and of the key's own limit, both or neither.
    pub async fn open_check(&self, check: Check, due_at: Millis, now: Millis) -> Result<Opened> {
        const SQL: &str = "INSERT INTO checks
                (id, account_id, step, held, charged, due_at, created_at, key_id, key_reserved)
            VALUES ($1, $2, $3, 1, 0, $4, $5, $6, $7)";
        let mut tx = self.begin().await?;
        let mut reserved = false;
        if let Some(key) = check.key.filter(|_| check.key_limited) {
            match key_credits::take(&mut tx, key, 1, now).await? {
                Ok(taken) => reserved = taken,
                Err(limit) => return Ok(Opened::KeyPoor { limit: limit.limit }),
            }
        }
        on!(&mut tx, c => sqlx::query(SQL).bind(check.id).bind(check.account).bind(check.step)
            .bind(due_at).bind(now).bind(check.key).bind(i16::from(reserved))
            .execute(c).await.map(|_| ()))?;
        let transfer = check.transfer(EntryType::Hold, Some("single verification"));
        if try_post(&mut tx, &transfer, now).await?.is_none() {
            if !check.fill {
                return Ok(Opened::Poor);
            }
            post_filled(&mut tx, transfer, now).await?;
        }
        tx.commit().await?;
        Ok(Opened::Held)
    }

    /// Resolves the hold, one way or the other; `false` when the sweeper has given it back.
    pub async fn close_check(&self, check: Check, charge: bool, now: Millis) -> Result<bool> {
        Ok(self.close_check_with(check, charge, None, now).await? == Closed::Done)
    }

    /// Resolves the hold and remembers the answer that says so, both or neither. Who has lost the request's
    /// place meanwhile gets the credit back and no answer.
    pub async fn close_check_with(
        &self,
        check: Check,
        charge: bool,
        answered: Option<Answered<'_>>,
        now: Millis,
    ) -> Result<Closed> {
        const SQL: &str = "UPDATE checks SET held = 0, charged = $2 WHERE id = $1 AND held = 1
            RETURNING key_reserved";
        let mut tx = self.begin().await?;
        let ours = match &answered {
            Some(answered) => idempotency::answer(&mut tx, answered).await?,
            None => true,
        };
        let charge = charge && ours;
        let reserved: Option<i16> = on!(&mut tx, c => sqlx::query_scalar(SQL).bind(check.id)
            .bind(i16::from(charge)).fetch_optional(c).await)?;
        let Some(reserved) = reserved else { return Ok(Closed::TooLate) };
        match check.key {
            Some(key) if charge => {
                key_credits::count_charged(&mut tx, key, check.account, 1, now).await?;
            }
            Some(key) if reserved == 1 => key_credits::give_back(&mut tx, key, 1).await?,
            _ => {}
        }
        let entry = if charge { EntryType::Charge } else { EntryType::Refund };
        post(&mut tx, &check.transfer(entry, None), now).await?;
        tx.commit().await?;
        Ok(if ours { Closed::Done } else { Closed::Fenced })
    }

    /// Single verifications whose process is gone.
    pub async fn expired_checks(&self, now: Millis, limit: i64) -> Result<Vec<Check>> {
        const SQL: &str = "SELECT id, account_id, step, key_id FROM checks
            WHERE held = 1 AND due_at < $1 ORDER BY due_at LIMIT $2";
        let rows: Vec<(CheckId, AccountId, i64, Option<KeyId>)> = read!(self, c => sqlx::query_as(SQL)
            .bind(now).bind(limit).fetch_all(c).await)?;
        let check = |(id, account, step, key)| Check {
            id,
            account,
            step,
            key,
            key_limited: false,
            fill: false,
        };
        Ok(rows.into_iter().map(check).collect())
    }
}

//! Answers remembered for an `Idempotency-Key`.
//!
//! Key: (account, route, key). The first request writes the row without an answer; its answer is
//! added when it is known. A row without an answer means that the first request is still at work,
//! or died. Its salt is the fence: a request whose place was taken over meanwhile answers nothing. An
//! answer that says that credits were charged is added in the transaction that charges them.

use sqlx::FromRow;

use super::checks::Answered;
use super::{Result, Store, Tx, on, read};
use crate::domain::clock::Millis;
use crate::domain::id::AccountId;

/// Which request.
#[derive(Debug, Clone)]
pub struct RequestKey {
    /// Who asks.
    pub account: AccountId,
    /// Method and path; for routes that hand out a secret also the caller's key.
    pub route: String,
    /// The client's key.
    pub key: String,
}

/// What is remembered.
#[derive(Debug, Clone, FromRow)]
pub struct Remembered {
    /// SHA-256 of the first request's body.
    pub fingerprint: Vec<u8>,
    /// Randomness of the first request: the same secrets come out of it again.
    pub salt: Vec<u8>,
    /// The answer's status; `None` = no answer yet.
    pub status: Option<i16>,
    /// The answer's body.
    pub body: Option<String>,
    /// When the first request came.
    pub created_at: i64,
}

impl Store {
    /// What is remembered for a request.
    pub async fn remembered(
        &self,
        request: &RequestKey,
        not_before: Millis,
    ) -> Result<Option<Remembered>> {
        const SQL: &str = "SELECT fingerprint, salt, status, body, created_at FROM idempotency_keys
            WHERE account_id = $1 AND route = $2 AND key = $3 AND created_at >= $4";
        Ok(read!(self, c => sqlx::query_as(SQL)
            .bind(request.account).bind(&request.route).bind(&request.key).bind(not_before)
            .fetch_optional(c).await)?)
    }

    /// Takes the place for a request, over a row older than `not_before` or one that has had no
    /// answer since `dead_before`; `false` when another request has it.
    pub async fn reserve_answer(
        &self,
        request: &RequestKey,
        fingerprint: &[u8],
        salt: &[u8],
        now: Millis,
        not_before: Millis,
        dead_before: Millis,
    ) -> Result<bool> {
        let mut tx = self.begin().await?;
        clear(&mut tx, request, not_before, dead_before).await?;
        let taken = insert(&mut tx, request, fingerprint, salt, None, now).await?;
        tx.commit().await?;
        Ok(taken)
    }

    /// Remembers the answer to a request; `false` when it has not, or no more, its place.
    pub async fn remember_answer(&self, answered: &Answered<'_>) -> Result<bool> {
        let mut tx = self.begin().await?;
        let ours = answer(&mut tx, answered).await?;
        tx.commit().await?;
        Ok(ours)
    }

    /// Gives the place up: the request came to nothing and may be tried again.
    pub async fn forget_request(&self, request: &RequestKey, salt: &[u8]) -> Result<()> {
        const SQL: &str = "DELETE FROM idempotency_keys
            WHERE account_id = $1 AND route = $2 AND key = $3 AND salt = $4 AND status IS NULL";
        let mut tx = self.begin().await?;
        on!(&mut tx, c => sqlx::query(SQL)
            .bind(request.account).bind(&request.route).bind(&request.key).bind(salt)
            .execute(c).await.map(|_| ()))?;
        tx.commit().await
    }

    /// Removes what is too old to be asked for.
    pub async fn forget_answers(&self, before: Millis) -> Result<()> {
        const SQL: &str = "DELETE FROM idempotency_keys WHERE created_at < $1";
        let mut tx = self.begin().await?;
        on!(&mut tx, c => sqlx::query(SQL).bind(before).execute(c).await.map(|_| ()))?;
        tx.commit().await
    }
}

/// Removes a row that is older than `not_before`, or has had no answer since `dead_before`.
pub(crate) async fn clear(
    tx: &mut Tx,
    request: &RequestKey,
    not_before: Millis,
    dead_before: Millis,
) -> Result<()> {
    const SQL: &str = "DELETE FROM idempotency_keys
        WHERE account_id = $1 AND route = $2 AND key = $3
          AND (created_at < $4 OR (status IS NULL AND created_at < $5))";
    on!(tx, c => sqlx::query(SQL)
        .bind(request.account).bind(&request.route).bind(&request.key).bind(not_before)
        .bind(dead_before).execute(c).await.map(|_| ()))
}

/// Adds the answer to the row of a request that has its place; tells whether it has.
pub(super) async fn answer(tx: &mut Tx, answered: &Answered<'_>) -> Result<bool> {
    const SQL: &str = "UPDATE idempotency_keys SET status = $4, body = $5
        WHERE account_id = $1 AND route = $2 AND key = $3 AND salt = $6 AND status IS NULL";
    let request = answered.request;
    let rows = on!(tx, c => sqlx::query(SQL)
        .bind(request.account).bind(&request.route).bind(&request.key).bind(answered.status)
        .bind(answered.body).bind(answered.salt).execute(c).await.map(|r| r.rows_affected()))?;
    Ok(rows == 1)
}

/// Writes the row, with its answer if that is known; `false` when there is one already.
pub async fn insert(
    tx: &mut Tx,
    request: &RequestKey,
    fingerprint: &[u8],
    salt: &[u8],
    answer: Option<(i16, &str)>,
    now: Millis,
) -> Result<bool> {
    const SQL: &str = "INSERT INTO idempotency_keys
            (account_id, route, key, fingerprint, salt, status, body, created_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
        ON CONFLICT (account_id, route, key) DO NOTHING";
    let rows = on!(tx, c => sqlx::query(SQL)
        .bind(request.account).bind(&request.route).bind(&request.key).bind(fingerprint).bind(salt)
        .bind(answer.map(|a| a.0)).bind(answer.map(|a| a.1)).bind(now)
        .execute(c).await.map(|r| r.rows_affected()))?;
    Ok(rows == 1)
}

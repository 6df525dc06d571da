//! Which peppers the keys are stored with, and the wrapping of those that were stored without one.

use super::{Result, Store, StoreError, Tx, expect_rows, on, read, within};
use crate::domain::clock::Millis;
use crate::domain::id::KeyId;
use crate::domain::key::{KeyHash, Peppers};

impl Store {
    /// Id and proof of every pepper in use, the oldest first.
    pub async fn peppers(&self) -> Result<Vec<(String, Vec<u8>)>> {
        const SQL: &str = "SELECT id, proof FROM peppers ORDER BY created_at, id";
        Ok(read!(self, c => sqlx::query_as(SQL).fetch_all(c).await)?)
    }

    /// Remembers the newest of these peppers, unless the database holds one that is not among them: false then.
    /// Those who do that at the same time take turns, so of two that make the first one is right.
    pub async fn add_pepper(&self, peppers: &Peppers, now: Millis) -> Result<bool> {
        const TURN_PG: &str = "LOCK TABLE peppers IN EXCLUSIVE MODE";
        const KNOWN: &str = "SELECT id FROM peppers";
        const SQL: &str = "INSERT INTO peppers (id, proof, created_at) VALUES ($1, $2, $3)
            ON CONFLICT (id) DO NOTHING";
        let newest = peppers.newest();
        let mut tx = self.begin().await?;
        // SQLite has one writer, and we are it.
        if let Tx::Pg(lent) = &mut tx {
            within!(lent, c => sqlx::query(TURN_PG).execute(c).await)?;
        }
        let stored: Vec<String> = on!(&mut tx, c => sqlx::query_scalar(KNOWN).fetch_all(c).await)?;
        if stored.iter().any(|id| peppers.get(id).is_none()) {
            return Ok(false);
        }
        on!(&mut tx, c => sqlx::query(SQL).bind(newest.id()).bind(&newest.proof()[..]).bind(now)
            .execute(c).await.map(|_| ()))?;
        tx.commit().await?;
        Ok(true)
    }

    /// Is any key stored without a pepper?
    pub async fn has_bare_keys(&self) -> Result<bool> {
        Ok(!self.bare_keys(1).await?.is_empty())
    }

    /// Keys that are stored without a pepper, with the SHA-256 that stands for them.
    pub async fn bare_keys(&self, limit: i64) -> Result<Vec<(KeyId, KeyHash)>> {
        const SQL: &str = "SELECT id, hash FROM api_keys WHERE pepper IS NULL ORDER BY id LIMIT $1";
        let rows: Vec<(KeyId, Vec<u8>)> =
            read!(self, c => sqlx::query_as(SQL).bind(limit).fetch_all(c).await)?;
        let read = |(id, hash): (KeyId, Vec<u8>)| match hash.try_into() {
            Ok(hash) => Ok((id, hash)),
            Err(_) => Err(StoreError::Damaged { what: "hash of a key", detail: id.to_string() }),
        };
        rows.into_iter().map(read).collect()
    }

    /// Puts wrapped hashes in the place of bare ones, all in one transaction; what somebody else has wrapped
    /// in between stays.
    pub async fn wrap_keys(&self, keys: &[(KeyId, KeyHash)], pepper: &str) -> Result<()> {
        const SQL: &str =
            "UPDATE api_keys SET hash = $2, pepper = $3 WHERE id = $1 AND pepper IS NULL";
        let mut tx = self.begin().await?;
        for (key, hash) in keys {
            let rows = on!(&mut tx, c => sqlx::query(SQL).bind(*key).bind(&hash[..]).bind(pepper)
                .execute(c).await.map(|r| r.rows_affected()))?;
            if rows > 1 {
                expect_rows("wrap key", rows, 1)?;
            }
        }
        tx.commit().await
    }
}

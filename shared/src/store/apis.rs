//! Apis: what keys belong to that are verified for other programs. A row is never removed; the keys of a deleted
//! one are no longer found.

use std::collections::HashMap;

use sqlx::{FromRow, QueryBuilder};

use super::gate::HashedRow;
use super::gather::Gather;
use super::keys::OF_APIS_BY_HASH;
use super::{Result, Store, Tx, on, read, within};
use crate::domain::clock::Millis;
use crate::domain::id::{AccountId, ApiId};
use crate::domain::key::{Key, KeyHash};

/// An api.
#[derive(Debug, Clone, FromRow)]
pub struct KeyApi {
    /// Its id.
    pub id: ApiId,
    /// What it is called.
    pub name: String,
}

impl Store {
    /// Stores a new api.
    pub async fn create_api(&self, account: AccountId, api: &KeyApi, now: Millis) -> Result<()> {
        const SQL: &str =
            "INSERT INTO apis (id, account_id, name, created_at) VALUES ($1, $2, $3, $4)";
        let mut tx = self.begin().await?;
        on!(&mut tx, c => sqlx::query(SQL).bind(api.id).bind(account).bind(&api.name).bind(now)
            .execute(c).await.map(|_| ()))?;
        tx.commit().await
    }

    /// An api of this account that is not deleted.
    pub async fn key_api(&self, account: AccountId, id: ApiId) -> Result<Option<KeyApi>> {
        const SQL: &str =
            "SELECT id, name FROM apis WHERE id = $1 AND account_id = $2 AND deleted_at IS NULL";
        read!(self, c => sqlx::query_as(SQL).bind(id).bind(account).fetch_optional(c).await)
    }

    /// Deletes an api, and its keys with it; was it there?
    pub async fn delete_api(&self, account: AccountId, id: ApiId, now: Millis) -> Result<bool> {
        const SQL: &str = "UPDATE apis SET deleted_at = $3
            WHERE id = $1 AND account_id = $2 AND deleted_at IS NULL";
        let mut tx = self.begin().await?;
        let rows = on!(&mut tx, c => sqlx::query(SQL).bind(id).bind(account).bind(now)
            .execute(c).await.map(|r| r.rows_affected()))?;
        tx.commit().await?;
        Ok(rows == 1)
    }

    /// Gathered look-ups of keys of apis; deleted keys are among what is found.
    pub fn gather_api_keys(&self) -> Gather<KeyHash, Key> {
        Gather::new(self, |store, hashes| {
            Box::pin(async move { store.find_api_keys(&hashes).await })
        })
    }

    async fn find_api_keys(&self, hashes: &[KeyHash]) -> Result<HashMap<KeyHash, Key>> {
        macro_rules! find {
            ($pool:expr) => {{
                let mut sql = QueryBuilder::new(OF_APIS_BY_HASH);
                let mut list = sql.separated(", ");
                for hash in hashes {
                    list.push_bind(&hash[..]);
                }
                sql.push(")");
                sql.build_query_as().fetch_all($pool).await
            }};
        }
        let mut reader = self.quick_reader().await?;
        let rows: Vec<HashedRow> = match &mut reader {
            Tx::Pg(lent) => within!(lent, c => find!(c)),
            Tx::Lite(lent) => within!(lent, c => find!(c)),
        }?;
        let mut found = HashMap::with_capacity(rows.len());
        for row in rows {
            if let Ok(hash) = row.hash.as_slice().try_into() {
                found.insert(hash, row.key.try_into()?);
            }
        }
        Ok(found)
    }
}

//! Apis: what keys belong to that are verified for other programs. A row is never removed; the keys of a deleted
//! one are no longer found.

use std::collections::HashMap;

use serde_json::json;
use sqlx::FromRow;

use super::audit_log::write_down;
use super::by_hash::rows_by_hash;
use super::gate::HashedRow;
use super::gather::Gather;
use super::keys::OF_APIS_BY_HASH;
use super::{Result, Store, expect_rows, on, read};
use crate::domain::audit::{Change, Origin};
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
    pub async fn create_api(
        &self,
        account: AccountId,
        api: &KeyApi,
        by: &Origin,
        now: Millis,
    ) -> Result<()> {
        const SQL: &str =
            "INSERT INTO apis (id, account_id, name, created_at) VALUES ($1, $2, $3, $4)";
        let mut tx = self.begin().await?;
        let rows = on!(&mut tx, c => sqlx::query(SQL)
            .bind(api.id).bind(account).bind(&api.name).bind(now)
            .execute(c).await.map(|r| r.rows_affected()))?;
        expect_rows("make api", rows, 1)?;
        let change = Change::new(by, Some(account), "api.create", api.id);
        write_down(&mut tx, &change.after(json!({ "name": api.name })), now).await?;
        tx.commit().await
    }

    /// An api of this account that is not deleted.
    pub async fn key_api(&self, account: AccountId, id: ApiId) -> Result<Option<KeyApi>> {
        const SQL: &str =
            "SELECT id, name FROM apis WHERE id = $1 AND account_id = $2 AND deleted_at IS NULL";
        read!(self, c => sqlx::query_as(SQL).bind(id).bind(account).fetch_optional(c).await)
    }

    /// Deletes an api, and its keys with it; was it there?
    pub async fn delete_api(
        &self,
        account: AccountId,
        id: ApiId,
        by: &Origin,
        now: Millis,
    ) -> Result<bool> {
        const SQL: &str = "UPDATE apis SET deleted_at = $3
            WHERE id = $1 AND account_id = $2 AND deleted_at IS NULL RETURNING name";
        let mut tx = self.begin().await?;
        let name: Option<String> = on!(&mut tx, c => sqlx::query_scalar(SQL)
            .bind(id).bind(account).bind(now).fetch_optional(c).await)?;
        let Some(name) = name else { return Ok(false) };
        let change = Change::new(by, Some(account), "api.delete", id);
        write_down(&mut tx, &change.before(json!({ "name": name })), now).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Gathered look-ups of keys of apis; deleted keys are among what is found.
    pub fn gather_api_keys(&self) -> Gather<KeyHash, Key> {
        Gather::new(self, |store, hashes| {
            Box::pin(async move { store.find_api_keys(&hashes).await })
        })
    }

    async fn find_api_keys(&self, hashes: &[KeyHash]) -> Result<HashMap<KeyHash, Key>> {
        let mut reader = self.quick_reader().await?;
        let rows: Vec<HashedRow> = rows_by_hash(&mut reader, OF_APIS_BY_HASH, hashes).await?;
        let mut found = HashMap::with_capacity(rows.len());
        for row in rows {
            if let Ok(hash) = row.hash.as_slice().try_into() {
                found.insert(hash, row.key.try_into()?);
            }
        }
        Ok(found)
    }
}

//! Root keys: one row each, never removed, found by hash as the gate finds keys.

use std::collections::HashMap;

use sqlx::{FromRow, QueryBuilder};

use super::gather::Gather;
use super::keys::Hashed;
use super::{Result, Store, Tx, on, read, within};
use crate::domain::clock::Millis;
use crate::domain::id::{AccountId, RootKeyId};
use crate::domain::key::KeyHash;
use crate::domain::root_key::RootKey;

/// What is learnt about a presented root key.
#[derive(Debug, Clone)]
pub struct FoundRoot {
    /// The key, if there is one that is not deleted.
    pub root: Option<RootKey>,
    /// Version of the blocked networks; reload them when it differs from yours.
    pub ip_blocks: i64,
}

#[derive(FromRow)]
struct RootRow {
    id: RootKeyId,
    account_id: AccountId,
    start: String,
    name: String,
    permissions: String,
    created_at: i64,
}

impl From<RootRow> for RootKey {
    fn from(row: RootRow) -> Self {
        RootKey {
            id: row.id,
            account: row.account_id,
            start: row.start,
            name: row.name,
            permissions: row.permissions.split_ascii_whitespace().map(str::to_owned).collect(),
            created_at: row.created_at,
        }
    }
}

impl Store {
    /// Stores a new root key.
    pub async fn create_root_key(&self, root: &RootKey, hashed: Hashed<'_>) -> Result<()> {
        const SQL: &str = "INSERT INTO root_keys
            (id, account_id, hash, pepper, start, name, permissions, created_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
        let mut tx = self.begin().await?;
        on!(&mut tx, c => sqlx::query(SQL)
            .bind(root.id).bind(root.account).bind(&hashed.hash[..]).bind(hashed.pepper)
            .bind(&root.start).bind(&root.name).bind(root.permissions.join(" "))
            .bind(root.created_at).execute(c).await.map(|_| ()))?;
        tx.commit().await
    }

    /// Root keys that are not deleted, oldest first, after `cursor`; `account` = its own only.
    pub async fn root_keys(
        &self,
        account: Option<AccountId>,
        cursor: RootKeyId,
        limit: i64,
    ) -> Result<Vec<RootKey>> {
        const SQL: &str =
            "SELECT id, account_id, start, name, permissions, created_at FROM root_keys
            WHERE (account_id = $1 OR $1 IS NULL) AND id > $2 AND deleted_at IS NULL
            ORDER BY id LIMIT $3";
        let rows: Vec<RootRow> = read!(self, c => sqlx::query_as(SQL)
            .bind(account).bind(cursor).bind(limit).fetch_all(c).await)?;
        Ok(rows.into_iter().map(RootKey::from).collect())
    }

    /// Deletes a root key; was it there? No request that starts later passes with it.
    pub async fn delete_root_key(&self, id: RootKeyId, now: Millis) -> Result<bool> {
        const SQL: &str =
            "UPDATE root_keys SET deleted_at = $2 WHERE id = $1 AND deleted_at IS NULL";
        let mut tx = self.begin().await?;
        let rows = on!(&mut tx, c => sqlx::query(SQL).bind(id).bind(now)
            .execute(c).await.map(|r| r.rows_affected()))?;
        tx.commit().await?;
        Ok(rows == 1)
    }

    /// Gathered look-ups of root keys.
    pub fn gather_root_keys(&self) -> Gather<KeyHash, FoundRoot> {
        Gather::new(self, |store, hashes| {
            Box::pin(async move { store.find_root_keys(&hashes).await })
        })
    }

    async fn find_root_keys(&self, hashes: &[KeyHash]) -> Result<HashMap<KeyHash, FoundRoot>> {
        const BY_HASH: &str = "SELECT hash, id, account_id, start, name, permissions, created_at
            FROM root_keys WHERE deleted_at IS NULL AND hash IN (";
        #[derive(FromRow)]
        struct HashedRoot {
            hash: Vec<u8>,
            #[sqlx(flatten)]
            root: RootRow,
        }
        macro_rules! find {
            ($pool:expr) => {{
                let mut sql = QueryBuilder::new(BY_HASH);
                let mut list = sql.separated(", ");
                for hash in hashes {
                    list.push_bind(&hash[..]);
                }
                sql.push(")");
                sql.build_query_as().fetch_all($pool).await
            }};
        }
        const VERSION: &str = "SELECT value FROM versions WHERE name = 'ip_blocks'";
        let mut reader = self.quick_reader().await?;
        let ip_blocks: i64 = on!(&mut reader, c => sqlx::query_scalar(VERSION).fetch_one(c).await)?;
        let rows: Vec<HashedRoot> = match &mut reader {
            Tx::Pg(lent) => within!(lent, c => find!(c)),
            Tx::Lite(lent) => within!(lent, c => find!(c)),
        }?;
        let nobody = FoundRoot { root: None, ip_blocks };
        let mut found: HashMap<KeyHash, FoundRoot> =
            hashes.iter().map(|hash| (*hash, nobody.clone())).collect();
        for row in rows {
            let place = row.hash.as_slice().try_into().ok();
            if let Some(place) = place.and_then(|hash: KeyHash| found.get_mut(&hash)) {
                place.root = Some(row.root.into());
            }
        }
        Ok(found)
    }
}

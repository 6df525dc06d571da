//! Root keys: one row each, never removed, found by hash as the gate finds keys.

use std::collections::HashMap;

use serde_json::{Value, json};
use sqlx::FromRow;

use super::audit_log::write_down;
use super::by_hash::rows_by_hash;
use super::gather::Gather;
use super::key_edits::Hashed;
use super::suspensions::{SuspendedRow, suspended};
use super::{Result, Store, expect_rows, on, read};
use crate::domain::account::Suspended;
use crate::domain::audit::{Change, Origin};
use crate::domain::clock::Millis;
use crate::domain::id::{AccountId, RootKeyId};
use crate::domain::key::KeyHash;
use crate::domain::root_key::RootKey;

/// What is learnt about a presented root key.
#[derive(Debug, Clone)]
pub struct FoundRoot {
    /// The key, if there is one that is not deleted.
    pub root: Option<RootKey>,
    /// The key, if it is deleted: attempts with it are its account's to see.
    pub gone: Option<RootKey>,
    /// Why its account is suspended, if it is.
    pub suspended: Option<Suspended>,
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
    pub async fn create_root_key(
        &self,
        root: &RootKey,
        hashed: Hashed<'_>,
        by: &Origin,
    ) -> Result<()> {
        const SQL: &str = "INSERT INTO root_keys
            (id, account_id, hash, pepper, start, name, permissions, created_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
        let mut tx = self.begin().await?;
        let rows = on!(&mut tx, c => sqlx::query(SQL)
            .bind(root.id).bind(root.account).bind(&hashed.hash[..]).bind(hashed.pepper)
            .bind(&root.start).bind(&root.name).bind(root.permissions.join(" "))
            .bind(root.created_at).execute(c).await.map(|r| r.rows_affected()))?;
        expect_rows("make root key", rows, 1)?;
        let change = Change::new(by, Some(root.account), "root_key.create", root.id);
        write_down(&mut tx, &change.after(shown(root)), root.created_at).await?;
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

    /// Deletes a root key; was it there? No request that starts later passes with it. `reason`: what the audit
    /// log says of it, where nobody meant to delete it.
    pub async fn delete_root_key(
        &self,
        id: RootKeyId,
        reason: Option<&str>,
        by: &Origin,
        now: Millis,
    ) -> Result<bool> {
        const SQL: &str = "UPDATE root_keys SET deleted_at = $2
            WHERE id = $1 AND deleted_at IS NULL
            RETURNING id, account_id, start, name, permissions, created_at";
        let mut tx = self.begin().await?;
        let row: Option<RootRow> = on!(&mut tx, c => sqlx::query_as(SQL)
            .bind(id).bind(now).fetch_optional(c).await)?;
        let Some(root) = row.map(RootKey::from) else { return Ok(false) };
        let change = Change::new(by, Some(root.account), "root_key.delete", id);
        let change = Change { after: reason.map(|reason| json!({ "reason": reason })), ..change };
        write_down(&mut tx, &change.before(shown(&root)), now).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Gathered look-ups of root keys.
    pub fn gather_root_keys(&self) -> Gather<KeyHash, FoundRoot> {
        Gather::new(self, |store, hashes| {
            Box::pin(async move { store.find_root_keys(&hashes).await })
        })
    }

    async fn find_root_keys(&self, hashes: &[KeyHash]) -> Result<HashMap<KeyHash, FoundRoot>> {
        const BY_HASH: &str = concat!(
            "SELECT r.hash, r.deleted_at, r.id, r.account_id, r.start, r.name, r.permissions,
                r.created_at, ",
            suspended!(),
            " FROM root_keys r LEFT JOIN suspended_accounts x ON x.account_id = r.account_id
            WHERE r.hash IN ("
        );
        #[derive(FromRow)]
        struct HashedRoot {
            hash: Vec<u8>,
            deleted_at: Option<i64>,
            #[sqlx(flatten)]
            account: SuspendedRow,
            #[sqlx(flatten)]
            root: RootRow,
        }
        const VERSION: &str = "SELECT value FROM versions WHERE name = 'ip_blocks'";
        let mut reader = self.quick_reader().await?;
        let ip_blocks: i64 = on!(&mut reader, c => sqlx::query_scalar(VERSION).fetch_one(c).await)?;
        let rows: Vec<HashedRoot> = rows_by_hash(&mut reader, BY_HASH, hashes).await?;
        let nobody = FoundRoot { root: None, gone: None, suspended: None, ip_blocks };
        let mut found: HashMap<KeyHash, FoundRoot> =
            hashes.iter().map(|hash| (*hash, nobody.clone())).collect();
        for row in rows {
            let place = row.hash.as_slice().try_into().ok();
            if let Some(place) = place.and_then(|hash: KeyHash| found.get_mut(&hash)) {
                place.suspended = row.account.read();
                let root = Some(row.root.into());
                match row.deleted_at {
                    None => place.root = root,
                    Some(_) => place.gone = root,
                }
            }
        }
        Ok(found)
    }
}

/// A root key as the audit log shows it.
fn shown(root: &RootKey) -> Value {
    json!({ "start": root.start, "name": root.name, "permissions": root.permissions })
}

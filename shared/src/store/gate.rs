//! The gate's look-up: a key by its hash, with its account's suspension, the version of the blocked networks and the lever on all limits,
//! in one statement on the state of this moment.

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::FromRow;

use super::by_hash::rows_by_hash;
use super::gather::Gather;
use super::keys::{BY_HASH, KeyRow};
use super::limit_factor::TightenedRow;
use super::suspensions::SuspendedRow;
use super::{Result, Store, on};
use crate::domain::account::Suspended;
use crate::domain::factor::Tightened;
use crate::domain::key::{Key, KeyHash};

/// What the gate learns about a presented key.
#[derive(Clone, Debug)]
pub struct Found {
    /// The key, if there is one (deleted ones included).
    pub key: Option<Arc<Key>>,
    /// Why the key's account is suspended, if it is.
    pub suspended: Option<Suspended>,
    /// Version of the blocked networks; reload them when it differs from yours.
    pub ip_blocks: i64,
    /// What is left of every request limit.
    pub limits: Tightened,
}

/// What concerns every caller.
#[derive(FromRow)]
struct CommonRow {
    ip_blocks: i64,
    #[sqlx(flatten)]
    limits: TightenedRow,
}

#[derive(FromRow)]
struct GateRow {
    #[sqlx(flatten)]
    common: CommonRow,
    #[sqlx(flatten)]
    account: SuspendedRow,
    #[sqlx(flatten)]
    hashed: HashedRow,
}

#[derive(FromRow)]
pub(super) struct HashedRow {
    pub(super) hash: Vec<u8>,
    #[sqlx(flatten)]
    pub(super) key: KeyRow,
}

const COMMON: &str = "SELECT v.value AS ip_blocks, f.thousandths, f.ends_at
    FROM versions v CROSS JOIN limit_factor f WHERE v.name = 'ip_blocks' AND f.id = 1";

impl Store {
    /// Gathered look-ups for the gate.
    pub fn gather_keys(&self) -> Gather<KeyHash, Found> {
        Gather::new(self, |store, hashes| Box::pin(async move { store.find_keys(&hashes).await }))
    }

    async fn find_keys(&self, hashes: &[KeyHash]) -> Result<HashMap<KeyHash, Found>> {
        let mut reader = self.quick_reader().await?;
        let rows: Vec<GateRow> = rows_by_hash(&mut reader, BY_HASH, hashes).await?;
        let mut common = None;
        let mut keys: HashMap<KeyHash, (Arc<Key>, Option<Suspended>)> =
            HashMap::with_capacity(rows.len());
        for GateRow { common: row, account, hashed } in rows {
            common = Some(row);
            if let Ok(hash) = hashed.hash.as_slice().try_into() {
                keys.insert(hash, (Arc::new(hashed.key.try_into()?), account.read()));
            }
        }
        let common = match common {
            Some(common) => common,
            // Nobody has any of these keys.
            None => on!(&mut reader, c => sqlx::query_as(COMMON).fetch_one(c).await)?,
        };
        let (ip_blocks, limits) = (common.ip_blocks, Tightened::from(common.limits));
        let found = |hash: &KeyHash| {
            let (key, suspended) = keys.get(hash).cloned().unzip();
            Found { key, suspended: suspended.flatten(), ip_blocks, limits }
        };
        let found = hashes.iter().map(|hash| (*hash, found(hash))).collect();
        Ok(found)
    }
}

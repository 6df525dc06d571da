//! The gate's look-up: a key by its hash and the version of the blocked networks, read together on
//! the state of this moment.

use std::collections::HashMap;

use sqlx::{FromRow, QueryBuilder};

use super::gather::Gather;
use super::keys::{BY_HASH, KeyRow};
use super::{Result, Store, Tx, on, within};
use crate::domain::key::{Key, KeyHash};

/// What the gate learns about a presented key.
#[derive(Clone, Debug)]
pub struct Found {
    /// The key, if there is one (deleted ones included).
    pub key: Option<Key>,
    /// Version of the blocked networks; reload them when it differs from yours.
    pub ip_blocks: i64,
}

#[derive(FromRow)]
struct HashedRow {
    hash: Vec<u8>,
    #[sqlx(flatten)]
    key: KeyRow,
}

const VERSION: &str = "SELECT value FROM versions WHERE name = 'ip_blocks'";
impl Store {
    /// Gathered look-ups for the gate.
    pub fn gather_keys(&self) -> Gather<KeyHash, Found> {
        Gather::new(self, |store, hashes| Box::pin(async move { store.find_keys(&hashes).await }))
    }

    async fn find_keys(&self, hashes: &[KeyHash]) -> Result<HashMap<KeyHash, Found>> {
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
        let mut reader = self.quick_reader().await?;
        let ip_blocks: i64 = on!(&mut reader, c => sqlx::query_scalar(VERSION).fetch_one(c).await)?;
        let rows: Vec<HashedRow> = match &mut reader {
            Tx::Pg(lent) => within!(lent, c => find!(c)),
            Tx::Lite(lent) => within!(lent, c => find!(c)),
        }?;
        let mut found: HashMap<KeyHash, Found> =
            hashes.iter().map(|hash| (*hash, Found { key: None, ip_blocks })).collect();
        for row in rows {
            if let Some(place) =
                row.hash.as_slice().try_into().ok().and_then(|h: KeyHash| found.get_mut(&h))
            {
                place.key = Some(row.key.try_into()?);
            }
        }
        Ok(found)
    }
}

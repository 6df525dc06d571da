//! The gate's look-up: a key by its hash and the version of the blocked networks, read together on
//! the state of this moment.

use std::collections::HashMap;

use sqlx::{FromRow, QueryBuilder};

use super::gather::Gather;
use super::keys::{BY_HASH, KeyRow};
use super::limit_factor::TightenedRow;
use super::{Result, Store, Tx, on, within};
use crate::domain::factor::Tightened;
use crate::domain::key::{Key, KeyHash};

/// What the gate learns about a presented key.
#[derive(Clone, Debug)]
pub struct Found {
    /// The key, if there is one (deleted ones included).
    pub key: Option<Key>,
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
        let common: CommonRow = on!(&mut reader, c => sqlx::query_as(COMMON).fetch_one(c).await)?;
        let rows: Vec<HashedRow> = match &mut reader {
            Tx::Pg(lent) => within!(lent, c => find!(c)),
            Tx::Lite(lent) => within!(lent, c => find!(c)),
        }?;
        let nobody = Found { key: None, ip_blocks: common.ip_blocks, limits: common.limits.into() };
        let mut found: HashMap<KeyHash, Found> =
            hashes.iter().map(|hash| (*hash, nobody.clone())).collect();
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

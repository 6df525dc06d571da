//! Keys that are brought from another system, many in one transaction.
//!
//! A hash is looked for under every pepper in use; the unique index of hashes is what keeps two imports at once
//! from storing a key twice.

use std::collections::HashMap;

use super::audit_log::write_down;
use super::key_edits::{Hashed, insert};
use super::{Result, Store, StoreError, Tx, within};
use crate::domain::audit::Change;
use crate::domain::clock::Millis;
use crate::domain::id::{AccountId, ApiId};
use crate::domain::key::{Key, KeyHash};

/// Hashes named in one statement: beyond what fits one, see [`super::STATEMENT_BYTES`].
const NAMED: usize = super::STATEMENT_BYTES / 32;

/// Whose the key with a hash is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// A key of the account's that is not deleted, and none of an api.
    Own,
    /// Any other.
    Taken,
}

impl Store {
    /// Which of these hashes are stored, and whose they are, seen from an account.
    pub async fn standing_of(
        &self,
        hashes: &[KeyHash],
        account: AccountId,
    ) -> Result<HashMap<KeyHash, Standing>> {
        // Arrays, or JSON where there are none.
        const PG: &str = "SELECT hash, account_id, api_id, deleted_at FROM api_keys
            WHERE hash = ANY($1::BYTEA[])";
        const LITE: &str = "SELECT hash, account_id, api_id, deleted_at FROM api_keys
            WHERE hash IN (SELECT unhex(value) FROM json_each($1))";
        type Row = (Vec<u8>, AccountId, Option<ApiId>, Option<i64>);
        let mut found = HashMap::new();
        for some in hashes.chunks(NAMED) {
            let rows: Vec<Row> = match &mut self.reader().await? {
                Tx::Pg(lent) => {
                    let some: Vec<&[u8]> = some.iter().map(|hash| &hash[..]).collect();
                    within!(lent, c => sqlx::query_as(PG).bind(&some).fetch_all(c).await)
                }
                Tx::Lite(lent) => {
                    let hex =
                        |hash: &KeyHash| hash.iter().map(|byte| format!("{byte:02x}")).collect();
                    let some: Vec<String> = some.iter().map(hex).collect();
                    let json = format!("[\"{}\"]", some.join("\",\""));
                    within!(lent, c => sqlx::query_as(LITE).bind(&json).fetch_all(c).await)
                }
            }?;
            for (hash, owner, api, deleted_at) in rows {
                let own = owner == account && api.is_none() && deleted_at.is_none();
                let hash: KeyHash = hash.try_into().map_err(|_| StoreError::Damaged {
                    what: "hash of a key",
                    detail: String::from("of another length"),
                })?;
                found.insert(hash, if own { Standing::Own } else { Standing::Taken });
            }
        }
        Ok(found)
    }

    /// Stores keys, and the change as one row of the audit log, all or none; `false`: one of the hashes is
    /// stored already, and nothing was done.
    pub async fn import_keys(
        &self,
        keys: &[(Key, KeyHash)],
        pepper: &str,
        change: &Change,
        now: Millis,
    ) -> Result<bool> {
        let mut tx = self.begin().await?;
        for (key, hash) in keys {
            match insert(&mut tx, key, Hashed { hash, pepper }).await {
                Err(error) if error.is_conflict() => return Ok(false),
                inserted => inserted?,
            }
        }
        write_down(&mut tx, change, now).await?;
        tx.commit().await?;
        Ok(true)
    }
}

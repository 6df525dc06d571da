//! Links that show a new key's secret once.
//!
//! | table | a row is | key |
//! | --- | --- | --- |
//! | `key_links` | a link that was given out | SHA-256 of its token |
//!
//! Neither the token nor the secret is stored. Of many who use a link at once one changes its row, so one is
//! shown the secret. Rows are removed when they are over; what is not there looks as if it had been used.

use super::audit_log::write_down;
use super::key_edits::{Hashed, insert, note_made};
use super::{Result, Store, Tx, expect_rows, on, read};
use crate::domain::audit::{Change, Origin};
use crate::domain::clock::{Millis, rfc3339};
use crate::domain::id::KeyId;
use crate::domain::key::{Key, KeyHash};

/// A link to be stored.
#[derive(Debug, Clone, Copy)]
pub struct NewLink {
    /// SHA-256 of its token.
    pub token_hash: KeyHash,
    /// From then on it shows nothing.
    pub ends_at: Millis,
}

pub(super) async fn insert_link(tx: &mut Tx, key: KeyId, link: &NewLink) -> Result<()> {
    const SQL: &str = "INSERT INTO key_links (token_hash, key_id, ends_at) VALUES ($1, $2, $3)";
    let rows = on!(tx, c => sqlx::query(SQL).bind(&link.token_hash[..]).bind(key).bind(link.ends_at)
        .execute(c).await.map(|r| r.rows_affected()))?;
    expect_rows("insert link", rows, 1)
}

/// Writes down that a link was made, the last thing of its transaction.
pub(super) async fn note_link(
    tx: &mut Tx,
    by: &Origin,
    key: &Key,
    link: &NewLink,
    now: Millis,
) -> Result<()> {
    let change = Change::new(by, Some(key.account), "key.link", key.id);
    let after = serde_json::json!({ "link": "unused", "ends_at": rfc3339(link.ends_at) });
    write_down(tx, &change.after(after), now).await
}

impl Store {
    /// Stores a new key and a link that shows its secret once.
    pub async fn create_key_with_link(
        &self,
        key: &Key,
        hashed: Hashed<'_>,
        link: &NewLink,
        by: &Origin,
    ) -> Result<()> {
        let mut tx = self.begin().await?;
        insert(&mut tx, key, hashed).await?;
        insert_link(&mut tx, key.id, link).await?;
        note_made(&mut tx, by, key).await?;
        note_link(&mut tx, by, key, link, key.created_at).await?;
        tx.commit().await
    }

    /// The key that an unused link would show, and when the link ends.
    pub async fn key_of_link(
        &self,
        token_hash: &KeyHash,
        now: Millis,
    ) -> Result<Option<(KeyId, Millis)>> {
        const SQL: &str = "SELECT key_id, ends_at FROM key_links
            WHERE token_hash = $1 AND used_at IS NULL AND ends_at > $2";
        Ok(read!(self, c => sqlx::query_as(SQL).bind(&token_hash[..]).bind(now)
            .fetch_optional(c).await)?)
    }

    /// Uses a link up; `false`: it is used or over, or its key is deleted.
    pub async fn use_link(
        &self,
        token_hash: &KeyHash,
        key: &Key,
        by: &Origin,
        now: Millis,
    ) -> Result<bool> {
        const SQL: &str = "UPDATE key_links SET used_at = $2
            WHERE token_hash = $1 AND key_id = $3 AND used_at IS NULL AND ends_at > $2
              AND EXISTS (SELECT 1 FROM api_keys k WHERE k.id = $3 AND k.deleted_at IS NULL)";
        let mut tx = self.begin().await?;
        let rows = on!(&mut tx, c => sqlx::query(SQL).bind(&token_hash[..]).bind(now).bind(key.id)
            .execute(c).await.map(|r| r.rows_affected()))?;
        if rows == 0 {
            return Ok(false);
        }
        expect_rows("use link", rows, 1)?;
        let change = Change::new(by, Some(key.account), "key.link_used", key.id);
        let before = serde_json::json!({ "link": "unused" });
        let after = serde_json::json!({ "link": "used" });
        write_down(&mut tx, &change.before(before).after(after), now).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Removes some of the links that are over; how many.
    pub async fn forget_links(&self, limit: i64, now: Millis) -> Result<u64> {
        const SQL: &str = "DELETE FROM key_links WHERE token_hash IN
            (SELECT token_hash FROM key_links WHERE ends_at <= $1 ORDER BY ends_at LIMIT $2)";
        let mut tx = self.begin().await?;
        let rows = on!(&mut tx, c => sqlx::query(SQL).bind(now).bind(limit)
            .execute(c).await.map(|r| r.rows_affected()))?;
        tx.commit().await?;
        Ok(rows)
    }
}

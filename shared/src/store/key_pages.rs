//! What a page of keys shows beside the keys: one statement for each column, for all keys of the page.
//!
//! A page is read newest first by the index of the account's keys; what is searched for is looked at in the
//! account's own keys alone. Sums are those that are kept (`usage_days`), never counted from rows of the log.

use std::collections::HashMap;

use uuid::Uuid;

use super::keys::{KeyRow, SEARCHED};
use super::{Result, Store, Tx, read, within};
use crate::domain::clock::Millis;
use crate::domain::id::{AccountId, KeyId};
use crate::domain::key::Key;

/// Which keys of an account a page shows.
#[derive(Debug, Clone, Default)]
pub struct KeySearch {
    /// Part of the label, of the external id, or of the start of the secret; empty = any.
    pub text: String,
    /// A state in one word: see [`super::keys`]; `None` = all that are not deleted.
    pub state: Option<&'static str>,
    /// Deleted ones, too, where no state is named.
    pub deleted: bool,
}

/// What a key is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyName {
    /// Its label.
    pub label: String,
    /// Its first characters.
    pub start: String,
    /// When it was last switched off, suspended or deleted.
    pub ended_at: Option<Millis>,
}

/// Runs one statement for several keys: arrays, or JSON where there are none. The keys are `$1`.
macro_rules! for_keys {
    ($store:expr, $pg:expr, $lite:expr, $keys:expr $(, $value:expr)*) => {
        match &mut $store.reader().await? {
            Tx::Pg(lent) => {
                let keys: Vec<Uuid> = $keys.iter().map(|key| key.0).collect();
                within!(lent, c => sqlx::query_as($pg).bind(keys)$(.bind($value))*.fetch_all(c).await)
            }
            Tx::Lite(lent) => {
                let keys: Vec<String> = $keys.iter().map(|key| key.0.simple().to_string()).collect();
                let json = format!("[\"{}\"]", keys.join("\",\""));
                within!(lent, c => sqlx::query_as($lite).bind(json)$(.bind($value))*.fetch_all(c).await)
            }
        }
    };
}

impl Store {
    /// Keys of an account that a search names, newest first, before `before`.
    pub async fn page_of_keys(
        &self,
        account: AccountId,
        search: &KeySearch,
        now: Millis,
        before: Option<KeyId>,
        limit: i64,
    ) -> Result<Vec<Key>> {
        let before = before.unwrap_or(KeyId(Uuid::max()));
        let state = search.state.unwrap_or(if search.deleted { "any" } else { "" });
        let rows: Vec<KeyRow> = read!(self, c => sqlx::query_as(SEARCHED)
            .bind(account).bind(before).bind(pattern(&search.text)).bind(now).bind(state)
            .bind(limit).fetch_all(c).await)?;
        rows.into_iter().map(Key::try_from).collect()
    }

    /// How many tasks of each of these keys go on; keys without any are left out.
    pub async fn live_tasks_by_key(&self, keys: &[KeyId]) -> Result<HashMap<KeyId, i64>> {
        const LIVE_PG: &str = "SELECT created_by_key, count(*) FROM tasks
            WHERE created_by_key = ANY($1::UUID[]) AND deleted_at IS NULL
              AND status IN ('queued', 'running', 'paused') GROUP BY created_by_key";
        const LIVE_LITE: &str = "SELECT created_by_key, count(*) FROM tasks
            WHERE created_by_key IN (SELECT unhex(value) FROM json_each($1))
              AND deleted_at IS NULL AND status IN ('queued', 'running', 'paused')
            GROUP BY created_by_key";
        if keys.is_empty() {
            return Ok(HashMap::new());
        }
        let rows: Vec<(KeyId, i64)> = for_keys!(self, LIVE_PG, LIVE_LITE, keys)?;
        Ok(rows.into_iter().collect())
    }

    /// Requests of each of these keys by day (UTC), from the day `from` on; days without any are left out.
    pub async fn days_by_key(
        &self,
        account: AccountId,
        keys: &[KeyId],
        from: Millis,
    ) -> Result<Vec<(KeyId, Millis, i64)>> {
        const DAYS_PG: &str = "SELECT key_id, at, CAST(SUM(requests) AS BIGINT) FROM usage_days
            WHERE account_id = $2 AND key_id = ANY($1::UUID[]) AND at >= $3 GROUP BY key_id, at";
        const DAYS_LITE: &str = "SELECT key_id, at, CAST(SUM(requests) AS BIGINT) FROM usage_days
            WHERE account_id = $2 AND key_id IN (SELECT unhex(value) FROM json_each($1)) AND at >= $3
            GROUP BY key_id, at";
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        for_keys!(self, DAYS_PG, DAYS_LITE, keys, account, from)
    }

    /// What keys of an account are called, deleted ones included; those of others are left out.
    pub async fn key_names(
        &self,
        account: AccountId,
        keys: &[KeyId],
    ) -> Result<HashMap<KeyId, KeyName>> {
        const NAMES_PG: &str = "SELECT id, label, start, ended_at FROM api_keys
            WHERE id = ANY($1::UUID[]) AND account_id = $2";
        const NAMES_LITE: &str = "SELECT id, label, start, ended_at FROM api_keys
            WHERE id IN (SELECT unhex(value) FROM json_each($1)) AND account_id = $2";
        if keys.is_empty() {
            return Ok(HashMap::new());
        }
        type Row = (KeyId, String, String, Option<i64>);
        let rows: Vec<Row> = for_keys!(self, NAMES_PG, NAMES_LITE, keys, account)?;
        let named = |(id, label, start, ended_at)| (id, KeyName { label, start, ended_at });
        Ok(rows.into_iter().map(named).collect())
    }
}

/// What `LIKE` is given to find a text anywhere; empty = anything.
fn pattern(text: &str) -> String {
    let text = text.trim();
    let mut like = String::with_capacity(text.len() + 2);
    if text.is_empty() {
        return like;
    }
    like.push('%');
    for sign in text.chars() {
        if matches!(sign, '%' | '_' | '\\') {
            like.push('\\');
        }
        like.push(sign);
    }
    like.push('%');
    like
}

#[cfg(test)]
mod tests {
    use super::pattern;

    #[test]
    fn what_is_searched_for_is_text() {
        assert_eq!(pattern("  "), "");
        assert_eq!(pattern(" prod "), "%prod%");
        assert_eq!(pattern(r"50%_\"), r"%50\%\_\\%");
    }
}

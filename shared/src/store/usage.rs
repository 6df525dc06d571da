//! What the request log tells: pages of requests, the last use of keys; usage by hour or day is in
//! [`super::usage_sums`].
//!
//! Everything is asked by account, and read by an index that begins with it or with the key: nobody sees what is
//! another's. A root key stands in the log with its own id as a key does; what has a row in `root_keys` is one.

use std::collections::HashMap;

use sqlx::FromRow;
use uuid::Uuid;

use super::request_log::id_at;
use super::{Result, Store, StoreError, Tx, read, within};
use crate::domain::clock::Millis;
use crate::domain::id::{AccountId, KeyId, RootKeyId};
use crate::domain::request::{By, LastUse, Outcome};

pub use super::usage_sums::{Of, Spent, Split, UsageFilter, Used};

/// A row of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// Its id; later requests have higher ones.
    pub id: i64,
    /// When it arrived.
    pub at: Millis,
    /// With which key.
    pub key: Option<KeyId>,
    /// With which root key.
    pub root_key: Option<RootKeyId>,
    /// What the gate said.
    pub outcome: Outcome,
    /// The caller's address.
    pub ip: Option<String>,
    /// Its method.
    pub method: String,
    /// The path that matched.
    pub route: String,
    /// HTTP status of the answer.
    pub status: i16,
    /// Microseconds until the answer's head was ready.
    pub latency_us: i32,
    /// Its name.
    pub request_id: String,
}

#[derive(FromRow)]
struct LoggedRow {
    id: i64,
    at: i64,
    key_id: Option<KeyId>,
    root_id: Option<RootKeyId>,
    outcome: i16,
    ip: Option<String>,
    method: String,
    route: String,
    status: i16,
    latency_us: i32,
    request_id: String,
}

/// Which requests are wanted.
#[derive(Debug, Clone, Copy, Default)]
pub struct RequestFilter {
    /// With this key only; of a root key, its own id.
    pub key: Option<KeyId>,
    /// That ended so only.
    pub outcome: Option<Outcome>,
}

pub(super) fn outcome(number: i16) -> Result<Outcome> {
    Outcome::from_number(number)
        .ok_or_else(|| StoreError::Damaged { what: "outcome", detail: number.to_string() })
}

impl Store {
    /// Requests of an account, newest first, before the row `before`.
    pub async fn requests(
        &self,
        account: AccountId,
        filter: RequestFilter,
        before: Option<i64>,
        limit: i64,
    ) -> Result<Vec<Logged>> {
        // Each in the order of an index: by `id` alone, PostgreSQL may walk everybody's.
        const OF_ACCOUNT: &str = "SELECT id, at, key_id, outcome, ip, method, route, status,
                latency_us, request_id,
                (SELECT r.id FROM root_keys r WHERE r.id = request_log.key_id) AS root_id
            FROM request_log
            WHERE account_id = $1 AND id < $2 AND (outcome = $4 OR $4 IS NULL)
            ORDER BY account_id DESC, id DESC LIMIT $3";
        const REFUSED: &str = "SELECT id, at, key_id, outcome, ip, method, route, status,
                latency_us, request_id,
                (SELECT r.id FROM root_keys r WHERE r.id = request_log.key_id) AS root_id
            FROM request_log
            WHERE account_id = $1 AND id < $2 AND outcome = $4 AND outcome <> 0
            ORDER BY account_id DESC, outcome DESC, id DESC LIMIT $3";
        const OF_KEY: &str = "SELECT id, at, key_id, outcome, ip, method, route, status,
                latency_us, request_id,
                (SELECT r.id FROM root_keys r WHERE r.id = request_log.key_id) AS root_id
            FROM request_log
            WHERE account_id = $1 AND id < $2 AND (outcome = $4 OR $4 IS NULL) AND key_id = $5
            ORDER BY key_id DESC, id DESC LIMIT $3";
        let (before, number) = (before.unwrap_or(i64::MAX), filter.outcome.map(Outcome::number));
        let refused = filter.outcome.is_some_and(|outcome| outcome != Outcome::Accepted);
        let rows: Vec<LoggedRow> = match filter.key {
            Some(key) => read!(self, c => sqlx::query_as(OF_KEY)
                .bind(account).bind(before).bind(limit).bind(number).bind(key)
                .fetch_all(c).await),
            None => {
                let sql = if refused { REFUSED } else { OF_ACCOUNT };
                read!(self, c => sqlx::query_as(sql)
                    .bind(account).bind(before).bind(limit).bind(number).fetch_all(c).await)
            }
        }?;
        rows.into_iter()
            .map(|row| {
                Ok(Logged {
                    id: row.id,
                    at: row.at,
                    key: row.key_id.filter(|_| row.root_id.is_none()),
                    root_key: row.root_id,
                    outcome: outcome(row.outcome)?,
                    ip: row.ip,
                    method: row.method,
                    route: row.route,
                    status: row.status,
                    latency_us: row.latency_us,
                    request_id: row.request_id,
                })
            })
            .collect()
    }

    /// The last accepted call with each of these keys; keys without one are left out. As of a moment ago:
    /// the log is written in batches.
    pub async fn last_used(&self, keys: &[KeyId]) -> Result<HashMap<KeyId, LastUse>> {
        // Arrays, or JSON where there are none.
        const PG: &str =
            "SELECT key_id, at, ip, route FROM key_last_used WHERE key_id = ANY($1::UUID[])";
        const LITE: &str = "SELECT key_id, at, ip, route FROM key_last_used
            WHERE key_id IN (SELECT unhex(value) FROM json_each($1))";
        type Row = (KeyId, i64, Option<String>, String);
        if keys.is_empty() {
            return Ok(HashMap::new());
        }
        let rows: Vec<Row> = match &mut self.reader().await? {
            Tx::Pg(lent) => {
                let keys: Vec<Uuid> = keys.iter().map(|key| key.0).collect();
                within!(lent, c => sqlx::query_as(PG).bind(keys).fetch_all(c).await)
            }
            Tx::Lite(lent) => {
                let keys: Vec<String> = keys.iter().map(|key| key.0.simple().to_string()).collect();
                let json = format!("[\"{}\"]", keys.join("\",\""));
                within!(lent, c => sqlx::query_as(LITE).bind(json).fetch_all(c).await)
            }
        }?;
        let used = |(key, at, ip, route)| (key, LastUse { at, ip, route });
        Ok(rows.into_iter().map(used).collect())
    }

    /// How often a key was refused since a moment: exactly, as refusals are never left out. For as long as
    /// the log is kept.
    pub async fn refused_since(
        &self,
        account: AccountId,
        key: KeyId,
        since: Millis,
    ) -> Result<i64> {
        const SQL: &str = "SELECT CAST((SELECT count(*) FROM request_log
                WHERE account_id = $1 AND key_id = $2 AND outcome <> 0 AND id >= $3 AND id < $4)
            + (SELECT COALESCE(SUM(requests), 0) FROM usage_hours
                WHERE account_id = $1 AND key_id = $2 AND outcome <> 0 AND at >= $5) AS BIGINT)";
        // The rest of its hour row by row, the hours after that from the sums.
        let next = By::Hour.start_of(since) + By::Hour.millis();
        read!(self, c => sqlx::query_scalar(SQL).bind(account).bind(key).bind(id_at(since))
            .bind(id_at(next)).bind(next).fetch_one(c).await)
    }

    /// Has the account this key, or had it? Deleted keys count.
    pub async fn had_key(&self, account: AccountId, key: KeyId) -> Result<bool> {
        const SQL: &str = "SELECT count(*) FROM api_keys WHERE id = $1 AND account_id = $2";
        let found: i64 = read!(self, c => sqlx::query_scalar(SQL)
            .bind(key).bind(account).fetch_one(c).await)?;
        Ok(found > 0)
    }
}

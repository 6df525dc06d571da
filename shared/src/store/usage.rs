//! What the request log tells: pages of requests, usage by hour or day, the last use of keys.
//!
//! Everything is asked by account, and read by an index that begins with it or with the key: nobody sees what is
//! another's. Usage is read from the sums that the log keeps (`usage_hours`, `usage_days`), never counted from
//! its rows.

use std::collections::HashMap;

use sqlx::FromRow;
use uuid::Uuid;

use super::request_log::id_at;
use super::{Result, Store, StoreError, Tx, read, within};
use crate::domain::clock::Millis;
use crate::domain::id::{AccountId, KeyId};
use crate::domain::request::{By, LastUse, Outcome};

/// A row of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// Its id; later requests have higher ones.
    pub id: i64,
    /// When it arrived.
    pub at: Millis,
    /// With which key.
    pub key: Option<KeyId>,
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
    /// With this key only.
    pub key: Option<KeyId>,
    /// That ended so only.
    pub outcome: Option<Outcome>,
}

/// What usage is split by, beside the period and the outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// By nothing else.
    None,
    /// By key.
    Key,
    /// By route.
    Route,
    /// By network.
    Network,
}

impl Split {
    /// As the statements know it.
    const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Key => "key",
            Self::Route => "route",
            Self::Network => "network",
        }
    }
}

/// Which usage is wanted.
#[derive(Debug, Clone, Copy)]
pub struct UsageFilter {
    /// Of this key only.
    pub key: Option<KeyId>,
    /// From this period on.
    pub from: Millis,
    /// Up to here, exclusive.
    pub to: Millis,
    /// In which periods.
    pub by: By,
    /// Split how.
    pub split: Split,
}

/// Requests of one period that ended alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Used {
    /// When the period began.
    pub at: Millis,
    /// Which key, where split by it; `None` = no key.
    pub key: Option<KeyId>,
    /// Which route or network, where split by it; else empty.
    pub name: String,
    /// How they ended.
    pub outcome: Outcome,
    /// How many.
    pub requests: i64,
}

#[derive(FromRow)]
struct UsedRow {
    at: i64,
    key_id: Option<KeyId>,
    name: String,
    outcome: i16,
    requests: i64,
}

fn outcome(number: i16) -> Result<Outcome> {
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
                latency_us, request_id
            FROM request_log
            WHERE account_id = $1 AND id < $2 AND (outcome = $4 OR $4 IS NULL)
            ORDER BY account_id DESC, id DESC LIMIT $3";
        const REFUSED: &str = "SELECT id, at, key_id, outcome, ip, method, route, status,
                latency_us, request_id
            FROM request_log
            WHERE account_id = $1 AND id < $2 AND outcome = $4 AND outcome <> 0
            ORDER BY account_id DESC, outcome DESC, id DESC LIMIT $3";
        const OF_KEY: &str = "SELECT id, at, key_id, outcome, ip, method, route, status,
                latency_us, request_id
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
                    key: row.key_id,
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

    /// Usage of an account, oldest first; up to `limit` rows.
    pub async fn usage(
        &self,
        account: AccountId,
        filter: UsageFilter,
        limit: i64,
    ) -> Result<Vec<Used>> {
        const HOURS: &str = "SELECT at, CASE WHEN $5 = 'key' THEN key_id END AS key_id,
                CASE $5 WHEN 'route' THEN route WHEN 'network' THEN network ELSE '' END AS name,
                outcome, CAST(SUM(requests) AS BIGINT) AS requests
            FROM usage_hours WHERE account_id = $1 AND at >= $2 AND at < $3
            GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4 LIMIT $4";
        const DAYS: &str = "SELECT at, CASE WHEN $5 = 'key' THEN key_id END AS key_id,
                CASE $5 WHEN 'route' THEN route WHEN 'network' THEN network ELSE '' END AS name,
                outcome, CAST(SUM(requests) AS BIGINT) AS requests
            FROM usage_days WHERE account_id = $1 AND at >= $2 AND at < $3
            GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4 LIMIT $4";
        const KEY_HOURS: &str = "SELECT at, CASE WHEN $5 = 'key' THEN key_id END AS key_id,
                CASE $5 WHEN 'route' THEN route WHEN 'network' THEN network ELSE '' END AS name,
                outcome, CAST(SUM(requests) AS BIGINT) AS requests
            FROM usage_hours WHERE account_id = $1 AND key_id = $6 AND at >= $2 AND at < $3
            GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4 LIMIT $4";
        const KEY_DAYS: &str = "SELECT at, CASE WHEN $5 = 'key' THEN key_id END AS key_id,
                CASE $5 WHEN 'route' THEN route WHEN 'network' THEN network ELSE '' END AS name,
                outcome, CAST(SUM(requests) AS BIGINT) AS requests
            FROM usage_days WHERE account_id = $1 AND key_id = $6 AND at >= $2 AND at < $3
            GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4 LIMIT $4";
        let UsageFilter { key, from, to, by, split } = filter;
        let rows: Vec<UsedRow> = match key {
            None => {
                let sql = if by == By::Hour { HOURS } else { DAYS };
                read!(self, c => sqlx::query_as(sql).bind(account).bind(from).bind(to)
                    .bind(limit).bind(split.as_str()).fetch_all(c).await)
            }
            Some(key) => {
                let sql = if by == By::Hour { KEY_HOURS } else { KEY_DAYS };
                read!(self, c => sqlx::query_as(sql).bind(account).bind(from).bind(to)
                    .bind(limit).bind(split.as_str()).bind(key).fetch_all(c).await)
            }
        }?;
        rows.into_iter()
            .map(|row| {
                Ok(Used {
                    at: row.at,
                    key: row.key_id.filter(|key| *key != KeyId::FIRST),
                    name: row.name,
                    outcome: outcome(row.outcome)?,
                    requests: row.requests,
                })
            })
            .collect()
    }

    /// Credits that were charged through a key, by period; periods without any are left out. Those of a task
    /// count when it has ended.
    pub async fn credits_in(
        &self,
        account: AccountId,
        key: KeyId,
        filter: UsageFilter,
    ) -> Result<HashMap<Millis, i64>> {
        const SQL: &str = "SELECT hour, credits FROM usage_credits
            WHERE key_id = $1 AND account_id = $2 AND hour >= $3 AND hour < $4";
        let rows: Vec<(i64, i64)> = read!(self, c => sqlx::query_as(SQL)
            .bind(key).bind(account).bind(filter.from).bind(filter.to).fetch_all(c).await)?;
        let mut sums = HashMap::new();
        for (hour, credits) in rows {
            *sums.entry(filter.by.start_of(hour)).or_default() += credits;
        }
        Ok(sums)
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

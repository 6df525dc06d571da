//! Usage by hour or day: requests and credits, read from the sums that are kept (`usage_hours`, `usage_days`,
//! `usage_credits`), never counted from rows of the log.
//!
//! A question reads the rows of its window and of the keys that it is about, by an index that begins with the
//! account. Usage by external id is that of the keys that have this external id now, or had it when they were
//! deleted: the sums name the key alone.

use sqlx::{FromRow, QueryBuilder};

use super::usage::outcome;
use super::{Result, Store, Tx, within};
use crate::domain::clock::Millis;
use crate::domain::id::{AccountId, KeyId, RootKeyId};
use crate::domain::request::{By, Outcome};

/// What usage is split by, beside the period and the outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// By nothing else.
    None,
    /// By key.
    Key,
    /// By the external id of the key.
    ExternalId,
    /// By route.
    Route,
    /// By network.
    Network,
}

impl Split {
    /// The columns `key_id` and `name` of sums `u` and keys `k`.
    const fn columns(self) -> &'static str {
        match self {
            Self::None => "CASE WHEN FALSE THEN u.key_id END AS key_id, CAST('' AS TEXT) AS name",
            Self::Key => "u.key_id AS key_id, CAST('' AS TEXT) AS name",
            Self::ExternalId => {
                "CASE WHEN FALSE THEN u.key_id END AS key_id, COALESCE(k.external_id, '') AS name"
            }
            Self::Route => "CASE WHEN FALSE THEN u.key_id END AS key_id, u.route AS name",
            Self::Network => "CASE WHEN FALSE THEN u.key_id END AS key_id, u.network AS name",
        }
    }
}

/// Whose usage, of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Of {
    /// All of it.
    Account,
    /// Of this key.
    Key(KeyId),
    /// Of this key and those that rotation joined it with.
    Family(KeyId),
    /// Of the keys with this external id.
    ExternalId(String),
}

/// Which usage is wanted.
#[derive(Debug, Clone)]
pub struct UsageFilter {
    /// Whose.
    pub of: Of,
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
    /// Which key, where split by it; `None` = no key, or a root key.
    pub key: Option<KeyId>,
    /// Which root key, where split by key.
    pub root_key: Option<RootKeyId>,
    /// Which external id, route or network, where split by it; else empty. Empty external id: none.
    pub name: String,
    /// How they ended.
    pub outcome: Outcome,
    /// How many.
    pub requests: i64,
}

/// Credits charged in one period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spent {
    /// When the period began.
    pub at: Millis,
    /// Through which key, where split by it.
    pub key: Option<KeyId>,
    /// For which external id, where split by it; else empty.
    pub name: String,
    /// How many.
    pub credits: i64,
}

#[derive(FromRow)]
struct UsedRow {
    at: i64,
    key_id: Option<KeyId>,
    root_id: Option<RootKeyId>,
    name: String,
    outcome: i16,
    requests: i64,
}

#[derive(FromRow)]
struct SpentRow {
    at: i64,
    key_id: Option<KeyId>,
    name: String,
    credits: i64,
}

/// Brings the keys `k` to the sums `u`, where the split needs them: the account's alone, so that nobody reads all.
macro_rules! push_keys {
    ($sql:ident, $split:expr, $account:expr) => {
        if $split == Split::ExternalId {
            $sql.push(" LEFT JOIN api_keys k ON k.id = u.key_id AND k.account_id = ")
                .push_bind($account);
        }
    };
}

/// Bounds a statement to whose usage is asked for; `u` are the sums.
macro_rules! push_of {
    ($sql:ident, $of:expr, $account:expr) => {
        match $of {
            Of::Account => {}
            Of::Key(key) => {
                $sql.push(" AND u.key_id = ").push_bind(*key);
            }
            Of::Family(key) => {
                $sql.push(" AND u.key_id IN (SELECT f.id FROM api_keys f WHERE f.account_id = ")
                    .push_bind($account)
                    .push(" AND f.family = (SELECT o.family FROM api_keys o WHERE o.id = ")
                    .push_bind(*key)
                    .push("))");
            }
            Of::ExternalId(id) => {
                $sql.push(" AND u.key_id IN (SELECT f.id FROM api_keys f WHERE f.account_id = ")
                    .push_bind($account)
                    .push(" AND f.external_id = ")
                    .push_bind(id.as_str())
                    .push(")");
            }
        }
    };
}

impl Store {
    /// Usage of an account, oldest first; up to `limit` rows.
    pub async fn usage(
        &self,
        account: AccountId,
        filter: &UsageFilter,
        limit: i64,
    ) -> Result<Vec<Used>> {
        let table = if filter.by == By::Hour { "usage_hours" } else { "usage_days" };
        macro_rules! find {
            ($pool:expr) => {{
                let mut sql = QueryBuilder::new(
                    "SELECT s.at, s.key_id, s.name, s.outcome, s.requests,
                        (SELECT r.id FROM root_keys r WHERE r.id = s.key_id) AS root_id
                    FROM (SELECT u.at AS at, ",
                );
                sql.push(filter.split.columns())
                    .push(
                        ", u.outcome AS outcome, CAST(SUM(u.requests) AS BIGINT) AS requests FROM ",
                    )
                    .push(table)
                    .push(" u");
                push_keys!(sql, filter.split, account);
                sql.push(" WHERE u.account_id = ")
                    .push_bind(account)
                    .push(" AND u.at >= ")
                    .push_bind(filter.from)
                    .push(" AND u.at < ")
                    .push_bind(filter.to);
                push_of!(sql, &filter.of, account);
                sql.push(" GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4 LIMIT ")
                    .push_bind(limit)
                    .push(") s ORDER BY 1, 2, 3, 4");
                sql.build_query_as().fetch_all($pool).await
            }};
        }
        let rows: Vec<UsedRow> = match &mut self.reader().await? {
            Tx::Pg(lent) => within!(lent, c => find!(c)),
            Tx::Lite(lent) => within!(lent, c => find!(c)),
        }?;
        rows.into_iter()
            .map(|row| {
                let is_key = |key: &KeyId| *key != KeyId::FIRST && row.root_id.is_none();
                Ok(Used {
                    at: row.at,
                    key: row.key_id.filter(is_key),
                    root_key: row.root_id,
                    name: row.name,
                    outcome: outcome(row.outcome)?,
                    requests: row.requests,
                })
            })
            .collect()
    }

    /// Credits that were charged through keys of an account, oldest first, up to `limit` rows; periods without
    /// any are left out. Those of a task count when it has ended. By route or network they are not known.
    pub async fn credits_in(
        &self,
        account: AccountId,
        filter: &UsageFilter,
        limit: i64,
    ) -> Result<Vec<Spent>> {
        if matches!(filter.split, Split::Route | Split::Network) {
            return Ok(Vec::new());
        }
        // The first millisecond of a day: hours are stored as theirs.
        let period = match filter.by {
            By::Hour => "u.hour",
            By::Day => "u.hour - u.hour % 86400000",
        };
        macro_rules! find {
            ($pool:expr) => {{
                let mut sql = QueryBuilder::new("SELECT ");
                sql.push(period)
                    .push(" AS at, ")
                    .push(filter.split.columns())
                    .push(", CAST(SUM(u.credits) AS BIGINT) AS credits FROM usage_credits u");
                push_keys!(sql, filter.split, account);
                sql.push(" WHERE u.account_id = ")
                    .push_bind(account)
                    .push(" AND u.hour >= ")
                    .push_bind(filter.from)
                    .push(" AND u.hour < ")
                    .push_bind(filter.to);
                push_of!(sql, &filter.of, account);
                sql.push(" GROUP BY 1, 2, 3 ORDER BY 1, 2, 3 LIMIT ").push_bind(limit);
                sql.build_query_as().fetch_all($pool).await
            }};
        }
        let rows: Vec<SpentRow> = match &mut self.reader().await? {
            Tx::Pg(lent) => within!(lent, c => find!(c)),
            Tx::Lite(lent) => within!(lent, c => find!(c)),
        }?;
        let spent = |row: SpentRow| Spent {
            at: row.at,
            key: row.key_id,
            name: row.name,
            credits: row.credits,
        };
        Ok(rows.into_iter().map(spent).collect())
    }
}

//! Keys: one row each, never removed, so that attempts with a deleted one can be told from noise.
//!
//! * What a key is and may do stands in its own row; a limit of credits that several share in the row of one of
//!   them (`budget`), whose id they all name.
//! * How rows are changed: [`super::key_edits`]; what is spent: [`super::key_credits`].

use ipnet::IpNet;
use sqlx::{FromRow, QueryBuilder};

use super::key_credits::CreditRow;
use super::suspensions::suspended;
use super::{Result, Store, StoreError, Tx, read, within};
use crate::domain::audit::Actor;
use crate::domain::clock::Millis;
use crate::domain::id::{AccountId, ApiId, KeyId, TaskId};
use crate::domain::key::{Environment, Key, Scopes, Service, Suspension};
use crate::domain::task::TaskStatus;

/// What `budget`'s row holds, read from there.
macro_rules! shared {
    ($column:literal) => {
        concat!(
            "CASE WHEN k.budget = k.id THEN k.",
            $column,
            " ELSE (SELECT b.",
            $column,
            " FROM api_keys b WHERE b.id = k.budget) END AS ",
            $column
        )
    };
}

/// The columns of a [`KeyRow`], of `api_keys k`.
macro_rules! columns {
    () => {
        concat!(
            "k.id, k.account_id, k.start, k.label, k.note, k.environment, k.stage, k.scopes, k.disabled,
            k.suspended_reason, k.suspended_until, k.suspended_note, k.deleted_at, k.expires_at,
            k.not_before, k.allow, k.rate_limit, k.limits, k.external_id, k.meta, k.made_by_key,
            k.made_by_person, k.family, k.budget, k.replaced_by, k.api_id, k.service, k.created_at, ",
            shared!("credit_limit"), ", ", shared!("credit_used"), ", ",
            shared!("refill_interval"), ", ", shared!("refill_amount"), ", ",
            shared!("refill_day"), ", ", shared!("refill_at")
        )
    };
}

pub(super) use {columns, shared};

/// Those of the gate, each with its account's suspension and with what concerns every caller.
pub(super) const BY_HASH: &str = concat!(
    "SELECT k.hash, v.value AS ip_blocks, f.thousandths, f.ends_at, ",
    suspended!(),
    ", ",
    columns!(),
    " FROM api_keys k CROSS JOIN versions v CROSS JOIN limit_factor f
    LEFT JOIN suspended_accounts x ON x.account_id = k.account_id
    WHERE v.name = 'ip_blocks' AND f.id = 1 AND k.api_id IS NULL AND k.hash IN ("
);

/// One that is not deleted, of this account or of anybody's.
pub(super) const TO_EDIT: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM api_keys k
    WHERE k.id = $1 AND (k.account_id = $2 AND k.api_id IS NULL OR $2 IS NULL)
      AND k.deleted_at IS NULL"
);

/// Those of an api, which the gate never sees.
pub(super) const OF_APIS_BY_HASH: &str = concat!(
    "SELECT k.hash, ",
    columns!(),
    " FROM api_keys k JOIN apis a ON a.id = k.api_id WHERE a.deleted_at IS NULL AND k.hash IN ("
);

/// A page of an account's keys, newest first: before the id `$2`, that hold the pattern `$3` (empty = all), and that
/// are at `$4` in the state `$5` (`any`, or empty = not deleted; as [`Key::status`], and `not_yet`).
pub(super) const SEARCHED: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM api_keys k
    WHERE k.account_id = $1 AND k.id < $2 AND k.api_id IS NULL
      AND ($3 = '' OR lower(k.label) LIKE lower($3) ESCAPE '\\'
        OR lower(k.external_id) LIKE lower($3) ESCAPE '\\' OR lower(k.start) LIKE lower($3) ESCAPE '\\')
      AND CASE
        WHEN k.deleted_at IS NOT NULL THEN $5 IN ('any', 'deleted')
        WHEN k.disabled THEN $5 IN ('any', '', 'disabled')
        WHEN k.suspended_reason IS NOT NULL AND (k.suspended_until IS NULL OR k.suspended_until > $4)
          THEN $5 IN ('any', '', 'suspended')
        WHEN k.expires_at <= $4 THEN $5 IN ('any', '', 'expired')
        WHEN k.not_before > $4 THEN $5 IN ('any', '', 'not_yet')
        ELSE $5 IN ('any', '', 'active') END
    ORDER BY k.account_id DESC, k.id DESC LIMIT $6"
);

#[derive(FromRow)]
pub(super) struct KeyRow {
    id: KeyId,
    account_id: AccountId,
    start: String,
    label: String,
    note: Option<String>,
    environment: String,
    stage: Option<String>,
    scopes: i32,
    disabled: bool,
    suspended_reason: Option<String>,
    suspended_until: Option<i64>,
    suspended_note: Option<String>,
    deleted_at: Option<i64>,
    expires_at: Option<i64>,
    not_before: Option<i64>,
    allow: String,
    rate_limit: Option<i64>,
    limits: String,
    external_id: Option<String>,
    meta: Option<String>,
    made_by_key: Option<KeyId>,
    made_by_person: Option<String>,
    family: KeyId,
    budget: KeyId,
    replaced_by: Option<KeyId>,
    api_id: Option<ApiId>,
    service: Option<String>,
    created_at: i64,
    #[sqlx(flatten)]
    credit: CreditRow,
}

impl TryFrom<KeyRow> for Key {
    type Error = StoreError;

    /// Fails where a row cannot be read: it must not open more than was meant.
    fn try_from(row: KeyRow) -> Result<Self> {
        let damaged = |what: &'static str, detail: &str| StoreError::Damaged {
            what,
            detail: format!("{}: {detail:?}", row.id),
        };
        let allow = row
            .allow
            .split_ascii_whitespace()
            .map(|text| text.parse::<IpNet>().map_err(|_| damaged("networks of a key", text)));
        let limits = match row.limits.as_str() {
            "[]" => Ok(Vec::new()),
            text => serde_json::from_str(text).map_err(|_| damaged("limits of a key", text)),
        };
        let service = match row.service.as_deref() {
            None => Ok(Service::default()),
            Some(text) => serde_json::from_str(text).map_err(|_| damaged("key of an api", text)),
        };
        let environment = Environment::parse(&row.environment);
        Ok(Key {
            api: row.api_id,
            service: service?,
            environment: environment
                .ok_or_else(|| damaged("environment of a key", &row.environment))?,
            allow: allow.collect::<Result<_>>()?,
            limits: limits?,
            id: row.id,
            account: row.account_id,
            start: row.start,
            label: row.label,
            note: row.note,
            stage: row.stage,
            scopes: Scopes::from_bits(row.scopes),
            disabled: row.disabled,
            suspended: row.suspended_reason.map(|reason| Suspension {
                reason,
                until: row.suspended_until,
                note: row.suspended_note,
            }),
            deleted_at: row.deleted_at,
            expires_at: row.expires_at,
            not_before: row.not_before,
            rate_limit: row.rate_limit,
            credit_limit: row.credit.read(),
            external_id: row.external_id,
            meta: row.meta,
            maker: match (row.made_by_key, row.made_by_person) {
                (Some(key), _) => Actor::Key(key),
                (None, Some(person)) => Actor::Person(person),
                (None, None) => Actor::Operator,
            },
            family: row.family,
            budget: row.budget,
            replaced_by: row.replaced_by,
            created_at: row.created_at,
        })
    }
}

/// Which keys.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Of this account; `None` = everybody's.
    pub account: Option<AccountId>,
    /// Given to this external id.
    pub external_id: Option<String>,
    /// Of this environment.
    pub environment: Option<Environment>,
    /// Of this stage.
    pub stage: Option<String>,
    /// Made by this key.
    pub made_by: Option<KeyId>,
    /// Of this api; of an account, `None` means the keys of our own gate alone.
    pub api: Option<ApiId>,
    /// Due for rotation.
    pub due: Option<Due>,
}

/// Which keys are due for rotation: as [`Key::rotation_due_at`] has it.
#[derive(Debug, Clone, Copy)]
pub struct Due {
    /// The age at which they are.
    pub reminder: Millis,
    /// Now.
    pub now: Millis,
}

impl Store {
    /// One key that is not deleted; `account` = only if it owns it, and it is one of our own gate.
    pub async fn key(&self, id: KeyId, account: Option<AccountId>) -> Result<Option<Key>> {
        let key = self.any_key(id, account).await?;
        Ok(key.filter(|key| key.deleted_at.is_none()))
    }

    /// Likewise, deleted ones included.
    pub async fn any_key(&self, id: KeyId, account: Option<AccountId>) -> Result<Option<Key>> {
        const SQL: &str = concat!(
            "SELECT ",
            columns!(),
            " FROM api_keys k
            WHERE k.id = $1 AND (k.account_id = $2 AND k.api_id IS NULL OR $2 IS NULL)"
        );
        let row: Option<KeyRow> = read!(self, c => sqlx::query_as(SQL)
            .bind(id).bind(account).fetch_optional(c).await)?;
        row.map(Key::try_from).transpose()
    }

    /// When a key was last switched off, suspended or deleted.
    pub async fn key_ended_at(&self, id: KeyId) -> Result<Option<Millis>> {
        const SQL: &str = "SELECT ended_at FROM api_keys WHERE id = $1";
        let found: Option<Option<i64>> =
            read!(self, c => sqlx::query_scalar(SQL).bind(id).fetch_optional(c).await)?;
        Ok(found.flatten())
    }

    /// Keys that are not deleted, oldest first, after `cursor`.
    pub async fn keys(
        &self,
        filter: &Filter,
        cursor: Option<KeyId>,
        limit: i64,
    ) -> Result<Vec<Key>> {
        const SQL: &str =
            concat!("SELECT ", columns!(), " FROM api_keys k WHERE k.deleted_at IS NULL");
        macro_rules! find {
            ($pool:expr) => {{
                let mut sql = QueryBuilder::new(SQL);
                if let Some(account) = filter.account {
                    sql.push(" AND k.account_id = ").push_bind(account);
                }
                if let Some(api) = filter.api {
                    sql.push(" AND k.api_id = ").push_bind(api);
                } else if filter.account.is_some() {
                    sql.push(" AND k.api_id IS NULL");
                }
                if let Some(id) = &filter.external_id {
                    sql.push(" AND k.external_id = ").push_bind(id);
                }
                if let Some(environment) = filter.environment {
                    sql.push(" AND k.environment = ").push_bind(environment.as_str());
                }
                if let Some(stage) = &filter.stage {
                    sql.push(" AND k.stage = ").push_bind(stage);
                }
                if let Some(maker) = filter.made_by {
                    sql.push(" AND k.made_by_key = ").push_bind(maker);
                }
                if let Some(Due { reminder, now }) = filter.due {
                    sql.push(" AND k.environment = 'live' AND k.replaced_by IS NULL AND k.created_at <= ")
                        .push_bind(now.saturating_sub(reminder));
                    sql.push(" AND (k.expires_at IS NULL OR k.expires_at > k.created_at + ")
                        .push_bind(reminder)
                        .push(")");
                }
                if let Some(cursor) = cursor {
                    sql.push(" AND k.id > ").push_bind(cursor);
                }
                sql.push(" ORDER BY k.id LIMIT ").push_bind(limit);
                sql.build_query_as().fetch_all($pool).await
            }};
        }
        let mut reader = self.reader().await?;
        let rows: Vec<KeyRow> = match &mut reader {
            Tx::Pg(lent) => within!(lent, c => find!(c)),
            Tx::Lite(lent) => within!(lent, c => find!(c)),
        }?;
        rows.into_iter().map(Key::try_from).collect()
    }

    /// Unended tasks that a key submitted, with their status.
    pub async fn live_tasks_of_key(&self, key: KeyId) -> Result<Vec<(TaskId, TaskStatus)>> {
        const SQL: &str = "SELECT id, status FROM tasks
            WHERE created_by_key = $1 AND deleted_at IS NULL
              AND status IN ('queued', 'running', 'paused') ORDER BY id LIMIT 1000";
        let rows: Vec<(TaskId, String)> =
            read!(self, c => sqlx::query_as(SQL).bind(key).fetch_all(c).await)?;
        let read = |(id, status): (TaskId, String)| match status.parse() {
            Ok(status) => Ok((id, status)),
            Err(_) => Err(StoreError::Damaged { what: "task status", detail: status }),
        };
        rows.into_iter().map(read).collect()
    }

    /// Does this key belong to the family?
    pub async fn is_of_family(&self, family: KeyId, key: KeyId) -> Result<bool> {
        const SQL: &str = "SELECT id FROM api_keys WHERE id = $1 AND family = $2";
        let found: Option<KeyId> = read!(self, c => sqlx::query_scalar(SQL).bind(key).bind(family).fetch_optional(c).await)?;
        Ok(found.is_some())
    }
}

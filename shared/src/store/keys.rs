//! Keys: one row each, never removed, so that attempts with a deleted one can be told from noise.
//!
//! * What a key is and may do stands in its own row; a limit of credits that several share in the row of one of
//!   them (`budget`), whose id they all name.
//! * Every change reads the row under its lock, changes the [`Key`], and writes all of it: what is checked is
//!   what is changed.
//! * Lock order: task → batch → keys (by id) → account.

use std::collections::HashMap;

use ipnet::IpNet;
use serde_json::json;
use sqlx::{FromRow, QueryBuilder};
use uuid::Uuid;

use super::audit_log::write_down;
use super::{Result, Store, StoreError, Tx, expect_rows, on, read, within};
use crate::domain::audit::{Actor, Change, Origin};
use crate::domain::clock::{Millis, rfc3339};
use crate::domain::id::{AccountId, ApiId, KeyId, TaskId};
use crate::domain::key::{
    CreditLimit, Environment, Interval, Key, KeyHash, Refill, Scopes, Service, Suspension,
};
use crate::domain::request::By;
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

pub(super) const BY_HASH: &str = concat!(
    "SELECT k.hash, ",
    columns!(),
    " FROM api_keys k WHERE k.api_id IS NULL AND k.hash IN ("
);

/// Those of an api, which the gate never sees.
pub(super) const OF_APIS_BY_HASH: &str = concat!(
    "SELECT k.hash, ",
    columns!(),
    " FROM api_keys k JOIN apis a ON a.id = k.api_id WHERE a.deleted_at IS NULL AND k.hash IN ("
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

#[derive(FromRow)]
pub(super) struct CreditRow {
    credit_limit: Option<i64>,
    credit_used: i64,
    refill_interval: Option<String>,
    refill_amount: Option<i64>,
    refill_day: Option<i16>,
    refill_at: Option<i64>,
}

impl CreditRow {
    pub(super) fn read(self) -> Option<CreditLimit> {
        let limit = self.credit_limit?;
        let interval = self.refill_interval.as_deref().and_then(Interval::parse);
        let refill = match (interval, self.refill_amount, self.refill_at) {
            (Some(interval), Some(amount), Some(at)) => {
                Some(Refill { interval, amount, day: self.refill_day.unwrap_or(1), at })
            }
            _ => None,
        };
        Some(CreditLimit { limit, used: self.credit_used, refill })
    }
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
}

/// What an edit of a key came to.
#[derive(Debug)]
pub enum Edited<E> {
    /// No such key, or deleted.
    Missing,
    /// The edit itself refused; nothing is changed.
    Refused(E),
    /// The key before and after.
    Done(Box<(Key, Key)>),
}

/// Where a key's hash came from.
#[derive(Debug, Clone, Copy)]
pub struct Hashed<'a> {
    /// What is looked up.
    pub hash: &'a KeyHash,
    /// Id of the pepper in it.
    pub pepper: &'a str,
}

/// How a change is written down in the audit log.
#[derive(Debug, Clone, Copy)]
pub struct Mark<'a> {
    /// What is done, such as `key.disable`.
    pub action: &'static str,
    /// Who does it.
    pub by: &'a Origin,
}

impl Store {
    /// Stores a new key.
    pub async fn create_key(&self, key: &Key, hashed: Hashed<'_>, by: &Origin) -> Result<()> {
        let mut tx = self.begin().await?;
        insert(&mut tx, key, hashed).await?;
        note_made(&mut tx, by, key).await?;
        tx.commit().await
    }

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

    /// Changes a key that is not deleted, in one transaction; `account` = only if it owns it, and it is one of
    /// our own gate. When it has
    /// returned, every gate judges by the new state. `edit` may not change whose key it is, nor its budget.
    pub async fn edit_key<E: Send>(
        &self,
        id: KeyId,
        account: Option<AccountId>,
        edit: impl FnOnce(&mut Key) -> std::result::Result<(), E> + Send,
        mark: Mark<'_>,
        now: Millis,
    ) -> Result<Edited<E>> {
        let mut tx = self.begin().await?;
        let edited = edit_in(&mut tx, id, account, edit, now).await?;
        if let Edited::Done(keys) = &edited {
            note(&mut tx, &mark, &keys.0, &keys.1, now).await?;
            tx.commit().await?;
        }
        Ok(edited)
    }

    /// Changes several keys in one transaction, all or none; those that are gone are left out.
    pub async fn edit_keys(
        &self,
        ids: &[KeyId],
        account: Option<AccountId>,
        edit: impl Fn(&mut Key) + Send + Sync,
        mark: Mark<'_>,
        now: Millis,
    ) -> Result<Vec<Key>> {
        let mut ids = ids.to_vec();
        // Everybody locks them in one order.
        ids.sort_unstable();
        let mut tx = self.begin().await?;
        let mut done = Vec::with_capacity(ids.len());
        for id in ids {
            let one = |key: &mut Key| {
                edit(key);
                Ok::<_, std::convert::Infallible>(())
            };
            match edit_in(&mut tx, id, account, one, now).await? {
                Edited::Done(key) => done.push(*key),
                Edited::Missing => {}
                Edited::Refused(never) => match never {},
            }
        }
        // Last, so that nobody who has a key waits for the chain while we wait for that key.
        for (was, key) in &done {
            note(&mut tx, &mark, was, key, now).await?;
        }
        tx.commit().await?;
        Ok(done.into_iter().map(|(_, key)| key).collect())
    }

    /// Puts a new key in the place of another: `edit` changes the old one.
    pub async fn replace_key<E: Send>(
        &self,
        old: KeyId,
        account: Option<AccountId>,
        edit: impl FnOnce(&mut Key) -> std::result::Result<Key, E> + Send,
        hashed: Hashed<'_>,
        mark: Mark<'_>,
        now: Millis,
    ) -> Result<Edited<E>> {
        let mut tx = self.begin().await?;
        let mut made = None;
        let edit = |key: &mut Key| {
            made = Some(edit(key)?);
            Ok(())
        };
        let edited = edit_in(&mut tx, old, account, edit, now).await?;
        if let (Edited::Done(keys), Some(key)) = (&edited, &made) {
            insert(&mut tx, key, hashed).await?;
            note(&mut tx, &mark, &keys.0, &keys.1, now).await?;
            note_made(&mut tx, mark.by, key).await?;
            tx.commit().await?;
        }
        Ok(edited)
    }

    /// Takes back what a key's limit counts for ended tasks and were not charged, and writes down what they
    /// charged, some at a time; how many tasks that were.
    pub async fn count_key_credits(&self, limit: i64) -> Result<usize> {
        const PG: &str =
            "SELECT t.id, t.account_id, t.created_by_key, t.key_reserved, t.charged, t.finished_at
            FROM tasks t WHERE t.key_reserved IS NOT NULL
              AND t.status IN ('completed', 'cancelled', 'failed')
            ORDER BY t.id LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED";
        // SQLite has one writer, and we are it.
        const LITE: &str =
            "SELECT t.id, t.account_id, t.created_by_key, t.key_reserved, t.charged, t.finished_at
            FROM tasks t WHERE t.key_reserved IS NOT NULL
              AND t.status IN ('completed', 'cancelled', 'failed')
            ORDER BY t.id LIMIT $1";
        const COUNTED: &str =
            "UPDATE tasks SET key_reserved = NULL WHERE id = $1 AND key_reserved IS NOT NULL";
        let mut tx = self.begin().await?;
        let sql = if matches!(tx, Tx::Pg(_)) { PG } else { LITE };
        let mut ended: Vec<UncountedRow> =
            on!(&mut tx, c => sqlx::query_as(sql).bind(limit).fetch_all(c).await)?;
        ended.sort_unstable_by_key(|task| task.created_by_key);
        for task in &ended {
            let rows = on!(&mut tx, c => sqlx::query(COUNTED).bind(task.id)
                .execute(c).await.map(|r| r.rows_affected()))?;
            expect_rows("count task", rows, 1)?;
            let Some(key) = task.created_by_key else { continue };
            let finished = task.finished_at.unwrap_or_default();
            count_charged(&mut tx, key, task.account_id, task.charged, finished).await?;
            let unused = task.key_reserved - task.charged;
            if unused > 0 {
                give_back(&mut tx, key, unused).await?;
            }
        }
        if !ended.is_empty() {
            tx.commit().await?;
        }
        Ok(ended.len())
    }

    /// Credits charged through each of these keys, ever; what running tasks have charged so far included.
    pub async fn credits_by_key(&self, keys: &[KeyId]) -> Result<HashMap<KeyId, i64>> {
        // Arrays, or JSON where there are none.
        const ENDED_PG: &str = "SELECT key_id, CAST(SUM(credits) AS BIGINT) FROM usage_credits
            WHERE key_id = ANY($1::UUID[]) GROUP BY key_id";
        const ENDED_LITE: &str = "SELECT key_id, CAST(SUM(credits) AS BIGINT) FROM usage_credits
            WHERE key_id IN (SELECT unhex(value) FROM json_each($1)) GROUP BY key_id";
        const RUNNING_PG: &str = "SELECT created_by_key, CAST(SUM(charged) AS BIGINT) FROM tasks
            WHERE created_by_key = ANY($1::UUID[]) AND deleted_at IS NULL AND key_reserved IS NOT NULL
            GROUP BY created_by_key";
        const RUNNING_LITE: &str = "SELECT created_by_key, CAST(SUM(charged) AS BIGINT) FROM tasks
            WHERE created_by_key IN (SELECT unhex(value) FROM json_each($1)) AND deleted_at IS NULL
              AND key_reserved IS NOT NULL
            GROUP BY created_by_key";
        let mut sums = HashMap::new();
        if keys.is_empty() {
            return Ok(sums);
        }
        let mut rows: Vec<(KeyId, i64)> = Vec::new();
        match &mut self.reader().await? {
            Tx::Pg(lent) => {
                let keys: Vec<Uuid> = keys.iter().map(|key| key.0).collect();
                for sql in [ENDED_PG, RUNNING_PG] {
                    let some: Vec<(KeyId, i64)> = within!(&mut *lent, c => sqlx::query_as(sql)
                        .bind(&keys).fetch_all(c).await)?;
                    rows.extend(some);
                }
            }
            Tx::Lite(lent) => {
                let keys: Vec<String> = keys.iter().map(|key| key.0.simple().to_string()).collect();
                let json = format!("[\"{}\"]", keys.join("\",\""));
                for sql in [ENDED_LITE, RUNNING_LITE] {
                    let some: Vec<(KeyId, i64)> = within!(&mut *lent, c => sqlx::query_as(sql)
                        .bind(&json).fetch_all(c).await)?;
                    rows.extend(some);
                }
            }
        }
        for (key, credits) in rows {
            *sums.entry(key).or_default() += credits;
        }
        Ok(sums)
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

#[derive(FromRow)]
struct UncountedRow {
    id: TaskId,
    account_id: AccountId,
    created_by_key: Option<KeyId>,
    key_reserved: i64,
    charged: i64,
    finished_at: Option<i64>,
}

async fn insert(tx: &mut Tx, key: &Key, hashed: Hashed<'_>) -> Result<()> {
    const SQL: &str = "INSERT INTO api_keys
        (id, account_id, hash, pepper, start, label, note, environment, stage, scopes, disabled,
         expires_at, not_before, allow, rate_limit, limits, external_id, meta, made_by_key,
         made_by_person, family, budget, api_id, service, created_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19,
         $20, $21, $22, $23, $24, $25)";
    let ((by_key, by_person), limits, service) = (maker(&key.maker), limits(key)?, service(key)?);
    on!(&mut *tx, c => sqlx::query(SQL)
        .bind(key.id).bind(key.account).bind(&hashed.hash[..]).bind(hashed.pepper).bind(&key.start)
        .bind(&key.label).bind(&key.note).bind(key.environment.as_str()).bind(&key.stage)
        .bind(key.scopes.bits()).bind(key.disabled).bind(key.expires_at).bind(key.not_before)
        .bind(networks(&key.allow)).bind(key.rate_limit).bind(limits).bind(&key.external_id)
        .bind(&key.meta).bind(by_key).bind(by_person).bind(key.family).bind(key.budget).bind(key.api).bind(service)
        .bind(key.created_at)
        .execute(c).await.map(|_| ()))?;
    if key.budget == key.id {
        write_limit(tx, key.id, key.credit_limit).await?;
    }
    Ok(())
}

async fn edit_in<E>(
    tx: &mut Tx,
    id: KeyId,
    account: Option<AccountId>,
    edit: impl FnOnce(&mut Key) -> std::result::Result<(), E> + Send,
    now: Millis,
) -> Result<Edited<E>> {
    const SQL: &str = "UPDATE api_keys SET label = $2, note = $3, environment = $4, stage = $5, scopes = $6,
            disabled = $7, suspended_reason = $8, suspended_until = $9, suspended_note = $10,
            deleted_at = $11, expires_at = $12, not_before = $13, allow = $14, rate_limit = $15,
            limits = $16, external_id = $17, meta = $18, replaced_by = $19, ended_at = COALESCE($20, ended_at),
            service = $21
        WHERE id = $1 AND deleted_at IS NULL";
    let Some(before) = lock(tx, id, account).await? else { return Ok(Edited::Missing) };
    let mut key = before.clone();
    if let Err(refused) = edit(&mut key) {
        return Ok(Edited::Refused(refused));
    }
    let ended = before.alive(now).is_ok() && key.alive(now).is_err();
    let (suspended, limits, service) = (key.suspended.as_ref(), limits(&key)?, service(&key)?);
    let rows = on!(&mut *tx, c => sqlx::query(SQL)
        .bind(id).bind(&key.label).bind(&key.note).bind(key.environment.as_str()).bind(&key.stage)
        .bind(key.scopes.bits()).bind(key.disabled).bind(suspended.map(|one| &one.reason))
        .bind(suspended.and_then(|one| one.until)).bind(suspended.and_then(|one| one.note.as_ref()))
        .bind(key.deleted_at).bind(key.expires_at).bind(key.not_before).bind(networks(&key.allow))
        .bind(key.rate_limit).bind(limits).bind(&key.external_id).bind(&key.meta)
        .bind(key.replaced_by).bind(ended.then_some(now)).bind(service)
        .execute(c).await.map(|r| r.rows_affected()))?;
    expect_rows("edit key", rows, 1)?;
    if key.credit_limit != before.credit_limit {
        write_limit(tx, key.budget, key.credit_limit).await?;
    }
    Ok(Edited::Done(Box::new((before, key))))
}

/// Locks a key that is not deleted, and the row of its budget.
async fn lock(tx: &mut Tx, id: KeyId, account: Option<AccountId>) -> Result<Option<Key>> {
    const SQL: &str = concat!(
        "SELECT ",
        columns!(),
        " FROM api_keys k
        WHERE k.id = $1 AND (k.account_id = $2 AND k.api_id IS NULL OR $2 IS NULL)
          AND k.deleted_at IS NULL"
    );
    const PG: &str = "SELECT id FROM api_keys
        WHERE id = $1 OR id = (SELECT budget FROM api_keys WHERE id = $1) ORDER BY id FOR NO KEY UPDATE";
    if let Tx::Pg(lent) = &mut *tx {
        within!(lent, c => sqlx::query(PG).bind(id).execute(c).await)?;
    }
    let row: Option<KeyRow> =
        on!(tx, c => sqlx::query_as(SQL).bind(id).bind(account).fetch_optional(c).await)?;
    row.map(Key::try_from).transpose()
}

pub(super) async fn write_limit(
    tx: &mut Tx,
    budget: KeyId,
    limit: Option<CreditLimit>,
) -> Result<()> {
    const SQL: &str =
        "UPDATE api_keys SET credit_limit = $2, credit_used = $3, refill_interval = $4,
            refill_amount = $5, refill_day = $6, refill_at = $7
        WHERE id = $1";
    let refill = limit.and_then(|limit| limit.refill);
    let rows = on!(tx, c => sqlx::query(SQL)
        .bind(budget).bind(limit.map(|limit| limit.limit)).bind(limit.map_or(0, |limit| limit.used))
        .bind(refill.map(|one| one.interval.as_str())).bind(refill.map(|one| one.amount))
        .bind(refill.map(|one| one.day)).bind(refill.map(|one| one.at))
        .execute(c).await.map(|r| r.rows_affected()))?;
    expect_rows("limit of a key", rows, 1)
}

/// Takes credits from the limit of a key, if it has one, and tells whether it has; `Err` inside: what is left
/// is not enough, and what the limit is. The caller's transaction holds the row from now on.
pub async fn take(
    tx: &mut Tx,
    key: KeyId,
    credits: i64,
    now: Millis,
) -> Result<std::result::Result<bool, CreditLimit>> {
    const LITE: &str = "SELECT id, credit_limit, credit_used, refill_interval, refill_amount, refill_day, refill_at
        FROM api_keys WHERE id = (SELECT budget FROM api_keys WHERE id = $1)";
    const PG: &str = "SELECT id, credit_limit, credit_used, refill_interval, refill_amount, refill_day, refill_at
        FROM api_keys WHERE id = (SELECT budget FROM api_keys WHERE id = $1) FOR NO KEY UPDATE";
    #[derive(FromRow)]
    struct Row {
        id: KeyId,
        #[sqlx(flatten)]
        credit: CreditRow,
    }
    let sql = if matches!(tx, Tx::Pg(_)) { PG } else { LITE };
    let row: Option<Row> =
        on!(&mut *tx, c => sqlx::query_as(sql).bind(key).fetch_optional(c).await)?;
    let Some(Row { id, credit }) = row else { return Ok(Ok(false)) };
    let Some(limit) = credit.read() else { return Ok(Ok(false)) };
    let limit = limit.at(now);
    if limit.left(now) < credits {
        return Ok(Err(limit));
    }
    let used = limit.used.saturating_add(credits);
    write_limit(tx, id, Some(CreditLimit { used, ..limit })).await?;
    Ok(Ok(true))
}

/// Gives back credits that were taken and not charged.
pub async fn give_back(tx: &mut Tx, key: KeyId, credits: i64) -> Result<()> {
    const SQL: &str = "UPDATE api_keys SET
            credit_used = CASE WHEN credit_used > $2 THEN credit_used - $2 ELSE 0 END
        WHERE id = (SELECT budget FROM api_keys WHERE id = $1) AND credit_limit IS NOT NULL";
    on!(tx, c => sqlx::query(SQL).bind(key).bind(credits).execute(c).await.map(|_| ()))
}

/// Writes down credits that were charged through a key.
pub async fn count_charged(
    tx: &mut Tx,
    key: KeyId,
    account: AccountId,
    credits: i64,
    now: Millis,
) -> Result<()> {
    const SQL: &str =
        "INSERT INTO usage_credits (key_id, hour, account_id, credits) VALUES ($1, $2, $3, $4)
        ON CONFLICT (key_id, hour) DO UPDATE SET credits = usage_credits.credits + excluded.credits";
    if credits == 0 {
        return Ok(());
    }
    on!(tx, c => sqlx::query(SQL).bind(key).bind(By::Hour.start_of(now)).bind(account).bind(credits)
        .execute(c).await.map(|_| ()))
}

fn maker(maker: &Actor) -> (Option<KeyId>, Option<&str>) {
    match maker {
        Actor::Key(key) => (Some(*key), None),
        Actor::Person(email) => (None, Some(email)),
        Actor::Root(_) | Actor::Operator | Actor::System => (None, None),
    }
}

/// A key as the audit log shows it: what is shown outside, and no hash.
fn shown(key: &Key, now: Millis) -> serde_json::Value {
    let credit = key.credit_limit.map(|limit| {
        let refill = limit.refill.map(|refill| {
            json!({
                "interval": refill.interval.as_str(), "amount": refill.amount, "day": refill.day,
            })
        });
        json!({ "limit": limit.limit, "refill": refill })
    });
    json!({
        "start": key.start,
        "label": key.label,
        "note": key.note,
        "environment": key.environment.as_str(),
        "stage": key.stage,
        "scopes": key.scopes.names(),
        "status": key.status(now),
        "disabled": key.disabled,
        "suspended_reason": key.suspended.as_ref().map(|one| &one.reason),
        "suspended_until": key.suspended.as_ref().and_then(|one| one.until).map(rfc3339),
        "expires_at": key.expires_at.map(rfc3339),
        "not_before": key.not_before.map(rfc3339),
        "allow": networks(&key.allow),
        "rate_limit": key.rate_limit,
        "limits": key.limits,
        "credit_limit": credit,
        "external_id": key.external_id,
        "meta": key.meta,
        "replaced_by": key.replaced_by,
    })
}

/// Writes a change down, the last thing of its transaction: the head of the account's chain is held from then
/// on. What was so already is no change.
async fn note(tx: &mut Tx, mark: &Mark<'_>, was: &Key, key: &Key, now: Millis) -> Result<()> {
    let (before, after) = (shown(was, now), shown(key, now));
    if before == after {
        return Ok(());
    }
    let change = Change::new(mark.by, Some(key.account), mark.action, key.id);
    write_down(tx, &change.before(before).after(after), now).await
}

async fn note_made(tx: &mut Tx, by: &Origin, key: &Key) -> Result<()> {
    let change = Change::new(by, Some(key.account), "key.create", key.id);
    write_down(tx, &change.after(shown(key, key.created_at)), key.created_at).await
}

fn networks(allow: &[IpNet]) -> String {
    let texts: Vec<String> = allow.iter().map(IpNet::to_string).collect();
    texts.join(" ")
}

fn limits(key: &Key) -> Result<String> {
    serde_json::to_string(&key.limits)
        .map_err(|error| StoreError::Damaged { what: "limits of a key", detail: error.to_string() })
}

fn service(key: &Key) -> Result<Option<String>> {
    let Some(_) = key.api else { return Ok(None) };
    let text = serde_json::to_string(&key.service);
    text.map(Some)
        .map_err(|error| StoreError::Damaged { what: "key of an api", detail: error.to_string() })
}

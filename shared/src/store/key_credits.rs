//! What keys spend: their own limits of credits, and what was charged through them.
//!
//! * A limit stands in the row of one key (`budget`), which is locked while it is judged and written.
//! * A task reserves what it may cost; once it has ended, what it did not charge comes back.
//! * Lock order: task → batch → keys (by id) → account.

use std::collections::HashMap;

use sqlx::FromRow;
use uuid::Uuid;

use super::{Result, Store, Tx, expect_rows, on, within};
use crate::domain::clock::Millis;
use crate::domain::id::{AccountId, KeyId, TaskId};
use crate::domain::key::{CreditLimit, Interval, Refill};
use crate::domain::request::By;

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

impl Store {
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
    let Some((id, limit)) = lock_limit(tx, key).await? else { return Ok(Ok(false)) };
    let limit = limit.at(now);
    if limit.left(now) < credits {
        return Ok(Err(limit));
    }
    let used = limit.used.saturating_add(credits);
    write_limit(tx, id, Some(CreditLimit { used, ..limit })).await?;
    Ok(Ok(true))
}

/// The limit of credits that a key spends from, and the key whose row holds it (`budget`), which is locked from
/// now on; `None` = nothing is limited.
pub(super) async fn lock_limit(tx: &mut Tx, key: KeyId) -> Result<Option<(KeyId, CreditLimit)>> {
    // SQLite has one writer, and we are it.
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
    Ok(row.and_then(|Row { id, credit }| Some((id, credit.read()?))))
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

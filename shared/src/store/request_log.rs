//! The request log: written in batches, read by nobody here ([`super::usage`] does), removed in slices.
//!
//! * A [`Batch`] is rows of `request_log` and what *all* its decisions add up to, those included that have no
//!   row. It is written in one transaction, so that the sums and the rows never disagree.
//! * A row's id is its time in milliseconds × 2^22 and a number below that ([`id_at`]): pages and removal by age
//!   need no other index. An id that is taken already means that another process has met the same number, or
//!   that this batch was written and the answer was lost; [`Store::has_request`] tells which.
//! * Rows of sums are touched in the order of their keys by every process, so that none waits in a circle.
//! * `request_log_hours` knows how many rows each hour has, so that nobody counts ten million.
//!
//! The commit need not have reached the disk: after a crash of the database the last moments of the log may be
//! missing.

use std::sync::Arc;

use uuid::Uuid;

use super::{Result, Store, Tx, expect_rows, on, read, within};
use crate::domain::clock::Millis;
use crate::domain::id::{AccountId, KeyId};
use crate::domain::request::{Decision, HOUR_MS, LastUse, Network, Outcome};

/// Bits of an id below its milliseconds.
pub const ID_BITS: u32 = 22;
/// Rows of the log removed in one transaction.
const SLICE: i64 = 1_000;
/// Rows of sums removed in one transaction.
const SUMS: i64 = 5_000;
/// The slot of `request_log_hours` that holds what was removed.
const REMOVED: i16 = -1;

/// The first id of a millisecond.
pub fn id_at(at: Millis) -> i64 {
    at.clamp(0, (1 << (63 - ID_BITS)) - 1) << ID_BITS
}

/// What usage is counted by; sorts as the tables' keys do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Group {
    /// Whose; [`AccountId::FIRST`] = nobody's.
    pub account: AccountId,
    /// Which key; [`KeyId::FIRST`] = none.
    pub key: KeyId,
    /// When the period begins.
    pub at: Millis,
    /// How it ended.
    pub outcome: Outcome,
    /// The path that matched.
    pub route: Arc<str>,
    /// From where.
    pub network: Network,
}

/// What is written at once. Everything but the rows is sorted by its key, each key there once.
#[derive(Debug, Default)]
pub struct Batch {
    /// Rows of the log, with their ids.
    pub rows: Vec<(i64, Decision)>,
    /// How many of them lie in each hour.
    pub counts: Vec<(Millis, i64)>,
    /// The slot that `counts` go to: the same for all batches of a process, others for others.
    pub slot: i16,
    /// Decisions by hour.
    pub hours: Vec<(Group, i64)>,
    /// Decisions by day.
    pub days: Vec<(Group, i64)>,
    /// The last accepted call with each key.
    pub last: Vec<(KeyId, LastUse)>,
}

impl Store {
    /// Writes a batch. Conflict: an id is taken; nothing was written.
    pub async fn write_requests(&self, batch: &Batch) -> Result<()> {
        let mut tx = self.begin_unsynced().await?;
        write_rows(&mut tx, &batch.rows).await?;
        for (at, entries) in &batch.counts {
            count(&mut tx, *at, batch.slot, *entries).await?;
        }
        write_sums(&mut tx, Sums::Hours, &batch.hours).await?;
        write_sums(&mut tx, Sums::Days, &batch.days).await?;
        write_last(&mut tx, &batch.last).await?;
        tx.commit().await
    }

    /// Is this very request in the log?
    pub async fn has_request(&self, id: i64, decision: &Decision) -> Result<bool> {
        const SQL: &str = "SELECT count(*) FROM request_log
            WHERE id = $1 AND at = $2 AND request_id = $3";
        let found: i64 = read!(self, c => sqlx::query_scalar(SQL)
            .bind(id).bind(decision.at).bind(&decision.request_id).fetch_one(c).await)?;
        Ok(found > 0)
    }

    /// Removes one slice of the oldest rows: those from before `since`, and those beyond the newest `most`.
    /// True: there may be more.
    pub async fn expire_requests(&self, since: Millis, most: i64) -> Result<bool> {
        const STATE: &str = "SELECT (SELECT MIN(id) FROM request_log), MIN(at),
                CAST(COALESCE(SUM(entries), 0) AS BIGINT) FROM request_log_hours";
        let (first, hour, all): (Option<i64>, Option<Millis>, i64) =
            read!(self, c => sqlx::query_as(STATE).fetch_one(c).await)?;
        let Some(hour) = hour else { return Ok(false) };
        let Some(slice) = slice(hour, all, since, most) else { return Ok(false) };
        let below = id_at(slice.below);
        let whole = slice.below == hour + HOUR_MS;
        if !whole && first.is_none_or(|first| first >= below) {
            return Ok(false);
        }
        self.remove_slice(hour, below, whole, slice.limit).await
    }

    /// Removes rows below an id, all of one hour; of an hour that has none left (`whole`) also its count.
    async fn remove_slice(
        &self,
        hour: Millis,
        below: i64,
        whole: bool,
        limit: i64,
    ) -> Result<bool> {
        const REMOVE: &str = "DELETE FROM request_log WHERE id < $1 AND id <= (
            SELECT MAX(id) FROM (SELECT id FROM request_log
                WHERE id < $1 ORDER BY id LIMIT $2) slice)";
        const FORGET: &str = "DELETE FROM request_log_hours WHERE at = $1";
        let mut tx = self.begin_unsynced().await?;
        let gone = on!(&mut tx, c => sqlx::query(REMOVE).bind(below).bind(limit)
            .execute(c).await.map(|r| r.rows_affected()))? as i64;
        if gone > 0 {
            count(&mut tx, hour, REMOVED, -gone).await?;
        } else if whole {
            on!(&mut tx, c => sqlx::query(FORGET).bind(hour).execute(c).await.map(|_| ()))?;
        }
        tx.commit().await?;
        Ok(gone > 0 || whole)
    }

    /// Removes one slice of the sums of hours and of days that began before these. True: there may be more.
    pub async fn expire_usage(&self, hours: Millis, days: Millis) -> Result<bool> {
        const HOURS_PG: &str = "DELETE FROM usage_hours WHERE ctid = ANY(ARRAY(
            SELECT ctid FROM usage_hours WHERE at < $1 ORDER BY at LIMIT $2))";
        const DAYS_PG: &str = "DELETE FROM usage_days WHERE ctid = ANY(ARRAY(
            SELECT ctid FROM usage_days WHERE at < $1 ORDER BY at LIMIT $2))";
        // PostgreSQL names rows by their place; SQLite by their key.
        const HOURS_LITE: &str = "DELETE FROM usage_hours
            WHERE (account_id, key_id, at, outcome, route, network) IN (
                SELECT account_id, key_id, at, outcome, route, network FROM usage_hours
                WHERE at < $1 ORDER BY at LIMIT $2)";
        const DAYS_LITE: &str = "DELETE FROM usage_days
            WHERE (account_id, key_id, at, outcome, route, network) IN (
                SELECT account_id, key_id, at, outcome, route, network FROM usage_days
                WHERE at < $1 ORDER BY at LIMIT $2)";
        const OLDEST: &str = "SELECT (SELECT MIN(at) FROM usage_hours),
            (SELECT MIN(at) FROM usage_days)";
        let (hour, day): (Option<Millis>, Option<Millis>) =
            read!(self, c => sqlx::query_as(OLDEST).fetch_one(c).await)?;
        let mut more = false;
        for (oldest, before, pg, lite) in
            [(hour, hours, HOURS_PG, HOURS_LITE), (day, days, DAYS_PG, DAYS_LITE)]
        {
            if oldest.is_none_or(|oldest| oldest >= before) {
                continue;
            }
            let mut tx = self.begin_unsynced().await?;
            let sql = if matches!(tx, Tx::Pg(_)) { pg } else { lite };
            let gone = on!(&mut tx, c => sqlx::query(sql).bind(before).bind(SUMS)
                .execute(c).await.map(|r| r.rows_affected()))?;
            tx.commit().await?;
            more |= gone > 0;
        }
        Ok(more)
    }
}

/// The next rows to go.
#[derive(Debug, PartialEq, Eq)]
struct Slice {
    /// From before this.
    below: Millis,
    /// So many of them.
    limit: i64,
}

/// What goes next of the oldest hour, if anything does.
fn slice(hour: Millis, all: i64, since: Millis, most: i64) -> Option<Slice> {
    let end = hour + HOUR_MS;
    if end <= since {
        Some(Slice { below: end, limit: SLICE })
    } else if all > most {
        Some(Slice { below: end, limit: SLICE.min(all - most) })
    } else {
        (hour < since).then_some(Slice { below: since, limit: SLICE })
    }
}

async fn write_rows(tx: &mut Tx, rows: &[(i64, Decision)]) -> Result<()> {
    // Many at once: arrays, or JSON where there are none.
    const LOG_PG: &str = "INSERT INTO request_log (id, account_id, key_id, at, outcome, ip, method,
            route, status, latency_us, request_id)
        SELECT * FROM UNNEST($1::BIGINT[], $2::UUID[], $3::UUID[], $4::BIGINT[], $5::SMALLINT[],
            $6::TEXT[], $7::TEXT[], $8::TEXT[], $9::SMALLINT[], $10::INTEGER[], $11::TEXT[])";
    const LOG_LITE: &str =
        "INSERT INTO request_log (id, account_id, key_id, at, outcome, ip, method,
            route, status, latency_us, request_id)
        SELECT j.value ->> 0, unhex(j.value ->> 1), unhex(j.value ->> 2), j.value ->> 3,
            j.value ->> 4, j.value ->> 5, j.value ->> 6, j.value ->> 7, j.value ->> 8,
            j.value ->> 9, j.value ->> 10
        FROM json_each($1) j";
    if rows.is_empty() {
        return Ok(());
    }
    let status = |row: &Decision| i16::try_from(row.status).unwrap_or(i16::MAX);
    let latency = |row: &Decision| i32::try_from(row.latency_us).unwrap_or(i32::MAX);
    let ip = |row: &Decision| row.ip.map(|ip| ip.to_string());
    let each = || rows.iter().map(|(_, row)| row);
    let written = match tx {
        Tx::Pg(lent) => within!(lent, c => sqlx::query(LOG_PG)
            .bind(rows.iter().map(|(id, _)| *id).collect::<Vec<_>>())
            .bind(each().map(|row| row.account.map(|id| id.0)).collect::<Vec<_>>())
            .bind(each().map(|row| row.key.map(|id| id.0)).collect::<Vec<_>>())
            .bind(each().map(|row| row.at).collect::<Vec<_>>())
            .bind(each().map(|row| row.outcome.number()).collect::<Vec<_>>())
            .bind(each().map(ip).collect::<Vec<_>>())
            .bind(each().map(|row| row.method).collect::<Vec<_>>())
            .bind(each().map(|row| &*row.route).collect::<Vec<_>>())
            .bind(each().map(status).collect::<Vec<_>>())
            .bind(each().map(latency).collect::<Vec<_>>())
            .bind(each().map(|row| row.request_id.as_str()).collect::<Vec<_>>())
            .execute(c).await.map(|r| r.rows_affected()))?,
        Tx::Lite(lent) => {
            let json = json(rows.iter().map(|(id, row)| {
                let (account, key) = (row.account.map(|id| hex(id.0)), row.key.map(|id| hex(id.0)));
                let (outcome, route) = (row.outcome.number(), &*row.route);
                (
                    *id,
                    account,
                    key,
                    row.at,
                    outcome,
                    ip(row),
                    row.method,
                    route,
                    status(row),
                    latency(row),
                    &row.request_id,
                )
            }))?;
            within!(lent, c => sqlx::query(LOG_LITE).bind(json)
                .execute(c).await.map(|r| r.rows_affected()))?
        }
    };
    expect_rows("log requests", written, rows.len() as u64)
}

/// Adds to the number of rows of an hour.
async fn count(tx: &mut Tx, at: Millis, slot: i16, entries: i64) -> Result<()> {
    const SQL: &str = "INSERT INTO request_log_hours (at, slot, entries) VALUES ($1, $2, $3)
        ON CONFLICT (at, slot) DO UPDATE SET entries = request_log_hours.entries + $3";
    let rows = on!(tx, c => sqlx::query(SQL).bind(at).bind(slot).bind(entries)
        .execute(c).await.map(|r| r.rows_affected()))?;
    expect_rows("count requests", rows, 1)
}

#[derive(Clone, Copy)]
enum Sums {
    Hours,
    Days,
}

async fn write_sums(tx: &mut Tx, which: Sums, sums: &[(Group, i64)]) -> Result<()> {
    const HOURS_PG: &str = "INSERT INTO usage_hours
            (account_id, key_id, at, outcome, route, network, requests)
        SELECT * FROM UNNEST($1::UUID[], $2::UUID[], $3::BIGINT[], $4::SMALLINT[], $5::TEXT[],
            $6::TEXT[], $7::BIGINT[])
        ON CONFLICT (account_id, key_id, at, outcome, route, network)
        DO UPDATE SET requests = usage_hours.requests + excluded.requests";
    const DAYS_PG: &str = "INSERT INTO usage_days
            (account_id, key_id, at, outcome, route, network, requests)
        SELECT * FROM UNNEST($1::UUID[], $2::UUID[], $3::BIGINT[], $4::SMALLINT[], $5::TEXT[],
            $6::TEXT[], $7::BIGINT[])
        ON CONFLICT (account_id, key_id, at, outcome, route, network)
        DO UPDATE SET requests = usage_days.requests + excluded.requests";
    const HOURS_LITE: &str = "INSERT INTO usage_hours
            (account_id, key_id, at, outcome, route, network, requests)
        SELECT unhex(j.value ->> 0), unhex(j.value ->> 1), j.value ->> 2, j.value ->> 3,
            j.value ->> 4, j.value ->> 5, j.value ->> 6
        FROM json_each($1) j WHERE TRUE
        ON CONFLICT (account_id, key_id, at, outcome, route, network)
        DO UPDATE SET requests = usage_hours.requests + excluded.requests";
    const DAYS_LITE: &str = "INSERT INTO usage_days
            (account_id, key_id, at, outcome, route, network, requests)
        SELECT unhex(j.value ->> 0), unhex(j.value ->> 1), j.value ->> 2, j.value ->> 3,
            j.value ->> 4, j.value ->> 5, j.value ->> 6
        FROM json_each($1) j WHERE TRUE
        ON CONFLICT (account_id, key_id, at, outcome, route, network)
        DO UPDATE SET requests = usage_days.requests + excluded.requests";
    if sums.is_empty() {
        return Ok(());
    }
    let each = || sums.iter().map(|(group, _)| group);
    let rows = match tx {
        Tx::Pg(lent) => {
            let sql = if matches!(which, Sums::Hours) { HOURS_PG } else { DAYS_PG };
            within!(lent, c => sqlx::query(sql)
                .bind(each().map(|group| group.account.0).collect::<Vec<_>>())
                .bind(each().map(|group| group.key.0).collect::<Vec<_>>())
                .bind(each().map(|group| group.at).collect::<Vec<_>>())
                .bind(each().map(|group| group.outcome.number()).collect::<Vec<_>>())
                .bind(each().map(|group| &*group.route).collect::<Vec<_>>())
                .bind(each().map(|group| group.network.to_string()).collect::<Vec<_>>())
                .bind(sums.iter().map(|(_, requests)| *requests).collect::<Vec<_>>())
                .execute(c).await.map(|r| r.rows_affected()))?
        }
        Tx::Lite(lent) => {
            let sql = if matches!(which, Sums::Hours) { HOURS_LITE } else { DAYS_LITE };
            let json = json(sums.iter().map(|(group, requests)| {
                let (account, key) = (hex(group.account.0), hex(group.key.0));
                let (route, network) = (&*group.route, group.network.to_string());
                (account, key, group.at, group.outcome.number(), route, network, *requests)
            }))?;
            within!(lent, c => sqlx::query(sql).bind(json)
                .execute(c).await.map(|r| r.rows_affected()))?
        }
    };
    expect_rows("add up requests", rows, sums.len() as u64)
}

/// The newest call wins; of two of the same moment, either.
async fn write_last(tx: &mut Tx, last: &[(KeyId, LastUse)]) -> Result<()> {
    const LAST_PG: &str = "INSERT INTO key_last_used (key_id, at, ip, route)
        SELECT * FROM UNNEST($1::UUID[], $2::BIGINT[], $3::TEXT[], $4::TEXT[])
        ON CONFLICT (key_id) DO UPDATE SET at = excluded.at, ip = excluded.ip, route = excluded.route
        WHERE key_last_used.at <= excluded.at";
    const LAST_LITE: &str = "INSERT INTO key_last_used (key_id, at, ip, route)
        SELECT unhex(j.value ->> 0), j.value ->> 1, j.value ->> 2, j.value ->> 3
        FROM json_each($1) j WHERE TRUE
        ON CONFLICT (key_id) DO UPDATE SET at = excluded.at, ip = excluded.ip, route = excluded.route
        WHERE key_last_used.at <= excluded.at";
    if last.is_empty() {
        return Ok(());
    }
    // How many rows that touches depends on what others have written.
    match tx {
        Tx::Pg(lent) => within!(lent, c => sqlx::query(LAST_PG)
            .bind(last.iter().map(|(key, _)| key.0).collect::<Vec<_>>())
            .bind(last.iter().map(|(_, used)| used.at).collect::<Vec<_>>())
            .bind(last.iter().map(|(_, used)| used.ip.as_deref()).collect::<Vec<_>>())
            .bind(last.iter().map(|(_, used)| used.route.as_str()).collect::<Vec<_>>())
            .execute(c).await.map(|_| ())),
        Tx::Lite(lent) => {
            let json =
                json(last.iter().map(|(key, used)| (hex(key.0), used.at, &used.ip, &used.route)))?;
            within!(lent, c => sqlx::query(LAST_LITE).bind(json).execute(c).await.map(|_| ()))
        }
    }
}

fn hex(id: Uuid) -> String {
    id.simple().to_string()
}

/// Rows as SQLite's `json_each` takes them.
fn json<T: serde::Serialize>(rows: impl Iterator<Item = T>) -> Result<String> {
    let rows: Vec<T> = rows.collect();
    serde_json::to_string(&rows)
        .map_err(|error| super::StoreError::Damaged { what: "request", detail: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_follow_time_and_stay_positive() {
        assert!(id_at(1_700_000_000_000) < id_at(1_700_000_000_001));
        assert_eq!(id_at(1_700_000_000_000) >> ID_BITS, 1_700_000_000_000);
        assert_eq!(id_at(-5), 0);
        assert!(id_at(Millis::MAX) > 0);
    }

    #[test]
    fn the_oldest_goes_first_and_no_more_than_must() {
        let hour = 10 * HOUR_MS;
        // Nothing is too old or too much.
        assert_eq!(slice(hour, 50, hour, 50), None);
        // The whole hour is too old, or a part of it.
        let whole = Slice { below: hour + HOUR_MS, limit: SLICE };
        assert_eq!(slice(hour, 50, hour + HOUR_MS, 50), Some(whole));
        assert_eq!(slice(hour, 50, hour + 5, 50), Some(Slice { below: hour + 5, limit: SLICE }));
        // Too many: exactly those.
        assert_eq!(slice(hour, 57, 0, 50), Some(Slice { below: hour + HOUR_MS, limit: 7 }));
        assert_eq!(
            slice(hour, 50 + 2 * SLICE, 0, 50),
            Some(Slice { below: hour + HOUR_MS, limit: SLICE })
        );
    }
}

//! Workers: each tells that it lives, what it can do, and what it has done.
//!
//! | table | a row is | key |
//! | --- | --- | --- |
//! | `workers` | a process that was heard of lately | name |
//! | `verified_hours` | what a worker has verified in an hour | (at, worker) |
//!
//! Each row is one worker's own, so none waits for another. What is said here need not reach the disk: it is said
//! again a moment later.

use sqlx::FromRow;

use super::audit_log::write_down;
use super::{Result, Store, expect_rows, on, read};
use crate::domain::audit::{Change, Origin};
use crate::domain::batch::Capacity;
use crate::domain::clock::Millis;

/// An hour, and how many of them are kept.
const HOUR: Millis = 3_600_000;
const KEPT: Millis = 8 * 24 * HOUR;
/// Workers that are shown.
const SHOWN: i64 = 500;

/// What a worker says of itself.
#[derive(Debug, Clone, Copy)]
pub struct Report<'a> {
    /// Its name, unique for each start.
    pub name: &'a str,
    /// What it can do; a concurrency of 0 = its provider is down.
    pub capacity: Capacity,
    /// The version of its program.
    pub version: &'a str,
    /// Where it sends from.
    pub source: &'a str,
    /// When it started.
    pub started_at: Millis,
    /// Batches in its hands.
    pub leases: i64,
    /// How far its machine's clock is behind the database's.
    pub clock_offset: Millis,
    /// Addresses that it has verified since its last report.
    pub verified: i64,
    /// It is a process of its own, which ends when it is told to drain.
    pub can_drain: bool,
}

impl<'a> Report<'a> {
    /// One that says what the worker can do, and nothing else.
    pub fn of(name: &'a str, capacity: Capacity) -> Self {
        let (version, source) = ("", "");
        let (started_at, leases, clock_offset, verified) = (0, 0, 0, 0);
        let can_drain = false;
        Self {
            name,
            capacity,
            version,
            source,
            started_at,
            leases,
            clock_offset,
            verified,
            can_drain,
        }
    }
}

/// A worker as it was heard of last.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Worker {
    /// See [`Report`].
    pub name: String,
    /// Addresses that it verifies at once; 0 = its provider is down.
    pub concurrency: i64,
    /// Addresses that it has started in a second lately.
    pub pace: i64,
    /// When it was heard of last.
    pub seen_at: Millis,
    /// Empty = its program is from before it was told, as is the rest then.
    pub version: String,
    /// Where it sends from.
    pub source: String,
    /// When it started.
    pub started_at: Millis,
    /// Batches in its hands.
    pub leases: i64,
    /// How far its machine's clock is behind the database's.
    pub clock_offset: Millis,
    /// It can be told to drain.
    pub can_drain: bool,
    /// It was told to.
    pub drain: bool,
}

impl Store {
    /// Tells that this worker lives, and what it says of itself. Is it to drain?
    pub async fn worker_seen(&self, report: &Report<'_>, now: Millis) -> Result<bool> {
        const SEEN: &str = "INSERT INTO workers
                (name, concurrency, pace, seen_at, version, source, started_at, leases, clock_offset,
                    can_drain)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
            ON CONFLICT (name) DO UPDATE SET concurrency = $2, pace = $3, seen_at = $4, version = $5,
                source = $6, started_at = $7, leases = $8, clock_offset = $9, can_drain = $10
            RETURNING drain";
        const VERIFIED: &str =
            "INSERT INTO verified_hours (at, worker, addresses) VALUES ($1, $2, $3)
            ON CONFLICT (at, worker) DO UPDATE SET addresses = verified_hours.addresses + $3";
        let Report { name, capacity, .. } = *report;
        let mut tx = self.begin_unsynced().await?;
        let drain: bool = on!(&mut tx, c => sqlx::query_scalar(SEEN).bind(name)
            .bind(capacity.concurrency).bind(capacity.pace).bind(now).bind(report.version)
            .bind(report.source).bind(report.started_at).bind(report.leases)
            .bind(report.clock_offset).bind(report.can_drain).fetch_one(c).await)?;
        if report.verified > 0 {
            let hour = now - now.rem_euclid(HOUR);
            let rows = on!(&mut tx, c => sqlx::query(VERIFIED).bind(hour).bind(name)
                .bind(report.verified).execute(c).await.map(|r| r.rows_affected()))?;
            expect_rows("verified in an hour", rows, 1)?;
        }
        tx.commit().await?;
        Ok(drain)
    }

    /// Tells a worker to drain: it hears of it when it says next that it lives. `false`: none of this name that can
    /// be drained was heard of since `seen_after`.
    pub async fn drain_worker(
        &self,
        name: &str,
        seen_after: Millis,
        by: &Origin,
        now: Millis,
    ) -> Result<bool> {
        const WAS: &str =
            "SELECT drain FROM workers WHERE name = $1 AND can_drain AND seen_at >= $2";
        const SQL: &str = "UPDATE workers SET drain = TRUE WHERE name = $1";
        let mut tx = self.begin().await?;
        let was: Option<bool> = on!(&mut tx, c => sqlx::query_scalar(WAS).bind(name)
            .bind(seen_after).fetch_optional(c).await)?;
        match was {
            None => return Ok(false),
            Some(true) => return Ok(true),
            Some(false) => {}
        }
        let rows = on!(&mut tx, c => sqlx::query(SQL).bind(name)
            .execute(c).await.map(|r| r.rows_affected()))?;
        expect_rows("drain worker", rows, 1)?;
        write_down(&mut tx, &Change::new(by, None, "worker.drain", name), now).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Forgets a worker that has ended.
    pub async fn forget_worker(&self, name: &str) -> Result<()> {
        const SQL: &str = "DELETE FROM workers WHERE name = $1";
        let mut tx = self.begin_unsynced().await?;
        on!(&mut tx, c => sqlx::query(SQL).bind(name).execute(c).await.map(|_| ()))?;
        tx.commit().await
    }

    /// Forgets workers that have been silent since `before`, and what was verified long ago.
    pub async fn forget_workers(&self, before: Millis) -> Result<()> {
        const SQL: &str = "DELETE FROM workers WHERE seen_at < $1";
        const OLD: &str = "DELETE FROM verified_hours WHERE at < $1";
        let mut tx = self.begin_unsynced().await?;
        on!(&mut tx, c => sqlx::query(SQL).bind(before).execute(c).await.map(|_| ()))?;
        on!(&mut tx, c => sqlx::query(OLD).bind(before - KEPT).execute(c).await.map(|_| ()))?;
        tx.commit().await
    }

    /// Workers that were heard of lately, by name.
    pub async fn workers(&self) -> Result<Vec<Worker>> {
        const SQL: &str =
            "SELECT name, concurrency, pace, seen_at, version, source, started_at, leases,
                clock_offset, can_drain, drain
            FROM workers ORDER BY name LIMIT $1";
        read!(self, c => sqlx::query_as(SQL).bind(SHOWN).fetch_all(c).await)
    }

    /// Addresses that all workers have verified, by the hour, oldest first; hours without any are left out.
    pub async fn verified_since(&self, since: Millis) -> Result<Vec<(Millis, i64)>> {
        const SQL: &str = "SELECT at, CAST(SUM(addresses) AS BIGINT) FROM verified_hours
            WHERE at >= $1 GROUP BY at ORDER BY at";
        read!(self, c => sqlx::query_as(SQL).bind(since).fetch_all(c).await)
    }

    /// Addresses that all living workers verify at once.
    pub async fn concurrency(&self, seen_after: Millis) -> Result<i64> {
        const SQL: &str = "SELECT CAST(COALESCE(SUM(concurrency), 0) AS BIGINT) FROM workers
            WHERE seen_at >= $1";
        read!(self, c => sqlx::query_scalar(SQL).bind(seen_after).fetch_one(c).await)
    }

    /// How many workers live, those included whose provider is down.
    pub async fn living(&self, seen_after: Millis) -> Result<i64> {
        const SQL: &str = "SELECT count(*) FROM workers WHERE seen_at >= $1";
        read!(self, c => sqlx::query_scalar(SQL).bind(seen_after).fetch_one(c).await)
    }

    /// What the living workers can do; those whose provider is down do nothing.
    pub async fn capacities(&self, seen_after: Millis) -> Result<Vec<Capacity>> {
        const SQL: &str = "SELECT concurrency, pace FROM workers
            WHERE seen_at >= $1 AND concurrency > 0";
        let all: Vec<(i64, i64)> =
            read!(self, c => sqlx::query_as(SQL).bind(seen_after).fetch_all(c).await)?;
        let capacity = |(concurrency, pace)| Capacity { concurrency, pace };
        Ok(all.into_iter().map(capacity).collect())
    }
}

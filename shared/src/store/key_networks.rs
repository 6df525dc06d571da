//! The networks that a key is used from: a row for each, up to about [`MOST`] of a key, those used last.
//!
//! Written by the request log's writer, whose batches add to the rows; read by the owner, in the order in which
//! they came, and by the rules of abuse protection ([`crate::domain::abuse`]), which ask how many are new at once.
//! A network is known by its age, unless it was part of a signal (`DOUBTED`), or an operator has said that all
//! of the key's networks are right (`TRUSTED`). What is known is asked of the key's family, its rotations: they come
//! from the same places.
//!
//! Whoever touches several rows does so in the order of key and network, by their bytes, and in PostgreSQL locks
//! them in that order before it changes or removes them, so that none waits in a circle.

use sqlx::FromRow;

use super::{Result, Store, StoreError, Tx, on, read, within};
use crate::domain::clock::Millis;
use crate::domain::id::KeyId;
use crate::domain::request::HOUR_MS;

/// Networks of one key that are kept.
pub const MOST: i64 = 1_000;
/// So many more may be there until somebody looks.
const SLACK: i64 = 100;
/// Rotations of a key, the newest, whose networks are looked at.
const FAMILY: i64 = 16;
/// Part of a signal: not known, however old it is.
const DOUBTED: i16 = 1;
/// Known by an operator's word, however new it is.
const TRUSTED: i16 = 2;

/// Uses of a key from a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uses {
    /// Which key.
    pub key: KeyId,
    /// A /24, or a /64 of IPv6.
    pub network: String,
    /// The first of them.
    pub first_at: Millis,
    /// The last of them.
    pub last_at: Millis,
    /// How many.
    pub requests: i64,
    /// Of the last one's hour, accepted.
    pub accepted: i64,
}

/// A network that a key is used from.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct KeyNetwork {
    /// A /24, or a /64 of IPv6.
    pub network: String,
    /// The first use.
    pub first_at: Millis,
    /// The last use.
    pub last_at: Millis,
    /// Uses, refused ones included that the key's own state did not forbid.
    pub requests: i64,
}

/// What a key's networks come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromRow)]
pub struct Spread {
    /// Which key.
    pub key_id: KeyId,
    /// The key's own, used since.
    pub active: i64,
    /// Of its family, known before.
    pub known: i64,
    /// All of its own.
    pub networks: i64,
    /// The first of its family is as old as was asked for.
    pub settled: bool,
}

/// A [`Spread`] of each key that the condition, which follows, takes.
macro_rules! spreads_of {
    ($condition:literal) => {
        concat!(
            "SELECT k.id AS key_id,
                (SELECT count(*) FROM key_networks n WHERE n.key_id = k.id AND n.last_at > $2) AS active,
                (SELECT count(*) FROM key_networks n WHERE n.key_id = k.id) AS networks,
                (SELECT count(DISTINCT n.network) FROM key_networks n
                    WHERE n.key_id IN (SELECT m.id FROM api_keys m WHERE m.family = k.family
                            ORDER BY m.created_at DESC, m.id DESC LIMIT $4)
                        AND (n.standing = 2 OR (n.standing = 0 AND n.first_at <= $2))) AS known,
                EXISTS (SELECT 1 FROM api_keys m JOIN key_networks n ON n.key_id = m.id
                    WHERE m.family = k.family AND n.first_at <= $3) AS settled
            FROM api_keys k WHERE k.id ",
            $condition
        )
    };
}

/// Adds uses; sorted by key and network, each there once.
pub(super) async fn add_uses(tx: &mut Tx, uses: &[Uses]) -> Result<()> {
    // Many at once: arrays, or JSON where there are none; and the greater of two has another name.
    const ADD_PG: &str = "INSERT INTO key_networks (key_id, network, first_at, last_at, requests, hour,
            accepted, accepted_before, standing)
        SELECT *, 0, 0 FROM UNNEST($1::UUID[], $2::TEXT[], $3::BIGINT[], $4::BIGINT[], $5::BIGINT[],
            $6::BIGINT[], $7::BIGINT[])
        ON CONFLICT (key_id, network) DO UPDATE SET
            first_at = LEAST(key_networks.first_at, excluded.first_at),
            last_at = GREATEST(key_networks.last_at, excluded.last_at),
            requests = key_networks.requests + excluded.requests,
            hour = GREATEST(key_networks.hour, excluded.hour),
            accepted = CASE WHEN excluded.hour > key_networks.hour THEN excluded.accepted
                ELSE key_networks.accepted + excluded.accepted END,
            accepted_before = CASE WHEN excluded.hour <= key_networks.hour THEN key_networks.accepted_before
                WHEN excluded.hour = key_networks.hour + 3600000 THEN key_networks.accepted ELSE 0 END";
    const ADD_LITE: &str = "INSERT INTO key_networks (key_id, network, first_at, last_at, requests, hour,
            accepted, accepted_before, standing)
        SELECT unhex(j.value ->> 0), j.value ->> 1, j.value ->> 2, j.value ->> 3, j.value ->> 4,
            j.value ->> 5, j.value ->> 6, 0, 0
        FROM json_each($1) j WHERE TRUE
        ON CONFLICT (key_id, network) DO UPDATE SET
            first_at = MIN(key_networks.first_at, excluded.first_at),
            last_at = MAX(key_networks.last_at, excluded.last_at),
            requests = key_networks.requests + excluded.requests,
            hour = MAX(key_networks.hour, excluded.hour),
            accepted = CASE WHEN excluded.hour > key_networks.hour THEN excluded.accepted
                ELSE key_networks.accepted + excluded.accepted END,
            accepted_before = CASE WHEN excluded.hour <= key_networks.hour THEN key_networks.accepted_before
                WHEN excluded.hour = key_networks.hour + 3600000 THEN key_networks.accepted ELSE 0 END";
    if uses.is_empty() {
        return Ok(());
    }
    let hour = |one: &Uses| one.last_at - one.last_at.rem_euclid(HOUR_MS);
    let rows = match tx {
        Tx::Pg(lent) => within!(lent, c => sqlx::query(ADD_PG)
            .bind(uses.iter().map(|one| one.key.0).collect::<Vec<_>>())
            .bind(uses.iter().map(|one| one.network.as_str()).collect::<Vec<_>>())
            .bind(uses.iter().map(|one| one.first_at).collect::<Vec<_>>())
            .bind(uses.iter().map(|one| one.last_at).collect::<Vec<_>>())
            .bind(uses.iter().map(|one| one.requests).collect::<Vec<_>>())
            .bind(uses.iter().map(hour).collect::<Vec<_>>())
            .bind(uses.iter().map(|one| one.accepted).collect::<Vec<_>>())
            .execute(c).await.map(|r| r.rows_affected()))?,
        Tx::Lite(lent) => {
            let json = json(uses.iter().map(|one| {
                let key = one.key.0.simple().to_string();
                (
                    key,
                    &one.network,
                    one.first_at,
                    one.last_at,
                    one.requests,
                    hour(one),
                    one.accepted,
                )
            }))?;
            within!(lent, c => sqlx::query(ADD_LITE).bind(json)
                .execute(c).await.map(|r| r.rows_affected()))?
        }
    };
    super::expect_rows("add uses from networks", rows, uses.len() as u64)
}

/// Rows as SQLite's `json_each` takes them.
pub(super) fn json<T: serde::Serialize>(rows: impl Iterator<Item = T>) -> Result<String> {
    let rows: Vec<T> = rows.collect();
    serde_json::to_string(&rows)
        .map_err(|error| StoreError::Damaged { what: "count", detail: error.to_string() })
}

/// The key's networks that were used after `since` are part of a signal.
pub(super) async fn doubt(tx: &mut Tx, key: KeyId, since: Millis) -> Result<()> {
    const LITE: &str = "UPDATE key_networks SET standing = $3
        WHERE key_id = $1 AND first_at > $2 AND standing = 0";
    // Where there are several writers, rows are locked in their order.
    const PG: &str = "WITH held AS (SELECT network FROM key_networks
            WHERE key_id = $1 AND first_at > $2 AND standing = 0
            ORDER BY network COLLATE \"C\" FOR UPDATE)
        UPDATE key_networks n SET standing = $3 FROM held r
        WHERE n.key_id = $1 AND n.network = r.network";
    let sql = if matches!(tx, Tx::Pg(_)) { PG } else { LITE };
    on!(tx, c => sqlx::query(sql).bind(key).bind(since).bind(DOUBTED).execute(c).await.map(|_| ()))
}

/// All of the key's networks are right; how many that are.
pub(super) async fn trust(tx: &mut Tx, key: KeyId) -> Result<u64> {
    const LITE: &str = "UPDATE key_networks SET standing = $2 WHERE key_id = $1";
    // As with `doubt`.
    const PG: &str = "WITH held AS (SELECT network FROM key_networks WHERE key_id = $1
            ORDER BY network COLLATE \"C\" FOR UPDATE)
        UPDATE key_networks n SET standing = $2 FROM held r
        WHERE n.key_id = $1 AND n.network = r.network";
    let sql = if matches!(tx, Tx::Pg(_)) { PG } else { LITE };
    on!(tx, c => sqlx::query(sql).bind(key).bind(TRUSTED)
        .execute(c).await.map(|r| r.rows_affected()))
}

/// How many requests from a network were accepted, of all keys, in this hour and the one before.
pub(super) async fn accepted_from(tx: &mut Tx, network: &str, now: Millis) -> Result<i64> {
    const SQL: &str =
        "SELECT CAST(COALESCE(SUM(CASE WHEN hour >= $2 THEN accepted + accepted_before
                WHEN hour >= $3 THEN accepted ELSE 0 END), 0) AS BIGINT)
        FROM key_networks WHERE network = $1";
    let hour = now - now.rem_euclid(HOUR_MS);
    on!(tx, c => sqlx::query_scalar(SQL).bind(network).bind(hour).bind(hour - HOUR_MS)
        .fetch_one(c).await)
}

impl Store {
    /// Networks of a key, the newest first, before `cursor` (first use and network).
    pub async fn key_networks(
        &self,
        key: KeyId,
        cursor: Option<(Millis, String)>,
        limit: i64,
    ) -> Result<Vec<KeyNetwork>> {
        const SQL: &str = "SELECT network, first_at, last_at, requests FROM key_networks
            WHERE key_id = $1 AND (first_at < $2 OR (first_at = $2 AND network < $3))
            ORDER BY key_id DESC, first_at DESC, network DESC LIMIT $4";
        let (at, network) = cursor.unwrap_or((i64::MAX, String::new()));
        read!(self, c => sqlx::query_as(SQL).bind(key).bind(at).bind(network).bind(limit)
            .fetch_all(c).await)
    }

    /// The networks that a key was used from after `since`, the newest first.
    pub async fn active_networks(
        &self,
        key: KeyId,
        since: Millis,
        limit: i64,
    ) -> Result<Vec<String>> {
        const SQL: &str = "SELECT network FROM key_networks WHERE key_id = $1 AND last_at > $2
            ORDER BY first_at DESC, network DESC LIMIT $3";
        read!(self, c => sqlx::query_scalar(SQL).bind(key).bind(since).bind(limit)
            .fetch_all(c).await)
    }

    /// What the networks of these keys come to: used after `since`, known before that; and whether their families'
    /// first network came by `settled`. Known ones are those of the newest 16 of a family.
    pub async fn spreads(
        &self,
        keys: &[KeyId],
        since: Millis,
        settled: Millis,
    ) -> Result<Vec<Spread>> {
        const SPREADS_PG: &str = spreads_of!("= ANY($1::UUID[])");
        const SPREADS_LITE: &str = spreads_of!("IN (SELECT unhex(value) FROM json_each($1))");
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        match &mut self.reader().await? {
            Tx::Pg(lent) => within!(lent, c => sqlx::query_as(SPREADS_PG)
                .bind(keys.iter().map(|key| key.0).collect::<Vec<_>>()).bind(since).bind(settled)
                .bind(FAMILY).fetch_all(c).await),
            Tx::Lite(lent) => {
                let json = json(keys.iter().map(|key| key.0.simple().to_string()))?;
                within!(lent, c => sqlx::query_as(SPREADS_LITE).bind(json).bind(since).bind(settled)
                    .bind(FAMILY).fetch_all(c).await)
            }
        }
    }

    /// Removes the networks of a key beyond the [`MOST`] that were used last, where it has so many.
    pub async fn trim_networks(&self, spread: &Spread) -> Result<()> {
        const LITE: &str = "DELETE FROM key_networks WHERE key_id = $1 AND network IN (
            SELECT network FROM key_networks WHERE key_id = $1
            ORDER BY last_at DESC, network LIMIT $3 OFFSET $2)";
        // As with `doubt`.
        const PG: &str = "WITH beyond AS (SELECT network FROM key_networks WHERE key_id = $1
                ORDER BY last_at DESC, network LIMIT $3 OFFSET $2),
            held AS (SELECT network FROM key_networks
                WHERE key_id = $1 AND network IN (SELECT network FROM beyond)
                ORDER BY network COLLATE \"C\" FOR UPDATE)
            DELETE FROM key_networks n USING held r WHERE n.key_id = $1 AND n.network = r.network";
        // More than a batch of the writer can add between two looks.
        const AT_ONCE: i64 = 10_000;
        if spread.networks <= MOST + SLACK {
            return Ok(());
        }
        let mut tx = self.begin_unsynced().await?;
        let sql = if matches!(tx, Tx::Pg(_)) { PG } else { LITE };
        on!(&mut tx, c => sqlx::query(sql).bind(spread.key_id).bind(MOST).bind(AT_ONCE)
            .execute(c).await.map(|_| ()))?;
        tx.commit().await
    }

    /// Removes networks that were not used since the hour that holds `before`, those of one hour at a time. True:
    /// there may be more.
    pub async fn expire_networks(&self, before: Millis) -> Result<bool> {
        const OLDEST: &str = "SELECT MIN(hour) FROM key_networks";
        const LITE: &str = "DELETE FROM key_networks WHERE hour = $1";
        // As with `doubt`.
        const PG: &str = "WITH held AS (SELECT key_id, network FROM key_networks WHERE hour = $1
                ORDER BY key_id, network COLLATE \"C\" FOR UPDATE)
            DELETE FROM key_networks n USING held r
            WHERE n.key_id = r.key_id AND n.network = r.network";
        let oldest: Option<i64> = read!(self, c => sqlx::query_scalar(OLDEST).fetch_one(c).await)?;
        let Some(oldest) = oldest.filter(|oldest| oldest + HOUR_MS <= before) else {
            return Ok(false);
        };
        let mut tx = self.begin_unsynced().await?;
        let sql = if matches!(tx, Tx::Pg(_)) { PG } else { LITE };
        on!(&mut tx, c => sqlx::query(sql).bind(oldest).execute(c).await.map(|_| ()))?;
        tx.commit().await?;
        Ok(true)
    }
}

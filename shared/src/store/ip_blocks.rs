//! Blocked networks: until a block is lifted, or until it ends by itself.
//!
//! `versions.ip_blocks` is raised with every change, in the same transaction: whoever keeps the list reads that
//! number with every request. What has ended blocks nobody from that very moment on, as the list holds the ends;
//! its row is removed some time later. That raises the number, too: a program from before blocks had ends keeps what
//! it has read, and forgets it then.

use serde_json::{Value, json};
use sqlx::FromRow;

use super::audit_log::write_down;
use super::{Result, Store, Tx, expect_rows, on, read};
use crate::domain::audit::{Change, Origin};
use crate::domain::clock::{Millis, rfc3339};

/// Blocks that rules have made and that hold, at the most: the gate goes through them for every request.
pub const MOST_BY_RULES: i64 = 1_000;

/// A blocked network.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct IpBlock {
    /// In CIDR notation.
    pub cidr: String,
    /// Why.
    pub reason: Option<String>,
    /// Since when.
    pub created_at: Millis,
    /// When it ends by itself; none = when it is lifted.
    pub ends_at: Option<Millis>,
    /// An [`crate::domain::audit::Actor`] as text, or `rule:` and the name of the rule that made it.
    pub made_by: String,
}

impl IpBlock {
    /// Does it hold at `now`?
    pub fn holds(&self, now: Millis) -> bool {
        self.ends_at.is_none_or(|end| end > now)
    }
}

/// As the audit log shows it.
fn shown(blocked: bool, reason: Option<&str>, ends_at: Option<Millis>) -> Value {
    let mut value = json!({ "blocked": blocked, "reason": reason });
    if let Some(end) = ends_at {
        value["ends_at"] = json!(rfc3339(end));
    }
    value
}

async fn raise(tx: &mut Tx) -> Result<()> {
    const RAISE: &str = "UPDATE versions SET value = value + 1 WHERE name = 'ip_blocks'";
    let raised = on!(tx, c => sqlx::query(RAISE).execute(c).await.map(|r| r.rows_affected()))?;
    expect_rows("raise ip_blocks", raised, 1)
}

/// Blocks a network for a rule, in its transaction; the caller writes nothing after this, as the audit log's head
/// is held. False: it is blocked for as long already.
pub(super) async fn block_by_rule(tx: &mut Tx, block: &IpBlock, now: Millis) -> Result<bool> {
    const BLOCK: &str =
        "INSERT INTO ip_blocks (cidr, reason, created_at, ends_at, made_by) VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (cidr) DO UPDATE SET reason = excluded.reason, created_at = excluded.created_at,
            ends_at = excluded.ends_at, made_by = excluded.made_by
        WHERE ip_blocks.ends_at < excluded.ends_at";
    let blocked = on!(&mut *tx, c => sqlx::query(BLOCK)
        .bind(&block.cidr).bind(&block.reason).bind(now).bind(block.ends_at).bind(&block.made_by)
        .execute(c).await.map(|r| r.rows_affected()))?;
    if blocked == 0 {
        return Ok(false);
    }
    raise(tx).await?;
    let change = Change::new(&Origin::system(), None, "ip.block", &block.cidr)
        .before(json!({ "blocked": false }))
        .after(shown(true, block.reason.as_deref(), block.ends_at));
    write_down(tx, &change, now).await?;
    Ok(true)
}

/// How many blocks of rules hold.
pub(super) async fn count_by_rules(tx: &mut Tx, now: Millis) -> Result<i64> {
    const SQL: &str = "SELECT count(*) FROM ip_blocks WHERE made_by LIKE 'rule:%' AND ends_at > $1";
    on!(tx, c => sqlx::query_scalar(SQL).bind(now).fetch_one(c).await)
}

impl Store {
    /// Blocks a network (CIDR text), in place of what was said of it before; `ends_at`: when that ends by itself.
    /// Returns whether it changed anything.
    pub async fn block_ip(
        &self,
        cidr: &str,
        reason: Option<&str>,
        ends_at: Option<Millis>,
        by: &Origin,
        now: Millis,
    ) -> Result<bool> {
        const BLOCK: &str = "INSERT INTO ip_blocks (cidr, reason, created_at, ends_at, made_by)
            VALUES ($1, $2, $3, $4, $5)
            ON CONFLICT (cidr) DO UPDATE SET reason = excluded.reason, created_at = excluded.created_at,
                ends_at = excluded.ends_at, made_by = excluded.made_by";
        let made_by = by.actor.to_string();
        let mut tx = self.begin().await?;
        let before = find(&mut tx, cidr).await?.filter(|before| before.holds(now));
        let same = |before: &IpBlock| {
            before.made_by == made_by
                && before.reason.as_deref() == reason
                && before.ends_at == ends_at
        };
        if before.as_ref().is_some_and(same) {
            return Ok(false);
        }
        let rows = on!(&mut tx, c => sqlx::query(BLOCK)
            .bind(cidr).bind(reason).bind(now).bind(ends_at).bind(&made_by)
            .execute(c).await.map(|r| r.rows_affected()))?;
        expect_rows("block network", rows, 1)?;
        raise(&mut tx).await?;
        let was = match &before {
            Some(before) => shown(true, before.reason.as_deref(), before.ends_at),
            None => json!({ "blocked": false }),
        };
        let change =
            Change::new(by, None, "ip.block", cidr).before(was).after(shown(true, reason, ends_at));
        write_down(&mut tx, &change, now).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Lifts a block; `reason`: why. Returns whether there was one that held.
    pub async fn unblock_ip(
        &self,
        cidr: &str,
        reason: Option<&str>,
        by: &Origin,
        now: Millis,
    ) -> Result<bool> {
        const UNBLOCK: &str =
            "DELETE FROM ip_blocks WHERE cidr = $1 AND (ends_at > $2 OR ends_at IS NULL)
            RETURNING cidr, reason, created_at, ends_at, made_by";
        let mut tx = self.begin().await?;
        let lifted: Option<IpBlock> = on!(&mut tx, c => sqlx::query_as(UNBLOCK)
            .bind(cidr).bind(now).fetch_optional(c).await)?;
        let Some(was) = lifted else { return Ok(false) };
        raise(&mut tx).await?;
        let change = Change::new(by, None, "ip.unblock", cidr)
            .before(shown(true, was.reason.as_deref(), was.ends_at))
            .after(shown(false, reason, None));
        write_down(&mut tx, &change, now).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Every blocked network; those, too, whose block has ended a moment ago.
    pub async fn ip_blocks(&self) -> Result<Vec<IpBlock>> {
        const SQL: &str =
            "SELECT cidr, reason, created_at, ends_at, made_by FROM ip_blocks ORDER BY cidr";
        read!(self, c => sqlx::query_as(SQL).fetch_all(c).await)
    }

    /// Removes blocks that ended before `before`.
    pub async fn expire_ip_blocks(&self, before: Millis) -> Result<()> {
        const ANY: &str = "SELECT count(*) FROM ip_blocks WHERE ends_at < $1";
        const SQL: &str = "DELETE FROM ip_blocks WHERE ends_at < $1";
        let any: i64 = read!(self, c => sqlx::query_scalar(ANY).bind(before).fetch_one(c).await)?;
        if any == 0 {
            return Ok(());
        }
        let mut tx = self.begin().await?;
        let removed = on!(&mut tx, c => sqlx::query(SQL).bind(before)
            .execute(c).await.map(|r| r.rows_affected()))?;
        if removed > 0 {
            raise(&mut tx).await?;
        }
        tx.commit().await
    }
}

async fn find(tx: &mut Tx, cidr: &str) -> Result<Option<IpBlock>> {
    const PG: &str = "SELECT cidr, reason, created_at, ends_at, made_by FROM ip_blocks WHERE cidr = $1 FOR UPDATE";
    // SQLite has one writer, and we are it.
    const LITE: &str =
        "SELECT cidr, reason, created_at, ends_at, made_by FROM ip_blocks WHERE cidr = $1";
    let sql = if matches!(tx, Tx::Pg(_)) { PG } else { LITE };
    on!(tx, c => sqlx::query_as(sql).bind(cidr).fetch_optional(c).await)
}

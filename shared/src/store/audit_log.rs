//! The audit log ([`crate::domain::audit`]): written in the transaction of the change itself, read in pages.
//!
//! | table | a row is | key |
//! | --- | --- | --- |
//! | `audit_log` | a change that was made | (chain, seq) |
//! | `audit_heads` | number and hash of a chain's last row | chain |
//!
//! Rows are only inserted, each by whoever holds the chain's head; the head is moved on in the same
//! transaction. So a chain's rows follow each other in the order of their commits.
//!
//! Locks: the head comes last, right before the commit, and is held until it. There is a chain per account,
//! so a process that freezes there stops changes of that account alone, until the server ends its transaction.

use sqlx::FromRow;

use super::{Result, Store, StoreError, Tx, expect_rows, on, read};
use crate::domain::audit::{Change, Head, Row, START};
use crate::domain::clock::Millis;
use crate::domain::id::AccountId;

#[derive(FromRow)]
struct LogRow {
    chain: AccountId,
    seq: i64,
    at: i64,
    actor: String,
    ip: Option<String>,
    request_id: Option<String>,
    action: String,
    target: String,
    before: Option<String>,
    after: Option<String>,
    hash: Vec<u8>,
    previous: Vec<u8>,
}

impl From<LogRow> for Row {
    fn from(row: LogRow) -> Self {
        Row {
            chain: row.chain,
            seq: row.seq,
            at: row.at,
            actor: row.actor,
            ip: row.ip,
            request_id: row.request_id,
            action: row.action,
            target: row.target,
            before: row.before,
            after: row.after,
            hash: row.hash,
            previous: row.previous,
        }
    }
}

/// Writes a change down, in the transaction that makes it: last before its commit, as the chain's head stays
/// locked until then.
pub(crate) async fn write_down(tx: &mut Tx, change: &Change, now: Millis) -> Result<()> {
    // Takes the next number and locks the head, which keeps the hash of the row before. PostgreSQL locks the
    // row; SQLite has one writer.
    const NEXT: &str = "INSERT INTO audit_heads (chain, seq, hash) VALUES ($1, 1, $2)
        ON CONFLICT (chain) DO UPDATE SET seq = audit_heads.seq + 1 RETURNING seq, hash";
    const ROW: &str = "INSERT INTO audit_log (chain, seq, at, actor, ip, request_id, action,
            target, before, after, hash, previous)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";
    const HEAD: &str = "UPDATE audit_heads SET hash = $3 WHERE chain = $1 AND seq = $2";
    let chain = change.chain();
    let (seq, previous): (i64, Vec<u8>) = on!(tx, c => sqlx::query_as(NEXT)
        .bind(chain).bind(&START[..]).fetch_one(c).await)?;
    let row = Row::new(change, seq, previous, now);
    let written = on!(tx, c => sqlx::query(ROW)
        .bind(row.chain).bind(row.seq).bind(row.at).bind(&row.actor).bind(row.ip.as_deref())
        .bind(row.request_id.as_deref()).bind(&row.action).bind(&row.target)
        .bind(row.before.as_deref()).bind(row.after.as_deref())
        .bind(row.hash.as_slice()).bind(row.previous.as_slice())
        .execute(c).await.map(|r| r.rows_affected()));
    // A conflict here is none of the caller's own: somebody has moved the head back.
    let written = written.map_err(|error| match error.is_conflict() {
        true => StoreError::Damaged {
            what: "audit log",
            detail: format!("{chain} has a row {seq} already; see `listmill admin audit verify`"),
        },
        false => error,
    })?;
    expect_rows("row of the audit log", written, 1)?;
    let moved = on!(tx, c => sqlx::query(HEAD)
        .bind(chain).bind(seq).bind(row.hash.as_slice())
        .execute(c).await.map(|r| r.rows_affected()))?;
    expect_rows("head of the audit log", moved, 1)
}

/// Which rows are wanted.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// Of this action only.
    pub action: Option<String>,
    /// Of changes of this only.
    pub target: Option<String>,
}

impl Store {
    /// Rows of a chain, newest first, before the number `cursor`.
    pub async fn audit_page(
        &self,
        chain: AccountId,
        filter: &AuditFilter,
        cursor: Option<i64>,
        limit: i64,
    ) -> Result<Vec<Row>> {
        // Each in the order of an index.
        const OF_CHAIN: &str = "SELECT chain, seq, at, actor, ip, request_id, action, target,
                before, after, hash, previous
            FROM audit_log WHERE chain = $1 AND seq < $2
            ORDER BY chain DESC, seq DESC LIMIT $3";
        const OF_ACTION: &str = "SELECT chain, seq, at, actor, ip, request_id, action, target,
                before, after, hash, previous
            FROM audit_log WHERE chain = $1 AND seq < $2 AND action = $4
            ORDER BY chain DESC, action DESC, seq DESC LIMIT $3";
        const OF_TARGET: &str = "SELECT chain, seq, at, actor, ip, request_id, action, target,
                before, after, hash, previous
            FROM audit_log
            WHERE chain = $1 AND seq < $2 AND target = $4 AND (action = $5 OR $5 IS NULL)
            ORDER BY chain DESC, target DESC, seq DESC LIMIT $3";
        let before = cursor.unwrap_or(i64::MAX);
        let AuditFilter { action, target } = filter;
        let rows: Vec<LogRow> = match (target, action) {
            (Some(target), action) => read!(self, c => sqlx::query_as(OF_TARGET)
                .bind(chain).bind(before).bind(limit).bind(target).bind(action.as_deref())
                .fetch_all(c).await),
            (None, Some(action)) => read!(self, c => sqlx::query_as(OF_ACTION)
                .bind(chain).bind(before).bind(limit).bind(action).fetch_all(c).await),
            (None, None) => read!(self, c => sqlx::query_as(OF_CHAIN)
                .bind(chain).bind(before).bind(limit).fetch_all(c).await),
        }?;
        Ok(rows.into_iter().map(Row::from).collect())
    }

    /// Rows of a chain in their order, from the number `from` on, and its head, in one snapshot: where fewer
    /// come than asked for, they end at that head, or the chain is broken.
    pub async fn audit_rows(
        &self,
        chain: AccountId,
        from: i64,
        limit: i64,
    ) -> Result<(Vec<Row>, Option<Head>)> {
        const ROWS: &str = "SELECT chain, seq, at, actor, ip, request_id, action, target,
                before, after, hash, previous
            FROM audit_log WHERE chain = $1 AND seq >= $2 ORDER BY seq LIMIT $3";
        const HEAD: &str = "SELECT seq, hash FROM audit_heads WHERE chain = $1";
        let mut tx = self.snapshot().await?;
        let rows: Vec<LogRow> = on!(&mut tx, c => sqlx::query_as(ROWS)
            .bind(chain).bind(from).bind(limit).fetch_all(c).await)?;
        let head: Option<(i64, Vec<u8>)> = on!(&mut tx, c => sqlx::query_as(HEAD)
            .bind(chain).fetch_optional(c).await)?;
        tx.rollback().await?;
        let head = head.map(|(seq, hash)| Head { seq, hash });
        Ok((rows.into_iter().map(Row::from).collect(), head))
    }

    /// The first chain after `after` that has rows or a head.
    pub async fn next_audit_chain(&self, after: AccountId) -> Result<Option<AccountId>> {
        const OF_ROWS: &str =
            "SELECT chain FROM audit_log WHERE chain > $1 ORDER BY chain, seq LIMIT 1";
        const OF_HEADS: &str =
            "SELECT chain FROM audit_heads WHERE chain > $1 ORDER BY chain LIMIT 1";
        let rows: Option<AccountId> = read!(self, c => sqlx::query_scalar(OF_ROWS)
            .bind(after).fetch_optional(c).await)?;
        let heads: Option<AccountId> = read!(self, c => sqlx::query_scalar(OF_HEADS)
            .bind(after).fetch_optional(c).await)?;
        Ok(rows.into_iter().chain(heads).min())
    }

    /// How many rows the chains should have, by their heads; `chain` = of this one only.
    pub async fn count_audit_rows(&self, chain: Option<AccountId>) -> Result<u64> {
        const SQL: &str = "SELECT CAST(COALESCE(sum(seq), 0) AS BIGINT) FROM audit_heads
            WHERE (chain = $1 OR $1 IS NULL)";
        let all: i64 = read!(self, c => sqlx::query_scalar(SQL).bind(chain).fetch_one(c).await)?;
        Ok(all.unsigned_abs())
    }
}

//! Balances and ledger entries: the only statements that move a credit.
//!
//! A balance row is written together with the entries that explain it, under its row lock, so
//! `balance_after` and `id` follow the same order. Entries are never changed or removed.

use sqlx::FromRow;

use super::{Result, Store, Tx, expect_rows, on, read};
use crate::domain::clock::Millis;
use crate::domain::id::{AccountId, TaskId};
use crate::domain::ledger::{Entry, EntryType, Kind, Movement};

/// Adds `delta` to a balance and returns it; the row stays locked until the transaction ends.
/// Fails when the balance would go below zero (the table's own check).
pub(super) async fn move_balance(
    tx: &mut Tx,
    account: AccountId,
    kind: Kind,
    delta: i64,
) -> Result<i64> {
    const SQL: &str = "UPDATE credit_balances SET balance = balance + $3
        WHERE account_id = $1 AND kind = $2 RETURNING balance";
    Ok(on!(tx, c => sqlx::query_scalar(SQL).bind(account).bind(kind.as_str()).bind(delta)
        .fetch_one(c).await)?)
}

/// Takes up to `want` credits off a balance: `(taken, balance afterwards)`. Never below zero.
pub(super) async fn take_up_to(
    tx: &mut Tx,
    account: AccountId,
    kind: Kind,
    want: i64,
) -> Result<(i64, i64)> {
    const TAKE: &str = "UPDATE credit_balances SET balance = balance - $3
        WHERE account_id = $1 AND kind = $2 AND balance >= $3 RETURNING balance";
    let mut amount = want;
    loop {
        let after: Option<i64> = on!(&mut *tx, c => sqlx::query_scalar(TAKE)
            .bind(account).bind(kind.as_str()).bind(amount).fetch_optional(c).await)?;
        if let Some(after) = after {
            return Ok((amount, after));
        }
        // Less is there. Others may take it first; then the loop sees even less.
        amount = want.min(balance(tx, account, kind).await?);
    }
}

async fn balance(tx: &mut Tx, account: AccountId, kind: Kind) -> Result<i64> {
    const SQL: &str = "SELECT balance FROM credit_balances WHERE account_id = $1 AND kind = $2";
    Ok(on!(tx, c => sqlx::query_scalar(SQL).bind(account).bind(kind.as_str())
        .fetch_one(c).await)?)
}

/// Writes the entry of a movement.
pub(super) async fn record(
    tx: &mut Tx,
    movement: &Movement,
    balance_after: i64,
    now: Millis,
) -> Result<()> {
    const SQL: &str = "INSERT INTO ledger_entries
        (account_id, kind, type, amount, balance_after, task_id, step, note, created_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    let m = movement;
    let rows = on!(tx, c => sqlx::query(SQL)
        .bind(m.account).bind(m.kind.as_str()).bind(m.entry.as_str()).bind(m.amount)
        .bind(balance_after).bind(m.task).bind(m.step).bind(m.note.as_deref()).bind(now)
        .execute(c).await.map(|r| r.rows_affected()))?;
    expect_rows("ledger entry", rows, 1)
}

/// A balance of one kind.
#[derive(Debug, FromRow)]
pub struct Balance {
    /// The kind's name.
    pub kind: String,
    /// What may be spent.
    pub balance: i64,
}

#[derive(FromRow)]
struct EntryRow {
    id: i64,
    kind: String,
    #[sqlx(rename = "type")]
    entry: String,
    amount: i64,
    balance_after: i64,
    task_id: Option<TaskId>,
    note: Option<String>,
    created_at: i64,
}

/// Which entries are wanted.
#[derive(Debug, Clone, Copy, Default)]
pub struct EntryFilter {
    /// Of this task only.
    pub task: Option<TaskId>,
    /// Of this kind only.
    pub kind: Option<Kind>,
}

impl Store {
    /// Gives (or, as an adjustment, takes) credits; returns the balance afterwards. An adjustment
    /// below zero is refused by the table.
    pub async fn grant(
        &self,
        account: AccountId,
        kind: Kind,
        amount: i64,
        note: Option<&str>,
        now: Millis,
    ) -> Result<i64> {
        let mut tx = self.begin().await?;
        let after = move_balance(&mut tx, account, kind, amount).await?;
        let movement = Movement {
            account,
            kind,
            entry: if amount >= 0 { EntryType::Grant } else { EntryType::Adjust },
            amount,
            task: None,
            step: None,
            note: note.map(str::to_owned),
        };
        record(&mut tx, &movement, after, now).await?;
        tx.commit().await?;
        Ok(after)
    }

    /// All balances of an account.
    pub async fn balances(&self, account: AccountId) -> Result<Vec<Balance>> {
        const SQL: &str = "SELECT kind, balance FROM credit_balances WHERE account_id = $1";
        Ok(read!(self, c => sqlx::query_as(SQL).bind(account).fetch_all(c).await)?)
    }

    /// The balance of one kind.
    pub async fn balance(&self, account: AccountId, kind: Kind) -> Result<i64> {
        let balances = self.balances(account).await?;
        Ok(balances.iter().find(|b| b.kind == kind.as_str()).map_or(0, |b| b.balance))
    }

    /// Entries of an account, newest first, before `cursor`.
    pub async fn entries(
        &self,
        account: AccountId,
        filter: EntryFilter,
        cursor: Option<i64>,
        limit: i64,
    ) -> Result<Vec<Entry>> {
        const SQL: &str = "SELECT id, kind, type, amount, balance_after, task_id, note, created_at
            FROM ledger_entries
            WHERE account_id = $1 AND (task_id = $2 OR $2 IS NULL) AND (kind = $3 OR $3 IS NULL)
              AND id < $4
            ORDER BY id DESC LIMIT $5";
        let rows: Vec<EntryRow> = read!(self, c => sqlx::query_as(SQL)
            .bind(account).bind(filter.task).bind(filter.kind.map(Kind::as_str))
            .bind(cursor.unwrap_or(i64::MAX)).bind(limit)
            .fetch_all(c).await)?;
        Ok(rows
            .into_iter()
            .map(|row| Entry {
                id: row.id,
                kind: row.kind,
                entry: row.entry,
                amount: row.amount,
                balance_after: row.balance_after,
                task: row.task_id,
                created_at: row.created_at,
                note: row.note,
            })
            .collect())
    }
}

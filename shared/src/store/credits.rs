//! Balances and ledger entries: the only statements that move a credit, behind one door ([`post`]).
//!
//! A balance row is written together with the entries that explain it, under its row lock, so
//! `balance_after` and `id` follow the same order. Entries are never changed or removed. A balance that
//! paused tasks for want of credits is marked `broke`, so that whoever fills it knows that somebody waits.
//!
//! A grant may have a name from outside (`booking_references`; account, reference): the same is booked once. Who
//! books so takes turns by the account's balance of email credits.

use serde_json::json;
use sqlx::FromRow;

use super::audit_log::write_down;
use super::{Result, Store, StoreError, Tx, expect_rows, on, read, within};
use crate::domain::audit::{Change, Origin};
use crate::domain::clock::Millis;
use crate::domain::id::{AccountId, TaskId};
use crate::domain::ledger::{Entry, EntryType, Kind, Movement, Transfer};

/// What a transfer has led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Posted {
    /// The balance afterwards.
    pub balance: i64,
    /// Do tasks wait for the credits that came?
    pub awaited: bool,
}

/// Moves credits and writes the entries that say so; the balance row stays locked until the transaction
/// ends. Fails when the balance would go below zero (the table's own check).
pub(super) async fn post(tx: &mut Tx, transfer: &Transfer, now: Millis) -> Result<Posted> {
    let posted = move_and_enter(tx, transfer, i64::MIN, now).await?;
    posted.ok_or(StoreError::RowCount { what: "balance", rows: 0, want: 1 })
}

/// The same where the balance has enough; `None`, and nothing moved, where it has not.
pub(super) async fn try_post(
    tx: &mut Tx,
    transfer: &Transfer,
    now: Millis,
) -> Result<Option<Posted>> {
    move_and_enter(tx, transfer, 0, now).await
}

/// The same where credits are off (the setting `credits`): what the balance lacks is granted along with it, so that
/// nothing is refused, use is counted, and the books stay exact.
pub(super) async fn post_filled(
    tx: &mut Tx,
    mut transfer: Transfer,
    now: Millis,
) -> Result<Posted> {
    let balance = lock_balance(tx, transfer.account, transfer.kind).await?;
    let left: i64 = balance + transfer.movements.iter().map(Movement::delta).sum::<i64>();
    if left < 0 {
        let (entry, amount) = (EntryType::Grant, -left);
        let note = Some(String::from("credits are off"));
        transfer.movements.insert(0, Movement { entry, amount, task: None, step: None, note });
    }
    post(tx, &transfer, now).await
}

/// Moves credits unless less than `least` would be left.
async fn move_and_enter(
    tx: &mut Tx,
    transfer: &Transfer,
    least: i64,
    now: Millis,
) -> Result<Option<Posted>> {
    const MOVE: &str = "UPDATE credit_balances SET balance = balance + $3
        WHERE account_id = $1 AND kind = $2 AND balance + $3 >= $4 RETURNING balance, broke";
    const ENTER: &str = "INSERT INTO ledger_entries
        (account_id, kind, type, amount, balance_after, task_id, step, note, created_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    // In one round trip: the whole account waits for it.
    const PG: &str = "WITH moved AS (
            UPDATE credit_balances SET balance = balance + $3
            WHERE account_id = $1 AND kind = $2 AND balance + $3 >= $4 RETURNING balance, broke),
        entered AS (
            INSERT INTO ledger_entries
                (account_id, kind, type, amount, balance_after, task_id, step, note, created_at)
            SELECT $1, $2, e.type, e.amount, moved.balance - e.still, e.task_id, e.step, e.note, $5
            FROM moved, UNNEST((SELECT $6::TEXT[]), (SELECT $7::BIGINT[]), (SELECT $8::BIGINT[]),
                (SELECT $9::UUID[]), (SELECT $10::BIGINT[]), (SELECT $11::TEXT[]))
                WITH ORDINALITY AS e (type, amount, still, task_id, step, note, place)
            ORDER BY e.place RETURNING 1)
        SELECT balance, broke, (SELECT count(*) FROM entered) FROM moved";
    let (account, kind, all) = (transfer.account, transfer.kind, &transfer.movements);
    let delta: i64 = all.iter().map(Movement::delta).sum();
    let (mut still, want) = (delta, all.len() as u64);
    let still_to_move = |one: &Movement| {
        still -= one.delta();
        still
    };
    let still: Vec<i64> = all.iter().map(still_to_move).collect();
    let moved: Option<(i64, bool)> = match &mut *tx {
        Tx::Pg(lent) => {
            let moved: Option<(i64, bool, i64)> = within!(lent, c => sqlx::query_as(PG)
                .bind(account).bind(kind.as_str()).bind(delta).bind(least).bind(now)
                .bind(all.iter().map(|one| one.entry.as_str()).collect::<Vec<_>>())
                .bind(all.iter().map(|one| one.amount).collect::<Vec<_>>())
                .bind(still)
                .bind(all.iter().map(|one| one.task.map(|task| task.0)).collect::<Vec<_>>())
                .bind(all.iter().map(|one| one.step).collect::<Vec<_>>())
                .bind(all.iter().map(|one| one.note.as_deref()).collect::<Vec<_>>())
                .fetch_optional(c).await)?;
            if let Some((.., rows)) = moved {
                expect_rows("ledger entry", rows.unsigned_abs(), want)?;
            }
            moved.map(|(balance, broke, _)| (balance, broke))
        }
        Tx::Lite(lent) => {
            let moved: Option<(i64, bool)> = within!(&mut *lent, c => sqlx::query_as(MOVE)
                .bind(account).bind(kind.as_str()).bind(delta).bind(least)
                .fetch_optional(c).await)?;
            if let Some((balance, _)) = moved {
                for (one, still) in all.iter().zip(still) {
                    let rows = within!(&mut *lent, c => sqlx::query(ENTER)
                        .bind(account).bind(kind.as_str()).bind(one.entry.as_str())
                        .bind(one.amount).bind(balance - still).bind(one.task).bind(one.step)
                        .bind(one.note.as_deref()).bind(now)
                        .execute(c).await.map(|r| r.rows_affected()))?;
                    expect_rows("ledger entry", rows, 1)?;
                }
            }
            moved
        }
    };
    let posted = |(balance, broke)| Posted { balance, awaited: broke && delta > 0 && balance > 0 };
    Ok(moved.map(posted))
}

/// What may be spent now; it stays so until the transaction ends.
pub(super) async fn lock_balance(tx: &mut Tx, account: AccountId, kind: Kind) -> Result<i64> {
    // SQLite has one writer, and we are it; PostgreSQL locks the row.
    const LITE: &str = "SELECT balance FROM credit_balances WHERE account_id = $1 AND kind = $2";
    const PG: &str = "SELECT balance FROM credit_balances
        WHERE account_id = $1 AND kind = $2 FOR NO KEY UPDATE";
    let sql = if matches!(tx, Tx::Pg(_)) { PG } else { LITE };
    on!(tx, c => sqlx::query_scalar(sql).bind(account).bind(kind.as_str()).fetch_one(c).await)
}

/// Remembers whether tasks of an account wait for credits; returns the balance.
pub(super) async fn mark_broke(tx: &mut Tx, account: AccountId, broke: bool) -> Result<i64> {
    const SQL: &str = "UPDATE credit_balances SET broke = $2
        WHERE account_id = $1 AND kind = 'email' RETURNING balance";
    on!(tx, c => sqlx::query_scalar(SQL).bind(account).bind(broke).fetch_one(c).await)
}

/// A grant or an adjustment that has a name from outside, such as an invoice's number.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Booking {
    /// The kind's name.
    pub kind: String,
    /// How many credits.
    pub amount: i64,
    /// What could be spent then.
    pub balance_after: i64,
    /// When.
    pub booked_at: Millis,
}

/// What became of a booking with a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Once {
    /// It is made.
    Now(Posted),
    /// One of this name was made before; nothing has moved.
    Before(Booking),
}

async fn find_booking(tx: &mut Tx, account: AccountId, reference: &str) -> Result<Option<Booking>> {
    const SQL: &str = "SELECT kind, amount, balance_after, booked_at FROM booking_references
        WHERE account_id = $1 AND reference = $2";
    on!(tx, c => sqlx::query_as(SQL).bind(account).bind(reference).fetch_optional(c).await)
}

/// Gives (or, as an adjustment, takes) credits of a kind, and writes down who did.
pub(super) async fn give(
    tx: &mut Tx,
    (account, kind): (AccountId, Kind),
    amount: i64,
    note: Option<&str>,
    by: &Origin,
    now: Millis,
) -> Result<Posted> {
    let movement = Movement {
        entry: if amount >= 0 { EntryType::Grant } else { EntryType::Adjust },
        amount,
        task: None,
        step: None,
        note: note.map(str::to_owned),
    };
    let transfer = Transfer { account, kind, movements: vec![movement] };
    let posted = post(tx, &transfer, now).await?;
    let (kind, balance) = (kind.as_str(), posted.balance);
    let change = Change::new(by, Some(account), "credits.grant", account)
        .before(json!({ "kind": kind, "balance": balance - amount }))
        .after(json!({ "kind": kind, "balance": balance, "amount": amount, "note": note }));
    write_down(tx, &change, now).await?;
    Ok(posted)
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
pub(super) struct EntryRow {
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

impl From<EntryRow> for Entry {
    fn from(row: EntryRow) -> Self {
        Entry {
            id: row.id,
            kind: row.kind,
            entry: row.entry,
            amount: row.amount,
            balance_after: row.balance_after,
            task: row.task_id,
            created_at: row.created_at,
            note: row.note,
        }
    }
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
    /// Gives (or, as an adjustment, takes) credits. An adjustment below zero is refused by the table.
    pub async fn grant(
        &self,
        account: AccountId,
        kind: Kind,
        amount: i64,
        note: Option<&str>,
        by: &Origin,
        now: Millis,
    ) -> Result<Posted> {
        let mut tx = self.begin().await?;
        let posted = give(&mut tx, (account, kind), amount, note, by, now).await?;
        tx.commit().await?;
        Ok(posted)
    }

    /// Likewise, unless that was done under this name before.
    pub async fn grant_once(
        &self,
        (account, kind): (AccountId, Kind),
        amount: i64,
        (note, reference): (Option<&str>, &str),
        by: &Origin,
        now: Millis,
    ) -> Result<Once> {
        const KEEP: &str = "INSERT INTO booking_references
            (account_id, reference, kind, amount, balance_after, booked_at)
            VALUES ($1, $2, $3, $4, $5, $6)";
        let mut tx = self.begin().await?;
        lock_balance(&mut tx, account, Kind::Email).await?;
        if let Some(before) = find_booking(&mut tx, account, reference).await? {
            return Ok(Once::Before(before));
        }
        // The audit log's head is held from the grant on: this stands before it.
        let balance = lock_balance(&mut tx, account, kind).await?;
        let rows = on!(&mut tx, c => sqlx::query(KEEP).bind(account).bind(reference)
            .bind(kind.as_str()).bind(amount).bind(balance.saturating_add(amount)).bind(now)
            .execute(c).await.map(|r| r.rows_affected()))?;
        expect_rows("keep reference", rows, 1)?;
        let posted = give(&mut tx, (account, kind), amount, note, by, now).await?;
        tx.commit().await?;
        Ok(Once::Now(posted))
    }

    /// The booking of an account that has this name.
    pub async fn booking(&self, account: AccountId, reference: &str) -> Result<Option<Booking>> {
        find_booking(&mut self.reader().await?, account, reference).await
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
        // Each in the order of an index: by `id` alone, PostgreSQL may walk everybody's entries.
        const OF_ACCOUNT: &str =
            "SELECT id, kind, type, amount, balance_after, task_id, note, created_at
            FROM ledger_entries
            WHERE account_id = $1 AND (kind = $2 OR $2 IS NULL) AND id < $3
            ORDER BY account_id DESC, id DESC LIMIT $4";
        const OF_TASK: &str =
            "SELECT id, kind, type, amount, balance_after, task_id, note, created_at
            FROM ledger_entries
            WHERE account_id = $1 AND (kind = $2 OR $2 IS NULL) AND id < $3 AND task_id = $5
            ORDER BY task_id DESC, id DESC LIMIT $4";
        let (kind, before) = (filter.kind.map(Kind::as_str), cursor.unwrap_or(i64::MAX));
        let rows: Vec<EntryRow> = match filter.task {
            None => read!(self, c => sqlx::query_as(OF_ACCOUNT)
                .bind(account).bind(kind).bind(before).bind(limit).fetch_all(c).await),
            Some(task) => read!(self, c => sqlx::query_as(OF_TASK)
                .bind(account).bind(kind).bind(before).bind(limit).bind(task).fetch_all(c).await),
        }?;
        Ok(rows.into_iter().map(Entry::from).collect())
    }
}

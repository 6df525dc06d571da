//! The proof that the books are exact: every figure of every account, read in one snapshot.

use sqlx::FromRow;

use super::{Result, Store, on};
use crate::domain::id::AccountId;
use crate::domain::ledger::Books;

#[derive(FromRow)]
struct BooksRow {
    account_id: AccountId,
    email: String,
    kind: String,
    balance: i64,
    granted: i64,
    holds: i64,
    charges: i64,
    refunds: i64,
}

impl Store {
    /// The books of every account and kind; `account` = of this one only.
    pub async fn books(&self, account: Option<AccountId>) -> Result<Vec<Books>> {
        const BOOKS: &str = "SELECT c.account_id, a.email, c.kind, c.balance,
                CAST(COALESCE(SUM(CASE WHEN l.type IN ('grant', 'adjust') THEN l.amount END), 0)
                    AS BIGINT) AS granted,
                CAST(COALESCE(SUM(CASE WHEN l.type = 'hold' THEN l.amount END), 0) AS BIGINT) AS holds,
                CAST(COALESCE(SUM(CASE WHEN l.type = 'charge' THEN l.amount END), 0) AS BIGINT)
                    AS charges,
                CAST(COALESCE(SUM(CASE WHEN l.type = 'refund' THEN l.amount END), 0) AS BIGINT)
                    AS refunds
            FROM credit_balances c
            JOIN accounts a ON a.id = c.account_id
            LEFT JOIN ledger_entries l ON l.account_id = c.account_id AND l.kind = c.kind
            WHERE c.account_id = $1 OR $1 IS NULL
            GROUP BY c.account_id, a.email, c.kind, c.balance
            ORDER BY a.email, c.kind";
        const HELD: &str = "SELECT t.account_id, CAST(SUM(b.held) AS BIGINT)
            FROM batches b JOIN tasks t ON t.id = b.task_id
            WHERE b.touched = 1 AND (t.account_id = $1 OR $1 IS NULL) GROUP BY t.account_id";
        const CHECKS: &str =
            "SELECT account_id, CAST(SUM(held) AS BIGINT), CAST(SUM(charged) AS BIGINT)
            FROM checks WHERE account_id = $1 OR $1 IS NULL GROUP BY account_id";
        // Erased tasks have no blocks left, or not for long; their own counter stands for them.
        const ERASED: &str = "SELECT account_id, CAST(SUM(charged) AS BIGINT) FROM tasks
            WHERE deleted_at IS NOT NULL AND (account_id = $1 OR $1 IS NULL) GROUP BY account_id";
        // Of one account: by its own tasks, whatever others have stored.
        const CHARGED: &str = "SELECT t.account_id, CAST(SUM(b.charged) AS BIGINT) FROM tasks t
            JOIN result_blocks b ON b.task_id = t.id
            WHERE t.deleted_at IS NULL GROUP BY t.account_id";
        const CHARGED_ONE: &str = "SELECT t.account_id, CAST(SUM(b.charged) AS BIGINT) FROM tasks t
            JOIN result_blocks b ON b.task_id = t.id
            WHERE t.account_id = $1 AND t.deleted_at IS NULL GROUP BY t.account_id";
        let mut tx = self.snapshot().await?;
        let rows: Vec<BooksRow> =
            on!(&mut tx, c => sqlx::query_as(BOOKS).bind(account).fetch_all(c).await)?;
        let checks: Vec<(AccountId, i64, i64)> =
            on!(&mut tx, c => sqlx::query_as(CHECKS).bind(account).fetch_all(c).await)?;
        let mut sums = Vec::with_capacity(3);
        for sql in [HELD, ERASED] {
            let sum: Vec<(AccountId, i64)> =
                on!(&mut tx, c => sqlx::query_as(sql).bind(account).fetch_all(c).await)?;
            sums.push(sum);
        }
        sums.push(match account {
            None => on!(&mut tx, c => sqlx::query_as(CHARGED).fetch_all(c).await)?,
            Some(one) => {
                on!(&mut tx, c => sqlx::query_as(CHARGED_ONE).bind(one).fetch_all(c).await)?
            }
        });
        let of = |sum: usize, id: AccountId| {
            sums[sum].iter().find(|(account, _)| *account == id).map_or(0, |(_, n)| *n)
        };
        Ok(rows
            .into_iter()
            .map(|row| {
                let id = row.account_id;
                let single = checks.iter().find(|(account, ..)| *account == id);
                let (check_held, check_charged) = single.map_or((0, 0), |(_, h, c)| (*h, *c));
                // Only email credits are held and charged.
                let email = i64::from(row.kind == "email");
                Books {
                    account: id,
                    email: row.email,
                    granted: row.granted,
                    balance: row.balance,
                    held: email * (of(0, id) + check_held),
                    charged: email * (of(1, id) + of(2, id) + check_charged),
                    ledger_charged: row.charges,
                    ledger_balance: row.granted - row.holds + row.refunds,
                    ledger_held: row.holds - row.charges - row.refunds,
                    kind: row.kind,
                }
            })
            .collect())
    }
}

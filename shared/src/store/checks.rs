//! Single verifications: one held credit each, resolved once.

use super::credits::{move_balance, record, take_up_to};
use super::{Result, Store, expect_rows, on, read};
use crate::domain::clock::Millis;
use crate::domain::id::{AccountId, CheckId};
use crate::domain::ledger::{EntryType, Kind, Movement};

/// A single verification that is under way.
#[derive(Debug, Clone, Copy)]
pub struct Check {
    /// Its id.
    pub id: CheckId,
    /// Who pays.
    pub account: AccountId,
    /// Names its ledger entries.
    pub step: i64,
}

impl Check {
    fn movement(&self, entry: EntryType, note: Option<&str>) -> Movement {
        Movement {
            account: self.account,
            kind: Kind::Email,
            entry,
            amount: 1,
            task: None,
            step: Some(self.step),
            note: note.map(str::to_owned),
        }
    }
}

impl Store {
    /// Holds one credit until `due_at`; `false` when the balance is empty.
    pub async fn open_check(&self, check: Check, due_at: Millis, now: Millis) -> Result<bool> {
        const SQL: &str =
            "INSERT INTO checks (id, account_id, step, held, charged, due_at, created_at)
            VALUES ($1, $2, $3, 1, 0, $4, $5)";
        let mut tx = self.begin().await?;
        let (taken, after) = take_up_to(&mut tx, check.account, Kind::Email, 1).await?;
        if taken == 0 {
            return Ok(false);
        }
        on!(&mut tx, c => sqlx::query(SQL).bind(check.id).bind(check.account).bind(check.step)
            .bind(due_at).bind(now).execute(c).await.map(|_| ()))?;
        record(&mut tx, &check.movement(EntryType::Hold, Some("single verification")), after, now)
            .await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Resolves the hold, one way or the other; `false` when the sweeper has given it back.
    pub async fn close_check(&self, check: Check, charge: bool, now: Millis) -> Result<bool> {
        const SQL: &str = "UPDATE checks SET held = 0, charged = $2 WHERE id = $1 AND held = 1";
        let mut tx = self.begin().await?;
        let rows = on!(&mut tx, c => sqlx::query(SQL).bind(check.id).bind(i16::from(charge))
            .execute(c).await.map(|r| r.rows_affected()))?;
        if rows == 0 {
            return Ok(false);
        }
        expect_rows("close check", rows, 1)?;
        let (entry, back) = if charge { (EntryType::Charge, 0) } else { (EntryType::Refund, 1) };
        let after = move_balance(&mut tx, check.account, Kind::Email, back).await?;
        record(&mut tx, &check.movement(entry, None), after, now).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Single verifications whose process is gone.
    pub async fn expired_checks(&self, now: Millis, limit: i64) -> Result<Vec<Check>> {
        const SQL: &str = "SELECT id, account_id, step FROM checks
            WHERE held = 1 AND due_at < $1 ORDER BY due_at LIMIT $2";
        let rows: Vec<(CheckId, AccountId, i64)> = read!(self, c => sqlx::query_as(SQL)
            .bind(now).bind(limit).fetch_all(c).await)?;
        Ok(rows.into_iter().map(|(id, account, step)| Check { id, account, step }).collect())
    }
}

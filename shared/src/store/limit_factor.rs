//! The lever against overload ([`crate::domain::factor`]): one row, always there. The gate reads it with
//! the version of the blocked networks (see [`super::gate`]).

use sqlx::FromRow;

use super::{Result, Store, expect_rows, on, read};
use crate::domain::clock::Millis;
use crate::domain::factor::{Factor, Tightened};

/// The lever as it was set last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lever {
    /// What it does, and until when.
    pub tightened: Tightened,
    /// When it was set or lifted last; 0 = never.
    pub set_at: Millis,
    /// Why.
    pub note: Option<String>,
}

/// What the gate reads of it.
#[derive(Debug, Clone, Copy, FromRow)]
pub(super) struct TightenedRow {
    thousandths: i64,
    ends_at: Millis,
}

impl From<TightenedRow> for Tightened {
    fn from(row: TightenedRow) -> Self {
        Self { factor: Factor::from_thousandths(row.thousandths), ends_at: row.ends_at }
    }
}

#[derive(FromRow)]
struct LeverRow {
    #[sqlx(flatten)]
    tightened: TightenedRow,
    set_at: Millis,
    note: Option<String>,
}

impl Store {
    /// What is left of every request limit at `now`.
    pub async fn limit_factor(&self, now: Millis) -> Result<Factor> {
        Ok(self.limit_lever().await?.tightened.at(now))
    }

    /// The lever, whether it still holds or not.
    pub async fn limit_lever(&self) -> Result<Lever> {
        const SQL: &str =
            "SELECT thousandths, ends_at, set_at, note FROM limit_factor WHERE id = 1";
        let row: LeverRow = read!(self, c => sqlx::query_as(SQL).fetch_one(c).await)?;
        Ok(Lever { tightened: row.tightened.into(), set_at: row.set_at, note: row.note })
    }

    /// Sets the lever, in place of what it was; lifts it with an end that is not later than `now`. Holds
    /// for every request that starts after this has returned.
    pub async fn set_limit_factor(
        &self,
        tightened: &Tightened,
        note: Option<&str>,
        now: Millis,
    ) -> Result<()> {
        const SQL: &str = "UPDATE limit_factor
            SET thousandths = $1, ends_at = $2, note = $3, set_at = $4 WHERE id = 1";
        let mut tx = self.begin().await?;
        let rows = on!(&mut tx, c => sqlx::query(SQL)
            .bind(tightened.factor.thousandths()).bind(tightened.ends_at).bind(note).bind(now)
            .execute(c).await.map(|r| r.rows_affected()))?;
        expect_rows("set limit_factor", rows, 1)?;
        tx.commit().await
    }
}

//! The lever against overload ([`crate::domain::factor`]): one row, always there. The gate reads it with
//! the version of the blocked networks (see [`super::gate`]).

use serde_json::{Value, json};
use sqlx::FromRow;

use super::audit_log::write_down;
use super::{Result, Store, expect_rows, on, read};
use crate::domain::audit::{Change, Origin};
use crate::domain::clock::{Millis, rfc3339};
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

impl From<LeverRow> for Lever {
    fn from(row: LeverRow) -> Self {
        Lever { tightened: row.tightened.into(), set_at: row.set_at, note: row.note }
    }
}

/// The lever as the audit log shows it; one that holds no more is none.
fn shown(tightened: &Tightened, note: Option<&str>, now: Millis) -> Value {
    let holds = now < tightened.ends_at;
    json!({
        "factor": tightened.at(now).thousandths() as f64 / 1_000.0,
        "ends_at": holds.then(|| rfc3339(tightened.ends_at)),
        "note": note.filter(|_| holds),
    })
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
        Ok(row.into())
    }

    /// Sets the lever, in place of what it was; lifts it with an end that is not later than `now`. Holds
    /// for every request that starts after this has returned.
    pub async fn set_limit_factor(
        &self,
        tightened: &Tightened,
        note: Option<&str>,
        by: &Origin,
        now: Millis,
    ) -> Result<()> {
        // Changes nothing, and locks the row before it is read.
        const LOCK: &str = "UPDATE limit_factor SET set_at = set_at WHERE id = 1
            RETURNING thousandths, ends_at, set_at, note";
        const SQL: &str = "UPDATE limit_factor
            SET thousandths = $1, ends_at = $2, note = $3, set_at = $4 WHERE id = 1";
        let mut tx = self.begin().await?;
        let was: LeverRow = on!(&mut tx, c => sqlx::query_as(LOCK).fetch_one(c).await)?;
        let rows = on!(&mut tx, c => sqlx::query(SQL)
            .bind(tightened.factor.thousandths()).bind(tightened.ends_at).bind(note).bind(now)
            .execute(c).await.map(|r| r.rows_affected()))?;
        expect_rows("set limit_factor", rows, 1)?;
        let was = Lever::from(was);
        let before = shown(&was.tightened, was.note.as_deref(), now);
        let after = shown(tightened, note, now);
        // What was so already is no change.
        if before != after {
            let action = match now < tightened.ends_at {
                true => "limits.tighten",
                false => "limits.relax",
            };
            let change = Change::new(by, None, action, "limits");
            write_down(&mut tx, &change.before(before).after(after), now).await?;
        }
        tx.commit().await
    }
}

//! Rows that are found by the hash of a presented secret: one statement for many look-ups.

use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, QueryBuilder};

use super::{Result, Tx, within};
use crate::domain::key::KeyHash;

/// The rows of these hashes. `start`: a statement up to the bracket of its list, `… hash IN (`.
pub(super) async fn rows_by_hash<R>(
    reader: &mut Tx,
    start: &'static str,
    hashes: &[KeyHash],
) -> Result<Vec<R>>
where
    R: for<'r> FromRow<'r, PgRow> + for<'r> FromRow<'r, SqliteRow> + Send + Unpin,
{
    // The builder is typed by engine.
    macro_rules! find {
        ($pool:expr) => {{
            let mut sql = QueryBuilder::new(start);
            let mut list = sql.separated(", ");
            for hash in hashes {
                list.push_bind(&hash[..]);
            }
            sql.push(")");
            sql.build_query_as().fetch_all($pool).await
        }};
    }
    match reader {
        Tx::Pg(lent) => within!(lent, c => find!(c)),
        Tx::Lite(lent) => within!(lent, c => find!(c)),
    }
}

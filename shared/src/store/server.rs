//! What the database server says of itself.

use super::lend::LOOK_UP;
use super::{Result, Store, within};
use crate::domain::clock::Millis;

/// The database server; SQLite is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Server {
    /// Such as 150004 for PostgreSQL 15.4.
    pub version: i32,
    /// Its clock.
    pub now: Millis,
}

impl Store {
    /// Asks a server for its version and time; `None` on SQLite.
    pub async fn server(&self) -> Result<Option<Server>> {
        const PG: &str = "SELECT current_setting('server_version_num')::int,
            (extract(epoch FROM clock_timestamp()) * 1000)::bigint";
        match self {
            Store::Pg(lender) => {
                let mut lent = lender.lend(LOOK_UP).await?;
                let (version, now) =
                    within!(&mut lent, c => sqlx::query_as(PG).fetch_one(c).await)?;
                Ok(Some(Server { version, now }))
            }
            Store::Lite { .. } => Ok(None),
        }
    }
}

//! The only room with SQL: one body of statements for PostgreSQL and SQLite.
//!
//! * [`Store`] is a pool; [`Tx`] a transaction on either engine. [`on!`] stamps one expression
//!   into both arms, so that a `const SQL: &str` with `$1` placeholders serves both.
//! * Lock order, everywhere: task → batch → account.
//! * Every statement that changes state checks the rows it touched.
//! * A body per engine only where it must be, each saying why: inserting many results (COPY, multi-row
//!   VALUES), locking a task row (SQLite has one writer), opening a pool or a transaction, and lists
//!   of values that are built (the builder is typed by engine).

pub mod accounts;
pub mod batches;
pub mod checks;
pub mod control;
pub mod credits;
pub mod deferrals;
pub mod gate;
pub mod gather;
pub mod idempotency;
mod ids;
pub mod reconcile;
pub mod results;
pub mod settle;
pub mod sweep;
pub mod tasks;

use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Connection, Postgres, Sqlite, Transaction};

/// Runs one expression with `$conn` bound to the connection of whichever engine `$on` is.
macro_rules! on {
    ($on:expr, $conn:ident => $body:expr) => {
        match $on {
            $crate::store::Tx::Pg(tx) => {
                let $conn = &mut **tx;
                $body
            }
            $crate::store::Tx::Lite(tx) => {
                let $conn = &mut **tx;
                $body
            }
        }
    };
}

/// Like [`on!`], outside a transaction, for reading.
macro_rules! read {
    ($on:expr, $conn:ident => $body:expr) => {
        match $on {
            $crate::store::Store::Pg(pool) => {
                let $conn = pool;
                $body
            }
            $crate::store::Store::Lite { read, .. } => {
                let $conn = read;
                $body
            }
        }
    };
}
pub(crate) use {on, read};

/// Why the store could not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database is away, or refused the statement.
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
    /// The look-up was not answered; the cause is logged where it happened.
    #[error("database: the look-up was not answered")]
    Away,
    /// The schema could not be brought up to date.
    #[error("migration: {0}")]
    Migrate(#[source] sqlx::migrate::MigrateError),
    /// The schema is from a later version of Listmill.
    #[error(
        "the database's schema (version {found}) is newer than this program knows ({known}): \
         run a newer listmill, or restore the backup made before the upgrade"
    )]
    SchemaTooNew {
        /// In the database.
        found: i64,
        /// In this program.
        known: i64,
    },
    /// The schema is older than this program needs.
    #[error("the database's schema is not up to date: run `listmill migrate` first")]
    SchemaTooOld,
    /// A statement touched other rows than it must: a bug, and nothing was written.
    #[error("{what} touched {rows} rows instead of {want}")]
    RowCount {
        /// Which statement.
        what: &'static str,
        /// Rows touched.
        rows: u64,
        /// Rows wanted.
        want: u64,
    },
    /// A stored value that this program cannot read.
    #[error("stored {what} is damaged: {detail}")]
    Damaged {
        /// What kind of value.
        what: &'static str,
        /// What is wrong.
        detail: String,
    },
}

impl StoreError {
    /// Is it worth trying again: the connection broke, the server is starting, a deadlock was
    /// resolved against us, the file was busy?
    pub fn is_transient(&self) -> bool {
        let StoreError::Database(error) = self else { return matches!(self, StoreError::Away) };
        match error {
            sqlx::Error::Io(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::Protocol(_)
            | sqlx::Error::WorkerCrashed => true,
            sqlx::Error::Database(database) => database.code().is_some_and(|code| {
                // PostgreSQL: connection, resources, operator intervention, transaction rollback.
                // SQLite: 5 = busy, 6 = locked.
                ["08", "53", "57", "40"]
                    .iter()
                    .any(|class| code.len() == 5 && code.starts_with(class))
                    || matches!(code.as_ref(), "5" | "6" | "261" | "517")
            }),
            _ => false,
        }
    }

    /// Did a unique key refuse it?
    pub fn is_conflict(&self) -> bool {
        matches!(self, StoreError::Database(sqlx::Error::Database(e)) if e.is_unique_violation())
    }
}

/// What every function of the store returns.
pub type Result<T> = std::result::Result<T, StoreError>;

/// Fails unless a statement touched as many rows as it must.
pub(crate) fn expect_rows(what: &'static str, rows: u64, want: u64) -> Result<()> {
    if rows == want { Ok(()) } else { Err(StoreError::RowCount { what, rows, want }) }
}

/// The database, on either engine.
#[derive(Clone, Debug)]
pub enum Store {
    /// PostgreSQL.
    Pg(PgPool),
    /// SQLite: one connection writes, several read.
    Lite {
        /// Readers.
        read: SqlitePool,
        /// The writer.
        write: SqlitePool,
    },
}

/// An open transaction, on either engine; rolls back when dropped.
pub enum Tx {
    /// PostgreSQL.
    Pg(Transaction<'static, Postgres>),
    /// SQLite.
    Lite(Transaction<'static, Sqlite>),
}

impl Tx {
    /// Makes it last.
    pub async fn commit(self) -> Result<()> {
        match self {
            Tx::Pg(tx) => tx.commit().await?,
            Tx::Lite(tx) => tx.commit().await?,
        }
        Ok(())
    }
}

/// A connection that has been idle for longer is tested before use.
const IDLE: Duration = Duration::from_millis(500);

static PG_MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("../migrations/postgres");
static LITE_MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("../migrations/sqlite");

impl Store {
    /// Connects to `url`; `connections` is the pool's size on PostgreSQL (0 = four per core).
    /// Makes the folder and the file of a SQLite database.
    pub async fn connect(url: &str, connections: u32) -> Result<Self> {
        if url.starts_with("sqlite:") {
            return Self::open(url).await;
        }
        let cores = std::thread::available_parallelism().map_or(2, |n| n.get() as u32);
        let size = if connections == 0 { cores * 4 } else { connections };
        let options = PgConnectOptions::from_str(url)?.application_name("listmill");
        let pool = PgPoolOptions::new()
            .max_connections(size)
            .acquire_timeout(Duration::from_secs(10))
            .test_before_acquire(false)
            // Busy connections are not asked twice; idle ones may have lost their server meanwhile.
            .before_acquire(|connection, meta| {
                Box::pin(async move {
                    if meta.idle_for > IDLE {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
            .connect_with(options)
            .await?;
        Ok(Store::Pg(pool))
    }

    async fn open(url: &str) -> Result<Self> {
        let options = SqliteConnectOptions::from_str(url)?
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // FULL: what was acknowledged (a revoked key, a grant) survives a power cut.
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(10))
            .foreign_keys(false)
            .pragma("cache_size", "-32768")
            .pragma("wal_autocheckpoint", "4000");
        if let Some(folder) = options.get_filename().parent() {
            std::fs::create_dir_all(folder).map_err(sqlx::Error::Io)?;
        }
        let write =
            SqlitePoolOptions::new().max_connections(1).connect_with(options.clone()).await?;
        let read = SqlitePoolOptions::new().max_connections(4).connect_with(options).await?;
        Ok(Store::Lite { read, write })
    }

    /// Brings the schema up to date; refuses one that is newer than this program.
    pub async fn migrate(&self) -> Result<()> {
        self.refuse_newer_schema().await?;
        match self {
            Store::Pg(pool) => PG_MIGRATIONS.run(pool).await,
            Store::Lite { write, .. } => LITE_MIGRATIONS.run(write).await,
        }
        .map_err(StoreError::Migrate)
    }

    /// Fails unless the schema is exactly the one this program knows.
    pub async fn check_schema(&self) -> Result<()> {
        match self.refuse_newer_schema().await? {
            Some(found) if found == self.known_schema() => Ok(()),
            _ => Err(StoreError::SchemaTooOld),
        }
    }

    fn known_schema(&self) -> i64 {
        let migrations = match self {
            Store::Pg(_) => &PG_MIGRATIONS,
            Store::Lite { .. } => &LITE_MIGRATIONS,
        };
        migrations.iter().map(|migration| migration.version).max().unwrap_or(0)
    }

    /// The schema's version; `None` when there is none yet.
    async fn refuse_newer_schema(&self) -> Result<Option<i64>> {
        let exists: i64 = match self {
            Store::Pg(pool) => {
                sqlx::query_scalar(
                    "SELECT count(*) FROM information_schema.tables
                     WHERE table_name = '_sqlx_migrations' AND table_schema = current_schema()",
                )
                .fetch_one(pool)
                .await?
            }
            Store::Lite { read, .. } => {
                sqlx::query_scalar(
                    "SELECT count(*) FROM sqlite_master WHERE name = '_sqlx_migrations'",
                )
                .fetch_one(read)
                .await?
            }
        };
        if exists == 0 {
            return Ok(None);
        }
        const LAST: &str = "SELECT max(version) FROM _sqlx_migrations";
        let found: Option<i64> = read!(self, c => sqlx::query_scalar(LAST).fetch_one(c).await?);
        let known = self.known_schema();
        match found {
            Some(found) if found > known => Err(StoreError::SchemaTooNew { found, known }),
            found => Ok(found),
        }
    }

    /// Opens a transaction that may write.
    pub async fn begin(&self) -> Result<Tx> {
        Ok(match self {
            Store::Pg(pool) => Tx::Pg(pool.begin().await?),
            // IMMEDIATE: the writer's place is taken at once, so no statement can find it busy.
            Store::Lite { write, .. } => Tx::Lite(write.begin_with("BEGIN IMMEDIATE").await?),
        })
    }

    /// Opens a transaction whose commit need not have reached the disk when it returns: a crash of
    /// the database may undo it, along with all that came after it. Right for what nobody outside
    /// is told (leases, messages): the sweeper repairs it.
    pub async fn begin_unsynced(&self) -> Result<Tx> {
        match self {
            Store::Pg(pool) => {
                Ok(Tx::Pg(pool.begin_with("BEGIN; SET LOCAL synchronous_commit = off").await?))
            }
            Store::Lite { .. } => self.begin().await,
        }
    }

    /// Opens a transaction that reads one snapshot.
    pub async fn snapshot(&self) -> Result<Tx> {
        Ok(match self {
            Store::Pg(pool) => {
                Tx::Pg(pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?)
            }
            Store::Lite { read, .. } => Tx::Lite(read.begin().await?),
        })
    }

    /// Is the database there?
    pub async fn ping(&self) -> Result<()> {
        read!(self, c => sqlx::query("SELECT 1").execute(c).await.map(|_| ()))?;
        Ok(())
    }

    /// Closes every connection.
    pub async fn close(&self) {
        match self {
            Store::Pg(pool) => pool.close().await,
            Store::Lite { read, write } => {
                read.close().await;
                write.close().await;
            }
        }
    }

    /// The engine's name.
    pub fn engine(&self) -> &'static str {
        match self {
            Store::Pg(_) => "postgres",
            Store::Lite { .. } => "sqlite",
        }
    }
}

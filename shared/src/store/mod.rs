//! The only room with SQL: one body of statements for PostgreSQL and SQLite.
//!
//! * [`Store`] lends connections ([`lend`]); [`Tx`] is a transaction on either engine. [`on!`] stamps one
//!   expression into both arms, so that a `const SQL: &str` with `$1` placeholders serves both.
//! * Every wait has a limit: for a connection, a statement, a lock, and for a transaction whose process is
//!   frozen. What a failure means for who writes is said in one place ([`StoreError::class`]).
//! * Lock order, everywhere: task → batch → account → head of the audit log.
//! * Every statement that changes state checks the rows it touched.
//! * A body per engine only where it must be, each saying why: inserting many rows and naming many
//!   (arrays, JSON), locking a task row (SQLite has one writer), opening a pool or a transaction, and lists
//!   of values that are built (the builder is typed by engine).

pub mod abuse;
pub mod abuse_acts;
pub mod accounts;
pub mod apis;
pub mod audit;
pub mod audit_log;
pub mod batches;
mod blocks;
mod by_hash;
pub mod checks;
pub mod control;
mod convert;
pub mod credit_page;
pub mod credits;
pub mod deferrals;
pub mod dispatch;
pub mod erase;
mod error;
pub mod faults;
pub mod gate;
pub mod gather;
pub mod idempotency;
pub mod identities;
mod ids;
pub mod ip_blocks;
pub mod key_credits;
pub mod key_edits;
pub mod key_import;
pub mod key_links;
pub mod key_networks;
pub mod key_pages;
pub mod key_rotations;
pub mod keys;
mod lend;
pub mod limit_factor;
pub mod live;
pub mod logins;
pub mod operators;
pub mod overview;
pub mod people;
mod peppers;
pub mod person_links;
pub mod receive;
pub mod reconcile;
pub mod request_log;
mod result_walk;
pub mod results;
pub mod root_keys;
pub mod server;
pub mod sessions;
pub mod settle;
pub mod spend;
pub mod suspensions;
pub mod sweep;
mod task_events;
pub mod tasks;
pub mod usage;
mod usage_sums;
pub mod workers;

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

pub use error::{Class, StoreError};
use faults::Faults;
use lend::{LONG, LOOK_UP, Lender, Lent, STATEMENT};
use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::{SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{PgConnection, SqliteConnection};

/// Runs one statement on a lent connection, within its limit.
macro_rules! within {
    ($lent:expr, $conn:ident => $body:expr) => {{
        let lent = $lent;
        let patience = lent.patience();
        match lent.link() {
            Ok(($conn, running)) => {
                let end = tokio::time::timeout(patience, async { $body }).await;
                lent.ended(running, end)
            }
            Err(error) => Err(error),
        }
    }};
}

/// Runs one expression with `$conn` bound to the connection of whichever engine `$on` is.
macro_rules! on {
    ($on:expr, $conn:ident => $body:expr) => {
        match $on {
            $crate::store::Tx::Pg(lent) => $crate::store::within!(lent, $conn => $body),
            $crate::store::Tx::Lite(lent) => $crate::store::within!(lent, $conn => $body),
        }
    };
}

/// Like [`on!`], outside a transaction, for reading.
macro_rules! read {
    ($on:expr, $conn:ident => $body:expr) => {{
        let mut reader = $on.reader().await?;
        $crate::store::on!(&mut reader, $conn => $body)
    }};
}
pub(crate) use {on, read, within};

/// What every function of the store returns.
pub type Result<T> = std::result::Result<T, StoreError>;

/// Fails unless a statement touched as many rows as it must.
pub(crate) fn expect_rows(what: &'static str, rows: u64, want: u64) -> Result<()> {
    if rows == want { Ok(()) } else { Err(StoreError::RowCount { what, rows, want }) }
}

/// Bytes of payload in one statement. What is larger than a TLS record (16 KiB, RFC 8446, 5.1) is sent in several
/// writes, and without `TCP_NODELAY`, which sqlx 0.9 does not set, the last of them waits for the server's delayed
/// acknowledgement: 40 ms. A further statement takes a fraction of one.
const STATEMENT_BYTES: usize = 12 << 10;

/// The same in their order, in groups of [`STATEMENT_BYTES`] at the most, or of one.
pub(crate) fn statements<T>(
    mut all: &[T],
    bytes: impl Fn(&T) -> usize,
) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let mut sum = 0;
        let fits = all.iter().take_while(|&one| {
            sum += bytes(one);
            sum <= STATEMENT_BYTES
        });
        let count = fits.count().max(1).min(all.len());
        let (group, rest) = all.split_at(count);
        all = rest;
        (!group.is_empty()).then_some(group)
    })
}

/// The database, on either engine.
#[derive(Clone, Debug)]
pub enum Store {
    /// PostgreSQL.
    Pg(Lender<PgConnection>),
    /// SQLite: one connection writes, several read.
    Lite {
        /// Readers.
        read: Lender<SqliteConnection>,
        /// The writer.
        write: Lender<SqliteConnection>,
        /// The file.
        path: Arc<std::path::Path>,
    },
}

/// Hears of progress: so many done, of so many.
pub type Told<'a> = &'a mut (dyn FnMut(u64, u64) + Send);

/// A connection on either engine, with or without an open transaction, which rolls back when dropped.
pub enum Tx {
    /// PostgreSQL.
    Pg(Lent<PgConnection>),
    /// SQLite.
    Lite(Lent<SqliteConnection>),
}

impl Tx {
    /// Undoes it, and waits until that is done.
    async fn rollback(self) -> Result<()> {
        match self {
            Tx::Pg(lent) => lent.rollback().await,
            Tx::Lite(lent) => lent.rollback().await,
        }
    }

    /// Makes it last.
    pub async fn commit(self) -> Result<()> {
        match self {
            Tx::Pg(lent) => lent.commit().await,
            Tx::Lite(lent) => lent.commit().await,
        }
    }
}

/// Connections that read a SQLite file.
const LITE_READERS: usize = 4;
/// A statement on SQLite has nobody to wait for but the disk.
const LITE_STATEMENT: Duration = LONG;

/// How long another process may take to make a file or change its schema.
const LITE_TURN: Duration = Duration::from_secs(60);

static PG_MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("../migrations/postgres");
static LITE_MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("../migrations/sqlite");

impl Store {
    /// Connects to `url`; `connections` is the pool's size on PostgreSQL (0 = four per core), `name` what
    /// its sessions are called there. Makes the folder and the file of a SQLite database.
    pub async fn connect(url: &str, connections: u32, name: &str) -> Result<Self> {
        let store = match url.starts_with("sqlite:") {
            true => Self::open(url)?,
            false => {
                let cores = std::thread::available_parallelism().map_or(2, |n| n.get() as u32);
                let size = if connections == 0 { cores * 4 } else { connections };
                let how = PgConnectOptions::from_str(url)?.application_name(name);
                Store::Pg(Lender::postgres(how, size as usize)?)
            }
        };
        // A new file is made by one process at a time; where no lock can be had, it is hoped for the best.
        let _turn = match &store {
            Store::Lite { path, .. } => lock_file(path).await.ok(),
            Store::Pg(_) => None,
        };
        store.ping().await?;
        Ok(store)
    }

    fn open(url: &str) -> Result<Self> {
        let how = SqliteConnectOptions::from_str(url)?
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // FULL: what was acknowledged (a revoked key, a grant) survives a power cut.
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(10))
            .foreign_keys(false)
            // Free pages go back to the disk, some at a time ([`Store::give_back`]).
            .auto_vacuum(SqliteAutoVacuum::Incremental)
            .pragma("wal_autocheckpoint", "4000")
            .pragma("journal_size_limit", "33554432");
        let path: Arc<std::path::Path> = how.get_filename().into();
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(sqlx::Error::Io)?;
        }
        let write = Lender::sqlite(how.clone().pragma("cache_size", "-32768"), 1)?;
        let read = Lender::sqlite(how.pragma("cache_size", "-8192"), LITE_READERS)?;
        Ok(Store::Lite { read, write, path })
    }

    /// The same store, whose commits fail where `faults` says so: for tests.
    pub fn with_faults(self, faults: Arc<Faults>) -> Self {
        match self {
            Store::Pg(lender) => Store::Pg(lender.with_faults(faults)),
            Store::Lite { read, write, path } => {
                Store::Lite { read, write: write.with_faults(faults), path }
            }
        }
    }

    /// Brings the schema and what is stored up to date; refuses one that is newer than this program.
    /// Processes that do it at the same time take turns.
    pub async fn migrate(&self) -> Result<()> {
        self.migrate_telling(&mut |_, _| {}).await
    }

    /// Likewise; `told` hears how many stored results are in today's form, and of how many.
    pub async fn migrate_telling(&self, told: Told<'_>) -> Result<()> {
        self.refuse_newer_schema().await?;
        match self {
            Store::Pg(lender) => {
                let mut link = lender.fresh().await?;
                // Free again when the session ends. The number is ours, and means nothing.
                let turn = "SET statement_timeout = 0; SET lock_timeout = '60s';
                    SELECT pg_advisory_lock(7217462953)";
                sqlx::raw_sql(turn).execute(&mut link).await?;
                let done = PG_MIGRATIONS.run_direct(None, &mut link, false).await;
                done.map_err(StoreError::Migrate)?;
                self.convert(told).await
            }
            Store::Lite { write, path, .. } => {
                let _turn = lock_file(path).await?;
                let mut link = write.fresh().await?;
                let done = LITE_MIGRATIONS.run_direct(None, &mut link, false).await;
                done.map_err(StoreError::Migrate)?;
                drop(link);
                self.convert(told).await
            }
        }
    }

    /// Fails unless the schema is exactly the one this program knows, and everything stored is in its form.
    pub async fn check_schema(&self) -> Result<()> {
        match self.refuse_newer_schema().await? {
            Some(found) if found == self.known_schema() && !self.has_rows().await? => Ok(()),
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
        const PG: &str = "SELECT count(*) FROM information_schema.tables
            WHERE table_name = '_sqlx_migrations' AND table_schema = current_schema()";
        const LITE: &str = "SELECT count(*) FROM sqlite_master WHERE name = '_sqlx_migrations'";
        const LAST: &str = "SELECT max(version) FROM _sqlx_migrations";
        let sql = if matches!(self, Store::Pg(_)) { PG } else { LITE };
        let exists: i64 = read!(self, c => sqlx::query_scalar(sql).fetch_one(c).await)?;
        if exists == 0 {
            return Ok(None);
        }
        let found: Option<i64> = read!(self, c => sqlx::query_scalar(LAST).fetch_one(c).await)?;
        let known = self.known_schema();
        match found {
            Some(found) if found > known => Err(StoreError::SchemaTooNew { found, known }),
            found => Ok(found),
        }
    }

    /// Opens a transaction that may write.
    pub async fn begin(&self) -> Result<Tx> {
        self.open_tx("BEGIN", STATEMENT).await
    }

    /// Opens a transaction whose commit need not have reached the disk when it returns: a crash of
    /// the database may undo it, along with all that came after it. Right for what nobody outside
    /// is told (leases, messages): the sweeper repairs it.
    pub async fn begin_unsynced(&self) -> Result<Tx> {
        self.open_tx("BEGIN; SET LOCAL synchronous_commit = off", STATEMENT).await
    }

    /// Opens a transaction whose statements touch a whole task and may take minutes.
    pub async fn begin_long(&self) -> Result<Tx> {
        self.open_tx("BEGIN; SET LOCAL statement_timeout = '600s'", LONG).await
    }

    async fn open_tx(&self, pg: &'static str, limit: Duration) -> Result<Tx> {
        Ok(match self {
            Store::Pg(lender) => Tx::Pg(lender.begin(pg, limit).await?),
            // IMMEDIATE: the writer's place is taken at once, so no statement can find it busy.
            Store::Lite { write, .. } => {
                Tx::Lite(write.begin("BEGIN IMMEDIATE", LITE_STATEMENT).await?)
            }
        })
    }

    /// Opens a transaction that reads one snapshot, however long that takes.
    pub async fn snapshot(&self) -> Result<Tx> {
        let pg = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
            SET LOCAL statement_timeout = '600s'";
        Ok(match self {
            Store::Pg(lender) => Tx::Pg(lender.begin(pg, LONG).await?),
            Store::Lite { read, .. } => Tx::Lite(read.begin("BEGIN", LITE_STATEMENT).await?),
        })
    }

    /// A connection to read with, a statement at a time.
    async fn reader(&self) -> Result<Tx> {
        self.reader_within(STATEMENT).await
    }

    /// Likewise, for what a request waits for.
    async fn quick_reader(&self) -> Result<Tx> {
        self.reader_within(LOOK_UP).await
    }

    async fn reader_within(&self, limit: Duration) -> Result<Tx> {
        Ok(match self {
            Store::Pg(lender) => Tx::Pg(lender.lend(limit).await?),
            Store::Lite { read, .. } => Tx::Lite(read.lend(LITE_STATEMENT).await?),
        })
    }

    /// Is the database there?
    pub async fn ping(&self) -> Result<()> {
        read!(self, c => sqlx::query("SELECT 1").execute(c).await.map(|_| ()))
    }

    /// Gives some of what erased tasks have left free back to the disk; on SQLite alone, as PostgreSQL does
    /// it by itself.
    pub async fn give_back(&self) -> Result<()> {
        const SOME_LITE: &str = "PRAGMA incremental_vacuum(1000)";
        if let Store::Lite { write, .. } = self {
            let mut lent = write.lend(LITE_STATEMENT).await?;
            within!(&mut lent, c => sqlx::query(SOME_LITE).execute(c).await)?;
        }
        Ok(())
    }

    /// Closes every connection.
    pub async fn close(&self) {
        match self {
            Store::Pg(lender) => lender.close(),
            Store::Lite { read, write, .. } => {
                read.close();
                write.close();
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

/// Takes the turn to make a SQLite file or change its schema; free again when dropped.
async fn lock_file(path: &std::path::Path) -> Result<std::fs::File> {
    let path = path.with_extension("migrate-lock");
    let locking = tokio::task::spawn_blocking(move || {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
        file.lock()?;
        Ok(file)
    });
    // Whoever has it may be frozen.
    let Ok(locked) = tokio::time::timeout(LITE_TURN, locking).await else {
        return Err(StoreError::Slow(LITE_TURN));
    };
    let locked = locked.unwrap_or_else(|panic| Err(std::io::Error::other(panic)));
    Ok(locked.map_err(sqlx::Error::Io)?)
}

#[cfg(test)]
mod tests {
    use super::{STATEMENT_BYTES, statements};

    #[test]
    fn statements_keep_their_bytes_and_the_order() {
        let all = [5_000, 5_000, 2_288, 1, 40_000, 12_288, 0, 12_288];
        let groups: Vec<&[usize]> = statements(&all, |bytes| *bytes).collect();
        assert_eq!(groups.concat(), all);
        assert_eq!(groups[0], [5_000, 5_000, 2_288], "as many as fit");
        for group in &groups {
            assert!(group.len() == 1 || group.iter().sum::<usize>() <= STATEMENT_BYTES);
        }
        assert_eq!(groups.len(), 5);
        assert_eq!(statements::<usize>(&[], |bytes| *bytes).count(), 0);
    }
}

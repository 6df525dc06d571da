//! Connections, lent for one use, each wait with a limit.
//!
//! A [`Lent`] connection goes back to its pool when it is dropped at rest. Dropped inside a transaction it
//! is rolled back first. Dropped in the middle of a statement, or after one that the connection did not
//! survive, it is thrown away: nothing is ever asked of it again, so a peer that is frozen or a network
//! that drops packets costs one connection and one limit, never the pool.
//!
//! | limit | where | ends |
//! | --- | --- | --- |
//! | [`WAIT`], [`CREATE`], [`RECYCLE`] | here | waiting for a connection, making one, testing one that was idle |
//! | [`STATEMENT`] and a slack | server, then here | a statement |
//! | `lock_timeout` | server | waiting for a row that somebody else has |
//! | `idle_in_transaction_session_timeout` | server | a transaction whose process is frozen: its locks are free again |
//! | `tcp_user_timeout`, keep-alives | server | a peer that is gone without a word |

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use deadpool::managed::{Manager, Metrics, Object, Pool, PoolError, QueueMode, RecycleResult};
use deadpool::{Runtime, managed};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection};

use super::faults::Faults;
use super::{Result, StoreError};

/// A statement may take this long on the server.
pub(super) const STATEMENT: Duration = Duration::from_secs(10);
/// A statement of a long transaction: erasing, reconciling, migrating.
pub(super) const LONG: Duration = Duration::from_secs(600);
/// A look-up that a request waits for.
pub(super) const LOOK_UP: Duration = Duration::from_secs(2);
/// Beyond the server's limit, for its answer.
const SLACK: Duration = Duration::from_secs(2);
/// How long a connection is waited for, whatever it takes to get one.
const WAIT: Duration = Duration::from_secs(5);
/// SQLite has one writer: who writes waits for all who came before.
const LITE_WAIT: Duration = Duration::from_secs(30);
const CREATE: Duration = Duration::from_secs(5);
const RECYCLE: Duration = Duration::from_secs(1);
/// A connection that has been idle for longer is tested before use.
const IDLE: Duration = Duration::from_millis(500);
/// A connection older than this is replaced, so that nothing that a server keeps for it grows for ever.
const OLD: Duration = Duration::from_secs(1800);

/// A connection of either engine.
pub trait Link: Connection + 'static {
    /// How it is made.
    type How: ConnectOptions<Connection = Self> + Clone;
    /// What it is told first.
    const SESSION: &'static str;

    /// Runs statements without values or rows.
    fn say(&mut self, sql: &'static str) -> impl Future<Output = sqlx::Result<()>> + Send;
}

// Bitmap scans never mark what is gone in an index, so what is out would be read together with all that was out
// since the last vacuum.
impl Link for PgConnection {
    type How = PgConnectOptions;
    const SESSION: &'static str = "SET idle_in_transaction_session_timeout = '3s';
        SET lock_timeout = '2s';
        SET statement_timeout = '10s';
        SET enable_bitmapscan = off;
        SET tcp_keepalives_idle = 10;
        SET tcp_keepalives_interval = 5;
        SET tcp_keepalives_count = 3;
        SET tcp_user_timeout = '20s'";

    async fn say(&mut self, sql: &'static str) -> sqlx::Result<()> {
        sqlx::raw_sql(sql).execute(self).await.map(|_| ())
    }
}

impl Link for SqliteConnection {
    type How = SqliteConnectOptions;
    const SESSION: &'static str = "";

    async fn say(&mut self, sql: &'static str) -> sqlx::Result<()> {
        sqlx::raw_sql(sql).execute(self).await.map(|_| ())
    }
}

/// Makes connections and tests idle ones.
pub struct Keeper<L: Link>(L::How);

impl<L: Link> Manager for Keeper<L> {
    type Type = L;
    type Error = sqlx::Error;

    async fn create(&self) -> sqlx::Result<L> {
        let mut link = self.0.connect().await?;
        if !L::SESSION.is_empty() {
            link.say(L::SESSION).await?;
        }
        Ok(link)
    }

    async fn recycle(&self, link: &mut L, metrics: &Metrics) -> RecycleResult<sqlx::Error> {
        if metrics.age() > OLD {
            return Err(managed::RecycleError::message("old"));
        }
        if metrics.last_used() > IDLE {
            link.ping().await?;
        }
        Ok(())
    }
}

/// Lends connections; cheap to clone.
pub struct Lender<L: Link> {
    pool: Pool<Keeper<L>>,
    wait: Duration,
    faults: Option<Arc<Faults>>,
}

impl<L: Link> Clone for Lender<L> {
    fn clone(&self) -> Self {
        Self { pool: self.pool.clone(), wait: self.wait, faults: self.faults.clone() }
    }
}

impl<L: Link> std::fmt::Debug for Lender<L> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lender").field("status", &self.pool.status()).finish_non_exhaustive()
    }
}

impl Lender<PgConnection> {
    /// Up to `size` connections to a PostgreSQL server.
    pub(super) fn postgres(how: PgConnectOptions, size: usize) -> Result<Self> {
        Self::new(how, size, WAIT)
    }
}

impl Lender<SqliteConnection> {
    /// Up to `size` connections to a SQLite file.
    pub(super) fn sqlite(how: SqliteConnectOptions, size: usize) -> Result<Self> {
        Self::new(how, size, LITE_WAIT)
    }
}

impl<L: Link> Lender<L> {
    fn new(how: L::How, size: usize, wait: Duration) -> Result<Self> {
        let pool = Pool::builder(Keeper(how))
            // Few that are warm, with their statements prepared and planned, instead of all in turn.
            .queue_mode(QueueMode::Lifo)
            .max_size(size)
            .wait_timeout(Some(wait))
            .create_timeout(Some(CREATE))
            .recycle_timeout(Some(RECYCLE))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| sqlx::Error::Configuration(Box::new(error)))?;
        Ok(Self { pool, wait, faults: None })
    }

    /// The same, failing where `faults` says so.
    pub(super) fn with_faults(self, faults: Arc<Faults>) -> Self {
        Self { faults: Some(faults), ..self }
    }

    /// Lends a connection whose statements may take `limit` each.
    pub(super) async fn lend(&self, limit: Duration) -> Result<Lent<L>> {
        // The whole, too, has a limit: each of many dead connections in a row takes its time to be found out.
        let Ok(got) = tokio::time::timeout(self.wait, self.pool.get()).await else {
            return Err(StoreError::NoConnection(self.wait));
        };
        let object = got.map_err(|error| match error {
            PoolError::Backend(error) => StoreError::Database(error),
            PoolError::Closed => StoreError::Database(sqlx::Error::PoolClosed),
            PoolError::Timeout(managed::TimeoutType::Wait) => StoreError::NoConnection(self.wait),
            _ => StoreError::NoConnection(CREATE),
        })?;
        let faults = self.faults.clone();
        Ok(Lent { object: Some(object), state: State::Rest, limit, faults })
    }

    /// Lends a connection and opens a transaction on it.
    pub(super) async fn begin(&self, sql: &'static str, limit: Duration) -> Result<Lent<L>> {
        let mut lent = self.lend(limit).await?;
        lent.say(sql).await?;
        lent.state = State::Open;
        Ok(lent)
    }

    /// A connection that the pool does not count.
    pub(super) async fn fresh(&self) -> Result<L> {
        Ok(self.pool.manager().create().await?)
    }

    /// Closes every connection that is at rest; the others when they are given back.
    pub(super) fn close(&self) {
        self.pool.close();
    }
}

/// Where a lent connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In no transaction.
    Rest,
    /// In a transaction, between statements.
    Open,
    /// In the middle of a statement, or after one that it did not survive.
    Lost,
}

/// A connection for one use; see the module.
pub struct Lent<L: Link> {
    object: Option<Object<Keeper<L>>>,
    state: State,
    limit: Duration,
    faults: Option<Arc<Faults>>,
}

impl<L: Link> Lent<L> {
    /// How long the client waits for one statement.
    pub(super) fn patience(&self) -> Duration {
        self.limit + SLACK
    }

    /// The connection, for one statement. Until [`Lent::ended`] is told of its end, it counts as lost.
    pub(super) fn link(&mut self) -> Result<(&mut L, Running)> {
        if self.state == State::Lost {
            return Err(StoreError::Broken);
        }
        let running = Running(std::mem::replace(&mut self.state, State::Lost));
        let link = self.object.as_mut().ok_or(StoreError::Broken)?;
        Ok((link, running))
    }

    /// A statement has ended, or its time has.
    pub(super) fn ended<T>(
        &mut self,
        running: Running,
        end: std::result::Result<sqlx::Result<T>, tokio::time::error::Elapsed>,
    ) -> Result<T> {
        match end {
            Ok(Ok(value)) => {
                self.state = running.0;
                Ok(value)
            }
            Ok(Err(error)) => {
                if survives(&error) {
                    self.state = running.0;
                }
                Err(error.into())
            }
            Err(_) => Err(StoreError::Slow(self.patience())),
        }
    }

    async fn say(&mut self, sql: &'static str) -> Result<()> {
        let patience = self.patience();
        let (link, running) = self.link()?;
        let end = tokio::time::timeout(patience, link.say(sql)).await;
        self.ended(running, end)
    }

    /// Undoes the transaction.
    pub(super) async fn rollback(mut self) -> Result<()> {
        self.say("ROLLBACK").await?;
        self.state = State::Rest;
        Ok(())
    }

    /// Makes the transaction last.
    pub(super) async fn commit(mut self) -> Result<()> {
        if let Some(faults) = self.faults.clone() {
            faults.before_commit()?;
            self.say("COMMIT").await?;
            self.state = State::Rest;
            return faults.after_commit();
        }
        self.say("COMMIT").await?;
        self.state = State::Rest;
        Ok(())
    }
}

/// What a connection was in before the statement that runs.
pub struct Running(State);

/// May the connection be used after this? SQLite gives up a transaction by itself where the disk is full or
/// fails; only what it refuses for the data's sake leaves things as they were. PostgreSQL says itself when
/// it ends a session.
fn survives(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(error) = error else {
        return matches!(error, sqlx::Error::RowNotFound | sqlx::Error::ColumnDecode { .. });
    };
    match error.code().as_deref() {
        Some(code) if code.len() == 5 => {
            !code.starts_with("08")
                && !code.starts_with("57P")
                && !matches!(code, "25P03" | "25P04")
        }
        Some(code) => code.parse::<u32>().is_ok_and(|code| matches!(code & 0xff, 5 | 6 | 19 | 20)),
        None => false,
    }
}

impl<L: Link> Drop for Lent<L> {
    fn drop(&mut self) {
        let Some(mut object) = self.object.take() else { return };
        match self.state {
            // Back to the pool.
            State::Rest => {}
            State::Lost => drop(Object::take(object)),
            State::Open => {
                let Ok(runtime) = tokio::runtime::Handle::try_current() else {
                    drop(Object::take(object));
                    return;
                };
                runtime.spawn(async move {
                    let undone = tokio::time::timeout(SLACK, object.say("ROLLBACK")).await;
                    if !matches!(undone, Ok(Ok(()))) {
                        drop(Object::take(object));
                    }
                });
            }
        }
    }
}

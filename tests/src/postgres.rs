//! A private PostgreSQL: durable as in production (`fsync` on), small, on a free port.

use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tokio::sync::OnceCell;

use crate::poll::eventually;
use crate::process::{Launch, Process};
use crate::{ports, scratch};

#[derive(Debug)]
pub struct Postgres {
    process: Process,
    port: u16,
    folder: PathBuf,
}

impl Postgres {
    /// The server that tests share. Every test has a database of its own in it.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<Postgres> = OnceCell::const_new();
        SHARED.get_or_init(Self::start).await
    }

    /// A server of its own, for tests that stop it.
    pub async fn start() -> Self {
        let folder = scratch::folder("pg");
        let data = folder.join("data");
        let user = unprivileged_user();
        if let Some((uid, gid)) = user {
            chown(&folder, Some(uid), Some(gid)).expect("root can give a folder away");
        }
        init(&folder, &data, user);
        Self::serve(folder, user).await
    }

    /// Starts a server on the data that `folder` holds.
    pub(crate) async fn serve(folder: PathBuf, user: Option<(u32, u32)>) -> Self {
        let port = ports::free_port();
        let mut launch = Launch::new(binary("postgres"), &folder).args(settings(&folder, port));
        launch.user = user;
        // Immediate shutdown: quick, and the shared memory segment is released.
        launch.death_signal = "QUIT";
        let log = folder.join("postgres.log");
        let server = Self { process: Process::start("postgres", launch, log), port, folder };
        server.wait_up().await;
        server
    }

    pub fn url(&self, database: &str) -> String {
        self.url_at(self.port, database)
    }

    /// As it is reached at this port, its own or a proxy's.
    pub fn url_at(&self, port: u16, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{port}/{database}")
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub async fn execute(&self, sql: String) {
        let mut connection = self.connect("postgres").await.expect("PostgreSQL lets us in");
        connection.execute(AssertSqlSafe(sql)).await.expect("SQL of the harness");
        // Nothing depends on a polite goodbye.
        let _ = connection.close().await;
    }

    /// Every transaction that begins from now on, in any session, may only read; or may write again.
    pub async fn set_read_only(&self, on: bool) {
        let mut connection = self.connect("postgres").await.expect("PostgreSQL lets us in");
        let word = if on { "on" } else { "off" };
        let change = format!("ALTER SYSTEM SET default_transaction_read_only = {word}");
        // One by one: ALTER SYSTEM does not run inside a transaction.
        for sql in [
            "SET default_transaction_read_only = off".to_owned(),
            change,
            "SELECT pg_reload_conf()".to_owned(),
        ] {
            connection.execute(AssertSqlSafe(sql)).await.expect("SQL of the harness");
        }
        let _ = connection.close().await;
    }

    async fn connect(&self, database: &str) -> Result<PgConnection, sqlx::Error> {
        PgConnection::connect(&self.url(database)).await
    }

    async fn wait_up(&self) {
        eventually("PostgreSQL accepts connections", Duration::from_secs(60), || async {
            self.connect("postgres").await.ok()
        })
        .await;
    }

    /// `pg_ctl stop -m immediate`: no checkpoint, sessions cut, recovery at the next start.
    pub async fn stop_immediate(&mut self) {
        self.process.signal("QUIT");
        self.process.wait_end(Duration::from_secs(20)).await;
    }

    pub async fn start_again(&mut self) {
        self.process.start_again();
        self.wait_up().await;
    }

    pub fn tail(&self, lines: usize) -> String {
        self.process.tail(lines)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if self.process.is_expected_up() {
            self.process.signal("QUIT");
            for _ in 0..200 {
                if self.process.ended().is_some() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        self.process.kill9();
        scratch::remove(&self.folder);
    }
}

fn settings(folder: &Path, port: u16) -> Vec<String> {
    // A socket's path has room for about 100 bytes; without room there is TCP.
    let sockets = folder.to_str().filter(|path| path.len() < 80).unwrap_or("");
    let mut args = vec!["-D".to_owned(), folder.join("data").display().to_string()];
    args.extend(["-p".to_owned(), port.to_string()]);
    for setting in [
        "listen_addresses=127.0.0.1".to_owned(),
        format!("unix_socket_directories={sockets}"),
        "max_connections=200".to_owned(),
        "shared_buffers=128MB".to_owned(),
        "max_wal_size=1GB".to_owned(),
        "fsync=on".to_owned(),
        "logging_collector=off".to_owned(),
        "log_checkpoints=off".to_owned(),
    ] {
        args.extend(["-c".to_owned(), setting]);
    }
    args
}

fn init(folder: &Path, data: &Path, user: Option<(u32, u32)>) {
    let mut launch = Launch::new(binary("initdb"), folder).args(["-D"]).args([data]).args([
        "--username=postgres",
        "--auth=trust",
        "--encoding=UTF8",
        "--locale=C",
        "--no-sync",
    ]);
    launch.user = user;
    let output = launch.command().output().expect("initdb runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "initdb: {errors}");
}

/// PostgreSQL does not run as root.
pub(crate) fn unprivileged_user() -> Option<(u32, u32)> {
    if id(&["-u"]) != Some(0) {
        return None;
    }
    let find = |name: &str| Some((id(&["-u", name])?, id(&["-g", name])?));
    Some(find("postgres").or_else(|| find("nobody")).expect("a user for PostgreSQL"))
}

fn id(args: &[&str]) -> Option<u32> {
    let output = Command::new("id").args(args).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}

/// Debian keeps the server's programs out of the path, one folder for each major version.
pub fn binary(name: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions
        .filter_map(|entry| {
            let version: u32 = entry.file_name().to_str()?.parse().ok()?;
            let path = entry.path().join("bin").join(name);
            path.is_file().then_some((version, path))
        })
        .max();
    match newest {
        Some((_, path)) => path,
        None => PathBuf::from(name),
    }
}

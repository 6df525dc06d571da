//! What a test asks for: a size, settings, servers of its own.

use std::path::PathBuf;

use crate::deployment::Deployment;
use crate::slots::Weight;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// One process, SQLite, in-process queue.
    Embedded,
    /// PostgreSQL, Redis, processes by role.
    Scaled { apis: usize, workers: usize },
}

impl Size {
    /// Two of each: whatever only works within one process fails.
    pub const SCALED: Self = Self::Scaled { apis: 2, workers: 2 };

    /// The same kind with other numbers; embedded stays what it is.
    pub fn with(self, apis: usize, workers: usize) -> Self {
        match self {
            Self::Embedded => Self::Embedded,
            Self::Scaled { .. } => Self::Scaled { apis, workers },
        }
    }

    pub fn is_scaled(self) -> bool {
        matches!(self, Self::Scaled { .. })
    }
}

#[derive(Debug, Clone)]
pub struct Setup {
    pub(crate) size: Size,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) weight: Weight,
    pub(crate) own_postgres: bool,
    pub(crate) database_url: Option<String>,
    pub(crate) disk_mib: Option<u64>,
    pub(crate) through_proxies: bool,
}

impl Setup {
    pub fn new(size: Size) -> Self {
        let defaults = [
            ("LISTMILL_PROVIDER", "sandbox"),
            // Most tests are about something else than limits.
            ("LISTMILL_RATE_LIMITS", "off"),
            // Many tests do from one address what its rules are there for; those of abuse switch it on.
            ("LISTMILL_ABUSE_PROTECTION", "off"),
            // Production waits minutes before it asks a second time.
            ("LISTMILL_RETRY_DELAYS", "100ms,200ms,400ms"),
            ("LISTMILL_LEASE_TTL", "5s"),
            ("LISTMILL_LOG", "info"),
            ("LISTMILL_LOG_FORMAT", "text"),
            ("RUST_BACKTRACE", "1"),
        ];
        let env = defaults.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Self {
            size,
            env,
            weight: Weight::Light,
            own_postgres: false,
            database_url: None,
            disk_mib: None,
            through_proxies: false,
        }
    }

    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.retain(|(n, _)| n != name);
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// Time that the sandbox takes for each verdict.
    pub fn latency(self, latency: &str) -> Self {
        self.env("LISTMILL_SANDBOX_LATENCY", latency)
    }

    pub fn concurrency(self, addresses: usize) -> Self {
        self.env("LISTMILL_WORKER_CONCURRENCY", addresses.to_string())
    }

    pub fn weight(mut self, weight: Weight) -> Self {
        self.weight = weight;
        self
    }

    /// For tests that stop PostgreSQL, which others share.
    pub fn own_postgres(mut self) -> Self {
        self.own_postgres = true;
        self
    }

    /// For tests that bring a PostgreSQL of their own, perhaps behind something.
    pub fn database_url(mut self, url: String) -> Self {
        self.database_url = Some(url);
        self
    }

    /// The SQLite database on a file system of its own, of this size; embedded only.
    pub fn disk(mut self, mib: u64) -> Self {
        self.disk_mib = Some(mib);
        self
    }

    /// The processes reach PostgreSQL and Redis through [`crate::proxy::Proxy`]; the command line
    /// goes directly.
    pub fn through_proxies(mut self) -> Self {
        self.through_proxies = true;
        self
    }

    pub async fn start(self) -> Deployment {
        Deployment::start(self).await
    }
}

/// The binary under test: `LISTMILL_BIN`, else the one that was built beside these tests.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("LISTMILL_BIN") {
        return std::path::absolute(path).expect("a path");
    }
    let tests = std::env::current_exe().expect("the path of the running program");
    let profile = tests.parent().and_then(|deps| deps.parent()).expect("target/<profile>/deps");
    let path = profile.join("listmill");
    let shown = path.display();
    assert!(path.is_file(), "{shown} is missing: build the workspace first, or set LISTMILL_BIN");
    path
}

//! What a deployment stands on, looked at: settings, database, Redis, clocks, the process itself. Mail servers, DNS
//! and the machine are looked at by `listmill doctor`, which runs where they are asked from.
//!
//! Data: a [`Finding`] per check.

use std::time::Duration;

use serde::Serialize;

use super::App;
use super::dispatch::SILENT_MS;
use crate::domain::clock::Millis;
use crate::mail::try_server;
use crate::queue::{Queue, QueueError};
use crate::settings::{ProviderKind, Settings};
use crate::store::{Store, StoreError};

/// What `docs/OPERATIONS.md` asks for.
const POSTGRES: i32 = 130_000;
const REDIS: (u32, u32) = (6, 2);
/// Clocks of one deployment may be this far apart.
pub const APART: Duration = Duration::from_secs(2);
/// How long database and Redis may take to answer a page.
const PATIENCE: Duration = Duration::from_secs(4);

/// How serious a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// As it should be.
    Ok,
    /// It will work, but worse than it could; or it could not be looked at.
    Warning,
    /// It will not work.
    Problem,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub check: &'static str,
    /// How serious it is.
    pub state: State,
    /// What is so, and what that means.
    pub found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

impl Finding {
    /// As it should be.
    pub fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, state: State::Ok, found: found.into(), advice: None }
    }

    /// Worse than it could be.
    pub fn warning(
        check: &'static str,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        let advice = Some(advice.into());
        Self { check, state: State::Warning, found: found.into(), advice }
    }

    /// Will not work.
    pub fn problem(
        check: &'static str,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self { state: State::Problem, ..Self::warning(check, found, advice) }
    }
}

/// A clock beside ours: `theirs` was read at `ours`. `most`: how far they may be apart, `from`: from
/// which it is a problem.
pub fn clocks(
    whose: &str,
    ours: Millis,
    theirs: Millis,
    most: Duration,
    from: Duration,
) -> Finding {
    let apart = Duration::from_millis(ours.abs_diff(theirs));
    let seconds = apart.as_secs_f64();
    let found = match apart <= most {
        true => format!("this machine's clock agrees with {whose}'s"),
        false if ours > theirs => {
            format!("this machine's clock is {seconds:.1} s ahead of {whose}'s")
        }
        false => format!("this machine's clock is {seconds:.1} s behind {whose}'s"),
    };
    let advice = "Leases, limits and times of results go wrong by as much: let a time service (chrony, \
                  systemd-timesyncd) set the clock of every machine.";
    match apart {
        apart if apart <= most => Finding::ok("clock", found),
        apart if apart < from => Finding::warning("clock", found, advice),
        _ => Finding::problem("clock", found, advice),
    }
}

/// The settings of this process.
pub fn settings(settings: &Settings) -> Finding {
    match (settings.unknown.as_slice(), settings.provider) {
        ([], ProviderKind::Sandbox) => Finding::warning(
            "settings",
            "the provider is `sandbox`: every verdict is made up",
            "For real verdicts leave LISTMILL_PROVIDER out, or set it to smtp.",
        ),
        ([], _) => Finding::ok("settings", "every LISTMILL_ variable names a setting"),
        (unknown, _) => Finding::warning(
            "settings",
            format!("these variables name no setting and do nothing: {}", unknown.join(", ")),
            "Are they misspelt? `listmill.toml` and LISTMILL_ variables take the names in \
             settings.default.toml.",
        ),
    }
}

/// A database that could not be asked.
pub fn no_database(settings: &Settings, why: &str) -> Finding {
    Finding::problem(
        "database",
        format!("{} cannot be used: {why}", settings.database_url),
        "Is the server up, and does LISTMILL_DATABASE_URL name it, its user, password and database?",
    )
}

/// The database that was opened; `ours` is the time by this machine's clock.
pub async fn database(
    store: &Store,
    settings: &Settings,
    ours: impl Fn() -> Millis,
) -> Result<Vec<Finding>, StoreError> {
    let mut findings = Vec::new();
    store.ping().await?;
    let server = store.server().await?;
    if let Some(server) = server {
        let from = settings.lease_ttl / 2;
        findings.push(clocks("the database", ours(), server.now, APART, from));
    }
    findings.push(match (store.check_schema().await, server) {
        (_, Some(server)) if server.version < POSTGRES => Finding::problem(
            "database",
            format!("PostgreSQL {} is too old", server.version / 10_000),
            "Listmill needs PostgreSQL 13 or later.",
        ),
        (Ok(()), _) => {
            Finding::ok("database", format!("{} answers, its schema fits", store.engine()))
        }
        (Err(StoreError::SchemaTooOld), None) => {
            Finding::ok("database", "the file is from an older version; the next start updates it")
        }
        (Err(StoreError::SchemaTooOld), Some(_)) => Finding::problem(
            "database",
            "the database answers, but its schema is older than this program",
            "Run `listmill migrate`.",
        ),
        (Err(error @ StoreError::SchemaTooNew { .. }), _) => {
            Finding::problem("database", error.to_string(), "Use the newer program here too.")
        }
        (Err(error), _) => return Err(error),
    });
    Ok(findings)
}

/// A Redis that could not be asked.
pub fn no_redis(settings: &Settings, why: &str) -> Finding {
    let url = settings.redis_url.as_ref().map(ToString::to_string).unwrap_or_default();
    Finding::problem(
        "redis",
        format!("{url} cannot be used: {why}"),
        "Is the server up, and does LISTMILL_REDIS_URL name it? Without it `api` and `worker` \
         accept lists, but verify nothing.",
    )
}

/// The Redis that was opened, if there is one.
pub async fn redis(
    queue: &Queue,
    settings: &Settings,
    ours: impl Fn() -> Millis,
) -> Result<Vec<Finding>, QueueError> {
    let Some(server) = queue.server().await? else {
        let found =
            "LISTMILL_REDIS_URL is not set: `up` and `verify` need none, `api` and `worker` do";
        return Ok(vec![Finding::ok("redis", found)]);
    };
    let clock = clocks("Redis", ours(), server.now, APART, settings.lease_ttl / 2);
    let redis = match (server.major_minor(), &server.evicts) {
        (Some(version), _) if version < REDIS => Finding::problem(
            "redis",
            format!("Redis {} is too old", server.version),
            "Listmill needs Redis 6.2 or later.",
        ),
        (_, Some(policy)) => Finding::warning(
            "redis",
            format!("it answers, but throws keys away when its memory is full ({policy})"),
            "Set maxmemory-policy to noeviction: messages that vanish are sent again, but late.",
        ),
        _ => Finding::ok("redis", format!("Redis {} answers", server.version)),
    };
    Ok(vec![clock, redis])
}

/// The server that takes our own mails, if one is set.
pub async fn own_mail(settings: &Settings, patience: Duration) -> Option<Finding> {
    Some(match try_server(settings, patience).await? {
        Ok(server) => Finding::ok("own_mail", format!("{server} answers, and lets us in")),
        Err(why) => Finding::problem(
            "own_mail",
            format!("mails of Listmill itself cannot be sent: {why}"),
            "Does LISTMILL_SMTP_URL name the server, its port, user and password? It must offer STARTTLS unless the \
             setting says ?tls=none, with a certificate that this machine trusts.",
        ),
    })
}

impl App {
    /// Looks at what this process stands on, while it runs: nothing outside database and Redis is asked.
    pub async fn examine(&self) -> Vec<Finding> {
        // The process keeps to the database's clock; the machine's is what is looked at.
        let ours = || self.now() - self.clock.offset();
        let mut all = vec![settings(&self.settings)];
        let asked = database(&self.store, &self.settings, ours);
        match tokio::time::timeout(PATIENCE, asked).await {
            Ok(Ok(findings)) => all.extend(findings),
            Ok(Err(error)) => all.push(no_database(&self.settings, &error.to_string())),
            Err(_) => all.push(no_database(&self.settings, "no answer in time")),
        }
        let asked = redis(&self.queue, &self.settings, ours);
        match tokio::time::timeout(PATIENCE, asked).await {
            Ok(Ok(findings)) => all.extend(findings),
            Ok(Err(error)) => all.push(no_redis(&self.settings, &error.to_string())),
            Err(_) => all.push(no_redis(&self.settings, "no answer in time")),
        }
        match self.store.workers().await {
            Ok(workers) => all.extend(fleet(&workers, self.now())),
            Err(error) => tracing::debug!(%error, "the workers cannot be looked at"),
        }
        all.push(match self.stuck.held(self.now()).first() {
            None => Finding::ok("work", "every part of this process gets on"),
            Some(held) => Finding::warning(
                "work",
                format!(
                    "{} {} has not got on for {} s",
                    held.part,
                    held.about,
                    held.for_ms / 1_000
                ),
                "The log says why; it is tried again and again.",
            ),
        });
        all
    }
}

/// The workers that were heard of.
fn fleet(workers: &[crate::store::workers::Worker], now: Millis) -> Vec<Finding> {
    let living: Vec<_> = workers.iter().filter(|one| now - one.seen_at < SILENT_MS).collect();
    let able = living.iter().filter(|one| one.concurrency > 0).count();
    let mut found = vec![match (living.len(), able) {
        (0, _) => Finding::problem(
            "workers",
            "no worker lives: lists are accepted, and nothing is verified",
            "Start one: `listmill worker`.",
        ),
        (all, 0) => Finding::problem(
            "workers",
            format!("none of the {all} living workers can verify: their providers are down"),
            "Run `listmill doctor` on a worker's machine.",
        ),
        (all, able) if able < all => Finding::warning(
            "workers",
            format!("{able} of {all} living workers can verify"),
            "Run `listmill doctor` on the machines of the others; the page of the workers names them.",
        ),
        (all, _) => Finding::ok("workers", format!("{all} living, all of them can verify")),
    }];
    let mut versions: Vec<&str> = living.iter().map(|one| one.version.as_str()).collect();
    versions.sort_unstable();
    versions.dedup();
    if versions.len() > 1 {
        found.push(Finding::warning(
            "versions",
            format!("workers of several versions live: {}", versions.join(", ")),
            "That is fine while an update is under way.",
        ));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_are_held_against_each_other() {
        let second = Duration::from_secs(1);
        let of = |theirs| clocks("the database", 60_000, theirs, 2 * second, 15 * second);
        assert_eq!(of(61_500).state, State::Ok);
        assert_eq!(of(50_000).state, State::Warning);
        assert!(of(50_000).found.contains("10.0 s ahead"), "{:?}", of(50_000));
        assert_eq!(of(75_000).state, State::Problem);
        assert!(of(75_000).found.contains("15.0 s behind"), "{:?}", of(75_000));
    }
}

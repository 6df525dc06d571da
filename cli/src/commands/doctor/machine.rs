//! Settings, open files, database and Redis.

use std::path::{Path, PathBuf};
use std::time::Duration;

use listmill_shared::queue::{Queue, RedisQueue};
use listmill_shared::settings::{ProviderKind, ServerUrl, Settings};
use listmill_shared::store::{Store, StoreError};
use listmill_worker::doctor::{Finding, clocks};
use tokio::sync::mpsc::UnboundedSender;

use crate::commands::Context;

type Findings = UnboundedSender<Finding>;

/// How long database and Redis may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// What `docs/OPERATIONS.md` asks for.
const POSTGRES: i32 = 130_000;
const REDIS: (u32, u32) = (6, 2);
/// Files that a process has open beside its connections to mail servers.
const OTHER_FILES: u64 = 200;
/// Free space below which a list may not fit.
const SPACE: u64 = 1 << 30;
/// Clocks of one deployment may be this far apart.
const APART: Duration = Duration::from_secs(2);

pub async fn settings(settings: &Settings, findings: &Findings) {
    let finding = match (settings.unknown.as_slice(), settings.provider) {
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
    };
    let _ = findings.send(finding);
}

/// Each address under way is a connection, and each connection an open file.
pub async fn files(settings: &Settings, findings: &Findings) {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let Some(most) = open_files(&limits) else { return };
    let wanted = settings.worker_concurrency as u64 + OTHER_FILES;
    let _ = findings.send(match most >= wanted {
        true => Finding::ok("open_files", format!("a process may open {most} files")),
        false => Finding::problem(
            "open_files",
            format!(
                "a process may open {most} files, and {} addresses at once need about {wanted}",
                settings.worker_concurrency
            ),
            format!(
                "Raise the limit (ulimit -n {wanted}; LimitNOFILE= in a systemd unit), or lower \
                 LISTMILL_WORKER_CONCURRENCY."
            ),
        ),
    });
}

/// The soft limit in the kernel's table; `None` = it cannot be read.
fn open_files(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

pub async fn database(context: &Context, findings: &Findings) {
    let url = &context.settings.database_url;
    if let Some(path) = sqlite_path(url.reveal()) {
        let folder = path.parent().unwrap_or(Path::new("."));
        let _ = findings.send(space(folder));
        if !path.exists() {
            let found = format!("{} is not there yet; the first start makes it", path.display());
            let _ = findings.send(Finding::ok("database", found));
            return;
        }
    }
    let looked = tokio::time::timeout(PATIENCE, look_at_database(context, findings)).await;
    let problem = match looked {
        Ok(Ok(finding)) => finding,
        Ok(Err(error)) => unreachable_database(url, &error.to_string()),
        Err(_) => unreachable_database(url, "no answer in time"),
    };
    let _ = findings.send(problem);
}

fn unreachable_database(url: &ServerUrl, why: &str) -> Finding {
    Finding::problem(
        "database",
        format!("{url} cannot be used: {why}"),
        "Is the server up, and does LISTMILL_DATABASE_URL name it, its user, password and database?",
    )
}

async fn look_at_database(context: &Context, findings: &Findings) -> Result<Finding, StoreError> {
    let store =
        Store::connect(context.settings.database_url.reveal(), 1, &context.settings.session())
            .await?;
    store.ping().await?;
    let server = store.server().await?;
    if let Some(server) = server {
        let from = context.settings.lease_ttl / 2;
        let ours = context.clock.now();
        let _ = findings.send(clocks("the database", ours, server.now, APART, from));
    }
    let schema = store.check_schema().await;
    let engine = store.engine();
    store.close().await;
    Ok(match (schema, server) {
        (_, Some(server)) if server.version < POSTGRES => Finding::problem(
            "database",
            format!("PostgreSQL {} is too old", server.version / 10_000),
            "Listmill needs PostgreSQL 13 or later.",
        ),
        (Ok(()), _) => Finding::ok("database", format!("{engine} answers, its schema fits")),
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
    })
}

fn sqlite_path(url: &str) -> Option<PathBuf> {
    let path = url.strip_prefix("sqlite://")?.split('?').next()?;
    Some(PathBuf::from(path.replace("%3F", "?").replace("%25", "%")))
}

/// Room for a SQLite file, in its folder or the nearest one that is there.
fn space(folder: &Path) -> Finding {
    let there = folder.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("."));
    let shown = there.display();
    if let Err(error) = tempfile::tempfile_in(there) {
        return Finding::problem(
            "disk",
            format!("{shown} cannot be written to: {error}"),
            "Give this user the folder, or name another in LISTMILL_DATABASE_URL.",
        );
    }
    match free(there) {
        Some(free) if free < SPACE => Finding::warning(
            "disk",
            format!("{shown} has {} MB left", free >> 20),
            "A million addresses with their results need 10 to 100 MB.",
        ),
        Some(free) => Finding::ok("disk", format!("{shown} has {} GB left", free >> 30)),
        None => Finding::ok("disk", format!("{shown} can be written to")),
    }
}

/// Bytes left in a folder; `None` = not known.
#[cfg(unix)]
fn free(folder: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(folder).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

#[cfg(not(unix))]
fn free(_: &Path) -> Option<u64> {
    None
}

pub async fn redis(context: &Context, findings: &Findings) {
    let settings = &context.settings;
    let Some(url) = &settings.redis_url else {
        let found =
            "LISTMILL_REDIS_URL is not set: `up` and `verify` need none, `api` and `worker` do";
        let _ = findings.send(Finding::ok("redis", found));
        return;
    };
    let asked = async {
        let redis = RedisQueue::open(url.reveal(), &settings.redis_namespace)?;
        Queue::Redis(Box::new(redis)).server().await
    };
    let server = match tokio::time::timeout(PATIENCE, asked).await {
        Ok(Ok(Some(server))) => server,
        outcome => {
            let why = match outcome {
                Ok(Err(error)) => error.to_string(),
                _ => String::from("no answer in time"),
            };
            let _ = findings.send(Finding::problem(
                "redis",
                format!("{url} cannot be used: {why}"),
                "Is the server up, and does LISTMILL_REDIS_URL name it? Without it `api` and `worker` \
                 accept lists, but verify nothing.",
            ));
            return;
        }
    };
    let from = settings.lease_ttl / 2;
    let _ = findings.send(clocks("Redis", context.clock.now(), server.now, APART, from));
    let _ = findings.send(match (server.major_minor(), &server.evicts) {
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
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_open_files_is_read() {
        let table = "Limit                     Soft Limit           Hard Limit           Units\n\
                     Max open files            1024                 524288               files\n";
        assert_eq!(open_files(table), Some(1024));
        assert_eq!(open_files("Max open files   unlimited  unlimited  files"), Some(u64::MAX));
        assert_eq!(open_files(""), None);
    }

    #[test]
    fn sqlite_files_are_found() {
        assert_eq!(sqlite_path("sqlite://a/b%3Fc.db?mode=rwc"), Some(PathBuf::from("a/b?c.db")));
        assert_eq!(sqlite_path("postgres://x/y"), None);
    }
}

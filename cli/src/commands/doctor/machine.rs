//! Settings, open files, database, Redis, and the server of our own mails.

use std::path::{Path, PathBuf};
use std::time::Duration;

use listmill_shared::app::doctor::{self, Finding};
use listmill_shared::queue::{MemoryQueue, Queue, RedisQueue};
use listmill_shared::settings::Settings;
use listmill_shared::store::{Store, StoreError};
use tokio::sync::mpsc::UnboundedSender;

use crate::commands::Context;

type Findings = UnboundedSender<Finding>;

/// How long database and Redis may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Files that a process has open beside its connections to mail servers.
const OTHER_FILES: u64 = 200;
/// Free space below which a list may not fit.
const SPACE: u64 = 1 << 30;

pub async fn settings(settings: &Settings, findings: &Findings) {
    let _ = findings.send(doctor::settings(settings));
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
    let found = match tokio::time::timeout(PATIENCE, look_at_database(context)).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => vec![doctor::no_database(&context.settings, &error.to_string())],
        Err(_) => vec![doctor::no_database(&context.settings, "no answer in time")],
    };
    found.into_iter().for_each(|finding| drop(findings.send(finding)));
}

async fn look_at_database(context: &Context) -> Result<Vec<Finding>, StoreError> {
    let settings = &context.settings;
    let store = Store::connect(settings.database_url.reveal(), 1, &settings.session()).await?;
    let found = doctor::database(&store, settings, || context.clock.now()).await;
    store.close().await;
    found
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

pub async fn own_mail(settings: &Settings, findings: &Findings) {
    if let Some(finding) = doctor::own_mail(settings, PATIENCE).await {
        let _ = findings.send(finding);
    }
}

pub async fn redis(context: &Context, findings: &Findings) {
    let settings = &context.settings;
    let asked = async {
        let queue = match &settings.redis_url {
            Some(url) => {
                let redis = RedisQueue::open(url.reveal(), &settings.redis_namespace)?;
                Queue::Redis(Box::new(redis))
            }
            None => Queue::Memory(MemoryQueue::default()),
        };
        doctor::redis(&queue, settings, || context.clock.now()).await
    };
    let found = match tokio::time::timeout(PATIENCE, asked).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => vec![doctor::no_redis(settings, &error.to_string())],
        Err(_) => vec![doctor::no_redis(settings, "no answer in time")],
    };
    found.into_iter().for_each(|finding| drop(findings.send(finding)));
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

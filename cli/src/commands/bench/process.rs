//! CPU time and memory of the processes that a load touches, as Linux shows them in `/proc`.
//!
//! Found by name, on the whole machine: `listmill api|worker|up`, PostgreSQL and Redis where the
//! settings name them, and this process; more by `--pid`. A process that ends in between takes its
//! CPU time with it. Elsewhere than on Linux there is nothing to read, and the report says so.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How often memory is looked at.
const EVERY: Duration = Duration::from_millis(100);
/// USER_HZ: 100 on every Linux that runs today; reading it would need libc.
const TICKS_PER_SECOND: f64 = 100.0;

/// One look at a process.
#[derive(Debug, Clone)]
struct Seen {
    name: String,
    ticks: u64,
    peak_kb: u64,
    ours: bool,
}

/// What the processes of one name used.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Usage {
    pub name: String,
    pub processes: u64,
    pub cpu_seconds: f64,
    /// Most memory of one of them meanwhile; Listmill's own processes only.
    pub max_rss_bytes: Option<u64>,
    /// The load's own side, not the deployment's.
    pub client: bool,
}

/// Which processes matter.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The server is this process, so no other `listmill` counts.
    pub embedded: bool,
    pub postgres: bool,
    pub redis: bool,
    /// By name and pid, on top.
    pub named: Vec<(String, u32)>,
}

impl Wanted {
    fn own_name(&self) -> &'static str {
        if self.embedded { EMBEDDED } else { CLIENT }
    }
}

/// Measures from its start to [`Meter::stop`].
pub struct Meter {
    wanted: Wanted,
    before: BTreeMap<u32, Seen>,
    done: CancellationToken,
    watch: JoinHandle<BTreeMap<u32, u64>>,
}

/// The name of PostgreSQL's processes.
pub const DATABASE: &str = "postgres";

/// This process when it only makes the load.
const CLIENT: &str = "bench (the load itself)";
/// This process when it is also the server.
const EMBEDDED: &str = "embedded (API, worker and load)";

impl Meter {
    /// Starts now.
    pub fn start(wanted: Wanted) -> Self {
        let before = look(&wanted);
        let done = CancellationToken::new();
        let pids: Vec<u32> = before.iter().filter(|(_, p)| p.ours).map(|(pid, _)| *pid).collect();
        let watch = tokio::spawn(watch(pids, done.clone()));
        Self { wanted, before, done, watch }
    }

    /// What was used since the start, by name; empty where it cannot be known.
    pub async fn stop(self) -> Vec<Usage> {
        let after = look(&self.wanted);
        self.done.cancel();
        let seen = self.watch.await.unwrap_or_default();
        let mut all: BTreeMap<String, Usage> = BTreeMap::new();
        for (pid, now) in after {
            let before = self.before.get(&pid).filter(|before| before.name == now.name);
            let ticks = now.ticks.saturating_sub(before.map_or(0, |before| before.ticks));
            let usage = all.entry(now.name.clone()).or_insert_with(|| Usage {
                client: now.name == CLIENT,
                name: now.name,
                processes: 0,
                cpu_seconds: 0.0,
                max_rss_bytes: None,
            });
            usage.processes += 1;
            usage.cpu_seconds += ticks as f64 / TICKS_PER_SECOND;
            if now.ours {
                // A new high water mark is exact; an old one is from before the load.
                let raised = before.is_none_or(|before| now.peak_kb > before.peak_kb);
                let sampled = seen.get(&pid).copied().unwrap_or(0);
                let peak = 1024 * if raised { now.peak_kb } else { sampled };
                usage.max_rss_bytes = usage.max_rss_bytes.max(Some(peak));
            }
        }
        all.into_values().collect()
    }
}

async fn watch(pids: Vec<u32>, done: CancellationToken) -> BTreeMap<u32, u64> {
    let mut most = BTreeMap::new();
    while !done.is_cancelled() {
        for pid in &pids {
            let rss = status_kb(*pid, "VmRSS:").unwrap_or(0);
            let peak = most.entry(*pid).or_insert(0);
            *peak = rss.max(*peak);
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = done.cancelled() => {}
        }
    }
    most
}

fn look(wanted: &Wanted) -> BTreeMap<u32, Seen> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return BTreeMap::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| {
        let given =
            wanted.named.iter().find(|(_, named)| *named == pid).map(|(name, _)| name.clone());
        let name = match given {
            Some(name) => name,
            None if pid == std::process::id() => wanted.own_name().to_owned(),
            None => known(pid, wanted)?,
        };
        let ours = name.starts_with("listmill") || name == wanted.own_name();
        let peak_kb = status_kb(pid, "VmHWM:").unwrap_or(0);
        Some((pid, Seen { name, ticks: ticks(pid)?, peak_kb, ours }))
    })
    .collect()
}

/// The name of a process that matters here.
fn known(pid: u32, wanted: &Wanted) -> Option<String> {
    let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    match comm.trim_end() {
        DATABASE if wanted.postgres => Some(String::from(DATABASE)),
        "redis-server" | "valkey-server" if wanted.redis => Some(String::from("redis")),
        "listmill" if !wanted.embedded => {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            role(&line).map(|role| format!("listmill {role}"))
        }
        _ => None,
    }
}

fn role(command_line: &[u8]) -> Option<&'static str> {
    let mut words = command_line.split(|byte| *byte == 0).skip(1);
    words.find_map(|word| ["api", "worker", "up"].into_iter().find(|role| role.as_bytes() == word))
}

/// User and system time of all its threads.
fn ticks(pid: u32) -> Option<u64> {
    ticks_of(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Fields 14 and 15 of `stat`; the name before them may hold anything, `)` included.
fn ticks_of(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn status_kb(pid: u32, field: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_lines_are_read_past_strange_names() {
        let stat = "42 (a) b (c) S 1 1 1 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 4 0 1 2 3";
        assert_eq!(ticks_of(stat), Some(300));
        assert_eq!(ticks_of("42 (x"), None);
    }

    #[test]
    fn roles_are_found_among_flags() {
        assert_eq!(role(b"/bin/listmill\0--config\0x.toml\0worker\0"), Some("worker"));
        assert_eq!(role(b"listmill\0bench\0--addresses\x005\0"), None);
    }
}

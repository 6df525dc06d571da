//! The one temporary folder of a test process.
//!
//! Statics are not dropped when a process ends, and a killed process drops nothing at all, so
//! the folder is removed by a watchdog: a shell that waits for the end of its standard input,
//! which the kernel closes when we are gone.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

struct Scratch {
    path: PathBuf,
    /// Its standard input stays open for as long as this process lives.
    _watchdog: Option<Child>,
}

const WATCHDOG: &str = r#"
cat >/dev/null
n=0
while [ -e "$1" ] && [ "$n" -lt 50 ]; do
    sleep 0.2
    # A file system that a test mounted and did not live to take away.
    grep -o " $1/[^ ]*" /proc/mounts 2>/dev/null | while read -r place; do umount -l "$place"; done
    rm -rf -- "$1" 2>/dev/null
    n=$((n + 1))
done
"#;

fn scratch() -> &'static Scratch {
    static SCRATCH: OnceLock<Scratch> = OnceLock::new();
    SCRATCH.get_or_init(|| {
        let path = tempfile::Builder::new()
            .prefix("listmill-")
            .tempdir()
            .expect("a temporary folder")
            .keep();
        // PostgreSQL runs as another user and must be able to pass through.
        open_to_all(&path);
        let _watchdog = if keep() { None } else { Some(watchdog(&path)) };
        Scratch { path, _watchdog }
    })
}

fn watchdog(path: &Path) -> Child {
    // Its own process group: a Ctrl-C meant for the tests must not take it down.
    Command::new("sh")
        .args(["-c", WATCHDOG, "listmill-watchdog"])
        .arg(path)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .current_dir("/")
        .process_group(0)
        .spawn()
        .expect("the watchdog starts")
}

/// `LISTMILL_TEST_KEEP=1` leaves folders (logs, databases) for a look at a failure.
pub fn keep() -> bool {
    std::env::var_os("LISTMILL_TEST_KEEP").is_some_and(|v| v == "1")
}

/// A new folder below the scratch folder.
pub fn folder(name: &str) -> PathBuf {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = scratch().path.join(format!("{number:03}-{name}"));
    std::fs::create_dir(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    open_to_all(&path);
    path
}

pub fn remove(path: &Path) {
    if !keep() {
        // What cannot be removed now (a process is still ending) the watchdog removes.
        let _ = std::fs::remove_dir_all(path);
    }
}

fn open_to_all(path: &Path) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

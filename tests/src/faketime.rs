//! A wrong clock for one process (libfaketime): the wall clock is off, the monotonic one is right.

use std::path::{Path, PathBuf};

use crate::deployment::Deployment;

/// The library is kept in a folder of the machine's architecture.
fn library() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib").expect("/usr/lib").flatten();
    let paths = folders.map(|entry| entry.path().join("faketime/libfaketime.so.1"));
    let mut found = paths.filter(|path| path.is_file());
    found.next().expect("libfaketime is there (Debian package: faketime)")
}

/// What the library leaves behind when its process is killed.
#[derive(Debug)]
struct Leftovers(u32);

impl Drop for Leftovers {
    fn drop(&mut self) {
        for name in ["faketime_shm_", "sem.faketime_sem_"] {
            // Already gone when the process ended by itself.
            let _ = std::fs::remove_file(Path::new("/dev/shm").join(format!("{name}{}", self.0)));
        }
    }
}

impl Deployment {
    /// A worker whose clock is off by so many seconds.
    pub async fn start_worker_off_by(&mut self, seconds: i32) {
        let env = [
            ("LD_PRELOAD", library().display().to_string()),
            ("FAKETIME", format!("{seconds:+}s")),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ];
        self.add_worker(&env);
        let node = self.workers.last().expect("just added");
        // Once the process is up, what it shares with its children needs no name any more.
        let _leftovers = Leftovers(node.process.pid());
        node.wait_ready().await;
    }
}

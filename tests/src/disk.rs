//! A small file system in memory that a test can fill. Needs root, as it is mounted.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
}

impl Disk {
    /// Can this user mount at all? Not without root, nor in most containers.
    pub fn can_be_mounted() -> bool {
        let folder = crate::scratch::folder("mount");
        let disk = Self::try_mount(&folder.join("disk"), 1);
        let able = disk.is_ok();
        drop(disk);
        crate::scratch::remove(&folder);
        able
    }

    /// An empty one of this size, at a path that is not there yet.
    pub fn mount(at: &Path, mib: u64) -> Self {
        Self::try_mount(at, mib).unwrap_or_else(|why| panic!("mount: {why}"))
    }

    fn try_mount(at: &Path, mib: u64) -> Result<Self, String> {
        std::fs::create_dir(at).map_err(|e| e.to_string())?;
        let size = format!("size={mib}m");
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &size, "listmill-test"]).arg(at);
        let output = command.output().map_err(|e| e.to_string())?;
        match output.status.success() {
            true => Ok(Self { path: at.to_owned() }),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What takes the room in it.
    pub fn ballast(&self) -> Ballast {
        Ballast { path: self.path.join("ballast") }
    }
}

#[derive(Debug)]
pub struct Ballast {
    path: PathBuf,
}

impl Ballast {
    /// Takes all the room that is left.
    pub fn fill(&self) {
        let mut options = OpenOptions::new();
        let mut file = options.create(true).append(true).open(&self.path).expect("a ballast");
        for piece in [1 << 20, 1 << 12] {
            let zeros = vec![0; piece];
            loop {
                match file.write(&zeros) {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => panic!("ballast: {error}"),
                }
            }
        }
    }

    /// Full for so long: what becomes free meanwhile is taken at once. Gives the room back.
    pub async fn keep_full(&self, span: Duration) {
        let start = Instant::now();
        while start.elapsed() < span {
            self.fill();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        std::fs::remove_file(&self.path).expect("the ballast is there");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a process that is about to end may have a file open still.
        let done = Command::new("umount").arg("-l").arg(&self.path).status();
        if !done.is_ok_and(|status| status.success()) {
            eprintln!("{} stays mounted until the tests end", self.path.display());
        }
    }
}

//! A child process: started, signalled, restarted, measured; its output kept in a file.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{LazyLock, mpsc};
use std::time::{Duration, Instant};

/// How to start a program, kept so that it can be started again.
#[derive(Debug, Clone)]
pub struct Launch {
    pub program: PathBuf,
    pub args: Vec<OsString>,
    pub env: Vec<(String, String)>,
    pub cwd: PathBuf,
    /// Run as this user and group instead of root.
    pub user: Option<(u32, u32)>,
    /// What the kernel sends it when the test process is gone.
    pub death_signal: &'static str,
}

impl Launch {
    pub fn new(program: impl Into<PathBuf>, cwd: &Path) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            cwd: cwd.to_owned(),
            user: None,
            death_signal: "KILL",
        }
    }

    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// `setpriv` drops root and arms the death signal, then becomes the program: same pid.
    pub fn command(&self) -> Command {
        let mut command = Command::new("setpriv");
        command.arg("--pdeathsig").arg(self.death_signal);
        if let Some((user, group)) = self.user {
            command.arg(format!("--reuid={user}")).arg(format!("--regid={group}"));
            command.arg("--clear-groups");
        }
        command.arg("--").arg(&self.program).args(&self.args);
        command.current_dir(&self.cwd).stdin(Stdio::null());
        // Settings of the person who runs the tests are not settings of the test.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("LISTMILL_") {
                command.env_remove(name);
            }
        }
        command.envs(self.env.iter().map(|(k, v)| (k, v)));
        command
    }
}

/// The death signal is tied to the *thread* that forked. Threads of a test's runtime end with
/// the test; this one ends with the process.
fn spawn(command: Command) -> std::io::Result<Child> {
    type Order = (Command, mpsc::Sender<std::io::Result<Child>>);
    static SPAWNER: LazyLock<mpsc::Sender<Order>> = LazyLock::new(|| {
        let (orders, inbox) = mpsc::channel::<Order>();
        std::thread::Builder::new()
            .name("spawner".into())
            .spawn(move || {
                for (mut command, answer) in inbox {
                    let _ = answer.send(command.spawn());
                }
            })
            .expect("the spawner thread starts");
        orders
    });
    let (answer, result) = mpsc::channel();
    SPAWNER.send((command, answer)).expect("the spawner thread lives");
    result.recv().expect("the spawner thread answers")
}

#[derive(Debug)]
pub struct Process {
    pub name: String,
    launch: Launch,
    log: PathBuf,
    child: Option<Child>,
}

impl Process {
    pub fn start(name: &str, launch: Launch, log: PathBuf) -> Self {
        let mut process = Self { name: name.to_owned(), launch, log, child: None };
        process.start_again();
        process
    }

    pub fn start_again(&mut self) {
        assert!(self.child.is_none(), "{} is running", self.name);
        let mut command = self.launch.command();
        command.stdout(self.log_file()).stderr(self.log_file());
        let child = spawn(command).unwrap_or_else(|e| panic!("{}: {e}", self.name));
        self.child = Some(child);
    }

    fn log_file(&self) -> File {
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .unwrap_or_else(|e| panic!("{}: {e}", self.log.display()))
    }

    pub fn set_env(&mut self, name: &str, value: &str) {
        self.launch.env.retain(|(n, _)| n != name);
        self.launch.env.push((name.to_owned(), value.to_owned()));
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap_or_else(|| panic!("{} is stopped", self.name)).id()
    }

    /// Started by us and not stopped by us.
    pub fn is_expected_up(&self) -> bool {
        self.child.is_some()
    }

    /// `Some` when it has ended, by itself or by a signal.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.try_wait().expect("a child can be waited for")
    }

    /// `kill` of the shell: no unsafe code, no package beyond a shell.
    pub fn signal(&self, signal: &str) {
        let line = format!("kill -{signal} {}", self.pid());
        let status = Command::new("sh").args(["-c", &line]).status().expect("sh runs");
        assert!(status.success(), "{line} ({})", self.name);
    }

    /// Stopped in its tracks: no signal handler, no thread, no packet of its own.
    pub fn stop(&self) {
        self.signal("STOP");
    }

    pub fn cont(&self) {
        self.signal("CONT");
    }

    pub fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Fails only when it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGTERM, a moment to end its children, then SIGKILL.
    pub fn end_politely(&mut self) {
        if self.is_expected_up() && self.ended().is_none() {
            self.signal("TERM");
            for _ in 0..200 {
                if self.ended().is_some() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        self.kill9();
    }

    /// Waits for the end that a signal (or a refusal) brings.
    pub async fn wait_end(&mut self, limit: Duration) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                self.child = None;
                return status;
            }
            let late = start.elapsed() > limit;
            assert!(!late, "{} still runs after {limit:?}\n{}", self.name, self.tail(30));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub async fn sigterm(&mut self, limit: Duration) -> ExitStatus {
        self.signal("TERM");
        self.wait_end(limit).await
    }

    /// Resident memory now, in bytes.
    pub fn rss(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// The most resident memory it ever had, in bytes.
    pub fn peak_rss(&self) -> u64 {
        self.memory("VmHWM:")
    }

    fn memory(&self, field: &str) -> u64 {
        let path = format!("/proc/{}/status", self.pid());
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
        let line = text.lines().find(|l| l.starts_with(field)).expect("a memory line");
        let kib: u64 = line.split_whitespace().nth(1).expect("a value").parse().expect("KiB");
        kib * 1024
    }

    pub fn output(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub fn tail(&self, lines: usize) -> String {
        let text = self.output();
        let all: Vec<&str> = text.lines().collect();
        let from = all.len().saturating_sub(lines);
        format!("--- {}: last lines of its output\n{}", self.name, all[from..].join("\n"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill9();
    }
}

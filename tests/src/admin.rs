//! The operator's command line, spoken with `--json`.

use std::ffi::OsString;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::io::AsyncWriteExt;

use crate::client::Client;
use crate::deployment::Deployment;
use crate::poll::within;
use crate::process::Launch;

/// How package managers say that they reach nobody.
const UNREACHABLE: &[&str] = &[
    "ENOTFOUND",
    "EAI_AGAIN",
    "ECONNREFUSED",
    "ECONNRESET",
    "ETIMEDOUT",
    "ENETUNREACH",
    "EHOSTUNREACH",
    "NewConnectionError",
    "ConnectTimeoutError",
    "Name or service not known",
    "Temporary failure in name resolution",
    "Network is unreachable",
    "ReadTimeoutError",
];

/// What a command left behind.
#[derive(Debug)]
pub struct Outcome {
    pub line: String,
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    pub fn expect_success(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self
    }

    pub fn expect_failure(self) -> Self {
        assert!(self.code.is_some_and(|code| code != 0), "{self:#?}");
        self
    }

    /// `--json`: one object on standard output and nothing else.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {self:#?}"))
    }

    pub fn text(&self) -> String {
        format!("{}\n{}", self.stdout, self.stderr)
    }

    /// A package manager that reached nobody.
    pub fn says_unreachable(&self) -> bool {
        let text = self.text();
        UNREACHABLE.iter().any(|word| text.contains(word))
    }
}

/// Runs a command to its end.
pub async fn run(launch: Launch, limit: Duration) -> Outcome {
    run_with_input(launch, limit, None).await
}

/// Runs a command to its end; it reads `input`, a few KiB at most, from stdin.
pub async fn run_with_input(launch: Launch, limit: Duration, input: Option<&str>) -> Outcome {
    let line = format!("{} {:?}", launch.program.display(), launch.args);
    let mut command = tokio::process::Command::from(launch.command());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    if input.is_some() {
        command.stdin(Stdio::piped());
    }
    let mut child = command.spawn().expect("the program starts");
    if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
        // One that ends before it reads is judged by its exit code.
        let _ = stdin.write_all(input.as_bytes()).await;
    }
    let output = within(&line, limit, child.wait_with_output()).await.expect("the program ends");
    Outcome {
        line,
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

#[derive(Debug, Clone)]
pub struct Key {
    pub id: String,
    pub secret: String,
}

/// An account with one key.
#[derive(Debug, Clone)]
pub struct Customer {
    pub account: String,
    pub granted: u64,
    pub key: Key,
    pub client: Client,
}

impl Deployment {
    pub async fn cli<A: Into<OsString> + Clone>(&self, args: &[A]) -> Outcome {
        let launch = self.launch().args(args.iter().cloned());
        run(launch, Duration::from_secs(60)).await
    }

    /// Likewise, with this on stdin.
    pub async fn cli_with_input<A: Into<OsString> + Clone>(
        &self,
        args: &[A],
        input: &str,
    ) -> Outcome {
        let launch = self.launch().args(args.iter().cloned());
        run_with_input(launch, Duration::from_secs(60), Some(input)).await
    }

    async fn admin(&self, args: &[&str]) -> Value {
        let mut all = vec!["admin"];
        all.extend(args);
        all.push("--json");
        self.cli(&all).await.expect_success().json()
    }

    pub async fn create_account(&self, credits: u64) -> String {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let email = format!("owner{}@customer.example", NEXT.fetch_add(1, Ordering::Relaxed));
        let credits = credits.to_string();
        let args = ["account", "create", "--email", &email, "--credits", &credits];
        let answer = self.admin(&args).await;
        let id = answer["account_id"].as_str().expect("account_id").to_owned();
        assert!(id.starts_with("acct_"), "{id}");
        id
    }

    pub async fn create_key(&self, account: &str) -> Key {
        let answer =
            self.admin(&["key", "create", "--account", account, "--label", "made by a test"]).await;
        let text = |field: &str| answer[field].as_str().expect(field).to_owned();
        let key = Key { id: text("key_id"), secret: text("key") };
        assert!(key.id.starts_with("key_") && key.secret.starts_with("VEC"), "{}", key.id);
        self.keep_secret(&key.secret);
        key
    }

    /// A secret that must not turn up in any log.
    pub fn keep_secret(&self, secret: &str) {
        self.secrets.lock().expect("not poisoned").push(secret.to_owned());
    }

    pub async fn customer(&self, credits: u64) -> Customer {
        let account = self.create_account(credits).await;
        let key = self.create_key(&account).await;
        let client = self.client(&key.secret);
        Customer { account, granted: credits, key, client }
    }

    pub async fn grant(&self, account: &str, amount: u64) {
        let amount = amount.to_string();
        self.admin(&["credits", "grant", "--account", account, "--amount", &amount]).await;
    }

    /// The account's part when the work is shared out: one of 3 gets three times that of one of 1.
    pub async fn weigh(&self, account: &str, weight: u32) {
        let weight = weight.to_string();
        self.admin(&["account", "weight", "--account", account, "--weight", &weight]).await;
    }

    pub async fn suspend(&self, key: &Key, reason: &str) {
        self.admin(&["key", "suspend", &key.id, "--reason", reason]).await;
    }

    pub async fn unsuspend(&self, key: &Key) {
        self.admin(&["key", "unsuspend", &key.id]).await;
    }

    pub async fn block_ip(&self, cidr: &str) {
        self.admin(&["ip", "block", cidr]).await;
    }

    pub async fn unblock_ip(&self, cidr: &str) {
        self.admin(&["ip", "unblock", cidr]).await;
    }

    /// Proves the ledger, in whatever state the work is at this moment.
    pub async fn reconcile(&self) {
        self.cli(&["admin", "reconcile", "--json"]).await.expect_success().json();
    }
}

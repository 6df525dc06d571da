//! Starting `chromedriver` and, through it, a headless Chromium.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thirtyfour::prelude::*;
use thirtyfour::{ChromeCapabilities, LoggingPrefsLogLevel};

use crate::poll::{eventually, within};
use crate::ports;
use crate::process::{Launch, Process};

const START: Duration = Duration::from_secs(60);
const FLAGS: &[&str] = &[
    "--headless=new",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--hide-scrollbars",
    "--window-size=1280,900",
    "--lang=en-US",
];

/// The driver's process and a session with a new browser; both keep what they write in `folder`.
pub(super) async fn start(folder: &Path) -> (Process, WebDriver) {
    let port = ports::free_port();
    let mut launch = Launch::new(program("chromedriver"), folder)
        .args([format!("--port={port}"), "--allowed-ips=127.0.0.1".to_owned()]);
    let home = folder.display().to_string();
    launch.env.extend(["HOME", "TMPDIR"].map(|name| (name.to_owned(), home.clone())));
    let process = Process::start("chromedriver", launch, folder.join("chromedriver.log"));
    let server = format!("http://127.0.0.1:{port}");
    let client = crate::client::http().timeout(Duration::from_secs(90));
    let client = client.build().expect("a client");
    let status = format!("{server}/status");
    eventually("chromedriver answers", START, || async {
        client.get(&status).send().await.ok().filter(|answer| answer.status().is_success())
    })
    .await;
    let session = WebDriver::builder(server, capabilities(folder)).client(client);
    let driver = within("the browser starts", START, session.connect()).await;
    let driver = driver.unwrap_or_else(|e| panic!("no browser: {e}\n{}", process.tail(20)));
    driver.set_script_timeout(Duration::from_secs(30)).await.expect("a limit for scripts");
    (process, driver)
}

fn capabilities(folder: &Path) -> ChromeCapabilities {
    let mut wanted = DesiredCapabilities::chrome();
    let mut flags: Vec<String> = FLAGS.iter().map(|flag| (*flag).to_owned()).collect();
    flags.push(format!("--user-data-dir={}", folder.join("profile").display()));
    // Its sandbox refuses to run as root.
    if is_root() {
        flags.push("--no-sandbox".to_owned());
    }
    for flag in &flags {
        wanted.add_arg(flag).expect("a flag");
    }
    let program = wrapper(folder).display().to_string();
    wanted.set_binary(&program).expect("a program");
    for log in ["browser", "performance"] {
        wanted.set_logging_prefs(log, LoggingPrefsLogLevel::All).expect("a log");
    }
    wanted
}

/// A driver that is killed would leave its browser behind: this one goes with it.
fn wrapper(folder: &Path) -> PathBuf {
    let path = folder.join("chromium");
    let browser = program("chromium");
    let script =
        format!("#!/bin/sh\nexec setpriv --pdeathsig KILL -- {} \"$@\"\n", browser.display());
    std::fs::write(&path, script).expect("a script is written");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("it may be run");
    path
}

fn program(name: &str) -> PathBuf {
    let path = PathBuf::from("/usr/bin").join(name);
    assert!(path.exists(), "{} is missing: `tests/run` says what to install", path.display());
    path
}

fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let user = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    user.and_then(|ids| ids.split_whitespace().nth(1)) == Some("0")
}

//! `listmill verify` that is ended in every way, at random points, and goes on.
//!
//! `LISTMILL_TEST_VERIFY_ENDS`: how often by each signal (1).

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use listmill_tests::admin::{Outcome, run};
use listmill_tests::eventually;
use listmill_tests::process::{Launch, Process};
use listmill_tests::random::Random;
use listmill_tests::sql;
use tokio::io::AsyncWriteExt;

use super::verify::{Desk, LIMIT, rows};

const SIGNALS: [(&str, i32); 5] =
    [("HUP", 129), ("INT", 130), ("QUIT", 131), ("TERM", 143), ("KILL", 137)];
const ADDRESSES: usize = 150;
const LATENCY: Duration = Duration::from_millis(25);
const PROGRESS: &str = "list-results.csv.progress";

/// As a shell at a terminal starts it, whoever runs the tests: no signal is ignored.
fn from_terminal(mut launch: Launch, how: &str) -> Launch {
    let program = std::mem::replace(&mut launch.program, "env".into());
    let args = std::mem::take(&mut launch.args);
    launch.args([how.into(), program.into_os_string()]).args(args)
}

impl Desk {
    fn start(&self, args: &[&str], log: &str) -> Process {
        let mut launch = from_terminal(self.launch(args), "--default-signal=HUP,INT,QUIT");
        launch.env.push(("LISTMILL_SMTP_TIMEOUT".into(), "30s".into()));
        Process::start("verify", launch, self.folder.join(log))
    }

    /// To its end, whatever it leaves; a server that says nothing is not waited for.
    async fn end(&self, args: &[&str]) -> Outcome {
        let mut launch = self.launch(args);
        launch.env.push(("LISTMILL_SMTP_TIMEOUT".into(), "1s".into()));
        run(launch, LIMIT).await
    }

    /// Addresses of the list that the server was asked about; made-up names are not of it.
    fn asked(&self) -> Vec<String> {
        let of_list = |asked: &String| asked.starts_with("known") || asked.starts_with("other");
        self.server.recipients().into_iter().filter(of_list).collect()
    }

    /// Results in the progress.
    async fn stored(&self) -> usize {
        let url = format!("sqlite://{}", self.folder.join(PROGRESS).join("verify.db").display());
        let sql = "SELECT SUM(deliverable + undeliverable + risky + unknown) FROM batches";
        usize::try_from(sql::number(&url, sql).await).expect("a count")
    }

    async fn asked_at_least(&self, count: usize) {
        eventually("some are asked about", LIMIT, || async {
            (self.asked().len() >= count).then_some(())
        })
        .await;
    }

    fn has(&self, name: &str) -> bool {
        self.folder.join(name).exists()
    }
}

fn list() -> String {
    let address = |n: usize| match n % 3 {
        0 => format!("other{n}@shop.test"),
        _ => format!("known{n}@shop.test"),
    };
    let all: Vec<String> = (0..ADDRESSES).map(|n| format!("{n},{}", address(n))).collect();
    format!("no,mail\n{}\nagain,{}\n", all.join("\n"), address(7))
}

/// Without what depends on the time.
fn lasting(csv: &str) -> Vec<BTreeMap<String, String>> {
    let mut rows = rows(csv, b',');
    for row in &mut rows {
        row.remove("listmill_checked_at").expect("our column");
    }
    rows
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("it is there").permissions().mode() & 0o7777
}

fn assert_private(folder: &Path) {
    assert_eq!(mode(folder), 0o700, "{}", folder.display());
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        assert_eq!(mode(&entry.path()), 0o600, "{}", entry.path().display());
    }
}

/// A run at a time until the list is done, each ended by the next signal at a random point. What was asked about
/// and not stored then may be asked about again, and nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ended_at_random_points_it_gives_the_same_results() {
    let mut random = Random::printed();
    let times = std::env::var("LISTMILL_TEST_VERIFY_ENDS").ok();
    let times: usize = times.map_or(1, |times| times.parse().expect("a number"));
    let desk = Desk::slow(LATENCY).await;
    desk.write("whole.csv", list());
    desk.verify(&["whole.csv"]).await.expect_success();
    let whole = lasting(&desk.read("whole-results.csv"));
    assert_eq!(whole.len(), ADDRESSES + 1);
    assert!(whole.iter().all(|row| !row["listmill_status"].is_empty()), "{whole:?}");
    for round in 0..times {
        let desk = Desk::slow(LATENCY).await;
        desk.write("list.csv", list());
        let mut signals = SIGNALS;
        random.shuffle(&mut signals);
        let (mut under_way, mut again, mut asked_by_all) = (0, 0, 0);
        // Within a run, the engine may ask a second time as it sees fit.
        let asked_since =
            |desk: &Desk, from: usize| desk.asked()[from..].iter().collect::<BTreeSet<_>>().len();
        for (turn, (signal, code)) in signals.into_iter().enumerate() {
            let (log, from) = (format!("log-{turn}"), desk.asked().len());
            let mut process = desk.start(&["list.csv", "--resume", "--concurrency", "4"], &log);
            // Any phase, also before it has begun and while it writes; or between two answers.
            if random.below(4) > 0 {
                let more = 1 + random.index(ADDRESSES / 6);
                desk.asked_at_least((desk.asked().len() + more).min(ADDRESSES - 1)).await;
                tokio::time::sleep(Duration::from_millis(random.below(150))).await;
            } else {
                tokio::time::sleep(Duration::from_millis(random.below(1_000))).await;
            }
            if process.ended().is_none() {
                process.signal(signal);
            }
            let status = process.wait_end(LIMIT).await;
            assert!(desk.server.wait_open(0).await, "all connections end");
            asked_by_all += asked_since(&desk, from);
            let asked = desk.asked();
            let distinct = asked.iter().collect::<BTreeSet<_>>().len();
            eprintln!(
                "round {round}: SIG{signal} after {} ({distinct}) asked: {status}",
                asked.len()
            );
            if desk.has("list-results.csv") && !desk.has(PROGRESS) {
                break;
            }
            let stored = if distinct > 0 { desk.stored().await } else { 0 };
            let before = std::mem::replace(&mut under_way, distinct - stored.min(distinct));
            again += under_way;
            let output = process.output();
            // Before its handlers stand, any signal kills.
            if let Some(ended) = status.code() {
                assert_eq!(ended, code, "{output}");
                assert!(under_way <= before, "what was under way came to its end: {output}");
                assert!(desk.has(PROGRESS) || !output.contains("--resume goes on"), "{output}");
            }
            if desk.has(PROGRESS) {
                assert_private(&desk.folder.join(PROGRESS));
            }
            if desk.has("list-results.csv") {
                let partial = rows(&desk.read("list-results.csv"), b',');
                assert_eq!(partial.len(), ADDRESSES + 1, "a whole file, with what is there");
            }
        }
        let from = desk.asked().len();
        if !desk.has("list-results.csv") || desk.has(PROGRESS) {
            desk.verify(&["list.csv", "--resume"]).await.expect_success();
        }
        assert_eq!(lasting(&desk.read("list-results.csv")), whole, "round {round}");
        assert!(!desk.has(PROGRESS));
        desk.assert_nothing_left();
        let asked = asked_by_all + asked_since(&desk, from);
        assert!(asked <= ADDRESSES + again, "{asked} asked, {again} under way at the ends");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_it_goes_on_with_is_its_own() {
    let desk = Desk::new().await;
    let list = "known1@shop.test\nknown2@shop.test\nhang1@shop.test\n";
    desk.write("list.txt", list);
    let mut process = desk.start(&["list.txt"], "log");
    desk.asked_at_least(2).await;
    eventually("both are stored", LIMIT, || async { (desk.stored().await == 2).then_some(()) })
        .await;
    assert_private(&desk.folder.join(PROGRESS));
    let refused = async |args: &[&str], says: &str| {
        let outcome = desk.end(args).await;
        assert_eq!(outcome.code, Some(1), "{outcome:#?}");
        assert!(outcome.stderr.contains(says), "{says}: {outcome:#?}");
    };
    for args in [&["list.txt"][..], &["list.txt", "--resume"], &["list.txt", "--restart"]] {
        refused(args, "another listmill verify is at work").await;
    }
    process.signal("KILL");
    process.wait_end(LIMIT).await;
    refused(&["list.txt"], "--resume").await;
    refused(&["list.txt", "--resume", "--provider", "sandbox"], "--provider smtp").await;
    refused(&["known1@shop.test", "--resume"], "are for lists").await;
    desk.write("list.txt", "known1@shop.test\nknown3@shop.test\n");
    refused(&["list.txt", "--resume"], "list.txt has changed").await;
    assert_eq!(desk.asked().len(), 2, "none of them asked anybody");

    // What somebody else has put there meanwhile is not replaced.
    desk.write("list.txt", list);
    desk.write("list-results.csv", "precious");
    refused(&["list.txt", "--resume"], "--force").await;
    assert_eq!(desk.read("list-results.csv"), "precious");
    desk.end(&["list.txt", "--resume", "--force"]).await.expect_success();
    let mut asked = desk.asked();
    asked.sort();
    assert_eq!(asked, ["known1@shop.test", "known2@shop.test"], "once");
    assert_eq!(rows(&desk.read("list-results.csv"), b',').len(), 3);
    assert_eq!(mode(&desk.folder.join("list-results.csv")) & 0o400, 0o400);
    assert!(!desk.has(PROGRESS));
    desk.assert_nothing_left();

    // Anew: everything is asked about again.
    let mut process = desk.start(&["list.txt", "--force"], "log-2");
    desk.asked_at_least(4).await;
    process.signal("KILL");
    process.wait_end(LIMIT).await;
    desk.end(&["list.txt", "--restart", "--force"]).await.expect_success();
    assert_eq!(desk.asked().len(), 6);
    assert!(!desk.has(PROGRESS));
}

/// The list of stdin comes but once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_from_stdin_goes_on_without_it() {
    let desk = Desk::new().await;
    // Likewise to stdout, where a folder is named.
    let folder = desk.folder.join("kept");
    let folder = folder.to_str().expect("text");
    for (round, to) in
        [&["--output", "out.csv"][..], &["--output", "-", "--progress", folder]].iter().enumerate()
    {
        let launch = desk.launch(&[&["-"], *to].concat());
        let mut command = tokio::process::Command::from(launch.command());
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.kill_on_drop(true).spawn().expect("it starts");
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(b"mail\nknown1@shop.test\nhang1@shop.test\n").await.expect("it reads");
        drop(stdin);
        desk.asked_at_least(round + 1).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        child.kill().await.expect("it is killed");
        let outcome = desk.end(&[&["-", "--resume"], *to].concat()).await.expect_success();
        let results = if round == 0 { desk.read("out.csv") } else { outcome.stdout };
        let rows = rows(&results, b',');
        let found: Vec<&str> = rows.iter().map(|row| &*row["listmill_status"]).collect();
        assert_eq!(found, ["deliverable", "unknown"], "{results}");
        assert_eq!(desk.asked().len(), round + 1, "once");
    }
    assert!(!desk.has("out.csv.progress") && !desk.has("kept"));
    desk.assert_nothing_left();
}

/// Single addresses are kept nowhere, and what a killed process left goes with the next.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_dead_left_is_removed() {
    let desk = Desk::new().await;
    let mut process = desk.start(&["known1@shop.test", "hang1@shop.test"], "log");
    desk.asked_at_least(1).await;
    process.signal("KILL");
    process.wait_end(LIMIT).await;
    let tmp = std::fs::read_dir(desk.folder.join("tmp")).expect("a folder");
    let left: Vec<_> = tmp.flatten().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(left[0].path().join("verify.db").exists());
    assert_private(&left[0].path());
    // It looks for itself that nothing is left.
    desk.verify(&["known2@shop.test"]).await.expect_success();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_nohup_a_closed_terminal_is_nothing() {
    let desk = Desk::slow(LATENCY).await;
    desk.write("list.csv", list());
    let launch = from_terminal(desk.launch(&["list.csv"]), "--ignore-signal=HUP");
    let mut process = Process::start("verify", launch, desk.folder.join("log"));
    desk.asked_at_least(5).await;
    process.signal("HUP");
    let status = process.wait_end(LIMIT).await;
    assert_eq!(status.code(), Some(0), "{}", process.output());
    assert!(!desk.has(PROGRESS));
}

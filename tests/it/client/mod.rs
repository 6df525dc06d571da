//! The commands that speak to a server: what they bring is what the API gives, whatever happens on the way; and
//! what they say when it does not go.

mod refused;
mod wire;

use std::path::Path;
use std::time::Duration;

use listmill_tests::admin::{Customer, Outcome, run, run_with_input};
use listmill_tests::process::{Launch, Process};
use listmill_tests::setup::binary;
use listmill_tests::{Deployment, Setup, Size, eventually};
use serde_json::Value;

use self::wire::{Fate, Wire};

const LIMIT: Duration = Duration::from_secs(60);
const LIST: &str = "Name;Mail\nAnna;anna@shop.test\nBert;undeliverable@shop.test\n\
                    Again;anna@SHOP.test\nBlank;\nFull;full@shop.test\n";

/// Somebody at a shell, with a server and a key.
struct Desk {
    app: Deployment,
    customer: Customer,
}

impl Desk {
    async fn new() -> Self {
        let app = Setup::new(Size::Embedded).start().await;
        let customer = app.customer(1_000).await;
        std::fs::write(app.folder().join("contacts.csv"), LIST).expect("a list");
        Self { app, customer }
    }

    fn url(&self) -> String {
        self.app.apis[0].base()
    }

    fn launch(&self, args: &[&str]) -> Launch {
        launch(self.app.folder(), &self.url(), &self.customer.key.secret, args)
    }

    async fn run(&self, args: &[&str]) -> Outcome {
        let outcome = run(self.launch(args), LIMIT).await;
        assert!(!outcome.text().contains(&self.customer.key.secret), "the key is shown");
        assert!(!outcome.text().contains("panicked"), "{outcome:#?}");
        outcome
    }

    async fn json(&self, args: &[&str]) -> Value {
        let mut all = args.to_vec();
        all.push("--json");
        self.run(&all).await.expect_success().json()
    }

    async fn file(&self, id: &str, query: &str) -> Vec<u8> {
        let path = format!("/v1/tasks/{id}/results?{query}");
        self.customer.client.get(&path).await.expect(200).body
    }

    fn read(&self, name: &str) -> Vec<u8> {
        let path = self.app.folder().join(name);
        std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    fn assert_nothing_half_written(&self) {
        let entries = std::fs::read_dir(self.app.folder()).expect("a folder").flatten();
        let parts = entries.filter(|entry| entry.file_name().to_string_lossy().ends_with(".part"));
        assert_eq!(parts.count(), 0, "a half-written file is left");
    }
}

/// With nothing else in the environment.
fn launch(folder: &Path, url: &str, key: &str, args: &[&str]) -> Launch {
    let mut launch = Launch::new(binary(), folder).args(args.iter().copied());
    launch.env.push(("LISTMILL_URL".into(), url.into()));
    launch.env.push(("LISTMILL_KEY".into(), key.into()));
    launch
}

fn id(task: &Value) -> String {
    task["id"].as_str().unwrap_or_else(|| panic!("{task}")).to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_goes_there_and_what_the_api_gives_comes_back() {
    let desk = Desk::new().await;
    let task = desk.json(&["submit", "contacts.csv"]).await;
    assert_eq!((&task["name"], &task["counts"]["unique"]), (&"contacts.csv".into(), &3.into()));
    let id = id(&task);
    let watched = desk.json(&["watch", &id]).await;
    assert_eq!(
        (&watched["status"], &watched["counts"]["processed"]),
        (&"completed".into(), &3.into())
    );
    let status = desk.json(&["status", &id]).await;
    let shown = desk.customer.client.get(&format!("/v1/tasks/{id}")).await.expect(200).json();
    assert_eq!(status, shown);

    let csv = desk.run(&["results", &id]).await.expect_success();
    assert_eq!(csv.stdout.as_bytes(), desk.file(&id, "format=csv").await);
    let good = ["results", &id, "--status", "deliverable", "--format", "txt"];
    assert_eq!(desk.run(&good).await.expect_success().stdout.trim(), "anna@shop.test");
    let written = desk.json(&["results", &id, "--output", "r.ndjson"]).await;
    assert_eq!(written["format"], "ndjson", "{written}");
    assert_eq!(desk.read("r.ndjson"), desk.file(&id, "format=ndjson").await);
    let again = desk.run(&["results", &id, "--output", "r.ndjson"]).await.expect_failure();
    assert!(again.stderr.contains("--force"), "{again:#?}");
    desk.run(&["results", &id, "--output", "r.ndjson", "--force"]).await.expect_success();
    desk.run(&["results", &id, "--output", "r.xlsx"]).await.expect_success();
    assert!(desk.read("r.xlsx").starts_with(b"PK"), "a workbook");

    // By stdin, with everything in one call.
    let args = [
        "submit", "-", "--name", "piped", "--wait", "--output", "out.csv", "--json", "--column",
        "2",
    ];
    let outcome = run_with_input(desk.launch(&args), LIMIT, Some(LIST)).await.expect_success();
    let piped = outcome.json();
    assert_eq!((&piped["name"], &piped["output"]), (&"piped".into(), &"out.csv".into()));
    let (id, out) = (self::id(&piped), desk.read("out.csv"));
    assert_eq!(out, desk.file(&id, "format=csv").await);
    assert!(String::from_utf8_lossy(&out).contains("Blank"), "rows come back as they were");

    let balance = desk.customer.client.balance().await;
    let dry = desk.json(&["submit", "contacts.csv", "--dry-run"]).await;
    assert!(dry.get("id").is_none(), "{dry}");
    let table = desk.run(&["status"]).await.expect_success();
    assert!(table.stdout.contains(&id) && table.stdout.contains("piped"), "{table:#?}");
    assert_eq!(table.stdout.lines().count(), 3, "two tasks below their head: {table:#?}");
    assert_eq!(desk.customer.client.balance().await, balance, "a dry run costs nothing");
    desk.assert_nothing_half_written();
    desk.app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_prints_what_the_task_came_to() {
    let desk = Desk::new().await;
    let slow: String = (0..600).map(|n| format!("slow{n}@shop.test\n")).collect();
    std::fs::write(desk.app.folder().join("slow.txt"), slow).expect("a list");
    let id = id(&desk.json(&["submit", "slow.txt"]).await);
    let cancelled = desk.json(&["cancel", &id]).await;
    assert_eq!(cancelled["task"]["status"], "cancelled");
    assert!(cancelled["settlement"]["not_processed"].as_u64() > Some(0), "{cancelled}");
    let said = desk.run(&["cancel", &id]).await.expect_success();
    assert!(said.stdout.contains("addresses without a result"), "{said:#?}");
    let watched = desk.run(&["watch", &id]).await;
    assert_eq!(watched.code, Some(1), "not completed: {watched:#?}");
    desk.app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_breaks_makes_no_second_task() {
    let desk = Desk::new().await;
    let port = desk.app.apis[0].port;
    let wire = Wire::start(port, vec![Fate::AnswerLost]).await;
    let key = &desk.customer.key.secret;
    let through = |args: &[&str]| launch(desk.app.folder(), &wire.url(), key, args);
    let outcome = run(through(&["submit", "contacts.csv", "--json"]), LIMIT).await;
    let outcome = outcome.expect_success();
    assert!(outcome.stderr.contains("trying again"), "{outcome:#?}");
    assert_eq!(wire.sent().matches("POST /v1/tasks").count(), 2, "it was sent twice");
    let tasks = desk.customer.client.tasks().await;
    assert_eq!(tasks.len(), 1, "{tasks:?}");
    assert_eq!(tasks[0]["id"], outcome.json()["id"]);

    // A stream that is cut is taken up where it was.
    let slow: String = (0..400).map(|n| format!("slow{n}@shop.test\n")).collect();
    std::fs::write(desk.app.folder().join("slow.txt"), slow).expect("a list");
    let id = id(&desk.json(&["submit", "slow.txt"]).await);
    // The first connection shows the task and becomes the stream.
    let cut = Fate::CutAfter(Duration::from_millis(1_200));
    let wire = Wire::start(port, vec![cut, cut]).await;
    let args = ["watch", &id, "--json"];
    let watching = launch(desk.app.folder(), &wire.url(), key, &args);
    let watched = run(watching, LIMIT).await.expect_success().json();
    assert_eq!(
        (&watched["status"], &watched["counts"]["processed"]),
        (&"completed".into(), &400.into())
    );
    let sent = wire.sent().to_ascii_lowercase();
    assert!(sent.contains("last-event-id: "), "it says what it knows: {sent}");
    desk.app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_has_a_server_do_it() {
    let desk = Desk::new().await;
    let url = desk.url();
    let done = desk.json(&["verify", "contacts.csv", "--url", &url]).await;
    assert_eq!(
        (&done["output"], &done["interrupted"]),
        (&"contacts-results.csv".into(), &false.into())
    );
    let id = done["task_id"].as_str().expect("a task").to_owned();
    assert_eq!(desk.read("contacts-results.csv"), desk.file(&id, "format=csv").await);
    let single = ["verify", "undeliverable@shop.test", "--url", &url, "--fail-on", "undeliverable"];
    let single = desk.run(&single).await;
    assert_eq!(single.code, Some(1), "{single:#?}");
    assert!(single.stdout.contains("mailbox_not_found"), "{single:#?}");

    // Ctrl-C ends the watching; the task goes on.
    let slow: String = (0..900).map(|n| format!("slow{n}@shop.test\n")).collect();
    std::fs::write(desk.app.folder().join("slow.txt"), slow).expect("a list");
    let log = desk.app.folder().join("verify.log");
    let launch = desk.launch(&["verify", "slow.txt", "--url", &url]);
    let mut process = Process::start("verify", launch, log);
    eventually("it is submitted", LIMIT, || async {
        process.output().contains("submitted to").then_some(())
    })
    .await;
    process.signal("INT");
    assert_eq!(process.wait_end(LIMIT).await.code(), Some(130), "{}", process.tail(20));
    let said = process.output();
    let tasks = desk.customer.client.tasks().await;
    let id = self::id(&tasks[0]);
    for hint in ["goes on", "listmill cancel", "listmill results", id.as_str()] {
        assert!(said.contains(hint), "{hint} is not said: {said}");
    }
    assert_ne!(tasks[0]["status"], "cancelled");
    assert!(!desk.app.folder().join("slow-results.csv").exists(), "nothing half-done");
    desk.assert_nothing_half_written();
    desk.customer.client.cancel(&id).await;
    desk.app.finish().await;
}

//! How the processes behave: refusals at the start, draining, help, the demonstration.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use listmill_tests::admin::run;
use listmill_tests::process::Launch;
use listmill_tests::setup::binary;
use listmill_tests::{Setup, Size, Weight, eventually, for_each_size, lists, ports, scratch, sql};

for_each_size!(newer_schema_is_refused, reconcile_sees_a_wrong_balance, drains_on_sigterm);

const LIMIT: Duration = Duration::from_secs(30);

/// The binary alone, in a folder of its own, without any setting.
fn bare(folder: &Path, args: &[&str]) -> Launch {
    Launch::new(binary(), folder).args(args.iter().copied())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roles_refuse_to_start_without_redis() {
    let folder = scratch::folder("refuse");
    for role in ["api", "worker"] {
        let mut launch = bare(&folder, &[role]);
        let port = ports::free_port();
        let url = format!("sqlite://{}", folder.join("listmill.db").display());
        launch.env.push(("LISTMILL_DATABASE_URL".into(), url));
        launch.env.push(("LISTMILL_BIND".into(), format!("127.0.0.1:{port}")));
        launch.env.push(("LISTMILL_WORKER_BIND".into(), String::new()));
        let outcome = run(launch, LIMIT).await.expect_failure();
        let why = outcome.stderr.to_lowercase();
        assert!(why.contains("listmill_redis_url"), "{role} says what is missing: {outcome:#?}");
        assert!(!why.contains("panicked"), "{outcome:#?}");
    }
    scratch::remove(&folder);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn help_is_there_for_every_command() {
    let folder = scratch::folder("help");
    let commands: &[&[&str]] = &[
        &[],
        &["demo"],
        &["verify"],
        &["doctor"],
        &["up"],
        &["api"],
        &["worker"],
        &["migrate"],
        &["bench"],
        &["admin"],
        &["admin", "account"],
        &["admin", "account", "create"],
        &["admin", "key"],
        &["admin", "key", "create"],
        &["admin", "key", "suspend"],
        &["admin", "key", "unsuspend"],
        &["admin", "key", "list"],
        &["admin", "credits", "grant"],
        &["admin", "ip", "block"],
        &["admin", "audit", "verify"],
        &["admin", "audit", "export"],
        &["admin", "ip", "unblock"],
        &["admin", "reconcile"],
    ];
    for command in commands {
        let args: Vec<&str> = command.iter().copied().chain(["--help"]).collect();
        let outcome = run(bare(&folder, &args), LIMIT).await.expect_success();
        assert!(outcome.stdout.to_lowercase().contains("usage"), "{outcome:#?}");
        if let Some(last) = command.last() {
            assert!(outcome.stdout.contains(last), "{outcome:#?}");
        }
    }
    run(bare(&folder, &["nonsense"]), LIMIT).await.expect_failure();
    let left: Vec<_> = std::fs::read_dir(&folder).expect("a folder").flatten().collect();
    assert!(left.is_empty(), "help leaves nothing behind: {left:?}");
    scratch::remove(&folder);
}

async fn newer_schema_is_refused(size: Size) {
    let mut app = Setup::new(size.with(1, 1)).start().await;
    for node in app.apis.iter_mut().chain(&mut app.workers) {
        node.process.kill9();
    }
    let url = app.database_url();
    // TRUE and an empty blob in words that both engines understand.
    let blob = if size.is_scaled() { "'\\x00'::bytea" } else { "x'00'" };
    let insert = format!(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (99991231235959, 'from the future', TRUE, {blob}, 1)"
    );
    assert_eq!(sql::execute(&url, &insert).await, 1);
    let roles: &[&str] = if size.is_scaled() { &["api", "worker", "migrate"] } else { &["up"] };
    for role in roles {
        let outcome = app.cli(&[role]).await.expect_failure();
        let why = outcome.stderr.to_lowercase();
        assert!(why.contains("newer"), "{role}: {outcome:#?}");
        assert!(why.contains("schema") || why.contains("database"), "{role}: {outcome:#?}");
        assert!(!why.contains("panicked"), "{outcome:#?}");
    }
    let remove = "DELETE FROM _sqlx_migrations WHERE version = 99991231235959";
    assert_eq!(sql::execute(&url, remove).await, 1);
    app.finish().await;
}

async fn reconcile_sees_a_wrong_balance(size: Size) {
    let app = Setup::new(size.with(1, 1)).start().await;
    let customer = app.customer(100).await;
    let id = customer.client.submit(&lists::people(10)).await.id;
    customer.client.wait_completed(&id).await;
    app.reconcile().await;
    let url = app.database_url();
    let tampered = "UPDATE credit_balances SET balance = balance + 1 WHERE balance = 90";
    assert_eq!(sql::execute(&url, tampered).await, 1);
    let outcome = app.cli(&["admin", "reconcile", "--json"]).await;
    assert_eq!(outcome.code, Some(1), "{outcome:#?}");
    assert!(outcome.stdout.contains(&customer.account), "it says whose: {outcome:#?}");
    let mended = "UPDATE credit_balances SET balance = balance - 1 WHERE balance = 91";
    assert_eq!(sql::execute(&url, mended).await, 1);
    app.finish().await;
}

/// What is in flight is finished, or handed back at once: nobody waits for a lease to expire.
async fn drains_on_sigterm(size: Size) {
    let setup = Setup::new(size.with(1, 1)).latency("2s").concurrency(50);
    let setup = setup.env("LISTMILL_BATCH_SIZE", "25").env("LISTMILL_LEASE_TTL", "120s");
    let mut app = setup.env("LISTMILL_SHUTDOWN_GRACE", "20s").start().await;
    let customer = app.customer(200).await;
    let client = customer.client.clone().patient();
    let id = client.submit(&lists::people(200)).await.id;
    let app_ref = &app;
    eventually("the worker is busy", LIMIT, || async move {
        (app_ref.inflight().await > 10.0).then_some(())
    })
    .await;
    let processed = client.task(&id).await.counts.processed;
    let node = if size.is_scaled() { &mut app.workers[0] } else { &mut app.apis[0] };
    let status = node.process.sigterm(Duration::from_secs(20)).await;
    assert!(status.success(), "{status}\n{}", node.process.tail(20));
    node.process.start_again();
    node.wait_ready().await;
    let after = client.task(&id).await.counts.processed;
    assert!(after > processed, "what was in flight was finished: {processed}, then {after}");
    let task = client.wait_for(&id, "completed", LIMIT).await;
    assert_eq!((task.credits.charged, task.credits.held), (200, 0));
    app.finish().await;
}

/// A listener that never hangs up does not keep the process from ending.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn api_ends_in_spite_of_a_listener() {
    let setup = Setup::new(Size::Scaled { apis: 1, workers: 1 }).latency("60s");
    let mut app = setup.env("LISTMILL_SHUTDOWN_GRACE", "10s").start().await;
    let client = app.customer(10).await.client;
    let id = client.submit(&lists::people(5)).await.id;
    let listener = client.stream(&format!("/v1/tasks/{id}/events")).await;
    let status = app.apis[0].process.sigterm(Duration::from_secs(15)).await;
    assert!(status.success(), "{status}\n{}", app.apis[0].process.tail(20));
    drop(listener);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn second_signal_stops_at_once() {
    let setup = Setup::new(Size::Scaled { apis: 1, workers: 1 }).latency("60s");
    let setup = setup.env("LISTMILL_SHUTDOWN_GRACE", "60s").env("LISTMILL_LEASE_TTL", "2s");
    let mut app = setup.start().await;
    let customer = app.customer(100).await;
    let id = customer.client.submit(&lists::people(100)).await.id;
    let app_ref = &app;
    eventually("the worker is busy", LIMIT, || async move {
        (app_ref.inflight().await > 10.0).then_some(())
    })
    .await;
    let worker = &mut app.workers[0].process;
    worker.signal("TERM");
    // Two pending signals would be one: the first has to be taken before the second is sent.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(worker.ended().is_none(), "the first signal drains, within the grace");
    let second = Instant::now();
    worker.signal("TERM");
    worker.wait_end(Duration::from_secs(3)).await;
    assert!(second.elapsed() < Duration::from_secs(3));
    // Held credits come back once the lease is over, by way of another worker.
    app.start_worker().await;
    customer.client.cancel(&id).await;
    assert_eq!(customer.client.balance().await, 100);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn demo_tells_its_story_offline() {
    let folder = scratch::folder("demo");
    let mut launch = offline(bare(&folder, &["demo"]));
    launch.env.push(("LISTMILL_BIND".into(), format!("127.0.0.1:{}", ports::free_port())));
    launch.env.push(("LISTMILL_WORKER_BIND".into(), String::new()));
    let start = Instant::now();
    let outcome = run(launch, Duration::from_secs(180)).await.expect_success();
    assert!(start.elapsed() < Duration::from_secs(120), "{:?}", start.elapsed());
    let story = outcome.text().to_lowercase();
    for word in ["sandbox", "403", "ledger", "reconcil", "completed", ".csv"] {
        assert!(story.contains(word), "the story lacks {word}:\n{story}");
    }
    let files = csv_files(&folder);
    assert!(!files.is_empty(), "a results file in {}", folder.display());
    let rows = csv::Reader::from_path(&files[0]).expect("CSV").into_records().count();
    assert!(rows > 500, "{rows} rows in {}", files[0].display());
    scratch::remove(&folder);
}

fn csv_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(csv_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "csv") {
            found.push(path);
        }
    }
    found
}

/// In a network of its own with nothing but loopback, where the system lets us make one.
fn offline(mut launch: Launch) -> Launch {
    let probe = "command -v ip && unshare --net --map-root-user true";
    let can = std::process::Command::new("sh").args(["-c", probe]).output();
    if !can.is_ok_and(|output| output.status.success()) {
        return launch;
    }
    let script = "ip link set lo up && exec \"$@\"";
    let inner = std::mem::take(&mut launch.args);
    let program = std::mem::replace(&mut launch.program, "unshare".into());
    let outer = ["--net", "--map-root-user", "sh", "-c", script, "offline"];
    let mut launch = launch.args(outer);
    launch.args.push(program.into());
    launch.args.extend(inner);
    launch
}

/// `up` says on its first start where to look and what to log in with.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn up_prints_a_key_that_works() {
    let app = Setup::new(Size::Embedded).weight(Weight::Light).start().await;
    let output = app.apis[0].process.output();
    assert!(output.contains(&app.apis[0].base()), "the dashboard's URL: {output}");
    let is_key = |word: &&str| word.starts_with("VEC") && word.len() == 35;
    let key = output.split_whitespace().find(is_key).expect("an API key").to_owned();
    app.client(&key).get("/v1/account/credits").await.expect(200);
    app.finish().await;
}

/// The bench makes its accounts and keys, loads, and ends with exact books.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_bench_runs_to_its_end() {
    let app = Setup::new(Size::Embedded).start().await;
    for args in [
        &["bench", "--embedded", "--addresses", "2000", "--tasks", "2", "--json"][..],
        &["bench", "gate", "--embedded", "--seconds", "1", "--connections", "4", "--json"][..],
    ] {
        let told = app.cli(args).await.expect_success().json();
        assert!(told.as_object().is_some_and(|object| !object.is_empty()), "{told}");
    }
    app.finish().await;
}

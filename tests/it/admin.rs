//! What operators do at the command line: accounts, credits, tasks, workers and the queue, each spoken with `--json`
//! and written down; and a deployment whose credits are off.

use std::time::Duration;

use listmill_tests::{Deployment, Person, Setup, Size, eventually, for_each_size, lists};
use serde_json::{Value, json};

for_each_size!(
    accounts_are_found_renamed_and_let_in,
    a_reference_is_booked_once,
    tasks_are_found_and_led,
    without_credits_nothing_is_refused_and_all_is_counted,
);

const LIMIT: Duration = Duration::from_secs(30);

async fn admin(app: &Deployment, args: &[&str]) -> Value {
    let args = [&["admin"], args, &["--json"]].concat();
    app.cli(&args).await.expect_success().json()
}

/// Actions of the audit log that the command line is answerable for.
async fn written_down(app: &Deployment) -> Vec<String> {
    let log = app.cli(&["admin", "audit", "export"]).await.expect_success().stdout;
    let rows = log.lines().map(|line| serde_json::from_str::<Value>(line).expect("a JSON object"));
    rows.filter(|row| row["actor"] == json!({ "operator": true }))
        .map(|row| row["action"].as_str().expect("action").to_owned())
        .collect()
}

fn emails(list: &Value) -> Vec<&str> {
    let rows = list["data"].as_array().expect("data");
    rows.iter().map(|row| row["email"].as_str().expect("email")).collect()
}

async fn accounts_are_found_renamed_and_let_in(size: Size) {
    let app = Setup::new(size).start().await;
    for email in ["Cleo@Customer.example", "cleo.two@customer.example", "dora@customer.example"] {
        admin(&app, &["account", "create", "--email", email, "--credits", "7"]).await;
    }
    let twice = ["admin", "account", "create", "--email", "CLEO@customer.example"];
    app.cli(&twice).await.expect_failure();
    let first = admin(&app, &["account", "list", "--search", "CLEO", "--limit", "1"]).await;
    assert_eq!(emails(&first), ["cleo.two@customer.example"], "{first}");
    let cursor = first["next_cursor"].as_str().expect("there are more");
    let next = ["account", "list", "--search", "cleo", "--limit", "1", "--cursor", cursor];
    let second = admin(&app, &next).await;
    assert_eq!(emails(&second), ["cleo@customer.example"], "{second}");
    assert_eq!((&second["next_cursor"], &second["data"][0]["balance"]), (&Value::Null, &json!(7)));

    let old = "cleo@customer.example";
    let input = "correct horse battery\n";
    let set = ["admin", "account", "password", "--email", "CLEO@customer.example", "--json"];
    let set = app.cli_with_input(&set, input).await.expect_success();
    assert!(!set.text().contains("correct horse"), "{set:#?}");
    app.cli_with_input(&["admin", "account", "password", "--email", old], "\n")
        .await
        .expect_failure();
    Person::login(&app, old, "correct horse battery").await;

    let taken =
        ["admin", "account", "rename", "--account", old, "--email", "Dora@customer.example"];
    app.cli(&taken).await.expect_failure();
    let args = ["account", "rename", "--account", old, "--email", "Cleopatra@customer.example"];
    let renamed = admin(&app, &args).await;
    assert_eq!(renamed["email"], "cleopatra@customer.example", "{renamed}");
    assert_eq!(renamed["login_changed"], true, "{renamed}");
    let lost = app.cli(&["admin", "account", "show", "--account", old]).await.expect_failure();
    assert!(lost.text().contains("admin account list"), "{lost:#?}");
    let shown = admin(&app, &["account", "show", "--account", "CLEOPATRA@customer.example"]).await;
    let owner = &shown["people"][0];
    assert_eq!((&owner["email"], &owner["role"]), (&renamed["email"], &json!("owner")), "{shown}");
    assert_eq!(shown["keys"], json!({ "active": 0, "all": 0 }), "{shown}");
    Person::login(&app, "cleopatra@customer.example", "correct horse battery").await;
    let log = written_down(&app).await;
    for action in ["account.create", "person.password", "account.rename"] {
        assert!(log.iter().any(|one| one == action), "{action}: {log:?}");
    }
    app.finish().await;
}

async fn a_reference_is_booked_once(size: Size) {
    let app = Setup::new(size).start().await;
    let account = app.create_account(10).await;
    let grant = |amount: &'static str, reference: &'static str| {
        let account = account.clone();
        vec![
            String::from("admin"),
            String::from("credits"),
            String::from("grant"),
            String::from("--account"),
            account,
            String::from("--amount"),
            String::from(amount),
            String::from("--reference"),
            String::from(reference),
            String::from("--json"),
        ]
    };
    let (first, again) = (grant("40", "inv-1"), grant("40", "inv-1"));
    let (first, again) = tokio::join!(app.cli(&first), app.cli(&again));
    let (first, again) = (first.expect_success().json(), again.expect_success().json());
    assert_eq!((&first["balance"], &again["balance"]), (&json!(50), &json!(50)), "{again}");
    assert_eq!(first["booked_at"], again["booked_at"]);
    let before = [&first, &again].map(|one| one["booked_before"] == true);
    assert_eq!(before.iter().filter(|before| **before).count(), 1, "{first} {again}");
    let other = app.cli(&grant("41", "inv-1")).await.expect_failure();
    assert!(other.text().contains("40 email credits"), "{other:#?}");
    // All there is may be taken back, once.
    for _ in 0..2 {
        let back = app.cli(&grant("-50", "inv-1-back")).await.expect_success().json();
        assert_eq!(back["balance"], 0, "{back}");
    }
    let shown = admin(&app, &["credits", "show", "--account", &account]).await;
    let email = shown["credits"].as_array().expect("credits").iter().find(|c| c["kind"] == "email");
    assert_eq!(email.expect("email")["granted"], 0, "{shown}");
    assert_eq!(shown["entries"].as_array().map(Vec::len), Some(3), "{shown}");
    assert_eq!(shown["entries"][0]["note"], "inv-1-back", "{shown}");
    let text = app.cli(&["admin", "credits", "show", "--account", &account]).await.expect_success();
    assert!(text.stdout.contains("email") && !text.stdout.contains("phone"), "{text:#?}");
    let books = app.cli(&["admin", "reconcile"]).await.expect_success();
    assert!(!books.stdout.contains("phone"), "{books:#?}");
    app.finish().await;
}

async fn tasks_are_found_and_led(size: Size) {
    let setup = Setup::new(size).latency("1s").concurrency(4).env("LISTMILL_BATCH_SIZE", "10");
    let app = setup.start().await;
    let customer = app.customer(300).await;
    let id = customer.client.submit(&lists::people(300)).await.id;
    let (app_ref, account) = (&app, customer.account.as_str());
    let queue = eventually("the task waits", LIMIT, || async move {
        let queue = admin(app_ref, &["queue"]).await;
        let waits = queue["accounts"][0]["addresses"].as_i64().is_some_and(|waiting| waiting > 0);
        waits.then_some(queue)
    })
    .await;
    assert_eq!(
        (&queue["accounts"][0]["account_id"], &queue["accounts"][0]["tasks"]),
        (&json!(account), &json!(1))
    );
    let workers = eventually("a worker is listed", LIMIT, || async move {
        let workers = admin(app_ref, &["worker", "list"]).await;
        workers["data"].as_array().is_some_and(|all| !all.is_empty()).then_some(workers)
    })
    .await;
    assert_eq!(workers["data"][0]["state"], "verifying", "{workers}");
    let nobody = app.cli(&["admin", "worker", "drain", "nobody"]).await.expect_failure();
    assert!(nobody.text().contains("admin worker list"), "{nobody:#?}");

    let erase = app.cli(&["admin", "task", "erase", &id]).await.expect_failure();
    assert!(erase.text().contains("admin task cancel"), "{erase:#?}");
    let paused = admin(&app, &["task", "pause", &id]).await;
    assert_eq!(
        (&paused["status"], &paused["pause_reason"]),
        (&json!("paused"), &json!("requested"))
    );
    let list = admin(&app, &["task", "list", "--status", "paused", "--account", account]).await;
    assert_eq!(
        (&list["data"][0]["id"], &list["next_cursor"]),
        (&json!(id), &Value::Null),
        "{list}"
    );
    let none = admin(&app, &["task", "list", "--status", "completed"]).await;
    assert_eq!(none["data"], json!([]), "{none}");
    let resumed = admin(&app, &["task", "resume", &id]).await;
    assert!(resumed["status"] == "running" || resumed["status"] == "queued", "{resumed}");
    let cancelled = admin(&app, &["task", "cancel", &id]).await;
    let settled = &cancelled["settlement"];
    assert_eq!(cancelled["task"]["status"], "cancelled", "{cancelled}");
    let processed = cancelled["task"]["counts"]["processed"].as_i64().expect("processed");
    assert_eq!(settled["not_processed"], json!(300 - processed), "{cancelled}");
    let shown = admin(&app, &["task", "show", &id]).await;
    assert_eq!(shown["credits"], cancelled["task"]["credits"], "nothing moves any more");
    admin(&app, &["task", "erase", &id]).await;
    app.cli(&["admin", "task", "show", &id]).await.expect_failure();
    let log = written_down(&app).await;
    for action in ["task.pause", "task.resume", "task.cancel", "task.erase"] {
        assert_eq!(log.iter().filter(|one| *one == action).count(), 1, "{action}: {log:?}");
    }
    app.finish().await;
}

async fn without_credits_nothing_is_refused_and_all_is_counted(size: Size) {
    let setup = Setup::new(size).env("LISTMILL_CREDITS", "off").env("LISTMILL_BATCH_SIZE", "16");
    let app = setup.start().await;
    let customer = app.customer(5).await;
    let client = &customer.client;
    let id = client.submit(&lists::people(100)).await.id;
    let task = client.wait_completed(&id).await;
    let charged = task.credits.charged;
    assert_eq!(charged + task.credits.refunded, 100, "{task:#?}");
    assert!(charged > 5, "more than was ever granted by hand: {task:#?}");
    let single = client.post("/v1/verifications", &json!({ "email": "anna@example.com" })).await;
    single.expect(200);
    let shown = admin(&app, &["credits", "show", "--account", &customer.account]).await;
    let email = shown["credits"].as_array().expect("credits").iter().find(|c| c["kind"] == "email");
    let of = |name: &str| email.expect("email")[name].as_i64().expect("a number");
    assert!(of("charged") >= charged as i64 && of("held") == 0, "{shown}");
    assert_eq!(of("granted"), of("balance") + of("charged"), "{shown}");
    app.reconcile().await;
    app.finish().await;
}

//! One task from submission to its last result page; lists of tasks.

use listmill_tests::reply::assert_fields;
use listmill_tests::{Setup, Size, for_each_size, lists};
use serde_json::{Value, json};

for_each_size!(runs_to_its_end, results_page_in_order, lists_page_and_filter, belongs_to_account);

const TASK: &[&str] = &[
    "id",
    "name",
    "status",
    "pause_reason",
    "counts",
    "credits",
    "progress",
    "eta_seconds",
    "created_at",
    "started_at",
    "finished_at",
    "created_by_key",
    "created_by",
    "results_expire_at",
    "environment",
];
const COUNTS: &[&str] = &[
    "submitted",
    "unique",
    "duplicates",
    "invalid_syntax",
    "processed",
    "deliverable",
    "undeliverable",
    "risky",
    "unknown",
];
const RESULT: &[&str] = &[
    "seq",
    "email",
    "status",
    "reason",
    "score",
    "flags",
    "did_you_mean",
    "mx",
    "smtp_code",
    "attempts",
    "credit",
    "checked_at",
];
const FLAGS: &[&str] = &["role", "free", "disposable", "catch_all", "mailbox_full", "disabled"];

fn assert_task_shape(task: &Value) {
    assert_fields(task, TASK);
    assert_fields(&task["counts"], COUNTS);
    assert_fields(&task["credits"], &["held", "charged", "refunded"]);
    assert!(task["progress"].is_number(), "{task}");
    assert!(task["created_at"].as_str().is_some_and(|t| t.ends_with('Z')), "UTC: {task}");
}

fn assert_result_shape(result: &Value) {
    assert_fields(result, RESULT);
    assert_fields(&result["flags"], FLAGS);
    let flags = result["flags"].as_object().expect("an object");
    assert!(flags.values().all(|flag| flag.is_boolean() || flag.is_null()), "{result}");
    assert!(result["checked_at"].as_str().is_some_and(|t| t.ends_with('Z')), "{result}");
}

async fn runs_to_its_end(size: Size) {
    let app = Setup::new(size).start().await;
    let customer = app.customer(100).await;
    let client = &customer.client;
    let emails = [
        "person1@example.com",
        "person2@example.com",
        "person1@EXAMPLE.com",
        "undeliverable@example.com",
        "catchall@example.com",
        "timeout@example.com",
        "no at sign",
        "Person1@example.com",
    ];
    let reply = client.post("/v1/tasks", &json!({ "name": "March", "emails": emails })).await;
    let reply = reply.expect(201);
    let mut created = reply.json();
    let list =
        created.as_object_mut().and_then(|task| task.remove("list")).expect("how it was read");
    assert_eq!((&list["format"], &list["encoding"]), (&json!("json"), &json!("UTF-8")));
    assert_task_shape(&created);
    let id = created["id"].as_str().expect("id").to_owned();
    assert!(id.starts_with("task_"), "{id}");
    let location = reply.header("location").expect("Location");
    assert!(location.ends_with(&format!("/v1/tasks/{id}")), "{location}");

    let task = client.wait_completed(&id).await;
    let shown = client.get(&format!("/v1/tasks/{id}")).await.expect(200).json();
    assert_task_shape(&shown);
    assert_eq!(shown["progress"].as_f64().map(|p| p == 1.0 || p == 100.0), Some(true), "{shown}");
    assert_eq!(task.name.as_deref(), Some("March"));
    assert_eq!(task.created_by_key.as_deref(), Some(customer.key.id.as_str()));
    assert!(task.started_at.is_some() && task.finished_at.is_some(), "{task:?}");
    let c = task.counts;
    // The same domain in upper case is a duplicate; another local part is not.
    assert_eq!((c.submitted, c.unique, c.duplicates, c.invalid_syntax), (8, 7, 1, 1), "{c:?}");
    assert_eq!(c.processed, 7);
    assert_eq!((c.deliverable, c.undeliverable, c.risky, c.unknown), (3, 2, 1, 1), "{c:?}");
    let credits = task.credits;
    assert_eq!((credits.held, credits.charged, credits.refunded), (0, 5, 1), "{credits:?}");
    assert_eq!(client.balance().await, 95);

    let results = client.results(&id).await;
    results.iter().for_each(assert_result_shape);
    let seen: Vec<(u64, &str, &str)> = results
        .iter()
        .map(|r| (r["seq"].as_u64().expect("seq"), text(r, "reason"), text(r, "credit")))
        .collect();
    let expected = [
        (0, "accepted", "charged"),
        (1, "accepted", "charged"),
        (2, "mailbox_not_found", "charged"),
        (3, "catch_all", "charged"),
        (4, "timeout", "refunded"),
        (5, "invalid_syntax", "free"),
        (6, "accepted", "charged"),
    ];
    assert_eq!(seen, expected);
    app.finish().await;
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("{field}: {value}"))
}

async fn results_page_in_order(size: Size) {
    let app = Setup::new(size).env("LISTMILL_BATCH_SIZE", "10").start().await;
    let customer = app.customer(1_000).await;
    let client = &customer.client;
    let mut emails = lists::people(60);
    emails.extend((0..20).map(|i| format!("undeliverable{i}@example.com")));
    emails.extend((0..10).map(|i| format!("full{i}@example.com")));
    let id = client.submit(&emails).await.id;
    client.wait_completed(&id).await;
    let path = format!("/v1/tasks/{id}/results");
    let pages = client.all_pages(&path, 7).await;
    let shown: Vec<&str> = pages.iter().map(|r| text(r, "email")).collect();
    assert_eq!(shown, emails);
    let seqs: Vec<u64> = pages.iter().map(|r| r["seq"].as_u64().expect("seq")).collect();
    assert_eq!(seqs, (0..90).collect::<Vec<u64>>());
    let undeliverable = client.all_pages(&format!("{path}?status=undeliverable"), 6).await;
    assert_eq!(undeliverable.len(), 20);
    assert!(undeliverable.iter().all(|r| r["status"] == "undeliverable"));
    let full = client.results_with(&id, "reason=mailbox_full").await;
    assert_eq!(full.len(), 10);
    assert!(full.iter().all(|r| r["status"] == "risky" && r["reason"] == "mailbox_full"));
    let both = client.results_with(&id, "status=deliverable&reason=mailbox_full").await;
    assert!(both.is_empty(), "{both:?}");
    app.finish().await;
}

async fn lists_page_and_filter(size: Size) {
    let app = Setup::new(size).start().await;
    let customer = app.customer(100).await;
    let client = &customer.client;
    let mut ids = Vec::new();
    for number in 0..5 {
        ids.push(client.submit(&[format!("person{number}@example.com")]).await.id);
    }
    for id in &ids {
        client.wait_completed(id).await;
    }
    let mut listed = listed_ids(&client.all_pages("/v1/tasks", 2).await);
    listed.sort();
    ids.sort();
    assert_eq!(listed, ids);
    assert_eq!(client.all_pages("/v1/tasks?status=completed", 2).await.len(), 5);
    assert_eq!(client.all_pages("/v1/tasks?status=running", 2).await.len(), 0);
    app.finish().await;
}

fn listed_ids(tasks: &[Value]) -> Vec<String> {
    tasks.iter().map(|task| text(task, "id").to_owned()).collect()
}

async fn belongs_to_account(size: Size) {
    let app = Setup::new(size).start().await;
    let owner = app.customer(100).await;
    let stranger = app.customer(100).await;
    let second_key = app.create_key(&owner.account).await;
    let id = owner.client.submit(&lists::people(3)).await.id;
    let task = app.client(&second_key.secret).wait_completed(&id).await;
    assert_eq!(task.created_by_key.as_deref(), Some(owner.key.id.as_str()));
    assert!(stranger.client.tasks().await.is_empty());
    let entries = stranger.client.ledger("").await;
    assert!(entries.iter().all(|entry| entry["task_id"].is_null()), "{entries:?}");
    assert_eq!(stranger.client.balance().await, 100);
    app.finish().await;
}

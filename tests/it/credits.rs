//! Credits: balance, ledger, running out, topping up.

use std::collections::BTreeMap;
use std::time::Duration;

use listmill_tests::reply::assert_fields;
use listmill_tests::{Setup, Size, for_each_size, lists};
use serde_json::{Value, json};

for_each_size!(
    balance_and_ledger,
    pause_when_empty_and_go_on_after_a_grant,
    too_few_is_refused_whole,
    two_tasks_share_what_is_left,
    never_below_zero,
);

const LIMIT: Duration = Duration::from_secs(30);

async fn balance_and_ledger(size: Size) {
    let app = Setup::new(size).start().await;
    let customer = app.customer(1_000).await;
    let client = &customer.client;
    let credits = client.get("/v1/account/credits").await.expect(200).json();
    assert_fields(&credits, &["email_credit", "phone_credit"]);
    assert!(credits["email_credit"].is_f64() && credits["phone_credit"].is_f64(), "{credits}");
    let mut emails = lists::people(30);
    emails.extend((0..5).map(|i| format!("unknown{i}@example.com")));
    let id = client.submit(&emails).await.id;
    let other = client.submit(&lists::people(3)).await.id;
    let task = client.wait_completed(&id).await;
    client.wait_completed(&other).await;
    assert_eq!((task.credits.charged, task.credits.refunded), (30, 5));
    app.grant(&customer.account, 7).await;
    assert_eq!(client.balance().await, 1_000 - 33 + 7);

    let entries = client.ledger("").await;
    for entry in &entries {
        let fields =
            ["id", "kind", "type", "amount", "balance_after", "task_id", "created_at", "note"];
        assert_fields(entry, &fields);
        assert_eq!(entry["kind"], "email");
    }
    assert_eq!(sums(&entries)["grant"], 1_007.0);
    let of_task = client.ledger(&format!("task={id}")).await;
    assert!(of_task.iter().all(|entry| entry["task_id"] == id), "{of_task:?}");
    let sums = sums(&of_task);
    assert_eq!((sums["charge"], sums["refund"], sums["hold"]), (30.0, 5.0, 35.0), "{sums:?}");
    assert!(client.ledger("kind=phone").await.is_empty());
    app.finish().await;
}

/// Amounts by type, whatever their sign.
fn sums(entries: &[Value]) -> BTreeMap<&str, f64> {
    let mut sums = BTreeMap::new();
    for entry in entries {
        let kind = entry["type"].as_str().expect("type");
        assert!(["grant", "hold", "charge", "refund", "adjust"].contains(&kind), "{entry}");
        let amount = entry["amount"].as_f64().expect("amount");
        *sums.entry(kind).or_insert(0.0) += amount.abs();
    }
    sums
}

async fn pause_when_empty_and_go_on_after_a_grant(size: Size) {
    let app = Setup::new(size).env("LISTMILL_BATCH_SIZE", "64").start().await;
    let customer = app.customer(700).await;
    let client = &customer.client;
    let request = json!({ "emails": lists::people(1_000), "allow_partial": true });
    let id = client.submit_json(&request).await.id;
    let paused = client
        .wait_until(&id, "paused at 700", LIMIT, |task| {
            task.status == "paused" && task.credits.charged == 700
        })
        .await;
    assert_eq!(paused.pause_reason.as_deref(), Some("insufficient_credits"));
    assert_eq!((paused.credits.held, paused.counts.processed), (0, 700), "{paused:#?}");
    assert_eq!(client.balance().await, 0);
    app.reconcile().await;
    app.grant(&customer.account, 300).await;
    let done = client.wait_for(&id, "completed", LIMIT).await;
    assert_eq!((done.credits.charged, done.credits.held), (1_000, 0), "{done:#?}");
    assert_eq!(done.pause_reason, None);
    assert_eq!(client.balance().await, 0);
    let results = client.results(&id).await;
    let seqs: Vec<u64> = results.iter().map(|r| r["seq"].as_u64().expect("seq")).collect();
    assert_eq!(seqs, (0..1_000).collect::<Vec<u64>>(), "no duplicate, no gap");
    app.finish().await;
}

async fn too_few_is_refused_whole(size: Size) {
    let app = Setup::new(size).start().await;
    let customer = app.customer(700).await;
    let client = &customer.client;
    let before = client.ledger("").await;
    let reply = client.post("/v1/tasks", &json!({ "emails": lists::people(1_000) })).await;
    let problem = reply.expect(402).expect_problem();
    assert!(problem["code"].as_str().is_some_and(|c| c.contains("credits")), "{problem}");
    let detail = problem["detail"].as_str().expect("detail");
    for part in ["1000 credits", "balance is 700", "/credits", "listmill admin credits grant"] {
        assert!(detail.contains(part), "{part}: {detail}");
    }
    assert!(client.tasks().await.is_empty());
    assert_eq!(client.balance().await, 700);
    assert_eq!(client.ledger("").await, before);
    // Free ones do not count: 700 to pay, 300 that are broken or there twice.
    let mut emails = lists::people(700);
    emails.extend((0..150).map(|i| format!("broken {i}")));
    emails.extend(lists::people(150));
    let id = client.submit(&emails).await.id;
    let task = client.wait_completed(&id).await;
    assert_eq!((task.credits.charged, task.counts.duplicates), (700, 150));
    assert_eq!(client.balance().await, 0);
    let single = client.post("/v1/verifications", &json!({ "email": "anna@example.com" })).await;
    single.expect(402).expect_problem();
    app.finish().await;
}

/// Two tasks at once on one purse: together they spend what is there and not one more.
async fn two_tasks_share_what_is_left(size: Size) {
    let setup = Setup::new(size).env("LISTMILL_BATCH_SIZE", "32").latency("5ms");
    let app = setup.start().await;
    let customer = app.customer(1_000).await;
    let client = &customer.client;
    let request = json!({ "emails": lists::people(900), "allow_partial": true });
    let first = client.submit_json(&request).await.id;
    let second = client.submit_json(&request).await.id;
    let spent = || async {
        let one = client.task(&first).await;
        let two = client.task(&second).await;
        let idle = one.credits.held + two.credits.held == 0;
        let all = one.credits.charged + two.credits.charged;
        (idle && all == 1_000).then_some((one, two))
    };
    listmill_tests::eventually("all 1,000 are spent", LIMIT, spent).await;
    assert_eq!(client.balance().await, 0);
    app.grant(&customer.account, 800).await;
    for id in [&first, &second] {
        assert_eq!(client.wait_for(id, "completed", LIMIT).await.credits.charged, 900);
    }
    assert_eq!(client.balance().await, 0);
    app.finish().await;
}

/// Fifty single checks at once on ten credits: ten pass.
async fn never_below_zero(size: Size) {
    let app = Setup::new(size).latency("20ms").start().await;
    let client = app.customer(10).await.client;
    let body = json!({ "email": "anna@example.com" });
    let asks = (0..50).map(|_| client.post("/v1/verifications", &body));
    let replies = futures::future::join_all(asks).await;
    let passed = replies.iter().filter(|reply| reply.status == 200).count();
    let refused = replies.iter().filter(|reply| reply.status == 402).count();
    assert_eq!((passed, refused), (10, 40), "{replies:#?}");
    assert_eq!(client.balance().await, 0);
    app.finish().await;
}

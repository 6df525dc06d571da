//! Test keys: the sandbox answers them, whatever the provider, and no credit is touched.

use std::collections::HashMap;
use std::time::Duration;

use listmill_tests::client::send;
use listmill_tests::poll::throughout;
use listmill_tests::random::Random;
use listmill_tests::{Client, Deployment, Reply, Setup, Size, eventually, for_each_size, lists};
use reqwest::Method;
use serde_json::{Value, json};

use super::{Made, made, make, patch, refusal};
use crate::provider::server::{Seen, Upstream, say};

for_each_size!(
    ask_the_sandbox_and_touch_no_credit,
    are_paused_resumed_and_cancelled_at_a_balance_of_nothing,
    go_on_while_the_provider_is_down,
    are_exact_beside_paid_work_while_workers_are_killed,
    take_their_own_part_of_a_worker,
    take_lists_up_to_a_bound,
    stay_what_they_are,
    share_no_remembered_answer,
);

const LIMIT: Duration = Duration::from_secs(90);

/// Address and reason.
const CASES: &[(&str, &str)] = &[
    ("undeliverable42@example.com", "mailbox_not_found"),
    ("risky@example.com", "catch_all"),
    ("catchall+x@example.com", "catch_all"),
    ("full@example.com", "mailbox_full"),
    ("unknown@example.com", "timeout"),
    ("timeout3@example.com", "timeout"),
    ("slow@example.com", "accepted"),
    ("flaky9@example.com", "accepted"),
    ("anna@example.com", "accepted"),
    ("anna@disposable.test", "disposable"),
    ("two@@example.com", "invalid_syntax"),
];

async fn test_key(app: &Deployment, client: &Client) -> Made {
    let key = make(app, client, &json!({ "environment": "test" })).await;
    assert_eq!(key.answer["environment"], "test");
    key
}

/// A provider that asks this service, and remembers what it said.
fn asking(setup: Setup, service: &Upstream) -> Setup {
    let setup = setup.env("LISTMILL_PROVIDER", "http").env("LISTMILL_RESULT_CACHE", "1h");
    let setup = setup.env("LISTMILL_HTTP_URL", format!("{}/?e={{email}}", service.base()));
    setup.env("LISTMILL_HTTP_MAP", "/status ok = mailbox_full")
}

async fn ledger(client: &Client) -> Vec<Value> {
    client.ledger("kind=email").await
}

fn assert_free(task: &Value) {
    assert_eq!(task["environment"], "test", "{task}");
    assert_eq!(task["credits"], json!({ "held": 0, "charged": 0, "refunded": 0 }), "{task}");
}

async fn ask_the_sandbox_and_touch_no_credit(size: Size) {
    let service = Upstream::start(|_: &Seen| say(200, r#"{"status":"ok"}"#)).await;
    let app = asking(Setup::new(size), &service).start().await;
    let owner = app.customer(0).await;
    let before = ledger(&owner.client).await;
    let key = test_key(&app, &owner.client).await;
    let client = app.client(&key.secret);

    // A list, at a balance of 0. One address twice.
    let mut emails: Vec<&str> = CASES.iter().map(|(email, _)| *email).collect();
    emails.push("anna@EXAMPLE.com");
    let body = json!({ "emails": emails });
    let priced = client.post("/v1/tasks?dry_run=true", &body).await.expect(200).json();
    let price = (&priced["cost"]["credits"], &priced["sufficient"], &priced["balance"]);
    assert_eq!(price, (&json!(0), &json!(true), &json!(0)), "{priced}");
    let accepted = client.post("/v1/tasks", &body).await.expect(201).json();
    assert_free(&accepted);
    let id = accepted["id"].as_str().expect("id").to_owned();
    let task = client.wait_completed(&id).await;
    assert_eq!((task.counts.unique, task.counts.duplicates), (CASES.len() as u64, 1));
    assert_eq!((task.counts.processed, task.counts.unknown), (CASES.len() as u64, 2));
    assert_free(&owner.client.get(&format!("/v1/tasks/{id}")).await.expect(200).json());
    assert_read_as_free(&client, &id).await;
    assert_read_as_free(&owner.client, &id).await;

    // Single addresses, on every route there is.
    for (email, reason) in CASES {
        let single = client.post("/v1/verifications", &json!({ "email": email })).await;
        let single = single.expect(200).json();
        assert_eq!((&single["reason"], &single["credit"]), (&json!(reason), &json!("free")));
    }
    let single = client.post("/api/verify-single", &json!({ "email": "anna@example.com" })).await;
    let single = single.expect(200).json();
    assert_eq!((&single["status"], &single["credits_used"]), (&json!("safe"), &json!(0)));
    let bulk = client.post("/api/verify-bulk", &body).await.expect(200).json();
    let bulk_id = bulk["task_id"].as_str().expect("task_id").to_owned();
    client.wait_completed(&bulk_id).await;
    let path = format!("/api/get-results/{bulk_id}");
    let results = client.get(&path).await.expect(200).json();
    let credits = (&results["credits_used"], &results["credits_refunded"]);
    assert_eq!(credits, (&json!(0), &json!(0)), "{results}");
    let rows = results["results"].as_array().expect("results");
    assert_eq!(rows.len(), CASES.len());
    assert!(rows.iter().all(|row| row["credits_used"] == 0), "{results}");

    // Found by a filter, by whoever may see both.
    let of = |filter: &'static str| {
        let client = owner.client.clone();
        async move { client.all_pages(&format!("/v1/tasks?environment={filter}"), 100).await }
    };
    assert_eq!((of("test").await.len(), of("live").await.len()), (2, 0));
    owner.client.get("/v1/tasks?environment=maybe").await.expect(400).expect_problem();

    assert_eq!(service.asked(), 0, "the provider was asked: {:?}", service.seen());
    assert_eq!(owner.client.balance().await, 0);
    assert_eq!(ledger(&owner.client).await, before, "no entry");
    assert_eq!(client.balance().await, 0, "it may read the balance");
    let shown = owner.client.get(&key.path("")).await.expect(200).json();
    assert_eq!(shown["credits_used"], 0, "{shown}");

    // A paid question about the same address asks the provider: nothing was remembered for it.
    app.grant(&owner.account, 1).await;
    let email = json!({ "email": "anna@example.com" });
    let paid = owner.client.post("/v1/verifications", &email).await.expect(200).json();
    assert_eq!((&paid["reason"], &paid["credit"]), (&json!("mailbox_full"), &json!("charged")));
    assert_eq!(service.asked(), 1);
    // Nor is what was remembered for that told to the test key.
    let free = client.post("/v1/verifications", &email).await.expect(200).json();
    assert_eq!(free["reason"], "accepted", "{free}");
    app.finish().await;
}

/// Pages, filters, files, single results: the same verdicts, each of them free.
async fn assert_read_as_free(client: &Client, id: &str) {
    let rows = client.results(id).await;
    let found: HashMap<&str, &str> = rows
        .iter()
        .map(|row| (row["email"].as_str().expect("email"), row["reason"].as_str().expect("reason")))
        .collect();
    assert_eq!(found, CASES.iter().copied().collect::<HashMap<_, _>>());
    assert!(rows.iter().all(|row| row["credit"] == "free"), "{rows:#?}");
    let unknown = client.results_with(id, "status=unknown").await;
    assert_eq!(unknown.len(), 2);
    assert!(unknown.iter().all(|row| row["credit"] == "free"), "{unknown:#?}");
    let one = client.get(&format!("/v1/tasks/{id}/results/0")).await.expect(200).json();
    assert_eq!((&one["reason"], &one["credit"]), (&json!("mailbox_not_found"), &json!("free")));
    let lines = client.get(&format!("/v1/tasks/{id}/results?format=ndjson")).await.expect(200);
    let lines = lines.text();
    assert_eq!(lines.lines().count(), CASES.len());
    for line in lines.lines() {
        let row: Value = serde_json::from_str(line).expect("a line of JSON");
        assert_eq!(row["credit"], "free", "{line}");
    }
    let csv = client.get(&format!("/v1/tasks/{id}/results?format=csv")).await.expect(200).text();
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    let at = reader.headers().expect("a header").iter().position(|name| name == "listmill_credit");
    let at = at.unwrap_or_else(|| panic!("{csv}"));
    let credits: Vec<String> =
        reader.records().map(|row| row.expect("a row")[at].to_owned()).collect();
    assert_eq!(credits, vec!["free"; CASES.len() + 1], "{csv}");
}

async fn are_paused_resumed_and_cancelled_at_a_balance_of_nothing(size: Size) {
    let app = Setup::new(size).latency("50ms").concurrency(8).start().await;
    let owner = app.customer(0).await;
    let client = app.client(&test_key(&app, &owner.client).await.secret);
    let id = client.submit(&lists::people(2_000)).await.id;
    client.wait_until(&id, "some results", LIMIT, |task| task.counts.processed > 0).await;
    let paused = client.post_empty(&format!("/v1/tasks/{id}/pause")).await.expect(200).json();
    let state = (&paused["status"], &paused["pause_reason"]);
    assert_eq!(state, (&json!("paused"), &json!("requested")));
    // A grant wakes what waits for credits, and nothing else.
    app.grant(&owner.account, 5).await;
    client.resume(&id).await.expect(200);
    let before = client.task(&id).await.counts.processed;
    let more = client.wait_until(&id, "it goes on", LIMIT, |t| t.counts.processed > before).await;
    assert_eq!(more.status, "running");
    let answer = client.cancel(&id).await;
    assert_free(&answer["task"]);
    let settlement = &answer["settlement"];
    let counts = &answer["task"]["counts"];
    let left = 2_000 - counts["processed"].as_u64().expect("processed");
    assert!(left > 0, "it was running: {answer}");
    let nothing = json!({ "charged": 0, "refunded": 0, "released": 0, "not_processed": left });
    assert_eq!(settlement, &nothing);
    throughout(Duration::from_secs(2), || async {
        let now = client.get(&format!("/v1/tasks/{id}")).await.expect(200).json();
        assert_eq!(&now["counts"], counts, "after the cancel");
    })
    .await;
    assert_eq!(client.cancel(&id).await["settlement"], nothing, "asked again");
    assert_eq!(owner.client.balance().await, 5);
    let entries = ledger(&owner.client).await;
    assert!(entries.iter().all(|entry| entry["type"] == "grant"), "{entries:#?}");
    app.finish().await;
}

async fn go_on_while_the_provider_is_down(size: Size) {
    // Whoever refuses the key is down for all.
    let service = Upstream::start(|_: &Seen| say(401, r#"{"error":"no such key"}"#)).await;
    let app = asking(Setup::new(size.with(1, 1)), &service).start().await;
    let owner = app.customer(100).await;
    let paid = owner.client.submit(&lists::people(20)).await.id;
    let paid = owner.client.wait_for(&paid, "paused", LIMIT).await;
    assert_eq!(paid.pause_reason.as_deref(), Some("provider_unavailable"));
    let client = app.client(&test_key(&app, &owner.client).await.secret);
    // More than is out at once.
    let list: Vec<String> = (0..6_000).map(|n| format!("free{n}@free.test")).collect();
    let id = client.submit(&list).await.id;
    let task = client.wait_for(&id, "completed", LIMIT).await;
    assert_eq!((task.counts.deliverable, task.credits.charged), (6_000, 0));
    let single = client.post("/v1/verifications", &json!({ "email": "full@free.test" })).await;
    assert_eq!(single.expect(200).json()["reason"], "mailbox_full");
    assert_eq!(owner.client.task(&paid.id).await.status, "paused");
    let about = |seen: &Seen| seen.path.contains("free.test");
    assert!(!service.seen().iter().any(about), "{:?}", service.seen());
    let owner = &owner.client;
    eventually(
        "nothing is held",
        LIMIT,
        || async move { (owner.balance().await == 100).then_some(()) },
    )
    .await;
    app.finish().await;
}

async fn are_exact_beside_paid_work_while_workers_are_killed(size: Size) {
    const PAID: u64 = 6_000;
    const FREE: u64 = 3_000;
    let mut random = Random::printed();
    let setup = Setup::new(size.with(1, 2)).latency("50ms").concurrency(64);
    let setup = setup.env("LISTMILL_LEASE_TTL", "1s").env("LISTMILL_BATCH_SIZE", "100");
    let mut app = setup.start().await;
    let owner = app.customer(PAID + 7).await;
    let client = owner.client.clone().patient();
    let test = app.client(&test_key(&app, &owner.client).await.secret).patient();
    let paid = client.submit_stream("text/plain", lists::big_text(PAID)).await.id;
    let free = test.submit_stream("text/plain", lists::big_text(FREE)).await.id;
    let limit = Duration::from_secs(180);
    test.wait_until(&free, "running", limit, |task| task.counts.processed > 0).await;
    for kill in 0..4 {
        let task = test.wait_until(&free, "polled before a kill", limit, |_| true).await;
        if task.has_ended() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(random.below(400))).await;
        app.kill9_and_restart_worker(if size.is_scaled() { kill % 2 } else { 0 });
    }
    let task = client.wait_for(&paid, "completed", limit).await;
    client.assert_whole(&task, PAID).await;
    let task = test.wait_for(&free, "completed", limit).await;
    assert_eq!((task.counts.processed, task.counts.deliverable), (FREE, FREE), "{task:#?}");
    let credits = (task.credits.held, task.credits.charged, task.credits.refunded);
    assert_eq!(credits, (0, 0, 0));
    let results = test.results(&free).await;
    let seqs = results.iter().map(|result| result["seq"].as_u64().expect("seq"));
    assert!(seqs.eq(0..FREE), "one result for each seq");
    assert!(results.iter().all(|result| result["credit"] == "free"));
    assert!(client.ledger(&format!("task={free}")).await.is_empty());
    assert_eq!(client.balance().await, 7);
    app.finish().await;
}

/// What is free has permits of its own: a quarter as many as there are for the rest, which it leaves alone.
async fn take_their_own_part_of_a_worker(size: Size) {
    let app = Setup::new(size.with(1, 1)).concurrency(8).start().await;
    let owner = app.customer(100).await;
    let client = app.client(&test_key(&app, &owner.client).await.secret);
    // 2 s each, two at once.
    let slow: Vec<String> = (0..400).map(|n| format!("slow{n}@example.com")).collect();
    let free = client.submit(&slow).await.id;
    let app_ref = &app;
    eventually("two are being verified", LIMIT, || async move {
        (app_ref.inflight().await >= 2.0).then_some(())
    })
    .await;
    throughout(Duration::from_secs(3), || async move {
        let inflight = app_ref.inflight().await;
        assert!(inflight <= 2.0, "{inflight} at once");
    })
    .await;
    let paid = owner.client.submit(&lists::people(50)).await.id;
    owner.client.wait_completed(&paid).await;
    let task = client.task(&free).await;
    assert!(!task.has_ended() && task.counts.processed < 400, "it takes minutes: {task:#?}");
    client.cancel(&free).await;
    app.finish().await;
}

async fn take_lists_up_to_a_bound(size: Size) {
    let app = Setup::new(size).env("LISTMILL_TEST_TASK_ADDRESSES", "50").start().await;
    let owner = app.customer(100).await;
    let client = app.client(&test_key(&app, &owner.client).await.secret);
    let list = |count| json!({ "emails": lists::people(count) });
    for path in ["/v1/tasks", "/v1/tasks?dry_run=true"] {
        let problem = client.post(path, &list(51)).await.expect(413).expect_problem();
        assert_eq!(problem["code"], "too_many_addresses", "{problem}");
        let detail = problem["detail"].as_str().expect("detail");
        assert!(detail.contains("test key") && detail.contains("50"), "{detail}");
    }
    client.post("/api/verify-bulk", &list(51)).await.expect(413).expect_plain_error();
    assert!(client.tasks().await.is_empty(), "nothing of it is left");
    let id = client.submit(&lists::people(50)).await.id;
    client.wait_completed(&id).await;
    let id = owner.client.submit(&lists::people(51)).await.id;
    owner.client.wait_completed(&id).await;
    app.finish().await;
}

fn refused_field(reply: Reply, field: &str, word: &str) {
    let problem = reply.expect(400).expect_problem();
    let detail = problem["detail"].as_str().expect("detail");
    assert!(detail.contains(field) && detail.contains(word), "{detail}");
}

async fn stay_what_they_are(size: Size) {
    let app = Setup::new(size).start().await;
    let owner = app.customer(10).await;
    let live = make(&app, &owner.client, &json!({ "environment": "live" })).await;
    let test = test_key(&app, &owner.client).await;
    let client = app.client(&test.secret);

    // Neither becomes the other, whoever asks.
    let (to_live, to_test) = (json!({ "environment": "live" }), json!({ "environment": "test" }));
    let by_owner = patch(&owner.client, &test.path(""), &to_live).await;
    refused_field(by_owner, "environment", "make a new key");
    let by_owner = patch(&owner.client, &live.path(""), &to_test).await;
    refused_field(by_owner, "environment", "make a new key");
    let by_itself = patch(&client, &test.path(""), &to_live).await;
    refused_field(by_itself, "environment", "make a new key");
    let same = json!({ "environment": "test", "label": "the same" });
    patch(&client, &test.path(""), &same).await.expect(200);

    // What a test key makes is a test key.
    let asked = client.post("/v1/keys", &json!({ "label": "x", "environment": "live" })).await;
    refused_field(asked, "environment", "test");
    let child = make(&app, &client, &json!({})).await;
    assert_eq!(child.answer["environment"], "test");
    let rotated = owner.client.post(&child.path("/rotate"), &json!({})).await.expect(201);
    let rotated = made(&app, &rotated);
    let shown = owner.client.get(&rotated.path("")).await.expect(200).json();
    assert_eq!(shown["environment"], "test");
    let child = app.client(&rotated.secret);
    let single = child.post("/v1/verifications", &json!({ "email": "a@example.com" })).await;
    assert_eq!(single.expect(200).json()["credit"], "free");

    // It has no limit of credits, and takes nothing of its maker's, used up or not.
    let limited = json!({ "credit_limit": { "limit": 1 } });
    refused_field(patch(&owner.client, &test.path(""), &limited).await, "credit_limit", "spends");
    let both = json!({ "label": "x", "environment": "test", "credit_limit": { "limit": 1 } });
    refused_field(owner.client.post("/v1/keys", &both).await, "credit_limit", "spends");
    let poor = make(&app, &owner.client, &limited).await;
    let poor_client = app.client(&poor.secret);
    let email = json!({ "email": "paid@example.com" });
    poor_client.post("/v1/verifications", &email).await.expect(200);
    poor_client.post("/v1/verifications", &email).await.expect(403);
    let free = test_key(&app, &poor_client).await;
    assert_eq!(free.answer["credit_limit"], Value::Null);
    let free = app.client(&free.secret);
    free.post("/v1/verifications", &email).await.expect(200);
    let id = free.submit(&lists::people(20)).await.id;
    free.wait_completed(&id).await;

    // Said where others ask, and in the shell.
    let gate = client.get("/v1/gate?environment=any").await.expect(200);
    assert_eq!(gate.header("x-listmill-environment"), Some("test"));
    client.get("/v1/gate?environment=test").await.expect(200);
    let refused = refusal("Insufficient permissions", "A test key does not pass here");
    for path in ["/v1/gate", "/v1/gate?environment=live", "/v1/gate/orders?environment=any"] {
        client.get(path).await.expect_body(403, &refused);
    }
    owner.client.get("/v1/gate?environment=test").await.expect(403);
    owner.client.get("/v1/gate?environment=both").await.expect(400).expect_problem();
    let account = owner.account.as_str();
    let args = ["admin", "key", "create", "--account", account, "--label", "of the shell"];
    let args = [&args[..], &["--environment", "test", "--json"]].concat();
    let answer = app.cli(&args).await.expect_success().json();
    let secret = answer["key"].as_str().expect("key").to_owned();
    app.keep_secret(&secret);
    let single = app.client(&secret).post("/v1/verifications", &email).await.expect(200).json();
    assert_eq!(single["credit"], "free");
    let listed = app.cli(&["admin", "key", "list", "--account", account, "--json"]).await;
    let listed = listed.expect_success().json();
    let keys = listed["keys"].as_array().expect("keys");
    let of = |id: &str| keys.iter().find(|key| key["key_id"] == id).expect("listed");
    assert_eq!(of(answer["key_id"].as_str().expect("key_id"))["environment"], "test");
    assert_eq!(of(&live.id)["environment"], "live");

    // All test keys end at once, and no other.
    let all = json!({ "by": { "environment": "test" }, "how": "delete" });
    let ended = owner.client.post("/v1/keys/end", &all).await.expect(200).json();
    assert!(ended["keys"].as_array().expect("keys").len() >= 4, "{ended}");
    client.get("/v1/tasks").await.expect(401);
    app.client(&secret).get("/v1/tasks").await.expect(401);
    app.client(&live.secret).get("/v1/tasks").await.expect(200);
    assert_eq!(owner.client.balance().await, 9);
    app.finish().await;
}

/// The same `Idempotency-Key` of a test key and of a live one: each has its own answer.
async fn share_no_remembered_answer(size: Size) {
    let app = Setup::new(size).start().await;
    let owner = app.customer(10).await;
    let client = app.client(&test_key(&app, &owner.client).await.secret);
    let ask = |client: &Client, path: &'static str, body: Value| {
        let request = client.request(Method::POST, path).header("idempotency-key", "once");
        send(request.json(&body))
    };
    let email = json!({ "email": "anna@example.com" });
    for (asker, credit) in [(&client, "free"), (&owner.client, "charged")] {
        for _ in 0..2 {
            let reply = ask(asker, "/v1/verifications", email.clone()).await.expect(200);
            assert_eq!(reply.json()["credit"], credit, "{reply}");
        }
    }
    let list = json!({ "emails": ["one@example.com", "two@example.com"] });
    let mut ids = Vec::new();
    for (asker, environment) in [(&owner.client, "live"), (&client, "test")] {
        let first = ask(asker, "/v1/tasks", list.clone()).await.expect(201).json();
        let second = ask(asker, "/v1/tasks", list.clone()).await.expect(201).json();
        assert_eq!(first, second);
        assert_eq!(first["environment"], environment, "{first}");
        let id = first["id"].as_str().expect("id").to_owned();
        asker.wait_completed(&id).await;
        ids.push(id);
    }
    assert_ne!(ids[0], ids[1]);
    assert_eq!(owner.client.balance().await, 7);
    app.finish().await;
}

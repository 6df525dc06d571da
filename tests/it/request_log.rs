//! The request log: every decision of the gate is seen by the account whose key it was, and by nobody else;
//! usage adds them up; and no request ever waits for the log.

use std::time::{Duration, Instant};

use futures::StreamExt;
use listmill_tests::client::send;
use listmill_tests::freeze::{Frozen, still_waits, stop_inside_a_transaction};
use listmill_tests::random::Random;
use listmill_tests::reply::assert_fields;
use listmill_tests::sessions::Sessions;
use listmill_tests::{
    Client, Deployment, Key, Setup, Size, Weight, clock, eventually, for_each_size, sql,
};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{Connection, Executor, PgConnection};

for_each_size!(decisions_are_seen_by_the_keys_owner, usage_adds_up, nonsense_is_refused);

const SOON: Duration = Duration::from_secs(10);

/// Asks under a name of its own; gives the status.
async fn ask(app: &Deployment, secret: &str, path: &str, name: &str) -> u16 {
    let request = app.client(secret).request(Method::GET, path).header("x-request-id", name);
    send(request).await.status
}

async fn make_key(app: &Deployment, client: &Client, body: Value) -> Key {
    let answer = client.post("/v1/keys", &body).await.expect(201).json();
    let text = |field: &str| answer[field].as_str().expect(field).to_owned();
    let key = Key { id: text("id"), secret: text("key") };
    app.keep_secret(&key.secret);
    key
}

/// The row of a request by its name, once it is there.
async fn row(client: &Client, name: &str) -> Value {
    eventually(&format!("{name} in the log"), SOON, || async {
        let rows = client.all_pages("/v1/requests", 1_000).await;
        rows.into_iter().find(|row| row["request_id"] == name)
    })
    .await
}

async fn decisions_are_seen_by_the_keys_owner(size: Size) {
    let app = Setup::new(size).env("LISTMILL_RATE_LIMITS", "on").start().await;
    let owner = app.customer(10).await;
    let client = &owner.client;
    let date = client.get("/v1/account/credits").await.expect(200);
    let soon = clock::seconds_later(date.header("date").expect("Date"), 3);
    let expiring = make_key(&app, client, json!({ "label": "e", "expires_at": soon })).await;
    let slow = make_key(&app, client, json!({ "label": "slow", "rate_limit": 1 })).await;
    let [good, disabled, suspended, deleted] = [
        make_key(&app, client, json!({ "label": "good" })).await,
        make_key(&app, client, json!({ "label": "disabled" })).await,
        make_key(&app, client, json!({ "label": "suspended" })).await,
        make_key(&app, client, json!({ "label": "deleted" })).await,
    ];
    client.post_empty(&format!("/v1/keys/{}/disable", disabled.id)).await.expect(200);
    client.delete(&format!("/v1/keys/{}", deleted.id)).await.expect(200);
    app.suspend(&suspended, "Abuse").await;

    let tasks = "/v1/tasks";
    assert_eq!(ask(&app, &good.secret, tasks, "accepted-1").await, 200);
    assert_eq!(ask(&app, &good.secret, "/v1/tasks/task_x?a=b", "accepted-2").await, 404);
    assert_eq!(ask(&app, &disabled.secret, tasks, "disabled-1").await, 403);
    assert_eq!(ask(&app, &suspended.secret, tasks, "suspended-1").await, 403);
    assert_eq!(ask(&app, &deleted.secret, "/api/get-results/x", "unknown-1").await, 401);
    let mut tries = 0;
    while ask(&app, &slow.secret, tasks, "slow-1").await != 429 {
        tries += 1;
        assert!(tries < 10, "one a minute is soon used up");
    }
    eventually("the key expires", SOON, || async {
        (ask(&app, &expiring.secret, tasks, "expired-1").await == 401).then_some(())
    })
    .await;
    // Nobody's.
    assert_eq!(ask(&app, "nonsense", tasks, "malformed-1").await, 401);
    app.block_ip("127.0.0.0/8").await;
    assert_eq!(ask(&app, &good.secret, tasks, "blocked-1").await, 403);
    app.unblock_ip("127.0.0.0/8").await;

    for (name, key, outcome, route, status) in [
        ("accepted-1", &good, "accepted", "/v1/tasks", 200),
        ("accepted-2", &good, "accepted", "/v1/tasks/{id}", 404),
        ("disabled-1", &disabled, "disabled", "/v1/tasks", 403),
        ("suspended-1", &suspended, "suspended", "/v1/tasks", 403),
        ("unknown-1", &deleted, "unknown", "/api/get-results/{task_id}", 401),
        ("blocked-1", &good, "ip_blocked", "/v1/tasks", 403),
    ] {
        let row = row(client, name).await;
        let fields = ["id", "at", "key", "outcome", "ip", "method", "route", "status"];
        assert_fields(&row, &[&fields[..], &["latency_ms", "request_id"]].concat());
        let told = json!([row["key"], row["outcome"], row["ip"], row["method"], row["route"]]);
        assert_eq!(told, json!([key.id, outcome, "127.0.0.1", "GET", route]), "{row}");
        assert_eq!(row["status"], status, "{row}");
        assert!(row["latency_ms"].as_f64().is_some_and(|ms| ms > 0.0), "{row}");
    }
    for (filter, outcome, name) in [
        (format!("key={}&outcome=rate_limit", slow.id), "rate_limit", "slow-1"),
        ("outcome=expired".to_owned(), "expired", "expired-1"),
        (format!("key={}", deleted.id), "unknown", "unknown-1"),
    ] {
        let rows = eventually(&filter, SOON, || async {
            let rows = client.all_pages(&format!("/v1/requests?{filter}"), 2).await;
            (!rows.is_empty()).then_some(rows)
        })
        .await;
        let fits = |row: &Value| row["outcome"] == outcome && row["request_id"] == name;
        assert!(rows.iter().all(fits), "{rows:?}");
    }
    // Newest first, whatever the pages.
    let rows = client.all_pages("/v1/requests", 3).await;
    let times: Vec<&str> = rows.iter().map(|row| row["at"].as_str().expect("at")).collect();
    assert!(times.is_sorted_by(|a, b| a >= b), "{times:?}");
    assert!(rows.iter().all(|row| row["request_id"] != "malformed-1"), "that is nobody's");
    assert!(!json!(rows).to_string().contains(&good.secret));
    let stranger = app.customer(0).await.client;
    let theirs = stranger.all_pages(&format!("/v1/requests?key={}", good.id), 100).await;
    assert!(theirs.is_empty(), "{theirs:?}");
    let theirs = stranger.all_pages("/v1/requests", 100).await;
    let named = |row: &&Value| !row["request_id"].as_str().is_some_and(|id| id.starts_with("req_"));
    assert_eq!(theirs.iter().find(named), None);
    stranger.get(&format!("/v1/keys/{}/usage", good.id)).await.expect(404).expect_problem();
    app.finish().await;
}

/// Requests of a key, by outcome, over all periods.
fn total(page: &Value, outcome: &str) -> i64 {
    let rows = page["data"].as_array().expect("data");
    rows.iter().filter_map(|row| row["requests"][outcome].as_i64()).sum()
}

async fn usage_adds_up(size: Size) {
    let app = Setup::new(size).start().await;
    let owner = app.customer(10).await;
    let client = &owner.client;
    let key = make_key(&app, client, json!({ "label": "counted" })).await;
    for _ in 0..7 {
        app.client(&key.secret).get("/v1/tasks").await.expect(200);
    }
    app.client(&key.secret).get("/v1/ledger").await.expect(200);
    client.delete(&format!("/v1/keys/{}", key.id)).await.expect(200);
    for _ in 0..4 {
        app.client(&key.secret).get("/v1/tasks").await.expect(401);
    }
    // Of the key, which is deleted, by the hour and by the day.
    for by in ["hour", "day"] {
        let path = format!("/v1/keys/{}/usage?by={by}", key.id);
        let page = eventually("the key's usage", SOON, || async {
            let page = client.get(&path).await.expect(200).json();
            (total(&page, "accepted") + total(&page, "unknown") == 12).then_some(page)
        })
        .await;
        assert_eq!((total(&page, "accepted"), total(&page, "unknown")), (8, 4), "{page}");
        assert_fields(&page["data"][0], &["at", "requests", "credits"]);
    }
    let of_key = |page: &Value, field: &str, value: &str| {
        let rows = page["data"].as_array().expect("data").clone();
        json!({ "data": rows.into_iter().filter(|row| row[field] == value).collect::<Vec<_>>() })
    };
    let by_key = client.get("/v1/usage?group_by=key&by=hour").await.expect(200).json();
    assert_eq!(total(&of_key(&by_key, "key", &key.id), "accepted"), 8, "{by_key}");
    let by_route = client.get("/v1/usage?group_by=route").await.expect(200).json();
    assert_eq!(total(&of_key(&by_route, "route", "/v1/ledger"), "accepted"), 1, "{by_route}");
    let networks = client.get("/v1/usage?group_by=network").await.expect(200).json();
    assert_eq!(total(&of_key(&networks, "network", "127.0.0.0/24"), "unknown"), 4, "{networks}");
    let outcomes = client.get("/v1/usage?group_by=outcome").await.expect(200).json();
    assert_eq!(total(&of_key(&outcomes, "outcome", "unknown"), "unknown"), 4, "{outcomes}");
    let file = client.get("/v1/usage?group_by=key&format=csv").await.expect(200);
    assert!(file.header("content-type").is_some_and(|kind| kind.starts_with("text/csv")));
    let text = file.text();
    assert_eq!(text.lines().next(), Some("at,key,outcome,requests,credits"), "{text}");
    let of_key = |outcome: &str| -> i64 {
        let middle = format!(",{},{outcome},", key.id);
        let counts = text.lines().filter_map(|line| line.split_once(&middle));
        let requests = counts.map(|(_, rest)| rest.split_once(',').expect("two numbers").0);
        requests.map(|count| count.parse::<i64>().expect("a number")).sum()
    };
    assert_eq!((of_key("accepted"), of_key("unknown")), (8, 4), "{text}");
    // Nothing of it is a stranger's.
    let stranger = app.customer(0).await.client;
    let theirs = stranger.get("/v1/usage?group_by=key").await.expect(200);
    assert!(!theirs.text().contains(&key.id), "{theirs}");
    app.finish().await;
}

async fn nonsense_is_refused(size: Size) {
    let app = Setup::new(size).start().await;
    let client = app.customer(0).await.client;
    for path in [
        "/v1/requests?key=task_1",
        "/v1/requests?outcome=none",
        "/v1/requests?cursor=l5",
        "/v1/requests?limit=0",
        "/v1/usage?by=week",
        "/v1/usage?group_by=colour",
        "/v1/usage?format=xml",
        "/v1/usage?from=2026-02-30",
        "/v1/usage?from=2026-02-02&to=2026-02-01",
    ] {
        client.get(path).await.expect(400).expect_problem();
    }
    for path in ["/v1/usage?from=2020-01-01", "/v1/usage?from=2026-01-01&to=2026-03-01&by=hour"] {
        let problem = client.get(path).await.expect(400).expect_problem();
        assert_eq!(problem["code"], "window_too_large", "{problem}");
    }
    client.get("/v1/keys/key_1/usage").await.expect(404).expect_problem();
    app.finish().await;
}

/// Whoever waited for the log would wait much longer: for the lock, or for the limit of a statement.
const PROMPT: Duration = Duration::from_secs(5);
const COUNTED: &str = "SELECT CAST(COALESCE(SUM(requests), 0) AS BIGINT) FROM usage_hours";

/// Requests without a key, many at once; gives the slowest answer.
async fn ask_many(client: &Client, count: usize) -> Duration {
    let asking = futures::stream::iter(0..count).map(|_| async {
        let started = Instant::now();
        client.get("/v1/tasks").await.expect(401);
        started.elapsed()
    });
    asking.buffer_unordered(64).fold(Duration::ZERO, async |a, b| a.max(b)).await
}

/// Somebody has the log's table: nobody waits, what finds no room is counted, and that is all that is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_is_locked_makes_nobody_wait() {
    // More than the buffer and a batch hold.
    const MANY: usize = 19_000;
    let setup = Setup::new(Size::Scaled { apis: 1, workers: 1 }).weight(Weight::Heavy);
    let app = setup.start().await;
    let (client, url) = (app.anonymous(), app.database_url());
    assert_eq!(app.apis[0].metric("listmill_request_log_lost_total").await, Some(0.0), "is shown");
    let mut holder = PgConnection::connect(&url).await.expect("PostgreSQL lets us in");
    holder.execute("BEGIN; LOCK TABLE request_log IN EXCLUSIVE MODE").await.expect("a lock");
    let slowest = ask_many(&client, MANY).await;
    println!("slowest: {slowest:?}");
    assert!(slowest < PROMPT, "{slowest:?}");
    let lost = app.apis[0].metric("listmill_request_log_lost_total").await.expect("a counter");
    assert!(lost >= 1.0, "the buffer was too small for all");
    eventually("the log says so", Duration::from_secs(20), || async {
        let told = app.apis[0].process.output();
        told.contains("requests are not logged for now").then_some(())
    })
    .await;
    holder.execute("COMMIT").await.expect("no lock any more");
    let counted = eventually("all others are written", Duration::from_secs(30), || async {
        let counted = sql::number(&url, COUNTED).await;
        (counted as f64 + lost >= MANY as f64).then_some(counted)
    })
    .await;
    assert_eq!(counted as f64 + lost, MANY as f64, "none is lost uncounted, none counted twice");
    let rows = sql::number(&url, "SELECT COUNT(*) FROM request_log").await;
    assert_eq!(rows, counted, "refusals all have a row");
    app.finish().await;
}

/// A process of PostgreSQL is stopped in the middle of writing the log, with rows of it locked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_is_stopped_makes_nobody_wait() {
    let mut random = Random::printed();
    let setup = Setup::new(Size::Scaled { apis: 1, workers: 1 }).own_postgres();
    let app = setup.weight(Weight::Middle).start().await;
    let client = app.anonymous();
    let mut backend = None;
    for _ in 0..5 {
        // Nothing but the log writes while there are only refusals.
        let process = &app.apis[0].process;
        let asking = futures::stream::repeat(())
            .map(|()| client.try_get("/v1/tasks"))
            .buffer_unordered(32)
            .for_each(async |_| ());
        let caught = tokio::select! {
            caught = stop_inside_a_transaction(&app, process, &mut random) => caught,
            () = asking => unreachable!("it has no end"),
        };
        let (api, session) = caught.expect("an API that logs is caught at it");
        let stopped = Frozen::stop(session.backend);
        let mut sessions = Sessions::connect(&app).await;
        let still = still_waits(&mut sessions, &session).await;
        api.go_on();
        if still {
            backend = Some(stopped);
            break;
        }
    }
    let backend = backend.expect("a backend was caught with rows of the log locked");
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(15) {
        let slowest = ask_many(&client, 500).await;
        assert!(slowest < PROMPT, "{slowest:?}");
    }
    backend.go_on();
    client.get("/v1/tasks").await.expect(401);
    let url = app.database_url();
    let before = sql::number(&url, COUNTED).await;
    eventually("the log goes on", Duration::from_secs(30), || async {
        client.get("/v1/tasks").await.expect(401);
        (sql::number(&url, COUNTED).await > before).then_some(())
    })
    .await;
    app.finish().await;
}

/// What was noted is written before the process ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_writes_what_is_left() {
    let mut app = Setup::new(Size::Scaled { apis: 1, workers: 1 }).start().await;
    let client = app.anonymous();
    for _ in 0..40 {
        client.get("/v1/tasks").await.expect(401);
    }
    drop(client);
    app.apis[0].process.sigterm(Duration::from_secs(30)).await;
    assert_eq!(sql::number(&app.database_url(), COUNTED).await, 40);
    app.finish().await;
}

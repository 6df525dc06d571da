//! Check 9: request limits per key.

use std::time::{Duration, Instant};

use listmill_tests::{Client, Reply, Setup, Size, Weight, eventually, for_each_size};
use serde_json::{Value, json};

for_each_size!(
    sixty_a_minute,
    own_routes_allow_1200,
    off_lifts_them,
    an_operator_tightens_them_for_a_while,
    a_key_has_a_window_of_its_own,
);

/// A sliding window named `requests` counts every request with a key, on all processes together.
async fn a_key_has_a_window_of_its_own(size: Size) {
    let app = limited(size).start().await;
    let owner = app.customer(10).await;
    let limits = json!([{ "name": "requests", "limit": 8, "window_seconds": 30 }]);
    let body = json!({ "label": "narrow", "limits": limits });
    let made = owner.client.post("/v1/keys", &body).await.expect(201).json();
    let secret = made["key"].as_str().expect("key");
    app.keep_secret(secret);
    let client = app.client(secret);
    for _ in 0..8 {
        client.get("/v1/tasks").await.expect(200);
    }
    for _ in 0..4 {
        let refused = client.get("/v1/tasks").await.expect(429);
        let body = refused.json();
        assert_eq!(body["error"], "Rate limit exceeded", "{refused}");
        assert_eq!((&body["limit"], &body["window"]), (&json!(8), &json!("30 seconds")));
        let wait = body["retry_after_seconds"].as_u64().expect("a wait");
        assert!((1..=30).contains(&wait), "{refused}");
        assert_eq!(number(&refused, "retry-after"), wait);
    }
    owner.client.get("/v1/tasks").await.expect(200);
    app.finish().await;
}

fn limited(size: Size) -> Setup {
    Setup::new(size).env("LISTMILL_RATE_LIMITS", "on")
}

async fn single(client: &Client) -> Reply {
    client.post("/api/verify-single", &json!({ "email": "anna@example.com" })).await
}

fn number(reply: &Reply, header: &str) -> u64 {
    let value = reply.header(header).unwrap_or_else(|| panic!("no {header}: {reply}"));
    value.parse().unwrap_or_else(|_| panic!("{header}: {value}"))
}

/// Asks until refused; says how many passed, how many more a rolling limit may have let pass
/// meanwhile, and the refusal.
async fn until_refused(client: &Client, per_minute: u64) -> (u64, u64, Reply) {
    let start = Instant::now();
    for passed in 0.. {
        let reply = single(client).await;
        if reply.status == 429 {
            return (passed, start.elapsed().as_secs() * per_minute / 60 + 1, reply);
        }
        reply.expect(200);
        assert!(passed < per_minute * 3, "never refused");
    }
    unreachable!("the loop has no end");
}

async fn sixty_a_minute(size: Size) {
    let app = limited(size).start().await;
    let owner = app.customer(1_000).await;
    let first = single(&owner.client).await.expect(200);
    assert_eq!(number(&first, "x-ratelimit-limit"), 60);
    assert_eq!(number(&first, "x-ratelimit-remaining"), 59);
    assert_eq!(number(&first, "x-dailylimit-remaining"), 9_999);
    let second = single(&owner.client).await.expect(200);
    assert!(number(&second, "x-ratelimit-remaining") <= 59);
    assert_eq!(number(&second, "x-dailylimit-remaining"), 9_998);

    // The budget is one over all API processes: the client takes them in turn.
    let (passed, more, refusal) = until_refused(&owner.client, 60).await;
    assert!((58..=58 + more + 1).contains(&passed), "{passed} passed, {more} more were due");
    assert_refusal(&refusal, 60);
    assert_eq!(owner.client.balance().await, 1_000 - 2 - passed, "a refusal costs nothing");

    // Each route has a budget of its own, and so has each key of the account.
    owner.client.get("/api/get-results/task_x").await.expect(404);
    let other = app.client(&app.create_key(&owner.account).await.secret);
    let reply = single(&other).await.expect(200);
    assert_eq!(number(&reply, "x-ratelimit-remaining"), 59);
    // 4 before 9: a disabled key is refused as such, however often it asks.
    let path = format!("/v1/keys/{}/disable", owner.key.id);
    let done = other.post_empty(&path).await;
    assert!(matches!(done.status, 200 | 204), "{done}");
    single(&owner.client).await.expect(403);
    app.finish().await;
}

fn assert_refusal(reply: &Reply, limit: u64) {
    let body = reply.json();
    let shape = ["current", "error", "limit", "retry_after_seconds", "window"];
    listmill_tests::reply::assert_fields(&body, &shape);
    assert_eq!(body["error"], "Rate limit exceeded");
    assert_eq!(body["limit"], limit);
    assert_eq!(body["window"], "1 minute");
    assert!(body["current"].as_u64() > Some(limit), "{body}");
    let wait = body["retry_after_seconds"].as_u64().expect("seconds");
    assert!((1..=60).contains(&wait), "{body}");
    assert_eq!(number(reply, "retry-after"), wait);
    assert_eq!(number(reply, "x-ratelimit-limit"), limit);
    assert_eq!(number(reply, "x-ratelimit-remaining"), 0);
    assert!(reply.header("x-ratelimit-reset").is_some(), "{reply}");
}

async fn own_routes_allow_1200(size: Size) {
    let app = limited(size).weight(Weight::Middle).start().await;
    let owner = app.customer(10).await;
    let start = Instant::now();
    let mut passed = 0;
    let refusal = loop {
        let asks = (0..50).map(|_| owner.client.get("/v1/account/credits"));
        let replies = futures::future::join_all(asks).await;
        let (refused, ok): (Vec<_>, Vec<_>) = replies.into_iter().partition(|r| r.status == 429);
        assert!(ok.iter().all(|reply| reply.status == 200));
        passed += ok.len() as u64;
        if let Some(refusal) = refused.into_iter().next() {
            break refusal;
        }
        assert!(passed < 4_000, "never refused");
    };
    let due = 1_200 + start.elapsed().as_secs() * 20 + 20;
    assert!((1_200..=due).contains(&passed), "{passed} passed, at most {due} were due");
    let body: Value = refusal.json();
    assert_eq!((&body["error"], &body["limit"]), (&json!("Rate limit exceeded"), &json!(1_200)));
    app.finish().await;
}

async fn off_lifts_them(size: Size) {
    let app = Setup::new(size).env("LISTMILL_RATE_LIMITS", "off").start().await;
    let owner = app.customer(1_000).await;
    for _ in 0..80 {
        single(&owner.client).await.expect(200);
    }
    app.finish().await;
}

async fn an_operator_tightens_them_for_a_while(size: Size) {
    let app = limited(size).start().await;
    let lever = async |args: &[&str]| {
        let words = ["admin", "limits"].iter().chain(args).chain(&["--json"]);
        let words: Vec<&str> = words.copied().collect();
        app.cli(&words).await.expect_success().json()
    };
    let before = lever(&["show"]).await;
    assert_eq!((&before["factor"], &before["tightened"]), (&json!(1.0), &json!(false)));
    let told = lever(&["tighten", "--factor", "0.1", "--for", "1h", "--note", "a storm"]).await;
    assert_eq!((&told["factor"], &told["note"]), (&json!(0.1), &json!("a storm")));
    assert!(told["ends_at"].is_string(), "{told}");
    assert_eq!(lever(&["show"]).await, told);

    // At once, on every process: the first request after the command is judged by a tenth.
    let owner = app.customer(100).await;
    for api in 0..app.apis.len() {
        let reply = single(&app.client_of(api, &owner.key.secret)).await.expect(200);
        assert_eq!(number(&reply, "x-ratelimit-limit"), 6, "API process {api}");
        assert!(number(&reply, "x-dailylimit-remaining") > 9_900, "days stay as they are");
    }
    let asked = app.apis.len() as u64;
    let (passed, more, refusal) = until_refused(&owner.client, 6).await;
    let left = 6 - asked;
    assert!((left..=left + more).contains(&passed), "{passed} passed, {more} more were due");
    assert_refusal(&refusal, 6);
    for api in 0..app.apis.len() {
        let reply = single(&app.client_of(api, &owner.key.secret)).await;
        assert!(matches!(reply.status, 200 | 429), "{reply}");
        assert_eq!(number(&reply, "x-ratelimit-limit"), 6, "API process {api}");
    }

    // It ends by itself, on every process.
    lever(&["tighten", "--factor", "0.5", "--for", "3s"]).await;
    let other = app.customer(100).await;
    for api in 0..app.apis.len() {
        let client = app.client_of(api, &other.key.secret);
        eventually("the lever ends", Duration::from_secs(15), async || {
            let limit = number(&single(&client).await, "x-ratelimit-limit");
            assert!(limit == 30 || limit == 60, "{limit}");
            (limit == 60).then_some(())
        })
        .await;
    }
    assert_eq!(lever(&["show"]).await["tightened"], json!(false));

    // And it can be lifted.
    lever(&["tighten", "--factor", "0.1", "--for", "1h"]).await;
    let relaxed = lever(&["relax"]).await;
    assert_eq!((&relaxed["factor"], &relaxed["ends_at"]), (&json!(1.0), &Value::Null));
    let third = app.customer(100).await;
    let reply = single(&third.client).await.expect(200);
    assert_eq!(number(&reply, "x-ratelimit-limit"), 60);
    app.finish().await;
}

/// A Redis that hangs costs nobody more than a moment, and the metric tells who judges.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_each_process_judges_alone_and_says_so() {
    let mut app = limited(Size::SCALED).start().await;
    let owner = app.customer(1_000).await;
    single(&owner.client).await.expect(200);
    let alone = async |app: &listmill_tests::Deployment| {
        let mut sum = 0.0;
        for api in &app.apis {
            sum += api.metric("listmill_limits_alone").await.expect("the gauge is there");
        }
        sum
    };
    assert_eq!(alone(&app).await, 0.0);
    app.redis().stall();
    for api in 0..app.apis.len() {
        let client = app.client_of(api, &owner.key.secret);
        let start = Instant::now();
        for _ in 0..5 {
            let reply = client.get("/v1/account/credits").await.expect(200);
            assert_eq!(number(&reply, "x-ratelimit-limit"), 1_200);
        }
        assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    }
    assert!(alone(&app).await >= app.apis.len() as f64);
    app.redis().resume();
    eventually("Redis judges again", Duration::from_secs(20), async || {
        for _ in 0..app.apis.len() {
            owner.client.get("/v1/account/credits").await.expect(200);
        }
        (alone(&app).await == 0.0).then_some(())
    })
    .await;
    app.finish().await;
}

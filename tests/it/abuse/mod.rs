//! Abuse protection: each rule acts at its threshold and not below, shows what it found, lets it end by itself,
//! and leaves others alone. Thresholds are lowered, so that a few requests do.

mod keys;
mod networks;
mod operator;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use listmill_tests::client::send;
use listmill_tests::poll::throughout;
use listmill_tests::{Client, Deployment, Key, Reply, Setup, Size, eventually};
use reqwest::Method;
use serde_json::{Value, json};

/// However slow the machine is, what must come has come by then.
const SOON: Duration = Duration::from_secs(30);
/// What must not come would have come by then: decisions are judged after a quarter of a second.
const NEVER: Duration = Duration::from_millis(1_500);

const DAY_MS: i64 = 86_400_000;

/// With protection on; whoever calls says from where, as behind a proxy.
fn guarded(size: Size) -> Setup {
    Setup::new(size)
        .env("LISTMILL_ABUSE_PROTECTION", "on")
        .env("LISTMILL_TRUSTED_PROXIES", "127.0.0.1")
}

/// A key in the right form that nobody has, another each time.
fn nobodys_key() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("VEC{:0>32}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The API processes in turn.
fn turn(app: &Deployment) -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed) % app.apis.len()
}

/// Asks with this key from this address, each API process in turn.
async fn ask(app: &Deployment, secret: &str, from: &str) -> Reply {
    let request = app.client_of(turn(app), secret).request(Method::GET, "/v1/tasks");
    send(request.header("x-forwarded-for", from)).await
}

/// Is everybody from this address shut out? Asked without a key, which no rule counts.
async fn is_blocked(app: &Deployment, from: &str) -> bool {
    let client = Client::new(vec![app.apis[turn(app)].base()], None);
    let request = client.request(Method::GET, "/v1/tasks");
    let reply = send(request.header("x-forwarded-for", from)).await;
    match reply.status {
        401 => false,
        403 => {
            reply.expect_body(403, &json!({ "error": "Access denied" }));
            true
        }
        _ => panic!("{reply}"),
    }
}

async fn until_blocked(app: &Deployment, from: &str) {
    eventually(&format!("{from} is blocked"), SOON, || async {
        is_blocked(app, from).await.then_some(())
    })
    .await;
}

async fn until_free(app: &Deployment, from: &str) {
    eventually(&format!("{from} is free again"), SOON, || async {
        (!is_blocked(app, from).await).then_some(())
    })
    .await;
}

async fn stays_free(app: &Deployment, from: &str) {
    throughout(NEVER, || async { assert!(!is_blocked(app, from).await, "{from}") }).await;
}

/// A key's id in SQL.
fn stored(size: Size, key: &Key) -> String {
    let hex = key.id.strip_prefix("key_").expect("an id");
    if size == Size::Embedded { format!("x'{hex}'") } else { format!("'{hex}'") }
}

/// What `listmill admin …` answers.
async fn admin(app: &Deployment, line: &str) -> Value {
    let words: Vec<&str> = ["admin"].into_iter().chain(line.split(' ')).chain(["--json"]).collect();
    app.cli(&words).await.expect_success().json()
}

/// The signals of a rule, newest first.
async fn signals(app: &Deployment, rule: &str) -> Vec<Value> {
    let all = admin(app, "abuse list").await;
    let all = all["signals"].as_array().expect("signals").clone();
    all.into_iter().filter(|signal| signal["rule"] == rule).collect()
}

/// The first signal of a rule, once it is there.
async fn signal(app: &Deployment, rule: &str) -> Value {
    eventually(&format!("a signal of {rule}"), SOON, || async {
        signals(app, rule).await.into_iter().next()
    })
    .await
}

/// Milliseconds that the act of a strike lasts, as it is stored.
async fn lasts(app: &Deployment, strike: u32) -> i64 {
    let sql = format!("SELECT ends_at - at FROM abuse_signals WHERE strikes = {strike}");
    listmill_tests::sql::number(&app.database_url(), &sql).await
}

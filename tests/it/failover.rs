//! PostgreSQL that may only be read for a while, and PostgreSQL that is another server from one moment
//! to the next: nothing ends, nothing acknowledged is lost, work goes on by itself.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use listmill_tests::forwarder::Forwarder;
use listmill_tests::postgres::Postgres;
use listmill_tests::{Client, Customer, Deployment, Setup, Size, Task, Weight, eventually, lists};
use serde_json::{Value, json};

const ADDRESSES: u64 = 30_000;
const READ_ONLY: Duration = Duration::from_secs(10);
const LIMIT: Duration = Duration::from_secs(60);

/// About 15 s of work without trouble.
fn setup() -> Setup {
    let setup = Setup::new(Size::Scaled { apis: 1, workers: 2 }).weight(Weight::Light);
    setup.latency("100ms").concurrency(100).env("LISTMILL_BATCH_SIZE", "200")
}

async fn submit(app: &Deployment) -> (Customer, Client, String) {
    let customer = app.customer(ADDRESSES + 7).await;
    let client = customer.client.clone().patient();
    let id = client.submit_stream("text/plain", lists::big_text(ADDRESSES)).await.id;
    client.wait_until(&id, "running", LIMIT, |task| task.counts.processed > 2_000).await;
    (customer, client, id)
}

/// Every process says that it is not ready, as the database takes no writes.
async fn wait_said_read_only(app: &Deployment) {
    for node in app.apis.iter().chain(&app.workers) {
        let what = format!("{} says that the database is read-only", node.process.name);
        eventually(&what, Duration::from_secs(5), || async {
            let (status, body) = node.probe("/readyz").await?;
            let body: Value = serde_json::from_str(&body).ok()?;
            (status == 503 && body["database"] == "read_only").then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_only_for_a_while() {
    let mut app = setup().own_postgres().start().await;
    let (customer, client, id) = submit(&app).await;
    app.postgres().set_read_only(true).await;
    let since = Instant::now();
    wait_said_read_only(&app).await;
    let mut refused = 0;
    while since.elapsed() < READ_ONLY {
        app.assert_all_up();
        for (path, body) in [
            ("/v1/tasks", json!({ "name": "list", "emails": ["person@example.com"] })),
            ("/v1/keys", json!({ "label": "made while nothing can be made" })),
            ("/v1/verifications", json!({ "email": "person@example.com" })),
        ] {
            let reply = client.post(path, &body).await;
            assert_eq!(reply.status, 503, "{reply}");
            reply.expect_problem();
            refused += 1;
        }
        client.get(&format!("/v1/tasks/{id}")).await.expect(200);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let before = client.task(&id).await;
    assert!(!before.has_ended(), "the work must outlast the trouble: {before:#?}");
    app.postgres().set_read_only(false).await;
    let back = Instant::now();
    let more = |task: &Task| task.counts.processed > before.counts.processed;
    client.wait_until(&id, "progress after it", LIMIT, more).await;
    eprintln!("read-only: {refused} writes refused; goes on {:?} after it", back.elapsed());
    app.wait_ready().await;
    let task = client.wait_for(&id, "completed", LIMIT).await;
    client.assert_whole(&task, ADDRESSES).await;
    assert_eq!(client.balance().await + ADDRESSES, customer.granted);
    app.finish().await;
}

/// What the product had said before the switch, and must not take back.
struct Acknowledged {
    key: String,
    granted: u64,
    results: Vec<Value>,
}

async fn acknowledge(app: &Deployment, customer: &Customer, id: &str) -> Acknowledged {
    let client = &customer.client;
    let made = client.post("/v1/keys", &json!({ "label": "made just before" })).await.expect(201);
    let key = made.json()["key"].as_str().expect("key").to_owned();
    app.keep_secret(&key);
    app.grant(&customer.account, 5).await;
    let results = client.results(id).await;
    Acknowledged { key, granted: customer.granted + 5, results }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switch_to_a_replica() {
    let mut primary = Postgres::start().await;
    let standby = primary.standby().await;
    let address = Forwarder::start(primary.port()).await;
    let url = format!("postgres://postgres@127.0.0.1:{}/postgres", address.port);
    let mut app = setup().database_url(url).start().await;
    let (customer, client, id) = submit(&app).await;
    let said = acknowledge(&app, &customer, &id).await;
    primary.stop_immediate().await;
    standby.promote().await;
    address.lead_to(standby.port());
    let switched = Instant::now();
    app.wait_ready().await;
    eprintln!("switch: ready {:?} after it", switched.elapsed());
    let seen = client.task(&id).await;
    assert!(!seen.has_ended(), "the work must outlast the trouble: {seen:#?}");
    assert!(seen.counts.processed >= said.results.len() as u64, "{seen:#?}");
    app.client(&said.key).get("/v1/tasks").await.expect(200);
    let task = client.wait_for(&id, "completed", LIMIT).await;
    app.assert_all_up();
    let results = client.assert_whole(&task, ADDRESSES).await;
    assert_eq!(client.balance().await + ADDRESSES, said.granted);
    let now: HashMap<&str, &Value> =
        results.iter().map(|r| (r["email"].as_str().expect("email"), r)).collect();
    assert!(!said.results.is_empty());
    for result in &said.results {
        assert_eq!(now[result["email"].as_str().expect("email")], result, "said before the switch");
    }
    app.finish().await;
}

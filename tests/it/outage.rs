//! Redis or PostgreSQL away for a while: nothing ends, `/readyz` says it, work goes on.

use std::time::{Duration, Instant};

use listmill_tests::{Deployment, Setup, Size, Weight, eventually, lists};

const ADDRESSES: u64 = 60_000;

/// `LISTMILL_TEST_OUTAGE` seconds, 30 unless said otherwise.
fn outage() -> Duration {
    let seconds = std::env::var("LISTMILL_TEST_OUTAGE")
        .map_or(30, |text| text.parse().expect("LISTMILL_TEST_OUTAGE is a number of seconds"));
    Duration::from_secs(seconds)
}

fn setup() -> Setup {
    let setup = Setup::new(Size::Scaled { apis: 1, workers: 2 }).own_postgres();
    // Enough work that some is left when the server comes back.
    let setup = setup.latency("100ms").concurrency(100).weight(Weight::Light);
    setup.env("LISTMILL_LEASE_TTL", "3s").env("LISTMILL_BATCH_SIZE", "200")
}

/// All through the outage: every process runs, is alive, says it is not ready and why.
async fn watch(app: &mut Deployment, names: &[&str], span: Duration) {
    let start = Instant::now();
    for node in app.apis.iter().chain(&app.workers) {
        let what = format!("{} says it is not ready", node.process.name);
        let body = eventually(&what, Duration::from_secs(10), || async {
            let (status, body) = node.probe("/readyz").await?;
            (status == 503).then_some(body)
        })
        .await;
        let named = names.iter().any(|name| body.to_lowercase().contains(name));
        assert!(named, "{} does not say what is away: {body}", node.process.name);
    }
    while start.elapsed() < span {
        app.assert_all_up();
        for node in app.apis.iter().chain(&app.workers) {
            let alive = node.probe("/healthz").await.map(|(status, _)| status);
            assert_eq!(alive, Some(200), "{} is alive all the same", node.process.name);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn submit(app: &Deployment) -> (listmill_tests::Client, String) {
    let customer = app.customer(ADDRESSES).await;
    let client = customer.client.patient();
    let id = client.submit_stream("text/plain", lists::big_text(ADDRESSES)).await.id;
    let limit = Duration::from_secs(30);
    client.wait_until(&id, "running", limit, |task| task.counts.processed > 0).await;
    (client, id)
}

async fn goes_on(app: &mut Deployment, client: &listmill_tests::Client, id: &str) {
    app.wait_ready().await;
    let task = client.wait_for(id, "completed", Duration::from_secs(120)).await;
    assert_eq!(task.counts.processed, ADDRESSES);
    assert_eq!(task.credits.charged, ADDRESSES);
    assert_eq!(client.balance().await, 0);
    app.assert_all_up();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_redis() {
    let mut app = setup().start().await;
    let (client, id) = submit(&app).await;
    app.redis().stop();
    watch(&mut app, &["redis"], outage()).await;
    let polled = client.get(&format!("/v1/tasks/{id}")).await;
    assert_eq!(polled.status, 200, "SQL is the truth; the queue is a hint: {polled}");
    app.redis().start_again().await;
    goes_on(&mut app, &client, &id).await;
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_postgres() {
    let mut app = setup().start().await;
    let (client, id) = submit(&app).await;
    app.postgres().stop_immediate().await;
    let refused = client.get(&format!("/v1/tasks/{id}")).await;
    assert_eq!(refused.status, 503, "{refused}");
    watch(&mut app, &["database", "postgres"], outage()).await;
    app.postgres().start_again().await;
    goes_on(&mut app, &client, &id).await;
    app.finish().await;
}

/// Connections stay open and nothing answers: no error ever comes, only time passes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_redis_that_stalls() {
    let mut app = setup().start().await;
    let (client, id) = submit(&app).await;
    app.redis().stall();
    watch(&mut app, &["redis"], outage().min(Duration::from_secs(12))).await;
    let polled = client.get(&format!("/v1/tasks/{id}")).await;
    assert_eq!(polled.status, 200, "a request does not hang with Redis: {polled}");
    app.redis().resume();
    goes_on(&mut app, &client, &id).await;
    app.finish().await;
}

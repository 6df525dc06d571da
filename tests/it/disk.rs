//! A full disk under the embedded size: what cannot be written is refused with the reason, and work goes
//! on by itself as soon as there is room.

use std::time::{Duration, Instant};

use listmill_tests::disk::Disk;
use listmill_tests::{Client, Deployment, Reply, Setup, Size, Task, Weight, eventually, lists};
use serde_json::{Value, json};

const ADDRESSES: u64 = 40_000;
const LIMIT: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(10);

/// `LISTMILL_TEST_DISK_FULL` seconds, 10 unless said otherwise.
fn full_for() -> Duration {
    let seconds = std::env::var("LISTMILL_TEST_DISK_FULL")
        .map_or(10, |text| text.parse().expect("LISTMILL_TEST_DISK_FULL is a number of seconds"));
    Duration::from_secs(seconds)
}

async fn readyz(app: &Deployment) -> Option<(u16, Value)> {
    let (status, body) = app.apis[0].probe("/readyz").await?;
    Some((status, serde_json::from_str(&body).unwrap_or_else(|e| panic!("{e}: {body}"))))
}

/// A small write; what it is answered is one of two things. The database may find a little room in its own
/// files for a while, so that a write goes through now and then.
async fn write(app: &Deployment, client: &Client) -> bool {
    let reply = client.post("/v1/keys", &json!({ "label": "made on a full disk" })).await;
    if reply.status == 201 {
        app.keep_secret(reply.json()["key"].as_str().expect("key"));
        return true;
    }
    assert_refused(&reply);
    false
}

fn assert_refused(reply: &Reply) {
    assert_eq!(reply.status, 507, "{reply}");
    assert_eq!(reply.expect_problem()["code"], "storage_full", "{reply}");
}

/// While the disk is full: said, refused with the reason, read all the same, alive.
async fn watch(app: &mut Deployment, client: &Client, id: &str, until: Instant) {
    let shared = &*app;
    eventually("/readyz says that the disk is full", SOON, || async move {
        let (status, body) = readyz(shared).await?;
        (status == 503 && body["database"] == "full").then_some(())
    })
    .await;
    eventually("a write is refused", SOON, || async move {
        (!write(shared, client).await).then_some(())
    })
    .await;
    let (mut passed, mut refused) = (0, 0);
    while Instant::now() < until {
        app.assert_all_up();
        match write(app, client).await {
            true => passed += 1,
            false => refused += 1,
        }
        for path in [format!("/v1/tasks/{id}"), format!("/v1/tasks/{id}/results?limit=10")] {
            client.get(&path).await.expect(200);
        }
        assert_eq!(app.apis[0].probe("/healthz").await.map(|(status, _)| status), Some(200));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    eprintln!("full disk: {refused} writes refused, {passed} found room");
    assert!(refused > passed, "hardly anything was refused");
}

/// There is room again: ready and at work within seconds, without anybody's doing.
async fn goes_on(app: &Deployment, client: &Client, id: &str) {
    let since = Instant::now();
    eventually("ready again", SOON, || async { (readyz(app).await?.0 == 200).then_some(()) }).await;
    let before = client.task(id).await;
    assert!(!before.has_ended(), "the work must outlast the trouble: {before:#?}");
    let more = |task: &Task| task.counts.processed > before.counts.processed;
    client.wait_until(id, "progress after it", SOON, more).await;
    eprintln!("goes on {:?} after there is room", since.elapsed());
}

/// What must not wait on a bad day: a key is taken back, a task is stopped.
async fn revokes_and_cancels(app: &Deployment, client: &Client, other: &Client, other_id: &str) {
    let made = client.post("/v1/keys", &json!({ "label": "to be disabled" })).await.expect(201);
    let text = |field: &str| made.json()[field].as_str().expect(field).to_owned();
    let (id, secret) = (text("id"), text("key"));
    app.keep_secret(&secret);
    app.client(&secret).get("/v1/tasks").await.expect(200);
    let disabled = client.post_empty(&format!("/v1/keys/{id}/disable")).await;
    assert!(matches!(disabled.status, 200 | 204), "{disabled}");
    let refused = app.client(&secret).get("/v1/tasks").await;
    assert!(matches!(refused.status, 401 | 403), "{refused}");
    let cancelled = other.cancel(other_id).await;
    assert_eq!(cancelled["task"]["status"], "cancelled", "{cancelled}");
}

async fn run(app: &mut Deployment) {
    let customer = app.customer(ADDRESSES + 7).await;
    let other = app.customer(ADDRESSES).await;
    let (client, other) = (customer.client.clone(), other.client);
    let id = client.submit_stream("text/plain", lists::big_text(ADDRESSES)).await.id;
    let other_id = other.submit_stream("text/plain", lists::big_text(ADDRESSES)).await.id;
    client.wait_until(&id, "running", LIMIT, |task| task.counts.processed > 1_000).await;

    app.disk().ballast().keep_full(Duration::from_secs(1)).await;
    app.assert_all_up();
    goes_on(app, &client, &id).await;

    let span = full_for();
    let until = Instant::now() + span;
    let ballast = app.disk().ballast();
    ballast.fill();
    let filling = tokio::spawn(async move { ballast.keep_full(span).await });
    watch(app, &client, &id, until).await;
    filling.await.expect("the disk is filled");
    goes_on(app, &client, &id).await;
    revokes_and_cancels(app, &client, &other, &other_id).await;

    let task = client.wait_for(&id, "completed", LIMIT).await;
    assert_eq!((task.counts.processed, task.counts.deliverable), (ADDRESSES, ADDRESSES));
    assert_eq!((task.credits.charged, task.credits.held), (ADDRESSES, 0));
    let results = client.results(&id).await;
    let seqs: Vec<u64> = results.iter().map(|r| r["seq"].as_u64().expect("seq")).collect();
    assert_eq!(seqs, (0..ADDRESSES).collect::<Vec<u64>>(), "one result for each seq");
    assert_eq!(client.balance().await, 7);
    let stopped = other.task(&other_id).await;
    assert_eq!(stopped.credits.held, 0);
    assert_eq!(other.balance().await + stopped.credits.charged, ADDRESSES);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_full_for_a_second_then_for_a_minute() {
    if !Disk::can_be_mounted() {
        eprintln!("left out: a file system of its own cannot be mounted here (needs root)");
        return;
    }
    let setup = Setup::new(Size::Embedded).latency("100ms").concurrency(256).disk(64);
    let mut app = setup.weight(Weight::Middle).start().await;
    run(&mut app).await;
    app.finish().await;
}

//! Cancel is a line: when it has returned, no result is added and no credit moves.

use std::time::Duration;

use listmill_tests::client::parse;
use listmill_tests::poll::throughout;
use listmill_tests::random::Random;
use listmill_tests::{Setup, Size, Weight, eventually, for_each_size, lists};

for_each_size!(
    ends_charges_for_good,
    frees_the_workers_within_a_second,
    of_a_waiting_task,
    at_any_moment,
);

const LIMIT: Duration = Duration::from_secs(30);
const ADDRESSES: usize = 20_000;

fn four_workers(size: Size) -> Setup {
    let setup = Setup::new(size.with(2, 4)).concurrency(256);
    setup.env("LISTMILL_BATCH_SIZE", "100").weight(Weight::Middle)
}

async fn ends_charges_for_good(size: Size) {
    // Verdicts keep coming in while the cancel is on its way.
    let app = four_workers(size).latency("40ms").start().await;
    let customer = app.customer(25_000).await;
    let client = &customer.client;
    let id = client.submit(&lists::people(ADDRESSES)).await.id;
    client.wait_until(&id, "some results", LIMIT, |task| task.counts.processed > 500).await;
    let answer = client.cancel(&id).await;
    let task = parse(&answer["task"]);
    assert_eq!(task.status, "cancelled");
    assert!(task.counts.processed < ADDRESSES as u64, "it was running");
    assert_eq!(task.credits.held, 0, "{task:#?}");
    let settlement = &answer["settlement"];
    let number = |field: &str| settlement[field].as_f64().expect(field);
    assert_eq!(number("charged"), task.credits.charged as f64, "{answer}");
    assert_eq!(number("refunded"), task.credits.refunded as f64, "{answer}");
    assert!(number("released") >= 0.0, "{answer}");
    let left = ADDRESSES as u64 - task.counts.processed;
    assert_eq!(number("not_processed"), left as f64, "{answer}");
    throughout(Duration::from_secs(3), || async {
        let now = client.task(&id).await;
        assert_eq!(now.credits, task.credits, "after the cancel");
        assert_eq!(now.counts, task.counts, "after the cancel");
        assert_eq!(client.balance().await + now.credits.charged, customer.granted);
    })
    .await;
    let charged = client.results(&id).await.iter().filter(|r| r["credit"] == "charged").count();
    assert_eq!(charged as u64, task.credits.charged);
    let again = client.cancel(&id).await;
    assert_eq!(again["settlement"], answer["settlement"]);
    assert_eq!(again["task"]["status"], "cancelled");
    app.finish().await;
}

async fn frees_the_workers_within_a_second(size: Size) {
    // Nobody waits for a verdict that takes longer than the second we have.
    let app = four_workers(size).latency("2s").weight(Weight::Heavy).start().await;
    let customer = app.customer(25_000).await;
    let client = &customer.client;
    let id = client.submit(&lists::people(ADDRESSES)).await.id;
    let app_ref = &app;
    eventually("every worker is busy", LIMIT, || async move {
        (app_ref.inflight().await > 200.0).then_some(())
    })
    .await;
    let task = parse(&client.cancel(&id).await["task"]);
    eventually("no address is being verified", Duration::from_secs(1), || async move {
        (app_ref.inflight().await < 1.0).then_some(())
    })
    .await;
    // Longer than a verdict takes: none comes in late.
    throughout(Duration::from_secs(3), || async {
        assert_eq!(client.task(&id).await.credits, task.credits);
        assert_eq!(client.balance().await + task.credits.charged, customer.granted);
    })
    .await;
    // The workers are free for others.
    let next = client.submit(&lists::people(10)).await.id;
    client.wait_for(&next, "completed", Duration::from_secs(10)).await;
    app.finish().await;
}

/// Paused for want of credits, or by request: cancelling costs nothing more.
async fn of_a_waiting_task(size: Size) {
    let app = Setup::new(size).latency("20ms").start().await;
    let customer = app.customer(50).await;
    let client = &customer.client;
    let body = serde_json::json!({ "emails": lists::people(200), "allow_partial": true });
    let id = client.submit_json(&body).await.id;
    client.wait_until(&id, "empty", LIMIT, |t| t.status == "paused" && t.credits.held == 0).await;
    let answer = client.cancel(&id).await;
    assert_eq!(answer["settlement"]["not_processed"].as_f64(), Some(150.0), "{answer}");
    app.grant(&customer.account, 500).await;
    throughout(Duration::from_secs(1), || async {
        assert_eq!(client.balance().await, 500, "a grant wakes no cancelled task");
    })
    .await;
    assert_eq!(client.task(&id).await.status, "cancelled");
    app.finish().await;
}

/// Between submission and end, by several callers at once: one line, the same for all.
async fn at_any_moment(size: Size) {
    let mut random = Random::printed();
    let setup = Setup::new(size).latency("10ms").concurrency(64);
    let app = setup.env("LISTMILL_BATCH_SIZE", "40").weight(Weight::Middle).start().await;
    let customer = app.customer(50_000).await;
    let client = &customer.client;
    let mut charged = 0;
    for _ in 0..15 {
        let id = client.submit(&lists::people(3_000)).await.id;
        tokio::time::sleep(Duration::from_millis(random.below(150))).await;
        let path = format!("/v1/tasks/{id}/cancel");
        let answers = futures::future::join_all((0..4).map(|_| client.post_empty(&path))).await;
        let first = answers[0].clone().expect(200).json();
        for answer in answers {
            assert_eq!(answer.expect(200).json()["settlement"], first["settlement"]);
        }
        let task = client.task(&id).await;
        assert_eq!((task.status.as_str(), task.credits.held), ("cancelled", 0), "{task:#?}");
        assert_eq!(first["settlement"]["charged"].as_f64(), Some(task.credits.charged as f64));
        charged += task.credits.charged;
        assert_eq!(client.balance().await + charged, customer.granted);
        let kept = client.results(&id).await.iter().filter(|r| r["credit"] == "charged").count();
        assert_eq!(kept as u64, task.credits.charged, "results and charges agree");
    }
    app.finish().await;
}

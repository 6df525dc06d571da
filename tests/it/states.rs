//! Pause, resume, delete, and the states in which they are refused.

use std::time::Duration;

use listmill_tests::client::parse;
use listmill_tests::poll::throughout;
use listmill_tests::{Reply, Setup, Size, Task, for_each_size, lists};

for_each_size!(pause_stops_and_resume_goes_on, wrong_states_are_refused, deleted_is_gone);

const LIMIT: Duration = Duration::from_secs(30);

fn slow(size: Size) -> Setup {
    Setup::new(size).latency("100ms").concurrency(50).env("LISTMILL_BATCH_SIZE", "50")
}

fn task_in(reply: &Reply) -> Task {
    let body = reply.json();
    parse(body.get("task").unwrap_or(&body))
}

async fn pause_stops_and_resume_goes_on(size: Size) {
    let app = slow(size).start().await;
    let client = app.customer(5_000).await.client;
    let id = client.submit(&lists::people(2_000)).await.id;
    client.wait_until(&id, "some results", LIMIT, |task| task.counts.processed > 0).await;
    let paused = task_in(&client.pause(&id).await.expect(200));
    assert_eq!(paused.status, "paused");
    assert_eq!(paused.pause_reason.as_deref(), Some("requested"));
    // What was in flight may still end; soon nothing moves any more.
    let settled = client
        .wait_until(&id, "nothing held", Duration::from_secs(5), |task| task.credits.held == 0)
        .await;
    throughout(Duration::from_secs(1), || async {
        let task = client.task(&id).await;
        assert_eq!(task.status, "paused");
        assert_eq!(task.counts.processed, settled.counts.processed, "paused means paused");
    })
    .await;
    let resumed = task_in(&client.resume(&id).await.expect(200));
    assert_eq!(resumed.pause_reason, None);
    let done = client.wait_completed(&id).await;
    assert_eq!(done.credits.charged, 2_000);
    let results = client.results(&id).await;
    let seqs: Vec<u64> = results.iter().map(|r| r["seq"].as_u64().expect("seq")).collect();
    assert_eq!(seqs, (0..2_000).collect::<Vec<u64>>());
    app.finish().await;
}

async fn wrong_states_are_refused(size: Size) {
    let app = slow(size).start().await;
    let client = app.customer(10_000).await.client;
    let ended = client.submit(&lists::people(2)).await.id;
    client.wait_completed(&ended).await;
    let running = client.submit(&lists::people(5_000)).await.id;
    client.wait_until(&running, "running", LIMIT, |task| task.counts.processed > 0).await;
    let refused = |reply: Reply| {
        let problem = reply.expect(409).expect_problem();
        assert_ne!(problem["code"], "internal_error");
    };
    refused(client.post_empty(&format!("/v1/tasks/{ended}/cancel")).await);
    refused(client.pause(&ended).await);
    refused(client.resume(&ended).await);
    refused(client.delete(&format!("/v1/tasks/{running}")).await);
    client.cancel(&running).await;
    refused(client.pause(&running).await);
    refused(client.resume(&running).await);
    assert_eq!(client.task(&running).await.status, "cancelled");
    assert_eq!(client.task(&ended).await.status, "completed");
    app.finish().await;
}

async fn deleted_is_gone(size: Size) {
    let app = Setup::new(size).start().await;
    let client = app.customer(100).await.client;
    let kept = client.submit(&lists::people(5)).await.id;
    let id = client.submit(&lists::people(10)).await.id;
    client.wait_completed(&id).await;
    client.wait_completed(&kept).await;
    let reply = client.delete(&format!("/v1/tasks/{id}")).await;
    assert!(reply.status == 200 || reply.status == 204, "{reply}");
    client.get(&format!("/v1/tasks/{id}")).await.expect(404).expect_problem();
    client.get(&format!("/v1/tasks/{id}/results")).await.expect(404).expect_problem();
    client.delete(&format!("/v1/tasks/{id}")).await.expect(404).expect_problem();
    assert_eq!(client.tasks().await.len(), 1);
    assert_eq!(client.balance().await, 85, "what was charged stays charged");
    assert_eq!(client.results(&kept).await.len(), 5);
    app.finish().await;
}

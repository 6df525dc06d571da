//! A task outlives the key that created it.

use std::time::Duration;

use listmill_tests::{Setup, Size, Weight, for_each_size, lists};
use serde_json::json;

for_each_size!(
    disabled_at_ten_percent,
    deleted_at_ten_percent,
    suspended_meanwhile,
    cancelled_only_on_request,
    request_past_the_gate_runs_to_its_end,
);

const ADDRESSES: u64 = 100_000;
const LIMIT: Duration = Duration::from_secs(40);

#[derive(Clone, Copy)]
enum Change {
    Disable,
    Delete,
}

async fn disabled_at_ten_percent(size: Size) {
    run(size, Change::Disable).await;
}

async fn deleted_at_ten_percent(size: Size) {
    run(size, Change::Delete).await;
}

async fn run(size: Size, change: Change) {
    // 512 at once, 50 ms each: about ten seconds for the task, so that it really runs.
    let setup = Setup::new(size.with(2, 1)).latency("50ms").concurrency(512);
    let app = setup.weight(Weight::Middle).start().await;
    let a = app.customer(ADDRESSES + 50).await;
    let b = app.create_key(&a.account).await;
    let with_b = app.client(&b.secret);
    let id = a.client.submit_stream("text/plain", lists::big_text(ADDRESSES)).await.id;
    let path = format!("/v1/tasks/{id}");
    a.client.wait_until(&id, "ten percent", LIMIT, |task| task.processed_at_least(10)).await;
    let reply = match change {
        Change::Disable => with_b.post_empty(&format!("/v1/keys/{}/disable", a.key.id)).await,
        Change::Delete => with_b.delete(&format!("/v1/keys/{}", a.key.id)).await,
    };
    assert!(matches!(reply.status, 200 | 204), "{reply}");
    let refused = a.client.get(&path).await;
    match change {
        Change::Disable => refused.expect_body(
            403,
            &json!({
                "error": "API key is suspended",
                "reason": "This API key has been suspended",
            }),
        ),
        Change::Delete => {
            refused.expect_body(401, &json!({ "error": "Invalid or inactive API key" }));
        }
    }
    let going_on = with_b.task(&id).await;
    assert!(!going_on.has_ended(), "it must still run for this to mean something: {going_on:#?}");
    assert_eq!(going_on.status, "running");
    assert_eq!(going_on.created_by_key.as_deref(), Some(a.key.id.as_str()));
    let done = with_b.wait_for(&id, "completed", LIMIT).await;
    assert_eq!((done.counts.processed, done.credits.charged), (ADDRESSES, ADDRESSES));
    assert_eq!((done.credits.held, done.credits.refunded), (0, 0));
    assert_eq!(with_b.balance().await, 50, "charged to the account, to the last credit");
    assert_eq!(with_b.results(&id).await.len() as u64, ADDRESSES);
    app.finish().await;
}

/// Nothing that happens to a key changes a task.
async fn suspended_meanwhile(size: Size) {
    let setup = Setup::new(size).latency("100ms").concurrency(50);
    let app = setup.env("LISTMILL_BATCH_SIZE", "50").start().await;
    let a = app.customer(2_000).await;
    let with_b = app.client(&app.create_key(&a.account).await.secret);
    let id = a.client.submit(&lists::people(1_000)).await.id;
    a.client.wait_until(&id, "ten percent", LIMIT, |task| task.processed_at_least(10)).await;
    app.suspend(&a.key, "Abuse").await;
    a.client.get(&format!("/v1/tasks/{id}")).await.expect(403);
    assert_eq!(with_b.wait_for(&id, "completed", LIMIT).await.credits.charged, 1_000);
    app.finish().await;
}

/// `?tasks=cancel`, and only it, takes the tasks along, and only those of that key.
async fn cancelled_only_on_request(size: Size) {
    let setup = Setup::new(size).latency("100ms").concurrency(50);
    let app = setup.env("LISTMILL_BATCH_SIZE", "50").start().await;
    let a = app.customer(5_000).await;
    let b = app.create_key(&a.account).await;
    let with_b = app.client(&b.secret);
    let of_a = a.client.submit(&lists::people(2_000)).await.id;
    let of_b = with_b.submit(&lists::people(500)).await.id;
    let path = format!("/v1/keys/{}/disable?tasks=cancel", a.key.id);
    let reply = with_b.post_empty(&path).await;
    assert!(matches!(reply.status, 200 | 204), "{reply}");
    let cancelled = with_b.task(&of_a).await;
    assert_eq!((cancelled.status.as_str(), cancelled.credits.held), ("cancelled", 0));
    assert_eq!(with_b.wait_for(&of_b, "completed", LIMIT).await.credits.charged, 500);
    assert_eq!(with_b.balance().await, 4_500 - cancelled.credits.charged);
    app.finish().await;
}

async fn request_past_the_gate_runs_to_its_end(size: Size) {
    let app = Setup::new(size).start().await;
    let a = app.customer(5).await;
    let with_b = app.client(&app.create_key(&a.account).await.secret);
    let slow = json!({ "email": "slow@example.com" });
    let revoke = async {
        // The verdict takes two seconds; half a second is past the gate and long before it.
        tokio::time::sleep(Duration::from_millis(500)).await;
        with_b.delete(&format!("/v1/keys/{}", a.key.id)).await
    };
    let (checked, revoked) = tokio::join!(a.client.post("/v1/verifications", &slow), revoke);
    assert!(matches!(revoked.status, 200 | 204), "{revoked}");
    assert_eq!(checked.expect(200).json()["status"], "deliverable");
    a.client.post("/v1/verifications", &slow).await.expect(401);
    assert_eq!(with_b.balance().await, 4, "and is charged, once");
    app.finish().await;
}

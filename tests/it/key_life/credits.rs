//! A key's own limit of credits.

use std::time::Duration;

use futures::future::join_all;
use listmill_tests::client::try_send;
use listmill_tests::poll::eventually;
use listmill_tests::{Setup, Size, for_each_size, lists, sql};
use reqwest::Method;
use serde_json::{Value, json};

use super::{make, patch, refusal};

for_each_size!(are_granted_exactly, are_reserved_for_a_list_and_given_back, are_counted_by_key,);

/// Of the last 40 credits of a key exactly 40 are granted to 200 callers at once.
async fn are_granted_exactly(size: Size) {
    const LEFT: usize = 40;
    let app = Setup::new(size.with(3, 1)).start().await;
    let owner = app.customer(1_000).await;
    let key = make(&app, &owner.client, &json!({ "credit_limit": { "limit": LEFT } })).await;
    let client = app.client(&key.secret);
    // An unknown verdict costs nothing, so it takes nothing of the limit.
    client.post("/v1/verifications", &json!({ "email": "unknown@example.com" })).await.expect(200);
    let verify = |n: usize| {
        let client = client.clone();
        async move {
            let body = json!({ "email": format!("person{n}@example.com") });
            client.post("/v1/verifications", &body).await
        }
    };
    let replies = join_all((0..200).map(verify)).await;
    let granted = replies.iter().filter(|reply| reply.status == 200).count();
    for reply in replies.iter().filter(|reply| reply.status != 200) {
        assert_eq!(reply.status, 403, "{reply}");
        assert_eq!(reply.json()["error"], "Usage limit exceeded", "{reply}");
    }
    assert_eq!(granted, LEFT);
    let shown = owner.client.get(&key.path("")).await.expect(200).json();
    assert_eq!(shown["credit_limit"]["used"], LEFT);
    assert_eq!(shown["credits_used"], LEFT);
    // From now on the gate says it, and only where credits would be spent.
    let used_up =
        refusal("Usage limit exceeded", "This API key has used up its own limit of 40 credits");
    verify(0).await.expect_body(403, &used_up);
    client
        .post("/v1/tasks", &json!({ "emails": ["a@example.com"] }))
        .await
        .expect_body(403, &used_up);
    client.get("/v1/tasks").await.expect(200);
    // More are given, and one is granted.
    let more = json!({ "credit_limit": { "limit": LEFT + 1 } });
    patch(&owner.client, &key.path(""), &more).await.expect(200);
    verify(0).await.expect(200);
    verify(1).await.expect(403);
    app.reconcile().await;
    app.finish().await;
}

async fn are_reserved_for_a_list_and_given_back(size: Size) {
    let app = Setup::new(size).latency("200ms").concurrency(2).start().await;
    let owner = app.customer(1_000).await;
    let key = make(&app, &owner.client, &json!({ "credit_limit": { "limit": 50 } })).await;
    let client = app.client(&key.secret);
    let too_long =
        client.post("/v1/tasks", &json!({ "emails": lists::people(51) })).await.expect(403);
    assert_eq!(too_long.expect_problem()["error"], "Usage limit exceeded");
    assert!(client.tasks().await.is_empty(), "nothing of it is left");
    let task = client.submit(&lists::people(45)).await.id;
    let used = || async {
        let shown = owner.client.get(&key.path("")).await.expect(200).json();
        shown["credit_limit"]["used"].as_i64().expect("used")
    };
    assert_eq!(used().await, 45, "what it may come to");
    client.post("/v1/tasks", &json!({ "emails": lists::people(6) })).await.expect(403);
    // A running task is never stopped by its key's limit; cancelled, it gives back what it did not charge.
    patch(&owner.client, &key.path(""), &json!({ "credit_limit": { "limit": 45 } }))
        .await
        .expect(200);
    let path = format!("/v1/tasks/{task}/cancel");
    let settlement: Value = owner.client.post_empty(&path).await.expect(200).json();
    let charged = settlement["settlement"]["charged"].as_i64().expect("charged");
    assert!(charged < 45);
    eventually("the rest is given back", Duration::from_secs(30), || async {
        (used().await == charged).then_some(())
    })
    .await;
    let rest = (45 - charged) as usize;
    client.submit(&lists::people(rest)).await;
    client.post("/v1/tasks", &json!({ "emails": ["one@example.com"] })).await.expect(403);
    app.finish().await;
}

async fn are_counted_by_key(size: Size) {
    let app = Setup::new(size).start().await;
    let owner = app.customer(1_000).await;
    let (one, two) =
        (make(&app, &owner.client, &json!({})).await, make(&app, &owner.client, &json!({})).await);
    let client = app.client(&one.secret);
    client.post("/v1/verifications", &json!({ "email": "ada@example.com" })).await.expect(200);
    client.post("/v1/verifications", &json!({ "email": "unknown@example.com" })).await.expect(200);
    let task = client.submit(&lists::people(30)).await.id;
    client.wait_completed(&task).await;
    let used = |id: String| {
        let client = owner.client.clone();
        async move {
            let list = client.get("/v1/keys").await.expect(200).json();
            let keys = list["data"].as_array().expect("data").clone();
            let key = keys.into_iter().find(|key| key["id"] == id.as_str()).expect("listed");
            key["credits_used"].as_i64().expect("credits_used")
        }
    };
    // Before and after the sweeper has counted the task.
    for _ in 0..2 {
        assert_eq!(used(one.id.clone()).await, 31);
        assert_eq!(used(two.id.clone()).await, 0);
        tokio::time::sleep(Duration::from_secs(6)).await;
    }
    app.finish().await;
}

/// A process that is killed in the middle loses none of a key's last credits, and grants none twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn survive_a_killed_process() {
    const LIMIT: i64 = 200;
    let mut app = Setup::new(Size::Scaled { apis: 3, workers: 1 }).latency("50ms").start().await;
    let owner = app.customer(1_000).await;
    let key = make(&app, &owner.client, &json!({ "credit_limit": { "limit": LIMIT } })).await;
    let asking: Vec<_> = (0..30)
        .map(|caller| {
            let client = app.client_of(caller % 3, &key.secret);
            tokio::spawn(async move {
                let mut granted = 0;
                for n in 0.. {
                    let body = json!({ "email": format!("person{caller}-{n}@example.com") });
                    let request = client.request(Method::POST, "/v1/verifications").json(&body);
                    match try_send(request).await.map(|reply| reply.status) {
                        Ok(200) => granted += 1,
                        Ok(403) => break,
                        // It is being killed, or comes up.
                        Ok(503) | Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                        Ok(status) => panic!("{status}"),
                    }
                }
                granted
            })
        })
        .collect();
    for api in [1, 2] {
        tokio::time::sleep(Duration::from_millis(200)).await;
        app.apis[api].process.kill9();
        app.apis[api].process.start_again();
    }
    let mut told = 0;
    for one in asking {
        told += one.await.expect("it ends");
    }
    // What a killed process had taken and not charged comes back after five minutes, which are over now. It is
    // granted to whoever asks next.
    let url = app.database_url();
    sql::execute(&url, "UPDATE checks SET due_at = created_at WHERE held = 1").await;
    let client = app.client_of(0, &key.secret);
    eventually("every credit is spent", Duration::from_secs(180), || async {
        let body = json!({ "email": "late@example.com" });
        while client.post("/v1/verifications", &body).await.status == 200 {}
        let shown = owner.client.get(&key.path("")).await.expect(200).json();
        (shown["credits_used"] == LIMIT && shown["credit_limit"]["used"] == LIMIT).then_some(())
    })
    .await;
    assert!(told <= LIMIT, "{told} were told of {LIMIT}");
    let charged = owner.granted - owner.client.balance().await;
    assert_eq!(charged as i64, LIMIT);
    app.finish().await;
}

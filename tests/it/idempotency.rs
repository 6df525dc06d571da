//! `Idempotency-Key`: one answer and one task, however often it is asked.

use futures::future::join_all;
use listmill_tests::client::send;
use listmill_tests::{Client, Reply, Setup, Size, for_each_size};
use reqwest::Method;
use serde_json::{Value, json};

for_each_size!(same_key_same_answer, same_key_at_once);

async fn submit(client: &Client, key: &str, body: &Value) -> Reply {
    let request = client.request(Method::POST, "/v1/tasks").header("idempotency-key", key);
    send(request.json(body)).await
}

async fn same_key_same_answer(size: Size) {
    let app = Setup::new(size).start().await;
    let customer = app.customer(100).await;
    let client = &customer.client;
    let body = json!({ "name": "once", "emails": ["person1@example.com"] });
    let first = submit(client, "march", &body).await.expect(201);
    let id = first.json()["id"].as_str().expect("id").to_owned();
    client.wait_completed(&id).await;
    let second = submit(client, "march", &body).await.expect(201);
    assert_eq!(second.json(), first.json(), "the first answer again");
    assert_eq!(second.header("location"), first.header("location"));
    let other = json!({ "name": "once", "emails": ["person2@example.com"] });
    submit(client, "march", &other).await.expect(409).expect_problem();
    assert_eq!(client.tasks().await.len(), 1);
    assert_eq!(client.balance().await, 99);
    // Keys of one account's requests mean nothing to another account.
    let stranger = app.customer(100).await;
    let theirs = submit(&stranger.client, "march", &other).await.expect(201);
    let theirs = theirs.json()["id"].as_str().expect("id").to_owned();
    assert_ne!(theirs, id);
    stranger.client.wait_completed(&theirs).await;
    app.finish().await;
}

async fn same_key_at_once(size: Size) {
    let app = Setup::new(size).start().await;
    let client = app.customer(100).await.client;
    let body = json!({ "emails": ["person1@example.com"] });
    let replies = join_all((0..8).map(|_| submit(&client, "burst", &body))).await;
    // One that meets the first still at work may be told so.
    assert!(replies.iter().all(|reply| matches!(reply.status, 201 | 409)), "{replies:#?}");
    assert!(replies.iter().any(|reply| reply.status == 201));
    let tasks = client.tasks().await;
    assert_eq!(tasks.len(), 1, "{tasks:?}");
    let id = tasks[0]["id"].as_str().expect("id");
    client.wait_completed(id).await;
    let again = submit(&client, "burst", &body).await.expect(201);
    assert_eq!(again.json()["id"], id);
    assert_eq!(client.balance().await, 99);
    app.finish().await;
}

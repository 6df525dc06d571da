//! The end of a key, with its receipt.

use std::time::Duration;

use listmill_tests::poll::eventually;
use listmill_tests::{Setup, Size, for_each_size, lists};
use reqwest::Method;
use serde_json::{Value, json};

use super::make;

for_each_size!(has_a_receipt, of_several_at_once, takes_uploads_along);

async fn has_a_receipt(size: Size) {
    let app = Setup::new(size).latency("50ms").concurrency(2).start().await;
    let owner = app.customer(1_000).await;
    let key = make(&app, &owner.client, &json!({ "label": "leaks" })).await;
    let client = app.client(&key.secret);
    let live = owner.client.get(&key.path("/receipt")).await.expect(200).json();
    assert_eq!((&live["effective_at"], &live["status"]), (&Value::Null, &json!("active")));
    let task = client.submit(&lists::people(200)).await.id;
    let child = make(&app, &client, &json!({ "label": "child" })).await;
    let reply = owner.client.delete(&key.path("?tasks=keep")).await.expect(200);
    let receipt = reply.json();
    assert_eq!(receipt["key"], key.id.as_str());
    assert_eq!(receipt["status"], "deleted");
    assert!(receipt["effective_at"].is_string(), "{reply}");
    assert_eq!(receipt["tasks"][0]["id"], task.as_str());
    assert_eq!(receipt["cancelled_tasks"], json!([]));
    assert_eq!(
        receipt["made_keys"],
        json!([{ "id": child.id, "label": "child", "status": "active" }]),
    );
    // It can be asked for later, though the key is gone.
    let later = owner.client.get(&key.path("/receipt")).await.expect(200).json();
    assert_eq!(later["effective_at"], receipt["effective_at"]);
    owner.client.get(&key.path("")).await.expect(404);
    app.client(&child.secret).get("/v1/tasks").await.expect(200);
    owner.client.delete(&key.path("?tasks=maybe")).await.expect(400).expect_problem();
    let stranger = app.customer(0).await.client;
    stranger.get(&key.path("/receipt")).await.expect(404).expect_problem();
    // Disabled and enabled again: the receipt says the last time.
    owner.client.post_empty(&child.path("/disable")).await.expect(200);
    owner.client.post_empty(&child.path("/enable")).await.expect(200);
    let on = owner.client.get(&child.path("/receipt")).await.expect(200).json();
    assert_eq!(on["effective_at"], Value::Null);
    owner.client.post_empty(&format!("/v1/tasks/{task}/cancel")).await.expect(200);
    app.finish().await;
}

async fn of_several_at_once(size: Size) {
    let app = Setup::new(size).latency("50ms").concurrency(2).start().await;
    let owner = app.customer(1_000).await;
    let mut staging = Vec::new();
    for _ in 0..3 {
        staging.push(make(&app, &owner.client, &json!({ "stage": "staging" })).await);
    }
    let other =
        make(&app, &owner.client, &json!({ "stage": "production", "external_id": "c1" })).await;
    let task = app.client(&staging[0].secret).submit(&lists::people(100)).await.id;
    let end = |by: Value, how: &'static str, tasks: &'static str| {
        let body = json!({ "by": by, "how": how, "tasks": tasks });
        let client = owner.client.clone();
        async move { client.post("/v1/keys/end", &body).await }
    };
    let reply = end(json!({ "stage": "staging" }), "disable", "cancel").await.expect(200);
    let receipts = reply.json()["keys"].as_array().expect("keys").clone();
    assert_eq!(receipts.len(), 3, "{reply}");
    assert!(receipts.iter().all(|one| one["status"] == "disabled"), "{reply}");
    let cancelled: Vec<&Value> = receipts
        .iter()
        .flat_map(|one| one["cancelled_tasks"].as_array().expect("a list"))
        .collect();
    assert_eq!(cancelled, [&json!(task)]);
    assert_eq!(owner.client.task(&task).await.status, "cancelled");
    for key in &staging {
        app.client(&key.secret).get("/v1/tasks").await.expect(403);
    }
    app.client(&other.secret).get("/v1/tasks").await.expect(200);
    let reply = end(json!({ "external_id": "c1" }), "delete", "keep").await.expect(200);
    assert_eq!(reply.json()["keys"][0]["key"], other.id.as_str());
    app.client(&other.secret).get("/v1/tasks").await.expect(401);
    // Another account's are out of reach, and nothing is ended by mistake.
    let stranger = app.customer(0).await;
    let body = json!({ "by": { "made_by": owner.key.id }, "how": "delete" });
    let none = stranger.client.post("/v1/keys/end", &body).await.expect(200).json();
    assert_eq!(none["keys"], json!([]));
    for body in [
        json!({ "by": {}, "how": "delete" }),
        json!({ "by": { "stage": "a", "external_id": "b" }, "how": "delete" }),
        json!({ "by": { "stage": "a" }, "how": "burn" }),
        json!({ "by": { "stage": "a" }, "how": "delete", "tasks": "maybe" }),
        json!({ "by": { "made_by": "x" }, "how": "delete" }),
        json!({ "how": "delete" }),
    ] {
        owner.client.post("/v1/keys/end", &body).await.expect(400).expect_problem();
    }
    owner.client.get("/v1/tasks").await.expect(200);
    app.finish().await;
}

/// With `tasks=cancel` a list that is being received is given up, too.
async fn takes_uploads_along(size: Size) {
    let app = Setup::new(size).start().await;
    let owner = app.customer(1_000).await;
    let key = make(&app, &owner.client, &json!({})).await;
    let client = app.client(&key.secret);
    let (sender, receiver) = tokio::sync::mpsc::channel::<std::io::Result<Vec<u8>>>(8);
    let body = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let uploading =
        tokio::spawn(async move { client.post_stream("/v1/tasks", "text/plain", body).await });
    let line = |n: usize| Ok(format!("person{n}@example.com\n").into_bytes());
    for n in 0..20 {
        sender.send(line(n)).await.expect("it is read");
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    owner.client.post_empty(&key.path("/disable?tasks=cancel")).await.expect(200);
    // What comes after it changes nothing.
    for n in 20..40 {
        let _ = sender.send(line(n)).await;
    }
    drop(sender);
    let reply = uploading.await.expect("it ends");
    assert!(matches!(reply.status, 400..=499), "{reply}");
    assert!(owner.client.tasks().await.is_empty());
    app.finish().await;
}

/// The receipt says how many requests with the key are under way, on whichever server, and they run to their end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_what_is_in_flight_on_every_server() {
    let setup = Setup::new(Size::Scaled { apis: 2, workers: 1 });
    // Tasks that do not end while this lasts.
    let app = setup.latency("300s").start().await;
    let owner = app.customer(1_000).await;
    let key = make(&app, &owner.client, &json!({})).await;
    let receipt = |which: usize| {
        let (client, path) = (app.client_of(which, &owner.key.secret), key.path("/receipt"));
        async move { client.get(&path).await.expect(200).json()["in_flight"].clone() }
    };
    let upload = |which: usize| {
        let client = app.client_of(which, &key.secret);
        let (sender, receiver) = tokio::sync::mpsc::channel::<std::io::Result<Vec<u8>>>(8);
        let body = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let uploading =
            tokio::spawn(async move { client.post_stream("/v1/tasks", "text/plain", body).await });
        (sender, uploading)
    };
    assert_eq!(receipt(0).await, 0);
    let uploads = [upload(0), upload(1), upload(1)];
    for (sender, _) in &uploads {
        sender.send(Ok(b"ada@example.com\n".to_vec())).await.expect("it is read");
    }
    for which in 0..2 {
        eventually("all are seen", Duration::from_secs(30), || async {
            (receipt(which).await == 3).then_some(())
        })
        .await;
    }
    // A stream of events is a request, too, for as long as it lasts.
    let task = owner.client.submit(&lists::people(1)).await.id;
    let client = app.client_of(0, &key.secret);
    let watching = client.request(Method::GET, &format!("/v1/tasks/{task}/events")).send().await;
    let watching = watching.expect("an answer");
    assert_eq!(watching.status(), 200);
    let ended = owner.client.post_empty(&key.path("/disable")).await.expect(200).json();
    assert_eq!(ended["in_flight"], 4, "{ended}");
    let shut = app.client(&key.secret).get("/v1/tasks").await;
    assert_eq!(shut.status, 403, "{shut}");
    drop(watching);
    for (sender, uploading) in uploads {
        drop(sender);
        uploading.await.expect("it ends").expect(201);
    }
    eventually("all are over", Duration::from_secs(30), || async {
        (receipt(1).await == 0).then_some(())
    })
    .await;
    // The one that asks does not count.
    let own = make(&app, &owner.client, &json!({})).await;
    let last = app.client(&own.secret).delete(&own.path("")).await.expect(200).json();
    assert_eq!(last["in_flight"], 0, "{last}");
    app.finish().await;
}

/// A server that does not answer, or no Redis to ask through: the number is not known, and the key ends all the
/// same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn does_not_wait_for_a_server_that_is_frozen() {
    let mut app = Setup::new(Size::Scaled { apis: 2, workers: 1 }).start().await;
    let owner = app.customer(1_000).await;
    let client = app.client_of(0, &owner.key.secret);
    let made = [make(&app, &client, &json!({})).await, make(&app, &client, &json!({})).await];
    app.apis[1].process.stop();
    let ended = client.post_empty(&made[0].path("/disable")).await.expect(200).json();
    assert_eq!(ended["in_flight"], Value::Null, "{ended}");
    app.apis[1].process.cont();
    app.redis().stop();
    let ended = client.delete(&made[1].path("")).await.expect(200).json();
    assert_eq!(ended["in_flight"], Value::Null, "{ended}");
    for key in &made {
        assert!(matches!(app.client(&key.secret).get("/v1/tasks").await.status, 401 | 403));
    }
    app.redis().start_again().await;
    eventually("they are counted again", Duration::from_secs(60), || async {
        let receipt = client.get(&made[0].path("/receipt")).await.expect(200).json();
        (receipt["in_flight"] == 0).then_some(())
    })
    .await;
    app.finish().await;
}

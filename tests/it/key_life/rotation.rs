//! A new secret in the place of an old one.

use futures::future::join_all;
use listmill_tests::{Setup, Size, for_each_size, lists};
use serde_json::json;

use super::{made, make, refusal};

for_each_size!(keeps_everything_but_the_secret, is_made_once, cannot_outlive_the_old_end);

async fn keeps_everything_but_the_secret(size: Size) {
    let app = Setup::new(size).latency("20ms").start().await;
    let owner = app.customer(1_000).await;
    let set = json!({
        "label": "shop", "note": "n", "stage": "staging", "external_id": "c1", "rate_limit": 700,
        "scopes": ["verify", "tasks:write", "tasks:read"], "credit_limit": { "limit": 10 },
        "meta": { "a": 1 },
    });
    let old = make(&app, &owner.client, &set).await;
    let client = app.client(&old.secret);
    let task = client.submit(&lists::people(5)).await.id;
    let reply = owner.client.post(&old.path("/rotate"), &json!({ "grace_seconds": 3_600 })).await;
    let new = made(&app, &reply.expect(201));
    assert_ne!(new.secret, old.secret);
    assert_eq!(new.answer["old"]["id"], old.id.as_str());
    let shown = owner.client.get(&new.path("")).await.expect(200).json();
    for (field, value) in set.as_object().expect("fields") {
        match field.as_str() {
            "credit_limit" => {
                assert_eq!(shown[field], json!({ "limit": 10, "used": 5, "refill": null }))
            }
            _ => assert_eq!(&shown[field], value, "{field}"),
        }
    }
    // Both open, and spend from one limit; the list of the old one goes on.
    let other = app.client(&new.secret);
    for (n, client) in [&client, &other, &client, &other, &other].into_iter().enumerate() {
        let body = json!({ "email": format!("p{n}@example.com") });
        client.post("/v1/verifications", &body).await.expect(200);
    }
    for client in [&client, &other] {
        client.post("/v1/verifications", &json!({ "email": "p@example.com" })).await.expect(403);
    }
    other.wait_completed(&task).await;
    // Cut now.
    owner.client.post_empty(&old.path("/disable")).await.expect(200);
    client.get("/v1/tasks").await.expect(403);
    other.get("/v1/tasks").await.expect(200);
    // Without grace the old one ends at once.
    let reply = owner.client.post_empty(&new.path("/rotate")).await.expect(201);
    let newest = made(&app, &reply);
    let expired = refusal("Invalid or inactive API key", "This API key has expired");
    for _ in 0..2 {
        other.get("/v1/tasks").await.expect_body(401, &expired);
        app.client(&newest.secret).get("/v1/tasks").await.expect(200);
    }
    app.finish().await;
}

async fn is_made_once(size: Size) {
    let app = Setup::new(size).start().await;
    let owner = app.customer(10).await;
    let old = make(&app, &owner.client, &json!({})).await;
    // Of many at once one is made.
    let (path, grace) = (old.path("/rotate"), json!({ "grace_seconds": 60 }));
    let all = join_all((0..8).map(|_| owner.client.post(&path, &grace))).await;
    let done: Vec<_> = all.iter().filter(|reply| reply.status == 201).collect();
    assert_eq!(done.len(), 1);
    let new = made(&app, done[0]);
    for reply in all.iter().filter(|reply| reply.status != 201) {
        assert_eq!(reply.status, 409, "{reply}");
        assert!(reply.text().contains(&new.id), "it says which one to rotate: {reply}");
    }
    // Sent again with its Idempotency-Key, the same secret is told.
    let again = || async {
        let request = owner.client.request(reqwest::Method::POST, &new.path("/rotate"));
        listmill_tests::client::send(request.header("idempotency-key", "once").json(&json!({})))
            .await
    };
    let (first, second) = (again().await.expect(201), again().await.expect(201));
    assert_eq!(first.json(), second.json());
    let newest = made(&app, &first);
    app.client(&newest.secret).get("/v1/tasks").await.expect(200);
    // A key that is off is not turned into one that is on.
    owner.client.post_empty(&newest.path("/disable")).await.expect(200);
    owner.client.post_empty(&newest.path("/rotate")).await.expect(409).expect_problem();
    let too_long = json!({ "grace_seconds": 100 * 86_400 });
    owner.client.post(&newest.path("/rotate"), &too_long).await.expect(400).expect_problem();
    let stranger = app.customer(0).await.client;
    stranger.post_empty(&newest.path("/rotate")).await.expect(404);
    app.finish().await;
}

async fn cannot_outlive_the_old_end(size: Size) {
    let app = Setup::new(size).start().await;
    let owner = app.customer(10).await;
    let soon = {
        let reply = owner.client.get("/v1/tasks").await.expect(200);
        listmill_tests::clock::seconds_later(reply.header("date").expect("Date"), 60)
    };
    let old = make(&app, &owner.client, &json!({ "expires_at": soon })).await;
    let reply = owner.client.post(&old.path("/rotate"), &json!({ "grace_seconds": 86_400 })).await;
    let new = made(&app, &reply.expect(201));
    let of = |path: String| {
        let client = owner.client.clone();
        async move { client.get(&path).await.expect(200).json()["expires_at"].clone() }
    };
    assert_eq!(of(old.path("")).await, old.answer["expires_at"], "not later than before");
    assert_eq!(of(new.path("")).await, old.answer["expires_at"], "nor does the new one");
    app.finish().await;
}

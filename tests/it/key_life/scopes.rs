//! What a key may do, for every route and every scope.

use std::collections::BTreeMap;

use listmill_tests::client::send;
use listmill_tests::{Setup, Size, for_each_size, lists};
use reqwest::Method;
use serde_json::json;

use super::{make, patch, refusal};

for_each_size!(open_their_routes_and_no_others, of_ones_own_tasks, hold_from_the_next_request_on);

/// What stands in no table of the product: a few by hand.
const KNOWN: &[(&str, &str, &str)] = &[
    ("post", "/v1/tasks", "tasks:write"),
    ("get", "/v1/tasks/{id}/results", "tasks:read"),
    ("post", "/v1/tasks/{id}/cancel", "tasks:cancel"),
    ("delete", "/v1/tasks/{id}", "tasks:write"),
    ("post", "/v1/verifications", "verify"),
    ("post", "/api/verify-bulk", "tasks:write"),
    ("get", "/v1/keys", "keys:read"),
    ("post", "/v1/keys/{id}/rotate", "keys:write"),
    ("patch", "/v1/keys/{id}", "keys:write"),
    ("get", "/v1/ledger", "account:read"),
    ("get", "/v1/account/credits", "account:read"),
];

const SCOPES: &[&str] = &[
    "verify",
    "tasks:write",
    "tasks:read",
    "tasks:cancel",
    "tasks:own",
    "keys:read",
    "keys:write",
    "account:read",
    "webhooks:read",
    "webhooks:write",
    "*",
];

async fn open_their_routes_and_no_others(size: Size) {
    let app = Setup::new(size).start().await;
    let owner = app.customer(100).await;
    let document = app.anonymous().get("/openapi.json").await.expect(200).json();
    let mut needs = BTreeMap::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            if !(path.starts_with("/v1/") || path.starts_with("/api/")) {
                continue;
            }
            let scope = operation["security"][0]["bearer"][0].as_str();
            needs.insert((method.clone(), path.clone()), scope.map(str::to_owned));
        }
    }
    for (method, path, scope) in KNOWN {
        let need = needs.get(&((*method).to_owned(), (*path).to_owned()));
        assert_eq!(need, Some(&Some((*scope).to_owned())), "{method} {path}");
    }
    for scope in SCOPES {
        let key = make(&app, &owner.client, &json!({ "scopes": [scope] })).await;
        let client = app.client(&key.secret);
        for ((method, path), need) in &needs {
            // Nobody's ids: who gets past the gate is told that there is no such thing.
            let path = path.replace("{id}", "nobody").replace("{task_id}", "nobody");
            let path = path.replace("{seq}", "0");
            let method: Method = method.to_uppercase().parse().expect("a method");
            let reply = send(client.request(method.clone(), &path)).await;
            let Some(need) = need else { continue };
            let opens =
                *scope == "*" || scope == need || (*scope == "tasks:own" && need == "tasks:read");
            if opens {
                assert_ne!(reply.status, 403, "{scope} {method} {path}: {reply}");
            } else {
                let reason = format!("This API key lacks the scope {need}");
                reply.expect_body(403, &refusal("Insufficient permissions", reason));
            }
        }
    }
    app.finish().await;
}

async fn of_ones_own_tasks(size: Size) {
    let app = Setup::new(size).start().await;
    let owner = app.customer(100).await;
    let scopes = json!({ "scopes": ["tasks:own", "tasks:write", "tasks:cancel"] });
    let own = make(&app, &owner.client, &scopes).await;
    let client = app.client(&own.secret);
    let theirs = owner.client.submit(&lists::people(3)).await.id;
    let mine = client.submit(&lists::people(2)).await.id;
    owner.client.wait_completed(&theirs).await;
    client.wait_completed(&mine).await;
    let listed = client.tasks().await;
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0]["id"], mine.as_str());
    assert_eq!(client.results(&mine).await.len(), 2);
    for rest in ["", "/results", "/results?format=csv", "/results/0", "/events"] {
        client.get(&format!("/v1/tasks/{theirs}{rest}")).await.expect(404).expect_problem();
    }
    client.get(&format!("/api/get-results/{theirs}")).await.expect(404);
    for verb in ["cancel", "pause", "resume"] {
        client.post_empty(&format!("/v1/tasks/{theirs}/{verb}")).await.expect(404);
    }
    client.delete(&format!("/v1/tasks/{theirs}")).await.expect(404);
    assert_eq!(owner.client.tasks().await.len(), 2, "others see all");
    // What it shares a limit of credits with is not its own.
    let limited = json!({ "scopes": ["*"], "credit_limit": { "limit": 50 } });
    let limited = make(&app, &owner.client, &limited).await;
    let limited_client = app.client(&limited.secret);
    let of_limited = limited_client.submit(&lists::people(1)).await.id;
    let narrow = json!({ "scopes": ["tasks:own", "tasks:write"] });
    let child = make(&app, &limited_client, &narrow).await;
    let child = app.client(&child.secret);
    child.get(&format!("/v1/tasks/{of_limited}")).await.expect(404);
    assert!(child.tasks().await.is_empty());
    owner.client.wait_completed(&of_limited).await;
    // A new secret for it sees what the old one submitted.
    let rotated = owner.client.post(&own.path("/rotate"), &json!({})).await.expect(201);
    let rotated = super::made(&app, &rotated);
    assert_eq!(app.client(&rotated.secret).results(&mine).await.len(), 2);
    app.client(&rotated.secret).get(&format!("/v1/tasks/{theirs}")).await.expect(404);
    app.finish().await;
}

async fn hold_from_the_next_request_on(size: Size) {
    let app = Setup::new(size).start().await;
    let owner = app.customer(100).await;
    let key = make(&app, &owner.client, &json!({ "scopes": ["tasks:read"] })).await;
    let client = app.client(&key.secret);
    for _ in 0..5 {
        patch(&owner.client, &key.path(""), &json!({ "scopes": ["account:read"] }))
            .await
            .expect(200);
        for _ in 0..2 {
            client.get("/v1/tasks").await.expect(403);
            client.get("/v1/ledger").await.expect(200);
        }
        patch(&owner.client, &key.path(""), &json!({ "scopes": ["tasks:read"] })).await.expect(200);
        for _ in 0..2 {
            client.get("/v1/tasks").await.expect(200);
            client.get("/v1/ledger").await.expect(403);
        }
    }
    app.finish().await;
}

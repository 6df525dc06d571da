//! What a key may do, for every route and every scope.

use std::collections::BTreeMap;
use std::time::Duration;

use listmill_tests::client::send;
use listmill_tests::{Client, Deployment, Setup, Size, Task, for_each_size, lists};
use reqwest::Method;
use serde_json::{Value, json};

use super::{make, patch, refusal};

for_each_size!(
    open_their_routes_and_no_others,
    of_a_test_key_reach_nothing_live,
    of_ones_own_tasks,
    hold_from_the_next_request_on,
);

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

/// Method and path of every operation, and the scope that it needs.
async fn operations(app: &Deployment) -> BTreeMap<(String, String), Option<String>> {
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
    needs
}

async fn open_their_routes_and_no_others(size: Size) {
    let app = Setup::new(size).start().await;
    let owner = app.customer(100).await;
    let needs = operations(&app).await;
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

/// What is live of an account, as its owner sees it: tasks, keys, balance and ledger.
async fn live_things(client: &Client) -> Value {
    let keys = client.all_pages("/v1/keys?environment=live", 100).await;
    // When they were used last may change.
    let key = |key: &Value| json!([key["id"], key["status"], key["label"], key["replaced_by"]]);
    json!({
        "tasks": client.all_pages("/v1/tasks?environment=live", 100).await,
        "keys": keys.iter().map(key).collect::<Vec<_>>(),
        "balance": client.balance().await,
        "ledger": client.ledger("kind=email").await,
    })
}

/// A test key that may do everything, on every route: live tasks and keys are not there for it.
async fn of_a_test_key_reach_nothing_live(size: Size) {
    let app = Setup::new(size).latency("50ms").concurrency(2).start().await;
    let owner = app.customer(1_000).await;
    let live = make(&app, &owner.client, &json!({ "label": "live" })).await;
    let test = make(&app, &owner.client, &json!({ "environment": "test", "scopes": ["*"] })).await;
    let client = app.client(&test.secret);
    let done = owner.client.submit(&lists::people(3)).await.id;
    owner.client.wait_completed(&done).await;
    let stands = owner.client.submit(&lists::people(400)).await.id;
    owner.client.pause(&stands).await.expect(200);
    let limit = Duration::from_secs(60);
    let still = |task: &Task| task.status == "paused" && task.credits.held == 0;
    owner.client.wait_until(&stands, "it stands still", limit, still).await;
    let before = live_things(&owner.client).await;
    let mut refused = 0;
    for (method, path) in operations(&app).await.into_keys() {
        let verb: Method = method.to_uppercase().parse().expect("a method");
        let ids = match path.starts_with("/v1/keys/") {
            true => [&live.id, &owner.key.id],
            false => [&done, &stands],
        };
        let named = path.contains("{id}") || path.contains("{task_id}");
        for id in ids {
            let at = path.replace("{id}", id).replace("{task_id}", id).replace("{seq}", "0");
            for query in ["", "?tasks=cancel&format=csv&environment=live"] {
                let request = client.request(verb.clone(), &format!("{at}{query}"));
                let request = match verb {
                    Method::GET | Method::DELETE => request,
                    _ => request.json(&json!({ "environment": "live", "email": "a@example.com" })),
                };
                let reply = send(request).await;
                match named {
                    true => assert_eq!(reply.status, 404, "{reply}"),
                    // What stands behind a proxy is not made for tests.
                    false if path == "/v1/gate" => assert_eq!(reply.status, 403, "{reply}"),
                    false => assert!(!matches!(reply.status, 401 | 403 | 500..), "{reply}"),
                }
                refused += usize::from(named);
            }
        }
    }
    assert!(refused > 40, "{refused} of them name something");
    // Lists hold what is its own, and what it makes or ends is.
    for path in ["/v1/tasks", "/v1/tasks?environment=live", "/v1/keys?environment=live"] {
        assert!(client.all_pages(path, 100).await.is_empty(), "{path}");
    }
    let keys = client.all_pages("/v1/keys", 100).await;
    assert_eq!(keys.len(), 1);
    assert_eq!(keys[0]["id"], test.id.as_str());
    let other = make(&app, &owner.client, &json!({ "environment": "test" })).await;
    let end = json!({ "by": { "environment": "live" }, "how": "delete", "tasks": "cancel" });
    let ended = client.post("/v1/keys/end", &end).await.expect(200).json();
    assert_eq!(ended["keys"], json!([]));
    let own = client.submit(&lists::people(2)).await.id;
    client.wait_completed(&own).await;
    assert_eq!(client.tasks().await.len(), 1);
    // All that the owner's key has made: two live keys and the test keys. It ends the latter, itself included.
    let end = json!({ "by": { "made_by": owner.key.id }, "how": "disable" });
    let ended = client.post("/v1/keys/end", &end).await.expect(200).json();
    let ended: Vec<&str> = ended["keys"]
        .as_array()
        .expect("keys")
        .iter()
        .map(|key| key["key"].as_str().expect("key"))
        .collect();
    assert_eq!(ended, [test.id.as_str(), other.id.as_str()]);
    client.get("/v1/tasks").await.expect(403);
    assert_eq!(live_things(&owner.client).await, before);
    app.client(&live.secret).get("/v1/tasks").await.expect(200);
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

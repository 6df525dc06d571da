//! The gate: checks 1 to 6, their order, their exact bodies, on every family of routes.

use std::time::Duration;

use listmill_tests::client::send;
use listmill_tests::{Client, Deployment, Key, Setup, Size, eventually, for_each_size};
use reqwest::Method;
use serde_json::{Value, json};

for_each_size!(
    refuses_malformed_keys,
    judges_the_state_of_a_key,
    earlier_checks_win,
    blocked_addresses,
    expired_keys,
);

const ROUTES: &[(Method, &str)] = &[
    (Method::POST, "/api/verify-single"),
    (Method::POST, "/api/verify-bulk"),
    (Method::GET, "/api/get-results/task_x"),
    (Method::GET, "/v1/tasks"),
    (Method::POST, "/v1/tasks"),
    (Method::GET, "/v1/tasks/task_x"),
    (Method::GET, "/v1/tasks/task_x/results"),
    (Method::POST, "/v1/tasks/task_x/cancel"),
    (Method::POST, "/v1/verifications"),
    (Method::GET, "/v1/account/credits"),
    (Method::GET, "/v1/ledger"),
    (Method::GET, "/v1/audit"),
    (Method::GET, "/v1/keys"),
];

fn malformed() -> Value {
    json!({
        "error": "Missing or invalid Authorization header. Use: Authorization: Bearer VEC...",
    })
}

fn inactive() -> Value {
    json!({ "error": "Invalid or inactive API key" })
}

fn suspended(reason: &str) -> Value {
    json!({ "error": "API key is suspended", "reason": reason })
}

const DISABLED: &str = "This API key has been suspended";

/// Every route, with the key in either header, gives exactly this.
async fn expect_everywhere(app: &Deployment, secret: &str, status: u16, body: &Value) {
    let anonymous = app.anonymous();
    for (method, path) in ROUTES {
        for (name, value) in
            [("authorization", format!("Bearer {secret}")), ("x-api-key", secret.to_owned())]
        {
            let request = anonymous.request(method.clone(), path).header(name, value);
            let request = if *method == Method::POST { request.json(&json!({})) } else { request };
            send(request).await.expect_body(status, body);
        }
    }
}

async fn expect_passes(app: &Deployment, secret: &str) {
    app.client(secret).get("/v1/account/credits").await.expect(200);
    let header = app.anonymous().request(Method::GET, "/v1/tasks").header("x-api-key", secret);
    send(header).await.expect(200);
}

async fn refuses_malformed_keys(size: Size) {
    let app = Setup::new(size).start().await;
    let anonymous = app.anonymous();
    for (method, path) in ROUTES {
        send(anonymous.request(method.clone(), path)).await.expect_body(401, &malformed());
    }
    let headers = [
        ("authorization", "Bearer"),
        ("authorization", "Bearer "),
        ("authorization", "Bearer nonsense"),
        ("authorization", "Bearer VEC"),
        ("authorization", "Bearer VECtooshort"),
        ("authorization", "Basic dXNlcjpwYXNz"),
        ("x-api-key", ""),
        ("x-api-key", "sk_live_1234567890123456789012345678901234"),
    ];
    for (name, value) in headers {
        let request = anonymous.request(Method::GET, "/v1/tasks").header(name, value);
        send(request).await.expect_body(401, &malformed());
    }
    // The last character is a checksum: a slip of the pen is no key at all.
    let secret = app.customer(0).await.key.secret;
    let mut slip = secret.clone();
    let last = slip.pop().expect("not empty");
    slip.push(if last == 'A' { 'B' } else { 'A' });
    let reply = app.client(&slip).get("/v1/tasks").await.expect(401);
    assert!([malformed(), inactive()].contains(&reply.json()), "{reply}");
    let lower = app.client(&secret.to_lowercase()).get("/v1/tasks").await.expect(401);
    assert!([malformed(), inactive()].contains(&lower.json()), "{lower}");
    app.finish().await;
}

async fn judges_the_state_of_a_key(size: Size) {
    let app = Setup::new(size).start().await;
    let owner = app.customer(10).await;
    let victim = app.create_key(&owner.account).await;
    expect_passes(&app, &victim.secret).await;

    change(&owner.client, &victim, "disable").await;
    expect_everywhere(&app, &victim.secret, 403, &suspended(DISABLED)).await;
    change(&owner.client, &victim, "enable").await;
    expect_passes(&app, &victim.secret).await;

    app.suspend(&victim, "Card chargeback").await;
    expect_everywhere(&app, &victim.secret, 403, &suspended("Card chargeback")).await;
    app.unsuspend(&victim).await;
    expect_passes(&app, &victim.secret).await;

    delete(&owner.client, &victim).await;
    expect_everywhere(&app, &victim.secret, 401, &inactive()).await;
    expect_passes(&app, &owner.key.secret).await;
    app.finish().await;
}

async fn change(client: &Client, key: &Key, verb: &str) {
    let reply = client.post_empty(&format!("/v1/keys/{}/{verb}", key.id)).await;
    assert!(matches!(reply.status, 200 | 204), "{reply}");
}

async fn delete(client: &Client, key: &Key) {
    let reply = client.delete(&format!("/v1/keys/{}", key.id)).await;
    assert!(matches!(reply.status, 200 | 204), "{reply}");
}

async fn earlier_checks_win(size: Size) {
    let app = Setup::new(size).start().await;
    let owner = app.customer(10).await;
    let victim = app.create_key(&owner.account).await;
    app.suspend(&victim, "Abuse").await;
    change(&owner.client, &victim, "disable").await;
    // 4 before 5: disabled by its owner, then suspended by us.
    expect_everywhere(&app, &victim.secret, 403, &suspended(DISABLED)).await;
    change(&owner.client, &victim, "enable").await;
    expect_everywhere(&app, &victim.secret, 403, &suspended("Abuse")).await;
    // 3 before 5.
    delete(&owner.client, &victim).await;
    expect_everywhere(&app, &victim.secret, 401, &inactive()).await;
    // Another account's key is out of reach.
    let stranger = app.customer(10).await;
    for reply in [
        stranger.client.post_empty(&format!("/v1/keys/{}/disable", owner.key.id)).await,
        stranger.client.delete(&format!("/v1/keys/{}", owner.key.id)).await,
    ] {
        reply.expect(404).expect_problem();
    }
    expect_passes(&app, &owner.key.secret).await;
    app.finish().await;
}

async fn blocked_addresses(size: Size) {
    let app = Setup::new(size).start().await;
    let owner = app.customer(10).await;
    let denied = json!({ "error": "Access denied" });
    app.block_ip("203.0.113.0/24").await;
    expect_passes(&app, &owner.key.secret).await;
    app.block_ip("127.0.0.0/8").await;
    // 1 before 2 and everything else: a good key, a bad one, none at all.
    expect_everywhere(&app, &owner.key.secret, 403, &denied).await;
    expect_everywhere(&app, "nonsense", 403, &denied).await;
    app.anonymous().get("/v1/tasks").await.expect_body(403, &denied);
    // What a caller says about itself opens nothing.
    let request = app.client(&owner.key.secret).request(Method::GET, "/v1/tasks");
    send(request.header("x-forwarded-for", "198.51.100.7")).await.expect_body(403, &denied);
    app.unblock_ip("127.0.0.0/8").await;
    expect_passes(&app, &owner.key.secret).await;
    app.finish().await;
}

async fn expired_keys(size: Size) {
    let app = Setup::new(size).start().await;
    let owner = app.customer(10).await;
    let key = expiring_key(&app, &owner.client).await;
    let client = app.client(&key.secret);
    let refused = eventually("the key expires", Duration::from_secs(15), || async {
        let reply = client.get("/v1/tasks").await;
        (reply.status != 200).then_some(reply)
    })
    .await;
    let expired = json!({
        "error": "Invalid or inactive API key",
        "reason": "This API key has expired",
    });
    refused.expect_body(401, &expired);
    expect_everywhere(&app, &key.secret, 401, &expired).await;
    // 4 before 6.
    change(&owner.client, &key, "disable").await;
    expect_everywhere(&app, &key.secret, 403, &suspended(DISABLED)).await;
    app.finish().await;
}

/// A key for the next few seconds. The time comes from the server's own `Date`, so that the
/// test needs no calendar.
async fn expiring_key(app: &Deployment, client: &Client) -> Key {
    let existing = client.get("/v1/account/credits").await.expect(200);
    let date = existing.header("date").expect("Date");
    let expires_at = listmill_tests::clock::seconds_later(date, 3);
    let body = json!({ "label": "soon gone", "expires_at": expires_at });
    let reply = client.post("/v1/keys", &body).await.expect(201);
    let answer = reply.json();
    let text = |field: &str| answer[field].as_str().expect(field).to_owned();
    let key = Key { id: text("id"), secret: text("key") };
    app.keep_secret(&key.secret);
    key
}

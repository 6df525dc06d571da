//! A secret leaves no trace: not in the database, its answers kept for a retry, the audit log or the request
//! log, not in metrics; logs and arguments are looked through at the end of every test. Nor does the hash of one
//! without the pepper.

use std::process::Command;
use std::time::Duration;

use listmill_tests::client::send;
use listmill_tests::postgres::binary;
use listmill_tests::{Deployment, Setup, Size, eventually, for_each_size};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{made, make};

for_each_size!(stay_nowhere);

/// Everything that the database holds, as text and as it is stored.
fn dump(app: &Deployment) -> Vec<u8> {
    let url = app.database_url();
    let Some(path) = url.strip_prefix("sqlite://") else {
        let dumped = Command::new(binary("pg_dump")).arg(&url).output().expect("pg_dump runs");
        assert!(dumped.status.success(), "{}", String::from_utf8_lossy(&dumped.stderr));
        return dumped.stdout;
    };
    let wal = std::fs::read(format!("{path}-wal")).unwrap_or_default();
    [std::fs::read(path).expect("the database"), wal].concat()
}

fn holds(bytes: &[u8], what: &[u8]) -> bool {
    memchr::memmem::find(bytes, what).is_some()
}

async fn stay_nowhere(size: Size) {
    let app = Setup::new(size).start().await;
    let owner = app.customer(10).await;
    let mut secrets = vec![owner.key.secret.clone()];
    // Made twice with one Idempotency-Key, rotated, handed over by a link.
    let body = json!({ "label": "one" });
    for _ in 0..2 {
        let request = owner.client.request(Method::POST, "/v1/keys");
        let reply = send(request.header("idempotency-key", "traces").json(&body)).await;
        secrets.push(made(&app, &reply.expect(201)).secret);
    }
    let old = make(&app, &owner.client, &json!({})).await;
    let rotated = owner.client.post(&old.path("/rotate"), &json!({ "grace_seconds": 60 })).await;
    let link = owner.client.post("/v1/keys", &json!({ "label": "x", "link": true })).await;
    let link = link.expect(201).json()["link"].as_str().expect("a link").to_owned();
    let opened = app.anonymous().request(Method::POST, &link).header("accept", "application/json");
    let opened = send(opened).await.expect(200).json();
    let rotated = made(&app, &rotated.expect(201));
    secrets.extend([old.secret.clone(), rotated.secret]);
    secrets.push(opened["key"].as_str().expect("a key").to_owned());
    app.keep_secret(secrets.last().expect("a key"));
    // For other programs.
    let root = ["admin", "root-key", "create", "--account", owner.account.as_str(), "--json"];
    let root = app.cli(&root).await.expect_success().json();
    let root = root["key"].as_str().expect("key").to_owned();
    app.keep_secret(&root);
    let service = app.client(&root);
    let ask = async |method: &str, body: Value| {
        service.post(&format!("/v2/{method}"), &body).await.expect(200).json()["data"].clone()
    };
    let api = ask("apis.createApi", json!({ "name": "traces" })).await;
    let key = ask("keys.createKey", json!({ "apiId": api["apiId"] })).await;
    let of_api = key["key"].as_str().expect("key").to_owned();
    app.keep_secret(&of_api);
    assert_eq!(ask("keys.verifyKey", json!({ "key": of_api })).await["valid"], true);
    secrets.extend([root, of_api]);
    // Where they have no business: in a query, a path, a label, a name that is refused, a report.
    let stray = &old.secret;
    for path in ["/v1/tasks?key=", "/v1/tasks/", "/nowhere/", "/v1/ledger?task="] {
        send(owner.client.request(Method::GET, &format!("{path}{stray}"))).await;
    }
    owner.client.post("/v1/tasks", &json!({ "emails": stray })).await.expect(400);
    let twice = app.anonymous().request(Method::GET, "/v1/tasks").bearer_auth(format!("{stray}x"));
    send(twice).await.expect(401);
    let url = format!("https://example.com/?{stray}");
    let report = json!({ "key": stray, "url": url, "source": stray });
    app.anonymous().post("/v1/keys/report", &report).await.expect(200);
    app.client(stray).get("/v1/tasks").await.expect(403);
    eventually("the request log has the last of them", Duration::from_secs(30), || async {
        let page = owner.client.get("/v1/requests?outcome=suspended").await.expect(200).json();
        page["data"].as_array().is_some_and(|rows| !rows.is_empty()).then_some(())
    })
    .await;
    let dump = dump(&app);
    assert!(holds(&dump, b"traces"), "the api's name is there, so this looks at the right place");
    let mut metrics = Vec::new();
    for node in app.apis.iter().chain(&app.workers) {
        metrics.extend(node.probe("/metrics").await.expect("metrics").1.into_bytes());
    }
    for secret in &secrets {
        let hash = Sha256::digest(secret);
        let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        for (what, place) in [("the database", &dump), ("metrics", &metrics)] {
            assert!(!holds(place, secret.as_bytes()), "a key stands in {what}");
            assert!(!holds(place, hex.as_bytes()) && !holds(place, &hash), "its hash in {what}");
        }
    }
    app.finish().await;
}

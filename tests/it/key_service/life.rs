//! Ends and reroll: a change holds for every verification that starts after it was acknowledged.

use std::time::Duration;

use listmill_tests::{Setup, Size, for_each_size, sql};
use serde_json::{Value, json};

use super::{Service, call, expect_error, expect_fault, made, post};

for_each_size!(changes_hold_at_once, rerolls, are_deleted, belong_to_their_account);

/// Each process is asked right after another one has changed the key.
async fn changes_hold_at_once(size: Size) {
    let app = Setup::new(size.with(3, 1)).start().await;
    let service = Service::start(&app).await;
    let key = service.make(&app, &json!({})).await;
    let clients: Vec<_> =
        (0..app.apis.len()).map(|n| app.client_of(n, &service.root_key)).collect();
    for round in 0..20 {
        let enabled = round % 2 == 1;
        let body = json!({ "keyId": key.id, "enabled": enabled });
        call(&clients[round % clients.len()], "keys.updateKey", &body).await;
        for client in &clients {
            let verified = call(client, "keys.verifyKey", &json!({ "key": key.secret })).await;
            assert_eq!(verified["valid"], enabled, "{verified}");
        }
    }
    app.finish().await;
}

async fn rerolls(size: Size) {
    let app = Setup::new(size).start().await;
    let service = Service::start(&app).await;
    let fields = json!({
        "prefix": "my_prod", "byteLength": 32, "name": "one", "externalId": "user_1", "meta": { "a": 1 },
        "permissions": ["a.b"], "credits": { "remaining": 9 }, "expires": 4_102_444_800_000_i64,
    });
    let old = service.make(&app, &fields).await;
    let before = service.get(&old).await;
    let body = json!({ "keyId": old.id, "expiration": 5_000 });
    let new = made(&app, &service.call("keys.rerollKey", &body).await);
    assert!(new.id != old.id && new.secret != old.secret);
    assert!(new.secret.starts_with("my_prod_") && new.secret.len() == old.secret.len());
    let after = service.get(&new).await;
    for field in ["name", "meta", "identity", "permissions", "credits", "expires", "enabled"] {
        assert_eq!(after[field], before[field], "{field}");
    }
    assert_eq!(service.code(&new).await, "VALID");
    assert_eq!(service.code(&old).await, "VALID", "for a while");
    tokio::time::sleep(Duration::from_millis(5_100)).await;
    assert_eq!(service.code(&old).await, "EXPIRED");
    assert_eq!(service.code(&new).await, "VALID");
    // At once.
    let body = json!({ "keyId": new.id, "expiration": 0 });
    let newest = made(&app, &service.call("keys.rerollKey", &body).await);
    assert_eq!(service.code(&new).await, "EXPIRED");
    assert_eq!(service.code(&newest).await, "VALID");
    // Twice is a mistake, and so is one that is over.
    expect_error(&post(&service.root, "keys.rerollKey", &body).await, 409);
    for expiration in [json!(-1), Value::Null, json!("1h")] {
        let body = json!({ "keyId": newest.id, "expiration": expiration });
        expect_fault(&post(&service.root, "keys.rerollKey", &body).await, "body.expiration");
    }
    // The end of the old key is never later than it was.
    let end = service.get(&newest).await["createdAt"].as_i64().expect("createdAt") + 600_000;
    service.update(&newest, &json!({ "expires": end })).await;
    let body = json!({ "keyId": newest.id, "expiration": 86_400_000 });
    let last = made(&app, &service.call("keys.rerollKey", &body).await);
    for key in [&newest, &last] {
        assert_eq!(service.get(key).await["expires"], end);
    }
    app.finish().await;
}

async fn are_deleted(size: Size) {
    let app = Setup::new(size).start().await;
    let service = Service::start(&app).await;
    let fields = json!({ "name": "Ada Lovelace", "externalId": "ada", "meta": { "mail": "ada" }, "permissions": ["a"] });
    let (kept, erased) = (service.make(&app, &fields).await, service.make(&app, &fields).await);
    assert_eq!(service.call("keys.deleteKey", &json!({ "keyId": kept.id })).await, json!({}));
    let body = json!({ "keyId": erased.id, "permanent": true });
    assert_eq!(service.call("keys.deleteKey", &body).await, json!({}));
    for key in [&kept, &erased] {
        assert_eq!(service.code(key).await, "NOT_FOUND");
        for (method, body) in [
            ("keys.getKey", json!({ "keyId": key.id })),
            ("keys.updateKey", json!({ "keyId": key.id, "enabled": true })),
            ("keys.deleteKey", json!({ "keyId": key.id })),
            ("keys.rerollKey", json!({ "keyId": key.id, "expiration": 0 })),
            ("keys.whoami", json!({ "key": key.secret })),
        ] {
            expect_error(&post(&service.root, method, &body).await, 404);
        }
    }
    let named =
        "SELECT COUNT(*) FROM api_keys WHERE label = 'Ada Lovelace' AND external_id = 'ada'";
    assert_eq!(sql::number(&app.database_url(), named).await, 1, "one is erased, one is kept");
    app.finish().await;
}

async fn belong_to_their_account(size: Size) {
    let app = Setup::new(size).start().await;
    let (service, other) = (Service::start(&app).await, Service::start(&app).await);
    let key = service.make(&app, &json!({ "name": "mine" })).await;
    for (method, body) in [
        ("keys.getKey", json!({ "keyId": key.id })),
        ("keys.updateKey", json!({ "keyId": key.id, "enabled": false })),
        ("keys.updateCredits", json!({ "keyId": key.id, "operation": "set", "value": 0 })),
        ("keys.deleteKey", json!({ "keyId": key.id })),
        ("keys.rerollKey", json!({ "keyId": key.id, "expiration": 0 })),
        ("keys.whoami", json!({ "key": key.secret })),
        ("apis.getApi", json!({ "apiId": service.api })),
        ("apis.deleteApi", json!({ "apiId": service.api })),
    ] {
        expect_error(&post(&other.root, method, &body).await, 404);
    }
    assert_eq!(service.code(&key).await, "VALID");
    app.finish().await;
}

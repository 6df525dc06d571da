//! What is said of a key: as it was made, what a change keeps and what it clears.

use listmill_tests::reply::assert_fields;
use listmill_tests::{Setup, Size, for_each_size};
use serde_json::{Value, json};

use super::{Service, expect_fault, made, post};

for_each_size!(are_shown, are_kept_and_cleared, have_bounds, list_by_pages);

async fn are_shown(size: Size) {
    let app = Setup::new(size).start().await;
    let service = Service::start(&app).await;
    let bare = service.make(&app, &json!({})).await;
    assert_eq!(bare.secret.len(), 27, "128 bits and a checksum");
    let shown = service.get(&bare).await;
    assert_fields(&shown, &["keyId", "start", "enabled", "createdAt"]);
    assert_eq!((&shown["keyId"], &shown["enabled"]), (&json!(bare.id), &json!(true)));
    assert_eq!(shown["start"], bare.secret[..8]);
    assert!(shown["createdAt"].as_i64().is_some_and(|at| at > 1_700_000_000_000));
    let refill = json!({ "interval": "monthly", "amount": 100, "refillDay": 15 });
    let limits = json!([{ "name": "requests", "limit": 10, "duration": 1_500, "autoApply": true }]);
    let full = service
        .make(&app, &json!({
            "prefix": "prod_eu", "byteLength": 32, "name": "Ada's key", "externalId": "user.1-a",
            "meta": { "a": { "b": 1 } }, "roles": ["admin"], "permissions": ["a.b", "c.*", "a.b"],
            "expires": 4_102_444_800_000_i64, "credits": { "remaining": 50, "refill": refill },
            "ratelimits": limits, "enabled": false, "recoverable": false,
        }))
        .await;
    assert!(
        full.secret.starts_with("prod_eu_") && full.secret.len() == 8 + 53,
        "{}",
        full.secret.len()
    );
    let shown = service.get(&full).await;
    assert_fields(
        &shown,
        &[
            "keyId",
            "start",
            "enabled",
            "createdAt",
            "name",
            "meta",
            "expires",
            "permissions",
            "roles",
            "credits",
            "identity",
            "ratelimits",
        ],
    );
    assert_eq!(shown["start"], full.secret[..12]);
    assert_eq!((&shown["name"], &shown["enabled"]), (&json!("Ada's key"), &json!(false)));
    assert_eq!((&shown["meta"], &shown["roles"]), (&json!({ "a": { "b": 1 } }), &json!(["admin"])));
    assert_eq!(shown["permissions"], json!(["a.b", "c.*"]));
    assert_eq!(shown["credits"], json!({ "remaining": 50, "refill": refill }));
    let limit = &shown["ratelimits"][0];
    assert_fields(limit, &["id", "name", "limit", "duration", "autoApply"]);
    assert_eq!((&limit["duration"], &limit["autoApply"]), (&json!(1_500), &json!(true)));
    assert_eq!(service.call("keys.whoami", &json!({ "key": full.secret })).await, shown);
    assert_eq!(service.code(&full).await, "DISABLED");
    let api = service.call("apis.getApi", &json!({ "apiId": service.api })).await;
    assert_eq!(api, json!({ "id": service.api, "name": "payments" }));
    app.finish().await;
}

async fn are_kept_and_cleared(size: Size) {
    let app = Setup::new(size).start().await;
    let service = Service::start(&app).await;
    let key = service
        .make(&app, &json!({
            "name": "one", "externalId": "user_1", "meta": { "a": 1 }, "roles": ["admin"],
            "permissions": ["a.b"], "expires": 4_102_444_800_000_i64, "credits": { "remaining": 5 },
            "ratelimits": [{ "name": "requests", "limit": 10, "duration": 1_000 }],
        }))
        .await;
    let mut want = service.get(&key).await;
    let same = |got: &Value, want: &Value| {
        let mut got = got.clone();
        let updated = got.as_object_mut().unwrap().remove("updatedAt");
        assert!(updated.is_some_and(|at| at.as_i64().is_some()));
        assert_eq!(&got, want);
    };
    service.update(&key, &json!({})).await;
    same(&service.get(&key).await, &want);
    service.update(&key, &json!({ "name": "two" })).await;
    want["name"] = json!("two");
    same(&service.get(&key).await, &want);
    for (field, cleared, shown) in [
        ("name", Value::Null, "name"),
        ("externalId", Value::Null, "identity"),
        ("meta", Value::Null, "meta"),
        ("expires", Value::Null, "expires"),
        ("credits", Value::Null, "credits"),
        ("ratelimits", json!([]), "ratelimits"),
        ("roles", json!([]), "roles"),
        ("permissions", json!([]), "permissions"),
    ] {
        service.update(&key, &json!({ field: cleared })).await;
        want.as_object_mut().unwrap().remove(shown);
        same(&service.get(&key).await, &want);
    }
    service.update(&key, &json!({ "enabled": false, "permissions": ["x.y"] })).await;
    want["enabled"] = json!(false);
    want["permissions"] = json!(["x.y"]);
    same(&service.get(&key).await, &want);
    // One wrong field, and nothing is changed.
    let body = json!({ "keyId": key.id, "name": "three", "expires": -1 });
    expect_fault(&post(&service.root, "keys.updateKey", &body).await, "body.expires");
    same(&service.get(&key).await, &want);
    app.finish().await;
}

async fn have_bounds(size: Size) {
    let app = Setup::new(size).start().await;
    let service = Service::start(&app).await;
    let limit = |limits: usize| -> Vec<Value> {
        (0..limits)
            .map(|n| json!({ "name": format!("limit {n}"), "limit": 1, "duration": 1_000 }))
            .collect()
    };
    for (fields, at) in [
        (json!({ "prefix": "a-b" }), "prefix"),
        (json!({ "prefix": "a".repeat(17) }), "prefix"),
        (json!({ "byteLength": 15 }), "byteLength"),
        (json!({ "byteLength": 256 }), "byteLength"),
        (json!({ "name": "" }), "name"),
        (json!({ "externalId": "a b" }), "externalId"),
        (json!({ "meta": { "a": "x".repeat(10_240) } }), "meta"),
        (json!({ "meta": [1] }), "meta"),
        (json!({ "permissions": ["a b"] }), "permissions"),
        (json!({ "roles": vec!["role"; 101] }), "roles"),
        (json!({ "ratelimits": limit(51) }), "ratelimits"),
        (json!({ "ratelimits": [{ "name": "abc", "limit": 1, "duration": 500 }] }), "ratelimits"),
        (json!({ "credits": { "remaining": -1 } }), "credits.remaining"),
        (
            json!({ "credits": { "remaining": 1, "refill": { "interval": "hourly", "amount": 1 } } }),
            "credits.refill.interval",
        ),
        (
            json!({ "credits": { "remaining": 1, "refill": { "interval": "daily", "amount": 0 } } }),
            "credits.refill.amount",
        ),
        (
            json!({ "credits": { "remaining": null, "refill": { "interval": "daily", "amount": 1 } } }),
            "credits.refill",
        ),
        (json!({ "recoverable": true }), "recoverable"),
        (json!({ "allow": ["nonsense"] }), "allow"),
        (json!({ "enabled": "yes" }), "enabled"),
        (json!({ "nonsense": 1 }), "nonsense"),
    ] {
        let mut body = fields.clone();
        body["apiId"] = json!(service.api);
        let reply = post(&service.root, "keys.createKey", &body).await;
        expect_fault(&reply, &format!("body.{at}"));
    }
    let listed = service.call("apis.listKeys", &json!({ "apiId": service.api })).await;
    assert_eq!(listed, json!([]), "nothing was made");
    // The longest secret is verified like any other.
    let long = service.make(&app, &json!({ "byteLength": 255, "prefix": "a".repeat(16) })).await;
    assert_eq!(service.code(&long).await, "VALID");
    app.finish().await;
}

async fn list_by_pages(size: Size) {
    let app = Setup::new(size).start().await;
    let service = Service::start(&app).await;
    let mut ids = Vec::new();
    for n in 0..7 {
        ids.push(service.make(&app, &json!({ "externalId": format!("user_{}", n % 2) })).await.id);
    }
    service.call("keys.deleteKey", &json!({ "keyId": ids.remove(3) })).await;
    let mut seen = Vec::new();
    let mut body =
        json!({ "apiId": service.api, "limit": 4, "decrypt": false, "revalidateKeysCache": true });
    loop {
        let reply = post(&service.root, "apis.listKeys", &body).await.expect(200).json();
        let page = reply["data"].as_array().expect("data");
        seen.extend(page.iter().map(|key| key["keyId"].as_str().expect("keyId").to_owned()));
        if reply["pagination"] == json!({ "hasMore": false }) {
            break;
        }
        assert_fields(&reply["pagination"], &["hasMore", "cursor"]);
        body["cursor"] = reply["pagination"]["cursor"].clone();
    }
    assert_eq!(seen, ids);
    let mine = json!({ "apiId": service.api, "externalId": "user_1" });
    assert_eq!(service.call("apis.listKeys", &mine).await.as_array().unwrap().len(), 2);
    for (field, value) in [
        ("limit", json!(0)),
        ("limit", json!(101)),
        ("cursor", json!("x")),
        ("decrypt", json!(true)),
    ] {
        let body = json!({ "apiId": service.api, field: value });
        expect_fault(&post(&service.root, "apis.listKeys", &body).await, &format!("body.{field}"));
    }
    // Somebody else's api has no keys, as it is not there.
    let other = Service::start(&app).await;
    let reply = post(&other.root, "apis.listKeys", &json!({ "apiId": service.api })).await;
    super::expect_error(&reply, 404);
    let reply = post(&other.root, "keys.createKey", &json!({ "apiId": service.api })).await;
    super::expect_error(&reply, 404);
    let _ = made(&app, &other.call("keys.createKey", &json!({ "apiId": other.api })).await);
    app.finish().await;
}

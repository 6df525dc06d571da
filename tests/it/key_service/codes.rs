//! What a verification answers, and in which order it looks.

use listmill_tests::reply::assert_fields;
use listmill_tests::{Setup, Size, for_each_size};
use serde_json::json;

use super::{Service, code, expect_error, made, post, root_key};

for_each_size!(come_in_their_order, ask_for_permissions, know_only_their_own, open_nothing_of_ours);

async fn come_in_their_order(size: Size) {
    let app = Setup::new(size).start().await;
    let service = Service::start(&app).await;
    let soon = 4_102_444_800_000_i64;
    let key = service
        .make(&app, &json!({
            "name": "all of it", "externalId": "user_1", "meta": { "plan": "pro", "n": [1, null] },
            "roles": ["admin"], "permissions": ["documents.read"], "expires": soon,
            "credits": { "remaining": 3 },
            "ratelimits": [{ "name": "requests", "limit": 2, "duration": 600_000, "autoApply": true }],
        }))
        .await;
    let valid = service.verify(&key, &json!({ "permissions": "documents.read" })).await;
    assert_fields(
        &valid,
        &[
            "valid",
            "code",
            "keyId",
            "name",
            "meta",
            "expires",
            "credits",
            "enabled",
            "permissions",
            "roles",
            "identity",
            "ratelimits",
        ],
    );
    assert_eq!(code(&valid), "VALID");
    assert_eq!((&valid["keyId"], &valid["credits"]), (&json!(key.id), &json!(2)));
    assert_eq!(valid["meta"], json!({ "plan": "pro", "n": [1, null] }));
    assert_eq!((&valid["expires"], &valid["enabled"]), (&json!(soon), &json!(true)));
    assert_fields(&valid["identity"], &["id", "externalId"]);
    assert_eq!(valid["identity"]["externalId"], "user_1");
    let limit = &valid["ratelimits"][0];
    assert_fields(
        limit,
        &["id", "name", "limit", "duration", "reset", "remaining", "exceeded", "autoApply"],
    );
    assert_eq!((&limit["remaining"], &limit["exceeded"]), (&json!(1), &json!(false)));
    // The least that a valid key answers.
    let bare = service.make(&app, &json!({})).await;
    assert_fields(&service.verify(&bare, &json!({})).await, &["valid", "code", "keyId", "enabled"]);

    // Everything is wrong at once; one after the other is put right.
    service
        .update(&key, &json!({
            "enabled": false, "expires": 1, "allow": ["192.0.2.0/24"], "permissions": [],
            "credits": { "remaining": 0 },
            "ratelimits": [{ "name": "nothing", "limit": 1, "duration": 600_000, "autoApply": true }],
        }))
        .await;
    let ask = json!({
        "permissions": "documents.read", "ip": "203.0.113.5",
        "ratelimits": [{ "name": "nothing", "cost": 2 }],
    });
    let next = async |want: &str, fix: &serde_json::Value| {
        let verified = service.verify(&key, &ask).await;
        assert_eq!(code(&verified), want, "{verified}");
        assert_eq!(verified["keyId"], key.id.as_str());
        service.update(&key, fix).await;
    };
    next("DISABLED", &json!({ "enabled": true })).await;
    next("EXPIRED", &json!({ "expires": null })).await;
    next("FORBIDDEN", &json!({ "allow": ["192.0.2.0/24", "203.0.113.0/24"] })).await;
    next("INSUFFICIENT_PERMISSIONS", &json!({ "permissions": ["documents.*"] })).await;
    let ten = json!([{ "name": "nothing", "limit": 10, "duration": 600_000, "autoApply": true }]);
    next("RATE_LIMITED", &json!({ "ratelimits": ten })).await;
    next("USAGE_EXCEEDED", &json!({ "credits": { "remaining": 1 } })).await;
    next("VALID", &json!({})).await;
    next("USAGE_EXCEEDED", &json!({ "credits": null })).await;
    next("VALID", &json!({})).await;

    // An operator's suspension is told as DISABLED, and holds at once.
    let suspended = ["admin", "key", "suspend", &key.id, "--reason", "abuse"];
    app.cli(&suspended).await.expect_success();
    let verified = service.verify(&key, &ask).await;
    assert_eq!((code(&verified).as_str(), &verified["enabled"]), ("DISABLED", &json!(false)));
    app.cli(&["admin", "key", "unsuspend", &key.id]).await.expect_success();
    assert_eq!(service.code(&key).await, "FORBIDDEN", "the caller of verifyKey is on 127.0.0.1");

    service.call("keys.deleteKey", &json!({ "keyId": key.id })).await;
    let gone = service.verify(&key, &ask).await;
    assert_eq!(gone, json!({ "valid": false, "code": "NOT_FOUND" }));
    app.finish().await;
}

async fn ask_for_permissions(size: Size) {
    let app = Setup::new(size).start().await;
    let service = Service::start(&app).await;
    let key = service.make(&app, &json!({ "permissions": ["documents.read", "users.*"] })).await;
    for (question, want) in [
        ("documents.read", "VALID"),
        ("documents.write", "INSUFFICIENT_PERMISSIONS"),
        ("documents.read AND users.view", "VALID"),
        ("(documents.write OR documents.read) AND users.a.b", "VALID"),
        ("documents.write OR (documents.read AND billing)", "INSUFFICIENT_PERMISSIONS"),
        ("documents.*", "INSUFFICIENT_PERMISSIONS"),
    ] {
        let verified = service.verify(&key, &json!({ "permissions": question })).await;
        assert_eq!(code(&verified), want, "{question}");
    }
    for wrong in ["documents.read AND", "(a", "a b", &"(".repeat(500), &"a".repeat(1_001)] {
        let body = json!({ "key": key.secret, "permissions": wrong });
        super::expect_fault(
            &post(&service.root, "keys.verifyKey", &body).await,
            "body.permissions",
        );
    }
    app.finish().await;
}

async fn know_only_their_own(size: Size) {
    let app = Setup::new(size).start().await;
    let (service, other) = (Service::start(&app).await, Service::start(&app).await);
    let key = service.make(&app, &json!({ "credits": { "remaining": 5 } })).await;
    let nothing = json!({ "valid": false, "code": "NOT_FOUND" });
    assert_eq!(other.verify(&key, &json!({})).await, nothing);
    for unknown in ["prod_abc", "x", &"y".repeat(512), "ключ"] {
        let data = service.call("keys.verifyKey", &json!({ "key": unknown })).await;
        assert_eq!(data, nothing, "{unknown}");
    }
    // Of the same account, but not of the api that is asked about.
    let second = service.call("apis.createApi", &json!({ "name": "second" })).await;
    let second = second["apiId"].as_str().expect("apiId").to_owned();
    let asked = async |apis: serde_json::Value| {
        code(&service.verify(&key, &json!({ "keyspaces": apis })).await)
    };
    assert_eq!(asked(json!([second])).await, "NOT_FOUND");
    assert_eq!(asked(json!(["rubbish"])).await, "NOT_FOUND");
    assert_eq!(asked(json!([second, service.api])).await, "VALID");
    // Nor with a root key for the other api; one that may verify nothing at all is told so.
    let narrow = root_key(&app, &service.account, &[&format!("api.{second}.verify_key")]).await.1;
    let data =
        super::call(&app.client(&narrow), "keys.verifyKey", &json!({ "key": key.secret })).await;
    assert_eq!(data, nothing);
    let blind = root_key(&app, &service.account, &["api.*.create_key"]).await.1;
    let reply = post(&app.client(&blind), "keys.verifyKey", &json!({ "key": key.secret })).await;
    assert!(expect_error(&reply, 403)["detail"].as_str().unwrap().contains("verify_key"));
    // Only the one that was valid has cost anything.
    assert_eq!(service.get(&key).await["credits"]["remaining"], 4);
    // An api takes its keys with it.
    let body = json!({ "apiId": second });
    let there = made(&app, &service.call("keys.createKey", &body).await);
    assert_eq!(service.code(&there).await, "VALID");
    assert_eq!(service.call("apis.deleteApi", &body).await, json!({}));
    assert_eq!(service.code(&there).await, "NOT_FOUND");
    expect_error(&post(&service.root, "apis.getApi", &body).await, 404);
    expect_error(&post(&service.root, "keys.getKey", &json!({ "keyId": there.id })).await, 404);
    expect_error(&post(&service.root, "keys.whoami", &json!({ "key": there.secret })).await, 404);
    app.finish().await;
}

/// A key of an api is no key of our gate, and the other way round.
async fn open_nothing_of_ours(size: Size) {
    let app = Setup::new(size).start().await;
    let service = Service::start(&app).await;
    let key = service.make(&app, &json!({ "prefix": "VEC", "permissions": ["*"] })).await;
    for secret in [&key.secret, &service.root_key] {
        let client = app.client(secret);
        client.get("/v1/keys").await.expect(401);
        client.get("/v1/account/credits").await.expect(401);
        let reply = client.post("/api/verify-single", &json!({ "email": "ada@example.com" })).await;
        reply.expect(401);
    }
    let own = app.create_key(&service.account).await;
    let data = service.call("keys.verifyKey", &json!({ "key": own.secret })).await;
    assert_eq!(data, json!({ "valid": false, "code": "NOT_FOUND" }));
    for method in ["keys.getKey", "keys.deleteKey"] {
        expect_error(&post(&service.root, method, &json!({ "keyId": own.id })).await, 404);
    }
    expect_error(&post(&app.client(&own.secret), "keys.whoami", &json!({ "key": "x" })).await, 401);
    // Nor are they among the account's own.
    let client = app.client(&own.secret);
    let listed = client.get("/v1/keys").await.expect(200).json();
    let ids: Vec<&str> =
        listed["data"].as_array().unwrap().iter().map(|k| k["id"].as_str().unwrap()).collect();
    assert_eq!(ids, [own.id.as_str()]);
    client.get(&format!("/v1/keys/{}", key.id)).await.expect(404);
    client.post_empty(&format!("/v1/keys/{}/rotate", key.id)).await.expect(404);
    client.delete(&format!("/v1/keys/{}", key.id)).await.expect(404);
    assert_eq!(service.code(&key).await, "VALID");
    app.finish().await;
}

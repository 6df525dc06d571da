//! Errors in the shape of that API, whatever goes wrong.

use listmill_tests::{Setup, Size, for_each_size};
use reqwest::Method;
use serde_json::json;

use super::{Service, assert_meta, expect_error, expect_fault, post, raw};

for_each_size!(have_their_shape, say_what_is_not_offered);

async fn have_their_shape(size: Size) {
    let app = Setup::new(size).start().await;
    let service = Service::start(&app).await;
    let root = &service.root;
    let path = "/v2/keys.verifyKey";
    // Who calls.
    let anonymous = app.anonymous();
    expect_error(&anonymous.post(path, &json!({ "key": "x" })).await, 401);
    for wrong in ["root_nonsense", "VECabc", &"x".repeat(600)] {
        expect_error(&app.client(wrong).post(path, &json!({ "key": "x" })).await, 401);
    }
    // What is sent.
    for (body, at) in [
        ("", "body"),
        ("{", "body"),
        ("not json", "body"),
        ("{} {}", "body"),
        ("\"text\"", "body"),
        ("{}", "body"),
        ("{\"key\":1}", "body.key"),
        ("{\"key\":\"\"}", "body.key"),
        ("{\"key\":\"x\",\"nonsense\":1}", "body.nonsense"),
        ("{\"key\":\"x\",\"credits\":{\"cost\":1,\"more\":2}}", "body.credits.more"),
        (
            "{\"key\":\"x\",\"ratelimits\":[{\"name\":\"abc\"},{\"name\":2}]}",
            "body.ratelimits[1].name",
        ),
        ("{\"key\":\"x\",\"tags\":[\"\"]}", "body.tags"),
        ("{\"key\":\"x\",\"ip\":\"nowhere\"}", "body.ip"),
        ("{\"key\":\"x\",\"migrationId\":\"m\"}", "body.migrationId"),
    ] {
        expect_fault(&raw(root, Method::POST, path, "application/json", body).await, at);
    }
    expect_error(&raw(root, Method::POST, path, "text/plain", "{\"key\":\"x\"}").await, 415);
    let large = format!("{{\"key\":\"{}\"}}", "x".repeat(2 << 20));
    expect_error(
        &root.post_refused(path, &[("content-type", "application/json")], large.as_bytes()).await,
        413,
    );
    let wrong_method = raw(root, Method::GET, path, "application/json", "").await;
    expect_error(&wrong_method, 405);
    assert_eq!(wrong_method.header("allow"), Some("POST"));
    for unknown in ["/v2", "/v2/", "/v2/keys", "/v2/keys.fly", "/v2/a/b/c", "/v2/keys.verifyKey/"] {
        expect_error(&raw(root, Method::POST, unknown, "application/json", "{}").await, 404);
        expect_error(&anonymous.get(unknown).await, 404);
    }
    // What is named.
    for id in ["key_00000000000000000000000000000000", "nonsense", ""] {
        expect_error(&post(root, "keys.getKey", &json!({ "keyId": id })).await, 404);
    }
    expect_error(&post(root, "keys.createKey", &json!({ "apiId": "api_1" })).await, 404);
    expect_fault(
        &post(root, "keys.getKey", &json!({ "keyId": "x", "decrypt": true })).await,
        "body.decrypt",
    );
    expect_fault(&post(root, "apis.createApi", &json!({ "name": "" })).await, "body.name");
    let alive = anonymous.get("/v2/liveness").await.expect(200).json();
    assert_meta(&alive);
    assert_eq!(alive["data"], json!({ "message": "OK" }));
    app.finish().await;
}

async fn say_what_is_not_offered(size: Size) {
    let app = Setup::new(size).start().await;
    let service = Service::start(&app).await;
    for method in [
        "keys.addPermissions",
        "keys.setRoles",
        "keys.migrateKeys",
        "identities.createIdentity",
        "permissions.createRole",
        "ratelimit.limit",
        "ratelimit.multiLimit",
        "analytics.getVerifications",
        "portal.createSession",
        "rootKeys.createKey",
        "workspace.getUsage",
        "apps.createApp",
        "deployments.createDeployment",
        "projects.listProjects",
    ] {
        let error = expect_error(&post(&service.root, method, &json!({})).await, 501);
        assert!(error["detail"].as_str().unwrap().contains("not offer"), "{error}");
        expect_error(&post(&app.anonymous(), method, &json!({})).await, 401);
    }
    app.finish().await;
}

/// Of a scaled deployment whose database is away: 503, and nobody passes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_database_is_away() {
    let mut app = Setup::new(Size::Scaled { apis: 1, workers: 1 }).own_postgres().start().await;
    let service = Service::start(&app).await;
    let key = service.make(&app, &json!({})).await;
    app.postgres().stop_immediate().await;
    let reply = post(&service.root, "keys.verifyKey", &json!({ "key": key.secret })).await;
    expect_error(&reply, 503);
    assert!(reply.header("retry-after").is_some());
    app.postgres().start_again().await;
    app.wait_ready().await;
    assert_eq!(service.code(&key).await, "VALID");
    app.finish().await;
}

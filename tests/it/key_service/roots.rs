//! Root keys: what they may do, and their end.

use listmill_tests::reply::assert_fields;
use listmill_tests::{Setup, Size, for_each_size};
use serde_json::{Value, json};

use super::{Service, call, expect_error, post, root_key};

for_each_size!(may_do_what_they_are_given, end_at_once, have_a_rate_where_one_is_set);

async fn may_do_what_they_are_given(size: Size) {
    let app = Setup::new(size).start().await;
    let service = Service::start(&app).await;
    let key = service.make(&app, &json!({ "credits": { "remaining": 100 } })).await;
    let (api, id) = (service.api.as_str(), key.id.as_str());
    let calls: Vec<(&str, Value, &str)> = vec![
        ("apis.createApi", json!({ "name": "another" }), "create_api"),
        ("apis.getApi", json!({ "apiId": api }), "read_api"),
        ("keys.createKey", json!({ "apiId": api }), "create_key"),
        ("keys.getKey", json!({ "keyId": id }), "read_key"),
        ("keys.whoami", json!({ "key": key.secret }), "read_key"),
        ("keys.updateKey", json!({ "keyId": id, "name": "x" }), "update_key"),
        (
            "keys.updateCredits",
            json!({ "keyId": id, "operation": "increment", "value": 1 }),
            "update_key",
        ),
        ("keys.verifyKey", json!({ "key": key.secret }), "verify_key"),
        ("keys.rerollKey", json!({ "keyId": id, "expiration": 600_000 }), "create_key"),
        ("keys.deleteKey", json!({ "keyId": id }), "delete_key"),
        ("apis.deleteApi", json!({ "apiId": api }), "delete_api"),
    ];
    let nothing = app.client(&root_key(&app, &service.account, &["api.api_0.read_api"]).await.1);
    for (method, body, needs) in &calls {
        let other = if *needs == "read_key" { "update_key" } else { "read_key" };
        let wrong = root_key(&app, &service.account, &[&format!("api.*.{other}")]).await.1;
        for client in [app.client(&wrong), nothing.clone()] {
            let error = expect_error(&post(&client, method, body).await, 403);
            assert!(error["detail"].as_str().unwrap().contains(needs), "{method}: {error}");
        }
    }
    // Of one api only, or of all.
    for (method, body, needs) in &calls {
        let which = if *needs == "create_api" { "*" } else { api };
        let right = root_key(&app, &service.account, &[&format!("api.{which}.{needs}")]).await.1;
        call(&app.client(&right), method, body).await;
    }
    let list = json!({ "apiId": Service::start(&app).await.api });
    let half = root_key(&app, &service.account, &["api.*.read_key"]).await.1;
    expect_error(&post(&app.client(&half), "apis.listKeys", &list).await, 403);
    for wrong in ["nonsense", "api.*.fly", "ratelimit.*.limit"] {
        let args =
            ["admin", "root-key", "create", "--account", &service.account, "--permission", wrong];
        app.cli(&args).await.expect_failure();
    }
    app.finish().await;
}

async fn end_at_once(size: Size) {
    let app = Setup::new(size).start().await;
    let service = Service::start(&app).await;
    let (id, secret) = root_key(&app, &service.account, &["api.*.read_api"]).await;
    let clients: Vec<_> = (0..app.apis.len()).map(|n| app.client_of(n, &secret)).collect();
    let body = json!({ "apiId": service.api });
    for client in &clients {
        call(client, "apis.getApi", &body).await;
    }
    let list = async || {
        let args = ["admin", "root-key", "list", "--account", &service.account, "--json"];
        app.cli(&args).await.expect_success().json()["root_keys"].clone()
    };
    let listed = list().await;
    let mine =
        listed.as_array().unwrap().iter().find(|key| key["root_key_id"] == id.as_str()).unwrap();
    assert_fields(
        mine,
        &[
            "root_key_id",
            "account_id",
            "name",
            "start",
            "permissions",
            "created_at",
            "last_used_at",
        ],
    );
    assert_eq!(mine["start"], secret[..9], "{mine}");
    app.cli(&["admin", "root-key", "delete", &id]).await.expect_success();
    for client in &clients {
        expect_error(&post(client, "apis.getApi", &body).await, 401);
    }
    assert_eq!(list().await.as_array().unwrap().len(), 1);
    app.cli(&["admin", "root-key", "delete", &id]).await.expect_failure();
    // And a blocked network keeps everybody out.
    app.block_ip("127.0.0.1").await;
    expect_error(&post(&service.root, "apis.getApi", &body).await, 403);
    app.unblock_ip("127.0.0.1").await;
    service.call("apis.getApi", &body).await;
    app.finish().await;
}

async fn have_a_rate_where_one_is_set(size: Size) {
    let setup = Setup::new(size).env("LISTMILL_RATE_LIMITS", "on");
    let app = setup.env("LISTMILL_ROOT_RATE_LIMIT_PER_MINUTE", "5").start().await;
    let service = Service::start(&app).await;
    let body = json!({ "apiId": service.api });
    let mut refused = None;
    for _ in 0..12 {
        let reply = post(&service.root, "apis.getApi", &body).await;
        if reply.status == 429 {
            refused = Some(reply);
            break;
        }
        reply.expect(200);
    }
    let refused = refused.expect("refused in the end");
    expect_error(&refused, 429);
    let wait: u64 = refused.header("retry-after").expect("retry-after").parse().expect("seconds");
    assert!((1..=60).contains(&wait), "{wait}");
    let other = app.client(&root_key(&app, &service.account, &[]).await.1);
    call(&other, "apis.getApi", &body).await;
    app.finish().await;
}

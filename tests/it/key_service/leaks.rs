//! Reported keys of apis and root keys end at once, on every API process.

use listmill_shared::domain::id::Ids;
use listmill_shared::domain::key::Secret;
use listmill_tests::{Setup, Size, for_each_size};
use serde_json::{Value, json};

use super::{Service, call, code, expect_error, post, root_key};

for_each_size!(a_reported_key_of_an_api_is_disabled, a_reported_root_key_is_deleted);

const REPORT: &str = "/v1/keys/report";
const LEAKED: &str = "This key was reported as leaked";

async fn a_reported_key_of_an_api_is_disabled(size: Size) {
    let app = Setup::new(size).start().await;
    let service = Service::start(&app).await;
    let owner = app.client(&app.create_key(&service.account).await.secret);
    let bare = service.make(&app, &json!({ "name": "bare" })).await;
    let long = service.make(&app, &json!({ "prefix": "prod_eu", "byteLength": 64 })).await;
    let other = service.make(&app, &json!({ "prefix": "prod_eu" })).await;
    // The place holds the key as well, and must not bring it into the log.
    let url = format!("https://example.com/?key={}&k={0}\n", bare.secret);
    let report = json!({ "key": bare.secret, "url": url, "source": "a test" });
    app.anonymous()
        .post(REPORT, &report)
        .await
        .expect_body(200, &json!({ "reported": 1, "ended": 1 }));
    let github = json!([{ "token": long.secret, "type": "prod", "url": "", "source": "commit" }]);
    let reply = app.anonymous().post(REPORT, &github).await.expect(200);
    assert_eq!(reply.json()[0]["label"], "true_positive", "{reply}");
    assert!(!reply.text().contains(&long.secret), "{reply}");
    for key in [&bare, &long] {
        for api in 0..app.apis.len() {
            let client = app.client_of(api, &service.root_key);
            let verified = call(&client, "keys.verifyKey", &json!({ "key": key.secret })).await;
            assert_eq!(code(&verified), "DISABLED", "{verified}");
        }
        // Whoever manages it cannot bring it back without knowing why it ended.
        service.update(key, &json!({ "enabled": true })).await;
        assert_eq!(service.code(key).await, "DISABLED");
        let rows =
            owner.all_pages(&format!("/v1/audit?target={}&action=key.suspend", key.id), 10).await;
        assert_eq!(rows.len(), 1, "{rows:?}");
        let row = &rows[0];
        assert_eq!((&row["actor"], &row["ip"]), (&json!({ "system": true }), &json!("127.0.0.1")));
        assert!(row["request_id"].is_string(), "{row}");
        assert_eq!(row["after"]["suspended_reason"], LEAKED, "{row}");
    }
    assert_eq!(service.code(&other).await, "VALID");
    // An operator can; and a second report ends it again.
    app.cli(&["admin", "key", "unsuspend", &bare.id]).await.expect_success();
    assert_eq!(service.code(&bare).await, "VALID");
    app.anonymous().post(REPORT, &report).await.expect(200);
    assert_eq!(service.code(&bare).await, "DISABLED");
    // What is nobody's is answered alike, and so is what is deleted.
    service.call("keys.deleteKey", &json!({ "keyId": long.id })).await;
    let unknown = Secret::shaped("prod_eu", 64, &Ids::system());
    for key in [unknown.reveal(), &long.secret] {
        let reply = app.anonymous().post(REPORT, &json!({ "key": key })).await;
        reply.expect_body(200, &json!({ "reported": 1, "ended": 1 }));
    }
    let reply = app.anonymous().post(REPORT, &json!({ "key": "prod_eu_nothing" })).await;
    reply.expect_body(200, &json!({ "reported": 1, "ended": 0 }));
    let logged = app.apis.iter().any(|node| node.process.output().contains("reported as leaked"));
    assert!(logged, "an operator can see it");
    app.finish().await;
}

async fn a_reported_root_key_is_deleted(size: Size) {
    let app = Setup::new(size).start().await;
    let service = Service::start(&app).await;
    let owner = app.client(&app.create_key(&service.account).await.secret);
    let key = service.make(&app, &json!({})).await;
    let (id, leaked) = root_key(&app, &service.account, &[]).await;
    let url = format!("https://example.com/{leaked}");
    let report = json!({ "key": leaked, "url": url });
    for _ in 0..2 {
        let reply = app.anonymous().post(REPORT, &report).await;
        reply.expect_body(200, &json!({ "reported": 1, "ended": 1 }));
        for api in 0..app.apis.len() {
            let client = app.client_of(api, &leaked);
            let body = json!({ "apiId": service.api });
            expect_error(&post(&client, "apis.getApi", &body).await, 401);
        }
    }
    let rows = owner.all_pages(&format!("/v1/audit?target={id}"), 10).await;
    let actions: Vec<&Value> = rows.iter().map(|row| &row["action"]).collect();
    assert_eq!(actions, ["root_key.delete", "root_key.create"], "once");
    assert_eq!(rows[0]["actor"], json!({ "system": true }));
    assert_eq!(rows[0]["ip"], "127.0.0.1");
    assert_eq!(rows[0]["after"], json!({ "reason": LEAKED }));
    // The keys that it managed, and the other root key, are as they were.
    assert_eq!(service.code(&key).await, "VALID");
    app.finish().await;
}

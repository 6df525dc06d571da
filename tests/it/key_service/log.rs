//! The request log and the audit log of `/v2`: who called with which root key, and what was said of which key.

use std::collections::BTreeSet;
use std::time::Duration;

use listmill_tests::poll::eventually;
use listmill_tests::reply::assert_fields;
use listmill_tests::{Client, Setup, Size, for_each_size};
use serde_json::{Value, json};

use super::{Service, call, code, made, named, root_key};

for_each_size!(calls_are_decisions, verifications_are_uses, changes_say_from_where);

const SOON: Duration = Duration::from_secs(20);

/// The rows of requests under a name, once there are any.
async fn rows(client: &Client, name: &str) -> Vec<Value> {
    eventually(&format!("{name} in the log"), SOON, || async {
        let rows = client.all_pages("/v1/requests", 1_000).await;
        let rows: Vec<Value> = rows.into_iter().filter(|row| row["request_id"] == name).collect();
        (!rows.is_empty()).then_some(rows)
    })
    .await
}

/// Requests by outcome, over all periods of a page of usage that fit.
fn total(page: &Value, outcome: &str, fits: impl Fn(&Value) -> bool) -> i64 {
    let rows = page["data"].as_array().expect("data").iter().filter(|row| fits(row));
    rows.filter_map(|row| row["requests"][outcome].as_i64()).sum()
}

async fn calls_are_decisions(size: Size) {
    let app = Setup::new(size).env("LISTMILL_TRUSTED_PROXIES", "127.0.0.0/8").start().await;
    let service = Service::start(&app).await;
    let owner = app.client(&app.create_key(&service.account).await.secret);
    let key = service.make(&app, &json!({})).await;
    let (narrow_id, narrow) = root_key(&app, &service.account, &["api.*.read_api"]).await;
    let (gone_id, gone) = root_key(&app, &service.account, &[]).await;
    app.cli(&["admin", "root-key", "delete", &gone_id]).await.expect_success();
    let of_key = json!({ "keyId": key.id });
    let new = json!({ "apiId": service.api });

    let reply = named(&service.root, "keys.getKey", "accepted-1", &of_key).await.expect(200);
    assert_eq!(reply.json()["meta"]["requestId"], "accepted-1", "as in the header and the log");
    let quoted = "a\"b\\c";
    let reply = named(&service.root, "keys.getKey", quoted, &of_key).await.expect(200);
    assert_eq!(reply.json()["meta"]["requestId"], quoted);
    named(&service.root, "keys.getKey", "accepted-2", &json!({})).await.expect(400);
    named(&service.root, "identities.getIdentity", "accepted-3", &json!({})).await.expect(501);
    named(&app.client(&narrow), "keys.createKey", "scope-1", &new).await.expect(403);
    named(&app.client(&gone), "keys.getKey", "unknown-1", &of_key).await.expect(401);
    // Nobody's.
    named(&app.client("root_nonsense"), "keys.getKey", "nobody-1", &of_key).await.expect(401);
    named(&app.anonymous(), "keys.getKey", "nobody-2", &of_key).await.expect(401);
    app.block_ip("203.0.113.9").await;
    named(&service.root, "keys.getKey", "blocked-1", &of_key).await.expect(403);
    app.unblock_ip("203.0.113.9").await;

    for (name, root, outcome, method, status) in [
        ("accepted-1", &service.root_id, "accepted", "keys.getKey", 200),
        (quoted, &service.root_id, "accepted", "keys.getKey", 200),
        ("accepted-2", &service.root_id, "accepted", "keys.getKey", 400),
        ("accepted-3", &service.root_id, "accepted", "identities.getIdentity", 501),
        ("scope-1", &narrow_id, "scope", "keys.createKey", 403),
        ("unknown-1", &gone_id, "unknown", "keys.getKey", 401),
        ("blocked-1", &service.root_id, "ip_blocked", "keys.getKey", 403),
    ] {
        let rows = rows(&owner, name).await;
        assert_eq!(rows.len(), 1, "{rows:?}");
        let row = &rows[0];
        let fields = ["id", "at", "key", "root_key", "outcome", "ip", "method", "route", "status"];
        assert_fields(row, &[&fields[..], &["latency_ms", "request_id"]].concat());
        let told = json!([row["key"], row["root_key"], row["outcome"], row["ip"], row["method"]]);
        assert_eq!(told, json!([null, root, outcome, "203.0.113.9", "POST"]), "{row}");
        assert_eq!(row["route"], format!("/v2/{method}"), "{row}");
        assert_eq!(row["status"], status, "{row}");
    }
    let all = owner.all_pages("/v1/requests", 1_000).await;
    let nobodys =
        |row: &Value| row["request_id"].as_str().is_some_and(|id| id.starts_with("nobody"));
    assert!(!all.iter().any(nobodys), "{all:?}");
    // Those of one root key; an ordinary key's rows name no root key at all.
    let path = format!("/v1/requests?key={narrow_id}");
    let of_narrow = owner.all_pages(&path, 100).await;
    assert_eq!(of_narrow.len(), 1, "{of_narrow:?}");
    assert_eq!(of_narrow[0]["root_key"], narrow_id.as_str());
    let own = eventually("its own calls", SOON, || async {
        let rows = owner.all_pages("/v1/requests", 1_000).await;
        rows.into_iter().find(|row| row["route"] == "/v1/requests")
    })
    .await;
    assert!(own.get("root_key").is_none() && own["key"].is_string(), "{own}");
    // And what it comes to.
    let usage = owner.get("/v1/usage?group_by=key&by=hour").await.expect(200).json();
    let of = |root: &str| {
        let root = root.to_owned();
        move |row: &Value| row["root_key"] == root.as_str() && row["key"].is_null()
    };
    assert_eq!(total(&usage, "ip_blocked", of(&service.root_id)), 1, "{usage}");
    assert!(total(&usage, "accepted", of(&service.root_id)) >= 4, "{usage}");
    assert_eq!(total(&usage, "scope", of(&narrow_id)), 1, "{usage}");
    assert_eq!(total(&usage, "unknown", of(&gone_id)), 1, "{usage}");
    let file = owner.get("/v1/usage?group_by=key&by=hour&format=csv").await.expect(200).text();
    assert!(file.lines().any(|line| line.ends_with(&format!(",{narrow_id},scope,1,0"))), "{file}");
    // Its last use stands in the list.
    let args = ["admin", "root-key", "list", "--account", &service.account, "--json"];
    let listed = app.cli(&args).await.expect_success().json();
    let last = |id: &str| {
        let keys = listed["root_keys"].as_array().expect("root_keys");
        let key = keys.iter().find(|key| key["root_key_id"] == id).expect("listed");
        key["last_used_at"].clone()
    };
    assert!(last(&service.root_id).is_string(), "{listed}");
    let stranger = app.customer(0).await.client;
    assert!(stranger.all_pages(&path, 100).await.is_empty());
    app.finish().await;
}

async fn verifications_are_uses(size: Size) {
    let app = Setup::new(size).start().await;
    let (service, other) = (Service::start(&app).await, Service::start(&app).await);
    let owner = app.client(&app.create_key(&service.account).await.secret);
    let fields = json!({ "externalId": "user_1", "credits": { "remaining": 3 } });
    let key = service.make(&app, &fields).await;
    let unused = service.make(&app, &json!({})).await;
    assert!(service.get(&key).await.get("lastUsedAt").is_none());
    let from = json!({ "ip": "203.0.113.5" });
    // Somebody else's question is no use of it.
    assert_eq!(code(&other.verify(&key, &from).await), "NOT_FOUND");
    for want in ["VALID", "VALID", "VALID", "USAGE_EXCEEDED"] {
        assert_eq!(code(&service.verify(&key, &from).await), want);
    }
    service.update(&key, &json!({ "enabled": false })).await;
    assert_eq!(code(&service.verify(&key, &from).await), "DISABLED");
    service.update(&key, &json!({ "enabled": true, "expires": 1 })).await;
    assert_eq!(code(&service.verify(&key, &from).await), "EXPIRED");
    service.update(&key, &json!({ "expires": null })).await;
    app.cli(&["admin", "key", "suspend", &key.id, "--reason", "abuse"]).await.expect_success();
    assert_eq!(code(&service.verify(&key, &from).await), "DISABLED");
    app.cli(&["admin", "key", "unsuspend", &key.id]).await.expect_success();
    let lacks = json!({ "ip": "203.0.113.5", "permissions": "a.b" });
    assert_eq!(code(&service.verify(&key, &lacks).await), "INSUFFICIENT_PERMISSIONS");
    let used_at = eventually("the last use", SOON, || async {
        service.get(&key).await.get("lastUsedAt").and_then(Value::as_i64)
    })
    .await;
    assert!(used_at > 1_700_000_000_000, "{used_at}");
    let listed = service.call("apis.listKeys", &json!({ "apiId": service.api })).await;
    assert!(listed[0]["lastUsedAt"].is_i64() && listed[1].get("lastUsedAt").is_none(), "{listed}");
    service.call("keys.deleteKey", &json!({ "keyId": key.id })).await;
    assert_eq!(code(&service.verify(&key, &from).await), "NOT_FOUND");
    let body = json!({ "key": "prod_nothing" });
    let reply = named(&service.root, "keys.verifyKey", "noise-1", &body).await.expect(200);
    assert_eq!(reply.json()["data"]["code"], "NOT_FOUND", "{reply}");

    let wanted = [
        ("accepted", 3),
        ("credit_limit", 1),
        ("disabled", 1),
        ("expired", 1),
        ("suspended", 1),
        ("scope", 1),
        ("unknown", 1),
    ];
    for by in ["hour", "day"] {
        let path = format!("/v1/keys/{}/usage?by={by}", key.id);
        let page = eventually("all are counted", SOON, || async {
            let page = owner.get(&path).await.expect(200).json();
            let all: i64 = wanted.iter().map(|(outcome, _)| total(&page, outcome, |_| true)).sum();
            (all >= 9).then_some(page)
        })
        .await;
        for (outcome, count) in wanted {
            assert_eq!(total(&page, outcome, |_| true), count, "{outcome}: {page}");
        }
        assert_fields(&page, &["data", "last_used"]);
        let last = &page["last_used"];
        assert_eq!((&last["ip"], &last["route"]), (&json!("203.0.113.5"), &json!("verification")));
    }
    let of_user = owner.get("/v1/usage?external_id=user_1").await.expect(200).json();
    assert_eq!(total(&of_user, "accepted", |_| true), 3, "{of_user}");
    let none = owner.get(&format!("/v1/keys/{}/usage", unused.id)).await.expect(200).json();
    assert_eq!(none, json!({ "data": [], "last_used": null }));
    let stranger = app.customer(0).await.client;
    stranger.get(&format!("/v1/keys/{}/usage", key.id)).await.expect(404).expect_problem();

    // Refusals have a row beside that of the call; what was valid is only counted.
    let logged = owner.all_pages(&format!("/v1/requests?key={}", key.id), 100).await;
    let refused: Vec<&Value> = logged.iter().filter(|row| row["outcome"] != "accepted").collect();
    // In whatever order: processes tell the time a little differently.
    let outcomes: BTreeSet<&str> =
        refused.iter().map(|row| row["outcome"].as_str().expect("outcome")).collect();
    let all = ["credit_limit", "disabled", "expired", "suspended", "scope", "unknown"];
    assert_eq!((outcomes, refused.len()), (BTreeSet::from(all), all.len()), "{logged:?}");
    for row in refused {
        let told = json!([row["ip"], row["method"], row["route"], row["status"]]);
        assert_eq!(told, json!(["203.0.113.5", "POST", "verification", 200]), "{row}");
        assert!(row.get("root_key").is_none(), "{row}");
    }
    let noise = eventually("the call and its verdict", SOON, || async {
        Some(rows(&owner, "noise-1").await).filter(|rows| rows.len() == 2)
    })
    .await;
    let of = |route: &str| noise.iter().find(|row| row["route"] == route).expect(route);
    let call = of("/v2/keys.verifyKey");
    assert_eq!(
        (&call["outcome"], &call["root_key"]),
        (&json!("accepted"), &json!(service.root_id))
    );
    let verdict = of("verification");
    assert_eq!((&verdict["outcome"], &verdict["key"]), (&json!("unknown"), &Value::Null));
    app.finish().await;
}

async fn changes_say_from_where(size: Size) {
    let app = Setup::new(size).env("LISTMILL_TRUSTED_PROXIES", "127.0.0.0/8").start().await;
    let service = Service::start(&app).await;
    let owner = app.client(&app.create_key(&service.account).await.secret);
    let root = &service.root;
    let done = async |method: &str, name: &str, body: Value| {
        let reply = named(root, method, name, &body).await.expect(200);
        reply.json()["data"].clone()
    };
    let api = done("apis.createApi", "r-api", json!({ "name": "billing" })).await["apiId"].clone();
    let key = made(&app, &done("keys.createKey", "r-key", json!({ "apiId": api })).await);
    let id = json!(key.id);
    done("keys.updateKey", "r-update", json!({ "keyId": id, "name": "two" })).await;
    done("keys.updateKey", "r-same", json!({ "keyId": id, "name": "two" })).await;
    let set = json!({ "keyId": id, "operation": "set", "value": 5 });
    done("keys.updateCredits", "r-credits", set).await;
    let reroll = json!({ "keyId": id, "expiration": 600_000 });
    made(&app, &done("keys.rerollKey", "r-reroll", reroll).await);
    done("keys.deleteKey", "r-delete", json!({ "keyId": id })).await;
    done("apis.deleteApi", "r-gone", json!({ "apiId": api })).await;
    // Refused, and so no change.
    named(root, "apis.deleteApi", "r-again", &json!({ "apiId": api })).await.expect(404);

    let mut rows = owner.all_pages("/v1/audit", 100).await;
    rows.reverse();
    let by_request: Vec<&Value> = rows
        .iter()
        .filter(|row| row["request_id"].as_str().is_some_and(|id| id.starts_with("r-")))
        .collect();
    let told: Vec<(&str, &str)> = by_request
        .iter()
        .map(|row| {
            (row["action"].as_str().expect("action"), row["request_id"].as_str().expect("id"))
        })
        .collect();
    assert_eq!(
        told,
        [
            ("api.create", "r-api"),
            ("key.create", "r-key"),
            ("key.update", "r-update"),
            ("key.update", "r-credits"),
            ("key.rotate", "r-reroll"),
            ("key.create", "r-reroll"),
            ("key.delete", "r-delete"),
            ("api.delete", "r-gone"),
        ]
    );
    for row in &by_request {
        assert_eq!(row["actor"], json!({ "root_key": service.root_id }), "{row}");
        assert_eq!(row["ip"], "203.0.113.9", "{row}");
    }
    let (first, last) = (by_request[0], by_request[7]);
    let billing = json!({ "name": "billing" });
    assert_eq!(
        (&first["target"], &first["before"], &first["after"]),
        (&api, &Value::Null, &billing)
    );
    assert_eq!((&last["target"], &last["before"], &last["after"]), (&api, &billing, &Value::Null));

    // The root keys themselves, made and ended at the command line.
    let (second, secret) = root_key(&app, &service.account, &["api.*.read_api"]).await;
    app.cli(&["admin", "root-key", "delete", &second]).await.expect_success();
    let rows = owner.all_pages(&format!("/v1/audit?target={second}"), 10).await;
    let actions: Vec<&Value> = rows.iter().map(|row| &row["action"]).collect();
    assert_eq!(actions, ["root_key.delete", "root_key.create"]);
    assert!(rows.iter().all(|row| row["actor"] == json!({ "operator": true })), "{rows:?}");
    let shown = &rows[1]["after"];
    assert_fields(shown, &["start", "name", "permissions"]);
    assert_eq!(shown["permissions"], json!(["api.*.read_api"]));
    assert_eq!((&rows[0]["before"], &rows[0]["after"]), (shown, &Value::Null));

    // The lever against overload is the installation's.
    let tighten =
        ["admin", "limits", "tighten", "--factor", "0.5", "--for", "1h", "--note", "storm"];
    app.cli(&tighten).await.expect_success();
    app.cli(&["admin", "limits", "relax"]).await.expect_success();
    app.cli(&["admin", "limits", "relax"]).await.expect_success();
    let export = app.cli(&["admin", "audit", "export"]).await.expect_success().stdout;
    assert!(!export.contains(&secret) && !export.contains(&service.root_key), "a secret");
    let lines = export.lines().map(|line| serde_json::from_str(line).expect("a JSON object"));
    let levers: Vec<Value> = lines.filter(|line: &Value| line["target"] == "limits").collect();
    let told: Vec<Value> = levers
        .iter()
        .map(|line| {
            json!([
                line["account"],
                line["action"],
                line["before"]["factor"],
                line["after"]["factor"]
            ])
        })
        .collect();
    assert_eq!(
        told,
        [json!([null, "limits.tighten", 1.0, 0.5]), json!([null, "limits.relax", 0.5, 1.0]),]
    );
    assert_eq!(levers[0]["after"]["note"], "storm", "{levers:?}");
    app.cli(&["admin", "audit", "verify"]).await.expect_success();
    call(root, "apis.getApi", &json!({ "apiId": service.api })).await;
    app.finish().await;
}

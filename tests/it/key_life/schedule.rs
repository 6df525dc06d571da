//! A rotation that is planned: the new key is there ahead of its time.

use std::time::Duration;

use listmill_shared::domain::clock::{parse_rfc2822, parse_rfc3339, rfc3339};
use listmill_tests::{Client, Setup, Size, eventually, for_each_size, lists};
use serde_json::{Value, json};

use super::{Made, made, make, patch, refusal};

for_each_size!(
    begins_at_its_time,
    is_taken_back_by_deleting_the_new_key,
    that_cannot_be_is_refused,
    is_done_from_the_shell,
    takes_along_what_the_old_key_loses,
);

const HOUR: i64 = 3_600_000;

/// The server's time, to the second.
pub async fn server_time(client: &Client) -> i64 {
    let reply = client.get("/v1/tasks").await.expect(200);
    let date = reply.header("date").expect("Date").replace("GMT", "+0000");
    parse_rfc2822(&date).unwrap_or_else(|| panic!("not a date: {date}"))
}

fn not_yet() -> Value {
    refusal("Invalid or inactive API key", "This API key is not valid yet")
}

async fn begins_at_its_time(size: Size) {
    let app = Setup::new(size).start().await;
    let owner = app.customer(10).await;
    let old = make(&app, &owner.client, &json!({ "label": "shop" })).await;
    let (with_old, path) = (app.client(&old.secret), old.path("/rotate"));
    // A machine that is so slow that the time is past by then tries again.
    let mut ahead = 5_000;
    let (new, at) = loop {
        let at = rfc3339(server_time(&owner.client).await + ahead);
        let reply = owner.client.post(&path, &json!({ "grace_seconds": 3_600, "at": at })).await;
        if reply.status == 201 {
            break (made(&app, &reply), at);
        }
        reply.expect(400);
        assert!(ahead < 300_000, "never taken");
        ahead *= 2;
    };
    assert_eq!(new.answer["not_before"], at.as_str());
    let shown = owner.client.get(&new.path("")).await.expect(200).json();
    assert_eq!((&shown["not_before"], &shown["label"]), (&json!(at), &json!("shop")));
    let ends_at = owner.client.get(&old.path("")).await.expect(200).json()["expires_at"].clone();
    assert_eq!(new.answer["old"]["ends_at"], ends_at);
    let planned = parse_rfc3339(ends_at.as_str().expect("a time"));
    let begins = parse_rfc3339(&at);
    assert_eq!(planned, begins.map(|at| at + HOUR), "the grace counts from then on");
    let with_new = app.client(&new.secret);
    eventually("the new key opens", Duration::from_secs(120), || async {
        with_old.get("/v1/tasks").await.expect(200);
        let reply = with_new.get("/v1/tasks").await;
        if reply.status != 200 {
            reply.expect_body(401, &not_yet());
            return None;
        }
        Some(())
    })
    .await;
    with_old.get("/v1/tasks").await.expect(200);
    // Cut now.
    let told = app.cli(&["admin", "key", "cut", &old.id, "--json"]).await.expect_success().json();
    assert_eq!(told["status"], "expired");
    let expired = refusal("Invalid or inactive API key", "This API key has expired");
    for _ in 0..2 {
        with_old.get("/v1/tasks").await.expect_body(401, &expired);
        with_new.get("/v1/tasks").await.expect(200);
    }
    // Its time has come: deleting the new one brings nothing back.
    owner.client.delete(&new.path("")).await.expect(200);
    with_old.get("/v1/tasks").await.expect_body(401, &expired);
    app.finish().await;
}

/// Plans a rotation an hour ahead.
async fn plan(app: &listmill_tests::Deployment, owner: &Client, old: &Made) -> Made {
    let at = rfc3339(server_time(owner).await + HOUR);
    let body = json!({ "grace_seconds": 60, "at": at });
    made(app, &owner.post(&old.path("/rotate"), &body).await.expect(201))
}

async fn is_taken_back_by_deleting_the_new_key(size: Size) {
    let app = Setup::new(size).start().await;
    let owner = app.customer(10).await;
    let forever = "2100-01-31T12:00:00.000Z";
    let old = make(&app, &owner.client, &json!({ "expires_at": forever })).await;
    let of_old = || async { owner.client.get(&old.path("")).await.expect(200).json() };
    let new = plan(&app, &owner.client, &old).await;
    app.client(&new.secret).get("/v1/tasks").await.expect_body(401, &not_yet());
    let planned = of_old().await;
    assert_ne!(planned["expires_at"], forever);
    assert_eq!(planned["replaced_by"], new.id.as_str());
    assert_eq!(planned["rotation_due_at"], Value::Null);
    let again = owner.client.post_empty(&old.path("/rotate")).await.expect(409);
    assert!(again.text().contains(&new.id), "{again}");
    // Nothing would open: the old one is not cut.
    let refused = app.cli(&["admin", "key", "cut", &old.id]).await.expect_failure();
    assert!(refused.stderr.contains("nothing would open"), "{refused:#?}");

    owner.client.delete(&new.path("")).await.expect(200);
    let back = of_old().await;
    assert_eq!(back["expires_at"], forever);
    assert!(back.get("replaced_by").is_none(), "{back}");
    let log = format!("/v1/audit?target={}", old.id);
    let rows = owner.client.get(&log).await.expect(200).json();
    assert_eq!(rows["data"][0]["action"], "key.rotate_cancel", "{rows}");
    assert_eq!(rows["data"][0]["after"]["expires_at"], forever, "{rows}");

    // It can be rotated again; an end that its owner has chosen since then stays.
    let new = plan(&app, &owner.client, &old).await;
    let chosen = json!({ "expires_at": "2099-01-31T12:00:00.000Z" });
    patch(&owner.client, &old.path(""), &chosen).await.expect(200);
    owner.client.delete(&new.path("")).await.expect(200);
    assert_eq!(of_old().await["expires_at"], chosen["expires_at"]);

    // Whoever has the old key does not lengthen its life with it.
    let new = plan(&app, &owner.client, &old).await;
    let planned = of_old().await["expires_at"].clone();
    app.client(&old.secret).delete(&new.path("")).await.expect(200);
    assert_eq!(of_old().await["expires_at"], planned);

    // Both at once.
    let staged = make(&app, &owner.client, &json!({ "stage": "staging" })).await;
    let new = plan(&app, &owner.client, &staged).await;
    let body = json!({ "by": { "stage": "staging" }, "how": "delete" });
    let ended = owner.client.post("/v1/keys/end", &body).await.expect(200).json();
    assert_eq!(ended["keys"].as_array().map(Vec::len), Some(2), "{ended}");
    for key in [&staged, &new] {
        app.client(&key.secret).get("/v1/tasks").await.expect(401);
        owner.client.get(&key.path("")).await.expect(404);
    }
    // Of several, the new one alone: the old one stays as it was.
    let kept = make(&app, &owner.client, &json!({ "label": "kept" })).await;
    let new = plan(&app, &owner.client, &kept).await;
    patch(&owner.client, &new.path(""), &json!({ "stage": "next" })).await.expect(200);
    let body = json!({ "by": { "stage": "next" }, "how": "delete" });
    owner.client.post("/v1/keys/end", &body).await.expect(200);
    let shown = owner.client.get(&kept.path("")).await.expect(200).json();
    assert_eq!(shown["expires_at"], Value::Null, "{shown}");
    app.client(&kept.secret).get("/v1/tasks").await.expect(200);
    app.finish().await;
}

async fn that_cannot_be_is_refused(size: Size) {
    let app = Setup::new(size).start().await;
    let owner = app.customer(10).await;
    let now = server_time(&owner.client).await;
    let ending = rfc3339(now + 2 * HOUR);
    let key = make(&app, &owner.client, &json!({ "expires_at": ending })).await;
    for at in [
        rfc3339(now - 60_000),
        rfc3339(now + 366 * 24 * HOUR),
        ending.clone(),
        rfc3339(now + 3 * HOUR),
        String::from("tomorrow"),
    ] {
        let reply = owner.client.post(&key.path("/rotate"), &json!({ "at": at })).await.expect(400);
        assert!(reply.expect_problem()["detail"].to_string().contains("at"), "{reply}");
    }
    let late = make(&app, &owner.client, &json!({ "not_before": rfc3339(now + 5 * HOUR) })).await;
    let new = plan(&app, &owner.client, &late).await;
    assert_eq!(new.answer["not_before"], late.answer["not_before"], "never before the old one");
    let shown = owner.client.get(&key.path("")).await.expect(200).json();
    assert_eq!(shown["expires_at"], ending.as_str(), "what was refused has changed nothing");
    assert!(shown.get("replaced_by").is_none());
    app.finish().await;
}

async fn is_done_from_the_shell(size: Size) {
    let app = Setup::new(size).latency("50ms").concurrency(2).start().await;
    let owner = app.customer(1_000).await;
    let key = make(&app, &owner.client, &json!({ "label": "shop" })).await;
    let client = app.client(&key.secret);
    let task = client.submit(&lists::people(1_000)).await.id;
    // Or it might have ended by then.
    owner.client.pause(&task).await.expect(200);
    eventually("its use is noted", Duration::from_secs(60), || async {
        let shown = owner.client.get(&key.path("")).await.expect(200).json();
        shown["last_used"].is_object().then_some(())
    })
    .await;
    // By the API: who still uses it.
    let reply = owner.client.post(&key.path("/rotate"), &json!({ "grace_seconds": 60 })).await;
    let second = made(&app, &reply.expect(201));
    assert_eq!(second.answer["old"]["last_used"]["ip"], "127.0.0.1", "{}", second.answer);
    assert_eq!(second.answer["old"]["tasks"], json!([{ "id": task, "status": "paused" }]));
    let receipt = owner.client.get(&key.path("/receipt")).await.expect(200).json();
    assert_eq!(receipt["tasks"], second.answer["old"]["tasks"]);
    assert_eq!(receipt["last_accepted"], second.answer["old"]["last_used"]);

    let at = rfc3339(server_time(&owner.client).await + HOUR);
    let args = ["admin", "key", "rotate", &second.id, "--grace", "24h", "--at", &at, "--json"];
    let told = app.cli(&args).await.expect_success().json();
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let (third, secret) = (text(&told["id"]), text(&told["key"]));
    app.keep_secret(&secret);
    assert_eq!(told["not_before"], at.as_str());
    assert_eq!(told["old"]["id"], second.id.as_str());
    assert!(told["old"]["ends_at"].is_string(), "{told}");
    app.client(&secret).get("/v1/tasks").await.expect_body(401, &not_yet());
    let again = app.cli(&["admin", "key", "rotate", &second.id]).await.expect_failure();
    assert!(again.stderr.contains(&third), "it says which one to rotate: {again:#?}");

    // For people, of the one that is used.
    let busy = make(&app, &owner.client, &json!({ "label": "busy" })).await;
    app.client(&busy.secret).get("/v1/tasks").await.expect(200);
    eventually("its use is noted", Duration::from_secs(60), || async {
        let shown = owner.client.get(&busy.path("")).await.expect(200).json();
        shown["last_used"].is_object().then_some(())
    })
    .await;
    let told =
        app.cli(&["admin", "key", "rotate", &busy.id, "--grace", "24h"]).await.expect_success();
    let secret = told.stdout.lines().next().expect("the secret").to_owned();
    app.keep_secret(&secret);
    app.client(&secret).get("/v1/tasks").await.expect(200);
    assert!(told.stdout.contains("used last by 127.0.0.1"), "{}", told.stdout);
    assert!(told.stdout.contains(&format!("admin key cut {}", busy.id)), "{}", told.stdout);
    app.client(&busy.secret).get("/v1/tasks").await.expect(200);
    app.cli(&["admin", "key", "cut", &busy.id]).await.expect_success();
    app.client(&busy.secret).get("/v1/tasks").await.expect(401);
    app.client(&secret).get("/v1/tasks").await.expect(200);
    // Without grace, at once; what was not rotated is not cut.
    let lone = make(&app, &owner.client, &json!({ "label": "lone" })).await;
    app.cli(&["admin", "key", "cut", &lone.id]).await.expect_failure();
    let told = app.cli(&["admin", "key", "rotate", &lone.id, "--json"]).await.expect_success();
    app.keep_secret(&text(&told.json()["key"]));
    app.client(&lone.secret).get("/v1/tasks").await.expect(401);
    app.cli(&["admin", "key", "rotate", "key_1"]).await.expect_failure();
    owner.client.cancel(&task).await;
    app.finish().await;
}

/// What is taken from a key meanwhile is taken from the one that will take its place, too.
async fn takes_along_what_the_old_key_loses(size: Size) {
    let app = Setup::new(size).start().await;
    let owner = app.customer(10).await;
    let old = make(&app, &owner.client, &json!({ "label": "shop" })).await;
    let at = rfc3339(server_time(&owner.client).await + 24 * HOUR);
    let planned = json!({ "grace_seconds": 60, "at": at });
    let new = made(&app, &owner.client.post(&old.path("/rotate"), &planned).await.expect(201));
    let narrow =
        json!({ "scopes": ["tasks:read"], "allow": ["192.0.2.0/24"], "label": "old shop" });
    patch(&owner.client, &old.path(""), &narrow).await.expect(200);
    let shown = async |key: &Made| owner.client.get(&key.path("")).await.expect(200).json();
    let successor = shown(&new).await;
    assert_eq!(successor["scopes"], json!(["tasks:read"]));
    assert_eq!(successor["allow"], json!(["192.0.2.0/24"]));
    assert_eq!((&successor["label"], &successor["not_before"]), (&json!("shop"), &json!(at)));
    let suspend = ["admin", "key", "suspend", &old.id, "--reason", "Under review"];
    app.cli(&suspend).await.expect_success();
    for key in [&old, &new] {
        assert_eq!(shown(key).await["status"], "suspended");
    }
    app.finish().await;
}

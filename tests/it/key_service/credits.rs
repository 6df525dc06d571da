//! Credits of keys: exact, whoever asks at once and whatever is killed.

use std::time::Duration;

use futures::future::join_all;
use listmill_tests::{Setup, Size, for_each_size};
use serde_json::{Value, json};

use super::{Service, code, expect_error, expect_fault, made, post};

for_each_size!(are_granted_exactly, cost_what_is_said, are_changed, survive_a_kill);

/// Of the last 40 credits exactly 40 are granted to 200 callers at once, over all processes.
async fn are_granted_exactly(size: Size) {
    const LEFT: usize = 40;
    let app = Setup::new(size.with(3, 1)).start().await;
    let service = Service::start(&app).await;
    let key = service.make(&app, &json!({ "credits": { "remaining": LEFT } })).await;
    let other = service.make(&app, &json!({ "credits": { "remaining": 1_000 } })).await;
    let nothing = json!({});
    let verify = |n: usize| {
        let key = if n.is_multiple_of(5) { &other } else { &key };
        service.verify(key, &nothing)
    };
    let verified = join_all((0..250).map(verify)).await;
    let mut left: Vec<i64> = Vec::new();
    for one in verified.iter().filter(|one| one["keyId"] == key.id.as_str()) {
        match code(one).as_str() {
            "VALID" => left.push(one["credits"].as_i64().expect("credits")),
            "USAGE_EXCEEDED" => assert_eq!(one["credits"], 0),
            other => panic!("{other}: {one}"),
        }
    }
    left.sort_unstable();
    let want: Vec<i64> = (0..LEFT as i64).collect();
    assert_eq!(left, want, "each was told what it left");
    assert_eq!(service.get(&key).await["credits"]["remaining"], 0);
    assert_eq!(service.get(&other).await["credits"]["remaining"], 950);

    // Rerolled, both secrets draw on one pool.
    service.update(&key, &json!({ "credits": { "remaining": LEFT } })).await;
    let body = json!({ "keyId": key.id, "expiration": 600_000 });
    let new = made(&app, &service.call("keys.rerollKey", &body).await);
    let verify = |n: usize| {
        let key = if n.is_multiple_of(2) { &new } else { &key };
        service.verify(key, &nothing)
    };
    let verified = join_all((0..200).map(verify)).await;
    let granted = verified.iter().filter(|one| one["valid"] == true).count();
    assert_eq!(granted, LEFT);
    assert_eq!(service.get(&key).await["credits"]["remaining"], 0);
    assert_eq!(service.get(&new).await["credits"]["remaining"], 0);
    app.finish().await;
}

async fn cost_what_is_said(size: Size) {
    let app = Setup::new(size).start().await;
    let service = Service::start(&app).await;
    let key = service.make(&app, &json!({ "credits": { "remaining": 10 } })).await;
    let verify =
        async |cost: i64| service.verify(&key, &json!({ "credits": { "cost": cost } })).await;
    let told = |verified: &Value| (code(verified), verified["credits"].as_i64());
    let valid = |left| (String::from("VALID"), Some(left));
    assert_eq!(told(&verify(7).await), valid(3));
    assert_eq!(
        told(&verify(4).await),
        (String::from("USAGE_EXCEEDED"), Some(3)),
        "nothing is taken"
    );
    assert_eq!(told(&verify(0).await), valid(3));
    assert_eq!(told(&verify(3).await), valid(0));
    assert_eq!(told(&verify(0).await), valid(0), "what costs nothing needs nothing");
    let unlimited = service.make(&app, &json!({})).await;
    let verified = service.verify(&unlimited, &json!({ "credits": { "cost": 1_000 } })).await;
    assert_eq!(told(&verified), (String::from("VALID"), None));
    let body = json!({ "key": key.secret, "credits": { "cost": -1 } });
    expect_fault(&post(&service.root, "keys.verifyKey", &body).await, "body.credits.cost");
    app.finish().await;
}

async fn are_changed(size: Size) {
    let app = Setup::new(size).start().await;
    let service = Service::start(&app).await;
    let refill = json!({ "interval": "monthly", "amount": 100, "refillDay": 31 });
    let key =
        service.make(&app, &json!({ "credits": { "remaining": 10, "refill": refill } })).await;
    let change = async |operation: &str, value: Value| {
        let body = json!({ "keyId": key.id, "operation": operation, "value": value });
        service.call("keys.updateCredits", &body).await
    };
    assert_eq!(change("increment", json!(5)).await, json!({ "remaining": 15, "refill": refill }));
    assert_eq!(change("decrement", json!(6)).await["remaining"], 9);
    assert_eq!(change("decrement", json!(100)).await["remaining"], 0, "never below");
    assert_eq!(service.code(&key).await, "USAGE_EXCEEDED");
    assert_eq!(change("set", json!(2)).await["remaining"], 2);
    assert_eq!(service.verify(&key, &json!({})).await["credits"], 1);
    assert_eq!(service.get(&key).await["credits"], json!({ "remaining": 1, "refill": refill }));
    // Daily, kept, changed alone, cleared alone.
    let daily = json!({ "interval": "daily", "amount": 7 });
    service.update(&key, &json!({ "credits": { "refill": daily } })).await;
    assert_eq!(service.get(&key).await["credits"], json!({ "remaining": 1, "refill": daily }));
    service.update(&key, &json!({ "credits": { "remaining": 4 } })).await;
    assert_eq!(service.get(&key).await["credits"], json!({ "remaining": 4, "refill": daily }));
    service.update(&key, &json!({ "credits": { "refill": null } })).await;
    assert_eq!(service.get(&key).await["credits"], json!({ "remaining": 4 }));
    // No limit any more, and no refill with it.
    service.update(&key, &json!({ "credits": { "refill": daily } })).await;
    assert_eq!(change("set", Value::Null).await, json!({ "remaining": null }));
    assert!(service.get(&key).await.get("credits").is_none());
    for (operation, value, at) in [
        ("increment", json!(1), "body.operation"),
        ("increment", Value::Null, "body.value"),
        ("set", json!(-1), "body.value"),
        ("double", json!(1), "body.operation"),
    ] {
        let body = json!({ "keyId": key.id, "operation": operation, "value": value });
        expect_fault(&post(&service.root, "keys.updateCredits", &body).await, at);
    }
    let body = json!({ "keyId": "key_00", "operation": "set", "value": 1 });
    expect_error(&post(&service.root, "keys.updateCredits", &body).await, 404);
    app.finish().await;
}

/// What was answered as granted is counted, though the process is killed in the midst of it.
async fn survive_a_kill(size: Size) {
    const LEFT: i64 = 100_000;
    let mut app = Setup::new(size).start().await;
    let service = Service::start(&app).await;
    let key = service.make(&app, &json!({ "credits": { "remaining": LEFT } })).await;
    let url = format!("{}/v2/keys.verifyKey", app.apis[0].base());
    let http = listmill_tests::client::http().build().expect("a client");
    let asking: Vec<_> = (0..16)
        .map(|_| {
            let (http, url) = (http.clone(), url.clone());
            let (root, secret) = (service.root_key.clone(), key.secret.clone());
            tokio::spawn(async move {
                let mut granted = 0;
                loop {
                    let request =
                        http.post(&url).bearer_auth(&root).json(&json!({ "key": secret }));
                    let Ok(reply) = request.send().await else { return granted };
                    let Ok(body) = reply.json::<Value>().await else { return granted };
                    granted += i64::from(body["data"]["valid"] == true);
                }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    app.apis[0].process.kill9();
    let granted: i64 = join_all(asking).await.into_iter().map(|one| one.expect("counted")).sum();
    app.apis[0].process.start_again();
    app.wait_ready().await;
    let left = service.get(&key).await["credits"]["remaining"].as_i64().expect("remaining");
    assert!(granted > 16, "only {granted} were granted");
    // What was granted in the last moment may not have been heard; nothing that was heard is lost.
    let taken = LEFT - left;
    assert!((granted..=granted + 16).contains(&taken), "{granted} heard of, {taken} taken");
    app.finish().await;
}

//! Rate limits of keys: all processes count together.

use listmill_tests::{Setup, Size, for_each_size};
use serde_json::{Value, json};

use super::{Service, code, expect_fault, made, post};

for_each_size!(are_all_or_nothing, are_shared_by_what_a_reroll_leaves, are_checked);

async fn are_all_or_nothing(size: Size) {
    let app = Setup::new(size).start().await;
    let service = Service::start(&app).await;
    let limit = |name: &str, limit: u32, auto: bool| {
        json!({
            "name": name, "limit": limit, "duration": 600_000, "autoApply": auto,
        })
    };
    let key = service
        .make(
            &app,
            &json!({
                "credits": { "remaining": 100 },
                "ratelimits": [limit("always", 5, true), limit("heavy", 2, false)],
            }),
        )
        .await;
    let heavy = json!({ "ratelimits": [{ "name": "heavy" }] });
    let left = |verified: &Value| -> Vec<(String, i64)> {
        let limits = verified["ratelimits"].as_array().expect("ratelimits").iter();
        limits
            .map(|one| (one["name"].as_str().unwrap().into(), one["remaining"].as_i64().unwrap()))
            .collect()
    };
    let first = service.verify(&key, &heavy).await;
    assert_eq!(left(&first), [(String::from("always"), 4), (String::from("heavy"), 1)]);
    service.verify(&key, &heavy).await;
    let refused = service.verify(&key, &heavy).await;
    assert_eq!(code(&refused), "RATE_LIMITED");
    assert_eq!(left(&refused), [(String::from("always"), 3), (String::from("heavy"), 0)]);
    let exceeded: Vec<&Value> =
        refused["ratelimits"].as_array().unwrap().iter().map(|one| &one["exceeded"]).collect();
    assert_eq!(exceeded, [&json!(false), &json!(true)]);
    assert_eq!(refused["credits"], 98, "a refusal costs no credit");
    // The one that was not exceeded has not paid for the refusal: three are left.
    for want in ["VALID", "VALID", "VALID", "RATE_LIMITED"] {
        assert_eq!(service.code(&key).await, want);
    }
    // The caller's own figures.
    let own = |cost: u32| {
        json!({ "ratelimits": [
        { "name": "mine", "limit": 10, "duration": 600_000, "cost": cost },
        { "name": "always", "limit": 100 },
    ] })
    };
    let verified = service.verify(&key, &own(9)).await;
    assert_eq!(code(&verified), "VALID", "{verified}");
    assert_eq!(verified["ratelimits"][0]["remaining"], 1);
    assert_eq!(code(&service.verify(&key, &own(2)).await), "RATE_LIMITED");
    assert_eq!(code(&service.verify(&key, &own(1)).await), "VALID");
    app.finish().await;
}

async fn are_shared_by_what_a_reroll_leaves(size: Size) {
    let app = Setup::new(size).start().await;
    let service = Service::start(&app).await;
    let limits = json!([{ "name": "always", "limit": 4, "duration": 600_000, "autoApply": true }]);
    let key = service.make(&app, &json!({ "ratelimits": limits })).await;
    let before = service.verify(&key, &json!({})).await;
    let body = json!({ "keyId": key.id, "expiration": 600_000 });
    let new = made(&app, &service.call("keys.rerollKey", &body).await);
    let after = service.verify(&new, &json!({})).await;
    assert_eq!(after["ratelimits"][0]["remaining"], 2, "{after}");
    assert_eq!(after["ratelimits"][0]["id"], before["ratelimits"][0]["id"]);
    for (key, want) in
        [(&key, "VALID"), (&new, "VALID"), (&key, "RATE_LIMITED"), (&new, "RATE_LIMITED")]
    {
        assert_eq!(service.code(key).await, want);
    }
    app.finish().await;
}

async fn are_checked(size: Size) {
    let app = Setup::new(size).start().await;
    let service = Service::start(&app).await;
    let key = service.make(&app, &json!({})).await;
    for limits in [
        json!([{ "name": "unknown" }]),
        json!([{ "name": "abc", "limit": 5 }]),
        json!([{ "name": "abc", "limit": 5, "duration": 999 }]),
        json!([{ "name": "abc", "limit": 0, "duration": 1_000 }]),
        json!([{ "name": "ab", "limit": 5, "duration": 1_000 }]),
        json!([{ "name": "abc", "limit": 5, "duration": 1_000 }, { "name": "abc", "limit": 6, "duration": 1_000 }]),
    ] {
        let body = json!({ "key": key.secret, "ratelimits": limits });
        expect_fault(&post(&service.root, "keys.verifyKey", &body).await, "body.ratelimits");
    }
    app.finish().await;
}

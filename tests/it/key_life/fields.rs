//! What is said of a key.

use listmill_tests::client::send;
use listmill_tests::{Setup, Size, for_each_size};
use reqwest::Method;
use serde_json::{Value, json};

use super::{make, patch, refusal};

for_each_size!(
    are_told_kept_and_cleared,
    that_cannot_be_so_are_named,
    say_from_where_and_when,
    are_never_more_than_the_maker_has,
);

async fn are_told_kept_and_cleared(size: Size) {
    let app = Setup::new(size).start().await;
    let owner = app.customer(10).await;
    let set = json!({
        "label": "CI",
        "note": "asked for by ops",
        "stage": "staging",
        "scopes": ["tasks:write", "tasks:read"],
        "expires_at": "2100-01-31T12:00:00Z",
        "not_before": "2020-01-31T12:00:00Z",
        "allow": ["127.0.0.1", "2001:db8::/32", "10.1.2.3/8"],
        "rate_limit": 500,
        "limits": [{ "name": "requests", "limit": 100, "window_seconds": 10 }],
        "credit_limit": { "limit": 100, "refill": { "interval": "monthly", "amount": 50, "day": 31 } },
        "external_id": "customer-42",
        "meta": { "plan": "gold", "seats": 3 },
    });
    let key = make(&app, &owner.client, &set).await;
    let shown = owner.client.get(&key.path("")).await.expect(200).json();
    for (field, value) in set.as_object().expect("fields") {
        let want = match field.as_str() {
            "allow" => json!(["127.0.0.1/32", "2001:db8::/32", "10.0.0.0/8"]),
            "expires_at" => json!("2100-01-31T12:00:00.000Z"),
            "not_before" => json!("2020-01-31T12:00:00.000Z"),
            "credit_limit" => json!({
                "limit": 100, "used": 0,
                "refill": { "interval": "monthly", "amount": 50, "day": 31 },
            }),
            _ => value.clone(),
        };
        assert_eq!(shown[field], want, "{field}");
        assert_eq!(key.answer[field], want, "{field}");
    }
    assert_eq!(shown["created_by"], json!({ "key": owner.key.id }));
    assert_eq!(shown["environment"], "live");
    assert_eq!(shown["credits_used"], 0);
    let first = owner.client.get(&format!("/v1/keys/{}", owner.key.id)).await.expect(200).json();
    assert_eq!(first["created_by"], json!({ "operator": true }));
    assert_eq!(first["scopes"], json!(["*"]), "existing keys keep everything");

    // Absent keeps, null clears.
    let change = json!({
        "label": "CI 2", "note": null, "allow": null, "limits": null, "credit_limit": null,
        "expires_at": null, "meta": null, "external_id": null,
    });
    let changed = patch(&owner.client, &key.path(""), &change).await.expect(200).json();
    assert_eq!(changed["label"], "CI 2");
    for field in ["note", "credit_limit", "expires_at", "meta", "external_id"] {
        assert_eq!(changed[field], Value::Null, "{field}");
    }
    assert_eq!((&changed["allow"], &changed["limits"]), (&json!([]), &json!([])));
    for field in ["stage", "scopes", "rate_limit"] {
        assert_eq!(changed[field], shown[field], "{field} is kept");
    }
    assert_eq!(owner.client.get(&key.path("")).await.expect(200).json(), changed);

    // Lists are found by what was said.
    let of_stage = owner.client.get("/v1/keys?stage=staging").await.expect(200).json();
    assert_eq!(of_stage["data"].as_array().expect("data").len(), 1);
    let made_by = format!("/v1/keys?made_by={}", owner.key.id);
    let of_maker = owner.client.get(&made_by).await.expect(200).json();
    assert_eq!(of_maker["data"][0]["id"], key.id.as_str());
    let stranger = app.customer(0).await.client;
    patch(&stranger, &key.path(""), &json!({ "label": "mine" })).await.expect(404).expect_problem();
    app.finish().await;
}

async fn that_cannot_be_so_are_named(size: Size) {
    let app = Setup::new(size).start().await;
    let owner = app.customer(10).await;
    let key = make(&app, &owner.client, &json!({})).await;
    for (field, value) in [
        ("label", json!("")),
        ("label", json!("x".repeat(101))),
        ("note", json!("x".repeat(1_001))),
        ("scopes", json!(["tasks:read", "tasks:destroy"])),
        ("expires_at", json!("tomorrow")),
        ("expires_at", json!("2020-01-01T00:00:00Z")),
        ("allow", json!(["10.0.0.0/33"])),
        ("rate_limit", json!(0)),
        ("limits", json!([{ "name": "a", "limit": 0, "window_seconds": 1 }])),
        (
            "limits",
            json!([{ "name": "a", "limit": 1, "window_seconds": 1 },
                          { "name": "a", "limit": 1, "window_seconds": 1 }]),
        ),
        ("credit_limit", json!({ "limit": -1 })),
        ("credit_limit", json!({ "limit": 1, "refill": { "interval": "hourly", "amount": 1 } })),
        (
            "credit_limit",
            json!({ "limit": 1, "refill": { "interval": "monthly", "amount": 1, "day": 32 } }),
        ),
        ("meta", json!({ "x": "y".repeat(5_000) })),
    ] {
        let reply = patch(&owner.client, &key.path(""), &json!({ field: value })).await.expect(400);
        let detail = reply.expect_problem()["detail"].as_str().expect("detail").to_owned();
        assert!(detail.contains(field), "{field}: {detail}");
        let mut body = json!({ "label": "new" });
        body[field] = value;
        owner.client.post("/v1/keys", &body).await.expect(400).expect_problem();
    }
    for body in [json!({ "lable": "x" }), json!({ "scopes": "verify" }), json!([])] {
        patch(&owner.client, &key.path(""), &body).await.expect(400).expect_problem();
    }
    owner.client.post("/v1/keys", &json!({})).await.expect(400).expect_problem();
    let kept = owner.client.get(&key.path("")).await.expect(200).json();
    assert_eq!(kept["label"], "made by a key", "nothing was changed");
    app.finish().await;
}

async fn say_from_where_and_when(size: Size) {
    let app = Setup::new(size).env("LISTMILL_TRUSTED_PROXIES", "127.0.0.0/8").start().await;
    let owner = app.customer(10).await;
    let key =
        make(&app, &owner.client, &json!({ "allow": ["203.0.113.0/24", "2001:db8::/32"] })).await;
    let client = app.client(&key.secret);
    let from = |ip: &'static str| {
        let request = client.request(Method::GET, "/v1/tasks");
        send(request.header("x-forwarded-for", ip))
    };
    let denied =
        |ip: &str| refusal("Access denied", format!("This API key may not be used from {ip}"));
    for _ in 0..2 {
        client.get("/v1/tasks").await.expect_body(403, &denied("127.0.0.1"));
        from("203.0.113.77").await.expect(200);
        from("2001:db8:1::5").await.expect(200);
        from("::ffff:203.0.113.9").await.expect(200);
        from("203.0.114.1").await.expect_body(403, &denied("203.0.114.1"));
        from("2001:db9::1").await.expect_body(403, &denied("2001:db9::1"));
    }
    // Changed, it holds for the next request on every process.
    patch(&owner.client, &key.path(""), &json!({ "allow": ["203.0.114.0/24"] })).await.expect(200);
    for _ in 0..2 {
        from("203.0.113.77").await.expect(403);
        from("203.0.114.1").await.expect(200);
    }
    let later = json!({ "not_before": "2100-01-01T00:00:00Z", "allow": [] });
    patch(&owner.client, &key.path(""), &later).await.expect(200);
    let early = refusal("Invalid or inactive API key", "This API key is not valid yet");
    for _ in 0..2 {
        client.get("/v1/tasks").await.expect_body(401, &early);
    }
    app.finish().await;
}

async fn are_never_more_than_the_maker_has(size: Size) {
    let app = Setup::new(size).start().await;
    let owner = app.customer(10).await;
    let narrow = json!({
        "scopes": ["keys:read", "keys:write", "tasks:read"],
        "expires_at": "2100-01-01T00:00:00Z",
        "allow": ["127.0.0.0/8"],
        "rate_limit": 600,
        "credit_limit": { "limit": 5 },
        "limits": [{ "name": "requests", "limit": 1_000, "window_seconds": 60 }],
    });
    let maker = make(&app, &owner.client, &narrow).await;
    let client = app.client(&maker.secret);
    // What is not said is as the maker has it.
    let child = make(&app, &client, &json!({})).await;
    for field in ["scopes", "allow", "rate_limit", "credit_limit", "limits"] {
        assert_eq!(child.answer[field], maker.answer[field], "{field}");
    }
    assert_eq!(child.answer["expires_at"], maker.answer["expires_at"]);
    for (field, value) in [
        ("scopes", json!(["*"])),
        ("scopes", json!(["tasks:write"])),
        ("allow", json!([])),
        ("allow", json!(["127.0.0.0/8", "10.0.0.0/8"])),
        ("expires_at", json!(null)),
        ("expires_at", json!("2100-01-02T00:00:00Z")),
        ("rate_limit", json!(601)),
        ("rate_limit", json!(null)),
        ("credit_limit", json!({ "limit": 6 })),
        ("credit_limit", json!({ "limit": 5, "refill": { "interval": "daily", "amount": 5 } })),
        ("credit_limit", json!(null)),
        ("limits", json!([])),
    ] {
        let mut body = json!({ "label": "more" });
        body[field] = value.clone();
        let refused = client.post("/v1/keys", &body).await.expect(400);
        assert!(refused.text().contains(field), "{refused}");
        // Nor may it give that to another key, or to itself.
        for path in [child.path(""), maker.path("")] {
            patch(&client, &path, &json!({ field: value })).await.expect(400);
        }
    }
    // Nor a new secret for what can do more.
    let stronger = format!("/v1/keys/{}/rotate", owner.key.id);
    client.post_empty(&stronger).await.expect(400).expect_problem();
    // To end a key that leaks, being stronger is not needed.
    let leaking = make(&app, &owner.client, &json!({})).await;
    client.post_empty(&leaking.path("/disable")).await.expect(200);
    client.post_empty(&leaking.path("/enable")).await.expect(400);
    app.finish().await;
}

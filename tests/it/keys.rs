//! Keys of an account: shown once, listed without their secret.

use listmill_tests::{Setup, Size, for_each_size};
use serde_json::{Value, json};

for_each_size!(are_shown_once, have_the_promised_form, errors_show_no_secret);

async fn are_shown_once(size: Size) {
    let app = Setup::new(size).start().await;
    let owner = app.customer(10).await;
    let reply = owner.client.post("/v1/keys", &json!({ "label": "CI" })).await.expect(201);
    let made = reply.json();
    let secret = made["key"].as_str().expect("key").to_owned();
    let id = made["id"].as_str().expect("id").to_owned();
    app.keep_secret(&secret);
    app.client(&secret).get("/v1/tasks").await.expect(200);
    let list = owner.client.get("/v1/keys").await.expect(200);
    assert!(!list.text().contains(&secret) && !list.text().contains(&owner.key.secret), "{list}");
    let keys = list.json()["data"].as_array().expect("data").clone();
    assert_eq!(keys.len(), 2, "{list}");
    let listed = keys.iter().find(|key| key["id"] == id.as_str()).expect("listed");
    assert_eq!(listed["label"], "CI");
    assert!(listed.get("hash").is_none(), "{listed}");
    let start = secret[..8].to_owned();
    let shows_start = |value: &Value| value.as_str().is_some_and(|text| text.starts_with(&start));
    assert!(listed.as_object().expect("object").values().any(shows_start), "{listed}");
    let stranger = app.customer(0).await.client;
    let theirs = stranger.all_pages("/v1/keys", 1).await;
    assert_eq!(theirs.len(), 1, "only their own");
    app.finish().await;
}

async fn have_the_promised_form(size: Size) {
    let app = Setup::new(size).start().await;
    let account = app.create_account(0).await;
    for _ in 0..3 {
        let key = app.create_key(&account).await;
        assert_eq!(key.secret.len(), 3 + 32, "VEC and 32 characters");
        let body = &key.secret[3..];
        assert!(
            body.chars().all(|c| c.is_ascii_alphanumeric()),
            "an alphabet of letters and digits"
        );
        assert!(!body.contains(['0', 'O', 'I', 'l']), "without look-alikes");
    }
    app.finish().await;
}

async fn errors_show_no_secret(size: Size) {
    let app = Setup::new(size).start().await;
    let owner = app.customer(1).await;
    let secret = owner.key.secret.as_str();
    for reply in [
        owner.client.get("/v1/nothing").await,
        owner.client.post_bytes("/v1/tasks", "application/json", "{").await,
        owner
            .client
            .post("/v1/tasks", &json!({ "emails": ["a@example.com", "b@example.com"] }))
            .await,
        owner.client.get("/v1/tasks?cursor='--").await,
    ] {
        assert!(matches!(reply.status, 400..=499), "{reply}");
        let text = reply.text().to_lowercase();
        for word in [&secret.to_lowercase(), "select ", "sqlx", "sqlite", "postgres"] {
            assert!(!text.contains(word), "{reply}");
        }
    }
    app.finish().await;
}

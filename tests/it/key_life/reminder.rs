//! A key that has been the same for long is due for rotation.

use std::time::Duration;

use listmill_shared::domain::clock::parse_rfc3339;
use listmill_tests::{Client, Setup, Size, eventually, for_each_size};
use serde_json::{Value, json};

use super::make;

for_each_size!(comes_after_the_chosen_age, can_be_switched_off);

fn time(value: &Value) -> i64 {
    parse_rfc3339(value.as_str().expect("a time")).expect("a time")
}

async fn due(client: &Client) -> Vec<String> {
    let rows = client.all_pages("/v1/keys?rotation_due=true", 100).await;
    rows.iter().map(|row| row["id"].as_str().expect("an id").to_owned()).collect()
}

async fn comes_after_the_chosen_age(size: Size) {
    let app = Setup::new(size).env("LISTMILL_KEY_ROTATION_REMINDER", "1s").start().await;
    let owner = app.customer(10).await;
    let key = make(&app, &owner.client, &json!({ "label": "old" })).await;
    assert_eq!(time(&key.answer["rotation_due_at"]), time(&key.answer["created_at"]) + 1_000);
    eventually("it is due", Duration::from_secs(60), || async {
        due(&owner.client).await.contains(&key.id).then_some(())
    })
    .await;
    let args = ["admin", "key", "hygiene", "--account", &owner.account, "--json"];
    let told = app.cli(&args).await.expect_success().json();
    assert_eq!(told["rotation_due"], 2, "{told}");
    for row in told["keys"].as_array().expect("keys") {
        assert!(row["findings"].as_array().expect("findings").contains(&json!("old")), "{told}");
    }
    // Rotated, it is not; its successor will be.
    let reply = owner.client.post(&key.path("/rotate"), &json!({ "grace_seconds": 600 })).await;
    let new = super::made(&app, &reply.expect(201));
    assert!(!due(&owner.client).await.contains(&key.id));
    let shown = owner.client.get(&key.path("")).await.expect(200).json();
    assert_eq!(shown["rotation_due_at"], Value::Null);
    let shown = owner.client.get(&new.path("")).await.expect(200).json();
    assert!(shown["rotation_due_at"].is_string(), "{shown}");
    owner.client.get("/v1/keys?rotation_due=maybe").await.expect(400).expect_problem();
    app.finish().await;
}

async fn can_be_switched_off(size: Size) {
    let app = Setup::new(size).env("LISTMILL_KEY_ROTATION_REMINDER", "0").start().await;
    let owner = app.customer(10).await;
    let key = make(&app, &owner.client, &json!({})).await;
    assert_eq!(key.answer["rotation_due_at"], Value::Null);
    assert!(due(&owner.client).await.is_empty());
    app.finish().await;

    // Ninety days unless told otherwise; not for a key that ends before.
    let app = Setup::new(size).start().await;
    let owner = app.customer(10).await;
    let key = make(&app, &owner.client, &json!({})).await;
    let age = time(&key.answer["rotation_due_at"]) - time(&key.answer["created_at"]);
    assert_eq!(age, 90 * 86_400_000);
    let now = super::schedule::server_time(&owner.client).await;
    let soon = listmill_shared::domain::clock::rfc3339(now + 86_400_000);
    let key = make(&app, &owner.client, &json!({ "expires_at": soon })).await;
    assert_eq!(key.answer["rotation_due_at"], Value::Null);
    assert!(due(&owner.client).await.is_empty(), "none is so old");
    app.finish().await;
}

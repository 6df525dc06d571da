//! Keys are stored with a pepper that is not in the database.

use listmill_tests::admin::run;
use listmill_tests::{Deployment, Setup, Size, for_each_size, sql};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::time::Duration;

use super::make;

for_each_size!(
    is_needed_to_verify_a_key,
    wraps_what_was_stored_without_it,
    that_does_not_fit_is_refused
);

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The stored hash of the newest key, in hexadecimal digits.
async fn stored(app: &Deployment) -> String {
    let digits = if app.size.is_scaled() { "encode(hash, 'hex')" } else { "lower(hex(hash))" };
    let query = format!("SELECT {digits} FROM api_keys ORDER BY id DESC LIMIT 1");
    sql::text(&app.database_url(), &query).await.expect("a hash")
}

async fn is_needed_to_verify_a_key(size: Size) {
    let app = Setup::new(size).start().await;
    let owner = app.customer(10).await;
    let key = make(&app, &owner.client, &json!({})).await;
    let (bare, stored) = (hex(&Sha256::digest(&key.secret)), stored(&app).await);
    assert_eq!(stored.len(), 64);
    assert_ne!(stored, bare, "the database alone verifies no key");
    app.finish().await;
}

/// Rows of earlier versions hold a bare SHA-256; `migrate` wraps them without knowing a key.
async fn wraps_what_was_stored_without_it(size: Size) {
    let app = Setup::new(size).start().await;
    let owner = app.customer(10).await;
    let key = make(&app, &owner.client, &json!({})).await;
    let bare = hex(&Sha256::digest(&key.secret));
    let literal = if app.size.is_scaled() { format!("'\\x{bare}'") } else { format!("x'{bare}'") };
    let id = key.id.trim_start_matches("key_");
    let whose = match app.size.is_scaled() {
        true => format!("id = '{id}'"),
        false => format!("lower(hex(id)) = '{id}'"),
    };
    let back = format!("UPDATE api_keys SET hash = {literal}, pepper = NULL WHERE {whose}");
    assert_eq!(sql::execute(&app.database_url(), &back).await, 1);
    app.client(&key.secret).get("/v1/tasks").await.expect(401);
    let done = app.cli(&["migrate", "--json"]).await.expect_success().json();
    assert_eq!(done["keys_wrapped"], 1);
    app.client(&key.secret).get("/v1/tasks").await.expect(200);
    assert_ne!(stored(&app).await, bare);
    let again = app.cli(&["migrate", "--json"]).await.expect_success().json();
    assert_eq!(again["keys_wrapped"], 0);
    app.finish().await;
}

/// Of several machines that make the first pepper at once one is right; the others say what is missing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn is_made_by_one_of_several() {
    let app = Setup::new(Size::SCALED).start().await;
    let url = app.database_url();
    // As before anybody had made one.
    sql::execute(&url, "DELETE FROM peppers").await;
    let migrate = (0..4).map(|n| {
        let mut launch = app.launch().args(["migrate"]);
        launch.env.push((String::from("LISTMILL_DATA_DIR"), format!("machine-{n}")));
        run(launch, Duration::from_secs(60))
    });
    let ended = futures::future::join_all(migrate).await;
    let right = ended.iter().filter(|outcome| outcome.code == Some(0)).count();
    assert_eq!(right, 1, "{ended:#?}");
    for wrong in ended.iter().filter(|outcome| outcome.code != Some(0)) {
        assert!(wrong.stderr.contains("bring the file"), "{wrong:#?}");
    }
    assert_eq!(sql::number(&url, "SELECT COUNT(*) FROM peppers").await, 1);
    // Put back what its own processes know.
    sql::execute(&url, "DELETE FROM peppers").await;
    app.cli(&["migrate"]).await.expect_success();
    app.finish().await;
}

/// A process with another pepper would refuse every key: it does not start.
async fn that_does_not_fit_is_refused(size: Size) {
    let app = Setup::new(size).start().await;
    app.customer(10).await;
    let role = if size.is_scaled() { "api" } else { "up" };
    let start = |pepper: String| {
        let mut launch = app.launch().args([role]);
        launch.env.push((String::from("LISTMILL_KEY_PEPPER"), pepper));
        launch.env.push((String::from("LISTMILL_BIND"), String::from("127.0.0.1:0")));
        run(launch, Duration::from_secs(30))
    };
    let id = sql::text(&app.database_url(), "SELECT id FROM peppers").await.expect("a pepper");
    for (pepper, says) in [
        (format!("{id}:{}", "11".repeat(32)), "is not the one"),
        (format!("other:{}", "11".repeat(32)), "does not have"),
        (String::from("nonsense"), "key_pepper"),
    ] {
        let told = start(pepper).await.expect_failure().text();
        assert!(told.contains(says) && !told.contains("1111"), "{told}");
    }
    app.finish().await;
}

//! The pictures of the README, made by `LISTMILL_TEST_PICTURES=1 tests/run dashboard::pictures`.

use std::path::Path;

use listmill_tests::{Size, lists};
use serde_json::json;

use super::{WORK, alone};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_the_readme() {
    if std::env::var_os("LISTMILL_TEST_PICTURES").is_none() {
        return;
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/pictures");
    std::fs::create_dir_all(&folder).expect("a folder");
    let app = alone(Size::Embedded).latency("30ms").concurrency(64).start().await;
    let login = app.person(100_000).await;
    let client = login.client(&app).await;
    let mut emails = lists::people(4_000);
    for (start, count) in [("undeliverable", 500), ("risky", 300), ("unknown", 200)] {
        emails.extend((0..count).map(|n| format!("{start}{n}@example.org")));
    }
    let submit = async |name: &str, emails: &[String]| {
        client.submit_json(&json!({ "name": name, "emails": emails })).await.id
    };
    let done = submit("Customers 2026", &emails).await;
    client.wait_for(&done, "completed", WORK).await;
    let ended = submit("Old newsletter", &lists::people(20_000)).await;
    client.wait_until(&ended, "a part", WORK, |task| task.processed_at_least(12)).await;
    client.cancel(&ended).await;
    let running = submit("Spring newsletter", &lists::people(30_000)).await;
    client.wait_until(&running, "a part", WORK, |task| task.processed_at_least(20)).await;

    let browser = login.browse(&app).await;
    browser.emulate(1_280).await;
    let picture = async |path: &str, words: &str, name: &str| {
        browser.open(path).await;
        browser.wait_for(words).await;
        browser.screenshot(&folder.join(name)).await;
    };
    picture("/tasks", "Spring newsletter", "tasks.png").await;
    picture(&format!("/tasks/{done}"), "Customers 2026", "task.png").await;
    picture("/keys", "API keys", "keys.png").await;
    browser.emulate(390).await;
    picture("/tasks", "Spring newsletter", "tasks-phone.png").await;
    browser.emulate(1_280).await;
    browser.dark().await;
    picture("/credits", "Credits", "credits-dark.png").await;
    client.cancel(&running).await;
    browser.finish().await;
    app.finish().await;
}

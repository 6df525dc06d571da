//! A key's life in a browser, while a list that it submitted is at work.

use listmill_tests::browser::{Browser, Key};
use listmill_tests::dashboard::PASSWORD;
use listmill_tests::{Deployment, Size, lists};

use super::{WORK, browsed};

const LABEL: &str = "the one for production";

/// Opens the menu of the newest key of this label, and one of its entries.
async fn act(browser: &Browser, entry: &str) {
    browser.open("/keys").await;
    browser.row(LABEL).button("Actions").click().await;
    browser.row(LABEL).item(entry).click().await;
    browser.dialog().wait().await;
}

/// Gives the password where the dialog asks for it, and confirms.
async fn confirm(browser: &Browser, button: &str) {
    if browser.dialog().field("Password").is_there().await {
        browser.dialog().field("Password").fill(PASSWORD).await;
    }
    browser.dialog().button(button).click().await;
}

/// The secret that the page shows, this once.
async fn secret(app: &Deployment, browser: &Browser) -> String {
    let field = browser.field("API key");
    let secret = field.value().await;
    assert!(secret.starts_with("VEC"), "{secret}");
    assert!(field.attribute("readonly").await.is_some(), "it cannot be changed");
    app.keep_secret(&secret);
    secret
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_task_runs() {
    let size = Size::SCALED;
    let app = browsed(size.with(2, 2)).latency("100ms").concurrency(16).start().await;
    let login = app.person(60_000).await;
    let browser = login.browse(&app).await;
    browser.allow_clipboard().await;

    browser.open("/keys").await;
    browser.heading("API keys").wait().await;
    browser.button("Generate").click().await;
    browser.dialog().field("Label").fill(LABEL).await;
    browser.assert_accessible("the dialog that makes a key").await;
    confirm(&browser, "Generate").await;
    let first = secret(&app, &browser).await;
    browser.wait_for("will not be shown again").await;
    browser.assert_accessible("a key that is shown once").await;
    browser.button("Copy").click().await;
    browser.wait_for("Copied").await;
    assert_eq!(browser.clipboard().await, first);
    // Looked at again, it is gone.
    browser.open("/keys").await;
    browser.row(LABEL).wait().await;
    let text = browser.script("return document.documentElement.outerHTML", vec![]).await;
    assert!(!text.to_string().contains(&first), "the secret is in a later page");

    // Its task is at work through all that follows.
    let client = app.client(&first);
    let task = client.submit(&lists::people(30_000)).await.id;
    client.wait_until(&task, "it runs", WORK, |task| task.counts.processed > 0).await;

    act(&browser, "Disable").await;
    browser.dialog().wait_for("1 task").await;
    browser.press(Key::Escape).await;
    browser.dialog().wait_gone().await;
    client.get("/v1/tasks").await.expect(200);
    act(&browser, "Disable").await;
    browser.assert_accessible("the dialog before a disable").await;
    confirm(&browser, "Confirm").await;
    browser.wait_for(&task).await;
    client.get("/v1/tasks").await.expect(403);
    browser.open("/keys").await;
    browser.row(LABEL).wait_for("Disabled").await;

    act(&browser, "Enable").await;
    confirm(&browser, "Confirm").await;
    browser.row(LABEL).wait_for("Active").await;
    client.get("/v1/tasks").await.expect(200);

    act(&browser, "Limits").await;
    browser.dialog().field("Requests a minute").fill("600").await;
    confirm(&browser, "Confirm").await;
    browser.dialog().wait_gone().await;
    client.get("/v1/tasks").await.expect(200);

    act(&browser, "Rotate").await;
    confirm(&browser, "Confirm").await;
    let second = secret(&app, &browser).await;
    assert_ne!(second, first);
    let client = app.client(&second);
    client.get("/v1/tasks").await.expect(200);

    act(&browser, "Delete").await;
    confirm(&browser, "Confirm").await;
    browser.wait_for("Receipt").await;
    client.get("/v1/tasks").await.expect(401);
    browser.assert_accessible("a receipt").await;

    // Nothing of that has stopped the task.
    let other = login.client(&app).await;
    let now = other.task(&task).await;
    assert_eq!(now.status, "running", "{now:#?}");
    let processed = now.counts.processed;
    other.wait_until(&task, "it goes on", WORK, |task| task.counts.processed > processed).await;
    other.cancel(&task).await;
    browser.finish().await;
    app.finish().await;
}

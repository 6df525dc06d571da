//! Credits in a browser: they run out while one looks on, and come back.

use listmill_tests::{Size, lists};
use serde_json::json;

use super::{WORK, browsed, task_when};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn they_run_out_and_come_back() {
    let size = Size::Embedded;
    let app = browsed(size.with(2, 2)).env("LISTMILL_BATCH_SIZE", "64").start().await;
    let login = app.person(700).await;
    let browser = login.browse(&app).await;
    browser.script("window.marker = 1", vec![]).await;
    // Submitted elsewhere: where there is no list yet, the page says so by itself.
    let body = json!({ "name": "too long", "emails": lists::people(1_000), "allow_partial": true });
    login.client(&app).await.submit_json(&body).await;
    browser.wait_for("1 new task").await;
    assert_eq!(browser.script("return window.marker", vec![]).await, 1, "by itself");
    browser.button("1 new task").click().await;
    browser.row("too long").wait_long_for("paused", WORK).await;
    browser.row("too long").wait_for("300 credits are missing").await;
    browser.assert_accessible("a task without credits").await;
    let task = task_when(&app, &login, "paused", |t| t["status"] == "paused").await;
    assert_eq!(task["credits"]["charged"].as_f64(), Some(700.0), "{task}");

    browser.open("/credits").await;
    browser.heading("Credits").wait().await;
    browser.wait_for("300 are missing").await;
    browser.assert_accessible("no credits").await;

    browser.open("/tasks").await;
    browser.row("too long").wait_long_for("paused", WORK).await;
    browser.script("window.marker = 2", vec![]).await;
    app.grant(&login.account, 300).await;
    browser.row("too long").wait_long_for("completed", WORK).await;
    assert_eq!(browser.script("return window.marker", vec![]).await, 2, "by itself");

    browser.open("/credits").await;
    browser.wait_for("Every credit is accounted for").await;
    browser.wait_for("Exact").await;
    assert!(!browser.text().await.contains("are missing"));
    // The file says the same as the page.
    let person = login.person(&app).await;
    let csv = person.get("/credits/ledger.csv").await.expect(200);
    assert!(csv.text.lines().count() > 3, "{}", csv.text);
    browser.finish().await;
    app.finish().await;
}

//! The http provider inside the product, before a scripted service and before another Listmill.

use std::collections::HashMap;

use listmill_tests::{Client, Setup, Size, Task, Weight, for_each_size};

use super::server::{Seen, Upstream, say};
use super::services;

for_each_size!(
    a_list_is_verified_by_another_service,
    a_list_is_verified_by_another_listmill,
    evidence_is_kept_unless_it_is_off,
);

const MAP: &str = "/status ok = accepted; /status bad = mailbox_not_found; /status all = catch_all";
const SECRET: &str = "sesame-open-sesame";

/// Address → reason and credit.
async fn verify(client: &Client, list: &[&str]) -> (Task, HashMap<String, (String, String)>) {
    let task = client.submit(list).await;
    let task = client.wait_completed(&task.id).await;
    let rows = client.results(&task.id).await;
    let text = |row: &serde_json::Value, name: &str| row[name].as_str().unwrap_or("").to_owned();
    let found =
        rows.iter().map(|row| (text(row, "email"), (text(row, "reason"), text(row, "credit"))));
    (task, found.collect())
}

fn expected(want: &[(&str, &str, &str)]) -> HashMap<String, (String, String)> {
    let pair = |reason: &str, credit: &str| (reason.to_owned(), credit.to_owned());
    want.iter().map(|(email, reason, credit)| ((*email).to_owned(), pair(reason, credit))).collect()
}

async fn a_list_is_verified_by_another_service(size: Size) {
    let service = Upstream::start(|seen: &Seen| {
        let word = match seen.path.split("%40").next().unwrap_or_default() {
            local if local.ends_with("known") => "ok",
            local if local.ends_with("all") => "all",
            local if local.ends_with("odd") => "sesame-open-sesame-odd",
            _ => "bad",
        };
        say(200, format!("{{\"status\":\"{word}\",\"key\":\"{SECRET}\"}}"))
    })
    .await;
    let setup = Setup::new(size.with(1, 1)).env("LISTMILL_PROVIDER", "http");
    let setup =
        setup.env("LISTMILL_HTTP_URL", format!("{}/v1?key={{key}}&e={{email}}", service.base()));
    let setup = setup.env("LISTMILL_HTTP_KEY", SECRET).env("LISTMILL_HTTP_MAP", MAP);
    let setup = setup.env("LISTMILL_RESULT_CACHE", "1h").env("LISTMILL_LOG", "debug");
    let app = setup.start().await;
    app.keep_secret(SECRET);
    let client = &app.customer(100).await.client;
    let list = [
        "known@a.test",
        "known@A.test",
        "all@a.test",
        "odd@a.test",
        "none@a.test",
        "not an address",
    ];
    let (task, found) = verify(client, &list).await;
    let want = [
        ("known@a.test", "accepted", "charged"),
        ("all@a.test", "catch_all", "charged"),
        ("odd@a.test", "internal_error", "refunded"),
        ("none@a.test", "mailbox_not_found", "charged"),
        ("not an address", "invalid_syntax", "free"),
    ];
    assert_eq!(found, expected(&want));
    assert_eq!((task.credits.charged, task.credits.refunded), (3, 1));
    assert_eq!(service.asked(), 4);
    // Remembered, and charged like fresh ones; only the unknown one is asked about again.
    let (task, found) = verify(client, &list).await;
    assert_eq!(found, expected(&want));
    assert_eq!((task.credits.charged, task.credits.refunded), (3, 1));
    assert_eq!(service.asked(), 5);
    let verifies = app.workers.first().unwrap_or(&app.apis[0]);
    let log = verifies.process.output();
    assert_eq!(log.matches("which no line of http_map knows").count(), 1, "{log}");
    app.finish().await;
}

async fn evidence_is_kept_unless_it_is_off(size: Size) {
    let service = Upstream::start(|_: &Seen| say(200, r#"{"status":"ok"}"#.to_owned())).await;
    for (evidence, kept) in [("on", true), ("off", false)] {
        let setup = Setup::new(size.with(1, 1)).env("LISTMILL_PROVIDER", "http");
        let setup = setup.env("LISTMILL_HTTP_URL", format!("{}/?e={{email}}", service.base()));
        let setup = setup.env("LISTMILL_HTTP_MAP", MAP).env("LISTMILL_EVIDENCE", evidence);
        let app = setup.start().await;
        let client = &app.customer(1).await.client;
        let (task, _) = verify(client, &["kate@a.test"]).await;
        let path = format!("/v1/tasks/{}/results/0", task.id);
        let result = client.get(&path).await.expect(200).json();
        assert_eq!(result["reason"], "accepted", "{result}");
        assert_eq!(result["evidence"]["http"] == 200, kept, "{result}");
        assert_eq!(result["evidence"].is_null(), !kept, "{result}");
        app.finish().await;
    }
}

async fn a_list_is_verified_by_another_listmill(size: Size) {
    // The other one is of the small size: what matters is its API.
    let other = Setup::new(Size::Embedded).weight(Weight::Middle).start().await;
    let behind = other.customer(100).await;
    let setup = Setup::new(size.with(1, 1)).weight(Weight::Beside);
    let settings = services::settings("Another Listmill", &other.apis[0].base());
    let setup = setup
        .env("LISTMILL_PROVIDER", "http")
        .env("LISTMILL_HTTP_URL", settings.http_url.reveal())
        .env("LISTMILL_HTTP_HEADER", settings.http_header.reveal())
        .env("LISTMILL_HTTP_BODY", settings.http_body.reveal())
        .env("LISTMILL_HTTP_MAP", settings.http_map.as_str())
        .env("LISTMILL_HTTP_FIELDS", settings.http_fields.as_str())
        .env("LISTMILL_HTTP_KEY", behind.key.secret.as_str());
    let app = setup.start().await;
    app.keep_secret(&behind.key.secret);
    let client = &app.customer(100).await.client;
    let list = [
        "kate@a.test",
        "undeliverable@a.test",
        "risky@a.test",
        "full@a.test",
        "kate@disposable.test",
        "unknown@a.test",
        "flaky@a.test",
    ];
    let (_, found) = verify(client, &list).await;
    let want = [
        ("kate@a.test", "accepted", "charged"),
        ("undeliverable@a.test", "mailbox_not_found", "charged"),
        ("risky@a.test", "catch_all", "charged"),
        ("full@a.test", "mailbox_full", "charged"),
        ("kate@disposable.test", "disposable", "charged"),
        ("unknown@a.test", "timeout", "refunded"),
        ("flaky@a.test", "accepted", "charged"),
    ];
    assert_eq!(found, expected(&want));
    // Both sides agree on what was charged, and each on its own books.
    assert_eq!((client.balance().await, behind.client.balance().await), (94, 94));
    app.finish().await;
    other.finish().await;
}

//! The suspension of an account: nothing is begun in it from then on, on any process; its people can look, and others
//! notice nothing.

use std::time::Duration;

use listmill_tests::{Deployment, Person, Setup, Size, eventually, for_each_size, lists};
use reqwest::multipart::Form;
use serde_json::{Value, json};

use super::operator::{audited, boss};

for_each_size!(
    an_account_is_suspended_and_let_go,
    tasks_go_on_or_stop_as_it_was_asked,
    the_shell_does_the_same,
);

const CONTACT: &str = "abuse@provider.example";

/// What each API process says to this key.
async fn told(app: &Deployment, secret: &str) -> Vec<(u16, Value)> {
    let mut all = Vec::new();
    for api in 0..app.apis.len() {
        let reply = app.client_of(api, secret).get("/v1/account/credits").await;
        all.push((reply.status, reply.json()));
    }
    all
}

async fn assert_refused(app: &Deployment, secret: &str, reason: &str) {
    let want = json!({
        "error": "API key is suspended",
        "reason": format!("This account is suspended: {reason}. Contact: {CONTACT}"),
    });
    for (status, body) in told(app, secret).await {
        assert_eq!((status, &body), (403, &want));
    }
}

async fn assert_let_in(app: &Deployment, secret: &str) {
    for (status, body) in told(app, secret).await {
        assert_eq!(status, 200, "{body}");
    }
}

async fn an_account_is_suspended_and_let_go(size: Size) {
    let app = Setup::new(size.with(2, 1)).start().await;
    let (email, boss) = boss(&app).await;
    let login = app.person(50).await;
    let owner = login.person(&app).await;
    let key = app.create_key(&login.account).await;
    let args = ["admin", "root-key", "create", "--account", &login.account, "--json"];
    let root = app.cli(&args).await.expect_success().json();
    let root = root["key"].as_str().expect("a root key").to_owned();
    app.keep_secret(&root);
    let root = app.client(&root);
    let other = app.customer(10).await;
    let task = app.client(&key.secret).submit(&lists::people(10)).await.id;
    app.client(&key.secret).wait_completed(&task).await;

    let reason = "<b>spam</b> traps";
    let path = format!("/operator/accounts/{}", login.account);
    let fields = [("reason", reason), ("contact", CONTACT)];
    let done = boss.submit(&format!("{path}/suspend"), "/suspend", &fields).await;
    done.expect_redirect(&path);
    assert_refused(&app, &key.secret, reason).await;
    let new = app.create_key(&login.account).await;
    assert_refused(&app, &new.secret, reason).await;
    let verify = json!({ "key": "nobody's" });
    let refused = root.post("/v2/keys.verifyKey", &verify).await.expect(403).json();
    let detail = refused["error"]["detail"].as_str().expect("a detail");
    assert!(detail.contains(reason) && detail.contains(CONTACT), "{refused}");
    assert_let_in(&app, &other.key.secret).await;

    // Its people look and download.
    for page in ["/tasks", "/keys", "/requests", "/credits", "/account"] {
        let page = owner.get(page).await.expect(200);
        let words = page.words();
        assert!(words.contains("This account is suspended"), "{words}");
        assert!(words.contains(reason) && words.contains(CONTACT), "{words}");
        assert!(!page.text.contains(reason), "it is text");
        for button in ["Start verification", "Generate key"] {
            assert!(!words.contains(button), "{button} in {words}");
        }
    }
    owner.get(&format!("/tasks/{task}/download?format=csv")).await.expect(200);
    owner.get("/credits/ledger.csv").await.expect(200);
    login.person(&app).await.get("/tasks").await.expect(200);
    // They begin nothing.
    assert_begins_nothing(&owner, &key.id).await;
    other.client.submit(&lists::people(5)).await;

    let seen = boss.get(&path).await.expect(200).words();
    assert!(
        seen.contains("suspended") && seen.contains(reason) && seen.contains(CONTACT),
        "{seen}"
    );
    boss.submit(&format!("{path}/unsuspend"), "/unsuspend", &[]).await.expect_redirect(&path);
    for secret in [&key.secret, &new.secret] {
        assert_let_in(&app, secret).await;
    }
    assert_ne!(root.post("/v2/keys.verifyKey", &verify).await.status, 403);
    owner.get("/keys/new").await.expect(200);
    owner.get("/tasks").await.expect(200).assert_lacks("This account is suspended");
    for action in ["account.suspend", "account.unsuspend"] {
        let rows = audited(&app, &login.account, action).await;
        assert_eq!(rows.len(), 1, "{action}");
        assert_eq!(rows[0]["actor"], json!({ "person": email }), "{}", rows[0]);
        let what = if action == "account.suspend" { "after" } else { "before" };
        assert_eq!(rows[0][what]["contact"], CONTACT, "{}", rows[0]);
    }
    let wrong = [[("reason", ""), ("contact", "x")], [("reason", "x"), ("contact", "")]];
    for fields in wrong {
        let refused = boss.post(&format!("{path}/suspend"), &fields).await;
        assert!((400..500).contains(&refused.status), "{}", refused.reply);
    }
    assert_let_in(&app, &key.secret).await;
    app.finish().await;
}

async fn assert_begins_nothing(owner: &Person, key: &str) {
    owner.get("/tasks").await.expect(200);
    let form = Form::new().text("csrf", owner.csrf()).text("addresses", "ada@example.com");
    let request = owner.request(reqwest::Method::POST, "/tasks").multipart(form);
    owner.send(request).await.expect(403);
    for path in [String::from("/keys/new"), format!("/keys/{key}/rotate")] {
        owner.get(&path).await.expect(403);
        owner.get("/tasks").await.expect(200);
        owner.post(&path, &[("label", "x")]).await.expect(403);
    }
}

async fn tasks_go_on_or_stop_as_it_was_asked(size: Size) {
    let setup = Setup::new(size.with(1, 1)).latency("200ms").concurrency(10);
    let app = setup.env("LISTMILL_BATCH_SIZE", "10").start().await;
    let (_, boss) = boss(&app).await;
    let login = app.person(500).await;
    let owner = login.person(&app).await;
    let client = app.client(&app.create_key(&login.account).await.secret);
    let path = format!("/operator/accounts/{}", login.account);
    for (how, then) in [("keep", "Completed"), ("pause", "Paused"), ("cancel", "Cancelled")] {
        let id = client.submit(&lists::people(100)).await.id;
        let fields = [("reason", "abuse"), ("contact", CONTACT), ("tasks", how)];
        boss.submit(&format!("{path}/suspend"), "/suspend", &fields).await.expect_redirect(&path);
        let (owner_ref, page) = (&owner, format!("/tasks/{id}"));
        let page = &page;
        eventually(&format!("{how}: {then}"), Duration::from_secs(30), || async move {
            owner_ref.get(page).await.words().contains(then).then_some(())
        })
        .await;
        if how == "pause" {
            owner.get(page).await.expect(200).assert_lacks("/resume");
            owner.post(&format!("{page}/resume"), &[]).await.expect(403);
        }
        boss.submit(&format!("{path}/unsuspend"), "/unsuspend", &[]).await.expect_redirect(&path);
        if how == "pause" {
            owner.submit(page, "/resume", &[]).await.expect(303);
        }
        let task = match how {
            "cancel" => client.task(&id).await,
            _ => client.wait_completed(&id).await,
        };
        let whole = if how == "cancel" { task.credits.charged } else { 100 };
        assert_eq!((task.credits.charged, task.credits.held), (whole, 0), "{how}");
    }
    app.finish().await;
}

async fn the_shell_does_the_same(size: Size) {
    let app = Setup::new(size).start().await;
    let customer = app.customer(10).await;
    let account = customer.account.as_str();
    let args = ["admin", "account", "suspend", "--account", account, "--reason", "abuse", "--json"];
    let failed = app.cli(&args).await.expect_failure();
    assert!(failed.stderr.contains("contact"), "{failed:#?}");
    assert_let_in(&app, &customer.key.secret).await;
    let with = ["--contact", CONTACT, "--tasks", "pause"];
    let done = app.cli(&[&args[..], &with[..]].concat()).await.expect_success().json();
    assert_eq!((&done["status"], &done["tasks"]), (&json!("suspended"), &json!("pause")));
    assert_refused(&app, &customer.key.secret, "abuse").await;
    let args = ["admin", "account", "unsuspend", "--account", account, "--json"];
    let done = app.cli(&args).await.expect_success().json();
    assert_eq!(done["was_suspended"]["reason"], "abuse", "{done}");
    assert_let_in(&app, &customer.key.secret).await;
    let again = app.cli(&args).await.expect_success().json();
    assert_eq!(again["was_suspended"], Value::Null);
    let rows = audited(&app, account, "account.suspend").await;
    assert_eq!(rows[0]["actor"], json!({ "operator": true }), "{}", rows[0]);
    app.finish().await;
}

//! The operators' pages: there for operators alone, without secrets, and what is done there stands in the audit log
//! with the person.

use listmill_tests::{Deployment, Person, Setup, Size, for_each_size};
use serde_json::{Value, json};

for_each_size!(
    to_others_there_are_no_such_pages,
    no_secret_stands_on_any_page,
    credits_are_booked_by_a_person,
    a_key_is_suspended_and_let_go,
    networks_are_blocked_and_let_in,
    accounts_are_made,
    forms_need_their_token,
);

/// Pages that need no id.
const PAGES: &[&str] = &[
    "/operator",
    "/operator/accounts",
    "/operator/accounts?email=person",
    "/operator/accounts/new",
    "/operator/keys",
    "/operator/keys?by=label&q=made",
    "/operator/keys?by=start&q=VEC",
    "/operator/keys?by=external_id&q=nobody",
    "/operator/keys?by=id&q=nonsense",
    "/operator/networks",
    "/operator/networks/new",
    "/operator/networks/unblock?network=192.0.2.1%2F32",
    "/operator/workers",
    "/operator/workers/drain?name=nobody",
    "/operator/hosts",
    "/operator/failures",
    "/operator/audit",
    "/operator/audit?check=1",
    "/operator/audit?account=nobody%40example.com",
    "/operator/settings",
    "/operator/doctor",
];

/// Pages of an account and of a key.
fn pages_of(account: &str, key: &str) -> Vec<String> {
    let mut all: Vec<String> = PAGES.iter().map(|path| (*path).to_owned()).collect();
    for below in ["", "/credits", "/weight", "/suspend", "/unsuspend"] {
        all.push(format!("/operator/accounts/{account}{below}"));
    }
    for below in ["", "/suspend", "/unsuspend"] {
        all.push(format!("/operator/keys/{key}{below}"));
    }
    all.push(format!("/operator/audit?account={account}&check=1"));
    all.push(format!("/operator/keys?by=account&q={account}"));
    all
}

/// What is posted, with what.
fn forms_of(account: &str, key: &str) -> Vec<(String, Vec<(&'static str, &'static str)>)> {
    let account = |below: &str| format!("/operator/accounts/{account}/{below}");
    let key = |below: &str| format!("/operator/keys/{key}/{below}");
    vec![
        (String::from("/operator/accounts"), vec![("email", "new@customer.example")]),
        (account("credits"), vec![("amount", "5")]),
        (account("weight"), vec![("weight", "5")]),
        (account("suspend"), vec![("reason", "abuse"), ("contact", "abuse@provider.example")]),
        (account("unsuspend"), vec![]),
        (String::from("/operator/workers/drain?name=nobody"), vec![]),
        (account("reconcile"), vec![]),
        (key("suspend"), vec![("reason", "abuse")]),
        (key("unsuspend"), vec![]),
        (String::from("/operator/networks"), vec![("network", "192.0.2.1")]),
        (String::from("/operator/networks/unblock"), vec![("network", "192.0.2.1")]),
    ]
}

pub async fn boss(app: &Deployment) -> (String, Person) {
    let login = app.operator(0).await;
    (login.email.clone(), login.person(app).await)
}

/// Rows of an account's audit log with this action, newest first, as the command line has them.
pub async fn audited(app: &Deployment, account: &str, action: &str) -> Vec<Value> {
    let args = ["admin", "audit", "export", "--account", account];
    let text = app.cli(&args).await.expect_success().stdout;
    let rows = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("a row"));
    let mut rows: Vec<Value> = rows.filter(|row| row["action"] == action).collect();
    rows.reverse();
    rows
}

async fn to_others_there_are_no_such_pages(size: Size) {
    let app = Setup::new(size).start().await;
    let customer = app.customer(10).await;
    let (_, boss) = boss(&app).await;
    let somebody = app.person(10).await.person(&app).await;
    let stranger = Person::stranger(&app);
    for path in pages_of(&customer.account, &customer.key.id) {
        somebody.get(&path).await.expect(404);
        let page = boss.get(&path).await.expect(200);
        assert_eq!(page.text.matches("<h1>").count(), 1, "{path}");
        let sent = stranger.get(&path).await.expect(303);
        assert!(sent.location.is_some_and(|to| to.starts_with("/login?next=")), "{path}");
    }
    // The token is right: it is that of a page that they may see.
    somebody.get("/tasks").await.expect(200);
    for (path, fields) in forms_of(&customer.account, &customer.key.id) {
        somebody.post(&path, &fields).await.expect(404);
    }
    assert!(audited(&app, &customer.account, "account.weight").await.is_empty());
    for path in ["/operator/nowhere", "/operator/accounts/acct_1", "/operator/keys/key_1"] {
        boss.get(path).await.expect(404);
    }
    app.finish().await;
}

async fn no_secret_stands_on_any_page(size: Size) {
    const SECRET: &str = "s3cr3t-of-the-settings";
    let http = ["LISTMILL_HTTP_KEY", "LISTMILL_HTTP_HEADER", "LISTMILL_HTTP_BODY"];
    let setup = http.iter().fold(Setup::new(size), |setup, name| setup.env(name, SECRET));
    let app = setup.start().await;
    let customer = app.customer(10).await;
    let (_, boss) = boss(&app).await;
    let settings = boss.get("/operator/settings").await.expect(200).words();
    for shown in ["http_key hidden", "batch_size", "key_pepper"] {
        assert!(settings.contains(shown), "there is no {shown:?} in {settings}");
    }
    let url = app.database_url();
    for path in pages_of(&customer.account, &customer.key.id) {
        let page = boss.get(&path).await.expect(200);
        assert!(!page.text.contains(SECRET), "{path}");
        assert!(!page.text.contains(&customer.key.secret), "{path}");
        let shown = url.starts_with("postgres") && page.text.contains(&url);
        assert!(!shown, "{path} shows who uses the database");
    }
    // A whole key is not looked for: it would stand in the address.
    let asked = boss.get(&format!("/operator/keys?q={}", customer.key.secret)).await;
    assert_eq!(asked.status, 422);
    assert!(!asked.text.contains(&customer.key.secret));
    app.finish().await;
}

async fn credits_are_booked_by_a_person(size: Size) {
    let app = Setup::new(size).start().await;
    let customer = app.customer(10).await;
    let (email, boss) = boss(&app).await;
    let path = format!("/operator/accounts/{}", customer.account);
    let note = "<b>a gift</b>";
    let booked = boss
        .submit(&format!("{path}/credits"), "/credits", &[("amount", "25"), ("note", note)])
        .await;
    booked.expect_redirect(&path);
    let page = boss.get(&path).await.expect(200);
    assert!(page.words().contains("25 credits were booked; the balance is 35."), "{}", page.text);
    assert!(page.words().contains(note) && !page.text.contains(note), "it is text");
    let ledger = customer.client.get("/v1/ledger").await.expect(200).json();
    let entry = &ledger["data"][0];
    assert_eq!((&entry["type"], &entry["amount"]), (&json!("grant"), &json!(25)), "{entry}");
    assert_eq!(entry["note"], note);
    let rows = audited(&app, &customer.account, "credits.grant").await;
    assert_eq!(rows[0]["actor"], json!({ "person": email }), "{}", rows[0]);
    assert!(rows[0]["ip"].is_string() && rows[0]["request_id"].is_string(), "{}", rows[0]);
    // Taken back, but never below zero.
    boss.post(&format!("{path}/credits"), &[("amount", "-25")]).await.expect(303);
    for wrong in ["-11", "0", "many", ""] {
        let refused = boss.post(&format!("{path}/credits"), &[("amount", wrong)]).await;
        assert!((400..500).contains(&refused.status), "{wrong}: {}", refused.reply);
    }
    boss.post(&format!("{path}/weight"), &[("weight", "3")]).await.expect(303);
    let rows = audited(&app, &customer.account, "account.weight").await;
    assert_eq!(rows[0]["actor"], json!({ "person": email }));
    let books = boss.submit(&path, "/reconcile", &[]).await.expect(200).words();
    assert!(books.contains("Every credit is accounted for"), "{books}");
    app.finish().await;
}

async fn a_key_is_suspended_and_let_go(size: Size) {
    let app = Setup::new(size).start().await;
    let customer = app.customer(10).await;
    let (email, boss) = boss(&app).await;
    let path = format!("/operator/keys/{}", customer.key.id);
    let fields = [("reason", "spam traps"), ("note", "ticket 7"), ("lasts", "1h")];
    boss.submit(&format!("{path}/suspend"), "/suspend", &fields).await.expect_redirect(&path);
    let refused = customer.client.get("/v1/account/credits").await.expect(403).text();
    assert!(refused.contains("spam traps") && !refused.contains("ticket 7"), "{refused}");
    let asked = boss.get(&format!("{path}/unsuspend")).await.expect(200).words();
    assert!(asked.contains("spam traps ticket 7"), "{asked}");
    boss.submit(&format!("{path}/unsuspend"), "/unsuspend", &[]).await.expect_redirect(&path);
    let page = boss.get(&path).await.expect(200).words();
    assert!(page.contains("An operator or a report had suspended it."), "{page}");
    customer.client.get("/v1/account/credits").await.expect(200);
    for action in ["key.suspend", "key.unsuspend"] {
        let rows = audited(&app, &customer.account, action).await;
        assert_eq!(rows.len(), 1, "{action}");
        assert_eq!(rows[0]["actor"], json!({ "person": email }), "{action}");
    }
    for (reason, lasts) in [("", ""), ("x", "soon"), ("x", "0s")] {
        let fields = [("reason", reason), ("lasts", lasts)];
        let refused = boss.post(&format!("{path}/suspend"), &fields).await;
        assert!((400..500).contains(&refused.status), "{}", refused.reply);
    }
    boss.post(&format!("{path}/suspend"), &[("reason", "abuse")]).await.expect(303);
    let found = boss.get(&format!("/operator/keys?by=id&q={}", customer.key.id)).await.expect(200);
    assert!(found.words().contains("suspended abuse"), "{}", found.words());
    app.finish().await;
}

async fn networks_are_blocked_and_let_in(size: Size) {
    let app = Setup::new(size).start().await;
    let (_, boss) = boss(&app).await;
    let (pages, reason) = ("/operator/networks", "<script>x</script>");
    let fields = [("network", "192.0.2.9/24"), ("reason", reason), ("lasts", "1d")];
    boss.submit("/operator/networks/new", pages, &fields).await.expect_redirect(pages);
    let page = boss.get(pages).await.expect(200);
    assert!(page.words().contains("192.0.2.0/24 is blocked from the next request on."));
    assert!(page.words().contains(reason) && !page.text.contains(reason), "it is text");
    let refused = boss.post(pages, &[("network", "nonsense")]).await;
    assert!((400..500).contains(&refused.status), "{}", refused.reply);
    let ask = page.links().into_iter().find(|link| link.contains("unblock")).expect("a link");
    boss.submit(&ask, "/unblock", &[("reason", "a slip")]).await.expect_redirect(pages);
    let page = boss.get(pages).await.expect(200).words();
    assert!(page.contains("Nothing is blocked."), "{page}");
    app.finish().await;
}

async fn accounts_are_made(size: Size) {
    let app = Setup::new(size).start().await;
    let (_, boss) = boss(&app).await;
    let fields =
        [("email", "ada@customer.example"), ("password", "a long password"), ("credits", "70")];
    let made = boss.submit("/operator/accounts/new", "/operator/accounts", &fields).await;
    let path = made.expect(303).location.expect("a page");
    let page = boss.get(&path).await.expect(200).words();
    assert!(page.contains("ada@customer.example") && page.contains("Email credits 70"), "{page}");
    Person::login(&app, "ada@customer.example", "a long password").await;
    let list = boss.get("/operator/accounts?email=ada").await.expect(200).words();
    assert!(list.contains("ada@customer.example"), "{list}");
    for (email, password, credits) in [
        ("ada@customer.example", "", ""),
        ("nobody", "", ""),
        ("b@customer.example", "short", ""),
        ("b@customer.example", "", "-1"),
    ] {
        let fields = [("email", email), ("password", password), ("credits", credits)];
        boss.post("/operator/accounts", &fields).await.expect(422);
    }
    app.finish().await;
}

async fn forms_need_their_token(size: Size) {
    let app = Setup::new(size).start().await;
    let customer = app.customer(10).await;
    let (_, boss) = boss(&app).await;
    for (path, fields) in forms_of(&customer.account, &customer.key.id) {
        boss.post_raw(&path, &fields).await.expect(403);
        let mut wrong = fields.clone();
        wrong.push(("csrf", "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"));
        boss.post_raw(&path, &wrong).await.expect(403);
    }
    customer.client.get("/v1/account/credits").await.expect(200);
    assert!(audited(&app, &customer.account, "account.weight").await.is_empty());
    app.finish().await;
}

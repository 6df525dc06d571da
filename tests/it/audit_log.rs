//! The audit log: every change by API and command line is in it, with who, from where and how it was; and
//! what is done to it behind the product's back is found.

use listmill_tests::client::send;
use listmill_tests::reply::assert_fields;
use listmill_tests::{Client, Deployment, Setup, Size, for_each_size, sql};
use reqwest::Method;
use serde_json::{Value, json};

for_each_size!(every_change_is_written_down, verify_says_where, every_answer_has_a_request_id);

/// The rows of a list, oldest first: action, actor, ip, request id.
fn told(rows: &[Value]) -> Vec<(String, Value, Value, Value)> {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let one = |row: &Value| {
        let (ip, request) = (row["ip"].clone(), row["request_id"].clone());
        (text(&row["action"]), row["actor"].clone(), ip, request)
    };
    rows.iter().rev().map(one).collect()
}

/// Sends a change under a name, from an address that a proxy tells.
async fn ask(
    client: &Client,
    method: Method,
    path: &str,
    name: &str,
    body: Option<Value>,
) -> Value {
    let request = client.request(method, path).header("x-request-id", name);
    let request = request.header("x-forwarded-for", "198.51.100.1, 203.0.113.9");
    let request = match body {
        Some(body) => request.json(&body).header("idempotency-key", format!("once-{name}")),
        None => request,
    };
    let reply = send(request).await;
    assert!(matches!(reply.status, 200 | 201), "{reply}");
    assert_eq!(reply.header("x-request-id"), Some(name), "{reply}");
    reply.json()
}

async fn export(app: &Deployment) -> (String, Vec<Value>) {
    let text = app.cli(&["admin", "audit", "export"]).await.expect_success().stdout;
    let rows = text.lines().map(|line| serde_json::from_str(line).expect("a JSON object"));
    let rows = rows.collect();
    (text, rows)
}

async fn every_change_is_written_down(size: Size) {
    let app = Setup::new(size).env("LISTMILL_TRUSTED_PROXIES", "127.0.0.0/8").start().await;
    let owner = app.customer(10).await;
    let (client, account) = (&owner.client, owner.account.as_str());
    let new = json!({ "label": "CI", "rate_limit": 77 });
    let made = ask(client, Method::POST, "/v1/keys", "r-make", Some(new.clone())).await;
    // Sent again: the same answer, and nothing is changed.
    ask(client, Method::POST, "/v1/keys", "r-make", Some(new)).await;
    let secret = made["key"].as_str().expect("key").to_owned();
    app.keep_secret(&secret);
    let id = made["id"].as_str().expect("id").to_owned();
    let key = listmill_tests::Key { id: id.clone(), secret: secret.clone() };
    ask(client, Method::POST, &format!("/v1/keys/{id}/disable"), "r-off", None).await;
    ask(client, Method::POST, &format!("/v1/keys/{id}/disable"), "r-off-again", None).await;
    ask(client, Method::POST, &format!("/v1/keys/{id}/enable"), "r-on", None).await;
    app.suspend(&key, "Leaked").await;
    app.unsuspend(&key).await;
    ask(client, Method::DELETE, &format!("/v1/keys/{id}"), "r-end", None).await;
    app.grant(account, 5).await;
    app.weigh(account, 3).await;
    app.block_ip("192.0.2.0/24").await;
    app.unblock_ip("192.0.2.0/24").await;

    let rows = client.all_pages("/v1/audit", 4).await;
    let fields = [
        "id",
        "at",
        "actor",
        "ip",
        "request_id",
        "action",
        "target",
        "before",
        "after",
        "hash",
        "previous",
    ];
    rows.iter().for_each(|row| assert_fields(row, &fields));
    let (operator, by) = (json!({ "operator": true }), json!({ "key": owner.key.id }));
    let cli = |action: &str| (action.to_owned(), operator.clone(), Value::Null, Value::Null);
    let api = |action: &str, request: &str| {
        (action.to_owned(), by.clone(), json!("203.0.113.9"), json!(request))
    };
    assert_eq!(
        told(&rows),
        [
            cli("account.create"),
            cli("credits.grant"),
            cli("key.create"),
            api("key.create", "r-make"),
            api("key.disable", "r-off"),
            api("key.enable", "r-on"),
            cli("key.suspend"),
            cli("key.unsuspend"),
            api("key.delete", "r-end"),
            cli("credits.grant"),
            cli("account.weight"),
        ]
    );
    // How it was, and how it is then.
    let of = |seq: usize| (rows[11 - seq]["before"].clone(), rows[11 - seq]["after"].clone());
    let (before, after) = of(4);
    assert_eq!(
        (&before, &after["label"], &after["rate_limit"]),
        (&Value::Null, &json!("CI"), &json!(77))
    );
    for (seq, was, is) in
        [(5, "active", "disabled"), (6, "disabled", "active"), (7, "active", "suspended")]
    {
        let (before, after) = of(seq);
        assert_eq!((&before["status"], &after["status"]), (&json!(was), &json!(is)), "{seq}");
        assert_eq!(rows[11 - seq]["target"], json!(id));
    }
    assert_eq!(of(7).1["suspended_reason"], "Leaked");
    let (before, after) = of(10);
    assert_eq!((&before["balance"], &after["balance"]), (&json!(10), &json!(15)), "{after}");
    assert_eq!(of(11), (json!({ "weight": 1 }), json!({ "weight": 3 })));
    // A chain: numbers without a gap, each row holds the hash of the one before.
    for (row, before) in rows.iter().zip(&rows[1..]) {
        assert_eq!(row["previous"], before["hash"], "{row}");
    }
    assert_eq!(rows[10]["previous"], "0".repeat(64));
    assert_eq!((&rows[0]["id"], &rows[10]["id"]), (&json!("audit_11"), &json!("audit_1")));

    filters_and_strangers(&app, client, &id).await;
    let (text, lines) = export(&app).await;
    let own: Vec<&Value> = lines.iter().filter(|line| line["account"] == account).collect();
    assert_eq!(own.len(), rows.len());
    for (line, row) in own.into_iter().zip(rows.iter().rev()) {
        let mut line = line.clone();
        line.as_object_mut().expect("an object").remove("account");
        assert_eq!(&line, row, "the export shows what the API shows");
    }
    // The first start makes a link to log in by.
    let of_nobody = |line: &&Value| line["account"].is_null() && line["action"] != "person.link";
    let nobodys: Vec<&Value> = lines.iter().filter(of_nobody).collect();
    let actions: Vec<&Value> = nobodys.iter().map(|line| &line["action"]).collect();
    assert_eq!(actions, ["ip.block", "ip.unblock"]);
    assert!(nobodys.iter().all(|line| line["target"] == "192.0.2.0/24"), "{nobodys:?}");
    for secret in [secret.as_str(), &owner.key.secret, "s3cret-of-ada"] {
        assert!(!text.contains(secret), "a secret is in the audit log");
    }
    assert!(!text.contains("argon2"), "no hash of a password either");
    app.finish().await;
}

async fn filters_and_strangers(app: &Deployment, client: &Client, id: &str) {
    let count = async |query: &str| client.all_pages(&format!("/v1/audit?{query}"), 2).await.len();
    assert_eq!(count("action=credits.grant").await, 2);
    assert_eq!(count(&format!("target={id}")).await, 6);
    assert_eq!(count(&format!("target={id}&action=key.delete")).await, 1);
    assert_eq!(count("action=key.rotate").await, 0);
    for wrong in ["limit=0", "limit=501", "cursor=l1", "cursor=a", "action=%00"] {
        client.get(&format!("/v1/audit?{wrong}")).await.expect(400).expect_problem();
    }
    let args = ["admin", "account", "create", "--email", "ada@example.com", "--password"];
    app.cli(&[&args[..], &["s3cret-of-ada"]].concat()).await.expect_success();
    let stranger = app.customer(0).await.client;
    let theirs = stranger.all_pages("/v1/audit", 100).await;
    let actions: Vec<&Value> = theirs.iter().map(|row| &row["action"]).collect();
    assert_eq!(actions, ["key.create", "account.create"], "only their own");
    assert!(stranger.all_pages(&format!("/v1/audit?target={id}"), 100).await.is_empty());
}

async fn verify_says_where(size: Size) {
    let app = Setup::new(size).start().await;
    let owner = app.customer(10).await;
    let other = app.customer(0).await;
    app.weigh(&owner.account, 3).await;
    let verify = async |of: &[&str]| {
        let args = [&["admin", "audit", "verify"], of, &["--json"]].concat();
        app.cli(&args).await
    };
    let whole = verify(&[]).await.expect_success().json();
    assert_eq!((&whole["ok"], &whole["broken"]), (&json!(true), &json!(0)), "{whole}");
    // Four and two, and what `up` writes down at its first start.
    assert!(whole["rows"].as_u64() >= Some(6), "{whole}");
    let hex = owner.account.strip_prefix("acct_").expect("an id");
    let id = if size.is_scaled() { format!("'{hex}'") } else { format!("x'{hex}'") };
    let url = app.database_url();
    let third = format!("WHERE chain = {id} AND seq = 3");
    let set = format!("UPDATE audit_log SET target = 'key_of_nobody' {third}");
    assert_eq!(sql::execute(&url, &set).await, 1);

    let broken = verify(&[]).await;
    assert_eq!(broken.code, Some(1), "{broken:#?}");
    let broken = broken.json();
    assert_eq!((&broken["ok"], &broken["broken"]), (&json!(false), &json!(1)), "{broken}");
    let place = &broken["breaks"][0];
    assert_eq!((&place["account"], &place["row"]), (&json!(owner.account), &json!(3)), "{broken}");
    assert_eq!(place["how"], "changed", "{broken}");
    let text = app.cli(&["admin", "audit", "verify"]).await;
    assert_eq!(text.code, Some(1), "{text:#?}");
    let line = format!("BROKEN  {}: row 3 was changed", owner.account);
    assert!(text.stdout.contains(&line), "{text:#?}");
    verify(&["--account", &other.account]).await.expect_success();
    let own = verify(&["--account", &owner.account]).await;
    assert_eq!((own.code, &own.json()["rows"]), (Some(1), &json!(4)), "{own:#?}");

    let last = format!("DELETE FROM audit_log WHERE chain = {id} AND seq = 4");
    assert_eq!(sql::execute(&url, &last).await, 1);
    let broken = verify(&["--account", &owner.account]).await.expect_failure().json();
    let how: Vec<_> =
        broken["breaks"].as_array().expect("breaks").iter().map(|one| &one["how"]).collect();
    assert_eq!(how, ["changed", "cut"], "{broken}");
    // What it shows is what is there, damaged or not.
    let rows = owner.client.all_pages("/v1/audit", 100).await;
    assert_eq!((rows.len(), &rows[0]["target"]), (3, &json!("key_of_nobody")));
    app.finish().await;
}

async fn every_answer_has_a_request_id(size: Size) {
    let app = Setup::new(size).start().await;
    let client = app.customer(0).await.client;
    let mut seen = std::collections::BTreeSet::new();
    for path in ["/v1/tasks", "/v1/tasks", "/v1/nothing", "/v1/tasks/task_x", "/healthz", "/docs"] {
        let reply = client.get(path).await;
        let id = reply.header("x-request-id").unwrap_or_else(|| panic!("none: {reply}"));
        assert!(id.starts_with("req_") && seen.insert(id.to_owned()), "{id}: {reply}");
    }
    let refused = app.anonymous().get("/v1/tasks").await.expect(401);
    assert!(refused.header("x-request-id").is_some(), "{refused}");
    let (longest, too_long) = ("x".repeat(64), "x".repeat(65));
    for (given, taken) in [("a/b:c~", true), (&longest, true), (&too_long, false), ("a b", false)] {
        let request = client.request(Method::GET, "/v1/tasks").header("x-request-id", given);
        let reply = send(request).await.expect(200);
        assert_eq!(reply.header("x-request-id") == Some(given), taken, "{given}: {reply}");
    }
    app.finish().await;
}

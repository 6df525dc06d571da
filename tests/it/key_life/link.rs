//! A link that shows a new key's secret once.

use futures::future::join_all;
use listmill_tests::client::send;
use listmill_tests::{Client, Deployment, Reply, Setup, Size, for_each_size, sql};
use reqwest::Method;
use serde_json::{Value, json};

use super::{make, patch};

for_each_size!(
    shows_a_key_to_one_of_many,
    is_not_used_up_by_looking,
    is_of_no_use_when_over,
    is_given_for_a_rotation_and_in_the_shell,
    has_limits,
);

/// What the link leads to, and its token, which no log may hold.
fn path_of(app: &Deployment, link: &Value) -> (String, String) {
    let link = link.as_str().expect("a link");
    let (_, token) = link.split_once("/once/").unwrap_or_else(|| panic!("{link}"));
    assert_eq!(token.len(), 64, "256 bits");
    app.keep_secret(token);
    (format!("/once/{token}"), token.to_owned())
}

async fn ask(client: &Client, method: Method, path: &str, accept: &str) -> Reply {
    let reply = send(client.request(method, path).header("accept", accept)).await;
    for (name, value) in [
        ("cache-control", "no-store"),
        ("referrer-policy", "no-referrer"),
        ("x-robots-tag", "noindex, nofollow"),
        ("x-content-type-options", "nosniff"),
    ] {
        assert_eq!(reply.header(name), Some(value), "{name}: {reply}");
    }
    let policy = reply.header("content-security-policy").unwrap_or_default();
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("script"), "{policy}");
    reply
}

async fn open(client: &Client, path: &str) -> Reply {
    ask(client, Method::POST, path, "application/json").await
}

async fn shows_a_key_to_one_of_many(size: Size) {
    let app = Setup::new(size).start().await;
    let owner = app.customer(10).await;
    let body = json!({ "label": "for <Ada>", "scopes": ["tasks:read"], "link": true });
    let create = || async {
        let request = owner.client.request(Method::POST, "/v1/keys");
        send(request.header("idempotency-key", "link-1").json(&body)).await.expect(201).json()
    };
    let (first, second) = (create().await, create().await);
    assert_eq!(first, second, "with its Idempotency-Key the same link is told");
    assert!(first.get("key").is_none(), "{first}");
    assert!(first["link_expires_at"].is_string(), "{first}");
    let (path, token) = path_of(&app, &first["link"]);
    assert_eq!(first["link"], path.as_str(), "a path: the server does not know its own address");
    // What is stored opens no link.
    let url = app.database_url();
    let held = format!("SELECT count(*) FROM idempotency_keys WHERE body LIKE '%{token}%'");
    assert_eq!(sql::number(&url, &held).await, 0);
    let digits = if size.is_scaled() { "encode(salt, 'hex')" } else { "lower(hex(salt))" };
    let held = format!("SELECT count(*) FROM idempotency_keys WHERE {digits} = '{token}'");
    assert_eq!(sql::number(&url, &held).await, 0);

    let anyone = app.anonymous();
    let all = join_all((0..16).map(|_| open(&anyone, &path))).await;
    let shown: Vec<Value> = all.iter().filter(|r| r.status == 200).map(Reply::json).collect();
    assert_eq!(shown.len(), 1, "of many at once one is shown it");
    for reply in all.iter().filter(|reply| reply.status != 200) {
        assert_eq!(reply.status, 410, "{reply}");
        assert_eq!(reply.expect_problem()["code"], "link_gone");
    }
    let secret = shown[0]["key"].as_str().expect("a key");
    app.keep_secret(secret);
    assert_eq!((&shown[0]["id"], &shown[0]["label"]), (&first["id"], &json!("for <Ada>")));
    app.client(secret).get("/v1/tasks").await.expect(200);
    app.client(secret).get("/v1/keys").await.expect(403);
    assert!(secret.starts_with(first["start"].as_str().expect("its start")));

    // Used and never there look the same.
    let other = format!("/once/{}", "0".repeat(64));
    for accept in ["application/json", "text/html"] {
        for method in [Method::GET, Method::POST] {
            let used = ask(&anyone, method.clone(), &path, accept).await.expect(410);
            for unknown in [other.as_str(), "/once/x", "/once/%FF", &format!("/once/{token}0")] {
                let reply = ask(&anyone, method.clone(), unknown, accept).await.expect(410);
                assert_eq!(reply.body, used.body, "{reply}");
            }
        }
    }
    // Its use is in the audit log, and names nobody but an address.
    let id = first["id"].as_str().expect("an id");
    let rows = owner.client.get(&format!("/v1/audit?target={id}")).await.expect(200).json();
    let rows = rows["data"].as_array().expect("rows").clone();
    let actions: Vec<&str> = rows.iter().filter_map(|row| row["action"].as_str()).collect();
    assert_eq!(actions, ["key.link_used", "key.link", "key.create"], "newest first");
    assert_eq!(
        (&rows[0]["actor"], &rows[0]["ip"]),
        (&json!({ "system": true }), &json!("127.0.0.1"))
    );
    assert!(!rows.iter().any(|row| row.to_string().contains(&token)));
    for node in &app.apis {
        let (_, metrics) = node.probe("/metrics").await.expect("metrics");
        assert!(!metrics.contains(&token), "metrics name routes, not paths");
    }
    app.finish().await;
}

async fn is_not_used_up_by_looking(size: Size) {
    let app = Setup::new(size).env("LISTMILL_PUBLIC_URL", "https://api.example.com/").start().await;
    let owner = app.customer(10).await;
    let body = json!({ "label": "for <Ada>", "link": true });
    let made = owner.client.post("/v1/keys", &body).await.expect(201).json();
    let link = made["link"].as_str().expect("a link");
    assert!(link.starts_with("https://api.example.com/once/"), "{link}");
    let (path, _) = path_of(&app, &made["link"]);
    let anyone = app.anonymous();
    for _ in 0..3 {
        let page = ask(&anyone, Method::GET, &path, "text/html,*/*").await.expect(200);
        assert!(page.header("content-type").is_some_and(|kind| kind.starts_with("text/html")));
        assert!(page.text().contains("<form method=\"post\">"), "{page}");
        assert!(!page.text().contains("Ada"), "nothing of the key: {page}");
        let json = ask(&anyone, Method::GET, &path, "application/json").await.expect(200).json();
        assert_eq!(json["expires_at"], made["link_expires_at"]);
        send(anyone.request(Method::HEAD, &path)).await.expect(200);
    }
    send(anyone.request(Method::PUT, &path)).await.expect(405);
    let shown = ask(&anyone, Method::POST, &path, "text/html").await.expect(200).text();
    let (_, rest) = shown.split_once("<code>").expect("the secret");
    let (secret, _) = rest.split_once("</code>").expect("the secret");
    app.keep_secret(secret);
    assert!(shown.contains("for &lt;Ada&gt;"), "{shown}");
    app.client(secret).get("/v1/tasks").await.expect(200);
    ask(&anyone, Method::GET, &path, "text/html").await.expect(410);
    // A key that is changed has no new secret to show.
    let id = made["id"].as_str().expect("an id");
    let reply = patch(&owner.client, &format!("/v1/keys/{id}"), &json!({ "link": true })).await;
    reply.expect(400).expect_problem();
    app.finish().await;
}

async fn is_of_no_use_when_over(size: Size) {
    let app = Setup::new(size).start().await;
    let owner = app.customer(10).await;
    let anyone = app.anonymous();
    let link = || async {
        let body = json!({ "label": "x", "link": true });
        let made = owner.client.post("/v1/keys", &body).await.expect(201).json();
        (path_of(&app, &made["link"]).0, made["id"].as_str().expect("an id").to_owned())
    };
    let (path, _) = link().await;
    sql::execute(&app.database_url(), "UPDATE key_links SET ends_at = 1").await;
    open(&anyone, &path).await.expect(410);
    // Its key is gone.
    let (path, id) = link().await;
    owner.client.delete(&format!("/v1/keys/{id}")).await.expect(200);
    for method in [Method::GET, Method::POST] {
        ask(&anyone, method, &path, "application/json").await.expect(410);
    }
    // A key that is switched off for the moment is shown all the same.
    let (path, id) = link().await;
    owner.client.post_empty(&format!("/v1/keys/{id}/disable")).await.expect(200);
    let shown = open(&anyone, &path).await.expect(200).json();
    let secret = shown["key"].as_str().expect("a key");
    app.keep_secret(secret);
    app.client(secret).get("/v1/tasks").await.expect(403);
    owner.client.post_empty(&format!("/v1/keys/{id}/enable")).await.expect(200);
    app.client(secret).get("/v1/tasks").await.expect(200);
    app.finish().await;
}

async fn is_given_for_a_rotation_and_in_the_shell(size: Size) {
    let app = Setup::new(size).start().await;
    let owner = app.customer(10).await;
    let anyone = app.anonymous();
    let old = make(&app, &owner.client, &json!({ "label": "shop" })).await;
    let body = json!({ "grace_seconds": 60, "link": true });
    let rotate = || async {
        let request = owner.client.request(Method::POST, &old.path("/rotate"));
        send(request.header("idempotency-key", "once").json(&body)).await.expect(201).json()
    };
    let (first, second) = (rotate().await, rotate().await);
    assert_eq!(first, second);
    assert!(first.get("key").is_none() && first["old"]["ends_at"].is_string(), "{first}");
    let (path, _) = path_of(&app, &first["link"]);
    let shown = open(&anyone, &path).await.expect(200).json();
    assert_eq!(shown["id"], first["id"]);
    let secret = shown["key"].as_str().expect("a key").to_owned();
    app.keep_secret(&secret);
    app.client(&secret).get("/v1/tasks").await.expect(200);
    app.client(&old.secret).get("/v1/tasks").await.expect(200);
    // A link that was used is told again, and shows nothing.
    assert_eq!(rotate().await["link"], first["link"]);
    open(&anyone, &path).await.expect(410);

    let id = first["id"].as_str().expect("an id");
    let args = ["admin", "key", "rotate", id, "--link", "--json"];
    let told = app.cli(&args).await.expect_success().json();
    assert!(told.get("key").is_none(), "{told}");
    let (path, _) = path_of(&app, &told["link"]);
    let shown = open(&anyone, &path).await.expect(200).json();
    assert_eq!(shown["id"], told["id"]);
    app.keep_secret(shown["key"].as_str().expect("a key"));
    let args =
        ["admin", "key", "create", "--account", &owner.account, "--label", "x", "--link", "--json"];
    let told = app.cli(&args).await.expect_success().json();
    assert!(told.get("key").is_none(), "{told}");
    let (path, _) = path_of(&app, &told["link"]);
    let shown = open(&anyone, &path).await.expect(200).json();
    assert_eq!(shown["id"], told["key_id"]);
    let secret = shown["key"].as_str().expect("a key").to_owned();
    app.keep_secret(&secret);
    app.client(&secret).get("/v1/tasks").await.expect(200);
    app.finish().await;
}

async fn has_limits(size: Size) {
    let app = Setup::new(size).env("LISTMILL_RATE_LIMITS", "on").start().await;
    let owner = app.customer(0).await;
    let one = Client::new(vec![app.apis[0].base()], None);
    let path = format!("/once/{}", "0".repeat(64));
    let mut refused = None;
    // Sixty at once, and those for which there was time meanwhile.
    for _ in 0..600 {
        let reply = open(&one, &path).await;
        if reply.status == 429 {
            refused = Some(reply);
            break;
        }
        reply.expect(410);
    }
    let refused = refused.expect("never refused");
    assert!(refused.header("retry-after").is_some(), "{refused}");
    // Reports of leaked keys are counted apart, and whoever has a key is not concerned.
    one.post("/v1/keys/report", &json!({ "key": "x" })).await.expect(200);
    owner.client.get("/v1/tasks").await.expect(200);
    app.block_ip("127.0.0.0/8").await;
    open(&one, &path).await.expect_body(403, &json!({ "error": "Access denied" }));
    app.unblock_ip("127.0.0.0/8").await;
    app.finish().await;
}

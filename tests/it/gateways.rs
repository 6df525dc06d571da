//! The gate in front of somebody else's API: by itself, and behind the real proxies with the
//! configuration that `docs/GATEWAYS.md` shows.

use std::path::PathBuf;
use std::time::Duration;

use listmill_tests::client::send;
use listmill_tests::process::{Launch, Process};
use listmill_tests::{Client, Deployment, Setup, Size, eventually, for_each_size, ports, scratch};
use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::key_docs::snippet;

for_each_size!(
    the_gate_says_who_it_was,
    nginx_asks_for_every_request,
    caddy_asks_for_every_request
);

async fn the_gate_says_who_it_was(size: Size) {
    let app = Setup::new(size).start().await;
    let owner = app.customer(0).await;
    let methods = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"];
    for method in methods {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        for path in ["/v1/gate", "/v1/gate/", "/v1/gate/v7/things?scope=%%&x=1"] {
            let request = owner.client.request(method.clone(), path);
            let reply = send(request.header("x-request-id", "r-1")).await.expect(200);
            assert!(reply.body.is_empty(), "{reply}");
            assert_eq!(reply.header("x-listmill-account"), Some(owner.account.as_str()));
            assert_eq!(reply.header("x-listmill-key"), Some(owner.key.id.as_str()));
            assert_eq!(reply.header("x-listmill-scopes"), Some("*"));
            assert_eq!(reply.header("x-listmill-environment"), Some("live"));
            assert_eq!(reply.header("x-request-id"), Some("r-1"));
            assert_eq!(reply.header("cache-control"), Some("no-store"));
            send(app.anonymous().request(method.clone(), path)).await.expect(401);
        }
    }
    owner.client.get("/v1/gate?scope=tasks:read").await.expect(200);
    owner.client.get("/v1/gate?scope=%20").await.expect(400).expect_problem();
    app.suspend(&owner.key, "Abuse").await;
    let want = json!({ "error": "API key is suspended", "reason": "Abuse" });
    for path in ["/v1/gate", "/v1/gate/x"] {
        owner.client.get(path).await.expect_body(403, &want);
    }
    app.finish().await;
}

/// An API that answers every request with the head that it got.
async fn upstream() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") && head.len() < 65_536 {
                    match stream.read_u8().await {
                        Ok(byte) => head.push(byte),
                        Err(_) => return,
                    }
                }
                let about = format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    head.len()
                );
                let answer = [about.as_bytes(), &head].concat();
                // A proxy that went away is none of the upstream's business.
                let _ = stream.write_all(&answer).await;
            });
        }
    });
    port
}

/// The configuration of the documentation, with the ports of this test.
fn configuration(name: &str, listen: (&str, String), api: u16, upstream: u16) -> String {
    let text = snippet("docs/GATEWAYS.md", name);
    let text = text.replace("127.0.0.1:8080", &format!("127.0.0.1:{api}"));
    let text = text.replace("127.0.0.1:9000", &format!("127.0.0.1:{upstream}"));
    assert!(text.contains(listen.0), "{name}: no {}", listen.0);
    text.replace(listen.0, &listen.1)
}

async fn proxy(name: &str, launch: Launch, folder: &std::path::Path, port: u16) -> Process {
    let process = Process::start(name, launch, folder.join(format!("{name}.log")));
    eventually(&format!("{name} listens"), Duration::from_secs(20), || async {
        tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()
    })
    .await;
    process
}

fn program(name: &str) -> PathBuf {
    // Debian keeps some where the path of most users does not lead.
    let debian = PathBuf::from(format!("/usr/sbin/{name}"));
    if debian.is_file() { debian } else { PathBuf::from(name) }
}

async fn setup(size: Size) -> Deployment {
    let setup = Setup::new(size).env("LISTMILL_RATE_LIMITS", "on");
    setup.env("LISTMILL_TRUSTED_PROXIES", "127.0.0.1").start().await
}

/// A request with a forged account, through the proxy.
async fn through(client: &Client) -> listmill_tests::Reply {
    let request = client.request(Method::POST, "/things?scope=none").body("a body");
    let request =
        request.header("x-listmill-account", "acct_forged").header("x-listmill-key", "key_forged");
    let request = request.header("x-listmill-environment", "forged");
    send(request.header("x-listmill-scopes", "forged")).await
}

async fn guards(app: &Deployment, port: u16) {
    let owner = app.customer(0).await;
    let base = format!("http://127.0.0.1:{port}");
    let of = |key: &str| Client::new(vec![base.clone()], Some(key));
    let passed = through(&of(&owner.key.secret)).await.expect(200);
    let head = passed.text().to_lowercase();
    assert!(head.starts_with("post /things?scope=none http/1."), "{head}");
    assert!(head.contains(&format!("x-listmill-account: {}", owner.account)), "{head}");
    assert!(head.contains(&format!("x-listmill-key: {}", owner.key.id)), "{head}");
    assert!(head.contains("x-listmill-scopes: *") && !head.contains("forged"), "{head}");
    assert!(head.contains("x-listmill-environment: live"), "{head}");
    assert!(!head.contains(&owner.key.secret.to_lowercase()), "the upstream need not see the key");
    through(&Client::new(vec![base.clone()], None)).await.expect(401);
    through(&of("VECnonsense")).await.expect(401);

    // Revoked: the next request is refused.
    for _ in 0..5 {
        let key = app.create_key(&owner.account).await;
        let client = of(&key.secret);
        through(&client).await.expect(200);
        owner.client.post_empty(&format!("/v1/keys/{}/disable", key.id)).await.expect(200);
        through(&client).await.expect(403);
    }
    // The client's address is judged, not the proxy's.
    let from = |address: &'static str| {
        let request = of(&owner.key.secret).request(Method::GET, "/");
        send(request.header("x-forwarded-for", address))
    };
    app.block_ip("203.0.113.0/24").await;
    from("203.0.113.9").await.expect(200);
    app.unblock_ip("203.0.113.0/24").await;

    // Used up: 429 and when to come back, not an error of the proxy's.
    let body = json!({ "label": "slow", "rate_limit": 1 });
    let slow = owner.client.post("/v1/keys", &body).await.expect(201).json();
    let secret = slow["key"].as_str().expect("key");
    app.keep_secret(secret);
    through(&of(secret)).await.expect(200);
    let refused = through(&of(secret)).await.expect(429);
    let wait: u64 = refused.header("retry-after").expect("Retry-After").parse().expect("seconds");
    assert!((50..=60).contains(&wait), "{refused}");
}

async fn nginx_asks_for_every_request(size: Size) {
    let mut app = setup(size).await;
    let folder = scratch::folder("nginx");
    let (port, upstream) = (ports::free_port(), upstream().await);
    let listen = ("listen 80;", format!("listen 127.0.0.1:{port};"));
    let server = configuration("nginx", listen, app.apis[0].port, upstream);
    let place = folder.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|what| format!("{what}_temp_path {place}/{what};\n"))
        .concat();
    let text = format!(
        "daemon off;\nmaster_process off;\npid {place}/pid;\nerror_log stderr;\nevents {{}}\n\
         http {{\naccess_log off;\n{temporary}{server}\n}}\n"
    );
    let file = folder.join("nginx.conf");
    std::fs::write(&file, text).expect("a file");
    let launch = Launch::new(program("nginx"), &folder);
    let launch = launch.args(["-e", "stderr", "-p"]).args([&folder]).args(["-c"]).args([&file]);
    let process = proxy("nginx", launch, &folder, port).await;
    guards(&app, port).await;
    // Nobody there to ask: nobody passes.
    let owner = app.customer(0).await;
    app.apis[0].process.kill9();
    let client = Client::new(vec![format!("http://127.0.0.1:{port}")], Some(&owner.key.secret));
    through(&client).await.expect(503);
    app.apis[0].process.start_again();
    app.wait_ready().await;
    drop(process);
    scratch::remove(&folder);
    app.finish().await;
}

async fn caddy_asks_for_every_request(size: Size) {
    let app = setup(size).await;
    let folder = scratch::folder("caddy");
    let (port, upstream) = (ports::free_port(), upstream().await);
    let listen = ("api.example.com", format!("http://127.0.0.1:{port}"));
    let server = configuration("caddy", listen, app.apis[0].port, upstream);
    let file = folder.join("Caddyfile");
    std::fs::write(&file, format!("{{\n\tadmin off\n\tdefault_bind 127.0.0.1\n}}\n{server}"))
        .expect("a file");
    let mut launch = Launch::new(program("caddy"), &folder).args(["run", "--config"]).args([&file]);
    for name in ["HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"] {
        launch.env.push((name.to_owned(), folder.display().to_string()));
    }
    let process = proxy("caddy", launch, &folder, port).await;
    guards(&app, port).await;
    // A refusal arrives as the gate gave it.
    let anonymous = Client::new(vec![format!("http://127.0.0.1:{port}")], None);
    let reply = through(&anonymous).await.expect(401);
    assert!(reply.json()["error"].as_str().is_some_and(|e| e.starts_with("Missing or invalid")));
    drop(process);
    scratch::remove(&folder);
    app.finish().await;
}

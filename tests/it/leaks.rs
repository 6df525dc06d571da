//! Reported keys end at once, on every API process; their tasks go on.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use listmill_shared::domain::id::Ids;
use listmill_shared::domain::key::Secret;
use listmill_tests::client::send;
use listmill_tests::{Client, Deployment, Reply, Setup, Size, for_each_size, lists, scratch};
use reqwest::Method;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};

for_each_size!(
    a_reported_key_ends_at_once_and_its_task_goes_on,
    an_unknown_key_is_answered_alike,
    only_signatures_that_verify_are_taken,
    reports_have_limits,
    operators_find_keys,
);

const REPORT: &str = "/v1/keys/report";
const LEAKED: &str = "This key was reported as leaked";

fn suspended() -> Value {
    json!({ "error": "API key is suspended", "reason": LEAKED })
}

fn unknown_key() -> String {
    Secret::generate("VEC", &Ids::system()).reveal().to_owned()
}

async fn a_reported_key_ends_at_once_and_its_task_goes_on(size: Size) {
    let app = Setup::new(size).latency("150ms").concurrency(64).start().await;
    let a = app.customer(2_000).await;
    let b = app.client(&app.create_key(&a.account).await.secret);
    let task = a.client.submit(&lists::people(2_000)).await.id;
    let limit = Duration::from_secs(30);
    a.client.wait_until(&task, "begun", limit, |task| task.counts.processed > 0).await;
    // The place holds the key as well, and must not bring it into the log.
    let url = format!("https://example.com/?key={}\n", a.key.secret);
    let report = json!({ "key": a.key.secret, "url": url, "source": "a test" });
    let reply = app.anonymous().post(REPORT, &report).await;
    reply.expect_body(200, &json!({ "reported": 1, "ended": 1 }));
    for api in 0..app.apis.len() {
        let client = app.client_of(api, &a.key.secret);
        client.get("/v1/tasks").await.expect_body(403, &suspended());
        client.get("/api/get-results/task_x").await.expect_body(403, &suspended());
    }
    assert!(!b.task(&task).await.has_ended(), "it must still run for this to mean something");
    // Its owner cannot bring it back.
    let enabled = b.post_empty(&format!("/v1/keys/{}/enable", a.key.id)).await.expect(200);
    assert_eq!(enabled.json()["status"], "suspended", "{enabled}");
    a.client.get("/v1/tasks").await.expect_body(403, &suspended());
    let done = b.wait_completed(&task).await;
    b.assert_whole(&done, 2_000).await;
    // A suspension that ends by itself is no end of a key that is public.
    let c = app.create_key(&a.account).await;
    let suspend = ["admin", "key", "suspend", &c.id, "--reason", "a while", "--for", "1h"];
    app.cli(&suspend).await.expect_success();
    app.anonymous().post(REPORT, &json!({ "key": c.secret })).await.expect(200);
    let shown = b.get(&format!("/v1/keys/{}", c.id)).await.expect(200).json();
    assert_eq!(shown["suspended_until"], Value::Null, "{shown}");
    assert_eq!(shown["suspended_reason"], LEAKED, "{shown}");
    // An operator can; and a second report ends it again.
    app.unsuspend(&a.key).await;
    a.client.get("/v1/tasks").await.expect(200);
    let list = json!([{ "key": a.key.secret }, { "key": a.key.secret }, { "key": "VECnothing" }]);
    let reply = app.anonymous().post(REPORT, &list).await;
    reply.expect_body(200, &json!({ "reported": 3, "ended": 1 }));
    a.client.get("/v1/tasks").await.expect_body(403, &suspended());
    let logged = app.apis.iter().any(|node| node.process.output().contains("reported as leaked"));
    assert!(logged, "an operator can see it");
    app.finish().await;
}

async fn an_unknown_key_is_answered_alike(size: Size) {
    let app = Setup::new(size).start().await;
    let owner = app.customer(0).await;
    let victim = app.create_key(&owner.account).await;
    app.suspend(&victim, "Card chargeback").await;
    let deleted = app.create_key(&owner.account).await;
    owner.client.delete(&format!("/v1/keys/{}", deleted.id)).await.expect(200);
    for key in [&unknown_key(), &victim.secret, &deleted.secret] {
        let reply = app.anonymous().post(REPORT, &json!({ "key": key })).await;
        reply.expect_body(200, &json!({ "reported": 1, "ended": 1 }));
        let github = json!([{ "token": key, "type": "listmill", "url": "" }]);
        let reply = app.anonymous().post(REPORT, &github).await.expect(200);
        assert!(!reply.text().contains(key.as_str()), "{reply}");
        let judged = reply.json();
        assert_eq!(judged[0]["label"], "true_positive");
        assert_eq!(judged[0]["token_type"], "listmill");
    }
    // What an operator said stays said, and what is gone stays gone.
    let want = json!({ "error": "API key is suspended", "reason": "Card chargeback" });
    app.client(&victim.secret).get("/v1/tasks").await.expect_body(403, &want);
    app.client(&deleted.secret).get("/v1/tasks").await.expect(401);
    let reply = app.anonymous().post(REPORT, &json!([{ "token": "nonsense", "type": "x" }])).await;
    assert_eq!(reply.expect(200).json()[0]["label"], "false_positive");
    owner.client.get("/v1/tasks").await.expect(200);
    app.finish().await;
}

/// A key pair as GitHub would have one.
struct Signer {
    identifier: &'static str,
    pair: EcdsaKeyPair,
    random: SystemRandom,
}

impl Signer {
    fn new(identifier: &'static str) -> Self {
        let random = SystemRandom::new();
        let way = &ECDSA_P256_SHA256_ASN1_SIGNING;
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(way, &random).expect("a key pair");
        let pair = EcdsaKeyPair::from_pkcs8(way, pkcs8.as_ref(), &random).expect("a key pair");
        Self { identifier, pair, random }
    }

    /// The entry of GitHub's list.
    fn entry(&self) -> Value {
        let head = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE";
        let mut der = STANDARD.decode(head).expect("base64");
        // The head ends with the first byte of the point.
        der.extend_from_slice(&self.pair.public_key().as_ref()[1..]);
        let base64 = STANDARD.encode(der);
        let (one, two) = base64.split_at(64);
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{one}\n{two}\n-----END PUBLIC KEY-----\n");
        json!({ "key_identifier": self.identifier, "key": pem, "is_current": true })
    }

    fn sign(&self, body: &str) -> String {
        let signature = self.pair.sign(&self.random, body.as_bytes()).expect("a signature");
        STANDARD.encode(signature.as_ref())
    }

    async fn send(&self, client: &Client, signed: &str, body: &str) -> Reply {
        let request = client
            .request(Method::POST, REPORT)
            .header("content-type", "application/json")
            .header("Github-Public-Key-Identifier", self.identifier)
            .header("Github-Public-Key-Signature", self.sign(signed));
        send(request.body(body.to_owned())).await
    }
}

async fn only_signatures_that_verify_are_taken(size: Size) {
    let (github, stranger) = (Signer::new("one"), Signer::new("one"));
    let folder = scratch::folder("github");
    let file = folder.join("keys.json");
    let write = |entries: Value| {
        let text = json!({ "public_keys": entries }).to_string();
        std::fs::write(&file, text).expect("a file of keys");
    };
    write(json!([github.entry()]));
    let setup = Setup::new(size).env("LISTMILL_GITHUB_KEYS_FILE", file.display().to_string());
    let app = setup.start().await;
    let owner = app.customer(0).await;
    let other = app.create_key(&owner.account).await;
    let anonymous = app.anonymous();
    let of = |key: &str| {
        json!([{ "token": key, "type": "listmill", "url": "https://github.com/o/r", "source": "commit" }])
            .to_string()
    };
    let body = of(&owner.key.secret);
    for reply in [
        stranger.send(&anonymous, &body, &body).await,
        github.send(&anonymous, "[]", &body).await,
        Signer::new("two").send(&anonymous, &body, &body).await,
    ] {
        assert_eq!(reply.expect(403).expect_problem()["code"], "bad_signature");
    }
    let half = anonymous.request(Method::POST, REPORT).header("content-type", "application/json");
    let half = half.header("Github-Public-Key-Identifier", "one").body(body.clone());
    assert_eq!(send(half).await.expect(403).expect_problem()["code"], "bad_signature");
    owner.client.get("/v1/tasks").await.expect(200);

    let reply = github.send(&anonymous, &body, &body).await.expect(200);
    assert_eq!(reply.json()[0]["label"], "true_positive", "{reply}");
    assert_eq!(reply.json().as_array().map(Vec::len), Some(1));
    owner.client.get("/v1/tasks").await.expect_body(403, &suspended());
    // The next file holds from the next report on.
    write(json!([Signer::new("zero").entry(), stranger.entry()]));
    let body = of(&other.secret);
    github.send(&anonymous, &body, &body).await.expect(403);
    app.client(&other.secret).get("/v1/tasks").await.expect(200);
    stranger.send(&anonymous, &body, &body).await.expect(200);
    app.client(&other.secret).get("/v1/tasks").await.expect_body(403, &suspended());
    app.finish().await;
    scratch::remove(&folder);
}

async fn reports_have_limits(size: Size) {
    let app = Setup::new(size).env("LISTMILL_RATE_LIMITS", "on").start().await;
    let owner = app.customer(0).await;
    let one = Client::new(vec![app.apis[0].base()], None);
    let json_type = [("content-type", "application/json")];
    let large = vec![b' '; 256 * 1024 + 1];
    one.post_refused(REPORT, &json_type, &large).await.expect(413).expect_problem();
    let many = Value::Array(vec![json!({ "key": "VECx" }); 501]);
    one.post(REPORT, &many).await.expect(413).expect_problem();
    one.post_bytes(REPORT, "text/plain", "{}").await.expect(415).expect_problem();
    for body in [json!({}), json!([{}]), json!("VEC"), json!({ "key": [owner.key.secret] })] {
        let reply = one.post(REPORT, &body).await.expect(400);
        reply.expect_problem();
        assert!(!reply.text().contains(&owner.key.secret), "{reply}");
    }
    one.get(REPORT).await.expect(405);
    let most = Value::Array(vec![json!({ "key": "VECx" }); 500]);
    one.post(REPORT, &most).await.expect_body(200, &json!({ "reported": 500, "ended": 0 }));
    let refused = refused_after(&one, 60).await;
    let body = refused.json();
    let fields = ["error", "limit", "window", "current"].map(|field| body[field].clone());
    assert_eq!(fields, [json!("Rate limit exceeded"), json!(60), json!("1 minute"), json!(61)]);
    assert_eq!(refused.header("retry-after"), Some("1"), "{refused}");
    // Whoever has a key is not concerned.
    owner.client.get("/v1/tasks").await.expect(200);
    app.block_ip("127.0.0.0/8").await;
    let denied = json!({ "error": "Access denied" });
    one.post(REPORT, &json!({ "key": owner.key.secret })).await.expect_body(403, &denied);
    app.unblock_ip("127.0.0.0/8").await;
    owner.client.get("/v1/tasks").await.expect(200);
    app.finish().await;
}

/// The first refusal, after `most` reports or fewer and those for which there was time meanwhile.
async fn refused_after(client: &Client, most: usize) -> Reply {
    for _ in 0..2 * most {
        let reply = client.post(REPORT, &json!({ "key": "x" })).await;
        if reply.status == 429 {
            return reply;
        }
        reply.expect(200);
    }
    panic!("never refused");
}

async fn operators_find_keys(size: Size) {
    let app = Setup::new(size).start().await;
    let owner = app.customer(0).await;
    let key = &owner.key;
    for what in [key.id.as_str(), &key.secret[..8], "MADE BY"] {
        let found =
            app.cli(&["admin", "key", "find", what, "--json"]).await.expect_success().json();
        let ids: Vec<_> =
            found["keys"].as_array().expect("keys").iter().map(|k| &k["key_id"]).collect();
        assert!(ids.contains(&&json!(key.id)), "{what}: {found}");
    }
    let refused = app.cli(&["admin", "key", "find", &key.secret]).await.expect_failure();
    // The harness shows the command line; the program must not.
    assert!(!refused.text().contains(&key.secret[8..]), "a key is shown");
    assert!(refused.stderr.contains("stdin"), "{}", refused.stderr);
    let refused = app.cli(&["admin", "key", "suspend", &key.secret]).await.expect_failure();
    assert!(!refused.text().contains(&key.secret[8..]), "a key is shown");
    let found = piped(&app, &["admin", "key", "find", "-", "--json"], &key.secret).await;
    assert_eq!(found["keys"][0]["key_id"], key.id.as_str(), "{found}");
    let args = ["admin", "key", "hygiene", "--account", &owner.account, "--json"];
    let told = app.cli(&args).await.expect_success().json();
    assert_eq!(told["active"], 1, "{told}");
    let all = json!(["no_expiry", "all_scopes", "no_allow_list"]);
    assert_eq!(told["keys"][0]["findings"], all, "{told}");
    app.finish().await;
}

/// A command with `--json` that reads this from stdin.
async fn piped(app: &Deployment, args: &[&str], input: &str) -> Value {
    let output = app.cli_with_input(args, input).await;
    output.expect_success().json()
}

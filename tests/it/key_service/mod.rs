//! The key service under `/v2`: keys that are verified for other programs.

mod callers;
mod codes;
mod credits;
mod errors;
mod fields;
mod leaks;
mod life;
mod limits;
mod log;
mod roots;
mod sdk;

use listmill_tests::client::send;
use listmill_tests::reply::assert_fields;
use listmill_tests::{Client, Deployment, Reply};
use reqwest::Method;
use serde_json::{Value, json};

/// A holder of a root key, with one api.
struct Service {
    account: String,
    api: String,
    root: Client,
    root_key: String,
    root_id: String,
}

/// A key of an api.
struct Made {
    id: String,
    secret: String,
}

/// Makes a root key with these permissions; none = everything.
async fn root_key(app: &Deployment, account: &str, permissions: &[&str]) -> (String, String) {
    let mut args = vec!["admin", "root-key", "create", "--account", account, "--json"];
    args.extend(permissions.iter().flat_map(|one| ["--permission", one]));
    let answer = app.cli(&args).await.expect_success().json();
    assert_fields(&answer, &["root_key_id", "key"]);
    let text = |field: &str| answer[field].as_str().expect(field).to_owned();
    app.keep_secret(&text("key"));
    (text("root_key_id"), text("key"))
}

impl Service {
    async fn start(app: &Deployment) -> Self {
        let account = app.create_account(0).await;
        let (root_id, root_key) = root_key(app, &account, &[]).await;
        let root = app.client(&root_key);
        let data = call(&root, "apis.createApi", &json!({ "name": "payments" })).await;
        assert_fields(&data, &["apiId"]);
        let api = data["apiId"].as_str().expect("apiId").to_owned();
        assert!(
            api.starts_with("api_") && api.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_')
        );
        Self { account, api, root, root_key, root_id }
    }

    async fn call(&self, method: &str, body: &Value) -> Value {
        call(&self.root, method, body).await
    }

    async fn make(&self, app: &Deployment, fields: &Value) -> Made {
        let mut body = json!({ "apiId": self.api });
        for (name, value) in fields.as_object().expect("fields") {
            body[name] = value.clone();
        }
        made(app, &self.call("keys.createKey", &body).await)
    }

    async fn get(&self, key: &Made) -> Value {
        self.call("keys.getKey", &json!({ "keyId": key.id })).await
    }

    async fn update(&self, key: &Made, fields: &Value) {
        let mut body = json!({ "keyId": key.id });
        for (name, value) in fields.as_object().expect("fields") {
            body[name] = value.clone();
        }
        assert_eq!(self.call("keys.updateKey", &body).await, json!({}));
    }

    async fn verify(&self, key: &Made, more: &Value) -> Value {
        let mut body = json!({ "key": key.secret });
        for (name, value) in more.as_object().expect("fields") {
            body[name] = value.clone();
        }
        let data = self.call("keys.verifyKey", &body).await;
        assert_eq!(data["valid"], data["code"] == "VALID", "{data}");
        data
    }

    async fn code(&self, key: &Made) -> String {
        code(&self.verify(key, &json!({})).await)
    }
}

fn code(verified: &Value) -> String {
    verified["code"].as_str().expect("code").to_owned()
}

fn made(app: &Deployment, data: &Value) -> Made {
    assert_fields(data, &["keyId", "key"]);
    let text = |field: &str| data[field].as_str().expect(field).to_owned();
    let made = Made { id: text("keyId"), secret: text("key") };
    app.keep_secret(&made.secret);
    made
}

async fn post(client: &Client, method: &str, body: &Value) -> Reply {
    client.post(&format!("/v2/{method}"), body).await
}

/// What a method answers, out of its frame.
async fn call(client: &Client, method: &str, body: &Value) -> Value {
    let reply = post(client, method, body).await.expect(200);
    let answer = reply.json();
    assert_eq!(reply.header("content-type"), Some("application/json"), "{reply}");
    let listed = answer.get("pagination").is_some();
    assert_fields(
        &answer,
        if listed { &["meta", "data", "pagination"] } else { &["meta", "data"] },
    );
    assert_meta(&answer);
    answer["data"].clone()
}

fn assert_meta(answer: &Value) {
    assert_fields(&answer["meta"], &["requestId"]);
    let id = answer["meta"]["requestId"].as_str().expect("requestId");
    assert!(id.starts_with("req_") && id.len() == 36, "{id}");
}

/// An error in the words of that API; gives what is inside.
fn expect_error(reply: &Reply, status: u16) -> Value {
    assert_eq!(reply.status, status, "{reply}");
    let kind = if status == 429 { "application/problem+json" } else { "application/json" };
    assert_eq!(reply.header("content-type"), Some(kind), "{reply}");
    let answer = reply.json();
    assert_fields(&answer, &["meta", "error"]);
    assert_meta(&answer);
    let error = &answer["error"];
    let fields: &[&str] = &["title", "detail", "status", "type", "errors"];
    assert_fields(error, if status == 400 { fields } else { &fields[..4] });
    assert_eq!(error["status"], status);
    for field in ["title", "detail", "type"] {
        assert!(error[field].as_str().is_some_and(|text| !text.is_empty()), "{reply}");
    }
    if status == 400 {
        let errors = error["errors"].as_array().expect("errors");
        assert!(!errors.is_empty(), "{reply}");
        for one in errors {
            assert!(one["location"].as_str().is_some_and(|at| at.starts_with("body")), "{reply}");
            assert!(one["message"].as_str().is_some_and(|text| !text.is_empty()), "{reply}");
        }
    }
    error.clone()
}

/// A 400 at this place of the body.
fn expect_fault(reply: &Reply, location: &str) {
    let error = expect_error(reply, 400);
    assert_eq!(error["errors"][0]["location"], location, "{reply}");
}

/// Calls under a name, from an address that a proxy tells.
async fn named(client: &Client, method: &str, name: &str, body: &Value) -> Reply {
    let request = client.request(Method::POST, &format!("/v2/{method}")).json(body);
    let request = request.header("x-request-id", name);
    send(request.header("x-forwarded-for", "198.51.100.1, 203.0.113.9")).await
}

async fn raw(client: &Client, method: Method, path: &str, kind: &str, body: &str) -> Reply {
    send(client.request(method, path).header("content-type", kind).body(body.to_owned())).await
}

//! Every operation of the OpenAPI document under `/v2`, asked by every kind of caller, and every other one asked
//! with what opens `/v2` alone: each answers in its own shape, and no other.

use listmill_tests::client::send;
use listmill_tests::reply::assert_fields;
use listmill_tests::{Client, Reply, Setup, Size, for_each_size};
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::{Service, assert_meta, expect_error, root_key};

for_each_size!(each_action_opens_its_methods, a_root_key_opens_nothing_else);

const ACTIONS: &[&str] = &[
    "create_api",
    "read_api",
    "delete_api",
    "create_key",
    "read_key",
    "update_key",
    "delete_key",
    "verify_key",
    "*",
];

/// What stands in no table of the product: a few by hand.
const KNOWN: &[(&str, &[&str])] = &[
    ("/v2/keys.createKey", &["create_key"]),
    ("/v2/keys.rerollKey", &["create_key"]),
    ("/v2/keys.whoami", &["read_key"]),
    ("/v2/keys.updateCredits", &["update_key"]),
    ("/v2/keys.verifyKey", &["verify_key"]),
    ("/v2/apis.listKeys", &["read_key", "read_api"]),
];

/// A method of the document: where it is, which actions it needs, the least that it takes.
struct Operation {
    path: String,
    needs: Vec<String>,
    body: Value,
}

fn resolved<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(place) => document.pointer(place.trim_start_matches('#')).expect(place),
        None => schema,
    }
}

/// The example of a schema, or the first of its values.
fn example(document: &Value, schema: &Value) -> Value {
    let schema = resolved(document, schema);
    let given = [&schema["example"], &schema["examples"][0], &schema["enum"][0]];
    let given = given.into_iter().find(|value| !value.is_null());
    given.unwrap_or_else(|| panic!("no example: {schema}")).clone()
}

/// What must be in a body, by the document.
fn least(document: &Value, operation: &Value) -> Value {
    let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
    let schema = resolved(document, schema);
    let required = schema["required"].as_array().expect("required fields");
    let fields: Map<String, Value> = required
        .iter()
        .map(|name| name.as_str().expect("a name"))
        .map(|name| (name.to_owned(), example(document, &schema["properties"][name])))
        .collect();
    Value::Object(fields)
}

fn methods(document: &Value) -> Vec<Operation> {
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        if !path.starts_with("/v2/") || path == "/v2/liveness" {
            continue;
        }
        let operations = item.as_object().expect("operations");
        assert_eq!(operations.keys().collect::<Vec<_>>(), ["post"], "{path}");
        let operation = &operations["post"];
        let security = operation["security"].as_array().expect("security");
        assert_eq!(security.len(), 1, "{path}: a root key, and nothing else");
        let needs = security[0]["root_key"].as_array().expect("actions");
        found.push(Operation {
            path: path.clone(),
            needs: needs.iter().map(|one| one.as_str().expect("an action").to_owned()).collect(),
            body: least(document, operation),
        });
    }
    found
}

/// An answer of `/v2`, whatever it says.
fn assert_shape(reply: &Reply) {
    assert!(reply.status < 500, "{reply}");
    if reply.status != 200 {
        expect_error(reply, reply.status);
        return;
    }
    let answer = reply.json();
    let paged = answer.get("pagination").is_some();
    assert_fields(&answer, &["meta", "data", "pagination"][..if paged { 3 } else { 2 }]);
    assert_meta(&answer);
}

async fn each_action_opens_its_methods(size: Size) {
    let app = Setup::new(size).start().await;
    let service = Service::start(&app).await;
    let document = app.anonymous().get("/openapi.json").await.expect(200).json();
    let methods = methods(&document);
    assert_eq!(methods.len(), 12, "eight of keys and four of apis");
    for (path, needs) in KNOWN {
        let method = methods.iter().find(|method| method.path == *path).expect(path);
        assert_eq!(method.needs, *needs, "{path}");
    }
    for action in ACTIONS {
        let permission = format!("api.*.{action}");
        let client = app.client(&root_key(&app, &service.account, &[&permission]).await.1);
        for Operation { path, needs, body } in &methods {
            let reply = client.post(path, body).await;
            assert_shape(&reply);
            if *action == "*" || needs.iter().all(|need| need == action) {
                assert!(matches!(reply.status, 200 | 404), "{permission}: {reply}");
            } else {
                let error = expect_error(&reply, 403);
                let detail = error["detail"].as_str().expect("detail");
                assert!(needs.iter().any(|need| detail.contains(need.as_str())), "{reply}");
            }
        }
    }
    // Who has no root key: nobody, a key of the account, a key of an api.
    let own = app.create_key(&service.account).await;
    let of_api = service.make(&app, &json!({ "permissions": ["*"] })).await;
    let strangers = [app.anonymous(), app.client(&own.secret), app.client(&of_api.secret)];
    for client in &strangers {
        for Operation { path, body, .. } in &methods {
            let error = expect_error(&client.post(path, body).await, 401);
            assert_eq!(error["title"], "Unauthorized", "{path}");
            expect_error(&send(client.request(Method::GET, path)).await, 401);
        }
        let alive = client.get("/v2/liveness").await.expect(200);
        assert_shape(&alive);
    }
    // Wherever the key of the account is put.
    let request = app.anonymous().request(Method::POST, "/v2/keys.verifyKey");
    let request = request.header("x-api-key", &own.secret).json(&json!({ "key": "x" }));
    expect_error(&send(request).await, 401);
    app.finish().await;
}

/// Every operation that needs a key of the account, asked with what is none.
async fn a_root_key_opens_nothing_else(size: Size) {
    let app = Setup::new(size).start().await;
    let service = Service::start(&app).await;
    let of_api = service.make(&app, &json!({ "prefix": "prod" })).await;
    let document = app.anonymous().get("/openapi.json").await.expect(200).json();
    let malformed = json!({
        "error": "Missing or invalid Authorization header. Use: Authorization: Bearer VEC...",
    });
    let clients: Vec<Client> =
        [&service.root_key, &of_api.secret].map(|key| app.client(key)).into();
    let mut asked = 0;
    for (path, item) in document["paths"].as_object().expect("paths") {
        if !(path.starts_with("/v1/") || path.starts_with("/api/")) {
            continue;
        }
        for (method, operation) in item.as_object().expect("operations") {
            // An empty requirement: no key is needed.
            if operation["security"].as_array().is_some_and(|all| all.contains(&json!({}))) {
                continue;
            }
            let path = path.replace("{id}", "nobody").replace("{task_id}", "nobody");
            let path = path.replace("{seq}", "0");
            let method: Method = method.to_uppercase().parse().expect("a method");
            for client in &clients {
                let reply = send(client.request(method.clone(), &path)).await;
                reply.expect_body(401, &malformed);
            }
            asked += 1;
        }
    }
    assert!(asked > 25, "{asked}");
    app.finish().await;
}

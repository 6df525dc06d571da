//! The life of a key: what it is and may do, how it is changed, rotated and ended.

mod credits;
mod end;
mod fields;
mod import;
mod link;
mod order;
mod pepper;
mod reminder;
mod rotation;
mod sandbox;
mod schedule;
mod scopes;
mod traces;

use listmill_tests::client::send;
use listmill_tests::{Client, Deployment, Reply};
use reqwest::Method;
use serde_json::{Value, json};

/// A key as it was made.
pub struct Made {
    pub id: String,
    pub secret: String,
    answer: Value,
}

impl Made {
    fn path(&self, rest: &str) -> String {
        format!("/v1/keys/{}{rest}", self.id)
    }
}

/// Makes a key with these fields.
pub async fn make(app: &Deployment, client: &Client, fields: &Value) -> Made {
    let mut body = json!({ "label": "made by a key" });
    for (name, value) in fields.as_object().expect("fields") {
        body[name] = value.clone();
    }
    made(app, &client.post("/v1/keys", &body).await.expect(201))
}

fn made(app: &Deployment, reply: &Reply) -> Made {
    let answer = reply.json();
    let text = |field: &str| answer[field].as_str().expect(field).to_owned();
    let made = Made { id: text("id"), secret: text("key"), answer: answer.clone() };
    app.keep_secret(&made.secret);
    made
}

async fn patch(client: &Client, path: &str, body: &Value) -> Reply {
    send(client.request(Method::PATCH, path).json(body)).await
}

fn refusal(error: &str, reason: impl Into<String>) -> Value {
    json!({ "error": error, "reason": reason.into() })
}

//! Bodies in and out: JSON that is read with the place of a fault, and the two shapes of an answer.

use std::panic::AssertUnwindSafe;

use axum::extract::{FromRequest, Request};
use axum::http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use listmill_shared::app::key_service::ServiceError;
use listmill_shared::domain::key::fields::BadField;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::Api;
use crate::extract::{read_body, require_json};
use crate::problem::{
    API_NOT_FOUND, INVALID_BODY, INVALID_FIELD, INVALID_JSON, KEY_STATE, PROBLEM_JSON, Problem,
    ROOT_PERMISSION,
};
use crate::request_id::RequestId;
use crate::routes::json as json_response;
use crate::view::to_json;

/// What a handler answers; [`shape`] puts it into its frame.
#[derive(Debug, Clone)]
pub struct Data {
    data: String,
    pagination: Option<String>,
}

impl Data {
    /// One object.
    pub fn new(data: &impl Serialize) -> Self {
        Self { data: to_json(data), pagination: None }
    }

    /// Nothing to say but that it is done.
    pub fn done() -> Self {
        Self { data: String::from("{}"), pagination: None }
    }

    /// A page of a list; `cursor`: where the next one begins.
    pub fn page(data: &impl Serialize, cursor: Option<String>) -> Self {
        let pagination = match cursor {
            Some(cursor) => json!({ "hasMore": true, "cursor": cursor }),
            None => json!({ "hasMore": false }),
        };
        Self { data: to_json(data), pagination: Some(pagination.to_string()) }
    }

    fn body(&self, request_id: &str) -> String {
        let Self { data, pagination } = self;
        let page =
            pagination.as_ref().map_or(String::new(), |page| format!(",\"pagination\":{page}"));
        // A caller may have named the request, with a quote in it.
        let id = Value::from(request_id);
        format!("{{\"meta\":{{\"requestId\":{id}}},\"data\":{data}{page}}}")
    }
}

impl IntoResponse for Data {
    fn into_response(self) -> Response {
        let mut response = Response::default();
        response.extensions_mut().insert(self);
        response
    }
}

/// Middleware of every route under `/v2`: the frame of an answer, and errors in its words.
pub async fn shape(request: Request, next: Next) -> Response {
    // As in the header, the request log and the audit log.
    let id = request.extensions().get::<RequestId>();
    let id = id.map_or_else(String::new, |id| id.as_str().to_owned());
    let path = request.uri().path().to_owned();
    let answered = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    let mut response = answered.unwrap_or_else(|_| {
        // The panic hook has told where.
        tracing::error!(path, request_id = id, "handler panicked; answered 500");
        Problem::internal().into_response()
    });
    if let Some(data) = response.extensions_mut().remove::<Data>() {
        return json_response(StatusCode::OK, data.body(&id));
    }
    let Some(problem) = response.extensions_mut().remove::<Problem>() else { return response };
    let mut shaped = json_response(response.status(), error(&problem, &id).to_string());
    if response.status() == StatusCode::TOO_MANY_REQUESTS {
        // The published clients look for it.
        let kind = HeaderValue::from_static(PROBLEM_JSON);
        shaped.headers_mut().insert(CONTENT_TYPE, kind);
    }
    for name in [ALLOW, RETRY_AFTER] {
        if let Some(value) = response.headers().get(&name) {
            shaped.headers_mut().insert(name, value.clone());
        }
    }
    shaped
}

fn error(problem: &Problem, request_id: &str) -> Value {
    let (kind, detail, errors) = problem.parts("errors");
    let mut error = json!({
        "title": kind.title,
        "detail": detail,
        "status": kind.status,
        "type": format!("/docs/problems#{}", kind.code),
    });
    if kind.status == 400 {
        let whole = || json!([{ "location": "body", "message": detail }]);
        error["errors"] = errors.cloned().unwrap_or_else(whole);
    }
    json!({ "meta": { "requestId": request_id }, "error": error })
}

/// A fault at one place of the body.
pub fn fault(field: &str, want: &str) -> Problem {
    let location = if field.is_empty() { String::from("body") } else { format!("body.{field}") };
    let errors = json!([{ "location": location, "message": format!("It {want}.") }]);
    Problem::field(field, want).with("errors", errors)
}

/// A JSON body.
pub struct Body<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Api> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let body = read_body(body, api.app.settings.body_idle_timeout).await?;
        require_json(&parts.headers)?;
        parse(&body).map(Self)
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    let at = |path: &str, error: &serde_json::Error| {
        let kind = if error.is_data() { INVALID_BODY } else { INVALID_JSON };
        // Where the text itself breaks off, there is no field yet.
        let location = if !error.is_data() || path == "." || path.is_empty() {
            String::from("body")
        } else {
            format!("body.{path}")
        };
        let message = format!("{error}.");
        let errors = json!([{ "location": location, "message": message }]);
        Problem::new(kind, message).with("errors", errors)
    };
    let read = serde_path_to_error::deserialize(&mut reader)
        .map_err(|error| at(&error.path().to_string(), error.inner()))?;
    reader.end().map_err(|error| at("", &error))?;
    Ok(read)
}

impl From<ServiceError> for Problem {
    fn from(error: ServiceError) -> Self {
        match error {
            ServiceError::Field(BadField { field, want }) => fault(field, &want),
            ServiceError::NoApi => {
                Problem::new(API_NOT_FOUND, "No api of this account has that id.")
            }
            ServiceError::NoKey => Problem::key_not_found(),
            ServiceError::Forbidden(permission) => {
                Problem::new(ROOT_PERMISSION, format!("This root key lacks {permission}."))
            }
            ServiceError::State(detail) => Problem::new(KEY_STATE, detail),
            ServiceError::Store(error) => error.into(),
        }
    }
}

/// Refuses what would need the secret to be stored.
pub fn refuse_plaintext(field: &str, asked: bool) -> Result<(), Problem> {
    const WANT: &str =
        "must be false: this server keeps no secret that it could show again, only a hash of it";
    if asked { Err(fault(field, WANT)) } else { Ok(()) }
}

/// Refuses what this server does not do.
pub fn refuse(field: &str, given: bool) -> Result<(), Problem> {
    if given {
        let detail = format!("\"{field}\" must be left out: this server does not offer it.");
        let errors = json!([{
            "location": format!("body.{field}"), "message": detail, "fix": "Leave it out.",
        }]);
        return Err(Problem::new(INVALID_FIELD, detail).with("errors", errors));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "it is only read")]
    struct Outer {
        inner: Option<Vec<Inner>>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "it is only read")]
    struct Inner {
        number: i64,
    }

    #[test]
    fn a_fault_is_told_with_its_place() {
        let told = |text: &str| {
            let problem = parse::<Outer>(text.as_bytes()).expect_err(text);
            let body = error(&problem, "req_1");
            assert_eq!(body["error"]["status"], 400);
            (body["error"]["errors"][0]["location"].clone(), problem.parts("errors").0.code)
        };
        let case = |place: &str, code| (Value::from(place), code);
        assert_eq!(
            told("{\"inner\":[{\"number\":1},{\"number\":\"x\"}]}"),
            case("body.inner[1].number", "invalid_body")
        );
        assert_eq!(told("{\"other\":1}"), case("body.other", "invalid_body"));
        assert_eq!(
            told("{\"inner\":[{\"other\":1}]}"),
            case("body.inner[0].other", "invalid_body")
        );
        assert_eq!(told(""), case("body", "invalid_json"));
        assert_eq!(told("{"), case("body", "invalid_json"));
        assert_eq!(told("{} x"), case("body", "invalid_json"));
        assert_eq!(told("[]").1, "invalid_body");
        assert!(parse::<Outer>(b" {\"inner\":null} ").is_ok());
    }

    #[test]
    fn answers_have_their_frame() {
        let page = Data::page(&[1, 2], Some(String::from("key_1"))).body("req_1");
        let want = json!({
            "meta": { "requestId": "req_1" },
            "data": [1, 2],
            "pagination": { "hasMore": true, "cursor": "key_1" },
        });
        assert_eq!(serde_json::from_str::<Value>(&page).unwrap(), want);
        let named: Value = serde_json::from_str(&Data::done().body("a\"}\\")).unwrap();
        assert_eq!(named["meta"]["requestId"], "a\"}\\");
        assert_eq!(Data::done().body("a"), "{\"meta\":{\"requestId\":\"a\"},\"data\":{}}");
        let problem = Problem::unavailable();
        let body = error(&problem, "req_2");
        assert!(body["error"].get("errors").is_none());
        assert_eq!(body["error"]["status"], 503);
    }
}

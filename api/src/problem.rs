//! Errors as answers: every typed error of every layer is given its status, code and title here.
//!
//! A [`Problem`] renders as `application/problem+json` (RFC 9457). Under `/api`, [`plain`] turns it
//! into the seed system's `{"error", "message"}`. What the caller did wrong goes into `detail`; what
//! went wrong on our side goes into the log, once, and never into an answer.

use std::borrow::Cow;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use listmill_shared::app::control::ControlError;
use listmill_shared::app::keys::KeyError;
use listmill_shared::app::submit::read::ReadError;
use listmill_shared::app::submit::{BodyError, Packing, SubmitError};
use listmill_shared::app::verify::VerifyError;
use listmill_shared::store::StoreError;
use serde::Serialize;
use serde_json::{Map, Value};

/// A kind of problem: what is the same whenever it happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// HTTP status.
    pub status: u16,
    /// Stable name.
    pub code: &'static str,
    /// For people.
    pub title: &'static str,
}

macro_rules! kinds {
    ($($name:ident = $status:literal $code:literal $title:literal;)*) => {
        $(pub const $name: Kind = Kind { status: $status, code: $code, title: $title };)*
        /// Every kind that is no fault of a list.
        pub const ALL: &[Kind] = &[$($name,)*];
    };
}

kinds! {
    INVALID_JSON = 400 "invalid_json" "The body is not valid JSON";
    INVALID_BODY = 400 "invalid_body" "The body is not what this route takes";
    INVALID_FIELD = 400 "invalid_field" "A field has a value that it cannot have";
    INVALID_QUERY = 400 "invalid_query" "A query parameter has a value that it cannot have";
    INVALID_MULTIPART = 400 "invalid_multipart" "The form cannot be read";
    BAD_CURSOR = 400 "bad_cursor" "Not a cursor of this list";
    BAD_LIMIT = 400 "bad_limit" "The limit is out of range";
    WINDOW_TOO_LARGE = 400 "window_too_large" "The window is too large";
    BAD_IDEMPOTENCY_KEY = 400 "bad_idempotency_key" "The Idempotency-Key cannot be used";
    EMAIL_REQUIRED = 400 "email_required" "Email is required";
    BODY_BROKEN = 400 "body_broken" "The body did not arrive as a whole";
    NOT_GZIP = 400 "not_gzip" "The body cannot be unpacked";
    NOT_UNPACKED = 400 "not_unpacked" "The list cannot be unpacked";
    INSUFFICIENT_CREDITS = 402 "insufficient_credits" "Insufficient credits";
    BAD_SIGNATURE = 403 "bad_signature" "The signature does not verify";
    NOT_FOUND = 404 "not_found" "There is no such route";
    TASK_NOT_FOUND = 404 "task_not_found" "There is no such task";
    RESULT_NOT_FOUND = 404 "result_not_found" "There is no such result";
    ROOT_KEY = 401 "root_key" "Unauthorized";
    IP_BLOCKED = 403 "ip_blocked" "Access denied";
    ACCOUNT_SUSPENDED = 403 "account_suspended" "This account is suspended";
    ROOT_PERMISSION = 403 "root_permission" "Forbidden";
    API_NOT_FOUND = 404 "api_not_found" "There is no such api";
    ROOT_RATE = 429 "root_rate" "Too many requests";
    NOT_OFFERED = 501 "not_offered" "Not offered yet";
    KEY_LIMIT = 403 "key_limit" "Usage limit exceeded";
    KEY_NOT_FOUND = 404 "key_not_found" "There is no such key";
    METHOD_NOT_ALLOWED = 405 "method_not_allowed" "This route does not take that method";
    BODY_IDLE = 408 "body_idle" "The body took too long to arrive";
    WRONG_STATE = 409 "wrong_state" "The task's status does not allow that";
    KEY_STATE = 409 "key_state" "The key's state does not allow that";
    TOO_MANY_KEYS = 409 "too_many_keys" "One call may end 10,000 keys";
    KEY_REUSED = 409 "idempotency_key_reused" "The Idempotency-Key was used with another request";
    IN_PROGRESS = 409 "idempotency_in_progress" "The first request with this Idempotency-Key is at work";
    LINK_GONE = 410 "link_gone" "This link was used or has expired";
    BODY_TOO_LARGE = 413 "body_too_large" "The body is too large";
    GZIP_BOMB = 413 "gzip_bomb" "The body unpacks to far more than was sent";
    UNSUPPORTED_MEDIA_TYPE = 415 "unsupported_media_type" "Unsupported content type";
    UNSUPPORTED_ENCODING = 415 "unsupported_encoding" "The body is packed in a way that is not taken here";
    TOO_MANY_STREAMS = 429 "too_many_streams" "Too many streams of this account";
    BEYOND_XLSX = 422 "beyond_xlsx" "The results do not fit into a spreadsheet";
    NOT_A_LIST = 415 "not_a_list" "The body is no list";
    MOSTLY_INVALID = 422 "mostly_invalid" "Much of the list is not email addresses";
    BROKEN_WORKBOOK = 422 "broken_workbook" "The workbook cannot be read";
    WORKBOOK_TOO_LARGE = 413 "workbook_too_large" "The workbook is too large";
    INTERNAL = 500 "internal_error" "Something went wrong on our side";
    TOO_MANY_SUBMISSIONS = 503 "too_many_submissions" "Too many lists are being received";
    TOO_MANY_EXPORTS = 503 "too_many_exports" "Too many files are being made";
    EXPORT_TOO_SLOW = 503 "export_too_slow" "The file took too long to be made";
    TOO_MANY_WORKBOOKS = 503 "too_many_workbooks" "Too many workbooks are being read";
    TOO_MANY_REPORTS = 503 "too_many_reports" "Too many reports are being received";
    STORAGE_FULL = 507 "storage_full" "No room left";
    UNAVAILABLE = 503 "unavailable" "Not available for the moment";
}

/// An error on its way to the caller.
#[derive(Debug, Clone)]
pub struct Problem {
    kind: Kind,
    detail: Cow<'static, str>,
    /// Boxed: most have none, and answers of all kinds carry one.
    extra: Box<Map<String, Value>>,
    retry_after: Option<u32>,
}

impl Problem {
    /// A problem of a kind, with what happened this time.
    pub fn new(kind: Kind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, detail: detail.into(), extra: Box::default(), retry_after: None }
    }

    /// Worth asking again after some seconds.
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// A query parameter that does not parse.
    pub fn query(name: &str, detail: impl std::fmt::Display) -> Self {
        Self::new(INVALID_QUERY, format!("The query parameter \"{name}\": {detail}"))
    }

    /// A field of the body that does not parse.
    pub fn field(name: &str, detail: impl std::fmt::Display) -> Self {
        Self::new(INVALID_FIELD, format!("\"{name}\" {detail}."))
    }

    /// Not enough credits: what it costs, what there is, and what helps.
    pub fn insufficient(cost: i64, balance: i64) -> Self {
        const BUY: &str = "Please purchase more credits to continue";
        let missing = cost.saturating_sub(balance).max(1);
        let detail = format!(
            "This costs {cost} {}, and the balance is {balance}. The dashboard's page /credits shows where they are; \
             an operator books more with: listmill admin credits grant --account EMAIL --amount {missing}",
            if cost == 1 { "credit" } else { "credits" },
        );
        let mut problem = Self::new(INSUFFICIENT_CREDITS, detail);
        problem.extra.insert(String::from("current_balance"), balance.into());
        problem.extra.insert(String::from("message"), BUY.into());
        problem
    }

    /// The key's own limit of credits does not allow it; the gate's words, and why.
    pub fn key_limit(reason: String) -> Self {
        let mut problem = Self::new(KEY_LIMIT, reason.clone());
        problem.extra.insert(String::from("reason"), reason.into());
        problem
    }

    /// Our fault; the cause is in the log.
    pub fn internal() -> Self {
        Self::new(INTERNAL, "The fault is logged. Nothing that you can change caused it.")
    }

    /// A part that we need is away.
    pub fn unavailable() -> Self {
        Self::new(UNAVAILABLE, "The database cannot be reached. Please try again.").retry_after(2)
    }

    /// One more member of the body.
    pub fn with(mut self, name: &str, value: Value) -> Self {
        self.extra.insert(name.to_owned(), value);
        self
    }

    /// What it is, what happened this time, and a member by this name.
    pub fn parts(&self, name: &str) -> (Kind, &str, Option<&Value>) {
        (self.kind, &self.detail, self.extra.get(name))
    }

    /// The status it answers with.
    pub fn status(&self) -> u16 {
        self.kind.status
    }

    /// The body under `/v1`.
    pub fn json(&self) -> String {
        let body = ProblemBody {
            kind: format!("/docs/problems#{}", self.kind.code),
            title: self.kind.title,
            status: self.kind.status,
            detail: &self.detail,
            code: self.kind.code,
            error: self.kind.title,
            extra: &self.extra,
        };
        // Strings and numbers only: this cannot fail.
        serde_json::to_string(&body).unwrap_or_default()
    }

    /// The body under `/api`.
    fn plain_json(&self) -> String {
        let mut body = Map::new();
        body.insert(String::from("error"), self.kind.title.into());
        body.extend((*self.extra).clone());
        if !body.contains_key("message") && self.detail != self.kind.title {
            body.insert(String::from("message"), self.detail.as_ref().into());
        }
        Value::Object(body).to_string()
    }

    /// The answer under `/api`.
    pub fn into_plain(self) -> Response {
        let body = self.plain_json();
        self.respond(body, "application/json")
    }

    fn respond(&self, body: String, kind: &'static str) -> Response {
        let mut response = Response::new(Body::from(body));
        // Kinds are constants with valid statuses, see the test.
        *response.status_mut() =
            StatusCode::from_u16(self.kind.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        response
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.respond(self.json(), PROBLEM_JSON);
        response.extensions_mut().insert(self);
        response
    }
}

/// Media type of a problem.
pub const PROBLEM_JSON: &str = "application/problem+json";

#[derive(Serialize)]
struct ProblemBody<'a> {
    #[serde(rename = "type")]
    kind: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    code: &'a str,
    error: &'a str,
    #[serde(flatten)]
    extra: &'a Map<String, Value>,
}

/// Middleware of the routes under `/api`: their errors are in the seed system's words.
pub async fn plain(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    match response.extensions_mut().remove::<Problem>() {
        None => response,
        Some(problem) => {
            let mut rendered = problem.into_plain();
            // Limits and the like were added on the way out.
            for (name, value) in response.headers() {
                if name.as_str().starts_with("x-") || name == axum::http::header::ALLOW {
                    rendered.headers_mut().insert(name, value.clone());
                }
            }
            rendered
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            // Logged where it happened.
            StoreError::Away => Self::unavailable(),
            error if error.is_full() => {
                tracing::error!(%error, "the database's disk is full; answered 507");
                Self::new(
                    STORAGE_FULL,
                    "The database has no room left on its disk, so nothing can be changed. \
                     What is stored can be read. Try again when there is room.",
                )
                .retry_after(5)
            }
            error if error.is_read_only() => {
                tracing::warn!(%error, "the database takes no writes; answered 503");
                Self::new(UNAVAILABLE, "The database takes no changes for the moment.")
                    .retry_after(5)
            }
            error if error.is_held() => {
                tracing::warn!(%error, "held by another session; answered 503");
                Self::new(
                    UNAVAILABLE,
                    "Another database session holds what this request would change. Nothing was \
                     changed. Please try again in a moment.",
                )
                .retry_after(2)
            }
            error if error.is_transient() => {
                tracing::warn!(%error, "database away; answered 503");
                Self::unavailable()
            }
            error => {
                tracing::error!(%error, "store failed; answered 500");
                Self::internal()
            }
        }
    }
}

impl From<KeyError> for Problem {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Field(bad) => Self::field(bad.field, bad.want),
            KeyError::NotFound => Self::key_not_found(),
            KeyError::State(detail) => Self::new(KEY_STATE, detail),
            KeyError::TooMany => {
                Self::new(TOO_MANY_KEYS, "Nothing was ended. Name fewer, for instance by stage.")
            }
            KeyError::Task(error) => error.into(),
            KeyError::Store(error) => error.into(),
        }
    }
}

impl From<ControlError> for Problem {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::NotFound => Self::task_not_found(),
            ControlError::WrongState(status) => {
                Self::new(WRONG_STATE, format!("The task is {status}."))
            }
            ControlError::Insufficient => Self::insufficient(1, 0),
            ControlError::Store(error) => error.into(),
        }
    }
}

impl Problem {
    /// Unknown, malformed, erased or somebody else's: all alike.
    pub fn task_not_found() -> Self {
        Self::new(TASK_NOT_FOUND, "No task of this account has that id.")
    }

    /// Likewise.
    pub fn key_not_found() -> Self {
        Self::new(KEY_NOT_FOUND, "No key of this account has that id.")
    }
}

impl From<VerifyError> for Problem {
    fn from(error: VerifyError) -> Self {
        match error {
            VerifyError::Insufficient => Self::insufficient(1, 0),
            VerifyError::KeyLimit { limit } => Self::key_limit(format!(
                "this API key has used up its own limit of {limit} credits"
            )),
            VerifyError::TakenOver => crate::idempotency::taken_over(),
            VerifyError::Store(error) => error.into(),
        }
    }
}

impl From<SubmitError> for Problem {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Read(error) => error.into(),
            SubmitError::SandboxTooLong { limit } => {
                let longer: Self = ReadError::TooManyAddresses { limit }.into();
                Self { detail: error.to_string().into(), ..longer }
            }
            SubmitError::Body(error) => error.into(),
            SubmitError::MostlyInvalid(wrong) => Self::new(MOSTLY_INVALID, wrong.to_string()),
            SubmitError::Insufficient { needed, balance } => Self::insufficient(needed, balance),
            error @ SubmitError::KeyLimit { .. } => Self::key_limit(error.to_string()),
            SubmitError::KeyReused => Self::new(
                KEY_REUSED,
                "An Idempotency-Key stands for one request, body included. Take a new one.",
            ),
            SubmitError::Unsupported(what) => Self::new(INVALID_FIELD, what),
            SubmitError::Abandoned => {
                Self::new(BODY_IDLE, "The submission was idle for too long and was given up.")
            }
            SubmitError::Store(error) => error.into(),
        }
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        let kind = match &error {
            ReadError::Io(cause) => {
                tracing::error!(error = %cause, "list could not be read; answered 500");
                return Self::internal();
            }
            ReadError::InvalidJson { .. } => INVALID_JSON,
            ReadError::NotAList { .. } => NOT_A_LIST,
            ReadError::BrokenWorkbook { .. } => BROKEN_WORKBOOK,
            ReadError::WorkbookTooLarge { .. } => WORKBOOK_TOO_LARGE,
            ReadError::TooManyAddresses { .. } => {
                Kind { status: 413, code: error.code(), title: "The list is too long" }
            }
            _ => Kind { status: 400, code: error.code(), title: "The list cannot be taken" },
        };
        Self::new(kind, error.to_string())
    }
}

impl From<BodyError> for Problem {
    fn from(error: BodyError) -> Self {
        let kind = match &error {
            BodyError::Broken(_) => BODY_BROKEN,
            BodyError::Idle(_) => BODY_IDLE,
            BodyError::TooLarge(_) => BODY_TOO_LARGE,
            BodyError::Bomb => GZIP_BOMB,
            BodyError::NotUnpacked(Packing::Gzip, _) => NOT_GZIP,
            BodyError::NotUnpacked(..) => NOT_UNPACKED,
            BodyError::Busy => {
                return Self::new(TOO_MANY_WORKBOOKS, error.to_string()).retry_after(30);
            }
            BodyError::NoRoom => {
                return Self::new(STORAGE_FULL, error.to_string()).retry_after(60);
            }
        };
        Self::new(kind, error.to_string())
    }
}

/// An error while a small JSON body is parsed.
impl From<serde_json::Error> for Problem {
    fn from(error: serde_json::Error) -> Self {
        let kind = if error.is_data() { INVALID_BODY } else { INVALID_JSON };
        Self::new(kind, format!("{error}."))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use listmill_shared::domain::task::TaskStatus;

    #[test]
    fn statuses_are_valid_and_codes_unique() {
        let mut codes: Vec<&str> = ALL.iter().map(|kind| kind.code).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), ALL.len());
        assert!(ALL.iter().all(|kind| StatusCode::from_u16(kind.status).is_ok()));
    }

    #[test]
    fn typed_errors_have_their_status_and_code() {
        let cases: Vec<(Problem, u16, &str)> = vec![
            (ControlError::NotFound.into(), 404, "task_not_found"),
            (ControlError::WrongState(TaskStatus::Completed).into(), 409, "wrong_state"),
            (VerifyError::Insufficient.into(), 402, "insufficient_credits"),
            (SubmitError::KeyReused.into(), 409, "idempotency_key_reused"),
            (SubmitError::Read(ReadError::EmailsEmpty).into(), 400, "emails_empty"),
            (ReadError::TooManyAddresses { limit: 3 }.into(), 413, "too_many_addresses"),
            (BodyError::TooLarge(1).into(), 413, "body_too_large"),
            (BodyError::Bomb.into(), 413, "gzip_bomb"),
            (BodyError::Busy.into(), 503, "too_many_workbooks"),
            (BodyError::NoRoom.into(), 507, "storage_full"),
            (ReadError::NotAList { what: String::from("x"), hint: "y" }.into(), 415, "not_a_list"),
            (
                ReadError::BrokenWorkbook { problem: String::from("x") }.into(),
                422,
                "broken_workbook",
            ),
            (BodyError::Idle(std::time::Duration::ZERO).into(), 408, "body_idle"),
            (StoreError::Away.into(), 503, "unavailable"),
            (StoreError::RowCount { what: "x", rows: 0, want: 1 }.into(), 500, "internal_error"),
        ];
        for (problem, status, code) in cases {
            assert_eq!((problem.kind.status, problem.kind.code), (status, code), "{problem:?}");
            let body: Value = serde_json::from_str(&problem.json()).unwrap();
            assert_eq!(body["error"], body["title"]);
            assert_eq!((&body["status"], &body["code"]), (&status.into(), &code.into()));
        }
    }

    #[test]
    fn too_few_credits_in_both_shapes() {
        let problem = Problem::insufficient(9, 7);
        let plain: Value = serde_json::from_str(&problem.plain_json()).unwrap();
        let want = serde_json::json!({
            "error": "Insufficient credits",
            "current_balance": 7,
            "message": "Please purchase more credits to continue",
        });
        assert_eq!(plain, want);
        let full: Value = serde_json::from_str(&problem.json()).unwrap();
        assert_eq!(full["current_balance"], 7);
        let detail = full["detail"].as_str().unwrap();
        for part in ["costs 9 credits", "balance is 7", "/credits", "--amount 2"] {
            assert!(detail.contains(part), "{part}: {detail}");
        }
        assert_eq!(full["code"], "insufficient_credits");
    }

    #[test]
    fn a_store_failure_tells_nothing_of_itself() {
        let error = StoreError::Damaged { what: "reason", detail: String::from("SELECT secret") };
        let body = Problem::from(error).json();
        assert!(!body.contains("SELECT") && !body.contains("reason"), "{body}");
    }
}

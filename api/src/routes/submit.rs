//! Receiving lists: every media type comes down to a [`Plan`] and a stream of bytes.

use std::io;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use listmill_shared::app::submit::read::Understood;
use listmill_shared::app::submit::{Accepted, Answer, Submission, SubmitError};
use listmill_shared::domain::audit::Origin;
use listmill_shared::domain::clock::Millis;
use listmill_shared::domain::id::{AccountId, KeyId};
use listmill_shared::domain::task::Task;
use listmill_shared::store::StoreError;
use listmill_shared::store::idempotency::RequestKey;
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedSemaphorePermit;
use utoipa::ToSchema;

use self::dry_run::DryRun;
use self::list_read::ListRead;
use self::plan::unsupported;
pub use self::plan::{Plan, SubmitParams, gzip};
use super::json;
use crate::Api;
use crate::extract::{MediaType, Params, linger};
use crate::gate::Caller;
use crate::idempotency::{self, REPLAYED};
use crate::openapi::{self, Bad, Conflict, Gate, Poor};
use crate::problem::{Problem, TOO_MANY_SUBMISSIONS};
use crate::sandbox::kept_at;
use crate::view::{TaskView, to_json};

mod dry_run;
pub mod form;
mod list_read;
mod plan;

/// A list as JSON.
#[derive(Debug, Deserialize, ToSchema)]
#[allow(dead_code, reason = "describes what app::submit::read::json reads")]
pub struct ListBody {
    /// The addresses.
    #[schema(example = json!(["anna@example.com", "bert@example.com"]))]
    emails: Vec<String>,
    /// A name for the task, up to 200 characters.
    name: Option<String>,
    /// As the query parameter.
    allow_partial: Option<bool>,
}

/// Submit a list
///
/// The body is the list, streamed, up to 10,000,000 addresses:
///
/// - `application/json`: an object with `emails`, or that array alone; each element is a text, or an object that has
///   the address in a field such as `email`;
/// - `text/csv` or `text/tab-separated-values`: with or without a header; quoted fields may hold
///   delimiters and line breaks;
/// - `text/plain`: one address a line, or several with commas, semicolons or spaces between them; a table with tabs
///   or with known headers is taken for one;
/// - `application/x-ndjson` (or `application/jsonl`): per line a JSON string, or an object that has the address in a
///   field such as `email`;
/// - `text/vcard`, `text/ldif`, `message/rfc822` and `application/mbox`: address books, and the headers of mails;
/// - `application/octet-stream`: whatever its bytes say;
/// - `application/vnd.openxmlformats-officedocument.spreadsheetml.sheet`: a workbook (XLSX), recognised by its
///   bytes as well, whatever type was given. It is received as a whole before it is read, and has its own bounds
///   (`max_workbook_bytes`, 1 GiB unpacked);
/// - `multipart/form-data`: the list in the field `file`, whose content type or file name
///   (`.csv .tsv .txt .ndjson .jsonl .json .xlsx`, each also with `.gz`) says what it is. Fields named as
///   the query parameters may stand **before** it; what stands behind it is not read.
///
/// `Content-Encoding: gzip` is taken for all but forms. A list that is itself packed with gzip, zstd or ZIP (one list in
/// it) is recognised by its bytes. A text may have any encoding: a byte order mark, `charset` or the bytes themselves
/// tell it. Nothing of a refused list is stored or charged; `detail` says where the fault is.
///
/// Addresses are taken out of what people and programs write around them: `Anna <anna@example.com>`, quotes, `mailto:`,
/// comments, characters that nobody sees. Several in one cell or line are several addresses of that row. The result has
/// the text as it stood as `submitted`, where it differs from `email`.
///
/// Repeated addresses (domain in any case) are verified and charged once. The answer says how the list was understood
/// (`list`).
///
/// With a **test key** the sandbox verifies, nothing is charged, and a list holds up to 100,000 addresses
/// (the setting `test_task_addresses`).
#[utoipa::path(post, path = "/v1/tasks", tag = "tasks",
    params(SubmitParams,
        ("Idempotency-Key" = Option<String>, Header, description = "See the introduction.")),
    request_body(description = "The list.", content(
        (ListBody = "application/json"),
        (String = "text/csv"),
        (String = "text/plain"),
        (String = "application/x-ndjson"),
        (String = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
        (form::ListForm = "multipart/form-data"),
    )),
    responses(
        (status = 201, description = "The task, accepted.", body = AcceptedTask<'static>,
            headers(("Location" = String, description = "Where the task is."))),
        (status = 200, description = "With `dry_run`: what the list would come to.", body = DryRun),
        (status = 408, description = "The body stopped arriving.", body = openapi::Problem,
            content_type = "application/problem+json"),
        (status = 413, description = "The list is too long or too large.",
            body = openapi::Problem, content_type = "application/problem+json"),
        (status = 415, description = "Not a type, charset or encoding that is taken, or no list at all.",
            body = openapi::Problem, content_type = "application/problem+json"),
        (status = 422, description = "A workbook that cannot be read, or a list that is mostly no addresses.",
            body = openapi::Problem, content_type = "application/problem+json"),
        Bad, Poor, Conflict, Gate))]
pub async fn submit(
    State(api): State<Api>,
    caller: Caller,
    Params(params): Params<SubmitParams>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let headers = &parts.headers;
    let (permit, idempotency, kind) = match prepare(&api, headers) {
        Ok(prepared) => prepared,
        Err(problem) => {
            linger(body).await;
            return Err(problem);
        }
    };
    let who = Submitter::from(&caller);
    let intake = Intake { api, who, permit, idempotency, route: "POST /v1/tasks", answer };
    if kind.essence == "multipart/form-data" {
        return form::submit(intake, params, headers, body).await;
    }
    match Plan::new(&kind, headers, &params) {
        Ok(plan) => intake.receive(plan, bytes_of(body)).await,
        Err(problem) => {
            linger(body).await;
            Err(problem)
        }
    }
}

/// What is judged before the body is looked at.
pub fn prepare(
    api: &Api,
    headers: &HeaderMap,
) -> Result<(OwnedSemaphorePermit, Option<String>, MediaType), Problem> {
    let idempotency = idempotency::key(headers)?;
    let kind = MediaType::of(headers).ok_or_else(unsupported)?;
    let permit = api.submissions.clone().try_acquire_owned().map_err(|_| {
        Problem::new(
            TOO_MANY_SUBMISSIONS,
            "This server is receiving as many lists as it can. Please try again.",
        )
        .retry_after(5)
    })?;
    Ok((permit, idempotency, kind))
}

/// A body as the use-case takes it.
pub fn bytes_of(body: Body) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    body.into_data_stream().map(|piece| piece.map_err(io::Error::other))
}

/// Who submits, and who pays.
#[derive(Debug, Clone)]
pub struct Submitter {
    /// Who pays.
    pub account: AccountId,
    /// By which key.
    pub key: Option<KeyId>,
    /// The person, where no key does.
    pub by: Option<Origin>,
    /// The key has a limit of credits of its own.
    pub key_limited: bool,
    /// It is a test key.
    pub sandbox: bool,
}

impl From<&Caller> for Submitter {
    fn from(caller: &Caller) -> Self {
        Self {
            account: caller.account,
            key: Some(caller.key),
            by: None,
            key_limited: caller.key_limited(),
            sandbox: caller.is_test(),
        }
    }
}

/// A submission, but for its list.
pub struct Intake {
    /// Where it goes.
    pub api: Api,
    /// Whose it is.
    pub who: Submitter,
    /// Its place among those received at once.
    pub permit: OwnedSemaphorePermit,
    /// The client's key.
    pub idempotency: Option<String>,
    /// What the key belongs to.
    pub route: &'static str,
    /// How the task is answered.
    pub answer: Answer,
}

impl Intake {
    /// Receives the list and answers. In a task of its own: when the client hangs up, what has been
    /// stored of its list is still put away.
    pub async fn receive(
        self,
        plan: Plan,
        body: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> Result<Response, Problem> {
        render(self.accept(plan, body).await?)
    }

    /// Likewise, for who answers otherwise.
    pub async fn accept(
        self,
        plan: Plan,
        body: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> Result<Accepted, SubmitError> {
        let Intake { api, who, permit, idempotency, route, answer } = self;
        // What else of the request decides what it does.
        let rest = format!("{plan:?}");
        let route = kept_at(route.to_owned(), who.sandbox);
        let request = |key| RequestKey { account: who.account, route, key };
        let submission = Submission {
            account: who.account,
            key: who.key,
            by: who.by,
            key_limited: who.key_limited,
            sandbox: who.sandbox,
            idempotency: idempotency.filter(|_| !plan.dry_run).map(|key| (request(key), rest)),
            format: plan.format,
            said: plan.said,
            gzip: plan.gzip,
            allow_invalid: plan.allow_invalid,
            name: plan.name,
            allow_partial: plan.allow_partial,
            dry_run: plan.dry_run,
            answer,
        };
        let receiving = tokio::spawn(async move {
            let accepted = api.app.submit(submission, body).await;
            drop(permit);
            accepted
        });
        match receiving.await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::error!(%error, "submission panicked");
                let detail = error.to_string();
                Err(SubmitError::Store(StoreError::Damaged { what: "submission", detail }))
            }
        }
    }
}

fn render(accepted: Accepted) -> Result<Response, Problem> {
    match accepted {
        Accepted::Counted { submitted, cost, balance, book, understood, doubt } => {
            let doubt = doubt.as_deref();
            let counted = DryRun::new(submitted, cost, balance, book, &understood, doubt);
            Ok(json(StatusCode::OK, to_json(&counted)))
        }
        Accepted::Task { status, body, replayed, .. } => {
            let location = location(&body);
            let status = StatusCode::from_u16(status as u16).unwrap_or(StatusCode::OK);
            let mut response = json(status, body);
            if let (StatusCode::CREATED, Some(location)) = (status, location) {
                response.headers_mut().insert(LOCATION, location);
            }
            if replayed {
                response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
            }
            Ok(response)
        }
    }
}

/// Where the task of an answer is; also for an answer that was remembered.
fn location(body: &str) -> Option<HeaderValue> {
    #[derive(Deserialize)]
    struct Named {
        id: String,
    }
    let named: Named = serde_json::from_str(body).ok()?;
    HeaderValue::from_str(&format!("/v1/tasks/{}", named.id)).ok()
}

/// A task that was accepted.
#[derive(Debug, Serialize, ToSchema)]
struct AcceptedTask<'a> {
    #[serde(flatten)]
    task: TaskView<'a>,
    /// How its list was understood. In this answer only.
    list: ListRead,
}

fn answer(task: &Task, understood: &Understood, now: Millis) -> (i16, String) {
    // It has not ended, so nothing of it expires yet.
    let task = TaskView::new(task, now, Duration::ZERO);
    (201, to_json(&AcceptedTask { task, list: understood.into() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_where_its_answer_says() {
        assert_eq!(location("{\"id\":\"task_1\",\"x\":2}").unwrap(), "/v1/tasks/task_1");
        assert!(location("{\"task_id\":\"task_1\"}").is_none());
    }
}

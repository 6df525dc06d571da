//! Receiving lists: every media type comes down to a [`Plan`] and a stream of bytes.

use std::io;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, LOCATION};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use encoding_rs::Encoding;
use futures::{Stream, StreamExt};
use listmill_shared::app::submit::read::{Format, Said, Understood, encoding};
use listmill_shared::app::submit::{Accepted, Answer, Submission, SubmitError};
use listmill_shared::domain::audit::Origin;
use listmill_shared::domain::clock::Millis;
use listmill_shared::domain::id::{AccountId, KeyId};
use listmill_shared::domain::task::Task;
use listmill_shared::store::StoreError;
use listmill_shared::store::idempotency::RequestKey;
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedSemaphorePermit;
use utoipa::{IntoParams, ToSchema};

use self::dry_run::DryRun;
use self::list_read::ListRead;
use super::json;
use crate::Api;
use crate::extract::{MediaType, Params, flag, linger};
use crate::gate::Caller;
use crate::idempotency::{self, REPLAYED};
use crate::openapi::{self, Bad, Conflict, Gate, Poor};
use crate::problem::{Problem, TOO_MANY_SUBMISSIONS, UNSUPPORTED_ENCODING, UNSUPPORTED_MEDIA_TYPE};
use crate::sandbox::kept_at;
use crate::view::{TaskView, to_json};

mod dry_run;
pub mod form;
mod list_read;

/// Characters of a task's name.
const NAME: usize = 200;

#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct SubmitParams {
    /// A name for the task, up to 200 characters. A name in a JSON body wins.
    name: Option<String>,
    /// CSV and workbooks: the column with the addresses, by its header (any case), its number from 1 or its letter;
    /// several with commas between them, or `*` for all that hold addresses. Found out unless given.
    column: Option<String>,
    /// Workbooks: the sheet, by its name (any case). The first one with rows unless given.
    sheet: Option<String>,
    /// CSV: the delimiter, one character, or `tab`. Found out among comma, semicolon, tab and `|`
    /// unless given.
    delimiter: Option<String>,
    /// The list's encoding, as `charset` of a content type would say it. Found out unless given.
    charset: Option<String>,
    /// Addresses that differ by letter case or a tag (`anna+news@`) alone are verified and charged once.
    #[param(value_type = Option<bool>)]
    collapse: Option<String>,
    /// Take the list however much of it is no address. Without it, a list with more than 20 % of such entries (and ten
    /// at least) is refused: it is probably another file than was meant.
    #[param(value_type = Option<bool>)]
    allow_invalid: Option<String>,
    /// Run until the credits end, pause, and go on by itself after a top-up, instead of refusing a
    /// list that costs more than there is.
    #[param(value_type = Option<bool>)]
    allow_partial: Option<String>,
    /// Count and price only; nothing is stored.
    #[param(value_type = Option<bool>)]
    dry_run: Option<String>,
}

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

fn unsupported() -> Problem {
    Problem::new(
        UNSUPPORTED_MEDIA_TYPE,
        "Send the list as application/json, text/csv, text/tab-separated-values, text/plain, \
         application/x-ndjson, text/vcard, text/ldif, message/rfc822, multipart/form-data, a workbook (.xlsx: \
         application/vnd.openxmlformats-officedocument.spreadsheetml.sheet), or application/octet-stream where its \
         bytes shall say what it is; and say so in Content-Type.",
    )
}

/// A body as the use-case takes it.
pub fn bytes_of(body: Body) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    body.into_data_stream().map(|piece| piece.map_err(io::Error::other))
}

/// How a list is to be read.
#[derive(Debug)]
pub struct Plan {
    /// How it is written.
    pub format: Format,
    /// What else was said of it.
    pub said: Said,
    /// Whether it is packed on its way.
    pub gzip: bool,
    /// Take it however much of it is no address.
    pub allow_invalid: bool,
    /// What the task is called.
    pub name: Option<String>,
    /// Run until credits end.
    pub allow_partial: bool,
    /// Count only.
    pub dry_run: bool,
}

impl Plan {
    fn new(kind: &MediaType, headers: &HeaderMap, params: &SubmitParams) -> Result<Self, Problem> {
        let format = format(&kind.essence, params)?.ok_or_else(unsupported)?;
        Self::of(format, kind.charset.as_deref(), gzip(headers)?, params)
    }

    /// A JSON body of which nothing more is said.
    pub fn of_json() -> Self {
        Self {
            format: Format::Json,
            said: Said::default(),
            gzip: false,
            allow_invalid: false,
            name: None,
            allow_partial: false,
            dry_run: false,
        }
    }

    fn of(
        format: Format,
        charset: Option<&str>,
        gzip: bool,
        params: &SubmitParams,
    ) -> Result<Self, Problem> {
        let charset =
            params.charset.as_deref().filter(|charset| !charset.trim().is_empty()).or(charset);
        let collapse = flag("collapse", params.collapse.as_deref())?;
        Ok(Self {
            format,
            said: Said { encoding: charset.map(known_encoding).transpose()?.flatten(), collapse },
            gzip,
            allow_invalid: flag("allow_invalid", params.allow_invalid.as_deref())?,
            name: name(params.name.as_deref())?,
            allow_partial: flag("allow_partial", params.allow_partial.as_deref())?,
            dry_run: flag("dry_run", params.dry_run.as_deref())?,
        })
    }
}

/// `None`: ASCII, which says nothing that the bytes do not.
fn known_encoding(charset: &str) -> Result<Option<&'static Encoding>, Problem> {
    let charset = charset.trim();
    if charset.eq_ignore_ascii_case("us-ascii") || charset.eq_ignore_ascii_case("ascii") {
        return Ok(None);
    }
    encoding(charset).map(Some).ok_or_else(|| {
        let detail = format!(
            "The charset {charset:.40} is not known. Known are utf-8, utf-16le, utf-16be, windows-1252, iso-8859-1, \
             shift_jis, gb18030 and the others of the WHATWG Encoding Standard; without one it is found out."
        );
        Problem::new(UNSUPPORTED_MEDIA_TYPE, detail)
    })
}

/// Types that workbooks have; the bytes decide.
const WORKBOOKS: [&str; 4] = [
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "application/vnd.ms-excel.sheet.macroenabled.12",
    "application/vnd.oasis.opendocument.spreadsheet",
    "application/vnd.ms-excel",
];
/// What programs say that know no better, or of what is packed; the bytes decide.
const ANY: [&str; 6] = [
    "application/octet-stream",
    "application/zip",
    "application/x-zip-compressed",
    "application/gzip",
    "application/x-gzip",
    "application/zstd",
];

/// The format that a media type stands for.
fn format(essence: &str, params: &SubmitParams) -> Result<Option<Format>, Problem> {
    let delimiter = delimiter(params.delimiter.as_deref())?;
    let column = params.column.clone();
    Ok(match essence {
        "application/json" => Some(Format::Json),
        // Who names a sheet has a workbook, whatever else is said of it.
        "text/csv" | "application/csv" | "text/plain" if params.sheet.is_some() => {
            Some(Format::Workbook { column, sheet: params.sheet.clone() })
        }
        "text/csv" | "application/csv" => Some(Format::Csv { column, delimiter }),
        "text/tab-separated-values" => {
            Some(Format::Csv { column, delimiter: delimiter.or(Some(b'\t')) })
        }
        "text/plain" => Some(Format::Text),
        "application/x-ndjson"
        | "application/ndjson"
        | "application/jsonl"
        | "application/x-jsonlines" => Some(Format::Ndjson),
        "text/vcard" | "text/x-vcard" | "text/directory" => Some(Format::Cards),
        "text/ldif" | "text/x-ldif" | "application/x-ldif" | "application/ldif" => {
            Some(Format::Ldif)
        }
        "message/rfc822" | "application/mbox" => Some(Format::Mail),
        essence if ANY.contains(&essence) => {
            Some(Format::Any { column, delimiter, sheet: params.sheet.clone() })
        }
        essence if WORKBOOKS.contains(&essence) => {
            Some(Format::Workbook { column, sheet: params.sheet.clone() })
        }
        _ => None,
    })
}

fn delimiter(given: Option<&str>) -> Result<Option<u8>, Problem> {
    match given.map(str::as_bytes) {
        None | Some(b"") => Ok(None),
        Some(b"tab" | b"\\t") => Ok(Some(b'\t')),
        Some([one]) => Ok(Some(*one)),
        Some(_) => Err(Problem::query("delimiter", "must be one ASCII character, or tab.")),
    }
}

fn name(given: Option<&str>) -> Result<Option<String>, Problem> {
    let Some(name) = given.map(str::trim).filter(|name| !name.is_empty()) else { return Ok(None) };
    if name.chars().count() > NAME || name.contains(char::is_control) {
        let want = format!("must be up to {NAME} characters, none of them a control character.");
        return Err(Problem::query("name", want));
    }
    Ok(Some(name.to_owned()))
}

/// Is the body packed with gzip?
pub fn gzip(headers: &HeaderMap) -> Result<bool, Problem> {
    let mut all = headers.get_all(CONTENT_ENCODING).iter();
    let first = all.next().map(|value| value.to_str().unwrap_or("?").trim().to_ascii_lowercase());
    match (first.as_deref(), all.next()) {
        (None | Some("" | "identity"), None) => Ok(false),
        (Some("gzip" | "x-gzip"), None) => Ok(true),
        _ => Err(Problem::new(
            UNSUPPORTED_ENCODING,
            "Only Content-Encoding: gzip (or none at all) is taken here.",
        )),
    }
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

/// The text of the header, for what reads it as a whole.
fn content_type(headers: &HeaderMap) -> &str {
    headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_stand_for_formats() {
        let params = SubmitParams { column: Some(String::from("mail")), ..Default::default() };
        let of = |essence| format(essence, &params).unwrap();
        assert_eq!(of("application/json"), Some(Format::Json));
        assert_eq!(of("application/jsonl"), Some(Format::Ndjson));
        assert_eq!(of("text/plain"), Some(Format::Text));
        let column = params.column.clone();
        assert_eq!(of("text/csv"), Some(Format::Csv { column: column.clone(), delimiter: None }));
        let tab = Some(Format::Csv { column, delimiter: Some(b'\t') });
        assert_eq!(of("text/tab-separated-values"), tab);
        assert_eq!(of("application/xml"), None);
        let workbook = Some(Format::Workbook { column: params.column.clone(), sheet: None });
        assert!(WORKBOOKS.iter().all(|essence| of(essence) == workbook));
    }

    #[test]
    fn parameters_have_their_bounds() {
        assert_eq!(delimiter(Some("tab")).unwrap(), Some(b'\t'));
        assert_eq!(delimiter(Some(";")).unwrap(), Some(b';'));
        assert!(delimiter(Some("ab")).is_err());
        assert_eq!(name(Some("  March ")).unwrap().as_deref(), Some("March"));
        assert_eq!(name(Some(" ")).unwrap(), None);
        assert!(name(Some("a\0b")).is_err());
        assert!(name(Some(&"x".repeat(201))).is_err());
    }

    #[test]
    fn only_gzip_is_unpacked() {
        let of = |value: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(value) = value {
                headers.insert(CONTENT_ENCODING, value.parse().unwrap());
            }
            gzip(&headers).ok()
        };
        assert_eq!(of(None), Some(false));
        assert_eq!(of(Some("identity")), Some(false));
        assert_eq!(of(Some("GZIP")), Some(true));
        assert_eq!(of(Some("br")), None);
        assert_eq!(of(Some("gzip, gzip")), None);
    }

    #[test]
    fn a_task_is_where_its_answer_says() {
        assert_eq!(location("{\"id\":\"task_1\",\"x\":2}").unwrap(), "/v1/tasks/task_1");
        assert!(location("{\"task_id\":\"task_1\"}").is_none());
    }
}

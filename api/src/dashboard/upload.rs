//! Lists that a person sends: to be counted, or to be verified.
//!
//! The form is a stream, whatever its length: the token of the session is its first field, and nothing behind it is
//! looked at unless it is right. A script gets the answer to its request as a piece of the page, and sees its
//! progress; without one the whole page comes back.

use askama::Template;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, LOCATION};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use listmill_shared::app::submit::read::{Book, Column, Sample, Understood};
use listmill_shared::app::submit::{Accepted, Likely, MostlyInvalid, SubmitError};
use listmill_shared::domain::clock::Millis;
use listmill_shared::domain::task::{Submitted, Task};

use super::page::{Failure, Page, html_with, see_other_saying};
use super::session::{Viewer, csrf_of, from_elsewhere, is_csrf};
use super::tasks::{Extra, ListQuery, show};
use super::text::{filled, text};
use crate::Api;
use crate::extract::linger;
use crate::problem::Problem;
use crate::routes::submit::form::{NotTaken, submit_by_person};
use crate::routes::submit::{Intake, Submitter, prepare};

/// What a list would come to, as a person reads it.
#[derive(Debug)]
pub struct Check {
    /// Rows with an address.
    pub submitted: String,
    /// Distinct addresses.
    pub unique: String,
    /// Rows that repeat one.
    pub duplicates: String,
    /// With broken syntax.
    pub invalid: String,
    /// Credits at most.
    pub cost: String,
    /// What there is.
    pub balance: String,
    /// How many are missing, in words.
    pub missing: Option<String>,
    /// How it was understood.
    pub read: Option<Read>,
    /// Why it would be refused.
    pub doubt: Option<String>,
    /// What was read of a workbook.
    pub book: Option<Sheet>,
}

/// How a list was understood.
#[derive(Debug)]
pub struct Read {
    /// In a sentence.
    pub manner: String,
    /// Addresses that are likely one mailbox with another, where there are any.
    pub likely: Option<String>,
    /// The first addresses: what stands in the list, what was made of it, and whether that is an address.
    pub first: Vec<Sample>,
}

impl Read {
    fn new(page: &Page, understood: &Understood) -> Self {
        let Understood { format, encoding, columns, likely_duplicates, .. } = understood;
        let mut manner = filled("tasks.read_as", &[("format", format), ("encoding", encoding)]);
        let called =
            |column: &Column| column.name.clone().unwrap_or_else(|| column.number.to_string());
        let names: Vec<String> = columns.iter().map(called).collect();
        if !names.is_empty() {
            manner.push(' ');
            manner.push_str(&filled("tasks.read_column", &[("name", &names.join(", "))]));
        }
        let count = i64::try_from(*likely_duplicates).unwrap_or(i64::MAX);
        Self {
            manner,
            likely: (count > 0).then(|| filled("tasks.likely", &[("n", &page.n(count))])),
            first: understood.first.clone(),
        }
    }
}

/// The first rows of a workbook's sheet: the browser cannot look into one.
#[derive(Debug)]
pub struct Sheet {
    /// The workbook's sheets; was it this one?
    pub sheets: Vec<(String, bool)>,
    /// The columns: number, what it is called, and whether the addresses are in it.
    pub columns: Vec<(usize, String, bool)>,
    /// Cells, as many as there are columns.
    pub rows: Vec<Vec<String>>,
    /// A script is there that another choice is of use to.
    pub live: bool,
}

impl Sheet {
    fn new(book: Book, live: bool) -> Self {
        let Book { sheet, mut sheets, column, first: mut rows } = book;
        if !sheets.contains(&sheet) {
            sheets.push(sheet.clone());
        }
        let width = rows.iter().map(Vec::len).max().unwrap_or_default();
        rows.iter_mut().for_each(|row| row.resize(width, String::new()));
        let called = |no: usize| filled("tasks.column_no", &[("n", &no.to_string())]);
        Self {
            sheets: sheets.into_iter().map(|name| (name.clone(), name == sheet)).collect(),
            columns: (1..=width).map(|no| (no, called(no), no == column)).collect(),
            rows,
            live,
        }
    }
}

impl Check {
    fn new(page: &Page, submitted: Submitted, cost: i64, balance: i64, refused: bool) -> Self {
        Self {
            book: None,
            read: None,
            doubt: None,
            submitted: page.n(submitted.submitted),
            unique: page.n(submitted.unique),
            duplicates: page.n(submitted.duplicates),
            invalid: page.n(submitted.invalid_syntax),
            cost: page.n(cost),
            balance: page.n(balance),
            missing: (refused && cost > balance).then(|| too_poor(page, cost, balance)),
        }
    }
}

/// Why a list is not taken as it is, in the words of the form.
fn doubtful(page: &Page, doubt: &MostlyInvalid) -> String {
    let likely = match &doubt.likely {
        Likely::OtherColumn { taken, better } => {
            filled("tasks.other_column", &[("taken", taken), ("better", better)])
        }
        Likely::WrongColumn { taken } => filled("tasks.wrong_column", &[("taken", taken)]),
        Likely::Encoding(encoding) => filled("tasks.wrong_encoding", &[("encoding", encoding)]),
        Likely::WrongFile => text("tasks.wrong_file").to_owned(),
        Likely::Damaged => text("tasks.damaged").to_owned(),
    };
    let (invalid, unique) = (page.n(doubt.invalid), page.n(doubt.unique));
    let samples = doubt.samples();
    let with = [
        ("invalid", invalid.as_str()),
        ("unique", &unique),
        ("samples", &samples),
        ("likely", &likely),
    ];
    filled("tasks.doubt", &with)
}

fn too_poor(page: &Page, cost: i64, balance: i64) -> String {
    let (missing, cost, balance) = (page.n(cost - balance), page.n(cost), page.n(balance));
    let with = [("missing", missing.as_str()), ("cost", &cost), ("balance", &balance)];
    filled("tasks.too_poor", &with)
}

/// The answer alone, for the script.
#[derive(Template)]
#[template(path = "upload_answer.html")]
struct Fragment {
    page: Page,
    check: Option<Check>,
    error: Option<String>,
}

/// `POST /tasks/check`: counts and price; nothing is stored.
pub async fn check(
    State(api): State<Api>,
    viewer: Viewer,
    request: Request,
) -> Result<Response, Failure> {
    receive(api, viewer, true, request).await
}

/// `POST /tasks`
pub async fn start(
    State(api): State<Api>,
    viewer: Viewer,
    request: Request,
) -> Result<Response, Failure> {
    receive(api, viewer, false, request).await
}

async fn receive(
    api: Api,
    viewer: Viewer,
    dry_run: bool,
    request: Request,
) -> Result<Response, Failure> {
    let (parts, body) = request.into_parts();
    let headers = &parts.headers;
    let refused = match viewer.require_write().and_then(|()| viewer.require_active()) {
        Err(failure) => Some(failure),
        Ok(()) => from_elsewhere(headers).then_some(Failure::Csrf),
    };
    if let Some(failure) = refused {
        linger(body).await;
        return Err(failure);
    }
    let permit = match prepare(&api, headers) {
        Ok((permit, ..)) => permit,
        Err(problem) => {
            linger(body).await;
            return not_taken(&api, &viewer, headers, NotTaken::Problem(problem)).await;
        }
    };
    let who = Submitter {
        account: viewer.account,
        key: None,
        by: Some(viewer.origin.clone()),
        key_limited: false,
        sandbox: false,
    };
    let intake =
        Intake { api: api.clone(), who, permit, idempotency: None, route: "POST /tasks", answer };
    let ours = csrf_of(viewer.token());
    let taken = submit_by_person(intake, |given| is_csrf(given, ours), dry_run, headers, body);
    match taken.await {
        Ok(Accepted::Counted { submitted, cost, balance, book, understood, doubt }) => {
            let page = Page::new(&viewer, "tasks");
            let mut check = Check::new(&page, submitted, cost, balance, api.app.settings.credits);
            check.read = Some(Read::new(&page, &understood));
            check.doubt = doubt.map(|doubt| doubtful(&page, &doubt));
            check.book = book.map(|book| Sheet::new(book, by_script(headers)));
            answered(&api, &viewer, headers, Some(check), None, StatusCode::OK).await
        }
        Ok(Accepted::Task { body, .. }) => {
            let addresses = body.parse().unwrap_or_default();
            let count = viewer.reader.number(addresses);
            let said = filled("tasks.accepted", &[("n", &count)]);
            let mut response = see_other_saying("/tasks", &said);
            if by_script(headers) {
                // It would follow a redirect by itself, and take the notice away from the page.
                *response.status_mut() = StatusCode::OK;
                *response.body_mut() = Body::from("{\"to\":\"/tasks\"}");
                let kind = HeaderValue::from_static("application/json");
                response.headers_mut().insert(CONTENT_TYPE, kind);
                response.headers_mut().remove(LOCATION);
            }
            Ok(response)
        }
        Err(refused) => not_taken(&api, &viewer, headers, refused).await,
    }
}

/// What is remembered of an accepted list: how many addresses it has.
fn answer(task: &Task, _: &Understood, _: Millis) -> (i16, String) {
    (303, task.submitted.unique.to_string())
}

fn by_script(headers: &HeaderMap) -> bool {
    headers.get("x-listmill").is_some_and(|value| value == "script")
}

async fn not_taken(
    api: &Api,
    viewer: &Viewer,
    headers: &HeaderMap,
    refused: NotTaken,
) -> Result<Response, Failure> {
    let page = Page::new(viewer, "tasks");
    let (status, words) = match refused {
        NotTaken::Csrf => (403, text("errors.csrf_why").to_owned()),
        NotTaken::Refused(SubmitError::Insufficient { needed, balance }) => {
            (402, too_poor(&page, needed, balance))
        }
        NotTaken::Refused(SubmitError::MostlyInvalid(doubt)) => (422, doubtful(&page, &doubt)),
        NotTaken::Refused(error) => words(&Problem::from(error)),
        NotTaken::Problem(problem) => words(&problem),
    };
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
    answered(api, viewer, headers, None, Some(words_whole(words)), status).await
}

fn words(problem: &Problem) -> (u16, String) {
    let (kind, detail, _) = problem.parts("");
    (problem.status(), format!("{}. {detail}", kind.title))
}

/// Ends a sentence.
fn words_whole(words: String) -> String {
    if words.ends_with(['.', '!', '?']) { words } else { words + "." }
}

async fn answered(
    api: &Api,
    viewer: &Viewer,
    headers: &HeaderMap,
    check: Option<Check>,
    error: Option<String>,
    status: StatusCode,
) -> Result<Response, Failure> {
    if by_script(headers) {
        return Ok(html_with(status, &Fragment { page: Page::new(viewer, "tasks"), check, error }));
    }
    let extra = Extra { check, error, ..Extra::default() };
    show(api, viewer, &ListQuery::default(), extra, status).await
}

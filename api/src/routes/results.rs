//! Results as pages; [`super::download`] has them as files.
//!
//! Results of a running task are stored out of order: behind a page's last `seq`, earlier ones may
//! still come. So there are two ways to read it: what is there now, or (`follow`) only what lies
//! below the first `seq` without a result, with a cursor that never ends before the task does.
//!
//! A page looks for what fits for [`LOOKING`]; then it has what there is, and a cursor that goes on.

use std::time::Duration;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::header::ACCEPT;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use listmill_shared::domain::id::TaskId;
use listmill_shared::domain::result_filter::ResultFilter;
use listmill_shared::domain::task::Task;
use listmill_shared::domain::verdict::{Flag, Reason, Status};
use listmill_shared::store::results::{Found, Part};
use listmill_shared::store::{Store, StoreError};
use serde::Deserialize;
use utoipa::IntoParams;

use super::download::{self, Format};
use super::json;
use crate::Api;
use crate::cursor::{Cursor, SeqCursor, cursor, limit};
use crate::extract::{Id, Params};
use crate::gate::Caller;
use crate::openapi::{Bad, Gate, NoTask};
use crate::problem::{Problem, RESULT_NOT_FOUND};
use crate::view::{Evident, Page, ResultView, to_json, write_result};

/// Results on a page, unless asked otherwise, and at most.
pub const PAGE: i64 = 1_000;
pub const MOST: i64 = 10_000;
/// For so long a page looks for results that fit.
const LOOKING: Duration = Duration::from_secs(1);

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ResultParams {
    /// `json` is a page, all others are everything. Unless given, the header `Accept` decides.
    #[param(value_type = Option<crate::openapi::ResultFormat>)]
    format: Option<String>,
    /// `formulas`: cells that begin with `=`, `+`, `-`, `@`, a tab or a line break get an apostrophe before
    /// them, so that no spreadsheet takes them for a formula. With `csv` and `zip`; `xlsx` needs none.
    #[param(value_type = Option<crate::openapi::Escape>)]
    escape: Option<String>,
    /// Only results with this status.
    #[param(value_type = Option<crate::openapi::Status>)]
    status: Option<String>,
    /// Only results with this reason.
    #[param(value_type = Option<crate::openapi::Reason>)]
    reason: Option<String>,
    /// Only results with this flag (where it is `true`).
    #[param(value_type = Option<crate::openapi::Flag>)]
    flag: Option<String>,
    /// Pages only: where the page begins, a `next_cursor` of this list.
    cursor: Option<String>,
    /// Pages only: read a running task piece by piece, none missed and none twice. A page then ends
    /// before the first address without a result, and `next_cursor` is null only after the end.
    #[serde(default)]
    follow: bool,
    /// Pages only: results on the page, 1 to 10000; 1000 unless given.
    #[param(value_type = Option<i64>, minimum = 1, maximum = 10000)]
    limit: Option<String>,
}

/// How results are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Page,
    File(Format),
}

/// Read results
///
/// **Pages**, in `seq` order, also while the task runs: the results that are there now.
/// `next_cursor` is null on the last page. A page may have fewer results than asked for, or none, and a
/// `next_cursor` all the same: what fits is looked for, and that is done for a second at a time. Results are stored out of order, so a running task may
/// get some behind you; to take it piece by piece as it goes, ask with `follow=true`.
///
/// **`format=ndjson`** streams one result a line, in `seq` order: for a running task, those that are
/// there, gaps included.
///
/// **`format=csv`** gives the submitted file back, with its order, columns, duplicate rows and
/// delimiter, and adds columns that begin with `listmill_`. A duplicate row has the verdict of its
/// first occurrence and the credit `free`; a row without an address or without a result yet has
/// empty cells there. With `status`, `reason` or `flag`, only rows whose result fits.
///
/// **`format=xlsx`** is the same as a workbook, **`format=zip`** as a CSV for each status, with what has none of
/// its own (duplicates, rows without an address or without a result yet) in `rest.csv`. These are made before
/// they are sent: a few at once, others are told to come again (503).
///
/// **`format=json_array`** is one array of all results, **`format=txt`** their addresses alone, one a line.
///
/// A stream that breaks off midway ends in a broken connection, never in a clean end.
#[utoipa::path(get, path = "/v1/tasks/{id}/results", tag = "tasks",
    params(("id" = String, Path, description = "Id of the task."), ResultParams),
    responses(
        (status = 200, description = "Results.", content(
            (Page<ResultView<'static>> = "application/json"),
            (String = "text/csv"),
            (String = "application/x-ndjson"),
            (String = "text/plain"),
            (Vec<u8> = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
            (Vec<u8> = "application/zip"),
        )),
        (status = 422, description = "`xlsx`: a cell or a row is larger than a spreadsheet holds.",
            body = crate::openapi::Problem, content_type = "application/problem+json"),
        (status = 507, description = "`xlsx`, `zip`: the server has no room for temporary files.",
            body = crate::openapi::Problem, content_type = "application/problem+json"),
        Bad, NoTask, Gate))]
pub async fn results(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<TaskId>,
    Params(params): Params<ResultParams>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let shape = shape(params.format.as_deref(), params.escape.as_deref(), &headers)?;
    let (status, reason) = (params.status.as_deref(), params.reason.as_deref());
    let filter = filter(status, reason, params.flag.as_deref())?;
    let after = cursor::<SeqCursor>(params.cursor.as_deref())?.map_or(-1, |cursor| cursor.0 - 1);
    let limit = limit(params.limit.as_deref(), PAGE, MOST)?;
    let task = caller.task(&api, id).await?;
    match shape {
        Shape::File(format) => download::response(&api, &task, format, filter).await,
        Shape::Page => {
            let wanted = Wanted { after, limit, follow: params.follow, patience: LOOKING };
            let page = page(&api.app.store, &task, wanted, filter.as_ref()).await?;
            Ok(json(StatusCode::OK, write_page(&page)))
        }
    }
}

/// Read one result with its evidence
#[utoipa::path(get, path = "/v1/tasks/{id}/results/{seq}", tag = "tasks",
    params(("id" = String, Path, description = "Id of the task."),
        ("seq" = i64, Path, description = "The result's number in the task, from 0.", minimum = 0)),
    responses((status = 200, description = "The result.", body = Evident<'static>), NoTask, Gate))]
pub async fn result(
    State(api): State<Api>,
    caller: Caller,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Response, Problem> {
    let Path((id, seq)) = path.map_err(|_| Problem::task_not_found())?;
    let id: TaskId = id.parse().map_err(|_| Problem::task_not_found())?;
    let task = caller.task(&api, id).await?;
    let missing = || {
        Problem::new(
            RESULT_NOT_FOUND,
            format!("The task has no result with the seq {seq:.20} yet."),
        )
    };
    let at: i64 = seq.parse().map_err(|_| missing())?;
    let (found, detail) = api.app.store.result(task.id, at).await?.ok_or_else(missing)?;
    let evidence = detail.and_then(|detail| serde_json::from_str(&detail).ok());
    let body = Evident { result: ResultView::new(&found), evidence };
    Ok(json(StatusCode::OK, to_json(&body)))
}

fn shape(
    format: Option<&str>,
    escape: Option<&str>,
    headers: &HeaderMap,
) -> Result<Shape, Problem> {
    let format = format.unwrap_or_else(|| {
        let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("");
        let known = accept.split(',').find_map(|part| {
            match part.split(';').next().unwrap_or("").trim().to_ascii_lowercase().as_str() {
                "text/csv" => Some("csv"),
                "application/x-ndjson" | "application/ndjson" => Some("ndjson"),
                "application/json" => Some("json"),
                download::XLSX => Some("xlsx"),
                "application/zip" => Some("zip"),
                _ => None,
            }
        });
        known.unwrap_or("json")
    });
    match (format, escape) {
        ("json", None) => Ok(Shape::Page),
        // What cannot be escaped says so.
        ("json", Some(_)) => Format::parse("json_array", escape).map(Shape::File),
        _ => Format::parse(format, escape).map(Shape::File),
    }
}

/// What all filters let through; `None` = all.
pub fn filter(
    status: Option<&str>,
    reason: Option<&str>,
    flag: Option<&str>,
) -> Result<Option<ResultFilter>, Problem> {
    let status = status
        .map(|name| name.parse::<Status>().map_err(|e| Problem::query("status", e)))
        .transpose()?;
    let reason = reason
        .map(|name| name.parse::<Reason>().map_err(|e| Problem::query("reason", e)))
        .transpose()?;
    let flag =
        flag.map(|name| name.parse::<Flag>().map_err(|e| Problem::query("flag", e))).transpose()?;
    let reasons = match (status, reason) {
        (None, None) => None,
        (Some(status), None) => Some(status.reasons().collect()),
        (None, Some(reason)) => Some(vec![reason]),
        (Some(status), Some(reason)) if reason.status() == status => Some(vec![reason]),
        // No result can be both.
        (Some(_), Some(_)) => Some(Vec::new()),
    };
    Ok(Some(ResultFilter { reasons, flag }).filter(|filter| !filter.is_open()))
}

/// Which page.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// Behind this `seq`.
    pub after: i64,
    /// Results on it, at most.
    pub limit: i64,
    /// Only below the first `seq` without a result, and on until the task ends.
    pub follow: bool,
    /// For about so long it is looked for what fits.
    pub patience: Duration,
}

/// Results of a page, and where the next begins.
pub struct Results {
    /// In `seq` order.
    pub rows: Vec<Found>,
    /// The last `seq` that is dealt with; `None` on the last page.
    pub next: Option<i64>,
    /// The time was over before the page was full.
    pub cut: bool,
}

impl Results {
    /// The cursor as text.
    pub fn next_cursor(&self) -> Option<String> {
        self.next.map(|seq| SeqCursor(seq + 1).write())
    }
}

/// Reads a page. `task` must have been read before: a task that had ended then adds no results.
pub async fn page(
    store: &Store,
    task: &Task,
    wanted: Wanted,
    filter: Option<&ResultFilter>,
) -> Result<Results, StoreError> {
    let Wanted { after, limit, patience, .. } = wanted;
    let follow = wanted.follow && !task.status.has_ended();
    // First the gap, then the rows: whatever lies below the gap is stored by now.
    let gap = if follow { store.first_gap(task.id).await? } else { i64::MAX };
    let part = match filter {
        // No result can have two reasons.
        Some(filter) if filter.is_shut() => Part::default(),
        _ => store.results_in_time(task.id, after, limit + 1, filter, patience).await?,
    };
    let Part { found: mut rows, looked } = part;
    rows.truncate(rows.partition_point(|row| row.seq < gap));
    let more = rows.len() as i64 > limit;
    rows.truncate(limit as usize);
    let last = rows.last().map(|row| row.seq);
    let next = match (more, looked, follow) {
        (true, ..) => last,
        // Nothing else below it fits.
        (false, Some(looked), _) => Some(after.max(looked.min(gap - 1))),
        // The task has ended since it was read; the next page will say so.
        (false, None, true) if gap == i64::MAX => Some(last.unwrap_or(after)),
        // Everything below the gap is dealt with, filtered or not.
        (false, None, true) => Some(after.max(gap - 1)),
        (false, None, false) => None,
    };
    Ok(Results { rows, next, cut: !more && looked.is_some() })
}

fn write_page(page: &Results) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + page.rows.len() * 320);
    out.extend_from_slice(b"{\"data\":[");
    for (i, row) in page.rows.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write_result(&mut out, row);
    }
    out.extend_from_slice(b"],\"next_cursor\":");
    match page.next_cursor() {
        Some(cursor) => {
            out.push(b'"');
            out.extend_from_slice(cursor.as_bytes());
            out.push(b'"');
        }
        None => out.extend_from_slice(b"null"),
    }
    out.push(b'}');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::download::Formulas;
    use listmill_shared::domain::verdict::{Credit, Flags};

    fn rows(seqs: &[i64]) -> Vec<Found> {
        let row = |seq: &i64| Found {
            seq: *seq,
            address: String::from("a@b.example"),
            submitted: None,
            reason: Reason::Accepted,
            score: 98,
            flags: Flags::default(),
            credit: Credit::Charged,
            attempts: 1,
            checked_at: 0,
            smtp_code: None,
            mx: None,
            did_you_mean: None,
        };
        seqs.iter().map(row).collect()
    }

    #[test]
    fn filters_meet() {
        let of = |reasons: &[Reason]| Some(ResultFilter::of_reasons(reasons.iter().copied()));
        assert_eq!(filter(None, None, None).unwrap(), None);
        assert_eq!(filter(Some("deliverable"), None, None).unwrap(), of(&[Reason::Accepted]));
        let full = filter(Some("risky"), Some("mailbox_full"), None).unwrap();
        assert_eq!(full, of(&[Reason::MailboxFull]));
        assert_eq!(filter(Some("risky"), Some("accepted"), None).unwrap(), of(&[]));
        let free = filter(Some("risky"), Some("mailbox_full"), Some("free")).unwrap();
        assert_eq!(free.unwrap().flag, Some(Flag::Free));
        assert!(filter(Some("nonsense"), None, None).is_err());
        assert!(filter(None, Some("nonsense"), None).is_err());
        assert!(filter(None, None, Some("nonsense")).is_err());
    }

    #[test]
    fn shapes_come_from_the_query_or_the_header() {
        let of = |format, accept: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, accept.parse().unwrap());
            shape(format, None, &headers).ok()
        };
        let file = |format| Some(Shape::File(format));
        assert_eq!(of(None, "*/*"), Some(Shape::Page));
        assert_eq!(of(None, "text/csv;q=0.9"), file(Format::Csv(Formulas::Kept)));
        assert_eq!(of(None, "text/html, application/x-ndjson"), file(Format::Ndjson));
        assert_eq!(of(Some("json"), "text/csv"), Some(Shape::Page));
        assert_eq!(of(Some("json_array"), "text/csv"), file(Format::Json));
        assert_eq!(of(None, "application/zip"), file(Format::Zip(Formulas::Kept)));
        assert_eq!(of(None, download::XLSX), file(Format::Xlsx));
        // What clients say that take JSON before all else.
        assert_eq!(of(None, "application/json, text/plain, */*"), Some(Shape::Page));
        assert_eq!(of(Some("xls"), "*/*"), None);
    }

    #[test]
    fn a_page_is_json_with_the_same_results() {
        let page = Results { rows: rows(&[0, 1]), next: Some(1), cut: false };
        let json: serde_json::Value = serde_json::from_slice(&write_page(&page)).unwrap();
        let want: Vec<_> =
            page.rows.iter().map(|r| serde_json::to_value(ResultView::new(r)).unwrap()).collect();
        assert_eq!(json["data"], serde_json::Value::Array(want));
        assert_eq!(json["next_cursor"], "r2");
    }
}

//! Results as pages; [`super::download`] has them as files.
//!
//! Results of a running task are stored out of order: behind a page's last `seq`, earlier ones may
//! still come. So there are two ways to read it: what is there now, or (`follow`) only what lies
//! below the first `seq` without a result, with a cursor that never ends before the task does.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::header::ACCEPT;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use listmill_shared::domain::id::TaskId;
use listmill_shared::domain::task::Task;
use listmill_shared::domain::verdict::{Reason, Status};
use listmill_shared::store::results::Found;
use listmill_shared::store::{Store, StoreError};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{download, json};
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

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ResultParams {
    /// `json` (pages), `csv` or `ndjson` (everything, streamed). Unless given, the header `Accept`
    /// decides.
    format: Option<String>,
    /// Only results with this status.
    #[param(value_type = Option<crate::openapi::Status>)]
    status: Option<String>,
    /// Only results with this reason.
    #[param(value_type = Option<crate::openapi::Reason>)]
    reason: Option<String>,
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
    Csv,
    Ndjson,
}

/// Read results
///
/// **Pages**, in `seq` order, also while the task runs: the results that are there now.
/// `next_cursor` is null on the last page. Results are stored out of order, so a running task may
/// get some behind you; to take it piece by piece as it goes, ask with `follow=true`.
///
/// **`format=ndjson`** streams one result a line, in `seq` order: for a running task, those that are
/// there, gaps included.
///
/// **`format=csv`** gives the submitted file back, with its order, columns, duplicate rows and
/// delimiter, and adds columns that begin with `listmill_`. A duplicate row has the verdict of its
/// first occurrence and the credit `free`; a row without an address or without a result yet has
/// empty cells there. With `status` or `reason`, only rows whose result fits.
///
/// A stream that breaks off midway ends in a broken connection, never in a clean end.
#[utoipa::path(get, path = "/v1/tasks/{id}/results", tag = "tasks",
    params(("id" = String, Path, description = "Id of the task."), ResultParams),
    responses(
        (status = 200, description = "Results.", content(
            (Page<ResultView<'static>> = "application/json"),
            (String = "text/csv"),
            (String = "application/x-ndjson"),
        )),
        Bad, NoTask, Gate))]
pub async fn results(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<TaskId>,
    Params(params): Params<ResultParams>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let shape = shape(params.format.as_deref(), &headers)?;
    let reasons = filter(params.status.as_deref(), params.reason.as_deref())?;
    let after = cursor::<SeqCursor>(params.cursor.as_deref())?.map_or(-1, |cursor| cursor.0 - 1);
    let limit = limit(params.limit.as_deref(), PAGE, MOST)?;
    let task = caller.task(&api, id).await?;
    match shape {
        Shape::Csv => download::csv(&api.app.store, &task, reasons).await,
        Shape::Ndjson => Ok(download::ndjson(&api.app.store, &task, reasons)),
        Shape::Page => {
            let wanted = Wanted { after, limit, follow: params.follow };
            let page = page(&api.app.store, &task, wanted, reasons.as_deref()).await?;
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

fn shape(format: Option<&str>, headers: &HeaderMap) -> Result<Shape, Problem> {
    match format {
        Some("json") => Ok(Shape::Page),
        Some("csv") => Ok(Shape::Csv),
        Some("ndjson") => Ok(Shape::Ndjson),
        Some(_) => Err(Problem::query("format", "must be json, csv or ndjson.")),
        None => {
            let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("");
            let known = accept.split(',').find_map(|part| {
                match part.split(';').next().unwrap_or("").trim().to_ascii_lowercase().as_str() {
                    "text/csv" => Some(Shape::Csv),
                    "application/x-ndjson" | "application/ndjson" => Some(Shape::Ndjson),
                    "application/json" => Some(Shape::Page),
                    _ => None,
                }
            });
            Ok(known.unwrap_or(Shape::Page))
        }
    }
}

/// The reasons that both filters let through; `None` = all.
fn filter(status: Option<&str>, reason: Option<&str>) -> Result<Option<Vec<Reason>>, Problem> {
    let status = status
        .map(|name| name.parse::<Status>().map_err(|e| Problem::query("status", e)))
        .transpose()?;
    let reason = reason
        .map(|name| name.parse::<Reason>().map_err(|e| Problem::query("reason", e)))
        .transpose()?;
    Ok(match (status, reason) {
        (None, None) => None,
        (Some(status), None) => Some(status.reasons().collect()),
        (None, Some(reason)) => Some(vec![reason]),
        (Some(status), Some(reason)) if reason.status() == status => Some(vec![reason]),
        // No result can be both.
        (Some(_), Some(_)) => Some(Vec::new()),
    })
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
}

/// Results of a page, and where the next begins.
pub struct Results {
    /// In `seq` order.
    pub rows: Vec<Found>,
    /// The last `seq` that is dealt with; `None` on the last page.
    pub next: Option<i64>,
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
    reasons: Option<&[Reason]>,
) -> Result<Results, StoreError> {
    let Wanted { after, limit, .. } = wanted;
    let follow = wanted.follow && !task.status.has_ended();
    // First the gap, then the rows: whatever lies below the gap is stored by now.
    let gap = if follow { store.first_gap(task.id).await? } else { i64::MAX };
    let mut rows = match reasons {
        // No result can have two reasons.
        Some([]) => Vec::new(),
        _ => store.results(task.id, after, limit + 1, reasons).await?,
    };
    rows.truncate(rows.partition_point(|row| row.seq < gap));
    let more = rows.len() as i64 > limit;
    rows.truncate(limit as usize);
    let last = rows.last().map(|row| row.seq);
    let next = match (more, follow) {
        (true, _) => last,
        // The task has ended since it was read; the next page will say so.
        (false, true) if gap == i64::MAX => Some(last.unwrap_or(after)),
        // Everything below the gap is dealt with, filtered or not.
        (false, true) => Some(after.max(gap - 1)),
        (false, false) => None,
    };
    Ok(Results { rows, next })
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
    use listmill_shared::domain::verdict::{Credit, Flags};

    fn rows(seqs: &[i64]) -> Vec<Found> {
        let row = |seq: &i64| Found {
            seq: *seq,
            address: String::from("a@b.example"),
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
        assert_eq!(filter(None, None).unwrap(), None);
        assert_eq!(filter(Some("deliverable"), None).unwrap(), Some(vec![Reason::Accepted]));
        let full = filter(Some("risky"), Some("mailbox_full")).unwrap();
        assert_eq!(full, Some(vec![Reason::MailboxFull]));
        assert_eq!(filter(Some("risky"), Some("accepted")).unwrap(), Some(vec![]));
        assert!(filter(Some("nonsense"), None).is_err());
        assert!(filter(None, Some("nonsense")).is_err());
    }

    #[test]
    fn shapes_come_from_the_query_or_the_header() {
        let of = |format, accept: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, accept.parse().unwrap());
            shape(format, &headers).ok()
        };
        assert_eq!(of(None, "*/*"), Some(Shape::Page));
        assert_eq!(of(None, "text/csv;q=0.9"), Some(Shape::Csv));
        assert_eq!(of(None, "text/html, application/x-ndjson"), Some(Shape::Ndjson));
        assert_eq!(of(Some("json"), "text/csv"), Some(Shape::Page));
        assert_eq!(of(Some("xlsx"), "*/*"), None);
    }

    #[test]
    fn a_page_is_json_with_the_same_results() {
        let page = Results { rows: rows(&[0, 1]), next: Some(1) };
        let json: serde_json::Value = serde_json::from_slice(&write_page(&page)).unwrap();
        let want: Vec<_> =
            page.rows.iter().map(|r| serde_json::to_value(ResultView::new(r)).unwrap()).collect();
        assert_eq!(json["data"], serde_json::Value::Array(want));
        assert_eq!(json["next_cursor"], "r2");
    }
}

//! Results as pages; [`super::download`] has them as files.
//!
//! Results of a running task are stored out of order. A cursor at the last `seq` of a page would
//! lead past results that come later, and its reader would never see them. So a cursor of a task
//! that has not ended never leads past the first `seq` without a result. What lies behind that gap
//! is shown where reading ends for now: on the page without a next one.

use axum::extract::State;
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
use crate::problem::Problem;
use crate::view::{Page, ResultView, write_result};

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
/// **Pages**, in `seq` order, also while the task runs. `next_cursor` is null when nothing lies behind
/// the page at this moment; for an ended task that is the end. To follow a running task, ask again
/// later with the last cursor that was not null (or without one): a cursor never leads past an
/// address that has no result yet, so nothing is missed. The last page may show results that lie
/// behind such an address; they are shown again later, under the same `seq`.
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
    let after = cursor::<SeqCursor>(params.cursor.as_deref())?.map_or(-1, |cursor| cursor.0);
    let limit = limit(params.limit.as_deref(), PAGE, MOST)?;
    let task = api.app.task(id, caller.account).await?;
    match shape {
        Shape::Csv => download::csv(&api.app.store, &task, reasons).await,
        Shape::Ndjson => Ok(download::ndjson(&api.app.store, &task, reasons)),
        Shape::Page => {
            let page = page(&api.app.store, &task, after, limit, reasons.as_deref()).await?;
            Ok(json(StatusCode::OK, write_page(&page)))
        }
    }
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

/// Results of a page, and where the next begins.
pub struct Results {
    /// In `seq` order.
    pub rows: Vec<Found>,
    /// The last `seq` that is dealt with; `None` when nothing lies behind it now.
    pub next: Option<i64>,
}

impl Results {
    /// The cursor as text.
    pub fn next_cursor(&self) -> Option<String> {
        self.next.map(|seq| SeqCursor(seq).write())
    }
}

/// Reads a page. `task` must have been read before: a task that had ended then adds no results.
pub async fn page(
    store: &Store,
    task: &Task,
    after: i64,
    limit: i64,
    reasons: Option<&[Reason]>,
) -> Result<Results, StoreError> {
    if reasons.is_some_and(<[Reason]>::is_empty) {
        return Ok(Results { rows: Vec::new(), next: None });
    }
    let rows = store.results(task.id, after, limit + 1, reasons).await?;
    if rows.len() as i64 <= limit {
        return Ok(Results { rows, next: None });
    }
    if task.status.has_ended() {
        return Ok(up_to(rows, limit, i64::MAX));
    }
    match reasons {
        None => {
            let gap = gap_in(&rows, after);
            Ok(up_to(rows, limit, gap))
        }
        Some(_) => {
            // First the gap, then the rows: whatever lies below the gap is stored by now.
            let gap = store.first_gap(task.id).await?;
            let rows = store.results(task.id, after, limit + 1, reasons).await?;
            Ok(up_to(rows, limit, gap))
        }
    }
}

/// Every address has a `seq`, so unfiltered rows show the first gap by themselves.
fn gap_in(rows: &[Found], after: i64) -> i64 {
    let whole = rows.iter().zip(after + 1..).take_while(|(row, seq)| row.seq == *seq).count();
    after + 1 + whole as i64
}

/// The page out of more rows than fit on it: those below the gap, and a cursor behind them; or, if
/// the page begins in the gap, as many as fit and no cursor.
fn up_to(mut rows: Vec<Found>, limit: i64, gap: i64) -> Results {
    let below = rows.partition_point(|row| row.seq < gap);
    let fits = limit as usize;
    rows.truncate(if below == 0 { fits } else { below.min(fits) });
    let next = rows.last().filter(|_| below > 0).map(|row| row.seq);
    Results { rows, next }
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

    fn shown(page: &Results) -> (Vec<i64>, Option<i64>) {
        (page.rows.iter().map(|row| row.seq).collect(), page.next)
    }

    #[test]
    fn a_cursor_never_leads_past_a_gap() {
        assert_eq!(gap_in(&rows(&[0, 1, 3, 4]), -1), 2);
        assert_eq!(gap_in(&rows(&[3, 4]), 1), 2);
        assert_eq!(gap_in(&rows(&[2, 3]), 1), 4);
        // An ended task, or a running one without a gap.
        assert_eq!(shown(&up_to(rows(&[0, 7, 9]), 2, i64::MAX)), (vec![0, 7], Some(7)));
        // 2 is missing: the cursor stops before it, and what lies behind is for the next page.
        assert_eq!(shown(&up_to(rows(&[0, 1, 3, 4]), 3, 2)), (vec![0, 1], Some(1)));
        // Which begins in the gap: it shows what fits, and leads nowhere.
        assert_eq!(shown(&up_to(rows(&[3, 4, 5]), 2, 2)), (vec![3, 4], None));
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
        assert_eq!(json["next_cursor"], "r1");
    }
}

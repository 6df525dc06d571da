//! A task's course as server-sent events, or what has happened to it so far as a list; [`super::account_events`]
//! tells of all tasks of an account.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::header::ACCEPT;
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use listmill_shared::domain::id::TaskId;
use listmill_shared::domain::task::{PauseReason, Tally, Task, TaskStatus};
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use utoipa::IntoParams;

use super::json;
use super::timeline::{EventView, timeline};
use crate::Api;
use crate::extract::{Id, Params};
use crate::gate::Caller;
use crate::openapi::{Bad, Gate, NoTask};
use crate::problem::Problem;
use crate::view::{Page, TaskView};

/// How often the task is looked at.
pub(super) const LOOK: Duration = Duration::from_millis(500);
/// Silence after which a comment shows that the connection is alive.
pub(super) const ALIVE: Duration = Duration::from_secs(15);
/// When a listener that lost its connection should come back.
pub(super) const RETRY: Duration = Duration::from_secs(2);

type Sender = mpsc::Sender<Result<Event, Infallible>>;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct EventParams {
    /// `json`: what has happened so far, as a list. `sse`: the stream. Unless given, the header `Accept` decides.
    #[param(value_type = Option<crate::openapi::EventFormat>)]
    format: Option<String>,
}

/// Is the list asked for?
fn wants_list(format: Option<&str>, headers: &HeaderMap) -> Result<bool, Problem> {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match format {
        Some("json") => Ok(true),
        Some("sse") => Ok(false),
        Some(_) => Err(Problem::query("format", "must be json or sse.")),
        None => Ok(accept.contains("application/json") && !accept.contains("text/event-stream")),
    }
}

/// Follow a task, or read what happened to it
///
/// **`format=json`** (or `Accept: application/json`) gives a list of what has happened so far, oldest first: submitted
/// (by whom), started, paused and resumed (by whom, or why), workers that were lost with the batches that went back to
/// work, and its end. A task keeps 20 events of a kind; the last of them counts all that follow.
///
/// Otherwise: server-sent events whose `data` is the task: `progress` whenever it changed (looked at twice a
/// second), `status` when its status changed, and `done` when it has ended, after which the stream
/// ends. An `id` stands for a count of results and a status; a listener that comes back with
/// `Last-Event-ID` is not told again what it knows. The stream also ends when the server shuts
/// down: come back, as every client for server-sent events does by itself.
#[utoipa::path(get, path = "/v1/tasks/{id}/events", tag = "tasks",
    params(("id" = String, Path, description = "Id of the task."), EventParams,
        ("Last-Event-ID" = Option<String>, Header, description = "The last `id` that was seen.")),
    responses((status = 200, description = "The events.", content(
        (String = "text/event-stream"),
        (Page<EventView> = "application/json"),
    )), Bad, NoTask, Gate))]
pub async fn events(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<TaskId>,
    Params(params): Params<EventParams>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let list = wants_list(params.format.as_deref(), &headers)?;
    let task = caller.task(&api, id).await?;
    if list {
        return Ok(json(StatusCode::OK, timeline(&api, &task).await?));
    }
    let seen = headers
        .get("last-event-id")
        .and_then(|value| value.to_str().ok()?.trim().parse::<i64>().ok());
    let (sender, receiver) = mpsc::channel(4);
    tokio::spawn(follow(api, task, seen, sender));
    let alive = KeepAlive::new().interval(ALIVE);
    Ok(Sse::new(ReceiverStream::new(receiver)).keep_alive(alive).into_response())
}

/// What a listener is told of; the rest (the time to go) follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Snapshot {
    status: TaskStatus,
    pause_reason: Option<PauseReason>,
    tally: Tally,
    held: i64,
}

impl Snapshot {
    pub(super) fn of(task: &Task) -> Self {
        let Task { status, pause_reason, tally, held, .. } = *task;
        Self { status, pause_reason, tally, held }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.status.has_ended()
    }

    #[cfg(test)]
    pub(super) fn new(status: TaskStatus, tally: Tally) -> Self {
        Self { status, pause_reason: None, tally, held: 0 }
    }

    /// Grows with the results, and from one status to the next in a task's course.
    fn id(&self) -> i64 {
        let rank = match self.status {
            TaskStatus::Ingesting | TaskStatus::Queued => 0,
            TaskStatus::Running => 1,
            TaskStatus::Paused => 2,
            TaskStatus::Cancelled | TaskStatus::Completed | TaskStatus::Failed => 3,
        };
        self.tally.processed() * 4 + rank
    }
}

/// Names of the events that lead from what a listener knows to `now`.
fn due(known: Option<Snapshot>, seen: Option<i64>, now: Snapshot) -> Vec<&'static str> {
    let mut names = Vec::new();
    match known {
        None if seen == Some(now.id()) => {}
        None => names.push("progress"),
        Some(known) => {
            if known != now {
                names.push("progress");
            }
            if (known.status, known.pause_reason) != (now.status, now.pause_reason) {
                names.push("status");
            }
        }
    }
    if now.status.has_ended() {
        names.push("done");
    }
    names
}

async fn follow(api: Api, mut task: Task, seen: Option<i64>, sender: Sender) {
    let mut known = None;
    loop {
        let now = Snapshot::of(&task);
        let names = due(known, seen, now);
        if !names.is_empty() {
            let ttl = api.app.settings.results_ttl;
            let data = TaskView::new(&task, api.app.now(), ttl).json();
            for name in names {
                let event = Event::default().event(name).id(now.id().to_string());
                let event = event.retry(RETRY).data(&data);
                // Refused: the listener has gone away.
                if sender.send(Ok(event)).await.is_err() {
                    return;
                }
            }
        }
        if now.status.has_ended() {
            return;
        }
        known = Some(now);
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = sender.closed() => return,
            () = api.drain.cancelled() => return,
        }
        match api.app.find_task(task.id).await {
            Ok(Some(found)) => task = found,
            // Erased.
            Ok(None) => return,
            // Logged where it happened; the next look may go better.
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(status: TaskStatus, deliverable: i64) -> Snapshot {
        Snapshot::new(status, Tally { deliverable, ..Tally::default() })
    }

    #[test]
    fn the_list_is_for_who_asks_for_it() {
        let of = |format, accept: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, accept.parse().unwrap());
            wants_list(format, &headers).ok()
        };
        assert_eq!(of(None, "*/*"), Some(false));
        assert_eq!(of(None, "text/event-stream"), Some(false));
        assert_eq!(of(None, "application/json"), Some(true));
        assert_eq!(of(None, "text/event-stream, application/json"), Some(false));
        assert_eq!(of(Some("json"), "text/event-stream"), Some(true));
        assert_eq!(of(Some("sse"), "application/json"), Some(false));
        assert_eq!(of(Some("xml"), "*/*"), None);
    }

    #[test]
    fn a_listener_is_told_what_it_does_not_know() {
        let running = snapshot(TaskStatus::Running, 5);
        let more = snapshot(TaskStatus::Running, 6);
        let done = snapshot(TaskStatus::Completed, 6);
        assert_eq!(due(None, None, running), ["progress"]);
        assert!(due(None, Some(running.id()), running).is_empty());
        assert_eq!(due(None, Some(running.id()), more), ["progress"]);
        assert!(due(Some(running), None, running).is_empty());
        assert_eq!(due(Some(running), None, more), ["progress"]);
        assert_eq!(due(Some(more), None, done), ["progress", "status", "done"]);
        assert_eq!(due(None, Some(done.id()), done), ["done"]);
        assert!(running.id() < more.id() && more.id() < done.id());
    }
}

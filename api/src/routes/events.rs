//! A task's course as server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use listmill_shared::domain::id::TaskId;
use listmill_shared::domain::task::{PauseReason, Tally, Task, TaskStatus};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::Api;
use crate::extract::Id;
use crate::gate::Caller;
use crate::openapi::{Gate, NoTask};
use crate::problem::Problem;
use crate::view::TaskView;

/// How often the task is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// Silence after which a comment shows that the connection is alive.
const ALIVE: Duration = Duration::from_secs(15);
/// When a listener that lost its connection should come back.
const RETRY: Duration = Duration::from_secs(2);

type Sender = mpsc::Sender<Result<Event, Infallible>>;

/// Follow a task
///
/// Server-sent events whose `data` is the task: `progress` whenever it changed (looked at twice a
/// second), `status` when its status changed, and `done` when it has ended, after which the stream
/// ends. An `id` stands for a count of results and a status; a listener that comes back with
/// `Last-Event-ID` is not told again what it knows. The stream also ends when the server shuts
/// down: come back, as every client for server-sent events does by itself.
#[utoipa::path(get, path = "/v1/tasks/{id}/events", tag = "tasks",
    params(("id" = String, Path, description = "Id of the task."),
        ("Last-Event-ID" = Option<String>, Header, description = "The last `id` that was seen.")),
    responses((status = 200, description = "The events.", body = String,
        content_type = "text/event-stream"), NoTask, Gate))]
pub async fn events(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<TaskId>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let task = caller.task(&api, id).await?;
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
struct Snapshot {
    status: TaskStatus,
    pause_reason: Option<PauseReason>,
    tally: Tally,
    held: i64,
}

impl Snapshot {
    fn of(task: &Task) -> Self {
        let Task { status, pause_reason, tally, held, .. } = *task;
        Self { status, pause_reason, tally, held }
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
            let data = TaskView::new(&task, api.app.now()).json();
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
        let tally = Tally { deliverable, ..Tally::default() };
        Snapshot { status, pause_reason: None, tally, held: 0 }
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

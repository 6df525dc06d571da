//! What happened to a task, as a list; [`super::events`] answers with it where it is asked for JSON.

use listmill_shared::domain::audit::Actor;
use listmill_shared::domain::task::{PauseReason, Task};
use listmill_shared::domain::task_event::{Happened, TaskEvent};
use serde::Serialize;
use utoipa::ToSchema;

use crate::Api;
use crate::openapi;
use crate::problem::Problem;
use crate::view::{Page, stamp, to_json};

/// Something that happened to a task.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TaskEvent)]
pub struct EventView {
    /// When; of several, the first.
    #[schema(format = DateTime)]
    at: String,
    /// What.
    #[schema(value_type = openapi::Happened)]
    event: Happened,
    /// Who did it; null where nobody did, where that is not known, and where several did.
    #[schema(value_type = Option<openapi::Actor>)]
    actor: Option<Actor>,
    /// `paused`: why; `resumed`: what is over, where it went on by itself.
    #[schema(value_type = Option<openapi::PauseReason>)]
    reason: Option<&'static str>,
    /// More about that, for people.
    detail: Option<String>,
    /// `worker_lost`: batches that went back to work.
    batches: Option<i64>,
    /// How many it stands for: only so many of a kind are kept one by one.
    times: i64,
    /// The last of them.
    #[schema(format = DateTime)]
    last_at: String,
}

impl From<TaskEvent> for EventView {
    fn from(event: TaskEvent) -> Self {
        Self {
            at: stamp(event.at),
            event: event.what,
            actor: event.who,
            reason: event.reason.map(PauseReason::as_str),
            detail: event.detail,
            batches: (event.what == Happened::WorkerLost).then_some(event.batches),
            times: event.times,
            last_at: stamp(event.last_at),
        }
    }
}

/// All of it, in order. It is never long.
pub async fn timeline(api: &Api, task: &Task) -> Result<String, Problem> {
    let events = api.app.timeline(task).await?;
    let data = events.into_iter().map(EventView::from).collect();
    Ok(to_json(&Page { data, next_cursor: None }))
}

//! Tasks: show, list, erase, and the lines that their owner draws.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use listmill_shared::app::control::Settlement;
use listmill_shared::domain::id::TaskId;
use listmill_shared::domain::task::TaskStatus;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::json;
use crate::Api;
use crate::cursor::{cursor, cut, limit};
use crate::extract::{Id, Params};
use crate::gate::Caller;
use crate::idempotency::{Answer, Done, Once};
use crate::openapi::{Bad, Conflict, Gate, NoTask, Poor};
use crate::problem::Problem;
use crate::view::{Page, TaskView, to_json};

/// Tasks on a page, unless asked otherwise, and at most.
const PAGE: i64 = 100;
const MOST: i64 = 1000;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListParams {
    /// Only tasks with this status.
    #[param(value_type = Option<crate::openapi::TaskStatus>)]
    status: Option<String>,
    /// Where the page begins: a `next_cursor` of this list.
    cursor: Option<String>,
    /// Tasks on the page, 1 to 1000; 100 unless given.
    #[param(value_type = Option<i64>, minimum = 1, maximum = 1000)]
    limit: Option<String>,
}

/// List tasks
///
/// Newest first. All tasks of the account, whichever key submitted them; with `tasks:own` those that this key
/// submitted.
#[utoipa::path(get, path = "/v1/tasks", tag = "tasks", params(ListParams), responses(
    (status = 200, description = "A page of tasks.", body = Page<TaskView<'static>>), Bad, Gate))]
pub async fn list(
    State(api): State<Api>,
    caller: Caller,
    Params(params): Params<ListParams>,
) -> Result<Response, Problem> {
    let status = params
        .status
        .map(|name| name.parse::<TaskStatus>().map_err(|e| Problem::query("status", e)))
        .transpose()?;
    let from = cursor::<TaskId>(params.cursor.as_deref())?;
    let limit = limit(params.limit.as_deref(), PAGE, MOST)?;
    let mut tasks = {
        let own = caller.own_only();
        api.app.store.tasks(caller.account, own, status, from, limit + 1).await?
    };
    let next_cursor = cut(&mut tasks, limit, |task| task.id);
    let now = api.app.now();
    let data: Vec<TaskView> = tasks.iter().map(|task| TaskView::new(task, now)).collect();
    Ok(json(StatusCode::OK, to_json(&Page { data, next_cursor })))
}

/// Show a task
///
/// Counts are of this moment, those of batches at work included. Polling it is cheap.
#[utoipa::path(get, path = "/v1/tasks/{id}", tag = "tasks",
    params(("id" = String, Path, description = "Id of the task.")),
    responses((status = 200, description = "The task.", body = TaskView<'static>), NoTask, Gate))]
pub async fn show(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<TaskId>,
) -> Result<Response, Problem> {
    let task = caller.task(&api, id).await?;
    Ok(json(StatusCode::OK, TaskView::new(&task, api.app.now()).json()))
}

/// Erase a task
///
/// Removes an ended task with its addresses and results for good. Its entries in the ledger stay.
#[utoipa::path(delete, path = "/v1/tasks/{id}", tag = "tasks",
    params(("id" = String, Path, description = "Id of the task.")),
    responses((status = 204, description = "It is gone."), NoTask, Conflict, Gate))]
pub async fn erase(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<TaskId>,
) -> Result<StatusCode, Problem> {
    caller.check_own(&api, id).await?;
    api.app.erase(id, caller.account).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A cancelled task and what it came to.
#[derive(Debug, Serialize, ToSchema)]
pub struct Cancelled<'a> {
    /// The task.
    task: TaskView<'a>,
    /// What it came to.
    settlement: SettlementView,
}

/// What a cancellation came to, in addresses and credits.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Settlement)]
pub struct SettlementView {
    /// Addresses that cost a credit; this never grows again.
    charged: i64,
    /// Addresses whose held credit went back with an unknown verdict.
    refunded: i64,
    /// Held credits that the cancellation gave back.
    released: i64,
    /// Unique addresses without a result.
    not_processed: i64,
}

impl From<Settlement> for SettlementView {
    fn from(settlement: Settlement) -> Self {
        let Settlement { charged, refunded, released, not_processed } = settlement;
        Self { charged, refunded, released, not_processed }
    }
}

/// Cancel a task
///
/// Final. When this has answered, not one further credit is deducted for the task and no result is
/// added; results so far stay readable. Asked again, it answers the same.
#[utoipa::path(post, path = "/v1/tasks/{id}/cancel", tag = "tasks",
    params(("id" = String, Path, description = "Id of the task."),
        ("Idempotency-Key" = Option<String>, Header, description = "See the introduction.")),
    responses((status = 200, description = "It is cancelled.", body = Cancelled<'static>),
        NoTask, Conflict, Gate))]
pub async fn cancel(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<TaskId>,
    once: Once,
) -> Result<Done, Problem> {
    caller.check_own(&api, id).await?;
    let (app, account) = (api.app.clone(), caller.account);
    once.run(&api, &caller, move |_| async move {
        let (task, settlement) = app.cancel(id, account).await?;
        let task = TaskView::new(&task, app.now());
        Ok(Answer::ok(to_json(&Cancelled { task, settlement: settlement.into() })))
    })
    .await
}

/// Pause a task
///
/// Nothing new is started; what is being verified right now still ends, and is charged.
#[utoipa::path(post, path = "/v1/tasks/{id}/pause", tag = "tasks",
    params(("id" = String, Path, description = "Id of the task."),
        ("Idempotency-Key" = Option<String>, Header, description = "See the introduction.")),
    responses((status = 200, description = "It is paused.", body = TaskView<'static>),
        NoTask, Conflict, Gate))]
pub async fn pause(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<TaskId>,
    once: Once,
) -> Result<Done, Problem> {
    caller.check_own(&api, id).await?;
    let (app, account) = (api.app.clone(), caller.account);
    once.run(&api, &caller, move |_| async move {
        let task = app.pause(id, account).await?;
        Ok(Answer::ok(TaskView::new(&task, app.now()).json()))
    })
    .await
}

/// Resume a task
///
/// Lets a paused task go on, whatever paused it. With an empty balance: 402.
#[utoipa::path(post, path = "/v1/tasks/{id}/resume", tag = "tasks",
    params(("id" = String, Path, description = "Id of the task."),
        ("Idempotency-Key" = Option<String>, Header, description = "See the introduction.")),
    responses((status = 200, description = "It goes on.", body = TaskView<'static>),
        Poor, NoTask, Conflict, Gate))]
pub async fn resume(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<TaskId>,
    once: Once,
) -> Result<Done, Problem> {
    caller.check_own(&api, id).await?;
    let (app, account) = (api.app.clone(), caller.account);
    once.run(&api, &caller, move |_| async move {
        let task = app.resume(id, account).await?;
        Ok(Answer::ok(TaskView::new(&task, app.now()).json()))
    })
    .await
}

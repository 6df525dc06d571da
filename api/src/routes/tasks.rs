//! Tasks: show, list, erase, and the lines that their owner draws.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use listmill_shared::app::control::Settlement;
use listmill_shared::domain::id::TaskId;
use listmill_shared::domain::task::TaskStatus;
use listmill_shared::store::tasks::{Start, TaskFilter};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::json;
use super::keys::read_environment;
use crate::Api;
use crate::cursor::{cursor, cut, limit};
use crate::extract::{Id, Params};
use crate::gate::Caller;
use crate::idempotency::{Answer, Done, Once};
use crate::openapi::{Bad, Conflict, Gate, NoTask, Poor};
use crate::problem::Problem;
use crate::sandbox::Nothing;
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
    /// Only tasks of live keys (`live`) or of test keys (`test`).
    #[param(value_type = Option<crate::openapi::Environment>)]
    environment: Option<String>,
    /// Where the page begins: a `next_cursor` of this list.
    cursor: Option<String>,
    /// Tasks on the page, 1 to 1000; 100 unless given.
    #[param(value_type = Option<i64>, minimum = 1, maximum = 1000)]
    limit: Option<String>,
}

/// List tasks
///
/// Newest first. All tasks of the account, whichever key submitted them; with `tasks:own` those that this key
/// submitted. A test key sees those of test keys alone, a live key both.
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
    let from = cursor::<TaskId>(params.cursor.as_deref())?.map_or(Start::Newest, Start::Before);
    let limit = limit(params.limit.as_deref(), PAGE, MOST)?;
    let environment = read_environment(params.environment.as_deref())?;
    let mut tasks = match caller.sandbox_of(environment) {
        Ok(sandbox) => {
            let filter = TaskFilter { family: caller.own_only(), status, sandbox, name: None };
            api.app.store.tasks(caller.account, filter, from, limit + 1).await?
        }
        Err(Nothing) => Vec::new(),
    };
    let next_cursor = cut(&mut tasks, limit, |task| task.id);
    let (now, ttl) = (api.app.now(), api.app.settings.results_ttl);
    let data: Vec<TaskView> = tasks.iter().map(|task| TaskView::new(task, now, ttl)).collect();
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
    let ttl = api.app.settings.results_ttl;
    Ok(json(StatusCode::OK, TaskView::new(&task, api.app.now(), ttl).json()))
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
    api.app.erase_by(id, caller.account, &caller.origin).await?;
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
    let (app, account, by) = (api.app.clone(), caller.account, caller.origin.clone());
    once.run(&api, &caller, move |_| async move {
        let (task, settlement) = app.cancel_by(id, account, &by).await?;
        let task = TaskView::new(&task, app.now(), app.settings.results_ttl);
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
    let (app, account, by) = (api.app.clone(), caller.account, caller.origin.clone());
    once.run(&api, &caller, move |_| async move {
        let task = app.pause_by(id, account, &by).await?;
        Ok(Answer::ok(TaskView::new(&task, app.now(), app.settings.results_ttl).json()))
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
    let (app, account, by) = (api.app.clone(), caller.account, caller.origin.clone());
    once.run(&api, &caller, move |_| async move {
        let task = app.resume_by(id, account, &by).await?;
        Ok(Answer::ok(TaskView::new(&task, app.now(), app.settings.results_ttl).json()))
    })
    .await
}

//! The list of tasks, and what their owner does to them.
//!
//! A page is found by the id of its first or last task, so it stays where it is while new tasks come. Who has
//! pressed a button on a row comes back to the page of the list that they pressed it on.

use askama::Template;
use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::header::REFERER;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::{get, post};
use listmill_shared::app::control::{ControlError, Settlement};
use listmill_shared::domain::id::TaskId;
use listmill_shared::domain::task::{Task, TaskStatus};
use listmill_shared::store::tasks::{Start, TaskFilter};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::page::{Failure, Page, html, html_with, see_other, see_other_saying};
use super::session::{Nothing, Posted, Viewer};
use super::task;
use super::task_results;
use super::task_row::{Row, RowAlone, name, script_texts};
use super::text::{filled, text};
use super::upload::{self, Check};
use crate::Api;

/// The pages of tasks.
pub fn router() -> Router<Api> {
    Router::new()
        .route("/tasks", get(list).post(upload::start))
        .route("/tasks/check", post(upload::check))
        .route("/tasks/{id}", get(task::show))
        .route("/tasks/{id}/row", get(row))
        .route("/tasks/{id}/pause", post(pause))
        .route("/tasks/{id}/resume", post(resume))
        .route("/tasks/{id}/cancel", get(ask_cancel).post(cancel))
        .route("/tasks/{id}/erase", get(task::ask_erase).post(task::erase))
        .route("/tasks/{id}/results/{seq}", get(task_results::result))
        .route("/tasks/{id}/download", get(task::download))
}

/// Tasks on a page.
const PAGE: i64 = 25;
/// Characters of a name that is looked for.
const NAME: usize = 200;

/// Which tasks, and where the page begins.
#[derive(Debug, Default, Deserialize)]
pub struct ListQuery {
    #[serde(default)]
    name: String,
    #[serde(default)]
    status: String,
    before: Option<String>,
    after: Option<String>,
}

impl ListQuery {
    fn start(&self) -> Result<Start, Failure> {
        let id = |text: &String| text.parse::<TaskId>().map_err(|_| Failure::NotFound);
        match (&self.before, &self.after) {
            (Some(before), _) => Ok(Start::Before(id(before)?)),
            (None, Some(after)) => Ok(Start::After(id(after)?)),
            (None, None) => Ok(Start::Newest),
        }
    }

    /// The same list, from elsewhere on.
    fn link(&self, place: &str, id: TaskId) -> String {
        let coded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        format!("/tasks?name={}&status={}&{place}={id}", coded(&self.name), coded(&self.status))
    }
}

/// A status to choose.
struct Choice {
    value: &'static str,
    label: &'static str,
    chosen: bool,
}

/// What a dialog asks before a task is cancelled.
struct CancelDialog {
    id: String,
    name: String,
    facts: String,
    after: String,
}

#[derive(Template)]
#[template(path = "tasks.html")]
struct TasksPage {
    page: Page,
    name: String,
    choices: Vec<Choice>,
    filtered: bool,
    rows: Vec<Row>,
    newer: Option<String>,
    older: Option<String>,
    first: bool,
    balance: String,
    texts: String,
    check: Option<Check>,
    error: Option<String>,
    dialog: Option<CancelDialog>,
}

/// What else stands on the page of the list.
#[derive(Default)]
pub struct Extra {
    /// What a list would come to.
    pub check: Option<Check>,
    /// Why one was not taken.
    pub error: Option<String>,
    /// Ask before this task is cancelled.
    pub cancel: Option<Task>,
}

/// `GET /tasks`
pub async fn list(
    State(api): State<Api>,
    viewer: Viewer,
    Query(query): Query<ListQuery>,
) -> Result<Response, Failure> {
    show(&api, &viewer, &query, Extra::default(), StatusCode::OK).await
}

/// The page of the list.
pub async fn show(
    api: &Api,
    viewer: &Viewer,
    query: &ListQuery,
    extra: Extra,
    status: StatusCode,
) -> Result<Response, Failure> {
    let page = Page::new(viewer, "tasks");
    let wanted = query.name.trim();
    let filter = TaskFilter {
        name: Some(wanted).filter(|name| !name.is_empty() && name.chars().count() <= NAME),
        status: query.status.parse().ok(),
        ..TaskFilter::default()
    };
    let list = api.app.task_list(viewer.account, filter, query.start()?, PAGE).await?;
    let now = api.app.now();
    let waiting = |task: &Task| list.waiting.get(&task.id).copied();
    let rows = list
        .tasks
        .iter()
        .map(|task| Row::new(&page, task, waiting(task), list.money, now))
        .collect();
    let choice = |status: &TaskStatus| Choice {
        value: status.as_str(),
        label: text(label(*status)),
        chosen: filter.status == Some(*status),
    };
    let link = |place, task: Option<&Task>| task.map(|task| query.link(place, task.id));
    Ok(html_with(
        status,
        &TasksPage {
            name: query.name.clone(),
            choices: TaskStatus::SHOWN.iter().map(choice).collect(),
            filtered: filter.name.is_some() || filter.status.is_some(),
            rows,
            newer: link("after", list.tasks.first().filter(|_| list.newer)),
            older: link("before", list.tasks.last().filter(|_| list.older)),
            first: query.before.is_none() && query.after.is_none(),
            balance: page.n(list.money.balance),
            texts: script_texts(&page),
            check: extra.check,
            error: extra.error,
            dialog: extra.cancel.map(|task| ask(&page, &task)),
            page,
        },
    ))
}

fn label(status: TaskStatus) -> &'static str {
    match status {
        TaskStatus::Ingesting | TaskStatus::Queued => "tasks.queued",
        TaskStatus::Running => "tasks.running",
        TaskStatus::Paused => "tasks.paused",
        TaskStatus::Cancelled => "tasks.cancelled",
        TaskStatus::Completed => "tasks.completed",
        TaskStatus::Failed => "tasks.failed",
    }
}

fn ask(page: &Page, task: &Task) -> CancelDialog {
    let left = task.submitted.unique - task.tally.processed();
    let (charged, held, left) = (page.n(task.tally.charged), page.n(task.held), page.n(left));
    let with = [("charged", charged.as_str()), ("held", &held), ("left", &left)];
    CancelDialog {
        id: task.id.to_string(),
        name: name(task),
        facts: filled("tasks.cancel_facts", &with),
        after: text("tasks.cancel_after").to_owned(),
    }
}

/// A task's id in a path of a page.
pub fn id_of(path: &str) -> Result<TaskId, Failure> {
    path.parse().map_err(|_| Failure::NotFound)
}

/// `GET /tasks/{id}/row`: one row as it is now, for the script.
pub async fn row(
    State(api): State<Api>,
    viewer: Viewer,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    let task = api.app.task(id_of(&id)?, viewer.account).await?;
    let page = Page::new(&viewer, "tasks");
    let waiting = api.app.waiting_of(&task).await?;
    let money = api.app.money(viewer.account).await?;
    let row = Row::new(&page, &task, waiting, money, api.app.now());
    Ok(html(&RowAlone { page, row }))
}

/// Where somebody pressed a button: a page of the list, or of a task.
pub fn back(headers: &HeaderMap) -> String {
    let from = headers.get(REFERER).and_then(|value| value.to_str().ok()).unwrap_or("");
    let path = from.split_once("://").and_then(|(_, rest)| rest.find('/').map(|at| &rest[at..]));
    let own = |path: &&str| {
        let (place, _) = path.split_once('?').unwrap_or((path, ""));
        let place = place.trim_end_matches('/');
        let of_task = place.strip_prefix("/tasks/").is_some_and(|id| id.parse::<TaskId>().is_ok());
        place == "/tasks" || of_task
    };
    path.filter(own).unwrap_or("/tasks").to_owned()
}

/// `POST /tasks/{id}/pause`
pub async fn pause(
    State(api): State<Api>,
    viewer: Viewer,
    Path(id): Path<String>,
    headers: HeaderMap,
    Posted(Nothing {}): Posted<Nothing>,
) -> Result<Response, Failure> {
    viewer.require_write()?;
    let changed = api.app.pause_by(id_of(&id)?, viewer.account, &viewer.origin).await;
    changed_to(changed, "tasks.paused_now", &headers)
}

/// `POST /tasks/{id}/resume`
pub async fn resume(
    State(api): State<Api>,
    viewer: Viewer,
    Path(id): Path<String>,
    headers: HeaderMap,
    Posted(Nothing {}): Posted<Nothing>,
) -> Result<Response, Failure> {
    viewer.require_write()?;
    viewer.require_active()?;
    let changed = api.app.resume_by(id_of(&id)?, viewer.account, &viewer.origin).await;
    changed_to(changed, "tasks.resumed_now", &headers)
}

/// Says so, where the button was pressed.
fn changed_to(
    changed: Result<Task, ControlError>,
    said: &str,
    headers: &HeaderMap,
) -> Result<Response, Failure> {
    let task = changed.map_err(in_words)?;
    Ok(see_other_saying(&back(headers), &filled(said, &[("name", &name(&task))])))
}

/// `GET /tasks/{id}/cancel`: the list, and a dialog that asks.
pub async fn ask_cancel(
    State(api): State<Api>,
    viewer: Viewer,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    viewer.require_write()?;
    let task = api.app.task(id_of(&id)?, viewer.account).await?;
    if task.status.has_ended() {
        return Ok(see_other(&format!("/tasks/{}", task.id)));
    }
    let extra = Extra { cancel: Some(task), ..Extra::default() };
    show(&api, &viewer, &ListQuery::default(), extra, StatusCode::OK).await
}

/// `POST /tasks/{id}/cancel`: its page says what it came to.
pub async fn cancel(
    State(api): State<Api>,
    viewer: Viewer,
    Path(id): Path<String>,
    Posted(Nothing {}): Posted<Nothing>,
) -> Result<Response, Failure> {
    viewer.require_write()?;
    let cancelled = api.app.cancel_by(id_of(&id)?, viewer.account, &viewer.origin).await;
    let (task, settlement) = cancelled.map_err(in_words)?;
    let n = |number| viewer.reader.number(number);
    let Settlement { charged, refunded, released, not_processed } = settlement;
    let (charged, back, left) = (n(charged), n(refunded + released), n(not_processed));
    let with = [("charged", charged.as_str()), ("back", &back), ("left", &left)];
    let said = filled("tasks.cancelled_now", &with);
    Ok(see_other_saying(&format!("/tasks/{}", task.id), &said))
}

/// What a task does not allow at the moment, in the words of the page.
pub fn in_words(error: ControlError) -> Failure {
    match error {
        ControlError::WrongState(status) => {
            Failure::Wrong(filled("tasks.wrong_state", &[("state", text(label(status)))]))
        }
        ControlError::Insufficient => Failure::Wrong(text("tasks.no_credits").to_owned()),
        error => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_sent_elsewhere() {
        let of = |from: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(REFERER, from.parse().unwrap());
            back(&headers)
        };
        assert_eq!(of("https://x.example/tasks?name=a&status="), "/tasks?name=a&status=");
        let task = "https://x.example/tasks/task_0199c2f06c5a7a3b8d0e5f4a1b2c3d4e";
        assert_eq!(of(task), &task["https://x.example".len()..]);
        for from in ["https://x.example//evil.example/", "/tasks", "x", "https://evil.example/keys"]
        {
            assert_eq!(of(from), "/tasks", "{from}");
        }
        assert_eq!(of("https://x.example/tasks/task_1/cancel"), "/tasks");
        assert_eq!(back(&HeaderMap::new()), "/tasks");
    }

    #[test]
    fn a_list_is_turned_with_its_filter() {
        let id: TaskId = "task_0199c2f06c5a7a3b8d0e5f4a1b2c3d4e".parse().unwrap();
        let query = ListQuery { name: "a&b".into(), status: "paused".into(), ..Default::default() };
        assert_eq!(
            query.link("before", id),
            format!("/tasks?name=a%26b&status=paused&before={id}")
        );
    }
}

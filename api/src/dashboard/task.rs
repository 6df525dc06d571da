//! A task's page: what it is and has come to, its files, its end. Its results are in [`super::task_results`], what
//! happened to it in [`super::task_timeline`].

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use listmill_shared::app::control::Settlement;
use listmill_shared::domain::clock::Millis;
use listmill_shared::domain::task::{Task, TaskStatus};
use serde::Deserialize;

use super::charts::{Slice, donut};
use super::page::{Failure, Page, html_with, see_other_saying};
use super::reasons;
use super::session::{Nothing, Posted, Viewer};
use super::task_results::{Choice, ResultQuery, Results, counted, given, results};
use super::task_row::{Row, script_texts, span, verdict};
use super::task_timeline::{Moment, Names, moments, timeline};
use super::tasks::{id_of, in_words};
use super::text::{filled, text};
use crate::Api;
use crate::routes::download::{self, Format};
use crate::routes::results::filter;

/// A fact: what it is, and safe HTML.
struct Fact {
    name: &'static str,
    value: String,
}

#[derive(Template)]
#[template(path = "task.html")]
struct TaskPage {
    page: Page,
    row: Row,
    chart: String,
    /// Every reason with its count; none where they are too many to count.
    counts: Option<Vec<Choice>>,
    /// Not all of them are counted; in words.
    counted_of: Option<String>,
    facts: Vec<Fact>,
    timeline: Vec<Moment>,
    results: Results,
    ended: bool,
    erases: bool,
    ask_erase: bool,
    texts: String,
}

/// `GET /tasks/{id}`
pub async fn show(
    State(api): State<Api>,
    viewer: Viewer,
    Path(id): Path<String>,
    Query(query): Query<ResultQuery>,
) -> Result<Response, Failure> {
    whole(&api, &viewer, &id, &query, false).await
}

/// `GET /tasks/{id}/erase`: its page, and a dialog that asks.
pub async fn ask_erase(
    State(api): State<Api>,
    viewer: Viewer,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    viewer.require_write()?;
    whole(&api, &viewer, &id, &ResultQuery::default(), true).await
}

/// `POST /tasks/{id}/erase`
pub async fn erase(
    State(api): State<Api>,
    viewer: Viewer,
    Path(id): Path<String>,
    Posted(Nothing {}): Posted<Nothing>,
) -> Result<Response, Failure> {
    viewer.require_write()?;
    let erased = api.app.erase_by(id_of(&id)?, viewer.account, &viewer.origin).await;
    erased.map_err(in_words)?;
    Ok(see_other_saying("/tasks", text("task.erased")))
}

async fn whole(
    api: &Api,
    viewer: &Viewer,
    id: &str,
    query: &ResultQuery,
    ask_erase: bool,
) -> Result<Response, Failure> {
    let task = api.app.task(id_of(id)?, viewer.account).await?;
    let page = Page::new(viewer, "tasks");
    let now = api.app.now();
    let waiting = api.app.waiting_of(&task).await?;
    let money = api.app.money(viewer.account).await?;
    let row = Row::new(&page, &task, waiting, money, now);
    let counts = reasons::of(api, &task).await?;
    let counted_of = counts.as_ref().filter(|all| all.results != task.tally.processed());
    let counted_of =
        counted_of.map(|all| filled("task.counted_of", &[("n", &page.n(all.results))]));
    let counts = counts
        .map(|all| all.reasons.iter().map(|(reason, n)| counted(&page, *reason, *n)).collect());
    let ended = task.status.has_ended();
    let erases = ended && viewer.may_write();
    let results = results(api, &page, &task, query).await?;
    let status = match results.wrong {
        Some(_) => StatusCode::BAD_REQUEST,
        None => StatusCode::OK,
    };
    let (names, events) = timeline(api, &task).await?;
    let made = TaskPage {
        chart: donut(&slices(&task), text("task.verdicts"), &page.reader),
        counts,
        counted_of,
        facts: facts(api, &page, &task, &names, now),
        timeline: moments(&page, &names, &events),
        results,
        ended,
        erases,
        ask_erase: ask_erase && erases,
        texts: script_texts(&page),
        row,
        page,
    };
    Ok(html_with(status, &made))
}

fn slices(task: &Task) -> Vec<Slice> {
    let tally = task.tally;
    let rest = task.submitted.unique - tally.processed();
    let slice = |class: &'static str, value| Slice {
        label: text(if class == "rest" { "task.rest" } else { verdict(class) }).to_owned(),
        value,
        class,
    };
    let mut slices = vec![
        slice("deliverable", tally.deliverable),
        slice("undeliverable", tally.undeliverable),
        slice("risky", tally.risky),
        slice("unknown", tally.unknown),
    ];
    if rest > 0 {
        slices.push(slice("rest", rest));
    }
    slices
}

fn facts(api: &Api, page: &Page, task: &Task, names: &Names, now: Millis) -> Vec<Fact> {
    let mut facts = Vec::new();
    let mut fact = |name, value| facts.push(Fact { name: text(name), value });
    fact("task.made_by", names.safe(&task.created_by()));
    fact("task.created", page.time(task.created_at).to_string());
    if let Some(at) = task.started_at {
        fact("task.started", page.time(at).to_string());
    }
    if let Some(at) = task.finished_at {
        fact("task.finished", page.time(at).to_string());
        let took = (at - task.started_at.unwrap_or(task.created_at)).max(0) / 1_000;
        fact("task.took", span(took));
        fact(
            "task.expires",
            match task.results_expire_at(api.app.settings.results_ttl) {
                Some(at) => filled("task.expires_at", &[("time", &page.time(at).to_string())]),
                None => text("task.expires_never").to_owned(),
            },
        );
    } else if let Some(at) = task.started_at {
        fact("task.runs_for", span((now - at).max(0) / 1_000));
    }
    let submitted = task.submitted;
    fact("task.submitted", page.n(submitted.submitted));
    fact("task.unique", page.n(submitted.unique));
    fact("task.duplicates", page.n(submitted.duplicates));
    fact("task.invalid", page.n(submitted.invalid_syntax));
    let settlement = Settlement::of(task);
    fact("task.charged", page.n(settlement.charged));
    fact("task.refunded", page.n(settlement.refunded));
    if task.status == TaskStatus::Cancelled || settlement.released > 0 {
        fact("task.released", page.n(settlement.released));
        fact("task.not_processed", page.n(settlement.not_processed));
    }
    if !task.status.has_ended() {
        fact("task.held", page.n(task.held));
    }
    facts
}

/// What is to be downloaded.
#[derive(Debug, Deserialize)]
pub struct DownloadQuery {
    #[serde(default)]
    format: String,
    #[serde(default)]
    status: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    flag: String,
    #[serde(default)]
    escape: String,
}

/// `GET /tasks/{id}/download`
pub async fn download(
    State(api): State<Api>,
    viewer: Viewer,
    Path(id): Path<String>,
    Query(query): Query<DownloadQuery>,
) -> Result<Response, Failure> {
    let format = Format::parse(&query.format, given(&query.escape))?;
    let filter = filter(given(&query.status), given(&query.reason), given(&query.flag))?;
    let task = api.app.task(id_of(&id)?, viewer.account).await?;
    Ok(download::response(&api, &task, format, filter).await?)
}

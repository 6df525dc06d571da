//! How it goes, in figures: tasks, queue, throughput, refusals, latency, what does not get on.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use listmill_shared::app::operators::Overview;

use super::sheet::{Cell, Part, Table};
use super::{Operator, length};
use crate::Api;
use crate::dashboard::charts::area;
use crate::dashboard::page::{Failure, Page, html};
use crate::dashboard::session::Viewer;
use crate::dashboard::text::{filled, text};

#[derive(Template)]
#[template(path = "operator/overview.html")]
struct OverviewPage {
    page: Page,
    tab: &'static str,
    figures: Vec<(&'static str, String, String)>,
    chart: String,
    tables: Vec<Table>,
}

/// `GET /operator`
pub async fn show(State(api): State<Api>, Operator(viewer): Operator) -> Result<Response, Failure> {
    let seen = api.app.overview().await?;
    let now = api.app.now();
    let hours: Vec<(String, i64)> =
        seen.verified.iter().map(|(at, count)| (viewer.reader.hour(*at), *count)).collect();
    let chart = area(&hours, text("operator.verified_by_hour"), &viewer.reader);
    let figures = figures(&viewer, &seen, now);
    let tables = vec![tasks(&viewer, &seen), queue(&viewer, &seen, now), troubles(&viewer, &seen)];
    let page = Page::new(&viewer, "operator");
    Ok(html(&OverviewPage { page, tab: "overview", figures, chart, tables }))
}

/// What is seen first: name, figure, what belongs to it.
fn figures(viewer: &Viewer, seen: &Overview, now: i64) -> Vec<(&'static str, String, String)> {
    let n = |number: i64| viewer.reader.number(number);
    let verified = seen.verified.iter().map(|(_, count)| *count).sum();
    let open: i64 = seen.unended.iter().map(|(.., count)| *count).sum();
    let waits = seen.oldest.map_or_else(
        || text("operator.nothing_waits").to_owned(),
        |oldest| filled("operator.oldest_waits", &[("time", &length(now - oldest.created_at))]),
    );
    let (living, able) = seen.workers;
    let (latency, of) = match seen.answers {
        None => (String::from("–"), text("operator.no_requests").to_owned()),
        Some(answers) => (
            milliseconds(answers.median_us),
            filled(
                "operator.latency_of",
                &[
                    ("p99", &milliseconds(answers.p99_us)),
                    ("n", &n(answers.requests as i64)),
                    ("errors", &n(answers.errors as i64)),
                ],
            ),
        ),
    };
    vec![
        (text("operator.accounts"), n(seen.accounts), String::new()),
        (text("operator.open_tasks"), n(open), waits),
        (
            text("operator.verified"),
            n(verified),
            filled("operator.verified_of", &[("hours", "24")]),
        ),
        (
            text("operator.workers"),
            n(living as i64),
            filled("operator.workers_able", &[("n", &n(able as i64))]),
        ),
        (text("operator.latency"), latency, of),
    ]
}

fn milliseconds(micros: i32) -> String {
    filled("operator.milliseconds", &[("n", &format!("{:.1}", f64::from(micros) / 1_000.0))])
}

fn tasks(viewer: &Viewer, seen: &Overview) -> Table {
    let unended = seen.unended.iter().map(|(status, reason, count)| {
        let mut parts = vec![Part::text(status.replace('_', " "))];
        if !reason.is_empty() {
            parts.push(Part::Muted(reason.replace('_', " ")));
        }
        vec![Cell::of(parts), text("operator.now").into(), Cell::num(viewer, *count)]
    });
    let day = seen.day.iter().map(|(status, count)| {
        vec![
            status.replace('_', " ").into(),
            text("operator.made_last_day").into(),
            Cell::num(viewer, *count),
        ]
    });
    Table {
        title: text("operator.tasks_by_status").to_owned(),
        head: vec![text("operator.status"), text("operator.when"), text("operator.count")],
        rows: unended.chain(day).collect(),
        empty: text("operator.no_tasks"),
    }
}

fn queue(viewer: &Viewer, seen: &Overview, now: i64) -> Table {
    let batches = &seen.batches;
    let since = batches.waiting_since.map_or_else(String::new, |since| {
        filled("operator.unserved_for", &[("time", &length(now - since))])
    });
    let due = batches
        .due_at
        .map_or_else(String::new, |at| filled("operator.due_in", &[("time", &length(at - now))]));
    let row = |name: &'static str, what: String, count: i64| -> Vec<Cell> {
        vec![name.into(), what.into(), Cell::num(viewer, count)]
    };
    let none = String::new;
    Table {
        title: text("operator.queue").to_owned(),
        head: vec![text("operator.batches"), text("operator.about"), text("operator.count")],
        rows: vec![
            row(text("operator.pending"), since, batches.pending),
            row(text("operator.queued"), none(), batches.queued),
            row(text("operator.leased"), none(), batches.leased),
            row(text("operator.deferred"), due, batches.deferred),
        ],
        empty: "",
    }
}

fn troubles(viewer: &Viewer, seen: &Overview) -> Table {
    let stuck = seen.stuck.iter().map(|held| {
        vec![
            filled("operator.stuck", &[("part", held.part)]).into(),
            Cell::of(vec![
                Part::text(held.about.clone()),
                Part::Muted(filled("operator.stuck_for", &[("time", &length(held.for_ms))])),
            ]),
            Cell::num(viewer, 1),
        ]
    });
    let refused = seen.refusals.iter().map(|(outcome, count)| {
        vec![
            outcome.as_str().replace('_', " ").into(),
            text("operator.refused_last_day").into(),
            Cell::num(viewer, *count),
        ]
    });
    Table {
        title: text("operator.troubles").to_owned(),
        head: vec![text("operator.trouble"), text("operator.about"), text("operator.count")],
        rows: stuck.chain(refused).collect(),
        empty: text("operator.no_troubles"),
    }
}

//! Workers, mail hosts, and what failed.

use axum::extract::{Query, State};
use axum::response::Response;
use listmill_shared::app::operators::{FailedResult, HOSTS};
use listmill_shared::app::provider::Health;
use listmill_shared::store::operators::FailedTask;
use listmill_shared::store::workers::Worker;
use listmill_shared::throttle::look::Host;
use serde::Deserialize;

use super::sheet::{Cell, Dialog, Part, Sheet, Table, shown, titled};
use super::{Operator, encoded, length};
use crate::Api;
use crate::dashboard::page::{Failure, see_other_saying};
use crate::dashboard::session::{Nothing, Posted, Viewer};
use crate::dashboard::text::{filled, text};

/// Who was not heard of for so long is silent, in milliseconds.
const SILENT: i64 = 30_000;

fn worker(viewer: &Viewer, one: &Worker, now: i64) -> Vec<Cell> {
    let silent = now - one.seen_at >= SILENT;
    let state = match (silent, one.concurrency) {
        (true, _) => Part::Badge("badge-bad", text("operator.silent").to_owned()),
        _ if one.drain => Part::Badge("badge-warn", text("operator.draining").to_owned()),
        (_, 0) => Part::Badge("badge-bad", text("operator.provider_down").to_owned()),
        _ => Part::Badge("badge-ok", text("operator.verifies").to_owned()),
    };
    let act = match one.can_drain && !one.drain && !silent {
        true => {
            let to = format!("/operator/workers/drain?name={}", encoded(&one.name));
            Part::Button(to, text("operator.drain"), one.name.clone())
        }
        false => Part::text(""),
    };
    let told = !one.version.is_empty();
    let or_unknown = |known: Cell| if told { known } else { text("operator.unknown").into() };
    let offset = format!("{:+.1}", 0.0 - one.clock_offset as f64 / 1_000.0);
    vec![
        Cell::of(vec![Part::Code(one.name.clone()), Part::Muted(one.source.clone())]),
        state.into(),
        or_unknown(one.version.as_str().into()),
        Cell::num(viewer, one.concurrency),
        Cell::num(viewer, one.pace),
        or_unknown(Cell::num(viewer, one.leases)),
        or_unknown(filled("operator.seconds", &[("n", &offset)]).into()),
        or_unknown(Part::Time(one.started_at).into()),
        filled("operator.ago", &[("time", &length(now - one.seen_at))]).into(),
        act.into(),
    ]
}

/// `GET /operator/workers`
pub async fn workers(
    State(api): State<Api>,
    Operator(viewer): Operator,
) -> Result<Response, Failure> {
    Ok(shown(&viewer, "workers", listed(&api, &viewer).await?))
}

/// Which worker.
#[derive(Deserialize)]
pub struct Which {
    #[serde(default)]
    name: String,
}

/// `GET /operator/workers/drain`
pub async fn ask_drain(
    State(api): State<Api>,
    Operator(viewer): Operator,
    Query(Which { name }): Query<Which>,
) -> Result<Response, Failure> {
    let dialog = Dialog {
        title: filled("operator.drain_worker", &[("worker", &name)]),
        lines: vec![text("operator.drain_why").to_owned()],
        to: format!("/operator/workers/drain?name={}", encoded(&name)),
        close: String::from("/operator/workers"),
        button: text("operator.drain"),
        danger: true,
        ..Dialog::default()
    };
    let sheet = listed(&api, &viewer).await?;
    Ok(shown(&viewer, "workers", Sheet { dialog: Some(dialog), ..sheet }))
}

/// `POST /operator/workers/drain`
pub async fn drain(
    State(api): State<Api>,
    Operator(viewer): Operator,
    Query(Which { name }): Query<Which>,
    Posted(Nothing {}): Posted<Nothing>,
) -> Result<Response, Failure> {
    if !api.app.drain_worker(&name, &viewer.origin).await? {
        return Err(Failure::Wrong(text("operator.no_drain").to_owned()));
    }
    let said = filled("operator.drained", &[("worker", &name)]);
    Ok(see_other_saying("/operator/workers", &said))
}

async fn listed(api: &Api, viewer: &Viewer) -> Result<Sheet, Failure> {
    let now = api.app.now();
    let workers = api.app.store.workers().await?;
    let leased = api.app.store.leases_by_source().await?;
    let leases = leased.iter().map(|one| {
        let source = match one.source.as_str() {
            "" => text("operator.unknown"),
            source => source,
        };
        vec![
            Part::Code(source.to_owned()).into(),
            Cell::num(viewer, one.leases),
            filled("operator.ends_in", &[("time", &length(one.due_at - now))]).into(),
        ]
    });
    let mut lines = vec![text("operator.workers_why").to_owned()];
    if api.app.queue.redis().is_none() {
        lines.push(text("operator.workers_embedded").to_owned());
    }
    Ok(Sheet {
        lines,
        tables: vec![
            Table {
                title: text("operator.workers").to_owned(),
                head: vec![
                    text("operator.worker"),
                    text("operator.state"),
                    text("operator.version"),
                    text("operator.at_once"),
                    text("operator.per_second"),
                    text("operator.leases"),
                    text("operator.clock_ahead"),
                    text("operator.started"),
                    text("operator.last_seen"),
                    "",
                ],
                rows: workers.iter().map(|one| worker(viewer, one, now)).collect(),
                empty: text("operator.no_workers"),
            },
            Table {
                title: text("operator.leases_by_source").to_owned(),
                head: vec![
                    text("operator.source"),
                    text("operator.leases"),
                    text("operator.first_ends"),
                ],
                rows: leases.collect(),
                empty: text("operator.no_leases"),
            },
        ],
        ..titled("workers")
    })
}

fn host(viewer: &Viewer, one: &Host, now: i64) -> Vec<Cell> {
    let alone = one.rest.until > now;
    let state = match (alone, one.rest.refusals) {
        (true, _) => Part::Badge("badge-warn", text("operator.left_alone").to_owned()),
        (false, 0) => Part::Badge("badge-ok", text("operator.answers").to_owned()),
        (false, _) => Part::Badge("badge-warn", text("operator.refused_us").to_owned()),
    };
    let mut until = vec![state];
    if alone {
        let time = length(one.rest.until - now);
        until.push(Part::Muted(filled("operator.for_time", &[("time", &time)])));
    }
    vec![
        Part::Code(one.name.clone()).into(),
        Cell::of(until),
        Cell::num(viewer, one.rest.refusals.into()),
        Cell::num(viewer, i64::try_from(one.connections).unwrap_or(i64::MAX)),
        Cell::num(viewer, one.processes as i64),
        match one.line_ms {
            0 => text("operator.nobody_waits").into(),
            ms => length(ms).into(),
        },
    ]
}

/// Mail hosts as this process knows them, where it verifies by itself; what is to be said of them goes to `lines`.
fn here(api: &Api, lines: &mut Vec<String>) -> Vec<Host> {
    let Some(found) = api.provider.hosts(HOSTS) else {
        lines.push(filled("operator.no_mail_hosts", &[("provider", api.provider.name())]));
        return Vec::new();
    };
    lines.push(text("operator.hosts_here").to_owned());
    let health = api.provider.health();
    if let Some(Health::Down { why }) = health.as_ref().map(|health| health.borrow().clone()) {
        lines.push(filled("operator.breaker_here", &[("why", &why)]));
    }
    if found.more {
        lines.push(text("operator.hosts_more").to_owned());
    }
    found.hosts
}

/// `GET /operator/hosts`
pub async fn hosts(
    State(api): State<Api>,
    Operator(viewer): Operator,
) -> Result<Response, Failure> {
    let (now, settings) = (api.app.now(), &api.app.settings);
    let mut lines = Vec::new();
    let hosts = match api.app.mail_hosts().await {
        Ok(Some(found)) => {
            if found.more {
                lines.push(text("operator.hosts_more").to_owned());
            }
            found.hosts
        }
        Ok(None) => here(&api, &mut lines),
        Err(error) => {
            tracing::debug!(%error, "mail hosts cannot be looked at");
            lines.push(text("operator.redis_away").to_owned());
            Vec::new()
        }
    };
    let workers = api.app.store.workers().await?;
    let down = workers.iter().filter(|one| now - one.seen_at < SILENT && one.concurrency == 0);
    let down = viewer.reader.number(down.count() as i64);
    lines.push(filled("operator.breaker", &[("n", &down)]));
    let paced = |name: String, hosts: String, figures: [u64; 3]| -> Vec<Cell> {
        let mut cells = vec![name.into(), Part::Muted(hosts).into()];
        let number = |one| Cell::num(&viewer, i64::try_from(one).unwrap_or(i64::MAX));
        cells.extend(figures.map(number));
        cells
    };
    let usual = [
        u64::from(settings.smtp_host_recipients_per_minute),
        u64::from(settings.smtp_host_connections_per_minute),
        settings.smtp_host_connections as u64,
    ];
    let mut figures = vec![paced(text("operator.any_host").to_owned(), String::new(), usual)];
    figures.extend(settings.pace_hosts.iter().map(|(name, of)| {
        let own = [
            of.recipients_per_minute.map_or(usual[0], u64::from),
            of.connections_per_minute.map_or(usual[1], u64::from),
            of.connections.map_or(usual[2], |most| most as u64),
        ];
        paced(name.clone(), of.hosts.join(", "), own)
    }));
    if !settings.pace {
        lines.push(text("operator.pace_off").to_owned());
    }
    let sheet = Sheet {
        lines,
        tables: vec![
            Table {
                title: text("operator.hosts_now").to_owned(),
                head: vec![
                    text("operator.host"),
                    text("operator.state"),
                    text("operator.refusals"),
                    text("operator.connections"),
                    text("operator.processes"),
                    text("operator.line"),
                ],
                rows: hosts.iter().map(|one| host(&viewer, one, now)).collect(),
                empty: text("operator.no_hosts"),
            },
            Table {
                title: text("operator.pace_figures").to_owned(),
                head: vec![
                    text("operator.host"),
                    text("operator.names_end"),
                    text("operator.recipients_minute"),
                    text("operator.connections_minute"),
                    text("operator.connections_at_once"),
                ],
                rows: figures,
                empty: "",
            },
        ],
        ..titled("hosts")
    };
    Ok(shown(&viewer, "hosts", sheet))
}

fn failed_result(one: &FailedResult) -> Vec<Cell> {
    let why = one.detail.clone();
    vec![
        one.address.clone().into(),
        Cell::of(vec![
            Part::Code(one.task.to_string()),
            Part::Muted(filled("operator.number", &[("n", &one.seq.to_string())])),
        ]),
        Part::Link(format!("/operator/accounts/{}", one.account), one.account.to_string()).into(),
        Part::Time(one.checked_at).into(),
        why.map_or_else(|| text("operator.unknown").into(), |why| Part::Code(why).into()),
    ]
}

fn failed_task(viewer: &Viewer, one: &FailedTask) -> Vec<Cell> {
    let name = Part::text(one.name.clone().unwrap_or_default());
    vec![
        Cell::of(vec![name, Part::Code(one.id.to_string())]),
        Part::Link(format!("/operator/accounts/{}", one.account_id), one.account_id.to_string())
            .into(),
        Cell::num(viewer, one.unique_addresses),
        Part::time_or(one.finished_at, text("operator.unknown")).into(),
    ]
}

/// `GET /operator/failures`
pub async fn failures(
    State(api): State<Api>,
    Operator(viewer): Operator,
) -> Result<Response, Failure> {
    let found = api.app.failures().await?;
    let sheet = Sheet {
        lines: vec![text("operator.failures_why").to_owned()],
        tables: vec![
            Table {
                title: text("operator.failed_results").to_owned(),
                head: vec![
                    text("operator.address"),
                    text("operator.task"),
                    text("operator.account"),
                    text("operator.when"),
                    text("operator.why"),
                ],
                rows: found.results.iter().map(failed_result).collect(),
                empty: text("operator.no_failed_results"),
            },
            Table {
                title: text("operator.failed_tasks").to_owned(),
                head: vec![
                    text("operator.task"),
                    text("operator.account"),
                    text("operator.addresses"),
                    text("operator.when"),
                ],
                rows: found.tasks.iter().map(|one| failed_task(&viewer, one)).collect(),
                empty: text("operator.no_failed_tasks"),
            },
        ],
        ..titled("failures")
    };
    Ok(shown(&viewer, "failures", sheet))
}

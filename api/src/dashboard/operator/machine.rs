//! The settings in force, secrets hidden, and what the doctor can look at from here.

use axum::extract::State;
use axum::response::Response;
use listmill_shared::app::doctor::{Finding, State as Health};
use listmill_shared::settings::Shown;

use super::Operator;
use super::sheet::{Cell, Part, Sheet, Table, shown, titled};
use crate::Api;
use crate::dashboard::page::Failure;
use crate::dashboard::text::{filled, text};

fn setting(one: &Shown) -> Vec<Cell> {
    let value = match one.value.as_str() {
        "" => Part::Muted(text("operator.empty_value").to_owned()),
        value => Part::Code(value.to_owned()),
    };
    let mut parts = vec![value];
    if one.differs() {
        parts.push(Part::Badge("badge-warn", text("operator.differs").to_owned()));
        let default = match one.default.as_str() {
            "" => text("operator.empty_value"),
            default => default,
        };
        parts.push(Part::Muted(filled("operator.default_is", &[("value", default)])));
    }
    vec![Part::Code(one.name.clone()).into(), Cell::of(parts), Part::Muted(one.help.clone()).into()]
}

/// `GET /operator/settings`
pub async fn settings(
    State(api): State<Api>,
    Operator(viewer): Operator,
) -> Result<Response, Failure> {
    let all = api.app.settings.shown();
    let differing = all.iter().filter(|one| one.differs()).count();
    let count = viewer.reader.number(differing as i64);
    let sheet = Sheet {
        lines: vec![
            text("operator.settings_why").to_owned(),
            filled("operator.settings_differ", &[("n", &count)]),
        ],
        tables: vec![Table {
            title: text("operator.settings").to_owned(),
            head: vec![
                text("operator.setting"),
                text("operator.value"),
                text("operator.what_it_does"),
            ],
            rows: all.iter().map(setting).collect(),
            empty: "",
        }],
        ..titled("settings")
    };
    Ok(shown(&viewer, "settings", sheet))
}

fn finding(one: &Finding) -> Vec<Cell> {
    let (class, word) = match one.state {
        Health::Ok => ("badge-ok", text("operator.ok")),
        Health::Warning => ("badge-warn", text("operator.warning")),
        Health::Problem => ("badge-bad", text("operator.problem")),
    };
    let mut found = vec![Part::text(one.found.clone())];
    found.extend(one.advice.clone().map(Part::Muted));
    vec![one.check.into(), Part::Badge(class, word.to_owned()).into(), Cell::of(found)]
}

/// `GET /operator/doctor`
pub async fn doctor(
    State(api): State<Api>,
    Operator(viewer): Operator,
) -> Result<Response, Failure> {
    let found = api.app.examine().await;
    let worst = found.iter().map(|one| one.state).max().unwrap_or(Health::Ok);
    let said = match worst {
        Health::Ok => text("operator.all_well"),
        Health::Warning => text("operator.some_warnings"),
        Health::Problem => text("operator.some_problems"),
    };
    let sheet = Sheet {
        outcome: Some((worst != Health::Problem, vec![said.to_owned()])),
        commands: vec![
            (text("operator.doctor_command"), String::from("listmill doctor")),
            (text("operator.reconcile_command"), String::from("listmill admin reconcile --deep")),
        ],
        tables: vec![Table {
            title: text("operator.doctor").to_owned(),
            head: vec![text("operator.check"), text("operator.state"), text("operator.found")],
            rows: found.iter().map(finding).collect(),
            empty: "",
        }],
        ..titled("doctor")
    };
    Ok(shown(&viewer, "doctor", sheet))
}

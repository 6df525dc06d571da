//! Usage: how many requests, by hour or day, and how they ended.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use jiff::civil::Date;
use listmill_shared::domain::clock::Millis;
use listmill_shared::domain::id::KeyId;
use listmill_shared::domain::request::{By, DAY_MS, HOUR_MS, Outcome};
use listmill_shared::store::usage::{Split, UsageFilter, Used};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::Api;
use crate::extract::{Id, Params};
use crate::gate::Caller;
use crate::openapi::{Bad, Gate, NoKey};
use crate::problem::{Problem, WINDOW_TOO_LARGE};
use crate::view::stamp;

/// The longest windows, by the hour and by the day.
const HOURS: Millis = 31 * DAY_MS;
const DAYS: Millis = 400 * DAY_MS;
/// Rows that one answer is made of.
const MOST: i64 = 20_000;

/// Requests of one period.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Usage)]
pub struct UsageView {
    /// When the period began.
    #[schema(format = DateTime)]
    at: String,
    /// With `group_by=key`: the key; null = none that the account has.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    key: Option<Option<String>>,
    /// With `group_by=outcome`: how they ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'static str>,
    /// With `group_by=route`: the route.
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<String>,
    /// With `group_by=network`: a /24 or /64; `other` = all beyond the first few of a key and hour.
    #[serde(skip_serializing_if = "Option::is_none")]
    network: Option<String>,
    /// How many, by outcome; an outcome that is not there has none.
    #[schema(value_type = BTreeMap<String, i64>)]
    requests: BTreeMap<&'static str, i64>,
}

/// Usage over a window.
#[derive(Debug, Serialize, ToSchema)]
pub struct UsagePage {
    /// Oldest first; periods without requests are left out.
    data: Vec<UsageView>,
}

/// Requests and credits of a key in one period.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = KeyUsage)]
pub struct KeyUsageView {
    /// When the period began.
    #[schema(format = DateTime)]
    at: String,
    /// How many requests, by outcome; an outcome that is not there has none.
    #[schema(value_type = BTreeMap<String, i64>)]
    requests: BTreeMap<&'static str, i64>,
    /// Credits charged.
    credits: i64,
}

/// A key's usage over a window.
#[derive(Debug, Serialize, ToSchema)]
pub struct KeyUsagePage {
    /// Oldest first; periods without requests and credits are left out.
    data: Vec<KeyUsageView>,
}

/// The window and its periods.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct WindowParams {
    /// From when on: RFC 3339, or a date (UTC). The period that holds it counts as a whole. Unless given, a day
    /// before `to` by the hour, 30 days by the day.
    #[param(example = "2026-11-01")]
    from: Option<String>,
    /// Until when, exclusive; now, unless given.
    #[param(example = "2026-12-01")]
    to: Option<String>,
    /// `hour` or `day` (the default), in UTC. By the hour a window has 31 days at most, by the day 400.
    #[param(example = "day")]
    by: Option<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct UsageParams {
    /// As with `GET /v1/keys/{id}/usage`.
    from: Option<String>,
    /// Until when, exclusive; now, unless given.
    to: Option<String>,
    /// `hour` or `day` (the default), in UTC.
    by: Option<String>,
    /// Split the periods further: `key`, `outcome`, `route` or `network`.
    #[param(example = "key")]
    group_by: Option<String>,
    /// `json`, or `csv`: a line for each period, group and outcome.
    #[param(example = "json")]
    format: Option<String>,
}

/// What usage is split by, as asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GroupBy {
    Nothing,
    Key,
    Outcome,
    Route,
    Network,
}

impl GroupBy {
    fn read(given: Option<&str>) -> Result<Self, Problem> {
        Ok(match given {
            None => Self::Nothing,
            Some("key") => Self::Key,
            Some("outcome") => Self::Outcome,
            Some("route") => Self::Route,
            Some("network") => Self::Network,
            Some(_) => {
                return Err(Problem::query("group_by", "must be key, outcome, route or network."));
            }
        })
    }

    /// Outcomes are always told apart.
    fn split(self) -> Split {
        match self {
            Self::Nothing | Self::Outcome => Split::None,
            Self::Key => Split::Key,
            Self::Route => Split::Route,
            Self::Network => Split::Network,
        }
    }
}

/// A moment: RFC 3339, or a date, which is its midnight in UTC.
fn moment(name: &str, text: &str) -> Result<Millis, Problem> {
    let date = || {
        let date: Date = text.parse().ok().filter(|_| text.len() == 10)?;
        date.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
    };
    let at = text.parse::<Timestamp>().ok().or_else(date).map(|at| at.as_millisecond());
    // Years 0 to 9999, which can be shown.
    at.filter(|at| (-62_167_219_200_000..=253_402_300_799_999).contains(at)).ok_or_else(|| {
        Problem::query(name, "must be a time such as 2030-01-31T12:00:00Z or 2030-01-31.")
    })
}

/// The window that is asked for, in whole periods at its beginning.
fn window(
    from: Option<&str>,
    to: Option<&str>,
    by: Option<&str>,
    now: Millis,
) -> Result<(Millis, Millis, By), Problem> {
    let (by, usual, most) = match by {
        Some("hour") => (By::Hour, 24 * HOUR_MS, HOURS),
        None | Some("day") => (By::Day, 30 * DAY_MS, DAYS),
        Some(_) => return Err(Problem::query("by", "must be hour or day.")),
    };
    // Now is in the window.
    let to = to.map_or(Ok(now + 1), |text| moment("to", text))?;
    let from = from.map_or(Ok(to - usual), |text| moment("from", text))?;
    if from >= to {
        return Err(Problem::query("from", "must lie before to."));
    }
    if to - from > most {
        let (days, period) = (most / DAY_MS, if by == By::Hour { "hour" } else { "day" });
        return Err(Problem::new(
            WINDOW_TOO_LARGE,
            format!("By the {period}, a window has {days} days at most. Ask for a shorter one."),
        ));
    }
    Ok((by.start_of(from), to, by))
}

async fn read(api: &Api, caller: &Caller, filter: UsageFilter) -> Result<Vec<Used>, Problem> {
    let rows = api.app.store.usage(caller.account, filter, MOST + 1).await?;
    if rows.len() as i64 > MOST {
        return Err(Problem::new(
            WINDOW_TOO_LARGE,
            format!(
                "The answer would be made of more than {MOST} figures. Ask for a shorter window."
            ),
        ));
    }
    Ok(rows)
}

/// Show usage
///
/// Requests with the account's keys, deleted ones included, by the hour or the day, and how they ended.
/// Every request that the gate accepted or refused is counted, within a second. By the hour it is kept as
/// long as requests are (30 days, unless the operator has set it otherwise), by the day for 400 days. What a
/// month comes to, for a bill: `?from=2026-11-01&to=2026-12-01&group_by=key&format=csv`.
#[utoipa::path(get, path = "/v1/usage", tag = "usage", params(UsageParams), responses(
    (status = 200, description = "Usage.", content(
        (UsagePage = "application/json"),
        (String = "text/csv"),
    )), Bad, Gate))]
pub async fn usage(
    State(api): State<Api>,
    caller: Caller,
    Params(params): Params<UsageParams>,
) -> Result<Response, Problem> {
    let (from, to, by) =
        window(params.from.as_deref(), params.to.as_deref(), params.by.as_deref(), api.app.now())?;
    let group = GroupBy::read(params.group_by.as_deref())?;
    let csv = match params.format.as_deref() {
        None | Some("json") => false,
        Some("csv") => true,
        Some(_) => return Err(Problem::query("format", "must be json or csv.")),
    };
    let filter = UsageFilter { key: None, from, to, by, split: group.split() };
    let rows = read(&api, &caller, filter).await?;
    if csv {
        return csv_file(&rows, group);
    }
    Ok(axum::Json(UsagePage { data: views(rows, group) }).into_response())
}

/// Show a key's usage
///
/// Like `GET /v1/usage`, of one key, which may be deleted. Credits are those that its own calls and the
/// tasks that it created were charged.
#[utoipa::path(get, path = "/v1/keys/{id}/usage", tag = "keys",
    params(("id" = String, Path, description = "Id of the key (not its secret)."), WindowParams),
    responses((status = 200, description = "The key's usage.", body = KeyUsagePage), Bad, NoKey, Gate))]
pub async fn of_key(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<KeyId>,
    Params(params): Params<WindowParams>,
) -> Result<axum::Json<KeyUsagePage>, Problem> {
    let (from, to, by) =
        window(params.from.as_deref(), params.to.as_deref(), params.by.as_deref(), api.app.now())?;
    let store = &api.app.store;
    if !store.had_key(caller.account, id).await? {
        return Err(Problem::key_not_found());
    }
    let filter = UsageFilter { key: Some(id), from, to, by, split: Split::None };
    let mut periods: BTreeMap<Millis, (BTreeMap<&'static str, i64>, i64)> = BTreeMap::new();
    for used in read(&api, &caller, filter).await? {
        periods.entry(used.at).or_default().0.insert(used.outcome.as_str(), used.requests);
    }
    for (at, credits) in store.credits_in(caller.account, id, filter).await? {
        periods.entry(at).or_default().1 += credits;
    }
    let view = |(at, (requests, credits))| KeyUsageView { at: stamp(at), requests, credits };
    Ok(axum::Json(KeyUsagePage { data: periods.into_iter().map(view).collect() }))
}

/// One view for each period and group; `rows` are sorted by both.
fn views(rows: Vec<Used>, group: GroupBy) -> Vec<UsageView> {
    let mut views = Vec::new();
    let mut open: Option<(Millis, Option<KeyId>, String, Option<Outcome>)> = None;
    for row in rows {
        let by_outcome = (group == GroupBy::Outcome).then_some(row.outcome);
        let place = (row.at, row.key, row.name.clone(), by_outcome);
        if open.as_ref() != Some(&place) {
            views.push(UsageView {
                at: stamp(row.at),
                key: (group == GroupBy::Key).then(|| row.key.map(|key| key.to_string())),
                outcome: by_outcome.map(Outcome::as_str),
                route: (group == GroupBy::Route).then(|| row.name.clone()),
                network: (group == GroupBy::Network).then(|| row.name.clone()),
                requests: BTreeMap::new(),
            });
            open = Some(place);
        }
        if let Some(view) = views.last_mut() {
            *view.requests.entry(row.outcome.as_str()).or_default() += row.requests;
        }
    }
    views
}

/// A line for each figure.
fn csv_file(rows: &[Used], group: GroupBy) -> Result<Response, Problem> {
    let column = match group {
        GroupBy::Key => Some("key"),
        GroupBy::Route => Some("route"),
        GroupBy::Network => Some("network"),
        GroupBy::Nothing | GroupBy::Outcome => None,
    };
    let broken = |error: csv::Error| {
        tracing::error!(%error, "usage cannot be written as CSV; answered 500");
        Problem::internal()
    };
    let mut writer = csv::Writer::from_writer(Vec::new());
    let heads = ["at"].into_iter().chain(column).chain(["outcome", "requests"]);
    writer.write_record(heads).map_err(broken)?;
    for row in rows {
        let (at, requests) = (stamp(row.at), row.requests.to_string());
        let name = match group {
            GroupBy::Key => row.key.map(|key| key.to_string()).unwrap_or_default(),
            _ => row.name.clone(),
        };
        let cells = [at.as_str()]
            .into_iter()
            .chain(column.map(|_| name.as_str()))
            .chain([row.outcome.as_str(), requests.as_str()]);
        writer.write_record(cells).map_err(broken)?;
    }
    let bytes = writer.into_inner().map_err(|error| broken(error.into_error().into()))?;
    let mut response = Response::new(bytes.into());
    let headers = response.headers_mut();
    let kind = HeaderValue::from_static("text/csv; charset=utf-8; header=present");
    headers.insert(CONTENT_TYPE, kind);
    let name = HeaderValue::from_static("attachment; filename=\"usage.csv\"");
    headers.insert(CONTENT_DISPOSITION, name);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = 1_800_000_000_123;

    fn used(at: Millis, name: &str, outcome: Outcome, requests: i64) -> Used {
        Used { at, key: None, name: name.to_owned(), outcome, requests }
    }

    #[test]
    fn windows_have_defaults_and_bounds() {
        let of = |from, to, by| window(from, to, by, NOW);
        let (from, to, by) = of(None, None, None).unwrap();
        assert_eq!((to, by), (NOW + 1, By::Day));
        assert_eq!(from, By::Day.start_of(NOW + 1 - 30 * DAY_MS));
        let (from, _, by) = of(None, None, Some("hour")).unwrap();
        assert_eq!((from, by), (By::Hour.start_of(NOW + 1 - DAY_MS), By::Hour));
        let (from, to, _) = of(Some("2026-11-01"), Some("2026-12-01"), None).unwrap();
        assert_eq!((stamp(from), to - from), ("2026-11-01T00:00:00.000Z".into(), 30 * DAY_MS));
        let (from, ..) =
            of(Some("2026-11-01T12:34:56+02:00"), Some("2026-11-02"), Some("hour")).unwrap();
        assert_eq!(stamp(from), "2026-11-01T10:00:00.000Z");
        let code = |from, to, by| {
            let problem = of(Some(from), Some(to), Some(by)).unwrap_err();
            let body: serde_json::Value = serde_json::from_str(&problem.json()).unwrap();
            body["code"].as_str().unwrap().to_owned()
        };
        assert_eq!(code("2026-01-01", "2026-02-02", "hour"), "window_too_large");
        assert_eq!(code("2025-01-01", "2026-02-06", "day"), "window_too_large");
        assert!(of(Some("2026-01-01"), Some("2026-02-01"), Some("hour")).is_ok());
        for (from, to, by) in [
            ("2026-02-01", "2026-02-01", "day"),
            ("2026-02-02", "2026-02-01", "day"),
            ("yesterday", "2026-02-01", "day"),
            ("2026-02-01", "2026-02-30", "day"),
            ("-009999-01-01T00:00:00Z", "2026-02-01", "day"),
            ("2026-02-01", "2026-02-02", "week"),
        ] {
            assert_eq!(code(from, to, by), "invalid_query", "{from} {to} {by}");
        }
    }

    #[test]
    fn rows_become_one_view_for_each_period_and_group() {
        let rows = || {
            vec![
                used(0, "/a", Outcome::Accepted, 3),
                used(0, "/a", Outcome::RateLimit, 1),
                used(0, "/b", Outcome::Accepted, 4),
                used(DAY_MS, "/a", Outcome::Accepted, 5),
            ]
        };
        let views = views(rows(), GroupBy::Route);
        let json = serde_json::to_value(views).unwrap();
        let want = serde_json::json!([
            { "at": stamp(0), "route": "/a", "requests": { "accepted": 3, "rate_limit": 1 } },
            { "at": stamp(0), "route": "/b", "requests": { "accepted": 4 } },
            { "at": stamp(DAY_MS), "route": "/a", "requests": { "accepted": 5 } },
        ]);
        assert_eq!(json, want);
        let one = super::views(vec![used(0, "", Outcome::Scope, 2)], GroupBy::Outcome);
        let want = serde_json::json!([
            { "at": stamp(0), "outcome": "scope", "requests": { "scope": 2 } },
        ]);
        assert_eq!(serde_json::to_value(one).unwrap(), want);
        let nobody = super::views(vec![used(0, "", Outcome::Unknown, 2)], GroupBy::Key);
        assert_eq!(serde_json::to_value(nobody).unwrap()[0]["key"], serde_json::Value::Null);
    }
}

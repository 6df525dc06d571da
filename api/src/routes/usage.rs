//! Usage: how many requests, by hour or day, and how they ended; and how many credits.
//!
//! Requests and credits are read apart and put together by period and group ([`sums`]). Credits are known by key
//! and so by external id, and not by route, network or outcome.

pub(crate) mod sums;

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use jiff::civil::Date;
use listmill_shared::domain::clock::Millis;
use listmill_shared::domain::id::KeyId;
use listmill_shared::domain::request::{By, DAY_MS, HOUR_MS};
use listmill_shared::store::usage::{Of, Split, UsageFilter};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use self::sums::{GroupBy, Place, Sums, UsageView, add_up, csv_lines, views};
use crate::Api;
use crate::extract::{Id, Params};
use crate::gate::Caller;
use crate::openapi::{Bad, Gate, NoKey};
use crate::problem::{Problem, WINDOW_TOO_LARGE};
use crate::routes::keys::view::LastUsedView;
use crate::view::stamp;

/// The longest windows, by the hour and by the day.
const HOURS: Millis = 31 * DAY_MS;
const DAYS: Millis = 400 * DAY_MS;
/// Bytes of an external id that is asked for: more than any has.
const LONGEST: usize = 1_024;
/// Rows that one answer is made of.
const MOST: i64 = 20_000;

/// Usage over a window.
#[derive(Debug, Serialize, ToSchema)]
pub struct UsagePage {
    /// Oldest first; periods without requests and credits are left out.
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
    /// The last accepted request, or the last time that it was found valid, whenever that was; as of a moment ago.
    last_used: Option<LastUsedView>,
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
    /// `true`: together with the keys that rotation put in its place, or it in theirs.
    #[param(value_type = Option<bool>)]
    family: Option<String>,
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
    /// Split the periods further: `key`, `external_id`, `outcome`, `route` or `network`.
    #[param(example = "external_id")]
    group_by: Option<String>,
    /// Only of the keys that have this external id now, or had it when they were deleted.
    external_id: Option<String>,
    /// `json`, or `csv`: a line for each period, group and outcome; all credits of a period and group stand in
    /// its first line.
    #[param(example = "json")]
    format: Option<String>,
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

async fn read(
    api: &Api,
    caller: &Caller,
    filter: &UsageFilter,
    group: GroupBy,
) -> Result<BTreeMap<Place, Sums>, Problem> {
    let store = &api.app.store;
    let used = store.usage(caller.account, filter, MOST + 1).await?;
    let spent = match group.has_credits() {
        true => store.credits_in(caller.account, filter, MOST + 1).await?,
        false => Vec::new(),
    };
    if used.len().max(spent.len()) as i64 > MOST {
        return Err(Problem::new(
            WINDOW_TOO_LARGE,
            format!(
                "The answer would be made of more than {MOST} figures. Ask for a shorter window."
            ),
        ));
    }
    Ok(add_up(used, spent, group))
}

/// Show usage
///
/// Requests with the account's keys, deleted ones included, by the hour or the day, and how they ended; and the
/// credits that were charged through them. Every request that the gate accepted or refused is counted, within a
/// second. Under `/v2` that is a request with a root key; what `keys.verifyKey` said of a key of an api counts
/// beside it as a use of that key, with the route `verification`. By the hour it is kept as
/// long as requests are (30 days, unless the operator has set it otherwise), by the day for 400 days. What a
/// month comes to, for a bill: `?from=2026-11-01&to=2026-12-01&group_by=external_id&format=csv`. By external id
/// means by the one that a key has now, or had when it was deleted: changed, it takes the past along.
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
    let of = match params.external_id {
        None => Of::Account,
        Some(id) if id.is_empty() || id.len() > LONGEST || id.contains('\0') => {
            let want = format!("must be text of 1 to {LONGEST} bytes.");
            return Err(Problem::query("external_id", want));
        }
        Some(id) => Of::ExternalId(id),
    };
    let filter = UsageFilter { of, from, to, by, split: group.split() };
    let sums = read(&api, &caller, &filter, group).await?;
    if csv {
        return csv_file(&sums, group);
    }
    Ok(axum::Json(UsagePage { data: views(sums, group) }).into_response())
}

/// Show a key's usage
///
/// Like `GET /v1/usage`, of one key, which may be deleted. Credits are those that its own calls and the
/// tasks that it created were charged. Of a key of an api, what `keys.verifyKey` said of it, in the gate's words:
/// `accepted` = `VALID`.
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
    let of = match params.family.as_deref() {
        None | Some("false") => Of::Key(id),
        Some("true") => Of::Family(id),
        Some(_) => return Err(Problem::query("family", "must be true or false.")),
    };
    let filter = UsageFilter { of, from, to, by, split: Split::None };
    let sums = read(&api, &caller, &filter, GroupBy::Nothing).await?;
    let last = store.last_used(&[id]).await?.remove(&id);
    let view = |(place, sums): (Place, Sums)| KeyUsageView {
        at: stamp(place.at),
        requests: sums.by_word(),
        credits: sums.credits,
    };
    Ok(axum::Json(KeyUsagePage {
        last_used: last.as_ref().map(LastUsedView::from),
        data: sums.into_iter().map(view).collect(),
    }))
}

fn csv_file(sums: &BTreeMap<Place, Sums>, group: GroupBy) -> Result<Response, Problem> {
    let broken = |error: csv::Error| {
        tracing::error!(%error, "usage cannot be written as CSV; answered 500");
        Problem::internal()
    };
    let bytes = csv_lines(sums, group).map_err(broken)?;
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
}

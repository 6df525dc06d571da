//! Requests and credits, put together by period and group, and as they are shown.

use std::collections::BTreeMap;

use listmill_shared::domain::clock::Millis;
use listmill_shared::domain::id::{KeyId, RootKeyId};
use listmill_shared::domain::request::Outcome;
use listmill_shared::store::usage::{Spent, Split, Used};
use serde::Serialize;
use utoipa::ToSchema;

use crate::problem::Problem;
use crate::view::stamp;

/// Requests of one period.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Usage)]
pub struct UsageView {
    /// When the period began.
    #[schema(format = DateTime)]
    at: String,
    /// With `group_by=key`: the key; null = none that the account has, or a root key.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    key: Option<Option<String>>,
    /// With `group_by=key`: the root key, where it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    root_key: Option<String>,
    /// With `group_by=external_id`: the external id of the keys; null = none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    external_id: Option<Option<String>>,
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
    /// Credits charged; not with `group_by=outcome`, `route` or `network`.
    #[serde(skip_serializing_if = "Option::is_none")]
    credits: Option<i64>,
}

/// What usage is split by, as asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupBy {
    Nothing,
    Key,
    ExternalId,
    Outcome,
    Route,
    Network,
}

impl GroupBy {
    pub fn read(given: Option<&str>) -> Result<Self, Problem> {
        Ok(match given {
            None => Self::Nothing,
            Some("key") => Self::Key,
            Some("external_id") => Self::ExternalId,
            Some("outcome") => Self::Outcome,
            Some("route") => Self::Route,
            Some("network") => Self::Network,
            Some(_) => {
                let want = "must be key, external_id, outcome, route or network.";
                return Err(Problem::query("group_by", want));
            }
        })
    }

    /// Outcomes are always told apart.
    pub fn split(self) -> Split {
        match self {
            Self::Nothing | Self::Outcome => Split::None,
            Self::Key => Split::Key,
            Self::ExternalId => Split::ExternalId,
            Self::Route => Split::Route,
            Self::Network => Split::Network,
        }
    }

    pub fn has_credits(self) -> bool {
        matches!(self, Self::Nothing | Self::Key | Self::ExternalId)
    }
}

/// A period and a group of it. Sorts as it is shown: keys before root keys, nobody first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub at: Millis,
    root_key: Option<RootKeyId>,
    key: Option<KeyId>,
    name: String,
    outcome: Option<Outcome>,
}

/// What it comes to.
#[derive(Debug, Default)]
pub struct Sums {
    requests: BTreeMap<Outcome, i64>,
    pub credits: i64,
}

impl Sums {
    pub fn by_word(&self) -> BTreeMap<&'static str, i64> {
        self.requests.iter().map(|(outcome, requests)| (outcome.as_str(), *requests)).collect()
    }
}

/// Requests and credits put together.
pub fn add_up(used: Vec<Used>, spent: Vec<Spent>, group: GroupBy) -> BTreeMap<Place, Sums> {
    let mut sums: BTreeMap<Place, Sums> = BTreeMap::new();
    for row in used {
        let Used { at, key, root_key, name, outcome, requests } = row;
        let by_outcome = (group == GroupBy::Outcome).then_some(outcome);
        let place = Place { at, root_key, key, name, outcome: by_outcome };
        *sums.entry(place).or_default().requests.entry(outcome).or_default() += requests;
    }
    for Spent { at, key, name, credits } in spent {
        let place = Place { at, root_key: None, key, name, outcome: None };
        sums.entry(place).or_default().credits += credits;
    }
    sums
}

/// One view for each period and group.
pub fn views(sums: BTreeMap<Place, Sums>, group: GroupBy) -> Vec<UsageView> {
    let named = |name: &String| Some(name.clone()).filter(|name| !name.is_empty());
    let view = |(place, sums): (Place, Sums)| UsageView {
        at: stamp(place.at),
        key: (group == GroupBy::Key).then(|| place.key.map(|key| key.to_string())),
        root_key: place.root_key.map(|root| root.to_string()),
        external_id: (group == GroupBy::ExternalId).then(|| named(&place.name)),
        outcome: place.outcome.map(Outcome::as_str),
        route: (group == GroupBy::Route).then(|| place.name.clone()),
        network: (group == GroupBy::Network).then(|| place.name.clone()),
        requests: sums.by_word(),
        credits: group.has_credits().then_some(sums.credits),
    };
    sums.into_iter().map(view).collect()
}

/// A line for each figure. Credits belong to no outcome: they stand in the first line of their period and group,
/// so that a column adds up to what was charged.
pub fn csv_lines(sums: &BTreeMap<Place, Sums>, group: GroupBy) -> Result<Vec<u8>, csv::Error> {
    let column = match group {
        GroupBy::Key => Some("key"),
        GroupBy::ExternalId => Some("external_id"),
        GroupBy::Route => Some("route"),
        GroupBy::Network => Some("network"),
        GroupBy::Nothing | GroupBy::Outcome => None,
    };
    let last = group.has_credits().then_some("credits");
    let mut writer = csv::Writer::from_writer(Vec::new());
    let heads = ["at"].into_iter().chain(column).chain(["outcome", "requests"]).chain(last);
    writer.write_record(heads)?;
    for (place, sums) in sums {
        let at = stamp(place.at);
        let name = match (place.key, place.root_key) {
            (Some(key), _) => key.to_string(),
            (None, Some(root)) => root.to_string(),
            (None, None) => no_formula(&place.name),
        };
        let mut credits = sums.credits;
        let mut lines: Vec<(Outcome, i64)> = sums.requests.clone().into_iter().collect();
        if lines.is_empty() {
            // A task that ended later than the last request.
            lines.push((Outcome::Accepted, 0));
        }
        for (outcome, requests) in lines {
            let (requests, charged) =
                (requests.to_string(), std::mem::take(&mut credits).to_string());
            let cells = [at.as_str()]
                .into_iter()
                .chain(column.map(|_| name.as_str()))
                .chain([outcome.as_str(), requests.as_str()])
                .chain(last.map(|_| charged.as_str()));
            writer.write_record(cells)?;
        }
    }
    writer.into_inner().map_err(|error| error.into_error().into())
}

/// A spreadsheet would run what begins like a formula, and external ids are what anybody wrote.
pub(crate) fn no_formula(cell: &str) -> String {
    match cell.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        true => format!("'{cell}"),
        false => cell.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use listmill_shared::domain::id::Ids;
    use listmill_shared::domain::request::DAY_MS;

    fn used(at: Millis, name: &str, outcome: Outcome, requests: i64) -> Used {
        Used { at, key: None, root_key: None, name: name.to_owned(), outcome, requests }
    }

    fn shown(used: Vec<Used>, spent: Vec<Spent>, group: GroupBy) -> serde_json::Value {
        serde_json::to_value(views(add_up(used, spent, group), group)).unwrap()
    }

    #[test]
    fn a_table_runs_no_formula() {
        assert_eq!(no_formula("=HYPERLINK(\"x\")"), "'=HYPERLINK(\"x\")");
        assert_eq!(no_formula("customer-7"), "customer-7");
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
        let want = serde_json::json!([
            { "at": stamp(0), "route": "/a", "requests": { "accepted": 3, "rate_limit": 1 } },
            { "at": stamp(0), "route": "/b", "requests": { "accepted": 4 } },
            { "at": stamp(DAY_MS), "route": "/a", "requests": { "accepted": 5 } },
        ]);
        assert_eq!(shown(rows(), Vec::new(), GroupBy::Route), want);
        let one = shown(vec![used(0, "", Outcome::Scope, 2)], Vec::new(), GroupBy::Outcome);
        let want = serde_json::json!([
            { "at": stamp(0), "outcome": "scope", "requests": { "scope": 2 } },
        ]);
        assert_eq!(one, want);
    }

    #[test]
    fn a_root_key_is_no_key() {
        let ids = Ids::seeded(1);
        let (key, root) = (KeyId::new(&ids, 1), RootKeyId::new(&ids, 1));
        let rows = vec![
            used(0, "", Outcome::Unknown, 2),
            Used { key: Some(key), ..used(0, "", Outcome::Accepted, 3) },
            Used { root_key: Some(root), ..used(0, "", Outcome::Accepted, 4) },
        ];
        let want = serde_json::json!([
            { "at": stamp(0), "key": null, "requests": { "unknown": 2 }, "credits": 0 },
            { "at": stamp(0), "key": key, "requests": { "accepted": 3 }, "credits": 0 },
            { "at": stamp(0), "key": null, "root_key": root, "requests": { "accepted": 4 }, "credits": 0 },
        ]);
        assert_eq!(shown(rows.clone(), Vec::new(), GroupBy::Key), want);
        let lines = csv_lines(&add_up(rows, Vec::new(), GroupBy::Key), GroupBy::Key).unwrap();
        let lines = String::from_utf8(lines).unwrap();
        assert!(lines.contains(&format!(",{root},accepted,4,0\n")), "{lines}");
    }

    #[test]
    fn credits_are_told_once() {
        let spent =
            |at, name: &str, credits| Spent { at, key: None, name: name.to_owned(), credits };
        let rows = vec![
            used(0, "ada", Outcome::Accepted, 3),
            used(0, "ada", Outcome::RateLimit, 1),
            used(0, "", Outcome::Unknown, 4),
        ];
        let spent = vec![spent(0, "ada", 70), spent(DAY_MS, "ada", 5), spent(0, "b,b", 1)];
        let sums = add_up(rows.clone(), spent.clone(), GroupBy::ExternalId);
        let lines = String::from_utf8(csv_lines(&sums, GroupBy::ExternalId).unwrap()).unwrap();
        let (zero, one) = (stamp(0), stamp(DAY_MS));
        assert_eq!(
            lines,
            format!(
                "at,external_id,outcome,requests,credits\n{zero},,unknown,4,0\n{zero},ada,accepted,3,70\n\
                 {zero},ada,rate_limit,1,0\n{zero},\"b,b\",accepted,0,1\n{one},ada,accepted,0,5\n"
            )
        );
        let json = shown(rows, spent, GroupBy::ExternalId);
        let want = serde_json::json!({
            "at": zero, "external_id": "ada", "requests": { "accepted": 3, "rate_limit": 1 }, "credits": 70,
        });
        assert_eq!((&json[0]["external_id"], &json[1]), (&serde_json::Value::Null, &want));
        let routes = csv_lines(&BTreeMap::new(), GroupBy::Route).unwrap();
        assert_eq!(routes, b"at,route,outcome,requests\n");
    }
}

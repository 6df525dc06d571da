//! The page of requests: what the gate decided, one by one, narrowed by key, outcome, network and time.

use std::collections::{HashMap, HashSet};

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use jiff::civil::DateTime;
use listmill_shared::app::key_pages::KeyName;
use listmill_shared::app::request_search::RequestSearch;
use listmill_shared::domain::clock::Millis;
use listmill_shared::domain::id::KeyId;
use listmill_shared::domain::network::parse_network;
use listmill_shared::domain::request::Outcome;
use listmill_shared::store::usage::Logged;
use serde::Deserialize;

use super::format::{Reader, Time};
use super::page::{Failure, Page, html};
use super::query::link;
use super::session::Viewer;
use crate::Api;

/// Requests on a page.
const PAGE: usize = 50;

/// What is looked for, as it was typed.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Asked {
    key: String,
    outcome: String,
    network: String,
    from: String,
    to: String,
    before: String,
}

struct OutcomeChoice {
    value: &'static str,
    text: String,
    chosen: bool,
}

struct RowKey {
    id: String,
    label: String,
}

struct Row {
    time: Time,
    key: Option<RowKey>,
    method: String,
    route: String,
    outcome: String,
    badge: &'static str,
    status: i16,
    latency: String,
    ip: Option<String>,
}

#[derive(Template)]
#[template(path = "requests.html")]
struct RequestsPage {
    page: Page,
    said: Asked,
    outcomes: Vec<OutcomeChoice>,
    wrong: Option<String>,
    rows: Vec<Row>,
    narrowed: bool,
    stopped: bool,
    first: Option<String>,
    next: Option<String>,
}

impl Asked {
    fn is_narrowed(&self) -> bool {
        [&self.key, &self.outcome, &self.network, &self.from, &self.to]
            .into_iter()
            .any(|field| !field.trim().is_empty())
    }

    fn link(&self, before: &str) -> String {
        let fields = [
            ("key", self.key.as_str()),
            ("outcome", &self.outcome),
            ("network", &self.network),
            ("from", &self.from),
            ("to", &self.to),
            ("before", before),
        ];
        link("/requests", &fields)
    }

    /// What is looked for, keys aside; `Err`: the text that says what is wrong.
    fn search(&self, reader: &Reader) -> Result<RequestSearch, &'static str> {
        let outcome = match self.outcome.as_str() {
            "" => None,
            word => Some(Outcome::from_name(word).ok_or("requests.bad_outcome")?),
        };
        let network = match self.network.trim() {
            "" => None,
            text => Some(parse_network(text).ok_or("requests.bad_network")?),
        };
        let (from, to) = (moment(&self.from, reader)?, moment(&self.to, reader)?);
        Ok(RequestSearch { keys: None, outcome, network, from, to })
    }
}

/// A moment as the browser's field writes it, in the reader's zone.
fn moment(text: &str, reader: &Reader) -> Result<Option<Millis>, &'static str> {
    const WRONG: &str = "requests.bad_time";
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    let time: DateTime = text.parse().map_err(|_| WRONG)?;
    let zoned = time.in_tz(reader.zone()).map_err(|_| WRONG)?;
    Ok(Some(zoned.timestamp().as_millisecond()))
}

/// `GET /requests`
pub async fn list(
    State(api): State<Api>,
    viewer: Viewer,
    Query(said): Query<Asked>,
) -> Result<Response, Failure> {
    let page = Page::new(&viewer, "requests");
    let before = i64::from_str_radix(&said.before, 16).ok();
    let (mut rows, mut next, mut stopped, mut wrong) = (Vec::new(), None, false, None);
    match said.search(&viewer.reader) {
        Ok(mut search) => {
            let named = said.key.trim();
            if !named.is_empty() {
                search.keys = Some(api.app.keys_named(viewer.account, named).await?);
            }
            let found = api.app.search_requests(viewer.account, &search, before, PAGE).await?;
            let names = names(&api, &viewer, &found.rows).await?;
            rows = found.rows.into_iter().map(|row| Row::new(&page, row, &names)).collect();
            next = found.next.map(|row| said.link(&format!("{row:x}")));
            stopped = found.stopped;
        }
        Err(name) => wrong = Some(page.t(name).to_owned()),
    }
    let every = OutcomeChoice {
        value: "",
        text: page.t("requests.all").to_owned(),
        chosen: said.outcome.is_empty(),
    };
    let choice = |outcome: Outcome| OutcomeChoice {
        value: outcome.as_str(),
        text: in_words(&page, outcome),
        chosen: outcome.as_str() == said.outcome,
    };
    let outcomes = std::iter::once(every).chain(Outcome::ALL.into_iter().map(choice)).collect();
    Ok(html(&RequestsPage {
        outcomes,
        wrong,
        rows,
        narrowed: said.is_narrowed() || before.is_some(),
        stopped,
        first: before.map(|_| said.link("")),
        next,
        page,
        said,
    }))
}

async fn names(
    api: &Api,
    viewer: &Viewer,
    rows: &[Logged],
) -> Result<HashMap<KeyId, KeyName>, Failure> {
    let keys: HashSet<KeyId> = rows.iter().filter_map(|row| row.key).collect();
    let keys: Vec<KeyId> = keys.into_iter().collect();
    Ok(api.app.key_names(viewer.account, &keys).await?)
}

fn in_words(page: &Page, outcome: Outcome) -> String {
    page.t(&format!("request_outcome.{}", outcome.as_str())).to_owned()
}

impl Row {
    fn new(page: &Page, row: Logged, names: &HashMap<KeyId, KeyName>) -> Self {
        let root = row.root_key.map(|root| RowKey {
            label: page.t("requests.root_key").to_owned(),
            id: root.to_string(),
        });
        let key = row.key.map(|id| RowKey {
            id: id.to_string(),
            label: names.get(&id).map_or_else(|| id.to_string(), |name| name.label.clone()),
        });
        Self {
            time: page.time(row.at),
            key: key.or(root),
            method: row.method,
            route: row.route,
            outcome: in_words(page, row.outcome),
            badge: match row.outcome {
                Outcome::Accepted => "badge-ok",
                Outcome::RateLimit | Outcome::CreditLimit => "badge-warn",
                _ => "badge-bad",
            },
            status: row.status,
            latency: latency(page, row.latency_us),
            ip: row.ip,
        }
    }
}

/// Milliseconds, to the tenth while they are few.
fn latency(page: &Page, us: i32) -> String {
    let n = match us {
        ..10_000 => format!("{}.{}", us / 1_000, us % 1_000 / 100),
        more => page.n(more / 1_000),
    };
    page.tf("requests.ms", &[("n", &n)])
}

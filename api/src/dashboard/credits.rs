//! The credits page: where credits are and why, what was charged day by day, and the ledger.
//!
//! Reads only. Keyset pages: `before` is an entry's number. A look at the ledger reads a bounded part of it, so a
//! page of rare entries may be short and still have a next one.

use askama::Template;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::HeaderValue;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::{Stream, stream};
use listmill_shared::app::App;
use listmill_shared::app::credits::Whereabouts;
use listmill_shared::domain::clock::Millis;
use listmill_shared::domain::id::AccountId;
use listmill_shared::domain::ledger::{EntryType, Kind};
use listmill_shared::store::StoreError;
use listmill_shared::store::credit_page::{AccountBooks, NamedEntry, Wanted};
use serde::Deserialize;

use super::charts;
use super::format::{Reader, Time};
use super::page::{Failure, Page, html};
use super::session::Viewer;
use super::text::{filled, text};
use crate::Api;
use crate::routes::usage::sums::no_formula;
use crate::view::stamp;

/// Entries on a page.
const ROWS: i64 = 50;
/// Entries read at once for a file.
const FILE_ROWS: i64 = 1_000;
/// Days of the chart.
const DAYS: i64 = 30;
const DAY: Millis = 86_400_000;

/// What the filter sends; an empty field is none.
#[derive(Debug, Default, Deserialize)]
pub struct Asked {
    kind: Option<String>,
    #[serde(rename = "type")]
    entry: Option<String>,
    task: Option<String>,
    before: Option<String>,
}

impl Asked {
    fn given(field: Option<&String>) -> Option<&str> {
        field.map(|text| text.trim()).filter(|text| !text.is_empty())
    }

    fn wanted(&self) -> Result<Wanted, Failure> {
        let wrong = || Failure::Wrong(text("credits.bad_filter").to_owned());
        let kind = Self::given(self.kind.as_ref());
        let entry = Self::given(self.entry.as_ref());
        let task = Self::given(self.task.as_ref());
        Ok(Wanted {
            kind: kind.map(|name| Kind::from_name(name).ok_or_else(wrong)).transpose()?,
            entry: entry.map(|name| EntryType::from_name(name).ok_or_else(wrong)).transpose()?,
            task: task.map(|id| id.parse().map_err(|_| wrong())).transpose()?,
        })
    }

    fn before(&self) -> Result<Option<i64>, Failure> {
        let before = Self::given(self.before.as_ref());
        let wrong = |_| Failure::Wrong(text("credits.bad_filter").to_owned());
        before.map(|number| number.parse().map_err(wrong)).transpose()
    }
}

/// A filter as it stands in a link: `kind=…&type=…&task=…`. Names and ids: nothing to encode.
fn link(wanted: &Wanted) -> String {
    let kind = wanted.kind.map(|kind| format!("kind={}", kind.as_str()));
    let entry = wanted.entry.map(|entry| format!("type={}", entry.as_str()));
    let task = wanted.task.map(|task| format!("task={task}"));
    [kind, entry, task].into_iter().flatten().collect::<Vec<_>>().join("&")
}

/// Something to choose.
struct Choice {
    value: &'static str,
    label: &'static str,
    chosen: bool,
}

struct KindView {
    label: &'static str,
    balance: String,
    held: String,
    charged: String,
    given: String,
    exact: bool,
}

struct HolderView {
    id: String,
    name: String,
    held: String,
}

struct RowView {
    at: Time,
    entry: &'static str,
    kind: &'static str,
    badge: &'static str,
    amount: String,
    after: String,
    task: Option<(String, String, bool)>,
    note: String,
}

#[derive(Template)]
#[template(path = "credits.html")]
struct CreditsPage {
    page: Page,
    kinds: Vec<KindView>,
    low: Option<String>,
    waiting: Option<String>,
    holders: Vec<HolderView>,
    more_holders: bool,
    singly: Option<String>,
    chart: String,
    rows: Vec<RowView>,
    choices_kind: Vec<Choice>,
    choices_type: Vec<Choice>,
    task: String,
    filtered: bool,
    first: bool,
    older: Option<String>,
    newest: String,
    file: String,
}

/// `GET /credits`
pub async fn show(
    State(api): State<Api>,
    viewer: Viewer,
    Query(asked): Query<Asked>,
) -> Result<Response, Failure> {
    let (wanted, before) = (asked.wanted()?, asked.before()?);
    let now = api.app.now();
    let from = now - DAYS * DAY;
    let (whereabouts, charged, entries) = tokio::try_join!(
        api.app.whereabouts(viewer.account),
        api.app.charged_by_hour(viewer.account, from),
        api.app.ledger(viewer.account, wanted, before, ROWS)
    )?;
    let (page, reader) = (Page::new(&viewer, "credits"), &viewer.reader);
    let link = link(&wanted);
    let with = |more: &str| match (link.is_empty(), more.is_empty()) {
        (true, true) => String::new(),
        (false, true) => format!("?{link}"),
        (true, false) => format!("?{more}"),
        (false, false) => format!("?{link}&{more}"),
    };
    let holders = whereabouts.holders.iter().map(|holder| HolderView {
        id: holder.id.to_string(),
        name: holder.name.clone().unwrap_or_else(|| text("credits.no_name").to_owned()),
        held: reader.number(holder.held),
    });
    // Kinds that nobody was ever given are left out.
    let used: Vec<&AccountBooks> =
        whereabouts.books.iter().filter(|books| books.is_used()).collect();
    let singly = whereabouts.books.iter().map(|books| books.held_singly).sum::<i64>();
    let named: i64 = whereabouts.holders.iter().map(|holder| holder.held).sum();
    let held: i64 = whereabouts.books.iter().map(|books| books.held).sum();
    Ok(html(&CreditsPage {
        kinds: used.iter().map(|books| kind_view(books, reader)).collect(),
        low: low(&whereabouts, reader).filter(|_| api.app.settings.credits),
        waiting: waiting(&whereabouts, reader),
        holders: holders.collect(),
        more_holders: held - singly > named,
        singly: (singly > 0).then(|| reader.number(singly)),
        chart: charts::area(&by_day(&charged, now, reader), text("credits.per_day"), reader),
        rows: entries.rows.into_iter().map(|row| row_view(row, reader)).collect(),
        choices_kind: Kind::ALL
            .iter()
            .filter(|kind| {
                wanted.kind == Some(**kind) || used.iter().any(|books| books.kind == kind.as_str())
            })
            .map(|kind| Choice {
                value: kind.as_str(),
                label: kind_name(kind.as_str()),
                chosen: wanted.kind == Some(*kind),
            })
            .collect(),
        choices_type: EntryType::ALL
            .iter()
            .map(|entry| Choice {
                value: entry.as_str(),
                label: type_name(entry.as_str()),
                chosen: wanted.entry == Some(*entry),
            })
            .collect(),
        task: wanted.task.map(|task| task.to_string()).unwrap_or_default(),
        filtered: !link.is_empty(),
        first: before.is_none(),
        older: entries
            .next
            .map(|next| format!("/credits{}#ledger", with(&format!("before={next}")))),
        newest: format!("/credits{}#ledger", with("")),
        file: format!("/credits/ledger.csv{}", with("")),
        page,
    }))
}

fn kind_name(kind: &str) -> &'static str {
    if kind == Kind::Phone.as_str() { text("credits.phone") } else { text("credits.email") }
}

fn type_name(entry: &str) -> &'static str {
    match entry {
        "grant" => text("credits.grant"),
        "hold" => text("credits.hold"),
        "charge" => text("credits.charge"),
        "refund" => text("credits.refund"),
        _ => text("credits.adjust"),
    }
}

fn kind_view(books: &AccountBooks, reader: &Reader) -> KindView {
    KindView {
        label: kind_name(&books.kind),
        balance: reader.number(books.balance),
        held: reader.number(books.held),
        charged: reader.number(books.charged),
        given: reader.number(books.given),
        exact: books.given == books.balance + books.held + books.charged,
    }
}

/// Says that less than a tenth of the last grant is left.
fn low(all: &Whereabouts, reader: &Reader) -> Option<String> {
    let books = all.books.iter().find(|books| books.kind == Kind::Email.as_str())?;
    let low = books.last_grant > 0 && books.balance < books.last_grant / 10;
    let (left, last) = (reader.number(books.balance), reader.number(books.last_grant));
    low.then(|| filled("credits.low", &[("left", &left), ("last", &last)]))
}

/// Says what paused tasks wait for.
fn waiting(all: &Whereabouts, reader: &Reader) -> Option<String> {
    let balance = all.books.iter().find(|books| books.kind == Kind::Email.as_str());
    let missing = all.want.credits - balance.map_or(0, |books| books.balance);
    let name = if all.want.tasks == 1 { "credits.one_waits" } else { "credits.some_wait" };
    let (tasks, missing) = (reader.number(all.want.tasks), reader.number(missing.max(1)));
    (all.want.tasks > 0).then(|| filled(name, &[("tasks", &tasks), ("missing", &missing)]))
}

/// What was charged on each of the last days, as the reader counts days.
fn by_day(charged: &[(Millis, i64)], now: Millis, reader: &Reader) -> Vec<(String, i64)> {
    let mut days: Vec<(String, i64)> = Vec::new();
    for ago in (0..DAYS).rev() {
        let day = reader.day(now - ago * DAY);
        // A day of 25 hours is met twice.
        if days.last().is_none_or(|(last, _)| *last != day) {
            days.push((day, 0));
        }
    }
    for (hour, credits) in charged {
        let day = reader.day(*hour);
        if let Some((_, sum)) = days.iter_mut().find(|(name, _)| *name == day) {
            *sum += credits;
        }
    }
    days
}

fn row_view(row: NamedEntry, reader: &Reader) -> RowView {
    let entry = row.entry;
    let amount = reader.number(entry.amount.abs());
    let (badge, sign) = match entry.entry.as_str() {
        "grant" => ("badge-ok", "+"),
        "refund" => ("badge-ok", "+"),
        "hold" => ("badge-warn", "\u{2212}"),
        "adjust" if entry.amount < 0 => ("badge-warn", "\u{2212}"),
        "adjust" => ("badge-ok", "+"),
        _ => ("", ""),
    };
    let name = row.task_name.unwrap_or_else(|| text("credits.no_name").to_owned());
    RowView {
        at: reader.time(entry.created_at),
        entry: type_name(&entry.entry),
        kind: kind_name(&entry.kind),
        badge,
        amount: format!("{sign}{amount}"),
        after: reader.number(entry.balance_after),
        task: entry.task.map(|id| (id.to_string(), name, row.task_is_there)),
        note: entry.note.unwrap_or_default(),
    }
}

/// `GET /credits/ledger.csv`
pub async fn file(
    State(api): State<Api>,
    viewer: Viewer,
    Query(asked): Query<Asked>,
) -> Result<Response, Failure> {
    let lines = lines(api.app.clone(), viewer.account, asked.wanted()?);
    let mut response = Body::from_stream(lines).into_response();
    let headers = response.headers_mut();
    let kind = HeaderValue::from_static("text/csv; charset=utf-8; header=present");
    headers.insert(CONTENT_TYPE, kind);
    let name = HeaderValue::from_static("attachment; filename=\"ledger.csv\"");
    headers.insert(CONTENT_DISPOSITION, name);
    Ok(response)
}

/// Where a file is to go on.
enum Next {
    Head,
    Before(Option<i64>),
    End,
}

/// The lines of the file, some at a time, as the reader takes them.
fn lines(
    app: App,
    account: AccountId,
    wanted: Wanted,
) -> impl Stream<Item = Result<Bytes, std::io::Error>> {
    const HEAD: [&str; 9] =
        ["id", "at", "kind", "type", "amount", "balance_after", "task", "task_name", "note"];
    stream::try_unfold(Next::Head, move |next| {
        let app = app.clone();
        async move {
            let before = match next {
                Next::Head => {
                    return Ok(Some((csv_of([HEAD.map(str::to_owned)])?, Next::Before(None))));
                }
                Next::Before(before) => before,
                Next::End => return Ok(None),
            };
            let found = app.ledger(account, wanted, before, FILE_ROWS).await;
            let entries = found.map_err(|error: StoreError| {
                tracing::warn!(%error, "a file of the ledger ends early");
                std::io::Error::other(error)
            })?;
            let lines = csv_of(entries.rows.into_iter().map(cells))?;
            let next = entries.next.map_or(Next::End, |next| Next::Before(Some(next)));
            Ok(Some((lines, next)))
        }
    })
}

fn csv_of(rows: impl IntoIterator<Item = [String; 9]>) -> Result<Bytes, std::io::Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for row in rows {
        writer.write_record(row).map_err(std::io::Error::other)?;
    }
    Ok(writer.into_inner().map_err(|error| error.into_error())?.into())
}

fn cells(row: NamedEntry) -> [String; 9] {
    let NamedEntry { entry, task_name, .. } = row;
    [
        entry.id.to_string(),
        stamp(entry.created_at),
        entry.kind,
        entry.entry,
        entry.amount.to_string(),
        entry.balance_after.to_string(),
        entry.task.map(|task| task.to_string()).unwrap_or_default(),
        no_formula(&task_name.unwrap_or_default()),
        no_formula(&entry.note.unwrap_or_default()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderMap;

    fn asked(entry: &str, task: &str) -> Asked {
        Asked {
            kind: Some(" email ".to_owned()),
            entry: Some(entry.to_owned()),
            task: Some(task.to_owned()),
            before: Some(String::new()),
        }
    }

    #[test]
    fn an_empty_field_filters_nothing_and_a_wrong_one_is_told() {
        let wanted = asked("", "").wanted().unwrap();
        assert_eq!((wanted.kind, wanted.entry, wanted.task), (Some(Kind::Email), None, None));
        assert_eq!(link(&wanted), "kind=email");
        assert!(asked("", "").before().unwrap().is_none());
        assert!(asked("gift", "").wanted().is_err());
        assert!(asked("grant", "task_zz").wanted().is_err());
        assert_eq!(link(&asked("hold", "").wanted().unwrap()), "kind=email&type=hold");
    }

    #[test]
    fn days_are_the_readers_and_each_is_there_once() {
        let mut headers = HeaderMap::new();
        headers.insert("cookie", "listmill_zone=Europe/Berlin".parse().unwrap());
        let reader = Reader::of(&headers);
        // 1 November 2025, noon: the clocks went back six days before.
        let now = 1_761_998_400_000;
        let hour = now - now % 3_600_000;
        let days = by_day(&[(hour, 5), (hour - 3_600_000, 2), (now - 90 * DAY, 9)], now, &reader);
        assert!((29..=30).contains(&days.len()), "{}", days.len());
        assert_eq!(days.last().map(|(day, sum)| (day.as_str(), *sum)), Some(("1 Nov", 7)));
        assert!(days.windows(2).all(|pair| pair[0].0 != pair[1].0));
        assert_eq!(days.iter().map(|(_, sum)| sum).sum::<i64>(), 7);
    }
}

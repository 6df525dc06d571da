//! How an operators' page is built: facts, tables, forms and, above them, a dialog. What stands in them is text;
//! the template escapes it.

use askama::Template;
use axum::response::Response;
use listmill_shared::domain::clock::Millis;

use crate::dashboard::page::{Page, html};
use crate::dashboard::session::Viewer;
use crate::dashboard::text::text;

/// A piece of a cell.
#[derive(Debug, Clone)]
pub enum Part {
    /// Words.
    Text(String),
    /// Words of less weight.
    Muted(String),
    /// An id, a command, JSON.
    Code(String),
    /// A moment.
    Time(Millis),
    /// A state: its class and its word.
    Badge(&'static str, String),
    /// Where, and words.
    Link(String, String),
    /// A button that opens a page: where, its word, and what it is about.
    Button(String, &'static str, String),
}

impl Part {
    /// Words.
    pub fn text(words: impl Into<String>) -> Self {
        Part::Text(words.into())
    }

    /// Well or not.
    pub fn state(ok: bool, word: impl Into<String>) -> Self {
        Part::Badge(if ok { "badge-ok" } else { "badge-bad" }, word.into())
    }

    /// A moment, or a word where there is none.
    pub fn time_or(at: Option<Millis>, word: &str) -> Self {
        at.map_or_else(|| Part::Muted(word.to_owned()), Part::Time)
    }
}

/// A cell: its parts, one below the other.
#[derive(Debug, Clone)]
pub struct Cell {
    /// What is in it.
    pub parts: Vec<Part>,
    /// It is a number.
    pub num: bool,
}

impl Cell {
    /// Of these.
    pub fn of(parts: Vec<Part>) -> Self {
        Self { parts, num: false }
    }

    /// A number, as the reader writes it.
    pub fn num(viewer: &Viewer, number: i64) -> Self {
        Self { parts: vec![Part::Text(viewer.reader.number(number))], num: true }
    }
}

impl From<Part> for Cell {
    fn from(part: Part) -> Self {
        Self::of(vec![part])
    }
}

impl From<String> for Cell {
    fn from(words: String) -> Self {
        Part::Text(words).into()
    }
}

impl From<&str> for Cell {
    fn from(words: &str) -> Self {
        Part::text(words).into()
    }
}

/// A table.
#[derive(Debug, Clone, Default)]
pub struct Table {
    /// What it shows.
    pub title: String,
    /// Heads of its columns.
    pub head: Vec<&'static str>,
    /// Rows; the first cell is the row's head.
    pub rows: Vec<Vec<Cell>>,
    /// What is said when there are none.
    pub empty: &'static str,
}

/// A field of a form.
#[derive(Debug, Clone, Default)]
pub struct Field {
    /// As it is posted.
    pub name: &'static str,
    /// As it is called.
    pub label: &'static str,
    /// Of an `input`; empty = `text`.
    pub kind: &'static str,
    /// What stands in it.
    pub value: String,
    /// What is said of it.
    pub hint: &'static str,
    /// It must be filled in.
    pub required: bool,
    /// What can be chosen: as posted, and as called; none = it is typed.
    pub choices: Vec<(&'static str, &'static str)>,
}

impl Field {
    /// One that is typed.
    pub fn typed(name: &'static str, label: &'static str) -> Self {
        Self { name, label, kind: "text", ..Self::default() }
    }
}

/// Something that can be done here.
#[derive(Debug, Clone)]
pub struct Act {
    /// Where.
    pub to: String,
    /// Its word.
    pub word: &'static str,
    /// It is posted.
    pub post: bool,
}

impl Act {
    /// Opens a page.
    pub fn open(to: impl Into<String>, word: &'static str) -> Self {
        Self { to: to.into(), word, post: false }
    }
}

/// A search above the tables.
#[derive(Debug, Clone)]
pub struct Search {
    /// Where.
    pub to: &'static str,
    /// What is asked.
    pub fields: Vec<Field>,
}

/// A dialog: a form that changes something.
#[derive(Debug, Clone, Default)]
pub struct Dialog {
    /// Its title.
    pub title: String,
    /// What it says first.
    pub lines: Vec<String>,
    /// What is filled in.
    pub fields: Vec<Field>,
    /// Where it is posted.
    pub to: String,
    /// The page below it.
    pub close: String,
    /// The button's word.
    pub button: &'static str,
    /// It takes something away.
    pub danger: bool,
}

/// A page.
#[derive(Debug, Clone, Default)]
pub struct Sheet {
    /// Its title.
    pub title: String,
    /// What it says first.
    pub lines: Vec<String>,
    /// A command of the shell, and what it is for.
    pub commands: Vec<(&'static str, String)>,
    /// What came of something: well or not, and in words.
    pub outcome: Option<(bool, Vec<String>)>,
    /// What can be done here.
    pub acts: Vec<Act>,
    /// A search.
    pub search: Option<Search>,
    /// Facts.
    pub facts: Vec<(&'static str, Cell)>,
    /// Tables.
    pub tables: Vec<Table>,
    /// The next page of the table.
    pub next: Option<String>,
    /// Above all that.
    pub dialog: Option<Dialog>,
}

/// The entries of the pages' own navigation: name, where, text.
pub const TABS: [(&str, &str, &str); 10] = [
    ("overview", "/operator", "operator.overview"),
    ("accounts", "/operator/accounts", "operator.accounts"),
    ("keys", "/operator/keys", "operator.keys"),
    ("networks", "/operator/networks", "operator.networks"),
    ("workers", "/operator/workers", "operator.workers"),
    ("hosts", "/operator/hosts", "operator.hosts"),
    ("failures", "/operator/failures", "operator.failures"),
    ("audit", "/operator/audit", "operator.audit"),
    ("settings", "/operator/settings", "operator.settings"),
    ("doctor", "/operator/doctor", "operator.doctor"),
];

#[derive(Template)]
#[template(path = "operator/sheet.html")]
struct SheetPage {
    page: Page,
    tab: &'static str,
    sheet: Sheet,
}

/// Shows it below this entry.
pub fn shown(viewer: &Viewer, tab: &'static str, sheet: Sheet) -> Response {
    html(&SheetPage { page: Page::new(viewer, "operator"), tab, sheet })
}

/// The title of an entry's page.
pub fn titled(tab: &str) -> Sheet {
    let name = TABS.iter().find(|(name, ..)| *name == tab).map_or("", |(.., name)| name);
    Sheet { title: text(name).to_owned(), ..Sheet::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_has_its_text() {
        for (tab, to, name) in TABS {
            assert_ne!(text(name), name, "{tab}");
            assert!(to.starts_with("/operator"));
            assert_eq!(titled(tab).title, text(name));
        }
    }
}

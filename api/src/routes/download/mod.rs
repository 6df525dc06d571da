//! Results as files.
//!
//! What can be written as it is read (CSV, NDJSON, JSON, addresses alone) is streamed: a task of its own reads
//! ahead by a few pages at most, which the connection turns into bytes as its reader takes them. So neither
//! the size of the task nor a slow reader grows the process. What must be whole first (XLSX, ZIP) is made in a
//! temporary file ([`exports`]). [`csv_file`] and [`ndjson_file`] are the bytes alone, for who writes them
//! elsewhere than into a response.
//!
//! | room | holds |
//! | --- | --- |
//! | `rows` | the submitted file with its results, row by row |
//! | `csv`, `xlsx` (by `sheet`), `zip` | formats made of rows |
//! | `lines` | formats made of results |
//! | `exports` | temporary files, and how many there may be |

mod csv;
mod exports;
mod lines;
mod rows;
mod sheet;
mod xlsx;
mod zip;

use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;
use listmill_shared::domain::result_filter::ResultFilter;
use listmill_shared::domain::task::Task;
use listmill_shared::store::StoreError;

use self::csv::Table;
use self::rows::{Head, Walk};
use crate::Api;
use crate::problem::Problem;

pub use self::csv::{Formulas, csv_file};
pub use self::exports::Exports;
pub use self::lines::ndjson_file;

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The submitted file with our columns.
    Csv(Formulas),
    /// One result a line.
    Ndjson,
    /// One array of results.
    Json,
    /// One address a line.
    Text,
    /// The rows of the CSV as a workbook; formulas are texts in it.
    Xlsx,
    /// A CSV for each verdict.
    Zip(Formulas),
}

/// Each of them, as it is when nothing more is said.
pub const ALL: [Format; 6] = [
    Format::Csv(Formulas::Kept),
    Format::Ndjson,
    Format::Json,
    Format::Text,
    Format::Xlsx,
    Format::Zip(Formulas::Kept),
];

impl Format {
    /// By its name; `escape` = what is to be escaped, `formulas`.
    pub fn parse(name: &str, escape: Option<&str>) -> Result<Self, Problem> {
        let format = ALL.into_iter().find(|format| format.name() == name).ok_or_else(|| {
            let names = "json, json_array, csv, ndjson, txt, xlsx or zip";
            Problem::query("format", format_args!("must be {names}."))
        })?;
        match (format, escape) {
            (format, None) | (format @ Self::Xlsx, Some("formulas")) => Ok(format),
            (Self::Csv(_), Some("formulas")) => Ok(Self::Csv(Formulas::Escaped)),
            (Self::Zip(_), Some("formulas")) => Ok(Self::Zip(Formulas::Escaped)),
            (_, Some("formulas")) => {
                Err(Problem::query("escape", "goes with the formats csv, xlsx and zip."))
            }
            (_, Some(_)) => Err(Problem::query("escape", "must be formulas.")),
        }
    }

    /// As `format=` takes it. A page of results is `json` there.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Csv(_) => "csv",
            Self::Ndjson => "ndjson",
            Self::Json => "json_array",
            Self::Text => "txt",
            Self::Xlsx => "xlsx",
            Self::Zip(_) => "zip",
        }
    }

    const fn extension(self) -> &'static str {
        match self {
            Self::Json => "json",
            other => other.name(),
        }
    }

    const fn media_type(self) -> &'static str {
        match self {
            Self::Csv(_) => "text/csv; charset=utf-8; header=present",
            Self::Ndjson => "application/x-ndjson",
            Self::Json => "application/json",
            Self::Text => "text/plain; charset=utf-8",
            Self::Xlsx => XLSX,
            Self::Zip(_) => "application/zip",
        }
    }
}

/// Media type of a workbook.
pub const XLSX: &str = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet";

/// A task's results as a file to be saved (`filter` = only these; see
/// [`filter`](super::results::filter)).
pub async fn response(
    api: &Api,
    task: &Task,
    format: Format,
    filter: Option<ResultFilter>,
) -> Result<Response, Problem> {
    let store = &api.app.store;
    let (body, length) = match format {
        Format::Csv(formulas) => {
            (Body::from_stream(csv::file(store, task, filter, formulas).await?), None)
        }
        Format::Ndjson => (Body::from_stream(ndjson_file(store, task, filter)), None),
        Format::Json => (Body::from_stream(lines::json(store, task, filter)), None),
        Format::Text => (Body::from_stream(lines::text(store, task, filter)), None),
        Format::Xlsx => {
            let head = Head::read(store, task.id).await?;
            let (body, length) = exports::make(api, task, move |temporary, blocks| {
                xlsx::write(temporary.file()?, &head, Walk::new(filter), blocks)
            })
            .await?;
            (body, Some(length))
        }
        Format::Zip(formulas) => {
            let head = Head::read(store, task.id).await?;
            let (body, length) = exports::make(api, task, move |temporary, blocks| {
                let table = Table { head: Arc::new(head), formulas };
                zip::write(|| temporary.file(), &table, Walk::new(filter), blocks)
            })
            .await?;
            (body, Some(length))
        }
    };
    let name = format!("attachment; filename=\"{}\"", file_name(task, format.extension()));
    let mut response = Response::new(body);
    let mut set = |name: HeaderName, value| response.headers_mut().insert(name, value);
    set(CONTENT_TYPE, HeaderValue::from_static(format.media_type()));
    if let Ok(name) = HeaderValue::from_str(&name) {
        set(CONTENT_DISPOSITION, name);
    }
    if let Some(length) = length {
        set(CONTENT_LENGTH, length.into());
    }
    Ok(response)
}

/// The answer has begun, so all that is left is to break it off: its reader sees that it is short.
fn broken(error: StoreError) -> io::Error {
    tracing::error!(%error, "download broken off");
    io::Error::other("the download cannot be completed")
}

/// The task's name, as far as every file system takes it; its id where nothing is left.
fn file_name(task: &Task, extension: &str) -> String {
    let name = task.name.as_deref().unwrap_or("");
    let plain: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '.') { c } else { '_' })
        .take(80)
        .collect();
    let plain = plain.trim_matches(|c| matches!(c, '_' | '.' | '-'));
    let stem = ["csv", "tsv", "txt", "json", "ndjson", "xlsx", "xlsm"]
        .iter()
        .find_map(|known| plain.strip_suffix(known)?.strip_suffix('.'))
        .unwrap_or(plain);
    match stem.is_empty() {
        true => format!("{}-results.{extension}", task.id),
        false => format!("{stem}-results.{extension}"),
    }
}

#[cfg(test)]
mod tests;

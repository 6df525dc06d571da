//! What is in an archive: a workbook, or one list.
//!
//! Files that programs add for themselves (`__MACOSX/`, names that begin with a dot) do not count.

use std::io::{BufReader, Read, Seek};

use zip::ZipArchive;
use zip::read::ZipFile;
use zip::result::ZipError;

use super::read::{Format, ReadError, check_directory};
use crate::app::temporary::TemporaryFile;

/// Names that an error lists.
const NAMED: usize = 5;

/// What was found in it.
pub(super) enum Opened {
    Workbook(TemporaryFile),
    List(Box<List>),
}

/// The one list of an archive.
pub(super) struct List {
    archive: ZipArchive<BufReader<TemporaryFile>>,
    at: usize,
    /// Its name, in lower case.
    pub name: String,
    /// Bytes when packed.
    pub packed: u64,
}

/// Looks into it; `said` is what it was said to be.
pub(super) fn open(mut file: TemporaryFile, said: &Format) -> Result<Opened, ReadError> {
    let broken = |error: &ZipError| match said {
        Format::Workbook { .. } => ReadError::BrokenWorkbook { problem: error.to_string() },
        _ => broken(error),
    };
    check_directory(&mut file)?;
    file.rewind().map_err(ReadError::Io)?;
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(|error| broken(&error))?;
    let mut names = Vec::with_capacity(archive.len());
    for at in 0..archive.len() {
        let name = archive.name_for_index(at).transpose().map_err(|error| broken(&error))?;
        names.push(name.unwrap_or_default().replace('\\', "/").to_ascii_lowercase());
    }
    // Office, OpenDocument and the like: who reads workbooks knows them apart.
    let is_document = |name: &String| {
        let parts = ["[content_types].xml", "_rels/.rels", "content.xml", "mimetype"];
        let folders = ["index/", "xl/", "word/", "ppt/"];
        parts.contains(&name.as_str()) || folders.iter().any(|folder| name.starts_with(folder))
    };
    if names.iter().any(is_document) {
        let mut file = archive.into_inner().into_inner();
        file.rewind().map_err(ReadError::Io)?;
        return Ok(Opened::Workbook(file));
    }
    let mut lists = Vec::new();
    for (at, name) in names.iter().enumerate() {
        let part = archive.by_index_raw(at).map_err(|error| broken(&error))?;
        let last = name.rsplit('/').next().unwrap_or_default();
        if part.is_file() && !name.starts_with("__macosx/") && !last.starts_with('.') {
            lists.push((at, name.clone(), part.compressed_size()));
        }
    }
    match lists.len() {
        0 => Err(refused(
            "an empty ZIP archive",
            "Send the list itself, or an archive with one list in it.",
        )),
        1 => {
            let (at, name, packed) = lists.swap_remove(0);
            Ok(Opened::List(Box::new(List { archive, at, name, packed })))
        }
        count => {
            let names: Vec<&str> =
                lists.iter().take(NAMED).map(|(_, name, _)| name.as_str()).collect();
            let what = format!("a ZIP archive with {count} files in it ({})", names.join(", "));
            Err(refused(&what, "Send each list on its own, or an archive with one list in it."))
        }
    }
}

impl List {
    /// Its bytes, unpacked as they are read.
    pub(super) fn part(&mut self) -> Result<ZipFile<'_, impl Read>, ReadError> {
        self.archive.by_index(self.at).map_err(|error| broken(&error))
    }
}

/// The format of a file of that name, where the sender did not say more than that there is an archive.
pub(super) fn format(name: &str, said: &Format) -> Format {
    let (column, delimiter) = match said {
        Format::Workbook { column, .. } => (column.clone(), None),
        Format::Any { column, delimiter, .. } => (column.clone(), *delimiter),
        other => return other.clone(),
    };
    match name.rsplit_once('.').map(|(_, ending)| ending) {
        Some("csv") => Format::Csv { column, delimiter },
        Some("tsv" | "tab") => Format::Csv { column, delimiter: delimiter.or(Some(b'\t')) },
        Some("ndjson" | "jsonl") => Format::Ndjson,
        Some("json") => Format::Json,
        _ => Format::Any { column, delimiter, sheet: None },
    }
}

/// The only file of the archive is no text.
pub(super) fn no_text(name: &str) -> ReadError {
    let what = format!("a ZIP archive with the file {name} in it, which is no text");
    refused(&what, "Unpack it, and send the list that is in it.")
}

fn refused(what: &str, hint: &'static str) -> ReadError {
    ReadError::NotAList { what: what.to_owned(), hint }
}

fn broken(error: &ZipError) -> ReadError {
    let what = format!("a ZIP archive that cannot be read ({error})");
    refused(&what, "Pack the list again, or send it unpacked.")
}

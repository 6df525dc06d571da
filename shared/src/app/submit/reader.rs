//! The reader thread: takes a body for what its first bytes say, and reads it.
//!
//! What is packed is unpacked once; a workbook, or an archive with one list in it, is a temporary file first.

use std::io::{Cursor, Read};
use std::sync::Arc;

use super::archive::{self, Opened};
use super::looks::{self, Looks};
use super::read::{self, Format, Limits, ReadError, Said, Sink, Summary, Wanted};
use super::source::{Packing, Unpacked};
use super::workbooks::{self, Workbooks};
use crate::app::temporary::{Share, TemporaryFile};
use crate::domain::id::AccountId;

/// What the reader thread does.
pub(super) struct ListReader {
    /// What the list was said to be.
    pub format: Format,
    pub said: Said,
    pub limits: Limits,
    /// For finding duplicates.
    pub key: [u8; 32],
    /// Who pays.
    pub account: AccountId,
    /// Bytes of the list, unpacked.
    pub most: u64,
    /// Bytes of a workbook, unpacked.
    pub most_of_workbook: u64,
    pub workbooks: Arc<Workbooks>,
    pub temporary: Share,
}

impl ListReader {
    /// Reads the body to its end.
    pub(super) fn read(&self, input: impl Read, sink: Sink<'_>) -> Result<Summary, ReadError> {
        let (looks, whole) = look(input)?;
        let packing = match looks {
            Looks::Gzip => Packing::Gzip,
            Looks::Zstd => Packing::Zstd,
            _ => return self.read_unpacked(looks, whole, &self.format, None, sink),
        };
        let unpacked = match packing {
            Packing::Gzip => Unpacked::gzip(whole, self.most),
            _ => Unpacked::zstd(whole, self.most).map_err(ReadError::Io)?,
        };
        let (looks, whole) = look(unpacked)?;
        self.read_unpacked(looks, whole, &self.format, Some(packing), sink)
    }

    fn read_unpacked(
        &self,
        looks: Looks,
        whole: impl Read,
        format: &Format,
        packing: Option<Packing>,
        sink: Sink<'_>,
    ) -> Result<Summary, ReadError> {
        let file = match looks {
            Looks::Zip => workbooks::spool(whole, &self.temporary, self.most_of_workbook)?,
            Looks::Ole => return Err(looks::ole(whole)),
            Looks::Gzip | Looks::Zstd => return Err(looks::twice_packed()),
            Looks::Other(what) => {
                let hint = "Send a list: CSV, a text with one address a line, JSON, or a workbook (.xlsx).";
                return Err(ReadError::NotAList { what: what.to_owned(), hint });
            }
            Looks::Text => return self.read_text(whole, format, packing, sink),
        };
        match archive::open(file, format)? {
            Opened::Workbook(file) => self.read_workbook(file, sink),
            Opened::List(mut list) => {
                let (name, packed) = (list.name.clone(), list.packed);
                let part = Unpacked::unzipped(list.part()?, packed, self.most);
                let (looks, whole) = look(part)?;
                match looks {
                    Looks::Text => {
                        let format = archive::format(&name, format);
                        self.read_text(whole, &format, Some(Packing::Zip), sink)
                    }
                    _ => Err(archive::no_text(&name)),
                }
            }
        }
    }

    fn read_text(
        &self,
        whole: impl Read,
        format: &Format,
        packing: Option<Packing>,
        sink: Sink<'_>,
    ) -> Result<Summary, ReadError> {
        // A workbook was promised, and here is a text: it may be a list all the same.
        let format = match format {
            Format::Workbook { sheet: Some(_), .. } | Format::Any { sheet: Some(_), .. } => {
                return Err(looks::no_workbook());
            }
            Format::Workbook { column, sheet: None } => {
                Format::Any { column: column.clone(), delimiter: None, sheet: None }
            }
            other => other.clone(),
        };
        let mut summary = read::read(&format, self.said, whole, &self.limits, self.key, sink)?;
        summary.understood.packed = packing.map(Packing::as_str);
        Ok(summary)
    }

    fn read_workbook(&self, file: TemporaryFile, sink: Sink<'_>) -> Result<Summary, ReadError> {
        let (column, sheet) = match &self.format {
            Format::Workbook { column, sheet } | Format::Any { column, sheet, .. } => {
                (column.clone(), sheet.clone())
            }
            Format::Csv { column, .. } => (column.clone(), None),
            _ => (None, None),
        };
        let wanted = Wanted { column, sheet, most: self.most_of_workbook };
        let turn = tokio::runtime::Handle::current().block_on(self.workbooks.enter(self.account));
        let _turn = turn.map_err(|busy| ReadError::Io(std::io::Error::other(busy)))?;
        let (collapse, limits) = (self.said.collapse, &self.limits);
        let read =
            read::read_workbook(&wanted, collapse, file, &self.temporary, limits, self.key, sink);
        read.map_err(|error| match error {
            ReadError::Io(error) => workbooks::no_room(error),
            error => error,
        })
    }
}

/// What the first bytes say, and all bytes again.
fn look(mut input: impl Read) -> Result<(Looks, impl Read), ReadError> {
    let head = looks::head(&mut input).map_err(ReadError::Io)?;
    Ok((looks::looks(&head), Cursor::new(head).chain(input)))
}

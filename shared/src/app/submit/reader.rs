//! The reader thread: takes a body for what its first bytes say, and reads it.

use std::io::{Cursor, Read};
use std::sync::Arc;

use super::looks::{self, Looks};
use super::read::{self, Format, Limits, ReadError, Sink, Summary, Wanted};
use super::source::Unpacked;
use super::workbooks::{self, Workbooks};
use crate::app::temporary::Share;
use crate::domain::id::AccountId;

/// What the reader thread does.
pub(super) struct ListReader {
    /// What the list was said to be.
    pub format: Format,
    pub limits: Limits,
    /// For finding duplicates.
    pub key: [u8; 32],
    /// Who pays.
    pub account: AccountId,
    /// Bytes of a workbook, unpacked.
    pub most_of_workbook: u64,
    pub workbooks: Arc<Workbooks>,
    pub temporary: Share,
}

impl ListReader {
    /// Reads the body to its end.
    pub(super) fn read(&self, mut input: Unpacked, sink: Sink<'_>) -> Result<Summary, ReadError> {
        let head = looks::head(&mut input).map_err(ReadError::Io)?;
        let looks = looks::looks(&head);
        let (column, sheet) = match (looks, &self.format) {
            (Looks::Zip, Format::Workbook { column, sheet }) => (column.clone(), sheet.clone()),
            (Looks::Zip, Format::Csv { column, .. }) => (column.clone(), None),
            (Looks::Zip, _) => (None, None),
            (Looks::Ole, _) => return Err(looks::ole(Cursor::new(head).chain(input))),
            (Looks::Other(what), _) => {
                let hint = "Send a list: CSV, a text with one address a line, JSON, or a workbook (.xlsx).";
                return Err(ReadError::NotAList { what: what.to_owned(), hint });
            }
            (Looks::Text, Format::Workbook { .. }) => return Err(looks::no_workbook(&head)),
            (Looks::Text, format) => {
                let input = Cursor::new(head).chain(input);
                return read::read(format, input, &self.limits, self.key, sink);
            }
        };
        let most = self.most_of_workbook;
        let wanted = Wanted { column, sheet, most };
        let whole = Cursor::new(head).chain(input);
        let file = workbooks::spool(whole, &self.temporary, most)?;
        let turn = tokio::runtime::Handle::current().block_on(self.workbooks.enter(self.account));
        let _turn = turn.map_err(|busy| ReadError::Io(std::io::Error::other(busy)))?;
        let read =
            read::read_workbook(&wanted, file, &self.temporary, &self.limits, self.key, sink);
        read.map_err(|error| match error {
            ReadError::Io(error) => workbooks::no_room(error),
            error => error,
        })
    }
}

//! CSV: the submitted file with our columns added, in its order, with its columns, duplicate rows and
//! delimiter.
//!
//! A spreadsheet takes a cell that begins with `=` for a formula, whoever wrote it. The file is given back as
//! it was all the same; who opens it in a spreadsheet asks for [`Formulas::Escaped`], which puts an
//! apostrophe before such cells, in the header too.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use listmill_shared::domain::result_filter::ResultFilter;
use listmill_shared::domain::task::Task;
use listmill_shared::store::{Store, StoreError};
use tokio_stream::wrappers::ReceiverStream;

use super::broken;
use super::rows::{COLUMNS, Cell, Head, Line, Walk, cells, chunks, write_cell};
use crate::view::{write_number, write_stamp};

/// What becomes of cells that a spreadsheet would take for a formula.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Formulas {
    /// They stay as they are.
    #[default]
    Kept,
    /// They get an apostrophe before them.
    Escaped,
}

/// The submitted file with our columns added: its order, columns, duplicate rows and delimiter; empty
/// cells where there is no result yet (`filter` = only rows whose result fits).
pub async fn csv_file(
    store: &Store,
    task: &Task,
    filter: Option<ResultFilter>,
) -> Result<impl Stream<Item = io::Result<Bytes>> + Send + 'static, StoreError> {
    file(store, task, filter, Formulas::Kept).await
}

/// Likewise, with formulas escaped or not.
pub(super) async fn file(
    store: &Store,
    task: &Task,
    filter: Option<ResultFilter>,
    formulas: Formulas,
) -> Result<impl Stream<Item = io::Result<Bytes>> + Send + 'static, StoreError> {
    let head = Arc::new(Head::read(store, task.id).await?);
    let table = Table { head, formulas };
    let first = Bytes::from(table.head());
    let mut walk = Walk::new(filter);
    let blocks = ReceiverStream::new(chunks(store, task.id)).map(move |chunk| {
        let chunk = chunk.map_err(broken)?;
        let mut out = Vec::with_capacity(chunk.rows.len() * 160);
        for line in walk.lines(&chunk) {
            table.line(&mut out, &line);
        }
        Ok(Bytes::from(out))
    });
    Ok(stream::iter([Ok(first)]).chain(blocks))
}

/// Writes lines of CSV.
#[derive(Debug, Clone)]
pub struct Table {
    pub head: Arc<Head>,
    pub formulas: Formulas,
}

impl Table {
    /// The first line: the list's own columns, then ours.
    pub fn head(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.head.line.len() + 256);
        if self.head.bom {
            out.extend_from_slice("\u{feff}".as_bytes());
        }
        self.record(&mut out, &self.head.line);
        for column in COLUMNS {
            out.push(self.head.delimiter);
            out.extend_from_slice(column.as_bytes());
        }
        out.extend_from_slice(self.head.line_end());
        out
    }

    /// One row.
    pub fn line(&self, out: &mut Vec<u8>, line: &Line<'_>) {
        let shaped = self.head.shape(line.record);
        self.record(out, &shaped.own);
        for cell in line.ours() {
            out.push(self.head.delimiter);
            match cell {
                Cell::Empty => {}
                Cell::Text(text) => self.text(out, text.as_bytes()),
                Cell::Number(number) => write_number(out, number),
                Cell::Time(at) => write_stamp(out, at),
            }
        }
        if let Some(extra) = shaped.extra {
            out.push(self.head.delimiter);
            self.record(out, &extra);
        }
        out.extend_from_slice(self.head.line_end());
    }

    /// The submitted cells.
    fn record(&self, out: &mut Vec<u8>, record: &[u8]) {
        if self.formulas == Formulas::Kept {
            out.extend_from_slice(record);
            return;
        }
        for (no, cell) in cells(record, self.head.delimiter).enumerate() {
            if no > 0 {
                out.push(self.head.delimiter);
            }
            self.text(out, &cell);
        }
    }

    /// One cell, quoted where it must be.
    fn text(&self, out: &mut Vec<u8>, text: &[u8]) {
        match self.formulas == Formulas::Escaped && is_formula(text) {
            true => write_cell(out, &[b"'", text].concat(), self.head.delimiter),
            false => write_cell(out, text, self.head.delimiter),
        }
    }
}

/// Would a spreadsheet take it for a formula?
fn is_formula(text: &[u8]) -> bool {
    matches!(text.first(), Some(b'=' | b'+' | b'-' | b'@' | b'\t' | b'\r' | b'\n'))
}

#[cfg(test)]
mod tests {
    use listmill_shared::domain::verdict::Reason;

    use super::*;
    use crate::routes::download::tests::{chunk, found};

    fn text(table: &Table, walk: &mut Walk, rows: &[(Option<u64>, &str)], of: &[Reason]) -> String {
        let results = of.iter().zip(0..).map(|(reason, seq)| found(seq, *reason)).collect();
        let (chunk, mut out) = (chunk(rows, results), Vec::new());
        for line in walk.lines(&chunk) {
            table.line(&mut out, &line);
        }
        String::from_utf8(out).unwrap()
    }

    fn table(delimiter: u8) -> Table {
        let header = [b"a", &[delimiter][..], b"b"].concat();
        Table { head: Arc::new(Head::new(header, delimiter)), formulas: Formulas::Kept }
    }

    #[test]
    fn rows_get_the_verdict_of_their_address() {
        let mut head = Head::new(b"id;mail".to_vec(), b';');
        (head.bom, head.crlf) = (true, false);
        let with_mark = Table { head: Arc::new(head), formulas: Formulas::Kept };
        let head = String::from_utf8(with_mark.head()).unwrap();
        assert!(head.starts_with("\u{feff}id;mail;listmill_status;listmill_reason;"), "{head}");
        assert!(head.ends_with("listmill_checked_at\n"), "{head:?}");
        let rows = [
            (Some(0), "1;a0@example.com"),
            (None, "2;"),
            (Some(0), "3;a0@example.com"),
            (Some(1), "\"4\";a1@example.com"),
        ];
        let mut walk = Walk::new(None);
        let block = text(&table(b';'), &mut walk, &rows, &[Reason::Accepted]);
        let lines: Vec<&str> = block.split("\r\n").collect();
        let stamp = "1970-01-01T00:00:00.000Z";
        let verdict = "deliverable;accepted;98;true;;;;;\"mx;1.example\";250";
        assert_eq!(lines[0], format!("1;a0@example.com;{verdict};charged;{stamp}"));
        assert_eq!(lines[1], format!("2;{}", ";".repeat(COLUMNS.len())));
        // A duplicate: the same verdict, and it cost nothing.
        assert_eq!(lines[2], format!("3;a0@example.com;{verdict};free;{stamp}"));
        // No result yet.
        assert_eq!(lines[3], format!("\"4\";a1@example.com{}", ";".repeat(COLUMNS.len())));
        // The next block knows what was seen before.
        let rows = [(Some(1), "5;x")];
        let block = text(&table(b';'), &mut walk, &rows, &[Reason::Accepted, Reason::Accepted]);
        assert!(block.contains(";free;"), "{block}");
    }

    #[test]
    fn a_row_that_is_nothing_but_its_address_reads_like_any_other() {
        let rows =
            [(Some(0), "a0@example.com"), (Some(1), "a1@example.com"), (Some(0), "A0@example.com")];
        let block = text(&table(b','), &mut Walk::new(None), &rows, &[Reason::Accepted]);
        let first: Vec<&str> = block.lines().filter_map(|line| line.split(',').next()).collect();
        assert_eq!(first, ["a0@example.com", "a1@example.com", "A0@example.com"]);
    }

    #[test]
    fn filters_drop_whole_rows() {
        let rows = [(Some(0), "a"), (None, "b"), (Some(1), "c"), (Some(2), "d")];
        let mut walk = Walk::new(Some(ResultFilter::of_reasons([Reason::NoMx])));
        let block = text(&table(b','), &mut walk, &rows, &[Reason::Accepted, Reason::NoMx]);
        assert!(block.starts_with("c,undeliverable,no_mx,"), "{block}");
        assert_eq!(block.matches("\r\n").count(), 1);
    }

    #[test]
    fn formulas_get_an_apostrophe_where_it_is_asked_for() {
        let row =
            "=1+1,\"=HYPERLINK(\"\"http://x/\"\",\"\"y\"\")\",-5,@b,a=b,\"\ttab\",\"\r\n\",'=1,";
        let head = Arc::new(Head::new(row.as_bytes().to_vec(), b','));
        let table = Table { head, formulas: Formulas::Escaped };
        let head = String::from_utf8(table.head()).unwrap();
        let wanted =
            "'=1+1,\"'=HYPERLINK(\"\"http://x/\"\",\"\"y\"\")\",'-5,'@b,a=b,'\ttab,\"'\r\n\",'=1,";
        assert!(head.starts_with(wanted), "{head:?}");
        let block = text(&table, &mut Walk::new(None), &[(Some(0), row)], &[Reason::Accepted]);
        assert!(block.starts_with(wanted), "{block:?}");
        assert!(block.contains(",deliverable,accepted,98,true,,,,,mx;1.example,250,"), "{block:?}");
    }
}

//! Cuts a list into blocks: dedupe, number, encode.
//!
//! Data: the reader gives [`Section`]s, hundreds of rows each; out come [`Block`]s. A short list is one section
//! and is cut by the reader's own thread; a longer one is cut by a second thread beside it, with [`WAITING`]
//! sections between the two.

use std::io::ErrorKind;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, Scope, ScopedJoinHandle};

use super::alike::{Alike, plain};
use super::{Block, Limits, ReadError, Sink};
use crate::app::submit::dedupe::{Dedupe, Seen};
use crate::domain::payload::{BatchEncoder, RowsEncoder};

/// Rows of a section.
const SECTION_ROWS: usize = 1024;
/// Sections between the reader and the cutter.
const WAITING: usize = 2;
/// Rows of one block: those that are nothing but their address take no room in it.
const BLOCK_ROWS: usize = 8192;

/// Some rows of the list, in its order.
#[derive(Default)]
pub(super) struct Section {
    /// What is in the cells of the address, in canonical form, one after the other.
    addresses: String,
    /// The records, one after the other.
    lines: Vec<u8>,
    /// How the list has the addresses that it writes otherwise, one after the other.
    submitted: String,
    rows: Vec<Row>,
}

/// Where a row's address, record and spelling end; they begin where those of the row before end.
struct Row {
    address: usize,
    line: usize,
    /// `None`: the list has it as it is judged.
    submitted: Option<usize>,
    cell: Cell,
}

/// A row of a section.
struct RowOf<'a> {
    /// What is in its cell, in canonical form.
    address: &'a str,
    cell: Cell,
    submitted: Option<&'a str>,
    line: &'a [u8],
}

/// What is in the cell of the address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cell {
    Blank,
    Broken,
    Valid,
}

impl Section {
    /// An empty one with the room that another has come to need.
    pub(super) fn as_large_as(other: &Self) -> Self {
        Self {
            addresses: String::with_capacity(other.addresses.len()),
            lines: Vec::with_capacity(other.lines.len()),
            submitted: String::with_capacity(other.submitted.len()),
            rows: Vec::with_capacity(other.rows.len()),
        }
    }

    /// Begins a row with what stands in its cell, and what `write` makes of that. `false`: nothing was begun, as
    /// `write` says that it is no address.
    pub(super) fn push(
        &mut self,
        stood: &str,
        write: impl FnOnce(&mut String) -> Option<Cell>,
    ) -> bool {
        let start = self.addresses.len();
        let Some(cell) = write(&mut self.addresses) else {
            self.addresses.truncate(start);
            return false;
        };
        let differs = self.addresses.as_bytes()[start..] != *stood.as_bytes();
        let submitted = differs.then(|| {
            self.submitted.push_str(stood);
            self.submitted.len()
        });
        self.rows.push(Row {
            address: self.addresses.len(),
            line: self.lines.len(),
            submitted,
            cell,
        });
        true
    }

    /// Ends the row with its record; returns the record's length.
    pub(super) fn close(&mut self, write_line: impl FnOnce(&mut Vec<u8>)) -> usize {
        let start = self.lines.len();
        write_line(&mut self.lines);
        if let Some(row) = self.rows.last_mut() {
            row.line = self.lines.len();
        }
        self.lines.len() - start
    }

    /// Appends a row without an address.
    pub(super) fn push_blank(&mut self, write_line: impl FnOnce(&mut Vec<u8>)) {
        write_line(&mut self.lines);
        let (address, line) = (self.addresses.len(), self.lines.len());
        self.rows.push(Row { address, line, submitted: None, cell: Cell::Blank });
    }

    /// The address of the last row.
    pub(super) fn last_address(&self) -> &str {
        let before = self.rows.len().checked_sub(2).and_then(|at| self.rows.get(at));
        &self.addresses[before.map_or(0, |row| row.address)..]
    }

    pub(super) fn is_full(&self, bytes: usize) -> bool {
        let held = self.addresses.len() + self.lines.len() + self.submitted.len();
        self.rows.len() >= SECTION_ROWS || held >= bytes
    }

    fn rows(&self) -> impl Iterator<Item = RowOf<'_>> {
        let (mut address, mut line, mut submitted) = (0, 0, 0);
        self.rows.iter().map(move |row| {
            let of = RowOf {
                address: &self.addresses[address..row.address],
                cell: row.cell,
                submitted: row.submitted.map(|end| &self.submitted[submitted..end]),
                line: &self.lines[line..row.line],
            };
            (address, line) = (row.address, row.line);
            submitted = row.submitted.unwrap_or(submitted);
            of
        })
    }
}

/// Has sections cut, in a thread of its own from the first full one on.
pub(super) struct Cutting<'scope, 'env, 'sink> {
    scope: &'scope Scope<'scope, 'env>,
    /// Until the list turns out to be long.
    here: Option<Cutter<'sink>>,
    beside: Option<Beside<'scope, 'sink>>,
}

/// The cutter's thread, and the way to it.
struct Beside<'scope, 'sink> {
    sections: SyncSender<Section>,
    thread: ScopedJoinHandle<'scope, Result<Cutter<'sink>, ReadError>>,
}

impl<'scope, 'env, 'sink: 'scope> Cutting<'scope, 'env, 'sink> {
    pub(super) fn new(scope: &'scope Scope<'scope, 'env>, cutter: Cutter<'sink>) -> Self {
        Self { scope, here: Some(cutter), beside: None }
    }

    /// Has a full section cut. An error says only that the cutter has ended; [`Cutting::finish`] tells why.
    pub(super) fn cut(&mut self, section: Section) -> Result<(), ReadError> {
        if let Some(cutter) = self.here.take() {
            let (sections, waiting) = sync_channel(WAITING);
            let thread = Builder::new()
                .name(String::from("cutter"))
                .spawn_scoped(self.scope, move || cutter.work(&waiting))
                .map_err(ReadError::Io)?;
            self.beside = Some(Beside { sections, thread });
        }
        let sent = self.beside.as_ref().map(|beside| beside.sections.send(section));
        match sent {
            Some(Ok(())) => Ok(()),
            _ => Err(ReadError::Io(ErrorKind::BrokenPipe.into())),
        }
    }

    /// Cuts what is left, and passes on what comes with it. What the cutter failed for came before what the
    /// reader failed for.
    pub(super) fn finish<T>(
        self,
        last: Result<(Section, T), ReadError>,
    ) -> Result<(Cut, T), ReadError> {
        let cutter = match self.beside {
            Some(Beside { sections, thread }) => {
                drop(sections);
                Some(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?)
            }
            None => self.here,
        };
        let (last, with_it) = last?;
        let mut cutter = cutter.ok_or_else(|| ReadError::Io(ErrorKind::BrokenPipe.into()))?;
        cutter.cut(&last)?;
        Ok((cutter.finish()?, with_it))
    }
}

/// What was cut.
pub(super) struct Cut {
    /// Distinct addresses, broken ones included.
    pub unique: u64,
    /// Those that are broken.
    pub invalid_syntax: u64,
    /// Those that differ from another by letter case or a tag alone.
    pub likely_duplicates: u64,
}

/// Cuts sections into blocks.
pub(super) struct Cutter<'sink> {
    limits: Limits,
    dedupe: Dedupe,
    alike: Alike,
    /// Such addresses are one.
    collapse: bool,
    /// Of the section in hand.
    seen: Vec<Seen>,
    batch: BatchEncoder,
    batch_no: u32,
    first_seq: u64,
    chargeable: u32,
    rows: RowsEncoder,
    rows_no: u32,
    invalid_syntax: u64,
    sink: Sink<'sink>,
}

impl<'sink> Cutter<'sink> {
    /// `limits` within what blocks can hold.
    pub(super) fn new(
        limits: Limits,
        collapse: bool,
        dedupe_key: [u8; 32],
        sink: Sink<'sink>,
    ) -> Result<Self, ReadError> {
        Ok(Self {
            limits,
            dedupe: Dedupe::new(dedupe_key),
            alike: Alike::new(dedupe_key),
            collapse,
            seen: Vec::new(),
            batch: BatchEncoder::new()?,
            batch_no: 0,
            first_seq: 0,
            chargeable: 0,
            rows: RowsEncoder::new()?,
            rows_no: 0,
            invalid_syntax: 0,
            sink,
        })
    }

    fn work(mut self, waiting: &Receiver<Section>) -> Result<Self, ReadError> {
        for section in waiting {
            self.cut(&section)?;
        }
        Ok(self)
    }

    fn cut(&mut self, section: &Section) -> Result<(), ReadError> {
        let mut seen = std::mem::take(&mut self.seen);
        seen.clear();
        let addresses = section.rows().filter(|row| row.cell != Cell::Blank);
        let addresses = addresses.map(|row| row.address);
        match self.collapse {
            false => self.dedupe.insert_all(addresses, &mut seen),
            true => seen.extend(addresses.map(|address| self.dedupe.insert(&plain(address)))),
        }
        let mut of_address = seen.iter();
        for RowOf { address, cell, submitted, line } in section.rows() {
            let write_line = |lines: &mut Vec<u8>| lines.extend_from_slice(line);
            let seen = match cell {
                Cell::Blank => None,
                Cell::Broken | Cell::Valid => of_address.next(),
            };
            match seen {
                None => self.rows.push_blank(write_line),
                Some(&Seen::Duplicate(first)) => {
                    // Collapsed, it may differ from the first: then its record says what it is.
                    let address = if self.collapse { "" } else { address };
                    self.rows.push(u64::from(first), address, write_line);
                }
                Some(&Seen::New(seq)) => {
                    self.add(address, cell == Cell::Valid, submitted)?;
                    self.rows.push(u64::from(seq), address, write_line);
                }
            }
            if self.rows.bytes_len() >= self.limits.chunk_bytes || self.rows.len() >= BLOCK_ROWS {
                self.cut_rows()?;
            }
        }
        self.seen = seen;
        Ok(())
    }

    fn add(
        &mut self,
        address: &str,
        valid: bool,
        submitted: Option<&str>,
    ) -> Result<(), ReadError> {
        self.batch.push(address, valid, submitted);
        match valid {
            true => {
                self.chargeable += 1;
                self.alike.see(address);
            }
            false => self.invalid_syntax += 1,
        }
        let full = self.batch.len() >= self.limits.batch_size as usize
            || self.batch.bytes_len() >= self.limits.batch_bytes;
        if full { self.cut_batch() } else { Ok(()) }
    }

    fn cut_batch(&mut self) -> Result<(), ReadError> {
        let addresses = self.batch.len() as u32;
        let block = Block::Batch {
            no: self.batch_no,
            first_seq: self.first_seq,
            addresses,
            chargeable: self.chargeable,
            payload: self.batch.finish()?,
        };
        self.batch_no += 1;
        self.first_seq += u64::from(addresses);
        self.chargeable = 0;
        (self.sink)(block).map_err(ReadError::Io)
    }

    fn cut_rows(&mut self) -> Result<(), ReadError> {
        let block = Block::Rows { no: self.rows_no, payload: self.rows.finish()? };
        self.rows_no += 1;
        (self.sink)(block).map_err(ReadError::Io)
    }

    fn finish(mut self) -> Result<Cut, ReadError> {
        if !self.batch.is_empty() {
            self.cut_batch()?;
        }
        if !self.rows.is_empty() {
            self.cut_rows()?;
        }
        let unique = u64::from(self.dedupe.len());
        let likely_duplicates = if self.collapse { 0 } else { self.alike.count(&self.dedupe) };
        Ok(Cut { unique, invalid_syntax: self.invalid_syntax, likely_duplicates })
    }
}

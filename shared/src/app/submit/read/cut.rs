//! Cuts a list into blocks: dedupe, number, encode.
//!
//! Data: the reader gives [`Section`]s, hundreds of rows each; out come [`Block`]s. A short list is one section
//! and is cut by the reader's own thread; a longer one is cut by a second thread beside it, with [`WAITING`]
//! sections between the two.

use std::io::ErrorKind;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, Scope, ScopedJoinHandle};

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
    rows: Vec<Row>,
}

/// Where a row's address and record end; they begin where those of the row before end.
struct Row {
    address: usize,
    line: usize,
    cell: Cell,
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
            rows: Vec::with_capacity(other.rows.len()),
        }
    }

    /// Appends a row: `write_address` writes what is in its cell, `write_line` its record.
    pub(super) fn push(
        &mut self,
        write_address: impl FnOnce(&mut String) -> Cell,
        write_line: impl FnOnce(&mut Vec<u8>),
    ) {
        let cell = write_address(&mut self.addresses);
        write_line(&mut self.lines);
        let (address, line) = (self.addresses.len(), self.lines.len());
        self.rows.push(Row { address, line, cell });
    }

    pub(super) fn is_full(&self, bytes: usize) -> bool {
        self.rows.len() >= SECTION_ROWS || self.addresses.len() + self.lines.len() >= bytes
    }

    /// Each row: what is in its cell, and its record.
    fn rows(&self) -> impl Iterator<Item = (&str, Cell, &[u8])> {
        let (mut address, mut line) = (0, 0);
        self.rows.iter().map(move |row| {
            let item =
                (&self.addresses[address..row.address], row.cell, &self.lines[line..row.line]);
            (address, line) = (row.address, row.line);
            item
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
}

/// Cuts sections into blocks.
pub(super) struct Cutter<'sink> {
    limits: Limits,
    dedupe: Dedupe,
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
        dedupe_key: [u8; 32],
        sink: Sink<'sink>,
    ) -> Result<Self, ReadError> {
        Ok(Self {
            limits,
            dedupe: Dedupe::new(dedupe_key),
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
        let addresses = section.rows().filter(|(_, cell, _)| *cell != Cell::Blank);
        self.dedupe.insert_all(addresses.map(|(address, ..)| address), &mut seen);
        let mut of_address = seen.iter();
        for (address, cell, line) in section.rows() {
            let write_line = |lines: &mut Vec<u8>| lines.extend_from_slice(line);
            let seen = match cell {
                Cell::Blank => None,
                Cell::Broken | Cell::Valid => of_address.next(),
            };
            match seen {
                None => self.rows.push_blank(write_line),
                Some(&Seen::Duplicate(first)) => {
                    self.rows.push(u64::from(first), address, write_line);
                }
                Some(&Seen::New(seq)) => {
                    self.add(address, cell == Cell::Valid)?;
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

    fn add(&mut self, address: &str, valid: bool) -> Result<(), ReadError> {
        self.batch.push(address, valid);
        match valid {
            true => self.chargeable += 1,
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
        Ok(Cut { unique, invalid_syntax: self.invalid_syntax })
    }
}

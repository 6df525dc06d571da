//! Reads a submitted list, in any of its formats, as a stream.
//!
//! Data: bytes go in; [`Block`]s come out, in two independent sequences, each numbered from 0:
//! batches (distinct canonical addresses in the order of their seq) and rows (the records of the
//! file in file order, each with the seq of its address). What is kept of a record is one CSV
//! line in the list's own delimiter; for formats other than CSV that is the address as submitted.
//!
//! Invariants:
//! - `submitted` = rows with a non-blank address = `unique` + `duplicates`;
//! - seqs run from 0 to `unique - 1` without gaps, in order of first occurrence; a batch holds
//!   consecutive ones; broken addresses have a seq as well and are not chargeable;
//! - memory is flat but for the fingerprints of the addresses ([`super::dedupe`]): one block of each kind, a few
//!   sections, one record, one buffer;
//! - after an error the blocks already handed out are worth nothing: the caller drops them.
//!
//! Not kept: empty lines (in CSV a line without any character, in text and NDJSON a blank one).

mod alike;
mod cards;
mod cut;
mod decode;
mod error;
mod guard;
mod headers;
mod intake;
mod json;
mod lines;
mod mail;
mod quotes;
mod sniff;
mod table;
#[cfg(test)]
mod tests;
mod understood;
mod workbook;

use std::io::{Cursor, ErrorKind, Read};

pub use decode::encoding;
use encoding_rs::Encoding;
pub use error::ReadError;
pub use understood::{Column, Sample, Understood, Why};
pub(super) use workbook::check_directory;
pub use workbook::{Book, Wanted};

use self::cut::{Cut, Cutter, Cutting};
use self::decode::Decoded;
use self::guard::Guard;
use self::intake::Intake;
use super::dedupe::MAX_ADDRESSES;
use crate::app::temporary::{Share, TemporaryFile};

/// How the list is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    /// Nobody said: the bytes do.
    Any {
        /// As of a table.
        column: Option<String>,
        /// As of a table.
        delimiter: Option<u8>,
        /// As of a workbook.
        sheet: Option<String>,
    },
    /// One object: `{"emails": [...], "name"?, "allow_partial"?, "webhook_url"?}`, or that array alone.
    Json,
    /// Separated values, with or without a header.
    Csv {
        /// The address column: its header (any case), its number from 1, or its letter; several with commas between
        /// them, `*` = all that hold addresses. `None`: found out.
        column: Option<String>,
        /// `None`: found out, among `,` `;` tab `|`.
        delimiter: Option<u8>,
    },
    /// One address per line.
    Text,
    /// Per line a JSON string, or an object with an address in one of its fields.
    Ndjson,
    /// vCard.
    Cards,
    /// LDIF.
    Ldif,
    /// Mails: one, or many (mbox).
    Mail,
    /// A workbook (XLSX).
    Workbook {
        /// As of a table.
        column: Option<String>,
        /// The sheet by its name (any case). `None`: the first one with rows.
        sheet: Option<String>,
    },
}

impl Format {
    /// Nothing was said of it.
    pub const fn any() -> Self {
        Self::Any { column: None, delimiter: None, sheet: None }
    }

    /// As it is shown.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Any { .. } => "any",
            Self::Json => "json",
            Self::Csv { .. } => "csv",
            Self::Text => "text",
            Self::Ndjson => "ndjson",
            Self::Cards => "vcard",
            Self::Ldif => "ldif",
            Self::Mail => "mail",
            Self::Workbook { .. } => "xlsx",
        }
    }
}

/// What else the sender says of a list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Said {
    /// Its encoding. `None`: found out.
    pub encoding: Option<&'static Encoding>,
    /// Addresses that differ by letter case or a tag alone are one.
    pub collapse: bool,
}

/// Bounds of what is accepted and of what is kept in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Addresses submitted, duplicates included.
    pub addresses: u64,
    /// Bytes of one line, CSV record or JSON text.
    pub line_bytes: usize,
    /// Entries of a batch.
    pub batch_size: u32,
    /// Bytes of a batch before compression (its last entry may go over).
    pub batch_bytes: usize,
    /// Bytes of a rows block before compression (its last row may go over).
    pub chunk_bytes: usize,
    /// Bytes of the rows that are cut at once (the last one may go over). A longer list is cut by a thread of
    /// its own.
    pub section_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            addresses: 10_000_000,
            line_bytes: 64 << 10,
            batch_size: 500,
            batch_bytes: 256 << 10,
            chunk_bytes: 256 << 10,
            section_bytes: 64 << 10,
        }
    }
}

impl Limits {
    /// Within what seqs and payloads can hold, whatever was configured.
    fn clamped(self) -> Self {
        const MOST: usize = 2 << 20;
        Self {
            addresses: self.addresses.min(u64::from(MAX_ADDRESSES)),
            line_bytes: self.line_bytes.min(MOST),
            batch_size: self.batch_size.max(1),
            batch_bytes: self.batch_bytes.min(MOST),
            chunk_bytes: self.chunk_bytes.min(MOST),
            section_bytes: self.section_bytes.min(MOST),
        }
    }
}

/// A piece of the list, ready to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Block {
    /// Distinct addresses; the payload is for `decode_batch`.
    Batch { no: u32, first_seq: u64, addresses: u32, chargeable: u32, payload: Vec<u8> },
    /// Records of the file; the payload is for `decode_rows`.
    Rows { no: u32, payload: Vec<u8> },
}

/// What a JSON body says beside its addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// The task's name, at most 200 characters.
    pub name: Option<String>,
    /// Run until the credits end instead of refusing a list that costs more than there is.
    pub allow_partial: bool,
    /// As given; whether it is an acceptable URL is for the caller to say.
    pub webhook_url: Option<String>,
}

/// The list as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Rows with a non-blank address.
    pub submitted: u64,
    /// Distinct addresses, broken ones included.
    pub unique: u64,
    /// Rows that repeat an earlier address.
    pub duplicates: u64,
    /// Distinct addresses with broken syntax.
    pub invalid_syntax: u64,
    /// CSV: the header as one line in `delimiter`, without terminator.
    pub header: Option<Vec<u8>>,
    /// The delimiter of header and record lines.
    pub delimiter: u8,
    /// From a JSON body; default otherwise.
    pub options: Options,
    /// Of a workbook.
    pub book: Option<Book>,
    /// What was found out of it.
    pub understood: Understood,
}

/// Takes blocks; its errors come back as [`ReadError::Io`] with their source intact.
pub type Sink<'s> = &'s mut (dyn FnMut(Block) -> std::io::Result<()> + Send);

/// Reads the whole list, which is no workbook. `dedupe_key` must be random, so that nobody can construct addresses that
/// are taken for duplicates. Errors of `input` and of `sink` come back as [`ReadError::Io`] with
/// their source intact.
pub fn read(
    format: &Format,
    said: Said,
    input: impl Read,
    limits: &Limits,
    dedupe_key: [u8; 32],
    sink: Sink<'_>,
) -> Result<Summary, ReadError> {
    // JSON is UTF-8 between systems (RFC 8259, 8.1): there is nothing to be found out.
    let is_json = matches!(format, Format::Json | Format::Ndjson);
    let mut decoded = Decoded::new(input, said.encoding.or(is_json.then_some(encoding_rs::UTF_8)))?;
    let mut head = Vec::new();
    (&mut decoded).take(sniff::HEAD as u64).read_to_end(&mut head).map_err(ReadError::from_io)?;
    let format = sniff::format(&String::from_utf8_lossy(&head), format)?;
    let text = Cursor::new(head).chain(&mut decoded);
    let mut summary =
        read_with(limits, said.collapse, dedupe_key, sink, |intake| parse(&format, text, intake))?;
    let manner = decoded.manner();
    let understood = &mut summary.understood;
    (understood.format, understood.encoding) = (format.name(), manner.encoding);
    (understood.bom, understood.crlf) = (manner.bom, manner.crlf);
    Ok(summary)
}

/// Likewise, a workbook.
pub fn read_workbook(
    wanted: &Wanted,
    collapse: bool,
    file: TemporaryFile,
    temporary: &Share,
    limits: &Limits,
    dedupe_key: [u8; 32],
    sink: Sink<'_>,
) -> Result<Summary, ReadError> {
    let mut summary = read_with(limits, collapse, dedupe_key, sink, |intake| {
        let (header, book) = workbook::read(wanted, file, temporary, intake)?;
        Ok(OfFile { header, book: Some(book), ..OfFile::default() })
    })?;
    let understood = &mut summary.understood;
    (understood.format, understood.encoding, understood.crlf) = ("xlsx", "UTF-8", true);
    Ok(summary)
}

fn read_with(
    limits: &Limits,
    collapse: bool,
    dedupe_key: [u8; 32],
    sink: Sink<'_>,
    parse: impl FnOnce(&mut Intake) -> Result<OfFile, ReadError>,
) -> Result<Summary, ReadError> {
    let limits = limits.clamped();
    let cutter = Cutter::new(limits, collapse, dedupe_key, sink)?;
    std::thread::scope(|scope| {
        let mut cutting = Cutting::new(scope, cutter);
        let mut hand_on = |section| cutting.cut(section);
        let mut intake = Intake::new(limits, &mut hand_on);
        let parsed = parse(&mut intake);
        let Intake { section, submitted, delimiter, mut understood, .. } = intake;
        let last = parsed.and_then(|of_file| match submitted {
            0 => Err(ReadError::EmptyList),
            _ => Ok((section, of_file)),
        });
        let (Cut { unique, invalid_syntax, likely_duplicates }, of_file) = cutting.finish(last)?;
        let OfFile { header, options, book } = of_file;
        understood.likely_duplicates = likely_duplicates;
        Ok(Summary {
            submitted,
            unique,
            duplicates: submitted - unique,
            invalid_syntax,
            header,
            delimiter,
            options,
            book,
            understood,
        })
    })
}

/// What a file says beside its rows.
#[derive(Default)]
struct OfFile {
    header: Option<Vec<u8>>,
    options: Options,
    book: Option<Book>,
}

fn parse(format: &Format, input: impl Read, intake: &mut Intake) -> Result<OfFile, ReadError> {
    let line_bytes = intake.limits.line_bytes;
    let mut of_file = OfFile::default();
    match format {
        Format::Json => of_file.options = json::read(Guard::for_tokens(input, line_bytes), intake)?,
        Format::Csv { column, delimiter } => {
            let guard = Guard::for_records(input, line_bytes);
            of_file.header = table::read(column.as_deref(), *delimiter, guard, intake)?;
        }
        Format::Text => of_file.header = lines::read_text(Guard::new(input), intake)?,
        Format::Ndjson => lines::read_ndjson(Guard::new(input), intake)?,
        Format::Cards | Format::Ldif => {
            let kind = if *format == Format::Cards { cards::Kind::Card } else { cards::Kind::Ldif };
            cards::read(kind, Guard::new(input), intake)?;
            of_file.header = Some(cards::HEADER.to_vec());
        }
        Format::Mail => mail::read(Guard::new(input), intake)?,
        // One needs a file (`read_workbook`), the other was found out.
        Format::Workbook { .. } | Format::Any { .. } => {
            return Err(ReadError::Io(ErrorKind::Unsupported.into()));
        }
    }
    Ok(of_file)
}

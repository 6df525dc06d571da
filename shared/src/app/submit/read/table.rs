//! Lists as separated values, in the manner that spreadsheets and CRMs write them.
//!
//! Found out from the list itself unless given: the delimiter (Excel's `sep=` line, else the first record's most
//! frequent one of `,` `;` tab `|`), the header (a first record without any `@`) and the address column (by its
//! header, else by where the `@` signs are in the first records). Comments before the first record are left out, as
//! is the `sep=` line.
//!
//! A record shorter than the first is padded with empty cells, so that columns appended to its
//! line stand where they belong; a longer one is kept as it is. Where a longer one has no address in its column and
//! an `@` in but one cell, a delimiter too many stands before that cell: the address is taken from there.

use std::io::Read;

use csv::{ByteRecord, ErrorKind, Reader, ReaderBuilder};

use super::error::shorten;
use super::guard::{CHUNK, Guard};
use super::intake::{Intake, needs_quotes, write_field};
use super::quotes::Quotes;
use super::sniff::declared_delimiter;
use super::understood::{Column, Why};
use super::{ReadError, headers};
use crate::domain::spelling::is_comment;

/// Records that are looked at to find the address column.
const SAMPLE_RECORDS: usize = 100;
/// …and their bytes, whichever is reached first.
const SAMPLE_BYTES: usize = 1 << 20;
/// Padding stops at this width: a list of commas followed by tiny rows must not multiply.
pub(super) const PADDED_COLUMNS: usize = 256;
/// Columns named in a message.
const NAMED_COLUMNS: usize = 20;

/// Columns that addresses are taken from, at most.
const COLUMNS: usize = 16;

/// Reads the records into the intake; returns the header, if there is one.
pub(super) fn read<R: Read>(
    column: Option<&str>,
    delimiter: Option<u8>,
    mut guard: Guard<R>,
    intake: &mut Intake,
) -> Result<Option<Vec<u8>>, ReadError> {
    let preamble = skip_preamble(&mut guard)?;
    intake.delimiter = match delimiter.or(preamble.delimiter) {
        None => sniff(&mut guard, intake.limits.line_bytes)?,
        Some(d) if d.is_ascii() && !d.is_ascii_alphanumeric() && !b"\0\"\r\n@".contains(&d) => d,
        Some(_) => {
            let problem = "must be one character such as , or ; that no address needs".to_owned();
            return Err(ReadError::InvalidField { name: "delimiter", problem });
        }
    };
    intake.understood.delimiter = Some(intake.delimiter);
    let mut lines = Lines::new(guard, preamble.lines, intake.delimiter, intake.limits.line_bytes);
    take_all(&mut lines, column, intake)
}

/// What stands before the first record.
#[derive(Default)]
struct Preamble {
    lines: u64,
    delimiter: Option<u8>,
}

fn skip_preamble<R: Read>(guard: &mut Guard<R>) -> Result<Preamble, ReadError> {
    let mut preamble = Preamble::default();
    loop {
        let head = guard.peek(4 << 10).map_err(ReadError::from_io)?;
        let line = head.split_inclusive(|b| *b == b'\n').next().unwrap_or_default();
        let Ok(text) = str::from_utf8(line) else { return Ok(preamble) };
        // `#` may be a column's header.
        let marked = text.trim_start_matches(['#', '/', '-']);
        let is_cell = marked.starts_with([',', ';', '\t', '|', '"']);
        match declared_delimiter(text) {
            Some(delimiter) if line.ends_with(b"\n") => preamble.delimiter = Some(delimiter),
            _ if line.ends_with(b"\n") && !is_cell && is_comment(text) => {}
            _ => return Ok(preamble),
        }
        let bytes = line.len();
        guard.skip(bytes);
        preamble.lines += 1;
    }
}

/// Takes all records into the intake; returns the header, if there is one.
pub(super) fn take_all(
    records: &mut impl Records,
    column: Option<&str>,
    intake: &mut Intake,
) -> Result<Option<Vec<u8>>, ReadError> {
    let mut record = ByteRecord::new();
    if !records.next(&mut record)? {
        return Err(ReadError::EmptyList);
    }
    let first = record.clone();
    let column = column.map(str::trim).filter(|column| !column.is_empty());
    let has_header = is_header(&first, column);
    let mut sample = Vec::new();
    if !has_header {
        sample.push(first.clone());
    }
    let (columns, why) = match column {
        Some("*") => {
            sample_of(records, &mut sample)?;
            let columns = columns_with_addresses(&sample);
            match columns.is_empty() {
                true => return Err(ReadError::NoAddressColumn { columns: name_all(&first) }),
                false => (columns, Why::Content),
            }
        }
        Some(column) => (named_columns(column, &first, has_header)?, Why::Asked),
        None => match if has_header { header_column(&first) } else { None } {
            Some(at) => (vec![at], Why::Header),
            None => {
                sample_of(records, &mut sample)?;
                let at = fullest_column(&sample)
                    .ok_or_else(|| ReadError::NoAddressColumn { columns: name_all(&first) })?;
                (vec![at], if first.len() == 1 { Why::Only } else { Why::Content })
            }
        },
    };
    let name = |at: usize| {
        let cell = first.get(at).filter(|_| has_header)?;
        Some(shorten(text_of(cell).trim()))
    };
    let told = columns.iter().map(|at| Column { number: at + 1, name: name(*at), why });
    intake.understood.columns = told.collect();
    let mut taker = Taker {
        columns: &columns,
        first: first.len(),
        width: first.len().min(PADDED_COLUMNS),
        counts: Counts::default(),
    };
    for record in &sample {
        taker.take(record, intake)?;
    }
    drop(sample);
    while records.next(&mut record)? {
        taker.take(&record, intake)?;
    }
    intake.understood.better = taker
        .counts
        .better_than(&columns)
        .map(|at| name(at).unwrap_or_else(|| format!("{}", at + 1)));
    let mut line = Vec::new();
    write_record(&mut line, &first, taker.width, intake.delimiter, |_| None);
    Ok(has_header.then_some(line))
}

/// Takes records.
struct Taker<'a> {
    columns: &'a [usize],
    /// Cells of the first record, and how many others are filled up to.
    first: usize,
    width: usize,
    counts: Counts,
}

impl Taker<'_> {
    fn take(&mut self, record: &ByteRecord, intake: &mut Intake) -> Result<(), ReadError> {
        self.counts.see(record);
        let (delimiter, width) = (intake.delimiter, self.width);
        if let [at] = *self.columns {
            let at = self.place(record, at);
            return intake.row(cell(record, at)?, |line, part| {
                write_record(line, record, width, delimiter, |no| part.filter(|_| no == at));
            });
        }
        // One row for each cell with an address: the others are empty in it.
        let mut taken = false;
        for &at in self.columns {
            let raw = cell(record, at)?;
            if raw.trim().is_empty() {
                continue;
            }
            taken = true;
            intake.row(raw, |line, part| {
                write_record(line, record, width, delimiter, |no| match no == at {
                    true => part,
                    false => self.columns.contains(&no).then_some(""),
                });
            })?;
        }
        match taken {
            true => Ok(()),
            false => intake.blank(|line| write_record(line, record, width, delimiter, |_| None)),
        }
    }

    /// Where a record has its address.
    fn place(&self, record: &ByteRecord, at: usize) -> usize {
        let has = |at: usize| record.get(at).is_some_and(|cell| cell.contains(&b'@'));
        if record.len() <= self.first || has(at) {
            return at;
        }
        let mut others = (0..record.len()).filter(|at| has(*at));
        match (others.next(), others.next()) {
            (Some(only), None) => only,
            _ => at,
        }
    }
}

/// Cells are cut at ASCII bytes out of checked text, so they are UTF-8.
fn cell(record: &ByteRecord, at: usize) -> Result<&str, ReadError> {
    str::from_utf8(record.get(at).unwrap_or_default())
        .map_err(|e| ReadError::Io(std::io::Error::other(e)))
}

/// How many of the first records have an `@` in each column.
#[derive(Default)]
struct Counts {
    seen: usize,
    of: Vec<u32>,
}

impl Counts {
    fn see(&mut self, record: &ByteRecord) {
        if self.seen == SAMPLE_RECORDS {
            return;
        }
        self.seen += 1;
        for (at, cell) in record.iter().enumerate().take(PADDED_COLUMNS) {
            if self.of.len() == at {
                self.of.push(0);
            }
            self.of[at] += u32::from(cell.contains(&b'@'));
        }
    }

    /// A column with more of them than any of these.
    fn better_than(&self, columns: &[usize]) -> Option<usize> {
        let most = columns.iter().filter_map(|at| self.of.get(*at)).max().copied().unwrap_or(0);
        let (at, count) =
            self.of.iter().enumerate().max_by_key(|(at, count)| (**count, usize::MAX - at))?;
        (*count > most).then_some(at)
    }
}

/// Appends the record as one CSV line of at least `width` cells; `instead` says what stands in a cell.
fn write_record<'a>(
    line: &mut Vec<u8>,
    record: &ByteRecord,
    width: usize,
    delimiter: u8,
    instead: impl Fn(usize) -> Option<&'a str>,
) {
    if record.len() == 1 && record.as_slice().is_empty() {
        // An empty line would be no record at all.
        line.extend_from_slice(b"\"\"");
    }
    let plain = !needs_quotes(record.as_slice(), delimiter);
    for (i, field) in record.iter().enumerate() {
        if i > 0 {
            line.push(delimiter);
        }
        match instead(i) {
            Some(text) => write_field(line, text.as_bytes(), delimiter),
            None if plain => line.extend_from_slice(field),
            None => write_field(line, field, delimiter),
        }
    }
    line.extend(std::iter::repeat_n(delimiter, width.saturating_sub(record.len())));
}

/// The records of a list, bounded.
pub(super) trait Records {
    /// Reads the next record; `false` at the end.
    fn next(&mut self, record: &mut ByteRecord) -> Result<bool, ReadError>;
}

/// The records of a text.
struct Lines<R> {
    reader: Reader<Quotes<Guard<R>>>,
    /// Lines before the first record.
    skipped: u64,
    limit: usize,
}

impl<R: Read> Lines<R> {
    fn new(guard: Guard<R>, skipped: u64, delimiter: u8, limit: usize) -> Self {
        let reader = ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .delimiter(delimiter)
            .buffer_capacity(CHUNK)
            .from_reader(Quotes::new(guard, delimiter, skipped + 1));
        Self { reader, skipped, limit }
    }
}

impl<R: Read> Records for Lines<R> {
    fn next(&mut self, record: &mut ByteRecord) -> Result<bool, ReadError> {
        let start = self.reader.position().byte();
        let line = self.reader.position().line() + self.skipped;
        self.reader.get_ref().get_ref().record_starts(start, line);
        let more = self.reader.read_byte_record(record).map_err(|e| match e.into_kind() {
            ErrorKind::Io(e) => ReadError::from_io(e),
            other => ReadError::Io(std::io::Error::other(format!("{other:?}"))),
        })?;
        // What was consumed may include empty lines before the record, which are not counted.
        if self.reader.position().byte() - start > self.limit as u64
            && record.as_slice().len() + record.len() > self.limit
        {
            return Err(ReadError::LineTooLong { line, limit: self.limit });
        }
        Ok(more)
    }
}

/// Reads ahead as far as a look at the columns needs.
fn sample_of(records: &mut impl Records, sample: &mut Vec<ByteRecord>) -> Result<(), ReadError> {
    let mut bytes = 0;
    while sample.len() < SAMPLE_RECORDS && bytes < SAMPLE_BYTES {
        let mut record = ByteRecord::new();
        if !records.next(&mut record)? {
            break;
        }
        bytes += record.as_slice().len();
        sample.push(record);
    }
    Ok(())
}

/// The number of a column, from 0, that is called by its letters as in a spreadsheet.
fn lettered(column: &str, first: &ByteRecord) -> Option<usize> {
    let fits = (1..=3).contains(&column.len()) && column.bytes().all(|b| b.is_ascii_alphabetic());
    let digit = |b: u8| usize::from(b.to_ascii_uppercase() - b'A') + 1;
    let number =
        column.bytes().filter(|_| fits).fold(0, |number, letter| number * 26 + digit(letter));
    number.checked_sub(1).filter(|at| *at < first.len())
}

/// The most frequent candidate outside quotes in the first record; a comma if there is none.
fn sniff<R: Read>(guard: &mut Guard<R>, limit: usize) -> Result<u8, ReadError> {
    const CANDIDATES: [u8; 4] = *b",;\t|";
    let mut want = 4 << 10;
    loop {
        let bytes = guard.peek(want).map_err(ReadError::from_io)?;
        let (mut counts, mut quoted, mut begun, mut whole) = ([0u32; 4], false, false, false);
        for &b in bytes {
            match b {
                b'"' => quoted = !quoted,
                b'\n' | b'\r' if !quoted => {
                    whole = begun;
                    if whole {
                        break;
                    }
                    continue;
                }
                _ if !quoted => {
                    if let Some(i) = CANDIDATES.iter().position(|c| *c == b) {
                        counts[i] += 1;
                    }
                }
                _ => {}
            }
            begun = true;
        }
        if whole || bytes.len() < want || want >= limit {
            let most = counts.iter().copied().max().unwrap_or_default();
            let winner = counts.iter().position(|c| *c == most).unwrap_or_default();
            return Ok(CANDIDATES[winner]);
        }
        want *= 2;
    }
}

/// Is the first record a header? One that names its column must have one.
fn is_header(first: &ByteRecord, column: Option<&str>) -> bool {
    let is_cell = |name: &str| {
        let wanted = name.to_lowercase();
        first.iter().any(|cell| text_of(cell).trim().to_lowercase() == wanted)
    };
    let names_header = |name: &str| {
        let is_number = name == "*" || name.parse::<usize>().is_ok();
        !is_number && (is_cell(name) || lettered(name, first).is_none())
    };
    let named = column.is_some_and(|column| {
        is_cell(column) || column.split(',').map(str::trim).any(names_header)
    });
    named || !first.as_slice().contains(&b'@')
}

/// The columns with these headers, numbers from 1, or letters; several have commas between them.
fn named_columns(
    column: &str,
    first: &ByteRecord,
    has_header: bool,
) -> Result<Vec<usize>, ReadError> {
    let unknown = |column: &str| ReadError::ColumnNotFound {
        column: shorten(column),
        columns: name_all(first),
    };
    if let Some(at) = named_column(column, first, has_header) {
        return Ok(vec![at]);
    }
    let mut columns = Vec::new();
    for part in column.split(',').map(str::trim) {
        let at = named_column(part, first, has_header).ok_or_else(|| unknown(part))?;
        if !columns.contains(&at) {
            columns.push(at);
        }
    }
    if columns.len() > COLUMNS {
        let problem = format!("names more than {COLUMNS} columns");
        return Err(ReadError::InvalidField { name: "column", problem });
    }
    Ok(columns)
}

fn named_column(column: &str, first: &ByteRecord, has_header: bool) -> Option<usize> {
    let wanted = column.to_lowercase();
    let by_name = || first.iter().position(|cell| text_of(cell).trim().to_lowercase() == wanted);
    let by_number =
        || column.parse::<usize>().ok()?.checked_sub(1).filter(|number| *number < first.len());
    let named = if has_header { by_name() } else { None };
    named.or_else(by_number).or_else(|| lettered(column, first))
}

/// By the list's own words; a results file that comes back has an address where it had one.
fn header_column(header: &ByteRecord) -> Option<usize> {
    headers::find(header.iter().map(text_of))
}

/// Columns with an address in at least a tenth as many records as the fullest has.
fn columns_with_addresses(sample: &[ByteRecord]) -> Vec<usize> {
    let mut counts = Counts::default();
    sample.iter().for_each(|record| counts.see(record));
    let most = counts.of.iter().copied().max().unwrap_or(0);
    let all = counts.of.iter().enumerate();
    all.filter(|(_, count)| **count > 0 && **count * 10 >= most)
        .map(|(at, _)| at)
        .take(COLUMNS)
        .collect()
}

/// The column with an `@` in most records, the first of equals.
fn fullest_column(sample: &[ByteRecord]) -> Option<usize> {
    let mut counts = Vec::new();
    for record in sample {
        for (i, cell) in record.iter().enumerate() {
            if counts.len() == i {
                counts.push(0u32);
            }
            counts[i] += u32::from(cell.contains(&b'@'));
        }
    }
    let most = counts.iter().copied().max().filter(|most| *most > 0)?;
    counts.iter().position(|count| *count == most)
}

fn name_all(record: &ByteRecord) -> String {
    let mut names: Vec<String> = record
        .iter()
        .take(NAMED_COLUMNS)
        .map(|cell| format!("\"{}\"", shorten(text_of(cell).trim())))
        .collect();
    if record.len() > NAMED_COLUMNS {
        names.push(format!("and {} more", record.len() - NAMED_COLUMNS));
    }
    names.join(", ")
}

fn text_of(cell: &[u8]) -> &str {
    str::from_utf8(cell).unwrap_or_default()
}

//! Lists as separated values, in the manner that spreadsheets and CRMs write them.
//!
//! Found out from the list itself unless given: the delimiter (the first record's most frequent
//! one of `,` `;` tab `|`), the header (a first record without any `@`) and the address column
//! (by its header, else by where the `@` signs are in the first records).
//!
//! A record shorter than the first is padded with empty cells, so that columns appended to its
//! line stand where they belong; a longer one is kept as it is.

use std::io::Read;

use csv::{ByteRecord, ErrorKind, Reader, ReaderBuilder};

use super::error::shorten;
use super::guard::{CHUNK, Guard};
use super::{Intake, ReadError, needs_quotes, write_field};

/// Records that are looked at to find the address column.
const SAMPLE_RECORDS: usize = 100;
/// …and their bytes, whichever is reached first.
const SAMPLE_BYTES: usize = 1 << 20;
/// Padding stops at this width: a list of commas followed by tiny rows must not multiply.
pub(super) const PADDED_COLUMNS: usize = 256;
/// Columns named in a message.
const NAMED_COLUMNS: usize = 20;

/// Headers of address columns, letters and digits only; the first that is there wins.
const HEADERS: [&str; 24] = [
    "email",
    "emailaddress",
    "mailaddress",
    "mail",
    "emails",
    "emailaddr",
    "emailid",
    "email1",
    "email1value",
    "emailaddress1",
    "primaryemail",
    "primaryemailaddress",
    "workemail",
    "businessemail",
    "contactemail",
    "useremail",
    "customeremail",
    "subscriberemail",
    "personalemail",
    "emailadresse",
    "mailadresse",
    "correo",
    "correoelectrónico",
    "courriel",
];

/// Reads the records into the intake; returns the header, if there is one.
pub(super) fn read<R: Read>(
    column: Option<&str>,
    delimiter: Option<u8>,
    mut guard: Guard<R>,
    intake: &mut Intake,
) -> Result<Option<Vec<u8>>, ReadError> {
    intake.delimiter = match delimiter {
        None => sniff(&mut guard, intake.limits.line_bytes)?,
        Some(d) if d.is_ascii() && !d.is_ascii_alphanumeric() && !b"\0\"\r\n@".contains(&d) => d,
        Some(_) => {
            let problem = "must be one character such as , or ; that no address needs".to_owned();
            return Err(ReadError::InvalidField { name: "delimiter", problem });
        }
    };
    let mut lines = Lines::new(guard, intake.delimiter, intake.limits.line_bytes);
    Ok(take_all(&mut lines, column, intake)?.header)
}

/// What was found out of a table.
pub(super) struct Table {
    /// The header as one line, if there is one.
    pub header: Option<Vec<u8>>,
    /// The column with the addresses, from 0.
    pub column: usize,
}

/// Takes all records into the intake.
pub(super) fn take_all(
    records: &mut impl Records,
    column: Option<&str>,
    intake: &mut Intake,
) -> Result<Table, ReadError> {
    let mut record = ByteRecord::new();
    if !records.next(&mut record)? {
        return Err(ReadError::EmptyList);
    }
    let first = record.clone();
    let number =
        column.filter(|_| records.has_letters()).and_then(|column| lettered(column, &first));
    let column = number.as_deref().or(column);
    let has_header = is_header(&first, column);
    let mut sample = Vec::new();
    if !has_header {
        sample.push(first.clone());
    }
    let at = match column.map(str::trim).filter(|c| !c.is_empty()) {
        Some(column) => named_column(column, &first, has_header)?,
        None => match if has_header { header_column(&first) } else { None } {
            Some(at) => at,
            None => {
                sample_of(records, &mut sample)?;
                fullest_column(&sample)
                    .ok_or_else(|| ReadError::NoAddressColumn { columns: name_all(&first) })?
            }
        },
    };
    let width = first.len().min(PADDED_COLUMNS);
    for record in &sample {
        take(record, at, width, intake)?;
    }
    drop(sample);
    while records.next(&mut record)? {
        take(&record, at, width, intake)?;
    }
    let mut line = Vec::new();
    write_record(&mut line, &first, width, intake.delimiter);
    Ok(Table { header: has_header.then_some(line), column: at })
}

fn take(
    record: &ByteRecord,
    at: usize,
    width: usize,
    intake: &mut Intake,
) -> Result<(), ReadError> {
    // Cells are cut at ASCII bytes out of checked text, so they are UTF-8.
    let cell = str::from_utf8(record.get(at).unwrap_or_default())
        .map_err(|e| ReadError::Io(std::io::Error::other(e)))?;
    let delimiter = intake.delimiter;
    intake.row(cell, |line| write_record(line, record, width, delimiter))
}

/// Appends the record as one CSV line of at least `width` cells.
fn write_record(line: &mut Vec<u8>, record: &ByteRecord, width: usize, delimiter: u8) {
    if record.len() == 1 && record.as_slice().is_empty() {
        // An empty line would be no record at all.
        line.extend_from_slice(b"\"\"");
    }
    let plain = !needs_quotes(record.as_slice(), delimiter);
    for (i, field) in record.iter().enumerate() {
        if i > 0 {
            line.push(delimiter);
        }
        if plain {
            line.extend_from_slice(field);
        } else {
            write_field(line, field, delimiter);
        }
    }
    line.extend(std::iter::repeat_n(delimiter, width.saturating_sub(record.len())));
}

/// The records of a list, bounded.
pub(super) trait Records {
    /// Reads the next record; `false` at the end.
    fn next(&mut self, record: &mut ByteRecord) -> Result<bool, ReadError>;

    /// Do people call its columns A, B, C?
    fn has_letters(&self) -> bool {
        false
    }
}

/// The records of a text.
struct Lines<R> {
    reader: Reader<Guard<R>>,
    limit: usize,
}

impl<R: Read> Lines<R> {
    fn new(guard: Guard<R>, delimiter: u8, limit: usize) -> Self {
        let reader = ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .delimiter(delimiter)
            .buffer_capacity(CHUNK)
            .from_reader(guard);
        Self { reader, limit }
    }
}

impl<R: Read> Records for Lines<R> {
    fn next(&mut self, record: &mut ByteRecord) -> Result<bool, ReadError> {
        let (start, line) = (self.reader.position().byte(), self.reader.position().line());
        self.reader.get_ref().record_starts(start, line);
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

/// The number of a column that is called by its letters, unless a header is called so.
fn lettered(column: &str, first: &ByteRecord) -> Option<String> {
    let letters = column.trim();
    let is_header = first.iter().any(|cell| text_of(cell).trim().eq_ignore_ascii_case(letters));
    let fits = (1..=3).contains(&letters.len()) && letters.bytes().all(|b| b.is_ascii_alphabetic());
    let number = |letters: &str| {
        let digit = |b: u8| usize::from(b.to_ascii_uppercase() - b'A') + 1;
        letters.bytes().fold(0, |number, letter| number * 26 + digit(letter))
    };
    let number = Some(letters).filter(|_| fits && !is_header).map(number)?;
    (number <= first.len()).then(|| number.to_string())
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
    let named = column.is_some_and(|c| !c.trim().is_empty() && c.trim().parse::<usize>().is_err());
    named || !first.as_slice().contains(&b'@')
}

/// The column with this header, or with this number from 1.
fn named_column(column: &str, first: &ByteRecord, has_header: bool) -> Result<usize, ReadError> {
    let wanted = column.to_lowercase();
    let by_name = first.iter().position(|cell| text_of(cell).trim().to_lowercase() == wanted);
    let by_number =
        || column.parse::<usize>().ok()?.checked_sub(1).filter(|number| *number < first.len());
    by_name.filter(|_| has_header).or_else(by_number).ok_or_else(|| ReadError::ColumnNotFound {
        column: shorten(column),
        columns: name_all(first),
    })
}

fn header_column(header: &ByteRecord) -> Option<usize> {
    let names: Vec<String> = header
        .iter()
        .map(|cell| text_of(cell).to_lowercase().chars().filter(|c| c.is_alphanumeric()).collect())
        .collect();
    HEADERS.iter().find_map(|wanted| names.iter().position(|name| name == wanted))
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

//! The submitted file, read block by block, each with the results of its addresses: what CSV, XLSX and
//! ZIP are made of.
//!
//! A reader of its own is ahead by a block at most. [`Walk`] gives the rows that are wanted, in the file's
//! order: a row whose address was seen before is a duplicate, which has the verdict and cost nothing.

use std::borrow::Cow;

use listmill_shared::domain::clock::Millis;
use listmill_shared::domain::id::TaskId;
use listmill_shared::domain::payload::{Row, Rows, decode_rows};
use listmill_shared::domain::result_filter::ResultFilter;
use listmill_shared::domain::verdict::Credit;
use listmill_shared::store::results::{Found, Layout};
use listmill_shared::store::tasks::Manner;
use listmill_shared::store::{Store, StoreError};
use tokio::sync::mpsc;

/// Blocks that wait to be written, beside the one that is being written.
const AHEAD: usize = 1;

/// Our columns; the prefix keeps them apart from the list's own.
pub const COLUMNS: [&str; 12] = [
    "listmill_status",
    "listmill_reason",
    "listmill_score",
    "listmill_role",
    "listmill_free",
    "listmill_disposable",
    "listmill_catch_all",
    "listmill_did_you_mean",
    "listmill_mx",
    "listmill_smtp_code",
    "listmill_credit",
    "listmill_checked_at",
];

/// The first line of the file, and how its lines are written.
///
/// A results file that was submitted has columns of ours already: they are left out, so that it has one set of them.
#[derive(Debug, Clone)]
pub struct Head {
    /// One CSV line, without terminator and columns of ours.
    pub line: Vec<u8>,
    pub delimiter: u8,
    /// The file begins with a byte order mark.
    pub bom: bool,
    /// Its lines end with CR and LF.
    pub crlf: bool,
    /// Cells of the submitted header.
    width: usize,
    /// Those of ours among them, ascending.
    ours: Vec<usize>,
}

/// A record, cut where our columns belong.
#[derive(Debug)]
pub struct Shaped<'a> {
    /// The cells that have a header.
    pub own: Cow<'a, [u8]>,
    /// Cells behind the last header: ours stand before them, below their own headers.
    pub extra: Option<Vec<u8>>,
}

impl Head {
    /// The submitted header. A list without one gets one.
    pub async fn read(store: &Store, task: TaskId) -> Result<Self, StoreError> {
        let Manner { header, delimiter, bom, crlf } = store.task_manner(task).await?;
        let mut head = Self { bom, crlf, ..Self::new(header.unwrap_or_default(), delimiter) };
        if !head.line.is_empty() {
            return Ok(head);
        }
        let first = read_chunk(store, task, &mut None, 0).await?;
        let line = match first.as_ref().and_then(|chunk| chunk.rows.iter().next()) {
            Some(Row::Blank(line) | Row::Record(_, line)) => made_header(line, delimiter),
            Some(Row::Address(_)) | None => made_header(&[], delimiter),
        };
        head.width = cells(&line, delimiter).count();
        head.line = line;
        Ok(head)
    }

    /// Of a file with this header, in the manner that files have unless another is known.
    pub fn new(line: Vec<u8>, delimiter: u8) -> Self {
        let is_ours = |cell: &[u8]| COLUMNS.iter().any(|column| column.as_bytes() == cell);
        let names = cells(&line, delimiter).enumerate();
        let ours = names.filter(|(_, name)| is_ours(name)).map(|(at, _)| at).collect();
        let width = cells(&line, delimiter).count();
        let mut head = Self { line, delimiter, bom: false, crlf: true, width, ours };
        if !head.ours.is_empty() {
            head.line = head.shape(&head.line).own.into_owned();
        }
        head
    }

    /// What ends a line.
    pub fn line_end(&self) -> &'static [u8] {
        if self.crlf { b"\r\n" } else { b"\n" }
    }

    /// Cuts a record.
    pub fn shape<'a>(&self, record: &'a [u8]) -> Shaped<'a> {
        // Nearly every record has the cells of the header, or is quoted and has fewer than it seems.
        let may_be_longer = record.iter().filter(|b| **b == self.delimiter).count() >= self.width;
        if self.ours.is_empty() && !may_be_longer {
            return Shaped { own: Cow::Borrowed(record), extra: None };
        }
        let (mut own, mut extra) = (Vec::with_capacity(record.len()), Vec::new());
        let (mut kept, mut beyond) = (0, 0);
        for (at, cell) in cells(record, self.delimiter).enumerate() {
            let (into, count) = match at < self.width {
                true if self.ours.binary_search(&at).is_ok() => continue,
                true => (&mut own, &mut kept),
                false => (&mut extra, &mut beyond),
            };
            if *count > 0 {
                into.push(self.delimiter);
            }
            *count += 1;
            write_cell(into, &cell, self.delimiter);
        }
        match (self.ours.is_empty(), beyond) {
            (true, 0) => Shaped { own: Cow::Borrowed(record), extra: None },
            (_, beyond) => Shaped { own: Cow::Owned(own), extra: (beyond > 0).then_some(extra) },
        }
    }
}

/// Appends a cell, quoted where it must be.
pub fn write_cell(out: &mut Vec<u8>, cell: &[u8], delimiter: u8) {
    if !cell.iter().any(|b| *b == delimiter || matches!(b, b'"' | b'\r' | b'\n')) {
        out.extend_from_slice(cell);
        return;
    }
    out.push(b'"');
    for b in cell {
        if *b == b'"' {
            out.push(b'"');
        }
        out.push(*b);
    }
    out.push(b'"');
}

/// `email`, or numbered columns.
fn made_header(first_line: &[u8], delimiter: u8) -> Vec<u8> {
    let columns = cells(first_line, delimiter).count();
    if columns == 1 {
        return b"email".to_vec();
    }
    let names: Vec<String> = (1..=columns).map(|no| format!("column_{no}")).collect();
    names.join(&char::from(delimiter).to_string()).into_bytes()
}

/// A block of the submitted file, with the results of its addresses.
pub struct Chunk {
    pub rows: Rows,
    /// By `seq`.
    pub found: Vec<Found>,
    /// Those of rows that are nothing but an address without a result yet, by `seq`.
    pub addresses: Vec<(i64, String)>,
}

impl Chunk {
    fn found(&self, seq: i64) -> Option<&Found> {
        let at = self.found.binary_search_by_key(&seq, |found| found.seq).ok()?;
        self.found.get(at)
    }

    fn address(&self, seq: i64) -> Option<&str> {
        let at = self.addresses.binary_search_by_key(&seq, |(seq, _)| *seq).ok()?;
        self.addresses.get(at).map(|(_, address)| address.as_str())
    }
}

/// The blocks, in order. Who drops the receiver ends the reading.
pub fn chunks(store: &Store, task: TaskId) -> mpsc::Receiver<Result<Chunk, StoreError>> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    tokio::spawn(read_chunks(store.clone(), task, sender));
    receiver
}

async fn read_chunks(store: Store, task: TaskId, sender: mpsc::Sender<Result<Chunk, StoreError>>) {
    let mut layout = None;
    for no in 0.. {
        let read = read_chunk(&store, task, &mut layout, no).await;
        let Some(chunk) = read.transpose() else { return };
        let failed = chunk.is_err();
        if sender.send(chunk).await.is_err() || failed {
            return;
        }
    }
}

/// `layout`: read where it is needed for the first time.
async fn read_chunk(
    store: &Store,
    task: TaskId,
    layout: &mut Option<Layout>,
    no: i32,
) -> Result<Option<Chunk>, StoreError> {
    let Some(payload) = store.task_rows(task, no).await? else { return Ok(None) };
    let rows = decode_rows(&payload)
        .map_err(|e| StoreError::Damaged { what: "rows of a list", detail: e.to_string() })?;
    let mut seqs: Vec<i64> = rows.iter().filter_map(|row| Some(row.seq()? as i64)).collect();
    seqs.sort_unstable();
    seqs.dedup();
    let run = last_run(&seqs);
    let (earlier, run) = seqs.split_at(seqs.len() - run);
    // Addresses of earlier blocks first, so that all is in order.
    let mut found = Vec::new();
    if !earlier.is_empty() {
        found = store.results_at(task, known(layout, store, task).await?, earlier).await?;
    }
    if let (Some(first), Some(last)) = (run.first(), run.last()) {
        found.extend(store.results(task, first - 1, last - first + 1, None).await?);
    }
    let mut chunk = Chunk { rows, found, addresses: Vec::new() };
    let bare = chunk.rows.iter().filter_map(|row| match row {
        Row::Address(seq) => Some(seq as i64),
        Row::Blank(_) | Row::Record(..) => None,
    });
    let mut unknown: Vec<i64> = bare.filter(|seq| chunk.found(*seq).is_none()).collect();
    unknown.sort_unstable();
    unknown.dedup();
    if !unknown.is_empty() {
        let layout = known(layout, store, task).await?;
        chunk.addresses = store.addresses_at(task, layout, &unknown).await?;
    }
    Ok(Some(chunk))
}

async fn known<'a>(
    layout: &'a mut Option<Layout>,
    store: &Store,
    task: TaskId,
) -> Result<&'a Layout, StoreError> {
    match layout {
        Some(layout) => Ok(layout),
        None => Ok(layout.insert(store.layout(task).await?)),
    }
}

/// How many at the end follow each other without a gap. New addresses of a block do: they are read
/// as one range, and only what repeats earlier ones is asked for one by one.
fn last_run(seqs: &[i64]) -> usize {
    let whole = seqs.windows(2).rev().take_while(|pair| pair[0] + 1 == pair[1]).count();
    if seqs.is_empty() { 0 } else { whole + 1 }
}

/// One row of the file.
pub struct Line<'a> {
    /// What was submitted, as one CSV line without terminator.
    pub record: &'a [u8],
    /// The result of its address, if it has one yet.
    pub found: Option<&'a Found>,
    /// Was its address not seen before?
    pub first: bool,
}

impl<'a> Line<'a> {
    /// Our cells; all empty without a result.
    pub fn ours(&self) -> [Cell<'a>; COLUMNS.len()] {
        let Some(found) = self.found else { return [Cell::Empty; COLUMNS.len()] };
        let credit = if self.first { found.credit } else { Credit::Free };
        let flags = found.flags;
        let flag = |flag: Option<bool>| match flag {
            None => Cell::Empty,
            Some(true) => Cell::Text("true"),
            Some(false) => Cell::Text("false"),
        };
        let text = |text: &'a Option<String>| text.as_deref().map_or(Cell::Empty, Cell::Text);
        [
            Cell::Text(found.reason.status().as_str()),
            Cell::Text(found.reason.as_str()),
            Cell::Number(found.score),
            flag(flags.role),
            flag(flags.free),
            flag(flags.disposable),
            flag(flags.catch_all),
            text(&found.did_you_mean),
            text(&found.mx),
            found.smtp_code.map_or(Cell::Empty, Cell::Number),
            Cell::Text(credit.as_str()),
            Cell::Time(found.checked_at),
        ]
    }
}

/// A cell of ours.
#[derive(Debug, Clone, Copy)]
pub enum Cell<'a> {
    Empty,
    Text(&'a str),
    Number(i16),
    Time(Millis),
}

/// Goes through the file once.
pub struct Walk {
    /// The first `seq` that has not been seen: a row below it is a duplicate.
    next: i64,
    /// Only rows whose result fits.
    filter: Option<ResultFilter>,
}

impl Walk {
    pub fn new(filter: Option<ResultFilter>) -> Self {
        Self { next: 0, filter }
    }

    /// The next block's rows that are wanted.
    pub fn lines<'a>(&'a mut self, chunk: &'a Chunk) -> impl Iterator<Item = Line<'a>> {
        chunk.rows.iter().filter_map(|row| {
            let seq = row.seq().map(|seq| seq as i64);
            let first = seq.is_some_and(|seq| seq >= self.next);
            if let (true, Some(seq)) = (first, seq) {
                self.next = seq + 1;
            }
            let found = seq.and_then(|seq| chunk.found(seq));
            if let Some(filter) = &self.filter
                && !found.is_some_and(|found| filter.fits(found.reason, found.flags))
            {
                return None;
            }
            let record = match (row, found) {
                (Row::Blank(line) | Row::Record(_, line), _) => line,
                (Row::Address(_), Some(found)) => found.address.as_bytes(),
                (Row::Address(seq), None) => {
                    chunk.address(seq as i64).map_or(&[][..], str::as_bytes)
                }
            };
            Some(Line { record, found, first })
        })
    }
}

/// The cells of a record. It was written by us, so a cell with quotes in it is quoted.
pub fn cells(record: &[u8], delimiter: u8) -> impl Iterator<Item = Cow<'_, [u8]>> {
    let mut rest = Some(record);
    std::iter::from_fn(move || {
        let (cell, behind) = cut(rest?, delimiter);
        rest = behind;
        Some(cell)
    })
}

/// The first cell, and what is behind its delimiter.
fn cut(record: &[u8], delimiter: u8) -> (Cow<'_, [u8]>, Option<&[u8]>) {
    let plain = |bytes| split(bytes, delimiter);
    let Some(mut quoted) = record.strip_prefix(b"\"") else {
        let (cell, behind) = plain(record);
        return (Cow::Borrowed(cell), behind);
    };
    let mut cell = Vec::new();
    while let (inside, Some(behind)) = split(quoted, b'"') {
        cell.extend_from_slice(inside);
        match behind.strip_prefix(b"\"") {
            Some(more) => {
                cell.push(b'"');
                quoted = more;
            }
            None => {
                let (tail, behind) = plain(behind);
                cell.extend_from_slice(tail);
                return (Cow::Owned(cell), behind);
            }
        }
    }
    // Never closed.
    cell.extend_from_slice(quoted);
    (Cow::Owned(cell), None)
}

/// What is before the first such byte, and behind it.
fn split(bytes: &[u8], at: u8) -> (&[u8], Option<&[u8]>) {
    match bytes.iter().position(|b| *b == at) {
        Some(place) => (&bytes[..place], bytes.get(place + 1..)),
        None => (bytes, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(record: &str) -> Vec<String> {
        let text = |cell: Cow<'_, [u8]>| String::from_utf8(cell.into_owned()).unwrap();
        cells(record.as_bytes(), b',').map(text).collect()
    }

    #[test]
    fn a_list_without_a_header_gets_one() {
        assert_eq!(made_header(b"a@example.com", b','), b"email");
        assert_eq!(made_header(b"", b','), b"email");
        assert_eq!(made_header(b"\"a,b\"@example.com", b';'), b"email");
        assert_eq!(made_header(b"1;\"x;y\";a@example.com", b';'), b"column_1;column_2;column_3");
    }

    #[test]
    fn a_record_is_cut_where_our_columns_belong() {
        let head = Head::new(b"id;mail".to_vec(), b';');
        let shape = |head: &Head, record: &str| {
            let Shaped { own, extra } = head.shape(record.as_bytes());
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            (text(&own), extra.map(|extra| text(&extra)))
        };
        assert_eq!(shape(&head, "1;a"), ("1;a".into(), None));
        assert_eq!(shape(&head, "1;\"a;b\""), ("1;\"a;b\"".into(), None));
        assert_eq!(shape(&head, "1;a;x;\"y;z\""), ("1;a".into(), Some("x;\"y;z\"".into())));
        // A results file that comes back.
        let header = b"id,listmill_status,mail,listmill_reason,note".to_vec();
        let head = Head::new(header, b',');
        assert_eq!(head.line, b"id,mail,note");
        assert_eq!(shape(&head, "1,risky,a,catch_all,\"n,\"\"\""), ("1,a,\"n,\"\"\"".into(), None));
        assert_eq!(shape(&head, "1,,a,,,more"), ("1,a,".into(), Some("more".into())));
    }

    #[test]
    fn new_addresses_are_read_as_one_range() {
        assert_eq!(last_run(&[]), 0);
        assert_eq!(last_run(&[7]), 1);
        assert_eq!(last_run(&[1, 2, 5, 6, 7]), 3);
        assert_eq!(last_run(&[5, 6, 7]), 3);
    }

    #[test]
    fn records_have_the_cells_that_a_reader_of_csv_finds() {
        for record in [
            "a,b",
            "a,,b,",
            ",",
            "\"\"",
            "\"a,b\",\"say \"\"hi\"\"\",\"two\r\nlines\"",
            "\"\",x,\"\"\"\"",
            " \u{a0}a ,\tb",
            "x\"y,z",
            "\"a\"tail,b",
        ] {
            let mut reader =
                csv::ReaderBuilder::new().has_headers(false).from_reader(record.as_bytes());
            let wanted = reader.records().next().unwrap().unwrap();
            assert_eq!(texts(record), wanted.iter().collect::<Vec<_>>(), "{record:?}");
        }
        assert_eq!(texts(""), [""]);
        assert_eq!(texts("\"open,b"), ["open,b"]);
    }
}

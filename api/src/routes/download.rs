//! Results as files, streamed: a task of its own reads ahead by a few pages at most, which the
//! connection turns into bytes as its reader takes them. So neither the size of the task nor a slow
//! reader grows the process. [`csv_file`] and [`ndjson_file`] are the bytes alone, for who writes them
//! elsewhere than into a response.

use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use listmill_shared::domain::id::TaskId;
use listmill_shared::domain::payload::{Row, Rows, decode_rows};
use listmill_shared::domain::task::Task;
use listmill_shared::domain::verdict::{Credit, Reason};
use listmill_shared::store::results::{Found, Layout};
use listmill_shared::store::{Store, StoreError};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::problem::Problem;
use crate::view::{write_number, write_result, write_stamp};

/// Results read at once.
const PAGE: i64 = 5_000;
/// Pages read at the same time.
const AT_ONCE: usize = 2;
/// Pages that wait for the connection, beside the one that is being sent.
const AHEAD: usize = 1;

/// Our columns of a CSV; the prefix keeps them apart from the list's own.
const COLUMNS: [&str; 12] = [
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

/// One result a line.
pub fn ndjson(store: &Store, task: &Task, reasons: Option<Vec<Reason>>) -> Response {
    let lines = ndjson_file(store, task, reasons);
    file(task, "ndjson", "application/x-ndjson", Body::from_stream(lines))
}

/// One result a line, in `seq` order, of those that are there (`reasons` = only these).
pub fn ndjson_file(
    store: &Store,
    task: &Task,
    reasons: Option<Vec<Reason>>,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let (sender, receiver) = mpsc::channel(AHEAD);
    let addresses = task.submitted.unique;
    tokio::spawn(read_results(store.clone(), task.id, addresses, reasons, sender));
    ReceiverStream::new(receiver).map(|page| {
        let page: Vec<Found> = page.map_err(broken)?;
        let mut out = Vec::with_capacity(page.len() * 320);
        for found in &page {
            write_result(&mut out, found);
            out.push(b'\n');
        }
        Ok(Bytes::from(out))
    })
}

/// Reads pages in `seq` order, [`AT_ONCE`] of them at a time. Each is read by a task of its own, so
/// that no connection to the database waits for a slow reader.
async fn read_results(
    store: Store,
    task: TaskId,
    addresses: i64,
    reasons: Option<Vec<Reason>>,
    sender: mpsc::Sender<Result<Vec<Found>, StoreError>>,
) {
    if reasons.as_ref().is_some_and(Vec::is_empty) {
        return;
    }
    let reasons = Arc::new(reasons);
    let mut pages = stream::iter((0..addresses).step_by(PAGE as usize))
        .map(|from| {
            let (store, reasons) = (store.clone(), reasons.clone());
            tokio::spawn(async move {
                store.results_between(task, from, from + PAGE, reasons.as_deref()).await
            })
        })
        .buffered(AT_ONCE);
    while let Some(page) = pages.next().await {
        let page = page.unwrap_or(Err(StoreError::Away));
        if page.as_ref().is_ok_and(Vec::is_empty) {
            continue;
        }
        let failed = page.is_err();
        // Refused: the reader has gone away.
        if sender.send(page).await.is_err() || failed {
            return;
        }
    }
}

/// A block of the submitted file, with the results of its addresses.
struct Chunk {
    rows: Rows,
    /// By `seq`.
    found: Vec<Found>,
    /// Those of rows that are nothing but an address without a result yet, by `seq`.
    addresses: Vec<(i64, String)>,
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

/// The submitted file with our columns added.
pub async fn csv(
    store: &Store,
    task: &Task,
    reasons: Option<Vec<Reason>>,
) -> Result<Response, Problem> {
    let whole = csv_file(store, task, reasons).await?;
    Ok(file(task, "csv", "text/csv; charset=utf-8; header=present", Body::from_stream(whole)))
}

/// The submitted file with our columns added: its order, columns, duplicate rows and delimiter; empty
/// cells where there is no result yet (`reasons` = only rows whose result has one of these).
pub async fn csv_file(
    store: &Store,
    task: &Task,
    reasons: Option<Vec<Reason>>,
) -> Result<impl Stream<Item = io::Result<Bytes>> + Send + 'static, StoreError> {
    let (header, delimiter) = store.task_header(task.id).await?;
    let header = match header {
        Some(header) => header,
        None => {
            let first = read_chunk(store, task.id, &mut None, 0).await?;
            match first.as_ref().and_then(|chunk| chunk.rows.iter().next()) {
                Some(Row::Blank(line) | Row::Record(_, line)) => made_header(line, delimiter),
                Some(Row::Address(_)) | None => made_header(&[], delimiter),
            }
        }
    };
    let mut table = Table { delimiter, next: 0, reasons };
    let head = table.head(header);
    let (sender, receiver) = mpsc::channel(AHEAD);
    tokio::spawn(read_chunks(store.clone(), task.id, sender));
    let blocks = ReceiverStream::new(receiver)
        .map(move |chunk| Ok::<_, io::Error>(Bytes::from(table.block(&chunk.map_err(broken)?))));
    Ok(stream::iter([Ok(Bytes::from(head))]).chain(blocks))
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

/// A list without a header gets one: `email`, or numbered columns.
fn made_header(first_line: &[u8], delimiter: u8) -> Vec<u8> {
    let mut reader =
        csv::ReaderBuilder::new().has_headers(false).delimiter(delimiter).from_reader(first_line);
    let mut record = csv::ByteRecord::new();
    let columns = match reader.read_byte_record(&mut record) {
        Ok(true) => record.len(),
        _ => 1,
    };
    if columns == 1 {
        return b"email".to_vec();
    }
    let names: Vec<String> = (1..=columns).map(|no| format!("column_{no}")).collect();
    names.join(&char::from(delimiter).to_string()).into_bytes()
}

/// Writes the file, block by block.
struct Table {
    delimiter: u8,
    /// The first `seq` that has not been seen: a row below it is a duplicate.
    next: i64,
    reasons: Option<Vec<Reason>>,
}

impl Table {
    fn head(&self, mut header: Vec<u8>) -> Vec<u8> {
        for column in COLUMNS {
            header.push(self.delimiter);
            header.extend_from_slice(column.as_bytes());
        }
        header.extend_from_slice(b"\r\n");
        header
    }

    fn block(&mut self, chunk: &Chunk) -> Vec<u8> {
        let mut out = Vec::with_capacity(chunk.rows.len() * 160);
        for row in chunk.rows.iter() {
            let seq = row.seq().map(|seq| seq as i64);
            let first = seq.is_some_and(|seq| seq >= self.next);
            if let (true, Some(seq)) = (first, seq) {
                self.next = seq + 1;
            }
            let found = seq.and_then(|seq| chunk.found(seq));
            if let Some(reasons) = &self.reasons
                && !found.is_some_and(|found| reasons.contains(&found.reason))
            {
                continue;
            }
            out.extend_from_slice(match (row, found) {
                (Row::Blank(line) | Row::Record(_, line), _) => line,
                (Row::Address(_), Some(found)) => found.address.as_bytes(),
                (Row::Address(seq), None) => {
                    chunk.address(seq as i64).map_or(&[], |address| address.as_bytes())
                }
            });
            match found {
                Some(found) => self.cells(&mut out, found, first),
                None => out.extend(std::iter::repeat_n(self.delimiter, COLUMNS.len())),
            }
            out.extend_from_slice(b"\r\n");
        }
        out
    }

    fn cells(&self, out: &mut Vec<u8>, found: &Found, first: bool) {
        let delimiter = self.delimiter;
        let mut text = |text: &str| {
            out.push(delimiter);
            write_field(out, text, delimiter);
        };
        text(found.reason.status().as_str());
        text(found.reason.as_str());
        out.push(delimiter);
        write_number(out, found.score);
        let flags = found.flags;
        for flag in [flags.role, flags.free, flags.disposable, flags.catch_all] {
            out.push(delimiter);
            out.extend_from_slice(match flag {
                None => b"",
                Some(true) => b"true",
                Some(false) => b"false",
            });
        }
        for text in [&found.did_you_mean, &found.mx] {
            out.push(delimiter);
            write_field(out, text.as_deref().unwrap_or(""), delimiter);
        }
        out.push(delimiter);
        if let Some(code) = found.smtp_code {
            write_number(out, code);
        }
        out.push(delimiter);
        let credit = if first { found.credit } else { Credit::Free };
        out.extend_from_slice(credit.as_str().as_bytes());
        out.push(delimiter);
        write_stamp(out, found.checked_at);
    }
}

/// One cell, quoted where it must be.
fn write_field(out: &mut Vec<u8>, text: &str, delimiter: u8) {
    if !text.bytes().any(|b| b == delimiter || matches!(b, b'"' | b'\r' | b'\n')) {
        out.extend_from_slice(text.as_bytes());
        return;
    }
    out.push(b'"');
    for b in text.bytes() {
        if b == b'"' {
            out.push(b'"');
        }
        out.push(b);
    }
    out.push(b'"');
}

/// The answer has begun, so all that is left is to break it off: its reader sees that it is short.
fn broken(error: StoreError) -> io::Error {
    tracing::error!(%error, "download broken off");
    io::Error::other("the download cannot be completed")
}

fn file(task: &Task, extension: &str, kind: &'static str, body: Body) -> Response {
    let name = format!("attachment; filename=\"{}\"", file_name(task, extension));
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if let Ok(name) = HeaderValue::from_str(&name) {
        response.headers_mut().insert(CONTENT_DISPOSITION, name);
    }
    response
}

/// The task's name, as far as every file system takes it; its id where nothing is left.
fn file_name(task: &Task, extension: &str) -> String {
    let name = task.name.as_deref().unwrap_or("");
    let plain: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '.') { c } else { '_' })
        .take(80)
        .collect();
    let plain = plain.trim_matches(|c| matches!(c, '_' | '.' | '-'));
    let stem = ["csv", "tsv", "txt", "json", "ndjson"]
        .iter()
        .find_map(|known| plain.strip_suffix(known)?.strip_suffix('.'))
        .unwrap_or(plain);
    match stem.is_empty() {
        true => format!("{}-results.{extension}", task.id),
        false => format!("{stem}-results.{extension}"),
    }
}

#[cfg(test)]
mod tests;

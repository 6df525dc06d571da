//! Results without the submitted file around them: NDJSON, one JSON array, or the addresses alone, each in
//! `seq` order, of those that are there. Streamed, by pages that a task of its own reads ahead.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use listmill_shared::domain::id::TaskId;
use listmill_shared::domain::result_filter::ResultFilter;
use listmill_shared::domain::task::Task;
use listmill_shared::store::results::Found;
use listmill_shared::store::{Store, StoreError};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::broken;
use crate::view::write_result;

/// Results read at once.
const PAGE: i64 = 5_000;
/// Pages read at the same time.
const AT_ONCE: usize = 2;
/// Pages that wait for the connection, beside the one that is being sent.
const AHEAD: usize = 1;

/// One result a line, in `seq` order, of those that are there (`filter` = only those that fit).
pub fn ndjson_file(
    store: &Store,
    task: &Task,
    filter: Option<ResultFilter>,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    written(store, task, filter, |out, found| {
        write_result(out, found);
        out.push(b'\n');
    })
}

/// One array of all of them.
pub(super) fn json(
    store: &Store,
    task: &Task,
    filter: Option<ResultFilter>,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let edge = |text: &'static [u8]| stream::iter([Ok(Bytes::from_static(text))]);
    let inside = written(store, task, filter, in_array());
    edge(b"[").chain(inside).chain(edge(b"\n]\n"))
}

/// Writes a result into an array.
fn in_array() -> impl FnMut(&mut Vec<u8>, &Found) + Send + 'static {
    let mut before: &[u8] = b"\n";
    move |out, found| {
        out.extend_from_slice(before);
        write_result(out, found);
        before = b",\n";
    }
}

/// One address a line.
pub(super) fn text(
    store: &Store,
    task: &Task,
    filter: Option<ResultFilter>,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    written(store, task, filter, write_address)
}

/// Broken ones may have line breaks in them, which become spaces: a line is an address.
fn write_address(out: &mut Vec<u8>, found: &Found) {
    let flat = |b: u8| if matches!(b, b'\r' | b'\n') { b' ' } else { b };
    out.extend(found.address.bytes().map(flat));
    out.push(b'\n');
}

fn written(
    store: &Store,
    task: &Task,
    filter: Option<ResultFilter>,
    mut write: impl FnMut(&mut Vec<u8>, &Found) + Send + 'static,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let (sender, receiver) = mpsc::channel(AHEAD);
    let addresses = task.submitted.unique;
    tokio::spawn(read_results(store.clone(), task.id, addresses, filter, sender));
    ReceiverStream::new(receiver).map(move |page| {
        let page: Vec<Found> = page.map_err(broken)?;
        let mut out = Vec::with_capacity(page.len() * 320);
        for found in &page {
            write(&mut out, found);
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
    filter: Option<ResultFilter>,
    sender: mpsc::Sender<Result<Vec<Found>, StoreError>>,
) {
    if filter.as_ref().is_some_and(ResultFilter::is_shut) {
        return;
    }
    let filter = Arc::new(filter);
    let mut pages = stream::iter((0..addresses).step_by(PAGE as usize))
        .map(|from| {
            let (store, filter) = (store.clone(), filter.clone());
            tokio::spawn(async move {
                store.results_between(task, from, from + PAGE, Option::as_ref(&filter)).await
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

#[cfg(test)]
mod tests {
    use listmill_shared::domain::verdict::Reason;

    use super::*;
    use crate::routes::download::tests::found;

    #[test]
    fn an_array_is_json_however_many_are_in_it() {
        for count in 0..3 {
            let (mut write, mut out) = (in_array(), b"[".to_vec());
            for seq in 0..count {
                write(&mut out, &found(seq, Reason::Accepted));
            }
            out.extend_from_slice(b"\n]\n");
            let read: Vec<serde_json::Value> = serde_json::from_slice(&out).unwrap();
            let seqs: Vec<i64> = read.iter().filter_map(|row| row["seq"].as_i64()).collect();
            assert_eq!(seqs, (0..count).collect::<Vec<_>>());
        }
    }

    #[test]
    fn an_address_is_a_line() {
        let broken = Found { address: String::from("a\r\nb"), ..found(0, Reason::InvalidSyntax) };
        let mut out = Vec::new();
        for found in [broken, found(1, Reason::Accepted)] {
            write_address(&mut out, &found);
        }
        assert_eq!(out, b"a  b\na1@example.com\n");
    }
}

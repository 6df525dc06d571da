//! Receiving a list: stream, parse, normalise, dedupe, cut into batches, store.
//!
//! ```text
//! body ──▶ reader thread (unzip, parse, normalise) ──▶ cutter (dedupe, number, pack) ──▶ writer
//! ```
//!
//! Each arrow is a bounded channel; a short list has its cutter in the reader's thread.
//!
//! The writer stores blocks in bounded transactions under a task that is `ingesting` and that
//! nobody sees; a last short one checks the balance, remembers the answer and makes it `queued`. No
//! transaction waits for the client. What is abandoned is removed here, or by the sweeper.
//!
//! A workbook cannot be read as it arrives: the reader thread writes it into a temporary file, waits for its turn
//! ([`workbooks`]), and then reads that. What a body is, its first bytes say, whatever was said of it ([`looks`]).

mod archive;
pub mod dedupe;
mod doubt;
pub mod looks;
pub mod read;
mod reader;
mod source;
mod submission;
mod workbooks;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

pub use self::doubt::{Likely, MostlyInvalid};
use self::read::{Block, Limits, ReadError, Summary, Understood};
use self::reader::ListReader;
pub use self::source::{BodyError, Packing};
use self::source::{ChunkReader, Unpacked, feed};
pub use self::submission::{Accepted, Answer, Submission, SubmitError};
pub use self::workbooks::Workbooks;
use super::App;
use super::control::ERASING;
use crate::domain::audit::Change;
use crate::domain::id::TaskId;
use crate::domain::ledger::Kind;
use crate::domain::task::{Submitted, Tally, Task, TaskStatus};
use crate::store::StoreError;
use crate::store::audit_log::write_down;
use crate::store::idempotency::{self, Remembered, RequestKey};
use crate::store::key_credits;
use crate::store::receive::{Accept, NewBatch, NewRows, NewTask};

/// Pieces of the body that may wait for the reader.
const BODY_PIECES: usize = 16;
/// Blocks that may wait for the writer.
const BLOCKS: usize = 16;
/// Blocks stored in one transaction…
const BLOCKS_AT_ONCE: usize = 32;
/// …unless the next one takes longer than this.
const BLOCKS_WAIT: Duration = Duration::from_millis(100);

/// While nothing of a list is stored yet (a workbook arrives, or waits for its turn), it says so often that it lives.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);

/// A body that was read to its end.
struct Received {
    summary: Summary,
    written: Written,
    fingerprint: Vec<u8>,
}

/// How much of a list is stored.
#[derive(Debug, Default)]
struct Written {
    batches: i64,
    rows: i64,
}

impl App {
    /// Receives a list. `body` fails with an [`std::io::Error`] when the client goes away.
    pub async fn submit(
        &self,
        submission: Submission,
        body: impl Stream<Item = std::io::Result<Bytes>> + Send,
    ) -> Result<Accepted, SubmitError> {
        if let Some(idempotency) = &submission.idempotency {
            let first = self.store.remembered(&idempotency.0, self.oldest_answer()).await?;
            if let Some(first) = first {
                return self.replay(idempotency, first, body).await;
            }
        }
        if submission.dry_run {
            let Received { summary, .. } = self.receive(&submission, None, body).await?;
            let balance = self.store.balance(submission.account, Kind::Email).await?;
            let submitted = counts(&summary);
            let cost = submission.cost(submitted);
            let Summary { book, understood, .. } = summary;
            let doubt =
                MostlyInvalid::of(submitted, &understood).filter(|_| !submission.allow_invalid);
            let (understood, doubt) = (Box::new(understood), doubt.map(Box::new));
            return Ok(Accepted::Counted { submitted, cost, balance, book, understood, doubt });
        }
        let task = TaskId::new(&self.ids, self.now());
        let new = NewTask {
            id: task,
            account: submission.account,
            created_by_key: submission.key,
            created_by_person: submission.person(),
            sandbox: submission.sandbox,
        };
        self.store.open_task(&new, self.now()).await?;
        let accepted = self.receive_and_accept(&submission, task, body).await;
        if !matches!(&accepted, Ok(Accepted::Task { id: Some(_), .. })) {
            match self.store.drop_ingest(task, self.now()).await {
                Ok(()) => self.empty(task, ERASING).await,
                Err(error) => {
                    tracing::warn!(%error, %task, "refused submission not removed; the sweeper will");
                }
            }
        }
        accepted
    }

    async fn receive_and_accept(
        &self,
        submission: &Submission,
        task: TaskId,
        body: impl Stream<Item = std::io::Result<Bytes>> + Send,
    ) -> Result<Accepted, SubmitError> {
        let Received { summary, written, fingerprint } =
            self.receive(submission, Some(task), body).await?;
        if summary.options.webhook_url.is_some() {
            return Err(SubmitError::Unsupported(
                "\"webhook_url\" is not offered by this version; follow the task's events instead",
            ));
        }
        let counts = counts(&summary);
        if !submission.allow_invalid
            && let Some(wrong) = MostlyInvalid::of(counts, &summary.understood)
        {
            return Err(SubmitError::MostlyInvalid(Box::new(wrong)));
        }
        let needed = submission.cost(counts);
        let balance = self.store.balance(submission.account, Kind::Email).await?;
        let allow_partial = submission.allow_partial || summary.options.allow_partial;
        if self.settings.credits && !allow_partial && balance < needed {
            return Err(SubmitError::Insufficient { needed, balance });
        }
        let accept = Accept {
            name: summary.options.name.or_else(|| submission.name.clone()),
            submitted: counts,
            batches: written.batches,
            stored: written.batches + written.rows,
            header: summary.header,
            delimiter: summary.delimiter,
            bom: summary.understood.bom,
            crlf: summary.understood.crlf,
            key_reserved: submission.key.filter(|_| !submission.sandbox).map(|_| 0),
        };
        self.accept(submission, task, accept, &summary.understood, &fingerprint).await
    }

    async fn accept(
        &self,
        submission: &Submission,
        id: TaskId,
        mut accept: Accept,
        understood: &Understood,
        fingerprint: &[u8],
    ) -> Result<Accepted, SubmitError> {
        let now = self.now();
        let task = Task {
            id,
            account: submission.account,
            created_by_key: submission.key,
            created_by_person: submission.person(),
            sandbox: submission.sandbox,
            name: accept.name.clone(),
            status: TaskStatus::Queued,
            pause_reason: None,
            submitted: accept.submitted,
            tally: Tally::default(),
            held: 0,
            released: 0,
            created_at: now,
            started_at: None,
            finished_at: None,
            batches: accept.batches,
        };
        let (status, body) = (submission.answer)(&task, understood, now);
        let mut tx = self.store.begin().await?;
        // The key before the task: nobody else has this task, so the order of locks does not matter here.
        let limited = submission.key_limited && !submission.sandbox;
        if let Some(key) = submission.key.filter(|_| limited) {
            let needed = submission.cost(accept.submitted);
            match key_credits::take(&mut tx, key, needed, now).await? {
                Ok(true) => accept.key_reserved = Some(needed),
                Ok(false) => {}
                Err(limit) => {
                    let left = limit.left(now);
                    return Err(SubmitError::KeyLimit { needed, left, limit: limit.limit });
                }
            }
        }
        self.store.accept_task(&mut tx, id, &accept, now).await?;
        if let Some((request, _)) = &submission.idempotency {
            let answer = Some((status, body.as_str()));
            let oldest = self.oldest_answer();
            idempotency::clear(&mut tx, request, oldest, oldest).await?;
            if !idempotency::insert(&mut tx, request, fingerprint, &[], answer, now).await? {
                drop(tx);
                let first = self.store.remembered(request, self.oldest_answer()).await?;
                return match first {
                    Some(first) => replay(first, fingerprint),
                    // It was forgotten this very moment; the client may simply try again.
                    None => Err(SubmitError::Store(StoreError::Away)),
                };
            }
        }
        if let Some(by) = &submission.by {
            let (name, addresses) = (&task.name, task.submitted.unique);
            let shown = json!({ "name": name, "addresses": addresses });
            let change = Change::new(by, Some(submission.account), "task.submit", id).after(shown);
            write_down(&mut tx, &change, now).await?;
        }
        tx.commit().await?;
        if let Err(error) = self.dispatch().await {
            tracing::warn!(%error, task = %id, "not dispatched; the sweeper will");
        }
        Ok(Accepted::Task { id: Some(id), status, body, replayed: false })
    }

    /// Reads the body to its end and stores its blocks under `task` (or nowhere).
    async fn receive(
        &self,
        submission: &Submission,
        task: Option<TaskId>,
        body: impl Stream<Item = std::io::Result<Bytes>> + Send,
    ) -> Result<Received, SubmitError> {
        let (pieces, pieces_out) = mpsc::channel(BODY_PIECES);
        let (blocks, blocks_out) = mpsc::channel(BLOCKS);
        let settings = &self.settings;
        let most_addresses = match submission.sandbox {
            true => settings.max_addresses.min(settings.test_task_addresses),
            false => settings.max_addresses,
        };
        let limits = Limits {
            addresses: most_addresses,
            line_bytes: settings.max_line_bytes,
            batch_size: settings.batch_size,
            ..Limits::default()
        };
        let (gzip, most) = (submission.gzip, settings.max_body_bytes);
        let reader = ListReader {
            format: submission.format.clone(),
            said: submission.said,
            limits,
            most: settings.max_body_bytes,
            key: self.ids.bytes(),
            account: submission.account,
            most_of_workbook: settings.max_workbook_bytes,
            workbooks: Arc::clone(&self.workbooks),
            temporary: self.temporary.of(submission.account),
        };
        let reading = tokio::task::spawn_blocking(move || {
            let body = ChunkReader::new(pieces_out);
            let input = if gzip { Unpacked::gzip(body, most) } else { Unpacked::plain(body, most) };
            reader.read(input, &mut |block| {
                blocks.blocking_send(block).map_err(|_| std::io::ErrorKind::BrokenPipe.into())
            })
        });
        let mut fingerprint = submission.idempotency.as_ref().map(begin_fingerprint);
        let feeding = feed(body, pieces, settings.body_idle_timeout, |piece| {
            if let Some(hash) = &mut fingerprint {
                hash.update(piece);
            }
        });
        let writing = self.write(task, submission.sandbox, blocks_out);
        let ((), written, read) = tokio::join!(feeding, writing, reading);
        // The writer's failure makes the reader's: it goes first.
        let written = written?;
        let summary = read.map_err(|_| SubmitError::Store(StoreError::Away))?.map_err(|error| {
            match source::body_error(&error) {
                Some(body) => SubmitError::Body(body),
                None => match error {
                    ReadError::TooManyAddresses { limit } if submission.sandbox => {
                        SubmitError::SandboxTooLong { limit }
                    }
                    error => SubmitError::Read(error),
                },
            }
        })?;
        let fingerprint = fingerprint.map(|hash| hash.finalize().to_vec()).unwrap_or_default();
        Ok(Received { summary, written, fingerprint })
    }

    async fn write(
        &self,
        task: Option<TaskId>,
        sandbox: bool,
        mut blocks: mpsc::Receiver<Block>,
    ) -> Result<Written, StoreError> {
        let mut written = Written::default();
        let mut some = Vec::with_capacity(BLOCKS_AT_ONCE);
        loop {
            let first = match tokio::time::timeout(SIGN_OF_LIFE, blocks.recv()).await {
                Ok(Some(first)) => first,
                Ok(None) => break,
                Err(_) => {
                    if let Some(task) = task {
                        let stored = written.batches + written.rows;
                        self.store.receive(task, stored, &[], &[], self.now()).await?;
                    }
                    continue;
                }
            };
            some.push(first);
            while some.len() < BLOCKS_AT_ONCE
                && let Ok(Some(block)) = tokio::time::timeout(BLOCKS_WAIT, blocks.recv()).await
            {
                some.push(block);
            }
            let (mut batches, mut rows) = (Vec::new(), Vec::new());
            for block in some.drain(..) {
                match block {
                    Block::Batch { no, first_seq, addresses, chargeable, payload } => {
                        batches.push(NewBatch {
                            no: no as i32,
                            first_seq: first_seq as i64,
                            addresses: addresses as i32,
                            chargeable: if sandbox { 0 } else { chargeable as i32 },
                            payload,
                        });
                    }
                    Block::Rows { no, payload } => rows.push(NewRows { no: no as i32, payload }),
                }
            }
            if let Some(task) = task {
                let before = written.batches + written.rows;
                self.store.receive(task, before, &batches, &rows, self.now()).await?;
            }
            written.batches += batches.len() as i64;
            written.rows += rows.len() as i64;
        }
        Ok(written)
    }

    /// The client's idempotency key is known: the body is read only to compare it.
    async fn replay(
        &self,
        idempotency: &(RequestKey, String),
        first: Remembered,
        body: impl Stream<Item = std::io::Result<Bytes>> + Send,
    ) -> Result<Accepted, SubmitError> {
        let mut hash = begin_fingerprint(idempotency);
        source::drain(
            body,
            self.settings.body_idle_timeout,
            self.settings.max_body_bytes,
            |piece| {
                hash.update(piece);
            },
        )
        .await
        .map_err(SubmitError::Body)?;
        replay(first, &hash.finalize())
    }

    /// Answers older than this are forgotten.
    pub fn oldest_answer(&self) -> i64 {
        self.now() - self.settings.idempotency_ttl.as_millis() as i64
    }
}

/// What of a request is the same when it is sent again: the body, and what `rest` says.
fn begin_fingerprint((_, rest): &(RequestKey, String)) -> Sha256 {
    Sha256::new().chain_update(rest.as_bytes()).chain_update([0])
}

fn replay(first: Remembered, fingerprint: &[u8]) -> Result<Accepted, SubmitError> {
    match (first.status, first.body) {
        (Some(status), Some(body)) if first.fingerprint == fingerprint => {
            Ok(Accepted::Task { id: None, status, body, replayed: true })
        }
        _ => Err(SubmitError::KeyReused),
    }
}

fn counts(summary: &Summary) -> Submitted {
    Submitted {
        submitted: summary.submitted as i64,
        unique: summary.unique as i64,
        duplicates: summary.duplicates as i64,
        invalid_syntax: summary.invalid_syntax as i64,
    }
}

//! Follows a task to its end: by the server's stream of events, which comes back after a break with the id of the
//! last event that it gave, or by asking again and again where no stream gets through.
//!
//! A server that is away is waited for ([`AWAY`]): the task goes on without us.

use std::time::{Duration, Instant};

use anyhow::Result;
use futures::StreamExt;
use reqwest::Method;
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use serde_json::Value;

use super::fault::Fault;
use super::server::{Server, back_off};
use super::sse::{Event, Events};
use super::task::Task;
use crate::output::{Output, Progress};

/// The server shows itself every 15 s; after this, the connection is dead.
const ALIVE: Duration = Duration::from_secs(45);
/// Between two questions where there is no stream.
const POLL: Duration = Duration::from_secs(2);
/// Streams in a row of which nothing came, after which no other is tried.
const MUTE: u32 = 2;
/// For so long a server may be away.
const AWAY: Duration = Duration::from_secs(600);

/// Until the task has ended.
pub async fn follow(server: &Server, out: &Output, task: Task) -> Result<Task> {
    let bar = out.aside().progress(task.title(), task.counts.unique, "addresses");
    let mut watcher =
        Watcher { server, bar, task, last_id: None, mute: 0, failed: 0, heard_at: Instant::now() };
    let followed = watcher.run().await;
    watcher.bar.finish();
    followed?;
    Ok(watcher.task)
}

struct Watcher<'a> {
    server: &'a Server,
    bar: Progress,
    task: Task,
    last_id: Option<String>,
    /// See [`MUTE`].
    mute: u32,
    /// Failures in a row.
    failed: u32,
    heard_at: Instant,
}

impl Watcher<'_> {
    async fn run(&mut self) -> Result<()> {
        self.show();
        while !self.task.has_ended() {
            if self.mute < MUTE {
                match self.listen().await {
                    Ok(true) => self.mute = 0,
                    Ok(false) => self.mute += 1,
                    // Asking below tells what it is.
                    Err(fault) if fault.is_final() => self.mute = MUTE,
                    Err(_) => self.mute += 1,
                }
                if self.task.has_ended() {
                    break;
                }
            }
            match self.ask().await {
                Ok(()) => {}
                Err(fault) if fault.is_final() => return Err(fault.into()),
                Err(fault) => self.bear(fault).await?,
            }
        }
        Ok(())
    }

    /// Hears the stream to its end; `true`: something came.
    async fn listen(&mut self) -> Result<bool, Fault> {
        let path = format!("/v1/tasks/{}/events", self.task.id);
        let mut request = self.server.request(Method::GET, &path, &[("format", "sse".into())]);
        request = request.header(ACCEPT, "text/event-stream");
        if let Some(id) = &self.last_id {
            request = request.header("last-event-id", id);
        }
        let response = self.server.once(self.server.patience(ALIVE), request).await?;
        let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        if !kind.is_some_and(|kind| kind.starts_with("text/event-stream")) {
            self.mute = MUTE;
            return Ok(false);
        }
        let mut pieces = std::pin::pin!(self.server.pieces(response, ALIVE));
        let (mut events, mut heard) = (Events::default(), false);
        while let Some(piece) = pieces.next().await {
            let Ok(piece) = piece else { break };
            (heard, self.failed, self.heard_at) = (true, 0, Instant::now());
            for Event { id, data } in events.read(&piece) {
                self.last_id = id.or(self.last_id.take());
                self.learn(serde_json::from_str(&data).unwrap_or_default());
            }
            if self.task.has_ended() {
                break;
            }
        }
        Ok(heard)
    }

    async fn ask(&mut self) -> Result<(), Fault> {
        // Also what keeps a stream that ends at once from being opened over and over.
        tokio::time::sleep(POLL).await;
        let path = format!("/v1/tasks/{}", self.task.id);
        let task = self.server.get(&path, &[]).await?;
        (self.failed, self.heard_at) = (0, Instant::now());
        self.learn(task);
        Ok(())
    }

    /// Waits for a server that is away, but not for ever.
    async fn bear(&mut self, fault: Fault) -> Result<()> {
        if self.heard_at.elapsed() > AWAY {
            return Err(fault.into());
        }
        self.failed += 1;
        // Streams are worth trying again when it is back.
        self.mute = self.mute.min(MUTE - 1);
        self.bar.note(&format!("{fault}; trying again"));
        tokio::time::sleep(back_off(self.failed)).await;
        Ok(())
    }

    /// What is no task changes nothing.
    fn learn(&mut self, task: Value) {
        if let Ok(task) = Task::read(task)
            && task.id == self.task.id
        {
            self.task = task;
            self.show();
        }
    }

    fn show(&mut self) {
        self.bar.set(self.task.counts.processed);
        self.bar.note(&self.task.pause());
    }
}

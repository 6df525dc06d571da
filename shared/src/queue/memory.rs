//! The queue inside a process: a bounded channel of references for each line, a broadcast of notices.

use std::collections::HashSet;
use std::sync::{Arc, Mutex as Guarded, PoisonError};

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tokio::sync::{Mutex, broadcast, mpsc, watch};
use tokio_stream::wrappers::BroadcastStream;

use super::{Delivery, Line, Receipt};
use crate::domain::batch::{BatchRef, Sent};
use crate::domain::id::TaskId;

/// References that may wait in a line; one too many is not taken, and sent again by the sweeper.
const CAPACITY: usize = 65_536;

/// A line of references.
#[derive(Clone)]
struct Channel {
    sender: mpsc::Sender<BatchRef>,
    receiver: Arc<Mutex<mpsc::Receiver<BatchRef>>>,
}

impl Default for Channel {
    fn default() -> Self {
        let (sender, receiver) = mpsc::channel(CAPACITY);
        Self { sender, receiver: Arc::new(Mutex::new(receiver)) }
    }
}

/// See the module.
#[derive(Clone)]
pub struct MemoryQueue {
    first: Channel,
    usual: Channel,
    sandbox: Channel,
    /// Sent and not acknowledged.
    waiting: Arc<Guarded<HashSet<BatchRef>>>,
    stopped: broadcast::Sender<TaskId>,
    wiped: watch::Sender<u64>,
}

impl Default for MemoryQueue {
    fn default() -> Self {
        let (stopped, _) = broadcast::channel(1024);
        let wiped = watch::Sender::new(1);
        let (first, usual, sandbox, waiting) = Default::default();
        Self { first, usual, sandbox, waiting, stopped, wiped }
    }
}

impl MemoryQueue {
    fn channel(&self, line: Line) -> &Channel {
        match line {
            Line::First => &self.first,
            Line::Usual => &self.usual,
            Line::Sandbox => &self.sandbox,
        }
    }

    fn lock_waiting(&self) -> std::sync::MutexGuard<'_, HashSet<BatchRef>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn send(&self, batches: &[Sent]) {
        for sent in batches {
            // Noted first: whoever takes it acknowledges it.
            self.lock_waiting().insert(sent.batch);
            if self.channel(Line::of(sent)).sender.try_send(sent.batch).is_err() {
                self.lock_waiting().remove(&sent.batch);
                tracing::debug!(batch = ?sent.batch, "queue full; the sweeper will send it again");
            }
        }
    }

    pub(super) fn ack(&self, batch: BatchRef) {
        self.lock_waiting().remove(&batch);
    }

    pub(super) fn waiting(&self) -> HashSet<BatchRef> {
        self.lock_waiting().clone()
    }

    pub(super) fn deliveries(&self, line: Line) -> BoxStream<'static, Delivery> {
        let receiver = self.channel(line).receiver.clone();
        stream::unfold(receiver, |receiver| async move {
            let batch = receiver.lock().await.recv().await?;
            Some((Delivery { batch, receipt: Some(Receipt::Memory) }, receiver))
        })
        .boxed()
    }

    pub(super) fn tell_stopped(&self, task: TaskId) {
        // Nobody listens when no worker runs in this process.
        let _ = self.stopped.send(task);
    }

    /// It begins without memory of what an earlier process had sent.
    pub(super) fn wiped(&self) -> watch::Receiver<u64> {
        let mut receiver = self.wiped.subscribe();
        receiver.mark_changed();
        receiver
    }

    pub(super) fn stopped(&self) -> BoxStream<'static, TaskId> {
        BroadcastStream::new(self.stopped.subscribe())
            .filter_map(|task| std::future::ready(task.ok()))
            .boxed()
    }
}

//! The queue inside a process: a bounded channel of references, a broadcast of notices.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tokio::sync::{Mutex, broadcast, mpsc, watch};
use tokio_stream::wrappers::BroadcastStream;

use super::Delivery;
use crate::domain::batch::BatchRef;
use crate::domain::id::TaskId;

/// References that may wait; one too many is dropped, and sent again by the sweeper.
const CAPACITY: usize = 65_536;

/// See the module.
#[derive(Clone)]
pub struct MemoryQueue {
    sender: mpsc::Sender<BatchRef>,
    receiver: Arc<Mutex<mpsc::Receiver<BatchRef>>>,
    stopped: broadcast::Sender<TaskId>,
    wiped: watch::Sender<u64>,
}

impl Default for MemoryQueue {
    fn default() -> Self {
        let (sender, receiver) = mpsc::channel(CAPACITY);
        let (stopped, _) = broadcast::channel(1024);
        let wiped = watch::Sender::new(1);
        Self { sender, receiver: Arc::new(Mutex::new(receiver)), stopped, wiped }
    }
}

impl MemoryQueue {
    pub(super) fn send(&self, batches: &[BatchRef]) {
        for batch in batches {
            if self.sender.try_send(*batch).is_err() {
                tracing::debug!(?batch, "queue full; the sweeper will send it again");
            }
        }
    }

    pub(super) fn deliveries(&self) -> BoxStream<'static, Delivery> {
        let receiver = self.receiver.clone();
        stream::unfold(receiver, |receiver| async move {
            let batch = receiver.lock().await.recv().await?;
            Some((Delivery::direct(batch), receiver))
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

//! Which batches have a message out.
//!
//! A task may have *window* batches queued or leased at once; the next one is sent when one ends.
//! So no task fills the queue, and tasks share the workers. The window covers twice what all living
//! workers verify at once.

use super::App;
use crate::domain::batch::BatchRef;
use crate::domain::id::TaskId;
use crate::store::StoreError;

/// Batches that a task may have out when no worker is known.
const LEAST: i64 = 12;
/// A worker that has not been seen for this long does not count.
const SILENT_MS: i64 = 30_000;

impl App {
    /// Batches that one task may have queued or leased.
    pub async fn window(&self) -> Result<i64, StoreError> {
        let concurrency = self.working_concurrency().await?;
        let batch = i64::from(self.settings.batch_size);
        Ok((2 * concurrency / batch + 2).max(LEAST))
    }

    /// Addresses that all living workers verify at once; 0 also when no provider works.
    pub async fn working_concurrency(&self) -> Result<i64, StoreError> {
        self.store.concurrency(self.now() - SILENT_MS).await
    }

    /// When the message of a batch sent now is taken for lost.
    pub fn resend_at(&self) -> i64 {
        self.now() + self.settings.lease_millis().max(10_000)
    }

    /// Sends what the task's window allows.
    pub async fn dispatch(&self, task: TaskId) -> Result<(), StoreError> {
        let window = self.window().await?;
        let batches = self.store.dispatch(task, window, self.resend_at()).await?;
        self.send(&batches).await;
        Ok(())
    }

    /// Sends references. A failure is only logged: the sweeper sends again what is due.
    pub async fn send(&self, batches: &[BatchRef]) {
        if let Err(error) = self.queue.send(batches).await {
            tracing::warn!(%error, batches = batches.len(), "messages not sent; the sweeper will");
        }
    }
}

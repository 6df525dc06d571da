//! Makes one block of the pieces of a batch that is done.
//!
//! It works beside the settler: no account waits for it. What waits here is bounded, and what finds no room
//! stays in pieces, which readers take just as well.

use listmill_shared::app::App;
use listmill_shared::domain::batch::BatchRef;
use tokio::sync::mpsc;

/// Batches that may wait.
const WAITING: usize = 1024;
/// Batches merged in one transaction.
const AT_ONCE: usize = 8;

/// Hands batches to the merger.
pub struct Merger(mpsc::Sender<BatchRef>);

impl Merger {
    /// Starts the merger; it ends when the last handle is dropped and nothing waits any more.
    pub fn start(app: App) -> (Self, tokio::task::JoinHandle<()>) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Self(sender), tokio::spawn(work(app, receiver)))
    }

    /// Has these merged some time soon.
    pub fn merge(&self, pieces: &[BatchRef]) {
        let left = pieces.iter().filter(|batch| self.0.try_send(**batch).is_err()).count();
        if left > 0 {
            tracing::debug!(
                batches = left,
                "too many wait to be merged; results are left in pieces"
            );
        }
    }
}

async fn work(app: App, mut batches: mpsc::Receiver<BatchRef>) {
    let mut some = Vec::with_capacity(AT_ONCE);
    while batches.recv_many(&mut some, AT_ONCE).await > 0 {
        if let Err(error) = app.store.merge_blocks(&some).await {
            tracing::warn!(%error, batches = some.len(), "results are left in pieces");
        }
        some.clear();
    }
}

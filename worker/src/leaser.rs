//! One leaser per process: gathers the wishes to lease and fulfils them together, so that the
//! account's balance is touched once for several batches.
//!
//! While the database is away it tries again; it ends when the last handle is dropped.

use std::sync::Arc;
use std::time::Duration;

use listmill_shared::app::App;
use listmill_shared::domain::batch::{BatchRef, Lease};
use listmill_shared::store::batches::{Claim, Leasing};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::turns::SOON;

/// What is due in this time is leased along.
const SOON_MS: i64 = SOON.as_millis() as i64;
/// Wishes fulfilled together.
const AT_ONCE: usize = 32;
const FIRST_BACK_OFF: Duration = Duration::from_millis(50);
const LAST_BACK_OFF: Duration = Duration::from_secs(2);

/// A wish, and who waits for it.
type Wish = (BatchRef, oneshot::Sender<Option<Box<Lease>>>);

/// Hands wishes to the leaser.
#[derive(Clone)]
pub struct Leaser(mpsc::Sender<Wish>);

impl Leaser {
    /// Starts the leaser; `source`: where this worker sends from. It gives up a database that is away when `drain` is cancelled.
    pub fn start(app: App, source: Arc<str>, drain: CancellationToken) -> Self {
        let (sender, receiver) = mpsc::channel(AT_ONCE);
        tokio::spawn(work(app, source, drain, receiver));
        Self(sender)
    }

    /// Leases a batch. `Ok(None)`: there is nothing to do; `Err`: drained before it could be tried.
    pub async fn lease(&self, batch: BatchRef) -> Result<Option<Box<Lease>>, Drained> {
        let (answer, wait) = oneshot::channel();
        self.0.send((batch, answer)).await.map_err(|_| Drained)?;
        wait.await.map_err(|_| Drained)
    }
}

/// The process drains: the batch is for somebody else.
pub struct Drained;

async fn work(
    app: App,
    source: Arc<str>,
    drain: CancellationToken,
    mut wishes: mpsc::Receiver<Wish>,
) {
    let mut some: Vec<Wish> = Vec::with_capacity(AT_ONCE);
    while wishes.recv_many(&mut some, AT_ONCE).await > 0 {
        let mut back_off = FIRST_BACK_OFF;
        while !some.is_empty() && !drain.is_cancelled() {
            let now = app.now();
            let until = now + app.settings.lease_millis();
            let claim =
                |(batch, _): &Wish| Claim { batch: *batch, token: app.ids.number(now), until };
            let claims: Vec<Claim> = some.iter().map(claim).collect();
            match app.store.lease(&claims, &source, now + SOON_MS, now).await {
                Ok(leasings) => {
                    for (leasing, (batch, answer)) in leasings.into_iter().zip(some.drain(..)) {
                        tell(leasing, batch, answer);
                    }
                }
                Err(error) if error.is_transient() => {
                    tracing::warn!(%error, batches = some.len(), "not leased yet; trying again");
                    tokio::select! {
                        () = tokio::time::sleep(back_off) => {}
                        () = drain.cancelled() => {}
                    }
                    back_off = (back_off * 2).min(LAST_BACK_OFF);
                }
                Err(error) => {
                    tracing::error!(%error, batches = some.len(), "cannot lease");
                    for (_, answer) in some.drain(..) {
                        let _ = answer.send(None);
                    }
                }
            }
        }
        // Drained: whoever waits learns it from the dropped answer.
        some.clear();
    }
}

fn tell(leasing: Leasing, batch: BatchRef, answer: oneshot::Sender<Option<Box<Lease>>>) {
    let lease = match leasing {
        Leasing::Leased(lease) => Some(lease),
        Leasing::Nothing => None,
        Leasing::Broke => {
            tracing::info!(task = %batch.task, "task paused: the balance is empty");
            None
        }
    };
    // A processor that was dropped leaves the lease to expire.
    let _ = answer.send(lease);
}

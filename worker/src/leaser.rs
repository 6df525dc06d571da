//! One leaser per process: gathers the wishes to lease and fulfils them together, so that the
//! account's balance is touched once for several batches.
//!
//! Wishes that cannot be fulfilled together are tried again task by task, side by side with what comes
//! later: a task or account whose rows somebody holds does not stop the others. While the database is away
//! it tries on; it ends when the last handle is dropped.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use listmill_shared::app::App;
use listmill_shared::domain::batch::{BatchRef, Lease};
use listmill_shared::domain::id::TaskId;
use listmill_shared::store::StoreError;
use listmill_shared::store::batches::{Claim, Leasing};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::leases::Leases;
use crate::turns::SOON;

/// What is due in this time is leased along.
const SOON_MS: i64 = SOON.as_millis() as i64;
/// Wishes fulfilled together.
const AT_ONCE: usize = 32;
/// Transactions side by side of wishes that came a moment ago, and of those that have failed before.
const QUICK: usize = 2;
const SLOW: usize = 2;
/// A transaction has the wishes to itself for so long: what comes meanwhile goes together into the next.
const ALONE: Duration = Duration::from_millis(10);
/// While other batches are at work in this process, a wish waits so long for more.
const LINGER: Duration = Duration::from_millis(2);
const FIRST_BACK_OFF: Duration = Duration::from_millis(50);
const LAST_BACK_OFF: Duration = Duration::from_secs(2);

/// A wish, and who waits for it.
type Wish = (BatchRef, oneshot::Sender<Option<Box<Lease>>>);

/// Hands wishes to the leaser.
#[derive(Clone)]
pub struct Leaser(mpsc::Sender<Wish>);

/// What the leaser works with.
struct Desk {
    app: App,
    leases: Arc<Leases>,
    source: Arc<str>,
    drain: CancellationToken,
    quick: Arc<Semaphore>,
    slow: Semaphore,
}

impl Leaser {
    /// Starts the leaser; `source`: where this worker sends from. It gives up a database that is away when
    /// `drain` is cancelled.
    pub fn start(
        app: App,
        leases: Arc<Leases>,
        source: Arc<str>,
        drain: CancellationToken,
    ) -> Self {
        let (sender, receiver) = mpsc::channel(AT_ONCE);
        let (quick, slow) = (Arc::new(Semaphore::new(QUICK)), Semaphore::new(SLOW));
        let desk = Arc::new(Desk { app, leases, source, drain, quick, slow });
        tokio::spawn(work(desk, receiver));
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

async fn work(desk: Arc<Desk>, mut wishes: mpsc::Receiver<Wish>) {
    loop {
        let Ok(slot) = desk.quick.clone().acquire_owned().await else { return };
        let mut some: Vec<Wish> = Vec::with_capacity(AT_ONCE);
        if wishes.recv_many(&mut some, AT_ONCE).await == 0 {
            return;
        }
        if some.len() < AT_ONCE && desk.leases.count() > 0 {
            tokio::time::sleep(LINGER).await;
            while some.len() < AT_ONCE
                && let Ok(wish) = wishes.try_recv()
            {
                some.push(wish);
            }
        }
        let desk = desk.clone();
        let mut fulfilling = tokio::spawn(async move {
            let left = desk.fulfil(some).await;
            drop(slot);
            let mut by_task: BTreeMap<TaskId, Vec<Wish>> = BTreeMap::new();
            for wish in left {
                by_task.entry(wish.0.task).or_default().push(wish);
            }
            for (task, wishes) in by_task {
                tokio::spawn(try_on(desk.clone(), task, wishes));
            }
        });
        let _ = tokio::time::timeout(ALONE, &mut fulfilling).await;
    }
}

/// Tries until it is done; drained, it gives up: whoever waits learns it from the dropped answer.
async fn try_on(desk: Arc<Desk>, task: TaskId, mut wishes: Vec<Wish>) {
    let mut back_off = FIRST_BACK_OFF;
    let stuck = &desk.app.stuck;
    while !wishes.is_empty() {
        stuck.failed("lease", task.to_string(), desk.app.now());
        tokio::select! {
            () = tokio::time::sleep(back_off) => {}
            () = desk.drain.cancelled() => break,
        }
        back_off = (back_off * 2).min(LAST_BACK_OFF);
        let Ok(_slot) = desk.slow.acquire().await else { break };
        wishes = desk.fulfil(wishes).await;
    }
    stuck.got_on("lease", &task.to_string());
}

impl Desk {
    /// Returns the wishes that may be fulfilled later.
    async fn fulfil(&self, wishes: Vec<Wish>) -> Vec<Wish> {
        let app = &self.app;
        let now = app.now();
        let until = now + app.settings.lease_millis();
        let fill = !app.settings.credits;
        let claim =
            |(batch, _): &Wish| Claim { batch: *batch, token: app.ids.number(now), until, fill };
        let claims: Vec<Claim> = wishes.iter().map(claim).collect();
        match app.store.lease(&claims, &self.source, now + SOON_MS, now).await {
            Ok(leasings) => {
                for (leasing, (batch, answer)) in leasings.into_iter().zip(wishes) {
                    tell(leasing, batch, answer);
                }
                Vec::new()
            }
            Err(error) if error.is_transient() => {
                tracing::warn!(%error, batches = wishes.len(), "not leased yet; trying again");
                wishes
            }
            Err(error) => {
                refuse(&error, wishes);
                Vec::new()
            }
        }
    }
}

/// The batches stay queued; the sweeper finds that their messages are gone.
fn refuse(error: &StoreError, wishes: Vec<Wish>) {
    tracing::error!(%error, batches = wishes.len(), "cannot lease");
    for (_, answer) in wishes {
        let _ = answer.send(None);
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

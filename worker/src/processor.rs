//! One delivery: permit ▸ lease ▸ acknowledge ▸ [`Run`].
//!
//! * Nothing is leased without a permit of the process: what it could not start would wait in vain.
//! * Once leased, a batch needs its message no more; what was not leased is sent again.
//! * A batch whose leases keep ending without a word is run with nothing else in the process, then
//!   halved, until the address is known that ends it ([`Caution`]).
//! * A panic gives the lease back at once.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use listmill_shared::app::App;
use listmill_shared::app::provider::Provider;
use listmill_shared::domain::batch::{BatchRef, Caution, Held, Lease, Sent};
use listmill_shared::domain::payload::decode_batch;
use listmill_shared::queue::Delivery;
use listmill_shared::store::sweep::Ended;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::backlog::{Backlog, Share};
use crate::company::House;
use crate::dispatcher::Dispatcher;
use crate::health::ProviderHealth;
use crate::leaser::{Drained, Leaser};
use crate::leases::Leases;
use crate::run::Run;
use crate::settler::Settler;
use crate::stops::Stops;

/// Between two tries to begin alone.
const BACK_OFF: Duration = Duration::from_millis(200);

/// Who verifies here, and how much at once.
#[derive(Clone)]
pub struct Means {
    pub provider: Arc<dyn Provider>,
    pub health: ProviderHealth,
    /// One an address under way.
    pub permits: Arc<Semaphore>,
    pub backlog: Arc<Backlog>,
    /// Who may be at work beside a batch: what is free neither waits for what is paid for, nor is waited for.
    pub house: House,
}

impl Means {
    /// Up to `permits` addresses at once, batches of up to `batch`.
    pub fn new(provider: Arc<dyn Provider>, permits: usize, batch: usize) -> Self {
        let health = ProviderHealth::of(&*provider);
        let permits = Arc::new(Semaphore::new(permits));
        let (backlog, house) = (Backlog::new(batch), House::default());
        Self { provider, health, permits, backlog, house }
    }
}

/// What every processor of this process shares.
pub struct Shared {
    pub app: App,
    /// For what accounts pay for.
    pub live: Means,
    /// For sandbox tasks, so that what is free takes nothing of what is paid for.
    pub sandbox: Means,
    pub leaser: Leaser,
    pub leases: Arc<Leases>,
    pub stops: Arc<Stops>,
    pub settler: Settler,
    pub dispatcher: Dispatcher,
    /// Start nothing more.
    pub drain: CancellationToken,
    /// Drop what is under way.
    pub abort: CancellationToken,
    pub inflight: metrics::Gauge,
}

impl Shared {
    /// Those for sandbox tasks, or for the others.
    pub fn means(&self, sandbox: bool) -> &Means {
        if sandbox { &self.sandbox } else { &self.live }
    }
}

/// Takes one delivery to its end: its batch is stored, handed back, or not ours. `sandbox`: it came by the line of
/// sandbox tasks.
pub async fn process(shared: Arc<Shared>, delivery: Delivery, share: Share, sandbox: bool) {
    let batch = delivery.batch;
    let permit = tokio::select! {
        permit = shared.means(sandbox).permits.clone().acquire_owned() => permit.ok(),
        () = shared.drain.cancelled() => None,
    };
    let leased = match permit {
        Some(permit) => shared.leaser.lease(batch).await.map(|lease| lease.zip(Some(permit))),
        None => Err(Drained),
    };
    if leased.is_err() {
        // Taken off the queue, but not leased: somebody else may have it.
        let _ = shared.app.send(&[Sent { batch, first: false, sandbox }]).await;
    }
    // The lease says all from now on; should a crash of the database undo it, the sweeper sends again.
    if let Err(error) = shared.app.queue.ack(delivery).await {
        tracing::debug!(%error, "not acknowledged; the reference will be found stale");
    }
    if let Ok(Some((lease, permit))) = leased {
        work(&shared, *lease, permit, share).await;
    }
}

/// Works on a leased batch; if that panics, the lease is given back at once.
async fn work(shared: &Arc<Shared>, lease: Lease, permit: OwnedSemaphorePermit, share: Share) {
    let (batch, account, token) = (lease.batch, lease.account, lease.token);
    let held = Held::from(&lease);
    let lost = shared.leases.insert(held);
    let worked = AssertUnwindSafe(work_on(shared, lease, permit, share, lost)).catch_unwind().await;
    shared.leases.remove(held);
    if worked.is_err() {
        // The panic hook has told where.
        tracing::error!(?batch, "the worker panicked on this batch; it goes back to work");
        let BatchRef { task, no } = batch;
        let lease = Ended { task_id: task, no, lease_token: token, account_id: account };
        match shared.app.store.take_back(&lease, shared.app.now()).await {
            Ok(_) => shared.dispatcher.poke(),
            Err(error) => tracing::warn!(%error, ?batch, "not handed back; its lease will run out"),
        }
    }
}

async fn work_on(
    shared: &Arc<Shared>,
    lease: Lease,
    permit: OwnedSemaphorePermit,
    share: Share,
    lost: CancellationToken,
) {
    let course = shared.stops.follow(lease.batch.task);
    let batch = match decode_batch(&lease.payload) {
        Ok(batch) => batch,
        Err(error) => {
            tracing::error!(%error, batch = ?lease.batch, "stored batch is damaged; task fails");
            let now = shared.app.now();
            let failed = shared.app.store.fail_task(lease.batch.task, lease.account, now).await;
            if let Err(error) = failed {
                tracing::error!(%error, task = %lease.batch.task, "cannot fail the task");
            }
            return;
        }
    };
    let caution = Caution::of(lease.lost, batch.len() - lease.done.len());
    let house = &shared.means(lease.sandbox).house;
    let mut permit = Some(permit);
    let company = match (caution, house.try_join()) {
        (Caution::None, Some(others)) => Some(others),
        (Caution::None, None) => {
            // Those at work must end first, and need permits for that.
            permit = None;
            Some(house.join().await)
        }
        (_, others) => {
            drop(others);
            permit = None;
            tracing::warn!(batch = ?lease.batch, lost = lease.lost, ?caution, "its leases keep being lost");
            tokio::select! {
                company = house.alone() => Some(company),
                () = lost.cancelled() => return,
                // Handed back below without being asked about: this loss would be no sign of anything.
                () = shared.drain.cancelled() => None,
            }
        }
    };
    // From here on its silence is a sign.
    if caution != Caution::None && company.is_some() && !begin_alone(shared, &lease, &lost).await {
        return;
    }
    let run = Run::new(shared.clone(), lease, batch, caution, permit, share, company);
    run.run(lost, course).await;
}

/// Has it written that the lease's batch begins alone; false if the lease is lost first.
async fn begin_alone(shared: &Shared, lease: &Lease, lost: &CancellationToken) -> bool {
    let held = Held::from(lease);
    while !lost.is_cancelled() {
        match shared.app.store.begin_alone(held, lease.lost).await {
            Ok(ours) => return ours,
            Err(error) => {
                tracing::warn!(%error, batch = ?lease.batch, "cannot begin alone; trying again");
            }
        }
        tokio::time::sleep(BACK_OFF).await;
    }
    false
}

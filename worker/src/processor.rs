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

/// What every processor of this process shares.
pub struct Shared {
    pub app: App,
    pub provider: Arc<dyn Provider>,
    pub health: ProviderHealth,
    /// One an address under way.
    pub permits: Arc<Semaphore>,
    pub backlog: Arc<Backlog>,
    pub leaser: Leaser,
    pub leases: Arc<Leases>,
    pub stops: Arc<Stops>,
    pub settler: Settler,
    pub dispatcher: Dispatcher,
    pub house: House,
    /// Start nothing more.
    pub drain: CancellationToken,
    /// Drop what is under way.
    pub abort: CancellationToken,
    pub inflight: metrics::Gauge,
}

/// Takes one delivery to its end: its batch is stored, handed back, or not ours.
pub async fn process(shared: Arc<Shared>, delivery: Delivery, share: Share) {
    let batch = delivery.batch;
    let permit = tokio::select! {
        permit = shared.permits.clone().acquire_owned() => permit.ok(),
        () = shared.drain.cancelled() => None,
    };
    let leased = match permit {
        Some(permit) => shared.leaser.lease(batch).await.map(|lease| lease.zip(Some(permit))),
        None => Err(Drained),
    };
    if leased.is_err() {
        // Taken off the queue, but not leased: somebody else may have it.
        let _ = shared.app.send(&[Sent { batch, first: false }]).await;
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
    let mut permit = Some(permit);
    let company = match (caution, shared.house.try_join()) {
        (Caution::None, Some(others)) => Some(others),
        (Caution::None, None) => {
            // Those at work must end first, and need permits for that.
            permit = None;
            Some(shared.house.join().await)
        }
        (_, others) => {
            drop(others);
            permit = None;
            tracing::warn!(batch = ?lease.batch, lost = lease.lost, ?caution, "its leases keep being lost");
            tokio::select! {
                company = shared.house.alone() => Some(company),
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

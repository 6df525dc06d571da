//! One batch: lease ▸ verify concurrently ▸ settle in steps ▸ release.
//!
//! * No address starts without a permit of the process, nor without a held credit.
//! * Finished addresses go to the settler about every [`STEP_AGE`], or [`STEP_ROWS`] at once.
//! * A cancelled task or a lost lease drops what is under way at once; a paused task, a process that
//!   drains or a provider that is down starts nothing more and lets it end.
//! * An address whose mail server says "later" is set aside, its credit given back; a batch with
//!   nothing else left waits, holding neither a lease nor a permit.
//! * An address whose turn to be asked comes soon waits for it here ([`crate::turns`]), holding its
//!   credit but no permit; it has no result yet if the batch is handed back first.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use listmill_shared::app::App;
use listmill_shared::app::provider::{FollowUp, Provider, ask};
use listmill_shared::domain::batch::{After, Deferral, Finding, Lease, Settled, Step};
use listmill_shared::domain::clock::Millis;
use listmill_shared::domain::payload::{Batch, decode_batch};
use listmill_shared::domain::verdict::{Credit, Reason, Verdict};
use listmill_shared::queue::Delivery;
use listmill_shared::store::batches::Held;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;

use crate::health::ProviderHealth;
use crate::leaser::{Drained, Leaser};
use crate::leases::Leases;
use crate::runtime::{Backlog, Room};
use crate::settler::Settler;
use crate::stops::{Course, Stops};
use crate::turns::{SOON, Turn, Turns};

/// Finished addresses wait this long at most before they are settled.
const STEP_AGE: Duration = Duration::from_millis(100);
/// So many are settled without waiting.
const STEP_ROWS: usize = 500;

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
    /// Start nothing more.
    pub drain: CancellationToken,
    /// Drop what is under way.
    pub abort: CancellationToken,
    pub inflight: metrics::Gauge,
}

impl Shared {
    /// After how many attempts, and when an address with a temporary verdict is due that is set aside
    /// `now`; `None` = no more. One that nobody was asked about has not used up its attempt.
    fn again(&self, verdict: &Verdict, attempts: i16, now: Millis) -> Option<(i16, Millis)> {
        let delays = &self.app.settings.retry_delays;
        match verdict.again_in {
            Some(wait) => Some((attempts - 1, now + wait.as_millis() as Millis)),
            None => {
                let delay = *delays.get(usize::try_from(attempts - 1).ok()?)?;
                Some((attempts, due(now, delay)))
            }
        }
    }
}

/// Takes one delivery to its end: its batch is stored, handed back, or not ours.
pub async fn process(shared: Arc<Shared>, delivery: Delivery, room: Room) {
    let batch = delivery.batch;
    let permit = tokio::select! {
        permit = shared.permits.clone().acquire_owned() => permit.ok(),
        () = shared.drain.cancelled() => None,
    };
    let leased = match permit {
        Some(permit) => shared.leaser.lease(batch).await.map(|lease| lease.zip(Some(permit))),
        None => Err(Drained),
    };
    match leased {
        Ok(Some((lease, permit))) => work(&shared, *lease, permit, room).await,
        Ok(None) => {}
        // Taken off the queue, but not leased: somebody else may have it.
        Err(Drained) => shared.app.send(&[batch]).await,
    }
    if let Err(error) = shared.app.queue.ack(delivery).await {
        tracing::debug!(%error, "not acknowledged; the reference will be found stale");
    }
}

async fn work(shared: &Arc<Shared>, lease: Lease, permit: OwnedSemaphorePermit, room: Room) {
    let held = Held { batch: lease.batch, token: lease.token };
    let lost = shared.leases.insert(held);
    let course = shared.stops.follow(lease.batch.task);
    match decode_batch(&lease.payload) {
        Ok(batch) => {
            let run = Run {
                shared: shared.clone(),
                next: 0,
                startable: lease.held,
                held: lease.held,
                findings: Vec::with_capacity(batch.len().min(STEP_ROWS)),
                deferrals: Vec::new(),
                earliest: None,
                turns: Turns::default(),
                dropped: false,
                under_way: FuturesUnordered::new(),
                permit: Some(permit),
                batch: Arc::new(batch),
                lease,
                room,
            };
            run.run(lost, course).await;
        }
        Err(error) => {
            tracing::error!(%error, batch = ?lease.batch, "stored batch is damaged; task fails");
            let now = shared.app.now();
            let failed = shared.app.store.fail_task(lease.batch.task, lease.account, now).await;
            if let Err(error) = failed {
                tracing::error!(%error, task = %lease.batch.task, "cannot fail the task");
            }
        }
    }
    shared.leases.remove(held.token);
}

/// An address under way; its permit is free again when it ends or is dropped.
struct UnderWay {
    _permit: OwnedSemaphorePermit,
    inflight: metrics::Gauge,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.inflight.decrement(1.0);
    }
}

/// What came of one address.
enum Outcome {
    /// It has its result.
    Found(Finding),
    /// It is set aside.
    Later(Deferral),
    /// It waits here.
    Soon(Turn),
    /// Nothing: the provider is down.
    Dropped,
}

/// How a batch ends here.
enum End {
    /// As far as it goes.
    Release,
    /// The lease is gone.
    Lost,
}

/// A leased batch at work.
struct Run {
    shared: Arc<Shared>,
    lease: Lease,
    batch: Arc<Batch>,
    /// The next entry to look at.
    next: usize,
    /// Held credits not given to an address yet.
    startable: i64,
    /// Held credits not settled yet, as the database has it.
    held: i64,
    findings: Vec<Finding>,
    /// Set aside since the last step.
    deferrals: Vec<Deferral>,
    /// When the first address that is set aside is due.
    earliest: Option<Millis>,
    /// Those whose turn comes soon.
    turns: Turns,
    /// Is there an address that was started, and came to nothing?
    dropped: bool,
    under_way: FuturesUnordered<BoxFuture<'static, Outcome>>,
    permit: Option<OwnedSemaphorePermit>,
    room: Room,
}

impl Run {
    async fn run(mut self, lost: CancellationToken, mut course: watch::Receiver<Course>) {
        let end = self.verify(&lost, &mut course).await;
        let after = self.after();
        self.under_way.clear();
        self.permit = None;
        self.room.set(0);
        if let End::Lost = end {
            return;
        }
        let task = self.lease.batch.task;
        let step = self.take_step(after);
        let settled = self.shared.settler.settle(step).await;
        if let Some(Settled::Stored { batch_done: false, .. }) = settled
            && let Err(error) = self.shared.app.dispatch(task).await
        {
            tracing::warn!(%error, %task, "handed back, not dispatched; the sweeper will");
        }
    }

    /// How the lease ends: does all that has no result wait for its time?
    fn after(&self) -> After {
        let started_all = self.next == self.batch.len() && self.turns.is_empty();
        match self.earliest {
            Some(until) if started_all && self.under_way.is_empty() && !self.dropped => {
                After::Wait(until)
            }
            _ => After::Release,
        }
    }

    /// Verifies until nothing is left to do, or to be done here.
    async fn verify(
        &mut self,
        lost: &CancellationToken,
        course: &mut watch::Receiver<Course>,
    ) -> End {
        let shared = self.shared.clone();
        let mut health = shared.health.clone();
        let mut step_due = None;
        loop {
            let halted =
                shared.drain.is_cancelled() || *course.borrow() == Course::Halt || health.is_down();
            if !halted {
                self.start_what_can().await;
            }
            let more = !halted && self.has_more();
            self.room.set(if more { self.batch.len() - self.next } else { 0 });
            let turn_at = self.turns.next_at().filter(|_| !halted);
            if !more && turn_at.is_none() && self.under_way.is_empty() {
                return End::Release;
            }
            let rows = self.findings.len() + self.deferrals.len();
            if rows >= STEP_ROWS {
                self.put_step().await;
                step_due = None;
            } else if rows > 0 && step_due.is_none() {
                step_due = Some(tokio::time::Instant::now() + STEP_AGE);
            }
            let step_at = step_due.unwrap_or_else(tokio::time::Instant::now);
            let next_turn = turn_at.unwrap_or_else(tokio::time::Instant::now);
            tokio::select! {
                biased;
                () = lost.cancelled() => return End::Lost,
                () = shared.abort.cancelled() => return End::Release,
                changed = course.changed() => {
                    if changed.is_ok() && *course.borrow() == Course::Drop {
                        return End::Lost;
                    }
                }
                () = tokio::time::sleep_until(step_at), if step_due.is_some() => {
                    self.put_step().await;
                    step_due = None;
                }
                Some(outcome) = self.under_way.next(), if !self.under_way.is_empty() => {
                    self.note(outcome);
                }
                permit = shared.permits.clone().acquire_owned(), if more => {
                    self.permit = permit.ok();
                }
                () = tokio::time::sleep_until(next_turn), if turn_at.is_some() && !more => {}
                () = shared.drain.cancelled(), if !halted => {}
                () = health.changed() => {}
            }
        }
    }

    /// Is there an address that may start?
    fn has_more(&mut self) -> bool {
        self.skip_done();
        self.turns.has_come() || (self.next < self.batch.len() && self.startable > 0)
    }

    /// Moves on past addresses that have a result or are set aside, and settles free ones at once.
    fn skip_done(&mut self) {
        while let Some(entry) = self.batch.get(self.next) {
            let seq = self.lease.first_seq + self.next as i64;
            let done = self.lease.done.binary_search(&seq).is_ok();
            let aside = self.deferred(seq).filter(|one| one.due_at > self.lease.leased_at);
            if !done && aside.is_none() && entry.valid {
                return;
            }
            if let Some(aside) = aside.filter(|_| !done) {
                self.wait_for(aside);
            } else if !done {
                self.findings.push(Finding {
                    seq,
                    address: entry.text.into(),
                    verdict: Verdict::of(Reason::InvalidSyntax),
                    credit: Credit::Free,
                    attempts: 0,
                    checked_at: self.shared.app.now(),
                });
            }
            self.next += 1;
        }
    }

    fn deferred(&self, seq: i64) -> Option<Deferral> {
        let all = &self.lease.deferred;
        all.binary_search_by_key(&seq, |one| one.seq).ok().and_then(|at| all.get(at)).copied()
    }

    /// What is set aside waits here if it is due soon.
    fn wait_for(&mut self, Deferral { attempts, due_at, .. }: Deferral) {
        if due_at > self.lease.horizon || self.startable == 0 {
            return self.waits_until(due_at);
        }
        let wait = (due_at - self.shared.app.now()).max(0).unsigned_abs();
        self.startable -= 1;
        self.turns.push(Turn::after(Duration::from_millis(wait), self.next, attempts + 1));
    }

    fn waits_until(&mut self, due_at: Millis) {
        self.earliest = Some(self.earliest.map_or(due_at, |earliest| earliest.min(due_at)));
    }

    fn note(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Found(finding) => self.findings.push(finding),
            Outcome::Later(deferral) => {
                self.waits_until(deferral.due_at);
                self.deferrals.push(deferral);
            }
            Outcome::Soon(turn) => self.turns.push(turn),
            Outcome::Dropped => self.dropped = true,
        }
    }

    /// Starts addresses while there are permits; those that end at once give theirs to the next.
    async fn start_what_can(&mut self) {
        while self.has_more() {
            let Some(permit) =
                self.permit.take().or_else(|| self.shared.permits.clone().try_acquire_owned().ok())
            else {
                return;
            };
            let mut future = self.start();
            match futures::poll!(&mut future) {
                std::task::Poll::Ready(outcome) => {
                    self.note(outcome);
                    self.permit = Some(permit);
                }
                std::task::Poll::Pending => {
                    self.shared.inflight.increment(1.0);
                    let under_way =
                        UnderWay { _permit: permit, inflight: self.shared.inflight.clone() };
                    self.under_way.push(Box::pin(async move {
                        let outcome = future.await;
                        drop(under_way);
                        outcome
                    }));
                }
            }
        }
        self.permit = None;
    }

    /// The next address, and which attempt it is: one whose turn has come, or the next entry.
    fn take_next(&mut self) -> (usize, i16) {
        if let Some(Turn { index, attempt, .. }) = self.turns.take() {
            return (index, attempt);
        }
        let index = self.next;
        self.next += 1;
        self.startable -= 1;
        let before = self.deferred(self.lease.first_seq + index as i64);
        (index, before.map_or(1, |before| before.attempts + 1))
    }

    /// The next address's verification.
    fn start(&mut self) -> BoxFuture<'static, Outcome> {
        let (shared, batch) = (self.shared.clone(), self.batch.clone());
        let (index, attempt) = self.take_next();
        let seq = self.lease.first_seq + index as i64;
        Box::pin(async move {
            let address = batch.get(index).map_or("", |entry| entry.text);
            let (verdict, attempts) = ask(&*shared.provider, address, attempt).await;
            let now = shared.app.now();
            if verdict.temporary && shared.provider.follow_up() == FollowUp::Later {
                if shared.health.is_down() {
                    return Outcome::Dropped;
                }
                if let Some(wait) = verdict.again_in.filter(|wait| *wait <= SOON) {
                    return Outcome::Soon(Turn::after(wait, index, attempts));
                }
                if let Some((attempts, due_at)) = shared.again(&verdict, attempts, now) {
                    return Outcome::Later(Deferral { seq, attempts, due_at });
                }
            }
            Outcome::Found(Finding {
                seq,
                address: address.into(),
                credit: verdict.reason.credit(),
                verdict,
                attempts,
                checked_at: now,
            })
        })
    }

    async fn put_step(&mut self) {
        let step = self.take_step(After::Keep);
        self.shared.settler.put(step).await;
    }

    fn take_step(&mut self, after: After) -> Step {
        let step = Step {
            batch: self.lease.batch,
            account: self.lease.account,
            token: self.lease.token,
            findings: std::mem::take(&mut self.findings),
            deferrals: std::mem::take(&mut self.deferrals),
            held: self.held,
            after,
        };
        self.held -= step.resolved();
        step
    }
}

/// When an address is due that is set aside now. Rounded up, so that a batch wakes a few times, not
/// once for each of its addresses.
fn due(now: Millis, delay: Duration) -> Millis {
    let delay = delay.as_millis() as i64;
    let grain = (delay / 16).clamp(10, 30_000);
    (now + delay + grain - 1) / grain * grain
}

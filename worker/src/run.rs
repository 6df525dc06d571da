//! A leased batch at work: verify concurrently ▸ settle in steps ▸ release.
//!
//! * No address starts without a permit of the process, nor without a held credit.
//! * Finished addresses go to the settler about every [`STEP_AGE`], or [`STEP_ROWS`] at once, one step at a
//!   time. While one is being settled further ones are kept, never more than the batch has, and none of
//!   them keeps its permit: a settlement that is stuck holds up nobody else.
//! * A cancelled task or a lost lease drops what is under way at once; a paused task, a process that
//!   drains or a provider that is down starts nothing more and lets it end.
//! * An address whose mail server says "later" is set aside, its credit given back; a batch with
//!   nothing else left waits, holding neither a lease nor a permit.
//! * An address whose turn to be asked comes soon waits for it here ([`crate::turns`]), holding its
//!   credit but no permit; it has no result yet if the batch is handed back first.
//! * An address whose verification panics is `internal_error`.
//! * A batch of a sandbox task asks the sandbox, whatever the provider is and however it is, with permits of its
//!   own; all its results are free.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use listmill_shared::app::provider::{FollowUp, ask};
use listmill_shared::domain::batch::{
    After, Caution, Deferral, Finding, Lease, Settled, Step, place,
};
use listmill_shared::domain::clock::Millis;
use listmill_shared::domain::done::Done;
use listmill_shared::domain::payload::Batch;
use listmill_shared::domain::verdict::{Credit, Reason, Verdict};
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::backlog::Share;
use crate::company::Company;
use crate::processor::{Means, Shared};
use crate::stops::Course;
use crate::turns::{SOON, Turn, Turns};

/// Finished addresses wait this long before they are settled; longer where many batches are at work in this
/// process, or many processes: what is settled must not fall apart into ever more transactions.
const STEP_AGE: Duration = Duration::from_millis(100);
const STEP_AGE_EACH: Duration = Duration::from_millis(25);
const STEP_AGE_LATE: Duration = Duration::from_secs(2);
/// So many are settled without waiting.
const STEP_ROWS: usize = 500;

/// An address under way; its permit is free again when it ends or is dropped.
struct UnderWay {
    verification: BoxFuture<'static, Outcome>,
    _permit: OwnedSemaphorePermit,
    inflight: metrics::Gauge,
}

impl Future for UnderWay {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        self.verification.as_mut().poll(context)
    }
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
pub struct Run {
    shared: Arc<Shared>,
    means: Means,
    lease: Lease,
    batch: Arc<Batch>,
    /// The next entry to look at.
    next: usize,
    /// Held credits not given to an address yet.
    startable: i64,
    /// Run alone: these `seq`s, ascending, and no others.
    suspects: Option<Vec<i64>>,
    caution: Caution,
    findings: Vec<Finding>,
    /// Has this lease brought a result?
    found: bool,
    /// What has its result, with the steps that were taken.
    done: Done,
    /// Set aside since the last step.
    deferrals: Vec<Deferral>,
    /// A step that is being settled.
    settling: Option<oneshot::Receiver<Settled>>,
    /// When the first address that is set aside is due.
    earliest: Option<Millis>,
    /// Those whose turn comes soon.
    turns: Turns,
    /// Is there an address without a result that waits for nothing?
    dropped: bool,
    under_way: FuturesUnordered<UnderWay>,
    permit: Option<OwnedSemaphorePermit>,
    share: Share,
    /// Held while addresses are verified; a settlement may take its time without it.
    company: Option<Company>,
}

impl Run {
    /// A batch to be worked on, its lease and what it holds.
    pub fn new(
        shared: Arc<Shared>,
        lease: Lease,
        batch: Batch,
        caution: Caution,
        permit: Option<OwnedSemaphorePermit>,
        share: Share,
        company: Option<Company>,
    ) -> Self {
        let valid = (lease.first_seq..).zip(batch.iter()).filter(|(_, entry)| entry.valid);
        let suspects = caution.most().map(|most| lease.suspects(valid.map(|(seq, _)| seq), most));
        Self {
            means: shared.means(lease.sandbox).clone(),
            shared,
            next: 0,
            startable: lease.startable(),
            suspects,
            caution,
            findings: Vec::with_capacity(batch.len().min(STEP_ROWS)),
            found: false,
            done: lease.done.clone(),
            deferrals: Vec::new(),
            settling: None,
            earliest: None,
            turns: Turns::default(),
            dropped: false,
            under_way: FuturesUnordered::new(),
            permit,
            batch: Arc::new(batch),
            lease,
            share,
            company,
        }
    }

    /// Works until nothing is left to do, or the lease is gone; `lost` says that it is.
    pub async fn run(mut self, lost: CancellationToken, mut course: watch::Receiver<Course>) {
        let end = self.verify(&lost, &mut course).await;
        let after = self.after();
        self.under_way.clear();
        self.permit = None;
        self.company = None;
        self.share.set(0);
        if let End::Lost = end {
            return;
        }
        let step = self.take_step(after);
        // Whatever comes of it, the settler has seen to it.
        let _ = self.shared.settler.settle(step).await;
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
        let (mut health, permits) = (self.means.health.clone(), self.means.permits.clone());
        let mut step_due = None;
        loop {
            let halted =
                shared.drain.is_cancelled() || *course.borrow() == Course::Halt || health.is_down();
            if !halted {
                self.start_what_can().await;
            }
            let more = !halted && self.has_more();
            self.share.set(if more { self.batch.len() - self.next } else { 0 });
            let turn_at = self.turns.next_at().filter(|_| !halted);
            if !more && turn_at.is_none() && self.under_way.is_empty() {
                return End::Release;
            }
            let rows = self.findings.len() + self.deferrals.len();
            if self.settling.is_some() {
                step_due = None;
            } else if rows >= STEP_ROWS {
                self.put_step();
                step_due = None;
            } else if rows > 0 && step_due.is_none() {
                step_due = Some(tokio::time::Instant::now() + shared.step_age());
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
                    self.put_step();
                    step_due = None;
                }
                // A lost fence is told to the lease, too.
                () = settled(&mut self.settling), if self.settling.is_some() => {
                    self.settling = None;
                }
                Some(outcome) = self.under_way.next(), if !self.under_way.is_empty() => {
                    self.note(outcome);
                    // Many end at the same time.
                    while let Some(Some(outcome)) = self.under_way.next().now_or_never() {
                        self.note(outcome);
                    }
                }
                permit = permits.clone().acquire_owned(), if more => {
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
            let done = self.lease.is_done(seq);
            let aside = self.deferred(seq).filter(|one| one.due_at > self.lease.leased_at);
            let passed = entry.valid && self.is_no_suspect(seq);
            if !done && !passed && aside.is_none() && entry.valid {
                return;
            }
            if passed {
                self.dropped |= !done;
            } else if let Some(aside) = aside.filter(|_| !done) {
                self.wait_for(aside);
            } else if !done {
                self.findings.push(Finding {
                    seq,
                    verdict: Verdict::of(Reason::InvalidSyntax),
                    credit: Credit::Free,
                    attempts: 0,
                    checked_at: self.shared.app.now(),
                });
            }
            self.next += 1;
        }
    }

    fn is_no_suspect(&self, seq: i64) -> bool {
        self.suspects.as_ref().is_some_and(|suspects| suspects.binary_search(&seq).is_err())
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
                self.permit.take().or_else(|| self.means.permits.clone().try_acquire_owned().ok())
            else {
                return;
            };
            let mut verification = self.start();
            match futures::poll!(&mut verification) {
                Poll::Ready(outcome) => {
                    self.note(outcome);
                    self.permit = Some(permit);
                }
                Poll::Pending => {
                    let inflight = self.shared.inflight.clone();
                    inflight.increment(1.0);
                    self.under_way.push(UnderWay { verification, _permit: permit, inflight });
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
        let (means, sandbox) = (self.means.clone(), self.lease.sandbox);
        let (index, attempt) = self.take_next();
        let seq = self.lease.first_seq + index as i64;
        let (of, give_up) = (self.lease.batch, self.caution == Caution::GiveUp);
        Box::pin(async move {
            let address = batch.get(index).map_or("", |entry| entry.text);
            let asked = match give_up {
                true => Ok((ended_processes(), attempt)),
                false => {
                    AssertUnwindSafe(ask(&*means.provider, address, attempt)).catch_unwind().await
                }
            };
            let (verdict, attempts) = asked.unwrap_or_else(|_| {
                // The panic hook has told where; the address itself is the owner's business.
                tracing::error!(batch = ?of, seq, "the provider panicked on this address");
                (
                    internal_error(
                        "the verification of this address failed by a fault of the program",
                    ),
                    attempt,
                )
            });
            let now = shared.app.now();
            if verdict.temporary && means.provider.follow_up() == FollowUp::Later {
                if means.health.is_down() {
                    return Outcome::Dropped;
                }
                if let Some(wait) = verdict.again_in.filter(|wait| *wait <= SOON) {
                    return Outcome::Soon(Turn::after(wait, index, attempts));
                }
                if let Some((attempts, due_at)) = shared.again(&verdict, attempts, now) {
                    return Outcome::Later(Deferral { seq, attempts, due_at });
                }
            }
            let detail = verdict.detail.filter(|_| shared.app.settings.evidence);
            Outcome::Found(Finding {
                seq,
                credit: verdict.reason.credit_in(sandbox),
                verdict: Verdict { detail, ..verdict },
                attempts,
                checked_at: now,
            })
        })
    }

    fn put_step(&mut self) {
        let step = self.take_step(After::Keep);
        self.settling = Some(self.shared.settler.settle(step));
    }

    fn take_step(&mut self, after: After) -> Step {
        let done = self.done.clone();
        self.found |= !self.findings.is_empty();
        for finding in &self.findings {
            place(self.lease.first_seq, finding.seq).map(|place| self.done.insert(place));
        }
        Step {
            batch: self.lease.batch,
            first_seq: self.lease.first_seq,
            done,
            account: self.lease.account,
            token: self.lease.token,
            findings: std::mem::take(&mut self.findings),
            deferrals: std::mem::take(&mut self.deferrals),
            after,
            lost: self.caution.lost_after(self.lease.lost, self.found, after),
        }
    }
}

/// Ends when the step that is being settled is, one way or the other.
async fn settled(settling: &mut Option<oneshot::Receiver<Settled>>) {
    if let Some(wait) = settling {
        // No answer: it could not be settled, and the lease has been told.
        let _ = wait.await;
    }
}

/// Nothing is known of an address, for a reason of ours.
fn internal_error(why: &str) -> Verdict {
    let detail = serde_json::json!({ "error": why }).to_string();
    Verdict { detail: Some(detail), ..Verdict::of(Reason::InternalError) }
}

/// The verdict on an address that is not asked about any more.
fn ended_processes() -> Verdict {
    internal_error(
        "every process that asked about this address ended without a word; it was not asked again",
    )
}

/// When an address is due that is set aside now. Rounded up, so that a batch wakes a few times, not
/// once for each of its addresses.
fn due(now: Millis, delay: Duration) -> Millis {
    let delay = delay.as_millis() as i64;
    let grain = (delay / 16).clamp(10, 30_000);
    (now + delay + grain - 1) / grain * grain
}

impl Shared {
    /// How long finished addresses of a batch wait for more of it.
    fn step_age(&self) -> Duration {
        let batches = u32::try_from(self.leases.count()).unwrap_or(u32::MAX);
        let age = STEP_AGE_EACH.saturating_mul(batches).clamp(STEP_AGE, STEP_AGE_LATE);
        self.app.spread(age, STEP_AGE_LATE)
    }

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

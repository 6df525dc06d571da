//! The sweeper: repairs, every interval, what crashes, freezes and lost messages leave.
//! Each repair is idempotent; none needs a leader. Each runs in a loop of its own, so that one that is
//! stuck does not stop the others.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures::FutureExt;
use listmill_shared::app::App;
use listmill_shared::app::credits::RESUME_AT_ONCE;
use listmill_shared::domain::batch::{BatchRef, Capacity};
use listmill_shared::domain::task::PauseReason;
use listmill_shared::store::StoreError;
use listmill_shared::store::workers::Report;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::backlog::Backlog;
use crate::dispatcher::Dispatcher;
use crate::health::ProviderHealth;
use crate::leases::Leases;
use crate::runtime::Identity;

/// Repairs of one kind in one round.
const AT_ONCE: i64 = 500;
/// Rare repairs come every so many rounds.
const RARELY: u32 = 60;
/// Workers that do a repair in the same round.
const A_ROUND: u64 = 2;
/// Workers that do in the same round what each must do for itself, and how many rounds that takes at the most.
const OWN_A_ROUND: u64 = 20;
const OWN_ROUNDS: u64 = 5;
/// A worker not seen for this long is forgotten.
const SILENT_MS: i64 = 300_000;
/// A consumer of the queue not heard of for this long is dead.
const DEAD: Duration = Duration::from_secs(300);
/// What a consumer was handed it leases within moments, unless it is dead or frozen.
const HANDED: Duration = Duration::from_secs(10);
/// A batch that its own worker has not taken this long after it was due is anybody's.
const ANYONES_MS: i64 = 60_000;
/// One erased task is removed for so long, then the next.
const ERASE_EACH: Duration = Duration::from_secs(5);
/// The request log is cut back for so long in a round; so long are tasks erased whose time is over.
const EXPIRE_EACH: Duration = Duration::from_secs(1);
/// Slack beyond the body's idle timeout before a submission counts as abandoned.
const ABANDONED_MS: i64 = 60_000;
/// A session that holds something and waits for its client for so long belongs to a frozen process.
const FROZEN: Duration = Duration::from_secs(5);

/// References that go to this worker alone.
pub type Lane = mpsc::Sender<BatchRef>;

/// What the repairs work with.
pub struct Sweeper<'a> {
    pub app: &'a App,
    pub worker: &'a Identity,
    pub health: &'a ProviderHealth,
    pub lane: &'a Lane,
    pub dispatcher: &'a Dispatcher,
    pub backlog: &'a Backlog,
    pub leases: &'a Leases,
    /// Addresses verified and not told of yet.
    pub verified: &'a AtomicU64,
    /// Set where an operator may drain this worker by itself: what is cancelled then.
    pub drain: Option<&'a CancellationToken>,
}

impl Sweeper<'_> {
    /// Sweeps until dropped.
    pub async fn run(&self) {
        let new = AtomicBool::new(true);
        // Boxed: together they would be a future of many kilobytes. Those in turn any worker may do.
        futures::future::join_all([
            self.again_and_again("seen", 1, || self.still_there(&new)).boxed(),
            self.tell_changes().boxed(),
            self.again_and_again("leases", 1, || self.in_turn(self.expired_leases())).boxed(),
            self.again_and_again("messages", 1, || self.in_turn(self.lost_messages())).boxed(),
            self.wiped().boxed(),
            self.again_and_again("credits", 1, || self.in_turn(self.funded())).boxed(),
            self.again_and_again("provider", 1, || self.follow_health()).boxed(),
            self.again_and_again("deferrals", 1, || self.wake()).boxed(),
            self.again_and_again("checks", 1, || self.in_turn(self.expired_checks())).boxed(),
            self.again_and_again("counts", 1, || self.in_turn(self.count_credits())).boxed(),
            self.again_and_again("erasures", 1, || self.in_turn(self.erasures())).boxed(),
            self.again_and_again("results", 1, || self.in_turn(self.expired_results())).boxed(),
            self.again_and_again("requests", 1, || self.in_turn(self.expired_requests())).boxed(),
            self.again_and_again("sessions", 1, || self.in_turn(self.frozen_sessions())).boxed(),
            self.blockers().boxed(),
            self.again_and_again("rare", RARELY, || self.rarely()).boxed(),
        ])
        .await;
    }

    /// Does the repair, where this round is one of this worker's: however many there are, about [`A_ROUND`] of
    /// them do it in a round, and who is frozen or gone costs a round or two.
    async fn in_turn(
        &self,
        repair: impl Future<Output = Result<(), StoreError>>,
    ) -> Result<(), StoreError> {
        if self.is_in_turn().await { repair.await } else { Ok(()) }
    }

    async fn is_in_turn(&self) -> bool {
        self.is_turn_of(self.workers().await.div_ceil(A_ROUND))
    }

    /// Has the turn come to do what each worker does for itself? The more there are, the rarer.
    async fn is_own_turn(&self) -> bool {
        self.is_turn_of(self.workers().await.div_ceil(OWN_A_ROUND).min(OWN_ROUNDS))
    }

    async fn workers(&self) -> u64 {
        let workers = self.app.room().await.map_or(1, |room| room.workers);
        u64::try_from(workers).unwrap_or(1).max(1)
    }

    fn is_turn_of(&self, turns: u64) -> bool {
        let place = self
            .worker
            .name
            .bytes()
            .fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
        let interval = self.app.settings.sweep_interval.as_millis().max(1) as i64;
        let round = (self.app.now() / interval).unsigned_abs();
        round % turns == place % turns
    }

    async fn again_and_again<F>(
        &self,
        part: &'static str,
        rounds: u32,
        repair: impl Fn() -> F + Send,
    ) where
        F: Future<Output = Result<(), StoreError>> + Send,
    {
        let mut every = tokio::time::interval(self.app.settings.sweep_interval * rounds);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut troubled = false;
        loop {
            every.tick().await;
            match repair().await {
                Ok(()) => {
                    troubled = false;
                    self.app.stuck.got_on("sweep", part);
                }
                Err(error) => {
                    self.app.stuck.failed("sweep", part, self.app.now());
                    match std::mem::replace(&mut troubled, true) {
                        true => tracing::debug!(%error, part, "cannot sweep"),
                        false => tracing::warn!(%error, part, "cannot sweep; trying on"),
                    }
                }
            }
        }
    }

    /// This worker lives; told when it is `new`, and then in its turn. A round of dispatch, too: whatever
    /// started none.
    async fn still_there(&self, new: &AtomicBool) -> Result<(), StoreError> {
        if new.load(Ordering::Relaxed) || self.is_own_turn().await {
            self.seen().await?;
            new.store(false, Ordering::Relaxed);
        }
        if self.is_in_turn().await {
            self.dispatcher.poke();
        }
        Ok(())
    }

    async fn seen(&self) -> Result<(), StoreError> {
        let now = self.app.now();
        let concurrency = match self.health.is_down() {
            true => 0,
            false => self.app.settings.worker_concurrency as i64,
        };
        let capacity = Capacity { concurrency, pace: self.backlog.pace() as i64 };
        let verified = self.verified.swap(0, Ordering::Relaxed);
        let report = Report {
            name: &self.worker.name,
            capacity,
            version: env!("CARGO_PKG_VERSION"),
            source: &self.worker.source,
            started_at: self.worker.started_at,
            leases: self.leases.count() as i64,
            clock_offset: self.app.clock.offset(),
            verified: i64::try_from(verified).unwrap_or(i64::MAX),
            can_drain: self.drain.is_some(),
        };
        let told = self.app.store.worker_seen(&report, now).await;
        if told.is_err() {
            self.verified.fetch_add(verified, Ordering::Relaxed);
        }
        if let (true, Some(drain)) = (told?, self.drain)
            && !drain.is_cancelled()
        {
            tracing::info!(worker = %self.worker.name, "an operator drains this worker");
            drain.cancel();
        }
        Ok(())
    }

    /// Much faster than the fleet knows, or a provider that has gone down or come back: it is told at once.
    async fn tell_changes(&self) {
        let mut health = self.health.clone();
        loop {
            tokio::select! {
                () = self.backlog.faster() => {}
                () = health.changed() => {}
            }
            if let Err(error) = self.seen().await {
                tracing::debug!(%error, "what the worker can do is told a little later");
            }
        }
    }

    async fn expired_leases(&self) -> Result<(), StoreError> {
        let back = self.app.store.reclaim_leases(AT_ONCE, self.app.now()).await?;
        if !back.is_empty() {
            tracing::info!(batches = back.len(), "leases expired; their batches go back to work");
            self.dispatcher.poke();
        }
        Ok(())
    }

    async fn lost_messages(&self) -> Result<(), StoreError> {
        let lost = self.app.send_lost(AT_ONCE).await?;
        if lost > 0 {
            tracing::info!(batches = lost, "the queue had lost messages; they are sent again");
        }
        // After Redis was away this fails for a while, and is no fault of the database.
        match self.app.queue.pass_on(&self.worker.name, HANDED).await {
            Ok(0) => {}
            Ok(passed) => tracing::debug!(passed, "handed to workers that are gone; sent again"),
            Err(error) => tracing::debug!(%error, "cannot look for what dead workers were handed"),
        }
        Ok(())
    }

    /// The queue was wiped: everything queued is looked for at once.
    async fn wiped(&self) {
        let mut wiped = self.app.queue.wiped();
        while wiped.changed().await.is_ok() {
            while let Err(error) = self.look_for_all().await {
                tracing::debug!(%error, "cannot look for what the queue has lost");
                tokio::time::sleep(self.app.settings.sweep_interval).await;
            }
        }
    }

    async fn look_for_all(&self) -> Result<(), StoreError> {
        if self.app.store.forget_messages(self.app.now() - 1).await? > 0 {
            let lost = self.app.send_lost(AT_ONCE).await?;
            tracing::warn!(batches = lost, "the queue was wiped; its messages are sent again");
        }
        Ok(())
    }

    async fn funded(&self) -> Result<(), StoreError> {
        let store = &self.app.store;
        if !self.app.settings.credits {
            let (reason, now) = (PauseReason::InsufficientCredits, self.app.now());
            if store.resume_all(reason, AT_ONCE, now).await? > 0 {
                tracing::info!("credits are off; tasks that waited for some go on");
                self.dispatcher.poke();
            }
        }
        for account in store.funded_accounts(AT_ONCE).await? {
            if store.resume_funded(account, RESUME_AT_ONCE, self.app.now()).await? > 0 {
                tracing::info!(%account, "credits arrived; tasks go on");
                self.dispatcher.poke();
            }
        }
        Ok(())
    }

    /// Tasks stand still, and say why, when no worker's provider works.
    async fn follow_health(&self) -> Result<(), StoreError> {
        let (app, now) = (self.app, self.app.now());
        let Some(why) = self.health.why_down() else {
            let due = self.is_in_turn().await;
            if due
                && app.store.resume_all(PauseReason::ProviderUnavailable, AT_ONCE, now).await? > 0
            {
                tracing::info!("the provider works; tasks go on");
                self.dispatcher.poke();
            }
            return Ok(());
        };
        if app.working_concurrency().await? == 0 {
            for task in app.store.active_tasks(AT_ONCE).await? {
                tracing::warn!(%task, "no worker's provider works: the task is paused until one does");
                let (reason, why) = (PauseReason::ProviderUnavailable, why.to_string());
                app.store.pause_because(task, reason, Some(why), now).await?;
            }
        }
        Ok(())
    }

    /// Batches that were set aside and are due come to the worker that did it, past the queue.
    async fn wake(&self) -> Result<(), StoreError> {
        let (app, room) = (self.app, self.lane.capacity() as i64);
        if room == 0 || self.health.is_down() || !self.is_own_turn().await {
            return Ok(());
        }
        let (source, now) = (&self.worker.source, app.now());
        let woken = app.store.wake(source, now - ANYONES_MS, room, app.resend_at(), now).await?;
        for batch in woken {
            // No room after all: the queue does not have it either, and it is sent there.
            let _ = self.lane.try_send(batch);
        }
        Ok(())
    }

    async fn expired_checks(&self) -> Result<(), StoreError> {
        let now = self.app.now();
        for check in self.app.store.expired_checks(now, AT_ONCE).await? {
            self.app.store.close_check(check, false, now).await?;
        }
        Ok(())
    }

    /// What ended tasks charged is counted to whoever submitted them.
    async fn count_credits(&self) -> Result<(), StoreError> {
        self.app.count_key_credits().await.map(|_| ())
    }

    /// What is left of erased tasks, a bounded time for each.
    async fn erasures(&self) -> Result<(), StoreError> {
        for task in self.app.store.erasures(AT_ONCE).await? {
            self.app.empty(task, ERASE_EACH).await;
        }
        Ok(())
    }

    /// Tasks whose results have been kept for long enough, a bounded time each round.
    async fn expired_results(&self) -> Result<(), StoreError> {
        let erased = self.app.expire_results(EXPIRE_EACH).await?;
        if erased > 0 {
            tracing::info!(tasks = erased, "erased: their results were kept for results_ttl");
        }
        Ok(())
    }

    /// What the request log holds beyond its age and number, a bounded time each round.
    async fn expired_requests(&self) -> Result<(), StoreError> {
        self.app.expire_requests(EXPIRE_EACH).await?;
        self.app.expire_abuse(EXPIRE_EACH).await
    }

    async fn frozen_sessions(&self) -> Result<(), StoreError> {
        for frozen in self.app.store.end_frozen(FROZEN).await? {
            tracing::warn!(
                pid = frozen.pid,
                session = frozen.name,
                "ended a session whose process had stopped in the middle of a statement"
            );
        }
        Ok(())
    }

    /// Says who holds what others wait for, once for each that does.
    async fn blockers(&self) {
        let mut told: HashSet<i32> = HashSet::new();
        let mut every = tokio::time::interval(self.app.settings.sweep_interval);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            if !self.is_in_turn().await {
                continue;
            }
            let Ok(blockers) = self.app.store.blockers().await else { continue };
            metrics::gauge!("listmill_blocking_sessions").set(blockers.len() as f64);
            for one in blockers.iter().filter(|one| !told.contains(&one.pid)) {
                tracing::warn!(
                    pid = one.pid,
                    session = one.name,
                    state = one.state,
                    seconds = one.seconds,
                    waiting = one.waiting,
                    "a session holds what others wait for"
                );
            }
            told = blockers.into_iter().map(|one| one.pid).collect();
        }
    }

    async fn rarely(&self) -> Result<(), StoreError> {
        let (app, now) = (self.app, self.app.now());
        let idle = app.settings.body_idle_timeout.as_millis() as i64 + ABANDONED_MS;
        for task in app.store.abandoned_ingests(now - idle, AT_ONCE).await? {
            tracing::info!(%task, "removing an abandoned submission");
            app.store.drop_ingest(task, now).await?;
        }
        app.store.forget_answers(app.oldest_answer()).await?;
        app.store.forget_workers(now - SILENT_MS).await?;
        app.store.forget_links(AT_ONCE, now).await?;
        app.store.give_back().await?;
        if app.store.mark_forgotten(AT_ONCE, now).await? > 0 {
            self.dispatcher.poke();
        }
        if let Err(error) = app.queue.tidy(&self.worker.name, DEAD).await {
            tracing::debug!(%error, "cannot tidy the queue");
        }
        Ok(())
    }
}

//! Whatever happens in whatever order: after every single event the books are exact, no address has
//! two results, and a task that completed has them all.

use std::collections::HashMap;

use listmill_shared::domain::batch::{After, Deferral, Finding, Lease, Settled};
use listmill_shared::domain::id::TaskId;
use listmill_shared::domain::payload::decode_batch;
use listmill_shared::domain::task::{PauseReason, TaskStatus};
use listmill_shared::domain::verdict::{Credit, Reason};
use listmill_shared::store::batches::Leasing;
use listmill_shared::store::credits::EntryFilter;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::world::{TTL, World, findings, room, step};

/// What may happen; numbers choose among what is there.
#[derive(Debug, Clone)]
enum Event {
    Grant(i64),
    Submit(usize),
    /// As a test key does.
    SubmitSandbox(usize),
    Lease(usize),
    /// Of lease, so many findings, unknown every n-th, releasing.
    Settle(usize, usize, usize, bool),
    /// Of lease, the first so many findings are set aside for so long instead.
    SetAside(usize, usize, i64),
    SettleAgain,
    Cancel(usize),
    Pause(usize),
    Resume(usize),
    TimePasses(i64),
    Sweep,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        1 => (1..40_i64).prop_map(Event::Grant),
        1 => (1..45_usize).prop_map(Event::Submit),
        1 => (1..45_usize).prop_map(Event::SubmitSandbox),
        6 => any::<usize>().prop_map(Event::Lease),
        6 => (any::<usize>(), 0..12_usize, 1..5_usize, any::<bool>())
            .prop_map(|(l, n, u, r)| Event::Settle(l, n, u, r)),
        3 => (any::<usize>(), 1..12_usize, 1..TTL).prop_map(|(l, n, by)| Event::SetAside(l, n, by)),
        1 => Just(Event::SettleAgain),
        1 => any::<usize>().prop_map(Event::Cancel),
        1 => any::<usize>().prop_map(Event::Pause),
        1 => any::<usize>().prop_map(Event::Resume),
        1 => (1..TTL).prop_map(Event::TimePasses),
        1 => Just(Event::Sweep),
    ]
}

/// What the test knows.
struct Model {
    world: World,
    tasks: Vec<TaskId>,
    /// Leases as their holders believe, with the credits they believe to hold.
    leases: Vec<(Lease, i64)>,
    /// Results by task, as acknowledged.
    stored: HashMap<TaskId, usize>,
    last: Option<(i64, Lease, i64, After, usize, usize)>,
}

impl Model {
    fn new(world: World) -> Self {
        Self { world, tasks: vec![], leases: vec![], stored: HashMap::new(), last: None }
    }

    fn pick(&self, n: usize) -> Option<TaskId> {
        (!self.tasks.is_empty()).then(|| self.tasks[n % self.tasks.len()])
    }

    async fn happen(&mut self, event: &Event) {
        let account = self.world.account;
        match *event {
            Event::Grant(n) => self.world.grant(n).await,
            Event::Submit(n) => self.tasks.push(self.world.people(n).await),
            Event::SubmitSandbox(n) => self.tasks.push(self.world.sandbox_people(n).await),
            Event::Lease(n) => {
                let Some(task) = self.pick(n) else { return };
                let batches = self.world.task(task).await.batches.max(1) as usize;
                if let Leasing::Leased(lease) =
                    self.world.try_lease(task, (n / 7 % batches) as i32).await
                {
                    let held = lease.held;
                    self.leases.push((*lease, held));
                }
            }
            Event::Settle(n, most, unknown, release) => {
                if self.leases.is_empty() {
                    return;
                }
                let at = n % self.leases.len();
                let after = if release { After::Release } else { After::Keep };
                let (lease, held) = self.leases.swap_remove(at);
                let number = self.world.number();
                self.settle(number, lease, held, after, most, unknown).await;
            }
            Event::SetAside(n, most, by) => {
                if self.leases.is_empty() {
                    return;
                }
                let at = n % self.leases.len();
                let (lease, held) = self.leases.swap_remove(at);
                let until = self.world.app.now() + by;
                let (mut all, _) = self.step(&lease, held, After::Release, 100, 2);
                let chargeable = |f: &&Finding| f.credit != Credit::Free;
                let later: Vec<i64> =
                    all.findings.iter().filter(chargeable).take(most).map(|f| f.seq).collect();
                all.findings.retain(|f| !later.contains(&f.seq));
                all.deferrals = later
                    .into_iter()
                    .map(|seq| Deferral { seq, attempts: 1, due_at: until })
                    .collect();
                // Only a batch whose every address was looked at may wait.
                let seen = all.findings.len() + all.deferrals.len() + lease.done.len();
                let whole = seen as i32 == self.addresses(&lease);
                all.after = if whole && !all.deferrals.is_empty() {
                    After::Wait(until)
                } else {
                    After::Release
                };
                let (task, count) = (lease.batch.task, all.findings.len());
                let number = self.world.number();
                let settled = self.world.settle(number, &[all]).await;
                if settled.outcomes != [Settled::Fenced] {
                    *self.stored.entry(task).or_default() += count;
                }
            }
            Event::SettleAgain => {
                // The answer to a commit was lost: the same settlement comes once more.
                if let Some((number, lease, held, after, most, unknown)) = self.last.take() {
                    let (steps, _) = self.step(&lease, held, after, most, unknown);
                    self.world.settle(number, &[steps]).await;
                }
            }
            Event::Cancel(n) => {
                if let Some(task) = self.pick(n) {
                    let _ = self.world.app.cancel(task, account).await;
                }
            }
            Event::Pause(n) => {
                if let Some(task) = self.pick(n) {
                    let _ = self.world.app.pause(task, account).await;
                }
            }
            Event::Resume(n) => {
                if let Some(task) = self.pick(n) {
                    let _ = self.world.app.resume(task, account).await;
                }
            }
            Event::TimePasses(by) => self.world.app.clock.advance(by),
            Event::Sweep => {
                let (store, now) = (&self.world.app.store, self.world.app.now());
                store.reclaim_leases(100, now).await.expect("reclaim");
                store.unheard(100, now + TTL, now).await.expect("unheard");
                store.resume_funded(account, 100, now).await.expect("resume");
                store.wake("here", now, 100, now + TTL, now).await.expect("wake");
                store.dispatch(room(3), now + TTL, now).await.expect("dispatch");
                store.dispatch_sandbox(room(3), now + TTL, now).await.expect("dispatch");
            }
        }
    }

    fn step(
        &self,
        lease: &Lease,
        held: i64,
        after: After,
        most: usize,
        unknown: usize,
    ) -> (listmill_shared::domain::batch::Step, usize) {
        let verdict = |seq: i64| match seq as usize % unknown {
            0 => Reason::Timeout,
            _ => Reason::Accepted,
        };
        let mut startable = Lease {
            held,
            payload: lease.payload.clone(),
            done: lease.done.clone(),
            deferred: lease.deferred.clone(),
            ..*lease
        };
        startable.held = held;
        let mut found = findings(&startable, verdict);
        found.truncate(most);
        let count = found.len();
        (step(lease, found, after), count)
    }

    fn addresses(&self, lease: &Lease) -> i32 {
        decode_batch(&lease.payload).expect("payload").len() as i32
    }

    async fn settle(
        &mut self,
        number: i64,
        mut lease: Lease,
        held: i64,
        after: After,
        most: usize,
        unknown: usize,
    ) {
        let (steps, count) = self.step(&lease, held, after, most, unknown);
        let (tally, seqs) =
            (steps.tally(), steps.findings.iter().map(|f| f.seq).collect::<Vec<_>>());
        let task = lease.batch.task;
        let settled = self.world.settle(number, &[steps]).await;
        if settled.outcomes == [Settled::Fenced] {
            return;
        }
        *self.stored.entry(task).or_default() += count;
        if after == After::Keep {
            let copy = Lease {
                payload: lease.payload.clone(),
                done: lease.done.clone(),
                deferred: lease.deferred.clone(),
                ..lease
            };
            self.last = Some((number, copy, held, after, most, unknown));
            for seq in seqs {
                lease.done.insert((seq - lease.first_seq) as usize);
            }
            self.leases.push((lease, held - tally.resolved()));
        }
    }

    async fn check(&self) {
        self.world.check_books().await;
        for task in &self.tasks {
            let now = self.world.task(*task).await;
            let results =
                self.world.app.store.results(*task, -1, 1_000, None).await.expect("results");
            assert!(results.windows(2).all(|pair| pair[0].seq < pair[1].seq));
            assert_eq!(results.len(), self.stored.get(task).copied().unwrap_or(0), "{now:?}");
            assert_eq!(results.len() as i64, now.tally.processed(), "{now:?}");
            let (aside, _) = self.world.app.store.set_aside(*task).await.expect("set aside");
            assert!(now.tally.processed() + aside <= now.submitted.unique, "{aside}, {now:?}");
            if now.status == TaskStatus::Completed {
                assert_eq!(now.tally.processed(), now.submitted.unique, "{now:?}");
            }
            if now.sandbox {
                let used = (now.held, now.released, now.tally.resolved(), aside);
                assert_eq!(used, (0, 0, 0, 0), "{now:?}");
                assert_ne!(now.pause_reason, Some(PauseReason::InsufficientCredits), "{now:?}");
                assert!(results.iter().all(|found| found.credit == Credit::Free), "{results:?}");
                let filter = EntryFilter { task: Some(*task), kind: None };
                let entries = self.world.app.store.entries(self.world.account, filter, None, 10);
                assert!(entries.await.expect("entries").is_empty(), "{now:?}");
            }
            if now.status.has_ended() {
                assert_eq!(now.held, 0, "{now:?}");
            }
        }
    }
}

fn run(open: fn() -> futures::future::BoxFuture<'static, World>, cases: u32) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let events = proptest::collection::vec(event(), 1..60);
    TestRunner::new(config)
        .run(&events, |events| {
            runtime.block_on(async {
                let mut model = Model::new(open().await);
                model.world.grant(60).await;
                for event in &events {
                    model.happen(event).await;
                    model.check().await;
                }
                model.world.app.store.close().await;
            });
            Ok(())
        })
        .expect("no order of events breaks the books");
}

#[test]
fn any_order_of_events_keeps_the_books_sqlite() {
    run(|| Box::pin(World::sqlite()), 24);
}

#[test]
fn any_order_of_events_keeps_the_books_postgres() {
    // The shared server belongs to the runtime of the tests; this one has its own databases in it.
    run(|| Box::pin(World::postgres()), 12);
}

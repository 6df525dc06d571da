//! What processes share through Redis ([`listmill_shared::throttle::share`]): whatever they do, and
//! whoever falls silent, they have no more than the total together, and in the end equal parts.

use std::time::Duration;

use listmill_shared::domain::clock::Clock;
use listmill_shared::domain::id::Ids;
use listmill_shared::throttle::pace::Pacer;
use listmill_shared::throttle::share::{LEASE, Rest, Share, TERM};
use listmill_tests::redis::Redis;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// One process: what it has by its own books.
struct Process {
    pacer: Pacer,
    share: Share,
    held: usize,
    /// When its part lapses.
    until: i64,
}

struct World {
    clock: Clock,
    total: usize,
    processes: Vec<Process>,
}

#[derive(Debug, Clone)]
enum Event {
    /// A process renews, while so many of its slots cannot be given up.
    Renew {
        process: usize,
        taken: usize,
    },
    Leave {
        process: usize,
    },
    Pass {
        ms: i64,
    },
}

impl World {
    fn new(url: &str, name: &str, total: usize, processes: usize) -> Self {
        let clock = Clock::manual(1_700_000_000_000);
        let processes = (0..processes).map(|_| {
            let pacer = Pacer::open(Some(url), "test", clock.clone(), &Ids::system()).unwrap();
            // A busy machine is no Redis that is away.
            let pacer = pacer.patient(Duration::from_secs(10));
            let share = pacer.share(name, total).unwrap();
            Process { pacer, share, held: 0, until: 0 }
        });
        Self { total, processes: processes.collect(), clock }
    }

    async fn renew(&mut self, process: usize, taken: usize) {
        let now = self.clock.now();
        let p = &mut self.processes[process];
        if p.until <= now {
            // It was silent for too long: what it had may be another's.
            p.held = 0;
        }
        let due = p.pacer.renew(&p.share, p.held, Rest::default()).await.slots;
        p.held = if due > p.held { due } else { due.max(taken.min(p.held)) };
        p.until = now + LEASE;
        self.check();
    }

    async fn apply(&mut self, event: Event) {
        match event {
            Event::Renew { process, taken } => {
                self.renew(process % self.processes.len(), taken).await
            }
            Event::Leave { process } => {
                let count = self.processes.len();
                let p = &mut self.processes[process % count];
                p.pacer.leave(&p.share, Rest::default()).await;
                p.held = 0;
            }
            Event::Pass { ms } => self.clock.advance(ms),
        }
    }

    fn check(&self) {
        let now = self.clock.now();
        let held = self.processes.iter().filter(|p| p.until > now).map(|p| p.held).sum::<usize>();
        assert!(held <= self.total, "{held} of {}", self.total);
    }

    /// All use it, and nobody holds on to what it should give up.
    async fn settle(&mut self) {
        for _ in 0..5 {
            for process in 0..self.processes.len() {
                self.renew(process, 0).await;
            }
        }
    }

    fn held(&self) -> Vec<usize> {
        self.processes.iter().map(|p| p.held).collect()
    }
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0_usize..5, 0_usize..12).prop_map(|(process, taken)| Event::Renew { process, taken }),
        1 => (0_usize..5).prop_map(|process| Event::Leave { process }),
        2 => (0_i64..LEASE / 2).prop_map(|ms| Event::Pass { ms }),
        1 => Just(Event::Pass { ms: LEASE }),
    ]
}

#[test]
fn never_more_than_the_total_and_in_the_end_equal() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let redis = runtime.block_on(Redis::start());
    let mut runner = TestRunner::new(Config::with_cases(60));
    let cases = (1_usize..12, 1_usize..5, proptest::collection::vec(event(), 0..60));
    let names = std::cell::Cell::new(0);
    runner
        .run(&cases, |(total, processes, events)| {
            let name = names.replace(names.get() + 1).to_string();
            runtime.block_on(async {
                let mut world = World::new(&redis.url(), &name, total, processes);
                for event in events {
                    world.apply(event).await;
                }
                world.settle().await;
                let held = world.held();
                assert_eq!(held.iter().sum::<usize>(), total, "all are used: {held:?}");
                let (least, most) = (held.iter().min().unwrap(), held.iter().max().unwrap());
                assert!(most - least <= 1, "{held:?}");
            });
            Ok(())
        })
        .unwrap();
}

#[tokio::test]
async fn with_fewer_slots_than_processes_each_has_its_turn() {
    let redis = Redis::start().await;
    let mut world = World::new(&redis.url(), "few", 2, 3);
    let mut turns = [0; 3];
    for _ in 0..6 {
        world.settle().await;
        let held = world.held();
        assert_eq!(held.iter().sum::<usize>(), 2);
        turns.iter_mut().zip(held).for_each(|(turns, held)| *turns += held);
        world.clock.advance(TERM);
    }
    assert_eq!(turns, [4, 4, 4]);
}

#[tokio::test]
async fn what_a_dead_process_had_comes_free() {
    let redis = Redis::start().await;
    let mut world = World::new(&redis.url(), "dead", 10, 2);
    world.settle().await;
    assert_eq!(world.held(), [5, 5]);
    // The second one says nothing more.
    world.clock.advance(LEASE - 1);
    world.renew(0, 5).await;
    assert_eq!(world.held(), [5, 5]);
    world.clock.advance(1);
    world.renew(0, 5).await;
    assert_eq!(world.held()[0], 10);
}

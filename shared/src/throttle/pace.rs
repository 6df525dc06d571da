//! Pace: how often something outside may be asked, by all processes together where there is a
//! Redis, by each process alone where there is none or it is away.
//!
//! Data: a [`Budget`] is one GCRA bucket, under `NS:pace:NAME` in Redis ([`super::gcra`]) and as a
//! `governor` limiter here. Cells are fetched from Redis in *blocks* and used up here: a block is
//! one cell at first, and twice the last one while the last was used up within [`LAPSE`], up to the
//! cells of one `LAPSE`. What is left of a block by then is lost.
//!
//! Invariants:
//! - all processes that share a Redis pass at most `at_once + per_minute × minutes` cells, plus a
//!   block each;
//! - Redis is asked about an empty bucket once per cell, however many ask here;
//! - a Redis that does not answer costs one caller a moment every [`AWAY`] (see [`super::away`]).

use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use super::away::Judge;
use super::gcra::{self, Taken};
use crate::domain::clock::{Clock, Millis};
use crate::domain::id::Ids;
use crate::queue::{QueueError, RedisQueue};

const MINUTE_MS: f64 = 60_000.0;
/// How long a block's cells may be used, in milliseconds.
const LAPSE: Millis = 1_000;
/// A Redis that did not answer is left alone for so many milliseconds.
const AWAY: Millis = 2_000;

/// How often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Cells a minute, evenly spread.
    pub per_minute: NonZeroU32,
    /// Cells that may pass at once after a rest.
    pub at_once: NonZeroU32,
}

impl Rate {
    /// `per_minute` (at least 1), a tenth of them at once.
    pub fn of(per_minute: u32) -> Self {
        let at_least_1 = |cells| NonZeroU32::new(cells).unwrap_or(NonZeroU32::MIN);
        Self { per_minute: at_least_1(per_minute), at_once: at_least_1(per_minute / 10) }
    }

    /// Milliseconds from one cell to the next.
    pub fn interval_ms(self) -> f64 {
        MINUTE_MS / f64::from(self.per_minute.get())
    }
}

/// The process's [`Clock`], as `governor` wants it.
#[derive(Clone)]
struct Time(Clock);

impl governor::clock::Clock for Time {
    type Instant = Duration;

    fn now(&self) -> Duration {
        Duration::from_millis(self.0.now().max(0).unsigned_abs())
    }
}

type Here = RateLimiter<NotKeyed, InMemoryState, Time, NoOpMiddleware<Duration>>;

/// One bucket; see the module.
pub struct Budget {
    name: Box<str>,
    rate: Rate,
    here: Here,
    block: Mutex<Block>,
}

#[derive(Default)]
struct Block {
    left: u32,
    size: u32,
    lapses: Millis,
    /// Redis has none before.
    empty_until: Millis,
}

/// Where budgets and shares ([`super::share`]) are kept.
pub struct Pacer {
    pub(super) redis: Judge,
    pub(super) clock: Clock,
    /// This process among those that share.
    pub(super) process: Box<str>,
}

impl Pacer {
    /// Keeps all in this process.
    pub fn alone(clock: Clock) -> Self {
        Self::new(None, clock, Box::default())
    }

    /// Keeps all in the Redis at `url` if there is one; connects when first used.
    pub fn open(
        url: Option<&str>,
        namespace: &str,
        clock: Clock,
        ids: &Ids,
    ) -> Result<Self, QueueError> {
        let redis = url.map(|url| RedisQueue::open(url, namespace)).transpose()?;
        let process = ids.uuid(clock.now()).simple().to_string().into();
        Ok(Self::new(redis, clock, process))
    }

    fn new(redis: Option<RedisQueue>, clock: Clock, process: Box<str>) -> Self {
        Self { redis: Judge::new(redis, "pace", AWAY), clock, process }
    }

    /// The same, but Redis gets this long to answer.
    pub fn patient(self, patience: Duration) -> Self {
        Self { redis: self.redis.patient(patience), ..self }
    }

    /// The budget called `name`; a process should have it once.
    pub fn budget(&self, name: &str, rate: Rate) -> Budget {
        let name = match self.redis.redis() {
            Some(redis) => format!("{}:pace:{name}", redis.namespace()),
            None => name.to_owned(),
        };
        let interval = Duration::from_secs_f64(rate.interval_ms() / 1_000.0);
        let quota = Quota::with_period(interval.max(Duration::from_nanos(1)))
            .unwrap_or(Quota::per_minute(rate.per_minute))
            .allow_burst(rate.at_once);
        Budget {
            name: name.into(),
            rate,
            here: RateLimiter::direct_with_clock(quota, Time(self.clock.clone())),
            block: Mutex::default(),
        }
    }

    /// Takes one cell, or says how long it takes until there may be one.
    pub async fn take(&self, budget: &Budget) -> Result<(), Duration> {
        let now = self.clock.now();
        let Some(redis) = self.redis.at(now) else {
            return self.take_here(budget);
        };
        let wanted = match budget.block().next(budget.rate, now) {
            Next::Cell => return Ok(()),
            Next::Wait(ms) => return Err(millis(ms)),
            Next::Fetch(cells) => cells,
        };
        let rate = gcra::Rate {
            emission: budget.rate.interval_ms(),
            burst: budget.rate.interval_ms() * f64::from(budget.rate.at_once.get()),
        };
        let key = budget.name.to_string();
        let asked = [gcra::Ask { key, rate, wanted, day: None, now }];
        match self.redis.in_time(now, gcra::take(redis, &asked)).await.as_deref() {
            Some([taken]) => budget.block().fetched(*taken, now),
            _ => self.take_here(budget),
        }
    }

    fn take_here(&self, budget: &Budget) -> Result<(), Duration> {
        use governor::clock::Clock as _;
        let wait = |until: governor::NotUntil<Duration>| {
            until.wait_time_from(Time(self.clock.clone()).now()).max(Duration::from_millis(1))
        };
        budget.here.check().map_err(wait)
    }
}

/// What to do for a cell.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Cell,
    Wait(Millis),
    Fetch(u32),
}

impl Budget {
    fn block(&self) -> MutexGuard<'_, Block> {
        self.block.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Block {
    fn next(&mut self, rate: Rate, now: Millis) -> Next {
        // A clock that was set back must not make old cells last.
        let lasts = (0..=LAPSE).contains(&(self.lapses - now));
        if lasts && self.left > 0 {
            self.left -= 1;
            return Next::Cell;
        }
        if (1..=LAPSE * 60).contains(&(self.empty_until - now)) {
            return Next::Wait(self.empty_until - now);
        }
        let most = (LAPSE as f64 / rate.interval_ms()) as u32;
        self.size = match lasts {
            true => self.size.saturating_mul(2).clamp(1, most.max(1)),
            false => 1,
        };
        Next::Fetch(self.size)
    }

    /// Keeps what came but for the cell that is used at once.
    fn fetched(&mut self, taken: Taken, now: Millis) -> Result<(), Duration> {
        match taken {
            Taken::Cells { granted, .. } => {
                let kept = if now <= self.lapses { self.left } else { 0 };
                self.left = kept + granted.saturating_sub(1);
                self.lapses = now + LAPSE;
                Ok(())
            }
            Taken::Wait { retry_ms, .. } => {
                self.empty_until = now + retry_ms;
                Err(millis(retry_ms))
            }
            Taken::DayUsedUp => Err(millis(LAPSE)),
        }
    }
}

fn millis(ms: Millis) -> Duration {
    Duration::from_millis(ms.max(1).unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn granted(cells: u32) -> Taken {
        Taken::Cells { granted: cells, left: 0, day_left: None, full_ms: 0 }
    }

    /// A bucket as Redis keeps it.
    struct Bucket {
        tat: f64,
        passed: u32,
    }

    impl Bucket {
        fn take(&mut self, rate: Rate, wanted: u32, now: Millis) -> Taken {
            let (now, emission) = (now as f64, rate.interval_ms());
            let burst = emission * f64::from(rate.at_once.get());
            self.tat = self.tat.max(now);
            let fit = ((now + burst - self.tat) / emission + 0.001).floor() as u32;
            if fit < 1 {
                let retry_ms = (self.tat + emission - burst - now).ceil().max(1.0) as i64;
                return Taken::Wait { retry_ms, full_ms: 0 };
            }
            let cells = fit.min(wanted);
            self.tat += f64::from(cells) * emission;
            self.passed += cells;
            granted(cells)
        }
    }

    proptest! {
        /// However many processes ask, and whenever: cells pass only as the bucket allows, and
        /// asking Redis gets rarer as asking gets denser.
        #[test]
        fn blocks_never_pass_more_than_the_bucket(
            per_minute in 1_u32..100_000,
            processes in 1_usize..4,
            pauses in proptest::collection::vec(0_i64..200, 1..400),
        ) {
            let rate = Rate::of(per_minute);
            let mut bucket = Bucket { tat: 0.0, passed: 0 };
            let mut blocks: Vec<Block> = (0..processes).map(|_| Block::default()).collect();
            let (mut now, mut used) = (1_000_000, 0_u32);
            let start = now;
            for (turn, pause) in pauses.iter().enumerate() {
                now += pause;
                let block = &mut blocks[turn % processes];
                let passed = match block.next(rate, now) {
                    Next::Cell => true,
                    Next::Wait(ms) => { prop_assert!(ms > 0); false }
                    Next::Fetch(cells) => {
                        prop_assert!(f64::from(cells) <= (1_000.0 / rate.interval_ms()).max(1.0));
                        let taken = bucket.take(rate, cells, now);
                        block.fetched(taken, now).is_ok()
                    }
                };
                used += u32::from(passed);
                prop_assert!(used <= bucket.passed);
                let most = f64::from(rate.at_once.get()) + (now - start) as f64 / rate.interval_ms();
                prop_assert!(f64::from(bucket.passed) <= most + 0.01);
            }
        }
    }

    #[test]
    fn blocks_grow_while_they_are_used_up_and_lapse() {
        let rate = Rate::of(6_000);
        let mut block = Block::default();
        let mut fetches = Vec::new();
        for now in 0..300 {
            if let Next::Fetch(cells) = block.next(rate, now) {
                fetches.push(cells);
                block.fetched(granted(cells), now).unwrap();
            }
        }
        assert_eq!(fetches, [1, 2, 4, 8, 16, 32, 64, 100, 100]);
        assert_eq!(block.next(rate, 5_000), Next::Fetch(1));
    }

    #[tokio::test]
    async fn without_redis_the_pace_is_this_process_s() {
        let clock = Clock::manual(1_700_000_000_000);
        let pacer = Pacer::alone(clock.clone());
        let budget = pacer.budget("a", Rate::of(20));
        assert_eq!(pacer.take(&budget).await, Ok(()));
        assert_eq!(pacer.take(&budget).await, Ok(()));
        assert_eq!(pacer.take(&budget).await, Err(Duration::from_secs(3)));
        clock.advance(2_999);
        assert_eq!(pacer.take(&budget).await, Err(Duration::from_millis(1)));
        clock.advance(1);
        assert_eq!(pacer.take(&budget).await, Ok(()));
        assert!(pacer.take(&budget).await.is_err());
    }
}

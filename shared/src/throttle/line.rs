//! Lines: when whose turn comes at something that is asked at a pace, over all processes together
//! where there is a Redis, in each process alone where there is none or it is away.
//!
//! Data: a line is its *tail*, the first turn that nobody has yet, and when a turn was last *kept*:
//! when somebody came for it. `NS:line:NAME` in Redis is `TAIL KEPT`, in milliseconds by Redis's own
//! clock (processes' clocks need not agree: they tell and are told how long, not when); here it is
//! what this process knows. The later tail wins, so a Redis that was away or wiped learns it again.
//! Who come at the same time reserve their turns in one *block*.
//!
//! Invariants:
//! - over all processes that share a Redis, no two turns are closer than the interval that the later
//!   one was reserved with;
//! - turns are handed out in the order in which they were asked for here; a turn is lost only with
//!   who asked for it;
//! - a line whose turns nobody has come for in [`GHOST`] is nobody's (its tasks were cancelled, say):
//!   the next turn is reserved as if there were none.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Mutex as Queue;

use super::pace::Pacer;
use crate::domain::clock::Millis;
use crate::queue::RedisQueue;

/// A line that nobody has come for in this time is nobody's, in milliseconds; and in so many intervals.
const GHOST: Millis = 60_000;
const GHOST_TURNS: f64 = 4.0;
/// Turns reserved at once.
const BLOCK: u32 = 1_000;
/// No turn is later than this, in milliseconds: 30 days.
const LATEST: Millis = 30 * 24 * 3_600_000;

/// Its keys, arguments and answer stand at its head.
const SCRIPT: &str = include_str!("line.lua");

/// See the module.
pub struct Line {
    key: Box<str>,
    here: Mutex<Known>,
    /// Who ask for a turn at this moment.
    asking: AtomicU32,
    block: Queue<Block>,
}

/// A line, as this process knows it.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    tail: f64,
    kept: Millis,
}

/// Turns that were reserved for those who asked at the same time.
#[derive(Debug, Default)]
struct Block {
    next: f64,
    interval: f64,
    left: u32,
}

/// Turns that are wanted.
#[derive(Debug, Clone, Copy)]
struct Wish {
    turns: u32,
    /// Milliseconds from one to the next.
    interval: f64,
    /// The first is not before.
    earliest: Millis,
}

/// One who asks; not any more when dropped.
struct Asking<'a>(&'a AtomicU32);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pacer {
    /// The line called `name`; a process should have it once.
    pub fn line(&self, name: &str) -> Line {
        let key = match self.redis.redis() {
            Some(redis) => format!("{}:line:{name}", redis.namespace()),
            None => name.to_owned(),
        };
        Line {
            key: key.into(),
            here: Mutex::default(),
            asking: AtomicU32::new(0),
            block: Queue::default(),
        }
    }

    /// Reserves the next turn: not before `earliest`, and `interval` milliseconds before the next
    /// one's.
    pub async fn reserve(&self, line: &Line, earliest: Millis, interval: f64) -> Millis {
        line.asking.fetch_add(1, Ordering::Relaxed);
        let _asking = Asking(&line.asking);
        let mut block = line.block.lock().await;
        // What is left by one who was dropped may be of long ago.
        if block.left == 0 || block.next < self.clock.now() as f64 {
            let turns = line.asking.load(Ordering::Relaxed).clamp(1, BLOCK);
            let next = self.reserve_block(line, Wish { turns, interval, earliest }).await;
            *block = Block { next, interval, left: turns };
        }
        let turn = block.next;
        block.left -= 1;
        block.next += block.interval;
        turn.ceil() as Millis
    }

    /// Somebody has come for a turn: the line is not a ghost's.
    pub async fn keep(&self, line: &Line) {
        let now = self.clock.now();
        line.here().kept = now;
        if let Some(redis) = self.redis.at(now) {
            self.tell_line(redis, line, now, None).await;
        }
    }

    async fn reserve_block(&self, line: &Line, wish: Wish) -> f64 {
        let now = self.clock.now();
        if let Some(redis) = self.redis.at(now)
            && let Some(first) = self.tell_line(redis, line, now, Some(wish)).await
        {
            return first;
        }
        line.here().reserve(wish, now)
    }

    /// Tells Redis, and learns what it knows. The first turn; `None`: it is away.
    async fn tell_line(
        &self,
        redis: &RedisQueue,
        line: &Line,
        now: Millis,
        wish: Option<Wish>,
    ) -> Option<f64> {
        static COMPILED: std::sync::LazyLock<redis::Script> =
            std::sync::LazyLock::new(|| redis::Script::new(SCRIPT));
        let Wish { turns, interval, earliest } =
            wish.unwrap_or(Wish { turns: 0, interval: 0.0, earliest: now });
        let known = line.here().at(now);
        let mut call = COMPILED.key(&*line.key);
        call.arg(turns).arg(interval).arg((earliest - now).max(0));
        call.arg((known.tail - now as f64).max(0.0)).arg((now - known.kept).max(0));
        call.arg(ghost(interval)).arg(LATEST);
        let mut commands = redis.commands();
        let (first, tail, kept): (f64, f64, Millis) =
            self.redis.in_time(now, call.invoke_async(&mut commands)).await?;
        *line.here() = Known { tail: now as f64 + tail, kept: now - kept };
        Some(now as f64 + first)
    }
}

impl Line {
    /// How long until the first turn that nobody has yet, in milliseconds, as far as this process knows; 0 = nobody
    /// waits.
    pub fn ends_in(&self, now: Millis) -> Millis {
        let tail = self.here().at(now).tail;
        (tail as Millis - now).max(0)
    }

    fn here(&self) -> MutexGuard<'_, Known> {
        self.here.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// A clock that was set back makes it worthless.
    fn at(self, now: Millis) -> Self {
        if self.kept > now { Self::default() } else { self }
    }

    fn reserve(&mut self, wish: Wish, now: Millis) -> f64 {
        *self = self.at(now);
        if self.tail <= now as f64 || (now - self.kept) as f64 > ghost(wish.interval) {
            *self = Self { tail: now as f64, kept: now };
        }
        let first = self.tail.max(wish.earliest as f64).min((now + LATEST) as f64);
        self.tail = first + f64::from(wish.turns) * wish.interval;
        first
    }
}

/// Milliseconds after which a line that nobody has come for is nobody's.
fn ghost(interval: f64) -> f64 {
    GHOST as f64 + GHOST_TURNS * interval
}

#[cfg(test)]
mod tests {
    use futures::future::join_all;
    use proptest::prelude::*;

    use super::*;
    use crate::domain::clock::Clock;

    const START: Millis = 1_700_000_000_000;

    proptest! {
        /// However many ask at once, and whenever: turns are an interval apart and none is lost.
        #[test]
        fn turns_are_an_interval_apart(
            interval in 1.0_f64..5_000.0,
            crowds in proptest::collection::vec((1_usize..60, 0_i64..3_000, 0_i64..2_000), 1..40),
        ) {
            let clock = Clock::manual(START);
            let pacer = Pacer::alone(clock.clone());
            let line = pacer.line("a");
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let mut before: Option<Millis> = None;
            for (crowd, pause, later) in crowds {
                clock.advance(pause);
                runtime.block_on(pacer.keep(&line));
                let earliest = clock.now() + later;
                let asks = (0..crowd).map(|_| pacer.reserve(&line, earliest, interval));
                for turn in runtime.block_on(join_all(asks)) {
                    prop_assert!(turn >= earliest);
                    if let Some(before) = before {
                        // Rounded up to the millisecond each.
                        prop_assert!((turn - before) as f64 > interval - 1.0, "{before} {turn}");
                        let latest = (before as f64 + interval).max(earliest as f64) + 1.0;
                        prop_assert!(turn as f64 <= latest, "a turn was lost: {before} {turn}");
                    }
                    before = Some(turn);
                }
            }
        }
    }

    #[tokio::test]
    async fn a_line_that_nobody_comes_for_is_nobodys() {
        let clock = Clock::manual(START);
        let pacer = Pacer::alone(clock.clone());
        let line = pacer.line("a");
        for turn in 0..1_000 {
            assert_eq!(pacer.reserve(&line, START, 1_000.0).await, START + turn * 1_000);
        }
        clock.advance(50_000);
        pacer.keep(&line).await;
        clock.advance(50_000);
        assert_eq!(pacer.reserve(&line, START, 1_000.0).await, START + 1_000_000);
        clock.advance(20_000);
        assert_eq!(pacer.reserve(&line, START, 1_000.0).await, START + 120_000);
    }

    #[tokio::test]
    async fn a_clock_that_is_set_back_makes_nobody_wait() {
        let clock = Clock::manual(START);
        let pacer = Pacer::alone(clock.clone());
        let line = pacer.line("a");
        pacer.reserve(&line, START, 1_000.0).await;
        clock.advance(-3_600_000);
        let now = clock.now();
        assert_eq!(pacer.reserve(&line, now, 1_000.0).await, now);
    }

    #[tokio::test]
    async fn no_turn_is_later_than_a_month() {
        let clock = Clock::manual(START);
        let pacer = Pacer::alone(clock);
        let line = pacer.line("a");
        pacer.reserve(&line, START, 2.0 * LATEST as f64).await;
        assert_eq!(pacer.reserve(&line, START, 1.0).await, START + LATEST);
    }
}

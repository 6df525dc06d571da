//! Who had a turn lately, and who was promised one.

use std::collections::HashMap;

use listmill_shared::domain::clock::Millis;

use super::AWAY;

/// Promises that are remembered.
const PROMISES: usize = 1_000_000;
/// A promise that was not kept is forgotten so many milliseconds after its turn.
const FORGET: Millis = 600_000;

/// Who had their turn lately: in this stretch of [`AWAY`], and in the one before.
#[derive(Default)]
pub(super) struct Served {
    pub(super) since: Millis,
    pub(super) now: usize,
    before: usize,
    /// When somebody had their turn last, and how many milliseconds came between two of late.
    pub(super) last: Millis,
    pub(super) between: f64,
}

impl Served {
    /// In one stretch.
    pub(super) fn lately(&mut self, now: Millis) -> usize {
        let stretches = (now - self.since).max(0) / AWAY;
        if stretches > 0 {
            self.before = if stretches == 1 { self.now } else { 0 };
            self.now = 0;
            self.since = now;
        }
        self.now.max(self.before)
    }

    /// One more; no pause counts for more than `most` milliseconds.
    pub(super) fn one(&mut self, now: Millis, most: f64) {
        self.lately(now);
        self.now += 1;
        if self.last > 0 {
            let pause = ((now - self.last).max(0) as f64).min(most);
            self.between += (pause - self.between) / 8.0;
        }
        self.last = now;
    }
}

/// Who was promised which turn, and has not come for it.
#[derive(Default)]
pub(super) struct Promises {
    pub(super) turns: HashMap<u64, Millis>,
    tidy_at: usize,
}

impl Promises {
    pub(super) fn add(&mut self, who: u64, turn: Millis, now: Millis) {
        if self.turns.len() >= self.tidy_at {
            self.turns.retain(|_, turn| *turn > now - FORGET);
            self.tidy_at = self.turns.len().saturating_mul(2).max(1_000);
        }
        // Who is not remembered waits like one who comes for the first time.
        if self.turns.len() < PROMISES {
            self.turns.insert(who, turn);
        }
    }
}

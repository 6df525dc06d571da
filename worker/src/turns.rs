//! Addresses of a leased batch that nobody was asked about yet, as their turn comes soon: they wait
//! here by a timer, without a permit and without a write, their credits staying held.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use tokio::time::Instant;

/// So soon; who has to wait longer is set aside.
pub const SOON: Duration = Duration::from_secs(30);

/// One that waits; ordered by when its turn comes, then by its place in the batch.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Turn {
    at: Instant,
    /// Its place in the batch.
    pub index: usize,
    /// Which attempt it will be.
    pub attempt: i16,
}

impl Turn {
    /// In so long.
    pub fn after(wait: Duration, index: usize, attempt: i16) -> Self {
        Self { at: Instant::now() + wait.min(SOON), index, attempt }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Turns(BinaryHeap<Reverse<Turn>>);

impl Turns {
    /// One more waits.
    pub fn push(&mut self, turn: Turn) {
        self.0.push(Reverse(turn));
    }

    /// Does nobody wait?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// When the next turn comes.
    pub fn next_at(&self) -> Option<Instant> {
        self.0.peek().map(|Reverse(turn)| turn.at)
    }

    /// Has a turn come?
    pub fn has_come(&self) -> bool {
        self.next_at().is_some_and(|at| at <= Instant::now())
    }

    /// Takes the next one whose turn has come.
    pub fn take(&mut self) -> Option<Turn> {
        let come = self.has_come();
        come.then(|| self.0.pop()).flatten().map(|Reverse(turn)| turn)
    }
}

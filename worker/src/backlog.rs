//! How much a worker leases ahead: addresses that wait to be started.
//!
//! What is leased together is settled together, and a transaction for many batches costs little more than one
//! for one; but what is leased ahead nobody else can do. So it is what this worker starts in [`WORTH`], between
//! [`LEAST`] and [`MOST`] batches. The pace that this rests on is told to the fleet, which sizes by it what is
//! out ([`listmill_shared::app::App::room`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

/// Batches that may be leased ahead, however slow or fast the worker is.
const LEAST: usize = 4;
const MOST: usize = 16;
/// The pace is measured so often.
const EVERY: Duration = Duration::from_millis(100);
/// What is started in this time may be leased ahead.
const WORTH: Duration = Duration::from_millis(100);

/// Counts leased addresses that wait to be started, and those that are.
pub struct Backlog {
    /// Addresses of a full batch.
    batch: usize,
    waiting: AtomicUsize,
    most: AtomicUsize,
    room: Notify,
    /// Since the pace was measured last.
    started: AtomicUsize,
    /// Addresses started in a second; as measured, and as told last.
    pace: AtomicUsize,
    told: AtomicUsize,
    faster: Notify,
}

/// A batch's share of the backlog; gives it back when dropped.
pub struct Share {
    backlog: Arc<Backlog>,
    addresses: AtomicUsize,
}

impl Backlog {
    /// Of a worker whose full batches have `batch` addresses.
    pub fn new(batch: usize) -> Arc<Self> {
        Arc::new(Self {
            batch,
            waiting: AtomicUsize::new(0),
            most: AtomicUsize::new(LEAST * batch),
            room: Notify::new(),
            started: AtomicUsize::new(0),
            pace: AtomicUsize::new(0),
            told: AtomicUsize::new(0),
            faster: Notify::new(),
        })
    }

    /// Takes a share.
    pub fn reserve(self: &Arc<Self>, addresses: usize) -> Share {
        self.waiting.fetch_add(addresses, Ordering::Relaxed);
        Share { backlog: self.clone(), addresses: AtomicUsize::new(addresses) }
    }

    /// Waits until more may be leased.
    pub async fn has_room(&self) {
        loop {
            let notified = self.room.notified();
            if self.waiting.load(Ordering::Relaxed) < self.most.load(Ordering::Relaxed) {
                return;
            }
            notified.await;
        }
    }

    /// Addresses started in a second, to be told to the fleet.
    pub fn pace(&self) -> usize {
        let pace = self.pace.load(Ordering::Relaxed);
        self.told.store(pace, Ordering::Relaxed);
        pace
    }

    /// Waits until the pace is twice what was told last.
    pub async fn faster(&self) {
        self.faster.notified().await;
    }

    /// Measures the pace until dropped.
    pub async fn measure(&self) {
        let mut every = tokio::time::interval(EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let before = tokio::time::Instant::now();
            every.tick().await;
            let millis = before.elapsed().max(EVERY).as_millis() as usize;
            self.measured(self.started.swap(0, Ordering::Relaxed) * 1_000 / millis);
        }
    }

    /// The pace follows at once upwards, and slowly downwards: work comes in lumps.
    fn measured(&self, now: usize) {
        let pace = now.max(self.pace.load(Ordering::Relaxed) / 8 * 7);
        self.pace.store(pace, Ordering::Relaxed);
        let worth = pace * WORTH.as_millis() as usize / 1_000;
        let most = worth.clamp(LEAST * self.batch, MOST * self.batch);
        if self.most.swap(most, Ordering::Relaxed) < most {
            self.room.notify_one();
        }
        if most > LEAST * self.batch && pace / 2 > self.told.load(Ordering::Relaxed) {
            self.faster.notify_one();
        }
    }
}

impl Share {
    /// Changes the share; what it loses has been started.
    pub fn set(&self, addresses: usize) {
        let backlog = &self.backlog;
        let before = self.addresses.swap(addresses, Ordering::Relaxed);
        if addresses >= before {
            backlog.waiting.fetch_add(addresses - before, Ordering::Relaxed);
            return;
        }
        let started = before - addresses;
        backlog.started.fetch_add(started, Ordering::Relaxed);
        let waiting = backlog.waiting.fetch_sub(started, Ordering::Relaxed) - started;
        if waiting < backlog.most.load(Ordering::Relaxed) {
            backlog.room.notify_one();
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn who_is_fast_leases_further_ahead() {
        let backlog = Backlog::new(500);
        let full = |backlog: &Backlog| backlog.has_room().now_or_never().is_none();
        let share = backlog.reserve(2_000);
        assert!(full(&backlog), "four batches wait");
        backlog.measured(10_000);
        assert!(full(&backlog), "slow: others can have the rest");
        assert!(backlog.faster().now_or_never().is_none());
        backlog.measured(100_000);
        assert!(!full(&backlog), "fast");
        assert!(backlog.faster().now_or_never().is_some());
        assert_eq!(backlog.pace(), 100_000);
        backlog.measured(1_000_000);
        let rest = backlog.reserve(6_000);
        assert!(full(&backlog), "16 batches at the most");
        rest.set(5_000);
        assert!(!full(&backlog));
        assert_eq!(backlog.started.load(Ordering::Relaxed), 1_000);
        for _ in 0..100 {
            backlog.measured(0);
        }
        drop(rest);
        assert!(full(&backlog), "slow again");
        drop(share);
        assert!(!full(&backlog));
    }
}

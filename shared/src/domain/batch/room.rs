//! How much may be out in the whole fleet at once: what its workers can do, and what that is worth.

use std::time::Duration;

/// What a worker can do, by its own account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Addresses verified at once.
    pub concurrency: i64,
    /// Addresses that it has started in a second lately.
    pub pace: i64,
}

/// Full batches that a worker may have out, however slow or fast it is.
const LEAST_OUT: i64 = 12;
const MOST_OUT: i64 = 128;
/// Full batches of sandbox tasks that a worker may have out, and small ones.
const SANDBOX_OUT: i64 = 4;
const SANDBOX_BATCHES: i64 = 32;
/// What it starts in so many milliseconds may be out: enough to be gathered, queued, leased and settled in
/// lumps while the next is under way.
const WORTH_MS: i64 = 250;

/// What becomes free is gathered for so long at the least, and at the most, before it is given out again.
const SHORTEST_GATHER: Duration = Duration::from_millis(12);
const LONGEST_GATHER: Duration = Duration::from_millis(500);
/// In so many rounds all that is out has come around.
const ROUNDS: i64 = 16;

/// What may be out in the whole fleet at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Addresses of queued and leased batches.
    pub addresses: i64,
    /// Queued and leased batches.
    pub batches: i64,
    /// Addresses of a full batch.
    pub batch: i64,
    /// The workers that live, one at the least.
    pub workers: i64,
    /// Addresses that they have started in a second lately.
    pub pace: i64,
}

impl Room {
    /// For these workers, or for one of which nothing is known: of each what its pace is worth, and at the
    /// least twice what it verifies at once.
    pub fn of(workers: &[Capacity], batch: i64) -> Self {
        let unknown = [Capacity { concurrency: 0, pace: 0 }];
        let workers = if workers.is_empty() { &unknown[..] } else { workers };
        let out_of = |worker: &Capacity| {
            let worth = worker.pace.saturating_mul(WORTH_MS) / 1_000;
            worth.clamp(LEAST_OUT * batch, MOST_OUT * batch).max(2 * worker.concurrency)
        };
        let concurrency: i64 = workers.iter().map(|worker| worker.concurrency).sum();
        Self {
            addresses: workers.iter().map(out_of).sum(),
            // Small batches: a worker has no more of them in hand than addresses, or a few dozen.
            batches: 2 * concurrency + 128 * workers.len() as i64,
            batch,
            workers: workers.len() as i64,
            pace: workers.iter().map(|worker| worker.pace).fold(0, i64::saturating_add),
        }
    }

    /// For sandbox tasks, beside what is out of the others: the same for each of so many workers, whether their
    /// provider works or not.
    pub fn of_sandbox(workers: i64, batch: i64) -> Self {
        let workers = workers.max(1);
        Self {
            addresses: workers * SANDBOX_OUT * batch,
            batches: workers * SANDBOX_BATCHES,
            batch,
            workers,
            pace: 0,
        }
    }

    /// How long the fleet gathers what becomes free before it gives it out again: a round for many batches
    /// costs little more than one for one, and what is out must not run short meanwhile.
    pub fn gather(&self) -> Duration {
        let lasts = self.addresses.saturating_mul(1_000).checked_div(self.pace).unwrap_or(0);
        let part = Duration::from_millis(u64::try_from(lasts / ROUNDS).unwrap_or(0));
        part.clamp(SHORTEST_GATHER, LONGEST_GATHER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_out_follows_the_pace() {
        let out = |workers: &[(i64, i64)]| {
            let capacity = |&(concurrency, pace): &(i64, i64)| Capacity { concurrency, pace };
            let workers: Vec<Capacity> = workers.iter().map(capacity).collect();
            Room::of(&workers, 500)
        };
        assert_eq!((out(&[]).addresses, out(&[]).workers), (6_000, 1));
        assert_eq!(out(&[(256, 0)]).addresses, 6_000, "slow: a dozen batches");
        assert_eq!(out(&[(256, 40_000)]).addresses, 10_000, "a quarter of a second's");
        assert_eq!(out(&[(256, i64::MAX)]).addresses, 64_000, "fast: 128 batches");
        assert_eq!(out(&[(10_000, 20_000)]).addresses, 20_000, "twice what is verified at once");
        let both = out(&[(256, 0), (256, 40_000)]);
        assert_eq!((both.addresses, both.workers, both.batch), (16_000, 2, 500));
        assert_eq!(both.pace, 40_000);
    }

    #[test]
    fn sandbox_tasks_have_a_room_of_their_own_however_the_workers_are() {
        let room = |workers| Room::of_sandbox(workers, 500);
        assert_eq!((room(1).addresses, room(1).batches), (2_000, 32));
        assert_eq!((room(3).addresses, room(3).batches, room(3).workers), (6_000, 96, 3));
        assert_eq!(room(0), room(1), "one that nobody knows of yet");
    }

    #[test]
    fn what_becomes_free_is_gathered_for_a_small_part_of_the_time_that_what_is_out_lasts() {
        let gather = |addresses, pace| {
            Room { addresses, pace, batches: 100, batch: 500, workers: 1 }.gather().as_millis()
        };
        assert_eq!(gather(64_000, 600_000), 12, "fast");
        assert_eq!(gather(20_000, 20_000), 62);
        assert_eq!(gather(600_000, 32_000), 500, "many and slow");
        assert_eq!(gather(6_000, 0), 12, "not known yet");
    }
}

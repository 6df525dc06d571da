//! When the next request may go out: so many at once, so many a second, none while the service has
//! asked for a pause. First come, first served.

use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

/// A pause that a service may ask for at most; then it is asked again, and may ask for the next.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(900);
/// The share of a second's requests that may go out at once.
const BURSTS: u32 = 10;

/// See the module.
pub struct Pace {
    slots: Semaphore,
    /// Whose turn it is: the others wait here, so that only one keeps a timer.
    turn: tokio::sync::Mutex<()>,
    rate: Option<DefaultDirectRateLimiter>,
    clock: DefaultClock,
    resume_at: Mutex<Instant>,
}

impl Pace {
    /// `rate` requests a second (0 = any number), `concurrency` at once.
    pub fn new(rate: u32, concurrency: usize) -> Self {
        let burst = NonZeroU32::new(rate / BURSTS).unwrap_or(NonZeroU32::MIN);
        let quota = NonZeroU32::new(rate).map(|rate| Quota::per_second(rate).allow_burst(burst));
        Self {
            slots: Semaphore::new(concurrency),
            turn: tokio::sync::Mutex::default(),
            rate: quota.map(RateLimiter::direct),
            clock: DefaultClock::default(),
            resume_at: Mutex::new(Instant::now()),
        }
    }

    /// Waits for its turn; the request is under way while the permit lives.
    pub async fn turn(&self) -> SemaphorePermit<'_> {
        let slot = self.slots.acquire().await.expect("never closed");
        let _turn = self.turn.lock().await;
        loop {
            let resume_at = self.resume_at();
            if resume_at > Instant::now() {
                tokio::time::sleep_until(resume_at).await;
                continue;
            }
            let Some(Err(early)) = self.rate.as_ref().map(RateLimiter::check) else {
                return slot;
            };
            tokio::time::sleep(early.wait_time_from(self.clock.now())).await;
        }
    }

    /// Nothing goes out for so long.
    pub fn pause(&self, length: Duration) {
        let until = Instant::now() + length.min(LONGEST_PAUSE);
        let mut resume_at = self.resume_at.lock().unwrap_or_else(PoisonError::into_inner);
        *resume_at = until.max(*resume_at);
    }

    /// When the last pause ends, or has ended.
    pub fn resume_at(&self) -> Instant {
        *self.resume_at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

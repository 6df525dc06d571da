//! When the next request may go out: so many a second (over all processes that share a Redis), so
//! many at once in this process, none while the service has asked for a pause. First come, first
//! served.

use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use listmill_shared::throttle::pace::{Budget, Pacer, Rate};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

/// A pause that a service may ask for at most; then it is asked again, and may ask for the next.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(900);
/// The share of a second's requests that may go out at once.
const BURSTS: u32 = 10;
/// Of a minute.
const SECONDS: NonZeroU32 = NonZeroU32::new(60).unwrap();

/// See the module.
pub struct Pace {
    slots: Semaphore,
    /// Whose turn it is: the others wait here, so that only one keeps a timer.
    turn: tokio::sync::Mutex<()>,
    pacer: Pacer,
    rate: Option<Budget>,
    resume_at: Mutex<Instant>,
}

impl Pace {
    /// `rate` requests a second (0 = any number), `concurrency` at once.
    pub fn new(rate: u32, concurrency: usize, pacer: Pacer) -> Self {
        let rate = NonZeroU32::new(rate).map(|rate| Rate {
            per_minute: rate.saturating_mul(SECONDS),
            at_once: NonZeroU32::new(rate.get() / BURSTS).unwrap_or(NonZeroU32::MIN),
        });
        Self {
            slots: Semaphore::new(concurrency),
            turn: tokio::sync::Mutex::default(),
            rate: rate.map(|rate| pacer.budget("http", rate)),
            pacer,
            resume_at: Mutex::new(Instant::now()),
        }
    }

    /// Waits for its turn; the request is under way while the permit lives.
    pub async fn turn(&self) -> SemaphorePermit<'_> {
        let Ok(slot) = self.slots.acquire().await else {
            // Nobody closes it; then nobody would have a turn.
            return std::future::pending().await;
        };
        let _turn = self.turn.lock().await;
        loop {
            let resume_at = self.resume_at();
            if resume_at > Instant::now() {
                tokio::time::sleep_until(resume_at).await;
                continue;
            }
            let Some(rate) = &self.rate else { return slot };
            match self.pacer.take(rate).await {
                Ok(()) => return slot,
                Err(early) => tokio::time::sleep(early).await,
            }
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

//! Whether Redis counts, or this process alone because Redis is away.
//!
//! Data: `away`, and until when a Redis that is away is left alone.
//!
//! Invariants:
//! - nobody waits for Redis longer than [`PATIENCE`]; and while it is away, one caller at a time does,
//!   once in the `rest`;
//! - a clock that is set back or forward makes no rest longer;
//! - going away and coming back are logged once each, and shown as `listmill_limits_alone`.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use crate::domain::clock::Millis;
use crate::queue::RedisQueue;

/// Redis gets this long to answer, if nothing else is said.
pub(super) const PATIENCE: Duration = Duration::from_millis(250);

/// See the module.
pub(super) struct Judge {
    redis: Option<RedisQueue>,
    /// What is counted; a label.
    what: &'static str,
    /// A Redis that did not answer is left alone for so many milliseconds.
    rest: Millis,
    patience: Duration,
    away: AtomicBool,
    until: AtomicI64,
}

impl Judge {
    /// `what` is counted by `redis`, if there is one; `rest` in milliseconds.
    pub fn new(redis: Option<RedisQueue>, what: &'static str, rest: Millis) -> Self {
        let judge = Self {
            redis,
            what,
            rest,
            patience: PATIENCE,
            away: AtomicBool::new(false),
            until: AtomicI64::new(0),
        };
        if judge.redis.is_some() {
            judge.show(false);
        }
        judge
    }

    /// The same, but Redis gets this long to answer.
    pub fn patient(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// How long Redis gets to answer.
    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// The Redis there is, whether away or not: for the names of keys.
    pub fn redis(&self) -> Option<&RedisQueue> {
        self.redis.as_ref()
    }

    /// The Redis to ask at `now`; none where this process counts alone. Who gets one asks it
    /// ([`Judge::in_time`]).
    pub fn at(&self, now: Millis) -> Option<&RedisQueue> {
        let redis = self.redis.as_ref()?;
        if !self.away.load(Ordering::Relaxed) {
            return Some(redis);
        }
        let until = self.until.load(Ordering::Relaxed);
        if (1..=self.rest).contains(&(until - now)) {
            return None;
        }
        let mine = self.until.compare_exchange(
            until,
            now + self.rest,
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
        mine.is_ok().then_some(redis)
    }

    /// Redis's answer to what was asked at `now`; `None`: it is away.
    pub async fn in_time<T>(
        &self,
        now: Millis,
        asked: impl Future<Output = Result<T, redis::RedisError>>,
    ) -> Option<T> {
        let failure = match tokio::time::timeout(self.patience, asked).await {
            Ok(Ok(answer)) => {
                if self.away.swap(false, Ordering::Relaxed) {
                    tracing::info!(
                        what = self.what,
                        "redis is back: processes count together again"
                    );
                    self.show(false);
                }
                return Some(answer);
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => {
                self.redis.iter().for_each(RedisQueue::doubt);
                String::from("no answer in time")
            }
        };
        self.until.store(now + self.rest, Ordering::Relaxed);
        if !self.away.swap(true, Ordering::Relaxed) {
            let what = self.what;
            tracing::warn!(what, error = %failure, "redis is away: each process counts alone");
            self.show(true);
        }
        None
    }

    fn show(&self, alone: bool) {
        metrics::gauge!("listmill_limits_alone", "what" => self.what)
            .set(f64::from(u8::from(alone)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REST: Millis = 2_000;

    fn judge() -> Judge {
        let redis = RedisQueue::open("redis://127.0.0.1:1/", "test").unwrap();
        Judge::new(Some(redis), "requests", REST).patient(Duration::from_millis(1))
    }

    async fn fail(judge: &Judge, now: Millis) {
        let asked = std::future::pending::<Result<(), redis::RedisError>>();
        assert_eq!(judge.in_time(now, asked).await, None);
    }

    #[tokio::test]
    async fn one_at_a_time_asks_a_redis_that_is_away() {
        let judge = judge();
        assert!(judge.at(1_000).is_some() && judge.at(1_000).is_some());
        fail(&judge, 1_000).await;
        assert!(judge.at(1_000).is_none() && judge.at(2_999).is_none());
        assert!(judge.at(3_000).is_some(), "it has rested");
        assert!(judge.at(3_000).is_none(), "one is asking already");
        fail(&judge, 3_000).await;
        assert!(judge.at(4_999).is_none() && judge.at(5_000).is_some());
        assert_eq!(judge.in_time(5_000, async { Ok(7) }).await, Some(7));
        assert!(judge.at(5_000).is_some() && judge.at(5_000).is_some());
    }

    #[tokio::test]
    async fn a_clock_that_is_set_makes_no_rest_longer() {
        let judge = judge();
        fail(&judge, 1_000_000).await;
        assert!(judge.at(1_000).is_some(), "set back");
        fail(&judge, 1_000).await;
        assert!(judge.at(9_000_000).is_some(), "set forward");
    }
}

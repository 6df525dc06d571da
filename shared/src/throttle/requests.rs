//! Request limits: GCRA in Redis ([`super::gcra`]) when there is one, `governor` in this process
//! when there is none or it is away ([`super::away`]); day counts likewise.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};

use governor::clock::{Clock as _, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::DefaultKeyedStateStore;
use governor::{Quota, RateLimiter};
use hashbrown::HashMap;

use super::away::Judge;
use super::gathered::Gathered;
use super::gcra::{self, Ask, Day, Rate, Taken};
use crate::domain::clock::Millis;
use crate::domain::id::KeyId;
use crate::queue::RedisQueue;

/// A minute, the period of every rate.
const PERIOD_MS: i64 = 60_000;
const DAY_MS: i64 = 86_400_000;
/// A Redis that did not judge in time is left alone for so many milliseconds.
pub(super) const REST: Millis = 500;

/// Which bucket a request falls into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Bucket {
    /// Whose budget: keys of one account do not share one.
    pub key: KeyId,
    /// Which routes share it.
    pub route: &'static str,
}

/// What a bucket allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// Requests a minute, also the burst.
    pub per_minute: u32,
    /// Requests a UTC day, if limited.
    pub per_day: Option<u32>,
}

/// How a request was judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judged {
    /// It passes.
    Pass {
        /// Requests left at once.
        remaining: u32,
        /// Requests left today, if limited.
        daily_remaining: Option<u32>,
        /// Milliseconds until the bucket is full again.
        reset_ms: i64,
    },
    /// Too many in a minute.
    TooMany {
        /// Milliseconds until one would pass.
        retry_ms: i64,
        /// Milliseconds until the bucket is full again.
        reset_ms: i64,
    },
    /// Too many today.
    DayUsedUp {
        /// Milliseconds until midnight UTC.
        retry_ms: i64,
    },
}

/// One rate's buckets in this process.
type LocalLimiter =
    RateLimiter<Bucket, DefaultKeyedStateStore<Bucket>, DefaultClock, StateInformationMiddleware>;

/// Judges requests.
pub struct Limiter {
    redis: Judge,
    gathered: Gathered<Ask, Taken>,
    local: Mutex<HashMap<u32, Arc<LocalLimiter>>>,
    days: Mutex<HashMap<Bucket, (i64, u32)>>,
    clock: DefaultClock,
}

impl Limiter {
    /// Judges through `redis` if given, in this process otherwise.
    pub fn new(redis: Option<RedisQueue>) -> Self {
        Self {
            redis: Judge::new(redis, "requests", REST),
            gathered: Gathered::new(|redis, asked| {
                Box::pin(async move { gcra::take_each(&redis, asked).await })
            }),
            local: Mutex::default(),
            days: Mutex::default(),
            clock: DefaultClock::default(),
        }
    }

    /// Judges one request and counts it if it passes.
    pub async fn judge(&self, bucket: Bucket, allowance: Allowance, now: Millis) -> Judged {
        if let Some(redis) = self.redis.at(now) {
            let asking = ask(redis.namespace(), bucket, allowance, now);
            let asked = self.gathered.ask(redis, self.redis.patience(), asking);
            if let Some(taken) = self.redis.in_time(now, asked).await {
                return read(taken, now);
            }
        }
        self.judge_here(bucket, allowance, now)
    }

    fn judge_here(&self, bucket: Bucket, allowance: Allowance, now: Millis) -> Judged {
        let Some(per_minute) = NonZeroU32::new(allowance.per_minute) else {
            return Judged::TooMany { retry_ms: PERIOD_MS, reset_ms: PERIOD_MS };
        };
        let limiter = {
            let mut all = self.local.lock().unwrap_or_else(PoisonError::into_inner);
            all.entry(allowance.per_minute)
                .or_insert_with(|| {
                    let quota = Quota::per_minute(per_minute);
                    Arc::new(RateLimiter::keyed(quota).with_middleware())
                })
                .clone()
        };
        match limiter.check_key(&bucket) {
            Err(wait) => {
                let retry_ms = wait.wait_time_from(self.clock.now()).as_millis() as i64 + 1;
                Judged::TooMany { retry_ms, reset_ms: PERIOD_MS }
            }
            Ok(state) => match self.count_day(bucket, allowance.per_day, now) {
                Err(retry_ms) => Judged::DayUsedUp { retry_ms },
                Ok(daily_remaining) => {
                    let remaining = state.remaining_burst_capacity();
                    let used = i64::from(allowance.per_minute - remaining);
                    let reset_ms = used * PERIOD_MS / i64::from(allowance.per_minute);
                    Judged::Pass { remaining, daily_remaining, reset_ms }
                }
            },
        }
    }

    fn count_day(
        &self,
        bucket: Bucket,
        limit: Option<u32>,
        now: Millis,
    ) -> Result<Option<u32>, i64> {
        let Some(limit) = limit else { return Ok(None) };
        let today = now.div_euclid(DAY_MS);
        let mut days = self.days.lock().unwrap_or_else(PoisonError::into_inner);
        let (day, used) = days.entry(bucket).or_insert((today, 0));
        if *day != today {
            (*day, *used) = (today, 0);
        }
        if *used >= limit {
            return Err(until_midnight(now));
        }
        *used += 1;
        Ok(Some(limit - *used))
    }
}

fn until_midnight(now: Millis) -> i64 {
    DAY_MS - now.rem_euclid(DAY_MS)
}

fn ask(namespace: &str, bucket: Bucket, allowance: Allowance, now: Millis) -> Ask {
    let key = format!("{namespace}:limit:{}:{}", bucket.key, bucket.route);
    let rate = Rate {
        emission: PERIOD_MS as f64 / f64::from(allowance.per_minute.max(1)),
        burst: PERIOD_MS as f64,
    };
    let day = allowance.per_day.map(|limit| Day {
        key: format!("{key}:{}", now.div_euclid(DAY_MS)),
        limit,
        ttl: until_midnight(now) + 60_000,
    });
    Ask { key, rate, wanted: 1, day, now }
}

fn read(taken: Taken, now: Millis) -> Judged {
    match taken {
        Taken::Cells { left, day_left, full_ms, .. } => {
            Judged::Pass { remaining: left, daily_remaining: day_left, reset_ms: full_ms }
        }
        Taken::Wait { retry_ms, full_ms } => Judged::TooMany { retry_ms, reset_ms: full_ms },
        Taken::DayUsedUp => Judged::DayUsedUp { retry_ms: until_midnight(now) },
    }
}

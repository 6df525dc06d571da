//! GCRA in a Redis script, for everything that is counted between processes: request limits
//! ([`super::requests`]) and pace ([`super::pace`]).
//!
//! GCRA keeps one number per bucket, the theoretical arrival time (TAT): a cell passes when
//! `TAT − burst + emission ≤ now`, and moves TAT on by one emission interval. Source: "Generic cell
//! rate algorithm", ITU-T I.371. A bucket's key expires when it is full again.

use std::sync::LazyLock;

use hashbrown::HashMap;
use redis::{ErrorKind, RedisError};

use crate::domain::clock::Millis;
use crate::queue::RedisQueue;

/// Its keys, arguments and answer stand at its head.
const SCRIPT: &str = include_str!("gcra.lua");

/// What a bucket allows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rate {
    /// Milliseconds from one cell to the next.
    pub emission: f64,
    /// How many milliseconds' cells may pass at once.
    pub burst: f64,
}

/// A count that ends with the day.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Day {
    /// Where it is kept.
    pub key: String,
    /// Cells.
    pub limit: u32,
    /// Milliseconds that the key lives.
    pub ttl: i64,
}

/// What is asked of a bucket.
#[derive(Debug)]
pub(super) struct Ask {
    /// Where its state is kept.
    pub key: String,
    /// What it allows.
    pub rate: Rate,
    /// Cells that are wanted, at least 1.
    pub wanted: u32,
    /// The count of the day that they fall into, too.
    pub day: Option<Day>,
    /// When.
    pub now: Millis,
}

/// What a bucket gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// Cells.
    Cells {
        /// At least 1, at most as many as were wanted.
        granted: u32,
        /// How many more would pass at once.
        left: u32,
        /// How many more today, if limited.
        day_left: Option<u32>,
        /// Milliseconds until the bucket is full again.
        full_ms: i64,
    },
    /// None now.
    Wait {
        /// Milliseconds until one would pass.
        retry_ms: i64,
        /// Milliseconds until the bucket is full again.
        full_ms: i64,
    },
    /// None today.
    DayUsedUp,
}

/// Takes one cell for each asking. Those that ask the same bucket one after another become one asking: a
/// caller that is in a hurry costs no more than one that is not.
pub(super) async fn take_each(
    redis: &RedisQueue,
    asked: Vec<Ask>,
) -> Result<Vec<Taken>, RedisError> {
    let mut joined: Vec<Ask> = Vec::with_capacity(asked.len());
    let mut latest: HashMap<String, usize> = HashMap::with_capacity(asked.len());
    // For each asking, which of the joined ones it went into, and how many were there before it.
    let mut places = Vec::with_capacity(asked.len());
    for ask in asked {
        let same = latest.get(&ask.key).copied().filter(|at| {
            joined.get(*at).is_some_and(|other| other.rate == ask.rate && other.day == ask.day)
        });
        let at = same.unwrap_or(joined.len());
        match joined.get_mut(at) {
            Some(other) => {
                places.push((at, other.wanted));
                other.wanted += 1;
                other.now = other.now.max(ask.now);
            }
            None => {
                latest.insert(ask.key.clone(), at);
                places.push((at, 0));
                joined.push(Ask { wanted: 1, ..ask });
            }
        }
    }
    let taken = take(redis, &joined).await?;
    let own = |(at, before): &(usize, u32)| part(taken[*at], *before, joined[*at].rate);
    Ok(places.iter().map(own).collect())
}

/// What somebody gets who wants one cell of what was taken, after others who wanted so many before.
fn part(taken: Taken, before: u32, rate: Rate) -> Taken {
    let Taken::Cells { granted, left, day_left, full_ms } = taken else { return taken };
    if before < granted {
        let after = granted - 1 - before;
        return Taken::Cells {
            granted: 1,
            left: left + after,
            day_left: day_left.map(|left| left + after),
            full_ms: full_ms - (f64::from(after) * rate.emission) as Millis,
        };
    }
    match left {
        0 => {
            let retry_ms = (full_ms as f64 + rate.emission - rate.burst).ceil() as Millis;
            Taken::Wait { retry_ms: retry_ms.max(1), full_ms }
        }
        // More would fit: it is the day that has none.
        _ => Taken::DayUsedUp,
    }
}

/// Numbers that the script tells of each bucket.
const TOLD: usize = 5;

/// Takes up to what is wanted from each bucket, one after another, in one call.
pub(super) async fn take(redis: &RedisQueue, asked: &[Ask]) -> Result<Vec<Taken>, RedisError> {
    static COMPILED: LazyLock<redis::Script> = LazyLock::new(|| redis::Script::new(SCRIPT));
    let mut call = COMPILED.prepare_invoke();
    for Ask { key, rate, wanted, day, now } in asked {
        call.key(key);
        call.arg(now).arg(rate.emission).arg(rate.burst).arg(wanted);
        match day {
            Some(day) => call.key(&day.key).arg(day.limit).arg(day.ttl),
            None => call.arg(0).arg(0),
        };
    }
    let told: Vec<i64> = call.invoke_async(&mut redis.commands()).await?;
    if told.len() != asked.len() * TOLD {
        return Err((ErrorKind::UnexpectedReturnType, "gcra.lua told too little").into());
    }
    Ok(told.chunks_exact(TOLD).map(read).collect())
}

fn read(told: &[i64]) -> Taken {
    let cells = |n: i64| u32::try_from(n).unwrap_or(0);
    match *told {
        [0, granted, left, day_left, full_ms] => Taken::Cells {
            granted: cells(granted),
            left: cells(left),
            day_left: u32::try_from(day_left).ok(),
            full_ms,
        },
        [1, _, retry_ms, full_ms, _] => Taken::Wait { retry_ms, full_ms },
        _ => Taken::DayUsedUp,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A bucket as the script keeps it.
    struct Bucket {
        tat: f64,
        used: u32,
    }

    impl Bucket {
        fn take(&mut self, rate: Rate, wanted: u32, day: Option<u32>, now: Millis) -> Taken {
            let now = now as f64;
            let tat = self.tat.max(now);
            let fit = ((now + rate.burst - tat) / rate.emission + 0.001).floor();
            if fit < 1.0 {
                let retry = (tat + rate.emission - rate.burst - now).ceil().max(1.0);
                let full_ms = (tat - now).ceil() as Millis;
                return Taken::Wait { retry_ms: retry as Millis, full_ms };
            }
            let mut cells = wanted.min(fit as u32);
            if let Some(limit) = day {
                if self.used >= limit {
                    return Taken::DayUsedUp;
                }
                cells = cells.min(limit - self.used);
                self.used += cells;
            }
            self.tat = tat + f64::from(cells) * rate.emission;
            Taken::Cells {
                granted: cells,
                left: fit as u32 - cells,
                day_left: day.map(|limit| limit - self.used),
                full_ms: (self.tat - now).ceil() as Millis,
            }
        }
    }

    proptest! {
        /// Who asks together gets what they would get one after another.
        #[test]
        fn together_or_one_after_another(
            per_minute in 1_u32..200,
            day in proptest::option::of(1_u32..60),
            turns in proptest::collection::vec((1_u32..40, 0_i64..20_000), 1..20),
        ) {
            // A whole number of milliseconds, so that nothing is rounded.
            let emission = f64::from(60_000 / per_minute);
            let rate = Rate { emission, burst: emission * f64::from(per_minute) };
            let bucket = || Bucket { tat: 0.0, used: 0 };
            let (mut together, mut single) = (bucket(), bucket());
            let mut now = 1_700_000_000_000;
            for (wanted, pause) in turns {
                now += pause;
                let taken = together.take(rate, wanted, day, now);
                for before in 0..wanted {
                    let alone = single.take(rate, 1, day, now);
                    prop_assert_eq!(part(taken, before, rate), alone, "{} of {}", before, wanted);
                }
            }
        }
    }
}

//! GCRA in a Redis script, for everything that is counted between processes: request limits
//! ([`super::requests`]) and pace ([`super::pace`]).
//!
//! GCRA keeps one number per bucket, the theoretical arrival time (TAT): a cell passes when
//! `TAT − burst + emission ≤ now`, and moves TAT on by one emission interval. Source: "Generic cell
//! rate algorithm", ITU-T I.371. A bucket's key expires when it is full again.

use crate::domain::clock::Millis;
use crate::queue::RedisQueue;

/// Its keys, arguments and answer stand at its head.
const SCRIPT: &str = include_str!("gcra.lua");

/// What a bucket allows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rate {
    /// Milliseconds from one cell to the next.
    pub emission: f64,
    /// How many milliseconds' cells may pass at once.
    pub burst: f64,
}

/// A count that ends with the day.
#[derive(Debug)]
pub(super) struct Day {
    /// Where it is kept.
    pub key: String,
    /// Cells.
    pub limit: u32,
    /// Milliseconds that the key lives.
    pub ttl: i64,
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

/// Takes up to `wanted` cells from the bucket at `key`.
pub(super) async fn take(
    redis: &RedisQueue,
    key: &str,
    rate: Rate,
    wanted: u32,
    day: Option<Day>,
    now: Millis,
) -> Result<Taken, redis::RedisError> {
    static COMPILED: std::sync::LazyLock<redis::Script> =
        std::sync::LazyLock::new(|| redis::Script::new(SCRIPT));
    let mut call = COMPILED.key(key);
    if let Some(day) = &day {
        call.key(&day.key);
    }
    call.arg(now).arg(rate.emission).arg(rate.burst).arg(wanted);
    call.arg(day.as_ref().map_or(0, |day| day.limit)).arg(day.as_ref().map_or(0, |day| day.ttl));
    let (verdict, granted, a, b, c): (i64, i64, i64, i64, i64) =
        call.invoke_async(&mut redis.commands()).await?;
    Ok(match verdict {
        0 => Taken::Cells {
            granted: granted.max(0) as u32,
            left: a.max(0) as u32,
            day_left: u32::try_from(b).ok(),
            full_ms: c,
        },
        1 => Taken::Wait { retry_ms: a, full_ms: b },
        _ => Taken::DayUsedUp,
    })
}

//! GCRA in a Redis script, for everything that is counted between processes: request limits
//! ([`super::limits`]) and pace ([`super::pace`]).
//!
//! GCRA keeps one number per bucket, the theoretical arrival time (TAT): a cell passes when
//! `TAT − burst + emission ≤ now`, and moves TAT on by one emission interval. Source: "Generic cell
//! rate algorithm", ITU-T I.371. A bucket's key expires when it is full again.

use super::RedisQueue;
use crate::domain::clock::Millis;

/// KEYS: TAT, day count (only with a day limit). ARGV: now, emission interval, burst (both in ms),
/// cells wanted, day limit (0 = none), day's ttl.
/// Returns {verdict, granted, a, b, c}: 0 pass (cells granted; cells left, day left, ms until full),
/// 1 too many (0; ms until one would pass, ms until full), 2 day used up.
const SCRIPT: &str = r"
local now, emission, burst = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local tat = math.max(tonumber(redis.call('GET', KEYS[1]) or now), now)
-- A thousandth of a cell of grace: TAT is kept to the microsecond only.
local fit = math.floor((now + burst - tat) / emission + 0.001)
if fit < 1 then
  return {1, 0, math.max(1, math.ceil(tat + emission - burst - now)), math.ceil(tat - now), 0}
end
local cells = math.min(fit, tonumber(ARGV[4]))
local left = -1
local limit = tonumber(ARGV[5])
if limit > 0 then
  local used = tonumber(redis.call('GET', KEYS[2]) or 0)
  if used >= limit then return {2, 0, 0, 0, 0} end
  cells = math.min(cells, limit - used)
  redis.call('SET', KEYS[2], used + cells, 'PX', ARGV[6])
  left = limit - used - cells
end
tat = tat + cells * emission
redis.call('SET', KEYS[1], string.format('%.3f', tat), 'PX', math.ceil(tat - now) + 1)
return {0, cells, fit - cells, left, math.ceil(tat - now)}
";

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

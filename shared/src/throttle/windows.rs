//! Named sliding windows, several judged together: in Redis where there is one, in this process where
//! there is none or it is away ([`super::away`]). The arithmetic is [`super::sliding`]'s in both.
//!
//! Data: one row of parts for each owner, name and length of window. In Redis that is the list
//! `NS:window:{OWNER}:MS:NAME`, OWNER in 32 hexadecimal digits. It expires when all its uses have left. Here at most [`ROWS`] rows are kept; those of which nobody
//! asked for longest are forgotten first.
//!
//! Invariants:
//! - all or nothing: where one limit is exceeded, none is counted. Who is refused got nothing, so
//!   their other limits must not pay for it: else one tight limit would use up all others by refusals;
//! - all processes that share a Redis let no more than the limit pass in any stretch of the window, by
//!   Redis's own clock. While it is away, each lets as many pass alone;
//! - an asking costs at most one round trip, however many limits it names; those of a moment share one.

use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use hashbrown::HashMap;
use redis::{ErrorKind, RedisError};

use super::away::Judge;
use super::gathered::Gathered;
use super::requests::REST;
use super::sliding::Row;
pub use super::sliding::{Standing, Window};
use crate::domain::clock::Millis;
use crate::queue::RedisQueue;

/// Its keys, arguments and answer stand at its head.
const SCRIPT: &str = include_str!("windows.lua");
/// Rows kept in this process; the largest have about 2 KB.
const ROWS: usize = 32_768;
/// Rows in one call, but for an asking that names more: Redis serves nobody else while a script runs.
const AT_ONCE: usize = 128;
/// Numbers that the script tells of each limit.
const TOLD: usize = 4;

/// Judges uses of named limits.
pub struct Windows {
    redis: Judge,
    gathered: Gathered<Ask, Vec<Standing>>,
    /// Redis goes by the caller's clock.
    by_caller: bool,
    here: Mutex<Rows>,
}

impl Windows {
    /// Judges through `redis` if given, in this process otherwise.
    pub fn new(redis: Option<RedisQueue>) -> Self {
        let redis = Judge::new(redis, "windows", REST);
        let gathered =
            Gathered::new(|redis, asked| Box::pin(async move { take(&redis, &asked).await }));
        Self { redis, gathered, by_caller: false, here: Mutex::default() }
    }

    /// The same, but Redis gets this long to answer.
    pub fn patient(self, patience: Duration) -> Self {
        Self { redis: self.redis.patient(patience), ..self }
    }

    /// The same, but Redis judges by the time that each call gives: for tests, which own time.
    pub fn by_callers_clock(self) -> Self {
        Self { by_caller: true, ..self }
    }

    /// Judges `limits` of `owner` together, and counts their costs if none is exceeded. How each stands,
    /// in their order. `now`, in milliseconds, is what this process goes by while it judges alone.
    ///
    /// The caller bounds how many limits there are and how long their names. A limit that is named twice
    /// is asked for the sum of its costs.
    pub async fn take(&self, owner: u128, limits: &[Window<'_>], now: Millis) -> Vec<Standing> {
        if limits.is_empty() {
            return Vec::new();
        }
        if let Some(redis) = self.redis.at(now) {
            let time = if self.by_caller { now } else { 0 };
            let asking = Ask::new(redis.namespace(), owner, limits, time);
            let asked = self.gathered.ask(redis, self.redis.patience(), asking);
            if let Some(told) = self.redis.in_time(now, asked).await {
                return told;
            }
        }
        let mut rows = self.here.lock().unwrap_or_else(PoisonError::into_inner);
        rows.take(owner, limits, now)
    }
}

/// What is asked of the rows of one owner.
struct Ask {
    /// In milliseconds, 0 = Redis's own.
    time: Millis,
    limits: Vec<Named>,
}

/// A row's key, and what is asked of it.
struct Named {
    key: String,
    limit: u32,
    window_ms: u32,
    cost: u32,
    part: u32,
}

impl Ask {
    fn new(namespace: &str, owner: u128, limits: &[Window<'_>], time: Millis) -> Self {
        let named = |window: &Window<'_>| {
            let Window { name, limit, window_ms, cost } = *window;
            let key = format!("{namespace}:window:{{{owner:032x}}}:{window_ms}:{name}");
            Named { key, limit, window_ms, cost, part: window.part() }
        };
        Self { time, limits: limits.iter().map(named).collect() }
    }
}

/// Judges each asking by itself, one after another, in as few calls as may be.
async fn take(redis: &RedisQueue, asked: &[Ask]) -> Result<Vec<Vec<Standing>>, RedisError> {
    let mut standings = Vec::with_capacity(asked.len());
    let mut rest = asked;
    while !rest.is_empty() {
        let mut rows = 0;
        let fits = |ask: &&Ask| {
            rows += ask.limits.len();
            rows <= AT_ONCE
        };
        let (some, later) = rest.split_at(rest.iter().take_while(fits).count().max(1));
        standings.extend(call(redis, some).await?);
        rest = later;
    }
    Ok(standings)
}

async fn call(redis: &RedisQueue, asked: &[Ask]) -> Result<Vec<Vec<Standing>>, RedisError> {
    static COMPILED: LazyLock<redis::Script> = LazyLock::new(|| redis::Script::new(SCRIPT));
    let mut script = COMPILED.prepare_invoke();
    for ask in asked {
        script.arg(ask.time).arg(ask.limits.len());
        for Named { key, limit, window_ms, cost, part } in &ask.limits {
            script.key(key).arg(limit).arg(window_ms).arg(cost).arg(part);
        }
    }
    let told: Vec<i64> = script.invoke_async(&mut redis.commands()).await?;
    if told.len() != asked.iter().map(|ask| ask.limits.len()).sum::<usize>() * TOLD {
        return Err((ErrorKind::UnexpectedReturnType, "windows.lua told too little").into());
    }
    let mut told = told.chunks_exact(TOLD);
    let standing = |(named, told): (&Named, &[i64])| Standing {
        exceeded: told[0] != 0,
        remaining: u32::try_from(told[1]).unwrap_or(named.limit),
        reset_ms: told[2],
        retry_ms: told[3],
    };
    Ok(asked.iter().map(|ask| ask.limits.iter().zip(&mut told).map(standing).collect()).collect())
}

/// What names a row.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Name {
    owner: u128,
    window_ms: u32,
    name: Box<str>,
}

/// The rows of this process, in two halves: those that were asked of lately, and those that were not.
/// When the first is full, the second is forgotten and the first takes its place.
#[derive(Debug, Default)]
struct Rows {
    late: HashMap<Name, Row>,
    before: HashMap<Name, Row>,
}

impl Rows {
    fn row(&mut self, name: &Name) -> &mut Row {
        if !self.late.contains_key(name) && self.late.len() >= ROWS / 2 {
            self.before = std::mem::take(&mut self.late);
        }
        self.late.entry_ref(name).or_insert_with(|| self.before.remove(name).unwrap_or_default())
    }

    fn take(&mut self, owner: u128, limits: &[Window<'_>], now: Millis) -> Vec<Standing> {
        let name = |limit: &Window<'_>| Name {
            owner,
            window_ms: limit.window_ms,
            name: limit.name.into(),
        };
        let names: Vec<Name> = limits.iter().map(name).collect();
        let mut refused = Vec::with_capacity(limits.len());
        for (i, (name, limit)) in names.iter().zip(limits).enumerate() {
            let same = names.iter().zip(limits).take(i).filter(|(other, _)| *other == name);
            let before = same.map(|(_, limit)| u64::from(limit.cost)).sum();
            let exceeds = self.row(name).exceeds(limit, before, now);
            refused.push(exceeds.then_some(before));
        }
        if refused.iter().all(Option::is_none) {
            for (name, limit) in names.iter().zip(limits) {
                self.row(name).count(limit, now);
            }
        }
        let all = names.iter().zip(limits).zip(refused);
        all.map(|((name, limit), refused)| self.row(name).standing(limit, refused, now)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Millis = 1_700_000_000_000;

    fn window(name: &str, limit: u32, cost: u32) -> Window<'_> {
        Window { name, limit, window_ms: 10_000, cost }
    }

    #[tokio::test]
    async fn all_are_counted_or_none() {
        let windows = Windows::new(None);
        let ask = [window("wide", 100, 1), window("tight", 2, 1)];
        for left in [(99, 1), (98, 0)] {
            let told = windows.take(1, &ask, START).await;
            assert_eq!((told[0].remaining, told[1].remaining), left);
        }
        let told = windows.take(1, &ask, START).await;
        assert_eq!((told[0].exceeded, told[0].remaining), (false, 98), "it was not counted");
        assert_eq!((told[1].exceeded, told[1].retry_ms), (true, 10_001));
        assert_eq!(windows.take(2, &ask, START).await[1].remaining, 1, "another owner's");
        let longer = Window { window_ms: 20_000, ..ask[1] };
        assert_eq!(windows.take(1, &[longer], START).await[0].remaining, 1, "another length's");
        assert!(windows.take(1, &[], START).await.is_empty());
    }

    #[tokio::test]
    async fn a_limit_that_is_named_twice_pays_twice() {
        let windows = Windows::new(None);
        let ask = [window("a", 3, 1), window("a", 3, 2)];
        let told = windows.take(1, &ask, START).await;
        assert_eq!((told[0].exceeded, told[0].remaining, told[1].remaining), (false, 0, 0));
        let windows = Windows::new(None);
        let ask = [window("a", 3, 2), window("a", 3, 2)];
        let told = windows.take(1, &ask, START).await;
        assert_eq!((told[0].exceeded, told[1].exceeded, told[0].remaining), (false, true, 3));
    }

    #[test]
    fn rows_are_bounded_and_the_idle_go_first() {
        let mut rows = Rows::default();
        rows.take(0, &[window("a", 5, 5)], START);
        for owner in 1..200_000 {
            rows.take(owner, &[window("a", 5, 1)], START);
            if owner % 10_000 == 0 {
                // Whoever goes on asking is not forgotten.
                assert!(rows.take(0, &[window("a", 5, 1)], START)[0].exceeded, "at {owner}");
            }
        }
        assert!(rows.late.len() + rows.before.len() <= ROWS);
        assert!(!rows.take(1, &[window("a", 5, 5)], START)[0].exceeded, "long forgotten");
    }
}

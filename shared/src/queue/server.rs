//! What the Redis server says of itself.

use redis::InfoDict;

use super::{Queue, QueueError, RedisQueue};
use crate::domain::clock::Millis;

/// The Redis server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Such as `7.2.4`.
    pub version: String,
    /// `maxmemory-policy`, where there is a limit and it may throw our keys away.
    pub evicts: Option<String>,
    /// Its clock.
    pub now: Millis,
}

impl Server {
    /// Major and minor version.
    pub fn major_minor(&self) -> Option<(u32, u32)> {
        let mut parts = self.version.split('.').map(|part| part.parse().ok());
        Some((parts.next()??, parts.next()??))
    }
}

impl Queue {
    /// Asks Redis for its version, memory policy and time; `None` for a queue in the process.
    pub async fn server(&self) -> Result<Option<Server>, QueueError> {
        match self {
            Queue::Memory(_) => Ok(None),
            Queue::Redis(queue) => queue.server().await.map(Some),
        }
    }
}

impl RedisQueue {
    async fn server(&self) -> Result<Server, QueueError> {
        let mut pipe = redis::pipe();
        pipe.cmd("INFO").cmd("TIME");
        let (info, (seconds, micros)): (InfoDict, (Millis, Millis)) =
            self.in_time(pipe.query_async(&mut self.commands())).await?;
        let policy: Option<String> = info.get("maxmemory_policy");
        let limited = info.get::<u64>("maxmemory").is_some_and(|most| most > 0);
        Ok(Server {
            version: info.get("redis_version").unwrap_or_default(),
            evicts: policy.filter(|policy| limited && policy != "noeviction"),
            now: seconds * 1000 + micros / 1000,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        let of =
            |version: &str| Server { version: version.into(), evicts: None, now: 0 }.major_minor();
        assert_eq!((of("7.2.4"), of("10.0"), of("x")), (Some((7, 2)), Some((10, 0)), None));
        assert!(of("10.0") > of("6.2.1"));
    }
}

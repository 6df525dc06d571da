//! Requests that are past the gate and not over, by key: what a key's end leaves running.
//!
//! Data: how many there are in this process. Other processes are asked through Redis: a question goes to all
//! that listen, and each leaves its answer in a list.
//!
//! | in Redis | type | holds |
//! | --- | --- | --- |
//! | `NS:in_flight` | pub/sub channel | 16 bytes: the question's id; then 16 bytes for each key |
//! | `NS:in_flight:ID` | list, expires | of each process that was asked, 4 bytes for each key: how many, little-endian |
//!
//! Invariants:
//! - a request counts from when its key was looked up until its answer is out, so one that was let in before its
//!   key ended is there when it is asked after it ended;
//! - a number is told only when all that were asked have answered; nobody is waited for longer than
//!   [`PATIENCE`].

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use hashbrown::HashMap;
use redis::{AsyncCommands as _, RedisError};
use uuid::Uuid;

use super::away::PATIENCE;
use crate::domain::id::KeyId;
use crate::queue::RedisQueue;

/// Bytes of an id, and of a number.
const ID: usize = 16;
const NUMBER: usize = 4;
/// Milliseconds that answers are kept.
const KEPT_MS: i64 = 10_000;

/// See the module.
pub struct InFlight {
    redis: Option<RedisQueue>,
    /// This process has a gate.
    serves: AtomicBool,
    here: Mutex<HashMap<KeyId, u32>>,
}

/// A request that counts until this is dropped.
pub struct Entered {
    all: Arc<InFlight>,
    key: KeyId,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut here = self.all.lock();
        if let Some(count) = here.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                here.remove(&self.key);
            }
        }
    }
}

impl InFlight {
    /// `redis`: where other processes are, if there are any.
    pub fn new(redis: Option<RedisQueue>) -> Self {
        Self { redis, serves: AtomicBool::new(false), here: Mutex::default() }
    }

    /// A request with this key has come.
    pub fn enter(self: &Arc<Self>, key: KeyId) -> Entered {
        *self.lock().entry(key).or_default() += 1;
        Entered { all: self.clone(), key }
    }

    /// How many there are with each key, in their order; `None`: not all processes have answered. `question`: an
    /// id that nobody else has.
    pub async fn count(&self, keys: &[KeyId], question: Uuid) -> Option<Vec<u32>> {
        let Some(redis) = &self.redis else {
            return self.serves.load(Ordering::Relaxed).then(|| self.count_here(keys));
        };
        match tokio::time::timeout(PATIENCE, ask(redis, keys, question)).await {
            Ok(Ok(counts)) => counts,
            Ok(Err(error)) => {
                tracing::debug!(%error, "requests in flight are not known");
                None
            }
            Err(_) => None,
        }
    }

    /// Marks this process as one with a gate, and answers others. Never ends.
    pub async fn serve(&self) {
        self.serves.store(true, Ordering::Relaxed);
        let Some(redis) = &self.redis else { return std::future::pending().await };
        let mut questions = redis.messages(channel(redis));
        while let Some(question) = questions.next().await {
            if let Err(error) = self.answer(redis, &question).await {
                tracing::debug!(%error, "a question about requests in flight was not answered");
            }
        }
    }

    async fn answer(&self, redis: &RedisQueue, question: &[u8]) -> Result<(), RedisError> {
        let mut ids = question.chunks_exact(ID).filter_map(|id| Uuid::from_slice(id).ok());
        let Some(question) = ids.next() else { return Ok(()) };
        let keys: Vec<KeyId> = ids.map(KeyId).collect();
        let counts = self.count_here(&keys);
        let bytes: Vec<u8> = counts.into_iter().flat_map(u32::to_le_bytes).collect();
        let list = answers(redis, question);
        let mut pipe = redis::pipe();
        pipe.rpush(&list, bytes).ignore().pexpire(&list, KEPT_MS).ignore();
        let mut commands = redis.commands();
        let answering = pipe.query_async::<()>(&mut commands);
        // Nobody waits longer for it.
        tokio::time::timeout(PATIENCE, answering).await.unwrap_or(Ok(()))
    }

    fn count_here(&self, keys: &[KeyId]) -> Vec<u32> {
        let here = self.lock();
        keys.iter().map(|key| here.get(key).copied().unwrap_or(0)).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<KeyId, u32>> {
        self.here.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn channel(redis: &RedisQueue) -> Arc<str> {
    format!("{}:in_flight", redis.namespace()).into()
}

fn answers(redis: &RedisQueue, question: Uuid) -> String {
    format!("{}:in_flight:{question}", redis.namespace())
}

async fn ask(
    redis: &RedisQueue,
    keys: &[KeyId],
    question: Uuid,
) -> Result<Option<Vec<u32>>, RedisError> {
    let ids = std::iter::once(question).chain(keys.iter().map(|key| key.0));
    let message: Vec<u8> = ids.flat_map(Uuid::into_bytes).collect();
    let mut commands = redis.commands();
    let asked: usize = commands.publish(&*channel(redis), message).await?;
    if asked == 0 {
        return Ok(None);
    }
    let list = answers(redis, question);
    let mut pause = Duration::from_millis(1);
    loop {
        let told: Vec<Vec<u8>> = commands.lrange(&list, 0, -1).await?;
        if told.len() >= asked {
            return Ok(Some(sum(&told, keys.len())));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

fn sum(told: &[Vec<u8>], keys: usize) -> Vec<u32> {
    let mut counts = vec![0_u32; keys];
    for answer in told {
        let (numbers, _) = answer.as_chunks::<NUMBER>();
        for (count, number) in counts.iter_mut().zip(numbers) {
            *count = count.saturating_add(u32::from_le_bytes(*number));
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::Ids;

    #[tokio::test]
    async fn a_request_counts_until_it_is_over() {
        let all = Arc::new(InFlight::new(None));
        let ids = Ids::seeded(1);
        let (one, other) = (KeyId::new(&ids, 1), KeyId::new(&ids, 1));
        let question = ids.uuid(1);
        assert_eq!(all.count(&[one], question).await, None, "no gate here");
        all.serves.store(true, Ordering::Relaxed);
        let (first, second) = (all.enter(one), all.enter(one));
        assert_eq!(all.count(&[other, one], question).await, Some(vec![0, 2]));
        drop(first);
        assert_eq!(all.count(&[one], question).await, Some(vec![1]));
        drop(second);
        assert_eq!(all.count(&[one], question).await, Some(vec![0]));
        assert!(all.lock().is_empty(), "what is over leaves nothing");
    }

    #[test]
    fn answers_add_up() {
        let answer = |numbers: &[u32]| numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
        let told: Vec<Vec<u8>> = vec![answer(&[1, 0]), answer(&[2, 5]), vec![7]];
        assert_eq!(sum(&told, 2), [3, 5]);
    }
}

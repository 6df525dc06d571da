//! Askings of Redis that are gathered into few calls of a script ([`crate::gather`]): on a busy process a
//! call of its own for each costs more than what it counts.

use std::sync::OnceLock;
use std::time::Duration;

use futures::future::BoxFuture;
use redis::{ErrorKind, RedisError};
use tokio::time::timeout;

use crate::gather::Gather;
use crate::queue::RedisQueue;

/// Calls under way at once; more than one only where one is slow.
const LANES: usize = 4;

/// Answers all askings, in their order.
type Call<Q, A> = fn(RedisQueue, Vec<Q>) -> BoxFuture<'static, Result<Vec<A>, RedisError>>;

/// See the module. Starts with the first asking.
pub(super) struct Gathered<Q, A> {
    call: Call<Q, A>,
    gather: OnceLock<Gather<Q, Result<A, RedisError>>>,
}

impl<Q, A> Gathered<Q, A>
where
    Q: Send + 'static,
    A: Send + 'static,
{
    pub fn new(call: Call<Q, A>) -> Self {
        Self { call, gather: OnceLock::new() }
    }

    /// The answer of `redis`, always the same one; a call is given up after `patience`.
    pub async fn ask(
        &self,
        redis: &RedisQueue,
        patience: Duration,
        question: Q,
    ) -> Result<A, RedisError> {
        let gather = self.gather.get_or_init(|| {
            let (redis, call) = (redis.clone(), self.call);
            Gather::new(LANES, move |asked: Vec<Q>| {
                let (count, calling) = (asked.len(), call(redis.clone(), asked));
                Box::pin(async move {
                    match timeout(patience, calling).await {
                        Ok(Ok(answers)) => answers.into_iter().map(Ok).collect(),
                        Ok(Err(error)) => (0..count).map(|_| Err(error.clone())).collect(),
                        Err(_) => Vec::new(),
                    }
                })
            })
        });
        let unanswered = || Err(RedisError::from((ErrorKind::Io, "no answer in time")));
        gather.ask(question).await.unwrap_or_else(unanswered)
    }
}

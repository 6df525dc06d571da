//! The queue: batch references in and out, and notices that a task stands still. The only room
//! that connects to Redis; what counts there is [`crate::throttle`].
//!
//! SQL is the truth and the queue is a hint. A reference may be lost, doubled or late; Redis may be
//! wiped at any moment: the sweeper asks for what it has not heard of ([`Queue::waiting`]) and sends again what
//! is not there, and a stale reference finds its batch leased or done. So nothing here retries for long,
//! and nothing here may stop a worker. A reference is acknowledged, and so gone, once its batch is leased.
//!
//! Redis keys (all begin with the namespace):
//!
//! | key | type | holds |
//! | --- | --- | --- |
//! | `NS:batches` | stream, capped, group `workers` | field `b` = 20 bytes of [`BatchRef`] |
//! | `NS:first` | likewise | batches that go past the line |
//! | `NS:sandbox` | likewise | batches of sandbox tasks |
//! | `NS:stopped` | pub/sub channel | 16 bytes: the id of a cancelled or paused task |
//! | `NS:round` | string, expires | there when a round of dispatch began a moment ago |

mod memory;
mod redis;
pub mod server;

use std::collections::HashSet;
use std::time::Duration;

use futures::stream::BoxStream;
use tokio::sync::watch;

pub use self::memory::MemoryQueue;
pub use self::redis::RedisQueue;
use crate::domain::batch::{BatchRef, Sent};
use crate::domain::id::TaskId;

/// Why the queue could not do it.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// Redis is away, or refused the command.
    #[error("redis: {0}")]
    Redis(#[from] ::redis::RedisError),
    /// Redis did not answer in time.
    #[error("redis: no answer in time")]
    Timeout,
}

/// Where a reference waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// Past the others: an account's first batch.
    First,
    /// In the order in which they were sent.
    Usual,
    /// Of sandbox tasks, which are in nobody's way.
    Sandbox,
}

impl Line {
    /// All lines.
    const ALL: [Self; 3] = [Line::First, Line::Usual, Line::Sandbox];

    fn of(sent: &Sent) -> Self {
        match sent {
            Sent { sandbox: true, .. } => Line::Sandbox,
            Sent { first: true, .. } => Line::First,
            _ => Line::Usual,
        }
    }
}

/// A reference that was handed out, to be acknowledged once its batch is leased, or not to be.
#[derive(Debug)]
pub struct Delivery {
    /// Which batch.
    pub batch: BatchRef,
    receipt: Option<Receipt>,
}

/// What an acknowledgement needs.
#[derive(Debug)]
enum Receipt {
    Memory,
    Redis(Line, String),
}

impl Delivery {
    /// One that came without a message.
    pub fn direct(batch: BatchRef) -> Self {
        Self { batch, receipt: None }
    }
}

/// The queue, of either kind.
#[derive(Clone)]
pub enum Queue {
    /// Inside this process.
    Memory(MemoryQueue),
    /// Between processes.
    Redis(Box<RedisQueue>),
}

impl Queue {
    /// The Redis behind it, if there is one.
    pub fn redis(&self) -> Option<RedisQueue> {
        match self {
            Queue::Redis(redis) => Some((**redis).clone()),
            Queue::Memory(_) => None,
        }
    }

    /// Sends references.
    pub async fn send(&self, batches: &[Sent]) -> Result<(), QueueError> {
        match self {
            Queue::Memory(queue) => {
                queue.send(batches);
                Ok(())
            }
            Queue::Redis(queue) => queue.send(batches).await,
        }
    }

    /// References of one line for one consumer; never ends, reconnects by itself.
    pub fn deliveries(&self, consumer: String, line: Line) -> BoxStream<'static, Delivery> {
        match self {
            Queue::Memory(queue) => queue.deliveries(line),
            Queue::Redis(queue) => queue.deliveries(consumer, line),
        }
    }

    /// Acknowledges a delivery.
    pub async fn ack(&self, delivery: Delivery) -> Result<(), QueueError> {
        match (self, delivery.receipt) {
            (Queue::Redis(queue), Some(Receipt::Redis(line, id))) => queue.ack(line, &id).await,
            (Queue::Memory(queue), Some(Receipt::Memory)) => {
                queue.ack(delivery.batch);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Every reference that was sent and is not acknowledged.
    pub async fn waiting(&self) -> Result<HashSet<BatchRef>, QueueError> {
        match self {
            Queue::Memory(queue) => Ok(queue.waiting()),
            Queue::Redis(queue) => queue.waiting().await,
        }
    }

    /// Tells every worker to look at a task: it may have been cancelled or paused.
    pub async fn tell_stopped(&self, task: TaskId) -> Result<(), QueueError> {
        match self {
            Queue::Memory(queue) => {
                queue.tell_stopped(task);
                Ok(())
            }
            Queue::Redis(queue) => queue.tell_stopped(task).await,
        }
    }

    /// Tasks that may have stopped; never ends, reconnects by itself. A notice can be missed.
    pub fn stopped(&self) -> BoxStream<'static, TaskId> {
        match self {
            Queue::Memory(queue) => queue.stopped(),
            Queue::Redis(queue) => queue.stopped(),
        }
    }

    /// Changes whenever the queue was found empty of memory (a new process, Redis wiped or
    /// replaced): what was sent before is gone.
    pub fn wiped(&self) -> watch::Receiver<u64> {
        match self {
            Queue::Memory(queue) => queue.wiped(),
            Queue::Redis(queue) => queue.wiped(),
        }
    }

    /// May a round of dispatch begin, as none has for `gather`? Where nobody can tell, it may.
    pub async fn claim_round(&self, gather: Duration) -> bool {
        match self {
            // The one process there is waits by itself.
            Queue::Memory(_) => true,
            Queue::Redis(queue) => queue.claim_round(gather).await,
        }
    }

    /// Is it there?
    pub async fn ping(&self) -> Result<(), QueueError> {
        match self {
            Queue::Memory(_) => Ok(()),
            Queue::Redis(queue) => queue.ping().await,
        }
    }

    /// Gives others what a consumer was handed and has not acknowledged for `idle`. Returns how much.
    pub async fn pass_on(&self, consumer: &str, idle: Duration) -> Result<usize, QueueError> {
        match self {
            Queue::Memory(_) => Ok(0),
            Queue::Redis(queue) => queue.pass_on(consumer, idle).await,
        }
    }

    /// Removes consumers that have been silent for `idle`.
    pub async fn tidy(&self, consumer: &str, idle: Duration) -> Result<(), QueueError> {
        match self {
            Queue::Memory(_) => Ok(()),
            Queue::Redis(queue) => queue.tidy(consumer, idle).await,
        }
    }
}

//! The queue between processes: a Redis stream with a consumer group, a pub/sub channel.
//!
//! Commands go over one multiplexed connection that reconnects by itself; blocking reads and the
//! subscription have connections of their own. Every failure ends in a reconnect with back-off.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use redis::aio::{ConnectionManager, ConnectionManagerConfig, MultiplexedConnection};
use redis::streams::{StreamReadOptions, StreamReadReply};
use redis::{AsyncCommands, AsyncConnectionConfig, Client, RedisError};
use tokio::sync::watch;
use uuid::Uuid;

use super::{Delivery, QueueError};
use crate::domain::batch::BatchRef;
use crate::domain::id::TaskId;

const GROUP: &str = "workers";
/// Most references kept; far above what dispatch windows allow.
const CAP: usize = 1_000_000;
/// How long a read waits for a reference.
const BLOCK: Duration = Duration::from_secs(2);
/// How long a command may take.
const ANSWER: Duration = Duration::from_secs(3);
const FIRST_BACK_OFF: Duration = Duration::from_millis(50);
const LAST_BACK_OFF: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Clone)]
pub struct RedisQueue {
    client: Client,
    commands: ConnectionManager,
    stream: Arc<str>,
    channel: Arc<str>,
    namespace: Arc<str>,
    wiped: watch::Sender<u64>,
}

impl RedisQueue {
    /// Opens the queue at `url`; connects when first used.
    pub fn open(url: &str, namespace: &str) -> Result<Self, QueueError> {
        let client = Client::open(url)?;
        let config = ConnectionManagerConfig::new()
            .set_response_timeout(Some(ANSWER))
            .set_connection_timeout(Some(ANSWER))
            .set_min_delay(FIRST_BACK_OFF)
            .set_max_delay(LAST_BACK_OFF)
            .set_number_of_retries(2);
        let commands = ConnectionManager::new_lazy_with_config(client.clone(), config)?;
        Ok(Self {
            client,
            commands,
            stream: format!("{namespace}:batches").into(),
            channel: format!("{namespace}:stopped").into(),
            namespace: namespace.into(),
            wiped: watch::Sender::new(0),
        })
    }

    pub(super) fn commands(&self) -> ConnectionManager {
        self.commands.clone()
    }

    pub(super) fn namespace(&self) -> &str {
        &self.namespace
    }

    pub(super) async fn send(&self, batches: &[BatchRef]) -> Result<(), QueueError> {
        if batches.is_empty() {
            return Ok(());
        }
        let mut pipe = redis::pipe();
        for batch in batches {
            pipe.cmd("XADD")
                .arg(&*self.stream)
                .arg("MAXLEN")
                .arg("~")
                .arg(CAP)
                .arg("*")
                .arg("b")
                .arg(&batch.to_bytes()[..])
                .ignore();
        }
        in_time(pipe.query_async::<()>(&mut self.commands())).await
    }

    pub(super) async fn ack(&self, receipt: &str) -> Result<(), QueueError> {
        let mut pipe = redis::pipe();
        pipe.xack(&*self.stream, GROUP, &[receipt]).ignore();
        pipe.xdel(&*self.stream, &[receipt]).ignore();
        in_time(pipe.query_async::<()>(&mut self.commands())).await
    }

    pub(super) async fn tell_stopped(&self, task: TaskId) -> Result<(), QueueError> {
        let mut commands = self.commands();
        in_time(commands.publish::<_, _, ()>(&*self.channel, &task.0.as_bytes()[..])).await
    }

    pub(super) async fn ping(&self) -> Result<(), QueueError> {
        in_time(redis::cmd("PING").query_async::<()>(&mut self.commands())).await
    }

    pub(super) fn wiped(&self) -> watch::Receiver<u64> {
        self.wiped.subscribe()
    }

    pub(super) fn deliveries(&self, consumer: String) -> BoxStream<'static, Delivery> {
        let reader = Reader {
            queue: self.clone(),
            consumer,
            connection: None,
            ready: VecDeque::new(),
            back_off: FIRST_BACK_OFF,
        };
        stream::unfold(reader, |mut reader| async move {
            let delivery = reader.next().await;
            Some((delivery, reader))
        })
        .boxed()
    }

    pub(super) fn stopped(&self) -> BoxStream<'static, TaskId> {
        let queue = self.clone();
        stream::unfold((queue, None), |(queue, mut subscription)| async move {
            let mut back_off = FIRST_BACK_OFF;
            loop {
                let messages = match &mut subscription {
                    Some(messages) => messages,
                    empty => match queue.subscribe().await {
                        Ok(messages) => empty.insert(messages),
                        Err(error) => {
                            tracing::warn!(%error, "cannot subscribe to stopped tasks");
                            rest(&mut back_off).await;
                            continue;
                        }
                    },
                };
                match messages.next().await {
                    Some(task) => return Some((task, (queue, subscription))),
                    None => subscription = None,
                }
            }
        })
        .boxed()
    }

    async fn subscribe(&self) -> Result<BoxStream<'static, TaskId>, QueueError> {
        let mut subscription = in_time(self.client.get_async_pubsub()).await?;
        in_time(subscription.subscribe(&*self.channel)).await?;
        let tasks = subscription.into_on_message().filter_map(|message| {
            let id = Uuid::from_slice(message.get_payload_bytes()).ok();
            std::future::ready(id.map(TaskId))
        });
        Ok(tasks.boxed())
    }

    /// Makes the group; a group that had to be made means that earlier references are gone.
    async fn make_group(&self, connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
        let made: Result<(), RedisError> =
            connection.xgroup_create_mkstream(&*self.stream, GROUP, "0").await;
        match made {
            Ok(()) => {
                self.wiped.send_modify(|times| *times += 1);
                Ok(())
            }
            Err(error) if error.code() == Some("BUSYGROUP") => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// References that a dead consumer never acknowledged are dropped (SQL has them still), and
    /// so are consumers that are long silent.
    pub(super) async fn tidy(&self, consumer: &str, idle: Duration) -> Result<(), QueueError> {
        let idle_ms = idle.as_millis() as u64;
        let mut commands = self.commands();
        let claimed: (redis::Value, Vec<(String, redis::Value)>) = in_time(
            redis::cmd("XAUTOCLAIM")
                .arg(&*self.stream)
                .arg(GROUP)
                .arg(consumer)
                .arg(idle_ms)
                .arg("0-0")
                .arg("COUNT")
                .arg(1000)
                .query_async::<(redis::Value, Vec<(String, redis::Value)>, redis::Value)>(
                    &mut commands,
                ),
        )
        .await
        .map(|(next, entries, _)| (next, entries))?;
        for (receipt, _) in claimed.1 {
            self.ack(&receipt).await?;
        }
        let consumers: redis::streams::StreamInfoConsumersReply =
            in_time(commands.xinfo_consumers(&*self.stream, GROUP)).await?;
        for silent in consumers.consumers {
            if silent.pending == 0 && silent.name != consumer && silent.idle as u64 > idle_ms {
                let _: () =
                    in_time(commands.xgroup_delconsumer(&*self.stream, GROUP, &silent.name))
                        .await?;
            }
        }
        Ok(())
    }
}

/// One consumer's blocking reads.
struct Reader {
    queue: RedisQueue,
    consumer: String,
    connection: Option<MultiplexedConnection>,
    ready: VecDeque<Delivery>,
    back_off: Duration,
}

impl Reader {
    async fn next(&mut self) -> Delivery {
        loop {
            if let Some(delivery) = self.ready.pop_front() {
                return delivery;
            }
            match self.read().await {
                Ok(()) => self.back_off = FIRST_BACK_OFF,
                Err(error) => {
                    tracing::warn!(%error, "cannot read the queue; reconnecting");
                    self.connection = None;
                    rest(&mut self.back_off).await;
                }
            }
        }
    }

    async fn read(&mut self) -> Result<(), QueueError> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            empty => {
                let config = AsyncConnectionConfig::new()
                    .set_connection_timeout(Some(ANSWER))
                    .set_response_timeout(Some(BLOCK + ANSWER));
                let client = &self.queue.client;
                let mut made = client.get_multiplexed_async_connection_with_config(&config).await?;
                self.queue.make_group(&mut made).await?;
                empty.insert(made)
            }
        };
        // One at a time: what a busy worker would sit on, an idle one can take.
        let options = StreamReadOptions::default()
            .group(GROUP, &self.consumer)
            .count(1)
            .block(BLOCK.as_millis() as usize);
        let reply: Result<Option<StreamReadReply>, RedisError> =
            connection.xread_options(&[&*self.queue.stream], &[">"], &options).await;
        let reply = match reply {
            Err(error) if error.code() == Some("NOGROUP") => {
                return Ok(self.queue.make_group(connection).await?);
            }
            other => other?.unwrap_or_default(),
        };
        for entry in reply.keys.into_iter().flat_map(|key| key.ids) {
            let bytes: Option<Vec<u8>> = entry.get("b");
            match bytes.as_deref().and_then(BatchRef::from_bytes) {
                Some(batch) => self.ready.push_back(Delivery { batch, receipt: Some(entry.id) }),
                None => {
                    tracing::warn!(id = %entry.id, "dropped a queue entry that is no reference");
                    self.queue.ack(&entry.id).await?;
                }
            }
        }
        Ok(())
    }
}

async fn rest(back_off: &mut Duration) {
    tokio::time::sleep(*back_off).await;
    *back_off = (*back_off * 2).min(LAST_BACK_OFF);
}

/// Redis may be stalled rather than gone; nothing waits for it long.
pub(super) async fn in_time<T>(
    work: impl Future<Output = Result<T, RedisError>>,
) -> Result<T, QueueError> {
    match tokio::time::timeout(ANSWER * 2, work).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(QueueError::Timeout),
    }
}

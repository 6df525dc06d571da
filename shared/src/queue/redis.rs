//! The queue between processes: a Redis stream with a consumer group, a pub/sub channel.
//!
//! Commands go over one multiplexed connection that reconnects by itself, and is replaced when it does not
//! answer in time: a network that drops packets gives no error. Blocking reads and the subscription have
//! connections of their own. Every failure ends in a reconnect with back-off.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use redis::aio::{ConnectionManager, ConnectionManagerConfig, MultiplexedConnection};
use redis::streams::{
    StreamInfoConsumersReply, StreamRangeReply, StreamReadOptions, StreamReadReply,
};
use redis::{AsyncCommands, AsyncConnectionConfig, Client, RedisError, Value};
use tokio::sync::watch;
use uuid::Uuid;

use super::{Delivery, Line, QueueError, Receipt};
use crate::domain::batch::{BatchRef, Sent};
use crate::domain::id::TaskId;

const GROUP: &str = "workers";
/// Most references kept; far above what may be out.
const CAP: usize = 1_000_000;
/// References looked at in one command.
const PAGE: usize = 1_000;
/// How long a read waits for a reference.
const BLOCK: Duration = Duration::from_secs(2);
/// How long a command may take.
const ANSWER: Duration = Duration::from_secs(1);
/// A Redis that did not answer in time is not waited for again so soon.
const AWAY: Duration = Duration::from_secs(1);
/// A connection that does not answer is replaced, but not more often.
const DOUBT: Duration = Duration::from_secs(2);
/// A subscription that has been quiet for so long is made anew.
const QUIET: Duration = Duration::from_secs(30);
const FIRST_BACK_OFF: Duration = Duration::from_millis(50);
const LAST_BACK_OFF: Duration = Duration::from_secs(2);

/// The connection for commands, and when it was made.
struct Commands {
    manager: ConnectionManager,
    made: Instant,
    /// When it was last waited for in vain.
    silent: Option<Instant>,
}

/// See the module.
#[derive(Clone)]
pub struct RedisQueue {
    client: Client,
    commands: Arc<Mutex<Commands>>,
    first: Arc<str>,
    usual: Arc<str>,
    sandbox: Arc<str>,
    channel: Arc<str>,
    round: Arc<str>,
    namespace: Arc<str>,
    wiped: watch::Sender<u64>,
}

impl RedisQueue {
    /// Opens the queue at `url`; connects when first used.
    pub fn open(url: &str, namespace: &str) -> Result<Self, QueueError> {
        let client = Client::open(url)?;
        let commands = Commands { manager: manager(&client)?, made: Instant::now(), silent: None };
        Ok(Self {
            client,
            commands: Arc::new(Mutex::new(commands)),
            first: format!("{namespace}:first").into(),
            usual: format!("{namespace}:batches").into(),
            sandbox: format!("{namespace}:sandbox").into(),
            channel: format!("{namespace}:stopped").into(),
            round: format!("{namespace}:round").into(),
            namespace: namespace.into(),
            wiped: watch::Sender::new(0),
        })
    }

    /// The connection for commands.
    pub(crate) fn commands(&self) -> ConnectionManager {
        self.lock().manager.clone()
    }

    /// It did not answer in time: perhaps only this connection is dead. Replaces it, now and then.
    pub(crate) fn doubt(&self) {
        let mut commands = self.lock();
        let now = Instant::now();
        commands.silent = Some(now);
        if commands.made.elapsed() < DOUBT {
            return;
        }
        match manager(&self.client) {
            Ok(manager) => *commands = Commands { manager, made: now, silent: Some(now) },
            Err(error) => tracing::debug!(%error, "cannot make another connection to Redis"),
        }
    }

    /// Was it waited for in vain just now?
    fn is_silent(&self) -> bool {
        self.lock().silent.is_some_and(|since| since.elapsed() < AWAY)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Commands> {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Redis may be stalled rather than gone; nothing waits for it long.
    pub(crate) async fn in_time<T>(
        &self,
        work: impl Future<Output = Result<T, RedisError>>,
    ) -> Result<T, QueueError> {
        let done = in_time(work).await;
        match &done {
            Err(QueueError::Timeout) => self.doubt(),
            Err(QueueError::Redis(error)) if error.is_timeout() => self.doubt(),
            _ => {}
        }
        done
    }

    /// What every key begins with.
    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    fn stream(&self, line: Line) -> &str {
        match line {
            Line::First => &self.first,
            Line::Usual => &self.usual,
            Line::Sandbox => &self.sandbox,
        }
    }

    pub(super) async fn send(&self, batches: &[Sent]) -> Result<(), QueueError> {
        if batches.is_empty() {
            return Ok(());
        }
        if self.is_silent() {
            return Err(QueueError::Timeout);
        }
        let mut pipe = redis::pipe();
        for sent in batches {
            add(&mut pipe, self.stream(Line::of(sent)), &sent.batch.to_bytes());
        }
        self.in_time(pipe.query_async::<()>(&mut self.commands())).await
    }

    pub(super) async fn ack(&self, line: Line, id: &str) -> Result<(), QueueError> {
        let mut pipe = redis::pipe();
        remove(&mut pipe, self.stream(line), id);
        self.in_time(pipe.query_async::<()>(&mut self.commands())).await
    }

    /// Reads all lines from end to end: what is out is bounded, and so are they.
    pub(super) async fn waiting(&self) -> Result<HashSet<BatchRef>, QueueError> {
        let mut waiting = HashSet::new();
        let mut commands = self.commands();
        for line in Line::ALL {
            let mut from = String::from("-");
            loop {
                let page: StreamRangeReply = self
                    .in_time(commands.xrange_count(self.stream(line), &from, "+", PAGE))
                    .await?;
                for entry in &page.ids {
                    let bytes: Option<Vec<u8>> = entry.get("b");
                    waiting.extend(bytes.as_deref().and_then(BatchRef::from_bytes));
                }
                match page.ids.last() {
                    Some(last) if page.ids.len() == PAGE => from = format!("({}", last.id),
                    _ => break,
                }
            }
        }
        Ok(waiting)
    }

    pub(super) async fn tell_stopped(&self, task: TaskId) -> Result<(), QueueError> {
        if self.is_silent() {
            return Err(QueueError::Timeout);
        }
        let mut commands = self.commands();
        self.in_time(commands.publish::<_, _, ()>(&*self.channel, &task.0.as_bytes()[..])).await
    }

    pub(super) async fn claim_round(&self, gather: Duration) -> bool {
        if self.is_silent() {
            return true;
        }
        let mut command = redis::cmd("SET");
        command.arg(&*self.round).arg(1).arg("NX").arg("PX").arg(gather.as_millis().max(1) as u64);
        let claimed = self.in_time(command.query_async::<bool>(&mut self.commands())).await;
        claimed.unwrap_or(true)
    }

    pub(super) async fn ping(&self) -> Result<(), QueueError> {
        self.in_time(redis::cmd("PING").query_async::<()>(&mut self.commands())).await
    }

    pub(super) fn wiped(&self) -> watch::Receiver<u64> {
        self.wiped.subscribe()
    }

    pub(super) fn deliveries(&self, consumer: String, line: Line) -> BoxStream<'static, Delivery> {
        let reader = Reader {
            queue: self.clone(),
            consumer,
            line,
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
        let tasks = self.messages(self.channel.clone()).filter_map(|message| {
            let id = Uuid::from_slice(&message).ok();
            std::future::ready(id.map(TaskId))
        });
        tasks.boxed()
    }

    /// What is said on a channel; never ends, reconnects by itself. What is said meanwhile is missed.
    pub(crate) fn messages(&self, channel: Arc<str>) -> BoxStream<'static, Vec<u8>> {
        let queue = self.clone();
        stream::unfold((queue, channel, None), |(queue, channel, mut subscription)| async move {
            let mut back_off = FIRST_BACK_OFF;
            loop {
                let messages = match &mut subscription {
                    Some(messages) => messages,
                    empty => match queue.subscribe(&channel).await {
                        Ok(messages) => empty.insert(messages),
                        Err(error) => {
                            tracing::warn!(%error, channel = &*channel, "cannot subscribe");
                            rest(&mut back_off).await;
                            continue;
                        }
                    },
                };
                // A connection that is dead without a word is noticed by being quiet.
                match tokio::time::timeout(QUIET, messages.next()).await {
                    Ok(Some(message)) => return Some((message, (queue, channel, subscription))),
                    Ok(None) | Err(_) => subscription = None,
                }
            }
        })
        .boxed()
    }

    async fn subscribe(&self, channel: &str) -> Result<BoxStream<'static, Vec<u8>>, QueueError> {
        let mut subscription = in_time(self.client.get_async_pubsub()).await?;
        in_time(subscription.subscribe(channel)).await?;
        let messages = subscription.into_on_message();
        Ok(messages.map(|message| message.get_payload_bytes().to_vec()).boxed())
    }

    /// Makes the group; a group that had to be made means that earlier references are gone.
    async fn make_group(
        &self,
        connection: &mut MultiplexedConnection,
        line: Line,
    ) -> Result<(), RedisError> {
        let made: Result<(), RedisError> =
            connection.xgroup_create_mkstream(self.stream(line), GROUP, "0").await;
        match made {
            Ok(()) => {
                self.wiped.send_modify(|times| *times += 1);
                Ok(())
            }
            Err(error) if error.code() == Some("BUSYGROUP") => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// References that a consumer was handed and has not acknowledged for `idle` are sent to everybody again,
    /// and taken from it, in one step.
    pub(super) async fn pass_on(
        &self,
        consumer: &str,
        idle: Duration,
    ) -> Result<usize, QueueError> {
        let mut commands = self.commands();
        let mut passed = 0;
        for line in Line::ALL {
            let mut command = redis::cmd("XAUTOCLAIM");
            command.arg(self.stream(line)).arg(GROUP).arg(consumer).arg(idle.as_millis() as u64);
            command.arg("0-0").arg("COUNT").arg(PAGE);
            let claimed = match self.in_time(command.query_async::<Value>(&mut commands)).await {
                Ok(reply) => claimed(reply),
                // Nobody has read it yet.
                Err(QueueError::Redis(error)) if error.code() == Some("NOGROUP") => continue,
                Err(error) => return Err(error),
            };
            if claimed.is_empty() {
                continue;
            }
            let mut pipe = redis::pipe();
            pipe.atomic();
            for (id, payload) in &claimed {
                if let Some(payload) = payload {
                    add(&mut pipe, self.stream(line), payload);
                    passed += 1;
                }
                remove(&mut pipe, self.stream(line), id);
            }
            self.in_time(pipe.query_async::<()>(&mut commands)).await?;
        }
        Ok(passed)
    }

    /// Consumers that are long silent are forgotten.
    pub(super) async fn tidy(&self, consumer: &str, idle: Duration) -> Result<(), QueueError> {
        let idle_ms = idle.as_millis() as u64;
        let mut commands = self.commands();
        for line in Line::ALL {
            let consumers: StreamInfoConsumersReply =
                self.in_time(commands.xinfo_consumers(self.stream(line), GROUP)).await?;
            for silent in consumers.consumers {
                if silent.pending == 0 && silent.name != consumer && silent.idle as u64 > idle_ms {
                    let stream = self.stream(line);
                    let _: () = self
                        .in_time(commands.xgroup_delconsumer(stream, GROUP, &silent.name))
                        .await?;
                }
            }
        }
        Ok(())
    }
}

fn add(pipe: &mut redis::Pipeline, stream: &str, payload: &[u8]) {
    pipe.cmd("XADD").arg(stream).arg("MAXLEN").arg("~").arg(CAP).arg("*").arg("b").arg(payload);
    pipe.ignore();
}

fn remove(pipe: &mut redis::Pipeline, stream: &str, id: &str) {
    pipe.xack(stream, GROUP, &[id]).ignore();
    pipe.xdel(stream, &[id]).ignore();
}

/// Ids and payloads of an XAUTOCLAIM reply. Redis 6.2 answers with two elements, 7 and later with three (the
/// third lists entries that are gone); 6.2 gives an entry that is gone as nil.
fn claimed(reply: Value) -> Vec<(String, Option<Vec<u8>>)> {
    let Value::Array(parts) = reply else { return Vec::new() };
    let Some(Value::Array(entries)) = parts.into_iter().nth(1) else { return Vec::new() };
    entries
        .into_iter()
        .filter_map(|entry| {
            let Value::Array(parts) = entry else { return None };
            let mut parts = parts.into_iter();
            let id: String = redis::from_redis_value(parts.next()?).ok()?;
            let fields = match parts.next() {
                Some(Value::Array(fields)) => fields,
                _ => Vec::new(),
            };
            let payload = fields.into_iter().skip_while(|name| !is_payload_name(name)).nth(1);
            Some((id, payload.and_then(|bytes| redis::from_redis_value(bytes).ok())))
        })
        .collect()
}

fn is_payload_name(value: &Value) -> bool {
    matches!(value, Value::BulkString(name) if name == b"b")
}

fn manager(client: &Client) -> Result<ConnectionManager, RedisError> {
    let config = ConnectionManagerConfig::new()
        .set_response_timeout(Some(ANSWER))
        .set_connection_timeout(Some(ANSWER))
        .set_min_delay(FIRST_BACK_OFF)
        .set_max_delay(LAST_BACK_OFF)
        .set_number_of_retries(2);
    ConnectionManager::new_lazy_with_config(client.clone(), config)
}

/// One consumer's blocking reads.
struct Reader {
    queue: RedisQueue,
    consumer: String,
    line: Line,
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
                self.queue.make_group(&mut made, self.line).await?;
                empty.insert(made)
            }
        };
        // One at a time: what a busy worker would sit on, an idle one can take.
        let options = StreamReadOptions::default()
            .group(GROUP, &self.consumer)
            .count(1)
            .block(BLOCK.as_millis() as usize);
        let reply: Result<Option<StreamReadReply>, RedisError> =
            connection.xread_options(&[self.queue.stream(self.line)], &[">"], &options).await;
        let reply = match reply {
            Err(error) if error.code() == Some("NOGROUP") => {
                return Ok(self.queue.make_group(connection, self.line).await?);
            }
            other => other?.unwrap_or_default(),
        };
        for entry in reply.keys.into_iter().flat_map(|key| key.ids) {
            let bytes: Option<Vec<u8>> = entry.get("b");
            match bytes.as_deref().and_then(BatchRef::from_bytes) {
                Some(batch) => {
                    let receipt = Some(Receipt::Redis(self.line, entry.id));
                    self.ready.push_back(Delivery { batch, receipt });
                }
                None => {
                    tracing::warn!(id = %entry.id, "dropped a queue entry that is no reference");
                    self.queue.ack(self.line, &entry.id).await?;
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

async fn in_time<T>(work: impl Future<Output = Result<T, RedisError>>) -> Result<T, QueueError> {
    match tokio::time::timeout(ANSWER * 2, work).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(QueueError::Timeout),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn entry(id: &str, payload: &str) -> Value {
        Value::Array(vec![bulk(id), Value::Array(vec![bulk("b"), bulk(payload)])])
    }

    #[test]
    fn every_version_s_reply_to_xautoclaim_is_understood() {
        let found = vec![(String::from("1-1"), Some(b"x".to_vec()))];
        let entries = Value::Array(vec![entry("1-1", "x")]);
        let of_6_2 = Value::Array(vec![bulk("0-0"), entries.clone()]);
        assert_eq!(claimed(of_6_2), found);
        let gone = Value::Array(vec![bulk("1-2")]);
        assert_eq!(claimed(Value::Array(vec![bulk("0-0"), entries, gone])), found);
        let with_nil = Value::Array(vec![Value::Nil, entry("1-1", "x")]);
        assert_eq!(claimed(Value::Array(vec![bulk("0-0"), with_nil])), found);
        let nil_fields = Value::Array(vec![Value::Array(vec![bulk("1-3"), Value::Nil])]);
        let nothing = vec![(String::from("1-3"), None)];
        assert_eq!(claimed(Value::Array(vec![bulk("0-0"), nil_fields])), nothing);
        assert_eq!(claimed(Value::Nil), vec![]);
    }
}

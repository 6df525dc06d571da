//! Use-cases: what the API, the worker and the command line do, on either engine and queue.
//!
//! [`App`] is what every process holds. A use-case changes SQL first and speaks to the queue
//! afterwards: a message that is not sent is repaired by the sweeper, a commit that is not made
//! leaves nothing behind.

pub mod audit;
pub mod control;
pub mod credits;
pub mod dispatch;
pub mod health;
pub mod key_service;
pub mod keyring;
pub mod keys;
pub mod leaks;
pub mod provider;
pub mod request_log;
pub mod submit;
mod time;
pub mod verify;

use std::sync::{Arc, OnceLock};

use crate::domain::clock::{Clock, Millis};
use crate::domain::id::{Ids, TaskId};
use crate::domain::key::{KeyHash, Peppers};
use crate::domain::task::Task;
use crate::queue::{MemoryQueue, Queue, QueueError, RedisQueue};
use crate::settings::Settings;
use crate::store::gate::Found;
use crate::store::gather::Gather;
use crate::store::{Store, StoreError};

use self::health::Stuck;

/// What every process holds.
#[derive(Clone)]
pub struct App {
    /// The truth.
    pub store: Store,
    /// The hint.
    pub queue: Queue,
    /// The time.
    pub clock: Clock,
    /// Ids and randomness.
    pub ids: Ids,
    /// What the process runs with.
    pub settings: Arc<Settings>,
    keys: Arc<Gather<KeyHash, Found>>,
    peppers: Arc<OnceLock<Peppers>>,
    service: Arc<key_service::Service>,
    tasks: Arc<Gather<TaskId, Task>>,
    room: Arc<dispatch::KnownRoom>,
    health: Arc<health::Known>,
    /// What does not get on.
    pub stuck: Arc<Stuck>,
}

/// Why a process could not come up.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Redis.
    #[error(transparent)]
    Queue(#[from] QueueError),
}

impl App {
    /// Opens the database and the queue that the settings name; must be called inside a runtime.
    pub async fn open(settings: Settings, clock: Clock, ids: Ids) -> Result<Self, OpenError> {
        let url = settings.database_url.reveal();
        let store = Store::connect(url, settings.database_connections, &settings.session()).await?;
        let queue = match &settings.redis_url {
            Some(url) => {
                let redis = RedisQueue::open(url.reveal(), &settings.redis_namespace)?;
                Queue::Redis(Box::new(redis))
            }
            None => Queue::Memory(MemoryQueue::default()),
        };
        let app = Self::new(store, queue, clock, ids, settings);
        app.learn_time().await?;
        Ok(app)
    }

    /// Puts the parts together; must be called inside a runtime.
    pub fn new(store: Store, queue: Queue, clock: Clock, ids: Ids, settings: Settings) -> Self {
        let keys = Arc::new(store.gather_keys());
        let tasks = Arc::new(store.gather_tasks());
        let service = Arc::new(key_service::Service::new(&store, &queue));
        let (peppers, room, health, stuck) = Default::default();
        Self {
            store,
            queue,
            clock,
            ids,
            settings: Arc::new(settings),
            keys,
            peppers,
            service,
            tasks,
            room,
            health,
            stuck,
        }
    }

    /// Now.
    pub fn now(&self) -> Millis {
        self.clock.now()
    }

    /// A task by id, whoever owns it, on the state of this moment.
    pub async fn find_task(&self, id: TaskId) -> Result<Option<Task>, StoreError> {
        self.tasks.get(id).await
    }
}

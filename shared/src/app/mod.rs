//! Use-cases: what the API, the worker and the command line do, on either engine and queue.
//!
//! [`App`] is what every process holds. A use-case changes SQL first and speaks to the queue
//! afterwards: a message that is not sent is repaired by the sweeper, a commit that is not made
//! leaves nothing behind.

pub mod abuse;
pub mod account_page;
pub mod audit;
pub mod control;
pub mod credits;
pub mod dispatch;
pub mod doctor;
mod hashing;
pub mod health;
pub mod identities;
pub mod key_import;
pub mod key_links;
pub mod key_pages;
pub mod key_service;
pub mod keyring;
pub mod keys;
pub mod leaks;
pub mod once;
pub mod operators;
pub mod people;
pub mod person_links;
pub mod provider;
pub mod request_log;
pub mod request_search;
pub mod rotation;
pub mod sandbox;
pub mod sign_up;
pub mod submit;
pub mod suspension;
pub mod task_pages;
pub mod temporary;
mod time;
pub mod verify;

use std::sync::{Arc, OnceLock};

use crate::domain::clock::{Clock, Millis};
use crate::domain::id::{Ids, TaskId};
use crate::domain::key::{KeyHash, Peppers};
use crate::domain::task::Task;
use crate::mail::Mail;
use crate::queue::{MemoryQueue, Queue, QueueError, RedisQueue};
use crate::settings::Settings;
use crate::store::gate::Found;
use crate::store::gather::Gather;
use crate::store::{Store, StoreError};
use crate::throttle::in_flight::InFlight;

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
    hashing: Arc<hashing::Hashing>,
    service: Arc<key_service::Service>,
    tasks: Arc<Gather<TaskId, Task>>,
    room: Arc<dispatch::KnownRoom>,
    health: Arc<health::Known>,
    /// Files that must be whole before they are read or sent.
    pub temporary: Arc<temporary::Temporary>,
    workbooks: Arc<submit::Workbooks>,
    /// Who verifies for test keys.
    pub sandbox: Arc<sandbox::Sandbox>,
    /// What does not get on.
    pub stuck: Arc<Stuck>,
    /// Requests past the gate.
    pub in_flight: Arc<InFlight>,
    /// Takes the mails that Listmill itself sends.
    pub mail: Mail,
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
        let in_flight = Arc::new(InFlight::new(queue.redis()));
        let sandbox = Arc::new(sandbox::Sandbox::new(settings.sandbox_latency));
        let mail = Mail::new(&settings, clock.clone(), ids.clone());
        let (most, keep_free) = (settings.max_temporary_bytes, settings.min_temporary_free);
        let temporary = Arc::new(temporary::Temporary::new(ids.clone(), most, keep_free));
        let (peppers, room, health, stuck, hashing) = Default::default();
        Self {
            store,
            queue,
            clock,
            ids,
            settings: Arc::new(settings),
            keys,
            peppers,
            hashing,
            service,
            tasks,
            room,
            health,
            temporary,
            workbooks: Arc::default(),
            sandbox,
            stuck,
            in_flight,
            mail,
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

//! The worker process: apalis drives handlers over a stream of deliveries; around them run the
//! settler, the lease keeper, the stop watcher and the sweeper.
//!
//! A delivery is taken only while a permit is free and few leased addresses wait to be started, so
//! a worker does not sit on work that another could do. An account's first batch does not wait for that: its
//! addresses take turns with those of all others. Sandbox tasks have a line and permits of their own, whatever the
//! provider is doing. Handlers run as tasks of their own: a
//! stream that ends or fails is built anew, and cancels nothing.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use apalis::prelude::*;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use listmill_shared::app::App;
use listmill_shared::app::provider::Provider;
use listmill_shared::domain::batch::BatchRef;
use listmill_shared::domain::clock::Millis;
use listmill_shared::queue::{Delivery, Line};
use listmill_shared::store::StoreError;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::backlog::Share;
use crate::dispatcher::Dispatcher;
use crate::leaser::Leaser;
use crate::leases::Leases;
use crate::processor::{Means, Shared, process};
use crate::settler::Settler;
use crate::stops::Stops;
use crate::sweeper::Sweeper;

/// After the grace, what is left has this long to be written.
const LAST_WRITES: Duration = Duration::from_secs(5);
/// Then, this long to say that it is gone.
const LAST_WORD: Duration = Duration::from_secs(1);
/// Batches set aside that are due and wait for their turn here.
const LANE: usize = 256;
/// First batches of accounts in hand at once.
const FIRST: usize = 256;
/// Batches of sandbox tasks in hand at once, and their part of the addresses verified at once.
const SANDBOX: usize = 64;
const SANDBOX_PART: usize = 4;
const BACK_OFF: Duration = Duration::from_millis(500);

/// Why the worker could not run.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The database's schema does not fit.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A delivery with its share of the backlog, as apalis hands it over.
struct Job {
    delivery: Delivery,
    share: Share,
    /// Its place among the first batches, or those of sandbox tasks.
    place: Option<OwnedSemaphorePermit>,
    sandbox: bool,
}

/// What a handler needs.
#[derive(Clone)]
struct Context {
    shared: Arc<Shared>,
    running: TaskTracker,
}

/// Where a worker lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Home {
    /// In a process of its own: an operator may drain it, and `drain` is cancelled then, as by a signal.
    Own,
    /// In a process that does something else, too, and ends with that.
    Shared,
}

/// Works until `drain` is cancelled and what was under way has ended, or the grace is over.
pub async fn run(
    app: App,
    provider: Arc<dyn Provider>,
    drain: CancellationToken,
    home: Home,
) -> Result<(), WorkerError> {
    let worker = Identity::of(&app);
    let concurrency = app.settings.worker_concurrency;
    let batch = app.settings.batch_size as usize;
    let live = Means::new(provider, concurrency, batch);
    let sandbox = Means::new(app.sandbox.clone(), concurrency.div_ceil(SANDBOX_PART), batch);
    let (health, backlog) = (live.health.clone(), live.backlog.clone());
    let (lane, woken) = mpsc::channel(LANE);
    let leases = Arc::new(Leases::default());
    let stops = Arc::new(Stops::default());
    let dispatcher = Dispatcher::default();
    let verified = Arc::new(AtomicU64::new(0));
    let (settler, settling) =
        Settler::start(app.clone(), leases.clone(), dispatcher.clone(), verified.clone());
    let shared = Arc::new(Shared {
        app: app.clone(),
        live,
        sandbox,
        leaser: Leaser::start(app.clone(), leases.clone(), worker.source.clone(), drain.clone()),
        leases: leases.clone(),
        stops: stops.clone(),
        settler,
        dispatcher: dispatcher.clone(),
        drain: drain.clone(),
        abort: CancellationToken::new(),
        inflight: metrics::gauge!("listmill_inflight_addresses"),
    });
    let context = Context { shared: shared.clone(), running: TaskTracker::new() };
    tracing::info!(worker = %worker.name, concurrency, provider = shared.live.provider.name(), "worker started");
    let (app_ref, lane_ref) = (&app, &lane);
    let sweeper = Sweeper {
        app: app_ref,
        worker: &worker,
        health: &health,
        lane: lane_ref,
        dispatcher: &dispatcher,
        backlog: &backlog,
        leases: &leases,
        verified: &verified,
        drain: (home == Home::Own).then_some(&drain),
    };
    let around = async {
        tokio::join!(
            leases.keep_alive(&app),
            stops.watch(&app),
            Box::pin(dispatcher.run(&app)),
            Box::pin(sweeper.run()),
            tell_stuck(&app),
            backlog.measure(),
            Box::pin(app.keep_time()),
        )
    };
    let work = async {
        supervise(&app, &worker.name, woken, &context, &drain).await;
        finish(&app, &context).await;
    };
    tokio::select! {
        () = work => {}
        _ = around => {}
    }
    let abort = shared.abort.clone();
    drop((context, shared));
    // Handlers that outlived the grace are dropped with the runtime; their leases expire.
    if tokio::time::timeout(LAST_WRITES, settling).await.is_err() {
        tracing::warn!("not everything could be written; the rest returns to the queue by itself");
    }
    abort.cancel();
    // Else it is taken for one that has fallen silent, and what it could do for one that can be had.
    let _ = tokio::time::timeout(LAST_WORD, app.store.forget_worker(&worker.name)).await;
    tracing::info!(worker = %worker.name, "worker stopped");
    Ok(())
}

/// Builds the apalis worker, again whenever its stream ends, until drained.
async fn supervise(
    app: &App,
    name: &str,
    woken: mpsc::Receiver<BatchRef>,
    context: &Context,
    drain: &CancellationToken,
) {
    let woken = ReceiverStream::new(woken).map(Delivery::direct);
    let usual = app.queue.deliveries(name.to_owned(), Line::Usual);
    let deliveries = Deliveries {
        first: Arc::new(Mutex::new(app.queue.deliveries(name.to_owned(), Line::First))),
        usual: Arc::new(Mutex::new(stream::select(woken, usual).boxed())),
        sandbox: Arc::new(Mutex::new(app.queue.deliveries(name.to_owned(), Line::Sandbox))),
    };
    let mut generation = 0;
    while !drain.is_cancelled() {
        let mut events = build(&format!("{name}-{generation}"), deliveries.clone(), context);
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(Ok(_)) => {}
                    Some(Err(error)) => {
                        tracing::error!(%error, "the worker's stream failed; building it anew");
                        break;
                    }
                    None => break,
                },
                () = drain.cancelled() => return,
            }
        }
        generation += 1;
        tokio::time::sleep(BACK_OFF).await;
    }
}

/// The apalis worker over a stream of deliveries, as the stream of its events.
fn build(
    name: &str,
    deliveries: Deliveries,
    context: &Context,
) -> BoxStream<'static, Result<Event, apalis::prelude::WorkerError>> {
    WorkerBuilder::new(name)
        .backend(jobs(&deliveries, context.shared.clone()))
        .data(context.clone())
        .catch_panic()
        .concurrency(context.shared.app.settings.worker_concurrency.max(64) + FIRST + SANDBOX)
        .build(handle)
        .stream()
        .boxed()
}

/// A stream of deliveries that outlives the apalis worker over it.
type Stream = Arc<Mutex<BoxStream<'static, Delivery>>>;

/// Where deliveries come from.
#[derive(Clone)]
struct Deliveries {
    first: Stream,
    usual: Stream,
    sandbox: Stream,
}

/// The jobs of all lines.
fn jobs(
    deliveries: &Deliveries,
    shared: Arc<Shared>,
) -> BoxStream<'static, Result<Job, std::convert::Infallible>> {
    let first = bounded_jobs(deliveries.first.clone(), shared.clone(), FIRST, false);
    let sandbox = bounded_jobs(deliveries.sandbox.clone(), shared.clone(), SANDBOX, true);
    let usual = usual_jobs(deliveries.usual.clone(), shared);
    stream::select(stream::select(first, sandbox), usual).map(Ok).boxed()
}

/// First batches of accounts, or those of sandbox tasks: so many of them at once.
fn bounded_jobs(
    deliveries: Stream,
    shared: Arc<Shared>,
    most: usize,
    sandbox: bool,
) -> BoxStream<'static, Job> {
    let places = Arc::new(Semaphore::new(most));
    stream::unfold((deliveries, shared, places), move |(deliveries, shared, places)| async move {
        let means = shared.means(sandbox);
        means.health.clone().working().await;
        let place = places.clone().acquire_owned().await.ok()?;
        let delivery = deliveries.lock().await.next().await?;
        let share = means.backlog.reserve(0);
        let job = Job { delivery, share, place: Some(place), sandbox };
        Some((job, (deliveries, shared, places)))
    })
    .boxed()
}

/// Others, each taken only while a permit is free and the backlog has room.
fn usual_jobs(deliveries: Stream, shared: Arc<Shared>) -> BoxStream<'static, Job> {
    stream::unfold((deliveries, shared), |(deliveries, shared)| async move {
        let means = &shared.live;
        means.health.clone().working().await;
        means.backlog.has_room().await;
        // Not kept: the batches at work need it, while this may wait for a delivery for long.
        drop(means.permits.acquire().await.ok()?);
        let delivery = deliveries.lock().await.next().await?;
        let share = means.backlog.reserve(shared.app.settings.batch_size as usize);
        let job = Job { delivery, share, place: None, sandbox: false };
        Some((job, (deliveries, shared)))
    })
    .boxed()
}

async fn handle(job: Job, context: Data<Context>) -> Result<(), BoxDynError> {
    let Job { delivery, share, place, sandbox } = job;
    let shared = context.shared.clone();
    let task = context.running.spawn(async move {
        process(shared, delivery, share, sandbox).await;
        drop(place);
    });
    Ok(task.await?)
}

/// Shows what does not get on as a metric, and says it once when it begins and when it ends.
async fn tell_stuck(app: &App) {
    let mut every = tokio::time::interval(Duration::from_secs(1));
    let mut told: Vec<(&'static str, String)> = Vec::new();
    loop {
        every.tick().await;
        let held = app.stuck.held(app.now());
        let longest = held.first().map_or(0, |held| held.for_ms);
        metrics::gauge!("listmill_stuck_seconds").set(longest as f64 / 1_000.0);
        for one in &held {
            let what = (one.part, one.about.clone());
            if !told.contains(&what) {
                tracing::warn!(part = one.part, about = %one.about, "a part of this process makes no progress");
            }
        }
        told = held.into_iter().map(|held| (held.part, held.about)).collect();
    }
}

/// Lets what is under way end within the grace, then drops it; either way hands batches back.
async fn finish(app: &App, context: &Context) {
    context.running.close();
    let grace = app.settings.shutdown_grace;
    tracing::info!(batches = context.running.len(), ?grace, "draining");
    if tokio::time::timeout(grace, context.running.wait()).await.is_err() {
        tracing::warn!("the grace is over; handing back what is not finished");
        context.shared.abort.cancel();
        let _ = tokio::time::timeout(LAST_WRITES, context.running.wait()).await;
    }
}

/// What this worker is known by.
pub struct Identity {
    /// Unique per start: host, process, and something random.
    pub name: String,
    /// Where mail servers see it come from: the source address, else the host.
    pub source: Arc<str>,
    /// When it started.
    pub started_at: Millis,
}

impl Identity {
    fn of(app: &App) -> Self {
        let host = crate::provider::host_name();
        let random = u32::from_le_bytes(app.ids.bytes());
        let name = format!("{host}-{}-{random:08x}", std::process::id());
        let source = app.settings.smtp_source_ip.clone().unwrap_or(host).into();
        Self { name, source, started_at: app.now() }
    }
}

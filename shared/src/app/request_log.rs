//! The request log of a process: what the gate decides goes into a bounded buffer, and from there, in batches,
//! into the database.
//!
//! * [`RequestLog::note`] never waits: it takes a short lock and pushes. Nothing that the database does makes a
//!   request wait.
//! * [`Writer`] writes up to [`MOST`] decisions at once, when there are so many or after [`AGE`]. A batch that
//!   cannot be written is tried again until it is, or until it turns out to be wrong. Meanwhile the buffer
//!   fills; when it holds [`BUFFER`], what comes is lost. So at most `BUFFER + MOST` decisions are in memory.
//! * What is lost is counted (`listmill_request_log_lost_total`), and said once a minute. Nothing is lost
//!   silently but what a crash of this process or of the database takes with it: the last moments.
//! * What is noted also goes to abuse protection ([`super::abuse`]), whether the log is on or not.
//! * After [`RequestLog::close`] the rest is written within [`FLUSH`].

mod batch;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::App;
use super::abuse::{self, Counter, Noted, Watch};
use crate::domain::request::{DAY_MS, Decision};
use crate::store::request_log::Batch;
use crate::store::{Class, Store, StoreError};

use self::batch::Batcher;

/// Decisions that wait to be written.
const BUFFER: usize = 16_384;
/// Decisions written at once.
const MOST: usize = 1_000;
/// How long a decision waits for others.
const AGE: Duration = Duration::from_millis(250);
/// What is left at the end may take so long.
const FLUSH: Duration = Duration::from_secs(3);
/// Between two tries of the same batch.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(2);
/// Tries with other ids; more of them mean that something else is wrong.
const NUMBERINGS: u32 = 5;
/// How often a loss is said.
const TELL: Duration = Duration::from_secs(60);
/// Sums of days are kept so long, for bills and comparisons; those of hours as long as the log.
const DAYS_KEPT: i64 = 400 * DAY_MS;

/// Why decisions are lost.
#[derive(Debug, Clone, Copy)]
enum Lost {
    /// The buffer was full.
    Full,
    /// The database refuses them for what they are.
    Refused,
    /// The process ended before they could be written.
    Stopped,
}

impl Lost {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Refused => "refused",
            Self::Stopped => "stopped",
        }
    }
}

/// Where decisions are noted; cheap to clone.
#[derive(Clone)]
pub struct RequestLog(Option<Arc<Shared>>);

struct Shared {
    buffer: Mutex<VecDeque<Noted>>,
    /// Decisions that were taken and are not written yet; raised while the buffer is locked.
    in_hand: AtomicUsize,
    /// Batches that abuse protection has not judged yet.
    judging: Arc<AtomicUsize>,
    /// Rung when there is a batch, and when the log is closed.
    bell: Notify,
    closed: AtomicBool,
    lost: AtomicU64,
    /// Of decisions that found the buffer full; the others are rare.
    full: metrics::Counter,
}

impl Shared {
    fn buffer(&self) -> MutexGuard<'_, VecDeque<Noted>> {
        // A push that panicked has pushed or has not.
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lose(&self, why: Lost, decisions: usize) {
        let decisions = decisions as u64;
        self.lost.fetch_add(decisions, Ordering::Relaxed);
        match why {
            Lost::Full => self.full.increment(decisions),
            _ => lost_counter(why).increment(decisions),
        }
    }
}

fn lost_counter(why: Lost) -> metrics::Counter {
    metrics::counter!("listmill_request_log_lost_total", "why" => why.as_str())
}

impl RequestLog {
    /// The log of this process, and who writes it: [`Writer::run`] must run. With `request_log = off` and no rule of
    /// abuse protection, nobody.
    pub fn new(app: &App) -> (Self, Option<Writer>) {
        let judging = Arc::default();
        let Some((counter, watch)) = abuse::begin(app, &judging) else {
            return (Self(None), None);
        };
        // Shown from the start, so that none is not mistaken for not known.
        for why in [Lost::Full, Lost::Refused, Lost::Stopped] {
            lost_counter(why).increment(0);
        }
        let shared = Arc::new(Shared {
            buffer: Mutex::new(VecDeque::with_capacity(MOST)),
            in_hand: AtomicUsize::new(0),
            judging,
            bell: Notify::new(),
            closed: AtomicBool::new(false),
            lost: AtomicU64::new(0),
            full: lost_counter(Lost::Full),
        });
        let accepted = app.settings.request_log_accepted_per_second;
        let writer = Writer {
            store: app.store.clone(),
            shared: shared.clone(),
            batcher: Batcher::new(app.ids.clone(), accepted),
            logs: app.settings.request_log,
            counter: Some(counter),
            watch: Some(watch),
            told: None,
            told_lost: 0,
            left_out: metrics::counter!("listmill_request_log_left_out_total"),
            waiting: metrics::gauge!("listmill_request_log_waiting"),
        };
        (Self(Some(shared)), Some(writer))
    }

    /// Is anything logged?
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Notes a decision, without waiting for anybody; with a full buffer, the decision is lost and counted.
    pub fn note(&self, decision: Decision) {
        self.note_presented(decision, None);
    }

    /// Likewise; `print` ([`abuse::print`]) tells the presented key apart where nobody has it.
    pub fn note_presented(&self, decision: Decision, print: Option<i64>) {
        let Some(shared) = &self.0 else { return };
        let mut buffer = shared.buffer();
        if buffer.len() >= BUFFER {
            drop(buffer);
            shared.lose(Lost::Full, 1);
            return;
        }
        buffer.push_back((decision, print));
        let full = buffer.len() == MOST;
        drop(buffer);
        if full {
            shared.bell.notify_one();
        }
    }

    /// Decisions that were lost so far.
    pub fn lost(&self) -> u64 {
        self.0.as_ref().map_or(0, |shared| shared.lost.load(Ordering::Relaxed))
    }

    /// Is everything that this process noted written and judged, or lost?
    pub fn is_written(&self) -> bool {
        self.0.as_ref().is_none_or(|shared| {
            let buffer = shared.buffer();
            let open =
                shared.in_hand.load(Ordering::Relaxed) + shared.judging.load(Ordering::Relaxed);
            buffer.is_empty() && open == 0
        })
    }

    /// Nothing more will be noted: the writer writes what there is, within [`FLUSH`], and ends.
    pub fn close(&self) {
        if let Some(shared) = &self.0 {
            shared.closed.store(true, Ordering::Release);
            shared.bell.notify_one();
        }
    }
}

/// Writes what is noted.
pub struct Writer {
    store: Store,
    shared: Arc<Shared>,
    batcher: Batcher,
    /// Is the log itself on?
    logs: bool,
    /// For abuse protection; gone when everything is handed on.
    counter: Option<Counter>,
    watch: Option<Watch>,
    /// When trouble was last said.
    told: Option<Instant>,
    told_lost: u64,
    left_out: metrics::Counter,
    waiting: metrics::Gauge,
}

impl Writer {
    /// Writes until the log is closed and empty, or cannot be emptied in time.
    pub async fn run(mut self) {
        let shared = self.shared.clone();
        let given_up = async {
            while !shared.closed.load(Ordering::Acquire) {
                tokio::time::sleep(AGE).await;
            }
            tokio::time::sleep(FLUSH).await;
        };
        let watch = self.watch.take();
        let watching = async {
            if let Some(watch) = watch {
                watch.run().await;
            }
        };
        let writing = async {
            self.write_on().await;
            self.counter = None;
        };
        tokio::select! {
            ((), ()) = async { tokio::join!(writing, watching) } => {}
            () = given_up => {
                let waiting = std::mem::take(&mut *shared.buffer()).len();
                let left = shared.in_hand.swap(0, Ordering::Relaxed) + waiting;
                shared.lose(Lost::Stopped, left);
                if left > 0 {
                    tracing::warn!(left, "the request log could not be written to its end");
                }
            }
        }
        self.tell(None);
    }

    async fn write_on(&mut self) {
        loop {
            let closed = self.shared.closed.load(Ordering::Acquire);
            if !closed {
                // Whichever comes first; a bell that rings later is heard the next time.
                let _ = tokio::time::timeout(AGE, self.shared.bell.notified()).await;
            }
            loop {
                let (some, left) = self.take();
                if some.is_empty() {
                    break;
                }
                if let Some(counter) = &self.counter {
                    counter.count(&some);
                }
                if self.logs {
                    self.write(some.into_iter().map(|(decision, _)| decision).collect()).await;
                }
                self.shared.in_hand.store(0, Ordering::Relaxed);
                if left < MOST && !closed {
                    break;
                }
            }
            self.tell(None);
            if closed {
                return;
            }
        }
    }

    /// The next decisions, and how many are left.
    fn take(&self) -> (Vec<Noted>, usize) {
        let mut buffer = self.shared.buffer();
        let count = buffer.len().min(MOST);
        let some = buffer.drain(..count).collect();
        self.shared.in_hand.store(count, Ordering::Relaxed);
        self.waiting.set(buffer.len() as f64);
        (some, buffer.len())
    }

    /// Writes until it is written, or known to be wrong.
    async fn write(&mut self, decisions: Vec<Decision>) {
        let (mut batch, left_out) = self.batcher.batch(decisions);
        let (mut pause, mut numberings) = (FIRST_PAUSE, 0);
        loop {
            let error = match self.store.write_requests(&batch).await {
                Ok(()) => break,
                Err(error) => error,
            };
            let error = if error.is_conflict() && numberings < NUMBERINGS {
                numberings += 1;
                match self.is_written(&batch).await {
                    // The answer to an earlier try was lost.
                    Ok(true) => break,
                    Ok(false) => {
                        self.batcher.number_again(&mut batch);
                        continue;
                    }
                    Err(error) => error,
                }
            } else {
                error
            };
            if error.class() == Class::Poison {
                let lost = self.shared.in_hand.load(Ordering::Relaxed);
                tracing::error!(%error, lost, "requests cannot be logged");
                self.shared.lose(Lost::Refused, lost);
                return;
            }
            self.tell(Some(&error));
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
        self.left_out.increment(left_out);
    }

    async fn is_written(&self, batch: &Batch) -> Result<bool, StoreError> {
        match batch.rows.first() {
            Some((id, decision)) => self.store.has_request(*id, decision).await,
            None => Ok(false),
        }
    }

    /// Says what is wrong and what was lost, once in a while.
    fn tell(&mut self, error: Option<&StoreError>) {
        let lost = self.shared.lost.load(Ordering::Relaxed);
        let new = lost - self.told_lost;
        let due = self.told.is_none_or(|told| told.elapsed() >= TELL);
        if !due || (new == 0 && error.is_none()) {
            return;
        }
        self.told = Some(Instant::now());
        self.told_lost = lost;
        let waiting = self.shared.buffer().len();
        match error {
            Some(error) => {
                tracing::warn!(%error, waiting, lost = new, "requests are not logged for now");
            }
            None => tracing::warn!(lost = new, "requests were not logged"),
        }
    }
}

impl App {
    /// Removes what the request log and its sums hold beyond their age and number, for about `budget`.
    pub async fn expire_requests(&self, budget: Duration) -> Result<(), StoreError> {
        let started = Instant::now();
        let now = self.now();
        let ttl = i64::try_from(self.settings.request_log_ttl.as_millis()).unwrap_or(i64::MAX);
        // No age: nothing is too old.
        let since = if ttl == 0 { 0 } else { now.saturating_sub(ttl) };
        let most = i64::try_from(self.settings.request_log_rows).unwrap_or(i64::MAX);
        while self.store.expire_requests(since, most).await? && started.elapsed() < budget {}
        while self.store.expire_usage(since, now - DAYS_KEPT).await? && started.elapsed() < budget {
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::clock::Clock;
    use crate::domain::id::Ids;
    use crate::domain::request::Outcome;
    use crate::queue::{MemoryQueue, Queue};
    use crate::settings::Settings;

    fn decision(number: usize) -> Decision {
        Decision {
            at: 1_800_000_000_000 + number as i64,
            account: None,
            key: None,
            outcome: Outcome::Malformed,
            ip: None,
            route: "/v1/tasks".into(),
            method: "GET",
            status: 401,
            latency_us: 1,
            request_id: number.to_string(),
        }
    }

    /// An app on a file of its own; `migrate` makes the tables.
    async fn app(name: &str, extra: &[(&str, &str)], migrate: bool) -> (App, std::path::PathBuf) {
        let file = format!("listmill-request-log-{name}-{}", std::process::id());
        let folder = std::env::temp_dir().join(file);
        let url = format!("sqlite://{}/listmill.db", folder.display());
        let mut pairs: Vec<(String, String)> =
            extra.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        pairs.push(("LISTMILL_DATABASE_URL".into(), url.clone()));
        let settings = Settings::load(None, pairs).unwrap();
        let store = Store::connect(&url, 1, "test").await.unwrap();
        if migrate {
            store.migrate().await.unwrap();
        }
        let queue = Queue::Memory(MemoryQueue::default());
        (App::new(store, queue, Clock::system(), Ids::seeded(1), settings), folder)
    }

    #[tokio::test]
    async fn a_full_buffer_loses_what_comes_and_counts_it() {
        let (app, folder) = app("full", &[], true).await;
        let (log, writer) = RequestLog::new(&app);
        for number in 0..BUFFER + 5 {
            log.note(decision(number));
        }
        assert_eq!(log.lost(), 5);
        // What found room is written, all of it.
        let writing = tokio::spawn(writer.unwrap().run());
        let deadline = Instant::now() + Duration::from_secs(60);
        while !log.is_written() {
            assert!(Instant::now() < deadline, "it takes too long");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        log.close();
        writing.await.unwrap();
        assert_eq!(log.lost(), 5);
        let hour = crate::domain::request::By::Hour.start_of(decision(0).at);
        let filter = crate::store::usage::UsageFilter {
            of: crate::store::usage::Of::Account,
            from: hour,
            to: hour + DAY_MS,
            by: crate::domain::request::By::Hour,
            split: crate::store::usage::Split::None,
        };
        let nobody = crate::domain::id::AccountId::FIRST;
        let used = app.store.usage(nobody, &filter, 10).await.unwrap();
        assert_eq!(used.iter().map(|used| used.requests).sum::<i64>(), BUFFER as i64);
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[tokio::test]
    async fn what_cannot_be_written_in_time_is_counted_as_lost() {
        // Without its tables, no batch can be written.
        let (app, folder) = app("stopped", &[], false).await;
        let (log, writer) = RequestLog::new(&app);
        for number in 0..MOST + 7 {
            log.note(decision(number));
        }
        log.close();
        let started = Instant::now();
        writer.unwrap().run().await;
        assert!(started.elapsed() < FLUSH * 3, "{:?}", started.elapsed());
        assert_eq!(log.lost(), (MOST + 7) as u64);
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[tokio::test]
    async fn off_notes_nothing() {
        let off = [("LISTMILL_REQUEST_LOG", "off"), ("LISTMILL_ABUSE_PROTECTION", "off")];
        let (app, folder) = app("off", &off, false).await;
        let (log, writer) = RequestLog::new(&app);
        log.note(decision(1));
        assert!(!log.is_on() && writer.is_none() && log.lost() == 0);
        std::fs::remove_dir_all(folder).unwrap();
    }
}

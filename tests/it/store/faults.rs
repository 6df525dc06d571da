//! Each write of a real worker fails once, with each class of error, before and after it took effect; the
//! ledger judges.
//!
//! The worker runs in this process on a store whose n-th commit fails ([`Fault`]). However that one ends, the
//! task completes by itself with one result for each address, charged once, and the books are exact.
//! `LISTMILL_TEST_PROPERTY_CASES` says how many of all the cases are tried (24; all of them in a soak).

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use listmill_shared::app::App;
use listmill_shared::domain::clock::Clock;
use listmill_shared::domain::id::{Ids, TaskId};
use listmill_shared::domain::task::TaskStatus;
use listmill_shared::queue::{MemoryQueue, Queue};
use listmill_shared::settings::Settings;
use listmill_shared::store::faults::{Fault, Faults};
use listmill_shared::store::{Class, Store, StoreError};
use listmill_tests::eventually;
use listmill_tests::random::Random;
use listmill_worker::Home;
use sqlx::error::{DatabaseError, ErrorKind};
use tokio_util::sync::CancellationToken;

use super::on_both_engines;
use super::world::World;

on_both_engines!(any_commit_may_fail_once);

/// Addresses of the task, every tenth of them unknown.
const ADDRESSES: usize = 60;
/// Commits of an undisturbed run that may fail; repairs and retries make more of them.
const COMMITS: usize = 14;

/// What the database might say.
#[derive(Debug, Clone, Copy)]
struct Said {
    code: &'static str,
    class: Class,
}

const ALL: [Said; 8] = [
    Said { code: "40001", class: Class::Retry },
    Said { code: "25P03", class: Class::Retry },
    Said { code: "55P03", class: Class::Retry },
    Said { code: "25006", class: Class::Retry },
    Said { code: "13", class: Class::Retry },
    Said { code: "22021", class: Class::Poison },
    Said { code: "19", class: Class::Poison },
    Said { code: "XX000", class: Class::Unknown },
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    Before,
    After,
}

#[derive(Debug, Clone, Copy)]
struct Case {
    commit: usize,
    moment: Moment,
    said: Said,
}

fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    for commit in 0..COMMITS {
        for moment in [Moment::Before, Moment::After] {
            all.extend(ALL.map(|said| Case { commit, moment, said }));
        }
    }
    all
}

#[derive(Debug)]
struct Injected(Said);

impl fmt::Display for Injected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "injected {}", self.0.code)
    }
}

impl Error for Injected {}

impl DatabaseError for Injected {
    fn message(&self) -> &str {
        "injected"
    }

    fn code(&self) -> Option<Cow<'_, str>> {
        Some(self.0.code.into())
    }

    fn as_error(&self) -> &(dyn Error + Send + Sync + 'static) {
        self
    }

    fn as_error_mut(&mut self) -> &mut (dyn Error + Send + Sync + 'static) {
        self
    }

    fn into_error(self: Box<Self>) -> Box<dyn Error + Send + Sync + 'static> {
        self
    }

    fn kind(&self) -> ErrorKind {
        ErrorKind::Other
    }
}

/// Fails one commit.
struct Once {
    case: Case,
    before: AtomicUsize,
    after: AtomicUsize,
    failed: Arc<AtomicUsize>,
}

impl Once {
    fn judge(&self, moment: Moment, count: &AtomicUsize) -> Result<(), StoreError> {
        let ours = count.fetch_add(1, Ordering::SeqCst) == self.case.commit;
        if moment != self.case.moment || !ours {
            return Ok(());
        }
        self.failed.fetch_add(1, Ordering::SeqCst);
        Err(StoreError::Database(sqlx::Error::Database(Box::new(Injected(self.case.said)))))
    }
}

impl Fault for Once {
    fn before(&self) -> Result<(), StoreError> {
        self.judge(Moment::Before, &self.before)
    }

    fn after(&self) -> Result<(), StoreError> {
        self.judge(Moment::After, &self.after)
    }
}

fn settings(url: &str) -> Settings {
    let variables = [
        ("LISTMILL_BATCH_SIZE", "10"),
        ("LISTMILL_DATABASE_URL", url),
        ("LISTMILL_PROVIDER", "sandbox"),
        ("LISTMILL_SANDBOX_LATENCY", "30ms"),
        ("LISTMILL_LEASE_TTL", "1s"),
        ("LISTMILL_SWEEP_INTERVAL", "100ms"),
        ("LISTMILL_WORKER_CONCURRENCY", "8"),
        ("LISTMILL_SHUTDOWN_GRACE", "1s"),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Settings::load(None, variables).expect("settings")
}

async fn any_commit_may_fail_once(world: World) {
    let mut all = cases();
    let mut random = Random::printed();
    random.shuffle(&mut all);
    let most = std::env::var("LISTMILL_TEST_PROPERTY_CASES")
        .map_or(24, |text| text.parse().expect("LISTMILL_TEST_PROPERTY_CASES is a number"));
    let mut failed = 0;
    for case in all.into_iter().take(most) {
        let said = StoreError::Database(sqlx::Error::Database(Box::new(Injected(case.said))));
        assert_eq!(said.class(), case.said.class, "{case:?}");
        failed += run(&world, case).await;
    }
    assert!(failed > most / 2, "only {failed} of {most} faults happened");
}

/// One task with one failing commit; tells whether it came to that.
async fn run(world: &World, case: Case) -> usize {
    world.grant(ADDRESSES as i64).await;
    let list: String = (0..ADDRESSES)
        .map(|i| format!("{}{i}@example.com\n", if i % 10 == 0 { "unknown" } else { "person" }))
        .collect();
    let task = world.submit(&list, true).await.expect("a task");
    let failed = Arc::new(AtomicUsize::new(0));
    let fault = Once {
        case,
        before: AtomicUsize::new(0),
        after: AtomicUsize::new(0),
        failed: failed.clone(),
    };
    let store = Store::connect(&world.url, 8, "listmill test").await.expect("the database");
    let store = store.with_faults(Arc::new(Faults::new(fault)));
    let (clock, ids, settings) = (Clock::system(), Ids::system(), settings(&world.url));
    let provider = listmill_worker::provider::build(&settings, &clock, &ids).expect("provider");
    let queue = Queue::Memory(MemoryQueue::default());
    let app = App::new(store, queue, clock, ids, settings);
    let drain = CancellationToken::new();
    let work = listmill_worker::run(app.clone(), provider, drain.clone(), Home::Shared);
    let worker = tokio::spawn(Box::pin(work));
    let what = format!("the task completes after {case:?}");
    eventually(&what, Duration::from_secs(30), || async {
        (world.task(task).await.status == TaskStatus::Completed).then_some(())
    })
    .await;
    drain.cancel();
    worker.await.expect("the worker ends").expect("and ends well");
    app.store.close().await;
    assert_whole(world, task, case).await;
    failed.load(Ordering::SeqCst)
}

async fn assert_whole(world: &World, id: TaskId, case: Case) {
    let task = world.task(id).await;
    let unknown = (ADDRESSES / 10) as i64;
    assert_eq!(task.tally.processed(), ADDRESSES as i64, "{case:?}");
    assert_eq!((task.tally.charged, task.tally.refunded), (ADDRESSES as i64 - unknown, unknown));
    let results = world.app.store.results(id, -1, 1_000, None).await.expect("results");
    let seqs: BTreeSet<i64> = results.iter().map(|found| found.seq).collect();
    assert_eq!((results.len(), seqs.len()), (ADDRESSES, ADDRESSES), "{case:?}");
    world.check_books().await;
}

//! One database, one account, a clock that stands still, and hands to do a worker's part.

use listmill_shared::app::App;
use listmill_shared::app::submit::read::{Format, Said};
use listmill_shared::app::submit::{Accepted, Submission, SubmitError};
use listmill_shared::domain::audit::Origin;
use listmill_shared::domain::batch::{
    After, BatchRef, Caution, Deferral, Finding, Lease, Room, Settled, Step,
};
use listmill_shared::domain::clock::Clock;
use listmill_shared::domain::id::{AccountId, Ids, TaskId};
use listmill_shared::domain::ledger::Kind;
use listmill_shared::domain::payload::decode_batch;
use listmill_shared::domain::task::Task;
use listmill_shared::domain::verdict::{Credit, Reason, Verdict};
use listmill_shared::queue::{MemoryQueue, Queue};
use listmill_shared::settings::Settings;
use listmill_shared::store::batches::{Claim, Leasing};
use listmill_shared::store::settle::Settlement;
use listmill_shared::store::{Store, StoreError};
use listmill_tests::postgres::Postgres;
use listmill_tests::{random, scratch};

/// When the clock starts.
pub const START: i64 = 1_800_000_000_000;
/// Addresses in a batch.
pub const BATCH: usize = 10;
/// How long a lease lasts.
pub const TTL: i64 = 30_000;

pub struct World {
    pub app: App,
    pub account: AccountId,
    /// Where the database is.
    pub url: String,
}

impl World {
    pub async fn postgres() -> Self {
        let server = Postgres::shared().await;
        let name = format!("store_{:016x}", random::Random::fresh().number());
        server.execute(format!("CREATE DATABASE {name}")).await;
        Self::open(&server.url(&name)).await
    }

    pub async fn sqlite() -> Self {
        let path = scratch::folder("store").join("listmill.db");
        Self::open(&format!("sqlite://{}", path.display())).await
    }

    async fn open(url: &str) -> Self {
        let variables = [
            ("LISTMILL_BATCH_SIZE", BATCH.to_string()),
            ("LISTMILL_DATABASE_URL", url.into()),
            ("LISTMILL_KEY_PEPPER", format!("test:{}", "5a".repeat(32))),
            // Its own tests switch it on.
            ("LISTMILL_ABUSE_PROTECTION", String::from("off")),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value));
        let settings = Settings::load(None, variables).expect("settings");
        let store = Store::connect(url, 8, "listmill test").await.expect("the database");
        store.migrate().await.expect("migrations");
        let queue = Queue::Memory(MemoryQueue::default());
        let app = App::new(store, queue, Clock::manual(START), Ids::system(), settings);
        let by = Origin::operator();
        let account =
            app.create_account("owner@example.com", None, 0, false, &by).await.expect("account");
        Self { app, account, url: url.to_owned() }
    }

    pub async fn grant(&self, credits: i64) {
        let by = Origin::operator();
        self.app.grant(self.account, Kind::Email, credits, None, &by).await.expect("grant");
    }

    /// Submits a list as text; batches are dispatched as usual.
    pub async fn submit(&self, list: &str, allow_partial: bool) -> Result<TaskId, SubmitError> {
        self.submit_kind(list, allow_partial, false).await
    }

    /// Likewise, as a test key would.
    pub async fn submit_sandbox(&self, list: &str) -> Result<TaskId, SubmitError> {
        self.submit_kind(list, false, true).await
    }

    async fn submit_kind(
        &self,
        list: &str,
        allow_partial: bool,
        sandbox: bool,
    ) -> Result<TaskId, SubmitError> {
        let submission = Submission {
            account: self.account,
            key: None,
            by: None,
            key_limited: false,
            sandbox,
            format: Format::Text,
            said: Said::default(),
            gzip: false,
            allow_invalid: true,
            name: None,
            allow_partial,
            dry_run: false,
            idempotency: None,
            answer: |_, _, _| (201, String::new()),
        };
        let body = futures::stream::iter([Ok(list.to_owned().into())]);
        match self.app.submit(submission, body).await? {
            Accepted::Task { id: Some(id), .. } => Ok(id),
            other => panic!("not a new task: {other:?}"),
        }
    }

    pub async fn people(&self, count: usize) -> TaskId {
        self.submit(&people(count), true).await.expect("a task")
    }

    pub async fn sandbox_people(&self, count: usize) -> TaskId {
        self.submit_sandbox(&people(count)).await.expect("a sandbox task")
    }

    pub async fn task(&self, id: TaskId) -> Task {
        self.app.task(id, self.account).await.expect("the task")
    }

    pub async fn balance(&self) -> i64 {
        self.app.store.balance(self.account, Kind::Email).await.expect("balance")
    }

    pub fn claim(&self, batch: BatchRef) -> Claim {
        let now = self.app.now();
        Claim { batch, token: self.app.ids.number(now), until: now + TTL, fill: false }
    }

    pub async fn try_lease(&self, task: TaskId, no: i32) -> Leasing {
        let claim = self.claim(BatchRef { task, no });
        let mut leasings = self
            .app
            .store
            .lease(&[claim], "here", self.app.now(), self.app.now())
            .await
            .expect("lease");
        leasings.remove(0)
    }

    pub async fn lease(&self, task: TaskId, no: i32) -> Lease {
        match self.try_lease(task, no).await {
            Leasing::Leased(lease) => *lease,
            other => panic!("not leased: {other:?}"),
        }
    }

    pub fn number(&self) -> i64 {
        self.app.ids.number(self.app.now())
    }

    pub async fn settle(&self, number: i64, steps: &[Step]) -> Settlement {
        self.try_settle(number, steps).await.expect("settle")
    }

    pub async fn try_settle(&self, number: i64, steps: &[Step]) -> Result<Settlement, StoreError> {
        self.app.store.settle(self.account, number, steps, self.app.now()).await
    }

    /// Verifies everything in a lease with one verdict and releases it.
    pub async fn finish(&self, lease: &Lease, reason: Reason) -> Settled {
        self.finish_with(lease, |_| reason).await
    }

    /// Likewise, with a verdict for each `seq`.
    pub async fn finish_with(&self, lease: &Lease, verdict: impl Fn(i64) -> Reason) -> Settled {
        let step = step(lease, findings(lease, verdict), After::Release);
        let mut settlement = self.settle(self.number(), &[step]).await;
        settlement.outcomes.remove(0)
    }

    /// Sums the ledger, as every test does at its end; what the credits page says must be the same.
    pub async fn check_books(&self) {
        for books in self.app.store.books(None).await.expect("books") {
            assert_eq!(books.faults(), Vec::<String>::new(), "{books:?}");
            let all = self.app.store.account_books(books.account).await.expect("books");
            let shown = all.iter().find(|shown| shown.kind == books.kind).expect("this kind");
            assert_eq!(
                (shown.given, shown.balance, shown.held, shown.charged),
                (books.granted, books.balance, books.held, books.charged),
                "{books:?}"
            );
        }
    }
}

/// A list of so many.
fn people(count: usize) -> String {
    (0..count).map(|i| format!("person{i}@example.com\n")).collect()
}

pub fn step(lease: &Lease, findings: Vec<Finding>, after: After) -> Step {
    let addresses = decode_batch(&lease.payload).expect("payload").len();
    let caution = Caution::of(lease.lost, addresses - lease.done.len());
    Step {
        lost: caution.lost_after(lease.lost, !findings.is_empty(), after),
        batch: lease.batch,
        first_seq: lease.first_seq,
        done: lease.done.clone(),
        account: lease.account,
        token: lease.token,
        findings,
        deferrals: Vec::new(),
        after,
    }
}

/// What a worker would find in a lease: bad syntax is free, no more is started than is held, what
/// is set aside is left alone.
pub fn findings(lease: &Lease, verdict: impl Fn(i64) -> Reason) -> Vec<Finding> {
    let batch = decode_batch(&lease.payload).expect("payload");
    let mut startable = lease.startable();
    let mut all = Vec::new();
    for (i, entry) in batch.iter().enumerate() {
        let seq = lease.first_seq + i as i64;
        let aside = |one: &Deferral| one.seq == seq && one.due_at > lease.leased_at;
        if lease.is_done(seq) || lease.deferred.iter().any(aside) {
            continue;
        }
        let reason = if entry.valid { verdict(seq) } else { Reason::InvalidSyntax };
        let credit = reason.credit_in(lease.sandbox);
        if credit != Credit::Free {
            if startable == 0 {
                continue;
            }
            startable -= 1;
        }
        all.push(Finding {
            seq,
            verdict: Verdict::of(reason),
            credit,
            attempts: 1,
            checked_at: START,
        });
    }
    all
}

/// Room for so many full batches.
pub fn room(batches: i64) -> Room {
    let batch = BATCH as i64;
    Room { addresses: batches * batch, batches: 1_000, batch, workers: 1, pace: 0 }
}

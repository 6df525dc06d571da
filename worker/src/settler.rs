//! One settler per process: gathers the steps of all its batches and writes them, one transaction
//! per account at a time, several accounts side by side.
//!
//! It gathers by itself: while an account's transaction is under way, further steps of the account wait and
//! go into the next; while other batches are at work, a step waits a moment for theirs. Several steps of one
//! lease become one. A transaction that fails for a reason that may
//! pass is tried again with the same number until it goes through, so a step is applied exactly once; those
//! that have failed take turns, so that accounts that are stuck never hold up the others. A step that the
//! database will never take is written alone, and if that fails too its batch goes back to work.
//!
//! What waits here is bounded: a lease has one step under way at a time, and what is out is bounded.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use listmill_shared::app::App;
use listmill_shared::domain::batch::{Held, Settled, Step};
use listmill_shared::domain::id::AccountId;
use listmill_shared::store::settle::Settlement;
use listmill_shared::store::sweep::Ended;
use listmill_shared::store::{Class, StoreError};
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::dispatcher::Dispatcher;
use crate::leases::Leases;
use crate::merger::Merger;

/// Steps received in one go.
const AT_ONCE: usize = 64;
/// Results in one transaction, about.
const ROWS: usize = 8000;
/// Accounts settled side by side.
const SIDE_BY_SIDE: usize = 4;
/// While other batches are at work in this process, a step waits so long for theirs: a transaction for many
/// costs little more than one for one.
const LINGER: Duration = Duration::from_millis(4);
/// Where a settlement of the account has just taken longer, as others settle the same task: so long as that, up
/// to this.
const LINGER_LATE: Duration = Duration::from_millis(30);
const FIRST_BACK_OFF: Duration = Duration::from_millis(50);
const LAST_BACK_OFF: Duration = Duration::from_secs(2);

/// A step to be settled, and who wants to know.
struct Order {
    step: Step,
    reply: oneshot::Sender<Settled>,
}

/// Hands steps to the settler.
#[derive(Clone)]
pub struct Settler(mpsc::UnboundedSender<Order>);

/// What the settler works with.
struct Desk {
    app: App,
    leases: Arc<Leases>,
    dispatcher: Dispatcher,
    merger: Merger,
    /// Addresses that have their verdict, until they are told of.
    verified: Arc<AtomicU64>,
    /// Connections for accounts that get on.
    quick: Semaphore,
    /// The one for those that have failed.
    slow: Semaphore,
}

impl Settler {
    /// Starts the settler; it ends when the last handle is dropped and everything is written.
    pub fn start(
        app: App,
        leases: Arc<Leases>,
        dispatcher: Dispatcher,
        verified: Arc<AtomicU64>,
    ) -> (Self, tokio::task::JoinHandle<()>) {
        // Unbounded, as each lease has one step under way at the most.
        let (sender, receiver) = mpsc::unbounded_channel();
        let (quick, slow) = (Semaphore::new(SIDE_BY_SIDE), Semaphore::new(1));
        let (merger, merging) = Merger::start(app.clone());
        let desk = Desk { app, leases, dispatcher, merger, verified, quick, slow };
        let settling = tokio::spawn(async move {
            work(&desk, receiver).await;
            drop(desk);
            if let Err(error) = merging.await {
                tracing::error!(%error, "the merger has ended before its time");
            }
        });
        (Self(sender), settling)
    }

    /// Settles a step some time soon; a lost fence is also told to the lease. No answer: it could not be
    /// settled for good, and its batch has gone back to work.
    pub fn settle(&self, step: Step) -> oneshot::Receiver<Settled> {
        let (reply, wait) = oneshot::channel();
        if self.0.send(Order { step, reply }).is_err() {
            tracing::error!("the settler is gone");
        }
        wait
    }
}

/// Steps of one lease, merged, and everybody who waits for them.
struct Merged {
    step: Step,
    replies: Vec<oneshot::Sender<Settled>>,
}

/// Steps of one account that wait.
struct Waiting {
    orders: Vec<Order>,
    /// Their results.
    rows: usize,
    /// They wait for others until then.
    until: tokio::time::Instant,
}

impl Waiting {
    fn of(orders: Vec<Order>) -> Self {
        let rows = orders.iter().map(|order| order.step.findings.len()).sum();
        Self { orders, rows, until: tokio::time::Instant::now() + LINGER }
    }

    fn push(&mut self, order: Order) {
        self.rows += order.step.findings.len();
        self.orders.push(order);
    }
}

async fn work(desk: &Desk, mut orders: mpsc::UnboundedReceiver<Order>) {
    let mut some = Vec::with_capacity(AT_ONCE);
    let mut waiting: HashMap<AccountId, Waiting> = HashMap::new();
    let mut busy: HashSet<AccountId> = HashSet::new();
    let mut under_way: FuturesUnordered<BoxFuture<'_, (AccountId, Duration)>> =
        FuturesUnordered::new();
    let mut open = true;
    while open || !waiting.is_empty() || !under_way.is_empty() {
        let next = waiting.iter().filter(|(account, _)| !busy.contains(account));
        let next = next.map(|(_, waiting)| waiting.until).min();
        let until = next.unwrap_or_else(tokio::time::Instant::now);
        tokio::select! {
            count = orders.recv_many(&mut some, AT_ONCE), if open => {
                open = count > 0;
                for order in some.drain(..) {
                    let waiting = waiting.entry(order.step.account);
                    waiting.or_insert_with(|| Waiting::of(Vec::new())).push(order);
                }
            }
            () = tokio::time::sleep_until(until), if next.is_some() => {}
            Some((account, took)) = under_way.next(), if !under_way.is_empty() => {
                busy.remove(&account);
                if let Some(waiting) = waiting.get_mut(&account) {
                    waiting.until = tokio::time::Instant::now() + took.clamp(LINGER, LINGER_LATE);
                }
            }
        }
        let others = open && desk.leases.count() > waiting.values().map(|w| w.orders.len()).sum();
        let now = tokio::time::Instant::now();
        let ready = |(account, waiting): (&AccountId, &Waiting)| {
            let full = !others || waiting.rows >= ROWS || waiting.until <= now;
            (full && !busy.contains(account)).then_some(*account)
        };
        let free: Vec<AccountId> = waiting.iter().filter_map(ready).collect();
        for account in free {
            let group = take(&mut waiting, account);
            busy.insert(account);
            under_way.push(Box::pin(async move {
                let started = Instant::now();
                settle(desk, account, group).await;
                (account, started.elapsed())
            }));
        }
    }
}

/// The account's steps in their order, about [`ROWS`] results of them; those of one lease merged.
fn take(waiting: &mut HashMap<AccountId, Waiting>, account: AccountId) -> Vec<Merged> {
    let mut orders = waiting.remove(&account).map(|waiting| waiting.orders).unwrap_or_default();
    let mut rows = 0;
    let fit = orders.iter().take_while(|order| {
        let before = rows;
        rows += order.step.findings.len();
        before == 0 || rows <= ROWS
    });
    let rest = orders.split_off(fit.count());
    if !rest.is_empty() {
        waiting.insert(account, Waiting::of(rest));
    }
    let mut by_lease: BTreeMap<Held, Merged> = BTreeMap::new();
    for Order { step, reply } in orders {
        match by_lease.entry(Held::from(&step)) {
            std::collections::btree_map::Entry::Vacant(place) => {
                place.insert(Merged { step, replies: vec![reply] });
            }
            std::collections::btree_map::Entry::Occupied(mut place) => {
                let merged = place.get_mut();
                merged.step.findings.extend(step.findings);
                merged.step.deferrals.extend(step.deferrals);
                merged.step.after = step.after;
                merged.step.lost = step.lost;
                merged.replies.push(reply);
            }
        }
    }
    by_lease.into_values().collect()
}

async fn settle(desk: &Desk, account: AccountId, group: Vec<Merged>) {
    let (steps, replies): (Vec<Step>, Vec<_>) =
        group.into_iter().map(|merged| (merged.step, merged.replies)).unzip();
    match write(desk, account, &steps).await {
        Ok(settlement) => told(desk, settlement, &steps, replies),
        Err(error) if steps.len() == 1 => give_up(desk, account, &steps[0], &error).await,
        // One of them is poison: the others must not wait for it.
        Err(_) => {
            for (step, replies) in steps.into_iter().zip(replies) {
                let alone = std::slice::from_ref(&step);
                match write(desk, account, alone).await {
                    Ok(settlement) => told(desk, settlement, alone, vec![replies]),
                    Err(error) => give_up(desk, account, &step, &error).await,
                }
            }
        }
    }
}

/// Writes until it is written; an error is one that trying again would not mend.
async fn write(desk: &Desk, account: AccountId, steps: &[Step]) -> Result<Settlement, StoreError> {
    let app = &desk.app;
    let number = app.ids.number(app.now());
    let started = Instant::now();
    let mut back_off = FIRST_BACK_OFF;
    let mut failed = false;
    loop {
        let slot = if failed { desk.slow.acquire().await } else { desk.quick.acquire().await };
        let tried = app.store.settle(account, number, steps, app.now()).await;
        drop(slot);
        let error = match tried {
            Ok(settlement) => {
                record(steps, started);
                let count = steps.iter().map(|step| step.findings.len() as u64).sum();
                desk.verified.fetch_add(count, Ordering::Relaxed);
                if failed {
                    app.stuck.got_on("settle", &account.to_string());
                    tracing::info!(%account, steps = steps.len(), "settled after all");
                }
                return Ok(settlement);
            }
            Err(error) => error,
        };
        match error.class() {
            Class::Poison => {
                app.stuck.got_on("settle", &account.to_string());
                return Err(error);
            }
            Class::Retry => {
                tracing::warn!(%error, %account, steps = steps.len(), "not settled yet; trying again")
            }
            Class::Unknown => {
                tracing::error!(%error, %account, steps = steps.len(), "cannot settle, for a reason that is not known; nothing is lost, trying again")
            }
        }
        failed = true;
        app.stuck.failed("settle", account.to_string(), app.now());
        tokio::time::sleep(back_off).await;
        back_off = (back_off * 2).min(LAST_BACK_OFF);
    }
}

/// The database will never take this step: its batch goes back to work, where the cause is narrowed down.
async fn give_up(desk: &Desk, account: AccountId, step: &Step, error: &StoreError) {
    let app = &desk.app;
    tracing::error!(%error, %account, batch = ?step.batch, "this step cannot be stored; its batch goes back to work");
    desk.leases.lose(Held::from(step));
    let lease = Ended {
        task_id: step.batch.task,
        no: step.batch.no,
        lease_token: step.token,
        account_id: account,
    };
    match app.store.take_back(&lease, app.now()).await {
        Ok(_) => desk.dispatcher.poke(),
        Err(error) => tracing::warn!(%error, "not handed back; its lease will run out"),
    }
}

/// Tells everybody what became of their steps.
fn told(
    desk: &Desk,
    settlement: Settlement,
    steps: &[Step],
    replies: Vec<Vec<oneshot::Sender<Settled>>>,
) {
    desk.merger.merge(&settlement.pieces);
    if settlement.room {
        desk.dispatcher.poke();
    }
    let mut completed = BTreeSet::new();
    for ((outcome, step), replies) in settlement.outcomes.into_iter().zip(steps).zip(replies) {
        match &outcome {
            Settled::Fenced => desk.leases.lose(Held::from(step)),
            // Every step of the last settlement says so.
            Settled::Stored { task_done: true, .. } if completed.insert(step.batch.task) => {
                tracing::info!(task = %step.batch.task, "task completed");
            }
            Settled::Stored { .. } => {}
        }
        for reply in replies {
            // A processor that was dropped does not wait any more.
            let _ = reply.send(outcome.clone());
        }
    }
}

fn record(steps: &[Step], started: Instant) {
    metrics::histogram!("listmill_settle_seconds").record(started.elapsed().as_secs_f64());
    let mut total = listmill_shared::domain::task::Tally::default();
    steps.iter().for_each(|step| total += step.tally());
    for (status, count) in [
        ("deliverable", total.deliverable),
        ("undeliverable", total.undeliverable),
        ("risky", total.risky),
        ("unknown", total.unknown),
    ] {
        metrics::counter!("listmill_addresses_total", "status" => status).increment(count as u64);
    }
    let aside: usize = steps.iter().map(|step| step.deferrals.len()).sum();
    metrics::counter!("listmill_set_aside_total").increment(aside as u64);
}

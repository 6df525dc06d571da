//! One settler per process: gathers the steps of all its batches and writes them, one transaction
//! per account.
//!
//! It gathers by itself: while one transaction is under way, further steps wait in the channel and
//! go into the next. Several steps of one lease become one. A transaction that fails because the
//! database is away is tried again with the same number until it goes through, so a step is applied
//! exactly once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use listmill_shared::app::App;
use listmill_shared::domain::batch::{Settled, Step};
use listmill_shared::domain::id::AccountId;
use tokio::sync::{mpsc, oneshot};

use crate::leases::Leases;

/// Steps that may wait; then the processors wait.
const WAITING: usize = 64;
/// Results in one transaction, about.
const ROWS: usize = 4000;
const FIRST_BACK_OFF: Duration = Duration::from_millis(50);
const LAST_BACK_OFF: Duration = Duration::from_secs(2);

/// A step to be settled, and who wants to know.
struct Order {
    step: Step,
    reply: Option<oneshot::Sender<Settled>>,
}

/// Hands steps to the settler.
#[derive(Clone)]
pub struct Settler(mpsc::Sender<Order>);

impl Settler {
    /// Starts the settler; it ends when the last handle is dropped and everything is written.
    pub fn start(app: App, leases: Arc<Leases>) -> (Self, tokio::task::JoinHandle<()>) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Self(sender), tokio::spawn(work(app, leases, receiver)))
    }

    /// Settles a step some time soon; a lost fence is told to the lease.
    pub async fn put(&self, step: Step) {
        self.send(Order { step, reply: None }).await;
    }

    /// Settles a step and waits for it. `None`: it could not be settled for good; the sweeper will
    /// return its batch to work.
    pub async fn settle(&self, step: Step) -> Option<Settled> {
        let (reply, wait) = oneshot::channel();
        self.send(Order { step, reply: Some(reply) }).await;
        wait.await.ok()
    }

    async fn send(&self, order: Order) {
        if self.0.send(order).await.is_err() {
            tracing::error!("the settler is gone");
        }
    }
}

/// Steps of one lease, merged, and everybody who waits for them.
struct Merged {
    step: Step,
    replies: Vec<oneshot::Sender<Settled>>,
}

async fn work(app: App, leases: Arc<Leases>, mut orders: mpsc::Receiver<Order>) {
    let mut some = Vec::with_capacity(WAITING);
    while orders.recv_many(&mut some, WAITING).await > 0 {
        for (account, group) in group(some.drain(..)) {
            settle(&app, &leases, account, group).await;
        }
    }
}

/// By account, at most about [`ROWS`] results a group; steps of one lease merged in their order.
fn group(orders: impl Iterator<Item = Order>) -> Vec<(AccountId, Vec<Merged>)> {
    let mut by_lease: BTreeMap<(AccountId, i64), Merged> = BTreeMap::new();
    for Order { step, reply } in orders {
        match by_lease.entry((step.account, step.token)) {
            std::collections::btree_map::Entry::Vacant(place) => {
                place.insert(Merged { step, replies: reply.into_iter().collect() });
            }
            std::collections::btree_map::Entry::Occupied(mut place) => {
                let merged = place.get_mut();
                merged.step.findings.extend(step.findings);
                merged.step.deferrals.extend(step.deferrals);
                merged.step.after = step.after;
                merged.replies.extend(reply);
            }
        }
    }
    let mut groups: Vec<(AccountId, Vec<Merged>)> = Vec::new();
    let mut rows = 0;
    for ((account, _), merged) in by_lease {
        rows += merged.step.findings.len();
        match groups.last_mut() {
            Some((last, group)) if *last == account && rows <= ROWS => group.push(merged),
            _ => {
                rows = merged.step.findings.len();
                groups.push((account, vec![merged]));
            }
        }
    }
    groups
}

async fn settle(app: &App, leases: &Leases, account: AccountId, group: Vec<Merged>) {
    let (steps, replies): (Vec<Step>, Vec<_>) =
        group.into_iter().map(|merged| (merged.step, merged.replies)).unzip();
    let number = app.ids.number(app.now());
    let started = Instant::now();
    let mut back_off = FIRST_BACK_OFF;
    let settlement = loop {
        match app.store.settle(account, number, &steps, app.resend_at(), app.now()).await {
            Ok(settlement) => break settlement,
            Err(error) if error.is_transient() => {
                tracing::warn!(%error, steps = steps.len(), "not settled yet; trying again");
                tokio::time::sleep(back_off).await;
                back_off = (back_off * 2).min(LAST_BACK_OFF);
            }
            Err(error) => {
                tracing::error!(%error, %account, steps = steps.len(), "cannot settle");
                steps.iter().for_each(|step| leases.lose(step.token));
                return;
            }
        }
    };
    record(&steps, started);
    app.send(&settlement.dispatched).await;
    let mut completed = BTreeSet::new();
    for ((outcome, step), replies) in settlement.outcomes.into_iter().zip(&steps).zip(replies) {
        match &outcome {
            Settled::Fenced => leases.lose(step.token),
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

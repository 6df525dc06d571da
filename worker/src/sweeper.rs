//! The sweeper: every interval, in every worker, repairs what crashes and lost messages leave.
//! Each repair is idempotent; none needs a leader.

use std::time::Duration;

use listmill_shared::app::App;
use listmill_shared::domain::batch::BatchRef;
use listmill_shared::domain::task::PauseReason;
use listmill_shared::store::StoreError;
use tokio::sync::mpsc;

use crate::health::ProviderHealth;
use crate::runtime::Identity;

/// Repairs of one kind in one round.
const AT_ONCE: i64 = 500;
/// Rare repairs come every so many rounds.
const RARELY: u64 = 60;
/// A worker not seen for this long is forgotten.
const SILENT_MS: i64 = 300_000;
/// A consumer of the queue not heard of for this long is dead.
const DEAD: Duration = Duration::from_secs(300);
/// A batch that its own worker has not taken this long after it was due is anybody's.
const ANYONES_MS: i64 = 60_000;
/// Slack beyond the body's idle timeout before a submission counts as abandoned.
const ABANDONED_MS: i64 = 60_000;

/// References that go to this worker alone.
pub type Lane = mpsc::Sender<BatchRef>;

/// Sweeps until dropped.
pub async fn sweep_on(app: &App, worker: &Identity, health: &ProviderHealth, lane: &Lane) {
    let mut every = tokio::time::interval(app.settings.sweep_interval);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut wiped = app.queue.wiped();
    let mut troubled = false;
    for round in 0_u64.. {
        every.tick().await;
        if wiped.has_changed().unwrap_or(false) {
            wiped.mark_unchanged();
            match app.store.forget_messages(app.now() - 1).await {
                Ok(0) => {}
                Ok(batches) => {
                    tracing::warn!(batches, "the queue was empty of memory; sending again")
                }
                Err(_) => wiped.mark_changed(),
            }
        }
        let swept = async {
            sweep(app, worker, health, round).await?;
            if !health.is_down() {
                wake(app, worker, lane).await?;
            }
            Ok::<_, StoreError>(())
        };
        match swept.await {
            Ok(()) => troubled = false,
            Err(error) if troubled => tracing::debug!(%error, "cannot sweep"),
            Err(error) => {
                tracing::warn!(%error, "cannot sweep; trying on");
                troubled = true;
            }
        }
    }
}

async fn sweep(
    app: &App,
    worker: &Identity,
    health: &ProviderHealth,
    round: u64,
) -> Result<(), StoreError> {
    let (store, now) = (&app.store, app.now());
    let concurrency = match health.is_down() {
        true => 0,
        false => app.settings.worker_concurrency as i64,
    };
    store.worker_seen(&worker.name, concurrency, now, now - SILENT_MS).await?;
    let mut batches = store.reclaim_leases(AT_ONCE, app.resend_at(), now).await?;
    if !batches.is_empty() {
        tracing::info!(batches = batches.len(), "leases expired; back to the queue");
    }
    batches.extend(store.lost_messages(AT_ONCE, app.resend_at(), now).await?);
    let resumed = store.resume_paused(PauseReason::InsufficientCredits, AT_ONCE).await?;
    if resumed > 0 {
        tracing::info!(tasks = resumed, "credits arrived; tasks go on");
    }
    follow_health(app, health).await?;
    batches.extend(store.fill_windows(app.window().await?, AT_ONCE, app.resend_at()).await?);
    app.send(&batches).await;
    for check in store.expired_checks(now, AT_ONCE).await? {
        store.close_check(check, false, now).await?;
    }
    if round.is_multiple_of(RARELY) {
        rarely(app, &worker.name).await?;
    }
    Ok(())
}

/// Tasks stand still, and say why, when no worker's provider works.
async fn follow_health(app: &App, health: &ProviderHealth) -> Result<(), StoreError> {
    if !health.is_down() {
        let resumed = app.store.resume_paused(PauseReason::ProviderUnavailable, AT_ONCE).await?;
        if resumed > 0 {
            tracing::info!(tasks = resumed, "the provider works; tasks go on");
        }
    } else if app.working_concurrency().await? == 0 {
        for task in app.store.active_tasks(AT_ONCE).await? {
            tracing::warn!(%task, "no worker's provider works: the task is paused until one does");
            app.store.pause_for(task, PauseReason::ProviderUnavailable).await?;
        }
    }
    Ok(())
}

/// Batches that were set aside and are due come to the worker that did it, past the queue.
async fn wake(app: &App, worker: &Identity, lane: &Lane) -> Result<(), StoreError> {
    let room = lane.capacity() as i64;
    if room == 0 {
        return Ok(());
    }
    let now = app.now();
    let woken =
        app.store.wake(&worker.source, now - ANYONES_MS, room, app.resend_at(), now).await?;
    for batch in woken {
        // No room after all: its message counts as lost, and is sent again.
        let _ = lane.try_send(batch);
    }
    Ok(())
}

async fn rarely(app: &App, name: &str) -> Result<(), StoreError> {
    let now = app.now();
    let idle = app.settings.body_idle_timeout.as_millis() as i64 + ABANDONED_MS;
    for task in app.store.abandoned_ingests(now - idle, AT_ONCE).await? {
        tracing::info!(%task, "removing an abandoned submission");
        app.store.drop_ingest(task).await?;
    }
    app.store.forget_answers(app.oldest_answer()).await?;
    if let Err(error) = app.queue.tidy(name, DEAD).await {
        tracing::debug!(%error, "cannot tidy the queue");
    }
    Ok(())
}

//! The sweeper: every interval, in every worker, repairs what crashes and lost messages leave.
//! Each repair is idempotent; none needs a leader.

use std::time::Duration;

use listmill_shared::app::App;
use listmill_shared::store::StoreError;

/// Repairs of one kind in one round.
const AT_ONCE: i64 = 500;
/// Rare repairs come every so many rounds.
const RARELY: u64 = 60;
/// A worker not seen for this long is forgotten.
const SILENT_MS: i64 = 300_000;
/// A consumer of the queue not heard of for this long is dead.
const DEAD: Duration = Duration::from_secs(300);
/// Slack beyond the body's idle timeout before a submission counts as abandoned.
const ABANDONED_MS: i64 = 60_000;

/// Sweeps until dropped.
pub async fn sweep_on(app: &App, name: &str) {
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
        match sweep(app, name, round).await {
            Ok(()) => troubled = false,
            Err(error) if troubled => tracing::debug!(%error, "cannot sweep"),
            Err(error) => {
                tracing::warn!(%error, "cannot sweep; trying on");
                troubled = true;
            }
        }
    }
}

async fn sweep(app: &App, name: &str, round: u64) -> Result<(), StoreError> {
    let (store, now) = (&app.store, app.now());
    let concurrency = app.settings.worker_concurrency as i64;
    store.worker_seen(name, concurrency, now, now - SILENT_MS).await?;
    let mut batches = store.reclaim_leases(AT_ONCE, app.resend_at(), now).await?;
    if !batches.is_empty() {
        tracing::info!(batches = batches.len(), "leases expired; back to the queue");
    }
    batches.extend(store.lost_messages(AT_ONCE, app.resend_at(), now).await?);
    let resumed = store.resume_funded(AT_ONCE).await?;
    if resumed > 0 {
        tracing::info!(tasks = resumed, "credits arrived; tasks go on");
    }
    batches.extend(store.fill_windows(app.window().await?, AT_ONCE, app.resend_at()).await?);
    app.send(&batches).await;
    for check in store.expired_checks(now, AT_ONCE).await? {
        store.close_check(check, false, now).await?;
    }
    if round.is_multiple_of(RARELY) {
        rarely(app, name).await?;
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

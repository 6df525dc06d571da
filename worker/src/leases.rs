//! The leases of this process: kept alive by a third of their length, given up when lost.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use listmill_shared::app::App;
use listmill_shared::domain::batch::Held;
use tokio_util::sync::CancellationToken;

/// Leases extended in one statement.
const AT_ONCE: usize = 1_000;
/// How soon those are tried again that could not be extended.
const AGAIN: Duration = Duration::from_millis(500);

/// Leases, each with the token that is cancelled when it is lost.
#[derive(Default)]
pub struct Leases(Mutex<HashMap<Held, CancellationToken>>);

impl Leases {
    /// Registers a lease; the token is cancelled when it turns out to be lost.
    pub fn insert(&self, held: Held) -> CancellationToken {
        let lost = CancellationToken::new();
        self.lock().insert(held, lost.clone());
        metrics::gauge!("listmill_leases").increment(1.0);
        lost
    }

    /// How many batches are at work.
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// Forgets a lease that has ended.
    pub fn remove(&self, held: Held) {
        if self.lock().remove(&held).is_some() {
            metrics::gauge!("listmill_leases").decrement(1.0);
        }
    }

    /// Tells the holder of a lease that it is not ours any more.
    pub fn lose(&self, held: Held) {
        if let Some(lost) = self.lock().get(&held) {
            if !lost.is_cancelled() {
                tracing::debug!(batch = ?held.batch, "lease lost");
                metrics::counter!("listmill_leases_lost_total").increment(1);
            }
            lost.cancel();
        }
    }

    /// Extends every lease, again and again, until dropped.
    pub async fn keep_alive(&self, app: &App) {
        let every = app.settings.lease_ttl / 3;
        loop {
            tokio::time::sleep(every).await;
            let mut held: Vec<Held> = self.lock().keys().copied().collect();
            // What somebody is just writing, or could not be reached, comes again soon.
            let tries = (every.as_millis() / AGAIN.as_millis()).max(1);
            for _ in 0..tries {
                held = self.renew(app, held).await;
                if held.is_empty() {
                    break;
                }
                tokio::time::sleep(AGAIN.min(every)).await;
            }
        }
    }

    /// Extends leases; returns those to be tried again.
    async fn renew(&self, app: &App, held: Vec<Held>) -> Vec<Held> {
        let mut later = Vec::new();
        for some in held.chunks(AT_ONCE) {
            let until = app.now() + app.settings.lease_millis();
            match app.store.renew(some, until).await {
                Ok(renewed) => {
                    app.stuck.got_on("renew", "");
                    renewed.lost.iter().for_each(|held| self.lose(*held));
                    later.extend(renewed.later);
                }
                Err(error) => {
                    tracing::warn!(%error, leases = some.len(), "leases not renewed; trying again");
                    app.stuck.failed("renew", "", app.now());
                    later.extend_from_slice(some);
                }
            }
        }
        later
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Held, CancellationToken>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! The leases of this process: kept alive by a third of their length, given up when lost.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use listmill_shared::app::App;
use listmill_shared::store::batches::Held;
use tokio_util::sync::CancellationToken;

/// Leases by fence; each with the token that is cancelled when it is lost.
#[derive(Default)]
pub struct Leases(Mutex<HashMap<i64, (Held, CancellationToken)>>);

impl Leases {
    /// Registers a lease; the token is cancelled when it turns out to be lost.
    pub fn insert(&self, held: Held) -> CancellationToken {
        let lost = CancellationToken::new();
        self.lock().insert(held.token, (held, lost.clone()));
        metrics::gauge!("listmill_leases").increment(1.0);
        lost
    }

    /// Forgets a lease that has ended.
    pub fn remove(&self, token: i64) {
        if self.lock().remove(&token).is_some() {
            metrics::gauge!("listmill_leases").decrement(1.0);
        }
    }

    /// Tells the holder of a lease that it is not ours any more.
    pub fn lose(&self, token: i64) {
        if let Some((held, lost)) = self.lock().get(&token) {
            tracing::debug!(batch = ?held.batch, "lease lost");
            lost.cancel();
        }
    }

    /// Extends every lease, again and again, until dropped.
    pub async fn keep_alive(&self, app: &App) {
        let ttl = app.settings.lease_ttl;
        loop {
            tokio::time::sleep(ttl / 3).await;
            let held: Vec<Held> = self.lock().values().map(|(held, _)| *held).collect();
            let until = app.now() + app.settings.lease_millis();
            match app.store.renew(&held, until).await {
                Ok(lost) => {
                    for held in held.iter().filter(|held| lost.contains(&held.batch)) {
                        self.lose(held.token);
                    }
                }
                Err(error) => tracing::warn!(%error, leases = held.len(), "leases not renewed"),
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<i64, (Held, CancellationToken)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

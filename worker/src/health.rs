//! Whether the provider can work, for everybody here who has to know.

use std::sync::Arc;

use listmill_shared::app::provider::{Health, Provider};
use tokio::sync::watch;

/// A provider's health; one that cannot tell counts as well.
#[derive(Clone)]
pub struct ProviderHealth(Option<watch::Receiver<Health>>);

impl ProviderHealth {
    /// Of `provider`.
    pub fn of(provider: &dyn Provider) -> Self {
        Self(provider.health())
    }

    /// Is it known not to work?
    pub fn is_down(&self) -> bool {
        self.why_down().is_some()
    }

    /// Why it is known not to work, for people.
    pub fn why_down(&self) -> Option<Arc<str>> {
        match &*self.0.as_ref()?.borrow() {
            Health::Down { why } => Some(why.clone()),
            Health::Working => None,
        }
    }

    /// Ends when it goes down or comes back.
    pub async fn changed(&mut self) {
        let changed = match &mut self.0 {
            Some(health) => health.changed().await.is_ok(),
            None => false,
        };
        if !changed {
            std::future::pending().await
        }
    }

    /// Ends when it works.
    pub async fn working(&mut self) {
        while self.is_down() {
            self.changed().await;
        }
    }
}

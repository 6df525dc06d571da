//! Whether the provider can work, for everybody here who has to know.

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
        self.0.as_ref().is_some_and(|health| matches!(*health.borrow(), Health::Down { .. }))
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

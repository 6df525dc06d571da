//! Who verifies: the sandbox, and the engines that the settings can name.

mod sandbox;

use std::sync::Arc;

use listmill_shared::domain::verdict::Provider;
use listmill_shared::settings::{ProviderKind, Settings};

pub use sandbox::Sandbox;

/// Why there is no provider.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// The settings name one that this version does not have.
    #[error(
        "the provider `{0}` is not in this version of Listmill: set LISTMILL_PROVIDER=sandbox \
         (made-up verdicts, for trying things out)"
    )]
    NotInThisVersion(&'static str),
}

/// The provider that the settings name.
pub fn build(settings: &Settings) -> Result<Arc<dyn Provider>, ProviderError> {
    match settings.provider {
        ProviderKind::Sandbox => Ok(Arc::new(Sandbox::new(settings.sandbox_latency))),
        ProviderKind::Smtp => Err(ProviderError::NotInThisVersion("smtp")),
        ProviderKind::Http => Err(ProviderError::NotInThisVersion("http")),
    }
}

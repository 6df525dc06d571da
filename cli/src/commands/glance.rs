//! What would make verdicts wrong is said at the start, before somebody wonders about them.

use listmill_shared::domain::clock::Clock;
use listmill_shared::domain::id::Ids;
use listmill_shared::settings::{ProviderKind, Settings};
use listmill_worker::doctor;
use listmill_worker::provider::smtp_config;

/// Looks whether the resolver lies and the port of mail servers is shut, and says each in a line. Ends
/// within seconds; only mail servers of the world's are looked for.
pub async fn glance(settings: Settings, clock: Clock, ids: Ids) {
    if settings.provider != ProviderKind::Smtp {
        return;
    }
    // The provider has been built: its settings are right.
    let Ok(config) = smtp_config(&settings) else { return };
    match doctor::glance(&config, &clock, &ids).await {
        Ok(findings) => {
            for finding in findings {
                let advice = finding.advice.unwrap_or_default();
                let (check, found) = (finding.check, finding.found);
                tracing::warn!(check, "verdicts would be wrong: {check}: {found}. {advice}");
            }
        }
        Err(error) => tracing::debug!(%error, "nothing could be looked at"),
    }
}

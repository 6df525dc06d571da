//! Keys that were found where everybody can read them.
//!
//! Whoever sends a key has it, which is proof enough to end it. A reported key, of the gate or of an api, is
//! suspended, not disabled: its owner could lift the latter without knowing what happened, while the key is
//! public for good. Its tasks go on. A root key is deleted: nothing else ends one. When [`App::end_leaked`] has
//! returned, no request that starts later passes with any of the keys.
//!
//! Every text that was reported is looked up in all three places, whatever its form: a key may have been brought
//! from another system. Whether there is such a key shows neither in what is returned nor, as the caller waits
//! for [`answer_after`], in how long it takes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{try_join_all, try_join3};

use super::App;
use crate::domain::audit::Origin;
use crate::domain::key::{Key, KeyHash, Secret, Suspension};
use crate::domain::key_scan::mask;
use crate::store::StoreError;
use crate::store::key_edits::{Edited, Mark};

/// What is told to whoever uses the key from then on.
pub const REASON: &str = "This key was reported as leaked";
/// Characters of a place that are logged.
const PLACE: usize = 500;
/// Keys looked up at once.
const AT_ONCE: usize = 32;
/// A report is answered after this long, and longer for each key in it.
const ANSWER_AFTER: Duration = Duration::from_millis(50);
const PER_KEY: Duration = Duration::from_millis(4);

/// A key, and where it was found.
#[derive(Debug)]
pub struct Leak {
    /// The key.
    pub secret: Secret,
    /// Has it the form of a key of ours?
    pub formed: bool,
    /// Where everybody can read it, as the reporter says.
    pub url: Option<String>,
    /// In what kind of place.
    pub source: Option<String>,
}

/// How long after its beginning a report of so many keys is answered.
pub fn answer_after(keys: usize) -> Duration {
    ANSWER_AFTER + PER_KEY * u32::try_from(keys).unwrap_or(u32::MAX)
}

/// Different keys of a report, known or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reported {
    /// All that were looked up.
    pub all: usize,
    /// Those that have the form of a key.
    pub formed: usize,
}

impl App {
    /// Ends these keys; `by`: who reports them.
    pub async fn end_leaked(&self, leaks: Vec<Leak>, by: &Origin) -> Result<Reported, StoreError> {
        let different: HashMap<KeyHash, Leak> =
            leaks.into_iter().map(|leak| (leak.secret.hash(), leak)).collect();
        let formed = different.values().filter(|leak| leak.formed).count();
        let reported = Reported { all: different.len(), formed };
        let mut rest = different.into_iter();
        loop {
            let some = rest.by_ref().take(AT_ONCE).map(|(_, leak)| self.end_one(leak, by));
            if try_join_all(some).await?.is_empty() {
                return Ok(reported);
            }
        }
    }

    async fn end_one(&self, leak: Leak, by: &Origin) -> Result<(), StoreError> {
        // All of them, so that the time tells nothing either.
        let (of_gate, of_api, root) = try_join3(
            self.find_key(Some(&leak.secret)),
            self.find_service_key(&leak.secret),
            self.find_root_key(Some(&leak.secret)),
        )
        .await?;
        if let Some(root) = root.root {
            let deleted = self.delete_root_key(root.id, Some(REASON), by).await?;
            let (url, source) = self.places(&leak);
            tracing::warn!(
                root_key = %root.id, account = %root.account, deleted, ?url, ?source,
                "root key reported as leaked"
            );
            return Ok(());
        }
        let Some(key) = of_gate.key.map(Arc::unwrap_or_clone).or(of_api) else {
            tracing::info!("a key was reported as leaked that is none of ours");
            return Ok(());
        };
        let now = self.now();
        let mut changes = false;
        let suspend = |key: &mut Key| {
            // A reason that an operator gave says more; but one that ends by itself would open it again.
            if key.suspension(now).is_none_or(|one| one.until.is_some()) {
                let reason = String::from(REASON);
                key.suspended = Some(Suspension { reason, until: None, note: None });
                changes = true;
            }
            Ok::<(), std::convert::Infallible>(())
        };
        let mark = Mark { action: "key.suspend", by };
        match self.store.edit_key(key.id, None, suspend, mark, now).await? {
            // Deleted: it opens nothing for ever.
            Edited::Done(_) | Edited::Missing => {}
            Edited::Refused(never) => match never {},
        }
        let (url, source) = self.places(&leak);
        tracing::warn!(
            key = %key.id,
            account = %key.account,
            was = key.status(self.now()),
            suspended = changes,
            ?url,
            ?source,
            "key reported as leaked"
        );
        Ok(())
    }

    /// Where it was found, fit for the log.
    fn places(&self, leak: &Leak) -> (String, String) {
        let place = |text: Option<&String>| {
            // Cut after masking, or the start of a key would pass; `Debug` escapes line breaks. A key of
            // another form than the gate's is known by its text alone.
            let text = text.map_or("", String::as_str).replace(leak.secret.reveal(), "…");
            mask(&self.settings.key_prefix, &text).chars().take(PLACE).collect::<String>()
        };
        (place(leak.url.as_ref()), place(leak.source.as_ref()))
    }
}

//! Keys that were found where everybody can read them.
//!
//! Whoever sends a key has it, which is proof enough to end it. A reported key is suspended, not disabled:
//! its owner could lift the latter without knowing what happened, while the key is public for good. Its tasks
//! go on. When [`App::end_leaked`] has returned, no request that starts later passes with any of the keys.
//!
//! Every key that was reported is looked up; whether there is such a key shows neither in what is returned
//! nor, as the caller waits for [`answer_after`], in how long it takes.

use std::collections::HashMap;
use std::time::Duration;

use futures::future::try_join_all;

use super::App;
use crate::domain::audit::Origin;
use crate::domain::key::{Key, KeyHash, Secret, Suspension};
use crate::domain::key_scan::mask;
use crate::store::StoreError;
use crate::store::keys::{Edited, Mark};

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
    /// Where everybody can read it, as the reporter says.
    pub url: Option<String>,
    /// In what kind of place.
    pub source: Option<String>,
}

/// How long after its beginning a report of so many keys is answered.
pub fn answer_after(keys: usize) -> Duration {
    ANSWER_AFTER + PER_KEY * u32::try_from(keys).unwrap_or(u32::MAX)
}

impl App {
    /// Ends these keys; `by`: who reports them. Returns how many different ones there were, known or not.
    pub async fn end_leaked(&self, leaks: Vec<Leak>, by: &Origin) -> Result<usize, StoreError> {
        let different: HashMap<KeyHash, Leak> =
            leaks.into_iter().map(|leak| (leak.secret.hash(), leak)).collect();
        let count = different.len();
        let mut rest = different.into_iter();
        loop {
            let some = rest.by_ref().take(AT_ONCE).map(|(_, leak)| self.end_one(leak, by));
            if try_join_all(some).await?.is_empty() {
                return Ok(count);
            }
        }
    }

    async fn end_one(&self, leak: Leak, by: &Origin) -> Result<(), StoreError> {
        let Some(key) = self.find_key(Some(&leak.secret)).await?.key else {
            tracing::info!("a key was reported as leaked that is none of ours");
            return Ok(());
        };
        let now = self.now();
        let mut changes = false;
        let suspend = |key: &mut Key| {
            // A reason that an operator gave says more.
            if key.suspension(now).is_none() {
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
        let place = |text: Option<&String>| {
            // Cut after masking, or the start of a key would pass; `Debug` escapes line breaks.
            let text = text.map_or("", String::as_str);
            mask(&self.settings.key_prefix, text).chars().take(PLACE).collect::<String>()
        };
        tracing::warn!(
            key = %key.id,
            account = %key.account,
            was = key.status(self.now()),
            suspended = changes,
            url = ?place(leak.url.as_ref()),
            source = ?place(leak.source.as_ref()),
            "key reported as leaked"
        );
        Ok(())
    }
}

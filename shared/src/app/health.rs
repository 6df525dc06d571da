//! What a process says of its health: the database's state, and which of its own parts do not get on.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::Mutex as Turn;

use super::App;
use crate::domain::clock::Millis;
use crate::store::sessions::Health;

/// The database is asked at most so often, however often somebody asks us.
const ASKED_MS: Millis = 1_000;
/// What has not got on for so long is called stuck.
const STUCK_MS: Millis = 5_000;

/// The database's state as it was asked last.
#[derive(Default)]
pub(super) struct Known(Turn<Option<(Millis, Health)>>);

/// Work that is being tried again and again, and since when: by part and what it is about.
#[derive(Default)]
pub struct Stuck(Mutex<HashMap<(&'static str, String), Millis>>);

/// A part that does not get on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Which part: `settle`, `lease`, `renew`, `sweep`, `dispatch`.
    pub part: &'static str,
    /// What it is about: an account, say.
    pub about: String,
    /// For how long, in milliseconds.
    pub for_ms: Millis,
}

impl Stuck {
    /// A try has failed; the first one counts.
    pub fn failed(&self, part: &'static str, about: impl Into<String>, now: Millis) {
        self.lock().entry((part, about.into())).or_insert(now);
    }

    /// It got on, or has been given up.
    pub fn got_on(&self, part: &'static str, about: &str) {
        let mut all = self.lock();
        if !all.is_empty() {
            all.remove(&(part, about.to_owned()));
        }
    }

    /// What has not got on for long, longest first.
    pub fn held(&self, now: Millis) -> Vec<Held> {
        let mut held: Vec<Held> = self
            .lock()
            .iter()
            .map(|((part, about), since)| Held { part, about: about.clone(), for_ms: now - since })
            .filter(|held| held.for_ms >= STUCK_MS)
            .collect();
        held.sort_by_key(|held| (-held.for_ms, held.part, held.about.clone()));
        held
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(&'static str, String), Millis>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl App {
    /// The database's state, at most a second old.
    pub async fn database_health(&self) -> Health {
        let mut known = self.health.0.lock().await;
        let now = self.now();
        if let Some((at, health)) = *known
            && (0..ASKED_MS).contains(&(now - at))
        {
            return health;
        }
        let health = self.store.health(now).await;
        *known = Some((self.now(), health));
        health
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lasts_is_stuck() {
        let stuck = Stuck::default();
        stuck.failed("settle", "a", 1_000);
        stuck.failed("settle", "a", 5_000);
        stuck.failed("lease", "b", 3_000);
        assert_eq!(stuck.held(5_999), []);
        let held = |part, about: &str, for_ms| Held { part, about: about.to_owned(), for_ms };
        assert_eq!(stuck.held(8_000), [held("settle", "a", 7_000), held("lease", "b", 5_000)]);
        stuck.got_on("settle", "a");
        assert_eq!(stuck.held(8_000), [held("lease", "b", 5_000)]);
    }
}

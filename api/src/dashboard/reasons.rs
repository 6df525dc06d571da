//! How many results of each reason a task has.
//!
//! No sum has them, so every result is read. For a short list that is done for its page; a longer one is counted
//! beside it, by one task per list and two at once in the process, and the page shows what was counted last. Kept in
//! memory, for [`KEPT`] tasks; what is lost is counted again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use listmill_shared::domain::clock::Millis;
use listmill_shared::domain::id::TaskId;
use listmill_shared::domain::task::Task;
use listmill_shared::domain::verdict::Reason;
use listmill_shared::store::StoreError;
use tokio::sync::Semaphore;

use crate::Api;

/// Results that are counted for the page itself.
const AT_ONCE: i64 = 10_000;
/// Tasks whose counts are kept.
const KEPT: usize = 256;
/// A task that goes on is counted again no sooner.
const STALE: Millis = 30_000;

/// Tasks that are being counted, or wait for it; more are counted when their page is looked at again.
const WAITING: usize = 32;

/// Counts of a task.
#[derive(Debug, Clone)]
pub struct Counted {
    /// Results that were there.
    pub results: i64,
    /// By reason.
    pub reasons: Arc<Vec<(Reason, i64)>>,
}

#[derive(Debug, Default)]
struct Entry {
    last: Option<Counted>,
    /// When it was counted last, or began to be.
    at: Millis,
    counting: bool,
}

/// What was counted.
#[derive(Debug)]
pub struct Counts {
    entries: Mutex<HashMap<TaskId, Entry>>,
    turns: Arc<Semaphore>,
}

impl Default for Counts {
    fn default() -> Self {
        Self { entries: Mutex::default(), turns: Arc::new(Semaphore::new(2)) }
    }
}

impl Counts {
    fn entries(&self) -> MutexGuard<'_, HashMap<TaskId, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of the task, and whether it has to be counted.
    fn look(&self, task: &Task, now: Millis) -> (Option<Counted>, bool) {
        let results = task.tally.processed();
        let mut entries = self.entries();
        if entries.len() >= KEPT && !entries.contains_key(&task.id) {
            let oldest = entries.iter().filter(|(_, entry)| !entry.counting);
            let oldest = oldest.min_by_key(|(_, entry)| entry.at).map(|(id, _)| *id);
            oldest.map(|id| entries.remove(&id));
        }
        let crowded = entries.values().filter(|entry| entry.counting).count() >= WAITING;
        let entry = entries.entry(task.id).or_default();
        let known = entry.last.as_ref().is_some_and(|last| last.results == results);
        let rests = entry.last.is_some() && !task.status.has_ended() && now < entry.at + STALE;
        let count = !known && !entry.counting && !rests && !crowded;
        if count {
            (entry.counting, entry.at) = (true, now);
        }
        (entry.last.clone(), count)
    }

    fn counted(&self, task: TaskId, counted: Option<Counted>) {
        if let Some(entry) = self.entries().get_mut(&task) {
            entry.counting = false;
            entry.last = counted.or_else(|| entry.last.take());
        }
    }
}

/// How many results of each reason a task has, as far as is known at this moment.
pub async fn of(api: &Api, task: &Task) -> Result<Option<Counted>, StoreError> {
    let results = task.tally.processed();
    if results <= AT_ONCE {
        let reasons = Arc::new(api.app.store.reasons(task.id).await?);
        return Ok(Some(Counted { results, reasons }));
    }
    let (known, count) = api.reasons.look(task, api.app.now());
    if count {
        tokio::spawn(read(api.clone(), task.id, results));
    }
    Ok(known)
}

async fn read(api: Api, task: TaskId, results: i64) {
    let turn = api.reasons.turns.clone().acquire_owned().await;
    let counted = match api.app.store.reasons(task).await {
        Ok(reasons) => Some(Counted { results, reasons: Arc::new(reasons) }),
        Err(error) => {
            tracing::warn!(%error, %task, "reasons not counted; the next look at the page tries again");
            None
        }
    };
    drop(turn);
    api.reasons.counted(task, counted);
}

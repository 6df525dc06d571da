//! Many look-ups, few statements ([`crate::gather`]).
//!
//! None is ever answered from memory: a look-up's statement starts after the look-up was asked for, so a
//! change that was acknowledged before is always seen.

use std::collections::HashMap;
use std::hash::Hash;

use futures::future::BoxFuture;

use super::{Result, Store, StoreError};

/// Statements under way at once; more than one only where one is slow.
const LANES: usize = 4;

/// Answers many look-ups at once; keys it leaves out have nothing stored.
type Load<K, V> = fn(Store, Vec<K>) -> BoxFuture<'static, Result<HashMap<K, V>>>;

/// Gathers single look-ups into few statements.
pub struct Gather<K, V>(crate::gather::Gather<K, Option<V>>);

impl<K, V> Gather<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Clone + Send + 'static,
{
    pub(super) fn new(store: &Store, load: Load<K, V>) -> Self {
        let store = store.clone();
        Self(crate::gather::Gather::new(LANES, move |keys| {
            Box::pin(look_up(store.clone(), keys, load))
        }))
    }

    /// What is stored for `key` now.
    pub async fn get(&self, key: K) -> Result<Option<V>> {
        self.0.ask(key).await.ok_or(StoreError::Away)
    }
}

async fn look_up<K, V>(store: Store, asked: Vec<K>, load: Load<K, V>) -> Vec<Option<V>>
where
    K: Hash + Eq + Clone,
    V: Clone,
{
    // Padded to a power of two, so that few statements exist.
    let mut keys = asked.clone();
    if let Some(last) = keys.last().cloned() {
        keys.resize(keys.len().next_power_of_two(), last);
    }
    let mut found = load(store.clone(), keys.clone()).await;
    // One connection may have died unnoticed; the next one has been tested or is new.
    if found.as_ref().is_err_and(StoreError::is_transient) {
        found = load(store, keys).await;
    }
    match found {
        Ok(found) => asked.iter().map(|key| found.get(key).cloned()).collect(),
        Err(error) => {
            tracing::warn!(%error, look_ups = asked.len(), "look-ups failed");
            Vec::new()
        }
    }
}

//! Many look-ups, few statements.
//!
//! Look-ups that arrive while one is under way are gathered into the next statement. None is ever
//! answered from memory: a look-up's statement starts after the look-up was asked for, so a change
//! that was acknowledged before is always seen.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::timeout;

use super::{Result, Store, StoreError};

/// Look-ups in one statement; counts are padded to a power of two, so few statements exist.
const MOST: usize = 128;
/// Look-ups that may wait; more wait before they are asked.
const WAITING: usize = 4096;
/// Statements under way at once; more than one only where one is slow.
const LANES: usize = 4;
/// A statement has the look-ups to itself for so long. The fewer there are at once, the more each one
/// answers: a second one at once costs a quarter of what the gate can do.
const ALONE: Duration = Duration::from_millis(10);

/// A look-up and where its answer goes.
type Asked<K, V> = (K, oneshot::Sender<Result<Option<V>>>);
/// Answers many look-ups at once; keys it leaves out have nothing stored.
type Load<K, V> = fn(Store, Vec<K>) -> BoxFuture<'static, Result<HashMap<K, V>>>;

/// Gathers single look-ups into few statements.
pub struct Gather<K, V>(mpsc::Sender<Asked<K, V>>);

impl<K, V> Gather<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Clone + Send + 'static,
{
    pub(super) fn new(store: &Store, load: Load<K, V>) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        let receiver = Arc::new(Mutex::new(receiver));
        for _ in 0..LANES {
            tokio::spawn(lane(store.clone(), receiver.clone(), load));
        }
        Self(sender)
    }

    /// What is stored for `key` now.
    pub async fn get(&self, key: K) -> Result<Option<V>> {
        let (answer, wait) = oneshot::channel();
        self.0.send((key, answer)).await.map_err(|_| StoreError::Away)?;
        wait.await.map_err(|_| StoreError::Away)?
    }
}

async fn lane<K, V>(
    store: Store,
    receiver: Arc<Mutex<mpsc::Receiver<Asked<K, V>>>>,
    load: Load<K, V>,
) where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Clone + Send + 'static,
{
    let mut asked = Vec::with_capacity(MOST);
    loop {
        let mut turn = receiver.lock().await;
        if turn.recv_many(&mut asked, MOST).await == 0 {
            return;
        }
        let mut keys: Vec<K> = asked.iter().map(|(key, _)| key.clone()).collect();
        let last = keys[keys.len() - 1].clone();
        keys.resize(keys.len().next_power_of_two(), last);
        let mut loading = load(store.clone(), keys.clone());
        let quick = timeout(ALONE, &mut loading).await;
        drop(turn);
        let mut found = match quick {
            Ok(found) => found,
            Err(_) => loading.await,
        };
        // One connection may have died unnoticed; the next one has been tested or is new.
        if found.as_ref().is_err_and(StoreError::is_transient) {
            found = load(store.clone(), keys).await;
        }
        if let Err(error) = &found {
            tracing::warn!(%error, look_ups = asked.len(), "look-ups failed");
        }
        for (key, answer) in asked.drain(..) {
            let one = match &found {
                Ok(found) => Ok(found.get(&key).cloned()),
                Err(_) => Err(StoreError::Away),
            };
            // A caller that has gone away needs no answer.
            let _ = answer.send(one);
        }
    }
}

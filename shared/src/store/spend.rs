//! Credits that verifications take from the limits of keys: many takings, few transactions.
//!
//! * Takings that arrive while a transaction is under way are gathered into the next one, which locks each
//!   limit once, grants in the order of arrival while there is enough, and writes each limit once.
//! * A taking is answered after the commit, never before: what was granted survives whatever happens to the
//!   process. A taking whose commit failed is not granted, though it may have been counted.
//! * Limits are locked in the order of their ids, as everywhere.

use std::collections::BTreeMap;

use futures::StreamExt as _;

use super::key_credits::{lock_limit, write_limit};
use super::{Result, Store, StoreError};
use crate::domain::clock::Millis;
use crate::domain::id::KeyId;
use crate::gather::Gather;

/// Transactions under way at once on PostgreSQL; more than one only where one is slow. SQLite has one writer.
const LANES: usize = 4;

/// What is to be taken.
#[derive(Debug, Clone, Copy)]
pub struct Taking {
    /// The key whose row holds the limit (`budget`).
    pub key: KeyId,
    /// How much, 0 or more.
    pub credits: i64,
    /// Now.
    pub now: Millis,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// Was it granted?
    pub granted: bool,
    /// What is left; `None` = nothing is limited.
    pub left: Option<i64>,
}

/// Gathers takings into few transactions.
pub struct Spender(Gather<Taking, Option<Taken>>);

impl Spender {
    /// Starts its tasks; they end when it is dropped.
    pub fn new(store: &Store) -> Self {
        let lanes = if matches!(store, Store::Pg(_)) { LANES } else { 1 };
        let store = store.clone();
        Self(Gather::new(lanes, move |takings| Box::pin(take_all(store.clone(), takings))))
    }

    /// Takes credits, if so many are left.
    pub async fn take(&self, taking: Taking) -> Result<Taken> {
        self.0.ask(taking).await.flatten().ok_or(StoreError::Away)
    }
}

/// What came of each; `None` = not taken.
async fn take_all(store: Store, takings: Vec<Taking>) -> Vec<Option<Taken>> {
    let error = match store.spend(&takings).await {
        Ok(taken) => return taken.into_iter().map(Some).collect(),
        Err(error) => error,
    };
    tracing::warn!(%error, takings = takings.len(), "credits were not taken");
    let limits = by_limit(&takings);
    if !error.is_held() || limits.len() == 1 {
        return Vec::new();
    }
    // Somebody holds one of the limits: the others need not wait for it.
    let mut taken = vec![None; takings.len()];
    let each = limits.into_values().map(|places| {
        let takings: Vec<Taking> = places.iter().map(|at| takings[*at]).collect();
        let store = &store;
        async move { (places, store.spend(&takings).await) }
    });
    let mut each = futures::stream::iter(each).buffer_unordered(LANES);
    while let Some((places, done)) = each.next().await {
        match done {
            Ok(done) => places.into_iter().zip(done).for_each(|(at, one)| taken[at] = Some(one)),
            Err(error) => tracing::warn!(%error, "credits of one limit were not taken"),
        }
    }
    taken
}

/// Where in the list the takings of each limit stand.
fn by_limit(takings: &[Taking]) -> BTreeMap<KeyId, Vec<usize>> {
    let mut limits: BTreeMap<KeyId, Vec<usize>> = BTreeMap::new();
    for (at, taking) in takings.iter().enumerate() {
        limits.entry(taking.key).or_default().push(at);
    }
    limits
}

impl Store {
    /// Takes what is left for, in their order; all in one transaction.
    pub async fn spend(&self, takings: &[Taking]) -> Result<Vec<Taken>> {
        let mut taken = vec![Taken { granted: true, left: None }; takings.len()];
        let mut changed = false;
        let mut tx = self.begin().await?;
        for (key, places) in by_limit(takings) {
            let now = places.iter().map(|at| takings[*at].now).max().unwrap_or_default();
            let Some((budget, limit)) = lock_limit(&mut tx, key).await? else { continue };
            let mut limit = limit.at(now);
            let mut granted = false;
            for at in places {
                let (left, want) = (limit.left(now), takings[at].credits);
                let fits = want <= left;
                if fits {
                    limit.used = limit.used.saturating_add(want);
                    granted |= want > 0;
                }
                taken[at] = Taken { granted: fits, left: Some(limit.left(now)) };
            }
            if granted {
                write_limit(&mut tx, budget, Some(limit)).await?;
                changed = true;
            }
        }
        if changed {
            tx.commit().await?;
        }
        Ok(taken)
    }
}

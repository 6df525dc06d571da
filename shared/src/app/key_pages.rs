//! Keys as a page shows them: each with what it was used for and what goes on of it.
//!
//! A fixed number of statements for a page, however many keys are on it.

use std::collections::{HashMap, HashSet};

use super::App;
use crate::domain::audit::Actor;
use crate::domain::clock::Millis;
use crate::domain::id::{AccountId, KeyId};
use crate::domain::key::Key;
use crate::domain::request::{By, DAY_MS, LastUse};
use crate::store::StoreError;
pub use crate::store::key_pages::{KeyName, KeySearch};

/// Days that the requests of a key are shown for, today included.
pub const DAYS: usize = 30;

/// A key, and what is told beside it.
#[derive(Debug, Clone)]
pub struct KeySight {
    /// The key.
    pub key: Key,
    /// Credits charged through it, ever.
    pub credits: i64,
    /// Its last accepted request, as of a moment ago.
    pub last: Option<LastUse>,
    /// Tasks that it submitted and that go on.
    pub tasks: i64,
    /// Requests of each of the last [`DAYS`] days (UTC), today last.
    pub days: Vec<i64>,
}

/// A page of keys.
#[derive(Debug, Clone, Default)]
pub struct KeyPage {
    /// The keys, newest first.
    pub keys: Vec<KeySight>,
    /// What keys are called that these name: who made them, and what took their place. With those that are switched
    /// off themselves, for the time of that.
    pub names: HashMap<KeyId, KeyName>,
    /// The next page begins before this one; `None` = there is none.
    pub next: Option<KeyId>,
}

impl App {
    /// A page of an account's keys, newest first, before `before`.
    pub async fn key_page(
        &self,
        account: AccountId,
        search: &KeySearch,
        before: Option<KeyId>,
        limit: usize,
    ) -> Result<KeyPage, StoreError> {
        let now = self.now();
        let more = limit as i64 + 1;
        let mut keys = self.store.page_of_keys(account, search, now, before, more).await?;
        let next = (keys.len() > limit).then(|| keys[limit - 1].id);
        keys.truncate(limit);
        let keys = self.sights(account, keys, now).await?;
        let named = keys.iter().flat_map(|sight| {
            let maker = match sight.key.maker {
                Actor::Key(id) => Some(id),
                _ => None,
            };
            let off = sight.key.disabled || sight.key.suspended.is_some();
            [maker, sight.key.replaced_by, off.then_some(sight.key.id)].into_iter().flatten()
        });
        let named: Vec<KeyId> = named.collect::<HashSet<_>>().into_iter().collect();
        let names = self.store.key_names(account, &named).await?;
        Ok(KeyPage { keys, names, next })
    }

    /// One key of an account that is not deleted, as a page shows it.
    pub async fn key_sight(
        &self,
        account: AccountId,
        id: KeyId,
    ) -> Result<Option<KeySight>, StoreError> {
        let Some(key) = self.store.key(id, Some(account)).await? else { return Ok(None) };
        Ok(self.sights(account, vec![key], self.now()).await?.pop())
    }

    /// One key of an account, deleted or not.
    pub async fn any_key(&self, account: AccountId, id: KeyId) -> Result<Option<Key>, StoreError> {
        self.store.any_key(id, Some(account)).await
    }

    /// The last accepted request with a key, as of a moment ago.
    pub async fn last_used(&self, key: KeyId) -> Result<Option<LastUse>, StoreError> {
        Ok(self.store.last_used(&[key]).await?.remove(&key))
    }

    async fn sights(
        &self,
        account: AccountId,
        keys: Vec<Key>,
        now: Millis,
    ) -> Result<Vec<KeySight>, StoreError> {
        let ids: Vec<KeyId> = keys.iter().map(|key| key.id).collect();
        let first = By::Day.start_of(now) - (DAYS as i64 - 1) * DAY_MS;
        let credits = self.store.credits_by_key(&ids).await?;
        let mut last = self.store.last_used(&ids).await?;
        let tasks = self.store.live_tasks_by_key(&ids).await?;
        let mut days: HashMap<KeyId, Vec<i64>> = HashMap::new();
        for (key, at, requests) in self.store.days_by_key(account, &ids, first).await? {
            let day = usize::try_from((at - first) / DAY_MS).unwrap_or(DAYS);
            if let Some(sum) = days.entry(key).or_insert_with(|| vec![0; DAYS]).get_mut(day) {
                *sum += requests;
            }
        }
        let sight = |key: Key| KeySight {
            credits: credits.get(&key.id).copied().unwrap_or(0),
            last: last.remove(&key.id),
            tasks: tasks.get(&key.id).copied().unwrap_or(0),
            days: days.remove(&key.id).unwrap_or_else(|| vec![0; DAYS]),
            key,
        };
        Ok(keys.into_iter().map(sight).collect())
    }

    /// What these keys of an account are called, deleted ones included.
    pub async fn key_names(
        &self,
        account: AccountId,
        keys: &[KeyId],
    ) -> Result<HashMap<KeyId, KeyName>, StoreError> {
        self.store.key_names(account, keys).await
    }

    /// How often a key was refused since a moment, for as long as the log is kept.
    pub async fn refused_since(
        &self,
        account: AccountId,
        key: KeyId,
        since: Millis,
    ) -> Result<i64, StoreError> {
        self.store.refused_since(account, key, since).await
    }
}

//! The life of a key: made, changed, ended; put in another's place ([`super::rotation`]). For the API, the dashboard and the shell
//! alike. Nothing here touches a task, unless its owner asks for that along with the key's end.
//!
//! When a call has returned, every request that starts later is judged by what it changed. A key never grants
//! more than it has: what a key makes or changes is compared with the key itself.

use super::App;
use super::control::ControlError;
use crate::domain::audit::Origin;
use crate::domain::clock::Millis;
use crate::domain::id::{AccountId, KeyId, TaskId};
use crate::domain::key::fields::{BadField, Fields};
use crate::domain::key::{Environment, Key, Pepper, Refusal, Secret, Suspension};
use crate::domain::task::TaskStatus;
use crate::store::StoreError;
use crate::store::gate::Found;
use crate::store::key_edits::{Edited, Hashed, Mark};
use crate::store::key_links::NewLink;
use crate::store::keys::Filter;

/// Keys that one call may end.
const MOST: i64 = 10_000;
/// Keys that a receipt names.
const NAMED: i64 = 1_000;

/// Why a key was not made or changed.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A field cannot be so.
    #[error(transparent)]
    Field(#[from] BadField),
    /// No such key of this account.
    #[error("no such key")]
    NotFound,
    /// The key's state does not allow it.
    #[error("{0}")]
    State(String),
    /// More than one call may end.
    #[error("more than {MOST} keys")]
    TooMany,
    /// Its tasks.
    #[error(transparent)]
    Task(#[from] ControlError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<(&'static str, String)> for KeyError {
    fn from((field, want): (&'static str, String)) -> Self {
        KeyError::Field(BadField { field, want })
    }
}

/// Who changes keys.
#[derive(Debug, Clone, Copy)]
pub struct By<'a> {
    pub(super) origin: &'a Origin,
    key: Option<&'a Key>,
}

impl<'a> By<'a> {
    /// A key: what it makes and changes stays within what it has.
    pub fn key(key: &'a Key, origin: &'a Origin) -> Self {
        Self { origin, key: Some(key) }
    }

    /// No key: a person of the account, an operator, Listmill itself.
    pub fn nobody(origin: &'a Origin) -> Self {
        Self { origin, key: None }
    }

    pub(super) fn covers(self, key: &Key) -> Result<(), KeyError> {
        match self.key {
            Some(by) => Ok(by.covers(key)?),
            None => Ok(()),
        }
    }

    pub(super) fn mark(self, action: &'static str) -> Mark<'a> {
        Mark { action, by: self.origin }
    }
}

/// How a key ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Switched off by its owner, who can switch it on again.
    Disable,
    /// For good.
    Delete,
    /// By an operator, who can lift it.
    Suspend(Suspension),
}

impl End {
    fn action(&self) -> &'static str {
        match self {
            End::Disable => "key.disable",
            End::Delete => "key.delete",
            End::Suspend(_) => "key.suspend",
        }
    }

    fn apply(&self, key: &mut Key, now: Millis) {
        match self {
            End::Disable => key.disabled = true,
            End::Delete => key.deleted_at = Some(now),
            End::Suspend(suspension) => key.suspended = Some(suspension.clone()),
        }
    }
}

/// What the end of a key was.
#[derive(Debug, Clone)]
pub struct Receipt {
    /// The key.
    pub key: Key,
    /// Since when it opens nothing; `None` while it does.
    pub effective_at: Option<Millis>,
    /// Tasks that it submitted and that have not ended.
    pub tasks: Vec<(TaskId, TaskStatus)>,
    /// Tasks that were cancelled along with it.
    pub cancelled: Vec<TaskId>,
    /// Keys that it had made.
    pub made: Vec<Key>,
    /// Requests with it that are past the gate and not over, the one that asks aside; `None`: not all processes
    /// have answered.
    pub in_flight: Option<u32>,
}

impl App {
    /// A presented key and what else the gate must know, on the state of this moment.
    pub async fn find_key(&self, secret: Option<&Secret>) -> Result<Found, StoreError> {
        let hashes = match secret {
            Some(secret) => self.hashes(secret)?,
            // Blocked networks are judged first, so there is a look-up even without a key.
            None => vec![[0; 32]],
        };
        let mut found = None;
        for hash in hashes {
            let one = self.keys.get(hash).await?.ok_or(StoreError::Away)?;
            let there = one.key.is_some();
            found = Some(one);
            if there {
                break;
            }
        }
        found.ok_or(StoreError::Away)
    }

    /// Makes a key; its secret is shown by the caller once and kept nowhere. `salt`: randomness of the
    /// request; the same makes the same secret.
    pub async fn create_key(
        &self,
        account: AccountId,
        fields: Fields,
        by: By<'_>,
        salt: &[u8],
    ) -> Result<(Key, Secret), KeyError> {
        self.make_key(account, fields, by, salt, None).await
    }

    /// Likewise; `link` shows the secret once.
    pub(super) async fn make_key(
        &self,
        account: AccountId,
        fields: Fields,
        by: By<'_>,
        salt: &[u8],
        link: Option<&NewLink>,
    ) -> Result<(Key, Secret), KeyError> {
        let now = self.now();
        let secret = self.new_secret(salt)?;
        let start = secret.start().to_owned();
        let mut key = Key::new(KeyId::new(&self.ids, now), account, start, String::new(), now);
        if let Some(maker) = by.key {
            inherit(&mut key, maker, fields.environment.unwrap_or(maker.environment));
        }
        key.maker = by.origin.actor.clone();
        if key.budget != key.id && fields.credit_limit.is_some() {
            let want = "cannot be set here: what a key with a limit makes spends from the same";
            return Err(("credit_limit", want.to_owned()).into());
        }
        fields.apply(&mut key, now)?;
        if key.label.is_empty() {
            return Err(("label", String::from("is missing")).into());
        }
        by.covers(&key)?;
        let pepper = self.peppers()?.newest();
        let hash = pepper.hash(&secret);
        let hashed = Hashed { hash: &hash, pepper: pepper.id() };
        match link {
            Some(link) => self.store.create_key_with_link(&key, hashed, link, by.origin).await?,
            None => self.store.create_key(&key, hashed, by.origin).await?,
        }
        tracing::info!(key = %key.id, maker = ?key.maker, "key made");
        Ok((key, secret))
    }

    /// What a new key's secret is, for this salt.
    pub(super) fn new_secret(&self, salt: &[u8]) -> Result<Secret, StoreError> {
        Ok(self.derive_secret(self.peppers()?.newest(), salt))
    }

    /// The secret that was made for this salt, if it begins so; `None` when the pepper that made it is gone.
    pub fn secret_again(&self, salt: &[u8], start: &str) -> Result<Option<Secret>, StoreError> {
        let mut made = self.peppers()?.all().map(|pepper| self.derive_secret(pepper, salt));
        Ok(made.find(|secret| secret.start() == start))
    }

    pub(super) fn derive_secret(&self, pepper: &Pepper, salt: &[u8]) -> Secret {
        let bytes = pepper.derive("listmill: secret of a new key", salt);
        let random = std::array::from_fn(|at| bytes[at]);
        Secret::from_random(&self.settings.key_prefix, &random)
    }

    /// Changes what a key is and may do, and so what the key is and may do that is to take its place, its name, note
    /// and times aside.
    pub async fn update_key(
        &self,
        id: KeyId,
        account: Option<AccountId>,
        fields: Fields,
        by: By<'_>,
    ) -> Result<Key, KeyError> {
        let now = self.now();
        if let Some(new) = self.planned(id, account).await? {
            // First, so that it never opens with what was taken away here.
            let own = Fields {
                label: None,
                note: None,
                expires_at: None,
                not_before: None,
                ..fields.clone()
            };
            self.update_one(new, account, own, by, now).await?;
        }
        self.update_one(id, account, fields, by, now).await
    }

    async fn update_one(
        &self,
        id: KeyId,
        account: Option<AccountId>,
        fields: Fields,
        by: By<'_>,
        now: Millis,
    ) -> Result<Key, KeyError> {
        let edit = |key: &mut Key| -> Result<(), KeyError> {
            if fields.environment.is_some_and(|to| to != key.environment) {
                let want = "cannot be changed: make a new key";
                return Err(("environment", want.to_owned()).into());
            }
            fields.apply(key, now)?;
            by.covers(key)
        };
        let mark = by.mark("key.update");
        self.edited(self.store.edit_key(id, account, edit, mark, now).await?, mark)
    }

    /// The key that is to take this one's place at a time to come, if there is one.
    async fn planned(
        &self,
        id: KeyId,
        account: Option<AccountId>,
    ) -> Result<Option<KeyId>, StoreError> {
        let key = self.store.key(id, account).await?;
        let Some(new) = key.and_then(|key| key.replaced_by) else { return Ok(None) };
        let begins = |key: &Key| key.not_before.is_some_and(|begin| begin > self.now());
        Ok(self.store.key(new, None).await?.filter(begins).map(|key| key.id))
    }

    /// Switches a key on again that its owner had switched off.
    pub async fn enable_key(
        &self,
        id: KeyId,
        account: Option<AccountId>,
        by: By<'_>,
    ) -> Result<Key, KeyError> {
        let edit = |key: &mut Key| -> Result<(), KeyError> {
            by.covers(key)?;
            key.disabled = false;
            Ok(())
        };
        let mark = by.mark("key.enable");
        self.edited(self.store.edit_key(id, account, edit, mark, self.now()).await?, mark)
    }

    pub(super) fn edited(&self, edited: Edited<KeyError>, mark: Mark<'_>) -> Result<Key, KeyError> {
        match edited {
            Edited::Missing => Err(KeyError::NotFound),
            Edited::Refused(error) => Err(error),
            Edited::Done(keys) => {
                let (_, key) = *keys;
                tracing::info!(key = %key.id, action = mark.action, by = %mark.by.actor, "key changed");
                Ok(key)
            }
        }
    }

    /// Ends a key, and answers what that was; `cancel`: the tasks that it submitted, too.
    pub async fn end_key(
        &self,
        id: KeyId,
        account: Option<AccountId>,
        end: &End,
        cancel: bool,
        by: By<'_>,
    ) -> Result<Receipt, KeyError> {
        let now = self.now();
        let apply = |end: &End| {
            let end = end.clone();
            move |key: &mut Key| -> Result<(), KeyError> {
                end.apply(key, now);
                Ok(())
            }
        };
        let mut cancelled = Vec::new();
        if cancel {
            // Switched off first, so that it submits no more; deleted last, so that a caller who met an
            // error in between can ask again.
            let (edit, mark) = (apply(&End::Disable), by.mark(End::Disable.action()));
            let edited = self.store.edit_key(id, account, edit, mark, now).await?;
            let key = self.edited(edited, mark)?;
            cancelled = self.cancel_tasks_of_key(id, key.account, by.origin).await?;
        }
        if *end == End::Delete
            && let Some(key) = self.store.key(id, account).await?
        {
            self.unplan(&key, by).await?;
        }
        let mark = by.mark(end.action());
        if let End::Suspend(_) = end
            && let Some(new) = self.planned(id, account).await?
        {
            // Else it would open at its time as if nothing had been.
            self.edited(self.store.edit_key(new, account, apply(end), mark, now).await?, mark)?;
        }
        let edited = self.store.edit_key(id, account, apply(end), mark, now).await?;
        let key = self.edited(edited, mark)?;
        let mut receipt = Receipt { cancelled, ..self.receipt_of(key).await? };
        self.count_in_flight(std::slice::from_mut(&mut receipt), by).await;
        Ok(receipt)
    }

    /// Ends every key of an account that the filter names: the keys in one transaction, then their tasks.
    pub async fn end_keys(
        &self,
        filter: &Filter,
        end: &End,
        cancel: bool,
        by: By<'_>,
    ) -> Result<Vec<Receipt>, KeyError> {
        let now = self.now();
        let keys = self.store.keys(filter, None, MOST + 1).await?;
        if keys.len() as i64 > MOST {
            return Err(KeyError::TooMany);
        }
        for key in keys.iter().filter(|_| *end == End::Delete) {
            self.unplan(key, by).await?;
        }
        let ids: Vec<KeyId> = keys.iter().map(|key| key.id).collect();
        let (edit, mark) = (|key: &mut Key| end.apply(key, now), by.mark(end.action()));
        let ended = self.store.edit_keys(&ids, filter.account, edit, mark, now).await?;
        tracing::info!(keys = ended.len(), ?end, "keys ended");
        let mut receipts = Vec::with_capacity(ended.len());
        for key in ended {
            let cancelled = match cancel {
                true => self.cancel_tasks_of_key(key.id, key.account, by.origin).await?,
                false => Vec::new(),
            };
            receipts.push(Receipt { cancelled, ..self.receipt_of(key).await? });
        }
        self.count_in_flight(&mut receipts, by).await;
        Ok(receipts)
    }

    /// What is known of a key's end, deleted ones included.
    pub async fn receipt(
        &self,
        id: KeyId,
        account: AccountId,
        by: By<'_>,
    ) -> Result<Receipt, KeyError> {
        let key = self.store.any_key(id, Some(account)).await?.ok_or(KeyError::NotFound)?;
        let mut receipt = self.receipt_of(key).await?;
        self.count_in_flight(std::slice::from_mut(&mut receipt), by).await;
        Ok(receipt)
    }

    /// Asks all processes at once.
    async fn count_in_flight(&self, receipts: &mut [Receipt], by: By<'_>) {
        let keys: Vec<KeyId> = receipts.iter().map(|receipt| receipt.key.id).collect();
        let Some(counts) = self.in_flight.count(&keys, self.ids.uuid(self.now())).await else {
            return;
        };
        for (receipt, count) in receipts.iter_mut().zip(counts) {
            let asks = by.key.is_some_and(|key| key.id == receipt.key.id);
            receipt.in_flight = Some(count.saturating_sub(asks.into()));
        }
    }

    pub(super) async fn receipt_of(&self, key: Key) -> Result<Receipt, KeyError> {
        let now = self.now();
        let effective_at = match key.alive(now) {
            Ok(()) | Err(Refusal::NotYet) => None,
            Err(Refusal::Expired) => key.expires_at,
            Err(_) => self.store.key_ended_at(key.id).await?,
        };
        let made_by =
            Filter { account: Some(key.account), made_by: Some(key.id), ..Filter::default() };
        Ok(Receipt {
            effective_at,
            tasks: self.store.live_tasks_of_key(key.id).await?,
            cancelled: Vec::new(),
            made: self.store.keys(&made_by, None, NAMED).await?,
            in_flight: None,
            key,
        })
    }

    /// Counts what ended tasks charged to the keys that submitted them; how many tasks that were.
    pub async fn count_key_credits(&self) -> Result<usize, StoreError> {
        const SOME: i64 = 100;
        let mut counted = 0;
        loop {
            let some = self.store.count_key_credits(SOME).await?;
            counted += some;
            if (some as i64) < SOME {
                return Ok(counted);
            }
        }
    }
}

/// What a key makes has its limits, unless it says otherwise. A test key spends nothing, so it needs no limit of
/// credits.
fn inherit(key: &mut Key, maker: &Key, environment: Environment) {
    key.environment = environment;
    key.scopes = maker.scopes;
    key.expires_at = maker.expires_at;
    key.allow.clone_from(&maker.allow);
    key.rate_limit = maker.rate_limit;
    key.limits.clone_from(&maker.limits);
    if maker.credit_limit.is_some() && environment == Environment::Live {
        key.budget = maker.budget;
        key.credit_limit = maker.credit_limit;
    }
}

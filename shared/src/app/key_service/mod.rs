//! Keys that are verified for other programs: apis, root keys, and in [`keys`] and [`verify`] the keys themselves.
//!
//! * A key of an api is a key as any other, with the same life and the same store, but it opens nothing of ours:
//!   the gate never finds it.
//! * Everything is asked with a root key, and is judged by it: what belongs to another account does not exist.
//! * Nothing is remembered: each request reads its root key and the key it asks about, so a change holds for
//!   every request that starts after it was acknowledged, in every process.

pub mod keys;
pub mod verify;

use super::App;
use crate::domain::audit::Origin;
use crate::domain::id::{AccountId, ApiId, RootKeyId};
use crate::domain::key::fields::BadField;
use crate::domain::key::{Key, KeyHash, Secret};
use crate::domain::root_key::{Action, MOST, PREFIX, RootKey, is_permission};
use crate::queue::Queue;
use crate::store::apis::KeyApi;
use crate::store::gather::Gather;
use crate::store::key_edits::Hashed;
use crate::store::root_keys::FoundRoot;
use crate::store::spend::Spender;
use crate::store::{Store, StoreError};
use crate::throttle::windows::Windows;

/// Characters of the name of an api or a root key.
const NAME: usize = 255;
/// Bytes of secret of a root key.
const BYTES: u8 = 32;

/// What a process holds for it.
pub struct Service {
    keys: Gather<KeyHash, Key>,
    roots: Gather<KeyHash, FoundRoot>,
    spender: Spender,
    windows: Windows,
}

impl Service {
    pub(super) fn new(store: &Store, queue: &Queue) -> Self {
        Self {
            keys: store.gather_api_keys(),
            roots: store.gather_root_keys(),
            spender: Spender::new(store),
            windows: Windows::new(queue.redis()),
        }
    }
}

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// A field cannot be so.
    #[error(transparent)]
    Field(#[from] BadField),
    /// No such api of this account.
    #[error("no such api")]
    NoApi,
    /// No such key of this account.
    #[error("no such key")]
    NoKey,
    /// The root key lacks this permission.
    #[error("the permission {0} is missing")]
    Forbidden(String),
    /// The key's state does not allow it.
    #[error("{0}")]
    State(String),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Fails where the root key may not do this to that api (`None`: to any).
fn require(root: &RootKey, action: Action, api: Option<ApiId>) -> Result<(), ServiceError> {
    match root.may(action, api) {
        true => Ok(()),
        false => Err(ServiceError::Forbidden(action.permission(api))),
    }
}

/// Fails where it may do this to no api at all.
fn require_somewhere(root: &RootKey, action: Action) -> Result<(), ServiceError> {
    match root.may_somewhere(action) {
        true => Ok(()),
        false => Err(ServiceError::Forbidden(action.permission(None))),
    }
}

fn check_name(name: &str) -> Result<(), BadField> {
    let fits = (1..=NAME).contains(&name.chars().count()) && !name.contains(char::is_control);
    match fits && !name.trim().is_empty() {
        true => Ok(()),
        false => Err(BadField { field: "name", want: format!("must be 1 to {NAME} characters") }),
    }
}

impl App {
    /// A presented root key and what else must be known, on the state of this moment.
    pub async fn find_root_key(&self, secret: Option<&Secret>) -> Result<FoundRoot, StoreError> {
        let hashes = match secret {
            Some(secret) => self.hashes(secret)?,
            // Blocked networks are judged first, so there is a look-up even without a key.
            None => vec![[0; 32]],
        };
        let mut found = None;
        for hash in hashes {
            let one = self.service.roots.get(hash).await?.ok_or(StoreError::Away)?;
            let there = one.root.is_some() || one.gone.is_some();
            found = Some(one);
            if there {
                break;
            }
        }
        found.ok_or(StoreError::Away)
    }

    /// Makes a root key; its secret is shown by the caller once and kept nowhere.
    pub async fn create_root_key(
        &self,
        account: AccountId,
        name: &str,
        permissions: Vec<String>,
        by: &Origin,
    ) -> Result<(RootKey, Secret), ServiceError> {
        let field = |field, want| BadField { field, want };
        check_name(name)?;
        if permissions.is_empty() || permissions.len() > MOST {
            return Err(field("permission", format!("must be 1 to {MOST}")).into());
        }
        if let Some(wrong) = permissions.iter().find(|one| !is_permission(one)) {
            let words: Vec<&str> = Action::ALL.into_iter().map(Action::as_str).collect();
            let want = format!(
                "must be like api.*.create_key or api.API_ID.verify_key, not {wrong:?}; the last part is * or one of {}",
                words.join(" ")
            );
            return Err(field("permission", want).into());
        }
        let now = self.now();
        let secret = Secret::shaped(PREFIX, BYTES, &self.ids);
        let root = RootKey {
            id: RootKeyId::new(&self.ids, now),
            account,
            start: secret.start_of(PREFIX).to_owned(),
            name: name.to_owned(),
            permissions,
            created_at: now,
        };
        let pepper = self.peppers()?.newest();
        let hash = pepper.hash(&secret);
        let hashed = Hashed { hash: &hash, pepper: pepper.id() };
        self.store.create_root_key(&root, hashed, by).await?;
        tracing::info!(root_key = %root.id, account = %account, "root key made");
        Ok((root, secret))
    }

    /// Deletes a root key; was it there? `reason`: why, where nobody asked for it.
    pub async fn delete_root_key(
        &self,
        id: RootKeyId,
        reason: Option<&str>,
        by: &Origin,
    ) -> Result<bool, StoreError> {
        let there = self.store.delete_root_key(id, reason, by, self.now()).await?;
        if there {
            tracing::info!(root_key = %id, "root key deleted");
        }
        Ok(there)
    }

    /// Makes an api.
    pub async fn create_key_api(
        &self,
        root: &RootKey,
        name: &str,
        by: &Origin,
    ) -> Result<ApiId, ServiceError> {
        require(root, Action::CreateApi, None)?;
        check_name(name)?;
        let now = self.now();
        let api = KeyApi { id: ApiId::new(&self.ids, now), name: name.to_owned() };
        self.store.create_api(root.account, &api, by, now).await?;
        tracing::info!(api = %api.id, root_key = %root.id, "api made");
        Ok(api.id)
    }

    /// Shows an api.
    pub async fn key_api(&self, root: &RootKey, id: ApiId) -> Result<KeyApi, ServiceError> {
        require_somewhere(root, Action::ReadApi)?;
        let api = self.own_api(root, id).await?;
        require(root, Action::ReadApi, Some(id))?;
        Ok(api)
    }

    /// Deletes an api; its keys are no longer found from now on.
    pub async fn delete_key_api(
        &self,
        root: &RootKey,
        id: ApiId,
        by: &Origin,
    ) -> Result<(), ServiceError> {
        require_somewhere(root, Action::DeleteApi)?;
        self.own_api(root, id).await?;
        require(root, Action::DeleteApi, Some(id))?;
        match self.store.delete_api(root.account, id, by, self.now()).await? {
            true => {
                tracing::info!(api = %id, root_key = %root.id, "api deleted");
                Ok(())
            }
            false => Err(ServiceError::NoApi),
        }
    }

    async fn own_api(&self, root: &RootKey, id: ApiId) -> Result<KeyApi, ServiceError> {
        self.store.key_api(root.account, id).await?.ok_or(ServiceError::NoApi)
    }
}

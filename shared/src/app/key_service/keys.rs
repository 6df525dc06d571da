//! The life of a key of an api: made, shown, changed, put in another's place, ended.
//!
//! What a change checks is what it changes: the key is read under its lock, and is somebody else's or none unless
//! the root key's account and permissions say otherwise.

use super::{ServiceError, require, require_somewhere};
use crate::app::App;
use crate::app::keys::KeyError;
use crate::app::rotation::step_aside;
use crate::domain::audit::Origin;
use crate::domain::clock::Millis;
use crate::domain::id::{ApiId, KeyId};
use crate::domain::key::service::{Change, ServiceFields, change, check_form};
use crate::domain::key::{Key, Scopes, Secret, Service};
use crate::domain::root_key::{Action, RootKey};
use crate::store::StoreError;
use crate::store::key_edits::{Edited, Hashed, Mark};
use crate::store::keys::Filter;

impl From<KeyError> for ServiceError {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Field(bad) => ServiceError::Field(bad),
            KeyError::Store(error) => ServiceError::Store(error),
            KeyError::NotFound => ServiceError::NoKey,
            KeyError::State(_) | KeyError::TooMany | KeyError::Task(_) => {
                ServiceError::State(error.to_string())
            }
        }
    }
}

/// The api of a key that this root key may do this to.
fn own(root: &RootKey, key: &Key, action: Action) -> Result<ApiId, ServiceError> {
    let api = key.api.filter(|_| key.account == root.account).ok_or(ServiceError::NoKey)?;
    require(root, action, Some(api))?;
    Ok(api)
}

/// What it is called there.
fn action_of(action: Action) -> &'static str {
    match action {
        Action::DeleteKey => "key.delete",
        _ => "key.update",
    }
}

/// What a new secret looks like.
#[derive(Debug, Clone)]
pub struct Form {
    /// What it begins with; empty = nothing.
    pub prefix: String,
    /// Bytes of secret.
    pub bytes: i64,
}

/// Which keys of an api.
#[derive(Debug, Clone)]
pub struct Listing {
    /// The api.
    pub api: ApiId,
    /// Only those of this external id.
    pub external_id: Option<String>,
    /// After this one.
    pub cursor: Option<KeyId>,
    /// At most so many.
    pub limit: i64,
}

impl App {
    /// Makes a key of an api; its secret is shown by the caller once and kept nowhere.
    pub async fn create_service_key(
        &self,
        root: &RootKey,
        api: ApiId,
        form: Form,
        fields: ServiceFields,
        by: &Origin,
    ) -> Result<(KeyId, Secret), ServiceError> {
        require_somewhere(root, Action::CreateKey)?;
        let bytes = check_form(&form.prefix, form.bytes)?;
        self.own_api(root, api).await?;
        require(root, Action::CreateKey, Some(api))?;
        let now = self.now();
        let secret = Secret::shaped(&form.prefix, bytes, &self.ids);
        let start = secret.start_of(&form.prefix).to_owned();
        let id = KeyId::new(&self.ids, now);
        let mut key = Key {
            api: Some(api),
            // It opens nothing of ours; should anything ever look, it may do nothing.
            scopes: Scopes::from_bits(0),
            service: Service { prefix: form.prefix, bytes, ..Service::default() },
            ..Key::new(id, root.account, start, String::new(), now)
        };
        fields.apply(&mut key, now)?;
        self.store_secret(&secret, async |hashed| self.store.create_key(&key, hashed, by).await)
            .await?;
        tracing::info!(key = %id, api = %api, root_key = %root.id, "key of an api made");
        Ok((id, secret))
    }

    async fn store_secret<T>(
        &self,
        secret: &Secret,
        store: impl AsyncFnOnce(Hashed<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let pepper = self.peppers()?.newest();
        let hash = pepper.hash(secret);
        store(Hashed { hash: &hash, pepper: pepper.id() }).await
    }

    /// One key of an api.
    pub async fn service_key(
        &self,
        root: &RootKey,
        id: KeyId,
        action: Action,
    ) -> Result<Key, ServiceError> {
        require_somewhere(root, action)?;
        let key = self.store.key(id, None).await?.ok_or(ServiceError::NoKey)?;
        let api = key.api.filter(|_| key.account == root.account).ok_or(ServiceError::NoKey)?;
        // That of a deleted api is gone with it.
        self.store.key_api(root.account, api).await?.ok_or(ServiceError::NoKey)?;
        require(root, action, Some(api))?;
        Ok(key)
    }

    /// The key that a secret belongs to.
    pub async fn whoami(&self, root: &RootKey, secret: &str) -> Result<Key, ServiceError> {
        require_somewhere(root, Action::ReadKey)?;
        let secret = Secret::foreign(secret).ok_or(ServiceError::NoKey)?;
        let key = self.find_service_key(&secret).await?;
        let key = key.filter(|key| key.deleted_at.is_none()).ok_or(ServiceError::NoKey)?;
        own(root, &key, Action::ReadKey)?;
        Ok(key)
    }

    /// A presented key of an api, deleted ones included, on the state of this moment.
    pub(in crate::app) async fn find_service_key(
        &self,
        secret: &Secret,
    ) -> Result<Option<Key>, StoreError> {
        for hash in self.hashes(secret)? {
            let key = self.service.keys.get(hash).await?;
            if key.is_some() {
                return Ok(key);
            }
        }
        Ok(None)
    }

    /// Keys of an api, oldest first.
    pub async fn service_keys(
        &self,
        root: &RootKey,
        listing: Listing,
    ) -> Result<Vec<Key>, ServiceError> {
        require_somewhere(root, Action::ReadKey)?;
        require_somewhere(root, Action::ReadApi)?;
        self.own_api(root, listing.api).await?;
        require(root, Action::ReadKey, Some(listing.api))?;
        require(root, Action::ReadApi, Some(listing.api))?;
        let filter = Filter {
            account: Some(root.account),
            external_id: listing.external_id,
            api: Some(listing.api),
            ..Filter::default()
        };
        Ok(self.store.keys(&filter, listing.cursor, listing.limit).await?)
    }

    async fn edit_service_key(
        &self,
        root: &RootKey,
        id: KeyId,
        action: Action,
        by: &Origin,
        edit: impl FnOnce(&mut Key, Millis) -> Result<(), ServiceError> + Send,
    ) -> Result<Key, ServiceError> {
        self.service_key(root, id, action).await?;
        let now = self.now();
        let checked = |key: &mut Key| {
            own(root, key, action)?;
            edit(key, now)?;
            key.service.updated_at = Some(now);
            Ok(())
        };
        let mark = Mark { action: action_of(action), by };
        let (_, key) = match self.store.edit_key(id, None, checked, mark, now).await? {
            Edited::Missing => return Err(ServiceError::NoKey),
            Edited::Refused(error) => return Err(error),
            Edited::Done(keys) => *keys,
        };
        tracing::info!(key = %id, root_key = %root.id, action = action.as_str(), "key of an api changed");
        Ok(key)
    }

    /// Changes a key of an api. When it has returned, every verification that starts later goes by it.
    pub async fn update_service_key(
        &self,
        root: &RootKey,
        id: KeyId,
        fields: ServiceFields,
        by: &Origin,
    ) -> Result<Key, ServiceError> {
        let edit = |key: &mut Key, now: Millis| Ok(fields.apply(key, now)?);
        self.edit_service_key(root, id, Action::UpdateKey, by, edit).await
    }

    /// Changes what is left of its credits.
    pub async fn change_credits(
        &self,
        root: &RootKey,
        id: KeyId,
        how: Change,
        by: &Origin,
    ) -> Result<Key, ServiceError> {
        let edit = |key: &mut Key, now: Millis| {
            key.credit_limit = change(key.credit_limit, how, now)?;
            Ok(())
        };
        self.edit_service_key(root, id, Action::UpdateKey, by, edit).await
    }

    /// Deletes a key of an api; `erase`: what is said of it, too. The hash of its secret stays, so that attempts
    /// with it are told from noise.
    pub async fn delete_service_key(
        &self,
        root: &RootKey,
        id: KeyId,
        erase: bool,
        by: &Origin,
    ) -> Result<(), ServiceError> {
        let edit = |key: &mut Key, now: Millis| {
            key.deleted_at = Some(now);
            if erase {
                key.label.clear();
                key.external_id = None;
                key.meta = None;
                let form = (std::mem::take(&mut key.service.prefix), key.service.bytes);
                key.service = Service { prefix: form.0, bytes: form.1, ..Service::default() };
            }
            Ok(())
        };
        self.edit_service_key(root, id, Action::DeleteKey, by, edit).await.map(|_| ())
    }

    /// Puts a new key in the place of one: same settings, and one limit of credits and one budget of uses for
    /// both. The old one is valid for `grace_ms` more, and never longer than it would have been.
    pub async fn reroll_service_key(
        &self,
        root: &RootKey,
        id: KeyId,
        grace_ms: i64,
        by: &Origin,
    ) -> Result<(KeyId, Secret), ServiceError> {
        let old = self.service_key(root, id, Action::CreateKey).await?;
        let now = self.now();
        let new = KeyId::new(&self.ids, now);
        let Service { prefix, bytes, .. } = &old.service;
        let secret = Secret::shaped(prefix, *bytes, &self.ids);
        let start = secret.start_of(prefix).to_owned();
        let edit = |old: &mut Key| -> Result<Key, ServiceError> {
            own(root, old, Action::CreateKey)?;
            let mut key = Key { id: new, start, created_at: now, ..old.clone() };
            key.service.updated_at = None;
            step_aside(old, new, now.saturating_add(grace_ms), now)?;
            Ok(key)
        };
        let mark = Mark { action: "key.rotate", by };
        let edited = self
            .store_secret(&secret, async |hashed| {
                self.store.replace_key(id, None, edit, hashed, mark, now).await
            })
            .await?;
        match edited {
            Edited::Missing => Err(ServiceError::NoKey),
            Edited::Refused(error) => Err(error),
            Edited::Done(_) => {
                tracing::info!(key = %id, new = %new, root_key = %root.id, "key of an api rerolled");
                Ok((new, secret))
            }
        }
    }
}

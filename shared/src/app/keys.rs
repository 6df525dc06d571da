//! Keys: making them and changing them. Nothing here touches a task.

use super::App;
use crate::domain::audit::Origin;
use crate::domain::clock::Millis;
use crate::domain::id::{AccountId, KeyId};
use crate::domain::key::{Key, Secret};
use crate::store::StoreError;

/// A key to be made.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// Whose.
    pub account: AccountId,
    /// The owner's name for it.
    pub label: String,
    /// When it ends by itself.
    pub expires_at: Option<Millis>,
    /// Requests a minute on own routes; `None` = the default.
    pub rate_limit: Option<i64>,
}

impl App {
    /// Makes a key; its secret is shown by the caller once and kept nowhere. `random`: the bytes
    /// the secret is made of; the same bytes make the same secret.
    pub async fn create_key(
        &self,
        new: NewKey,
        random: &[u8; 31],
        by: &Origin,
    ) -> Result<(Key, Secret), StoreError> {
        let secret = Secret::from_random(&self.settings.key_prefix, random);
        let now = self.now();
        let key = Key {
            id: KeyId::new(&self.ids, now),
            account: new.account,
            start: secret.start().to_owned(),
            label: new.label,
            disabled: false,
            suspended: None,
            deleted_at: None,
            expires_at: new.expires_at,
            rate_limit: new.rate_limit,
            created_at: now,
        };
        self.store.create_key(&key, &secret.hash(), by).await?;
        Ok((key, secret))
    }
}

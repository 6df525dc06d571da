//! A link that shows a new key's secret once, to whoever uses it first.
//!
//! The token of the link follows from the pepper and the request's salt, the secret from the pepper and the
//! token; the database holds the token's SHA-256. So the secret is nowhere until the link is used, and a copy
//! of the database opens no link.

use std::sync::Arc;

use super::App;
use super::keys::{By, KeyError};
use crate::domain::audit::Origin;
use crate::domain::clock::Millis;
use crate::domain::id::AccountId;
use crate::domain::key::fields::Fields;
use crate::domain::key::{Key, Pepper, Secret, Token};
use crate::store::StoreError;
use crate::store::key_links::NewLink;

/// A link, to be handed out once.
#[derive(Debug)]
pub struct Link {
    /// What it is known by.
    pub token: Token,
    /// From then on it shows nothing.
    pub ends_at: Millis,
}

impl Link {
    /// What is stored of it.
    pub(super) fn row(&self) -> NewLink {
        NewLink { token_hash: self.token.hash(), ends_at: self.ends_at }
    }
}

fn token(pepper: &Pepper, salt: &[u8]) -> Token {
    Token::from(pepper.derive("listmill: link to a new key", salt))
}

impl App {
    /// The link that this salt makes.
    pub(super) fn new_link(&self, salt: &[u8]) -> Result<Link, StoreError> {
        let lasts = i64::try_from(self.settings.key_link_ttl.as_millis()).unwrap_or(0);
        let token = token(self.peppers()?.newest(), salt);
        Ok(Link { token, ends_at: self.now().saturating_add(lasts) })
    }

    /// Makes a key whose secret is shown by a link. `salt`: randomness of the request; the same makes the same.
    pub async fn create_key_with_link(
        &self,
        account: AccountId,
        fields: Fields,
        by: By<'_>,
        salt: &[u8],
    ) -> Result<(Key, Link), KeyError> {
        let link = self.new_link(salt)?;
        let (salt, row) = (link.token.bytes(), link.row());
        let (key, _) = self.make_key(account, fields, by, salt, Some(&row)).await?;
        Ok((key, link))
    }

    /// The token that was made for this salt, if its key begins so; `None` when the pepper that made it is gone.
    pub fn token_again(&self, salt: &[u8], start: &str) -> Result<Option<Token>, StoreError> {
        let mut made = self.peppers()?.all().map(|pepper| {
            let token = token(pepper, salt);
            (self.derive_secret(pepper, token.bytes()), token)
        });
        Ok(made.find(|(secret, _)| secret.start() == start).map(|(_, token)| token))
    }

    /// Where a link leads: below `public_url`, or a path of the API where that is not set.
    pub fn link_url(&self, token: &Token) -> String {
        format!("{}/once/{}", self.settings.public_url.trim_end_matches('/'), token.reveal())
    }

    /// When an unused link ends; `None`: it is used or over, or there is no such link.
    pub async fn find_link(&self, token: &Token) -> Result<Option<Millis>, StoreError> {
        let now = self.now();
        let Some((id, ends_at)) = self.store.key_of_link(&token.hash(), now).await? else {
            return Ok(None);
        };
        let key = self.store.key(id, None).await?;
        Ok(key.filter(|key| is_of_use(key, now)).map(|_| ends_at))
    }

    /// Uses a link up and shows its key; `None`, as for [`App::find_link`]. Of many who try at once one is
    /// shown it.
    pub async fn open_link(
        &self,
        token: &Token,
        by: &Origin,
    ) -> Result<Option<(Key, Secret)>, StoreError> {
        let now = self.now();
        let Some((id, _)) = self.store.key_of_link(&token.hash(), now).await? else {
            return Ok(None);
        };
        for pepper in self.peppers()?.all() {
            let secret = self.derive_secret(pepper, token.bytes());
            let found = self.find_key(Some(&secret)).await?.key;
            let Some(key) = found.filter(|key| key.id == id && is_of_use(key, now)) else {
                continue;
            };
            if !self.store.use_link(&token.hash(), &key, by, now).await? {
                return Ok(None);
            }
            tracing::info!(key = %key.id, "the link to a key was used");
            return Ok(Some((Arc::unwrap_or_clone(key), secret)));
        }
        tracing::warn!(key = %id, "a link shows nothing: its key has ended, or the pepper that made it is gone");
        Ok(None)
    }
}

/// Is it worth showing?
fn is_of_use(key: &Key, now: Millis) -> bool {
    key.deleted_at.is_none() && key.expires_at.is_none_or(|end| end > now)
}

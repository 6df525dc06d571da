//! Keys that are brought from another system by their SHA-256.
//!
//! What is stored is the hash, wrapped with the pepper, as for any key ([`crate::domain::key::pepper`]): so the
//! key opens from then on, whatever its form, and nobody here knows it. A part of a list is stored in one
//! transaction, with one row in the audit log. What is there already is left as it is, so a list may be sent
//! again, and goes on where it was interrupted.

use std::collections::HashSet;

use serde_json::json;

use super::App;
use super::keys::KeyError;
use crate::domain::audit::{Change, Origin};
use crate::domain::clock::Millis;
use crate::domain::id::{AccountId, KeyId};
use crate::domain::key::fields::Fields;
use crate::domain::key::{Key, KeyHash, Peppers};
use crate::store::key_import::Standing;

/// Keys of one transaction.
pub const AT_ONCE: usize = 1_000;
/// So often somebody else may store a key that we are about to.
const TRIES: usize = 5;

/// A key to be brought in.
#[derive(Debug, Clone)]
pub struct Draft {
    /// Where it stands in its list.
    pub line: u64,
    /// SHA-256 of the key.
    pub hash: KeyHash,
    /// Its first characters; empty = not known.
    pub start: String,
    /// What it is and may do.
    pub fields: Fields,
}

/// Where the drafts come from.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    /// Whose they are to be.
    pub account: AccountId,
    /// What their list is called.
    pub file: &'a str,
    /// Only look.
    pub dry_run: bool,
}

/// What became of a draft.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It is a key now, or would be.
    New,
    /// It is a key of the account already, or stands twice in the list, and was left as it is.
    There,
    /// It cannot be one: why.
    Bad(String),
}

impl App {
    /// Makes keys of drafts, those that can be: [`AT_ONCE`] at the most. When it has returned they open.
    pub async fn import_keys(
        &self,
        batch: Batch<'_>,
        drafts: &[Draft],
        by: &Origin,
    ) -> Result<Vec<Fate>, KeyError> {
        let peppers = self.peppers()?;
        let hashes: Vec<KeyHash> =
            drafts.iter().flat_map(|draft| wrapped(peppers, draft)).collect();
        for _ in 0..TRIES {
            let now = self.now();
            let standing = self.store.standing_of(&hashes, batch.account).await?;
            let mut seen = HashSet::new();
            let (mut fates, mut keys) = (Vec::with_capacity(drafts.len()), Vec::new());
            let mut lines = Vec::new();
            for draft in drafts {
                let stored = wrapped(peppers, draft).find_map(|hash| standing.get(&hash).copied());
                let fate = match stored {
                    Some(Standing::Own) => Fate::There,
                    None if seen.contains(&draft.hash) => Fate::There,
                    Some(Standing::Taken) => Fate::Bad(String::from(
                        "sha256 is that of a key which is deleted, or not this account's: make a new key instead",
                    )),
                    None => match self.key_of(batch.account, draft, by, now) {
                        Err(what) => Fate::Bad(what),
                        Ok(key) => {
                            seen.insert(draft.hash);
                            lines.push(draft.line);
                            keys.push((key, peppers.newest().wrap(&draft.hash)));
                            Fate::New
                        }
                    },
                };
                fates.push(fate);
            }
            if batch.dry_run || keys.is_empty() {
                return Ok(fates);
            }
            let change = change(batch, &keys, &lines, by);
            if self.store.import_keys(&keys, peppers.newest().id(), &change, now).await? {
                return Ok(fates);
            }
        }
        Err(KeyError::State(String::from(
            "Somebody else stores the same keys at this moment: run it again.",
        )))
    }

    fn key_of(
        &self,
        account: AccountId,
        draft: &Draft,
        by: &Origin,
        now: Millis,
    ) -> Result<Key, String> {
        let id = KeyId::new(&self.ids, now);
        let mut key = Key::new(id, account, draft.start.clone(), String::new(), now);
        key.maker = by.actor.clone();
        draft.fields.clone().apply(&mut key, now).map_err(|bad| bad.to_string())?;
        match key.label.is_empty() {
            true => Err(String::from("label is missing")),
            false => Ok(key),
        }
    }
}

/// What a key may be stored as, the likeliest first.
fn wrapped(peppers: &Peppers, draft: &Draft) -> impl Iterator<Item = KeyHash> {
    peppers.all().map(|pepper| pepper.wrap(&draft.hash))
}

fn change(batch: Batch<'_>, keys: &[(Key, KeyHash)], lines: &[u64], by: &Origin) -> Change {
    let ids = || keys.iter().map(|(key, _)| key.id);
    let after = json!({
        "keys": keys.len(),
        "file": batch.file,
        "first_line": lines.first(),
        "last_line": lines.last(),
        "first_key": ids().min(),
        "last_key": ids().max(),
    });
    Change::new(by, Some(batch.account), "key.import", batch.account).after(after)
}

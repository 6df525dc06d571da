//! A new key in the place of an old one, at once or at a planned time; the old one opens for a grace and ends.
//!
//! Both have the same settings, one limit of credits and one budget of requests. The new one never ends later
//! than the old one would have, and the old one never later than it would have. A planned rotation is taken
//! back by deleting the new key before its time.

use super::App;
use super::key_links::Link;
use super::keys::{By, KeyError, Receipt};
use crate::domain::clock::{Millis, rfc3339};
use crate::domain::id::{AccountId, KeyId, TaskId};
use crate::domain::key::{Key, Secret};
use crate::domain::task::TaskStatus;
use crate::store::key_edits::Hashed;
use crate::store::key_rotations::Beside;

/// How far ahead a rotation may be planned: 365 days.
const FARTHEST: Millis = 365 * 86_400_000;

/// How a key is rotated.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rotation {
    /// Milliseconds that the old one opens beside the new one.
    pub grace_ms: i64,
    /// When the new one begins to open; `None` = now.
    pub at: Option<Millis>,
    /// The secret is shown once by a link, and not in the answer.
    pub link: bool,
}

/// A key that was put in another's place.
#[derive(Debug)]
pub struct Rotated {
    /// The new one.
    pub key: Key,
    /// Its secret, to be shown once.
    pub secret: Secret,
    /// What shows it, where that was asked for.
    pub link: Option<Link>,
    /// The old one, with its end.
    pub old: Key,
    /// Tasks that the old one submitted and that have not ended.
    pub tasks: Vec<(TaskId, TaskStatus)>,
}

impl App {
    /// Puts a new key in the place of one.
    pub async fn rotate_key(
        &self,
        id: KeyId,
        account: Option<AccountId>,
        how: Rotation,
        by: By<'_>,
        salt: &[u8],
    ) -> Result<Rotated, KeyError> {
        let now = self.now();
        if how.at.is_some_and(|at| at <= now || at > now + FARTHEST) {
            return Err(("at", String::from("must lie in the future, by at most 365 days")).into());
        }
        let link = how.link.then(|| self.new_link(salt)).transpose()?;
        let salt = link.as_ref().map_or(salt, |link| link.token.bytes());
        let secret = self.new_secret(salt)?;
        let new = KeyId::new(&self.ids, now);
        let pepper = self.peppers()?.newest();
        let hash = pepper.hash(&secret);
        let mut made = None;
        let edit = |old: &mut Key| -> Result<Key, KeyError> {
            by.covers(old)?;
            if old.api.is_some() {
                let say = "It is a key of an api: POST /v2/keys.rerollKey rotates it.";
                return Err(KeyError::State(say.to_owned()));
            }
            let key = Key {
                id: new,
                start: secret.start().to_owned(),
                maker: by.origin.actor.clone(),
                created_at: now,
                not_before: begin(old, how.at)?,
                ..old.clone()
            };
            step_aside(old, new, how.at.unwrap_or(now).saturating_add(how.grace_ms), now)?;
            made = Some(key.clone());
            Ok(key)
        };
        let hashed = Hashed { hash: &hash, pepper: pepper.id() };
        let row = link.as_ref().map(Link::row);
        let beside = Beside { link: row.as_ref(), planned: how.at.is_some() };
        let mark = by.mark("key.rotate");
        let edited = self.store.rotate_key(id, account, edit, hashed, beside, mark, now).await?;
        let old = self.edited(edited, mark)?;
        let key = made.ok_or(KeyError::NotFound)?;
        let tasks = self.store.live_tasks_of_key(old.id).await?;
        Ok(Rotated { key, secret, link, old, tasks })
    }

    /// Ends a key now that another has taken the place of, whatever is left of its grace.
    pub async fn cut_key(
        &self,
        id: KeyId,
        account: Option<AccountId>,
        by: By<'_>,
    ) -> Result<Receipt, KeyError> {
        let now = self.now();
        let key = self.store.key(id, account).await?.ok_or(KeyError::NotFound)?;
        let new = match key.replaced_by {
            Some(new) => Some((new, self.store.key(new, None).await?)),
            None => None,
        };
        let edit = |key: &mut Key| -> Result<(), KeyError> {
            by.covers(key)?;
            let state = |say: String| Err(KeyError::State(say));
            let Some((id, new)) = &new else {
                return state(String::from("It was not rotated: nothing would take its place."));
            };
            match new {
                Some(new) if new.not_before > Some(now) => {
                    let begin = new.not_before.map(rfc3339).unwrap_or_default();
                    return state(format!(
                        "{id} opens from {begin} on: nothing would open until then."
                    ));
                }
                Some(new) if new.alive(now).is_ok() => {}
                other => {
                    let is = other.as_ref().map_or("deleted", |new| new.status(now));
                    return state(format!(
                        "{id}, which took its place, is {is}: nothing would open."
                    ));
                }
            }
            key.expires_at = Some(key.expires_at.map_or(now, |end| end.min(now)));
            Ok(())
        };
        let mark = by.mark("key.cut");
        let key = self.edited(self.store.edit_key(id, account, edit, mark, now).await?, mark)?;
        self.receipt_of(key).await
    }

    /// Before a key is deleted: one that was to take another's place and has not yet leaves it there. Where
    /// the caller may not give the old one its former end back, that stays as it was planned.
    pub(super) async fn unplan(&self, new: &Key, by: By<'_>) -> Result<(), KeyError> {
        let now = self.now();
        if new.not_before.is_none_or(|begin| begin <= now) {
            return Ok(());
        }
        let allow = |old: &Key| by.covers(old);
        let mark = by.mark("key.rotate_cancel");
        if self.store.cancel_rotation(new.id, allow, mark, now).await? {
            tracing::info!(key = %new.id, "planned rotation cancelled");
        }
        Ok(())
    }

    /// When the rotation of a key is due, by the setting.
    pub fn rotation_due_at(&self, key: &Key) -> Option<Millis> {
        key.rotation_due_at(self.rotation_reminder())
    }

    /// The age at which rotations are due; 0 = never.
    pub fn rotation_reminder(&self) -> Millis {
        i64::try_from(self.settings.key_rotation_reminder.as_millis()).unwrap_or(0)
    }
}

/// When the new key begins to open: not before the old one would have.
fn begin(old: &Key, at: Option<Millis>) -> Result<Option<Millis>, KeyError> {
    if let (Some(at), Some(end)) = (at, old.expires_at)
        && at >= end
    {
        let want = format!("must be earlier than the key's own end, {}", rfc3339(end));
        return Err(("at", want).into());
    }
    Ok(old.not_before.max(at))
}

/// Sets the end of a key in whose place another is put.
pub(super) fn step_aside(
    old: &mut Key,
    new: KeyId,
    end: Millis,
    now: Millis,
) -> Result<(), KeyError> {
    if let Some(by) = old.replaced_by {
        return Err(KeyError::State(format!("It was rotated already; rotate {by}.")));
    }
    let status = old.status(now);
    if status != "active" {
        return Err(KeyError::State(format!(
            "The key is {status}, and a rotation gives a new one the same state of life: make a new key instead."
        )));
    }
    old.expires_at = Some(old.expires_at.map_or(end, |own| own.min(end)));
    old.replaced_by = Some(new);
    Ok(())
}

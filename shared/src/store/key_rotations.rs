//! A new key in the place of another, now or at a planned time.
//!
//! | table | a row is | key |
//! | --- | --- | --- |
//! | `key_rotations` | a rotation that was planned, and what the old key's end was before | the new key |
//!
//! The old key is changed and the new one stored in one transaction. A row stays when its time has come; it is
//! removed when the rotation is cancelled, in the transaction that gives the old key its end back.

use super::key_edits::{Edited, Hashed, Mark, edit_in, insert, note, note_made};
use super::key_links::{NewLink, insert_link, note_link};
use super::{Result, Store, Tx, expect_rows, on};
use crate::domain::clock::Millis;
use crate::domain::id::{AccountId, KeyId};
use crate::domain::key::Key;

/// What is stored along with a new key.
#[derive(Debug, Clone, Copy, Default)]
pub struct Beside<'a> {
    /// A link that shows its secret once.
    pub link: Option<&'a NewLink>,
    /// Its time is to come: the old key's end is remembered.
    pub planned: bool,
}

async fn plan(tx: &mut Tx, was: &Key, old: &Key, new: &Key) -> Result<()> {
    const SQL: &str = "INSERT INTO key_rotations (new_key, old_key, ends_at, former_end)
        VALUES ($1, $2, $3, $4)";
    let rows = on!(tx, c => sqlx::query(SQL).bind(new.id).bind(old.id).bind(old.expires_at)
        .bind(was.expires_at).execute(c).await.map(|r| r.rows_affected()))?;
    expect_rows("plan rotation", rows, 1)
}

impl Store {
    /// Puts a new key in the place of another: `edit` changes the old one and gives the new one.
    #[expect(clippy::too_many_arguments, reason = "one transaction, each part of it named")]
    pub async fn rotate_key<E: Send>(
        &self,
        old: KeyId,
        account: Option<AccountId>,
        edit: impl FnOnce(&mut Key) -> std::result::Result<Key, E> + Send,
        hashed: Hashed<'_>,
        beside: Beside<'_>,
        mark: Mark<'_>,
        now: Millis,
    ) -> Result<Edited<E>> {
        let mut tx = self.begin().await?;
        let mut made = None;
        let edit = |key: &mut Key| {
            made = Some(edit(key)?);
            Ok(())
        };
        let edited = edit_in(&mut tx, old, account, edit, now).await?;
        if let (Edited::Done(keys), Some(key)) = (&edited, &made) {
            insert(&mut tx, key, hashed).await?;
            if beside.planned {
                plan(&mut tx, &keys.0, &keys.1, key).await?;
            }
            if let Some(link) = beside.link {
                insert_link(&mut tx, key.id, link).await?;
            }
            note(&mut tx, &mark, &keys.0, &keys.1, now).await?;
            note_made(&mut tx, mark.by, key).await?;
            if let Some(link) = beside.link {
                note_link(&mut tx, mark.by, key, link, now).await?;
            }
            tx.commit().await?;
        }
        Ok(edited)
    }

    /// Takes a planned rotation back: the old key's end is what it was before, unless somebody has changed it
    /// since, and it may be rotated again. `false`: there is none, or `allow` refuses what the old key would
    /// be; nothing is changed then.
    pub async fn cancel_rotation<E: Send>(
        &self,
        new: KeyId,
        allow: impl FnOnce(&Key) -> std::result::Result<(), E> + Send,
        mark: Mark<'_>,
        now: Millis,
    ) -> Result<bool> {
        const PLANNED: &str =
            "SELECT old_key, ends_at, former_end FROM key_rotations WHERE new_key = $1";
        const DROP: &str = "DELETE FROM key_rotations WHERE new_key = $1";
        let mut tx = self.begin().await?;
        let planned: Option<(KeyId, i64, Option<i64>)> =
            on!(&mut tx, c => sqlx::query_as(PLANNED).bind(new).fetch_optional(c).await)?;
        let Some((old, ends_at, former_end)) = planned else { return Ok(false) };
        let edit = |key: &mut Key| {
            if key.replaced_by == Some(new) {
                key.replaced_by = None;
            }
            if key.expires_at == Some(ends_at) {
                key.expires_at = former_end;
            }
            allow(key)
        };
        let Edited::Done(keys) = edit_in(&mut tx, old, None, edit, now).await? else {
            return Ok(false);
        };
        let rows = on!(&mut tx, c => sqlx::query(DROP).bind(new).execute(c).await
            .map(|r| r.rows_affected()))?;
        if rows == 0 {
            // Somebody else has done it.
            return Ok(false);
        }
        expect_rows("cancel rotation", rows, 1)?;
        note(&mut tx, &mark, &keys.0, &keys.1, now).await?;
        tx.commit().await?;
        Ok(true)
    }
}

//! Changes of keys.
//!
//! * Every change reads the row under its lock, changes the [`Key`], and writes all of it: what is checked is
//!   what is changed.
//! * Every change is written down in the audit log, in its own transaction, and as its last thing.
//! * Lock order: task → batch → keys (by id) → account.

use ipnet::IpNet;
use serde_json::json;

use super::audit_log::write_down;
use super::key_credits::write_limit;
use super::key_rotations::Beside;
use super::keys::{KeyRow, TO_EDIT};
use super::{Result, Store, StoreError, Tx, expect_rows, on, within};
use crate::domain::audit::{Actor, Change, Origin};
use crate::domain::clock::{Millis, rfc3339};
use crate::domain::id::{AccountId, KeyId};
use crate::domain::key::{Key, KeyHash};

/// What an edit of a key came to.
#[derive(Debug)]
pub enum Edited<E> {
    /// No such key, or deleted.
    Missing,
    /// The edit itself refused; nothing is changed.
    Refused(E),
    /// The key before and after.
    Done(Box<(Key, Key)>),
}

/// Where a key's hash came from.
#[derive(Debug, Clone, Copy)]
pub struct Hashed<'a> {
    /// What is looked up.
    pub hash: &'a KeyHash,
    /// Id of the pepper in it.
    pub pepper: &'a str,
}

/// How a change is written down in the audit log.
#[derive(Debug, Clone, Copy)]
pub struct Mark<'a> {
    /// What is done, such as `key.disable`.
    pub action: &'static str,
    /// Who does it.
    pub by: &'a Origin,
}

impl Store {
    /// Stores a new key.
    pub async fn create_key(&self, key: &Key, hashed: Hashed<'_>, by: &Origin) -> Result<()> {
        let mut tx = self.begin().await?;
        insert(&mut tx, key, hashed).await?;
        note_made(&mut tx, by, key).await?;
        tx.commit().await
    }

    /// Changes a key that is not deleted, in one transaction; `account` = only if it owns it, and it is one of
    /// our own gate. When it has
    /// returned, every gate judges by the new state. `edit` may not change whose key it is, nor its budget.
    pub async fn edit_key<E: Send>(
        &self,
        id: KeyId,
        account: Option<AccountId>,
        edit: impl FnOnce(&mut Key) -> std::result::Result<(), E> + Send,
        mark: Mark<'_>,
        now: Millis,
    ) -> Result<Edited<E>> {
        let mut tx = self.begin().await?;
        let edited = edit_in(&mut tx, id, account, edit, now).await?;
        if let Edited::Done(keys) = &edited {
            note(&mut tx, &mark, &keys.0, &keys.1, now).await?;
            tx.commit().await?;
        }
        Ok(edited)
    }

    /// Changes several keys in one transaction, all or none; those that are gone are left out.
    pub async fn edit_keys(
        &self,
        ids: &[KeyId],
        account: Option<AccountId>,
        edit: impl Fn(&mut Key) + Send + Sync,
        mark: Mark<'_>,
        now: Millis,
    ) -> Result<Vec<Key>> {
        let mut ids = ids.to_vec();
        // Everybody locks them in one order.
        ids.sort_unstable();
        let mut tx = self.begin().await?;
        let mut done = Vec::with_capacity(ids.len());
        for id in ids {
            let one = |key: &mut Key| {
                edit(key);
                Ok::<_, std::convert::Infallible>(())
            };
            match edit_in(&mut tx, id, account, one, now).await? {
                Edited::Done(key) => done.push(*key),
                Edited::Missing => {}
                Edited::Refused(never) => match never {},
            }
        }
        // Last, so that nobody who has a key waits for the chain while we wait for that key.
        for (was, key) in &done {
            note(&mut tx, &mark, was, key, now).await?;
        }
        tx.commit().await?;
        Ok(done.into_iter().map(|(_, key)| key).collect())
    }

    /// Puts a new key in the place of another: `edit` changes the old one.
    pub async fn replace_key<E: Send>(
        &self,
        old: KeyId,
        account: Option<AccountId>,
        edit: impl FnOnce(&mut Key) -> std::result::Result<Key, E> + Send,
        hashed: Hashed<'_>,
        mark: Mark<'_>,
        now: Millis,
    ) -> Result<Edited<E>> {
        self.rotate_key(old, account, edit, hashed, Beside::default(), mark, now).await
    }
}

pub(super) async fn insert(tx: &mut Tx, key: &Key, hashed: Hashed<'_>) -> Result<()> {
    const SQL: &str = "INSERT INTO api_keys
        (id, account_id, hash, pepper, start, label, note, environment, stage, scopes, disabled,
         expires_at, not_before, allow, rate_limit, limits, external_id, meta, made_by_key,
         made_by_person, family, budget, api_id, service, created_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19,
         $20, $21, $22, $23, $24, $25)";
    let ((by_key, by_person), limits, service) = (maker(&key.maker), limits(key)?, service(key)?);
    on!(&mut *tx, c => sqlx::query(SQL)
        .bind(key.id).bind(key.account).bind(&hashed.hash[..]).bind(hashed.pepper).bind(&key.start)
        .bind(&key.label).bind(&key.note).bind(key.environment.as_str()).bind(&key.stage)
        .bind(key.scopes.bits()).bind(key.disabled).bind(key.expires_at).bind(key.not_before)
        .bind(networks(&key.allow)).bind(key.rate_limit).bind(limits).bind(&key.external_id)
        .bind(&key.meta).bind(by_key).bind(by_person).bind(key.family).bind(key.budget).bind(key.api).bind(service)
        .bind(key.created_at)
        .execute(c).await.map(|_| ()))?;
    if key.budget == key.id && key.credit_limit.is_some() {
        write_limit(tx, key.id, key.credit_limit).await?;
    }
    Ok(())
}

pub(super) async fn edit_in<E>(
    tx: &mut Tx,
    id: KeyId,
    account: Option<AccountId>,
    edit: impl FnOnce(&mut Key) -> std::result::Result<(), E> + Send,
    now: Millis,
) -> Result<Edited<E>> {
    const SQL: &str = "UPDATE api_keys SET label = $2, note = $3, environment = $4, stage = $5, scopes = $6,
            disabled = $7, suspended_reason = $8, suspended_until = $9, suspended_note = $10,
            deleted_at = $11, expires_at = $12, not_before = $13, allow = $14, rate_limit = $15,
            limits = $16, external_id = $17, meta = $18, replaced_by = $19, ended_at = COALESCE($20, ended_at),
            service = $21
        WHERE id = $1 AND deleted_at IS NULL";
    let Some(before) = lock(tx, id, account).await? else { return Ok(Edited::Missing) };
    let mut key = before.clone();
    if let Err(refused) = edit(&mut key) {
        return Ok(Edited::Refused(refused));
    }
    let ended = before.alive(now).is_ok() && key.alive(now).is_err();
    let (suspended, limits, service) = (key.suspended.as_ref(), limits(&key)?, service(&key)?);
    let rows = on!(&mut *tx, c => sqlx::query(SQL)
        .bind(id).bind(&key.label).bind(&key.note).bind(key.environment.as_str()).bind(&key.stage)
        .bind(key.scopes.bits()).bind(key.disabled).bind(suspended.map(|one| &one.reason))
        .bind(suspended.and_then(|one| one.until)).bind(suspended.and_then(|one| one.note.as_ref()))
        .bind(key.deleted_at).bind(key.expires_at).bind(key.not_before).bind(networks(&key.allow))
        .bind(key.rate_limit).bind(limits).bind(&key.external_id).bind(&key.meta)
        .bind(key.replaced_by).bind(ended.then_some(now)).bind(service)
        .execute(c).await.map(|r| r.rows_affected()))?;
    expect_rows("edit key", rows, 1)?;
    if key.credit_limit != before.credit_limit {
        write_limit(tx, key.budget, key.credit_limit).await?;
    }
    Ok(Edited::Done(Box::new((before, key))))
}

/// Locks a key that is not deleted, and the row of its budget.
async fn lock(tx: &mut Tx, id: KeyId, account: Option<AccountId>) -> Result<Option<Key>> {
    const PG: &str = "SELECT id FROM api_keys
        WHERE id = $1 OR id = (SELECT budget FROM api_keys WHERE id = $1) ORDER BY id FOR NO KEY UPDATE";
    if let Tx::Pg(lent) = &mut *tx {
        within!(lent, c => sqlx::query(PG).bind(id).execute(c).await)?;
    }
    let row: Option<KeyRow> =
        on!(tx, c => sqlx::query_as(TO_EDIT).bind(id).bind(account).fetch_optional(c).await)?;
    row.map(Key::try_from).transpose()
}

fn maker(maker: &Actor) -> (Option<KeyId>, Option<&str>) {
    match maker {
        Actor::Key(key) => (Some(*key), None),
        Actor::Person(email) => (None, Some(email)),
        Actor::Root(_) | Actor::Operator | Actor::System => (None, None),
    }
}

/// A key as the audit log shows it: what is shown outside, and no hash.
fn shown(key: &Key, now: Millis) -> serde_json::Value {
    let credit = key.credit_limit.map(|limit| {
        let refill = limit.refill.map(|refill| {
            json!({
                "interval": refill.interval.as_str(), "amount": refill.amount, "day": refill.day,
            })
        });
        json!({ "limit": limit.limit, "refill": refill })
    });
    json!({
        "start": key.start,
        "label": key.label,
        "note": key.note,
        "environment": key.environment.as_str(),
        "stage": key.stage,
        "scopes": key.scopes.names(),
        "status": key.status(now),
        "disabled": key.disabled,
        "suspended_reason": key.suspended.as_ref().map(|one| &one.reason),
        "suspended_until": key.suspended.as_ref().and_then(|one| one.until).map(rfc3339),
        "expires_at": key.expires_at.map(rfc3339),
        "not_before": key.not_before.map(rfc3339),
        "allow": networks(&key.allow),
        "rate_limit": key.rate_limit,
        "limits": key.limits,
        "credit_limit": credit,
        "external_id": key.external_id,
        "meta": key.meta,
        "replaced_by": key.replaced_by,
    })
}

/// Writes a change down, the last thing of its transaction: the head of the account's chain is held from then
/// on. What was so already is no change.
pub(super) async fn note(
    tx: &mut Tx,
    mark: &Mark<'_>,
    was: &Key,
    key: &Key,
    now: Millis,
) -> Result<()> {
    let (before, after) = (shown(was, now), shown(key, now));
    if before == after {
        return Ok(());
    }
    let change = Change::new(mark.by, Some(key.account), mark.action, key.id);
    write_down(tx, &change.before(before).after(after), now).await
}

pub(super) async fn note_made(tx: &mut Tx, by: &Origin, key: &Key) -> Result<()> {
    let change = Change::new(by, Some(key.account), "key.create", key.id);
    write_down(tx, &change.after(shown(key, key.created_at)), key.created_at).await
}

fn networks(allow: &[IpNet]) -> String {
    let texts: Vec<String> = allow.iter().map(IpNet::to_string).collect();
    texts.join(" ")
}

fn limits(key: &Key) -> Result<String> {
    serde_json::to_string(&key.limits)
        .map_err(|error| StoreError::Damaged { what: "limits of a key", detail: error.to_string() })
}

fn service(key: &Key) -> Result<Option<String>> {
    let Some(_) = key.api else { return Ok(None) };
    let text = serde_json::to_string(&key.service);
    text.map(Some)
        .map_err(|error| StoreError::Damaged { what: "key of an api", detail: error.to_string() })
}

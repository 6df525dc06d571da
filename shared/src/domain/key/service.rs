//! Keys of an api: what may be said of one, and how a draft is read.
//!
//! Such a key is verified for another program and opens nothing here. Of a change, a field that is absent keeps
//! its value, and one that is null is cleared. Credits are said as what is left; stored is a limit and what is
//! used of it ([`super::credit`]): without a refill the limit is moved, with one it is as high as the refill can
//! bring it, so that a refill brings what is left back to its amount.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::credit::{CreditLimit, Refill, next};
use super::fields::{BadField, RefillDraft};
use super::{Interval, Key};
use crate::domain::clock::Millis;
use crate::domain::permission::is_name;

/// Characters of a name and of an external id.
const NAME: usize = 255;
/// Bytes of meta JSON.
const META: usize = 10_240;
/// Characters of a prefix.
const PREFIX: usize = 16;
/// Permissions of a key.
const PERMISSIONS: usize = 1_000;
/// Roles of a key.
const ROLES: usize = 100;
/// Rate limits of a key.
const RATE_LIMITS: usize = 50;
/// Networks in an allow-list.
const NETWORKS: usize = 100;
/// Credits that can be left, or filled in.
const CREDITS: i64 = 1_000_000_000_000_000;
/// Milliseconds of a window: a second to 31 days.
const WINDOW: std::ops::RangeInclusive<u32> = 1_000..=31 * 86_400_000;
/// The end of the year 9999.
const LATEST: Millis = 253_402_300_799_999;

/// What only keys of an api have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Service {
    /// What it holds.
    pub permissions: Vec<String>,
    /// Names of roles; they give no permission.
    pub roles: Vec<String>,
    /// Named sliding windows.
    pub rate_limits: Vec<RateLimit>,
    /// What its secret begins with; empty = nothing.
    pub prefix: String,
    /// Bytes of secret.
    pub bytes: u8,
    /// When it was last changed.
    pub updated_at: Option<Millis>,
}

/// A named sliding window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateLimit {
    /// Its name.
    pub name: String,
    /// Uses in a window.
    pub limit: u32,
    /// Its length in milliseconds.
    pub duration_ms: u32,
    /// Judged at every verification, not only where it is named.
    pub auto_apply: bool,
}

/// What is to be said of a key's credits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Credits {
    /// What is left; null = no limit, and no refill.
    pub remaining: Option<Option<i64>>,
    /// How it is filled again.
    pub refill: Option<Option<RefillDraft>>,
}

/// How what is left is to be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// To this; `None` = no limit.
    Set(Option<i64>),
    /// By so many more.
    Increment(i64),
    /// By so many less, and never below zero.
    Decrement(i64),
}

/// What is to be set of a key of an api.
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "as the fields of a key")]
pub struct ServiceFields {
    pub name: Option<Option<String>>,
    pub external_id: Option<Option<String>>,
    pub meta: Option<Option<String>>,
    pub expires: Option<Option<Millis>>,
    pub credits: Option<Option<Credits>>,
    pub rate_limits: Option<Vec<RateLimit>>,
    pub enabled: Option<bool>,
    pub permissions: Option<Vec<String>>,
    pub roles: Option<Vec<String>>,
    pub allow: Option<Vec<IpNet>>,
}

fn bad<T>(field: &'static str, want: impl Into<String>) -> Result<T, BadField> {
    Err(BadField { field, want: want.into() })
}

/// Checks the form of a new secret.
pub fn check_form(prefix: &str, bytes: i64) -> Result<u8, BadField> {
    let fits = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
    if prefix.len() > PREFIX || !prefix.bytes().all(fits) {
        return bad("prefix", format!("must be at most {PREFIX} letters, digits and underscores"));
    }
    match u8::try_from(bytes) {
        Ok(bytes) if bytes >= 16 => Ok(bytes),
        _ => bad("byteLength", "must be from 16 to 255"),
    }
}

impl ServiceFields {
    /// Sets them, if all can be so; nothing is set otherwise.
    pub fn apply(self, key: &mut Key, now: Millis) -> Result<(), BadField> {
        let mut new = key.clone();
        if let Some(name) = self.name {
            new.label = text("name", name)?.unwrap_or_default();
        }
        if let Some(id) = self.external_id {
            let id = text("externalId", id)?;
            let fits = |c: u8| c.is_ascii_alphanumeric() || b"_.-".contains(&c);
            if id.as_ref().is_some_and(|id| !id.bytes().all(fits)) {
                return bad("externalId", "must be of letters, digits, \"_\", \".\" and \"-\"");
            }
            new.external_id = id;
        }
        if let Some(meta) = self.meta {
            if meta.as_ref().is_some_and(|meta| meta.len() > META) {
                return bad("meta", format!("must be a JSON object of at most {META} bytes"));
            }
            new.meta = meta;
        }
        if let Some(expires) = self.expires {
            if expires.is_some_and(|at| !(0..=LATEST).contains(&at)) {
                return bad("expires", "must be milliseconds since 1970, up to the year 9999");
            }
            new.expires_at = expires;
        }
        if let Some(credits) = self.credits {
            new.credit_limit = read_credits(credits, new.credit_limit, now)?;
        }
        if let Some(limits) = self.rate_limits {
            new.service.rate_limits = check_rate_limits(limits)?;
        }
        if let Some(enabled) = self.enabled {
            new.disabled = !enabled;
        }
        if let Some(permissions) = self.permissions {
            new.service.permissions = check_names("permissions", permissions, PERMISSIONS)?;
        }
        if let Some(roles) = self.roles {
            new.service.roles = check_names("roles", roles, ROLES)?;
        }
        if let Some(allow) = self.allow {
            if allow.len() > NETWORKS {
                return bad("allow", format!("must be at most {NETWORKS} networks"));
            }
            new.allow = allow;
        }
        *key = new;
        Ok(())
    }
}

fn text(field: &'static str, text: Option<String>) -> Result<Option<String>, BadField> {
    let fits = |text: &String| (1..=NAME).contains(&text.chars().count());
    match text {
        Some(text) if !fits(&text) || text.contains(char::is_control) => {
            bad(field, format!("must be 1 to {NAME} characters, none of them a control character"))
        }
        text => Ok(text),
    }
}

fn check_names(
    field: &'static str,
    mut names: Vec<String>,
    most: usize,
) -> Result<Vec<String>, BadField> {
    if names.len() > most {
        return bad(field, format!("must be at most {most}"));
    }
    if let Some(name) = names.iter().find(|name| !is_name(name)) {
        return bad(
            field,
            format!(
                "must be names of letters, digits and \"_-:*/\" with dots between, not {name:.40?}"
            ),
        );
    }
    let mut seen = std::collections::HashSet::new();
    names.retain(|name| seen.insert(name.clone()));
    Ok(names)
}

fn check_rate_limits(limits: Vec<RateLimit>) -> Result<Vec<RateLimit>, BadField> {
    if limits.len() > RATE_LIMITS {
        return bad("ratelimits", format!("must be at most {RATE_LIMITS}"));
    }
    for (at, limit) in limits.iter().enumerate() {
        check_limit_name(&limit.name)?;
        check_window(limit.limit, limit.duration_ms)?;
        if limits.iter().take(at).any(|other| other.name == limit.name) {
            return bad("ratelimits", format!("must not name {:?} twice", limit.name));
        }
    }
    Ok(limits)
}

/// Checks the name of a rate limit.
pub fn check_limit_name(name: &str) -> Result<(), BadField> {
    match name.chars().count() {
        3..=128 if !name.contains(char::is_control) => Ok(()),
        _ => bad("ratelimits", "must have a \"name\" of 3 to 128 characters"),
    }
}

/// Checks the figures of a rate limit.
pub fn check_window(limit: u32, duration_ms: u32) -> Result<(), BadField> {
    if limit == 0 || !WINDOW.contains(&duration_ms) {
        let (shortest, longest) = (WINDOW.start(), WINDOW.end());
        return bad(
            "ratelimits",
            format!(
                "must have a \"limit\" of at least 1, and a \"duration\" from {shortest} to {longest} milliseconds"
            ),
        );
    }
    Ok(())
}

/// What is left of a limit.
pub fn remaining(limit: Option<CreditLimit>, now: Millis) -> Option<i64> {
    limit.map(|limit| limit.left(now))
}

/// Changes what is left.
pub fn change(
    before: Option<CreditLimit>,
    change: Change,
    now: Millis,
) -> Result<Option<CreditLimit>, BadField> {
    let before = before.map(|limit| limit.at(now));
    let left = remaining(before, now);
    let left = match (change, left) {
        (Change::Set(left), _) => left,
        (_, None) => return bad("operation", "must be \"set\": this key has no limit of credits"),
        (Change::Increment(by), Some(left)) => Some(left.saturating_add(by)),
        (Change::Decrement(by), Some(left)) => Some(left.saturating_sub(by).max(0)),
    };
    match left {
        None => Ok(None),
        Some(left) if (0..=CREDITS).contains(&left) => {
            Ok(Some(with_left(before, left, before.and_then(|limit| limit.refill))))
        }
        Some(_) => bad("value", format!("must leave 0 to {CREDITS}")),
    }
}

fn read_credits(
    draft: Option<Credits>,
    before: Option<CreditLimit>,
    now: Millis,
) -> Result<Option<CreditLimit>, BadField> {
    let Some(draft) = draft else { return Ok(None) };
    let before = before.map(|limit| limit.at(now));
    let left = match draft.remaining {
        Some(left) => left,
        None => remaining(before, now),
    };
    let Some(left) = left else {
        return match draft.refill {
            Some(Some(_)) => {
                bad("credits.refill", "must come with \"remaining\": nothing is limited")
            }
            _ => Ok(None),
        };
    };
    if !(0..=CREDITS).contains(&left) {
        return bad("credits.remaining", format!("must be from 0 to {CREDITS}, or null"));
    }
    let old = before.and_then(|limit| limit.refill);
    let refill = match draft.refill {
        None => old,
        Some(None) => None,
        Some(Some(draft)) => Some(read_refill(draft, old, now)?),
    };
    Ok(Some(with_left(before, left, refill)))
}

fn read_refill(draft: RefillDraft, old: Option<Refill>, now: Millis) -> Result<Refill, BadField> {
    let RefillDraft { interval, amount, day } = draft;
    if !(1..=CREDITS).contains(&amount) {
        return bad("credits.refill.amount", format!("must be from 1 to {CREDITS}"));
    }
    let day = match (interval, day) {
        (Interval::Daily, Some(_)) => {
            return bad("credits.refill.refillDay", "must come with a monthly refill only");
        }
        (_, None) => 1,
        (_, Some(day @ 1..=31)) => day as i16,
        (_, Some(_)) => return bad("credits.refill.refillDay", "must be from 1 to 31"),
    };
    // A refill that stays what it was keeps its time.
    let kept = old.filter(|old| (old.interval, old.amount, old.day) == (interval, amount, day));
    Ok(kept.unwrap_or(Refill { interval, amount, day, at: next(interval, day, now) }))
}

/// A limit of which so much is left.
fn with_left(before: Option<CreditLimit>, left: i64, refill: Option<Refill>) -> CreditLimit {
    let (limit, used) = match refill {
        Some(refill) => {
            let limit = left.max(refill.amount);
            (limit, limit - left)
        }
        None => {
            let used = before.map_or(0, |limit| limit.used);
            (used.saturating_add(left), used)
        }
    };
    CreditLimit { limit, used, refill }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::{AccountId, Ids, KeyId};
    use proptest::prelude::*;

    const DAY: i64 = 86_400_000;

    fn key() -> Key {
        let ids = Ids::seeded(1);
        let (id, account) = (KeyId::new(&ids, 1), AccountId::new(&ids, 1));
        Key::new(id, account, String::from("prod_abcd"), String::new(), 1)
    }

    fn refused(fields: ServiceFields) -> Option<&'static str> {
        let mut key = key();
        let field = fields.apply(&mut key, 100).err().map(|bad| bad.field);
        assert!(field.is_none() || key.service == Service::default(), "nothing is changed");
        field
    }

    fn daily(amount: i64) -> RefillDraft {
        RefillDraft { interval: Interval::Daily, amount, day: None }
    }

    #[test]
    fn bounds_are_named() {
        let none = ServiceFields::default;
        let text = |text: &str| Some(Some(text.to_owned()));
        assert_eq!(refused(ServiceFields { name: text(""), ..none() }), Some("name"));
        assert_eq!(
            refused(ServiceFields { external_id: text("a b"), ..none() }),
            Some("externalId")
        );
        assert_eq!(refused(ServiceFields { external_id: text("user_1.a-b"), ..none() }), None);
        assert_eq!(
            refused(ServiceFields { meta: text(&"x".repeat(10_241)), ..none() }),
            Some("meta")
        );
        assert_eq!(refused(ServiceFields { expires: Some(Some(-1)), ..none() }), Some("expires"));
        let names = |names: &[&str]| Some(names.iter().map(|one| (*one).to_owned()).collect());
        let permissions = |of: &[&str]| ServiceFields { permissions: names(of), ..none() };
        assert_eq!(refused(permissions(&["a b"])), Some("permissions"));
        assert_eq!(refused(permissions(&["a.b", "a.*"])), None);
        let limit = |name: &str, limit, duration_ms| RateLimit {
            name: name.to_owned(),
            limit,
            duration_ms,
            auto_apply: false,
        };
        for limits in [
            vec![limit("ab", 1, 1_000)],
            vec![limit("abc", 0, 1_000)],
            vec![limit("abc", 1, 999)],
            vec![limit("abc", 1, 1_000), limit("abc", 2, 2_000)],
        ] {
            let fields = ServiceFields { rate_limits: Some(limits), ..none() };
            assert_eq!(refused(fields), Some("ratelimits"));
        }
        let credits = |remaining, refill| {
            let credits = Credits { remaining, refill };
            refused(ServiceFields { credits: Some(Some(credits)), ..none() })
        };
        assert_eq!(credits(Some(Some(-1)), None), Some("credits.remaining"));
        assert_eq!(credits(Some(None), Some(Some(daily(5)))), Some("credits.refill"));
        assert_eq!(credits(Some(Some(1)), Some(Some(daily(0)))), Some("credits.refill.amount"));
        let day = Some(Some(RefillDraft { day: Some(1), ..daily(1) }));
        assert_eq!(credits(Some(Some(1)), day), Some("credits.refill.refillDay"));
        assert_eq!(credits(None, None), None);
        assert_eq!(check_form("prod_1", 16), Ok(16));
        assert_eq!(check_form("a-b", 16).unwrap_err().field, "prefix");
        assert_eq!(check_form("", 15).unwrap_err().field, "byteLength");
        assert_eq!(check_form("", 256).unwrap_err().field, "byteLength");
    }

    #[test]
    fn a_refill_brings_what_is_left_back_to_its_amount() {
        let credits = Credits { remaining: Some(Some(10)), refill: Some(Some(daily(1_000))) };
        let limit = read_credits(Some(credits), None, DAY / 2).unwrap();
        assert_eq!(remaining(limit, DAY / 2), Some(10));
        assert_eq!(remaining(limit, DAY), Some(1_000));
        assert_eq!(remaining(limit, 5 * DAY), Some(1_000), "and never above it");
        let more = change(limit, Change::Set(Some(5_000)), DAY / 2).unwrap();
        assert_eq!(remaining(more, DAY), Some(5_000), "what was given stays");
        let kept = read_credits(Some(Credits::default()), more, DAY / 2).unwrap();
        assert_eq!(kept, more, "absent keeps");
        let cleared = Credits { refill: Some(None), ..Credits::default() };
        let cleared = read_credits(Some(cleared), limit, DAY / 2).unwrap();
        assert_eq!((remaining(cleared, 5 * DAY), cleared.unwrap().refill), (Some(10), None));
        assert_eq!(change(limit, Change::Set(None), 1).unwrap(), None, "no limit, no refill");
        assert_eq!(change(None, Change::Increment(1), 1).unwrap_err().field, "operation");
    }

    proptest! {
        /// Whatever came before, what is left is what was said.
        #[test]
        fn what_is_left_is_what_was_said(
            limit in 0i64..1_000, used in 0i64..2_000, refill: Option<(bool, u16)>, by in 0i64..3_000,
        ) {
            let refill = refill.map(|(monthly, amount)| {
                let interval = if monthly { Interval::Monthly } else { Interval::Daily };
                Refill { interval, amount: i64::from(amount) + 1, day: 1, at: DAY }
            });
            let before = Some(CreditLimit { limit, used, refill });
            let left = remaining(before, 1).unwrap();
            let after = |how| remaining(change(before, how, 1).unwrap(), 1);
            prop_assert_eq!(after(Change::Set(Some(by))), Some(by));
            prop_assert_eq!(after(Change::Increment(by)), Some(left + by));
            prop_assert_eq!(after(Change::Decrement(by)), Some((left - by).max(0)));
        }
    }
}

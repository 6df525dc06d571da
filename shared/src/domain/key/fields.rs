//! What may be said of a key when it is made or changed: bounds, and how a draft is read.
//!
//! Of a change, a field that is absent keeps its value, and one that is null is cleared; so each is an option
//! of an option where it can be cleared.

use ipnet::IpNet;

use super::credit::{CreditLimit, Interval, Refill, next};
use super::{Environment, Key, Limit, Scopes};
use crate::domain::clock::Millis;

/// Characters of a label, a stage, an external id, a limit's name.
const NAME: usize = 100;
/// Characters of a note.
const NOTE: usize = 1_000;
/// Bytes of meta JSON.
const META: usize = 4_096;
/// Networks in an allow-list.
const NETWORKS: usize = 100;
/// Named limits.
const LIMITS: usize = 20;
/// Requests a minute that a key may be given.
const FASTEST: i64 = 1_000_000_000;
/// Seconds of a window: 31 days.
const WINDOW: u32 = 31 * 86_400;
/// Credits of a limit.
const CREDITS: i64 = 1_000_000_000_000;

/// How a limit of credits is to be filled again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefillDraft {
    /// How often.
    pub interval: Interval,
    /// How much.
    pub amount: i64,
    /// Day of the month.
    pub day: Option<i64>,
}

/// A limit of credits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CreditDraft {
    /// Credits.
    pub limit: i64,
    /// Of those, used; `None` = as it is.
    pub used: Option<i64>,
    /// How it is filled again.
    pub refill: Option<RefillDraft>,
}

/// What is to be set of a key.
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "as the fields of a key")]
pub struct Fields {
    pub label: Option<String>,
    pub note: Option<Option<String>>,
    pub environment: Option<Environment>,
    pub stage: Option<Option<String>>,
    pub scopes: Option<Scopes>,
    pub expires_at: Option<Option<Millis>>,
    pub not_before: Option<Option<Millis>>,
    pub allow: Option<Vec<IpNet>>,
    pub rate_limit: Option<Option<i64>>,
    pub limits: Option<Vec<Limit>>,
    pub credit_limit: Option<Option<CreditDraft>>,
    pub external_id: Option<Option<String>>,
    pub meta: Option<Option<String>>,
}

/// A field that cannot be so: its name, and what it must be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} {want}")]
pub struct BadField {
    /// Its name.
    pub field: &'static str,
    /// What it must be.
    pub want: String,
}

fn bad<T>(field: &'static str, want: impl Into<String>) -> Result<T, BadField> {
    Err(BadField { field, want: want.into() })
}

fn name(field: &'static str, text: &str) -> Result<String, BadField> {
    let text = text.trim();
    if text.is_empty() || text.chars().count() > NAME || text.contains(char::is_control) {
        return bad(
            field,
            format!("must be 1 to {NAME} characters, none of them a control character"),
        );
    }
    Ok(text.to_owned())
}

fn optional(
    field: &'static str,
    text: Option<String>,
    check: impl Fn(&'static str, &str) -> Result<String, BadField>,
) -> Result<Option<String>, BadField> {
    text.map(|text| check(field, &text)).transpose()
}

fn note(field: &'static str, text: &str) -> Result<String, BadField> {
    match text.chars().count() {
        1..=NOTE => Ok(text.to_owned()),
        _ => bad(field, format!("must be 1 to {NOTE} characters")),
    }
}

fn meta(field: &'static str, text: &str) -> Result<String, BadField> {
    match text.len() {
        2..=META => Ok(text.to_owned()),
        _ => bad(field, format!("must be a JSON object of at most {META} bytes")),
    }
}

impl Fields {
    /// Sets them, if all can be so; nothing is set otherwise.
    pub fn apply(self, key: &mut Key, now: Millis) -> Result<(), BadField> {
        let mut new = key.clone();
        if let Some(label) = self.label {
            new.label = name("label", &label)?;
        }
        if let Some(text) = self.note {
            new.note = optional("note", text, note)?;
        }
        if let Some(environment) = self.environment {
            new.environment = environment;
        }
        if let Some(stage) = self.stage {
            new.stage = optional("stage", stage, name)?;
        }
        if let Some(scopes) = self.scopes {
            new.scopes = scopes;
        }
        if let Some(end) = self.expires_at {
            if end.is_some_and(|end| end <= now) {
                return bad("expires_at", "must lie in the future");
            }
            new.expires_at = end;
        }
        if let Some(begin) = self.not_before {
            new.not_before = begin;
        }
        if let (Some(begin), Some(end)) = (new.not_before, new.expires_at)
            && begin >= end
        {
            return bad("not_before", "must be earlier than expires_at");
        }
        if let Some(allow) = self.allow {
            if allow.len() > NETWORKS {
                return bad("allow", format!("must be at most {NETWORKS} networks"));
            }
            new.allow = allow;
        }
        if let Some(rate) = self.rate_limit {
            if rate.is_some_and(|rate| !(1..=FASTEST).contains(&rate)) {
                return bad("rate_limit", format!("must be from 1 to {FASTEST}"));
            }
            new.rate_limit = rate;
        }
        if let Some(limits) = self.limits {
            new.limits = check_limits(limits)?;
        }
        if let Some(credit) = self.credit_limit {
            let before = new.credit_limit.map(|limit| limit.at(now));
            new.credit_limit = credit.map(|draft| read_credit(draft, before, now)).transpose()?;
        }
        if let Some(id) = self.external_id {
            new.external_id = optional("external_id", id, name)?;
        }
        if let Some(text) = self.meta {
            new.meta = optional("meta", text, meta)?;
        }
        if new.is_test() && new.credit_limit.is_some() {
            return bad("credit_limit", "cannot be set: a test key spends nothing");
        }
        *key = new;
        Ok(())
    }
}

fn check_limits(limits: Vec<Limit>) -> Result<Vec<Limit>, BadField> {
    if limits.len() > LIMITS {
        return bad("limits", format!("must be at most {LIMITS}"));
    }
    for (at, limit) in limits.iter().enumerate() {
        name("limits", &limit.name)?;
        if limits[..at].iter().any(|other| other.name == limit.name) {
            return bad("limits", format!("must not name {:?} twice", limit.name));
        }
        if limit.limit == 0 || !(1..=WINDOW).contains(&limit.window_seconds) {
            return bad(
                "limits",
                format!("must have a \"limit\" of at least 1 and 1 to {WINDOW} \"window_seconds\""),
            );
        }
    }
    Ok(limits)
}

fn read_credit(
    draft: CreditDraft,
    before: Option<CreditLimit>,
    now: Millis,
) -> Result<CreditLimit, BadField> {
    if !(0..=CREDITS).contains(&draft.limit) {
        return bad("credit_limit", format!("must have a \"limit\" from 0 to {CREDITS}"));
    }
    let refill = match draft.refill {
        None => None,
        Some(RefillDraft { interval, amount, day }) => {
            if !(1..=CREDITS).contains(&amount) {
                return bad("credit_limit", format!("must have an \"amount\" from 1 to {CREDITS}"));
            }
            let day = match (interval, day.unwrap_or(1)) {
                (Interval::Daily, _) if day.is_some() => {
                    return bad("credit_limit", "takes a \"day\" with a monthly refill only");
                }
                (_, day @ 1..=31) => day as i16,
                _ => return bad("credit_limit", "must have a \"day\" from 1 to 31"),
            };
            // A refill that stays what it was keeps its time.
            let kept = before
                .and_then(|before| before.refill)
                .filter(|old| (old.interval, old.amount, old.day) == (interval, amount, day));
            Some(kept.unwrap_or(Refill { interval, amount, day, at: next(interval, day, now) }))
        }
    };
    let used = draft.used.or(before.map(|before| before.used)).unwrap_or(0).max(0);
    Ok(CreditLimit { limit: draft.limit, used, refill })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::{AccountId, Ids, KeyId};

    fn key() -> Key {
        let ids = Ids::seeded(1);
        let (id, account) = (KeyId::new(&ids, 1), AccountId::new(&ids, 1));
        Key::new(id, account, String::from("VECabcde"), String::from("production"), 1)
    }

    fn refused(fields: Fields) -> Option<&'static str> {
        let mut key = key();
        let label = key.label.clone();
        let field = fields.apply(&mut key, 100).err().map(|bad| bad.field);
        assert!(field.is_none() || key.label == label, "nothing is changed");
        field
    }

    #[test]
    fn absent_keeps_and_null_clears() {
        let mut key = key();
        let text = || Some(Some(String::from("x")));
        let set = Fields {
            note: text(),
            stage: text(),
            rate_limit: Some(Some(5)),
            expires_at: Some(Some(200)),
            ..Fields::default()
        };
        set.apply(&mut key, 100).unwrap();
        Fields { stage: Some(None), expires_at: Some(None), ..Fields::default() }
            .apply(&mut key, 100)
            .unwrap();
        let want = (Some("x"), None, Some(5), None);
        let got = (key.note.as_deref(), key.stage.as_deref(), key.rate_limit, key.expires_at);
        assert_eq!(got, want);
    }

    #[test]
    fn bounds_are_named() {
        let none = Fields::default;
        assert_eq!(refused(Fields { label: Some(String::from(" ")), ..none() }), Some("label"));
        assert_eq!(refused(Fields { label: Some("x".repeat(101)), ..none() }), Some("label"));
        assert_eq!(refused(Fields { expires_at: Some(Some(100)), ..none() }), Some("expires_at"));
        let both = Fields { not_before: Some(Some(300)), expires_at: Some(Some(200)), ..none() };
        assert_eq!(refused(both), Some("not_before"));
        assert_eq!(refused(Fields { rate_limit: Some(Some(0)), ..none() }), Some("rate_limit"));
        let limit = |name: &str, limit, window_seconds| Limit {
            name: name.to_owned(),
            limit,
            window_seconds,
        };
        for limits in [
            vec![limit("a", 0, 1)],
            vec![limit("a", 1, 0)],
            vec![limit("", 1, 1)],
            vec![limit("a", 1, 1), limit("a", 2, 2)],
        ] {
            assert_eq!(refused(Fields { limits: Some(limits), ..none() }), Some("limits"));
        }
        let credit = |limit, day| {
            let refill = Some(RefillDraft { interval: Interval::Monthly, amount: 1, day });
            let draft = CreditDraft { limit, used: None, refill };
            Fields { credit_limit: Some(Some(draft)), ..none() }
        };
        assert_eq!(refused(credit(-1, None)), Some("credit_limit"));
        assert_eq!(refused(credit(1, Some(32))), Some("credit_limit"));
        assert_eq!(refused(credit(1, Some(31))), None);
    }

    #[test]
    fn a_test_key_has_no_limit_of_credits() {
        let limit = CreditDraft { limit: 10, used: None, refill: None };
        let test = |credit_limit| Fields {
            environment: Some(Environment::Test),
            credit_limit,
            ..Fields::default()
        };
        assert_eq!(refused(test(Some(Some(limit)))), Some("credit_limit"));
        assert_eq!(refused(test(Some(None))), None);
        assert_eq!(refused(test(None)), None);
        let mut key = key();
        test(None).apply(&mut key, 100).unwrap();
        assert!(key.is_test());
        let later = Fields { credit_limit: Some(Some(limit)), ..Fields::default() };
        assert!(later.apply(&mut key, 100).is_err(), "nor later");
    }

    #[test]
    fn a_new_limit_keeps_what_is_used() {
        let mut key = key();
        let set = |limit| Fields {
            credit_limit: Some(Some(CreditDraft { limit, used: None, refill: None })),
            ..Fields::default()
        };
        set(10).apply(&mut key, 100).unwrap();
        key.credit_limit.as_mut().unwrap().used = 7;
        set(20).apply(&mut key, 100).unwrap();
        assert_eq!(key.credit_limit.unwrap().used, 7);
    }
}

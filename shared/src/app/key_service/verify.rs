//! May this key be used? The one question that other programs ask all the time.
//!
//! The checks, in this order: no such key, or deleted, or not this root key's to verify; disabled or suspended;
//! expired; not from this address; a permission is missing; a rate limit is exceeded; too few credits are left.
//! What a later check would have taken is not taken where an earlier one refuses: rate limits count all or
//! nothing, and credits come last.

use std::net::IpAddr;

use super::{ServiceError, require_somewhere};
use crate::app::App;
use crate::domain::clock::Millis;
use crate::domain::id::{ApiId, KeyId};
use crate::domain::key::fields::BadField;
use crate::domain::key::service::{RateLimit, check_limit_name, check_window, remaining};
use crate::domain::key::{Key, Refusal, Secret};
use crate::domain::permission::Question;
use crate::domain::request::Outcome;
use crate::domain::root_key::{Action, RootKey};
use crate::store::spend::Taking;
use crate::throttle::windows::{Standing, Window};

/// The answer in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// It may be used.
    Valid,
    /// No such key.
    NotFound,
    /// Not from this address.
    Forbidden,
    /// A permission is missing.
    InsufficientPermissions,
    /// Too few credits are left.
    UsageExceeded,
    /// A rate limit is exceeded.
    RateLimited,
    /// Switched off by its owner, or suspended by an operator.
    Disabled,
    /// Past its end.
    Expired,
}

impl Code {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Code::Valid => "VALID",
            Code::NotFound => "NOT_FOUND",
            Code::Forbidden => "FORBIDDEN",
            Code::InsufficientPermissions => "INSUFFICIENT_PERMISSIONS",
            Code::UsageExceeded => "USAGE_EXCEEDED",
            Code::RateLimited => "RATE_LIMITED",
            Code::Disabled => "DISABLED",
            Code::Expired => "EXPIRED",
        }
    }
}

/// A rate limit that a verification names.
#[derive(Debug, Clone)]
pub struct Named {
    /// Its name; the key's own figures hold where there are none here.
    pub name: String,
    /// Uses that it costs.
    pub cost: u32,
    /// Uses in a window.
    pub limit: Option<u32>,
    /// Its length in milliseconds.
    pub duration_ms: Option<u32>,
}

/// What is asked.
#[derive(Debug, Clone)]
pub struct Verification {
    /// The key.
    pub secret: String,
    /// Of one of these apis; `None` = of any.
    pub apis: Option<Vec<ApiId>>,
    /// Permissions that it must hold.
    pub permissions: Option<Question>,
    /// Rate limits besides those that are always judged.
    pub limits: Vec<Named>,
    /// Credits that it costs, 0 or more.
    pub cost: i64,
    /// Who presented the key.
    pub from: Option<IpAddr>,
}

/// How a rate limit stands.
#[derive(Debug, Clone)]
pub struct JudgedLimit {
    /// The limit as it was judged.
    pub limit: RateLimit,
    /// Is it exceeded?
    pub exceeded: bool,
    /// Uses that are left.
    pub remaining: u32,
    /// When its oldest use leaves the window.
    pub reset_at: Millis,
}

/// What is answered.
#[derive(Debug, Clone)]
pub struct Verified {
    /// In one word.
    pub code: Code,
    /// The key, unless there is none.
    pub key: Option<Key>,
    /// Credits that are left; `None` = nothing is limited.
    pub remaining: Option<i64>,
    /// The rate limits that were judged.
    pub limits: Vec<JudgedLimit>,
    /// Which key of the account was presented, whether it is told or not: one that is deleted, say.
    pub presented: Option<KeyId>,
}

impl Verified {
    /// The same in the gate's words, for the request log.
    pub fn outcome(&self) -> Outcome {
        match self.code {
            Code::Valid => Outcome::Accepted,
            Code::NotFound => Outcome::Unknown,
            Code::Forbidden => Outcome::NotAllowed,
            Code::InsufficientPermissions => Outcome::Scope,
            Code::UsageExceeded => Outcome::CreditLimit,
            Code::RateLimited => Outcome::RateLimit,
            Code::Disabled if self.key.as_ref().is_some_and(|key| !key.disabled) => {
                Outcome::Suspended
            }
            Code::Disabled => Outcome::Disabled,
            Code::Expired => Outcome::Expired,
        }
    }
}

impl App {
    /// Verifies a key, and takes what it costs if it is valid.
    pub async fn verify_service_key(
        &self,
        root: &RootKey,
        asked: Verification,
    ) -> Result<Verified, ServiceError> {
        require_somewhere(root, Action::VerifyKey)?;
        let nobody = |presented| Verified {
            code: Code::NotFound,
            key: None,
            remaining: None,
            limits: Vec::new(),
            presented,
        };
        let Some(secret) = Secret::foreign(&asked.secret) else { return Ok(nobody(None)) };
        // Another account's is none here, and is not written down as anybody's.
        let found = self.find_service_key(&secret).await?;
        let found = found.filter(|key| key.account == root.account);
        let presented = found.as_ref().map(|key| key.id);
        let Some(key) = found.filter(|key| own(root, key, asked.apis.as_deref())) else {
            return Ok(nobody(presented));
        };
        let now = self.now();
        let left = remaining(key.credit_limit, now);
        let refused = |code, limits, key| Verified {
            code,
            key: Some(key),
            remaining: left,
            limits,
            presented,
        };
        if let Some(code) = judge(&key, asked.from, asked.permissions.as_ref(), now) {
            return Ok(if code == Code::NotFound {
                nobody(presented)
            } else {
                refused(code, Vec::new(), key)
            });
        }
        let limits = self.judge_limits(&key, &asked.limits, now).await?;
        if limits.iter().any(|one| one.exceeded) {
            return Ok(refused(Code::RateLimited, limits, key));
        }
        match left {
            Some(left) if left < asked.cost => Ok(refused(Code::UsageExceeded, limits, key)),
            Some(_) if asked.cost > 0 => {
                let taking = Taking { key: key.budget, credits: asked.cost, now };
                let taken = self.service.spender.take(taking).await?;
                let code = if taken.granted { Code::Valid } else { Code::UsageExceeded };
                let remaining = taken.left;
                Ok(Verified { code, key: Some(key), remaining, limits, presented })
            }
            _ => Ok(refused(Code::Valid, limits, key)),
        }
    }

    async fn judge_limits(
        &self,
        key: &Key,
        named: &[Named],
        now: Millis,
    ) -> Result<Vec<JudgedLimit>, BadField> {
        let limits = limits_to_judge(&key.service.rate_limits, named)?;
        if limits.is_empty() {
            return Ok(Vec::new());
        }
        let windows: Vec<Window<'_>> = limits
            .iter()
            .map(|(limit, cost)| Window {
                name: &limit.name,
                limit: limit.limit,
                window_ms: limit.duration_ms,
                cost: *cost,
            })
            .collect();
        let standings = self.service.windows.take(key.family.0.as_u128(), &windows, now).await;
        let judged = |((limit, _), standing): ((RateLimit, u32), Standing)| JudgedLimit {
            limit,
            exceeded: standing.exceeded,
            remaining: standing.remaining,
            reset_at: now + standing.reset_ms,
        };
        Ok(limits.into_iter().zip(standings).map(judged).collect())
    }
}

/// Is it this root key's to verify?
fn own(root: &RootKey, key: &Key, apis: Option<&[ApiId]>) -> bool {
    key.account == root.account
        && key.api.is_some_and(|api| {
            root.may(Action::VerifyKey, Some(api)) && apis.is_none_or(|apis| apis.contains(&api))
        })
}

/// The checks that take nothing; `None` = it passes them.
fn judge(
    key: &Key,
    from: Option<IpAddr>,
    permissions: Option<&Question>,
    now: Millis,
) -> Option<Code> {
    if let Err(refusal) = key.admit(now, from) {
        return Some(match refusal {
            Refusal::Unknown => Code::NotFound,
            Refusal::Disabled | Refusal::Suspended(_) => Code::Disabled,
            Refusal::Expired => Code::Expired,
            _ => Code::Forbidden,
        });
    }
    let lacks = |question: &Question| !question.holds(&key.service.permissions);
    permissions.is_some_and(lacks).then_some(Code::InsufficientPermissions)
}

/// The limits that are judged, with what they cost: those that always are, and those that are named.
fn limits_to_judge(own: &[RateLimit], named: &[Named]) -> Result<Vec<(RateLimit, u32)>, BadField> {
    let bad = |want: String| BadField { field: "ratelimits", want };
    let mut limits: Vec<(RateLimit, u32)> = own
        .iter()
        .filter(|limit| limit.auto_apply && !named.iter().any(|other| other.name == limit.name))
        .map(|limit| (limit.clone(), 1))
        .collect();
    for (at, one) in named.iter().enumerate() {
        check_limit_name(&one.name)?;
        if named.iter().take(at).any(|other| other.name == one.name) {
            return Err(bad(format!("must not name {:?} twice", one.name)));
        }
        let kept = own.iter().find(|limit| limit.name == one.name);
        let limit = one.limit.or(kept.map(|limit| limit.limit));
        let duration = one.duration_ms.or(kept.map(|limit| limit.duration_ms));
        let (Some(limit), Some(duration_ms)) = (limit, duration) else {
            return Err(bad(format!(
                "must say the \"limit\" and the \"duration\" of {:?}, as this key has no limit of that name",
                one.name
            )));
        };
        check_window(limit, duration_ms)?;
        let auto_apply = kept.is_some_and(|limit| limit.auto_apply);
        limits
            .push((RateLimit { name: one.name.clone(), limit, duration_ms, auto_apply }, one.cost));
    }
    Ok(limits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::{AccountId, Ids};
    use crate::domain::key::Suspension;

    #[test]
    fn checks_come_in_their_order() {
        let ids = Ids::seeded(1);
        let (id, account) = (KeyId::new(&ids, 1), AccountId::new(&ids, 1));
        let mut key = Key::new(id, account, String::from("prod_abcd"), String::new(), 1);
        let question = Question::parse("documents.read").unwrap();
        let home: Option<IpAddr> = Some("192.0.2.1".parse().unwrap());
        let code = |key: &Key, from| judge(key, from, Some(&question), 5);
        key.service.permissions = vec![String::from("documents.*")];
        assert_eq!(code(&key, None), None);
        key.service.permissions.clear();
        assert_eq!(code(&key, None), Some(Code::InsufficientPermissions));
        assert_eq!(judge(&key, None, None, 5), None, "nothing is asked for");
        key.allow = vec!["192.0.2.0/24".parse().unwrap()];
        assert_eq!(code(&key, home), Some(Code::InsufficientPermissions));
        assert_eq!(code(&key, None), Some(Code::Forbidden));
        key.expires_at = Some(5);
        assert_eq!(code(&key, None), Some(Code::Expired));
        let reason = String::from("abuse");
        key.suspended = Some(Suspension { reason, until: None, note: None });
        assert_eq!(code(&key, None), Some(Code::Disabled));
        key.suspended = None;
        key.disabled = true;
        assert_eq!(code(&key, None), Some(Code::Disabled));
        key.deleted_at = Some(2);
        assert_eq!(code(&key, None), Some(Code::NotFound));
    }

    #[test]
    fn a_verdict_has_the_gates_word() {
        let ids = Ids::seeded(1);
        let (id, account) = (KeyId::new(&ids, 1), AccountId::new(&ids, 1));
        let key = Key::new(id, account, String::from("prod_abcd"), String::new(), 1);
        let of = |code, disabled| {
            let key = Some(Key { disabled, ..key.clone() });
            let verified =
                Verified { code, key, remaining: None, limits: Vec::new(), presented: Some(id) };
            verified.outcome().as_str()
        };
        for (code, word) in [
            (Code::Valid, "accepted"),
            (Code::NotFound, "unknown"),
            (Code::Forbidden, "not_allowed"),
            (Code::InsufficientPermissions, "scope"),
            (Code::UsageExceeded, "credit_limit"),
            (Code::RateLimited, "rate_limit"),
            (Code::Expired, "expired"),
        ] {
            assert_eq!(of(code, false), word);
        }
        assert_eq!(
            (of(Code::Disabled, true), of(Code::Disabled, false)),
            ("disabled", "suspended")
        );
    }

    #[test]
    fn limits_are_the_keys_and_the_callers() {
        let own = |name: &str, auto_apply| RateLimit {
            name: name.to_owned(),
            limit: 10,
            duration_ms: 60_000,
            auto_apply,
        };
        let owned = [own("always", true), own("asked", false)];
        let named = |name: &str, limit, duration_ms| Named {
            name: name.to_owned(),
            cost: 3,
            limit,
            duration_ms,
        };
        let judged = |named: &[Named]| {
            let limits = limits_to_judge(&owned, named)?;
            let short =
                |(one, cost): (RateLimit, u32)| (one.name, one.limit, one.duration_ms, cost);
            Ok::<_, BadField>(limits.into_iter().map(short).collect::<Vec<_>>())
        };
        let line = |name: &str, limit, ms, cost| (name.to_owned(), limit, ms, cost);
        assert_eq!(judged(&[]).unwrap(), [line("always", 10, 60_000, 1)]);
        assert_eq!(
            judged(&[named("asked", None, None)]).unwrap(),
            [line("always", 10, 60_000, 1), line("asked", 10, 60_000, 3)]
        );
        assert_eq!(
            judged(&[named("always", Some(5), None)]).unwrap(),
            [line("always", 5, 60_000, 3)],
            "once, as the caller says"
        );
        assert_eq!(judged(&[named("new", Some(5), Some(1_000))]).unwrap()[1].0, "new");
        for wrong in [
            vec![named("new", Some(5), None)],
            vec![named("new", Some(5), Some(10))],
            vec![named("ab", Some(5), Some(1_000))],
            vec![named("asked", None, None), named("asked", None, None)],
        ] {
            assert_eq!(judged(&wrong).unwrap_err().field, "ratelimits");
        }
    }
}

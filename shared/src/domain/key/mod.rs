//! API keys: what one is, and what the gate decides about it.
//!
//! A [`Key`] belongs to an account and never owns anything: tasks are the account's. Keys that came from each
//! other by rotation are a family, named by the id of the first: they share limits of requests, and what is
//! their own. A limit of credits may be shared by more (`budget`): what a limited key makes spends from the same.
//! [`Key::admit`] is the gate's judgement on the state just read; the order of [`Refusal`]'s variants is that
//! of its checks.

pub mod credit;
pub mod fields;
pub mod import;
mod link;
pub mod pepper;
mod rotation;
mod scope;
mod secret;
pub mod service;

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use self::credit::{CreditLimit, Interval, Refill};
pub use self::link::Token;
pub use self::pepper::{Pepper, Peppers};
pub use self::scope::{NoScope, Scope, Scopes};
pub use self::secret::{KeyHash, Secret};
pub use self::service::Service;

use super::account::Suspended;
use super::audit::Actor;
use super::clock::Millis;
use super::id::{AccountId, ApiId, KeyId};

/// What a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Environment {
    /// The real thing.
    Live,
    /// The sandbox answers, and nothing is charged.
    Test,
}

impl Environment {
    /// Its name outside and in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Environment::Live => "live",
            Environment::Test => "test",
        }
    }

    /// Reads the name.
    pub fn parse(name: &str) -> Option<Self> {
        [Environment::Live, Environment::Test].into_iter().find(|one| one.as_str() == name)
    }
}

/// A named limit: a sliding window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// `requests` counts every request; others are named by callers of `verifyKey`.
    pub name: String,
    /// Uses in a window.
    pub limit: u32,
    /// Its length.
    pub window_seconds: u32,
}

/// Suspended by an operator or by abuse protection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspension {
    /// What the key's user is told.
    pub reason: String,
    /// When it ends by itself; `None` = when it is lifted.
    pub until: Option<Millis>,
    /// For operators.
    pub note: Option<String>,
}

/// A key as stored.
#[derive(Debug, Clone)]
pub struct Key {
    /// Its id.
    pub id: KeyId,
    /// Its account.
    pub account: AccountId,
    /// Its first characters.
    pub start: String,
    /// The owner's name for it.
    pub label: String,
    /// Private to the account.
    pub note: Option<String>,
    /// What it is for.
    pub environment: Environment,
    /// A free name of where it is used.
    pub stage: Option<String>,
    /// What it may do.
    pub scopes: Scopes,
    /// Switched off by its owner.
    pub disabled: bool,
    /// Suspended, and why.
    pub suspended: Option<Suspension>,
    /// Gone for good.
    pub deleted_at: Option<Millis>,
    /// When it ends by itself.
    pub expires_at: Option<Millis>,
    /// Before this it opens nothing.
    pub not_before: Option<Millis>,
    /// Where it may be used from; empty = anywhere.
    pub allow: Vec<IpNet>,
    /// Requests a minute on own routes; `None` = the default.
    pub rate_limit: Option<i64>,
    /// Its named limits.
    pub limits: Vec<Limit>,
    /// Its own limit of credits: that of its budget.
    pub credit_limit: Option<CreditLimit>,
    /// The owner's id for whom it was given to.
    pub external_id: Option<String>,
    /// JSON that is the owner's own.
    pub meta: Option<String>,
    /// Who made it.
    pub maker: Actor,
    /// The first key of its rotations.
    pub family: KeyId,
    /// The key in whose row its limit of credits stands.
    pub budget: KeyId,
    /// The key that a rotation put in its place.
    pub replaced_by: Option<KeyId>,
    /// The api that it belongs to; `None` = a key of our own gate. A key of an api opens nothing here.
    pub api: Option<ApiId>,
    /// What only keys of an api have.
    pub service: Service,
    /// When it was made.
    pub created_at: Millis,
}

/// Why the gate refuses; the order of the variants is the order of the checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The caller's address is blocked.
    IpBlocked,
    /// No key, or not in the right form.
    Malformed,
    /// No such key, or deleted.
    Unknown,
    /// Switched off by its owner.
    Disabled,
    /// Suspended, and why.
    Suspended(String),
    /// Past its end.
    Expired,
    /// Its time has not come.
    NotYet,
    /// Not from this address; `None` where it is not known.
    NotAllowed(Option<IpAddr>),
    /// It lacks a scope.
    Scope(Scope),
    /// Its own limit of credits is used up.
    CreditLimit(i64),
}

impl Key {
    /// A live key with every scope and no limits.
    pub fn new(
        id: KeyId,
        account: AccountId,
        start: String,
        label: String,
        created_at: Millis,
    ) -> Self {
        Self {
            id,
            account,
            start,
            label,
            note: None,
            environment: Environment::Live,
            stage: None,
            scopes: Scopes::EVERYTHING,
            disabled: false,
            suspended: None,
            deleted_at: None,
            expires_at: None,
            not_before: None,
            allow: Vec::new(),
            rate_limit: None,
            limits: Vec::new(),
            credit_limit: None,
            external_id: None,
            meta: None,
            maker: Actor::Operator,
            family: id,
            budget: id,
            replaced_by: None,
            api: None,
            service: Service::default(),
            created_at,
        }
    }

    /// The checks of the key's own state and of where it is used: 3 to 7 of the gate.
    pub fn admit(&self, now: Millis, from: Option<IpAddr>) -> Result<(), Refusal> {
        self.alive(now)?;
        let allowed = |ip: IpAddr| self.allow.iter().any(|network| network.contains(&ip));
        if !self.allow.is_empty() && !from.is_some_and(allowed) {
            return Err(Refusal::NotAllowed(from));
        }
        Ok(())
    }

    /// Likewise, for a key whose account may be suspended: that is said where the key's own suspension would be.
    pub fn admit_in(
        &self,
        account: Option<&Suspended>,
        now: Millis,
        from: Option<IpAddr>,
    ) -> Result<(), Refusal> {
        match (self.admit(now, from), account) {
            (Err(Refusal::Unknown), _) => Err(Refusal::Unknown),
            (Err(Refusal::Disabled), _) => Err(Refusal::Disabled),
            (_, Some(account)) => Err(Refusal::Suspended(account.told())),
            (own, None) => own,
        }
    }

    /// The checks of the key's own state: 3 to 6 of the gate.
    pub fn alive(&self, now: Millis) -> Result<(), Refusal> {
        if self.deleted_at.is_some() {
            return Err(Refusal::Unknown);
        }
        if self.disabled {
            return Err(Refusal::Disabled);
        }
        if let Some(suspended) = self.suspension(now) {
            return Err(Refusal::Suspended(suspended.reason.clone()));
        }
        if self.expires_at.is_some_and(|end| end <= now) {
            return Err(Refusal::Expired);
        }
        if self.not_before.is_some_and(|begin| begin > now) {
            return Err(Refusal::NotYet);
        }
        Ok(())
    }

    /// Check 8: does it have the scope that a route needs?
    pub fn permit(&self, scope: Scope) -> Result<(), Refusal> {
        if self.scopes.allow(scope) { Ok(()) } else { Err(Refusal::Scope(scope)) }
    }

    /// Is it a test key? What it asks and submits the sandbox verifies, for nothing, and it touches nothing that is
    /// live. That never changes.
    pub fn is_test(&self) -> bool {
        self.environment == Environment::Test
    }

    /// Check 10: is anything left of its own limit of credits? A test key spends nothing.
    pub fn afford(&self, now: Millis) -> Result<(), Refusal> {
        match self.credit_limit {
            Some(limit) if limit.left(now) == 0 && !self.is_test() => {
                Err(Refusal::CreditLimit(limit.limit))
            }
            _ => Ok(()),
        }
    }

    /// Its suspension, if that has not ended.
    pub fn suspension(&self, now: Millis) -> Option<&Suspension> {
        self.suspended.as_ref().filter(|one| one.until.is_none_or(|end| end > now))
    }

    /// Its state in one word, for lists.
    pub fn status(&self, now: Millis) -> &'static str {
        match self.alive(now) {
            Ok(()) | Err(Refusal::NotYet) => "active",
            Err(Refusal::Disabled) => "disabled",
            Err(Refusal::Suspended(_)) => "suspended",
            Err(Refusal::Expired) => "expired",
            Err(_) => "deleted",
        }
    }

    /// Is `other` able to do only what this key can? `Err`: the field in which it could do more, and what it
    /// may be at the most. A key never grants more than it has.
    pub fn covers(&self, other: &Key) -> Result<(), (&'static str, String)> {
        if !self.scopes.cover(other.scopes) {
            let most = self.scopes.names().join(" ");
            return Err(("scopes", format!("can hold no more than this key has: {most}")));
        }
        if self.is_test() && !other.is_test() {
            return Err(("environment", String::from("must be test, as this key's is")));
        }
        let inside = |network: &IpNet| self.allow.iter().any(|wider| wider.contains(network));
        if !self.allow.is_empty() && (other.allow.is_empty() || !other.allow.iter().all(inside)) {
            return Err(("allow", String::from("must lie inside this key's own networks")));
        }
        if let Some(end) = self.expires_at
            && other.expires_at.is_none_or(|other| other > end)
        {
            return Err(("expires_at", String::from("must not be later than this key's own end")));
        }
        if let Some(rate) = self.rate_limit
            && other.rate_limit.is_none_or(|other| other > rate)
        {
            return Err(("rate_limit", format!("must not be more than this key's own: {rate}")));
        }
        if let Some(limit) = self.limits.iter().find(|limit| !other.limits.contains(limit)) {
            return Err(("limits", format!("must hold this key's own limit {:?}", limit.name)));
        }
        // What spends nothing takes nothing of a limit.
        if let Some(own) = self.credit_limit.filter(|_| !other.is_test()) {
            let within = |limit: CreditLimit| {
                limit.limit <= own.limit && limit.refill.is_none_or(|refill| own.fills_as(refill))
            };
            if other.budget != self.budget || !other.credit_limit.is_some_and(within) {
                let most = "must be this key's own limit, or less of it: what a limited key makes spends from the same";
                return Err(("credit_limit", most.to_owned()));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::Ids;

    fn key() -> Key {
        let ids = Ids::seeded(1);
        let (id, account) = (KeyId::new(&ids, 1), AccountId::new(&ids, 1));
        Key::new(id, account, String::from("VECabcde"), String::from("production"), 1)
    }

    fn nets(text: &str) -> Vec<IpNet> {
        text.split(' ').map(|one| one.parse().unwrap()).collect()
    }

    #[test]
    fn checks_come_in_the_order_of_the_gate() {
        let mut key = key();
        let home: Option<IpAddr> = Some("192.0.2.1".parse().unwrap());
        assert_eq!(key.admit(5, None), Ok(()));
        key.allow = nets("192.0.2.0/24 2001:db8::/32");
        assert_eq!(key.admit(5, home), Ok(()));
        assert_eq!(key.admit(5, Some("2001:db8::7".parse().unwrap())), Ok(()));
        let away: Option<IpAddr> = Some("192.0.3.1".parse().unwrap());
        assert_eq!(key.admit(5, away), Err(Refusal::NotAllowed(away)));
        assert_eq!(key.admit(5, None), Err(Refusal::NotAllowed(None)));
        key.not_before = Some(6);
        assert_eq!(key.admit(5, away), Err(Refusal::NotYet));
        assert_eq!(key.admit(6, home), Ok(()));
        key.expires_at = Some(5);
        assert_eq!(key.admit(4, home), Err(Refusal::NotYet));
        assert_eq!(key.admit(5, home), Err(Refusal::Expired));
        let reason = String::from("abuse");
        key.suspended = Some(Suspension { reason: reason.clone(), until: Some(6), note: None });
        assert_eq!(key.admit(5, home), Err(Refusal::Suspended(reason)));
        assert_eq!(key.admit(6, home), Err(Refusal::Expired), "it ended by itself");
        let (reason, contact) = (String::from("spam"), String::from("abuse@a.example"));
        let account = Suspended { reason, contact, since: 1 };
        let suspended = Err(Refusal::Suspended(account.told()));
        assert_eq!(key.admit_in(None, 6, home), Err(Refusal::Expired));
        assert_eq!(key.admit_in(Some(&account), 5, home), suspended, "above its own");
        assert_eq!(key.admit_in(Some(&account), 6, away), suspended);
        key.disabled = true;
        assert_eq!(key.admit(5, home), Err(Refusal::Disabled));
        assert_eq!(key.admit_in(Some(&account), 5, home), Err(Refusal::Disabled));
        key.deleted_at = Some(3);
        assert_eq!(key.admit(5, home), Err(Refusal::Unknown));
        assert_eq!(key.admit_in(Some(&account), 5, home), Err(Refusal::Unknown));
    }

    #[test]
    fn a_key_never_grants_more_than_it_has() {
        let giver = Key {
            scopes: Scopes::parse(["keys:write", "tasks:read"]).unwrap(),
            allow: nets("10.0.0.0/8"),
            expires_at: Some(100),
            rate_limit: Some(60),
            ..key()
        };
        let given = Key { budget: KeyId::FIRST, ..giver.clone() };
        assert_eq!(giver.covers(&given), Ok(()));
        let field = |given: Key| giver.covers(&given).err().map(|(field, _)| field);
        assert_eq!(field(Key { scopes: Scopes::EVERYTHING, ..given.clone() }), Some("scopes"));
        assert_eq!(field(Key { allow: Vec::new(), ..given.clone() }), Some("allow"));
        assert_eq!(field(Key { allow: nets("10.1.0.0/16"), ..given.clone() }), None);
        assert_eq!(
            field(Key { allow: nets("10.1.0.0/16 11.0.0.1/32"), ..given.clone() }),
            Some("allow")
        );
        assert_eq!(field(Key { expires_at: None, ..given.clone() }), Some("expires_at"));
        assert_eq!(field(Key { expires_at: Some(99), ..given.clone() }), None);
        assert_eq!(field(Key { rate_limit: Some(61), ..given.clone() }), Some("rate_limit"));
        let limit = CreditLimit { limit: 5, used: 0, refill: None };
        let limited = Key { credit_limit: Some(limit), ..giver.clone() };
        assert_eq!(limited.covers(&given).unwrap_err().0, "credit_limit");
        let same = |limit| Key { budget: limited.budget, credit_limit: limit, ..given.clone() };
        assert_eq!(limited.covers(&same(Some(limit))), Ok(()));
        assert_eq!(limited.covers(&same(Some(CreditLimit { limit: 4, ..limit }))), Ok(()));
        let daily = Refill { interval: Interval::Daily, amount: 1, day: 1, at: 100 };
        for more in [
            None,
            Some(CreditLimit { limit: 6, ..limit }),
            Some(CreditLimit { refill: Some(daily), ..limit }),
        ] {
            assert_eq!(limited.covers(&same(more)).unwrap_err().0, "credit_limit", "{more:?}");
        }
        let one = Limit { name: String::from("requests"), limit: 5, window_seconds: 10 };
        let narrow = Key { limits: vec![one], ..giver.clone() };
        assert_eq!(
            narrow.covers(&Key { limits: Vec::new(), ..narrow.clone() }).unwrap_err().0,
            "limits"
        );
        let test = Key { environment: Environment::Test, ..giver.clone() };
        assert_eq!(test.covers(&given).unwrap_err().0, "environment");
        let free = Key { environment: Environment::Test, ..given.clone() };
        assert_eq!(limited.covers(&free), Ok(()), "a test key spends nothing of a limit");
    }

    #[test]
    fn a_limit_of_credits_is_used_up_and_filled_again() {
        let refill = Refill { interval: Interval::Daily, amount: 5, day: 1, at: 100 };
        let limit = CreditLimit { limit: 5, used: 5, refill: Some(refill) };
        let key = Key { credit_limit: Some(limit), ..key() };
        assert_eq!(key.afford(99), Err(Refusal::CreditLimit(5)));
        assert_eq!(key.afford(100), Ok(()));
    }
}

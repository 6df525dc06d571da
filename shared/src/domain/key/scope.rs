//! What a key may do.
//!
//! A key has a set of scopes, kept as one bit each. `*` is all of them, those of later versions included.
//! `tasks:own` narrows: the other scopes of tasks then hold only for what this key itself submitted, and it
//! gives reading those by itself.

use std::fmt;
use std::str::FromStr;

/// One permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Verify a single address.
    Verify,
    /// Submit lists, erase tasks.
    TasksWrite,
    /// See tasks and their results.
    TasksRead,
    /// Cancel, pause and resume tasks.
    TasksCancel,
    /// See what this key itself submitted; narrows the other scopes of tasks to that.
    TasksOwn,
    /// See the account's keys, what they were used for, and their receipts.
    KeysRead,
    /// Make, change and end keys.
    KeysWrite,
    /// See credits, ledger, requests, usage and the audit log.
    AccountRead,
    /// See webhooks.
    WebhooksRead,
    /// Change webhooks.
    WebhooksWrite,
}

impl Scope {
    /// Every scope, in the order of their bits.
    pub const ALL: [Scope; 10] = [
        Scope::Verify,
        Scope::TasksWrite,
        Scope::TasksRead,
        Scope::TasksCancel,
        Scope::TasksOwn,
        Scope::KeysRead,
        Scope::KeysWrite,
        Scope::AccountRead,
        Scope::WebhooksRead,
        Scope::WebhooksWrite,
    ];

    /// Its name outside.
    pub fn as_str(self) -> &'static str {
        match self {
            Scope::Verify => "verify",
            Scope::TasksWrite => "tasks:write",
            Scope::TasksRead => "tasks:read",
            Scope::TasksCancel => "tasks:cancel",
            Scope::TasksOwn => "tasks:own",
            Scope::KeysRead => "keys:read",
            Scope::KeysWrite => "keys:write",
            Scope::AccountRead => "account:read",
            Scope::WebhooksRead => "webhooks:read",
            Scope::WebhooksWrite => "webhooks:write",
        }
    }

    fn bit(self) -> i32 {
        1 << self as i32
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no scope.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no scope")]
pub struct NoScope(pub String);

impl FromStr for Scope {
    type Err = NoScope;

    fn from_str(text: &str) -> Result<Self, NoScope> {
        let found = Scope::ALL.into_iter().find(|scope| scope.as_str() == text);
        found.ok_or_else(|| NoScope(text.to_owned()))
    }
}

/// The scopes of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Scopes(i32);

impl Scopes {
    /// `*`: fifteen bits, so that a scope of a later version is in it, too.
    pub const EVERYTHING: Scopes = Scopes(0x7fff);
    /// None.
    pub const NONE: Scopes = Scopes(0);

    /// As stored.
    pub fn from_bits(bits: i32) -> Self {
        Self(bits & Self::EVERYTHING.0)
    }

    /// To be stored.
    pub fn bits(self) -> i32 {
        self.0
    }

    /// Is this `*`?
    pub fn is_everything(self) -> bool {
        self == Self::EVERYTHING
    }

    /// Only what the key itself submitted?
    pub fn own_only(self) -> bool {
        !self.is_everything() && self.has(Scope::TasksOwn)
    }

    /// Is this one among them?
    pub fn has(self, scope: Scope) -> bool {
        self.0 & scope.bit() != 0
    }

    /// Do they allow what needs this scope?
    pub fn allow(self, scope: Scope) -> bool {
        self.has(scope) || (scope == Scope::TasksRead && self.has(Scope::TasksOwn))
    }

    /// Would a key with `other` be able to do only what one with these can? A key that is narrowed to its own
    /// tasks covers none that sees those of others.
    pub fn cover(self, other: Scopes) -> bool {
        const OF_TASKS: [Scope; 3] = [Scope::TasksWrite, Scope::TasksRead, Scope::TasksCancel];
        let wider = self.own_only()
            && !other.own_only()
            && OF_TASKS.into_iter().any(|scope| other.allow(scope));
        let beyond = |scope: &Scope| match scope {
            Scope::TasksOwn => other.own_only() && !self.allow(Scope::TasksRead),
            scope => other.has(*scope) && !self.allow(*scope),
        };
        !wider && (self.is_everything() || !other.is_everything()) && !Scope::ALL.iter().any(beyond)
    }

    /// Their names; `*` alone for all.
    pub fn names(self) -> Vec<&'static str> {
        if self.is_everything() {
            return vec!["*"];
        }
        Scope::ALL.into_iter().filter(|scope| self.has(*scope)).map(Scope::as_str).collect()
    }

    /// Reads their names; `*` among them is all, `webhooks:*` both of webhooks, and so on.
    pub fn parse<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, NoScope> {
        let mut all = Self::NONE;
        for name in names {
            if name == "*" {
                all = Self::EVERYTHING;
            } else if let Some(room) = name.strip_suffix(":*") {
                // `tasks:own` is a limit, not a permission: only by its name.
                let inside = |scope: &Scope| {
                    *scope != Scope::TasksOwn
                        && scope.as_str().split_once(':').is_some_and(|(of, _)| of == room)
                };
                let bits =
                    Scope::ALL.iter().filter(|s| inside(s)).fold(0, |bits, s| bits | s.bit());
                if bits == 0 {
                    return Err(NoScope(name.to_owned()));
                }
                all.0 |= bits;
            } else {
                all.0 |= name.parse::<Scope>()?.bit();
            }
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(names: &[&str]) -> Scopes {
        Scopes::parse(names.iter().copied()).unwrap()
    }

    #[test]
    fn names_round_trip() {
        for scope in Scope::ALL {
            assert_eq!(scope.as_str().parse::<Scope>().unwrap(), scope);
        }
        assert_eq!(of(&["*"]).names(), ["*"]);
        assert_eq!(of(&["webhooks:*"]).names(), ["webhooks:read", "webhooks:write"]);
        assert_eq!(of(&["tasks:*"]).names(), ["tasks:write", "tasks:read", "tasks:cancel"]);
        for wrong in ["", "tasks", "task:read", "nothing:*", "verify:*", "TASKS:READ"] {
            assert!(Scopes::parse([wrong]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn own_gives_reading_and_narrows_the_rest() {
        let own = of(&["tasks:own", "tasks:write"]);
        assert!(own.own_only() && own.allow(Scope::TasksRead) && own.allow(Scope::TasksWrite));
        assert!(!own.allow(Scope::TasksCancel));
        assert!(!Scopes::EVERYTHING.own_only());
        assert!(
            !own.cover(of(&["tasks:write"])),
            "that one would see everything it submits, as all do"
        );
        assert!(!own.cover(of(&["tasks:read"])));
        assert!(own.cover(of(&["tasks:own"])));
        assert!(of(&["tasks:read"]).cover(of(&["tasks:own"])));
        assert!(!of(&["verify"]).cover(of(&["tasks:own"])));
    }

    proptest! {
        /// What a covered key may do, the covering one may do.
        #[test]
        fn nobody_gives_what_they_do_not_have(a in 0i32..1 << 10, b in 0i32..1 << 10) {
            let (giver, given) = (Scopes::from_bits(a), Scopes::from_bits(b));
            if giver.cover(given) {
                for scope in Scope::ALL.into_iter().filter(|scope| *scope != Scope::TasksOwn) {
                    prop_assert!(!given.allow(scope) || giver.allow(scope), "{scope}");
                }
                prop_assert!(!giver.own_only() || given.own_only()
                    || !given.allow(Scope::TasksRead) && !given.allow(Scope::TasksCancel));
            }
            prop_assert!(giver.cover(giver));
            prop_assert!(Scopes::EVERYTHING.cover(given));
        }
    }
}

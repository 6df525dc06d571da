//! What a verification found.
//!
//! A [`Reason`] decides its [`Status`] and whether the credit is charged; rows store the reason's
//! code alone, so the two can never disagree. Codes are part of the stored data: never reuse one.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Serialize, Serializer};

/// The four answers a user acts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// The mail server accepts the address.
    Deliverable,
    /// Mail to it comes back.
    Undeliverable,
    /// It may arrive, or arrive nowhere useful.
    Risky,
    /// Nobody could tell; never charged.
    Unknown,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal, $status:ident, $score:literal;)*) => {
        /// Why an address has its status.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[$doc])* $name,)* }

        impl Reason {
            /// Every reason.
            pub const ALL: &[Reason] = &[$(Reason::$name,)*];

            /// The stored code.
            pub const fn code(self) -> i16 {
                match self { $(Reason::$name => $code,)* }
            }

            /// From the stored code.
            pub const fn from_code(code: i16) -> Option<Self> {
                match code { $($code => Some(Reason::$name),)* _ => None }
            }

            /// The name shown outside.
            pub const fn as_str(self) -> &'static str {
                match self { $(Reason::$name => $text,)* }
            }

            /// The status it stands for.
            pub const fn status(self) -> Status {
                match self { $(Reason::$name => Status::$status,)* }
            }

            /// Chance of delivery, 0 to 100, when nothing else is known.
            pub const fn score(self) -> i16 {
                match self { $(Reason::$name => $score,)* }
            }
        }
    };
}

reasons! {
    Accepted = 1, "accepted", Deliverable, 98;
    InvalidSyntax = 10, "invalid_syntax", Undeliverable, 3;
    NoDomain = 11, "no_domain", Undeliverable, 3;
    NoMx = 12, "no_mx", Undeliverable, 3;
    MailboxNotFound = 13, "mailbox_not_found", Undeliverable, 3;
    MailboxDisabled = 14, "mailbox_disabled", Undeliverable, 4;
    CatchAll = 20, "catch_all", Risky, 71;
    MailboxFull = 21, "mailbox_full", Risky, 20;
    Disposable = 22, "disposable", Risky, 30;
    Timeout = 30, "timeout", Unknown, 0;
    NoConnect = 31, "no_connect", Unknown, 0;
    Greylisted = 32, "greylisted", Unknown, 0;
    Blocked = 33, "blocked", Unknown, 0;
    SmtpUnavailable = 34, "smtp_unavailable", Unknown, 0;
    InternalError = 35, "internal_error", Unknown, 0;
}

impl Reason {
    /// How an address with this reason ends for the ledger.
    pub const fn credit(self) -> Credit {
        match self {
            Reason::InvalidSyntax => Credit::Free,
            _ => match self.status() {
                Status::Unknown => Credit::Refunded,
                _ => Credit::Charged,
            },
        }
    }

    /// Likewise; of a sandbox task everything is free.
    pub const fn credit_in(self, sandbox: bool) -> Credit {
        if sandbox { Credit::Free } else { self.credit() }
    }
}

impl Status {
    /// Every status.
    pub const ALL: &[Status] =
        &[Status::Deliverable, Status::Undeliverable, Status::Risky, Status::Unknown];

    /// The name shown outside.
    pub const fn as_str(self) -> &'static str {
        match self {
            Status::Deliverable => "deliverable",
            Status::Undeliverable => "undeliverable",
            Status::Risky => "risky",
            Status::Unknown => "unknown",
        }
    }

    /// The reasons that stand for it.
    pub fn reasons(self) -> impl Iterator<Item = Reason> {
        Reason::ALL.iter().copied().filter(move |reason| reason.status() == self)
    }
}

/// How one address ended in the books.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credit {
    /// A definitive verdict: one credit.
    Charged,
    /// Unknown: the held credit went back.
    Refunded,
    /// Never held.
    Free,
}

impl Credit {
    /// The stored code.
    pub const fn code(self) -> i16 {
        match self {
            Credit::Charged => 1,
            Credit::Refunded => 2,
            Credit::Free => 3,
        }
    }

    /// From the stored code.
    pub const fn from_code(code: i16) -> Option<Self> {
        match code {
            1 => Some(Credit::Charged),
            2 => Some(Credit::Refunded),
            3 => Some(Credit::Free),
            _ => None,
        }
    }

    /// The name shown outside.
    pub const fn as_str(self) -> &'static str {
        match self {
            Credit::Charged => "charged",
            Credit::Refunded => "refunded",
            Credit::Free => "free",
        }
    }
}

/// A name that is none of the known ones.
#[derive(Debug, thiserror::Error)]
#[error("unknown {what} {given:?}; known: {known}")]
pub struct UnknownName {
    what: &'static str,
    given: String,
    known: String,
}

macro_rules! named {
    ($type:ident, $what:literal, $all:expr) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(self.as_str())
            }
        }

        impl FromStr for $type {
            type Err = UnknownName;

            fn from_str(text: &str) -> Result<Self, UnknownName> {
                let all: &[$type] = $all;
                all.iter().copied().find(|v| v.as_str() == text).ok_or_else(|| UnknownName {
                    what: $what,
                    given: text.chars().take(40).collect(),
                    known: all.iter().map(|v| v.as_str()).collect::<Vec<_>>().join(", "),
                })
            }
        }
    };
}

named!(Status, "status", Status::ALL);
named!(Reason, "reason", Reason::ALL);
named!(Credit, "credit", &[Credit::Charged, Credit::Refunded, Credit::Free]);

/// One of [`Flags`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flag {
    /// See [`Flags::role`].
    Role,
    /// See [`Flags::free`].
    Free,
    /// See [`Flags::disposable`].
    Disposable,
    /// See [`Flags::catch_all`].
    CatchAll,
    /// See [`Flags::mailbox_full`].
    MailboxFull,
    /// See [`Flags::disabled`].
    Disabled,
}

impl Flag {
    /// Every flag, in the order in which they are packed.
    pub const ALL: &[Flag] = &[
        Flag::Role,
        Flag::Free,
        Flag::Disposable,
        Flag::CatchAll,
        Flag::MailboxFull,
        Flag::Disabled,
    ];

    /// The name shown outside.
    pub const fn as_str(self) -> &'static str {
        match self {
            Flag::Role => "role",
            Flag::Free => "free",
            Flag::Disposable => "disposable",
            Flag::CatchAll => "catch_all",
            Flag::MailboxFull => "mailbox_full",
            Flag::Disabled => "disabled",
        }
    }

    /// Its bit in a mask of flags.
    pub const fn bit(self) -> i16 {
        1 << self as i16
    }
}

named!(Flag, "flag", Flag::ALL);

/// What else is known of an address; `None` = not determined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Flags {
    /// A function, not a person (`info@`).
    pub role: Option<bool>,
    /// A free mailbox provider.
    pub free: Option<bool>,
    /// A throw-away provider.
    pub disposable: Option<bool>,
    /// The domain accepts every local part.
    pub catch_all: Option<bool>,
    /// The mailbox is over its quota.
    pub mailbox_full: Option<bool>,
    /// The mailbox exists but is switched off.
    pub disabled: Option<bool>,
}

impl Flags {
    /// What is known of this one.
    pub const fn get(self, flag: Flag) -> Option<bool> {
        match flag {
            Flag::Role => self.role,
            Flag::Free => self.free,
            Flag::Disposable => self.disposable,
            Flag::CatchAll => self.catch_all,
            Flag::MailboxFull => self.mailbox_full,
            Flag::Disabled => self.disabled,
        }
    }

    /// Is it known to be so?
    pub fn has(self, flag: Flag) -> bool {
        self.get(flag) == Some(true)
    }

    /// The bits of those that are so.
    pub fn mask(self) -> i16 {
        Flag::ALL.iter().filter(|flag| self.has(**flag)).fold(0, |mask, flag| mask | flag.bit())
    }

    /// Packed for storage: two bits a flag (0 unknown, 1 false, 2 true), `role` lowest.
    pub fn pack(self) -> i16 {
        let all = [
            self.role,
            self.free,
            self.disposable,
            self.catch_all,
            self.mailbox_full,
            self.disabled,
        ];
        all.iter()
            .rev()
            .fold(0, |bits, flag| bits << 2 | flag.map_or(0, |set| if set { 2 } else { 1 }))
    }

    /// The reverse of [`Flags::pack`].
    pub fn unpack(bits: i16) -> Self {
        let flag = |i: i16| match bits >> (2 * i) & 3 {
            1 => Some(false),
            2 => Some(true),
            _ => None,
        };
        Self {
            role: flag(0),
            free: flag(1),
            disposable: flag(2),
            catch_all: flag(3),
            mailbox_full: flag(4),
            disabled: flag(5),
        }
    }
}

/// What a provider says of one address.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// The finding.
    pub reason: Reason,
    /// Chance of delivery, 0 to 100.
    pub score: i16,
    /// What else is known.
    pub flags: Flags,
    /// A likely intended address.
    pub did_you_mean: Option<String>,
    /// The mail host that answered.
    pub mx: Option<String>,
    /// Its last reply code.
    pub smtp_code: Option<i16>,
    /// What the verdict rests on, as JSON.
    pub detail: Option<String>,
    /// Worth asking again later.
    pub temporary: bool,
    /// Nobody was asked yet: the address's turn comes after this long, and this was no attempt. Only
    /// with `temporary`.
    pub again_in: Option<Duration>,
}

impl Verdict {
    /// A verdict with nothing but its reason.
    pub fn of(reason: Reason) -> Self {
        Self {
            reason,
            score: reason.score(),
            flags: Flags::default(),
            did_you_mean: None,
            mx: None,
            smtp_code: None,
            detail: None,
            temporary: false,
            again_in: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn codes_and_names_are_unique_and_reversible() {
        for &reason in Reason::ALL {
            assert_eq!(Reason::from_code(reason.code()), Some(reason));
            assert_eq!(reason.as_str().parse::<Reason>().unwrap(), reason);
        }
        assert!("nope".parse::<Reason>().unwrap_err().to_string().contains("accepted"));
    }

    #[test]
    fn unknown_is_never_charged_and_bad_syntax_is_free() {
        for &reason in Reason::ALL {
            match reason.credit() {
                Credit::Free => assert_eq!(reason, Reason::InvalidSyntax),
                Credit::Refunded => assert_eq!(reason.status(), Status::Unknown),
                Credit::Charged => assert_ne!(reason.status(), Status::Unknown),
            }
        }
    }

    proptest! {
        #[test]
        fn flags_survive_packing(bits in proptest::collection::vec(proptest::option::of(any::<bool>()), 6)) {
            let flags = Flags {
                role: bits[0], free: bits[1], disposable: bits[2],
                catch_all: bits[3], mailbox_full: bits[4], disabled: bits[5],
            };
            prop_assert_eq!(Flags::unpack(flags.pack()), flags);
        }
    }
}

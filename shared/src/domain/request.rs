//! What the gate decided about a request, and how decisions are added up.
//!
//! * A [`Decision`] is one request: who asked, from where, for what, and which check of the gate ended it
//!   ([`Outcome`]). It is made when the answer's head is ready.
//! * Usage counts decisions by account, key, period ([`By`]), outcome, route and [`Network`]: an address is
//!   never counted alone, and a key has few networks.
//! * A verification of a key of an api counts as a use of that key, by its route ([`VERIFICATION`]).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::clock::Millis;
use super::id::{AccountId, KeyId};

/// How the gate ended: `Accepted`, or the check that refused. The order is that of the checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// Past the gate, whatever came of it afterwards.
    Accepted = 0,
    /// The caller's address is blocked.
    IpBlocked = 1,
    /// No key, or not in the right form.
    Malformed = 2,
    /// No such key, or deleted.
    Unknown = 3,
    /// Switched off by its owner.
    Disabled = 4,
    /// Suspended by an operator or by abuse protection.
    Suspended = 5,
    /// Past its end.
    Expired = 6,
    /// The key's allowlist does not hold the caller.
    NotAllowed = 7,
    /// A scope is missing.
    Scope = 8,
    /// Over a request limit.
    RateLimit = 9,
    /// The key's own credit limit is used up.
    CreditLimit = 10,
}

impl Outcome {
    /// Every outcome; each stands at its own number.
    pub const ALL: [Self; 11] = [
        Self::Accepted,
        Self::IpBlocked,
        Self::Malformed,
        Self::Unknown,
        Self::Disabled,
        Self::Suspended,
        Self::Expired,
        Self::NotAllowed,
        Self::Scope,
        Self::RateLimit,
        Self::CreditLimit,
    ];

    /// The word, outside and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::IpBlocked => "ip_blocked",
            Self::Malformed => "malformed",
            Self::Unknown => "unknown",
            Self::Disabled => "disabled",
            Self::Suspended => "suspended",
            Self::Expired => "expired",
            Self::NotAllowed => "not_allowed",
            Self::Scope => "scope",
            Self::RateLimit => "rate_limit",
            Self::CreditLimit => "credit_limit",
        }
    }

    /// From its word.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.as_str() == name)
    }

    /// As it is stored.
    pub const fn number(self) -> i16 {
        self as i16
    }

    /// As it was stored.
    pub fn from_number(number: i16) -> Option<Self> {
        Self::ALL.get(usize::try_from(number).ok()?).copied()
    }
}

/// The route of what was said of a key of an api; the request that asked has a decision of its own.
pub const VERIFICATION: &str = "verification";

/// One request, as the gate saw it; or one verification of a key of an api ([`VERIFICATION`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// When it arrived.
    pub at: Millis,
    /// Whose key it was, if the key is known; deleted keys are.
    pub account: Option<AccountId>,
    /// Which key. A root key stands here with its own id: no key has the same.
    pub key: Option<KeyId>,
    /// What the gate said.
    pub outcome: Outcome,
    /// The caller's address.
    pub ip: Option<IpAddr>,
    /// The path that matched, such as `/v1/tasks/{id}`.
    pub route: Arc<str>,
    /// The method, one of few names.
    pub method: &'static str,
    /// HTTP status of the answer.
    pub status: u16,
    /// Microseconds until the answer's head was ready.
    pub latency_us: u32,
    /// Names the request for its caller: at most 64 characters.
    pub request_id: String,
}

impl Decision {
    /// Is it no request of its own, but what was said of a key of an api?
    pub fn is_verification(&self) -> bool {
        &*self.route == VERIFICATION
    }

    /// Was it made with a root key?
    pub fn is_of_root_key(&self) -> bool {
        self.route.starts_with("/v2/")
    }
}

/// The last accepted call with a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastUse {
    /// When it arrived.
    pub at: Millis,
    /// The caller's address.
    pub ip: Option<String>,
    /// The path that matched.
    pub route: String,
}

/// Where a caller comes from, as usage counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Network {
    /// The caller's address is not known.
    None,
    /// The first address of a /24.
    V4(Ipv4Addr),
    /// The first address of a /64.
    V6(Ipv6Addr),
    /// All networks beyond the first few of a key.
    Other,
}

impl Network {
    /// The network of an address; IPv4 inside IPv6 counts as IPv4.
    pub fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(v4) => Self::V4(Ipv4Addr::from_bits(v4.to_bits() & !0xff)),
            IpAddr::V6(v6) => Self::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::V4(first) => write!(f, "{first}/24"),
            Self::V6(first) => write!(f, "{first}/64"),
            Self::Other => f.write_str("other"),
        }
    }
}

/// The network of an address, as text: a /24, or a /64 of IPv6.
pub fn network_of(ip: IpAddr) -> String {
    Network::of(ip).to_string()
}

/// Milliseconds of an hour and of a day.
pub const HOUR_MS: Millis = 3_600_000;
/// See [`HOUR_MS`].
pub const DAY_MS: Millis = 24 * HOUR_MS;

/// The periods that usage is counted in; both in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// By the hour.
    Hour,
    /// By the day.
    Day,
}

impl By {
    /// Milliseconds of one.
    pub const fn millis(self) -> Millis {
        match self {
            Self::Hour => HOUR_MS,
            Self::Day => DAY_MS,
        }
    }

    /// When the period that holds `at` began.
    pub const fn start_of(self, at: Millis) -> Millis {
        at - at.rem_euclid(self.millis())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_survive_their_word_and_their_number() {
        for (place, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome.number() as usize, place);
            assert_eq!(Outcome::from_number(outcome.number()), Some(outcome));
            assert_eq!(Outcome::from_name(outcome.as_str()), Some(outcome));
        }
        for number in [-1, 11, i16::MAX] {
            assert_eq!(Outcome::from_number(number), None);
        }
        assert_eq!(Outcome::from_name("Accepted"), None);
    }

    #[test]
    fn an_address_counts_as_its_network() {
        for (ip, network) in [
            ("192.0.2.77", "192.0.2.0/24"),
            ("::ffff:192.0.2.77", "192.0.2.0/24"),
            ("255.255.255.255", "255.255.255.0/24"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
            ("::1", "::/64"),
        ] {
            assert_eq!(network_of(ip.parse().unwrap()), network, "{ip}");
        }
    }

    #[test]
    fn periods_begin_at_whole_hours_and_days() {
        let at = 1_700_000_000_123;
        assert_eq!(By::Hour.start_of(at), 1_699_999_200_000);
        assert_eq!(By::Day.start_of(at), 1_699_920_000_000);
        assert_eq!(By::Day.start_of(By::Day.start_of(at)), By::Day.start_of(at));
        assert_eq!(By::Hour.start_of(-1), -HOUR_MS);
    }
}

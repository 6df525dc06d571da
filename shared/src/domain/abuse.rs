//! Abuse protection: what the rules look for, and what follows. Pure: who counts and acts is elsewhere.
//!
//! | rule | counts | of | threshold (default) | acts on |
//! | --- | --- | --- | --- | --- |
//! | [`Rule::RateLimits`] | refusals with 429 | a key | 200 in 10 minutes, over at least 5 | the key |
//! | [`Rule::UnknownKeys`] | different keys that nobody has | a network | 50 in 10 minutes | the network |
//! | [`Rule::DeadKeys`] | uses of keys that open nothing any more | a network | 1,000 in an hour | the network |
//! | [`Rule::Networks`] | networks that it is used from | a key that had 3 or fewer, for [`HABIT`] | 20 in 10 minutes | the key |
//!
//! * A rule acts on a subject for its first length, and for twice as long each time after that ([`Strikes`]), up
//!   to [`LONGEST`]. After [`FORGOTTEN`] without, it begins anew. While an act lasts, the rule does not act on the
//!   subject again.
//! * A suspended key is no dead key: what a rule has done to a key must not grow into a block of its network. Nor is
//!   one whose time has not come, or whoever waits for it would be blocked.
//! * What a key has had its rotations share: a rotated key comes from the networks of the one before.
//! * Strikes of a dry run are not those of acts: a rule that is switched on begins with its first length.
//! * A network is spared ([`spares`]) where a block would hit others: a proxy of ours, or a network from which keys
//!   of ours were accepted more often than not, as it is where a proxy was not declared.

use ipnet::IpNet;

use super::clock::Millis;
use super::network::overlap;
use super::request::{DAY_MS, HOUR_MS, Outcome};

/// Milliseconds of a minute, which is what counts are kept by.
pub const MINUTE_MS: Millis = 60_000;
/// No act of a rule lasts longer.
pub const LONGEST: Millis = 30 * DAY_MS;
/// A key is judged by its networks when its first one is so old. One that is new here (made, imported, or there before
/// networks were counted) has no habit yet that it could break.
pub const HABIT: Millis = DAY_MS;
/// After so long without an act, a subject begins anew.
pub const FORGOTTEN: Millis = 30 * DAY_MS;

/// A rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rule {
    /// A key is refused with 429 over and over.
    RateLimits = 0,
    /// A network tries keys that nobody has.
    UnknownKeys = 1,
    /// A network goes on using keys that are deleted, disabled or expired.
    DeadKeys = 2,
    /// A key of few networks is used from many at once.
    Networks = 3,
}

impl Rule {
    /// Every rule; each stands at its own number.
    pub const ALL: [Self; 4] =
        [Self::RateLimits, Self::UnknownKeys, Self::DeadKeys, Self::Networks];

    /// The word, outside and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RateLimits => "rate_limits",
            Self::UnknownKeys => "unknown_keys",
            Self::DeadKeys => "dead_keys",
            Self::Networks => "networks",
        }
    }

    /// As it is stored.
    pub const fn number(self) -> i16 {
        self as i16
    }

    /// As it was stored.
    pub fn from_number(number: i16) -> Option<Self> {
        Self::ALL.get(usize::try_from(number).ok()?).copied()
    }

    /// How far back it looks.
    pub const fn window(self) -> Millis {
        match self {
            Self::DeadKeys => HOUR_MS,
            _ => 10 * MINUTE_MS,
        }
    }

    /// What its act is called.
    pub const fn action(self) -> Action {
        match self {
            Self::RateLimits | Self::Networks => Action::Suspended,
            Self::UnknownKeys | Self::DeadKeys => Action::Blocked,
        }
    }

    /// What the key's user, or other operators, are told.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::RateLimits => "Excessive rate-limit violations",
            Self::UnknownKeys => "Too many unknown keys",
            Self::DeadKeys => "Too many uses of dead keys",
            Self::Networks => "Suspicious traffic patterns",
        }
    }

    /// The rule that counts a refusal by the minute, if one does; `known`: the key is one that we know.
    pub const fn counting(outcome: Outcome, known: bool) -> Option<Self> {
        match (outcome, known) {
            (Outcome::RateLimit, true) => Some(Self::RateLimits),
            (Outcome::Unknown, false) => Some(Self::UnknownKeys),
            (Outcome::Unknown | Outcome::Disabled | Outcome::Expired, true) => Some(Self::DeadKeys),
            _ => None,
        }
    }
}

/// Is this a use of a live key from where it may be used, whatever came of it?
pub const fn is_use(outcome: Outcome) -> bool {
    matches!(
        outcome,
        Outcome::Accepted | Outcome::Scope | Outcome::RateLimit | Outcome::CreditLimit
    )
}

/// What was done about a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The key was suspended.
    Suspended,
    /// The network was blocked.
    Blocked,
    /// Nothing: the rule only says what it would do.
    DryRun,
    /// Nothing: it would have hit others.
    Spared,
}

impl Action {
    /// Every action.
    pub const ALL: [Self; 4] = [Self::Suspended, Self::Blocked, Self::DryRun, Self::Spared];

    /// The word, outside, in the store and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Suspended => "suspended",
            Self::Blocked => "blocked",
            Self::DryRun => "dry_run",
            Self::Spared => "spared",
        }
    }

    /// From its word.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == name)
    }
}

/// Does a rule act?
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// It does not even count.
    Off,
    /// It says what it would do.
    DryRun,
    /// It acts.
    On,
}

/// How a rule judges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Does it act?
    pub mode: Mode,
    /// So many are too many.
    pub threshold: u32,
    /// How long its first act lasts.
    pub first: Millis,
}

/// How all rules judge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policies {
    /// By the rule's number.
    pub rules: [Policy; 4],
    /// [`Rule::RateLimits`]: from the first refusal to the last it is so long.
    pub spread: Millis,
    /// [`Rule::Networks`]: a key that had more networks than this is left alone.
    pub known: u32,
}

impl Policies {
    /// Of one rule.
    pub fn of(&self, rule: Rule) -> Policy {
        self.rules[rule as usize]
    }

    /// Does the rule count?
    pub fn counts(&self, rule: Rule) -> bool {
        self.of(rule).mode != Mode::Off
    }

    /// Does any?
    pub fn any(&self) -> bool {
        Rule::ALL.into_iter().any(|rule| self.counts(rule))
    }

    /// Is it too much?
    pub fn exceeds(&self, rule: Rule, seen: &Seen) -> bool {
        if !self.counts(rule) || seen.counted < i64::from(self.of(rule).threshold) {
            return false;
        }
        match rule {
            Rule::RateLimits => {
                // Two bursts with silence between them are no steady disregard.
                seen.last_at - seen.first_at >= self.spread
                    && seen.minutes >= self.spread / MINUTE_MS
            }
            Rule::Networks => seen.settled && seen.known <= i64::from(self.known),
            Rule::UnknownKeys | Rule::DeadKeys => true,
        }
    }
}

/// What a rule has seen of a subject within its window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// What the threshold is compared with.
    pub counted: i64,
    /// Requests; of unknown keys there may be more than keys.
    pub requests: i64,
    /// In how many minutes.
    pub minutes: i64,
    /// The first of them.
    pub first_at: Millis,
    /// The last of them.
    pub last_at: Millis,
    /// Networks that the key, or one of its rotations, had before.
    pub known: i64,
    /// The first of all these came [`HABIT`] ago or earlier.
    pub settled: bool,
}

/// How often a rule has acted on a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strikes {
    /// How often in a row.
    pub strikes: i32,
    /// When the last act ends.
    pub ends_at: Millis,
    /// It was a dry run.
    pub dry: bool,
}

/// What follows a signal, after what was before: one more strike and its end. `None`: the last act still holds.
pub fn next(before: Option<Strikes>, dry: bool, first: Millis, now: Millis) -> Option<Strikes> {
    let before = before.filter(|before| before.dry == dry);
    if before.is_some_and(|before| before.ends_at > now) {
        return None;
    }
    let recent = before.filter(|before| now - before.ends_at < FORGOTTEN);
    let strikes = recent.map_or(0, |before| before.strikes).saturating_add(1);
    let doublings = u32::try_from(strikes - 1).unwrap_or(0).min(62);
    let lasts = first.saturating_mul(1 << doublings).clamp(1, LONGEST);
    Some(Strikes { strikes, ends_at: now.saturating_add(lasts), dry })
}

/// Why a network is not blocked: `proxies` of ours are in it, or keys of ours were `accepted` from there more often
/// than the rule has counted `refused` requests.
pub fn spares(
    network: &IpNet,
    proxies: &[IpNet],
    accepted: i64,
    refused: i64,
) -> Option<&'static str> {
    if proxies.iter().any(|proxy| overlap(proxy, network)) {
        Some("a trusted proxy is in it")
    } else if accepted > refused {
        Some("keys were accepted from there more often than refused; is it a proxy of yours?")
    } else {
        None
    }
}

#[cfg(test)]
mod tests;

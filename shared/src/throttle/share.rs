//! Shares: how many of something all processes together may have in use, each its part, and what
//! they tell each other of whoever is used. For mail hosts: connections, and refusals.
//!
//! Data: `NS:share:NAME` in Redis is a hash. Field `p:PROCESS` is `SLOTS EXPIRES`, one for each
//! process that has a part or waits for one; field `rest` is `AT REFUSALS UNTIL`, the newest
//! [`Rest`]. A process renews its part while it uses it; who falls silent has lost it after
//! [`LEASE`].
//!
//! Invariants:
//! - the slots of all parts together are at most the total: a part grows only by what is free, and
//!   one that is too big counts in full until its process has reported that it is smaller. (A Redis
//!   that was wiped learns of all parts again within [`RENEW`]; until then there may be more);
//! - parts are equal but for the remainder, which goes round: with more processes than slots each
//!   has its turn ([`TERM`]);
//! - of two rests the one that was changed last counts, whichever process changed it.

use std::time::Duration;

use super::pace::Pacer;
use crate::domain::clock::Millis;

/// How often a part is renewed.
pub const RENEW: Duration = Duration::from_secs(1);
/// How long the part of a process that has fallen silent is left alone, in milliseconds.
pub const LEASE: Millis = 5_000;
/// How long a remainder's slots stay with a process, in milliseconds.
pub const TERM: Millis = 5_000;
/// How long a rest is remembered, in milliseconds.
const REMEMBER: Millis = 600_000;

/// Its keys, arguments and answer stand at its head.
const SCRIPT: &str = include_str!("share.lua");

/// What is known of somebody who has refused us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rest {
    /// When that changed last; 0 = never.
    pub at: Millis,
    /// Refusals after a rest, without an answer in between.
    pub refusals: u32,
    /// Until when it is left alone.
    pub until: Millis,
}

impl Rest {
    /// This after a change at `now`; newer than what it follows, whatever the clocks say.
    pub fn then(self, now: Millis, refusals: u32, until: Millis) -> Self {
        Self { at: now.max(self.at.saturating_add(1)), refusals, until }
    }

    /// The newer of the two.
    pub fn merge(self, other: Self) -> Self {
        if other.at > self.at { other } else { self }
    }
}

/// One number of slots that processes share.
pub struct Share {
    key: Box<str>,
    total: usize,
}

/// What a process is told when it renews its part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Slots that it should have. One that holds more gives them up as they come free, and renews.
    pub slots: usize,
    /// The newest.
    pub rest: Rest,
}

impl Pacer {
    /// The share called `name`, of `total` slots; `None` where there is nobody to share with.
    pub fn share(&self, name: &str, total: usize) -> Option<Share> {
        let key = format!("{}:share:{name}", self.redis.redis()?.namespace()).into();
        Some(Share { key, total })
    }

    /// Says that this process holds `held` slots, and what it knows. While Redis is away, it has all
    /// slots for itself.
    pub async fn renew(&self, share: &Share, held: usize, rest: Rest) -> Part {
        let held = i64::try_from(held).unwrap_or(i64::MAX);
        let told = self.tell(share, held, rest).await;
        told.unwrap_or(Part { slots: share.total, rest })
    }

    /// Gives this process's part up.
    pub async fn leave(&self, share: &Share, rest: Rest) {
        self.tell(share, -1, rest).await;
    }

    async fn tell(&self, share: &Share, held: i64, rest: Rest) -> Option<Part> {
        static COMPILED: std::sync::LazyLock<redis::Script> =
            std::sync::LazyLock::new(|| redis::Script::new(SCRIPT));
        let now = self.clock.now();
        let redis = self.redis.at(now)?;
        let mut call = COMPILED.key(&*share.key);
        call.arg(now).arg(&*self.process).arg(held).arg(share.total).arg(LEASE).arg(now / TERM);
        call.arg(rest.at).arg(rest.refusals).arg(rest.until).arg(REMEMBER);
        let mut commands = redis.commands();
        let (slots, at, refusals, until): (usize, Millis, u32, Millis) =
            self.redis.in_time(now, call.invoke_async(&mut commands)).await?;
        Some(Part { slots, rest: rest.merge(Rest { at, refusals, until }) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rest() -> impl Strategy<Value = Rest> {
        (0_i64..5, 0_u32..3, 0_i64..5).prop_map(|(at, refusals, until)| Rest {
            at,
            refusals,
            until,
        })
    }

    proptest! {
        /// What was changed after all that one knew of is what everybody comes to know, in whatever
        /// order they hear of it.
        #[test]
        fn the_last_change_wins_everywhere(known in rest(), other in rest(), now in 0_i64..5) {
            let known = known.merge(other);
            let changed = known.then(now, 2, 7);
            prop_assert_eq!(known.merge(changed), changed);
            prop_assert_eq!(changed.merge(known), changed);
            prop_assert_eq!(other.merge(changed).merge(known), changed);
        }
    }
}

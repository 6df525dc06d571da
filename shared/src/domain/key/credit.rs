//! A key's own limit of credits, and how it is filled again.
//!
//! `used` counts what was charged through the key, and what running tasks have reserved. A refill takes its
//! amount off `used`, never below zero; those that nobody was there to make are made up for by whoever asks
//! next, so no process has to run at midnight. Days are those of UTC; a day that a month does not have is its
//! last one.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

use crate::domain::clock::Millis;

/// How often a limit is filled again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interval {
    /// Each midnight (UTC).
    Daily,
    /// On one day of each month.
    Monthly,
}

impl Interval {
    /// Its name outside and in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Interval::Daily => "daily",
            Interval::Monthly => "monthly",
        }
    }

    /// Reads the name.
    pub fn parse(name: &str) -> Option<Self> {
        [Interval::Daily, Interval::Monthly].into_iter().find(|i| i.as_str() == name)
    }
}

/// How a limit is filled again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refill {
    /// How often.
    pub interval: Interval,
    /// How much.
    pub amount: i64,
    /// Day of the month, 1 to 31; of no meaning for daily ones.
    pub day: i16,
    /// When next.
    pub at: Millis,
}

/// A key's own limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CreditLimit {
    /// Credits.
    pub limit: i64,
    /// Of those, used or reserved.
    pub used: i64,
    /// How it is filled again.
    pub refill: Option<Refill>,
}

impl CreditLimit {
    /// As it is at `now`: with the refills that were due.
    pub fn at(mut self, now: Millis) -> Self {
        if let Some(refill) = &mut self.refill {
            while refill.at <= now {
                self.used = (self.used - refill.amount).max(0);
                // Nothing is left to fill: on to the first one that is not due yet.
                let from = if self.used == 0 { now } else { refill.at };
                refill.at = next(refill.interval, refill.day, from);
            }
        }
        self
    }

    /// Is it filled again as often and as much as this, at the least?
    pub fn fills_as(&self, refill: Refill) -> bool {
        self.refill.is_some_and(|own| {
            (own.interval, own.day) == (refill.interval, refill.day) && own.amount >= refill.amount
        })
    }

    /// What is left at `now`.
    pub fn left(self, now: Millis) -> i64 {
        let at = self.at(now);
        (at.limit - at.used).max(0)
    }
}

/// The first moment after `after` at which a limit is filled again.
pub fn next(interval: Interval, day: i16, after: Millis) -> Millis {
    const DAY_MS: i64 = 86_400_000;
    let next_day = (after.div_euclid(DAY_MS) + 1) * DAY_MS;
    match interval {
        Interval::Daily => next_day,
        // A date beyond jiff's years: as good as never.
        Interval::Monthly => next_month(day, after).unwrap_or(i64::MAX),
    }
}

fn next_month(day: i16, after: Millis) -> Option<Millis> {
    let today = Timestamp::from_millisecond(after).ok()?.to_zoned(TimeZone::UTC).date();
    let of = |month: Date| {
        let last = month.last_of_month();
        let date = month.with().day(day.clamp(1, i16::from(last.day())) as i8).build().ok()?;
        Some(date.to_zoned(TimeZone::UTC).ok()?.timestamp().as_millisecond())
    };
    let this = of(today.first_of_month())?;
    if this > after {
        return Some(this);
    }
    of(today.first_of_month().checked_add(Span::new().months(1)).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> Millis {
        text.parse::<Timestamp>().unwrap().as_millisecond()
    }

    #[test]
    fn month_ends_are_clamped() {
        for (day, after, want) in [
            (31, "2026-01-31T00:00:00Z", "2026-02-28T00:00:00Z"),
            (31, "2026-02-28T00:00:00Z", "2026-03-31T00:00:00Z"),
            (31, "2026-04-29T23:59:59Z", "2026-04-30T00:00:00Z"),
            (29, "2028-02-01T00:00:00Z", "2028-02-29T00:00:00Z"),
            (29, "2027-02-01T00:00:00Z", "2027-02-28T00:00:00Z"),
            (30, "2028-02-29T00:00:00Z", "2028-03-30T00:00:00Z"),
            (1, "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"),
            (15, "2026-12-15T00:00:00Z", "2027-01-15T00:00:00Z"),
        ] {
            assert_eq!(next(Interval::Monthly, day, at(after)), at(want), "{day} after {after}");
        }
        let (noon, midnight) = (at("2026-02-28T12:00:00Z"), at("2026-03-01T00:00:00Z"));
        assert_eq!(next(Interval::Daily, 1, noon), midnight);
        assert_eq!(next(Interval::Daily, 1, midnight), at("2026-03-02T00:00:00Z"));
    }

    #[test]
    fn missed_refills_are_made_up_for_and_none_is_made_twice() {
        let begin = at("2026-03-01T00:00:00Z");
        let refill = Refill { interval: Interval::Daily, amount: 10, day: 1, at: begin };
        let limit = CreditLimit { limit: 100, used: 95, refill: Some(refill) };
        let later = limit.at(at("2026-03-03T08:00:00Z"));
        assert_eq!(later.used, 65, "three midnights");
        assert_eq!(later.at(at("2026-03-03T09:00:00Z")), later, "asked again");
        assert_eq!(later.left(at("2026-03-04T00:00:00Z")), 45);
        let years = limit.at(at("2036-03-03T08:00:00Z"));
        assert_eq!((years.used, years.refill.unwrap().at), (0, at("2036-03-04T00:00:00Z")));
        assert_eq!(limit.at(begin - 1), limit, "not due yet");
    }

    proptest! {
        /// However the asking is spread, the same comes out.
        #[test]
        fn when_it_is_asked_changes_nothing(
            used in 0i64..10_000, amount in 1i64..500, day in 1i16..=31, monthly: bool,
            from in 0i64..4_000_000_000_000, mut steps in prop::collection::vec(0i64..20_000_000_000, 1..8),
        ) {
            let interval = if monthly { Interval::Monthly } else { Interval::Daily };
            let refill = Refill { interval, amount, day, at: next(interval, day, from) };
            let limit = CreditLimit { limit: 10_000, used, refill: Some(refill) };
            steps.sort_unstable();
            let end = from + steps[steps.len() - 1];
            let stepwise = steps.iter().fold(limit, |limit, step| limit.at(from + step));
            prop_assert_eq!(stepwise, limit.at(end));
            prop_assert!(stepwise.refill.unwrap().at > end);
            prop_assert!(stepwise.used >= 0 && stepwise.used <= used);
        }
    }
}

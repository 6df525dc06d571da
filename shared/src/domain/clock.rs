//! Time, passed in.
//!
//! All times are milliseconds since the Unix epoch in an `i64` ([`Millis`]), in code and in SQL
//! alike. Nothing below the process entry reads the machine's clock: it asks a [`Clock`], so that
//! tests own time.
//!
//! What several processes must agree on (leases, due times) goes by the database's clock: each process
//! measures it ([`Clock::learn`]) and goes on from there by a clock that nobody sets. So a machine whose clock
//! is wrong, or jumps, does what all others do.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

/// Milliseconds since the Unix epoch, UTC.
pub type Millis = i64;

/// Where the time comes from.
#[derive(Clone)]
pub struct Clock(Source);

#[derive(Clone)]
enum Source {
    System(Arc<Steady>),
    Manual(Arc<AtomicI64>),
}

/// Time that goes on evenly, whoever sets the machine's clock.
struct Steady {
    origin: Instant,
    /// What it was at the origin, as far as we know.
    base: AtomicI64,
}

impl Steady {
    fn elapsed(&self) -> Millis {
        self.origin.elapsed().as_millis() as Millis
    }
}

impl Clock {
    /// The machine's clock as it is now, going on evenly.
    pub fn system() -> Self {
        let base = AtomicI64::new(system_millis());
        Self(Source::System(Arc::new(Steady { origin: Instant::now(), base })))
    }

    /// A clock that stands still until [`Clock::advance`] moves it.
    pub fn manual(start: Millis) -> Self {
        Self(Source::Manual(Arc::new(AtomicI64::new(start))))
    }

    /// Now.
    pub fn now(&self) -> Millis {
        match &self.0 {
            Source::System(steady) => steady.base.load(Ordering::Relaxed) + steady.elapsed(),
            Source::Manual(time) => time.load(Ordering::SeqCst),
        }
    }

    /// What the machine's own clock lacks to ours, in milliseconds.
    pub fn offset(&self) -> Millis {
        match &self.0 {
            Source::System(_) => self.now() - system_millis(),
            Source::Manual(_) => 0,
        }
    }

    /// Goes on from `there`, which was the time half of `took` ago; without one, from the machine's clock. What
    /// lies within the error of the measurement is left alone, so that time does not tremble. Returns by
    /// how much it was moved.
    pub fn learn(&self, there: Option<Millis>, took: Duration) -> Millis {
        let Source::System(steady) = &self.0 else { return 0 };
        let half = took.as_millis() as Millis / 2;
        let truth = there.map_or_else(system_millis, |there| there + half);
        let step = truth - self.now();
        if step.abs() <= half + 5 {
            return 0;
        }
        steady.base.fetch_add(step, Ordering::Relaxed);
        step
    }

    /// Moves a manual clock forward; the machine's clock moves by itself.
    pub fn advance(&self, by: Millis) {
        if let Source::Manual(time) = &self.0 {
            time.fetch_add(by, Ordering::SeqCst);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
fn system_millis() -> Millis {
    jiff::Timestamp::now().as_millisecond()
}

/// RFC 3339 in UTC with milliseconds, as every time in the API is shown.
pub fn rfc3339(at: Millis) -> String {
    jiff::Timestamp::from_millisecond(at)
        .map(|t| format!("{t:.3}"))
        .unwrap_or_else(|_| String::from("1970-01-01T00:00:00.000Z"))
}

/// Reads a time as we write it ([`rfc3339`]), with any offset: `2030-01-31T12:00:00Z`.
pub fn parse_rfc3339(text: &str) -> Option<Millis> {
    text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond)
}

/// Reads a date as mails have it (RFC 5322, 3.3): `Tue, 14 Nov 2023 22:13:20 +0000`.
pub fn parse_rfc2822(text: &str) -> Option<Millis> {
    let at = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    Some(at.as_millisecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_on_from_what_it_learned() {
        let clock = Clock::system();
        assert!(clock.offset().abs() < 1_000, "{}", clock.offset());
        let there = clock.now() + 60_000;
        let step = clock.learn(Some(there), Duration::from_millis(20));
        assert!((step - 60_010).abs() < 1_000, "{step}");
        assert!((clock.offset() - 60_010).abs() < 1_000, "{}", clock.offset());
        assert_eq!(clock.learn(Some(clock.now()), Duration::from_secs(10)), 0, "not sure enough");
        clock.learn(None, Duration::ZERO);
        assert!(clock.offset().abs() < 1_000, "{}", clock.offset());
    }

    #[test]
    fn shows_milliseconds_in_utc() {
        assert_eq!(rfc3339(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
        assert_eq!(rfc3339(1_700_000_000_000), "2023-11-14T22:13:20.000Z");
        assert_eq!(parse_rfc3339("2023-11-15T00:13:20.123+02:00"), Some(1_700_000_000_123));
        assert_eq!(parse_rfc3339("2023-11-15"), None);
    }
}

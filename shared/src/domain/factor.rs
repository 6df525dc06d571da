//! The lever against overload: what is left of every request limit, for a while.

use super::clock::Millis;

/// How many thousandths are a whole.
const WHOLE: u32 = 1_000;

/// A part of a whole, in thousandths: at least one, at most all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Factor(u32);

impl Factor {
    /// All of it.
    pub const ONE: Self = Self(WHOLE);

    /// From thousandths; what is outside becomes the nearest that is not.
    pub fn from_thousandths(thousandths: i64) -> Self {
        Self(thousandths.clamp(1, WHOLE.into()) as u32)
    }

    /// Thousandths.
    pub fn thousandths(self) -> i64 {
        self.0.into()
    }

    /// What is left of a limit: at least 1, unless it was 0.
    pub fn of(self, limit: u32) -> u32 {
        let part = u64::from(limit) * u64::from(self.0) / u64::from(WHOLE);
        (part as u32).max(limit.min(1))
    }
}

/// A [`Factor`] that ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tightened {
    /// What is left of every limit.
    pub factor: Factor,
    /// From then on limits are whole.
    pub ends_at: Millis,
}

impl Tightened {
    /// What counts at `now`.
    pub fn at(&self, now: Millis) -> Factor {
        if now < self.ends_at { self.factor } else { Factor::ONE }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_at_least_one_and_ends() {
        let tenth = Factor::from_thousandths(100);
        assert_eq!(
            [60, 1_200, 9, 1, 0, u32::MAX].map(|limit| tenth.of(limit)),
            [6, 120, 1, 1, 0, 429_496_729]
        );
        assert_eq!(Factor::ONE.of(u32::MAX), u32::MAX);
        assert_eq!(Factor::from_thousandths(0), Factor::from_thousandths(1));
        assert_eq!(Factor::from_thousandths(i64::MAX), Factor::ONE);
        let tightened = Tightened { factor: tenth, ends_at: 1_000 };
        assert_eq!((tightened.at(999), tightened.at(1_000)), (tenth, Factor::ONE));
    }
}

//! Which results of a task are wanted.

use super::block::mask;
use super::verdict::{Flag, Flags, Reason};

/// Which results; unless said otherwise, all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResultFilter {
    /// Only with one of these; none at all where there is none of them.
    pub reasons: Option<Vec<Reason>>,
    /// Only those that this is known of.
    pub flag: Option<Flag>,
}

impl ResultFilter {
    /// Only those with one of these reasons.
    pub fn of_reasons(reasons: impl IntoIterator<Item = Reason>) -> Self {
        Self { reasons: Some(reasons.into_iter().collect()), flag: None }
    }

    /// Does a result fit?
    pub fn fits(&self, reason: Reason, flags: Flags) -> bool {
        self.reasons.as_ref().is_none_or(|reasons| reasons.contains(&reason))
            && self.flag.is_none_or(|flag| flags.has(flag))
    }

    /// Does every result fit?
    pub fn is_open(&self) -> bool {
        self.reasons.is_none() && self.flag.is_none()
    }

    /// Can no result fit?
    pub fn is_shut(&self) -> bool {
        self.reasons.as_ref().is_some_and(Vec::is_empty)
    }

    /// A block has none of them unless its mask of reasons has one of these bits.
    pub fn reason_bits(&self) -> i64 {
        self.reasons.as_deref().map_or(i64::MAX, mask)
    }

    /// A block has none of them unless its mask of flags has all of these bits.
    pub fn flag_bits(&self) -> i16 {
        self.flag.map_or(0, Flag::bit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_fits_what_its_block_is_opened_for() {
        let free = Flags { free: Some(true), role: Some(false), ..Flags::default() };
        let filter = ResultFilter { reasons: Some(vec![Reason::NoMx]), flag: Some(Flag::Free) };
        assert!(filter.fits(Reason::NoMx, free));
        assert!(!filter.fits(Reason::Accepted, free));
        assert!(!filter.fits(Reason::NoMx, Flags::default()));
        assert_eq!(free.mask() & filter.flag_bits(), filter.flag_bits());
        assert!(
            !ResultFilter { flag: Some(Flag::Role), ..ResultFilter::default() }
                .fits(Reason::NoMx, free)
        );
        assert!(ResultFilter::default().is_open() && !ResultFilter::default().is_shut());
        assert!(ResultFilter::of_reasons([]).is_shut());
        for flag in Flag::ALL {
            assert_eq!(flag.as_str().parse::<Flag>().unwrap(), *flag);
        }
    }
}

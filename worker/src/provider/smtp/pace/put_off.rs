//! What becomes of who is not asked now.

use std::time::Duration;

/// When those come again who found every connection in use.
const BUSY: Duration = Duration::from_secs(5);

/// Why nobody was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutOff {
    /// Our pace: the turn comes after this long.
    Paced(Duration),
    /// Every connection is in use, where nothing is paced.
    Busy,
    /// The host wants to be left alone: as long as this, or it has said so too often to be waited for.
    LeftAlone(Option<Duration>),
}

impl PutOff {
    /// For people.
    pub fn text(self) -> &'static str {
        match self {
            PutOff::Paced(_) => "not asked yet: the mail host's pace is used up",
            PutOff::Busy => "not asked yet: every connection to the mail host is in use",
            PutOff::LeftAlone(_) => "not asked: the mail host wants to be left alone for a while",
        }
    }

    /// When to come again, if that is known.
    pub fn again_in(self) -> Option<Duration> {
        match self {
            PutOff::Paced(wait) => Some(wait),
            PutOff::Busy => Some(BUSY),
            PutOff::LeftAlone(wait) => wait,
        }
    }

    /// For metrics.
    pub fn name(self) -> &'static str {
        match self {
            PutOff::Paced(_) => "pace",
            PutOff::Busy => "busy",
            PutOff::LeftAlone(_) => "back_off",
        }
    }
}

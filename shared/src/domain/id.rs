//! Ids and randomness, passed in.
//!
//! An id is 16 bytes (UUID version 7: rows made together lie together in an index); outside it is
//! an opaque string with a type prefix (`task_…`). [`Ids`] is the only source of ids, secrets and
//! fences, so that tests own randomness.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use uuid::Uuid;

use super::clock::Millis;

/// A text that is not an id of the wanted type.
#[derive(Debug, thiserror::Error)]
#[error("not a valid {0} id")]
pub struct BadId(pub &'static str);

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub Uuid);

        impl $name {
            /// What the text form begins with.
            pub const PREFIX: &'static str = $prefix;
            /// Before every other.
            pub const FIRST: Self = Self(Uuid::nil());

            /// A new id.
            pub fn new(ids: &Ids, now: Millis) -> Self {
                Self(ids.uuid(now))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}{}", Self::PREFIX, self.0.simple())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = BadId;

            fn from_str(text: &str) -> Result<Self, BadId> {
                let hex = text.strip_prefix(Self::PREFIX).filter(|hex| hex.len() == 32);
                hex.and_then(|hex| Uuid::try_parse(hex).ok()).map(Self).ok_or(BadId($prefix))
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
    };
}

id!(/// An account: owner of keys, tasks and credits.
    AccountId, "acct_");
id!(/// An API key (not its secret).
    KeyId, "key_");
id!(/// A task: one bulk submission.
    TaskId, "task_");
id!(/// A single verification.
    CheckId, "check_");

id!(/// An api: keys of an account that are verified for other programs.
    ApiId, "api_");
id!(/// A root key (not its secret).
    RootKeyId, "rootkey_");
id!(/// A person: who logs in.
    PersonId, "person_");
id!(/// A session of a person (not its token).
    SessionId, "sess_");

/// Source of ids, secrets and fences.
#[derive(Clone)]
pub struct Ids {
    source: Source,
    /// The number given last.
    last: Arc<AtomicI64>,
}

#[derive(Clone)]
enum Source {
    System,
    Seeded(Arc<Mutex<u64>>),
}

impl Ids {
    /// The operating system's randomness.
    pub fn system() -> Self {
        Self::of(Source::System)
    }

    /// The same sequence for the same seed; for tests.
    pub fn seeded(seed: u64) -> Self {
        Self::of(Source::Seeded(Arc::new(Mutex::new(seed))))
    }

    fn of(source: Source) -> Self {
        Self { source, last: Arc::default() }
    }

    /// Random bytes fit for secrets.
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut out = [0; N];
        match &self.source {
            Source::System => getrandom::fill(&mut out)
                .expect("the operating system gives randomness, or nothing here is safe"),
            Source::Seeded(state) => {
                let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
                for chunk in out.chunks_mut(8) {
                    chunk.copy_from_slice(&split_mix(&mut state).to_le_bytes()[..chunk.len()]);
                }
            }
        }
        out
    }

    /// A new id, ordered by time.
    pub fn uuid(&self, now: Millis) -> Uuid {
        let random = self.bytes::<10>();
        uuid::Builder::from_unix_timestamp_millis(now.max(0) as u64, &random).into_uuid()
    }

    /// A fence or step number: positive, ordered by time, never given twice by one process, and hardly ever by
    /// two: those of a millisecond follow each other from a random one on.
    pub fn number(&self, now: Millis) -> i64 {
        let random = u32::from_le_bytes(self.bytes()) & 0x1f_ffff;
        let first = ((now & 0x1ff_ffff_ffff) << 22) | i64::from(random);
        let next = |last: i64| if first >> 22 > last >> 22 { first } else { last + 1 };
        let (set, get) = (Ordering::Relaxed, Ordering::Relaxed);
        match self.last.fetch_update(set, get, |last| Some(next(last))) {
            Ok(last) | Err(last) => next(last),
        }
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014).
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips_and_refuses_other_types() {
        let id = TaskId::new(&Ids::seeded(1), 1_700_000_000_000);
        assert_eq!(id.to_string().parse::<TaskId>().unwrap(), id);
        assert!(id.to_string().parse::<KeyId>().is_err());
        assert!("task_".parse::<TaskId>().is_err());
        assert!("task_zz".parse::<TaskId>().is_err());
    }

    #[test]
    fn numbers_are_positive_and_follow_time() {
        let ids = Ids::seeded(7);
        let (a, b) = (ids.number(1_700_000_000_000), ids.number(1_700_000_000_001));
        assert!(0 < a && a < b);
    }

    #[test]
    fn a_process_gives_no_number_twice() {
        let ids = Ids::system();
        let numbers: Vec<i64> = std::thread::scope(|threads| {
            let give = || (0..20_000).map(|i| ids.number(i / 10_000)).collect::<Vec<i64>>();
            let giving: Vec<_> = (0..4).map(|_| threads.spawn(give)).collect();
            giving.into_iter().flat_map(|numbers| numbers.join().unwrap()).collect()
        });
        let distinct: std::collections::BTreeSet<&i64> = numbers.iter().collect();
        assert_eq!(distinct.len(), numbers.len());
    }
}

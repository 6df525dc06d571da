//! A batch: the slice of a task that one queue message points at.
//!
//! ```text
//! pending → queued → leased → done
//!    ↑________↑________|            any open state → cancelled
//!             ↑_waiting_|
//! ```
//!
//! `pending` waits for the dispatch window, `queued` has a message somewhere (or had: the sweeper
//! sends it again), `leased` belongs to one worker until `due_at`, proven by its fence. `waiting` has
//! nothing to do until `due_at`: what is left of it is set aside.

mod room;

use std::fmt;

use uuid::Uuid;

pub use self::room::{Capacity, Room};

use super::clock::Millis;
use super::done::Done;
use super::id::{AccountId, TaskId};
use super::task::Tally;
use super::verdict::{Credit, Verdict};

/// Stored states. Partial indexes and statements name these numbers; never reuse one.
pub mod state {
    /// Waits for the dispatch window.
    pub const PENDING: i16 = 0;
    /// A message was sent.
    pub const QUEUED: i16 = 1;
    /// A worker holds it.
    pub const LEASED: i16 = 2;
    /// Every address has its result.
    pub const DONE: i16 = 3;
    /// Its task was cancelled first.
    pub const CANCELLED: i16 = 4;
    /// What is left of it is set aside.
    pub const WAITING: i16 = 5;
}

/// All that a queue message says.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BatchRef {
    /// The task.
    pub task: TaskId,
    /// The batch's number in it, from 0.
    pub no: i32,
}

impl fmt::Debug for BatchRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.task, self.no)
    }
}

impl BatchRef {
    /// 20 bytes: the task's id, then the number, big-endian.
    pub fn to_bytes(self) -> [u8; 20] {
        let mut out = [0; 20];
        out[..16].copy_from_slice(self.task.0.as_bytes());
        out[16..].copy_from_slice(&self.no.to_be_bytes());
        out
    }

    /// The reverse; `None` for anything else.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; 20] = bytes.try_into().ok()?;
        let (id, no) = bytes.split_at(16);
        let task = TaskId(Uuid::from_slice(id).ok()?);
        Some(Self { task, no: i32::from_be_bytes(no.try_into().ok()?) })
    }
}

/// A batch to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// Which batch.
    pub batch: BatchRef,
    /// Its account had nothing out: it goes past the line.
    pub first: bool,
    /// Its task is a sandbox task: it has a line of its own.
    pub sandbox: bool,
}

/// So many leases in a row may end without a word before a batch is run alone.
pub const LOST_ALONE: i32 = 5;

/// How a batch is run whose leases keep ending without a word: its process may have died of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caution {
    /// As any other.
    None,
    /// With nothing else in the process, and no more than so many addresses.
    Alone(usize),
    /// Its first suspect has ended every process that asked about it, and is asked about no more.
    GiveUp,
}

impl Caution {
    /// For a batch whose last `lost` leases ended without a word and that has `left` addresses to do: alone at
    /// first, then half as many each time, until a single one was lost twice: once may be chance.
    pub fn of(lost: i32, left: usize) -> Self {
        let Ok(again @ 0..) = u32::try_from(lost - LOST_ALONE).map(i64::from) else {
            return Caution::None;
        };
        let share = |times: i64| match times {
            0..=31 => left.div_ceil(1 << times),
            _ => 1,
        };
        match again > 1 && share(again - 2) <= 1 {
            true => Caution::GiveUp,
            false => Caution::Alone(share(again).max(1)),
        }
    }

    /// How many leases in a row were lost, as the batch row says it after a step of a lease that came after
    /// `lost` lost ones. `found`: has this lease brought a result?
    ///
    /// One that is run alone counts as lost from its begin until it ends of itself. What was well begins the
    /// halving anew, as the losses before it may have had another cause, but the batch stays alone.
    pub fn lost_after(self, lost: i32, found: bool, after: After) -> i32 {
        match (self, after, found) {
            (Caution::None, _, true) => 0,
            (Caution::None, _, false) => lost,
            (_, After::Keep, _) => lost + 1,
            (_, _, true) => LOST_ALONE,
            (_, _, false) => lost,
        }
    }

    /// How many suspects are run; `None` = every address.
    pub fn most(self) -> Option<usize> {
        match self {
            Caution::None => None,
            Caution::Alone(most) => Some(most),
            Caution::GiveUp => Some(1),
        }
    }
}

/// A lease as its holder knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Held {
    /// Which batch.
    pub batch: BatchRef,
    /// Its fence.
    pub token: i64,
}

impl From<&Lease> for Held {
    fn from(lease: &Lease) -> Self {
        Self { batch: lease.batch, token: lease.token }
    }
}

impl From<&Step> for Held {
    fn from(step: &Step) -> Self {
        Self { batch: step.batch, token: step.token }
    }
}

/// A worker's claim on a batch.
#[derive(Debug)]
pub struct Lease {
    /// Which batch.
    pub batch: BatchRef,
    /// Who pays.
    pub account: AccountId,
    /// Its task is a sandbox task: nothing is held, and every address may start.
    pub sandbox: bool,
    /// The fence: every write of this worker carries it.
    pub token: i64,
    /// `seq` of the first address.
    pub first_seq: i64,
    /// The addresses, encoded (see [`super::payload`]).
    pub payload: Vec<u8>,
    /// Credits held for this lease; at most this many chargeable addresses may start.
    pub held: i64,
    /// What already has a result.
    pub done: Done,
    /// What is set aside, by `seq`; credits are held for what is due by `horizon` alone.
    pub deferred: Vec<Deferral>,
    /// When it was leased.
    pub leased_at: Millis,
    /// What is due by then is waited for.
    pub horizon: Millis,
    /// How often it was leased, this time included.
    pub attempt: i32,
    /// Leases before this one, in a row, that ended without a word.
    pub lost: i32,
}

impl Lease {
    /// How many addresses may start: of a sandbox task every one, else one for each credit held.
    pub fn startable(&self) -> i64 {
        if self.sandbox { i64::MAX } else { self.held }
    }

    /// Has this address its result?
    pub fn is_done(&self, seq: i64) -> bool {
        place(self.first_seq, seq).is_some_and(|place| self.done.contains(place))
    }

    /// Which of `seqs` to run when the batch is run alone, `most` of them, ascending: those that nobody was
    /// asked about yet, then those that were due first. Whatever becomes due meanwhile, the next lease
    /// begins with the same ones until they have their results.
    pub fn suspects(&self, seqs: impl Iterator<Item = i64>, most: usize) -> Vec<i64> {
        let due = |seq: i64| {
            let found = self.deferred.binary_search_by_key(&seq, |one| one.seq).ok();
            found.and_then(|at| self.deferred.get(at)).map(|one| one.due_at)
        };
        let left = seqs.filter(|seq| !self.is_done(*seq));
        let mut left: Vec<(Option<Millis>, i64)> = left.map(|seq| (due(seq), seq)).collect();
        left.sort_unstable();
        let mut first: Vec<i64> = left.into_iter().take(most).map(|(_, seq)| seq).collect();
        first.sort_unstable();
        first
    }
}

/// One finished address, before it is stored.
#[derive(Debug, Clone)]
pub struct Finding {
    /// Its number in the task.
    pub seq: i64,
    /// What was found.
    pub verdict: Verdict,
    /// How it ends in the books.
    pub credit: Credit,
    /// How often it was asked.
    pub attempts: i16,
    /// When the verdict came.
    pub checked_at: Millis,
}

/// An address set aside, as its mail server said "later".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deferral {
    /// Its number in the task.
    pub seq: i64,
    /// How often it was asked.
    pub attempts: i16,
    /// Not to be asked again before.
    pub due_at: Millis,
}

/// What a worker does with its lease in one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// Goes on.
    Keep,
    /// Ends it: done if every address has a result, else back to work.
    Release,
    /// Ends it likewise; what has no result is set aside, the first of it until then.
    Wait(Millis),
}

/// The place of the address numbered `seq` in a batch that begins with `first_seq`.
pub fn place(first_seq: i64, seq: i64) -> Option<usize> {
    usize::try_from(seq.checked_sub(first_seq)?).ok()
}

/// One step of one lease: what has finished, and what becomes of the lease.
#[derive(Debug)]
pub struct Step {
    /// Which batch.
    pub batch: BatchRef,
    /// `seq` of its first address.
    pub first_seq: i64,
    /// What had its result before this step; refused if the batch row says otherwise.
    pub done: Done,
    /// Who pays.
    pub account: AccountId,
    /// The fence.
    pub token: i64,
    /// What has finished.
    pub findings: Vec<Finding>,
    /// What is set aside; the credits held for it go back.
    pub deferrals: Vec<Deferral>,
    /// What becomes of the lease.
    pub after: After,
    /// How many of the batch's leases were lost in a row, from now on ([`Caution::lost_after`]).
    pub lost: i32,
}

impl Step {
    /// The findings counted.
    pub fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        for finding in &self.findings {
            tally.count(finding.verdict.reason.status(), finding.credit);
        }
        tally
    }

    /// Held credits that this step uses up or gives back if its lease goes on.
    pub fn resolved(&self) -> i64 {
        self.tally().resolved() + self.deferrals.len() as i64
    }
}

/// What became of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// Stored, now or by an earlier try of the same step.
    Stored {
        /// The batch is done.
        batch_done: bool,
        /// It was the last one.
        task_done: bool,
    },
    /// The lease was taken over or cancelled: nothing was written.
    Fenced,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::domain::id::Ids;

    #[test]
    fn a_batch_that_keeps_being_lost_is_run_alone_then_halved_then_given_up() {
        let of_40: Vec<Caution> = (4..=13).map(|lost| Caution::of(lost, 40)).collect();
        let alone = [40, 20, 10, 5, 3, 2, 1, 1].map(Caution::Alone);
        assert_eq!(of_40[0], Caution::None);
        assert_eq!(of_40[1..9], alone);
        assert_eq!(of_40[9], Caution::GiveUp);
        assert_eq!([5, 6].map(|lost| Caution::of(lost, 1)), [Caution::Alone(1); 2]);
        assert_eq!(Caution::of(7, 1), Caution::GiveUp);
        assert_eq!(Caution::of(90, 1_000_000), Caution::GiveUp);
    }

    /// Runs a batch of `size` until it is done, `killers` ending every process that asks about them after
    /// `progress` of the others were stored; returns how many were ended, and which addresses were given up.
    /// Lease number `chance` is lost for another reason.
    fn outlive(
        size: usize,
        killers: &BTreeSet<usize>,
        progress: usize,
        chance: Option<usize>,
    ) -> (usize, BTreeSet<usize>) {
        let mut done: BTreeSet<usize> = BTreeSet::new();
        let mut given_up = BTreeSet::new();
        let (mut lost, mut kills, mut leases) = (0, 0, 0);
        while done.len() < size {
            let caution = Caution::of(lost, size - done.len());
            let left: Vec<usize> = (0..size).filter(|place| !done.contains(place)).collect();
            let asked = &left[..caution.most().unwrap_or(left.len()).min(left.len())];
            if caution == Caution::GiveUp {
                given_up.extend(asked);
                done.extend(asked);
                lost = caution.lost_after(lost, true, After::Release);
                continue;
            }
            leases += 1;
            let killer = asked.iter().position(|place| killers.contains(place));
            let before_death = killer.or((chance == Some(leases)).then_some(0));
            let stored = before_death.map_or(asked.len(), |before| before.min(progress));
            done.extend(&asked[..stored]);
            if before_death.is_some() {
                kills += 1;
                lost = match caution {
                    Caution::None => caution.lost_after(lost, stored > 0, After::Keep) + 1,
                    _ => caution.lost_after(lost, stored > 0, After::Keep),
                };
            } else {
                lost = caution.lost_after(lost, true, After::Release);
            }
        }
        (kills, given_up)
    }

    proptest! {
        /// Only those that end their process are given up, also where a lease is lost by chance.
        #[test]
        fn exactly_the_killers_are_given_up(
            size in 1..600_usize,
            killers in proptest::collection::btree_set(0..600_usize, 0..4),
            (progress, chance) in prop_oneof![
                (Just(0_usize), proptest::option::of(1..40_usize)),
                (0..40_usize, Just(None)),
            ],
        ) {
            let killers: BTreeSet<usize> = killers.into_iter().filter(|k| *k < size).collect();
            let (kills, given_up) = outlive(size, &killers, progress, chance);
            prop_assert_eq!(&given_up, &killers);
            if progress == 0 {
                let halvings = size.next_power_of_two().ilog2() as usize + 2;
                let most = 6 + killers.len() * halvings * (halvings + 1);
                prop_assert!(kills <= most, "{} ends", kills);
            }
        }
    }

    fn lease(done: &[i64], deferred: &[(i64, Millis)]) -> Lease {
        let deferred = deferred.iter().map(|&(seq, due_at)| Deferral { seq, attempts: 1, due_at });
        Lease {
            batch: BatchRef { task: TaskId::new(&Ids::seeded(3), 1), no: 0 },
            account: AccountId::new(&Ids::seeded(4), 1),
            sandbox: false,
            token: 1,
            first_seq: 10,
            payload: Vec::new(),
            held: 5,
            done: done.iter().fold(Done::default(), |mut done, seq| {
                done.insert(place(10, *seq).unwrap());
                done
            }),
            deferred: deferred.collect(),
            leased_at: 1_000,
            horizon: 31_000,
            attempt: 7,
            lost: 6,
        }
    }

    #[test]
    fn suspects_are_those_never_asked_about_then_those_due_first() {
        let lease = lease(&[11], &[(10, 900), (12, 800), (14, 70_000)]);
        let suspects = |most| lease.suspects(10..16, most);
        assert_eq!(suspects(1), [13]);
        assert_eq!(suspects(2), [13, 15]);
        assert_eq!(suspects(3), [12, 13, 15]);
        assert_eq!(suspects(9), [10, 12, 13, 14, 15]);
    }

    #[test]
    fn a_reference_round_trips_and_refuses_garbage() {
        let batch = BatchRef { task: TaskId::new(&Ids::seeded(3), 1), no: 70_000 };
        assert_eq!(BatchRef::from_bytes(&batch.to_bytes()), Some(batch));
        assert_eq!(BatchRef::from_bytes(b"garbage"), None);
    }
}

//! Is a chain whole? Rows are given in the order of their numbers; memory does not grow with them.

use std::fmt;

use super::{Head, Row, START};
use crate::domain::id::AccountId;

/// Goes through one chain.
#[derive(Debug)]
pub struct Verifier {
    chain: AccountId,
    /// Number of the last row in its place.
    seq: i64,
    /// The hash that it says it has.
    hash: Vec<u8>,
}

/// A place where a chain is broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Break {
    /// Of which chain.
    pub chain: AccountId,
    /// At which row.
    pub seq: i64,
    /// In which way.
    pub how: How,
}

/// How a chain is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Its hash is not that of what it holds.
    Changed,
    /// Rows are missing, from this one up to the one named.
    Missing(i64),
    /// It stands where no row of its number can be: doubled, out of order, or of another chain.
    Misplaced,
    /// It does not follow the row before it: that one was replaced.
    Unlinked,
    /// The end is missing, from this row up to the one that the head names.
    Cut(i64),
    /// Rows from this one on are not known to the head.
    Added,
    /// It is the last row, and there is no head.
    Headless,
    /// It is the last row, and the head has another hash.
    HeadDiffers,
}

impl How {
    /// Its name, for programs.
    pub const fn as_str(self) -> &'static str {
        match self {
            How::Changed => "changed",
            How::Missing(_) => "missing",
            How::Misplaced => "misplaced",
            How::Unlinked => "unlinked",
            How::Cut(_) => "cut",
            How::Added => "added",
            How::Headless => "headless",
            How::HeadDiffers => "head_differs",
        }
    }
}

impl fmt::Display for Break {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seq = self.seq;
        match self.how {
            How::Changed => {
                write!(f, "row {seq} was changed: its hash is not that of what it holds")
            }
            How::Missing(last) if last == seq => write!(f, "row {seq} is missing"),
            How::Missing(last) => write!(f, "rows {seq} to {last} are missing"),
            How::Misplaced => write!(f, "row {seq} is not in its place: doubled, moved or foreign"),
            How::Unlinked => {
                write!(f, "row {seq} does not follow the row before it: that one was replaced")
            }
            How::Cut(last) if last == seq => write!(f, "the last row, {seq}, is missing"),
            How::Cut(last) => write!(f, "the end is missing: rows {seq} to {last}"),
            How::Added => write!(f, "the rows from {seq} on were added behind the chain's head"),
            How::Headless => write!(f, "the chain's head is missing; its last row is {seq}"),
            How::HeadDiffers => write!(f, "the last row, {seq}, is not the one the head names"),
        }
    }
}

impl Verifier {
    /// Of this chain, at its start.
    pub fn new(chain: AccountId) -> Self {
        Self { chain, seq: 0, hash: START.to_vec() }
    }

    fn broken(&self, seq: i64, how: How) -> Break {
        Break { chain: self.chain, seq, how }
    }

    /// Looks at the next row. After a break it goes on from what the row says, so that each is told once.
    pub fn row(&mut self, row: &Row) -> Option<Break> {
        if row.chain != self.chain || row.seq <= self.seq {
            return Some(self.broken(row.seq, How::Misplaced));
        }
        let how = if row.seq - 1 > self.seq {
            Some(self.broken(self.seq + 1, How::Missing(row.seq - 1)))
        } else if row.digest()[..] != row.hash {
            Some(self.broken(row.seq, How::Changed))
        } else if row.previous != self.hash {
            Some(self.broken(row.seq, How::Unlinked))
        } else {
            None
        };
        self.seq = row.seq;
        self.hash.clone_from(&row.hash);
        how
    }

    /// Looks at the head, after the last row.
    pub fn end(self, head: Option<&Head>) -> Option<Break> {
        match head {
            None if self.seq == 0 => None,
            None => Some(self.broken(self.seq, How::Headless)),
            Some(head) if head.seq > self.seq => {
                Some(self.broken(self.seq + 1, How::Cut(head.seq)))
            }
            Some(head) if head.seq < self.seq => {
                Some(self.broken(head.seq.saturating_add(1), How::Added))
            }
            Some(head) if head.hash != self.hash => Some(self.broken(self.seq, How::HeadDiffers)),
            Some(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Actor, Change, INSTALLATION, Origin};
    use super::*;
    use crate::domain::id::Ids;
    use proptest::prelude::*;
    use proptest::sample::Index;
    use serde_json::json;

    const ACTIONS: [&str; 4] = ["key.create", "key.disable", "ip.block", "credits.grant"];

    /// What a chain is made of: small alphabets, so that rows may look alike.
    type Made = (usize, String, Option<u8>, Option<String>, Option<u8>, Option<u8>);

    fn made() -> impl Strategy<Value = Vec<Made>> {
        let one = (
            0..ACTIONS.len(),
            "[ab]{0,2}",
            proptest::option::of(0u8..2),
            proptest::option::of("[ab]{0,2}"),
            proptest::option::of(0u8..2),
            proptest::option::of(0u8..2),
        );
        proptest::collection::vec(one, 1..12)
    }

    fn chain(made: &[Made]) -> (Vec<Row>, Head) {
        let (mut rows, mut hash) = (Vec::new(), START.to_vec());
        for (seq, (action, target, ip, request_id, before, after)) in (1..).zip(made) {
            let by = Origin {
                actor: Actor::Operator,
                ip: ip.map(|last| [192, 0, 2, last].into()),
                request_id: request_id.clone(),
            };
            let mut change = Change::new(&by, None, ACTIONS[*action], target);
            change.before = before.map(|n| json!({ "n": n }));
            change.after = after.map(|n| json!({ "n": n }));
            let row = Row::new(&change, seq, hash, 1_700_000_000_000);
            hash = row.hash.clone();
            rows.push(row);
        }
        let head = Head { seq: rows.len() as i64, hash };
        (rows, head)
    }

    fn breaks(rows: &[Row], head: Option<&Head>) -> Vec<Break> {
        let mut verifier = Verifier::new(INSTALLATION);
        let mut all: Vec<Break> = rows.iter().filter_map(|row| verifier.row(row)).collect();
        all.extend(verifier.end(head));
        all
    }

    fn longer(text: &mut String) {
        text.push('a');
    }

    fn other(text: &mut Option<String>) {
        *text = match text.take() {
            None => Some(String::new()),
            Some(text) if text.is_empty() => None,
            Some(mut text) => {
                text.pop();
                Some(text)
            }
        };
    }

    /// Every way to change one field of a row, and nothing else.
    const CHANGES: &[fn(&mut Row)] = &[
        |row| row.chain = AccountId::new(&Ids::seeded(9), 1),
        |row| row.seq += 1,
        |row| row.seq -= 1,
        |row| row.seq = -row.seq,
        |row| row.at += 1,
        |row| longer(&mut row.actor),
        |row| other(&mut row.ip),
        |row| other(&mut row.request_id),
        |row| longer(&mut row.action),
        |row| longer(&mut row.target),
        |row| other(&mut row.before),
        |row| other(&mut row.after),
        |row| row.hash[31] ^= 1,
        |row| row.hash.truncate(31),
        |row| row.previous[0] ^= 1,
        |row| row.previous.push(0),
    ];

    proptest! {
        #[test]
        fn a_whole_chain_is_whole(made in made()) {
            let (rows, head) = chain(&made);
            prop_assert_eq!(breaks(&rows, Some(&head)), []);
        }

        #[test]
        fn any_change_of_a_field_is_found(made in made(), at: Index, change in 0..CHANGES.len()) {
            let (mut rows, head) = chain(&made);
            let at = at.index(rows.len());
            let was = rows[at].clone();
            CHANGES[change](&mut rows[at]);
            prop_assert_ne!(&rows[at], &was);
            let found = breaks(&rows, Some(&head));
            prop_assert!(!found.is_empty());
            // Told where it is, give or take the neighbour that no longer follows.
            let near = |one: &Break| (one.seq - was.seq).abs() <= 1 || one.seq == rows[at].seq;
            prop_assert!(found.iter().any(near), "{:?}", found);
        }

        /// Whoever makes the row's own hash anew is betrayed by the row behind it, or by the head.
        #[test]
        fn a_row_made_anew_is_found(made in made(), at: Index) {
            let (mut rows, head) = chain(&made);
            let at = at.index(rows.len());
            rows[at].target.push('x');
            rows[at].hash = rows[at].digest().to_vec();
            let found = breaks(&rows, Some(&head));
            prop_assert_eq!(found.len(), 1);
            let (seq, how) = match at + 1 == rows.len() {
                true => (at as i64 + 1, How::HeadDiffers),
                false => (at as i64 + 2, How::Unlinked),
            };
            prop_assert_eq!((found[0].seq, found[0].how), (seq, how));
        }

        #[test]
        fn removed_rows_are_found(made in made(), at: Index, many in 1usize..4) {
            let (mut rows, head) = chain(&made);
            let at = at.index(rows.len());
            let end = (at + many).min(rows.len());
            let was_end = end == rows.len();
            rows.drain(at..end);
            let found = breaks(&rows, Some(&head));
            prop_assert_eq!(found.len(), 1);
            let how = if was_end { How::Cut(end as i64) } else { How::Missing(end as i64) };
            prop_assert_eq!((found[0].seq, found[0].how), (at as i64 + 1, how));
        }

        #[test]
        fn doubled_rows_are_found(made in made(), from: Index, to: Index) {
            let (mut rows, head) = chain(&made);
            let double = rows[from.index(rows.len())].clone();
            let to = to.index(rows.len() + 1);
            rows.insert(to, double.clone());
            let found = breaks(&rows, Some(&head));
            let misplaced = |one: &Break| one.how == How::Misplaced;
            prop_assert!(found.iter().any(misplaced), "{:?}", found);
        }

        #[test]
        fn swapped_rows_are_found(made in made(), one: Index, two: Index) {
            let (mut rows, head) = chain(&made);
            let (one, two) = (one.index(rows.len()), two.index(rows.len()));
            prop_assume!(one != two);
            rows.swap(one, two);
            prop_assert!(!breaks(&rows, Some(&head)).is_empty());
            // And where only what they hold was swapped, their numbers left as they were.
            let (seq_one, seq_two) = (rows[one].seq, rows[two].seq);
            (rows[one].seq, rows[two].seq) = (seq_two, seq_one);
            prop_assert!(!breaks(&rows, Some(&head)).is_empty());
        }

        #[test]
        fn a_wrong_head_is_found(made in made(), back in 1i64..4) {
            let (rows, head) = chain(&made);
            let of = |head: Option<&Head>| {
                let found = breaks(&rows, head);
                (found.len(), found[0].seq, found[0].how)
            };
            let last = head.seq;
            prop_assert_eq!(of(None), (1, last, How::Headless));
            let ahead = Head { seq: last + back, ..head.clone() };
            prop_assert_eq!(of(Some(&ahead)), (1, last + 1, How::Cut(last + back)));
            let behind = Head { seq: last - back, ..head.clone() };
            prop_assert_eq!(of(Some(&behind)), (1, last - back + 1, How::Added));
            let mut wrong = head;
            wrong.hash[5] ^= 4;
            prop_assert_eq!(of(Some(&wrong)), (1, last, How::HeadDiffers));
        }
    }

    #[test]
    fn an_empty_chain_is_whole_and_all_of_it_may_be_cut() {
        assert_eq!(breaks(&[], None), []);
        let head = Head { seq: 2, hash: START.to_vec() };
        assert_eq!(breaks(&[], Some(&head))[0].how, How::Cut(2));
    }
}

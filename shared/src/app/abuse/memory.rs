//! What a process remembers for the rules, bounded: whom it has counted lately and whom it need not count, for each
//! rule by itself, so that a flood for one does not blind the others; and which networks of keys it has judged.
//!
//! A clock that is set back makes it forget, never wait for a time that comes again.

use std::collections::{HashMap, HashSet};

use super::{AGAIN, QUIET, REMEMBERED, uncounted};
use crate::domain::abuse::{MINUTE_MS, Rule};
use crate::domain::clock::Millis;
use crate::domain::id::KeyId;
use crate::store::abuse_acts::Subject;
use crate::store::key_networks::Uses;

/// See the module.
#[derive(Default)]
pub struct Memory {
    /// By the rule's number.
    rules: [OfRule; Rule::ALL.len()],
    /// Which ten minutes.
    slot: i64,
    /// When a network of a key was judged last.
    judged: HashMap<(KeyId, String), Millis>,
}

#[derive(Default)]
struct OfRule {
    /// Subjects counted in these ten minutes.
    counted: HashSet<String>,
    /// Not counted until then.
    quiet: HashMap<String, Millis>,
}

/// Is somebody still quiet?
fn is_quiet(until: Millis, now: Millis) -> bool {
    (1..=QUIET).contains(&(until - now))
}

/// Was a network judged lately?
fn is_judged(at: Millis, now: Millis) -> bool {
    (0..AGAIN).contains(&(now - at))
}

impl Memory {
    /// May this subject be counted?
    pub fn may_count(&mut self, rule: Rule, subject: &str, now: Millis) -> bool {
        let slot = now / (10 * MINUTE_MS);
        if slot != self.slot {
            self.slot = slot;
            for one in &mut self.rules {
                one.counted.clear();
                one.quiet.retain(|_, until| is_quiet(*until, now));
            }
        }
        let own = &mut self.rules[rule as usize];
        if own.quiet.get(subject).is_some_and(|until| is_quiet(*until, now)) {
            return false;
        }
        if own.counted.contains(subject) {
            return true;
        }
        if own.counted.len() >= REMEMBERED {
            uncounted(1);
            return false;
        }
        own.counted.insert(subject.to_owned())
    }

    /// Whom nothing can be done about is not counted for a while, [`QUIET`] at the most.
    pub fn quiet(&mut self, rule: Rule, subject: String, until: Millis) {
        let quiet = &mut self.rules[rule as usize].quiet;
        if quiet.len() < REMEMBERED {
            quiet.insert(subject, until);
        }
    }

    /// Keys that were used from a network that was not judged lately.
    pub fn keys_to_judge(&mut self, uses: &[Uses], now: Millis) -> Vec<KeyId> {
        let mut keys = Vec::new();
        for one in uses {
            let place = (one.key, one.network.clone());
            if self.judged.get(&place).is_some_and(|at| is_judged(*at, now)) {
                continue;
            }
            if self.judged.len() >= REMEMBERED && !self.judged.contains_key(&place) {
                self.judged.retain(|_, at| is_judged(*at, now));
            }
            // With no room left, it is judged each time.
            if self.judged.len() < REMEMBERED || self.judged.contains_key(&place) {
                self.judged.insert(place, now);
            }
            if keys.last() != Some(&one.key) {
                keys.push(one.key);
            }
        }
        keys
    }

    /// This subject was acted upon: its networks are judged anew.
    pub fn forget(&mut self, subject: &Subject) {
        if let Subject::Key(key) = subject {
            self.judged.retain(|(one, _), _| one != key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::Ids;

    const NOW: Millis = 1_800_000_000_000;

    #[test]
    fn no_more_are_counted_than_are_remembered() {
        let mut memory = Memory::default();
        for number in 0..REMEMBERED + 5 {
            let may = memory.may_count(Rule::DeadKeys, &number.to_string(), NOW);
            assert_eq!(may, number < REMEMBERED);
        }
        assert!(memory.may_count(Rule::DeadKeys, "0", NOW), "whom it knows");
        assert!(memory.may_count(Rule::UnknownKeys, "new", NOW), "another rule has its own");
        assert!(!memory.may_count(Rule::DeadKeys, "new", NOW));
        assert!(memory.may_count(Rule::DeadKeys, "new", NOW + 10 * MINUTE_MS));
    }

    #[test]
    fn who_is_quiet_is_not_counted_for_a_while() {
        let mut memory = Memory::default();
        memory.quiet(Rule::DeadKeys, String::from("a"), NOW + 5);
        assert!(!memory.may_count(Rule::DeadKeys, "a", NOW + 4));
        assert!(memory.may_count(Rule::UnknownKeys, "a", NOW + 4));
        assert!(memory.may_count(Rule::DeadKeys, "a", NOW + 5));
    }

    #[test]
    fn a_network_is_judged_when_it_comes_and_again_after_a_while() {
        let mut memory = Memory::default();
        let ids = Ids::seeded(1);
        let uses = |key, network: &str| Uses {
            key,
            network: network.to_owned(),
            first_at: NOW,
            last_at: NOW,
            requests: 1,
            accepted: 1,
        };
        let (a, b) = (KeyId::new(&ids, 1), KeyId::new(&ids, 2));
        let both = [uses(a, "1"), uses(a, "2"), uses(b, "1")];
        assert_eq!(memory.keys_to_judge(&both, NOW), [a, b]);
        assert!(memory.keys_to_judge(&both, NOW + AGAIN - 1).is_empty());
        assert_eq!(memory.keys_to_judge(&[uses(a, "3")], NOW + 1), [a]);
        assert_eq!(memory.keys_to_judge(&both, NOW + AGAIN), [a, b]);
        memory.forget(&Subject::Key(a));
        assert_eq!(memory.keys_to_judge(&both, NOW + AGAIN), [a]);
    }

    #[test]
    fn a_clock_that_is_set_back_stops_nothing() {
        let mut memory = Memory::default();
        let key = KeyId::new(&Ids::seeded(1), 1);
        let (network, at) = (String::from("1"), NOW);
        let uses = [Uses { key, network, first_at: at, last_at: at, requests: 1, accepted: 1 }];
        assert_eq!(memory.keys_to_judge(&uses, NOW), [key]);
        let back = NOW - 60 * MINUTE_MS;
        assert_eq!(memory.keys_to_judge(&uses, back), [key], "that was in its future");
        assert!(memory.keys_to_judge(&uses, back + AGAIN - 1).is_empty());
        memory.quiet(Rule::DeadKeys, String::from("a"), NOW + QUIET);
        assert!(!memory.may_count(Rule::DeadKeys, "a", NOW));
        assert!(memory.may_count(Rule::DeadKeys, "a", back));
    }
}

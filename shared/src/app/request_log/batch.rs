//! Decisions become a [`Batch`]: numbered, added up, and thinned out where there are too many.
//!
//! * Refusals always have a row. Of accepted calls, the first so many of each second of this process have one;
//!   usage and the last use count them all. Accepted verifications of keys of apis have none: the request that
//!   asked for them has. A batch has one row at least, by which it is known again when it was written and the
//!   answer was lost.
//! * The networks of a key are told apart up to [`NETWORKS`] in an hour, by this process; what comes from
//!   further ones is counted as `other`. What is remembered for that is bounded, too ([`KEYS`]).

use std::collections::{BTreeMap, HashMap};

use crate::domain::clock::Millis;
use crate::domain::id::{AccountId, Ids, KeyId};
use crate::domain::request::{By, Decision, LastUse, Network, Outcome};
use crate::store::request_log::{Batch, Group, ID_BITS, id_at};

/// Networks of one key that are told apart in an hour.
const NETWORKS: usize = 16;
/// Keys and hours whose networks are remembered.
const KEYS: usize = 1 << 16;
/// Slots of the counts by hour; processes spread over them.
const SLOTS: u32 = 4;
/// Numbers of one millisecond.
const NUMBERS: u32 = 1 << ID_BITS;

/// Makes batches; one for each process.
pub(super) struct Batcher {
    ids: Ids,
    /// Tells apart the rows of a millisecond; goes round.
    next: u32,
    slot: i16,
    sample: Sample,
    networks: Networks,
}

impl Batcher {
    /// `accepted`: accepted calls of a second that have a row.
    pub(super) fn new(ids: Ids, accepted: u32) -> Self {
        let next = u32::from_le_bytes(ids.bytes()) % NUMBERS;
        let slot = (next % SLOTS) as i16;
        let (sample, networks) = (Sample::new(accepted), Networks::default());
        Self { ids, next, slot, sample, networks }
    }

    /// The batch, and how many accepted calls have no row in it.
    pub(super) fn batch(&mut self, decisions: Vec<Decision>) -> (Batch, u64) {
        let mut hours: BTreeMap<Group, i64> = BTreeMap::new();
        let mut days: BTreeMap<Group, i64> = BTreeMap::new();
        let mut counts: BTreeMap<Millis, i64> = BTreeMap::new();
        let mut last: BTreeMap<KeyId, LastUse> = BTreeMap::new();
        let mut rows = Vec::with_capacity(decisions.len());
        let (mut left_out, mut spare) = (0, None);
        for decision in decisions {
            let group = self.group(&decision);
            let day = Group { at: By::Day.start_of(group.at), ..group.clone() };
            let hour = group.at;
            *hours.entry(group).or_default() += 1;
            *days.entry(day).or_default() += 1;
            let accepted = decision.outcome == Outcome::Accepted;
            if accepted {
                note_use(&mut last, &decision);
            }
            if accepted && (decision.is_verification() || !self.sample.takes(decision.at)) {
                left_out += 1;
                spare = spare.or(Some((hour, decision)));
                continue;
            }
            *counts.entry(hour).or_default() += 1;
            rows.push((self.number(decision.at), decision));
        }
        if let (true, Some((hour, decision))) = (rows.is_empty(), spare) {
            left_out -= 1;
            *counts.entry(hour).or_default() += 1;
            rows.push((self.number(decision.at), decision));
        }
        let batch = Batch {
            rows,
            counts: counts.into_iter().collect(),
            slot: self.slot,
            hours: hours.into_iter().collect(),
            days: days.into_iter().collect(),
            last: last.into_iter().collect(),
        };
        (batch, left_out)
    }

    /// Gives the rows other ids: another process had the same ones.
    pub(super) fn number_again(&mut self, batch: &mut Batch) {
        self.next = u32::from_le_bytes(self.ids.bytes()) % NUMBERS;
        for (id, decision) in &mut batch.rows {
            *id = self.number(decision.at);
        }
    }

    fn number(&mut self, at: Millis) -> i64 {
        self.next = (self.next + 1) % NUMBERS;
        id_at(at) | i64::from(self.next)
    }

    fn group(&mut self, decision: &Decision) -> Group {
        let account = decision.account.unwrap_or(AccountId::FIRST);
        let key = decision.key.unwrap_or(KeyId::FIRST);
        let at = By::Hour.start_of(decision.at);
        let network = decision.ip.map_or(Network::None, Network::of);
        let network = self.networks.told_apart(key, at, network);
        Group {
            account,
            key,
            at,
            outcome: decision.outcome,
            route: decision.route.clone(),
            network,
        }
    }
}

/// The newest call of each key counts.
fn note_use(last: &mut BTreeMap<KeyId, LastUse>, decision: &Decision) {
    let Some(key) = decision.key else { return };
    if last.get(&key).is_some_and(|known| known.at > decision.at) {
        return;
    }
    let ip = decision.ip.map(|ip| ip.to_string());
    let route = String::from(&*decision.route);
    last.insert(key, LastUse { at: decision.at, ip, route });
}

/// So many of each second.
struct Sample {
    most: u32,
    second: Millis,
    taken: u32,
}

impl Sample {
    fn new(most: u32) -> Self {
        Self { most, second: 0, taken: 0 }
    }

    /// Does this one have a row? What arrived in an earlier second counts as of the latest.
    fn takes(&mut self, at: Millis) -> bool {
        let second = at.div_euclid(1000);
        if second > self.second {
            (self.second, self.taken) = (second, 0);
        }
        let takes = self.taken < self.most;
        self.taken += u32::from(takes);
        takes
    }
}

/// The networks seen of each key in each hour.
#[derive(Default)]
struct Networks(HashMap<(KeyId, Millis), Vec<Network>>);

impl Networks {
    /// The network itself, if it is one of the first of this key and hour.
    fn told_apart(&mut self, key: KeyId, hour: Millis, network: Network) -> Network {
        if self.0.len() >= KEYS && !self.0.contains_key(&(key, hour)) {
            self.0.retain(|(_, at), _| *at >= hour);
            if self.0.len() >= KEYS {
                return Network::Other;
            }
        }
        let seen = self.0.entry((key, hour)).or_default();
        if seen.contains(&network) {
            network
        } else if seen.len() < NETWORKS {
            seen.push(network);
            network
        } else {
            Network::Other
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::request::{DAY_MS, HOUR_MS, VERIFICATION};
    use proptest::prelude::*;

    const START: Millis = 1_800_000_000_000;

    fn decision(key: Option<KeyId>, at: Millis, outcome: Outcome, ip: &str) -> Decision {
        Decision {
            at,
            account: key.map(|key| AccountId(key.0)),
            key,
            outcome,
            ip: Some(ip.parse().unwrap()),
            route: "/v1/tasks".into(),
            method: "GET",
            status: 200,
            latency_us: 7,
            request_id: String::from("r"),
        }
    }

    #[test]
    fn above_a_rate_accepted_calls_are_thinned_out_and_refusals_never() {
        let key = Some(KeyId::new(&Ids::seeded(1), START));
        let mut batcher = Batcher::new(Ids::seeded(2), 10);
        let mut decisions = Vec::new();
        for i in 0..50 {
            let outcome = if i % 2 == 0 { Outcome::Accepted } else { Outcome::RateLimit };
            decisions.push(decision(key, START + i, outcome, "192.0.2.1"));
        }
        let (batch, left_out) = batcher.batch(decisions);
        assert_eq!((batch.rows.len(), left_out), (10 + 25, 15));
        // Usage has all of them, and so has the last use.
        let sum = |sums: &[(Group, i64)]| sums.iter().map(|(_, count)| count).sum::<i64>();
        assert_eq!((sum(&batch.hours), sum(&batch.days)), (50, 50));
        assert_eq!(batch.last[0].1.at, START + 48);
        assert_eq!(batch.counts, [(By::Hour.start_of(START), 35)]);
        // The next second has room again.
        let next = vec![decision(key, START + 1_000, Outcome::Accepted, "192.0.2.1")];
        assert_eq!(batcher.batch(next).1, 0);
    }

    #[test]
    fn accepted_verifications_are_counted_and_have_no_row() {
        let key = Some(KeyId::new(&Ids::seeded(1), START));
        let mut batcher = Batcher::new(Ids::seeded(2), 1_000);
        let of = |at, outcome, route: &str| Decision {
            route: route.into(),
            ..decision(key, at, outcome, "192.0.2.1")
        };
        let (batch, left_out) = batcher.batch(vec![
            of(START, Outcome::Accepted, VERIFICATION),
            of(START + 1, Outcome::Accepted, "/v2/keys.verifyKey"),
            of(START + 2, Outcome::Expired, VERIFICATION),
            of(START + 3, Outcome::Accepted, VERIFICATION),
        ]);
        let rows: Vec<i64> = batch.rows.iter().map(|(_, row)| row.at - START).collect();
        assert_eq!((rows, left_out), (vec![1, 2], 2));
        let sum: i64 = batch.hours.iter().map(|(_, count)| count).sum();
        assert_eq!((sum, batch.last[0].1.at), (4, START + 3));
        // A batch of nothing else is known again by one of them.
        let alone = vec![of(START, Outcome::Accepted, VERIFICATION); 3];
        let (batch, left_out) = batcher.batch(alone);
        assert_eq!((batch.rows.len(), left_out), (1, 2));
        assert_eq!(batch.counts, [(By::Hour.start_of(START), 1)]);
        assert!(batcher.batch(Vec::new()).0.rows.is_empty());
    }

    #[test]
    fn a_key_has_few_networks_in_an_hour() {
        let key = Some(KeyId::new(&Ids::seeded(1), START));
        let mut batcher = Batcher::new(Ids::seeded(2), 1_000);
        let from = |i: usize| format!("10.0.{i}.9");
        let decisions = (0..NETWORKS + 5)
            .flat_map(|i| [i, i])
            .map(|i| decision(key, START, Outcome::Accepted, &from(i)))
            .collect();
        let (batch, _) = batcher.batch(decisions);
        assert_eq!(batch.hours.len(), NETWORKS + 1);
        let other = batch.hours.iter().find(|(group, _)| group.network == Network::Other);
        assert_eq!(other.unwrap().1, 10);
        // A known one stays what it is; the next hour begins anew, another key has its own.
        let mut one = |key, at, i| {
            let (batch, _) = batcher.batch(vec![decision(key, at, Outcome::Unknown, &from(i))]);
            batch.hours[0].0.network
        };
        assert_eq!(one(key, START, 3).to_string(), "10.0.3.0/24");
        assert_eq!(one(key, START, 99), Network::Other);
        assert_eq!(one(key, START + HOUR_MS, 99).to_string(), "10.0.99.0/24");
        assert_eq!(one(None, START, 99).to_string(), "10.0.99.0/24");
    }

    #[test]
    fn what_is_remembered_of_networks_is_bounded() {
        let (ids, mut networks) = (Ids::seeded(1), Networks::default());
        let network = Network::of("192.0.2.1".parse().unwrap());
        for _ in 0..KEYS + 10 {
            networks.told_apart(KeyId::new(&ids, START), 0, network);
        }
        assert_eq!(networks.0.len(), KEYS);
        assert_eq!(networks.told_apart(KeyId::new(&ids, START), 0, network), Network::Other);
        // Past hours make room.
        assert_eq!(networks.told_apart(KeyId::new(&ids, START), HOUR_MS, network), network);
        assert_eq!(networks.0.len(), 1);
    }

    #[test]
    fn other_ids_when_they_were_taken() {
        let mut batcher = Batcher::new(Ids::seeded(2), 1_000);
        let decisions = vec![decision(None, START, Outcome::Malformed, "192.0.2.1"); 3];
        let (mut batch, _) = batcher.batch(decisions);
        let ids = |batch: &Batch| batch.rows.iter().map(|(id, _)| *id).collect::<Vec<_>>();
        let before = ids(&batch);
        batcher.number_again(&mut batch);
        let after = ids(&batch);
        assert!(before.iter().all(|id| !after.contains(id)));
        assert!(after.iter().all(|id| id >> ID_BITS == START));
    }

    proptest! {
        #[test]
        fn sums_are_those_of_the_decisions(
            all in prop::collection::vec((0u64..3, 0i64..3 * DAY_MS, 0usize..11, 0u8..40), 0..300)
        ) {
            let mut batcher = Batcher::new(Ids::seeded(2), 5);
            let decisions: Vec<Decision> = all
                .iter()
                .map(|&(key, at, outcome, net)| {
                    let key = (key > 0).then(|| KeyId::new(&Ids::seeded(key), 1));
                    decision(key, at, Outcome::ALL[outcome], &format!("10.0.{net}.1"))
                })
                .collect();
            let refused = decisions.iter().filter(|d| d.outcome != Outcome::Accepted).count();
            let (batch, left_out) = batcher.batch(decisions.clone());
            prop_assert_eq!(batch.rows.len() as u64 + left_out, decisions.len() as u64);
            let rows = |accepted: bool| {
                let is = move |(_, d): &&(i64, Decision)| (d.outcome == Outcome::Accepted) == accepted;
                batch.rows.iter().filter(is).count()
            };
            prop_assert_eq!(rows(false), refused);
            // By key, period and outcome, hours and days each hold every decision once.
            for (sums, by) in [(&batch.hours, By::Hour), (&batch.days, By::Day)] {
                let mut want: BTreeMap<(KeyId, Millis, Outcome), i64> = BTreeMap::new();
                for d in &decisions {
                    let key = d.key.unwrap_or(KeyId::FIRST);
                    *want.entry((key, by.start_of(d.at), d.outcome)).or_default() += 1;
                }
                let mut found = BTreeMap::new();
                for (group, count) in sums {
                    *found.entry((group.key, group.at, group.outcome)).or_default() += count;
                }
                prop_assert_eq!(found, want);
                let sorted = sums.windows(2).all(|pair| pair[0].0 < pair[1].0);
                prop_assert!(sorted, "sorted, each once");
            }
            let counted: i64 = batch.counts.iter().map(|(_, count)| count).sum();
            prop_assert_eq!(counted as usize, batch.rows.len());
        }
    }
}

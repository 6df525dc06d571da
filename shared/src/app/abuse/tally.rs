//! Decisions are added up: by rule, subject and minute, and by key and network.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sha2::{Digest, Sha256};

use super::memory::Memory;
use super::{NOT_YET, Noted, SUBJECTS, uncounted};
use crate::domain::abuse::{Action, MINUTE_MS, Policies, Rule, is_use};
use crate::domain::clock::Millis;
use crate::domain::id::KeyId;
use crate::domain::request::{By, Decision, Network, Outcome, network_of};
use crate::store::abuse::{Count, Tally};
use crate::store::key_networks::Uses;

/// Tells apart presented keys that nobody has, for minutes: 8 bytes of a hash, which leads nowhere. Never [`NOT_YET`].
pub fn print(presented: &str) -> i64 {
    let hash = Sha256::digest(presented.as_bytes());
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&hash[..8]);
    i64::from_be_bytes(bytes).max(NOT_YET + 1)
}

/// What a batch of decisions means for the rules.
#[derive(Debug, Default)]
pub struct Tallied(Tally);

impl Tallied {
    /// Is there nothing?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Is anything counted by this rule?
    pub fn has(&self, rule: Rule) -> bool {
        self.0.counts.iter().any(|count| count.rule == rule)
    }

    /// Refusals by request limits from before this count for nobody.
    pub fn forgive_limits_before(&mut self, at: Millis) {
        self.0.counts.retain(|count| count.rule != Rule::RateLimits || count.first_at >= at);
    }

    /// What is to be stored.
    pub fn rows(&self) -> &Tally {
        &self.0
    }

    /// Leaves out what is beyond the bounds, and whom nothing can be done about for now.
    pub fn bound(&mut self, policies: &Policies, memory: &mut Memory, now: Millis) {
        let kept = self.worst(memory, now);
        let mut items: HashMap<(Rule, String), u32> = HashMap::new();
        self.0.counts.retain(|count| {
            let subject = (count.rule, count.subject.clone());
            if !kept.contains(&subject) {
                return false;
            }
            // More than are too many tell nothing new.
            let items = items.entry(subject).or_default();
            *items += 1;
            count.rule != Rule::UnknownKeys || *items <= policies.of(count.rule).threshold
        });
    }

    /// The subjects of the most requests, so many of each rule as may be counted.
    fn worst(&self, memory: &mut Memory, now: Millis) -> BTreeSet<(Rule, String)> {
        let mut requests: BTreeMap<(Rule, &str), i64> = BTreeMap::new();
        for count in &self.0.counts {
            *requests.entry((count.rule, count.subject.as_str())).or_default() += count.requests;
        }
        let mut kept = BTreeSet::new();
        for rule in Rule::ALL {
            let of_rule = requests.iter().filter(|((one, _), _)| *one == rule);
            let mut of_rule: Vec<(i64, &str)> =
                of_rule.map(|((_, subject), requests)| (*requests, *subject)).collect();
            of_rule.sort_unstable_by(|a, b| b.cmp(a));
            uncounted(of_rule.len().saturating_sub(SUBJECTS));
            for (_, subject) in of_rule.into_iter().take(SUBJECTS) {
                if memory.may_count(rule, subject, now) {
                    kept.insert((rule, subject.to_owned()));
                }
            }
        }
        kept
    }

    /// Whom it touches, each once.
    pub fn subjects(&self) -> impl Iterator<Item = (Rule, String)> {
        let each = self.0.counts.iter().map(|count| (count.rule, count.subject.clone()));
        each.collect::<BTreeSet<_>>().into_iter()
    }

    /// Uses of live keys, by key.
    pub fn uses(&self) -> &[Uses] {
        &self.0.uses
    }

    /// Uses of a key in this batch.
    pub fn requests_of(&self, key: KeyId) -> i64 {
        self.0.uses.iter().filter(|one| one.key == key).map(|one| one.requests).sum()
    }
}

/// Adds up; the networks of keys always, as no network is blocked before it was looked whether keys are accepted from
/// there. Verifications of keys of apis count for nobody: other programs ask about whatever their own callers
/// present, and from their own servers. Root keys stand in no rule about keys, but whoever tries some that do not
/// exist does.
pub fn tally(decisions: &[Noted], policies: &Policies) -> Tallied {
    let mut counts: BTreeMap<(Rule, String, Millis, i64), Count> = BTreeMap::new();
    let mut uses: BTreeMap<(KeyId, Network), Uses> = BTreeMap::new();
    for (number, (decision, print)) in decisions.iter().enumerate() {
        if decision.is_verification() {
            continue;
        }
        let of_root = decision.is_of_root_key();
        if !of_root && is_use(decision.outcome) {
            add_use(&mut uses, decision);
        }
        let rule = rule_of(decision, *print).filter(|rule| policies.counts(*rule));
        let Some(rule) = rule else { continue };
        if of_root && rule.action() == Action::Suspended {
            continue;
        }
        let Some(subject) = subject(rule, decision) else { continue };
        // One that cannot be told apart from others is another.
        let item = match rule {
            Rule::UnknownKeys => print.unwrap_or((decision.at << 10) + number as i64),
            _ => 0,
        };
        add_count(&mut counts, rule, subject, item, decision.at);
    }
    let mut uses: Vec<Uses> = uses.into_values().collect();
    // As text: everybody touches the rows in this order.
    uses.sort_unstable_by(|a, b| (a.key, &a.network).cmp(&(b.key, &b.network)));
    Tallied(Tally { counts: counts.into_values().collect(), uses })
}

/// The rule that counts it, if one does.
fn rule_of(decision: &Decision, print: Option<i64>) -> Option<Rule> {
    let known = decision.key.is_some();
    match (decision.outcome, print) {
        // Its form is another's, but it was looked up, as keys of others are that were brought here: a guess.
        (Outcome::Malformed, Some(_)) if !known => Some(Rule::UnknownKeys),
        // Whoever holds it will be let in.
        (Outcome::Expired, Some(NOT_YET)) => None,
        (outcome, _) => Rule::counting(outcome, known),
    }
}

fn subject(rule: Rule, decision: &Decision) -> Option<String> {
    match rule {
        Rule::RateLimits | Rule::Networks => decision.key.map(|key| key.to_string()),
        Rule::UnknownKeys | Rule::DeadKeys => decision.ip.map(network_of),
    }
}

fn add_count(
    counts: &mut BTreeMap<(Rule, String, Millis, i64), Count>,
    rule: Rule,
    subject: String,
    item: i64,
    at: Millis,
) {
    let minute = at - at.rem_euclid(MINUTE_MS);
    let count = counts.entry((rule, subject.clone(), minute, item)).or_insert_with(|| Count {
        rule,
        subject,
        minute,
        item,
        requests: 0,
        first_at: at,
        last_at: at,
    });
    count.requests += 1;
    count.first_at = count.first_at.min(at);
    count.last_at = count.last_at.max(at);
}

fn add_use(uses: &mut BTreeMap<(KeyId, Network), Uses>, decision: &Decision) {
    let (Some(key), Some(ip)) = (decision.key, decision.ip) else { return };
    let (at, network) = (decision.at, Network::of(ip));
    let accepted = i64::from(decision.outcome == Outcome::Accepted);
    let one = uses.entry((key, network)).or_insert_with(|| Uses {
        key,
        network: network.to_string(),
        first_at: at,
        last_at: at,
        requests: 0,
        accepted: 0,
    });
    one.requests += 1;
    one.first_at = one.first_at.min(at);
    // Accepted calls of the hour before count as of this one's.
    let new_hour = By::Hour.start_of(at) > By::Hour.start_of(one.last_at);
    one.accepted = if new_hour { accepted } else { one.accepted + accepted };
    one.last_at = one.last_at.max(at);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::abuse::{Mode, Policy};
    use crate::domain::id::{AccountId, Ids};
    use crate::domain::request::VERIFICATION;
    use proptest::prelude::*;

    const NOW: Millis = 1_800_000_000_000;

    fn policies() -> Policies {
        let policy = Policy { mode: Mode::On, threshold: 5, first: 1_000 };
        Policies { rules: [policy; 4], spread: 0, known: 3 }
    }

    fn key(number: u64) -> KeyId {
        KeyId::new(&Ids::seeded(number), NOW)
    }

    fn noted(key: Option<KeyId>, outcome: Outcome, ip: &str, at: Millis) -> Noted {
        let decision = Decision {
            at,
            account: key.map(|key| AccountId(key.0)),
            key,
            outcome,
            ip: Some(ip.parse().unwrap()),
            route: "/v1/tasks".into(),
            method: "GET",
            status: 200,
            latency_us: 1,
            request_id: String::new(),
        };
        (decision, None)
    }

    fn of(decisions: &[Noted]) -> Tally {
        let mut tallied = tally(decisions, &policies());
        tallied.bound(&policies(), &mut Memory::default(), NOW);
        tallied.rows().clone()
    }

    #[test]
    fn each_decision_counts_where_it_belongs() {
        let one = key(1);
        let all = of(&[
            noted(Some(one), Outcome::Accepted, "192.0.2.1", NOW),
            noted(Some(one), Outcome::RateLimit, "192.0.2.2", NOW + 1),
            noted(Some(one), Outcome::RateLimit, "198.51.100.1", NOW + MINUTE_MS),
            noted(Some(one), Outcome::Disabled, "192.0.2.3", NOW),
            noted(None, Outcome::Unknown, "2001:db8::1", NOW),
            noted(None, Outcome::Malformed, "192.0.2.4", NOW),
            noted(Some(one), Outcome::Suspended, "192.0.2.3", NOW),
            noted(None, Outcome::IpBlocked, "192.0.2.4", NOW),
        ]);
        let counts: Vec<_> = all
            .counts
            .iter()
            .map(|one| (one.rule, one.subject.as_str(), one.minute, one.requests))
            .collect();
        let (text, minute) = (one.to_string(), NOW - NOW % MINUTE_MS);
        assert_eq!(
            counts,
            [
                (Rule::RateLimits, text.as_str(), minute, 1),
                (Rule::RateLimits, text.as_str(), minute + MINUTE_MS, 1),
                (Rule::UnknownKeys, "2001:db8::/64", minute, 1),
                (Rule::DeadKeys, "192.0.2.0/24", minute, 1),
            ]
        );
        let uses: Vec<_> =
            all.uses.iter().map(|one| (one.network.as_str(), one.requests, one.accepted)).collect();
        assert_eq!(uses, [("192.0.2.0/24", 2, 1), ("198.51.100.0/24", 1, 0)]);
    }

    #[test]
    fn the_same_unknown_key_counts_once_and_no_more_than_enough() {
        let mut decisions: Vec<Noted> =
            (0..20).map(|_| noted(None, Outcome::Unknown, "192.0.2.1", NOW)).collect();
        for one in &mut decisions[..10] {
            one.1 = Some(print("VECthesame"));
        }
        let same = of(&decisions[..10]);
        assert_eq!((same.counts.len(), same.counts[0].requests), (1, 10));
        assert_eq!(of(&decisions[10..]).counts.len(), 5, "the threshold");
        assert_ne!(print("VECa"), print("VECb"));
    }

    #[test]
    fn looked_up_in_vain_is_a_guess_whatever_its_form() {
        let mut decisions: Vec<Noted> =
            (0..3).map(|_| noted(None, Outcome::Malformed, "192.0.2.1", NOW)).collect();
        assert!(of(&decisions).is_empty(), "nobody has looked these up");
        for (number, one) in decisions.iter_mut().enumerate() {
            one.1 = Some(print(&format!("sk_{number}")));
        }
        let all = of(&decisions);
        assert_eq!(all.counts.len(), 3);
        assert!(all.counts.iter().all(|one| one.rule == Rule::UnknownKeys));
    }

    #[test]
    fn a_key_whose_time_has_not_come_is_not_dead() {
        let mut early = noted(Some(key(1)), Outcome::Expired, "192.0.2.1", NOW);
        assert_eq!(of(&[early.clone()]).counts.len(), 1, "past its end");
        early.1 = Some(NOT_YET);
        assert!(of(&[early]).is_empty());
    }

    #[test]
    fn uses_stand_in_the_order_of_their_text() {
        let from = |ip: &str| noted(Some(key(1)), Outcome::Accepted, ip, NOW);
        let all = of(&[from("9.0.0.1"), from("10.0.0.1"), from("2001:db8::1"), from("192.0.2.1")]);
        let networks: Vec<&str> = all.uses.iter().map(|one| one.network.as_str()).collect();
        assert_eq!(networks, ["10.0.0.0/24", "192.0.2.0/24", "2001:db8::/64", "9.0.0.0/24"]);
    }

    #[test]
    fn verifications_count_for_nobody_and_root_keys_for_no_key() {
        let on = |route: &str, known: Option<KeyId>, outcome| {
            let mut one = noted(known, outcome, "192.0.2.1", NOW);
            one.0.route = route.into();
            one
        };
        for outcome in Outcome::ALL {
            let asked = [on(VERIFICATION, Some(key(1)), outcome), on(VERIFICATION, None, outcome)];
            assert!(of(&asked).is_empty(), "{outcome:?}");
        }
        let root = |known, outcome| on("/v2/keys.verifyKey", known, outcome);
        let all = of(&[
            root(Some(key(1)), Outcome::Accepted),
            root(Some(key(1)), Outcome::RateLimit),
            root(Some(key(1)), Outcome::Unknown),
            root(None, Outcome::Unknown),
        ]);
        let rules: Vec<Rule> = all.counts.iter().map(|one| one.rule).collect();
        assert_eq!(rules, [Rule::UnknownKeys, Rule::DeadKeys]);
        assert!(all.uses.is_empty());
    }

    #[test]
    fn limits_that_the_lever_tightened_are_forgiven() {
        let decisions = [
            noted(Some(key(1)), Outcome::RateLimit, "192.0.2.1", NOW),
            noted(Some(key(2)), Outcome::RateLimit, "192.0.2.1", NOW + 5),
            noted(Some(key(3)), Outcome::Expired, "192.0.2.1", NOW),
        ];
        let mut tallied = tally(&decisions, &policies());
        tallied.forgive_limits_before(NOW + 5);
        let left: Vec<_> = tallied.subjects().collect();
        let text = key(2).to_string();
        assert_eq!(left, [(Rule::RateLimits, text), (Rule::DeadKeys, "192.0.2.0/24".to_owned())]);
    }

    #[test]
    fn a_crowd_of_subjects_is_bounded_and_the_worst_are_kept() {
        let mut decisions = Vec::new();
        for number in 0..SUBJECTS as u64 + 50 {
            let ip = format!("10.{}.{}.1", number / 250, number % 250);
            decisions.push(noted(Some(key(1)), Outcome::Expired, &ip, NOW));
        }
        for _ in 0..3 {
            decisions.push(noted(Some(key(1)), Outcome::Expired, "192.0.2.1", NOW));
        }
        let all = of(&decisions);
        assert_eq!(all.counts.len(), SUBJECTS);
        assert!(all.counts.iter().any(|one| one.subject == "192.0.2.0/24" && one.requests == 3));
    }

    proptest! {
        /// Whatever comes: rows are sorted, each there once, and none is lost or made up.
        #[test]
        fn sums_are_exact(
            picks in prop::collection::vec((0..3_u64, 0..11_usize, 0..4_u8, 0..200_000_i64), 0..200),
        ) {
            let decisions: Vec<Noted> = picks
                .iter()
                .map(|(number, outcome, net, at)| {
                    let ip = format!("192.0.{net}.9");
                    let known = (*number > 0).then(|| key(*number));
                    let mut one = noted(known, Outcome::ALL[*outcome], &ip, NOW + at);
                    one.1 = Some(0);
                    one
                })
                .collect();
            let all = of(&decisions);
            let counted = decisions
                .iter()
                .filter(|(one, _)| match one.outcome {
                    Outcome::Unknown => true,
                    Outcome::RateLimit | Outcome::Disabled | Outcome::Expired => one.key.is_some(),
                    // All of these have a print.
                    Outcome::Malformed => one.key.is_none(),
                    _ => false,
                })
                .count() as i64;
            let used = decisions
                .iter()
                .filter(|(one, _)| is_use(one.outcome) && one.key.is_some())
                .count() as i64;
            prop_assert_eq!(all.counts.iter().map(|one| one.requests).sum::<i64>(), counted);
            prop_assert_eq!(all.uses.iter().map(|one| one.requests).sum::<i64>(), used);
            let key = |one: &Count| (one.rule, one.subject.clone(), one.minute, one.item);
            prop_assert!(all.counts.windows(2).all(|pair| key(&pair[0]) < key(&pair[1])));
            let place = |one: &Uses| (one.key, one.network.clone());
            prop_assert!(all.uses.windows(2).all(|pair| place(&pair[0]) < place(&pair[1])));
            prop_assert!(all.counts.iter().all(|one| one.first_at <= one.last_at
                && one.minute <= one.first_at && one.last_at < one.minute + MINUTE_MS));
            prop_assert!(all.uses.iter().all(|one| one.accepted <= one.requests));
        }
    }
}

use proptest::prelude::*;

use super::*;
use crate::domain::network::parse_network;

const NOW: Millis = 1_800_000_000_000;

fn policies(mode: Mode) -> Policies {
    let rule = |threshold| Policy { mode, threshold, first: HOUR_MS };
    Policies {
        rules: [rule(200), rule(50), rule(1_000), rule(20)],
        spread: 5 * MINUTE_MS,
        known: 3,
    }
}

#[test]
fn rules_and_actions_survive_their_numbers_and_words() {
    for (place, rule) in Rule::ALL.into_iter().enumerate() {
        assert_eq!(rule.number() as usize, place);
        assert_eq!(Rule::from_number(rule.number()), Some(rule));
    }
    assert_eq!(Rule::from_number(4), None);
    for action in Action::ALL {
        assert_eq!(Action::from_name(action.as_str()), Some(action));
    }
}

#[test]
fn refusals_are_counted_by_one_rule_or_none() {
    let of = Rule::counting;
    assert_eq!(of(Outcome::RateLimit, true), Some(Rule::RateLimits));
    assert_eq!(of(Outcome::Unknown, false), Some(Rule::UnknownKeys));
    for dead in [Outcome::Unknown, Outcome::Disabled, Outcome::Expired] {
        assert_eq!(of(dead, true), Some(Rule::DeadKeys));
    }
    for other in [Outcome::Accepted, Outcome::IpBlocked, Outcome::Scope, Outcome::NotAllowed] {
        assert_eq!((of(other, true), of(other, false)), (None, None));
    }
    for known in [true, false] {
        assert_eq!(of(Outcome::Suspended, known), None, "one act must not grow into another");
    }
    assert_eq!(of(Outcome::Malformed, false), None, "a slip of the pen is no guess");
}

#[test]
fn rate_limits_need_a_number_and_a_while() {
    let all = policies(Mode::On);
    let steady = Seen {
        counted: 200,
        minutes: 5,
        first_at: NOW - 5 * MINUTE_MS,
        last_at: NOW,
        ..Seen::default()
    };
    let exceeds = |seen: Seen| all.exceeds(Rule::RateLimits, &seen);
    assert!(exceeds(steady));
    assert!(!exceeds(Seen { counted: 199, ..steady }));
    assert!(!exceeds(Seen { first_at: steady.first_at + 1, ..steady }), "not long enough");
    assert!(!exceeds(Seen { minutes: 2, ..steady }), "two bursts");
    assert!(!policies(Mode::Off).exceeds(Rule::RateLimits, &steady));
}

#[test]
fn a_key_of_many_networks_may_have_more() {
    let all = policies(Mode::DryRun);
    let seen = Seen { counted: 20, known: 3, settled: true, ..Seen::default() };
    assert!(all.exceeds(Rule::Networks, &seen));
    assert!(!all.exceeds(Rule::Networks, &Seen { known: 4, ..seen }));
    assert!(!all.exceeds(Rule::Networks, &Seen { counted: 19, ..seen }));
    for known in 0..=3 {
        let new = Seen { counted: 1_000, known, settled: false, ..seen };
        assert!(!all.exceeds(Rule::Networks, &new), "a new key has no habit");
    }
}

#[test]
fn acts_double_and_end_and_are_forgotten() {
    let first = next(None, false, HOUR_MS, NOW).unwrap();
    assert_eq!(first, Strikes { strikes: 1, ends_at: NOW + HOUR_MS, dry: false });
    assert_eq!(next(Some(first), false, HOUR_MS, first.ends_at - 1), None, "it still holds");
    let second = next(Some(first), false, HOUR_MS, first.ends_at).unwrap();
    assert_eq!((second.strikes, second.ends_at), (2, first.ends_at + 2 * HOUR_MS));
    let late = second.ends_at + FORGOTTEN;
    assert_eq!(next(Some(second), false, HOUR_MS, late - 1).unwrap().strikes, 3);
    assert_eq!(next(Some(second), false, HOUR_MS, late).unwrap().strikes, 1);
    // What a dry run has found neither holds nor counts, and the other way round.
    let dry = Strikes { dry: true, ..second };
    assert_eq!(next(Some(dry), false, HOUR_MS, NOW), Some(first));
    assert_eq!(next(Some(second), true, HOUR_MS, NOW).unwrap().strikes, 1);
}

#[test]
fn proxies_and_networks_of_callers_are_spared() {
    let of = |text: &str| parse_network(text).unwrap();
    let (network, proxies) = (of("10.1.2.0/24"), [of("192.0.2.7"), of("10.1.2.3")]);
    assert!(spares(&network, &proxies, 0, 100).is_some());
    assert!(spares(&network, &[of("10.0.0.0/8")], 0, 100).is_some());
    assert!(spares(&network, &proxies[..1], 0, 100).is_none());
    assert!(spares(&network, &[], 101, 100).is_some());
    assert!(spares(&network, &[], 100, 100).is_none());
}

fn seen() -> impl Strategy<Value = Seen> {
    let times = (0..20 * MINUTE_MS, 0..20 * MINUTE_MS);
    (0..3_000_i64, 0..12_i64, times, 0..8_i64, any::<bool>()).prop_map(
        |(counted, minutes, (a, b), known, settled)| Seen {
            counted,
            requests: counted,
            minutes,
            first_at: a.min(b),
            last_at: a.max(b),
            known,
            settled,
        },
    )
}

proptest! {
    /// Below its threshold no rule acts, whatever else is so; and more of the same never lessens it.
    #[test]
    fn no_rule_acts_below_its_threshold(seen in seen(), rule in 0..4_i16, more in 0..500_i64) {
        let rule = Rule::from_number(rule).unwrap();
        let all = policies(Mode::On);
        let exceeds = all.exceeds(rule, &seen);
        prop_assert!(!exceeds || seen.counted >= i64::from(all.of(rule).threshold));
        let longer = Seen {
            counted: seen.counted + more,
            minutes: seen.minutes + 1,
            last_at: seen.last_at + more,
            ..seen
        };
        prop_assert!(!exceeds || all.exceeds(rule, &longer));
        prop_assert!(!policies(Mode::Off).exceeds(rule, &seen));
    }

    /// However signals come: acts never overlap, each lasts at least as long as the one before it unless that was
    /// forgotten, at most twice as long, and none beyond the bound.
    #[test]
    fn acts_follow_each_other(
        first in 1_000..LONGEST,
        gaps in prop::collection::vec(prop_oneof![0..HOUR_MS, 0..60 * DAY_MS], 1..80),
    ) {
        let (mut now, mut before): (Millis, Option<(Millis, Strikes)>) = (NOW, None);
        for gap in gaps {
            now += gap;
            let Some(after) = next(before.map(|one| one.1), false, first, now) else {
                prop_assert!(before.unwrap().1.ends_at > now);
                continue;
            };
            let lasts = after.ends_at - now;
            prop_assert!((first.min(LONGEST)..=LONGEST).contains(&lasts));
            match before {
                Some((lasted, old)) if now - old.ends_at < FORGOTTEN => {
                    prop_assert_eq!(lasts, (lasted * 2).min(LONGEST));
                    prop_assert_eq!(after.strikes, old.strikes + 1);
                }
                _ => prop_assert_eq!((lasts, after.strikes), (first, 1)),
            }
            if let Some((_, old)) = before {
                prop_assert!(old.ends_at <= now);
            }
            before = Some((lasts, after));
        }
    }
}

//! A sliding window in bounded memory, without Redis and without a clock; `windows.lua` does the
//! same there.
//!
//! Data: a [`Row`] of *parts*, oldest first. A part is when its last use was and how many uses there
//! were up to then; it takes up uses until it holds one 64th of the limit ([`PARTS`]), and counts until its
//! last use has left the window. What is *gone* is the sum of the parts that have left.
//!
//! Invariants, for a limit of L uses in W milliseconds:
//! - no more than L in any stretch of W milliseconds, both ends included, wherever it begins;
//! - only the oldest part can be counted too long, so less than L/64 uses are. Hence up to any moment at
//!   least 63/64 of the single uses pass that would pass by a log of every use, in whatever pattern they
//!   come; a limit of up to 64 is such a log. (Whenever one is refused, more than 63/64 × L have passed in the
//!   last W, and no log lets more than L pass in it. So the share holds from refusal to refusal, and between
//!   them all pass.)
//! - two neighbours hold more than one part may, so there are at most 2 × 64 + 1, whatever L is;
//! - a use costs the same whatever L is: a part is added once and leaves once;
//! - a clock that is set back lets nothing pass that would not have, and keeps nobody out for longer than W:
//!   what was counted at a time that is still to come counts from now on.

use std::collections::VecDeque;

use crate::domain::clock::Millis;

/// Full parts of a row.
const PARTS: u32 = 64;

/// One limit, and what is asked of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window<'a> {
    /// Its name. With the owner and the length of the window it names the row that counts: another
    /// length begins anew, another limit does not.
    pub name: &'a str,
    /// Uses that may be in the window.
    pub limit: u32,
    /// Length of the window, in milliseconds.
    pub window_ms: u32,
    /// Uses that are asked for; 0 = only looks.
    pub cost: u32,
}

impl Window<'_> {
    /// Uses that a part may take up, at least 1.
    pub(super) fn part(&self) -> u32 {
        self.limit.div_ceil(PARTS).max(1)
    }
}

/// How a limit stands after it was judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Is the cost more than what is left?
    pub exceeded: bool,
    /// Uses that are left at once; after this one, if it was counted.
    pub remaining: u32,
    /// Milliseconds until the oldest use that counts leaves the window; 0 = none counts.
    pub reset_ms: Millis,
    /// Milliseconds until the cost would pass, if nothing else comes; 0 = it passes. A cost above the limit
    /// never does, and is told the length of the window.
    pub retry_ms: Millis,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Row {
    gone: u64,
    parts: VecDeque<Part>,
}

#[derive(Debug, Clone, Copy)]
struct Part {
    last: Millis,
    /// Uses of this part and of all before it.
    sum: u64,
}

impl Row {
    fn sum(&self) -> u64 {
        self.parts.back().map_or(self.gone, |part| part.sum)
    }

    fn used(&self) -> u64 {
        self.sum() - self.gone
    }

    fn tidy(&mut self, window: Millis, now: Millis) {
        let sum = self.sum();
        if self.parts.back().is_some_and(|part| part.last > now) {
            while self.parts.pop_back_if(|part| part.last > now).is_some() {}
            self.parts.push_back(Part { last: now, sum });
        }
        while let Some(part) = self.parts.pop_front_if(|part| part.last + window < now) {
            self.gone = part.sum;
        }
    }

    /// Does the cost exceed what is left, when `before` is asked as well?
    pub fn exceeds(&mut self, asked: &Window<'_>, before: u64, now: Millis) -> bool {
        self.tidy(asked.window_ms.into(), now);
        self.used() + before + u64::from(asked.cost) > u64::from(asked.limit)
    }

    /// Counts what [`Row::exceeds`] has let pass at the same `now`.
    pub fn count(&mut self, asked: &Window<'_>, now: Millis) {
        if asked.cost == 0 {
            return;
        }
        let sum = self.sum() + u64::from(asked.cost);
        let before = match self.parts.len() {
            0 | 1 => self.gone,
            many => self.parts[many - 2].sum,
        };
        match self.parts.back_mut() {
            Some(part) if part.last == now || sum - before <= u64::from(asked.part()) => {
                *part = Part { last: now, sum };
            }
            _ => self.parts.push_back(Part { last: now, sum }),
        }
    }

    /// How it stands; `refused`: [`Row::exceeds`] said so, with `before`.
    pub fn standing(&self, asked: &Window<'_>, refused: Option<u64>, now: Millis) -> Standing {
        let window = Millis::from(asked.window_ms);
        let until = |part: &Part| part.last + window + 1 - now;
        let retry_ms = refused.map_or(0, |before| {
            let wanted = self.sum() + before + u64::from(asked.cost);
            let leaves = wanted.saturating_sub(asked.limit.into());
            let index = self.parts.partition_point(|part| part.sum < leaves);
            self.parts.get(index).map_or(window, until)
        });
        let left = u64::from(asked.limit).saturating_sub(self.used());
        Standing {
            exceeded: refused.is_some(),
            remaining: u32::try_from(left).unwrap_or(asked.limit),
            reset_ms: self.parts.front().map_or(0, until),
            retry_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Millis = 1_700_000_000_000;

    /// A log of every use.
    #[derive(Default)]
    struct Exact {
        uses: VecDeque<(Millis, u32)>,
        used: u32,
    }

    impl Exact {
        fn take(&mut self, asked: &Window<'_>, now: Millis) -> bool {
            let left = now - Millis::from(asked.window_ms);
            while let Some((_, cost)) = self.uses.pop_front_if(|(at, _)| *at < left) {
                self.used -= cost;
            }
            let passes = self.used + asked.cost <= asked.limit;
            if passes {
                self.uses.push_back((now, asked.cost));
                self.used += asked.cost;
            }
            passes
        }
    }

    fn take(row: &mut Row, asked: &Window<'_>, now: Millis) -> bool {
        let refused = row.exceeds(asked, 0, now).then_some(0);
        if refused.is_none() {
            row.count(asked, now);
        }
        let standing = row.standing(asked, refused, now);
        assert!((0..=Millis::from(asked.window_ms) + 1).contains(&standing.reset_ms));
        assert_eq!(standing.retry_ms > 0, standing.exceeded, "{standing:?}");
        assert!(row.parts.len() <= 2 * PARTS as usize + 1, "{} parts", row.parts.len());
        refused.is_none()
    }

    /// Most uses in any stretch of the window, both ends included.
    fn most(uses: &[(Millis, u32)], window: u32) -> u64 {
        let (mut first, mut inside, mut most) = (0, 0_u64, 0);
        for (at, cost) in uses {
            inside += u64::from(*cost);
            while uses[first].0 + Millis::from(window) < *at {
                inside -= u64::from(uses[first].1);
                first += 1;
            }
            most = most.max(inside);
        }
        most
    }

    #[derive(Debug, Clone)]
    struct Case {
        limit: u32,
        window_ms: u32,
        /// Milliseconds since the last one, and the cost.
        uses: Vec<(Millis, u32)>,
    }

    /// How long until the next: evenly, at random, in bursts that come again after about a window, and with
    /// jumps.
    fn pauses(window: u32, limit: u32) -> BoxedStrategy<Vec<Millis>> {
        let window = Millis::from(window);
        let even = window / Millis::from(limit).max(1);
        let steady = (0..=even * 2 + 1, 1_usize..1_500).prop_map(|(pause, n)| vec![pause; n]);
        let random = proptest::collection::vec(0..=even * 2 + 1, 1..1_500);
        let burst = (1..=limit as usize * 2, 0_i64..3, window - 5..window + 50);
        let bursts = proptest::collection::vec(burst, 1..12).prop_map(|bursts| {
            let one = |(uses, apart, rest): (usize, Millis, Millis)| {
                let uses = uses.min(600);
                let spread = apart * uses as Millis;
                std::iter::once((rest - spread).max(0)).chain(vec![apart; uses - 1])
            };
            bursts.into_iter().flat_map(one).collect()
        });
        let jump = prop_oneof![20 => 0..=even + 1, 1 => 0..window * 3, 1 => Just(40 * 86_400_000)];
        let jumps = proptest::collection::vec(jump, 1..1_000);
        prop_oneof![steady, random, bursts, jumps].boxed()
    }

    fn case(most_cost: fn(u32) -> u32) -> impl Strategy<Value = Case> {
        let limits = prop_oneof![1_u32..5, 1_u32..130, 60_u32..3_000];
        (limits, prop_oneof![1_000_u32..20_000, Just(2_678_400_000)]).prop_flat_map(
            move |(limit, window_ms)| {
                let costs = proptest::collection::vec(1..=most_cost(limit).max(1), 101);
                (pauses(window_ms, limit), costs).prop_map(move |(pauses, costs)| Case {
                    limit,
                    window_ms,
                    uses: pauses.into_iter().zip(costs.into_iter().cycle()).collect(),
                })
            },
        )
    }

    fn run(case: &Case, share: f64) {
        let (mut row, mut exact) = (Row::default(), Exact::default());
        let (mut now, mut passed, mut by_log) = (START, Vec::new(), 0_u64);
        let mut sum = 0_u64;
        for (pause, cost) in &case.uses {
            now += pause;
            let Case { limit, window_ms, .. } = *case;
            let asked = Window { name: "a", limit, window_ms, cost: *cost };
            if take(&mut row, &asked, now) {
                passed.push((now, *cost));
                sum += u64::from(*cost);
            }
            by_log += u64::from(*cost) * u64::from(exact.take(&asked, now));
            assert!(sum as f64 >= by_log as f64 * share, "{sum} passed, by a log {by_log}");
        }
        let most = most(&passed, case.window_ms);
        assert!(most <= case.limit.into(), "{most} of {}", case.limit);
    }

    proptest! {
        #[test]
        fn single_uses_pass_as_by_a_log_but_for_a_64th(case in case(|_| 1)) {
            run(&case, if case.limit <= PARTS { 1.0 } else { 63.0 / 64.0 });
        }

        /// With larger costs a log is not the best either: what it refuses makes room for others. While
        /// each is small against the limit, 95 % hold.
        #[test]
        fn small_costs_pass_as_by_a_log_but_for_a_20th(case in case(|limit| limit / 40)) {
            run(&case, 0.95);
        }

        #[test]
        fn no_cost_passes_beyond_the_limit(case in case(|limit| limit + 1)) {
            run(&case, 0.0);
        }

        /// In true time, whatever the clock says; and a window without uses makes all free.
        #[test]
        fn a_clock_that_is_set_back_lets_no_more_pass(
            limit in 1_u32..200,
            steps in proptest::collection::vec((0_i64..400, prop_oneof![
                8 => Just(0), 1 => 0_i64..10_000, 1 => 0_i64..40 * 86_400_000]), 1..600),
        ) {
            let asked = Window { name: "a", limit, window_ms: 10_000, cost: 1 };
            let (mut row, mut passed) = (Row::default(), Vec::new());
            let (mut truth, mut behind) = (START, 0);
            for (pause, back) in steps {
                truth += pause;
                behind += back;
                if take(&mut row, &asked, truth - behind) {
                    passed.push((truth, 1));
                }
            }
            prop_assert!(most(&passed, asked.window_ms) <= limit.into());
            // As late as a clock may be set back, nobody waits longer than the window.
            row.exceeds(&asked, 0, truth - behind - 1);
            let all = Window { cost: limit, ..asked };
            prop_assert!(take(&mut row, &all, truth - behind + 10_000));
        }

        /// A limit that is changed while it counts: what passes never exceeds the one of the moment.
        #[test]
        fn a_limit_that_is_changed_holds_at_once(
            uses in proptest::collection::vec((0_i64..300, 1_u32..300, 1_u32..10), 1..500),
        ) {
            let (mut row, mut now, mut passed) = (Row::default(), START, Vec::new());
            for (pause, limit, cost) in uses {
                now += pause;
                let asked = Window { name: "a", limit, window_ms: 5_000, cost };
                if !row.exceeds(&asked, 0, now) {
                    row.count(&asked, now);
                    passed.push((now, cost));
                    let from = now - 5_000;
                    let inside = passed.iter().filter(|(at, _)| *at >= from);
                    let inside: u32 = inside.map(|(_, cost)| cost).sum();
                    prop_assert!(inside <= limit, "{inside} of {limit}");
                }
            }
        }
    }

    #[test]
    fn what_is_left_and_when_it_comes_back() {
        let mut row = Row::default();
        let asked = |cost| Window { name: "a", limit: 3, window_ms: 10_000, cost };
        let mut at = |ms: Millis, cost| {
            let (asked, now) = (asked(cost), START + ms);
            let refused = row.exceeds(&asked, 0, now).then_some(0);
            if refused.is_none() {
                row.count(&asked, now);
            }
            let s = row.standing(&asked, refused, now);
            (s.exceeded, s.remaining, s.reset_ms, s.retry_ms)
        };
        assert_eq!(at(0, 0), (false, 3, 0, 0));
        assert_eq!(at(0, 1), (false, 2, 10_001, 0));
        assert_eq!(at(4_000, 2), (false, 0, 6_001, 0));
        assert_eq!(at(5_000, 0), (false, 0, 5_001, 0), "looking is never too much");
        assert_eq!(at(5_000, 1), (true, 0, 5_001, 5_001));
        assert_eq!(at(5_000, 2), (true, 0, 5_001, 9_001), "two are free only later");
        assert_eq!(at(5_000, 4), (true, 0, 5_001, 10_000), "never");
        assert_eq!(at(10_000, 1), (true, 0, 1, 1));
        assert_eq!(at(10_001, 1), (false, 0, 4_000, 0));
    }
}

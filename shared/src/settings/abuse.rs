//! The settings of abuse protection, as its rules take them.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

use super::{Settings, SettingsError};
use crate::domain::abuse::{LONGEST, Mode, Policies, Policy, Rule};
use crate::domain::clock::Millis;

/// Reads `on`, `dry_run` or `off`.
pub(super) fn mode<'de, D: Deserializer<'de>>(d: D) -> Result<Mode, D::Error> {
    match String::deserialize(d)?.as_str() {
        "on" | "true" => Ok(Mode::On),
        "dry_run" => Ok(Mode::DryRun),
        "off" | "false" => Ok(Mode::Off),
        other => Err(de::Error::custom(format!("{other:?} is none of `on`, `dry_run` and `off`"))),
    }
}

fn millis(time: Duration) -> Millis {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

impl Settings {
    /// How the rules of abuse protection judge. What all may do at the most, none does more.
    pub fn abuse(&self) -> Policies {
        let policy = |mode: Mode, threshold, first: Duration| Policy {
            mode: mode.min(self.abuse_protection),
            threshold,
            first: millis(first),
        };
        let rule = |rule| match rule {
            Rule::RateLimits => policy(
                self.abuse_rate_limits,
                self.abuse_rate_limits_threshold,
                self.abuse_rate_limits_first,
            ),
            Rule::UnknownKeys => policy(
                self.abuse_unknown_keys,
                self.abuse_unknown_keys_threshold,
                self.abuse_unknown_keys_first,
            ),
            Rule::DeadKeys => policy(
                self.abuse_dead_keys,
                self.abuse_dead_keys_threshold,
                self.abuse_dead_keys_first,
            ),
            Rule::Networks => policy(
                self.abuse_networks,
                self.abuse_networks_threshold,
                self.abuse_networks_first,
            ),
        };
        Policies {
            rules: Rule::ALL.map(rule),
            spread: millis(self.abuse_rate_limits_spread),
            known: self.abuse_networks_known,
        }
    }

    pub(super) fn check_abuse(&self) -> Result<(), SettingsError> {
        let wrong = |name, want, got: String| Err(SettingsError::Range { name, want, got });
        for (name, threshold) in [
            ("abuse_rate_limits_threshold", self.abuse_rate_limits_threshold),
            ("abuse_unknown_keys_threshold", self.abuse_unknown_keys_threshold),
            ("abuse_dead_keys_threshold", self.abuse_dead_keys_threshold),
            ("abuse_networks_threshold", self.abuse_networks_threshold),
        ] {
            if threshold == 0 {
                return wrong(name, "at least 1", threshold.to_string());
            }
        }
        for (name, first) in [
            ("abuse_rate_limits_first", self.abuse_rate_limits_first),
            ("abuse_unknown_keys_first", self.abuse_unknown_keys_first),
            ("abuse_dead_keys_first", self.abuse_dead_keys_first),
            ("abuse_networks_first", self.abuse_networks_first),
        ] {
            if !(1_000..=LONGEST).contains(&millis(first)) {
                return wrong(name, "1s to 30d", format!("{first:?}"));
            }
        }
        let spread = self.abuse_rate_limits_spread;
        // The window holds whole minutes, so the longest spread lies a minute below it.
        if millis(spread) > Rule::RateLimits.window() - 120_000 {
            return wrong("abuse_rate_limits_spread", "at most 8m", format!("{spread:?}"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_rule_does_more_than_all_may() {
        let of = |all: &str, rule: &str| {
            let pairs = [("LISTMILL_ABUSE_PROTECTION", all), ("LISTMILL_ABUSE_DEAD_KEYS", rule)];
            let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
            Settings::load(None, pairs).unwrap().abuse().of(Rule::DeadKeys).mode
        };
        assert_eq!(of("on", "on"), Mode::On);
        assert_eq!(of("on", "dry_run"), Mode::DryRun);
        assert_eq!(of("dry_run", "on"), Mode::DryRun);
        assert_eq!(of("dry_run", "off"), Mode::Off);
        assert_eq!(of("off", "on"), Mode::Off);
    }

    #[test]
    fn the_shipped_thresholds_are_the_documented_ones() {
        let shipped = Settings::load(None, []).unwrap().abuse();
        assert_eq!(shipped.rules.map(|rule| rule.threshold), [200, 50, 1_000, 20]);
        assert!(shipped.rules.iter().all(|rule| rule.mode == Mode::On && rule.first == 3_600_000));
        assert_eq!((shipped.spread, shipped.known), (300_000, 3));
    }
}

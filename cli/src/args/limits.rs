//! `admin limits`: the lever against overload.

use std::time::Duration;

use clap::Subcommand;
use listmill_shared::domain::factor::Factor;

use super::lifetime;

/// What `listmill admin limits tighten --help` says beneath the flags.
const HELP: &str = "\
Holds on all API processes for every request that starts after this has returned, for all keys, and
ends by itself. A second `tighten` takes the place of the first. What is left of a limit is at least one
request a minute. Counts of a day stay as they are, and so do running tasks and the pace at which mail
servers are asked.

Examples:
  listmill admin limits tighten --factor 0.1 --for 1h --note \"database is at its limit\"
  listmill admin limits tighten --factor 0.5 --for 30m
  listmill admin limits show
  listmill admin limits relax";

#[derive(Debug, Subcommand)]
pub enum LimitsCommand {
    /// Leave a part of every request limit, for a while
    #[command(after_help = HELP)]
    Tighten {
        /// What is left of every limit: between 0.001 and 1; 0.1 leaves a tenth
        #[arg(long, value_name = "PART", value_parser = factor)]
        factor: Factor,
        /// When it ends by itself, such as 30m, 1h or 2d; at most 31d
        #[arg(long = "for", value_name = "DURATION", value_parser = while_)]
        lasts: Duration,
        /// Why, for other operators
        #[arg(long)]
        note: Option<String>,
    },
    /// Say whether limits are tightened, how much, and until when
    Show,
    /// Make them whole again at once
    Relax {
        /// Why, for other operators
        #[arg(long)]
        note: Option<String>,
    },
}

fn factor(text: &str) -> Result<Factor, String> {
    let thousandths = text.parse::<f64>().ok().map(|part| (part * 1_000.0).round());
    thousandths
        .filter(|thousandths| (1.0..=1_000.0).contains(thousandths))
        .map(|thousandths| Factor::from_thousandths(thousandths as i64))
        .ok_or_else(|| format!("{text:?} is no part between 0.001 and 1"))
}

fn while_(text: &str) -> Result<Duration, String> {
    lifetime(text).ok().filter(|time| time.as_secs() <= 31 * 86_400).ok_or_else(|| {
        format!("{text:?} is no duration such as 30m or 2d, of at least 1s and at most 31d")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_and_times_are_read_or_refused() {
        assert_eq!(factor("0.1"), Ok(Factor::from_thousandths(100)));
        assert_eq!(factor("1"), Ok(Factor::ONE));
        for wrong in ["", "0", "0.0001", "-0.1", "1.1", "NaN", "inf", "10%"] {
            assert!(factor(wrong).is_err(), "{wrong}");
        }
        assert_eq!(while_("31d"), Ok(Duration::from_secs(31 * 86_400)));
        for wrong in ["32d", "0s", "1", ""] {
            assert!(while_(wrong).is_err(), "{wrong}");
        }
    }
}

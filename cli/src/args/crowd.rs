//! `bench crowd`: which crowds, and how big.

use clap::{Args, ValueEnum};

pub const HELP: &str = "\
An account that has nothing under way submits ten addresses; the wait is the time from sending the
list to the first answer that says `completed`. It is measured with nobody else there, then behind
each crowd in turn. A crowd whose work is half done comes again, whole. --addresses, --tasks and
--accounts have no part in it.

The faster the workers, the sooner a crowd is gone: a deployment with the sandbox and, say,
LISTMILL_SANDBOX_LATENCY=50ms is as slow as a real one.

Examples:
  listmill bench crowd                                   every crowd, about a minute
  listmill bench crowd --scenario short --short 1000x500
  listmill bench crowd --scenario huge --huge 10000000 --probes 20 --json";

#[derive(Debug, Clone, Args)]
pub struct CrowdArgs {
    /// Only this crowd (repeatable) [default: all, one after the other]
    #[arg(long = "scenario", value_name = "NAME", value_enum)]
    pub scenarios: Vec<Scenario>,

    /// How often the wait is measured behind each
    #[arg(long, value_name = "N", default_value_t = 5,
          value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub probes: u64,

    /// `long`: tasks of one account, and addresses of each
    #[arg(long, value_name = "TxA", default_value = "20x8000", value_parser = size)]
    pub long: CrowdSize,

    /// `short`: tasks of one account, and addresses of each
    #[arg(long, value_name = "TxA", default_value = "300x500", value_parser = size)]
    pub short: CrowdSize,

    /// `many`: accounts with a task each, and addresses of each
    #[arg(long, value_name = "TxA", default_value = "40x4000", value_parser = size)]
    pub many: CrowdSize,

    /// `paused`: tasks that wait for credits, and addresses of each
    #[arg(long, value_name = "TxA", default_value = "1000x2", value_parser = size)]
    pub paused: CrowdSize,

    /// `paused`: addresses of the one task that runs beside them
    #[arg(long, value_name = "N", default_value_t = 200_000, value_parser = addresses())]
    pub beside: u64,

    /// `huge`: addresses of the one task
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = addresses())]
    pub huge: u64,
}

/// Whom the ten addresses come behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// One account with some long tasks
    Long,
    /// One account with many short tasks
    Short,
    /// Many accounts with a task each
    Many,
    /// Many tasks that wait for credits, and one that runs
    Paused,
    /// One account with one huge task
    Huge,
}

impl CrowdArgs {
    /// Those that were asked for, in the order of the help text.
    pub fn wanted(&self) -> Vec<Scenario> {
        let all = Scenario::value_variants().iter().copied();
        all.filter(|one| self.scenarios.is_empty() || self.scenarios.contains(one)).collect()
    }
}

/// So many tasks of so many addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CrowdSize {
    pub tasks: u64,
    pub each: u64,
}

fn addresses() -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(1..=10_000_000)
}

fn size(text: &str) -> Result<CrowdSize, String> {
    text.split_once('x')
        .and_then(|(tasks, each)| Some((tasks.parse().ok()?, each.parse().ok()?)))
        .filter(|(tasks, each)| (1..=10_000).contains(tasks) && (1..=10_000_000).contains(each))
        .map(|(tasks, each)| CrowdSize { tasks, each })
        .ok_or_else(|| format!("{text:?} is no number of tasks and of addresses such as 20x8000"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_or_refused() {
        assert_eq!(size("300x500"), Ok(CrowdSize { tasks: 300, each: 500 }));
        for wrong in ["", "x", "300", "0x5", "5x0", "1x10000001", "-1x5", "5 x 5"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}

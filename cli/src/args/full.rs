//! `bench full`: how much is stored, and what is measured before and after.

use clap::Args;

/// What `listmill bench full --help` says beneath the flags.
pub const HELP: &str = "\
Measures the pipeline and the routes of two accounts, fills the database with --addresses in --tasks of
--accounts, and measures the same again. The second account owns a part of what is stored. A database that
has grown must be as fast as an empty one: begin with an empty one.

Examples:
  listmill api & listmill worker &
  listmill bench full --addresses 100000000 --tasks 10000 --accounts 100
  listmill bench full --addresses 2000000 --tasks 200 --accounts 5 --probe 100000";

#[derive(Debug, Clone, Args)]
pub struct FullArgs {
    /// Addresses of one run of the pipeline
    #[arg(long, value_name = "N", default_value_t = 1_000_000,
          value_parser = clap::value_parser!(u64).range(1_000..=10_000_000))]
    pub probe: u64,

    /// Runs of the pipeline, before and after; the median counts
    #[arg(long, value_name = "N", default_value_t = 3,
          value_parser = clap::value_parser!(u64).range(1..=100))]
    pub rounds: u64,

    /// Calls of each route, before and after
    #[arg(long, value_name = "N", default_value_t = 200,
          value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub calls: u64,
}

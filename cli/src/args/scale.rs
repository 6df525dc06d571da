//! `bench scale`: how many workers, and how many accounts.

use clap::Args;

/// What `listmill bench scale --help` says beneath the flags.
pub const HELP: &str = "\
Runs the whole pipeline once for each number of accounts with each number of workers, which it starts
itself, with the settings of the deployment: the API must run, and no other worker. --addresses are those
of one run; each account has a task. More workers must never be slower.

Examples:
  listmill api &
  listmill bench scale --addresses 1000000
  listmill bench scale --workers 1,8 --of 10 --rounds 1
  listmill bench scale --workers 4,100 --of 1000 --concurrency 3200 --rounds 1";

#[derive(Debug, Clone, Args)]
pub struct ScaleArgs {
    /// Numbers of workers
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [1, 2, 4],
          value_parser = clap::value_parser!(u64).range(1..=1_000))]
    pub workers: Vec<u64>,

    /// Numbers of accounts
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [1, 4],
          value_parser = clap::value_parser!(u64).range(1..=1_000))]
    pub of: Vec<u64>,

    /// Addresses verified at once by all workers together [default: LISTMILL_WORKER_CONCURRENCY each]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub concurrency: Option<u64>,

    /// How often each is measured; the median counts
    #[arg(long, value_name = "N", default_value_t = 3,
          value_parser = clap::value_parser!(u64).range(1..=100))]
    pub rounds: u64,
}

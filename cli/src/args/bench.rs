//! `bench`: what it loads the deployment with.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use listmill_shared::settings::parse_duration;

use super::{CrowdArgs, FullArgs, ScaleArgs, crowd, full, scale};

const BENCH_EXAMPLES: &str = "\
Run it with the settings of the deployment: it makes its accounts, keys and credits directly in
LISTMILL_DATABASE_URL and speaks HTTP to --url.

Examples:
  listmill bench --addresses 1000000                 the whole pipeline
  listmill bench --addresses 1000000 --tasks 100 --accounts 10
  listmill bench --embedded --addresses 1000000      SQLite, everything in this process
  listmill bench submit --addresses 5000000          submission alone
  listmill bench download --addresses 1000000        download of results alone
  listmill bench gate --seconds 10 --connections 64  polls of one task, as fast as they go
  listmill bench gate --rate 7500                    …at a steady pace
  listmill bench gate --ask verify-limit             keys of apis, verified with a named limit
  listmill bench crowd                               waits behind other people's lists
  listmill bench scale --addresses 1000000           more and more workers
  listmill bench full --addresses 100000000 --tasks 10000   a database that has grown
  listmill bench classify                            replies of mail servers, without any

The engine is measured against mail servers of the bench's own, on loopback (Linux). Bench and
deployment share the settings that lead there:
  export LISTMILL_PROVIDER=smtp LISTMILL_DNS=127.0.0.1:5300 LISTMILL_SMTP_PORT=2500
  export LISTMILL_PACE=off LISTMILL_WORKER_CONCURRENCY=2000
  listmill api & listmill worker &
  listmill bench engine --addresses 20000 --domains 100 --reply-delay 50ms";

#[derive(Debug, Args)]
#[command(after_help = BENCH_EXAMPLES)]
pub struct BenchArgs {
    #[command(flatten)]
    pub load: LoadArgs,

    #[command(subcommand)]
    pub mode: Option<BenchMode>,
}

#[derive(Debug, Clone, Args)]
pub struct LoadArgs {
    /// Distinct addresses, over all tasks
    #[arg(long, global = true, value_name = "N", default_value_t = 100_000,
          value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub addresses: u64,

    /// Tasks they are spread over
    #[arg(long, global = true, value_name = "T", default_value_t = 1,
          value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub tasks: u64,

    /// Accounts that own the tasks
    #[arg(long, global = true, value_name = "A", default_value_t = 1,
          value_parser = clap::value_parser!(u64).range(1..=1_000))]
    pub accounts: u64,

    /// The API [default: http://<bind>]
    #[arg(long, global = true, conflicts_with = "embedded")]
    pub url: Option<String>,

    /// Start API and worker in this process, on a temporary SQLite and the sandbox provider
    #[arg(long, global = true)]
    pub embedded: bool,

    /// Leave the bench's tasks and keys in the database
    #[arg(long, global = true)]
    pub keep_data: bool,

    /// Measure this process too (repeatable)
    #[arg(long = "pid", global = true, value_name = "NAME=PID", value_parser = named_pid)]
    pub pids: Vec<(String, u32)>,
}

#[derive(Debug, Clone, Subcommand)]
pub enum BenchMode {
    /// Submission alone: submit, then cancel
    Submit,
    /// Download of a finished task's results as NDJSON
    Download,
    /// GET /v1/tasks/{id} over keep-alive connections
    Gate(GateArgs),
    /// Ten addresses of a newcomer behind crowds of others' work: how long they wait
    #[command(after_help = crowd::HELP)]
    Crowd(CrowdArgs),
    /// The pipeline with more and more workers, for one account and for several
    #[command(after_help = scale::HELP)]
    Scale(ScaleArgs),
    /// Pipeline and routes, with nothing stored and with much
    #[command(after_help = full::HELP)]
    Full(FullArgs),
    /// The pipeline with the smtp provider, against mail servers of its own on loopback
    Engine(EngineArgs),
    /// What it costs to tell what a mail server's reply means; needs no deployment
    Classify,
}

#[derive(Debug, Clone, Args)]
pub struct GateArgs {
    /// What is asked
    #[arg(long, value_enum, default_value_t = Question::Task)]
    pub ask: Question,

    /// How long
    #[arg(long, value_name = "S", default_value_t = 10,
          value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub seconds: u64,

    /// How long to ask before it counts
    #[arg(long, value_name = "S", default_value_t = 2,
          value_parser = clap::value_parser!(u64).range(0..=3_600))]
    pub warm_up: u64,

    /// Connections, each with one request at a time
    #[arg(long, value_name = "C", default_value_t = 32,
          value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub connections: u64,

    /// Requests a second over all connections [default: as many as go]
    #[arg(long, value_name = "R", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub rate: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Question {
    /// The state of a task, behind the gate
    Task,
    /// The gate alone, as proxies ask it
    Gate,
    /// Whether a key of an api is valid (/v2/keys.verifyKey)
    Verify,
    /// Likewise, with a named limit
    VerifyLimit,
    /// Likewise, and one of the key's credits is taken
    VerifyCredits,
}

#[derive(Debug, Clone, Args)]
pub struct EngineArgs {
    /// Domains of the addresses, each with a mail host of its own
    #[arg(long, value_name = "D", default_value_t = 100,
          value_parser = clap::value_parser!(u64).range(1..=1_000))]
    pub domains: u64,

    /// What the mail servers wait before each reply, such as 50ms
    #[arg(long, value_name = "TIME", default_value = "0ms", value_parser = delay)]
    pub reply_delay: Duration,

    /// Rows of each address in its list
    #[arg(long, value_name = "R", default_value_t = 1,
          value_parser = clap::value_parser!(u64).range(1..=1_000))]
    pub repeat: u64,

    /// One mailbox in so many does not exist (0: all do)
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub refuse_every: u64,
}

fn delay(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| format!("{text:?} is no duration such as 50ms"))
}

fn named_pid(text: &str) -> Result<(String, u32), String> {
    text.split_once('=')
        .and_then(|(name, pid)| Some((name.to_owned(), pid.parse().ok()?)))
        .filter(|(name, _)| !name.is_empty())
        .ok_or_else(|| format!("{text:?} is not NAME=PID"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pids_have_names() {
        assert_eq!(named_pid("api=12"), Ok((String::from("api"), 12)));
        assert!(named_pid("12").is_err() && named_pid("=12").is_err());
    }
}

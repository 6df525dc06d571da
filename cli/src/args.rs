//! The command line: what can be asked, and its help.

mod abuse;
mod account;
mod admin;
mod bench;
mod client;
mod crowd;
mod full;
mod key_life;
mod limits;
mod root_key;
mod scale;
mod scan;
mod task;
mod verify;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use listmill_shared::settings::parse_duration;

pub use abuse::{AbuseCommand, EndArgs, IpCommand};
pub use account::AccountCommand;
pub use admin::{AdminArgs, AdminCommand, AuditCommand, CreditsCommand, KeyCommand};
pub use bench::{BenchArgs, BenchMode, EngineArgs, GateArgs, LoadArgs, Question};
pub use client::{
    AccessArgs, CancelArgs, CompletionsArgs, DownloadFormat, KEY_VARIABLE, ManArgs, ResultsArgs,
    ServerArgs, StatusArgs, SubmitArgs, URL_VARIABLE, WatchArgs,
};
pub use crowd::{CrowdArgs, Scenario};
pub use full::FullArgs;
pub use key_life::{ImportArgs, ImportFormat, RotateArgs};
pub use limits::LimitsCommand;
pub use root_key::RootKeyCommand;
pub use scale::ScaleArgs;
pub use scan::ScanArgs;
pub use task::{PageArgs, TaskCommand, WorkerCommand};
pub use verify::{InputFormat, ResultsFormat, VerifyArgs};

const EXAMPLES: &str = "\
Examples:
  listmill demo                    see the whole story, without any service or network
  listmill verify contacts.csv     verify a list from the shell; writes contacts-results.csv
  listmill verify ada@example.com  …or single addresses
  listmill submit contacts.csv     …or by a server: LISTMILL_URL and LISTMILL_KEY name it and your key
  listmill doctor                  is this machine fit to ask mail servers?
  listmill up                      API and worker in one process, on SQLite
  listmill migrate                 prepare the PostgreSQL database of a deployment…
  listmill api                     …then run as many of these…
  listmill worker                  …and of these as you like
  listmill admin account create --email ada@example.com --credits 1000
  listmill admin key create --account ada@example.com --label production
  listmill admin reconcile         prove that the books are exact

Settings come from listmill.toml (or --config FILE), overridden by LISTMILL_* variables:
  LISTMILL_DATABASE_URL   sqlite://listmill-data/listmill.db, or postgres://…
  LISTMILL_REDIS_URL      redis://… ; needed by `api` and `worker`
  LISTMILL_PROVIDER       smtp (asks mail servers) or sandbox (made-up verdicts)";

/// Self-hosted bulk email verification.
#[derive(Debug, Parser)]
#[command(name = "listmill", version, about, after_help = EXAMPLES, arg_required_else_help = true)]
pub struct Cli {
    /// Settings file [default: listmill.toml, if there is one]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Print one JSON object on stdout instead of text
    #[arg(long, global = true)]
    pub json: bool,

    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Watch a list being verified while its key is revoked; needs no service and no network
    Demo(DemoArgs),
    /// Verify a list or single addresses from the shell; needs no server
    Verify(VerifyArgs),
    /// Submit a list to a server
    Submit(SubmitArgs),
    /// Show one of your tasks at a server, or the last of them
    Status(StatusArgs),
    /// Watch a task at a server until its end; exit code 0 if it is completed
    Watch(WatchArgs),
    /// Download the results of a task at a server
    Results(ResultsArgs),
    /// Cancel a task at a server; prints what it came to
    Cancel(CancelArgs),
    /// Run API and worker in one process, on SQLite unless told otherwise
    ///
    /// On the first start it makes an account (owner@localhost, 10,000 credits) with one API key
    /// and prints both, once.
    Up,
    /// Run the API (any number of processes; PostgreSQL and Redis)
    Api,
    /// Run a worker (any number of processes; PostgreSQL and Redis)
    Worker,
    /// Bring the database's schema up to date
    Migrate,
    /// Look whether this machine is fit: database, Redis, DNS, port 25, reverse DNS, blocklists, clock
    ///
    /// Each finding says what is so and what to do. It reads the settings that `up`, `api`, `worker`
    /// and `verify` would use, changes nothing, and asks DNS, the mail servers of three big providers
    /// (up to EHLO) and two DNS blocklists. Exit code 1 if there is a problem; warnings do not count.
    Doctor,
    /// Load the running deployment, then print throughput, latency, CPU, memory and the books
    Bench(BenchArgs),
    /// Find API keys in files, folders and the history of Git; exit code 1 if there is one
    Scan(ScanArgs),
    /// Operator levers: accounts, keys, credits, tasks, workers, blocked networks, reconciliation, audit log
    Admin(AdminArgs),
    /// Print completions for a shell
    ///
    /// bash: `source <(listmill completions bash)` in ~/.bashrc. zsh: write them to a file `_listmill` in a folder
    /// of $fpath. fish: write them to ~/.config/fish/completions/listmill.fish.
    Completions(CompletionsArgs),
    /// Print the manual pages
    Man(ManArgs),
}

impl Command {
    /// What it is called.
    pub fn name(&self) -> &'static str {
        match self {
            Command::Demo(_) => "demo",
            Command::Verify(_) => "verify",
            Command::Submit(_) => "submit",
            Command::Status(_) => "status",
            Command::Watch(_) => "watch",
            Command::Results(_) => "results",
            Command::Cancel(_) => "cancel",
            Command::Up => "up",
            Command::Api => "api",
            Command::Worker => "worker",
            Command::Migrate => "migrate",
            Command::Doctor => "doctor",
            Command::Bench(_) => "bench",
            Command::Scan(_) => "scan",
            Command::Admin(_) => "admin",
            Command::Completions(_) => "completions",
            Command::Man(_) => "man",
        }
    }

    /// Does it run until told to stop?
    pub fn is_role(&self) -> bool {
        matches!(self, Command::Up | Command::Api | Command::Worker)
    }

    /// Does it finish what is under way when it is told to stop?
    pub fn drains(&self) -> bool {
        self.is_role() || matches!(self, Command::Verify(args) if args.url.is_none())
    }

    /// Is it a matter of this machine's settings, and not only of who speaks to a server?
    pub fn reads_settings(&self) -> bool {
        match self {
            Command::Submit(_)
            | Command::Status(_)
            | Command::Watch(_)
            | Command::Results(_)
            | Command::Cancel(_)
            | Command::Completions(_)
            | Command::Man(_) => false,
            Command::Verify(args) => args.url.is_none(),
            _ => true,
        }
    }
}

#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Where the results go
    #[arg(long, value_name = "FILE", default_value = "listmill-demo-results.csv")]
    pub output: PathBuf,

    /// Leave the server up afterwards, until Ctrl-C
    #[arg(long)]
    pub keep: bool,
}

/// A duration as in the settings, or days.
fn lifetime(text: &str) -> Result<Duration, String> {
    let days = text.strip_suffix('d').map(|days| days.trim().parse::<u64>().ok());
    match days {
        Some(days) => days.and_then(|days| days.checked_mul(86_400)).map(Duration::from_secs),
        None => parse_duration(text),
    }
    // A hundred years: far from where milliseconds overflow.
    .filter(|duration| (1..=100 * 366 * 86_400).contains(&duration.as_secs()))
    .ok_or_else(|| format!("{text:?} is no duration such as 12h or 90d"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn bench_flags_stand_before_and_after_the_mode() {
        for line in [
            "listmill bench --addresses 500 gate --seconds 2 --json",
            "listmill --json bench gate --addresses 500 --seconds 2",
        ] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            let Command::Bench(bench) = cli.command else { panic!("{line}") };
            assert_eq!((bench.load.addresses, cli.json), (500, true), "{line}");
            assert!(matches!(bench.mode, Some(BenchMode::Gate(GateArgs { seconds: 2, .. }))));
        }
        assert!(Cli::try_parse_from("listmill bench --addresses 0".split(' ')).is_err());
        assert!(
            Cli::try_parse_from("listmill bench --url http://x --embedded".split(' ')).is_err()
        );
    }

    #[test]
    fn admin_lines_of_the_contract_parse() {
        for line in [
            "admin account create --email a@b.c --password p --credits 5 --admin",
            "admin account list --search a --limit 5 --cursor a@b.c --json",
            "admin account show --account a@b.c",
            "admin account rename --account a@b.c --email d@e.f --keep-login",
            "admin account password --email a@b.c",
            "admin account password --email a@b.c --password p --codes-off",
            "admin task list --account a@b.c --status paused",
            "admin task show task_0199c2f06c5a7a3b8d0e5f4a1b2c3d4e",
            "admin task cancel task_0199c2f06c5a7a3b8d0e5f4a1b2c3d4e --json",
            "admin worker list",
            "admin worker drain listmill-1 --json",
            "admin queue",
            "admin credits show --account a@b.c --limit 5",
            "admin credits grant --account a@b.c --amount 5 --reference inv-1",
            "admin key create --account a@b.c --label l --expires-in 90d",
            "admin key suspend key_1 --reason abuse",
            "admin key unsuspend key_1",
            "admin key list --json",
            "admin account suspend --account a@b.c --reason abuse --contact c@d.e --tasks pause --json",
            "admin account unsuspend --account a@b.c --reason settled",
            "admin key find -",
            "admin key find VECabcde --json",
            "admin key hygiene --account a@b.c",
            "admin key create --account a@b.c --label l --link",
            "admin key rotate key_1 --grace 24h --at 2030-01-31T12:00:00Z --link --json",
            "admin key cut key_1",
            "admin key import - --account a@b.c --format ndjson --dry-run --errors e --json",
            "admin root-key create --account a@b.c --permission api.*.create_key --permission x --name n",
            "admin root-key list --account a@b.c",
            "admin root-key delete rootkey_1",
            "admin credits grant --account a@b.c --amount -5 --kind phone",
            "admin ip block 10.0.0.0/8",
            "admin ip block 10.0.0.0/8 --for 1h --reason scan",
            "admin ip list --json",
            "admin abuse list --subject 192.0.2.0/24 --json",
            "admin key suspend key_1 --reason abuse --note ticket --for 1h",
            "admin key suspend key_1 --until 2027-01-31T12:00:00Z",
            "admin limits tighten --factor 0.1 --for 1h",
            "admin limits show --json",
            "admin limits relax",
            "admin reconcile --account a@b.c --deep",
            "admin results task_1",
            "admin audit verify --account a@b.c --json",
            "admin audit export",
        ] {
            let words = std::iter::once("listmill").chain(line.split(' '));
            Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
    }

    #[test]
    fn lifetimes_are_read_or_refused() {
        assert_eq!(lifetime("90d"), Ok(Duration::from_secs(90 * 86_400)));
        assert_eq!(lifetime("12h"), Ok(Duration::from_secs(12 * 3_600)));
        for wrong in ["", "d", "90", "0d", "99999999999999999999d", "999999999d"] {
            assert!(lifetime(wrong).is_err(), "{wrong}");
        }
    }
}

//! The command line: what can be asked, and its help.

mod crowd;
mod full;
mod limits;
mod root_key;
mod scale;
mod scan;
mod verify;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use listmill_shared::domain::ledger::Kind;
use listmill_shared::settings::parse_duration;

pub use crowd::{CrowdArgs, Scenario};
pub use full::FullArgs;
pub use limits::LimitsCommand;
pub use root_key::RootKeyCommand;
pub use scale::ScaleArgs;
pub use scan::ScanArgs;
pub use verify::{InputFormat, ResultsFormat, VerifyArgs};

const EXAMPLES: &str = "\
Examples:
  listmill demo                    see the whole story, without any service or network
  listmill verify contacts.csv     verify a list from the shell; writes contacts-results.csv
  listmill verify ada@example.com  …or single addresses
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

/// Self-hosted bulk e-mail verification.
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
    /// Operator levers: accounts, keys, credits, blocked networks, reconciliation, audit log
    Admin(AdminArgs),
}

impl Command {
    /// What it is called.
    pub fn name(&self) -> &'static str {
        match self {
            Command::Demo(_) => "demo",
            Command::Verify(_) => "verify",
            Command::Up => "up",
            Command::Api => "api",
            Command::Worker => "worker",
            Command::Migrate => "migrate",
            Command::Doctor => "doctor",
            Command::Bench(_) => "bench",
            Command::Scan(_) => "scan",
            Command::Admin(_) => "admin",
        }
    }

    /// Does it run until told to stop?
    pub fn is_role(&self) -> bool {
        matches!(self, Command::Up | Command::Api | Command::Worker)
    }

    /// Does it finish what is under way when it is told to stop?
    pub fn drains(&self) -> bool {
        self.is_role() || matches!(self, Command::Verify(_))
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
    /// How long
    #[arg(long, value_name = "S", default_value_t = 10,
          value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub seconds: u64,

    /// Connections, each with one request at a time
    #[arg(long, value_name = "C", default_value_t = 32,
          value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub connections: u64,

    /// Requests a second over all connections [default: as many as go]
    #[arg(long, value_name = "R", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub rate: Option<u64>,
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

#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
pub struct AdminArgs {
    #[command(subcommand)]
    pub command: AdminCommand,
}

#[derive(Debug, Subcommand)]
pub enum AdminCommand {
    /// Accounts
    #[command(subcommand)]
    Account(AccountCommand),
    /// API keys
    #[command(subcommand)]
    Key(KeyCommand),
    /// Root keys, for the key service under /v2
    #[command(subcommand)]
    RootKey(RootKeyCommand),
    /// Credits
    #[command(subcommand)]
    Credits(CreditsCommand),
    /// Blocked networks
    #[command(subcommand)]
    Ip(IpCommand),
    /// Request limits: the lever against overload
    #[command(subcommand)]
    Limits(LimitsCommand),
    /// Prove that every credit is accounted for; exit 1 if not
    Reconcile {
        /// Of this account only (id or e-mail)
        #[arg(long, value_name = "ID_OR_EMAIL")]
        account: Option<String>,
        /// Open every stored verdict, too: find those that are damaged, missing or there twice
        #[arg(long)]
        deep: bool,
    },
    /// The audit log: who changed what
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Write a task's results to stdout, one JSON object a line
    Results {
        /// The task's id
        task: String,
    },
}

#[derive(Debug, Subcommand)]
pub enum AccountCommand {
    /// Make an account
    Create {
        /// Its e-mail, which also names it in other commands
        #[arg(long)]
        email: String,
        /// Password of its login [default: none, so no login]
        #[arg(long)]
        password: Option<String>,
        /// E-mail credits to begin with
        #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(i64).range(0..))]
        credits: i64,
        /// An operator's account
        #[arg(long)]
        admin: bool,
    },
    /// Change an account's share of the workers, against the other accounts'
    Weight {
        /// Whose (id or e-mail)
        #[arg(long, value_name = "ID_OR_EMAIL")]
        account: String,
        /// An account of weight 3 gets three times as much as one of weight 1, while both have work
        #[arg(long, value_parser = clap::value_parser!(i32).range(1..=1000))]
        weight: i32,
    },
}

#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Make a key; its secret is shown once
    Create {
        /// Whose (id or e-mail)
        #[arg(long, value_name = "ID_OR_EMAIL")]
        account: String,
        /// A name for it
        #[arg(long)]
        label: String,
        /// When it ends by itself, such as 12h or 90d [default: never]
        #[arg(long, value_name = "DURATION", value_parser = lifetime)]
        expires_in: Option<Duration>,
    },
    /// List keys that are not deleted
    List {
        /// Of this account only (id or e-mail)
        #[arg(long, value_name = "ID_OR_EMAIL")]
        account: Option<String>,
    },
    /// Find a key by its id, its first characters, a part of its label, or itself
    Find {
        /// `-` reads the key itself from stdin; as an argument it would be seen by everybody
        what: String,
    },
    /// List active keys that ask for trouble: without an end, old, unused, allowed everything
    Hygiene {
        /// Of this account only (id or email)
        #[arg(long, value_name = "ID_OR_EMAIL")]
        account: Option<String>,
    },
    /// Suspend a key: the next request with it is refused; running tasks go on
    Suspend {
        /// The key's id (key_…)
        key_id: String,
        /// What its user is told
        #[arg(long, default_value = "Suspended by an operator")]
        reason: String,
    },
    /// Lift a suspension
    Unsuspend {
        /// The key's id (key_…)
        key_id: String,
        /// Why, for the log
        #[arg(long)]
        reason: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub enum CreditsCommand {
    /// Give credits, or take them back with a negative amount; paused tasks go on by themselves
    Grant {
        /// Whose (id or e-mail)
        #[arg(long, value_name = "ID_OR_EMAIL")]
        account: String,
        /// How many
        #[arg(long, allow_negative_numbers = true)]
        amount: i64,
        /// Of which kind
        #[arg(long, value_enum, default_value_t = KindArg::Email)]
        kind: KindArg,
        /// A note in the ledger
        #[arg(long)]
        note: Option<String>,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum KindArg {
    Email,
    Phone,
}

impl From<KindArg> for Kind {
    fn from(kind: KindArg) -> Self {
        match kind {
            KindArg::Email => Kind::Email,
            KindArg::Phone => Kind::Phone,
        }
    }
}

#[derive(Debug, Subcommand)]
pub enum IpCommand {
    /// Refuse every request from an address or network
    Block {
        /// 203.0.113.7, 203.0.113.0/24, 2001:db8::/32
        cidr: String,
        /// Why, for other operators
        #[arg(long)]
        reason: Option<String>,
    },
    /// Lift a block
    Unblock {
        /// As it was blocked
        cidr: String,
        /// Why, for the log
        #[arg(long)]
        reason: Option<String>,
    },
    /// List what is blocked
    List,
}

#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Prove that the audit log is as it was written; exit 1 if not
    ///
    /// Every change of an account, a key, credits or a blocked network is a row, and each row holds the hash
    /// of the row before it. This reads them all and names each place where a row was changed, removed, added
    /// or moved. Somebody who can write to the database may make all hashes anew: that shows against an
    /// export which is kept elsewhere.
    Verify {
        /// Of this account only (id or email) [default: all, and what belongs to none]
        #[arg(long, value_name = "ID_OR_EMAIL")]
        account: Option<String>,
    },
    /// Write the audit log to stdout, one JSON object a line
    ///
    /// Oldest first, one account after the other; "account" is null for what belongs to none. The lines of an
    /// earlier export are all in a later one, or somebody has changed the log.
    Export {
        /// Of this account only (id or email) [default: all, and what belongs to none]
        #[arg(long, value_name = "ID_OR_EMAIL")]
        account: Option<String>,
    },
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
            "admin key create --account a@b.c --label l --expires-in 90d",
            "admin key suspend key_1 --reason abuse",
            "admin key unsuspend key_1",
            "admin key list --json",
            "admin key find -",
            "admin key find VECabcde --json",
            "admin key hygiene --account a@b.c",
            "admin root-key create --account a@b.c --permission api.*.create_key --permission x --name n",
            "admin root-key list --account a@b.c",
            "admin root-key delete rootkey_1",
            "admin credits grant --account a@b.c --amount -5 --kind phone",
            "admin ip block 10.0.0.0/8",
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
    fn lifetimes_and_pids_are_read_or_refused() {
        assert_eq!(lifetime("90d"), Ok(Duration::from_secs(90 * 86_400)));
        assert_eq!(lifetime("12h"), Ok(Duration::from_secs(12 * 3_600)));
        for wrong in ["", "d", "90", "0d", "99999999999999999999d", "999999999d"] {
            assert!(lifetime(wrong).is_err(), "{wrong}");
        }
        assert_eq!(named_pid("api=12"), Ok((String::from("api"), 12)));
        assert!(named_pid("12").is_err() && named_pid("=12").is_err());
    }
}

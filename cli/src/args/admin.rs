//! `admin`: operator levers.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use listmill_shared::domain::key::Environment;
use listmill_shared::domain::ledger::Kind;

use super::{
    AbuseCommand, AccountCommand, EndArgs, ImportArgs, IpCommand, LimitsCommand, RootKeyCommand,
    RotateArgs, TaskCommand, WorkerCommand, lifetime,
};

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
    /// Tasks, whosever they are
    #[command(subcommand)]
    Task(TaskCommand),
    /// Workers
    #[command(subcommand)]
    Worker(WorkerCommand),
    /// Say what waits: how much, for how long, and whose it is
    Queue,
    /// Blocked networks
    #[command(subcommand)]
    Ip(IpCommand),
    /// Abuse protection: what its rules have found
    #[command(subcommand)]
    Abuse(AbuseCommand),
    /// Request limits: the lever against overload
    #[command(subcommand)]
    Limits(LimitsCommand),
    /// Prove that every credit is accounted for; exit 1 if not
    Reconcile {
        /// Of this account only (id or email)
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
pub enum KeyCommand {
    /// Make a key; its secret is shown once
    Create {
        /// Whose (id or email)
        #[arg(long, value_name = "ID_OR_EMAIL")]
        account: String,
        /// A name for it
        #[arg(long)]
        label: String,
        /// When it ends by itself, such as 12h or 90d [default: never]
        #[arg(long, value_name = "DURATION", value_parser = lifetime)]
        expires_in: Option<Duration>,
        /// live, or test: the sandbox makes the verdicts up, and nothing is charged
        #[arg(long, default_value = "live", value_parser = environment)]
        environment: Environment,
        /// Print a link that shows the secret once, and not the secret
        #[arg(long)]
        link: bool,
    },
    /// Put a new key in the place of one: same settings, another secret
    Rotate(RotateArgs),
    /// End a rotated key now, whatever is left of its grace
    Cut {
        /// The old key's id (key_…)
        key_id: String,
    },
    /// Bring keys from another system, by SHA-256
    Import(ImportArgs),
    /// List keys that are not deleted
    List {
        /// Of this account only (id or email)
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
        /// For other operators only
        #[arg(long)]
        note: Option<String>,
        #[command(flatten)]
        end: EndArgs,
    },
    /// Lift a suspension, and say what had caused it
    ///
    /// Abuse protection begins anew with the key: its strikes and counts are forgotten, and the networks that it
    /// was used from so far are known from now on. Does that for a key that is not suspended, too.
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
    /// Show where an account's credits are, and its newest entries
    Show {
        /// Whose (id or email)
        #[arg(long, value_name = "ID_OR_EMAIL")]
        account: String,
        /// So many entries, at the most
        #[arg(long, value_name = "N", default_value_t = 20,
              value_parser = clap::value_parser!(i64).range(0..=1_000))]
        limit: i64,
    },
    /// Give credits, or take them back with a negative amount; paused tasks go on by themselves
    Grant {
        /// Whose (id or email)
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
        /// A name for it, such as an invoice's number: the same is booked once for an account, however often it is
        /// asked for
        #[arg(long)]
        reference: Option<String>,
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

fn environment(name: &str) -> Result<Environment, String> {
    Environment::parse(name).ok_or_else(|| format!("{name:?} is neither live nor test"))
}

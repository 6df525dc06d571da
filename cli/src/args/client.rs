//! What the commands take that speak to a server: `submit`, `status`, `watch`, `results`, `cancel`, and
//! `verify --url`.

use std::convert::Infallible;
use std::fmt::{Debug, Formatter};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use listmill_shared::domain::verdict::{Reason, Status};

use super::{InputFormat, lifetime};

/// Where a command finds its server, unless `--url` says.
pub const URL_VARIABLE: &str = "LISTMILL_URL";
/// Where it finds its key, unless `--key` or `--key-file` says.
pub const KEY_VARIABLE: &str = "LISTMILL_KEY";

const ACCESS: &str = "\
The server is named by --url or LISTMILL_URL, the key by --key-file or LISTMILL_KEY. --key works too, but
everybody on this machine can read the arguments of a command.";

const SUBMIT: &str = "\
Prints the task. The list is sent as it is read; CSV, TSV, a workbook (.xlsx), text, NDJSON or JSON, packed
with gzip or not. A connection that breaks is made anew, and the list is sent again under the same
Idempotency-Key, so that the server makes one task of it. What comes by stdin is kept in a temporary file
until then.

Examples:
  export LISTMILL_URL=https://lists.example.com LISTMILL_KEY=VEC…
  listmill submit contacts.csv                       prints the task and how to go on
  listmill submit contacts.csv --wait --output checked.csv
  listmill submit contacts.csv --dry-run             what it would cost
  cut -f3 people.tsv | listmill submit - --name people
  task=$(listmill submit contacts.csv --json | jq -r .id)

Exit codes: 0 submitted (with --wait: and completed); 1 failed, or the task ended otherwise; 2 wrong
arguments; 130 interrupted: a task that was submitted goes on.";

const RESULTS: &str = "\
Examples:
  listmill results TASK                              CSV to stdout: your rows with our columns
  listmill results TASK --output checked.xlsx        a workbook
  listmill results TASK --status deliverable --format txt --output good.txt
  listmill results TASK --format ndjson | jq .email

A file is written beside its place under another name and moved there when it is whole. A running task gives
what there is.";

/// How a server is spoken to.
#[derive(Debug, Args)]
pub struct AccessArgs {
    /// The API key; better in LISTMILL_KEY or a file, since others see arguments
    #[arg(long, value_name = "KEY", conflicts_with = "key_file")]
    pub key: Option<KeyText>,

    /// A file with the API key [default: LISTMILL_KEY]
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,

    /// A file (PEM) with certificates to trust besides those that this machine trusts
    #[arg(long, value_name = "FILE", env = "LISTMILL_CA_FILE", hide_env_values = true)]
    pub ca_file: Option<PathBuf>,

    /// Give up when the server has been silent for so long, such as 30s or 5m [default: by what it is asked]
    #[arg(long, value_name = "DURATION", value_parser = lifetime)]
    pub timeout: Option<Duration>,
}

/// Which server, and how it is spoken to.
#[derive(Debug, Args)]
pub struct ServerArgs {
    /// The server, such as https://lists.example.com
    #[arg(long, value_name = "URL", env = URL_VARIABLE, hide_env_values = true)]
    pub url: Option<String>,

    #[command(flatten)]
    pub access: AccessArgs,
}

/// A key as it was given; shows itself nowhere.
#[derive(Clone)]
pub struct KeyText(pub String);

impl Debug for KeyText {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyText(…)")
    }
}

impl FromStr for KeyText {
    /// A refusal would show the value.
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

#[derive(Debug, Args)]
#[command(after_help = SUBMIT, arg_required_else_help = true)]
pub struct SubmitArgs {
    /// The list, `-` = stdin
    #[arg(value_name = "FILE|-")]
    pub file: String,

    #[command(flatten)]
    pub server: ServerArgs,

    /// A name for the task [default: the file's]
    #[arg(long)]
    pub name: Option<String>,

    /// Tables: the column with the addresses, by its header, its number from 1 or its letter; several with commas
    /// between them, or `*` for all that hold addresses [default: found out]
    #[arg(long, value_name = "NAME")]
    pub column: Option<String>,

    /// Workbooks: the sheet [default: the first one with rows]
    #[arg(long, value_name = "NAME")]
    pub sheet: Option<String>,

    /// CSV: the delimiter, one character or `tab` [default: found out]
    #[arg(long, value_name = "CHARACTER")]
    pub delimiter: Option<String>,

    /// The list's encoding, such as windows-1252 [default: found out]
    #[arg(long, value_name = "NAME")]
    pub charset: Option<String>,

    /// Verify addresses once that differ only in letter case or a tag (anna+news@)
    #[arg(long)]
    pub collapse: bool,

    /// Take the list even if much of it is not email addresses
    #[arg(long)]
    pub allow_invalid: bool,

    /// How the list is written [default: by its name, else by its bytes]
    #[arg(long, value_enum)]
    pub input_format: Option<InputFormat>,

    /// Run until the credits end, pause, and go on after a top-up, instead of being refused
    #[arg(long)]
    pub allow_partial: bool,

    /// Count and price only; nothing is stored
    #[arg(long, conflicts_with = "wait")]
    pub dry_run: bool,

    /// The Idempotency-Key: the same list with the same one is submitted once [default: a new one]
    #[arg(long, value_name = "TEXT")]
    pub idempotency_key: Option<String>,

    /// Watch the task until its end
    #[arg(long)]
    pub wait: bool,

    /// Then write its results here, `-` = stdout
    #[arg(long, short, value_name = "FILE", requires = "wait")]
    pub output: Option<PathBuf>,

    /// How results are written [default: by the output's name, else csv]
    #[arg(long, value_enum, requires = "output")]
    pub format: Option<DownloadFormat>,

    /// Replace the output if it is there
    #[arg(long, requires = "output")]
    pub force: bool,
}

#[derive(Debug, Args)]
#[command(after_help = ACCESS)]
pub struct StatusArgs {
    /// The task's id [default: the last tasks, as a table]
    #[arg(value_name = "TASK")]
    pub task: Option<String>,

    #[command(flatten)]
    pub server: ServerArgs,

    /// So many tasks, at the most
    #[arg(long, value_name = "N", default_value_t = 20, conflicts_with = "task",
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub limit: u32,

    /// Only tasks with this status: queued, running, paused, cancelled, completed or failed
    #[arg(long, value_name = "STATUS", conflicts_with = "task")]
    pub status: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = ACCESS, arg_required_else_help = true)]
pub struct WatchArgs {
    /// The task's id
    #[arg(value_name = "TASK")]
    pub task: String,

    #[command(flatten)]
    pub server: ServerArgs,
}

#[derive(Debug, Args)]
#[command(after_help = RESULTS, arg_required_else_help = true)]
pub struct ResultsArgs {
    /// The task's id
    #[arg(value_name = "TASK")]
    pub task: String,

    #[command(flatten)]
    pub server: ServerArgs,

    /// Where they go, `-` = stdout; packed if it ends in .gz
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    pub output: PathBuf,

    /// Replace the output if it is there
    #[arg(long)]
    pub force: bool,

    /// How results are written [default: by the output's name, else csv]
    #[arg(long, value_enum)]
    pub format: Option<DownloadFormat>,

    /// Only results with this status: deliverable, undeliverable, risky or unknown
    #[arg(long)]
    pub status: Option<Status>,

    /// Only results with this reason, such as mailbox_not_found
    #[arg(long)]
    pub reason: Option<Reason>,

    /// Only results with this flag: role, free, disposable, catch_all, mailbox_full or disabled
    #[arg(long)]
    pub flag: Option<String>,

    /// CSV, ZIP: an apostrophe before what a spreadsheet would take for a formula
    #[arg(long)]
    pub escape_formulas: bool,
}

#[derive(Debug, Args)]
#[command(after_help = ACCESS, arg_required_else_help = true)]
pub struct CancelArgs {
    /// The task's id
    #[arg(value_name = "TASK")]
    pub task: String,

    #[command(flatten)]
    pub server: ServerArgs,
}

/// What results can be downloaded as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum DownloadFormat {
    /// The list's own rows with our columns
    Csv,
    /// The same as a workbook
    Xlsx,
    /// The same as a CSV for each status
    Zip,
    /// One JSON object per distinct address
    Ndjson,
    /// One JSON array of them
    JsonArray,
    /// The addresses alone, one a line
    Txt,
}

impl DownloadFormat {
    /// As `format=` takes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Xlsx => "xlsx",
            Self::Zip => "zip",
            Self::Ndjson => "ndjson",
            Self::JsonArray => "json_array",
            Self::Txt => "txt",
        }
    }

    /// Is it no text, and made as a whole before it is sent?
    pub fn is_packed(self) -> bool {
        matches!(self, Self::Xlsx | Self::Zip)
    }
}

#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// Whose
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub struct ManArgs {
    /// Write a page for each command into this folder [default: all of them to stdout]
    #[arg(long, short, value_name = "DIR")]
    pub output: Option<PathBuf>,
}

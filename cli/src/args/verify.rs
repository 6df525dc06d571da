//! What `listmill verify` takes.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use listmill_shared::domain::verdict::Status;
use listmill_shared::settings::ProviderKind;

use super::AccessArgs;

const EXAMPLES: &str = "\
It needs no server, no database and no Redis: the work is done in this process, with the provider and
the manners that the settings name. While it runs, the list and what was found are kept in a private folder
beside the results (contacts-results.csv.progress), which is removed when the list is done; for single
addresses, and with --output -, in one below TMPDIR, which is removed at the end.

A list is CSV, TSV or a workbook (.xlsx; the column with the addresses is found), text (one address a
line), NDJSON, JSON, an address book (vCard, LDIF) or a mail, in any encoding, packed with gzip, zstd,
ZIP or not at all. Of a workbook, one sheet is read; its rows come back as CSV. The results file is the list as it came, with columns that begin with
listmill_ added; each address is asked about once, however often it is there.

An address whose mail server says \"later\" is asked again after LISTMILL_RETRY_DELAYS (1m,5m,15m); the
command waits for that, but not when single addresses are given.

Ctrl-C (likewise SIGTERM, SIGQUIT, and SIGHUP when the terminal is closed) stops asking, lets what is under way
end, and writes the results that are there; a second one stops at once and writes nothing. Either way, and
likewise after kill -9 or a power cut, the same command goes on where it stopped: on a terminal it asks, else say
so with --resume. Only what was under way is asked again. A list that has changed is refused. The list of stdin
is kept, too, once it was read to its end, and is not read again. With --output - nothing is kept unless
--progress names a folder for it.

Examples:
  listmill verify contacts.csv                       writes contacts-results.csv
  listmill verify contacts.csv.gz --column Mail --output checked.csv.gz
  listmill verify contacts.xlsx --sheet Leads        writes contacts-results.csv
  listmill verify leads.txt --format ndjson          writes leads-results.ndjson
  listmill verify contacts.csv --resume              goes on where it stopped
  listmill verify --output - - < contacts.csv        from stdin to stdout
  listmill verify anna@example.com bert@example.org  prints what was found, and why
  listmill verify anna@example.com --fail-on undeliverable && echo fine
  listmill verify contacts.csv --url https://lists.example.com    the same by a server, with your LISTMILL_KEY

Exit codes: 0 verified; 1 failed, or --fail-on applies; 2 wrong arguments; 128 + the signal's number
when interrupted (130 = Ctrl-C), with a results file of what was there.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, arg_required_else_help = true)]
pub struct VerifyArgs {
    /// One list (`-` = stdin), or one or more addresses
    #[arg(required = true, value_name = "FILE|ADDRESS")]
    pub inputs: Vec<String>,

    /// Where the results go, `-` = stdout; packed if it ends in .gz [default: a list's name with
    /// -results.csv, next to it; single addresses are printed]
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// Replace the results file if it is there
    #[arg(long)]
    pub force: bool,

    /// Go on where an earlier run stopped; begin where there is none
    #[arg(long, conflicts_with = "restart")]
    pub resume: bool,

    /// Begin anew, though an earlier run could be gone on with
    #[arg(long)]
    pub restart: bool,

    /// Where the progress of a list is kept [default: beside the results, as FILE.progress; nowhere if they
    /// go to stdout]
    #[arg(long, value_name = "FOLDER")]
    pub progress: Option<PathBuf>,

    /// How results are written [default: by the output's name, else csv]
    #[arg(long, value_enum)]
    pub format: Option<ResultsFormat>,

    /// How the list is written [default: by its name, else by its bytes]
    #[arg(long, value_enum)]
    pub input_format: Option<InputFormat>,

    /// Tables: the column with the addresses, by its header, its number from 1 or its letter; several with commas
    /// between them, or `*` for all that hold addresses [default: found out]
    #[arg(long, value_name = "NAME")]
    pub column: Option<String>,

    /// Workbooks: the sheet [default: the first one with rows]
    #[arg(long, value_name = "NAME")]
    pub sheet: Option<String>,

    /// The list's encoding, such as windows-1252 [default: found out]
    #[arg(long, value_name = "NAME")]
    pub charset: Option<String>,

    /// Verify addresses once that differ only in letter case or a tag (anna+news@)
    #[arg(long)]
    pub collapse: bool,

    /// Take the list even if much of it is not email addresses
    #[arg(long)]
    pub allow_invalid: bool,

    /// Addresses verified at once [default: the setting worker_concurrency]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub concurrency: Option<u32>,

    /// Who verifies [default: the setting provider]
    #[arg(long, value_enum)]
    pub provider: Option<ProviderArg>,

    /// Exit with 1 when an address has one of these statuses (commas): undeliverable, risky,
    /// unknown, deliverable
    #[arg(long, value_name = "STATUS", value_delimiter = ',')]
    pub fail_on: Vec<Status>,

    /// Have a server verify, such as https://lists.example.com; the results come back here
    #[arg(long, value_name = "URL", conflicts_with_all = ["concurrency", "provider"])]
    pub url: Option<String>,

    #[command(flatten)]
    pub access: AccessArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ResultsFormat {
    /// The list's own rows with our columns
    Csv,
    /// One JSON object per distinct address
    Ndjson,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum InputFormat {
    /// Separated by commas, semicolons, tabs or |
    Csv,
    /// Separated by tabs
    Tsv,
    /// One address a line
    Text,
    /// Per line a JSON string, or an object with `email`
    Ndjson,
    /// One object with `emails`
    Json,
    /// A workbook
    Xlsx,
    /// An address book, as phones write it
    Vcard,
    /// An address book, as directories write it
    Ldif,
    /// A mail, or an mbox of many: the addresses of their headers
    Mail,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum ProviderArg {
    /// Asks DNS and mail servers
    Smtp,
    /// Asks another service
    Http,
    /// Makes verdicts up
    Sandbox,
}

impl ResultsFormat {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            ResultsFormat::Csv => "csv",
            ResultsFormat::Ndjson => "ndjson",
        }
    }
}

impl From<ProviderArg> for ProviderKind {
    fn from(provider: ProviderArg) -> Self {
        match provider {
            ProviderArg::Smtp => ProviderKind::Smtp,
            ProviderArg::Http => ProviderKind::Http,
            ProviderArg::Sandbox => ProviderKind::Sandbox,
        }
    }
}

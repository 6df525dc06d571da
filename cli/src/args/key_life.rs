//! `admin key rotate`, `cut` and `import`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::lifetime;

/// What `listmill admin key import --help` says beneath the flags.
pub const IMPORT_HELP: &str = "\
A row says sha256 (the SHA-256 of the key, 64 hexadecimal digits or base64), label, and perhaps start (the
key's first characters, for people) and whatever POST /v1/keys takes: note, environment, stage, scopes,
expires_at, not_before, allow, rate_limit, limits, credit_limit, external_id, meta. CSV has these words in its
first line, NDJSON one object a line. In a cell of CSV scopes and allow have blanks or commas between them;
credit_limit is a number; limits and meta are JSON. No row holds a key itself: docs/KEYS.md has the line that
hashes.

Keys open from then on as they did before, whatever their form. A key that is there already is left as it is,
so an import that was interrupted is run again. Rows that cannot be taken are named, the others are stored;
exit code 1 then.

Examples:
  listmill admin key import keys.csv --account ada@example.com --dry-run
  listmill admin key import keys.csv --account ada@example.com --errors bad.ndjson
  hash-keys <old.csv | listmill admin key import - --account ada@example.com --json";

#[derive(Debug, Args)]
pub struct RotateArgs {
    /// The key's id (key_…)
    pub key_id: String,
    /// How long the old one opens beside the new one, such as 24h or 7d; at most 90d
    #[arg(long, value_name = "DURATION", default_value = "0", value_parser = grace)]
    pub grace: Duration,
    /// When the new one begins to open, such as 2030-01-31T12:00:00Z [default: at once]
    #[arg(long, value_name = "TIME")]
    pub at: Option<String>,
    /// Print a link that shows the new secret once, and not the secret
    #[arg(long)]
    pub link: bool,
}

#[derive(Debug, Args)]
#[command(after_help = IMPORT_HELP)]
pub struct ImportArgs {
    /// CSV or NDJSON; `-` reads stdin
    pub file: PathBuf,
    /// Whose keys they become (id or email)
    #[arg(long, value_name = "ID_OR_EMAIL")]
    pub account: String,
    /// [default: NDJSON if it begins with `{`]
    #[arg(long, value_enum)]
    pub format: Option<ImportFormat>,
    /// Check everything, store nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Write every row that cannot be taken to this file, one JSON object a line
    #[arg(long, value_name = "FILE")]
    pub errors: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ImportFormat {
    Csv,
    Ndjson,
}

fn grace(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let fits = |time: &Duration| *time <= Duration::from_secs(90 * 86_400);
    lifetime(text).ok().filter(fits).ok_or_else(|| {
        format!("{text:?} is no duration such as 24h or 7d, of at most 90d; 0 ends the old one now")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn graces_have_a_unit_and_a_bound() {
        assert_eq!(grace("0"), Ok(Duration::ZERO));
        assert_eq!(grace("24h"), Ok(Duration::from_secs(86_400)));
        for wrong in ["24", "91d", "-1h", ""] {
            assert!(grace(wrong).is_err(), "{wrong}");
        }
    }
}

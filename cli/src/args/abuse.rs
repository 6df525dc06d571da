//! `admin abuse`, `admin ip`, and how long what an operator does lasts.

use std::time::Duration;

use clap::{Args, Subcommand};
use listmill_shared::domain::clock::{Millis, parse_rfc3339};

use super::lifetime;

#[derive(Debug, Subcommand)]
pub enum AbuseCommand {
    /// List what abuse protection has found, newest first: what it did, or would have done
    ///
    /// `suspended` and `blocked` end by themselves; `dry_run` did nothing, as the settings say so; `spared` did
    /// nothing, as it would have hit others: see `detail`.
    List {
        /// Of this key (key_…) or network only
        #[arg(long, value_name = "KEY_OR_NETWORK")]
        subject: Option<String>,
        /// So many, at the most
        #[arg(long, value_name = "N", default_value_t = 100,
              value_parser = clap::value_parser!(i64).range(1..=10_000))]
        limit: i64,
    },
}

/// When something ends by itself.
#[derive(Debug, Args)]
pub struct EndArgs {
    /// It ends by itself after this, such as 1h or 30d [default: when it is lifted]
    #[arg(long = "for", value_name = "DURATION", value_parser = lifetime, conflicts_with = "until")]
    lasts: Option<Duration>,
    /// …or at this time, such as 2027-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<Millis>,
}

impl EndArgs {
    /// When it ends.
    pub fn ends_at(&self, now: Millis) -> Option<Millis> {
        let lasts = self.lasts.and_then(|lasts| i64::try_from(lasts.as_millis()).ok());
        self.until.or(lasts.map(|lasts| now.saturating_add(lasts)))
    }
}

fn time(text: &str) -> Result<Millis, String> {
    parse_rfc3339(text).ok_or_else(|| format!("{text:?} is no time such as 2027-01-31T12:00:00Z"))
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
        #[command(flatten)]
        end: EndArgs,
    },
    /// Lift a block
    Unblock {
        /// As it was blocked
        cidr: String,
        /// Why, for the log
        #[arg(long)]
        reason: Option<String>,
    },
    /// List what is blocked, by whom, and until when
    List,
}

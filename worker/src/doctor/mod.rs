//! Is this machine fit to ask mail servers? Looked at before a list is, in the way that the smtp
//! provider would go: the same nameservers, source address, proxy and name.
//!
//! ```text
//! resolver ┐
//! port ────┼─▶ address (as mail servers see us) ─▶ reverse, ehlo, blocklists
//! sender ──┘
//! ```
//!
//! Data: a [`Finding`] per check, sent as soon as it is known. No service outside DNS, the mail
//! servers of [`Targets::providers`] and the lists of [`Targets::blocklists`] is asked. Every wait is
//! bounded: all of it together takes less than 30 s.

mod blocklists;
mod names;
mod port;

use std::time::Duration;

pub use listmill_shared::app::doctor::{Finding, State};
use listmill_shared::domain::clock::Clock;
use listmill_shared::domain::id::Ids;
use tokio::sync::mpsc::UnboundedSender;

use crate::provider::dns::{Dns, DnsSetupError, Failed};
use crate::provider::smtp::Config;

/// How long one look-up may take.
const LOOK_UP: Duration = Duration::from_secs(4);

/// Who is asked.
#[derive(Debug, Clone)]
pub struct Targets {
    /// Domains of big mail providers: each has mail hosts, and they say from where we come.
    pub providers: Vec<String>,
    /// DNS blocklists by address (RFC 5782).
    pub blocklists: Vec<String>,
}

impl Default for Targets {
    fn default() -> Self {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Self {
            providers: owned(&["gmail.com", "outlook.com", "yahoo.com"]),
            blocklists: owned(&["zen.spamhaus.org", "bl.spamcop.net"]),
        }
    }
}

/// What the checks share.
struct Doctor<'a> {
    config: &'a Config,
    targets: &'a Targets,
    dns: Dns,
    clock: &'a Clock,
    findings: UnboundedSender<Finding>,
}

impl Doctor<'_> {
    fn tell(&self, finding: Finding) {
        // Who asked may have gone.
        let _ = self.findings.send(finding);
    }
}

/// Looks at everything that the smtp provider depends on.
pub async fn examine(
    config: &Config,
    targets: &Targets,
    clock: &Clock,
    ids: &Ids,
    findings: UnboundedSender<Finding>,
) -> Result<(), DnsSetupError> {
    let dns = Dns::new(&config.nameservers, clock.clone())?;
    let doctor = Doctor { config, targets, dns, clock, findings };
    let seen_from_outside = async {
        let seen = doctor.port().await;
        tokio::join!(doctor.reverse(seen), doctor.ehlo(seen), doctor.blocklists(seen));
    };
    let nowhere = format!("{:032x}.com", u128::from_le_bytes(ids.bytes()));
    tokio::join!(doctor.resolver(&nowhere), seen_from_outside, doctor.sender());
    Ok(())
}

/// A look-up within [`LOOK_UP`].
async fn in_time<T>(
    name: &str,
    looking: impl Future<Output = Result<T, Failed>>,
) -> Result<T, Failed> {
    match tokio::time::timeout(LOOK_UP, looking).await {
        Ok(found) => found,
        Err(_) => Err(Failed::timeout(name)),
    }
}

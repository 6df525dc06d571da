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
//! bounded: all of it together takes less than 30 s. [`glance`] asks only for what would make verdicts
//! wrong, in less than 10 s.

mod blocklists;
mod names;
mod port;

use std::time::Duration;

pub use listmill_shared::app::doctor::{Finding, State};
use listmill_shared::domain::clock::Clock;
use listmill_shared::domain::id::Ids;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use crate::provider::dns::{Dns, DnsSetupError, Failed};
use crate::provider::smtp::Config;

/// How long one look-up may take.
const LOOK_UP: Duration = Duration::from_secs(4);
/// How long a glance may take.
const GLANCE: Duration = Duration::from_secs(9);

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

impl Targets {
    /// With the domains that the resolver must know, where `config` names some.
    pub fn of(config: &Config) -> Self {
        let shipped = Self::default();
        match config.control.as_slice() {
            [] => shipped,
            known => Self { providers: known.to_vec(), ..shipped },
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
    let nowhere = nowhere(ids);
    tokio::join!(doctor.resolver(&nowhere), seen_from_outside, doctor.sender());
    Ok(())
}

/// What would make verdicts wrong: a resolver that lies, a port that is shut. Nothing else is looked
/// at, and nothing at all where `config` is for mail servers of one's own and has no domains that the
/// resolver must know.
pub async fn glance(
    config: &Config,
    clock: &Clock,
    ids: &Ids,
) -> Result<Vec<Finding>, DnsSetupError> {
    let believed = config.control.is_empty();
    if believed && config.landmarks.is_empty() {
        return Ok(Vec::new());
    }
    let targets = Targets::of(config);
    let dns = Dns::new(&config.nameservers, clock.clone())?;
    let (findings, mut found) = unbounded_channel();
    let doctor = Doctor { config, targets: &targets, dns, clock, findings };
    let nowhere = nowhere(ids);
    let looking = async { tokio::join!(doctor.resolver(&nowhere), doctor.port()) };
    // What is not known by then is not waited for.
    let _ = tokio::time::timeout(GLANCE, looking).await;
    drop(doctor);
    let mut wrong = Vec::new();
    while let Some(finding) = found.recv().await {
        let told = match finding.check {
            "resolver" => !believed,
            check => check == "port",
        };
        if told && finding.state == State::Problem {
            wrong.push(finding);
        }
    }
    // Without names no mail server is found: that says nothing about the port.
    if wrong.iter().any(|finding| finding.check == "resolver") {
        wrong.retain(|finding| finding.check == "resolver");
    }
    Ok(wrong)
}

/// A name that nobody has registered.
fn nowhere(ids: &Ids) -> String {
    format!("{:032x}.com", u128::from_le_bytes(ids.bytes()))
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

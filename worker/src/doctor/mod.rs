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

use listmill_shared::domain::clock::{Clock, Millis};
use listmill_shared::domain::id::Ids;
use serde::Serialize;
use tokio::sync::mpsc::UnboundedSender;

use crate::provider::dns::{Dns, DnsSetupError, Failed};
use crate::provider::smtp::Config;

/// How long one look-up may take.
const LOOK_UP: Duration = Duration::from_secs(4);

/// How serious a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// As it should be.
    Ok,
    /// It will work, but worse than it could; or it could not be looked at.
    Warning,
    /// It will not work.
    Problem,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub check: &'static str,
    /// How serious it is.
    pub state: State,
    /// What is so, and what that means.
    pub found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

impl Finding {
    /// As it should be.
    pub fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, state: State::Ok, found: found.into(), advice: None }
    }

    /// Worse than it could be.
    pub fn warning(
        check: &'static str,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        let advice = Some(advice.into());
        Self { check, state: State::Warning, found: found.into(), advice }
    }

    /// Will not work.
    pub fn problem(
        check: &'static str,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self { state: State::Problem, ..Self::warning(check, found, advice) }
    }
}

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

/// A clock beside ours: `theirs` was read at `ours`. `most`: how far they may be apart, `from`: from
/// which it is a problem.
pub fn clocks(
    whose: &str,
    ours: Millis,
    theirs: Millis,
    most: Duration,
    from: Duration,
) -> Finding {
    let apart = Duration::from_millis(ours.abs_diff(theirs));
    let seconds = apart.as_secs_f64();
    let found = match apart <= most {
        true => format!("this machine's clock agrees with {whose}'s"),
        false if ours > theirs => {
            format!("this machine's clock is {seconds:.1} s ahead of {whose}'s")
        }
        false => format!("this machine's clock is {seconds:.1} s behind {whose}'s"),
    };
    let advice = "Leases, limits and times of results go wrong by as much: let a time service (chrony, \
                  systemd-timesyncd) set the clock of every machine.";
    match apart {
        apart if apart <= most => Finding::ok("clock", found),
        apart if apart < from => Finding::warning("clock", found, advice),
        _ => Finding::problem("clock", found, advice),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_are_held_against_each_other() {
        let second = Duration::from_secs(1);
        let of = |theirs| clocks("the database", 60_000, theirs, 2 * second, 15 * second);
        assert_eq!(of(61_500).state, State::Ok);
        assert_eq!(of(50_000).state, State::Warning);
        assert!(of(50_000).found.contains("10.0 s ahead"), "{:?}", of(50_000));
        assert_eq!(of(75_000).state, State::Problem);
        assert!(of(75_000).found.contains("15.0 s behind"), "{:?}", of(75_000));
    }
}

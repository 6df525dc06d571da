//! One address's way through its domain's mail hosts.
//!
//! Hosts are tried in order, each at all its addresses, until one gives an answer about the
//! recipient; 4xx to RCPT is one (the other hosts of a domain share its greylist). A host that cannot
//! be reached, hangs up, or turns *us* away before the recipient is named passes it on to the next.
//! When none answers, the most telling failure is the verdict.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use listmill_shared::domain::verdict::Reason;
use tokio::time::{Instant, timeout};

use super::session::Recipient;
use super::table::Meaning;
use super::{Evidence, Smtp, Stage};
use crate::provider::dns::{Failed, MailHost, Route, order};

/// What was found.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// What the last answer means.
    pub meaning: Meaning,
    /// Does the domain accept everything?
    pub catch_all: Option<bool>,
}

/// An address's time.
pub struct Budget {
    /// What is left of it.
    pub left: Duration,
}

impl Budget {
    /// `None` when the time ran out before `work` was done.
    pub async fn run<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let started = Instant::now();
        let done = timeout(self.left, work).await.ok();
        self.left = self.left.saturating_sub(started.elapsed());
        done
    }
}

/// The most telling failure so far.
#[derive(Default)]
struct Failures {
    worst: Option<(Meaning, Evidence)>,
    tried: u16,
    temporary: bool,
}

impl Failures {
    fn add(&mut self, meaning: Meaning, evidence: Evidence) {
        // A server's words tell more than its silence, its silence more than its absence.
        let weight = |reason| match reason {
            Reason::NoConnect => 0,
            Reason::Timeout => 1,
            _ => 2,
        };
        self.temporary |= meaning.temporary;
        if self.worst.as_ref().is_none_or(|(w, _)| weight(meaning.reason) > weight(w.reason)) {
            self.worst = Some((meaning, evidence));
        }
    }

    fn outcome(self, evidence: &mut Evidence) -> Outcome {
        let (meaning, found) = self.worst.unwrap_or_else(|| {
            let mut evidence = Evidence { stage: Stage::Dns, ..Evidence::default() };
            evidence.note_text("no mail host has an address");
            (Meaning { reason: Reason::NoMx, temporary: false }, evidence)
        });
        *evidence = Evidence { tried: self.tried, ..found };
        // One host that may be better later is enough.
        Outcome { meaning: Meaning { temporary: self.temporary, ..meaning }, catch_all: None }
    }
}

impl Smtp {
    /// Asks about `to`; `evidence` becomes what the outcome rests on.
    pub(super) async fn walk(&self, to: Recipient<'_>, evidence: &mut Evidence) -> Outcome {
        let mut budget = Budget { left: self.config.timeout };
        evidence.stage = Stage::Dns;
        let route = budget.run(self.dns.route(to.domain)).await;
        let hosts = match hosts_of(route) {
            Ok(hosts) => hosts,
            Err((meaning, text)) => {
                evidence.note_text(&text);
                return Outcome { meaning, catch_all: None };
            }
        };
        let mut failures = Failures::default();
        for host in order(&hosts, || u64::from_le_bytes(self.ids.bytes())) {
            let mx = Some(Arc::clone(&host.name));
            let at_host = Evidence { stage: Stage::Dns, mx, ..Evidence::default() };
            let found = budget.run(self.dns.addresses(&host.name)).await;
            let addresses = match found.unwrap_or_else(|| Err(Failed::timeout(&host.name))) {
                Ok(addresses) => addresses,
                Err(failed) => {
                    let mut seen = at_host;
                    seen.note_text(&failed.text);
                    failures.add(dns_meaning(&failed), seen);
                    continue;
                }
            };
            for &ip in addresses.iter() {
                if budget.left.is_zero() {
                    return failures.outcome(evidence);
                }
                failures.tried = failures.tried.saturating_add(1);
                let tried = failures.tried;
                let mut seen = Evidence { ip: Some(ip), tried, ..at_host.clone() };
                match self.ask_address(ip, to, &mut budget, &mut seen).await {
                    Ok(outcome) => {
                        *evidence = seen;
                        return outcome;
                    }
                    Err(meaning) => failures.add(meaning, seen),
                }
            }
        }
        failures.outcome(evidence)
    }
}

/// Where to go, or why nowhere. `None`: DNS took all the time there was.
fn hosts_of(route: Option<Route>) -> Result<Arc<[MailHost]>, (Meaning, Arc<str>)> {
    let settled = |reason| Meaning { reason, temporary: false };
    match route {
        Some(Route::Hosts(hosts)) => Ok(hosts),
        Some(Route::NoDomain) => Err((settled(Reason::NoDomain), "no such domain".into())),
        Some(Route::NullMx) => {
            Err((settled(Reason::NoMx), "the domain says that it takes no mail (null MX)".into()))
        }
        Some(Route::Failed(failed)) => Err((dns_meaning(&failed), failed.text)),
        None => {
            let meaning = Meaning { reason: Reason::Timeout, temporary: true };
            Err((meaning, "no answer from DNS in time".into()))
        }
    }
}

fn dns_meaning(failed: &Failed) -> Meaning {
    let reason = if failed.timeout { Reason::Timeout } else { Reason::NoConnect };
    Meaning { reason, temporary: true }
}

/// Mail hosts elsewhere on the internet are; an MX record that leads into our own network is a
/// mistake or an attack.
pub fn is_public(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            let shared = a == 100 && (64..128).contains(&b);
            !(ip.is_loopback()
                || ip.is_private()
                || ip.is_link_local()
                || ip.is_unspecified()
                || ip.is_broadcast()
                || ip.is_multicast()
                || ip.is_documentation()
                || shared
                || a == 0
                || a >= 240)
        }
        IpAddr::V6(ip) => {
            !(ip.is_loopback()
                || ip.is_unspecified()
                || ip.is_multicast()
                || ip.is_unique_local()
                || ip.is_unicast_link_local())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_public_addresses() {
        for ip in ["9.9.9.9", "172.32.0.1", "2620:fe::fe"] {
            assert!(is_public(ip.parse().unwrap()), "{ip}");
        }
        for ip in [
            "127.0.0.1",
            "10.1.2.3",
            "192.168.0.1",
            "172.16.0.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "::ffff:127.0.0.1",
        ] {
            assert!(!is_public(ip.parse().unwrap()), "{ip}");
        }
    }

    #[test]
    fn the_most_telling_failure_wins() {
        let mut failures = Failures::default();
        let meaning = |reason, temporary| Meaning { reason, temporary };
        for (reason, temporary, code) in [
            (Reason::NoConnect, true, None),
            (Reason::Timeout, true, None),
            (Reason::NoConnect, true, None),
            (Reason::Blocked, false, Some(554)),
        ] {
            failures.add(meaning(reason, temporary), Evidence { code, ..Evidence::default() });
        }
        let mut evidence = Evidence::default();
        let outcome = failures.outcome(&mut evidence);
        assert_eq!(outcome.meaning, meaning(Reason::Blocked, true));
        assert_eq!(evidence.code, Some(554));
    }
}

//! One address's way through its domain's mail hosts.
//!
//! Hosts are tried in order, each at all its addresses, until one gives an answer about the
//! recipient; 4xx to RCPT is one (the other hosts of a domain share its greylist). A host that cannot
//! be reached, hangs up, or turns *us* away before the recipient is named passes it on to the next.
//! When none answers, the most telling failure is the verdict. An address that is put off at one host
//! (see [`super::pace`]) goes no further.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use listmill_shared::domain::verdict::Reason;
use tokio::time::{Instant, timeout};

use super::classify::Meaning;
use super::classify::rules::Cause;
use super::control::{AGAIN, ANY, DEAD, WELL_KNOWN};
use super::session::Recipient;
use super::{Evidence, Smtp, Stage};
use crate::provider::dns::{Failed, MailHost, Route, order};

/// What was found.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What the last answer means.
    pub meaning: Meaning,
    /// Does the domain accept everything?
    pub catch_all: Option<bool>,
    /// Nobody was asked; see [`listmill_shared::domain::verdict::Verdict::again_in`].
    pub again_in: Option<Duration>,
}

impl Outcome {
    /// Nobody was asked, or is to be believed, before this long.
    pub fn put_off(cause: Cause, again_in: Duration) -> Self {
        Self { again_in: Some(again_in), ..cause.into() }
    }
}

impl From<Cause> for Outcome {
    fn from(cause: Cause) -> Self {
        Meaning::from(cause).into()
    }
}

impl From<Meaning> for Outcome {
    fn from(meaning: Meaning) -> Self {
        Self { meaning, catch_all: None, again_in: None }
    }
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
    /// The earliest of those that were not asked; only if all were not.
    again_in: Option<Duration>,
}

impl Failures {
    fn add(&mut self, failed: Outcome, evidence: Evidence) {
        let meaning = failed.meaning;
        self.again_in = match (&self.worst, self.again_in, failed.again_in) {
            (None, _, again_in) => again_in,
            (Some(_), Some(one), Some(other)) => Some(one.min(other)),
            _ => None,
        };
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
            (Cause::NoAddress.into(), evidence)
        });
        *evidence = Evidence { tried: self.tried, ..found };
        // One host that may be better later is enough.
        let meaning = Meaning { temporary: self.temporary, ..meaning };
        Outcome { again_in: self.again_in, ..meaning.into() }
    }
}

impl Smtp {
    /// Asks about `to`; `evidence` becomes what the outcome rests on. `well_known`: its domain is a
    /// big provider's.
    pub(super) async fn walk(
        &self,
        to: Recipient<'_>,
        well_known: bool,
        evidence: &mut Evidence,
    ) -> Outcome {
        if let Some(again_in) = self.breaker.again_in() {
            evidence.stage = Stage::Connect;
            evidence.note_text("not asked: mail hosts cannot be found or reached from here");
            return Outcome::put_off(Cause::NetworkDown, again_in);
        }
        if !self.control.holds(ANY).await {
            return not_believed(evidence);
        }
        let doubts = self.control.doubts();
        let outcome = self.walk_hosts(to, evidence).await;
        let held = match needs_control(&outcome, evidence, well_known) {
            Some(age) => self.control.holds(age).await,
            None => true,
        };
        if !held || self.control.doubts() != doubts {
            return not_believed(evidence);
        }
        match self.breaker.again_in() {
            // It was our network, or our resolver.
            Some(again_in) if is_ours(&outcome, evidence) => {
                Outcome::put_off(Cause::NetworkDown, again_in)
            }
            _ => outcome,
        }
    }

    async fn walk_hosts(&self, to: Recipient<'_>, evidence: &mut Evidence) -> Outcome {
        let mut budget = Budget { left: self.config.timeout };
        evidence.stage = Stage::Dns;
        let route = budget.run(self.dns.route(to.domain)).await;
        match &route {
            None | Some(Route::Failed(_)) => self.breaker.unresolved(to.domain),
            Some(_) => self.breaker.resolved(),
        }
        let hosts = match hosts_of(route) {
            Ok(hosts) => hosts,
            Err((cause, text)) => {
                evidence.note_text(&text);
                return cause.into();
            }
        };
        let mut failures = Failures::default();
        // Who was put off, or told to come later, comes to the same host again.
        let mut key = to.key();
        let shuffled = || {
            key = key.rotate_left(13).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            key >> 33
        };
        for host in order(&hosts, shuffled) {
            let mx = Some(Arc::clone(&host.name));
            let at_host = Evidence { stage: Stage::Dns, mx, ..Evidence::default() };
            let found = budget.run(self.dns.addresses(&host.name)).await;
            let addresses = match found.unwrap_or_else(|| Err(Failed::timeout(&host.name))) {
                Ok(addresses) => addresses,
                Err(failed) => {
                    let mut seen = at_host;
                    seen.note_text(&failed.text);
                    failures.add(cause_of(&failed).into(), seen);
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
                    Err(failed) => failures.add(failed, seen),
                }
            }
        }
        failures.outcome(evidence)
    }
}

/// Where to go, or why nowhere. `None`: DNS took all the time there was.
fn hosts_of(route: Option<Route>) -> Result<Arc<[MailHost]>, (Cause, Arc<str>)> {
    match route {
        Some(Route::Hosts(hosts)) => Ok(hosts),
        Some(Route::NoDomain) => Err((Cause::NoDomain, "no such domain".into())),
        Some(Route::NullMx) => {
            Err((Cause::NullMx, "the domain says that it takes no mail (null MX)".into()))
        }
        Some(Route::Failed(failed)) => Err((cause_of(&failed), failed.text)),
        None => Err((Cause::DnsNoAnswer, "no answer from DNS in time".into())),
    }
}

/// How fresh a control of the resolver must be for what rests on its word alone.
fn needs_control(outcome: &Outcome, evidence: &Evidence, well_known: bool) -> Option<Duration> {
    match outcome.meaning.reason {
        Reason::NoDomain | Reason::NoMx if well_known => Some(WELL_KNOWN),
        Reason::NoDomain | Reason::NoMx => Some(DEAD),
        _ => (evidence.stage == Stage::Dns).then_some(DEAD),
    }
}

fn not_believed(evidence: &mut Evidence) -> Outcome {
    *evidence = Evidence { stage: Stage::Dns, ..Evidence::default() };
    evidence.note_text(Cause::DnsNotBelieved.why());
    Outcome::put_off(Cause::DnsNotBelieved, AGAIN)
}

/// May it be due to our network or resolver?
fn is_ours(outcome: &Outcome, evidence: &Evidence) -> bool {
    let late = outcome.meaning.reason == Reason::Timeout && evidence.stage == Stage::Dns;
    late || outcome.meaning.reason == Reason::NoConnect
}

fn cause_of(failed: &Failed) -> Cause {
    if failed.timeout { Cause::DnsNoAnswer } else { Cause::DnsFailed }
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
    use super::super::classify::of_reply;
    use super::super::reply::Reply;
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
        let refused = of_reply(Stage::Banner, &Reply::new(554, "5.7.1 go away".into()));
        for (meaning, code) in [
            (Cause::NoConnect.into(), None),
            (Cause::NoAnswer.into(), None),
            (Cause::NoConnect.into(), None),
            (refused.clone(), Some(554)),
        ] {
            let evidence = Evidence { code, ..Evidence::default() };
            failures.add(meaning.into(), evidence);
        }
        let mut evidence = Evidence::default();
        let outcome = failures.outcome(&mut evidence);
        assert_eq!(outcome.meaning, Meaning { temporary: true, ..refused });
        assert_eq!(evidence.code, Some(554));
    }

    #[test]
    fn nobody_was_asked_only_if_no_host_was() {
        let put_off = |s| Outcome::put_off(Cause::PutOff, Duration::from_secs(s));
        let asked = || Outcome::from(Cause::NoAnswer);
        for (failed, again_in) in [
            (vec![put_off(5)], Some(5)),
            (vec![put_off(5), put_off(3), put_off(9)], Some(3)),
            (vec![asked(), put_off(3)], None),
            (vec![put_off(3), asked(), put_off(3)], None),
            (vec![asked()], None),
        ] {
            let mut failures = Failures::default();
            failed.into_iter().for_each(|f| failures.add(f, Evidence::default()));
            let outcome = failures.outcome(&mut Evidence::default());
            assert_eq!(outcome.again_in, again_in.map(Duration::from_secs));
        }
    }
}

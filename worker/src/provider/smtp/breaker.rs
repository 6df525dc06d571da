//! Is it the network? When no connection to any mail host can be made, the trouble is ours (outbound
//! port 25 blocked, no route, no sockets left, the proxy gone) and every verdict would be `no_connect`.
//! The breaker says so once, stops asking, and tries by itself until it works again.
//!
//! The same for the resolver: one that answers for no domain makes every address temporary. And for
//! its answers: one that lies is found out by [`super::control`], which says so here.
//!
//! Data: a [`Circuit`] is the failed attempts since the last connection that was made (or the last
//! answer of the resolver). The network's is suspect when there are [`ATTEMPTS`] of them within [`WINDOW`], to [`HOSTS`] addresses and for [`DOMAINS`]
//! domains at least: one dead domain, however many hosts it names, is never enough. A suspect network
//! is *tested*: if some *landmark* (a big provider's mail host) can be reached, the list is at fault;
//! otherwise the breaker opens, and the test is made again from time to time, with one of the hosts
//! that failed besides, until something can be reached. The resolver's is suspect after as many failed
//! look-ups of as many domains, and tested by looking up landmarks, and one of the domains that failed.
//!
//! Invariants:
//! - any connection that is made, by whomever, closes it and forgets the failures;
//! - one test runs at a time, in a task of its own: no address that is dropped half-way can stop it;
//! - the task ends when the breaker closes or is gone.

use std::collections::{HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures::future::join_all;
use listmill_shared::app::provider::Health;
use listmill_shared::domain::clock::{Clock, Millis};
use tokio::sync::watch;

use super::connection::{Setup, reach};
use super::{Fault, FaultKind};
use crate::provider::dns::{Dns, Route};

/// Failed attempts in a row that make the network suspect.
const ATTEMPTS: usize = 20;
/// How many mail hosts' addresses, and domains, they must have been for.
const HOSTS: usize = ATTEMPTS / 2;
const DOMAINS: usize = 3;
/// Failures are forgotten after so many milliseconds.
const WINDOW: Millis = 600_000;
/// Mail hosts of big providers: if none of them can be reached at port 25, nobody can. Nothing is said
/// to them.
pub const LANDMARKS: &[&str] = &[
    "gmail-smtp-in.l.google.com",
    "outlook-com.olc.protection.outlook.com",
    "mta5.am0.yahoodns.net",
];

/// What may be in trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Network,
    Resolver,
    Answers,
}

impl Part {
    /// What is so when the trouble is over.
    fn well(self) -> &'static str {
        match self {
            Part::Network | Part::Resolver => "mail hosts can be reached again",
            Part::Answers => "the resolver tells the truth again",
        }
    }
}

/// An attempt that failed.
#[derive(Debug, Clone)]
struct Failed {
    at: Millis,
    /// The mail host's; the resolver's failures have none.
    address: Option<SocketAddr>,
    domain: Box<str>,
}

/// How many hosts and domains failures must have been for.
#[derive(Debug)]
struct Bounds {
    hosts: usize,
    domains: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { hosts: HOSTS, domains: DOMAINS }
    }
}

/// What is known of the network.
#[derive(Debug, Default)]
struct Circuit {
    bounds: Bounds,
    failed: VecDeque<Failed>,
    open: bool,
    /// A test is under way.
    testing: bool,
    /// How often suspicion has ended; a test that began before is stale.
    ended: u64,
}

impl Circuit {
    /// The number of a test that is due.
    fn failed(&mut self, failed: Failed) -> Option<u64> {
        if self.failed.len() >= ATTEMPTS {
            self.failed.pop_front();
        }
        self.failed.push_back(failed);
        let due = !self.testing && self.is_suspect();
        self.testing |= due;
        due.then_some(self.ended)
    }

    fn is_suspect(&self) -> bool {
        let Some(last) = self.failed.back() else { return false };
        let recent = || self.failed.iter().filter(|f| last.at - f.at <= WINDOW);
        recent().count() >= ATTEMPTS
            && recent().filter_map(|f| f.address).map(|a| a.ip()).collect::<HashSet<_>>().len()
                >= self.bounds.hosts
            && recent().map(|f| &f.domain).collect::<HashSet<_>>().len() >= self.bounds.domains
    }

    /// Something worked. Says whether it was open.
    fn worked(&mut self) -> bool {
        self.failed.clear();
        self.ended += 1;
        self.testing = false;
        std::mem::take(&mut self.open)
    }

    /// Test `number` could reach nothing. `None` when it is stale, else whether that is news.
    fn unreachable(&mut self, number: u64) -> Option<bool> {
        (number == self.ended).then(|| !std::mem::replace(&mut self.open, true))
    }

    /// The `round`th of those that failed.
    fn suspect(&self, round: usize) -> Option<Failed> {
        let count = self.failed.len().max(1);
        self.failed.get(round % count).cloned()
    }
}

/// See the module.
pub struct Breaker {
    network: Mutex<Circuit>,
    resolver: Mutex<Circuit>,
    /// Opened and closed from outside.
    answers: Mutex<Circuit>,
    health: watch::Sender<Health>,
    setup: Arc<Setup>,
    dns: Arc<Dns>,
    clock: Clock,
    port: u16,
    landmarks: Vec<String>,
    every: Duration,
}

impl Breaker {
    /// Closed. Tests reach for landmarks at a port, every so often.
    pub fn new(
        setup: Arc<Setup>,
        dns: Arc<Dns>,
        clock: Clock,
        (port, landmarks, every): (u16, Vec<String>, Duration),
    ) -> Arc<Self> {
        metrics::gauge!("listmill_mail_hosts_unreachable").set(0.0);
        let bounds = Bounds { hosts: 0, domains: ATTEMPTS };
        let resolver = Mutex::new(Circuit { bounds, ..Circuit::default() });
        let (network, answers) = (Mutex::default(), Mutex::default());
        let health = watch::Sender::new(Health::Working);
        Arc::new(Self {
            network,
            resolver,
            answers,
            health,
            setup,
            dns,
            clock,
            port,
            landmarks,
            every,
        })
    }

    /// Whether mail hosts can be reached.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    /// When to ask again, if nobody can be asked now.
    pub fn again_in(&self) -> Option<Duration> {
        let open = self.circuit(Part::Network).open || self.circuit(Part::Resolver).open;
        open.then_some(self.every)
    }

    /// A connection was made.
    pub fn connected(&self) {
        self.worked(Part::Network);
    }

    /// The resolver answered, whatever it said.
    pub fn resolved(&self) {
        self.worked(Part::Resolver);
    }

    /// The resolver lies; `why` is for people.
    pub fn distrust(&self, why: &Arc<str>) {
        let number = self.circuit(Part::Answers).ended;
        self.open(Part::Answers, number, why);
    }

    /// The resolver tells the truth again.
    pub fn trust(&self) {
        self.worked(Part::Answers);
    }

    fn worked(&self, part: Part) {
        if self.circuit(part).worked() {
            tracing::info!("{}; going on", part.well());
            let parts = [Part::Network, Part::Resolver, Part::Answers];
            if parts.into_iter().any(|part| self.circuit(part).open) {
                // Whoever still is in trouble says so again at its next test.
                return;
            }
            metrics::gauge!("listmill_mail_hosts_unreachable").set(0.0);
            self.health.send_replace(Health::Working);
        }
    }

    /// No connection to `address` could be made for an address of `domain`.
    pub fn failed(self: &Arc<Self>, address: SocketAddr, domain: &str, fault: &Fault) {
        let address = Some(address);
        let failed = Failed { at: self.clock.now(), address, domain: domain.into() };
        let why = || why(fault, self.setup.socks5.as_deref());
        self.note(Part::Network, failed, why);
    }

    /// Nobody could tell where mail for `domain` goes.
    pub fn unresolved(self: &Arc<Self>, domain: &str) {
        let failed = Failed { at: self.clock.now(), address: None, domain: domain.into() };
        self.note(Part::Resolver, failed, why_unresolved);
    }

    fn note(self: &Arc<Self>, part: Part, failed: Failed, why: impl FnOnce() -> Arc<str>) {
        let due = self.circuit(part).failed(failed);
        if let Some(number) = due {
            tokio::spawn(test(Arc::downgrade(self), part, number, why()));
        }
    }

    fn circuit(&self, part: Part) -> MutexGuard<'_, Circuit> {
        let circuit = match part {
            Part::Network => &self.network,
            Part::Resolver => &self.resolver,
            Part::Answers => &self.answers,
        };
        circuit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says whether test `number` goes on.
    fn open(&self, part: Part, number: u64, why: &Arc<str>) -> bool {
        let news = self.circuit(part).unreachable(number);
        if news == Some(true) {
            tracing::error!("{why}");
        }
        if news.is_some() {
            metrics::gauge!("listmill_mail_hosts_unreachable").set(1.0);
            self.health.send_replace(Health::Down { why: Arc::clone(why) });
        }
        news.is_some()
    }

    /// Can a landmark be reached, or `suspect`?
    async fn anybody_there(&self, part: Part, suspect: Option<Failed>) -> bool {
        match part {
            Part::Network => self.can_reach(suspect.and_then(|failed| failed.address)).await,
            Part::Resolver => self.can_resolve(suspect.map(|failed| failed.domain)).await,
            // Looked at elsewhere.
            Part::Answers => false,
        }
    }

    async fn can_resolve(&self, suspect: Option<Box<str>>) -> bool {
        let landmarks = self.landmarks.iter().map(|name| self.dns.addresses(name));
        let suspect = async {
            match suspect {
                Some(domain) => !matches!(self.dns.route(&domain).await, Route::Failed(_)),
                None => false,
            }
        };
        let (landmarks, suspect) = tokio::join!(join_all(landmarks), suspect);
        suspect || landmarks.iter().any(|found| found.as_ref().is_ok_and(|a| !a.is_empty()))
    }

    async fn can_reach(&self, suspect: Option<SocketAddr>) -> bool {
        let landmarks = self.landmarks.iter().map(|name| async {
            let addresses = self.dns.addresses(name).await.unwrap_or_default();
            match addresses.first() {
                Some(ip) => reach(&self.setup, SocketAddr::new(*ip, self.port)).await.is_ok(),
                None => false,
            }
        });
        let suspect = async {
            match suspect {
                Some(address) => reach(&self.setup, address).await.is_ok(),
                None => false,
            }
        };
        let (landmarks, suspect) = tokio::join!(join_all(landmarks), suspect);
        suspect || landmarks.contains(&true)
    }
}

/// Tests until something can be reached.
async fn test(breaker: Weak<Breaker>, part: Part, number: u64, why: Arc<str>) {
    for round in 0.. {
        let Some(breaker) = breaker.upgrade() else { return };
        // Those that failed did so just now: the first time, only the landmarks can tell.
        let suspect = (round > 0).then(|| breaker.circuit(part).suspect(round)).flatten();
        if breaker.anybody_there(part, suspect).await {
            return breaker.worked(part);
        }
        if !breaker.open(part, number, &why) {
            return;
        }
        let every = breaker.every;
        drop(breaker);
        tokio::time::sleep(every).await;
    }
}

/// What is wrong, and what to do.
fn why(fault: &Fault, proxy: Option<&str>) -> Arc<str> {
    // EMFILE and ENFILE, EADDRNOTAVAIL.
    let code = match &fault.kind {
        FaultKind::Io(error) => error.raw_os_error(),
        _ => None,
    };
    let todo = match (code, proxy) {
        (Some(23 | 24), _) => "raise the limit of open files, or lower LISTMILL_WORKER_CONCURRENCY",
        (Some(99), _) => {
            "check LISTMILL_SMTP_SOURCE_IP; if it is right or unset, there are no ports left: lower \
             LISTMILL_WORKER_CONCURRENCY"
        }
        (_, Some(_)) => "check the proxy in LISTMILL_SMTP_SOCKS5, and whether it lets us out",
        _ => {
            "many cloud providers block outbound port 25: run `listmill doctor`, then ask the \
             provider to open it, go through LISTMILL_SMTP_SOCKS5 or another network, or use \
             LISTMILL_PROVIDER=http"
        }
    };
    format!(
        "no mail host can be reached: the last {ATTEMPTS} connections, to {HOSTS} hosts or more, \
         failed ({kind}). Nothing is concluded from that; verification waits until one can be \
         reached. What to do: {todo}",
        kind = fault.kind,
    )
    .into()
}

fn why_unresolved() -> Arc<str> {
    format!(
        "the resolver answers for no domain: the last {ATTEMPTS} look-ups, of as many domains, failed. \
         Nothing is concluded from that; verification waits until it answers. What to do: look at the \
         nameservers in LISTMILL_DNS, or the system's, and run `listmill doctor`"
    )
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn attempt(at: Millis, host: u8, domain: u8) -> Failed {
        let address = Some(SocketAddr::new([192, 0, 2, host].into(), 25));
        Failed { at, address, domain: domain.to_string().into() }
    }

    #[test]
    fn one_dead_domain_is_not_the_network() {
        let mut circuit = Circuit::default();
        for host in 0..200 {
            assert_eq!(circuit.failed(attempt(0, host, 1)), None, "one domain");
        }
        circuit.worked();
        for n in 0..200 {
            assert_eq!(circuit.failed(attempt(0, n % 9, n)), None, "nine hosts");
        }
        circuit.worked();
        for n in 0..200 {
            let at = Millis::from(n) * 60_000;
            assert_eq!(circuit.failed(attempt(at, n, n)), None, "over hours");
        }
    }

    #[test]
    fn a_test_is_due_once() {
        let mut circuit = Circuit::default();
        let fail = |circuit: &mut Circuit| {
            (0..100)
                .filter_map(|n| circuit.failed(attempt(0, n, n)).zip(Some(n)))
                .collect::<Vec<_>>()
        };
        let twentieth = ATTEMPTS as u8 - 1;
        assert_eq!(fail(&mut circuit), [(0, twentieth)]);
        assert_eq!([circuit.unreachable(0), circuit.unreachable(0)], [Some(true), Some(false)]);
        assert!(circuit.worked() && !circuit.worked());
        assert_eq!(circuit.unreachable(0), None, "stale");
        assert_eq!(fail(&mut circuit), [(2, twentieth)]);
    }

    #[derive(Debug, Clone)]
    enum Event {
        Failed(u8, u8),
        Connected,
        Unreachable,
    }

    proptest! {
        /// Whatever happens in whatever order: a test is due only after twenty failures in a row, to
        /// ten hosts, for three domains, and a connection ends all suspicion.
        #[test]
        fn suspects_the_network_only_for_a_reason(events in proptest::collection::vec(prop_oneof![
            60 => (0_u8..14, 0_u8..5).prop_map(|(host, domain)| Event::Failed(host, domain)),
            1 => Just(Event::Connected),
            1 => Just(Event::Unreachable),
        ], 1..300)) {
            let mut circuit = Circuit::default();
            let mut row: Vec<(u8, u8)> = Vec::new();
            for event in events {
                match event {
                    Event::Failed(host, domain) => {
                        row.push((host, domain));
                        let last = &row[row.len().saturating_sub(ATTEMPTS)..];
                        let hosts = last.iter().map(|(h, _)| h).collect::<HashSet<_>>().len();
                        let domains = last.iter().map(|(_, d)| d).collect::<HashSet<_>>().len();
                        let suspect = last.len() == ATTEMPTS && hosts >= HOSTS && domains >= DOMAINS;
                        let due = (suspect && !circuit.testing).then_some(circuit.ended);
                        prop_assert_eq!(circuit.failed(attempt(0, host, domain)), due);
                    }
                    Event::Connected => {
                        row.clear();
                        circuit.worked();
                        prop_assert!(!circuit.open && !circuit.testing && !circuit.is_suspect());
                    }
                    Event::Unreachable => {
                        let number = circuit.ended;
                        circuit.unreachable(number);
                        prop_assert!(circuit.open);
                    }
                }
            }
        }
    }
}

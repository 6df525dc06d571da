//! What is known of each mail host, and its connections that wait for the next address.
//!
//! Data: socket address → [`Host`]. A host's *permits* bound who uses it at once; its *idle* sessions
//! wait a few seconds for the next user, whatever the domain, as one host serves many domains.
//!
//! Invariants:
//! - connections to a host ≤ permits, but for those that are saying goodbye: a session is opened only
//!   by the holder of a permit that found none idle;
//! - an idle session is closed with QUIT after [`Limits::idle`]; the task that does so ends when
//!   none are left;
//! - a session with a fault never comes back.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use listmill_shared::domain::clock::{Clock, Millis};
use moka::future::Cache;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::session::Session;

/// Hosts remembered.
const HOSTS: u64 = 50_000;
/// How long an unused host is remembered.
const HOST_IDLE: Duration = Duration::from_secs(3600);
/// How far back in the idle sessions one of the same domain is looked for.
const LOOK_BACK: usize = 32;
/// How long a server may take to answer QUIT.
const GOODBYE: Duration = Duration::from_secs(2);

/// Bounds for every host.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at once.
    pub connections: usize,
    /// How long a session waits for its next address.
    pub idle: Duration,
    /// Recipients in one session.
    pub recipients: u32,
    /// Recipients in one transaction; RFC 5321, 4.5.3.1.8 has servers bear 100.
    pub transaction: u32,
}

/// Whether a host's answer to a second recipient of a session means what it says. Some servers
/// reject all but the first, and a verdict must not rest on that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Several {
    /// Not seen yet.
    Unknown,
    /// Later recipients are judged like first ones.
    Sound,
    /// Only the first recipient of a session gets an honest answer.
    FirstOnly,
}

/// One mail host.
pub struct Host {
    /// Where it listens.
    pub address: SocketAddr,
    /// Who may use it.
    pub permits: Arc<Semaphore>,
    limits: Limits,
    idle: Mutex<Idle>,
    several: AtomicU8,
    /// Learnt from "too many recipients".
    transaction: AtomicU32,
    no_tls_until: AtomicI64,
    down_until: AtomicI64,
}

#[derive(Default)]
struct Idle {
    sessions: Vec<(Instant, Session)>,
    reaping: bool,
}

/// All hosts.
pub struct Pool {
    hosts: Cache<SocketAddr, Arc<Host>>,
    limits: Limits,
}

impl Pool {
    /// No hosts yet.
    pub fn new(limits: Limits) -> Self {
        let hosts = Cache::builder().max_capacity(HOSTS).time_to_idle(HOST_IDLE).build();
        Self { hosts, limits }
    }

    /// The host at `address`.
    pub async fn host(&self, address: SocketAddr) -> Arc<Host> {
        if let Some(host) = self.hosts.get(&address).await {
            return host;
        }
        self.hosts.get_with(address, async { Arc::new(Host::new(address, self.limits)) }).await
    }
}

impl Host {
    fn new(address: SocketAddr, limits: Limits) -> Self {
        Self {
            address,
            permits: Arc::new(Semaphore::new(limits.connections.clamp(1, Semaphore::MAX_PERMITS))),
            limits,
            idle: Mutex::default(),
            several: AtomicU8::new(0),
            transaction: AtomicU32::new(limits.transaction.max(1)),
            no_tls_until: AtomicI64::new(0),
            down_until: AtomicI64::new(0),
        }
    }

    /// An idle session, one of `domain` if there is one near.
    pub fn take(&self, domain: &str) -> Option<Session> {
        let mut idle = self.idle();
        let recent = idle.sessions.len().saturating_sub(LOOK_BACK);
        let same = idle.sessions[recent..].iter().rposition(|(_, s)| s.is_for(domain));
        match same {
            Some(at) => Some(idle.sessions.remove(recent + at).1),
            None => idle.sessions.pop().map(|(_, session)| session),
        }
    }

    /// Keeps `session` for the next address, or says goodbye to it.
    pub fn give_back(self: &Arc<Self>, session: Session) {
        let spent = session.recipients() >= self.limits.recipients;
        if spent || self.several() == Several::FirstOnly {
            return dismiss(session);
        }
        let mut idle = self.idle();
        idle.sessions.push((Instant::now() + self.limits.idle, session));
        if !idle.reaping {
            idle.reaping = true;
            tokio::spawn(reap(Arc::clone(self)));
        }
    }

    /// Recipients in one transaction.
    pub fn transaction(&self) -> u32 {
        self.transaction.load(Ordering::Relaxed)
    }

    /// The server said that `recipients` in one transaction were too many.
    pub fn lower_transaction(&self, recipients: u32) {
        self.transaction.fetch_min(recipients.max(1), Ordering::Relaxed);
    }

    /// See [`Several`].
    pub fn several(&self) -> Several {
        match self.several.load(Ordering::Relaxed) {
            0 => Several::Unknown,
            1 => Several::Sound,
            _ => Several::FirstOnly,
        }
    }

    /// What was seen. A host once found to judge only first recipients stays so.
    pub fn learn(&self, several: Several) {
        let value = match several {
            Several::Unknown => 0,
            Several::Sound => 1,
            Several::FirstOnly => 2,
        };
        self.several.fetch_max(value, Ordering::Relaxed);
    }

    /// Should TLS be tried?
    pub fn may_tls(&self, clock: &Clock) -> bool {
        self.no_tls_until.load(Ordering::Relaxed) <= clock.now()
    }

    /// A handshake failed: not again for `time`.
    pub fn no_tls(&self, clock: &Clock, time: Duration) {
        self.no_tls_until.store(later(clock, time), Ordering::Relaxed);
    }

    /// Was nobody there a moment ago?
    pub fn is_down(&self, clock: &Clock) -> bool {
        self.down_until.load(Ordering::Relaxed) > clock.now()
    }

    /// Nobody is there: not again for `time`.
    pub fn down(&self, clock: &Clock, time: Duration) {
        self.down_until.store(later(clock, time), Ordering::Relaxed);
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes out what has waited too long. The time to look again; `None` when none are left.
    fn expired(&self) -> (Vec<Session>, Option<Instant>) {
        let now = Instant::now();
        let mut idle = self.idle();
        // Oldest first, as sessions are pushed at the end with the same patience.
        let count = idle.sessions.partition_point(|(until, _)| *until <= now);
        let expired = idle.sessions.drain(..count).map(|(_, session)| session).collect();
        let next = idle.sessions.first().map(|(until, _)| *until);
        idle.reaping = next.is_some();
        (expired, next)
    }
}

/// Says goodbye to `session` without waiting for the answer.
pub fn dismiss(session: Session) {
    tokio::spawn(session.quit(GOODBYE));
}

fn later(clock: &Clock, time: Duration) -> Millis {
    clock.now().saturating_add(Millis::try_from(time.as_millis()).unwrap_or(Millis::MAX))
}

async fn reap(host: Arc<Host>) {
    let mut next = Instant::now() + host.limits.idle;
    loop {
        tokio::time::sleep_until(next).await;
        let (expired, again) = host.expired();
        expired.into_iter().for_each(dismiss);
        match again {
            Some(at) => next = at,
            None => return,
        }
    }
}

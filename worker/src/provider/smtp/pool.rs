//! What is known of each mail host, and which of them share a pace.
//!
//! Data: socket address → [`Host`]; a group's name → [`Group`] (see [`super::pace`]). What a [`Host`]
//! has learnt of itself holds for whoever asks it, under whatever name.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::time::Duration;

use listmill_shared::domain::clock::{Clock, Millis};
use listmill_shared::throttle::look::Hosts;
use listmill_shared::throttle::pace::Pacer;
use moka::future::Cache;
use tokio::sync::{Mutex, OwnedMutexGuard, watch};

use super::figures::{Figured, Figures};
use super::group::Group;
use super::pace::Pace;

/// Hosts remembered.
const HOSTS: u64 = 50_000;
/// How long an unused host is remembered.
const HOST_IDLE: Duration = Duration::from_secs(3600);

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
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
    several: watch::Sender<Several>,
    doubt: Arc<Mutex<()>>,
    /// Learnt from "too many recipients".
    transaction: AtomicU32,
    no_tls_until: AtomicI64,
    down_until: AtomicI64,
}

/// All hosts.
pub struct Pool {
    hosts: Cache<SocketAddr, Arc<Host>>,
    groups: Cache<Arc<str>, Arc<Group>>,
    limits: Limits,
    figured: Option<Figured>,
    pacer: Arc<Pacer>,
    clock: Clock,
}

impl Pool {
    /// No hosts yet; `figured`: how fast they are asked, if that is bounded.
    pub fn new(limits: Limits, figured: Option<Figured>, pacer: Pacer, clock: Clock) -> Self {
        Self {
            hosts: Cache::builder().max_capacity(HOSTS).time_to_idle(HOST_IDLE).build(),
            groups: Cache::builder().max_capacity(HOSTS).time_to_idle(HOST_IDLE).build(),
            limits,
            figured,
            pacer: Arc::new(pacer),
            clock,
        }
    }

    /// The host at `address`, which is called `name`, and its group.
    pub async fn host(&self, name: &str, address: SocketAddr) -> (Arc<Host>, Arc<Group>) {
        let host = match self.hosts.get(&address).await {
            Some(host) => host,
            None => {
                let new = async { Arc::new(Host::new(address, self.limits)) };
                self.hosts.get_with(address, new).await
            }
        };
        let Some(figured) = &self.figured else {
            return (host, self.group(address.ip().to_string().into(), None).await);
        };
        let (group, figures) = figured.group(name, address.ip());
        let group = self.group(group, Some(figures)).await;
        (host, group)
    }

    /// Hosts that were asked lately here, or are left alone, up to `most`, by name.
    pub fn look(&self, most: usize) -> Hosts {
        let now = self.clock.now();
        let seen = self.groups.iter().filter_map(|(name, group)| group.look(&name, now));
        let mut hosts: Vec<_> = seen.collect();
        hosts.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        let more = hosts.len() > most;
        hosts.truncate(most);
        Hosts { hosts, more }
    }

    async fn group(&self, name: Arc<str>, figures: Option<Figures>) -> Arc<Group> {
        if let Some(group) = self.groups.get(&name).await {
            return group;
        }
        let new = async {
            let pace = figures.map(|figures| Pace::new(&name, figures, &self.pacer, &self.clock));
            let connections = figures.map_or(self.limits.connections, |f| f.connections);
            Arc::new(Group::new(connections, self.limits, pace))
        };
        self.groups.get_with(Arc::clone(&name), new).await
    }
}

impl Host {
    fn new(address: SocketAddr, limits: Limits) -> Self {
        Self {
            address,
            several: watch::Sender::new(Several::Unknown),
            doubt: Arc::default(),
            transaction: AtomicU32::new(limits.transaction.max(1)),
            no_tls_until: AtomicI64::new(0),
            down_until: AtomicI64::new(0),
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
        *self.several.borrow()
    }

    /// The same as soon as somebody has found out; without end if nobody does.
    pub async fn found_out(&self) -> Several {
        let mut several = self.several.subscribe();
        let found = several.wait_for(|several| *several != Several::Unknown).await;
        found.map_or(Several::Unknown, |several| *several)
    }

    /// Whose rejection is in doubt is alone with that, so that one question clears all.
    pub async fn doubt(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.doubt).lock_owned().await
    }

    /// What was seen. A host once found to judge only first recipients stays so.
    pub fn learn(&self, several: Several) {
        self.several.send_if_modified(|now| {
            let news = several > *now;
            *now = several.max(*now);
            news
        });
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
}

fn later(clock: &Clock, time: Duration) -> Millis {
    clock.now().saturating_add(Millis::try_from(time.as_millis()).unwrap_or(Millis::MAX))
}

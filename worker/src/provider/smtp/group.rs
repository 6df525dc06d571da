//! Hosts that share one pace: who may use them at once, and their connections that wait for the next
//! address, whatever its domain, as one host serves many domains.
//!
//! Invariants:
//! - connections to a group ≤ slots, but for those that are saying goodbye: a session is opened only
//!   by the holder of a slot, which first closes idle ones that would be one too many;
//! - where processes share a group, one task renews this one's part of the slots from the first turn
//!   until there is neither a turn nor a session; slots are given back to the others only after the
//!   sessions that they were for;
//! - an idle session is closed with QUIT after [`Limits::idle`]; the task that does so ends when
//!   none are left;
//! - a session with a fault never comes back.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use listmill_shared::domain::clock::Millis;
use listmill_shared::throttle::look::Host as Seen;
use listmill_shared::throttle::share::{RENEW, Rest};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::pace::{Pace, Place, PutOff};
use super::pool::{Host, Limits, Several};
use super::session::{Recipient, Session};
use super::slots::{Slot, Slots};
use super::walk::Budget;

/// How far back in the idle sessions one of the same domain is looked for.
const LOOK_BACK: usize = 32;
/// Who has no slot asks for one again after this long.
const SOON: Duration = Duration::from_millis(250);
/// How long a server may take to answer QUIT.
const GOODBYE: Duration = Duration::from_secs(2);

/// See the module.
pub struct Group {
    slots: Slots,
    limits: Limits,
    idle: Mutex<Idle>,
    /// Sessions that are saying goodbye.
    leaving: AtomicUsize,
    returned: Notify,
    /// `None`: as fast as they answer.
    pace: Option<Pace>,
    /// Is this process's part being renewed?
    renewing: Mutex<bool>,
    /// Other processes should hear of something.
    news: Notify,
}

#[derive(Default)]
struct Idle {
    sessions: Vec<Waiting>,
    reaping: bool,
}

struct Waiting {
    until: Instant,
    address: SocketAddr,
    session: Session,
}

/// One's turn at a group; the next one's when dropped.
pub struct Turn<'a> {
    // In this order: who has left the crowd has no slot.
    _slot: Slot<'a>,
    _place: Option<Place<'a>>,
}

impl Group {
    /// At most `connections` at once, at `pace`.
    pub fn new(connections: usize, limits: Limits, pace: Option<Pace>) -> Self {
        let shared = pace.as_ref().is_some_and(Pace::is_shared);
        Self {
            slots: Slots::new(if shared { 0 } else { connections.max(1) }),
            limits,
            idle: Mutex::default(),
            leaving: AtomicUsize::new(0),
            returned: Notify::new(),
            pace,
            renewing: Mutex::default(),
            news: Notify::new(),
        }
    }

    /// How it stands, for who looks on; `None`: it was not asked lately and has not refused us.
    pub fn look(&self, name: &str, now: Millis) -> Option<Seen> {
        let taken = self.slots.taken();
        let connections = taken.saturating_add(self.idle().sessions.len());
        let (rest, line_ms, lately) = match &self.pace {
            Some(pace) => pace.look(now),
            None => (Rest::default(), 0, false),
        };
        let alive = connections > 0 || lately || line_ms > 0 || rest.refusals > 0;
        alive.then(|| Seen {
            name: name.to_owned(),
            processes: 1,
            connections: connections as u64,
            rest,
            line_ms,
        })
    }

    /// Waits for the turn to name a recipient, as long as there is patience.
    pub async fn turn(
        self: &Arc<Self>,
        to: Recipient<'_>,
        patience: &mut Budget,
    ) -> Result<Turn<'_>, PutOff> {
        let place = match &self.pace {
            Some(pace) => Some(pace.enter(to.key()).await?),
            None => None,
        };
        self.start_renewing();
        let Some(slot) = patience.run(self.slots.take()).await else {
            return Err(self.put_off(to).await);
        };
        if let Some(pace) = &self.pace {
            pace.not_left_alone()?;
            if patience.run(pace.recipient()).await.is_none() {
                return Err(pace.put_off(to.key()).await);
            }
            pace.not_left_alone()?;
        }
        Ok(Turn { _slot: slot, _place: place })
    }

    /// Waits until one whose turn it is may name another recipient.
    pub async fn another_recipient(&self) {
        if let Some(pace) = &self.pace {
            pace.another_recipient().await;
        }
    }

    /// An idle session with `host` for `to`, one of its domain if there is one near; or `None` when a
    /// new one may be opened, which has to be done if it must be a `fresh` one.
    pub async fn session(
        self: &Arc<Self>,
        host: &Host,
        to: Recipient<'_>,
        fresh: bool,
        patience: &mut Budget,
    ) -> Result<Option<Session>, PutOff> {
        let (address, domain) = (host.address, to.domain);
        if !fresh
            && !self.spares_doubt(host)
            && let Some(session) = self.take(address, domain)
        {
            return Ok(Some(session));
        }
        if let Some(pace) = &self.pace {
            let either = async {
                tokio::select! {
                    biased;
                    session = self.returned(address, domain), if !fresh => Some(session),
                    () = pace.connection() => None,
                }
            };
            match patience.run(either).await {
                Some(None) => {}
                Some(session) => return Ok(session),
                None => return Err(pace.put_off(to.key()).await),
            }
        }
        self.make_room();
        Ok(None)
    }

    /// Waits until one who has a session already may open another.
    pub async fn another_connection(self: &Arc<Self>) {
        if let Some(pace) = &self.pace {
            pace.another_connection().await;
        }
        self.make_room();
    }

    /// Keeps `session` for the next address, or says goodbye to it.
    pub fn give_back(self: &Arc<Self>, host: &Host, session: Session) {
        let spent = session.recipients() >= self.limits.recipients;
        if spent || host.several() == Several::FirstOnly {
            return self.dismiss(session);
        }
        let (until, address) = (Instant::now() + self.limits.idle, host.address);
        let mut idle = self.idle();
        idle.sessions.push(Waiting { until, address, session });
        if !idle.reaping {
            idle.reaping = true;
            tokio::spawn(reap(Arc::clone(self)));
        }
        drop(idle);
        self.returned.notify_one();
    }

    /// Says goodbye to `session` without waiting for the answer.
    pub fn dismiss(self: &Arc<Self>, session: Session) {
        self.leave(1);
        self.dismiss_all(vec![session]);
    }

    /// The host said that we are too much for it.
    pub fn refused(&self) {
        if self.pace.as_ref().is_some_and(Pace::refused) {
            self.news.notify_one();
        }
    }

    /// The host answered.
    pub fn answered(&self) {
        if self.pace.as_ref().is_some_and(Pace::answered) {
            self.news.notify_one();
        }
    }

    /// For one who has waited in vain.
    pub async fn put_off(&self, to: Recipient<'_>) -> PutOff {
        match &self.pace {
            Some(pace) => pace.put_off(to.key()).await,
            None => PutOff::Busy,
        }
    }

    fn take(&self, address: SocketAddr, domain: &str) -> Option<Session> {
        let mut idle = self.idle();
        let recent = idle.sessions.len().saturating_sub(LOOK_BACK);
        let same = |w: &Waiting| w.address == address && w.session.is_for(domain);
        let at = match idle.sessions[recent..].iter().rposition(same) {
            Some(at) => recent + at,
            None => idle.sessions.iter().rposition(|w| w.address == address)?,
        };
        Some(idle.sessions.remove(at).session)
    }

    /// Waits for a session that somebody gives back.
    async fn returned(&self, address: SocketAddr, domain: &str) -> Session {
        loop {
            let returned = self.returned.notified();
            if let Some(session) = self.take(address, domain) {
                return session;
            }
            returned.await;
        }
    }

    /// Is a new connection better than an idle one? As long as nobody knows what a host's answer to
    /// a later recipient is worth, a crowd that fits asks as first ones: nothing is asked twice.
    fn spares_doubt(&self, host: &Host) -> bool {
        let taken = self.slots.taken();
        self.pace.is_none()
            && host.several() == Several::Unknown
            && taken > 1
            && self.idle().sessions.len() + taken <= self.slots.held()
    }

    /// Closes the oldest idle sessions, so that those in use and one more are not too many.
    fn make_room(self: &Arc<Self>) {
        self.dismiss_all(self.surplus(self.slots.held()));
    }

    /// Takes out the oldest idle sessions that are more than `slots` have room for.
    fn surplus(&self, slots: usize) -> Vec<Session> {
        let mut idle = self.idle();
        let surplus = (idle.sessions.len() + self.slots.taken()).saturating_sub(slots);
        let surplus = surplus.min(idle.sessions.len());
        self.leave(surplus);
        idle.sessions.drain(..surplus).map(|waiting| waiting.session).collect()
    }

    /// So many sessions are about to say goodbye: counted before they are gone from elsewhere.
    fn leave(&self, count: usize) {
        self.leaving.fetch_add(count, Ordering::Relaxed);
    }

    /// Those that were counted as leaving.
    fn dismiss_all(self: &Arc<Self>, sessions: Vec<Session>) {
        for session in sessions {
            tokio::spawn(Arc::clone(self).goodbye(session));
        }
    }

    async fn goodbye(self: Arc<Self>, session: Session) {
        session.quit(GOODBYE).await;
        self.leaving.fetch_sub(1, Ordering::Relaxed);
    }

    fn start_renewing(self: &Arc<Self>) {
        let shared = self.pace.as_ref().is_some_and(Pace::is_shared);
        if shared && !std::mem::replace(&mut *self.renewing(), true) {
            tokio::spawn(Arc::clone(self).renew_while_used());
        }
    }

    /// Renews this process's part for as long as it is used.
    async fn renew_while_used(self: Arc<Self>) {
        let Some(pace) = &self.pace else { return };
        loop {
            // Only this task makes it more.
            let held = self.slots.held();
            let surplus = self.surplus(held).into_iter();
            join_all(surplus.map(|session| Arc::clone(&self).goodbye(session))).await;
            if self.slots.resize(pace.renew(held).await) {
                continue;
            }
            let again = if self.slots.held() == 0 { SOON } else { RENEW };
            tokio::select! {
                () = sleep(again) => {}
                () = self.slots.given_up() => {}
                () = self.news.notified() => {}
            }
            if !self.is_quiet(pace) {
                continue;
            }
            self.slots.resize(0);
            if self.slots.held() > 0 {
                continue;
            }
            pace.leave().await;
            let mut renewing = self.renewing();
            if self.is_quiet(pace) {
                // Who comes now finds that nobody renews.
                *renewing = false;
                return;
            }
        }
    }

    fn is_quiet(&self, pace: &Pace) -> bool {
        // In this order: a session goes from a turn to the idle ones, and from both to the leaving.
        pace.is_quiet()
            && self.idle().sessions.is_empty()
            && self.leaving.load(Ordering::Relaxed) == 0
    }

    fn renewing(&self) -> MutexGuard<'_, bool> {
        self.renewing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes out what has waited too long. The time to look again; `None` when none are left.
    fn expired(&self) -> (Vec<Session>, Option<Instant>) {
        let now = Instant::now();
        let mut idle = self.idle();
        // Oldest first, as sessions are pushed at the end with the same patience.
        let count = idle.sessions.partition_point(|waiting| waiting.until <= now);
        self.leave(count);
        let expired = idle.sessions.drain(..count).map(|waiting| waiting.session).collect();
        let next = idle.sessions.first().map(|waiting| waiting.until);
        idle.reaping = next.is_some();
        (expired, next)
    }
}

async fn reap(group: Arc<Group>) {
    let mut next = Instant::now() + group.limits.idle;
    loop {
        tokio::time::sleep_until(next).await;
        let (expired, again) = group.expired();
        group.dismiss_all(expired);
        match again {
            Some(at) => next = at,
            None => return,
        }
    }
}

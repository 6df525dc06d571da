//! How fast mail hosts are asked, and what becomes of an address whose turn does not come.
//!
//! Data: hosts form *groups* (see [`super::figures`]). A group's [`Pace`] is two budgets (recipients and
//! connections in a minute, see [`Pacer`]), a share of the connections at once and the [`Rest`] that the
//! host wants (both between processes, see [`listmill_shared::throttle::share`]), the *crowd* of those who
//! wait for their turn here or have it, the *line* of those who were put off (all processes', see
//! [`listmill_shared::throttle::line`]), and which turns were *promised* here to whom.
//!
//! Invariants:
//! - every RCPT TO and every new connection has taken a cell of its group's budget before;
//! - anybody joins a crowd that is less than [`CROWD`] times the group's connections and as many as
//!   had their turn within [`AWAY`] lately, and that is served within [`WAIT`]; one while the host has
//!   refused us and not answered since: a host whose pace is used up cannot fill a worker;
//! - who is put off was not asked, and has a turn in the line: turns are as far apart as the pace
//!   wants, after those that the crowd will use up. Who comes before their turn still has it;
//! - who comes when their turn has come joins the crowd, unless the host is slower than its pace: then
//!   that crowd is full, too, and new turns are as far apart as those who were served. So nobody is
//!   put off again and again, however long the line is;
//! - a host that keeps refusing is in the end answered for without being asked, so every address
//!   comes to an end.

mod put_off;
mod turns;

use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use listmill_shared::domain::clock::{Clock, Millis};
use listmill_shared::throttle::line::Line;
use listmill_shared::throttle::pace::{Budget, Pacer, Rate};
use listmill_shared::throttle::share::{Rest, Share};
use tokio::sync::Mutex as Queue;

pub use self::put_off::PutOff;
use self::turns::{Promises, Served};
use super::figures::Figures;

/// How many times its connections may wait for a group's turn or have it.
const CROWD: usize = 2;
/// How long one who was put off is away at least, about, in milliseconds.
const AWAY: Millis = 3_000;
/// A crowd that anybody joins is served within this time, in milliseconds.
const WAIT: Millis = 10_000;
/// How long a host that refused us is left alone, the first time, the second, and from then on, in
/// milliseconds.
const BACK_OFF: [Millis; 3] = [5_000, 15_000, 60_000];
/// No turn is promised that comes sooner, in milliseconds.
const SOONEST: Millis = 1_000;
/// Who comes so many milliseconds before their turn is not sent away again.
const EARLY: Millis = 50;
/// At a host that is slower than its pace turns are so many intervals apart at most.
const SLOWEST: f64 = 4.0;
/// More processes than this are not reckoned with when a turn is promised.
const PROCESSES: usize = 4;
/// Other processes hear that turns are kept once in this time, in milliseconds.
const KEEP: Millis = 5_000;
/// Who had a turn within so many milliseconds had it lately.
const LATELY: Millis = 300_000;

/// One group's pace.
pub struct Pace {
    pacer: Arc<Pacer>,
    clock: Clock,
    recipients: Paced,
    connections: Paced,
    /// Milliseconds from one recipient to the next.
    interval: f64,
    crowd: AtomicUsize,
    /// Connections at once: of all processes, and this one's part.
    connections_at_once: usize,
    part: AtomicUsize,
    served: Mutex<Served>,
    rest: Mutex<Rest>,
    /// The connections at once; `None`: this process has them for itself.
    share: Option<Share>,
    line: Line,
    promises: Mutex<Promises>,
    /// When other processes heard last that turns are kept.
    kept: AtomicI64,
}

/// A budget, and who is next for it.
struct Paced {
    budget: Budget,
    next: Queue<()>,
}

/// A place in the crowd; free again when dropped.
pub struct Place<'a>(&'a Pace);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.crowd.fetch_sub(1, Ordering::Release);
    }
}

impl Pace {
    /// The pace of the group called `name`.
    pub fn new(name: &str, figures: Figures, pacer: &Arc<Pacer>, clock: &Clock) -> Self {
        let paced = |what: &str, per_minute: u32| Paced {
            budget: pacer.budget(&format!("{what}:{name}"), Rate::of(per_minute)),
            next: Queue::new(()),
        };
        Self {
            recipients: paced("recipients", figures.recipients_per_minute),
            connections: paced("connections", figures.connections_per_minute),
            interval: Rate::of(figures.recipients_per_minute).interval_ms(),
            pacer: Arc::clone(pacer),
            clock: clock.clone(),
            crowd: AtomicUsize::new(0),
            connections_at_once: figures.connections.max(1),
            part: AtomicUsize::new(figures.connections.max(1)),
            served: Mutex::default(),
            rest: Mutex::default(),
            share: pacer.share(name, figures.connections.max(1)),
            line: pacer.line(name),
            promises: Mutex::default(),
            kept: AtomicI64::new(0),
        }
    }

    /// `who` joins the crowd.
    pub async fn enter(&self, who: u64) -> Result<Place<'_>, PutOff> {
        self.not_left_alone()?;
        let now = self.clock.now();
        let promised = self.promises().turns.get(&who).copied();
        let their_turn = promised.is_some_and(|turn| turn <= now + EARLY);
        let (anybody, promised_too) = self.room(now);
        let most = if their_turn { promised_too } else { anybody };
        let joined = self.crowd.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |crowd| {
            (crowd < most).then_some(crowd + 1)
        });
        let place = joined.map(|_| Place(self));
        if their_turn {
            self.keep(now).await;
        }
        match (place, promised) {
            (Ok(place), _) => {
                self.promises().turns.remove(&who);
                Ok(place)
            }
            (Err(_), Some(turn)) if !their_turn => Err(paced(turn, now)),
            (Err(_), _) => Err(self.promise(who, their_turn).await),
        }
    }

    /// How big the crowd may be for anybody, and for those whose turn has come.
    fn room(&self, now: Millis) -> (usize, usize) {
        if self.rest().refusals > 0 {
            return (1, 1);
        }
        let lately = self.served().lately(now);
        let most = self.connections_at_once.saturating_mul(CROWD).saturating_add(lately);
        let in_time = |ms: Millis| (ms as f64 / self.interval) as usize;
        let anybody = most.min(in_time(WAIT) / self.processes()).max(1);
        (anybody, anybody.saturating_add(in_time(AWAY).clamp(2, most)))
    }

    /// How many processes ask this group, about: each has an equal part of the connections. One that has just
    /// come has next to none for a moment, which must not look like many processes.
    fn processes(&self) -> usize {
        let part = self.part.load(Ordering::Relaxed).max(1);
        self.connections_at_once.div_ceil(part).clamp(1, PROCESSES)
    }

    /// Somebody has come for a promised turn.
    async fn keep(&self, now: Millis) {
        let before = self.kept.load(Ordering::Relaxed);
        let due = !(0..KEEP).contains(&(now - before));
        let relaxed = Ordering::Relaxed;
        if due && self.kept.compare_exchange(before, now, relaxed, relaxed).is_ok() {
            self.pacer.keep(&self.line).await;
        }
    }

    /// Does the host want to be left alone?
    pub fn not_left_alone(&self) -> Result<(), PutOff> {
        let rest = *self.rest();
        let left = rest.until - self.clock.now();
        if left <= 0 {
            return Ok(());
        }
        // Refused again after every rest: what it says holds for all, or nobody would ever be done.
        let again = (rest.refusals as usize) < BACK_OFF.len();
        Err(PutOff::LeftAlone(again.then(|| Duration::from_millis(left.unsigned_abs()))))
    }

    /// Waits for the turn to name a recipient.
    pub async fn recipient(&self) {
        let _next = self.recipients.next.lock().await;
        self.another_recipient().await;
        self.served().one(self.clock.now(), SLOWEST * self.interval);
    }

    /// The same for one who stood in line already.
    pub async fn another_recipient(&self) {
        self.take(&self.recipients.budget).await;
    }

    /// Waits for the turn to open a connection.
    pub async fn connection(&self) {
        let _next = self.connections.next.lock().await;
        self.another_connection().await;
    }

    /// The same for one who stood in line already.
    pub async fn another_connection(&self) {
        self.take(&self.connections.budget).await;
    }

    async fn take(&self, budget: &Budget) {
        while let Err(wait) = self.pacer.take(budget).await {
            tokio::time::sleep(wait).await;
        }
    }

    /// For one who has waited in vain.
    pub async fn put_off(&self, who: u64) -> PutOff {
        self.promise(who, true).await
    }

    /// Promises `who` the next turn. `slow`: the host seems to be slower than its pace.
    async fn promise(&self, who: u64, slow: bool) -> PutOff {
        let now = self.clock.now();
        let processes = self.processes() as f64;
        let crowd = self.crowd.load(Ordering::Relaxed) as f64 * self.interval * processes;
        let earliest = now.saturating_add((crowd as Millis).max(SOONEST));
        let interval = match slow && self.rest().refusals == 0 {
            true => {
                (self.served().between / processes).clamp(self.interval, SLOWEST * self.interval)
            }
            false => self.interval,
        };
        let turn = self.pacer.reserve(&self.line, earliest, interval).await;
        self.promises().add(who, turn, now);
        paced(turn, self.clock.now())
    }

    /// The host said that we are too much for it. Is that news?
    pub fn refused(&self) -> bool {
        let now = self.clock.now();
        let mut rest = self.rest();
        // Several at once are one refusal.
        let news = now >= rest.until;
        if news {
            let again = (rest.refusals as usize).min(BACK_OFF.len() - 1);
            *rest = rest.then(now, again as u32 + 1, now + BACK_OFF[again]);
        }
        news
    }

    /// The host answered. While it is left alone, that is one who was asked before. Is that news?
    pub fn answered(&self) -> bool {
        let now = self.clock.now();
        let mut rest = self.rest();
        let news = rest.refusals > 0 && now >= rest.until;
        if news {
            *rest = rest.then(now, 0, 0);
        }
        news
    }

    /// For who looks on: the rest that the host wants, how long the line of promised turns is, in milliseconds, and
    /// whether anybody waits, has a turn or had one lately.
    pub fn look(&self, now: Millis) -> (Rest, Millis, bool) {
        let last = self.served().last;
        let lately = last > 0 && now - last < LATELY;
        (*self.rest(), self.line.ends_in(now), lately || !self.is_quiet())
    }

    /// Does nobody wait or have a turn? Then all is to be seen that they have left behind.
    pub fn is_quiet(&self) -> bool {
        self.crowd.load(Ordering::Acquire) == 0
    }

    /// Do processes share the connections?
    pub fn is_shared(&self) -> bool {
        self.share.is_some()
    }

    /// Tells the other processes how many connections this one holds, and learns how many it may.
    pub async fn renew(&self, held: usize) -> usize {
        let Some(share) = &self.share else { return held };
        let known = *self.rest();
        let part = self.pacer.renew(share, held, known).await;
        self.part.store(part.slots, Ordering::Relaxed);
        let latest = self.clock.now() + BACK_OFF[BACK_OFF.len() - 1];
        let mut rest = self.rest();
        *rest = rest.merge(Rest { until: part.rest.until.min(latest), ..part.rest });
        part.slots
    }

    /// Holds no connections any more.
    pub async fn leave(&self) {
        let Some(share) = &self.share else { return };
        let known = *self.rest();
        self.pacer.leave(share, known).await;
    }

    fn served(&self) -> MutexGuard<'_, Served> {
        self.served.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rest(&self) -> MutexGuard<'_, Rest> {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn promises(&self) -> MutexGuard<'_, Promises> {
        self.promises.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn paced(turn: Millis, now: Millis) -> PutOff {
    PutOff::Paced(Duration::from_millis((turn - now).max(1).unsigned_abs()))
}

#[cfg(test)]
mod tests;

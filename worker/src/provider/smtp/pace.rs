//! How fast mail hosts are asked, and what becomes of an address whose turn does not come.
//!
//! Data: hosts form *groups*. A big provider's hosts (by the end of their names) are one; any other
//! host is its own, by its address, as many domains' names lead to one machine. A group's [`Pace`] is
//! two budgets (recipients and connections in a minute, see [`Pacer`]), a share of the connections at
//! once and the [`Rest`] that the host wants (both between processes, see
//! [`listmill_shared::queue::share`]), the *crowd* of those who wait for their turn or have it, and
//! what was *promised* to those who were put off.
//!
//! Invariants:
//! - every RCPT TO and every new connection has taken a cell of its group's budget before;
//! - the crowd is at most [`CROWD`] times the group's connections and as many as had their turn within
//!   [`AWAY`] lately, so it is served before those who were put off are back; and one while the host
//!   has refused us and not answered since: a host whose pace is used up cannot fill a worker;
//! - who is put off was not asked, and is told when its turn comes: promises are given out at the
//!   pace itself, so those put off come back one by one;
//! - a host that keeps refusing is in the end answered for without being asked, so every address
//!   comes to an end.

use std::net::IpAddr;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use listmill_shared::domain::clock::{Clock, Millis};
use listmill_shared::queue::pace::{Budget, Pacer, Rate};
use listmill_shared::queue::share::{Rest, Share};
use tokio::sync::Mutex as Line;

/// How many times its connections may wait for a group's turn or have it.
const CROWD: usize = 2;
/// How long one who was put off is away at least, until a batch is woken and leased again, in
/// milliseconds.
const AWAY: Millis = 3_000;
/// How long a host that refused us is left alone, the first time, the second, and from then on, in
/// milliseconds.
const BACK_OFF: [Millis; 3] = [5_000, 15_000, 60_000];
/// Bounds of a promise: soon enough to notice that the host is free again, late enough not to pester.
const SOONEST: Millis = 1_000;
const LATEST: Millis = 600_000;

/// When those come again who found every connection in use.
const BUSY: Duration = Duration::from_secs(5);

/// How fast one group may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    /// Recipients named in a minute.
    pub recipients_per_minute: u32,
    /// Connections opened in a minute.
    pub connections_per_minute: u32,
    /// Connections at once.
    pub connections: usize,
}

/// Hosts that share one pace.
#[derive(Debug, Clone)]
pub struct Together {
    /// What the group is called.
    pub name: String,
    /// Ends of its hosts' names.
    pub hosts: Vec<String>,
    /// How fast.
    pub figures: Figures,
}

/// Every group's figures.
#[derive(Debug, Clone)]
pub struct Figured {
    /// Of a host that is in no group.
    pub usual: Figures,
    /// Big providers.
    pub together: Vec<Together>,
}

impl Figured {
    /// The group that the mail host `name` at `ip` belongs to.
    pub fn group(&self, name: &str, ip: IpAddr) -> (Arc<str>, Figures) {
        let fits = |end: &str| {
            let end = end.trim_matches('.');
            let before = name.len().checked_sub(end.len()).filter(|at| name.is_char_boundary(*at));
            before.is_some_and(|at| {
                name[at..].eq_ignore_ascii_case(end) && (at == 0 || name[..at].ends_with('.'))
            })
        };
        let longest = self
            .together
            .iter()
            .flat_map(|group| group.hosts.iter().map(move |end| (end, group)))
            .filter(|(end, _)| fits(end))
            .max_by_key(|(end, _)| end.len());
        match longest {
            Some((_, group)) => (group.name.as_str().into(), group.figures),
            None => (ip.to_string().into(), self.usual),
        }
    }
}

/// Why nobody was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutOff {
    /// Our pace: the turn comes after this long.
    Paced(Duration),
    /// Every connection is in use, where nothing is paced.
    Busy,
    /// The host wants to be left alone: as long as this, or it has said so too often to be waited for.
    LeftAlone(Option<Duration>),
}

impl PutOff {
    /// For people.
    pub fn text(self) -> &'static str {
        match self {
            PutOff::Paced(_) => "not asked yet: the mail host's pace is used up",
            PutOff::Busy => "not asked yet: every connection to the mail host is in use",
            PutOff::LeftAlone(_) => "not asked: the mail host wants to be left alone for a while",
        }
    }

    /// When to come again, if that is known.
    pub fn again_in(self) -> Option<Duration> {
        match self {
            PutOff::Paced(wait) => Some(wait),
            PutOff::Busy => Some(BUSY),
            PutOff::LeftAlone(wait) => wait,
        }
    }

    /// For metrics.
    pub fn name(self) -> &'static str {
        match self {
            PutOff::Paced(_) => "pace",
            PutOff::Busy => "busy",
            PutOff::LeftAlone(_) => "back_off",
        }
    }
}

/// One group's pace.
pub struct Pace {
    pacer: Arc<Pacer>,
    clock: Clock,
    recipients: Paced,
    connections: Paced,
    interval_ms: Millis,
    crowd: AtomicUsize,
    most: usize,
    served: Mutex<Served>,
    rest: Mutex<Rest>,
    /// The connections at once; `None`: this process has them for itself.
    share: Option<Share>,
    /// Turns are promised up to this time.
    promised: AtomicI64,
}

/// A budget, and who is next for it.
struct Paced {
    budget: Budget,
    line: Line<()>,
}

/// Who had their turn lately: in this stretch of [`AWAY`], and in the one before.
#[derive(Default)]
struct Served {
    since: Millis,
    now: usize,
    before: usize,
}

impl Served {
    /// In one stretch.
    fn lately(&mut self, now: Millis) -> usize {
        let stretches = (now - self.since).max(0) / AWAY;
        if stretches > 0 {
            self.before = if stretches == 1 { self.now } else { 0 };
            self.now = 0;
            self.since = now;
        }
        self.now.max(self.before)
    }
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
            line: Line::new(()),
        };
        Self {
            recipients: paced("recipients", figures.recipients_per_minute),
            connections: paced("connections", figures.connections_per_minute),
            interval_ms: Rate::of(figures.recipients_per_minute).interval_ms().ceil() as Millis,
            pacer: Arc::clone(pacer),
            clock: clock.clone(),
            crowd: AtomicUsize::new(0),
            most: figures.connections.max(1).saturating_mul(CROWD),
            served: Mutex::default(),
            rest: Mutex::default(),
            share: pacer.share(name, figures.connections.max(1)),
            promised: AtomicI64::new(0),
        }
    }

    /// Joins the crowd.
    pub fn enter(&self) -> Result<Place<'_>, PutOff> {
        self.not_left_alone()?;
        let most = match self.rest().refusals {
            0 => self.most.saturating_add(self.served().lately(self.clock.now())),
            _ => 1,
        };
        let joined = self.crowd.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |crowd| {
            (crowd < most).then_some(crowd + 1)
        });
        joined.map(|_| Place(self)).map_err(|_| self.put_off())
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
        let _next = self.recipients.line.lock().await;
        self.another_recipient().await;
        let mut served = self.served();
        served.lately(self.clock.now());
        served.now += 1;
    }

    /// The same for one who stood in line already.
    pub async fn another_recipient(&self) {
        self.take(&self.recipients.budget).await;
    }

    /// Waits for the turn to open a connection.
    pub async fn connection(&self) {
        let _next = self.connections.line.lock().await;
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

    /// Promises a turn later.
    pub fn put_off(&self) -> PutOff {
        let now = self.clock.now();
        let crowd = Millis::try_from(self.crowd.load(Ordering::Relaxed)).unwrap_or(Millis::MAX);
        let first = now.saturating_add(crowd.saturating_mul(self.interval_ms)).max(now + SOONEST);
        let promise = |before: Millis| {
            before.max(first).saturating_add(self.interval_ms).min(now.saturating_add(LATEST))
        };
        let before = self
            .promised
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |before| Some(promise(before)));
        let turn = promise(before.unwrap_or_default());
        PutOff::Paced(Duration::from_millis((turn - now).max(SOONEST).unsigned_abs()))
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
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIGURES: Figures =
        Figures { recipients_per_minute: 60, connections_per_minute: 60, connections: 2 };

    fn pace() -> (Pace, Clock) {
        let clock = Clock::manual(1_700_000_000_000);
        let pacer = Arc::new(Pacer::alone(clock.clone()));
        (Pace::new("a", FIGURES, &pacer, &clock), clock)
    }

    #[test]
    fn the_longest_end_of_the_name_decides() {
        let together = |name: &str, end: &str| Together {
            name: name.into(),
            hosts: vec![end.into()],
            figures: FIGURES,
        };
        let figured = Figured {
            usual: FIGURES,
            together: vec![
                together("business", "outlook.com"),
                together("home", ".olc.outlook.com"),
                together("search", "google.com"),
            ],
        };
        let ip = "192.0.2.7".parse().unwrap();
        for (host, group) in [
            ("aspmx.l.google.com", "search"),
            ("ALT1.Google.Com", "search"),
            ("google.com", "search"),
            ("notgoogle.com", "192.0.2.7"),
            ("google.com.example", "192.0.2.7"),
            ("a-example.mail.outlook.com", "business"),
            ("outlook-com.olc.outlook.com", "home"),
            ("", "192.0.2.7"),
            ("ü.example", "192.0.2.7"),
        ] {
            assert_eq!(&*figured.group(host, ip).0, group, "{host}");
        }
    }

    #[test]
    fn those_put_off_come_back_at_the_pace() {
        let (pace, clock) = pace();
        let places: Vec<_> = (0..4).map(|_| pace.enter().ok().unwrap()).collect();
        let promises: Vec<u64> = (0..3)
            .map(|_| match pace.enter() {
                Err(PutOff::Paced(wait)) => wait.as_secs(),
                _ => panic!("the crowd is full"),
            })
            .collect();
        assert_eq!(promises, [5, 6, 7]);
        clock.advance(6_000);
        drop(places);
        assert!(pace.enter().is_ok());
        assert_eq!(pace.put_off(), PutOff::Paced(Duration::from_secs(2)));
        let last = (0..10_000).map(|_| pace.put_off()).last().unwrap();
        assert_eq!(last, PutOff::Paced(Duration::from_millis(600_000)));
    }

    #[tokio::test]
    async fn the_crowd_grows_with_what_is_served() {
        let (pace, clock) = pace();
        let room = || {
            let places: Vec<_> = std::iter::from_fn(|| pace.enter().ok()).collect();
            places.len()
        };
        assert_eq!(room(), 4);
        for _ in 0..6 {
            pace.recipient().await;
        }
        assert_eq!(room(), 10);
        clock.advance(AWAY);
        assert_eq!(room(), 10);
        pace.recipient().await;
        assert_eq!(room(), 10);
        clock.advance(AWAY);
        assert_eq!(room(), 5);
        clock.advance(2 * AWAY);
        assert_eq!(room(), 4);
    }

    #[test]
    fn a_refusal_is_answered_by_longer_and_longer_rests() {
        let (pace, clock) = pace();
        let rest = |ms| Err(PutOff::LeftAlone(Some(Duration::from_millis(ms))));
        pace.refused();
        // Those who were under way say nothing new, neither way.
        pace.refused();
        pace.answered();
        assert_eq!(pace.not_left_alone(), rest(5_000));
        clock.advance(5_000);
        assert_eq!(pace.not_left_alone(), Ok(()));
        let first = pace.enter().ok().unwrap();
        assert!(matches!(pace.enter(), Err(PutOff::Paced(_))), "one at a time");
        pace.refused();
        drop(first);
        assert_eq!(pace.not_left_alone(), rest(15_000));
        for _ in 0..3 {
            clock.advance(60_000);
            assert_eq!(pace.not_left_alone(), Ok(()));
            pace.refused();
            assert_eq!(pace.not_left_alone(), Err(PutOff::LeftAlone(None)));
        }
        clock.advance(60_000);
        pace.answered();
        pace.refused();
        assert_eq!(pace.not_left_alone(), rest(5_000));
    }
}

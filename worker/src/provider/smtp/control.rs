//! The resolver is believed only while it tells living domains from dead ones.
//!
//! A resolver that lies (it knows no name of the world; a captive portal; made-up answers for names
//! that do not exist) would turn living addresses into dead ones, each with a credit. So it is asked
//! a control question, whose answer is known: before a process asks about its first address, and
//! again when the last good answer is too old for what is about to be concluded.
//!
//! Data: when the last control that was good began, and how often one was not. Nobody who finds a
//! fresh one waits, or takes a lock.
//!
//! Invariants:
//! - one look at a time; who waits for it has its answer;
//! - a control asks the resolver, never a cache;
//! - while it is bad nobody is asked about anything and nothing is concluded, the health is down, and
//!   one task looks again every [`AGAIN`]; that task ends when it is good, or nobody is left;
//! - before it is good again, all that was learnt through the resolver is forgotten.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use listmill_shared::domain::id::Ids;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use super::breaker::Breaker;
use super::catch_all::CatchAlls;
use crate::provider::dns::Dns;
use crate::provider::dns::truth::Doubt;

/// For whatever is concluded.
pub const ANY: Duration = Duration::from_secs(30);
/// For a domain that is not there, takes no mail, or cannot be looked up.
pub const DEAD: Duration = Duration::from_secs(10);
/// For a well-known domain that is not there.
pub const WELL_KNOWN: Duration = Duration::from_secs(1);
/// When a control that was bad is tried again.
pub const AGAIN: Duration = Duration::from_secs(2);
/// A resolver that is silent once may be busy.
const TRIES: usize = 2;

/// See the module.
pub struct Control {
    /// Domains that are there; none = the resolver is believed.
    known: Vec<String>,
    /// For controls alone.
    own: Dns,
    dns: Arc<Dns>,
    catch_alls: Arc<CatchAlls>,
    breaker: Arc<Breaker>,
    ids: Ids,
    born: Instant,
    /// In milliseconds from birth, which is 1; 0 = never.
    good_at: AtomicU64,
    bad: AtomicBool,
    doubts: AtomicU64,
    turn: Mutex<()>,
}

impl Control {
    /// Not looked yet. `own` asks the nameservers that `dns` asks.
    pub fn new(
        known: Vec<String>,
        (own, dns): (Dns, Arc<Dns>),
        catch_alls: Arc<CatchAlls>,
        breaker: Arc<Breaker>,
        ids: Ids,
    ) -> Arc<Self> {
        Arc::new(Self {
            known,
            own,
            dns,
            catch_alls,
            breaker,
            ids,
            born: Instant::now(),
            good_at: AtomicU64::new(0),
            bad: AtomicBool::new(false),
            doubts: AtomicU64::new(0),
            turn: Mutex::default(),
        })
    }

    /// How often it was bad; what was begun at another count is not to be concluded from.
    pub fn doubts(&self) -> u64 {
        self.doubts.load(Ordering::Acquire)
    }

    /// Is the resolver to be believed? Looks anew if what is known is older than `age`.
    pub async fn holds(self: &Arc<Self>, age: Duration) -> bool {
        if self.known.is_empty() {
            return true;
        }
        let since = self.now().saturating_sub(millis(age)).max(1);
        if let Some(known) = self.known_since(since) {
            return known;
        }
        let _turn = self.turn.lock().await;
        if let Some(known) = self.known_since(since) {
            return known;
        }
        let good = self.look().await;
        if !good {
            // Nobody else looks while it is bad, so this is the only one.
            tokio::spawn(look_again(Arc::downgrade(self)));
        }
        good
    }

    fn known_since(&self, since: u64) -> Option<bool> {
        match self.bad.load(Ordering::Acquire) {
            true => Some(false),
            false => (self.good_at.load(Ordering::Acquire) >= since).then_some(true),
        }
    }

    /// The caller's turn it is.
    async fn look(&self) -> bool {
        let began = self.now();
        match self.ask().await {
            Ok(()) => {
                self.good_at.store(began, Ordering::Release);
                if self.bad.load(Ordering::Acquire) {
                    self.dns.forget();
                    self.catch_alls.forget_all();
                    self.bad.store(false, Ordering::Release);
                    self.breaker.trust();
                }
                true
            }
            Err(doubt) => {
                self.doubts.fetch_add(1, Ordering::AcqRel);
                self.bad.store(true, Ordering::Release);
                self.breaker.distrust(&why(&doubt));
                false
            }
        }
    }

    async fn ask(&self) -> Result<(), Doubt> {
        let mut tries = 0;
        loop {
            tries += 1;
            self.own.forget();
            let nowhere = format!("{:032x}.com", u128::from_le_bytes(self.ids.bytes()));
            match self.own.tells_truth(&self.known, &nowhere).await {
                Err(Doubt::Mute(_)) if tries < TRIES => {}
                told => return told,
            }
        }
    }

    fn now(&self) -> u64 {
        millis(self.born.elapsed()) + 1
    }
}

/// Looks until it is good.
async fn look_again(control: std::sync::Weak<Control>) {
    loop {
        sleep(AGAIN).await;
        let Some(control) = control.upgrade() else { return };
        let _turn = control.turn.lock().await;
        if control.look().await {
            return;
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// What is wrong, and what to do.
fn why(doubt: &Doubt) -> Arc<str> {
    format!(
        "the resolver cannot be believed: {doubt}. Nothing is concluded from that; verification \
         waits until it tells the truth. What to do: look at the nameservers in LISTMILL_DNS, or the \
         system's, and at the network (is there a page to log in at?), and run `listmill doctor`; if \
         the resolver is there for names of your own alone, name some of those in \
         LISTMILL_DNS_CONTROL"
    )
    .into()
}

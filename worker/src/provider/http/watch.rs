//! Is the service down for everybody? When one address meets a trouble that may be everybody's (a key
//! that is refused, a service that does not answer), an address of nobody's ([`PROBE`]) is asked about:
//! if that fails alike, the service is [`Health::Down`] and nothing else is asked until it answers the
//! probe again. So no address that upsets a service can take it from the others.
//!
//! One task at a time does this, and ends when the provider is gone.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use listmill_shared::app::provider::Health;
use tokio::sync::watch;

use super::Service;
use super::pace::LONGEST_PAUSE;
use super::reader::{Evidence, Outcome};

/// Asked about to learn whether the service answers at all; `example.com` is nobody's (RFC 2606).
const PROBE: &str = "probe@example.com";

/// See the module.
pub struct Watch {
    service: Weak<Service>,
    state: Arc<State>,
    every: Duration,
}

struct State {
    health: watch::Sender<Health>,
    /// A task looks after it.
    watched: AtomicBool,
}

impl Watch {
    /// It works, until shown otherwise.
    pub fn new(service: &Arc<Service>, every: Duration) -> Self {
        let health = watch::Sender::new(Health::Working);
        let state = Arc::new(State { health, watched: AtomicBool::new(false) });
        Self { service: Arc::downgrade(service), state, every }
    }

    /// Follows it.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.state.health.subscribe()
    }

    /// Waits until it is down; says why.
    pub async fn down(&self) -> Arc<str> {
        let mut health = self.health();
        loop {
            if let Health::Down { why } = &*health.borrow_and_update() {
                return Arc::clone(why);
            }
            if health.changed().await.is_err() {
                // Nobody is left who could say so.
                std::future::pending::<()>().await;
            }
        }
    }

    /// An address met a trouble that may be everybody's. A service that has just answered the probe
    /// is not asked again at once.
    pub fn doubt(&self) {
        self.look_after(None);
    }

    /// The service wants to be left alone for longer than an address can wait.
    pub fn rest(&self, pause: Duration) {
        self.look_after(Some(pause));
    }

    fn look_after(&self, rest: Option<Duration>) {
        if self.state.watched.swap(true, Ordering::AcqRel) {
            return;
        }
        let (service, state, every) = (self.service.clone(), Arc::clone(&self.state), self.every);
        tokio::spawn(async move {
            if let Some(pause) = rest {
                state.down(&format!("the service asks us to wait for {} s", pause.as_secs()));
                tokio::time::sleep(pause).await;
            }
            loop {
                let Some(there) = service.upgrade() else { return };
                let Some((why, wait)) = probe(&there, every).await else { break };
                drop(there);
                state.down(&why);
                tokio::time::sleep(wait).await;
            }
            state.up();
            tokio::time::sleep(every).await;
            state.watched.store(false, Ordering::Release);
        });
    }
}

impl State {
    fn down(&self, why: &str) {
        let down = self.health.send_if_modified(|health| {
            let was_up = *health == Health::Working;
            *health = Health::Down { why: why.into() };
            was_up
        });
        if down {
            tracing::error!(why, "the http provider cannot work: {why}");
        }
    }

    fn up(&self) {
        let up = self.health.send_if_modified(|health| {
            std::mem::replace(health, Health::Working) != Health::Working
        });
        if up {
            tracing::info!("the http provider works again");
        }
    }
}

/// Why the service answers nobody, and when to look again; `None` when it does.
async fn probe(service: &Service, every: Duration) -> Option<(String, Duration)> {
    let why = |evidence: &Evidence| {
        let status = evidence.http.map(|status| format!("HTTP {status}: ")).unwrap_or_default();
        format!("{status}{}", evidence.problem.as_deref().unwrap_or("no answer in time"))
    };
    match service.ask(PROBE).await {
        Outcome::Verdict(..) | Outcome::Unfinished(_) => None,
        Outcome::Refused(evidence) => Some((why(&evidence), every)),
        Outcome::Busy(after, evidence) => {
            let wait = after.unwrap_or(every).clamp(every, LONGEST_PAUSE);
            service.pace.pause(wait);
            Some((why(&evidence), wait))
        }
        Outcome::Failed(_, evidence) => {
            Some((format!("{}; check http_url, and the service", why(&evidence)), every))
        }
    }
}

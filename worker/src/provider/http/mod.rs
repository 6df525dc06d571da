//! Another service is asked, by URL, headers and a small mapping from its words to our reasons.
//!
//! ```text
//! address ─▶ pace: its turn ─▶ exchange: one request ─▶ reader: mapping ─▶ verdict
//!               ▲ pauses          ▲ template: URL, body     └─ trouble ─▶ watch: is it everybody's?
//! ```
//!
//! Data: [`Evidence`] is what a verdict rests on. Nothing is shared but the service's state: its pace
//! and whether it is down.
//!
//! Invariants:
//! - nothing but a line of `http_map` makes a verdict definitive; whatever is not understood is unknown;
//! - an address keeps the service busy for at most timeout × (retries + 1), waits between its requests
//!   included, after at most [`LONGEST_TURN`] of waiting for its first turn;
//! - dropping the future drops the request;
//! - no key, URL, header or body is shown anywhere.

mod exchange;
mod mapping;
mod pace;
mod reader;
mod secrets;
mod setup;
mod template;
mod trust;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use listmill_shared::app::provider::{Health, Provider};
use listmill_shared::domain::clock::Clock;
use listmill_shared::domain::id::Ids;
use listmill_shared::domain::verdict::{Reason, Verdict};
use listmill_shared::throttle::pace::Pacer;
use tokio::sync::SemaphorePermit;
use tokio::time::{Instant, timeout_at};

use exchange::Exchange;
use pace::Pace;
pub use reader::Evidence;
use reader::{Outcome, Reader};
pub use setup::{Config, SetupError};
use watch::Watch;

/// An address waits for its first turn at most so long: with the longest budget it still ends before
/// the hold of a single verification does.
const LONGEST_TURN: Duration = Duration::from_secs(150);
/// When an address comes again that the service was not asked about.
const NEXT_TRY: Duration = Duration::from_secs(60);
/// Waits between two requests for one address grow up to this.
const LONGEST_BACK_OFF: Duration = Duration::from_secs(10);

/// A verdict and what it rests on.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// The verdict.
    pub verdict: Verdict,
    /// Its grounds.
    pub evidence: Evidence,
}

/// See the module.
pub struct Http {
    service: Arc<Service>,
    watch: Watch,
    retries: u32,
    budget: Duration,
    back_off: Duration,
    ids: Ids,
}

/// The service and how it is spoken to.
struct Service {
    exchange: Exchange,
    reader: Reader,
    pace: Pace,
}

impl Service {
    async fn ask(&self, address: &str) -> Outcome {
        self.reader.read(self.exchange.ask(address).await)
    }
}

impl Http {
    /// Nothing is asked yet; the pace is this process's. Call it inside the tokio runtime that will
    /// use it.
    pub fn new(config: &Config, clock: Clock, ids: Ids) -> Result<Self, SetupError> {
        let pacer = Pacer::alone(clock.clone());
        Self::paced(config, clock, ids, pacer)
    }

    /// The same with a `pacer` that others may share.
    pub fn paced(
        config: &Config,
        clock: Clock,
        ids: Ids,
        pacer: Pacer,
    ) -> Result<Self, SetupError> {
        let (exchange, reader) = config.build(clock)?;
        let pace = Pace::new(config.rate, config.concurrency, pacer);
        let service = Arc::new(Service { exchange, reader, pace });
        Ok(Self {
            watch: Watch::new(&service, config.probe_every),
            service,
            retries: config.retries,
            budget: config.timeout * (config.retries + 1),
            back_off: config.back_off,
            ids,
        })
    }

    /// Checks a canonical address.
    pub async fn check(&self, address: &str) -> Finding {
        let mut requests = 0;
        // Waiting for others' turns is not this address's doing; what follows is.
        let mut deadline = None;
        let mut last = None;
        loop {
            let until = deadline.unwrap_or_else(|| Instant::now() + LONGEST_TURN);
            let turn = match self.turn(until).await {
                Ok(turn) => turn,
                Err(not_asked) => return last.unwrap_or(not_asked),
            };
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + self.budget);
            requests += 1;
            let outcome = timeout_at(deadline, self.service.ask(address)).await;
            drop(turn);
            let (found, pause) = match outcome {
                Ok(Outcome::Verdict(verdict, evidence)) => {
                    return Finding {
                        verdict: *verdict,
                        evidence: Evidence { requests, ..evidence },
                    };
                }
                Ok(Outcome::Refused(evidence)) => {
                    self.watch.doubt();
                    return unanswered(Reason::InternalError, evidence, requests);
                }
                Ok(Outcome::Busy(after, evidence)) => {
                    let pause = self.slow_down(after, requests);
                    (unanswered(Reason::SmtpUnavailable, evidence, requests), pause)
                }
                Ok(Outcome::Unfinished(evidence)) => {
                    (unanswered(Reason::Timeout, evidence, requests), self.wait(requests))
                }
                Ok(Outcome::Failed(reason, evidence)) => {
                    let found = unanswered(reason, evidence, requests);
                    if requests > self.retries {
                        self.watch.doubt();
                        return found;
                    }
                    (found, self.wait(requests))
                }
                Err(_) => {
                    return last.unwrap_or_else(|| {
                        unanswered(Reason::Timeout, Evidence::default(), requests)
                    });
                }
            };
            if Instant::now() + pause >= deadline {
                return found;
            }
            last = Some(found);
            tokio::time::sleep(pause).await;
        }
    }

    /// Waits for the next request's turn, but not while the service is down.
    async fn turn(&self, until: Instant) -> Result<SemaphorePermit<'_>, Finding> {
        tokio::select! {
            biased;
            why = self.watch.down() => Err(not_asked(Reason::InternalError, &why)),
            turn = timeout_at(until, self.service.pace.turn()) => turn
                .map_err(|_| not_asked(Reason::Timeout, "its turn did not come: see http_rate")),
        }
    }

    /// Lets the whole service rest; returns for how long.
    fn slow_down(&self, after: Option<Duration>, requests: u32) -> Duration {
        let pause = after.unwrap_or_default().clamp(self.wait(requests), pace::LONGEST_PAUSE);
        self.service.pace.pause(pause);
        if pause > self.budget {
            self.watch.rest(pause);
        }
        pause
    }

    /// The wait after so many requests: doubled each time, and of its last half a random part, so that
    /// addresses that failed together do not come back together.
    fn wait(&self, requests: u32) -> Duration {
        let full = self.back_off.saturating_mul(1 << (requests - 1).min(16)).min(LONGEST_BACK_OFF);
        let random = f64::from(u32::from_le_bytes(self.ids.bytes())) / f64::from(u32::MAX);
        full.mul_f64(0.5 + random / 2.0)
    }
}

impl Provider for Http {
    fn verify<'a>(&'a self, address: &'a str, _attempt: i16) -> BoxFuture<'a, Verdict> {
        async move {
            let Finding { verdict, evidence } = self.check(address).await;
            Verdict { detail: serde_json::to_string(&evidence).ok(), ..verdict }
        }
        .boxed()
    }

    fn name(&self) -> &'static str {
        "http"
    }

    fn health(&self) -> Option<tokio::sync::watch::Receiver<Health>> {
        Some(self.watch.health())
    }
}

/// The service gave no verdict; later it may.
fn unanswered(reason: Reason, evidence: Evidence, requests: u32) -> Finding {
    let verdict = Verdict { temporary: true, ..Verdict::of(reason) };
    Finding { verdict, evidence: Evidence { requests, ..evidence } }
}

/// The service was not even asked.
fn not_asked(reason: Reason, why: &str) -> Finding {
    let evidence = Evidence { problem: Some(why.to_owned()), ..Evidence::default() };
    let Finding { verdict, evidence } = unanswered(reason, evidence, 0);
    Finding { verdict: Verdict { again_in: Some(NEXT_TRY), ..verdict }, evidence }
}

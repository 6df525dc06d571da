//! Nobody is asked twice at once about one address, nor, where the user wants it (`result_cache`),
//! again for a while.
//!
//! Data: address → the question under way, which everybody who wants to know waits for; and, if wanted,
//! address → definitive verdict with the time when it was found, bounded by [`MOST_KEPT`] octets.
//!
//! Invariants:
//! - `unknown` and temporary verdicts are shared with those who wait, and never kept;
//! - when the one who asks goes away (its task was cancelled), the next who waits asks;
//! - a kept verdict says in its evidence when it was found; for the ledger it is like a fresh one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use listmill_shared::app::provider::{FollowUp, Health, Provider};
use listmill_shared::domain::clock::{Clock, Millis, rfc3339};
use listmill_shared::domain::verdict::{Status, Verdict};
use listmill_shared::throttle::look::Hosts;
use moka::future::Cache;
use tokio::sync::{OnceCell, watch};

/// Octets of verdicts that one process keeps: about 100,000 with their evidence.
const MOST_KEPT: u64 = 64 << 20;
/// Octets of a kept verdict besides its texts.
const OVERHEAD: usize = 256;

type Question = Arc<OnceCell<Verdict>>;

#[derive(Clone)]
struct Kept {
    verdict: Verdict,
    found_at: Millis,
}

/// See the module.
pub struct Remember {
    provider: Arc<dyn Provider>,
    under_way: Mutex<HashMap<Box<str>, Question>>,
    kept: Option<Cache<Arc<str>, Kept>>,
    age: Millis,
    clock: Clock,
}

impl Remember {
    /// Asks `provider`, and keeps its definitive verdicts for `age`; zero = not at all.
    pub fn new(provider: Arc<dyn Provider>, age: Duration, clock: Clock) -> Self {
        let kept = (!age.is_zero()).then(|| {
            Cache::builder()
                .max_capacity(MOST_KEPT)
                .weigher(|address: &Arc<str>, kept: &Kept| kept.weight(address))
                // What nobody asks for any more goes as well.
                .time_to_live(age)
                .build()
        });
        let age = Millis::try_from(age.as_millis()).unwrap_or(Millis::MAX);
        Self { provider, under_way: Mutex::default(), kept, age, clock }
    }

    async fn verdict(&self, address: &str, attempt: i16) -> Verdict {
        if let Some(kept) = self.kept(address).await {
            return kept;
        }
        Seat::take(self, address).answer(self.ask(address, attempt)).await
    }

    async fn kept(&self, address: &str) -> Option<Verdict> {
        let kept = self.kept.as_ref()?.get(address).await?;
        let fresh = self.clock.now() < kept.found_at.saturating_add(self.age);
        fresh.then(|| kept.told_again())
    }

    async fn ask(&self, address: &str, attempt: i16) -> Verdict {
        let verdict = self.provider.verify(address, attempt).await;
        let definitive = verdict.reason.status() != Status::Unknown && !verdict.temporary;
        if let Some(cache) = self.kept.as_ref().filter(|_| definitive) {
            let kept = Kept { verdict: verdict.clone(), found_at: self.clock.now() };
            cache.insert(address.into(), kept).await;
        }
        verdict
    }
}

impl Kept {
    fn weight(&self, address: &str) -> u32 {
        let texts = [&self.verdict.did_you_mean, &self.verdict.mx, &self.verdict.detail];
        let texts: usize = texts.into_iter().flatten().map(String::len).sum();
        u32::try_from(address.len() + texts + OVERHEAD).unwrap_or(u32::MAX)
    }

    fn told_again(self) -> Verdict {
        let evidence = self.verdict.detail.as_deref().unwrap_or("null");
        let found_at = rfc3339(self.found_at);
        let detail = format!(r#"{{"remembered_from":"{found_at}","evidence":{evidence}}}"#);
        Verdict { detail: Some(detail), ..self.verdict }
    }
}

/// One who wants to know; the question is forgotten when it is answered, or the last of them goes.
struct Seat<'a> {
    all: &'a Remember,
    address: &'a str,
    /// Taken out by `drop` only.
    question: Option<Question>,
}

impl<'a> Seat<'a> {
    fn take(all: &'a Remember, address: &'a str) -> Self {
        let mut under_way = all.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let question = match under_way.get(address) {
            Some(question) => Arc::clone(question),
            None => Arc::clone(under_way.entry(address.into()).or_default()),
        };
        Self { all, address, question: Some(question) }
    }

    /// The answer, from whoever asks.
    async fn answer(&self, ask: impl Future<Output = Verdict>) -> Verdict {
        match &self.question {
            Some(question) => question.get_or_init(|| ask).await.clone(),
            None => ask.await,
        }
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let Some(question) = self.question.take() else { return };
        let mut under_way = self.all.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let ours = under_way.get(self.address).is_some_and(|q| Arc::ptr_eq(q, &question));
        // This one's and the table's; counted under the lock, as it is given back under the lock.
        let last = Arc::strong_count(&question) == 2;
        // Whoever comes after the answer asks anew.
        if ours && (last || question.initialized()) {
            under_way.remove(self.address);
        }
        drop(question);
    }
}

impl Provider for Remember {
    fn verify<'a>(&'a self, address: &'a str, attempt: i16) -> BoxFuture<'a, Verdict> {
        self.verdict(address, attempt).boxed()
    }

    fn name(&self) -> &'static str {
        self.provider.name()
    }

    fn follow_up(&self) -> FollowUp {
        self.provider.follow_up()
    }

    fn health(&self) -> Option<watch::Receiver<Health>> {
        self.provider.health()
    }

    fn hosts(&self, most: usize) -> Option<Hosts> {
        self.provider.hosts(most)
    }
}

#[cfg(test)]
mod tests;

//! Does a domain accept every local part? Asked once per domain with a mailbox that cannot exist.
//!
//! Data: domain (ASCII form) → [`CatchAll`], kept for a time: yes and no for the setting's, "could
//! not tell" for [`UNDETERMINED`]. The random mailbox of a domain stays the same while the process
//! lives, so that a greylisting server knows it when it is asked again.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use listmill_shared::domain::clock::{Clock, Millis};
use listmill_shared::domain::id::Ids;
use moka::future::Cache;

/// How long "could not tell" is kept.
const UNDETERMINED: Duration = Duration::from_secs(60);
/// Domains remembered.
const DOMAINS: u64 = 200_000;

/// What is known of a domain.
#[derive(Debug, Clone)]
pub struct CatchAll {
    /// `None`: the server would not say.
    pub answer: Option<bool>,
    /// Its words, for evidence.
    pub said: Arc<str>,
}

/// See the module.
pub struct CatchAlls {
    domains: Cache<Arc<str>, (CatchAll, Millis)>,
    ttl: Duration,
    clock: Clock,
    seed: [u8; 16],
}

impl CatchAlls {
    /// Nothing known yet.
    pub fn new(ttl: Duration, clock: Clock, ids: &Ids) -> Self {
        Self { domains: Cache::new(DOMAINS), ttl, clock, seed: ids.bytes() }
    }

    /// What is known now.
    pub async fn get(&self, domain: &str) -> Option<CatchAll> {
        let now = self.clock.now();
        let (known, until) = self.domains.get(domain).await?;
        (until > now).then_some(known)
    }

    /// What is known, or else what `ask` finds out. Only one asks at a time; when it is dropped, the
    /// next one that waits takes over.
    pub async fn get_or(&self, domain: &str, ask: impl Future<Output = CatchAll>) -> CatchAll {
        let now = self.clock.now();
        let keep = async {
            let found = ask.await;
            let ttl = if found.answer.is_some() { self.ttl } else { UNDETERMINED };
            let ttl = Millis::try_from(ttl.as_millis()).unwrap_or(Millis::MAX);
            (found, self.clock.now().saturating_add(ttl))
        };
        let entry = self.domains.entry(domain.into());
        entry.or_insert_with_if(keep, |(_, until)| *until <= now).await.into_value().0
    }

    /// What was learnt proved worthless.
    pub async fn forget(&self, domain: &str) {
        self.domains.invalidate(domain).await;
    }

    /// Nothing is known any more.
    pub fn forget_all(&self) {
        self.domains.invalidate_all();
    }

    /// The domain's random local part: a letter, then letters and digits, like a person's choice
    /// rather than a pattern that servers recognise.
    pub fn mailbox(&self, domain: &str) -> String {
        let number = |part: u8| {
            let mut hasher = DefaultHasher::new();
            (self.seed, part, domain).hash(&mut hasher);
            hasher.finish()
        };
        let mut rest = u128::from(number(0)) << 64 | u128::from(number(1));
        let mut name = String::with_capacity(16);
        for place in 0..16 {
            let base = if place == 0 { 26 } else { 36 };
            let digit = (rest % base) as u32;
            rest /= base;
            // Letters first, so that the first place is one.
            name.extend(char::from_digit((digit + 10) % 36, 36));
        }
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(answer: Option<bool>) -> CatchAll {
        CatchAll { answer, said: "".into() }
    }

    #[tokio::test]
    async fn is_asked_once_and_again_after_its_time() {
        let clock = Clock::manual(1_000);
        let catch_alls = CatchAlls::new(Duration::from_secs(600), clock.clone(), &Ids::seeded(1));
        let ask = |answer| catch_alls.get_or("a.example", async move { known(answer) });
        assert_eq!(ask(None).await.answer, None);
        assert_eq!(ask(Some(true)).await.answer, None);
        clock.advance(60_000);
        assert_eq!(ask(Some(true)).await.answer, Some(true));
        clock.advance(599_999);
        assert_eq!(catch_alls.get("a.example").await.unwrap().answer, Some(true));
        clock.advance(1);
        assert!(catch_alls.get("a.example").await.is_none());
        assert_eq!(ask(Some(false)).await.answer, Some(false));
    }

    #[test]
    fn mailboxes_are_stable_and_plausible() {
        let catch_alls = CatchAlls::new(Duration::ZERO, Clock::manual(0), &Ids::seeded(1));
        let a = catch_alls.mailbox("a.example");
        assert_eq!(a, catch_alls.mailbox("a.example"));
        assert_ne!(a, catch_alls.mailbox("b.example"));
        assert_eq!(a.len(), 16);
        assert!(a.starts_with(|c: char| c.is_ascii_lowercase()), "{a}");
        assert!(a.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()), "{a}");
    }
}

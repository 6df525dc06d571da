//! Who verifies, as the rest of the product sees it.

use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::sync::watch;

use crate::domain::verdict::Verdict;
use crate::throttle::look::Hosts;

/// Asks the outside world about one address.
pub trait Provider: Send + Sync {
    /// Verifies `address`, which has passed the syntax check. `attempt` counts from 1. Dropping the
    /// future stops the question at once.
    fn verify<'a>(&'a self, address: &'a str, attempt: i16) -> BoxFuture<'a, Verdict>;

    /// Its name in logs and in the demo's honest line.
    fn name(&self) -> &'static str;

    /// What a temporary answer leads to.
    fn follow_up(&self) -> FollowUp {
        FollowUp::Later
    }

    /// Whether it can work at all, where it can tell. While it is down nothing is concluded from its
    /// temporary answers.
    fn health(&self) -> Option<watch::Receiver<Health>> {
        None
    }

    /// Mail hosts that this process has asked lately, up to `most`; none where it asks no mail host.
    fn hosts(&self, most: usize) -> Option<Hosts> {
        let _ = most;
        None
    }
}

/// What a temporary answer leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FollowUp {
    /// It is asked again right away, so often in all.
    AtOnce {
        /// The first time included.
        attempts: i16,
    },
    /// Minutes later: a mail server that says "later" must not be asked again right away.
    Later,
}

/// Can a provider work?
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Yes, as far as it knows.
    Working,
    /// No: the trouble is ours, whatever address is asked about.
    Down {
        /// What is wrong and what to do, for people.
        why: Arc<str>,
    },
}

/// Asks `provider` until the answer is not temporary, or it is not to be asked again right away;
/// returns the verdict and the number of the last attempt. `attempt` is that of the first.
pub async fn ask(provider: &dyn Provider, address: &str, mut attempt: i16) -> (Verdict, i16) {
    loop {
        let verdict = provider.verify(address, attempt).await;
        match provider.follow_up() {
            FollowUp::AtOnce { attempts } if verdict.temporary && attempt < attempts => {
                attempt += 1
            }
            _ => return (verdict, attempt),
        }
    }
}

//! Made-up verdicts, the same every time, without a network: the start of the local part (up to a
//! `+` or digit) decides. What a test key asks is answered here, whatever provider the settings name.

use std::time::Duration;

use super::provider::{FollowUp, Provider};
use crate::domain::address::split;
use crate::domain::verdict::{Flags, Reason, Verdict};
use futures::FutureExt;
use futures::future::BoxFuture;

/// How long `slow` addresses take.
const SLOW: Duration = Duration::from_secs(2);

/// See the module.
pub struct Sandbox {
    latency: Duration,
}

impl Sandbox {
    /// Every verdict takes `latency`.
    pub fn new(latency: Duration) -> Self {
        Self { latency }
    }
}

impl Provider for Sandbox {
    fn verify<'a>(&'a self, address: &'a str, attempt: i16) -> BoxFuture<'a, Verdict> {
        let (local, domain) = split(address).unwrap_or((address, ""));
        let word = local.split(|c: char| c == '+' || c.is_ascii_digit()).next().unwrap_or("");
        let latency = if word == "slow" { self.latency + SLOW } else { self.latency };
        let verdict = judge(word, domain, attempt);
        async move {
            if !latency.is_zero() {
                tokio::time::sleep(latency).await;
            }
            verdict
        }
        .boxed()
    }

    fn name(&self) -> &'static str {
        "sandbox"
    }

    fn follow_up(&self) -> FollowUp {
        FollowUp::AtOnce { attempts: 3 }
    }
}

fn judge(word: &str, domain: &str, attempt: i16) -> Verdict {
    let reason = match word {
        _ if domain == "disposable.test" => Reason::Disposable,
        "undeliverable" => Reason::MailboxNotFound,
        "risky" | "catchall" => Reason::CatchAll,
        "full" => Reason::MailboxFull,
        "unknown" | "timeout" => Reason::Timeout,
        "flaky" if attempt == 1 => Reason::SmtpUnavailable,
        _ => Reason::Accepted,
    };
    Verdict {
        flags: Flags {
            disposable: Some(reason == Reason::Disposable),
            catch_all: known(reason).then_some(reason == Reason::CatchAll),
            mailbox_full: known(reason).then_some(reason == Reason::MailboxFull),
            ..Flags::default()
        },
        temporary: reason == Reason::SmtpUnavailable,
        ..Verdict::of(reason)
    }
}

/// Was there an answer at all?
fn known(reason: Reason) -> bool {
    !matches!(reason, Reason::Timeout | Reason::SmtpUnavailable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_of_the_local_part_decides() {
        for (address, reason) in [
            ("undeliverable@example.com", Reason::MailboxNotFound),
            ("undeliverable7@example.com", Reason::MailboxNotFound),
            ("risky+tag@example.com", Reason::CatchAll),
            ("catchall12@example.com", Reason::CatchAll),
            ("full@example.com", Reason::MailboxFull),
            ("unknown9@example.com", Reason::Timeout),
            ("timeout@example.com", Reason::Timeout),
            ("kate@disposable.test", Reason::Disposable),
            ("undeliverables@example.com", Reason::Accepted),
            ("kate@example.com", Reason::Accepted),
            ("slow@example.com", Reason::Accepted),
        ] {
            let (local, domain) = split(address).unwrap();
            let word = local.split(|c: char| c == '+' || c.is_ascii_digit()).next().unwrap();
            assert_eq!(judge(word, domain, 1).reason, reason, "{address}");
        }
    }

    #[tokio::test]
    async fn flaky_answers_at_the_second_attempt() {
        let sandbox = Sandbox::new(Duration::ZERO);
        let first = sandbox.verify("flaky1@example.com", 1).await;
        assert_eq!((first.reason, first.temporary), (Reason::SmtpUnavailable, true));
        assert_eq!(sandbox.verify("flaky1@example.com", 2).await.reason, Reason::Accepted);
    }
}

//! One address, in the request.
//!
//! Bad syntax is free. Otherwise one credit is held, the provider is asked, and the hold is
//! resolved: charged for a definitive verdict, given back for `unknown`. If the process dies in
//! between, the sweeper gives it back. Under an `Idempotency-Key` the answer is kept in the transaction that
//! resolves the hold, so that the same request is never charged twice. For a test key the sandbox answers, and
//! nothing is held or written.

use std::borrow::Cow;

use super::App;
use crate::app::provider::{Provider, ask};
use crate::domain::address::normalise;
use crate::domain::id::{AccountId, CheckId, KeyId};
use crate::domain::spelling::one;
use crate::domain::verdict::{Credit, Reason, Verdict};
use crate::store::StoreError;
use crate::store::checks::{Answered, Check, Closed, Opened};
use crate::store::idempotency::RequestKey;
use crate::store::results::Found;

/// Longer than any provider takes, retries included.
const HOLD_MS: i64 = 300_000;

/// Why a single verification was not made.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The balance is empty.
    #[error("the balance is empty")]
    Insufficient,
    /// The key's own limit of credits is used up.
    #[error("the key's own limit of {limit} credits is used up")]
    KeyLimit {
        /// The limit.
        limit: i64,
    },
    /// A later request with the same `Idempotency-Key` was faster; nothing was charged for this one.
    #[error("a later request with the same key was faster")]
    TakenOver,
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Who pays for a single verification.
#[derive(Debug, Clone, Copy)]
pub struct Payer {
    /// The account.
    pub account: AccountId,
    /// The key that asks.
    pub key: KeyId,
    /// It has a limit of credits of its own.
    pub key_limited: bool,
    /// It is a test key: nobody pays.
    pub sandbox: bool,
}

/// Where the answer is to be kept.
pub struct Keep<'a> {
    /// The request's place.
    pub request: &'a RequestKey,
    /// Its fence.
    pub salt: &'a [u8],
    /// Renders the answer's body.
    pub render: &'a (dyn Fn(&Found) -> String + Sync),
}

/// What came of a single verification.
pub struct Verified {
    /// The finding.
    pub found: Found,
    /// Its answer is kept.
    pub kept: bool,
}

impl App {
    /// Verifies one address for an account.
    pub async fn verify(
        &self,
        payer: Payer,
        address: &str,
        provider: &dyn Provider,
        keep: Option<Keep<'_>>,
    ) -> Result<Verified, VerifyError> {
        let submitted = address;
        let normalised = normalise(&one(address).unwrap_or(Cow::Borrowed(address)));
        if normalised.syntax.is_err() {
            let verdict = Verdict::of(Reason::InvalidSyntax);
            let found = found(submitted, normalised.text, verdict, 0, Credit::Free, self.now());
            return Ok(Verified { found, kept: false });
        }
        if payer.sandbox {
            let (verdict, attempts) = ask(&*self.sandbox, &normalised.text, 1).await;
            let found =
                found(submitted, normalised.text, verdict, attempts, Credit::Free, self.now());
            return Ok(Verified { found, kept: false });
        }
        let now = self.now();
        let Payer { account, key, key_limited, sandbox: _ } = payer;
        let (id, step) = (CheckId::new(&self.ids, now), self.ids.number(now));
        let check =
            Check { id, account, step, key: Some(key), key_limited, fill: !self.settings.credits };
        match self.store.open_check(check, now + HOLD_MS, now).await? {
            Opened::Held => {}
            Opened::Poor => return Err(VerifyError::Insufficient),
            Opened::KeyPoor { limit } => return Err(VerifyError::KeyLimit { limit }),
        }
        let (verdict, attempts) = ask(provider, &normalised.text, 1).await;
        let credit = verdict.reason.credit();
        let charge = credit == Credit::Charged;
        let mut found = found(submitted, normalised.text, verdict, attempts, credit, self.now());
        let body = keep.as_ref().map(|keep| (keep.render)(&found)).unwrap_or_default();
        let answered = keep.as_ref().map(|keep| Answered {
            request: keep.request,
            salt: keep.salt,
            status: 200,
            body: &body,
        });
        let kept = answered.is_some();
        match self.store.close_check_with(check, charge, answered, self.now()).await? {
            Closed::Done => Ok(Verified { found, kept }),
            // Given back by the sweeper already: then the verdict is on the house.
            Closed::TooLate => {
                found.credit = Credit::Refunded;
                Ok(Verified { found, kept: false })
            }
            Closed::Fenced => Err(VerifyError::TakenOver),
        }
    }
}

fn found(
    submitted: &str,
    address: String,
    verdict: Verdict,
    attempts: i16,
    credit: Credit,
    now: i64,
) -> Found {
    Found {
        seq: 0,
        submitted: (submitted != address).then(|| submitted.to_owned()),
        address,
        reason: verdict.reason,
        score: verdict.score,
        flags: verdict.flags,
        credit,
        attempts,
        checked_at: now,
        smtp_code: verdict.smtp_code,
        mx: verdict.mx,
        did_you_mean: verdict.did_you_mean,
    }
}

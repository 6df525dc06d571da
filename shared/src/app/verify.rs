//! One address, in the request.
//!
//! Bad syntax is free. Otherwise one credit is held, the provider is asked, and the hold is
//! resolved: charged for a definitive verdict, given back for `unknown`. If the process dies in
//! between, the sweeper gives it back.

use super::App;
use crate::app::provider::{Provider, ask};
use crate::domain::address::normalise;
use crate::domain::id::{AccountId, CheckId};
use crate::domain::verdict::{Credit, Reason, Verdict};
use crate::store::StoreError;
use crate::store::checks::Check;
use crate::store::results::Found;

/// Longer than any provider takes, retries included.
const HOLD_MS: i64 = 300_000;

/// Why a single verification was not made.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The balance is empty.
    #[error("the balance is empty")]
    Insufficient,
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl App {
    /// Verifies one address for an account.
    pub async fn verify(
        &self,
        account: AccountId,
        address: &str,
        provider: &dyn Provider,
    ) -> Result<Found, VerifyError> {
        let normalised = normalise(address);
        if normalised.syntax.is_err() {
            let verdict = Verdict::of(Reason::InvalidSyntax);
            return Ok(found(normalised.text, verdict, 0, Credit::Free, self.now()));
        }
        let now = self.now();
        let check = Check { id: CheckId::new(&self.ids, now), account, step: self.ids.number(now) };
        if !self.store.open_check(check, now + HOLD_MS, now).await? {
            return Err(VerifyError::Insufficient);
        }
        let (verdict, attempts) = ask(provider, &normalised.text, 1).await;
        let credit = verdict.reason.credit();
        let charge = credit == Credit::Charged;
        // Given back by the sweeper already: then the verdict is on the house.
        let ours = self.store.close_check(check, charge, self.now()).await?;
        let credit = if ours { credit } else { Credit::Refunded };
        Ok(found(normalised.text, verdict, attempts, credit, self.now()))
    }
}

fn found(address: String, verdict: Verdict, attempts: i16, credit: Credit, now: i64) -> Found {
    Found {
        seq: 0,
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

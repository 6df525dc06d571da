//! What a form asks for is done once, however often the form is sent.
//!
//! A form holds a random number. Who sends it first takes its place among the remembered answers
//! ([`crate::store::idempotency`]) and does the work in a task of its own, so that a reader who closes the page, or
//! presses twice, leaves nothing half done. Whoever sends it again is told what came of it. No secret is
//! remembered: it follows from the salt ([`App::secret_again`]).

use sha2::{Digest, Sha256};

use super::App;
use crate::domain::clock::Millis;
use crate::domain::id::AccountId;
use crate::store::StoreError;
use crate::store::checks::Answered;
use crate::store::idempotency::RequestKey;

/// A form that was sent so long ago and came to nothing died with its process.
const DEAD_MS: Millis = 600_000;

/// A form, as it was sent.
#[derive(Debug, Clone)]
pub struct Form {
    place: RequestKey,
    fingerprint: [u8; 32],
}

impl Form {
    /// A form with its number; `what` says which form and who sends it, `content` what it asks for. A password does
    /// not belong there: its hash would be stored.
    pub fn new(account: AccountId, what: String, number: &str, content: &[&str]) -> Self {
        let mut hash = Sha256::new();
        for part in content {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        // A number of any length and any signs; it is the reader's own.
        let number = Sha256::digest(number).iter().map(|byte| format!("{byte:02x}")).collect();
        let place = RequestKey { account, route: what, key: number };
        Self { place, fingerprint: hash.finalize().into() }
    }
}

/// What came of a form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sent {
    /// It was done.
    Done {
        /// What the work says of it.
        note: String,
        /// Randomness of the work.
        salt: Vec<u8>,
        /// When it was sent first.
        at: Millis,
        /// It was done before.
        again: bool,
    },
    /// It was sent before and is at work.
    AtWork,
    /// It was sent before and asked for something else.
    Other,
}

impl App {
    /// Does what a form asks for, unless that was done before. Work that fails may be tried again.
    pub async fn send_once<F, W, E>(&self, form: Form, work: W) -> Result<Sent, E>
    where
        W: FnOnce([u8; 32]) -> F + Send + 'static,
        F: Future<Output = Result<String, E>> + Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let (salt, now, oldest) = (self.ids.bytes::<32>(), self.now(), self.oldest_answer());
        let (place, print) = (form.place, form.fingerprint);
        let store = &self.store;
        let dead = now - DEAD_MS;
        if !store.reserve_answer(&place, &print, &salt, now, oldest, dead).await? {
            let Some(first) = store.remembered(&place, oldest).await? else {
                return Ok(Sent::AtWork);
            };
            return Ok(match first.body {
                _ if first.fingerprint != print => Sent::Other,
                Some(note) => {
                    Sent::Done { note, salt: first.salt, at: first.created_at, again: true }
                }
                None => Sent::AtWork,
            });
        }
        let app = self.clone();
        let working = tokio::spawn(async move {
            let worked = work(salt).await;
            let kept = match &worked {
                Ok(body) => {
                    let answered = Answered { request: &place, salt: &salt, status: 200, body };
                    app.store.remember_answer(&answered).await.map(|_| ())
                }
                Err(_) => app.store.forget_request(&place, &salt).await,
            };
            if let Err(error) = kept {
                tracing::warn!(%error, form = place.route, "what came of a form was not kept");
            }
            worked
        });
        // Only a panic ends the task early; its place is free again after a while.
        let note = working.await.map_err(|_| StoreError::Away)??;
        Ok(Sent::Done { note, salt: salt.to_vec(), at: now, again: false })
    }
}

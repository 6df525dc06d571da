//! `Idempotency-Key` on small POSTs: done once, answered as often as asked.
//!
//! The place is taken before the work and filled with the answer after it. The work runs in a task
//! of its own, so that a client that hangs up cannot leave it half done with the place taken; if the
//! process dies, the place is free again after [`DEAD_MS`]. Who had it before and comes back from a freeze
//! finds that its salt is not the place's any more, and answers nothing. Work that charges credits keeps its
//! answer in the transaction that charges ([`Place`]). Answers of 402 and 5xx give the place up: nothing
//! was done, and the next try may go better.
//!
//! Submissions of lists have their own way (`app::submit`), since their bodies are streams.

use std::panic::AssertUnwindSafe;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::FutureExt;
use listmill_shared::app::App;
use listmill_shared::store::StoreError;
use listmill_shared::store::checks::Answered;
use listmill_shared::store::idempotency::{Remembered, RequestKey};
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use crate::Api;
use crate::extract::{read_body, require_json};
use crate::gate::Caller;
use crate::problem::{BAD_IDEMPOTENCY_KEY, IN_PROGRESS, KEY_REUSED, PROBLEM_JSON, Problem};

/// A first request that has had no answer for this long died with its process.
const DEAD_MS: i64 = 600_000;

/// Says that an answer is that of an earlier request.
pub const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// Randomness of the first request, kept with its answer.
pub type Salt = [u8; 32];

/// Reads the header.
pub fn key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let bytes = value.as_bytes();
    let fits = (1..=255).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic);
    match value.to_str() {
        Ok(text) if fits => Ok(Some(text.to_owned())),
        _ => Err(Problem::new(
            BAD_IDEMPOTENCY_KEY,
            "The header Idempotency-Key must be 1 to 255 visible ASCII characters.",
        )),
    }
}

/// A small POST that may carry an `Idempotency-Key`.
pub struct Once {
    key: Option<String>,
    route: String,
    fingerprint: [u8; 32],
    headers: HeaderMap,
    body: Bytes,
}

impl FromRequest<Api> for Once {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let key = key(&parts.headers)?;
        let body = read_body(body, api.app.settings.body_idle_timeout).await?;
        let fingerprint = Sha256::new()
            .chain_update(parts.uri.query().unwrap_or_default())
            .chain_update([0])
            .chain_update(&body)
            .finalize()
            .into();
        let route = format!("{} {}", parts.method, parts.uri.path());
        Ok(Self { key, route, fingerprint, headers: parts.headers, body })
    }
}

/// Where the answer will be kept.
#[derive(Clone)]
pub struct Place {
    /// Randomness of this request; the fence of its place.
    pub salt: Salt,
    /// The place; none without an `Idempotency-Key`.
    pub request: Option<RequestKey>,
}

/// What the work came to.
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// JSON.
    pub body: String,
    /// The work itself has kept it in its [`Place`].
    pub kept: bool,
}

impl Answer {
    /// 200.
    pub fn ok(body: String) -> Self {
        Self { status: 200, body, kept: false }
    }
}

/// An answer, of this request or of the first with its key.
pub struct Done {
    /// The answer as remembered.
    pub answer: Answer,
    /// Randomness of the first request.
    pub salt: Vec<u8>,
    replayed: bool,
}

impl IntoResponse for Done {
    fn into_response(self) -> Response {
        let Answer { status, body, .. } = self.answer;
        let kind = if status >= 400 { PROBLEM_JSON } else { "application/json" };
        let mut response = Response::new(Body::from(body));
        *response.status_mut() =
            StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        if self.replayed {
            response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
        }
        response
    }
}

impl Once {
    /// The body as JSON.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        require_json(&self.headers)?;
        Ok(serde_json::from_slice(&self.body)?)
    }

    /// Is there no body?
    pub fn is_empty(&self) -> bool {
        self.body.is_empty()
    }

    /// Makes the place the calling key's own: the answer holds something that only this key gets.
    pub fn scoped(mut self, caller: &Caller) -> Self {
        self.route = format!("{} {}", self.route, caller.key);
        self
    }

    /// Does the work, unless it was done before.
    pub async fn run<F, W>(self, api: &Api, caller: &Caller, work: W) -> Result<Done, Problem>
    where
        W: FnOnce(Place) -> F + Send + 'static,
        F: Future<Output = Result<Answer, Problem>> + Send + 'static,
    {
        let salt: Salt = api.app.ids.bytes();
        let Some(key) = self.key else {
            let answer = work(Place { salt, request: None }).await?;
            return Ok(Done { answer, salt: salt.to_vec(), replayed: false });
        };
        let route = caller.kept_at(self.route);
        let request = RequestKey { account: caller.account, route, key };
        let (now, oldest) = (api.app.now(), api.app.oldest_answer());
        let taken = api
            .app
            .store
            .reserve_answer(&request, &self.fingerprint, &salt, now, oldest, now - DEAD_MS)
            .await?;
        if !taken {
            return replay(api.app.store.remembered(&request, oldest).await?, &self.fingerprint);
        }
        let app = api.app.clone();
        let working = tokio::spawn(async move {
            let place = Place { salt, request: Some(request.clone()) };
            let worked = AssertUnwindSafe(work(place)).catch_unwind().await;
            let worked = worked.unwrap_or_else(|_| {
                tracing::error!(route = request.route, "handler panicked; answered 500");
                Err(Problem::internal())
            });
            match remember(&app, &request, &salt, &worked).await {
                true => worked,
                false => Err(taken_over()),
            }
        });
        let answer = working.await.map_err(|_| Problem::unavailable())??;
        Ok(Done { answer, salt: salt.to_vec(), replayed: false })
    }
}

/// Keeps the answer, or gives the place up; `false`: somebody else has taken the place over.
async fn remember(
    app: &App,
    request: &RequestKey,
    salt: &Salt,
    worked: &Result<Answer, Problem>,
) -> bool {
    let kept = match worked {
        Ok(Answer { kept: true, .. }) => Ok(true),
        Ok(answer) => keep(app, request, salt, answer.status, &answer.body).await,
        Err(problem) if problem.status() < 500 && problem.status() != 402 => {
            keep(app, request, salt, problem.status(), &problem.json()).await
        }
        Err(_) => app.store.forget_request(request, salt).await.map(|()| true),
    };
    kept.unwrap_or_else(|error| {
        tracing::warn!(%error, route = request.route, "answer to an Idempotency-Key not kept");
        true
    })
}

async fn keep(
    app: &App,
    request: &RequestKey,
    salt: &Salt,
    status: u16,
    body: &str,
) -> Result<bool, StoreError> {
    let answered = Answered { request, salt, status: status as i16, body };
    app.store.remember_answer(&answered).await
}

/// The request was so slow that a later one with the same key has done it.
pub fn taken_over() -> Problem {
    Problem::new(IN_PROGRESS, "A later request with this Idempotency-Key was faster. Ask again.")
        .retry_after(1)
}

fn replay(first: Option<Remembered>, fingerprint: &[u8]) -> Result<Done, Problem> {
    match first {
        Some(first) if first.fingerprint != fingerprint => Err(Problem::new(
            KEY_REUSED,
            "An Idempotency-Key stands for one request, body included. Take a new one.",
        )),
        Some(Remembered { status: Some(status), body: Some(body), salt, .. }) => {
            let answer = Answer { status: status as u16, body, kept: true };
            Ok(Done { answer, salt, replayed: true })
        }
        // At work, or given up this very moment: either way the client may ask again.
        _ => Err(Problem::new(IN_PROGRESS, "Ask again in a moment.").retry_after(1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_visible_ascii() {
        let of = |value: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert("idempotency-key", HeaderValue::from_bytes(value).unwrap());
            key(&headers)
        };
        assert_eq!(of(b"march").unwrap().as_deref(), Some("march"));
        assert!(of(&[b'x'; 255]).is_ok());
        for bad in [&b""[..], b"a b", b"\xc3\xa4", &[b'x'; 256]] {
            assert!(of(bad).is_err(), "{bad:?}");
        }
        assert_eq!(key(&HeaderMap::new()).unwrap(), None);
    }

    #[test]
    fn only_the_same_request_is_replayed() {
        let first = |status, body: Option<&str>| {
            Some(Remembered {
                fingerprint: vec![1],
                salt: vec![2],
                status,
                body: body.map(str::to_owned),
                created_at: 0,
            })
        };
        let done = replay(first(Some(201), Some("{}")), &[1]).ok().unwrap();
        assert_eq!((done.answer.status, done.salt), (201, vec![2]));
        assert_eq!(replay(first(Some(201), Some("{}")), &[9]).err().unwrap().status(), 409);
        assert_eq!(replay(first(None, None), &[1]).err().unwrap().status(), 409);
        assert_eq!(replay(None, &[1]).err().unwrap().status(), 409);
    }
}

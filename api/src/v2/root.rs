//! The gate of `/v2`: who calls, with which root key?
//!
//! The caller's network is not blocked (403), the root key is there and not deleted (401), its account is not
//! suspended (403), and it is within its rate, should one be set (429). All on the state of this moment, as at the gate of the other routes; what the key may
//! do is judged where it is done. Every request is a decision in the request log, in the words of the other gate;
//! one whose root key lacks a permission is `scope`.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, FromRequestParts, Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use listmill_shared::domain::audit::{Actor, Origin};
use listmill_shared::domain::id::KeyId;
use listmill_shared::domain::key::Secret;
use listmill_shared::domain::request::Outcome;
use listmill_shared::domain::root_key::RootKey;
use listmill_shared::store::StoreError;
use listmill_shared::throttle::requests::{Allowance, Bucket, Judged};

use crate::Api;
use crate::client_ip::caller_ip;
use crate::extract::linger;
use crate::problem::{
    ACCOUNT_SUSPENDED, IP_BLOCKED, Problem, ROOT_KEY, ROOT_PERMISSION, ROOT_RATE,
};
use crate::request_id::RequestId;
use crate::request_log::Seen;

/// Who passed.
#[derive(Debug, Clone)]
pub struct Root {
    /// The root key.
    pub key: Arc<RootKey>,
    /// Who that is and from where, for the audit log.
    pub origin: Arc<Origin>,
}

impl<S: Sync> FromRequestParts<S> for Root {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.get::<Root>().cloned().ok_or_else(|| {
            tracing::error!(path = parts.uri.path(), "route without a gate; answered 500");
            Problem::internal()
        })
    }
}

/// Why a request is turned away.
enum Turned {
    /// By this check.
    Refused(Outcome, Problem),
    /// The state of this moment cannot be read, so nobody passes.
    Away(StoreError),
}

impl From<StoreError> for Turned {
    fn from(error: StoreError) -> Self {
        Self::Away(error)
    }
}

/// Middleware of every route that needs a root key.
pub async fn gate(State(api): State<Api>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let mut seen = Seen::begin(&api, &parts);
    match admit(&api, &parts, &mut seen).await {
        Ok(root) => {
            seen.judged(Outcome::Accepted);
            parts.extensions.insert(root);
            let response = next.run(Request::from_parts(parts, body)).await;
            let problem = response.extensions().get::<Problem>();
            if problem.is_some_and(|problem| problem.parts("").0 == ROOT_PERMISSION) {
                count(Outcome::Scope);
                seen.judged(Outcome::Scope);
            }
            seen.end(response.status());
            response
        }
        Err(turned) => {
            let response = match turned {
                Turned::Refused(outcome, problem) => {
                    let response = problem.into_response();
                    count(outcome);
                    seen.judged(outcome);
                    seen.end(response.status());
                    response
                }
                Turned::Away(error) => Problem::from(error).into_response(),
            };
            // Most clients read the answer only after sending all they have.
            linger(body).await;
            response
        }
    }
}

async fn admit(api: &Api, parts: &Parts, seen: &mut Seen<'_>) -> Result<Root, Turned> {
    let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip());
    let ip = peer.map(|peer| caller_ip(peer, &parts.headers, &api.proxies));
    let text = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let presented = text.and_then(|text| {
        let (scheme, key) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
    });
    let secret = presented.and_then(Secret::foreign);
    let found = api.app.find_root_key(secret.as_ref()).await?;
    seen.found_root(ip, found.root.as_ref().or(found.gone.as_ref()));
    if let Some(ip) = ip
        && api.blocks.hold(api, ip, found.ip_blocks).await?
    {
        let problem = Problem::new(IP_BLOCKED, "Requests from this address are not taken.");
        return Err(Turned::Refused(Outcome::IpBlocked, problem));
    }
    let Some(root) = found.root else {
        if let Some(text) = presented.filter(|_| found.gone.is_none()) {
            seen.unknown(text);
        }
        let (outcome, detail) = match secret {
            Some(_) => (Outcome::Unknown, "There is no such root key, or it was deleted."),
            None => {
                let detail = "Send a root key in the header Authorization: Bearer root_…";
                (Outcome::Malformed, detail)
            }
        };
        return Err(Turned::Refused(outcome, Problem::new(ROOT_KEY, detail)));
    };
    if let Some(suspended) = found.suspended {
        let problem = Problem::new(ACCOUNT_SUSPENDED, suspended.told());
        return Err(Turned::Refused(Outcome::Suspended, problem));
    }
    judge(api, &root).await.map_err(|problem| Turned::Refused(Outcome::RateLimit, problem))?;
    let request_id = parts.extensions.get::<RequestId>().map(|id| id.as_str().to_owned());
    let origin = Arc::new(Origin { actor: Actor::Root(root.id), ip, request_id });
    Ok(Root { key: Arc::new(root), origin })
}

async fn judge(api: &Api, root: &RootKey) -> Result<(), Problem> {
    let per_minute = api.app.settings.root_rate_limit_per_minute;
    if per_minute == 0 || !api.app.settings.rate_limits {
        return Ok(());
    }
    // Ids of keys and root keys are never the same.
    let bucket = Bucket { key: KeyId(root.id.0), route: "v2" };
    let allowance = Allowance { per_minute, per_day: None };
    let retry_ms = match api.limiter.judge(bucket, allowance, api.app.now()).await {
        Judged::Pass { .. } => return Ok(()),
        Judged::TooMany { retry_ms, .. } | Judged::DayUsedUp { retry_ms } => retry_ms,
    };
    let wait = u32::try_from((retry_ms.max(0) + 999) / 1_000).unwrap_or(u32::MAX).max(1);
    let detail = format!("A root key may send {per_minute} requests a minute. Wait {wait} s.");
    Err(Problem::new(ROOT_RATE, detail).retry_after(wait))
}

fn count(outcome: Outcome) {
    let reason = outcome.as_str();
    metrics::counter!("listmill_gate_refusals_total", "reason" => reason).increment(1);
}

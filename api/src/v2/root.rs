//! The gate of `/v2`: who calls, with which root key?
//!
//! The caller's network is not blocked (403), the root key is there and not deleted (401), and within its rate,
//! should one be set (429). All on the state of this moment, as at the gate of the other routes; what the key may
//! do is judged where it is done.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, FromRequestParts, Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use listmill_shared::domain::id::KeyId;
use listmill_shared::domain::key::Secret;
use listmill_shared::domain::root_key::RootKey;
use listmill_shared::throttle::requests::{Allowance, Bucket, Judged};

use crate::Api;
use crate::client_ip::caller_ip;
use crate::extract::linger;
use crate::problem::{IP_BLOCKED, Problem, ROOT_KEY, ROOT_RATE};

/// Who passed.
#[derive(Debug, Clone)]
pub struct Root {
    /// The root key.
    pub key: Arc<RootKey>,
    /// From where it was used.
    pub ip: Option<IpAddr>,
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

/// Middleware of every route that needs a root key.
pub async fn gate(State(api): State<Api>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    match admit(&api, &parts).await {
        Ok(root) => {
            parts.extensions.insert(root);
            next.run(Request::from_parts(parts, body)).await
        }
        Err(problem) => {
            // Most clients read the answer only after sending all they have.
            linger(body).await;
            problem.into_response()
        }
    }
}

async fn admit(api: &Api, parts: &Parts) -> Result<Root, Problem> {
    let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip());
    let ip = peer.map(|peer| caller_ip(peer, &parts.headers, &api.proxies));
    let text = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let presented = text.and_then(|text| {
        let (scheme, key) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
    });
    let secret = presented.and_then(Secret::foreign);
    let found = api.app.find_root_key(secret.as_ref()).await?;
    if let Some(ip) = ip
        && api.blocks.hold(api, ip, found.ip_blocks).await?
    {
        count("ip_blocked");
        return Err(Problem::new(IP_BLOCKED, "Requests from this address are not taken."));
    }
    let Some(root) = found.root else {
        count("unknown");
        let detail = match secret {
            Some(_) => "There is no such root key, or it was deleted.",
            None => "Send a root key in the header Authorization: Bearer root_…",
        };
        return Err(Problem::new(ROOT_KEY, detail));
    };
    judge(api, &root).await?;
    Ok(Root { key: Arc::new(root), ip })
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
    count("rate_limit");
    let wait = u32::try_from((retry_ms.max(0) + 999) / 1_000).unwrap_or(u32::MAX).max(1);
    let detail = format!("A root key may send {per_minute} requests a minute. Wait {wait} s.");
    Err(Problem::new(ROOT_RATE, detail).retry_after(wait))
}

fn count(reason: &'static str) {
    metrics::counter!("listmill_gate_refusals_total", "reason" => reason).increment(1);
}

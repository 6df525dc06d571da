//! The gate: who calls, and may they?
//!
//! The checks, in this order: the caller's network is blocked (403); no key, or not in the right form
//! (401); no such key, or deleted (401); disabled by its owner (403); its account or the key is suspended (403, with
//! the reason);
//! expired, or not valid yet (401); not from the caller's address (403); it lacks the route's scope (403);
//! over a request limit (429); its own limit of credits is used up (403). All on the state of this moment:
//! the key and the version of the blocked networks are read for every request, and no acceptance is kept.
//! What is kept is the parsed list of blocked networks, with its version; another version reloads it before
//! the request is judged.
//!
//! Only the gate makes a [`Caller`], and handlers cannot do without one.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::body::{Body, HttpBody as _};
use axum::extract::{ConnectInfo, FromRequestParts, MatchedPath, Request, State};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::StreamExt as _;
use listmill_shared::app::keys::By;
use listmill_shared::app::verify::Payer;
use listmill_shared::domain::audit::{Actor, Origin};
use listmill_shared::domain::factor::Factor;
use listmill_shared::domain::id::{AccountId, KeyId, TaskId};
use listmill_shared::domain::key::{Key, Refusal, Secret};
use listmill_shared::domain::request::Outcome;
use listmill_shared::domain::task::Task;
use listmill_shared::store::StoreError;
use listmill_shared::throttle::in_flight::Entered;

use crate::Api;
use crate::client_ip::caller_ip;
use crate::extract::linger;
use crate::limits::{self, LimitHeaders};
use crate::problem::Problem;
use crate::refusals::{self, plain};
use crate::request_id::RequestId;
use crate::request_log::Seen;
use crate::{sandbox, scopes};

/// Who passed the gate.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Who pays, and whose things these are.
    pub account: AccountId,
    /// Which key opened the door.
    pub key: KeyId,
    /// That key, as the gate found it.
    pub door: Arc<Key>,
    /// Who that is and from where, for the audit log.
    pub origin: Arc<Origin>,
}

impl Caller {
    /// The key, as the one who changes keys.
    pub fn by(&self) -> By<'_> {
        By::key(&self.door, &self.origin)
    }

    /// Who pays for a single verification.
    pub fn payer(&self) -> Payer {
        let (key_limited, sandbox) = (self.key_limited(), self.is_test());
        Payer { account: self.account, key: self.key, key_limited, sandbox }
    }

    /// The family that the caller's own tasks belong to, where it may see those alone.
    pub fn own_only(&self) -> Option<KeyId> {
        self.door.scopes.own_only().then_some(self.door.family)
    }

    /// One task that this caller may see.
    pub async fn task(&self, api: &Api, id: TaskId) -> Result<Task, Problem> {
        let task = api.app.task(id, self.account).await?;
        let Some(family) = self.own_only() else { return Ok(task) };
        let own = match task.created_by_key {
            Some(key) => key == self.key || api.app.store.is_of_family(family, key).await?,
            None => false,
        };
        if own { Ok(task) } else { Err(Problem::task_not_found()) }
    }

    /// Fails where this caller may not see the task.
    pub async fn check_own(&self, api: &Api, id: TaskId) -> Result<(), Problem> {
        match self.own_only() {
            Some(_) => self.task(api, id).await.map(|_| ()),
            None => Ok(()),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.get::<Caller>().cloned().ok_or_else(|| {
            tracing::error!(path = parts.uri.path(), "route without a gate; answered 500");
            Problem::internal()
        })
    }
}

/// Why a request is turned away.
enum Turned {
    /// With the same body on every route.
    Refused(Outcome, Response),
    /// The state of this moment cannot be read, so nobody passes.
    Away(StoreError),
}

/// Middleware of every route that needs a key.
pub async fn gate(State(api): State<Api>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let mut seen = Seen::begin(&api, &parts);
    match admit(&api, &parts, &mut seen).await {
        Ok(Admitted { caller, limits, entered }) => {
            seen.judged(Outcome::Accepted);
            let admitted = sandbox::admit(&api, &caller, route(&parts), &parts.uri).await;
            let mut response = match admitted {
                Ok(()) => {
                    parts.extensions.insert(caller);
                    next.run(Request::from_parts(parts, body)).await
                }
                Err(problem) => {
                    linger(body).await;
                    problem.into_response()
                }
            };
            if let Some(limits) = limits {
                limits.write(response.headers_mut());
            }
            seen.end(response.status());
            until_sent(response, entered)
        }
        Err(turned) => {
            if let Turned::Refused(outcome, response) = &turned {
                seen.judged(*outcome);
                seen.end(response.status());
            }
            // Most clients read the answer only after sending all they have.
            linger(body).await;
            match turned {
                Turned::Refused(_, response) => response,
                Turned::Away(error) => Problem::from(error).into_response(),
            }
        }
    }
}

/// The route as it stands in the router.
fn route(parts: &Parts) -> &str {
    parts.extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str)
}

/// A request that passed.
struct Admitted {
    caller: Caller,
    limits: Option<LimitHeaders>,
    /// Until it is over.
    entered: Entered,
}

async fn admit(api: &Api, parts: &Parts, seen: &mut Seen<'_>) -> Result<Admitted, Turned> {
    let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip());
    let ip = peer.map(|peer| caller_ip(peer, &parts.headers, &api.proxies));
    let refused = |refusal: Refusal| refused(api, &refusal);
    let presented = read_key(&api.app.settings.key_prefix, &parts.headers);
    let found = api.app.find_key(presented.secret.as_ref()).await.map_err(Turned::Away)?;
    seen.found(ip, found.key.as_deref());
    if let Some(ip) = ip
        && api.blocks.hold(api, ip, found.ip_blocks).await.map_err(Turned::Away)?
    {
        return Err(refused(Refusal::IpBlocked));
    }
    if found.key.is_none()
        && presented.secret.is_some()
        && let Some(text) = self::presented(&parts.headers)
    {
        seen.unknown(text);
    }
    let now = api.app.now();
    let key = found.key.ok_or_else(|| refused(presented.unless_found))?;
    let entered = api.app.in_flight.enter(key.id);
    if let Err(refusal) = key.admit_in(found.suspended.as_ref(), now, ip) {
        if refusal == Refusal::NotYet {
            seen.not_yet();
        }
        return Err(refused(refusal));
    }
    let route = route(parts);
    let need = scopes::need(&parts.method, route);
    if let Some(scope) = need.scope {
        key.permit(scope).map_err(refused)?;
    }
    let limits = judge(api, route, &key, found.limits.at(now), now).await?;
    if need.spends {
        key.afford(now).map_err(refused)?;
    }
    let request_id = parts.extensions.get::<RequestId>().map(|id| id.as_str().to_owned());
    let origin = Arc::new(Origin { actor: Actor::Key(key.id), ip, request_id });
    let caller = Caller { account: key.account, key: key.id, door: key, origin };
    Ok(Admitted { caller, limits, entered })
}

/// An answer that is made while it is sent keeps its request in flight.
fn until_sent(response: Response, entered: Entered) -> Response {
    if response.body().size_hint().exact().is_some() {
        return response;
    }
    response.map(|body| {
        Body::from_stream(body.into_data_stream().inspect(move |_| {
            let _in_flight = &entered;
        }))
    })
}

/// The address of a caller that needs no key, or the refusal where its network is blocked.
pub async fn stranger(api: &Api, parts: &Parts) -> Result<Option<IpAddr>, Response> {
    let away = |error| Problem::from(error).into_response();
    let Some(peer) = parts.extensions.get::<ConnectInfo<SocketAddr>>() else { return Ok(None) };
    let caller = caller_ip(peer.0.ip(), &parts.headers, &api.proxies);
    // No key has this hash: only the version of the blocked networks is asked for.
    let version = api.app.find_key(None).await.map_err(away)?.ip_blocks;
    match api.blocks.hold(api, caller, version).await.map_err(away)? {
        false => Ok(Some(caller)),
        true => {
            let (status, body) = refusals::body("", &Refusal::IpBlocked);
            count(Outcome::IpBlocked.as_str());
            Err(plain(status, &body))
        }
    }
}

async fn judge(
    api: &Api,
    route: &str,
    key: &Key,
    left: Factor,
    now: i64,
) -> Result<Option<LimitHeaders>, Turned> {
    if !api.app.settings.rate_limits {
        return Ok(None);
    }
    let refused = |response| {
        count(Outcome::RateLimit.as_str());
        Turned::Refused(Outcome::RateLimit, response)
    };
    if let Some(window) = limits::window(key, left) {
        let owner = key.family.0.as_u128();
        let standings = api.windows.take(owner, std::slice::from_ref(&window), now).await;
        if let Some(response) = standings.first().and_then(|s| limits::full(&window, s, now)) {
            return Err(refused(response));
        }
    }
    let budget = limits::budget(route, key, api.app.settings.rate_limit_per_minute, left);
    let judged = api.limiter.judge(budget.bucket, budget.allowance, now).await;
    match limits::render(&budget, judged, now) {
        Ok(headers) => Ok(Some(headers)),
        Err(response) => Err(refused(response)),
    }
}

/// A key as presented.
struct Presented {
    /// What to look up; none when that is no key for certain.
    secret: Option<Secret>,
    /// What to say when there is no such key.
    unless_found: Refusal,
}

/// The key that a request presents. One that is not of our form may have been brought from another system.
fn read_key(prefix: &str, headers: &HeaderMap) -> Presented {
    let Some(text) = presented(headers) else {
        return Presented { secret: None, unless_found: Refusal::Malformed };
    };
    match Secret::parse(prefix, text) {
        Ok(secret) => Presented { secret: Some(secret), unless_found: Refusal::Unknown },
        Err(Refusal::Malformed) => {
            Presented { secret: Secret::foreign(text), unless_found: Refusal::Malformed }
        }
        // A slip in a key of ours, or a key of the same form from elsewhere.
        Err(unless_found) => Presented { secret: Secret::foreign(text), unless_found },
    }
}

/// The key's text, in either header.
fn presented(headers: &HeaderMap) -> Option<&str> {
    let bearer =
        headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(|text| {
            let (scheme, key) = text.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
        });
    bearer.or_else(|| headers.get("x-api-key")?.to_str().ok().map(str::trim))
}

fn count(reason: &'static str) {
    metrics::counter!("listmill_gate_refusals_total", "reason" => reason).increment(1);
}

fn refused(api: &Api, refusal: &Refusal) -> Turned {
    let outcome = refusals::outcome(refusal);
    count(outcome.as_str());
    let (status, body) = refusals::body(&api.app.settings.key_prefix, refusal);
    Turned::Refused(outcome, plain(status, &body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_comes_in_either_header() {
        let of = |pairs: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.insert(*name, value.parse().unwrap());
            }
            presented(&headers).map(str::to_owned)
        };
        assert_eq!(of(&[("authorization", "Bearer VECx")]).as_deref(), Some("VECx"));
        assert_eq!(of(&[("authorization", "bEARER  VECx ")]).as_deref(), Some("VECx"));
        assert_eq!(of(&[("x-api-key", "VECy")]).as_deref(), Some("VECy"));
        let both = [("authorization", "Basic abc"), ("x-api-key", "VECy")];
        assert_eq!(of(&both).as_deref(), Some("VECy"));
        assert_eq!(of(&[("authorization", "Bearer")]), None);
        assert_eq!(of(&[]), None);
    }
}

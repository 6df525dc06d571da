//! The gate: who calls, and may they?
//!
//! The checks, in this order: the caller's network is blocked (403); no key, or not in the right form
//! (401); no such key, or deleted (401); disabled by its owner (403); suspended (403, with the reason);
//! expired (401); over its request limit (429). All on the state of this moment: the key and the
//! version of the blocked networks are read for every request, and no acceptance is kept. What is
//! kept is the parsed list of blocked networks, with its version; another version reloads it before
//! the request is judged.
//!
//! Only the gate makes a [`Caller`], and handlers cannot do without one.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};

use axum::extract::{ConnectInfo, FromRequestParts, MatchedPath, Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use ipnet::{IpNet, Ipv4Net};
use listmill_shared::domain::id::{AccountId, KeyId};
use listmill_shared::domain::key::{Key, Refusal, Secret};
use listmill_shared::store::StoreError;
use serde_json::{Value, json};

use crate::Api;
use crate::extract::linger;
use crate::limits::{self, LimitHeaders};
use crate::problem::Problem;

/// Who passed the gate.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Who pays, and whose things these are.
    pub account: AccountId,
    /// Which key opened the door.
    pub key: KeyId,
    secret: Arc<Secret>,
}

impl Caller {
    /// The key as presented: for deriving from it, never for showing.
    pub fn secret(&self) -> &Secret {
        &self.secret
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
    Refused(Response),
    /// The state of this moment cannot be read, so nobody passes.
    Away(StoreError),
}

/// Middleware of every route that needs a key.
pub async fn gate(State(api): State<Api>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    match admit(&api, &parts).await {
        Ok((caller, limits)) => {
            parts.extensions.insert(caller);
            let mut response = next.run(Request::from_parts(parts, body)).await;
            if let Some(limits) = limits {
                limits.write(response.headers_mut());
            }
            response
        }
        Err(turned) => {
            // Most clients read the answer only after sending all they have.
            linger(body).await;
            match turned {
                Turned::Refused(response) => response,
                Turned::Away(error) => Problem::from(error).into_response(),
            }
        }
    }
}

async fn admit(api: &Api, parts: &Parts) -> Result<(Caller, Option<LimitHeaders>), Turned> {
    let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip());
    let presented = match presented(&parts.headers) {
        Some(text) => Secret::parse(&api.app.settings.key_prefix, text),
        None => Err(Refusal::Malformed),
    };
    // Blocked networks are judged first, so there is a look-up even without a key.
    let hash = presented.as_ref().map_or([0; 32], Secret::hash);
    let found = api.app.find_key(hash).await.map_err(Turned::Away)?;
    if let Some(peer) = peer {
        let caller = caller_ip(peer, &parts.headers, &api.proxies);
        if api.blocks.hold(api, caller, found.ip_blocks).await.map_err(Turned::Away)? {
            return Err(refused(api, &Refusal::IpBlocked));
        }
    }
    let now = api.app.now();
    let secret = presented.map_err(|refusal| refused(api, &refusal))?;
    let key = found.key.ok_or_else(|| refused(api, &Refusal::Unknown))?;
    key.admit(now).map_err(|refusal| refused(api, &refusal))?;
    let limits = judge(api, parts, &key, now).await?;
    Ok((Caller { account: key.account, key: key.id, secret: Arc::new(secret) }, limits))
}

/// The address of a caller that needs no key, or the refusal where its network is blocked.
pub async fn stranger(api: &Api, parts: &Parts) -> Result<Option<IpAddr>, Response> {
    let away = |error| Problem::from(error).into_response();
    let Some(peer) = parts.extensions.get::<ConnectInfo<SocketAddr>>() else { return Ok(None) };
    let caller = caller_ip(peer.0.ip(), &parts.headers, &api.proxies);
    // No key has this hash: only the version of the blocked networks is asked for.
    let version = api.app.find_key([0; 32]).await.map_err(away)?.ip_blocks;
    match api.blocks.hold(api, caller, version).await.map_err(away)? {
        false => Ok(Some(caller)),
        true => {
            let (reason, status, body) = refusal_body("", &Refusal::IpBlocked);
            count(reason);
            Err(plain(status, &body))
        }
    }
}

async fn judge(
    api: &Api,
    parts: &Parts,
    key: &Key,
    now: i64,
) -> Result<Option<LimitHeaders>, Turned> {
    if !api.app.settings.rate_limits {
        return Ok(None);
    }
    let route = parts.extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let budget = limits::budget(route, key, api.app.settings.rate_limit_per_minute);
    let judged = api.limiter.judge(budget.bucket, budget.allowance, now).await;
    match limits::render(&budget, judged, now) {
        Ok(headers) => Ok(Some(headers)),
        Err(response) => {
            count("rate_limit");
            Err(Turned::Refused(response))
        }
    }
}

/// The key that a request presents, in either header.
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
    let (reason, status, body) = refusal_body(&api.app.settings.key_prefix, refusal);
    count(reason);
    Turned::Refused(plain(status, &body))
}

/// Status and body of each refusal, the same on every route.
fn refusal_body(prefix: &str, refusal: &Refusal) -> (&'static str, StatusCode, Value) {
    const SUSPENDED: &str = "API key is suspended";
    const INACTIVE: &str = "Invalid or inactive API key";
    match refusal {
        Refusal::IpBlocked => {
            ("ip_blocked", StatusCode::FORBIDDEN, json!({ "error": "Access denied" }))
        }
        Refusal::Malformed => {
            let text = format!(
                "Missing or invalid Authorization header. Use: Authorization: Bearer {prefix}..."
            );
            ("malformed", StatusCode::UNAUTHORIZED, json!({ "error": text }))
        }
        Refusal::Unknown => ("unknown", StatusCode::UNAUTHORIZED, json!({ "error": INACTIVE })),
        Refusal::Disabled => (
            "disabled",
            StatusCode::FORBIDDEN,
            json!({ "error": SUSPENDED, "reason": "This API key has been suspended" }),
        ),
        Refusal::Suspended(reason) => {
            ("suspended", StatusCode::FORBIDDEN, json!({ "error": SUSPENDED, "reason": reason }))
        }
        Refusal::Expired => (
            "expired",
            StatusCode::UNAUTHORIZED,
            json!({ "error": INACTIVE, "reason": "This API key has expired" }),
        ),
    }
}

/// An answer of the gate: the same JSON on every route.
pub fn plain(status: StatusCode, body: &Value) -> Response {
    let mut response = axum::Json(body).into_response();
    *response.status_mut() = status;
    response
}

/// The blocked networks, parsed, with the version that they had.
#[derive(Default)]
pub struct Blocks(RwLock<Option<(i64, Arc<[IpNet]>)>>);

impl Blocks {
    /// Is this caller inside a blocked network? `version`: of the networks, as read just now.
    async fn hold(&self, api: &Api, caller: IpAddr, version: i64) -> Result<bool, StoreError> {
        let known = {
            let kept = self.0.read().unwrap_or_else(PoisonError::into_inner);
            kept.as_ref().filter(|(at, _)| *at == version).map(|(_, networks)| networks.clone())
        };
        let networks = match known {
            Some(networks) => networks,
            None => {
                // At least as new as `version`; if newer, the next request sees that and reloads.
                let texts = api.app.store.ip_blocks().await?;
                let networks: Arc<[IpNet]> = texts.iter().filter_map(|t| parse_block(t)).collect();
                let mut kept = self.0.write().unwrap_or_else(PoisonError::into_inner);
                *kept = Some((version, networks.clone()));
                networks
            }
        };
        Ok(networks.iter().any(|network| network.contains(&caller)))
    }
}

fn parse_block(text: &str) -> Option<IpNet> {
    let network = parse_network(text);
    if network.is_none() {
        tracing::error!(network = text, "blocked network does not parse; it blocks nobody");
    }
    network
}

/// A network or a single address; IPv4 inside IPv6 becomes IPv4, as callers' addresses do.
fn parse_network(text: &str) -> Option<IpNet> {
    let text = text.trim();
    let network = match text.parse::<IpNet>() {
        Ok(network) => network,
        Err(_) => IpNet::from(text.parse::<IpAddr>().ok()?),
    };
    match network {
        IpNet::V6(v6) if v6.prefix_len() >= 96 => match v6.addr().to_ipv4_mapped() {
            Some(v4) => Ipv4Net::new(v4, v6.prefix_len() - 96).ok().map(IpNet::V4),
            None => Some(network),
        },
        _ => Some(network),
    }
}

/// Reads the setting `trusted_proxies`; the part that does not parse comes back as the error.
pub fn parse_proxies(text: &str) -> Result<Vec<IpNet>, String> {
    text.split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(|part| parse_network(part).ok_or_else(|| part.to_owned()))
        .collect()
}

/// The caller's address: the peer's, or, behind trusted proxies, the right-most hop of
/// `X-Forwarded-For` that is none of them. What stands left of it is only what the caller says.
fn caller_ip(peer: IpAddr, headers: &HeaderMap, proxies: &[IpNet]) -> IpAddr {
    let trusted = |ip: IpAddr| proxies.iter().any(|network| network.contains(&ip));
    let mut caller = peer.to_canonical();
    if !trusted(caller) {
        return caller;
    }
    let values: Vec<&str> =
        headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok()).collect();
    for hop in values.iter().rev().flat_map(|value| value.rsplit(',')) {
        match parse_hop(hop) {
            Some(ip) => caller = ip,
            // Rubbish: the proxy that passed it on is all that is known.
            None => return caller,
        }
        if !trusted(caller) {
            return caller;
        }
    }
    caller
}

/// `192.0.2.1`, `192.0.2.1:443`, `2001:db8::1` or `[2001:db8::1]:443`.
fn parse_hop(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let ip = text
        .parse::<IpAddr>()
        .or_else(|_| text.parse::<SocketAddr>().map(|socket| socket.ip()))
        .or_else(|_| text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>());
    ip.ok().map(|ip| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forwarded(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("x-forwarded-for", value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn only_trusted_proxies_name_the_caller() {
        let proxies = parse_proxies("10.0.0.0/8, 192.0.2.7").unwrap();
        let of = |peer: &str, values: &[&str]| {
            caller_ip(peer.parse().unwrap(), &forwarded(values), &proxies).to_string()
        };
        assert_eq!(of("203.0.113.9", &["198.51.100.1"]), "203.0.113.9");
        assert_eq!(of("10.1.1.1", &[]), "10.1.1.1");
        assert_eq!(of("10.1.1.1", &["198.51.100.1"]), "198.51.100.1");
        assert_eq!(of("::ffff:10.1.1.1", &["::ffff:198.51.100.1"]), "198.51.100.1");
        // What stands left of the right-most untrusted hop is hearsay.
        assert_eq!(of("10.1.1.1", &["1.1.1.1, 198.51.100.1, 192.0.2.7"]), "198.51.100.1");
        assert_eq!(of("10.1.1.1", &["1.1.1.1", "198.51.100.1:80, 10.2.2.2"]), "198.51.100.1");
        assert_eq!(of("10.1.1.1", &["[2001:db8::1]:80"]), "2001:db8::1");
        assert_eq!(of("10.1.1.1", &["198.51.100.1, rubbish, 10.2.2.2"]), "10.2.2.2");
        assert_eq!(of("10.1.1.1", &["10.3.3.3, 10.2.2.2"]), "10.3.3.3");
        assert!(parse_proxies("10.0.0.0/8, nonsense").is_err());
        assert!(parse_proxies("").unwrap().is_empty());
    }

    #[test]
    fn networks_hold_addresses_in_either_form() {
        let holds = |network: &str, ip: &str| {
            parse_network(network).unwrap().contains(&ip.parse::<IpAddr>().unwrap().to_canonical())
        };
        assert!(holds("127.0.0.0/8", "127.3.2.1"));
        assert!(holds("127.0.0.0/8", "::ffff:127.3.2.1"));
        assert!(holds("::ffff:192.0.2.0/120", "192.0.2.77"));
        assert!(holds("192.0.2.7", "192.0.2.7"));
        assert!(holds("2001:db8::/32", "2001:db8::5"));
        assert!(!holds("2001:db8::/32", "2001:db9::5"));
        assert!(parse_network("nonsense").is_none());
    }

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

    #[test]
    fn refusals_say_what_the_contract_says() {
        let body = |refusal| refusal_body("VEC", &refusal);
        let (_, status, text) = body(Refusal::Malformed);
        assert_eq!(status, 401);
        assert_eq!(
            text["error"],
            "Missing or invalid Authorization header. Use: Authorization: Bearer VEC..."
        );
        let (_, status, text) = body(Refusal::Suspended(String::from("Abuse")));
        assert_eq!(status, 403);
        assert_eq!(text, json!({ "error": "API key is suspended", "reason": "Abuse" }));
        assert_eq!(body(Refusal::Unknown).2, json!({ "error": "Invalid or inactive API key" }));
        assert_eq!(body(Refusal::IpBlocked).1, 403);
        assert_eq!(body(Refusal::Expired).1, 401);
        assert_eq!(body(Refusal::Disabled).1, 403);
    }
}

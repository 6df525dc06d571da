//! The gate for other people's APIs: a proxy asks here, with the header of the request in its hands, whether
//! it may pass (`auth_request` of nginx, `forward_auth` of Caddy, `ForwardAuth` of Traefik, `ext_authz` of
//! Envoy). How to set each up: `docs/GATEWAYS.md`.
//!
//! The gate itself has answered before a handler here is reached: what is left is to say who it was.

use axum::extract::{FromRequestParts, Request};
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use listmill_shared::domain::key::{Environment, Scope};
use serde::Deserialize;
use serde_json::json;
use utoipa::IntoParams;

use crate::extract::Params;
use crate::gate::Caller;
use crate::openapi::{Bad, Gate};
use crate::problem::Problem;
use crate::refusals::plain;

const ACCOUNT: HeaderName = HeaderName::from_static("x-listmill-account");
const KEY: HeaderName = HeaderName::from_static("x-listmill-key");
const SCOPES: HeaderName = HeaderName::from_static("x-listmill-scopes");
const ENVIRONMENT: HeaderName = HeaderName::from_static("x-listmill-environment");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Characters of a scope, and of a request's id.
const LONGEST: usize = 128;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ForwardParams {
    /// A scope that the key must have.
    #[param(example = "tasks:read")]
    scope: Option<String>,
    /// Keys of which environment pass: `live` (the default), `test` or `any`.
    #[param(example = "any")]
    environment: Option<String>,
}

/// Ask the gate on behalf of another API
///
/// For proxies. 200 without a body when the key passes: whose it is stands in `X-Listmill-Account`,
/// `X-Listmill-Key` (its id), `X-Listmill-Scopes` (with spaces between them) and
/// `X-Listmill-Environment`. Any other answer is the gate's own. A test key passes only where `environment` says
/// so: what stands behind a proxy is as a rule not made for tests. Every method is taken, since proxies pass on
/// the one that they were asked with, and so is every path below this one.
#[utoipa::path(get, path = "/v1/gate", tag = "keys", params(ForwardParams), responses(
    (status = 200, description = "The key passes.", headers(
        ("X-Listmill-Account" = String, description = "The account."),
        ("X-Listmill-Key" = String, description = "The key's id."),
        ("X-Listmill-Scopes" = String, description = "What the key may do; `*` is everything."),
        ("X-Listmill-Environment" = String, description = "`live` or `test`."),
        ("X-Request-Id" = String, description = "The request's, if it had one."))),
    Bad, Gate))]
pub async fn gate(
    caller: Caller,
    Params(params): Params<ForwardParams>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    if let Some(name) = &params.scope {
        check_form(name)?;
        if !holds(&caller, name) {
            let reason = format!("This API key lacks the scope {name}");
            let body = json!({ "error": "Insufficient permissions", "reason": reason });
            return Ok(plain(StatusCode::FORBIDDEN, &body));
        }
    }
    let passing = match params.environment.as_deref() {
        None | Some("live") => &[Environment::Live][..],
        Some("test") => &[Environment::Test],
        Some("any") => &[Environment::Live, Environment::Test],
        Some(_) => return Err(Problem::query("environment", "can only be live, test or any.")),
    };
    Ok(in_environment(&caller, passing).unwrap_or_else(|| passes(&caller, &headers)))
}

/// The refusal of a key of another environment.
fn in_environment(caller: &Caller, passing: &[Environment]) -> Option<Response> {
    let environment = caller.door.environment;
    if passing.contains(&environment) {
        return None;
    }
    let reason = format!("A {} key does not pass here", environment.as_str());
    let body = json!({ "error": "Insufficient permissions", "reason": reason });
    Some(plain(StatusCode::FORBIDDEN, &body))
}

/// Likewise below `/v1/gate`, where Envoy puts the path that it was asked for. Its query is whatever the
/// client said, and asks for nothing here: live keys pass.
pub async fn below(request: Request) -> Result<Response, Problem> {
    let (mut parts, _) = request.into_parts();
    let caller = Caller::from_request_parts(&mut parts, &()).await?;
    let refusal = in_environment(&caller, &[Environment::Live]);
    Ok(refusal.unwrap_or_else(|| passes(&caller, &parts.headers)))
}

/// What a key may do, with spaces between.
fn scopes(caller: &Caller) -> String {
    caller.door.scopes.names().join(" ")
}

/// May the key do this? What no scope of ours is, only a key that may do everything may.
fn holds(caller: &Caller, name: &str) -> bool {
    let scopes = caller.door.scopes;
    scopes.is_everything() || name.parse::<Scope>().is_ok_and(|scope| scopes.allow(scope))
}

fn check_form(scope: &str) -> Result<(), Problem> {
    let form = |c: char| c.is_ascii_alphanumeric() || ":._-*".contains(c);
    match !scope.is_empty() && scope.len() <= LONGEST && scope.chars().all(form) {
        true => Ok(()),
        false => Err(Problem::query("scope", "must be one scope, such as tasks:read.")),
    }
}

fn passes(caller: &Caller, headers: &HeaderMap) -> Response {
    let mut response = StatusCode::OK.into_response();
    let answer = response.headers_mut();
    // An acceptance holds for this request only.
    answer.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let named = [
        (ACCOUNT, caller.account.to_string()),
        (KEY, caller.key.to_string()),
        (SCOPES, scopes(caller)),
        (ENVIRONMENT, caller.door.environment.as_str().to_owned()),
    ];
    for (name, value) in named {
        // Ids and scopes are ASCII.
        if let Ok(value) = HeaderValue::try_from(value) {
            answer.insert(name, value);
        }
    }
    if let Some(id) = headers.get(REQUEST_ID).filter(|id| id.len() <= LONGEST) {
        answer.insert(REQUEST_ID, id.clone());
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_has_a_form() {
        assert!(check_form("tasks:read").is_ok() && check_form("*").is_ok());
        for wrong in ["", "a b", "é", "a\n", &"a".repeat(129)] {
            assert!(check_form(wrong).is_err(), "{wrong:?}");
        }
    }
}

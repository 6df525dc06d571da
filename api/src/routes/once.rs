//! Links that show a new key's secret once.
//!
//! Nobody needs to log in: who has the link may see the key. A GET shows a page with a button and changes
//! nothing, so that programs which look at links (previews of chats, scanners of mail) do not use it up; the
//! POST of that button shows the secret, to one caller. Links that were used, are over or never were are
//! answered alike. Blocked networks are refused, and each network has as many tries a minute as for reports.
//!
//! The token stands in the path alone: paths are not logged, metrics name the route, and no page says where its
//! reader came from.

use std::sync::LazyLock;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use listmill_shared::domain::audit::{Actor, Origin};
use listmill_shared::domain::key::Token;
use serde::Serialize;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use super::json;
use super::report::too_many;
use crate::Api;
use crate::extract::linger;
use crate::gate::stranger;
use crate::openapi::{self, Refusal, TooMany};
use crate::problem::{LINK_GONE, Problem};
use crate::request_id::RequestId;
use crate::view::{stamp, to_json};

const ROBOTS: HeaderName = HeaderName::from_static("x-robots-tag");
const STYLE: &str = "body{font:1.1em/1.5 system-ui,sans-serif;max-width:40em;margin:3em auto;padding:0 1em}\
    code{display:block;padding:.7em;border:1px solid;overflow-wrap:anywhere;user-select:all}\
    button{font:inherit;padding:.4em 1em}";

/// Nothing but this page's own style; its form goes back to it.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let hash = STANDARD.encode(Sha256::digest(STYLE));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{hash}'; form-action 'self'; base-uri 'none'; \
         frame-ancestors 'none'"
    );
    HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
});

/// What stands in the path.
type Named = Result<Path<String>, PathRejection>;

/// A link that is still of use.
#[derive(Debug, Serialize, ToSchema)]
pub struct LinkView {
    /// When it ends unused.
    #[schema(format = DateTime)]
    expires_at: String,
}

/// A key, shown once.
#[derive(Debug, Serialize, ToSchema)]
pub struct ShownKey {
    /// The secret. It is shown this once and kept nowhere.
    #[schema(example = "VECk7mpq…")]
    key: String,
    /// Id of the key.
    id: String,
    /// The owner's name for it.
    label: String,
}

/// Look at a link to a key
///
/// A page with a button, or JSON where `Accept: application/json` asks for it. Changes nothing, and shows
/// nothing of the key.
#[utoipa::path(get, path = "/once/{token}", tag = "keys", security(()),
    params(("token" = String, Path, description = "As the link has it.")),
    responses((status = 200, description = "It is still of use.", body = LinkView),
        (status = 403, description = "The caller's address is blocked.", body = Refusal),
        (status = 410, description = "It was used, has expired, or never was.", body = openapi::Problem,
            content_type = "application/problem+json"),
        (status = 429, description = "Too many tries from this network; see `Retry-After`.", body = TooMany)))]
pub async fn show(State(api): State<Api>, token: Named, request: Request) -> Response {
    answer(api, token, request, false).await
}

/// Show a key once
///
/// The first to ask is shown the secret, and the link is used up: of many at once, one. Without a body.
#[utoipa::path(post, path = "/once/{token}", tag = "keys", security(()),
    params(("token" = String, Path, description = "As the link has it.")),
    responses((status = 200, description = "The key.", body = ShownKey),
        (status = 403, description = "The caller's address is blocked.", body = Refusal),
        (status = 410, description = "It was used, has expired, or never was.", body = openapi::Problem,
            content_type = "application/problem+json"),
        (status = 429, description = "Too many tries from this network; see `Retry-After`.", body = TooMany)))]
pub async fn open(State(api): State<Api>, token: Named, request: Request) -> Response {
    answer(api, token, request, true).await
}

async fn answer(api: Api, token: Named, request: Request, open: bool) -> Response {
    // What cannot be read is no token of ours either.
    let token = token.map(|path| path.0).unwrap_or_default();
    let (parts, body) = request.into_parts();
    // Nothing that a body could say is asked for.
    linger(body).await;
    let answered = match judged(&api, &token, &parts, open).await {
        Ok(response) => response,
        Err(problem) => problem.into_response(),
    };
    closed(answered)
}

async fn judged(api: &Api, token: &str, parts: &Parts, open: bool) -> Result<Response, Problem> {
    let caller = match stranger(api, parts).await {
        Ok(caller) => caller,
        Err(refusal) => return Ok(refusal),
    };
    if api.app.settings.rate_limits
        && let Err(wait) = api.links.judge(caller)
    {
        return Ok(too_many(wait));
    }
    let as_json = wants_json(&parts.headers);
    let Some(token) = Token::parse(token) else { return Ok(gone(as_json)) };
    if !open {
        return Ok(match api.app.find_link(&token).await? {
            None => gone(as_json),
            Some(ends_at) if as_json => {
                json(StatusCode::OK, to_json(&LinkView { expires_at: stamp(ends_at) }))
            }
            Some(ends_at) => page(StatusCode::OK, "An API key for you", &offer(&stamp(ends_at))),
        });
    }
    let request_id = parts.extensions.get::<RequestId>().map(|id| id.as_str().to_owned());
    let by = Origin { actor: Actor::System, ip: caller, request_id };
    // A caller that hangs up leaves nothing half done: it is used and shown, or neither is so.
    let app = api.app.clone();
    let opened = tokio::spawn(async move { app.open_link(&token, &by).await }).await;
    let opened = opened.map_err(|error| {
        tracing::error!(%error, "a link to a key was not answered; answered 500");
        Problem::internal()
    })??;
    Ok(match opened {
        None => gone(as_json),
        Some((key, secret)) if as_json => {
            let key = ShownKey {
                key: secret.reveal().to_owned(),
                id: key.id.to_string(),
                label: key.label,
            };
            json(StatusCode::OK, to_json(&key))
        }
        Some((key, secret)) => {
            page(StatusCode::OK, "Your API key", &shown(&key.label, secret.reveal()))
        }
    })
}

fn wants_json(headers: &HeaderMap) -> bool {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    accept.contains("application/json") && !accept.contains("text/html")
}

/// Used, over, and never there look the same.
fn gone(as_json: bool) -> Response {
    const TITLE: &str = "This link was used or has expired";
    const ASK: &str = "Whoever sent it can rotate the key and send another.";
    match as_json {
        true => Problem::new(LINK_GONE, ASK).into_response(),
        false => page(StatusCode::GONE, TITLE, &format!("<p>{ASK}</p>")),
    }
}

fn offer(ends_at: &str) -> String {
    // To the minute, for people.
    let ends_at = ends_at.get(..16).unwrap_or(ends_at).replace('T', " ");
    format!(
        "<p>This link shows the key once, to whoever presses the button first. Have a place ready to keep it. \
         Unused, the link ends at {ends_at} UTC.</p>\
         <form method=\"post\"><button>Show the key</button></form>"
    )
}

fn shown(label: &str, secret: &str) -> String {
    format!(
        "<p>This is the only time that it is shown. Keep it now: nobody can show it again.</p>\
         <p>{}</p><code>{}</code>",
        escaped(label),
        escaped(secret)
    )
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

fn page(status: StatusCode, title: &str, body: &str) -> Response {
    let html = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title>\
         <style>{STYLE}</style><h1>{title}</h1>{body}</html>\n"
    );
    let mut response = Response::new(Body::from(html));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/html; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// Nobody keeps it, frames it, finds it or learns where its reader came from.
fn closed(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(ROBOTS, HeaderValue::from_static("noindex, nofollow"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(CONTENT_SECURITY_POLICY, POLICY.clone());
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_hold_no_markup_of_others_and_allow_no_script() {
        let body = shown("<script>'\"&", "VECabc");
        assert!(body.contains("&lt;script&gt;&#39;&quot;&amp;") && !body.contains("<script"));
        let policy = POLICY.to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
        assert!(!policy.contains("script") && !policy.contains("unsafe"));
    }

    #[test]
    fn browsers_get_a_page_and_programs_json() {
        let wants = |accept: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            if let Some(accept) = accept {
                headers.insert(ACCEPT, HeaderValue::from_static(accept));
            }
            wants_json(&headers)
        };
        assert!(wants(Some("application/json")) && !wants(None) && !wants(Some("*/*")));
        assert!(!wants(Some("text/html,application/xhtml+xml,application/json;q=0.9")));
    }
}

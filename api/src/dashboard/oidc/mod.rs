//! Logging in by OpenID Connect: the code flow with PKCE (RFC 6749, RFC 7636, OpenID Connect Core 1.0).
//!
//! | room | holds |
//! | --- | --- |
//! | here | the pages, and what ties a log-in to a browser |
//! | [`issuer`] | what the issuer is asked |
//! | [`token`] | its word, and what must be true of it |
//! | [`places`] | how many ask at once |
//!
//! A log-in is a random token: in the browser's cookie `listmill_oidc` for ten minutes, and its hash in the database,
//! where it is used up. `state`, `nonce` and the PKCE verifier follow from it, each by a hash of its own: what comes
//! back is of use in the browser that began, once, at any process. Afterwards the same cookie holds what stands for a
//! log-in that lacks a one-time code.
//!
//! All that the issuer is asked for one page takes ten seconds at the most, without a transaction open; who finds no
//! place is told so at once. So an issuer that stands still holds nobody else up, least of all by password.
//!
//! The way to the issuer is a page with a `Refresh`, and no redirect: browsers hold redirects of a form against the
//! policy of the page that it stands on (`form-action`), and the issuer may send on to hosts that nobody knows here.

pub mod issuer;
mod places;
mod token;

use std::time::Duration;

use askama::Template;
use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::header::REFRESH;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use listmill_shared::app::identities::{AWAY, Entry, Identity, IdentityError};
use listmill_shared::app::people::PersonError;
use listmill_shared::domain::audit::Origin;
use listmill_shared::domain::key::Token;
use listmill_shared::settings::Settings;
use serde::Deserialize;
use sha2::{Digest, Sha256};

pub use self::issuer::SetupError;
use self::issuer::{Attempt, Issuer, IssuerError, named};
use self::places::Places;
use super::login::{Next, cookie_of, enter, own_path, refused, throttle, with_form};
use super::page::{Failure, Plain, add_cookie, html, html_with};
use super::session::{Asked, agent, cookie, is_secure, origin_of};
use super::text::{filled, text};
use super::tries::network;
use crate::Api;

/// The cookie of a log-in that is under way.
const COOKIE: &str = "listmill_oidc";
/// Where that is sent.
const PATH: &str = "/login/oidc";
/// All that the issuer is asked for one page.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of a code.
const LONGEST_CODE: usize = 4_096;

/// Logging in by an issuer.
pub struct Oidc {
    issuer: Issuer,
    places: Places,
}

impl Oidc {
    /// As the settings say; `None` where they name no issuer.
    pub fn of(settings: &Settings) -> Result<Option<Self>, SetupError> {
        let Some(url) = settings.oidc_issuer.as_deref() else { return Ok(None) };
        Ok(Some(Self { issuer: Issuer::new(url, settings)?, places: Places::default() }))
    }
}

/// The pages.
pub fn router() -> Router<Api> {
    Router::new()
        .route("/login/oidc", post(begin))
        .route("/login/oidc/back", get(back))
        .route("/login/oidc/code", post(code))
}

/// What follows from a log-in's token, for one purpose.
fn derived(token: &Token, purpose: &str) -> String {
    let mut hash = Sha256::new();
    hash.update("listmill: log-in by an issuer: ");
    hash.update(purpose);
    hash.update([0]);
    hash.update(token.bytes());
    URL_SAFE_NO_PAD.encode(hash.finalize())
}

fn pending(headers: &HeaderMap) -> Option<Token> {
    cookie(headers, COOKIE).and_then(Token::parse)
}

fn keep(api: &Api, headers: &HeaderMap, response: &mut Response, token: &Token) {
    let lasts = u64::try_from(AWAY / 1000).unwrap_or(0);
    let line = cookie_of(COOKIE, &token.reveal(), is_secure(api, headers), lasts, PATH);
    add_cookie(response, &line);
}

/// The browser keeps nothing of a log-in that has ended.
fn forgotten(api: &Api, headers: &HeaderMap, mut response: Response) -> Response {
    add_cookie(&mut response, &cookie_of(COOKIE, "", is_secure(api, headers), 0, PATH));
    response
}

/// A text about the issuer, by the name that people know it by.
fn issuer_text(name: &str, api: &Api) -> String {
    filled(name, &[("name", &api.app.settings.oidc_name)])
}

/// Within [`PATIENCE`].
async fn asked<T>(
    question: impl Future<Output = Result<T, IssuerError>>,
) -> Result<T, IssuerError> {
    tokio::time::timeout(PATIENCE, question).await.unwrap_or(Err(IssuerError::Slow))
}

/// The page to log in, saying what is wrong.
fn failed(api: &Api, headers: &HeaderMap, next: &str, error: &IssuerError) -> Response {
    tracing::warn!(%error, "the issuer of OpenID Connect is of no use to a log-in");
    let (status, why) = match error {
        IssuerError::Token(_) => (StatusCode::FORBIDDEN, issuer_text("login.oidc_bad", api)),
        // A code that was used, or is over.
        IssuerError::Refused(_) => (StatusCode::FORBIDDEN, issuer_text("login.oidc_denied", api)),
        _ => (StatusCode::BAD_GATEWAY, issuer_text("login.oidc_away", api)),
    };
    refused(api, headers, status, next, &why)
}

fn busy(api: &Api, headers: &HeaderMap, next: &str) -> Response {
    let why = issuer_text("login.oidc_busy", api);
    refused(api, headers, StatusCode::SERVICE_UNAVAILABLE, next, &why)
}

fn gone(api: &Api, headers: &HeaderMap) -> Response {
    refused(api, headers, StatusCode::FORBIDDEN, "", text("login.oidc_gone"))
}

#[derive(Template)]
#[template(path = "oidc_go.html")]
struct GoPage<'a> {
    page: Plain,
    title: String,
    button: String,
    to: &'a str,
}

/// `POST /login/oidc`
async fn begin(
    State(api): State<Api>,
    parts: Parts,
    Asked(form): Asked<Next>,
) -> Result<Response, Failure> {
    let oidc = api.oidc.as_ref().ok_or(Failure::NotFound)?;
    let from = origin_of(&api, &parts).await?;
    if let Some(wait) = throttle(&api, "", from.ip).await {
        return Err(Failure::TooMany(wait));
    }
    let (headers, next) = (&parts.headers, own_path(&form.next));
    let Some(place) = oidc.places.take(network(from.ip)) else {
        return Ok(busy(&api, headers, next));
    };
    // Noted only when there is a way: what does not begin leaves nothing behind.
    let token = Token::from(api.app.ids.bytes::<32>());
    let of = |purpose| derived(&token, purpose);
    let (state, nonce, verifier) = (of("state"), of("nonce"), of("verifier"));
    let way = asked(oidc.issuer.way(&state, &nonce, &verifier, api.app.now())).await;
    drop(place);
    let to = match way {
        Ok(to) => to,
        Err(error) => return Ok(failed(&api, headers, next, &error)),
    };
    api.app.begin_issuer_login(&token, next).await?;
    let title = issuer_text("login.oidc_title", &api);
    let button = issuer_text("login.oidc_go", &api);
    let mut response = html(&GoPage { page: Plain, title, button, to: &to });
    if let Ok(refresh) = HeaderValue::from_str(&format!("0;url={to}")) {
        response.headers_mut().insert(REFRESH, refresh);
    }
    keep(&api, headers, &mut response, &token);
    Ok(response)
}

/// What the issuer sends the browser back with.
#[derive(Deserialize, Default)]
struct Back {
    code: Option<String>,
    state: Option<String>,
    error: Option<String>,
    iss: Option<String>,
}

/// `GET /login/oidc/back`
async fn back(
    State(api): State<Api>,
    query: Result<Query<Back>, QueryRejection>,
    parts: Parts,
) -> Result<Response, Failure> {
    let oidc = api.oidc.as_ref().ok_or(Failure::NotFound)?;
    let from = origin_of(&api, &parts).await?;
    if let Some(wait) = throttle(&api, "", from.ip).await {
        return Err(Failure::TooMany(wait));
    }
    let headers = &parts.headers;
    let back = query.map(|Query(back)| back).unwrap_or_default();
    let begun = pending(headers)
        .filter(|token| back.state.as_deref() == Some(derived(token, "state").as_str()));
    let Some(token) = begun else { return Ok(gone(&api, headers)) };
    // Before it is used up: who finds no place may load the page again.
    let Some(place) = oidc.places.take(network(from.ip)) else {
        return Ok(busy(&api, headers, ""));
    };
    let Some(next) = api.app.take_issuer_login(&token).await? else {
        return Ok(forgotten(&api, headers, gone(&api, headers)));
    };
    let code = match code_of(oidc, &back) {
        Ok(code) => code,
        Err(error) => return Ok(forgotten(&api, headers, denied(&api, headers, &next, error))),
    };
    let (verifier, nonce) = (derived(&token, "verifier"), derived(&token, "nonce"));
    let attempt = Attempt { code, verifier: &verifier, nonce: &nonce };
    let identity = asked(oidc.issuer.identity(&attempt, api.app.now())).await;
    drop(place);
    match identity {
        Ok(identity) => admit(&api, headers, &identity, &next, &from).await,
        Err(error) => Ok(forgotten(&api, headers, failed(&api, headers, &next, &error))),
    }
}

/// Lets in whom the issuer has named, or asks for the one-time code.
async fn admit(
    api: &Api,
    headers: &HeaderMap,
    identity: &Identity,
    next: &str,
    from: &Origin,
) -> Result<Response, Failure> {
    match api.app.identify(identity, next, agent(headers), from).await {
        Ok(Entry::In(session)) => enter_by(api, headers, &session, next).await,
        Ok(Entry::Code(token)) => {
            let mut page = code_page(api, headers, None);
            keep(api, headers, &mut page, &token);
            Ok(page)
        }
        Err(error) => nobody(api, headers, next, error),
    }
}

/// The code; or the name of the error that came in its place.
fn code_of<'a>(oidc: &Oidc, back: &'a Back) -> Result<&'a str, &'a str> {
    // RFC 9207: another issuer's code is none for this one.
    if back.iss.as_deref().is_some_and(|iss| iss != oidc.issuer.url()) {
        return Err("iss");
    }
    match (&back.error, &back.code) {
        (Some(error), _) => Err(error),
        (None, Some(code)) if !code.is_empty() && code.len() <= LONGEST_CODE => Ok(code),
        _ => Err("no_code"),
    }
}

fn denied(api: &Api, headers: &HeaderMap, next: &str, error: &str) -> Response {
    let code = named(error);
    tracing::info!(%code, "the issuer of OpenID Connect lets nobody in");
    let name = api.app.settings.oidc_name.as_str();
    let why = match code.as_str() {
        "access_denied" => issuer_text("login.oidc_denied", api),
        code => filled("login.oidc_error", &[("name", name), ("code", code)]),
    };
    refused(api, headers, StatusCode::FORBIDDEN, next, &why)
}

/// Goes on with a session; what stood for the log-in is used up.
async fn enter_by(
    api: &Api,
    headers: &HeaderMap,
    session: &Token,
    next: &str,
) -> Result<Response, Failure> {
    let response = enter(api, headers, session, own_path(next)).await?;
    Ok(forgotten(api, headers, response))
}

/// Whom the issuer knows, and who is not let in all the same.
fn nobody(
    api: &Api,
    headers: &HeaderMap,
    next: &str,
    error: IdentityError,
) -> Result<Response, Failure> {
    tracing::info!(%error, "somebody whom the issuer knows is not let in");
    let why = match error {
        IdentityError::Unverified => issuer_text("login.oidc_unverified", api),
        IdentityError::Another => issuer_text("login.oidc_another", api),
        // Without a place in an account there is nothing to see either.
        IdentityError::Unknown | IdentityError::Person(PersonError::Refused) => {
            issuer_text("login.oidc_unknown", api)
        }
        IdentityError::Gone => text("login.oidc_gone").to_owned(),
        IdentityError::Person(error) => return Err(error.into()),
    };
    let response = refused(api, headers, StatusCode::FORBIDDEN, next, &why);
    Ok(forgotten(api, headers, response))
}

#[derive(Template)]
#[template(path = "oidc_code.html")]
struct CodePage<'a> {
    page: Plain,
    csrf: String,
    why: String,
    wrong: Option<&'a str>,
}

fn code_page(api: &Api, headers: &HeaderMap, wrong: Option<&str>) -> Response {
    let status = if wrong.is_some() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    with_form(api, headers, |csrf| {
        let why = issuer_text("login.oidc_code_why", api);
        html_with(status, &CodePage { page: Plain, csrf, why, wrong })
    })
}

/// What the form of the code sends.
#[derive(Deserialize)]
struct CodeForm {
    #[serde(default)]
    code: String,
}

/// `POST /login/oidc/code`
async fn code(
    State(api): State<Api>,
    parts: Parts,
    Asked(form): Asked<CodeForm>,
) -> Result<Response, Failure> {
    let from: Origin = origin_of(&api, &parts).await?;
    let headers = &parts.headers;
    let email = match &pending(headers) {
        Some(token) => api.app.pending_email(token).await?.map(|email| (token.clone(), email)),
        None => None,
    };
    // As many tries as with a password.
    let counted = email.as_ref().map_or("", |(_, email)| email.as_str());
    if let Some(wait) = throttle(&api, counted, from.ip).await {
        return Err(Failure::TooMany(wait));
    }
    let Some((token, _)) = email else { return Ok(gone(&api, headers)) };
    match api.app.identify_with_code(&token, &form.code, agent(headers), &from).await {
        Ok((session, next)) => enter_by(&api, headers, &session, &next).await,
        Err(IdentityError::Person(PersonError::Refused)) => {
            Ok(code_page(&api, headers, Some(text("login.oidc_code_wrong"))))
        }
        Err(error) => nobody(&api, headers, "", error),
    }
}

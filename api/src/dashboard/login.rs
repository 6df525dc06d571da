//! Logging in and out, and the links that stand in for a password.
//!
//! Whether somebody is known, is not told: wrong emails, passwords and codes are answered alike. Tries are
//! counted by email and network, by email, and by network, over all processes. A link is looked at by GET,
//! which changes nothing (programs that look at links do not use it up), and used by POST.

use std::net::IpAddr;

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use listmill_shared::app::people::{Credentials, PersonError};
use listmill_shared::domain::key::Token;
use listmill_shared::store::person_links::{LinkKind, PersonLink};
use serde::Deserialize;

use super::page::{Failure, Plain, add_cookie, html_with, see_other, see_other_saying};
use super::session::{
    Asked, FORM, Nothing, Posted, SESSION, Viewer, agent, csrf_of, form_token, is_secure, notice,
    origin_of, session_token, written,
};
use super::text;
use super::tries::{self, Limit, MINUTE};
use crate::Api;

/// Where everybody begins.
pub const HOME: &str = "/tasks";

#[derive(Template)]
#[template(path = "login.html")]
struct LoginPage<'a> {
    page: Plain,
    csrf: String,
    next: &'a str,
    email: &'a str,
    code: bool,
    wrong: Option<&'a str>,
    notice: String,
    forgot: bool,
    sign_up: bool,
    /// What the button to an issuer says, where there is one.
    oidc: Option<String>,
}

fn login_page(
    api: &Api,
    headers: &HeaderMap,
    (next, email, code): (&str, &str, bool),
    wrong: Option<(StatusCode, &str)>,
) -> Response {
    let (forgot, sign_up) = (api.app.mail.is_on(), api.app.settings.sign_up);
    let (status, wrong) = wrong.map_or((StatusCode::OK, None), |(s, why)| (s, Some(why)));
    let name = api.app.settings.oidc_name.as_str();
    let oidc = api.oidc.as_ref().map(|_| text::filled("login.oidc_button", &[("name", name)]));
    with_form(api, headers, |csrf| {
        let (page, next, notice) = (Plain, own_path(next), notice(headers).unwrap_or_default());
        html_with(
            status,
            &LoginPage { page, csrf, next, email, code, wrong, notice, forgot, sign_up, oidc },
        )
    })
}

/// The page to log in, with what stands in the way of another way in.
pub fn refused(
    api: &Api,
    headers: &HeaderMap,
    status: StatusCode,
    next: &str,
    wrong: &str,
) -> Response {
    login_page(api, headers, (next, "", false), Some((status, wrong)))
}

/// Where to go afterwards.
#[derive(Deserialize)]
pub struct Next {
    /// A page of ours; whatever else stands there is home.
    #[serde(default)]
    pub next: String,
}

/// What the form sends.
#[derive(Deserialize)]
pub struct LoginForm {
    #[serde(default)]
    email: String,
    #[serde(default)]
    password: String,
    code: Option<String>,
    #[serde(default)]
    next: String,
}

/// A path of ours, or home: `//evil.example` and the like lead elsewhere.
pub fn own_path(next: &str) -> &str {
    let own = next.starts_with('/')
        && !next.starts_with("//")
        && !next.contains('\\')
        && !next.starts_with("/login")
        && !next.starts_with("/logout")
        && next.bytes().all(|b| b.is_ascii_graphic())
        && next.len() <= 1_000;
    if own { next } else { HOME }
}

/// A cookie that no script sees.
pub fn cookie_of(name: &str, value: &str, secure: bool, seconds: u64, path: &str) -> String {
    let secure = if secure { "; Secure" } else { "" };
    format!("{name}={value}; Path={path}; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}")
}

/// A page whose form needs no session, and the cookie that its token follows from.
pub fn with_form(
    api: &Api,
    headers: &HeaderMap,
    page: impl FnOnce(String) -> Response,
) -> Response {
    let known = form_token(headers);
    let token = known.unwrap_or_else(|| Token::from(api.app.ids.bytes::<32>()));
    let mut response = page(written(csrf_of(&token), api.app.ids.bytes()));
    let cookie = cookie_of(FORM, &token.reveal(), is_secure(api, headers), 86_400, "/");
    add_cookie(&mut response, &cookie);
    response
}

/// `GET /login`
pub async fn show(
    State(api): State<Api>,
    Query(Next { next }): Query<Next>,
    parts: Parts,
) -> Result<Response, Failure> {
    origin_of(&api, &parts).await?;
    if let Some(token) = session_token(&parts.headers)
        && api.app.session(&token).await?.is_some()
    {
        return Ok(see_other(own_path(&next)));
    }
    Ok(login_page(&api, &parts.headers, (&next, "", false), None))
}

/// `POST /login`
pub async fn log_in(
    State(api): State<Api>,
    parts: Parts,
    Asked(form): Asked<LoginForm>,
) -> Result<Response, Failure> {
    let from = origin_of(&api, &parts).await?;
    let headers = &parts.headers;
    let again = |status, wrong, code| {
        let wrong = Some((status, text::text(wrong)));
        login_page(&api, headers, (&form.next, &form.email, code), wrong)
    };
    if let Some(wait) = throttle(&api, &form.email, from.ip).await {
        return Err(Failure::TooMany(wait));
    }
    let code = form.code.as_deref();
    let with = Credentials { email: &form.email, password: &form.password, code };
    match api.app.log_in(with, agent(headers), &from).await {
        Ok(token) => enter(&api, headers, &token, own_path(&form.next)).await,
        Err(PersonError::CodeNeeded) => Ok(again(StatusCode::OK, "login.code_needed", true)),
        Err(PersonError::Refused) => {
            Ok(again(StatusCode::UNPROCESSABLE_ENTITY, "login.refused", code.is_some()))
        }
        Err(error) => Err(error.into()),
    }
}

/// Goes on with a new session. One that stood in this browser ends: its token is of no use to whoever set it.
pub async fn enter(
    api: &Api,
    headers: &HeaderMap,
    token: &Token,
    next: &str,
) -> Result<Response, Failure> {
    if let Some(old) = session_token(headers) {
        api.app.log_out(&old).await?;
    }
    Ok(logged_in(api, headers, token, next))
}

/// Goes on with a session's cookie.
pub fn logged_in(api: &Api, headers: &HeaderMap, token: &Token, next: &str) -> Response {
    let mut response = see_other(next);
    set_session(api, headers, &mut response, token);
    add_cookie(&mut response, &cookie_of(FORM, "", is_secure(api, headers), 0, "/"));
    response
}

/// Hands the browser a session's token.
pub fn set_session(api: &Api, headers: &HeaderMap, response: &mut Response, token: &Token) {
    let (secure, lasts) = (is_secure(api, headers), api.app.settings.session_ttl.as_secs());
    add_cookie(response, &cookie_of(SESSION, &token.reveal(), secure, lasts, "/"));
}

/// `POST /logout`
pub async fn log_out(
    State(api): State<Api>,
    viewer: Viewer,
    headers: HeaderMap,
    Posted(Nothing {}): Posted<Nothing>,
) -> Result<Response, Failure> {
    api.app.log_out(viewer.token()).await?;
    let mut response = see_other("/login");
    add_cookie(&mut response, &cookie_of(SESSION, "", is_secure(&api, &headers), 0, "/"));
    Ok(response)
}

/// Counts a try to log in; the seconds to wait when it is one too many.
pub async fn throttle(api: &Api, email: &str, ip: Option<IpAddr>) -> Option<u64> {
    if !api.app.settings.rate_limits {
        return None;
    }
    let (email, network) = (email.trim().to_lowercase(), tries::network(ip));
    // By both first: who is at home elsewhere is not kept out by somebody who guesses. A link names no email:
    // its uses are counted by network alone, or all people would share one count.
    let counted = [
        (!email.is_empty(), format!("login {email} {network}"), 10, 10 * MINUTE),
        (true, format!("login from {network}"), 100, 10 * MINUTE),
        (!email.is_empty(), format!("login {email}"), 100, 60 * MINUTE),
    ];
    for (_, owner, most, in_ms) in counted.into_iter().filter(|(counts, ..)| *counts) {
        if let Some(wait) = tries::take(api, &owner, Limit { most, in_ms }).await {
            return Some(wait);
        }
    }
    None
}

#[derive(Template)]
#[template(path = "link.html")]
struct LinkPage<'a> {
    page: Plain,
    csrf: String,
    title: &'a str,
    why: &'a str,
    email: &'a str,
    /// What the field for a password is called; none = there is no such field.
    label: Option<&'a str>,
    hint: &'a str,
    button: &'a str,
    wrong: Option<&'a str>,
}

/// What the form of a link sends.
#[derive(Deserialize)]
pub struct LinkForm {
    password: Option<String>,
}

fn link_page(api: &Api, headers: &HeaderMap, link: &PersonLink, wrong: Option<&str>) -> Response {
    let t = |name: &'static str| text::text(name);
    let log_in = t("login.button");
    let (title, why, label, button) = match link.kind {
        LinkKind::Login => (t("login.link_title"), "login.link_why", None, log_in),
        LinkKind::Password => (
            t("login.password_title"),
            "login.password_why",
            Some(t("login.new_password")),
            t("login.password_button"),
        ),
        LinkKind::Invite { .. } => {
            (t("login.invite_title"), "login.invite_why", Some(t("login.password")), log_in)
        }
        LinkKind::SignUp => (
            t("login.sign_up_title"),
            "login.confirmed_why",
            Some(t("login.password")),
            t("login.sign_up_button"),
        ),
    };
    let hint = match link.kind {
        LinkKind::Invite { .. } => t("login.password_hint"),
        _ => t("login.new_password_hint"),
    };
    let why = text::filled(why, &[("email", &link.email)]);
    with_form(api, headers, |csrf| {
        let status =
            if wrong.is_some() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
        let (page, why, email) = (Plain, why.as_str(), link.email.as_str());
        html_with(status, &LinkPage { page, csrf, title, why, email, label, hint, button, wrong })
    })
}

fn gone() -> Failure {
    Failure::Wrong(PersonError::LinkGone.to_string())
}

/// `GET /login/link/{token}`
pub async fn show_link(
    State(api): State<Api>,
    Path(token): Path<String>,
    parts: Parts,
) -> Result<Response, Failure> {
    let from = origin_of(&api, &parts).await?;
    if let Some(wait) = throttle(&api, "", from.ip).await {
        return Err(Failure::TooMany(wait));
    }
    let token = Token::parse(&token).ok_or_else(gone)?;
    let link = api.app.find_person_link(&token).await?.ok_or_else(gone)?;
    Ok(link_page(&api, &parts.headers, &link, None))
}

/// `POST /login/link/{token}`
pub async fn use_link(
    State(api): State<Api>,
    Path(token): Path<String>,
    parts: Parts,
    Asked(form): Asked<LinkForm>,
) -> Result<Response, Failure> {
    let from = origin_of(&api, &parts).await?;
    if let Some(wait) = throttle(&api, "", from.ip).await {
        return Err(Failure::TooMany(wait));
    }
    let token = Token::parse(&token).ok_or_else(gone)?;
    let link = api.app.find_person_link(&token).await?.ok_or_else(gone)?;
    let headers = &parts.headers;
    let (password, agent) = (form.password.as_deref(), agent(headers));
    match api.app.use_person_link(&token, password, agent, &from).await {
        Ok(session) => Ok(logged_in(&api, headers, &session, HOME)),
        Err(PersonError::CodeNeeded) => Ok(see_other_saying("/login", text::text("login.go_on"))),
        Err(error @ (PersonError::Field(..) | PersonError::Refused | PersonError::State(_))) => {
            Ok(link_page(&api, headers, &link, Some(&error.to_string())))
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_leads_to_our_own_pages_alone() {
        for own in ["/tasks", "/tasks/task_1?status=risky", "/operator/accounts"] {
            assert_eq!(own_path(own), own);
        }
        for other in [
            "",
            "tasks",
            "//evil.example",
            "https://evil.example",
            "/\\evil.example",
            "\\evil",
            "/login?next=/x",
            "/logout",
            "javascript:alert(1)",
            "/a\nb",
            "/tasks\u{a0}",
        ] {
            assert_eq!(own_path(other), HOME, "{other:?}");
        }
    }
}

//! What somebody may ask for who cannot log in: another password, or an account.
//!
//! Where mails are sent, both are answered alike for everybody, at once: what comes of it comes by mail. Each page is
//! there only where the settings allow it (`smtp_url`, `sign_up`).

use askama::Template;
use axum::extract::State;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use listmill_shared::app::people::PersonError;
use serde::Deserialize;

use super::letters;
use super::login::{HOME, logged_in, with_form};
use super::page::{Failure, Plain, html_with, see_other, see_other_saying};
use super::session::{Asked, agent, origin_of, session_token};
use super::text::text;
use super::tries::{self, Limit, MINUTE};
use crate::Api;

/// Lost passwords of one network.
const FORGOTTEN: Limit = Limit { most: 30, in_ms: 10 * MINUTE };
/// Accounts that one network asks for.
const SIGN_UPS: Limit = Limit { most: 10, in_ms: 60 * MINUTE };

#[derive(Template)]
#[template(path = "ask.html")]
struct AskPage<'a> {
    page: Plain,
    csrf: String,
    title: &'a str,
    why: &'a str,
    button: &'a str,
    email: &'a str,
    password: bool,
    wrong: Option<String>,
}

/// What the forms send.
#[derive(Deserialize)]
pub struct AskForm {
    #[serde(default)]
    email: String,
    #[serde(default)]
    password: String,
}

fn status(wrong: Option<&String>) -> StatusCode {
    if wrong.is_some() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK }
}

fn forgot_page(api: &Api, headers: &HeaderMap, email: &str, wrong: Option<String>) -> Response {
    with_form(api, headers, |csrf| {
        let (title, why) = (text("login.forgot_title"), text("login.forgot_why"));
        let (page, button, password) = (Plain, text("login.forgot_button"), false);
        let status = status(wrong.as_ref());
        html_with(status, &AskPage { page, csrf, title, why, button, email, password, wrong })
    })
}

fn sign_up_page(api: &Api, headers: &HeaderMap, email: &str, wrong: Option<String>) -> Response {
    let password = !api.app.mail.is_on();
    let why = if password { text("login.sign_up_why") } else { text("login.sign_up_by_mail_why") };
    with_form(api, headers, |csrf| {
        let (page, title, button) =
            (Plain, text("login.sign_up_title"), text("login.sign_up_button"));
        let status = status(wrong.as_ref());
        html_with(status, &AskPage { page, csrf, title, why, button, email, password, wrong })
    })
}

/// `GET /login/forgot`
pub async fn show_forgot(State(api): State<Api>, parts: Parts) -> Result<Response, Failure> {
    origin_of(&api, &parts).await?;
    match api.app.mail.is_on() {
        true => Ok(forgot_page(&api, &parts.headers, "", None)),
        false => Err(Failure::NotFound),
    }
}

/// `POST /login/forgot`
pub async fn forgot(
    State(api): State<Api>,
    parts: Parts,
    Asked(form): Asked<AskForm>,
) -> Result<Response, Failure> {
    let from = origin_of(&api, &parts).await?;
    if !api.app.mail.is_on() {
        return Err(Failure::NotFound);
    }
    if let Some(wait) = tries::ask(&api, "forgotten password", from.ip, FORGOTTEN).await {
        return Err(Failure::TooMany(wait));
    }
    if let Err(error) = api.app.check_address(&form.email) {
        return Ok(forgot_page(&api, &parts.headers, &form.email, Some(error.to_string())));
    }
    letters::reset(api, form.email, from);
    Ok(see_other_saying("/login", text("login.forgot_sent")))
}

/// `GET /signup`
pub async fn show_sign_up(State(api): State<Api>, parts: Parts) -> Result<Response, Failure> {
    origin_of(&api, &parts).await?;
    if !api.app.settings.sign_up {
        return Err(Failure::NotFound);
    }
    if let Some(token) = session_token(&parts.headers)
        && api.app.session(&token).await?.is_some()
    {
        return Ok(see_other(HOME));
    }
    Ok(sign_up_page(&api, &parts.headers, "", None))
}

/// `POST /signup`
pub async fn sign_up(
    State(api): State<Api>,
    parts: Parts,
    Asked(form): Asked<AskForm>,
) -> Result<Response, Failure> {
    let from = origin_of(&api, &parts).await?;
    if !api.app.settings.sign_up {
        return Err(Failure::NotFound);
    }
    if let Some(wait) = tries::ask(&api, "sign-up", from.ip, SIGN_UPS).await {
        return Err(Failure::TooMany(wait));
    }
    let headers = &parts.headers;
    let again =
        |error: PersonError| sign_up_page(&api, headers, &form.email, Some(error.to_string()));
    if api.app.mail.is_on() {
        if let Err(error) = api.app.check_address(&form.email) {
            return Ok(again(error));
        }
        letters::sign_up(api.clone(), form.email, from);
        return Ok(see_other_saying("/login", text("login.sign_up_sent")));
    }
    match api.app.sign_up(&form.email, &form.password, agent(headers), &from).await {
        Ok(token) => Ok(logged_in(&api, headers, &token, HOME)),
        Err(error @ (PersonError::Field(..) | PersonError::State(_))) => Ok(again(error)),
        Err(error) => Err(error.into()),
    }
}

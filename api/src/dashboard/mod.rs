//! The dashboard: pages for people, made on the server.
//!
//! | room | holds |
//! | --- | --- |
//! | [`session`] | who looks at a page, and the forms that they send |
//! | [`page`] | what every page has; what is answered when there is none |
//! | [`text`], [`format`] | words; numbers and dates |
//! | [`assets`] | the stylesheet and the scripts |
//! | [`charts`] | figures as pictures |
//! | [`login`], [`oidc`], [`tries`] | logging in and out, by OpenID Connect, and how often one may try |
//! | [`ask`], [`letters`] | lost passwords and sign-up; the mails that are sent |
//! | [`keys`], [`requests`] | keys and their ends; the request log |
//! | [`reference`] | the API reference |
//! | [`query`] | links with a query, texts with markup |
//! | [`operator`] | the operators' pages |
//! | [`credits`], [`account`] | these pages |
//! | [`tasks`], [`task_row`], [`upload`] | the list of tasks, a row of it, and the form that starts one |
//! | [`task`], [`reasons`] | one task with its results, and how many of them have each reason |
//!
//! Every dialog is a page: `/keys/new` is `/keys` with a dialog in it, which a script makes modal. So all of it
//! works without a script. What is posted is answered by a redirect, so that nothing is sent twice.

mod account;
mod ask;
mod assets;
mod charts;
mod credits;
mod format;
mod keys;
pub mod letters;
mod login;
pub mod oidc;
mod operator;
pub mod page;
mod query;
pub mod reasons;
pub mod reference;
mod requests;
pub mod session;
mod task;
mod task_results;
mod task_row;
mod task_timeline;
mod tasks;
mod text;
mod tries;
mod upload;

use axum::Router;
use axum::middleware::from_fn;
use axum::routing::{get, post};

use crate::Api;

/// Where the picture of our pages is.
pub fn favicon() -> &'static str {
    assets::path("favicon.svg")
}

/// The pages.
pub fn router(api: Api) -> Router {
    let pages = Router::new()
        .route("/login", get(login::show).post(login::log_in))
        .route("/login/link/{token}", get(login::show_link).post(login::use_link))
        .route("/login/forgot", get(ask::show_forgot).post(ask::forgot))
        .route("/signup", get(ask::show_sign_up).post(ask::sign_up))
        .route("/logout", post(login::log_out))
        .merge(oidc::router())
        .merge(tasks::router())
        .merge(keys::router())
        .route("/requests", get(requests::list))
        .merge(operator::router())
        .merge(account::router())
        .route("/credits", get(credits::show))
        .route("/credits/ledger.csv", get(credits::file))
        .layer(from_fn(page::closed));
    Router::new().route("/assets/{hash}/{name}", get(assets::serve)).merge(pages).with_state(api)
}

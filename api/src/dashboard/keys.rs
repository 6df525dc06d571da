//! The page of keys, and the dialogs above it: made in [`new`], ended, changed and rotated in [`act`].
//!
//! Everybody of the account sees its keys; only owners change them, which the server judges, whatever a page shows. A
//! secret stands in the answer to the form that made it ([`made`]), and nowhere else.

mod act;
mod limits;
mod made;
mod new;
mod receipt;
mod samples;
mod sight;

use std::collections::HashMap;

use askama::Template;
use axum::Router;
use axum::extract::{Query, State};
use axum::response::Response;
use axum::routing::get;
use listmill_shared::app::key_pages::KeySearch;
use listmill_shared::domain::id::KeyId;

use self::sight::Row;
use super::page::{Failure, Page, html};
use super::query::link;
use super::session::Viewer;
use crate::Api;

/// Keys on a page.
const PAGE: usize = 50;
/// States that the list can be narrowed to.
const STATES: [&str; 6] = ["active", "disabled", "suspended", "expired", "not_yet", "deleted"];

/// The pages of keys.
pub fn router() -> Router<Api> {
    Router::new()
        .route("/keys", get(list))
        .route("/keys/new", get(new::ask).post(new::generate))
        .route("/keys/{id}/receipt", get(receipt::show))
        .route("/keys/{id}/{action}", get(act::ask).post(act::confirm))
}

/// What a form said, by the names of its fields.
pub type Said = HashMap<String, String>;

/// What a form said in a field.
fn said<'a>(form: &'a Said, name: &str) -> &'a str {
    form.get(name).map_or("", String::as_str)
}

/// Takes the password of a form that needs it; inside: what is wrong with it.
async fn confirmed(
    api: &Api,
    viewer: &mut Viewer,
    form: &Said,
) -> Result<Result<(), String>, Failure> {
    let password = form.get("password").map(String::as_str);
    match viewer.confirm(api, password).await {
        Ok(()) => {
            viewer.elevated = true;
            Ok(Ok(()))
        }
        Err(wrong @ (Failure::Password | Failure::TooMany(_))) => Ok(Err(wrong.detail())),
        Err(other) => Err(other),
    }
}

/// An entry of a field that offers some.
pub struct Choice {
    pub value: &'static str,
    pub text: String,
    pub chosen: bool,
}

/// A page of the list, as it stands below every dialog.
pub struct List {
    owner: bool,
    rows: Vec<Row>,
    text: String,
    states: Vec<Choice>,
    narrowed: bool,
    first: Option<String>,
    next: Option<String>,
}

#[derive(Template)]
#[template(path = "keys.html")]
struct KeysPage {
    page: Page,
    list: List,
}

/// `GET /keys`
async fn list(
    State(api): State<Api>,
    viewer: Viewer,
    Query(asked): Query<Said>,
) -> Result<Response, Failure> {
    let page = Page::new(&viewer, "keys");
    let list = List::read(&api, &viewer, &page, &asked).await?;
    Ok(html(&KeysPage { page, list }))
}

impl List {
    /// The first page of all keys.
    async fn first(api: &Api, viewer: &Viewer, page: &Page) -> Result<Self, Failure> {
        Self::read(api, viewer, page, &Said::new()).await
    }

    async fn read(api: &Api, viewer: &Viewer, page: &Page, asked: &Said) -> Result<Self, Failure> {
        let text = said(asked, "q").trim().to_owned();
        let state = STATES.into_iter().find(|state| *state == said(asked, "state"));
        let before = said(asked, "before").parse::<KeyId>().ok();
        let search = KeySearch { text: text.clone(), state, deleted: false };
        let found = api.app.key_page(viewer.account, &search, before, PAGE).await?;
        let now = api.app.now();
        let rows = found.keys.iter().map(|sight| Row::new(api, page, sight, &found.names, now));
        let choice = |value: &'static str| Choice {
            value,
            text: page.t(&format!("key_state.{value}")).to_owned(),
            chosen: state == Some(value),
        };
        let every =
            Choice { value: "", text: page.t("key_state.all").to_owned(), chosen: state.is_none() };
        let at = |before: &str| {
            let state = state.unwrap_or_default();
            link("/keys", &[("q", &text), ("state", state), ("before", before)])
        };
        Ok(Self {
            owner: viewer.owns(),
            rows: rows.collect(),
            states: std::iter::once(every).chain(STATES.into_iter().map(choice)).collect(),
            narrowed: !text.is_empty() || state.is_some() || before.is_some(),
            first: before.map(|_| at("")),
            next: found.next.map(|id| at(&id.to_string())),
            text,
        })
    }
}

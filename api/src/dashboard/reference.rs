//! The API reference and the list of problems: pages for everybody, made from our own OpenAPI document.
//!
//! | room | holds |
//! | --- | --- |
//! | [`model`] | what the page shows: groups, operations, types |
//! | [`schema`] | types in words, and examples of them |
//! | [`prose`] | descriptions as HTML |
//!
//! The document is read once, when the process starts; only the address in the samples is the reader's own. Nothing
//! here needs a session or a script.

mod model;
mod prose;
mod schema;

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::{Extension, State};
use axum::http::request::Parts;
use axum::middleware::from_fn;
use axum::response::{Redirect, Response};
use axum::routing::get;
use serde_json::Value;

use self::model::{Proof, Reference};
use super::page::{Failure, Plain, closed, html};
use super::session::{origin_of, own_url};
use crate::Api;
use crate::problem::{self, Kind};

/// The pages below `/docs`, of this document.
pub fn router(api: Api, document: &Value) -> Router {
    Router::new()
        .route("/docs", get(show))
        .route("/docs/api", get(|| async { Redirect::permanent("/docs") }))
        .route("/docs/problems", get(problems))
        .layer(from_fn(closed))
        .layer(Extension(Arc::new(Reference::of(document))))
        .with_state(api)
}

#[derive(Template)]
#[template(path = "docs/reference.html")]
struct ReferencePage<'a> {
    page: Plain,
    reference: &'a Reference,
    base: String,
}

/// `GET /docs`
async fn show(
    State(api): State<Api>,
    Extension(reference): Extension<Arc<Reference>>,
    parts: Parts,
) -> Result<Response, Failure> {
    origin_of(&api, &parts).await?;
    let base = own_url(&api, &parts);
    Ok(html(&ReferencePage { page: Plain, reference: &reference, base }))
}

#[derive(Template)]
#[template(path = "docs/problems.html")]
struct ProblemsPage {
    page: Plain,
    kinds: &'static [Kind],
}

/// `GET /docs/problems`
async fn problems() -> Response {
    html(&ProblemsPage { page: Plain, kinds: problem::ALL })
}

//! What has a page of its own, an account or a key: that page, and the same with a dialog above it.

use axum::extract::{Path, State};
use axum::response::Response;

use super::Operator;
use super::sheet::{Dialog, Sheet, shown};
use crate::Api;
use crate::dashboard::page::Failure;
use crate::dashboard::session::Viewer;

/// See the module.
pub trait Subject: Sized + Send + Sync {
    /// The entry of the navigation that its page is below.
    const TAB: &'static str;

    /// By its id, as the address has it.
    fn find(api: &Api, id: &str) -> impl Future<Output = Result<Self, Failure>> + Send;

    /// Where its page is.
    fn path(&self) -> String;

    /// Its page.
    fn about(
        &self,
        api: &Api,
        viewer: &Viewer,
    ) -> impl Future<Output = Result<Sheet, Failure>> + Send;
}

/// `GET` of its page.
pub async fn show<S: Subject>(
    State(api): State<Api>,
    Operator(viewer): Operator,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    let one = S::find(&api, &id).await?;
    Ok(shown(&viewer, S::TAB, one.about(&api, &viewer).await?))
}

/// Its page with a dialog above it, which is posted to `what` below the page.
pub async fn ask<S: Subject>(
    api: &Api,
    viewer: &Viewer,
    one: &S,
    what: &str,
    dialog: Dialog,
) -> Result<Response, Failure> {
    let close = one.path();
    let dialog = Dialog { to: format!("{close}/{what}"), close, ..dialog };
    let sheet = one.about(api, viewer).await?;
    Ok(shown(viewer, S::TAB, Sheet { dialog: Some(dialog), ..sheet }))
}

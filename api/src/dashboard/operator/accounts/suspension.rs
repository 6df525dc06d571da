//! The suspension of an account, and its end.

use axum::extract::{Path, State};
use axum::response::Response;
use listmill_shared::domain::account::TasksThen;
use listmill_shared::store::operators::AccountRow;
use serde::Deserialize;

use crate::Api;
use crate::dashboard::operator::Operator;
use crate::dashboard::operator::sheet::{Dialog, Field};
use crate::dashboard::operator::subject::{Subject, ask};
use crate::dashboard::page::{Failure, see_other_saying};
use crate::dashboard::session::Posted;
use crate::dashboard::text::{filled, text};

/// `GET /operator/accounts/{id}/suspend`
pub async fn ask_suspend(
    State(api): State<Api>,
    Operator(viewer): Operator,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    let account = AccountRow::find(&api, &id).await?;
    let mut reason = Field::typed("reason", text("operator.reason"));
    (reason.required, reason.hint) = (true, text("operator.account_reason_hint"));
    let mut contact = Field::typed("contact", text("operator.contact"));
    (contact.required, contact.hint) = (true, text("operator.contact_hint"));
    contact.value = api.app.settings.support_contact.clone().unwrap_or_default();
    let mut tasks = Field::typed("tasks", text("operator.tasks_then"));
    let word = |then| match then {
        TasksThen::Keep => text("operator.tasks_keep"),
        TasksThen::Pause => text("operator.tasks_pause"),
        TasksThen::Cancel => text("operator.tasks_cancel"),
    };
    tasks.choices = TasksThen::ALL.map(|then| (then.as_str(), word(then))).to_vec();
    let dialog = Dialog {
        title: text("operator.suspend_account").to_owned(),
        lines: vec![text("operator.suspend_account_why").to_owned()],
        fields: vec![reason, contact, tasks],
        button: text("operator.suspend_account"),
        danger: true,
        ..Dialog::default()
    };
    ask(&api, &viewer, &account, "suspend", dialog).await
}

/// A suspension.
#[derive(Deserialize)]
pub struct Suspend {
    #[serde(default)]
    reason: String,
    #[serde(default)]
    contact: String,
    #[serde(default)]
    tasks: String,
}

/// `POST /operator/accounts/{id}/suspend`
pub async fn suspend(
    State(api): State<Api>,
    Operator(viewer): Operator,
    Path(id): Path<String>,
    Posted(form): Posted<Suspend>,
) -> Result<Response, Failure> {
    let account = AccountRow::find(&api, &id).await?;
    let tasks = match form.tasks.as_str() {
        "" => TasksThen::default(),
        given => TasksThen::parse(given).ok_or_else(|| Failure::Form(given.to_owned()))?,
    };
    let suspended =
        api.app.suspend_account(account.id, &form.reason, &form.contact, tasks, &viewer.origin);
    let stopped = suspended.await?.ok_or(Failure::NotFound)?;
    let n = viewer.reader.number(stopped as i64);
    let said = filled("operator.account_suspended", &[("n", &n)]);
    Ok(see_other_saying(&account.path(), &said))
}

/// `GET /operator/accounts/{id}/unsuspend`
pub async fn ask_unsuspend(
    State(api): State<Api>,
    Operator(viewer): Operator,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    let account = AccountRow::find(&api, &id).await?;
    let mut reason = Field::typed("reason", text("operator.reason"));
    reason.hint = text("operator.reason_for_log");
    let dialog = Dialog {
        title: text("operator.unsuspend_account").to_owned(),
        lines: vec![text("operator.unsuspend_account_why").to_owned()],
        fields: vec![reason],
        button: text("operator.unsuspend_account"),
        ..Dialog::default()
    };
    ask(&api, &viewer, &account, "unsuspend", dialog).await
}

/// The end of a suspension.
#[derive(Deserialize)]
pub struct Unsuspend {
    reason: Option<String>,
}

/// `POST /operator/accounts/{id}/unsuspend`
pub async fn unsuspend(
    State(api): State<Api>,
    Operator(viewer): Operator,
    Path(id): Path<String>,
    Posted(form): Posted<Unsuspend>,
) -> Result<Response, Failure> {
    let account = AccountRow::find(&api, &id).await?;
    let reason = form.reason.as_deref();
    let said = match api.app.unsuspend_account(account.id, reason, &viewer.origin).await? {
        Some(_) => text("operator.account_unsuspended"),
        None => text("operator.account_not_suspended"),
    };
    Ok(see_other_saying(&account.path(), said))
}

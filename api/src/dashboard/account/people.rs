//! What owners change of the account's people: invitations, roles, places.

use axum::extract::{Path, State};
use axum::response::Response;
use listmill_shared::domain::person::Role;
use serde::Deserialize;

use super::super::letters;
use super::super::page::{Failure, see_other_saying};
use super::super::session::{Posted, Viewer};
use super::super::text::{filled, text};
use super::{Dialog, again, page, person, role_name};
use crate::Api;

/// The form of an invitation.
#[derive(Deserialize)]
pub struct InviteForm {
    #[serde(default)]
    email: String,
    #[serde(default)]
    role: String,
    password: Option<String>,
}

/// Which invitation is taken back.
#[derive(Deserialize)]
pub struct WithdrawForm {
    #[serde(default)]
    email: String,
}

/// The form of a role; an empty one: no place.
#[derive(Deserialize)]
pub struct RoleForm {
    #[serde(default)]
    role: String,
    password: Option<String>,
}

/// `GET /account/invite`
pub async fn ask_invite(State(api): State<Api>, viewer: Viewer) -> Result<Response, Failure> {
    viewer.require_owner()?;
    page(&api, &viewer, Dialog::Invite { email: String::new(), role: Role::Member }, None).await
}

/// `POST /account/invite`
pub async fn invite(
    State(api): State<Api>,
    viewer: Viewer,
    Posted(form): Posted<InviteForm>,
) -> Result<Response, Failure> {
    viewer.require_owner()?;
    let role: Role =
        form.role.parse().map_err(|_| Failure::Form(text("account.bad_role").into()))?;
    let asked = Dialog::Invite { email: form.email.clone(), role };
    if let Err(failure) = viewer.confirm(&api, form.password.as_deref()).await {
        return again(&api, &viewer, asked, failure).await;
    }
    match api.app.invite(viewer.account, &form.email, role, &viewer.origin).await {
        Ok(token) if letters::invite(&api, &viewer, &form.email, &token).await => {
            let said = filled("account.invite_sent", &[("email", form.email.trim())]);
            Ok(see_other_saying("/account", &said))
        }
        Ok(token) => {
            let link = format!("{}/login/link/{}", viewer.own_url(), token.reveal());
            page(&api, &viewer, Dialog::Invited { email: form.email, link }, None).await
        }
        Err(error) => again(&api, &viewer, asked, error.into()).await,
    }
}

/// `POST /account/invite/withdraw`
pub async fn withdraw(
    State(api): State<Api>,
    viewer: Viewer,
    Posted(form): Posted<WithdrawForm>,
) -> Result<Response, Failure> {
    viewer.require_owner()?;
    match api.app.withdraw_invite(viewer.account, &form.email, &viewer.origin).await? {
        true => {
            let said = filled("account.withdrawn", &[("email", &form.email)]);
            Ok(see_other_saying("/account", &said))
        }
        false => Ok(see_other_saying("/account", text("account.no_invite"))),
    }
}

/// `GET /account/people/{id}`
pub async fn ask_role(
    State(api): State<Api>,
    viewer: Viewer,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    viewer.require_owner()?;
    let (_, email, role) = person(&api, &viewer, &id).await?;
    page(&api, &viewer, Dialog::Person { id, email, role }, None).await
}

/// `POST /account/people/{id}`
pub async fn set_role(
    State(api): State<Api>,
    viewer: Viewer,
    Path(id): Path<String>,
    Posted(form): Posted<RoleForm>,
) -> Result<Response, Failure> {
    viewer.require_owner()?;
    let (who, email, now) = person(&api, &viewer, &id).await?;
    let role: Option<Role> = match form.role.as_str() {
        "" => None,
        name => Some(name.parse().map_err(|_| Failure::Form(text("account.bad_role").into()))?),
    };
    let dialog = || Dialog::Person { id: id.clone(), email: email.clone(), role: now };
    if let Err(failure) = viewer.confirm(&api, form.password.as_deref()).await {
        return again(&api, &viewer, dialog(), failure).await;
    }
    if let Err(error) = api.app.change_role(viewer.account, who, role, &viewer.origin).await {
        return again(&api, &viewer, dialog(), error.into()).await;
    }
    let said = match role {
        Some(role) => {
            filled("account.role_changed", &[("email", &email), ("role", role_name(role))])
        }
        None => filled("account.removed", &[("email", &email)]),
    };
    Ok(see_other_saying("/account", &said))
}

//! The account page: a person's password, one-time codes and sessions, and the people of the account.
//!
//! | room | holds |
//! | --- | --- |
//! | here | the page and its dialogs |
//! | [`own`] | what a person changes of themselves |
//! | [`people`] | what owners change of the account's people |
//!
//! What is shown once (the secret of one-time codes, recovery codes, an invitation's link) is the answer to the
//! form that makes it, and stands in no address. Sessions are a person's own; people are the account's, and only
//! owners change them, with their password.

pub mod own;
pub mod people;

use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use listmill_shared::domain::id::PersonId;
use listmill_shared::domain::person::{Role, Session};
use listmill_shared::store::people::{Member, Place};
use listmill_shared::store::person_links::Invite;

use super::format::Time;
use super::page::{Failure, Page, html_with};
use super::session::Viewer;
use super::text::{filled, text};
use crate::Api;

/// The page, and what its forms are sent to.
pub fn router() -> Router<Api> {
    Router::new()
        .route("/account", get(show))
        .route("/account/password", post(own::password))
        .route("/account/codes", get(own::codes).post(own::switch_on))
        .route("/account/codes/offer", post(own::offer))
        .route("/account/codes/off", post(own::switch_off))
        .route("/account/sessions/end", post(own::end_sessions))
        .route("/account/switch", post(own::switch_account))
        .route("/account/invite", get(people::ask_invite).post(people::invite))
        .route("/account/invite/withdraw", post(people::withdraw))
        .route("/account/people/{id}", get(people::ask_role).post(people::set_role))
}

/// What stands above the page.
pub enum Dialog {
    /// Nothing.
    None,
    /// One-time codes: what they are, and the password.
    CodesBegin,
    /// The secret, as a picture and as text, and a first code.
    CodesSecret { qr: String, secret: String, uri: String },
    /// Recovery codes, this once.
    Recovery { codes: Vec<String> },
    /// Switching one-time codes off.
    CodesEnd,
    /// Inviting somebody.
    Invite { email: String, role: Role },
    /// The link, this once.
    Invited { email: String, link: String },
    /// Another role for somebody, or none.
    Person { id: String, email: String, role: Role },
}

struct SessionView {
    id: String,
    browser: String,
    ip: String,
    began: Time,
    seen: Time,
    this: bool,
}

struct AccountView {
    id: String,
    email: String,
    role: &'static str,
    this: bool,
}

struct PersonView {
    id: String,
    email: String,
    role: &'static str,
    since: Time,
    me: bool,
}

struct InviteView {
    email: String,
    role: &'static str,
    until: Time,
}

#[derive(Template)]
#[template(path = "account.html")]
struct AccountPage {
    page: Page,
    role: &'static str,
    code_on: bool,
    codes_left: Option<String>,
    sessions: Vec<SessionView>,
    /// Where the person has a place.
    accounts: Vec<AccountView>,
    people: Vec<PersonView>,
    /// Owners alone see them.
    invites: Vec<InviteView>,
    dialog: Dialog,
    wrong: Option<String>,
}

/// `GET /account`
pub async fn show(State(api): State<Api>, viewer: Viewer) -> Result<Response, Failure> {
    page(&api, &viewer, Dialog::None, None).await
}

/// The page with a dialog above it, and what was wrong with the form.
pub async fn page(
    api: &Api,
    viewer: &Viewer,
    dialog: Dialog,
    wrong: Option<String>,
) -> Result<Response, Failure> {
    let (sessions, people, accounts) = tokio::try_join!(
        api.app.sessions_beside(&viewer.session),
        api.app.people(viewer.account),
        api.app.accounts_of(&viewer.session),
    )?;
    let invites = match viewer.owns() {
        true => api.app.invites(viewer.account).await?,
        false => Vec::new(),
    };
    // The dialog may be the answer to what has just changed that.
    let code_on = viewer.session.code_on || matches!(dialog, Dialog::Recovery { .. });
    let codes_left = match code_on {
        true => Some(api.app.recovery_codes_left(&viewer.session).await?),
        false => None,
    };
    let status = if wrong.is_some() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    let left = |n| filled("account.codes_left", &[("n", &viewer.reader.number(n))]);
    Ok(html_with(
        status,
        &AccountPage {
            role: role_name(viewer.role),
            code_on,
            codes_left: codes_left.map(left),
            sessions: sessions.into_iter().map(|one| session_view(one, viewer)).collect(),
            accounts: accounts.into_iter().map(|one| account_view(one, viewer)).collect(),
            people: people.into_iter().map(|one| person_view(one, viewer)).collect(),
            invites: invites.into_iter().map(|one| invite_view(one, viewer)).collect(),
            page: Page::new(viewer, "account"),
            dialog,
            wrong,
        },
    ))
}

/// Shows the dialog again with what was wrong, where that can be put right there.
pub async fn again(
    api: &Api,
    viewer: &Viewer,
    dialog: Dialog,
    failure: Failure,
) -> Result<Response, Failure> {
    match failure {
        Failure::Password | Failure::Wrong(_) | Failure::TooMany(_) => {
            page(api, viewer, dialog, Some(failure.detail())).await
        }
        other => Err(other),
    }
}

/// A role's name.
pub fn role_name(role: Role) -> &'static str {
    match role {
        Role::Owner => text("account.owner"),
        Role::Member => text("account.member"),
        Role::Viewer => text("account.viewer"),
    }
}

fn session_view(session: Session, viewer: &Viewer) -> SessionView {
    SessionView {
        id: session.id.to_string(),
        browser: session.agent.as_deref().map_or_else(
            || text("account.unknown_browser").to_owned(),
            |agent| browser(agent).unwrap_or_else(|| agent.chars().take(60).collect()),
        ),
        ip: session.ip.unwrap_or_default(),
        began: viewer.reader.time(session.created_at),
        seen: viewer.reader.time(session.seen_at),
        this: session.id == viewer.session.id,
    }
}

fn account_view(place: Place, viewer: &Viewer) -> AccountView {
    AccountView {
        id: place.account_id.to_string(),
        role: place.role.parse().map_or("", role_name),
        this: place.account_id == viewer.account,
        email: place.email,
    }
}

fn person_view(member: Member, viewer: &Viewer) -> PersonView {
    PersonView {
        id: member.person_id.to_string(),
        role: member.role.parse().map_or("", role_name),
        since: viewer.reader.time(member.created_at),
        me: member.person_id == viewer.person,
        email: member.email,
    }
}

fn invite_view(invite: Invite, viewer: &Viewer) -> InviteView {
    InviteView {
        role: invite.role.parse().map_or("", role_name),
        until: viewer.reader.time(invite.ends_at),
        email: invite.email,
    }
}

/// Somebody of this account.
pub async fn person(
    api: &Api,
    viewer: &Viewer,
    id: &str,
) -> Result<(PersonId, String, Role), Failure> {
    let id: PersonId = id.parse().map_err(|_| Failure::NotFound)?;
    let people = api.app.people(viewer.account).await?;
    let found = people.into_iter().find(|member| member.person_id == id);
    let found = found.ok_or(Failure::NotFound)?;
    Ok((id, found.email, found.role.parse().unwrap_or(Role::Viewer)))
}

/// "Firefox on Linux", from what a browser says that it is; most say that they are several.
fn browser(agent: &str) -> Option<String> {
    const BROWSERS: [(&str, &str); 7] = [
        ("Edg/", "Edge"),
        ("OPR/", "Opera"),
        ("Firefox/", "Firefox"),
        ("FxiOS/", "Firefox"),
        ("Chrome/", "Chrome"),
        ("CriOS/", "Chrome"),
        ("Safari/", "Safari"),
    ];
    const SYSTEMS: [(&str, &str); 7] = [
        ("iPhone", "iPhone"),
        ("iPad", "iPad"),
        ("Android", "Android"),
        ("Windows", "Windows"),
        ("Mac OS X", "macOS"),
        ("CrOS", "ChromeOS"),
        ("Linux", "Linux"),
    ];
    let first = |list: [(&str, &'static str); 7]| {
        list.into_iter().find(|(sign, _)| agent.contains(sign)).map(|(_, name)| name)
    };
    let name = first(BROWSERS)?;
    Some(match first(SYSTEMS) {
        Some(system) => filled("account.browser_on", &[("browser", name), ("system", system)]),
        None => name.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_are_named_shortly() {
        for (agent, name) in [
            (
                "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
                "Firefox on Linux",
            ),
            (
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) \
                 Chrome/140.0.0.0 Safari/537.36 Edg/140.0.0.0",
                "Edge on Windows",
            ),
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, \
                 like Gecko) Version/18.0 Mobile/15E148 Safari/604.1",
                "Safari on iPhone",
            ),
        ] {
            assert_eq!(browser(agent).as_deref(), Some(name));
        }
        assert_eq!(browser("curl/8.5.0"), None);
    }
}

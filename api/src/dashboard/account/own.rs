//! What a person changes of themselves: the password, one-time codes, sessions, and which of their accounts they look at.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use listmill_shared::app::people::PersonError;
use listmill_shared::domain::id::{AccountId, SessionId};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use qrcodegen::{QrCode, QrCodeEcc};
use serde::Deserialize;

use super::super::login::{set_session, throttle};
use super::super::page::{Failure, see_other_saying};
use super::super::session::{Posted, Viewer};
use super::super::text::{filled, text};
use super::{Dialog, again, page};
use crate::Api;

/// Modules of quiet zone round a QR code (ISO/IEC 18004, 5.3.8).
const QUIET: i32 = 4;

/// The form of a new password.
#[derive(Deserialize)]
pub struct PasswordForm {
    #[serde(default)]
    old: String,
    #[serde(default)]
    new: String,
}

/// A form that asks for the password alone.
#[derive(Deserialize)]
pub struct Confirmed {
    password: Option<String>,
}

/// The form with a first code.
#[derive(Deserialize)]
pub struct CodeForm {
    #[serde(default)]
    code: String,
    /// As it was shown, to be shown again.
    #[serde(default)]
    secret: String,
}

/// Which session is to end; none = all others.
#[derive(Deserialize)]
pub struct SessionForm {
    session: Option<String>,
}

/// The account to go on in.
#[derive(Deserialize)]
pub struct SwitchForm {
    account: String,
}

/// `POST /account/password`
pub async fn password(
    State(api): State<Api>,
    viewer: Viewer,
    Posted(form): Posted<PasswordForm>,
) -> Result<Response, Failure> {
    if let Some(wait) = throttle(&api, &viewer.email, viewer.origin.ip).await {
        return again(&api, &viewer, Dialog::None, Failure::TooMany(wait)).await;
    }
    let (token, session, by) = (viewer.token(), &viewer.session, &viewer.origin);
    match api.app.change_password(token, session, &form.old, &form.new, by).await {
        Ok(()) => Ok(see_other_saying("/account", text("account.password_changed"))),
        Err(PersonError::Refused) => {
            let wrong = Failure::Wrong(text("account.password_wrong").to_owned());
            again(&api, &viewer, Dialog::None, wrong).await
        }
        Err(error) => again(&api, &viewer, Dialog::None, error.into()).await,
    }
}

/// `GET /account/codes`
pub async fn codes(State(api): State<Api>, viewer: Viewer) -> Result<Response, Failure> {
    let on = viewer.session.code_on;
    let dialog = if on { Dialog::CodesEnd } else { Dialog::CodesBegin };
    page(&api, &viewer, dialog, None).await
}

/// `POST /account/codes/offer`
pub async fn offer(
    State(api): State<Api>,
    viewer: Viewer,
    Posted(form): Posted<Confirmed>,
) -> Result<Response, Failure> {
    if let Err(failure) = viewer.confirm(&api, form.password.as_deref()).await {
        return again(&api, &viewer, Dialog::CodesBegin, failure).await;
    }
    match api.app.offer_codes(&viewer.session).await {
        Ok(secret) => page(&api, &viewer, secret_dialog(&viewer.email, secret), None).await,
        Err(error) => again(&api, &viewer, Dialog::None, error.into()).await,
    }
}

/// `POST /account/codes`
pub async fn switch_on(
    State(api): State<Api>,
    viewer: Viewer,
    Posted(form): Posted<CodeForm>,
) -> Result<Response, Failure> {
    match api.app.switch_codes_on(&viewer.session, &form.code, &viewer.origin).await {
        Ok(codes) => page(&api, &viewer, Dialog::Recovery { codes }, None).await,
        Err(PersonError::Refused) if is_base32(&form.secret) => {
            let wrong = Failure::Wrong(text("account.code_wrong").to_owned());
            again(&api, &viewer, secret_dialog(&viewer.email, form.secret), wrong).await
        }
        Err(error) => again(&api, &viewer, Dialog::CodesBegin, error.into()).await,
    }
}

/// `POST /account/codes/off`
pub async fn switch_off(
    State(api): State<Api>,
    viewer: Viewer,
    Posted(form): Posted<Confirmed>,
) -> Result<Response, Failure> {
    if let Err(failure) = viewer.confirm(&api, form.password.as_deref()).await {
        return again(&api, &viewer, Dialog::CodesEnd, failure).await;
    }
    api.app.switch_codes_off(&viewer.session, &viewer.origin).await?;
    Ok(see_other_saying("/account", text("account.codes_ended")))
}

/// `POST /account/sessions/end`
pub async fn end_sessions(
    State(api): State<Api>,
    viewer: Viewer,
    Posted(form): Posted<SessionForm>,
) -> Result<Response, Failure> {
    let which: Option<SessionId> =
        form.session.map(|id| id.parse().map_err(|_| Failure::NotFound)).transpose()?;
    let (token, session, by) = (viewer.token(), &viewer.session, &viewer.origin);
    let ended = api.app.end_sessions(token, session, which, by).await?;
    let ended = i64::try_from(ended).unwrap_or(i64::MAX);
    let said = match ended {
        1 => text("account.session_ended").to_owned(),
        n => filled("account.sessions_ended", &[("n", &viewer.reader.number(n))]),
    };
    Ok(see_other_saying("/account", &said))
}

fn is_base32(secret: &str) -> bool {
    (16..=64).contains(&secret.len())
        && secret.bytes().all(|b| b.is_ascii_uppercase() || (b'2'..=b'7').contains(&b))
}

/// The secret for a person's device, as a picture, as a link, and as text in groups of four.
fn secret_dialog(email: &str, secret: String) -> Dialog {
    let email = utf8_percent_encode(email, NON_ALPHANUMERIC);
    let uri = format!("otpauth://totp/Listmill:{email}?secret={secret}&issuer=Listmill");
    Dialog::CodesSecret { qr: qr(&uri, text("account.qr")), secret, uri }
}

/// `POST /account/switch`
pub async fn switch_account(
    State(api): State<Api>,
    viewer: Viewer,
    headers: HeaderMap,
    Posted(form): Posted<SwitchForm>,
) -> Result<Response, Failure> {
    let to: AccountId = form.account.parse().map_err(|_| Failure::NotFound)?;
    let accounts = api.app.accounts_of(&viewer.session).await?;
    let to = accounts.into_iter().find(|one| one.account_id == to).ok_or(Failure::NotFound)?;
    let (token, session, by) = (viewer.token(), &viewer.session, &viewer.origin);
    let token = api.app.switch_account(token, session, to.account_id, by).await?;
    let token = token.ok_or(Failure::NotFound)?;
    let said = filled("account.switched", &[("account", &to.email)]);
    let mut response = see_other_saying("/tasks", &said);
    set_session(&api, &headers, &mut response, &token);
    Ok(response)
}

/// A QR code, dark on light whatever the page's colours are; nothing where the text is too long for one.
fn qr(content: &str, label: &str) -> String {
    let Ok(code) = QrCode::encode_text(content, QrCodeEcc::Medium) else { return String::new() };
    let size = code.size() + 2 * QUIET;
    let mut path = String::new();
    for y in 0..code.size() {
        for x in (0..code.size()).filter(|x| code.get_module(*x, y)) {
            path.push_str(&format!("M{} {}h1v1h-1z", x + QUIET, y + QUIET));
        }
    }
    let label = label.replace(['<', '>', '&', '"'], "");
    format!(
        r##"<svg width="220" height="220" viewBox="0 0 {size} {size}" role="img" aria-label="{label}" shape-rendering="crispEdges"><rect width="{size}" height="{size}" fill="#fff"/><path d="{path}" fill="#000"/></svg>"##
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secret_is_a_picture_a_link_and_text() {
        let dialog = secret_dialog("a+b@x.example", "JBSWY3DPEHPK3PXP".to_owned());
        let Dialog::CodesSecret { qr, secret, uri } = dialog else { panic!("no secret") };
        assert_eq!(secret, "JBSWY3DPEHPK3PXP");
        assert_eq!(
            uri,
            "otpauth://totp/Listmill:a%2Bb%40x%2Eexample?secret=JBSWY3DPEHPK3PXP&issuer=Listmill"
        );
        assert!(qr.starts_with("<svg ") && qr.ends_with("</svg>") && !qr.contains("style="));
        assert!(qr.matches("h1v1h-1z").count() > 200);
    }

    #[test]
    fn only_a_secret_is_shown_again() {
        assert!(is_base32("JBSWY3DPEHPK3PXP"));
        for wrong in ["", "JBSWY3DP<b>", "jbswy3dpehpk3pxp", "JBSWY3DPEHPK3PX1"] {
            assert!(!is_base32(wrong), "{wrong}");
        }
    }
}

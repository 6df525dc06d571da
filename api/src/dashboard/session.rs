//! Who looks at a page, and the forms that they send.
//!
//! | cookie | holds |
//! | --- | --- |
//! | `listmill_session` | the session's token; HttpOnly, SameSite=Lax |
//! | `listmill_form` | what the login form's token follows from, while nobody is logged in |
//! | `listmill_notice` | a sentence for the next page |
//! | `listmill_zone` | the browser's time zone |
//!
//! A [`Viewer`] is judged with each request on the state of this moment. Every form carries a token that
//! follows from the session's; what another site sends does not have it. It is written differently in each page,
//! so that compressed pages do not tell it (BREACH).

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::HeaderMap;
use axum::http::header::{COOKIE, USER_AGENT};
use axum::http::request::Parts;
use bytes::Bytes;
use listmill_shared::domain::audit::{Actor, Origin};
use listmill_shared::domain::id::{AccountId, PersonId};
use listmill_shared::domain::key::Token;
use listmill_shared::domain::person::{Role, Session};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::format::Reader;
use super::page::Failure;
use crate::Api;
use crate::extract::{linger, read_body};
use crate::gate::stranger;
use crate::request_id::RequestId;

/// The session's cookie.
pub const SESSION: &str = "listmill_session";
/// The cookie of forms that need no session.
pub const FORM: &str = "listmill_form";
/// The cookie that holds a sentence for the next page.
pub const NOTICE: &str = "listmill_notice";

/// Bytes of a form's token, before they are written.
const CSRF: usize = 16;

/// Who looks at a page.
#[derive(Debug, Clone)]
pub struct Viewer {
    /// The account that is looked at.
    pub account: AccountId,
    /// That account's name.
    pub account_email: String,
    /// Who.
    pub person: PersonId,
    /// Their email.
    pub email: String,
    /// What they may do.
    pub role: Role,
    /// May see the operators' pages.
    pub operator: bool,
    /// For the forms of this page.
    pub csrf: String,
    /// The password was given a short while ago.
    pub elevated: bool,
    /// Who that is and from where, for the audit log.
    pub origin: Origin,
    /// How they write numbers and times.
    pub reader: Reader,
    /// A sentence for this page.
    pub notice: Option<String>,
    /// The session.
    pub session: Session,
    token: Token,
    own_url: String,
}

impl Viewer {
    /// May they submit, pause, cancel and erase?
    pub fn may_write(&self) -> bool {
        self.role >= Role::Member
    }

    /// May they change keys and people?
    pub fn owns(&self) -> bool {
        self.role == Role::Owner
    }

    /// Fails unless they may change tasks.
    pub fn require_write(&self) -> Result<(), Failure> {
        if self.may_write() { Ok(()) } else { Err(Failure::Forbidden("errors.viewer")) }
    }

    /// Fails where the account is suspended: nothing new is begun in it.
    pub fn require_active(&self) -> Result<(), Failure> {
        match &self.session.suspended {
            None => Ok(()),
            Some(suspended) => Err(Failure::Suspended(Box::new(suspended.clone()))),
        }
    }

    /// Fails unless they may change keys and people.
    pub fn require_owner(&self) -> Result<(), Failure> {
        if self.owns() { Ok(()) } else { Err(Failure::Forbidden("errors.owner")) }
    }

    /// Fails as if there were no such page, unless they are an operator.
    pub fn require_operator(&self) -> Result<(), Failure> {
        if self.operator { Ok(()) } else { Err(Failure::NotFound) }
    }

    /// Takes the password, where it was not given a short while ago.
    pub async fn confirm(&self, api: &Api, password: Option<&str>) -> Result<(), Failure> {
        if self.elevated {
            return Ok(());
        }
        let given = password.filter(|given| !given.is_empty());
        let given = given.ok_or(Failure::Password)?;
        if let Some(wait) = super::login::throttle(api, &self.email, self.origin.ip).await {
            return Err(Failure::TooMany(wait));
        }
        Ok(api.app.prove(&self.token, &self.session, given, self.origin.ip).await?)
    }

    /// What stands in the cookie.
    pub fn token(&self) -> &Token {
        &self.token
    }

    /// Where the person reaches this server: `https://listmill.example`.
    pub fn own_url(&self) -> &str {
        &self.own_url
    }
}

impl FromRequestParts<Api> for Viewer {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Failure> {
        let origin = origin_of(api, parts).await?;
        let known = match session_token(&parts.headers) {
            Some(token) => api.app.session(&token).await?.map(|session| (token, session)),
            None => None,
        };
        let (token, session) = known.ok_or_else(|| Failure::login(&parts.uri))?;
        let actor = Actor::Person(session.email.clone());
        let notice = notice(&parts.headers);
        Ok(Self {
            account: session.account,
            account_email: session.account_email.clone(),
            person: session.person,
            email: session.email.clone(),
            role: session.role,
            operator: session.operator,
            csrf: written(csrf_of(&token), api.app.ids.bytes()),
            elevated: api.app.is_proven(&session),
            origin: Origin { actor, ..origin },
            reader: Reader::of(&parts.headers),
            notice,
            session,
            token,
            own_url: own_url(api, parts),
        })
    }
}

/// Where a request comes from; its actor is Listmill until somebody is known. Blocked networks are refused.
pub async fn origin_of(api: &Api, parts: &Parts) -> Result<Origin, Failure> {
    let ip = stranger(api, parts).await.map_err(|refusal| Failure::Refused(Box::new(refusal)))?;
    let request_id = parts.extensions.get::<RequestId>().map(|id| id.as_str().to_owned());
    Ok(Origin { actor: Actor::System, ip, request_id })
}

/// A cookie's value.
pub fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let all = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs =
        all.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(found, _)| *found == name).map(|(_, value)| value)
}

/// The sentence for the next page.
pub fn notice(headers: &HeaderMap) -> Option<String> {
    let text = percent_encoding::percent_decode_str(cookie(headers, NOTICE)?);
    Some(text.decode_utf8_lossy().chars().take(500).collect())
}

/// The session's token, as the cookie has it.
pub fn session_token(headers: &HeaderMap) -> Option<Token> {
    cookie(headers, SESSION).and_then(Token::parse)
}

/// The browser, as it names itself.
pub fn agent(headers: &HeaderMap) -> Option<&str> {
    headers.get(USER_AGENT).and_then(|value| value.to_str().ok())
}

/// Is this request on its way over TLS, as far as is known?
pub fn is_secure(api: &Api, headers: &HeaderMap) -> bool {
    let forwarded = headers.get("x-forwarded-proto").and_then(|value| value.to_str().ok());
    api.app.settings.public_url.starts_with("https://")
        || (!api.proxies.is_empty() && forwarded.is_some_and(|proto| proto.starts_with("https")))
}

/// Where whoever asks reaches this server.
pub fn own_url(api: &Api, parts: &Parts) -> String {
    let set = api.app.settings.public_url.trim_end_matches('/');
    if !set.is_empty() {
        return set.to_owned();
    }
    let named = parts.headers.get("host").and_then(|value| value.to_str().ok());
    let host = named.or(parts.uri.authority().map(|authority| authority.as_str()));
    let fits =
        |host: &&str| host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:[]".contains(&b));
    let scheme = if is_secure(api, &parts.headers) { "https" } else { "http" };
    format!("{scheme}://{}", host.filter(fits).unwrap_or("localhost"))
}

/// What a form's token must be, for the holder of `token`.
pub fn csrf_of(token: &Token) -> [u8; CSRF] {
    let mut hash = Sha256::new();
    hash.update(b"listmill: forms");
    hash.update(token.bytes());
    let hash: [u8; 32] = hash.finalize().into();
    let mut out = [0; CSRF];
    out.copy_from_slice(&hash[..CSRF]);
    out
}

/// A form's token as it stands in a page: masked anew each time.
pub fn written(csrf: [u8; CSRF], mask: [u8; CSRF]) -> String {
    let masked = csrf.iter().zip(mask).map(|(csrf, mask)| csrf ^ mask);
    mask.into_iter().chain(masked).map(|byte| format!("{byte:02x}")).collect()
}

/// Is this the token?
pub fn is_csrf(given: &str, csrf: [u8; CSRF]) -> bool {
    // As long as a session's token, and written alike.
    let Some(given) = Token::parse(given) else { return false };
    let (mask, masked) = given.bytes().split_at(CSRF);
    let differs = mask.iter().zip(masked).zip(csrf).fold(0, |all, ((a, b), c)| all | (a ^ b ^ c));
    differs == 0
}

/// A form whose token is that of the session.
pub struct Posted<T>(pub T);

/// A form that needs no session, as that to log in. (What another site may have put in the browser as the cookie
/// of such forms must open no other: so they are told apart.)
pub struct Asked<T>(pub T);

/// A form with nothing but its token.
#[derive(Deserialize)]
pub struct Nothing {}

#[derive(Deserialize)]
struct Csrf {
    #[serde(default)]
    csrf: String,
}

impl<T: DeserializeOwned> FromRequest<Api> for Posted<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Failure> {
        let token = session_token(request.headers());
        form(request, api, token).await.map(Self)
    }
}

impl<T: DeserializeOwned> FromRequest<Api> for Asked<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Failure> {
        let token = form_token(request.headers());
        form(request, api, token).await.map(Self)
    }
}

async fn form<T: DeserializeOwned>(
    request: Request,
    api: &Api,
    token: Option<Token>,
) -> Result<T, Failure> {
    let (parts, body) = request.into_parts();
    let Some(token) = token.filter(|_| !from_elsewhere(&parts.headers)) else {
        linger(body).await;
        return Err(Failure::Csrf);
    };
    let body = read_body(body, api.app.settings.body_idle_timeout).await?;
    let given: Csrf = read(&body)?;
    if is_csrf(&given.csrf, csrf_of(&token)) { read(&body) } else { Err(Failure::Csrf) }
}

/// What the login form's token follows from.
pub fn form_token(headers: &HeaderMap) -> Option<Token> {
    cookie(headers, FORM).and_then(Token::parse)
}

/// Did another site send it, as the browser says (Fetch Metadata)?
pub fn from_elsewhere(headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site").and_then(|value| value.to_str().ok());
    !matches!(site, None | Some("same-origin" | "none"))
}

fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, Failure> {
    serde_html_form::from_bytes(body).map_err(|error| Failure::Form(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forms_token_is_the_sessions_alone() {
        let (ours, other) = (Token::from([7; 32]), Token::from([8; 32]));
        let one = written(csrf_of(&ours), [1; 16]);
        let again = written(csrf_of(&ours), [2; 16]);
        assert_ne!(one, again, "written differently in each page");
        for given in [&one, &again] {
            assert!(is_csrf(given, csrf_of(&ours)));
            assert!(!is_csrf(given, csrf_of(&other)));
        }
        for wrong in ["", "00", &ours.reveal(), &one[2..], &format!("{one}00")] {
            assert!(!is_csrf(wrong, csrf_of(&ours)), "{wrong}");
        }
    }

    #[test]
    fn cookies_are_read_by_their_names() {
        let mut headers = HeaderMap::new();
        headers.append(
            "cookie",
            "x=1; listmill_session=abc;listmill_zone=Europe/Berlin".parse().unwrap(),
        );
        headers.append("cookie", "y=2".parse().unwrap());
        assert_eq!(cookie(&headers, SESSION), Some("abc"));
        assert_eq!(cookie(&headers, "listmill_zone"), Some("Europe/Berlin"));
        assert_eq!(cookie(&headers, "y"), Some("2"));
        assert_eq!(cookie(&headers, "session"), None);
    }

    #[test]
    fn what_another_site_sends_is_known() {
        let of = |site: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            if let Some(site) = site {
                headers.insert("sec-fetch-site", site.parse().unwrap());
            }
            from_elsewhere(&headers)
        };
        assert!(!of(None) && !of(Some("same-origin")) && !of(Some("none")));
        assert!(of(Some("cross-site")) && of(Some("same-site")));
    }
}

//! What every page has, and what is answered when there is none.
//!
//! No page may be framed, and none runs a script or a style that is not ours. Pages are not kept by caches.

use askama::Template;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE,
    LOCATION, REFERRER_POLICY, RETRY_AFTER, SET_COOKIE, VARY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use flate2::Compression;
use listmill_shared::app::control::ControlError;
use listmill_shared::app::keys::KeyError;
use listmill_shared::app::people::PersonError;
use listmill_shared::domain::account::Suspended;
use listmill_shared::domain::clock::Millis;
use listmill_shared::domain::person::Role;
use listmill_shared::store::StoreError;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::assets::{self, gzip, takes_gzip};
use super::format::{Reader, Time};
use super::session::{NOTICE, Viewer, cookie};
use super::text;
use crate::problem::Problem;

const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; \
    connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Bytes of a page that is packed for its way.
const WORTH_PACKING: usize = 1 << 10;

/// What every template of somebody's pages has.
#[derive(Debug, Clone)]
pub struct Page {
    /// For the forms of this page.
    pub csrf: String,
    /// Who looks at it.
    pub email: String,
    /// The account that is looked at.
    pub account_email: String,
    /// What the person may do.
    pub role: Role,
    /// May see the operators' pages.
    pub operator: bool,
    /// The password was given a short while ago.
    pub elevated: bool,
    /// The entry of the navigation that is current.
    pub path: &'static str,
    /// A sentence at the top.
    pub notice: Option<String>,
    /// Why the account is suspended, if it is.
    pub suspended: Option<Suspended>,
    /// How the person writes numbers and times.
    pub reader: Reader,
}

impl Page {
    /// A page of this person, below this entry of the navigation.
    pub fn new(viewer: &Viewer, path: &'static str) -> Self {
        Self {
            csrf: viewer.csrf.clone(),
            email: viewer.email.clone(),
            account_email: viewer.account_email.clone(),
            role: viewer.role,
            operator: viewer.operator,
            elevated: viewer.elevated,
            path,
            notice: viewer.notice.clone(),
            suspended: viewer.session.suspended.clone(),
            reader: viewer.reader.clone(),
        }
    }

    /// May they submit, pause, cancel and erase?
    pub fn may_write(&self) -> bool {
        self.role >= Role::Member
    }

    /// May they submit and resume? Nothing new is begun in a suspended account.
    pub fn may_begin(&self) -> bool {
        self.may_write() && self.suspended.is_none()
    }

    /// Why the account is suspended and whom to ask, if it is.
    pub fn suspension(&self) -> Option<String> {
        self.suspended.as_ref().map(suspended_words)
    }

    /// May they change keys and people?
    pub fn owns(&self) -> bool {
        self.role == Role::Owner
    }

    /// A text of the catalogue.
    pub fn t<'a>(&self, name: &'a str) -> &'a str {
        text::text(name)
    }

    /// The same with `{name}` filled in.
    pub fn tf(&self, name: &str, with: &[(&str, &str)]) -> String {
        text::filled(name, with)
    }

    /// A whole number.
    pub fn n(&self, number: impl Into<i64>) -> String {
        self.reader.number(number.into())
    }

    /// A moment; `|safe`.
    pub fn time(&self, at: Millis) -> Time {
        self.reader.time(at)
    }

    /// Where an asset is.
    pub fn asset(&self, name: &str) -> &'static str {
        assets::path(name)
    }
}

/// What templates have that belong to nobody: logging in, errors.
#[derive(Debug, Clone, Copy)]
pub struct Plain;

impl Plain {
    /// A text of the catalogue.
    pub fn t<'a>(&self, name: &'a str) -> &'a str {
        text::text(name)
    }

    /// Where an asset is.
    pub fn asset(&self, name: &str) -> &'static str {
        assets::path(name)
    }
}

/// Why there is no page.
#[derive(Debug)]
pub enum Failure {
    /// Nobody is logged in: they are sent to log in, and come back to this path.
    Login(String),
    /// There is no such page, or not for them.
    NotFound,
    /// The person may not do that; a text of the catalogue says why.
    Forbidden(&'static str),
    /// The account is suspended.
    Suspended(Box<Suspended>),
    /// The form did not come from one of our pages.
    Csrf,
    /// The form cannot be read.
    Form(String),
    /// Something was filled in wrongly; in words.
    Wrong(String),
    /// The password is missing or wrong.
    Password,
    /// Too many tries; seconds to wait.
    TooMany(u64),
    /// What the API would answer.
    Problem(Box<Problem>),
    /// An answer that was made already.
    Refused(Box<Response>),
}

impl Failure {
    /// Sends them to log in, and back to this page.
    pub fn login(uri: &Uri) -> Self {
        Self::Login(uri.path_and_query().map_or("/", |path| path.as_str()).to_owned())
    }

    /// Status, title, and what happened.
    fn words(&self) -> (StatusCode, &'static str, String) {
        let t = |name: &'static str| text::text(name);
        match self {
            Failure::Login(_) | Failure::Refused(_) => (StatusCode::OK, "", String::new()),
            Failure::NotFound => {
                (StatusCode::NOT_FOUND, t("errors.not_found"), t("errors.not_found_why").into())
            }
            Failure::Forbidden(why) => {
                (StatusCode::FORBIDDEN, t("errors.forbidden"), t(why).into())
            }
            Failure::Suspended(suspended) => {
                (StatusCode::FORBIDDEN, t("errors.suspended"), suspended_words(suspended))
            }
            Failure::Csrf => (StatusCode::FORBIDDEN, t("errors.csrf"), t("errors.csrf_why").into()),
            Failure::Form(why) => (StatusCode::UNPROCESSABLE_ENTITY, t("errors.form"), why.clone()),
            Failure::Wrong(why) => {
                (StatusCode::UNPROCESSABLE_ENTITY, t("errors.wrong"), why.clone())
            }
            Failure::Password => {
                (StatusCode::FORBIDDEN, t("errors.password"), t("errors.password_why").into())
            }
            Failure::TooMany(wait) => (
                StatusCode::TOO_MANY_REQUESTS,
                t("errors.too_many"),
                text::filled("errors.too_many_why", &[("seconds", &wait.to_string())]),
            ),
            Failure::Problem(problem) => {
                let (kind, detail, _) = problem.parts("");
                let status =
                    StatusCode::from_u16(kind.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                (status, kind.title, detail.to_owned())
            }
        }
    }

    /// What happened, in words, where the page itself says it.
    pub fn detail(&self) -> String {
        self.words().2
    }
}

/// That an account is suspended, why, and whom to ask.
fn suspended_words(suspended: &Suspended) -> String {
    let Suspended { reason, contact, .. } = suspended;
    text::filled("errors.suspended_why", &[("reason", reason), ("contact", contact)])
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        match problem.status() {
            404 => Self::NotFound,
            _ => Self::Problem(Box::new(problem)),
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Problem::from(error).into()
    }
}

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Self {
        Problem::from(error).into()
    }
}

impl From<KeyError> for Failure {
    fn from(error: KeyError) -> Self {
        Problem::from(error).into()
    }
}

impl From<PersonError> for Failure {
    fn from(error: PersonError) -> Self {
        match error {
            PersonError::Refused | PersonError::CodeNeeded => Self::Password,
            PersonError::Field(..) | PersonError::State(_) | PersonError::LinkGone => {
                Self::Wrong(error.to_string())
            }
            PersonError::Busy => Self::TooMany(5),
            PersonError::Store(error) => error.into(),
            PersonError::Hash(_) => {
                tracing::error!(%error, "a password could not be hashed; answered 500");
                Self::Problem(Box::new(Problem::internal()))
            }
        }
    }
}

#[derive(Template)]
#[template(path = "error.html")]
struct ErrorPage<'a> {
    page: Plain,
    title: &'a str,
    why: &'a str,
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let (status, title, why) = match self {
            Failure::Refused(response) => return *response,
            Failure::Login(next) => {
                let next = utf8_percent_encode(&next, NON_ALPHANUMERIC);
                return see_other(&format!("/login?next={next}"));
            }
            ref failure => failure.words(),
        };
        let mut response = html(&ErrorPage { page: Plain, title, why: &why });
        *response.status_mut() = status;
        if let Failure::TooMany(wait) = self {
            response.headers_mut().insert(RETRY_AFTER, wait.into());
        }
        response
    }
}

/// A page.
pub fn html(template: &impl Template) -> Response {
    let Ok(body) = template.render() else {
        tracing::error!("a page cannot be rendered; answered 500");
        return Problem::internal().into_response();
    };
    let mut response = Response::new(Body::from(body));
    let kind = HeaderValue::from_static("text/html; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// The same with another status.
pub fn html_with(status: StatusCode, template: &impl Template) -> Response {
    let mut response = html(template);
    *response.status_mut() = status;
    response
}

/// Sends the browser to another page of ours, after a form.
pub fn see_other(to: &str) -> Response {
    let mut response = StatusCode::SEE_OTHER.into_response();
    let to = HeaderValue::from_str(to).unwrap_or(HeaderValue::from_static("/tasks"));
    response.headers_mut().insert(LOCATION, to);
    response
}

/// Likewise, and says something there.
pub fn see_other_saying(to: &str, notice: &str) -> Response {
    let mut response = see_other(to);
    let text = utf8_percent_encode(notice, NON_ALPHANUMERIC);
    add_cookie(
        &mut response,
        &format!("{NOTICE}={text}; Path=/; Max-Age=30; HttpOnly; SameSite=Lax"),
    );
    response
}

/// Sets a cookie.
pub fn add_cookie(response: &mut Response, cookie: &str) {
    if let Ok(cookie) = HeaderValue::from_str(cookie) {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
}

/// Middleware of every page: who may show, frame and keep it; a notice is shown once; packed for its way.
pub async fn closed(request: Request, next: Next) -> Response {
    let noticed = cookie(request.headers(), NOTICE).is_some();
    let packs = takes_gzip(request.headers());
    let mut response = next.run(request).await;
    let page =
        response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == "text/html; charset=utf-8");
    if page && noticed {
        add_cookie(&mut response, &format!("{NOTICE}=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax"));
    }
    seal(&mut response);
    if page && packs { pack(response).await } else { response }
}

/// Who may show, frame and keep it.
fn seal(response: &mut Response) {
    let headers = response.headers_mut();
    let mut set = |name, value| headers.insert(name, HeaderValue::from_static(value));
    set(CONTENT_SECURITY_POLICY, POLICY);
    set(REFERRER_POLICY, "same-origin");
    set(X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(X_FRAME_OPTIONS, "DENY");
    if !headers.contains_key(CACHE_CONTROL) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}

/// The page that there is not, for a browser.
pub fn unknown() -> Response {
    let mut response = Failure::NotFound.into_response();
    seal(&mut response);
    response
}

async fn pack(response: Response) -> Response {
    let (mut parts, body) = response.into_parts();
    // Pages are whole: they were rendered into one piece.
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
    if body.len() < WORTH_PACKING {
        return Response::from_parts(parts, Body::from(body));
    }
    parts.headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    parts.headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    parts.headers.remove(CONTENT_LENGTH);
    Response::from_parts(parts, Body::from(gzip(&body, Compression::fast())))
}

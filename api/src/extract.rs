//! Extractors whose refusals are problems: ids in the path, query parameters, JSON bodies, and the
//! media type of a body.

use std::str::FromStr;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use listmill_shared::domain::id::{KeyId, TaskId};
use serde::de::DeserializeOwned;

use crate::Api;
use crate::problem::{
    BODY_BROKEN, BODY_IDLE, BODY_TOO_LARGE, INVALID_QUERY, Problem, UNSUPPORTED_MEDIA_TYPE,
};

/// Bytes of a body, on every route that takes no list.
pub const MAX_BODY: usize = 1 << 20;
/// How much, and for how long, of a refused body is thrown away before the answer.
const LINGER_BYTES: usize = 8 << 20;
const LINGER: Duration = Duration::from_secs(1);

/// Something that an id in the path names.
pub trait Resource: FromStr {
    /// There is none with that id; a malformed id is one that nothing has.
    fn missing() -> Problem;
}

impl Resource for TaskId {
    fn missing() -> Problem {
        Problem::task_not_found()
    }
}

impl Resource for KeyId {
    fn missing() -> Problem {
        Problem::key_not_found()
    }
}

/// The id in the path.
pub struct Id<T>(pub T);

impl<T: Resource, S: Send + Sync> FromRequestParts<S> for Id<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let text = Path::<String>::from_request_parts(parts, state).await;
        text.ok().and_then(|text| text.0.parse().ok()).map(Self).ok_or_else(T::missing)
    }
}

/// Query parameters.
pub struct Params<T>(pub T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Query::<T>::try_from_uri(&parts.uri)
            .map(|query| Self(query.0))
            .map_err(|error| Problem::new(INVALID_QUERY, format!("{}.", error.body_text())))
    }
}

/// Reads a yes-or-no parameter.
pub fn flag(name: &str, given: Option<&str>) -> Result<bool, Problem> {
    match given {
        None | Some("false" | "0") => Ok(false),
        Some("true" | "1") => Ok(true),
        Some(_) => Err(Problem::query(name, "must be true or false.")),
    }
}

/// A JSON body.
pub struct Json<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Api> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let body = read_body(body, api.app.settings.body_idle_timeout).await?;
        require_json(&parts.headers)?;
        Ok(Self(serde_json::from_slice(&body)?))
    }
}

/// Refuses a body that does not say that it is JSON.
pub fn require_json(headers: &HeaderMap) -> Result<(), Problem> {
    let kind = MediaType::of(headers);
    match kind {
        Some(kind) if kind.essence == "application/json" => kind.require_utf8(),
        _ => Err(Problem::new(
            UNSUPPORTED_MEDIA_TYPE,
            "Send the body with Content-Type: application/json.",
        )),
    }
}

/// Reads a small body as a whole.
pub async fn read_body(body: Body, within: Duration) -> Result<Bytes, Problem> {
    let mut stream = body.into_data_stream();
    let reading = async {
        let mut all = BytesMut::new();
        while let Some(piece) = stream.next().await {
            let piece = piece.map_err(|_| {
                Problem::new(BODY_BROKEN, "The request ended before its body was complete.")
            })?;
            if all.len() + piece.len() > MAX_BODY {
                return Ok(None);
            }
            all.extend_from_slice(&piece);
        }
        Ok(Some(all.freeze()))
    };
    match tokio::time::timeout(within, reading).await {
        Err(_) => Err(Problem::new(BODY_IDLE, format!("The body took more than {within:?}."))),
        Ok(Err(problem)) => Err(problem),
        Ok(Ok(Some(body))) => Ok(body),
        Ok(Ok(None)) => {
            discard(stream).await;
            let detail = format!("This route takes bodies of up to {MAX_BODY} bytes.");
            Err(Problem::new(BODY_TOO_LARGE, detail))
        }
    }
}

/// Throws a body away that is refused unread, within bounds: most clients read the answer only
/// after sending all they have, and a connection that is closed under them hides it.
pub async fn linger(body: Body) {
    if !axum::body::HttpBody::is_end_stream(&body) {
        discard(body.into_data_stream()).await;
    }
}

async fn discard(mut stream: BodyDataStream) {
    let reading = async {
        let mut seen = 0;
        while let Some(Ok(piece)) = stream.next().await {
            seen += piece.len();
            if seen > LINGER_BYTES {
                return;
            }
        }
    };
    // Whether it came to its end changes nothing.
    let _ = tokio::time::timeout(LINGER, reading).await;
}

/// A `Content-Type`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaType {
    /// `type/subtype`, in lower case.
    pub essence: String,
    /// The parameter `charset`, in lower case.
    pub charset: Option<String>,
}

impl MediaType {
    /// Of a request or of a part of a form.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        Self::parse(headers.get(CONTENT_TYPE)?.to_str().ok()?)
    }

    /// From its text.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let essence = parts.next()?.to_ascii_lowercase();
        let (kind, subtype) = essence.split_once('/')?;
        if kind.is_empty() || subtype.is_empty() {
            return None;
        }
        let charset = parts.find_map(|part| {
            let (name, value) = part.split_once('=')?;
            let value = value.trim().trim_matches('"').to_ascii_lowercase();
            name.trim().eq_ignore_ascii_case("charset").then_some(value)
        });
        Some(Self { essence, charset })
    }

    /// Everything here is UTF-8 (of which ASCII is a part).
    pub fn require_utf8(&self) -> Result<(), Problem> {
        match self.charset.as_deref() {
            None | Some("utf-8" | "utf8" | "us-ascii") => Ok(()),
            Some(other) => Err(Problem::new(
                UNSUPPORTED_MEDIA_TYPE,
                format!("The charset must be utf-8, not {other:.40}."),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_are_read_as_they_are_written() {
        let of = |text| MediaType::parse(text).unwrap();
        assert_eq!(of("text/csv").essence, "text/csv");
        assert_eq!(of("Text/CSV; header=present; Charset=\"UTF-8\"").essence, "text/csv");
        assert_eq!(of("text/csv; charset=\"UTF-8\"").charset.as_deref(), Some("utf-8"));
        assert!(of("text/csv; charset=utf-8").require_utf8().is_ok());
        assert!(of("text/csv; charset=iso-8859-1").require_utf8().is_err());
        for text in ["", "rubbish", "/", "text/", ";charset=utf-8"] {
            assert_eq!(MediaType::parse(text), None, "{text}");
        }
    }

    #[test]
    fn flags_are_yes_or_no() {
        assert!(flag("x", Some("true")).unwrap());
        assert!(!flag("x", Some("0")).unwrap());
        assert!(!flag("x", None).unwrap());
        assert!(flag("x", Some("maybe")).is_err());
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_refused() {
        let within = Duration::from_secs(5);
        let body = read_body(Body::from(vec![b' '; MAX_BODY]), within).await.unwrap();
        assert_eq!(body.len(), MAX_BODY);
        let refused = read_body(Body::from(vec![b' '; MAX_BODY + 1]), within).await.unwrap_err();
        assert_eq!(refused.status(), 413);
    }
}

//! Every answer carries an `X-Request-Id`, and what a request changes is written down with it: the caller's,
//! if it is 1 to 64 visible ASCII characters, else a new one.

use std::fmt::Write;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use listmill_shared::app::App;
use listmill_shared::domain::clock::Clock;
use listmill_shared::domain::id::Ids;

/// The header, in requests and answers.
pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");
/// Characters of an id that a caller gives.
const LONGEST: usize = 64;

/// The id of a request: an extension of every request.
#[derive(Debug, Clone)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// Its text: visible ASCII.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn of(headers: &HeaderMap, source: &Source) -> Self {
        let fits = |bytes: &[u8]| {
            (1..=LONGEST).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
        };
        let given = headers.get(HEADER).filter(|value| fits(value.as_bytes()));
        match given.and_then(|value| value.to_str().ok()) {
            Some(text) => Self(text.into()),
            None => {
                let mut text = String::from("req_");
                // Writing to a String cannot fail.
                let _ = write!(text, "{}", source.ids.uuid(source.clock.now()).simple());
                Self(text.into())
            }
        }
    }
}

/// What new ids are made of.
#[derive(Clone)]
pub struct Source {
    ids: Ids,
    clock: Clock,
}

impl Source {
    /// The process's own.
    pub fn of(app: &App) -> Self {
        Self { ids: app.ids.clone(), clock: app.clock.clone() }
    }
}

/// Middleware of every route, outermost: names the request, and its answer.
pub async fn name(State(source): State<Source>, mut request: Request, next: Next) -> Response {
    let id = RequestId::of(request.headers(), &source);
    request.extensions_mut().insert(id.clone());
    let mut response = next.run(request).await;
    if let Ok(value) = HeaderValue::from_str(id.as_str()) {
        response.headers_mut().insert(HEADER, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callers_id_is_taken_if_it_can_be() {
        let source = Source { ids: Ids::seeded(1), clock: Clock::manual(1_700_000_000_000) };
        let of = |value: Option<&[u8]>| {
            let mut headers = HeaderMap::new();
            if let Some(value) = value {
                headers.insert(HEADER, HeaderValue::from_bytes(value).unwrap());
            }
            RequestId::of(&headers, &source).as_str().to_owned()
        };
        assert_eq!(of(Some(b"a~!{}")), "a~!{}");
        assert_eq!(of(Some(&[b'x'; 64])), "x".repeat(64));
        let mut made = Vec::new();
        for wrong in [None, Some(&b""[..]), Some(b"a b"), Some(b"\xc3\xa4"), Some(&[b'x'; 65])] {
            let id = of(wrong);
            assert!(id.starts_with("req_") && id.len() == 36, "{wrong:?}: {id}");
            assert!(!made.contains(&id));
            made.push(id);
        }
    }
}

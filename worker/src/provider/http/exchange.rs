//! One request to the service and its answer, in bounded time and memory. Redirects are not followed:
//! they could carry the key elsewhere. Dropping the future drops the connection.

use std::error::Error;
use std::fmt::Write;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::header::{HeaderMap, LOCATION, RETRY_AFTER};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use listmill_shared::domain::clock::Clock;

use super::template::Template;

/// Octets of an answer that are read.
const MAX_BODY: usize = 64 * 1024;
/// A connection that nobody uses is closed after this.
const IDLE: Duration = Duration::from_secs(30);

/// An answer.
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// How long the service asks us to wait.
    pub retry_after: Option<Duration>,
    /// Where a redirect points: scheme and host, never more.
    pub location: Option<String>,
    /// Its body.
    pub body: Bytes,
}

/// No answer.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// None in time.
    #[error("no answer in time")]
    Timeout,
    /// Nobody there, or TLS failed.
    #[error("no connection: {0}")]
    Connect(String),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// More than [`MAX_BODY`].
    #[error("the answer is longer than {MAX_BODY} octets")]
    TooLong,
}

/// See the module.
pub struct Exchange {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    url: Template,
    headers: HeaderMap,
    body: Option<Template>,
    timeout: Duration,
    clock: Clock,
}

impl Exchange {
    /// GETs `url`, or POSTs `body` to it; `tls` says who is trusted.
    pub fn new(
        url: Template,
        headers: HeaderMap,
        body: Option<Template>,
        timeout: Duration,
        tls: rustls::ClientConfig,
        clock: Clock,
    ) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(timeout));
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .build(https);
        Self { client, url, headers, body, timeout, clock }
    }

    /// Asks about one address.
    pub async fn ask(&self, email: &str) -> Result<Reply, Fault> {
        let answer = tokio::time::timeout(self.timeout, self.send(email));
        answer.await.unwrap_or(Err(Fault::Timeout))
    }

    async fn send(&self, email: &str) -> Result<Reply, Fault> {
        let body = self.body.as_ref().map(|body| body.fill(email));
        let mut request = Request::new(Full::from(body.unwrap_or_default()));
        if self.body.is_some() {
            *request.method_mut() = Method::POST;
        }
        *request.uri_mut() =
            self.url.fill(email).parse().map_err(|e| Fault::Broken(reasons(&e)))?;
        request.headers_mut().clone_from(&self.headers);
        let answer = self.client.request(request).await.map_err(|e| match e.is_connect() {
            true => Fault::Connect(reasons(&e)),
            false => Fault::Broken(reasons(&e)),
        })?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, MAX_BODY).collect().await.map_err(|e| match e
            .is::<LengthLimitError>()
        {
            true => Fault::TooLong,
            false => Fault::Broken(reasons(&*e)),
        })?;
        Ok(Reply {
            status: head.status,
            retry_after: self.retry_after(&head.headers),
            location: location(&head.headers),
            body: body.to_bytes(),
        })
    }

    /// RFC 9110, 10.2.3: seconds, or a date.
    fn retry_after(&self, headers: &HeaderMap) -> Option<Duration> {
        let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
        if let Ok(seconds) = text.parse() {
            return Some(Duration::from_secs(seconds));
        }
        let date = httpdate::parse_http_date(text).ok()?;
        let at = date.duration_since(std::time::UNIX_EPOCH).ok()?;
        let now = Duration::from_millis(u64::try_from(self.clock.now()).ok()?);
        Some(at.saturating_sub(now))
    }
}

fn location(headers: &HeaderMap) -> Option<String> {
    let uri: Uri = headers.get(LOCATION)?.to_str().ok()?.parse().ok()?;
    let scheme = uri.scheme_str()?;
    Some(format!("{scheme}://{}", uri.host()?))
}

/// An error and what caused it; neither names the URL.
fn reasons(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}

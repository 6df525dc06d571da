//! Reports of found keys, over HTTP or HTTPS.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{CONTENT_TYPE, RETRY_AFTER};
use hyper::{Request, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use listmill_shared::domain::key::Secret;
use serde_json::json;

/// A report may take so long.
const PATIENCE: Duration = Duration::from_secs(30);
/// A server that asks to wait is asked so often again, after this long at most.
const TRIES: u32 = 20;
const LONGEST: Duration = Duration::from_secs(60);
/// Bytes of an answer.
const ANSWER: usize = 64 * 1024;

/// Reports to one API.
pub struct Reporter {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    uri: Uri,
}

impl Reporter {
    /// `base`: such as `https://api.example.com`.
    pub fn new(base: &str) -> Result<Self> {
        let base = base.trim_end_matches('/');
        ensure!(
            base.starts_with("http://") || base.starts_with("https://"),
            "--url: wanted is an address such as https://api.example.com"
        );
        let uri: Uri = format!("{base}/v1/keys/report").parse().context("--url is no address")?;
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(PATIENCE));
        let roots = webpki_roots::TLS_SERVER_ROOTS.iter().cloned();
        let tls = rustls::ClientConfig::builder()
            .with_root_certificates(rustls::RootCertStore::from_iter(roots))
            .with_no_client_auth();
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        Ok(Self { client: Client::builder(TokioExecutor::new()).build(https), uri })
    }

    /// Reports a key that was found at `place`; when it returns, the key opens nothing.
    pub async fn report(&self, secret: &Secret, place: &str) -> Result<()> {
        let body = json!({ "key": secret.reveal(), "url": place, "source": "listmill scan" });
        let body = Bytes::from(body.to_string());
        for _ in 0..TRIES {
            let sent = tokio::time::timeout(PATIENCE, self.send(body.clone())).await;
            let told = sent.context("no answer in time").and_then(|told| told);
            match told.with_context(|| format!("cannot report to {}", self.uri))? {
                None => return Ok(()),
                Some(wait) => tokio::time::sleep(wait).await,
            }
        }
        bail!("{} has asked to wait {TRIES} times; what is left is not reported", self.uri)
    }

    /// Sends it once; `Some` = how long to wait first.
    async fn send(&self, body: Bytes) -> Result<Option<Duration>> {
        let request = Request::post(self.uri.clone())
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))?;
        let (head, body) = self.client.request(request).await?.into_parts();
        let body = Limited::new(body, ANSWER).collect().await;
        if matches!(head.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            let wait =
                head.headers.get(RETRY_AFTER).and_then(|wait| wait.to_str().ok()?.parse().ok());
            return Ok(Some(Duration::from_secs(wait.unwrap_or(1)).min(LONGEST)));
        }
        let body =
            body.map_err(|error| anyhow::anyhow!("the answer broke off: {error}"))?.to_bytes();
        ensure!(
            head.status == StatusCode::OK,
            "it answered {}: {:.300}",
            head.status.as_u16(),
            String::from_utf8_lossy(&body)
        );
        Ok(None)
    }
}

//! One server, spoken to with one key.
//!
//! A request is tried again when its connection broke or the server asks to come again ([`Tries`]); everything
//! that is sent like this does the same however often it arrives. Nothing waits for ever: a connection has
//! [`CONNECT`], an answer the patience of its caller, every next piece of a stream too. The key is in one header
//! and nowhere else: what a server answers is shown without it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use listmill_shared::domain::key::Secret;
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::{Method, RequestBuilder, Response, Url, redirect};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;

use super::fault::{Fault, Refusal};
use crate::args::{AccessArgs, KEY_VARIABLE, ServerArgs, URL_VARIABLE};
use crate::output::complain;

/// A connection takes no longer.
const CONNECT: Duration = Duration::from_secs(10);
/// Nor does an answer of a few lines.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of an answer that is read as a whole, and of a refusal.
const ANSWER: usize = 16 << 20;
const REFUSAL: usize = 64 << 10;
/// Tries of a request, of a submission, and how long either waits between them in all.
const TRIES: u32 = 5;
const SUBMISSIONS: u32 = 8;
const WAIT: Duration = Duration::from_secs(120);
/// The first wait, doubled each time up to the last.
const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);

/// See the module.
pub struct Server {
    http: reqwest::Client,
    base: Url,
    shown: String,
    key: Secret,
    bearer: HeaderValue,
    timeout: Option<Duration>,
}

impl Server {
    /// The one that the arguments or the environment name.
    pub fn find(args: &ServerArgs) -> Result<Self> {
        let url = args.url.as_deref().map(str::trim).filter(|url| !url.is_empty());
        let url = url.with_context(|| {
            format!(
                "which server? Name it with --url https://lists.example.com, or in {URL_VARIABLE}"
            )
        })?;
        Self::at(url, &args.access)
    }

    /// The one at this address.
    pub fn at(url: &str, access: &AccessArgs) -> Result<Self> {
        let base = address(url)?;
        let shown = base.as_str().trim_end_matches('/').to_owned();
        let key = key(access)?;
        let mut bearer = HeaderValue::from_str(&format!("Bearer {}", key.reveal()))
            .map_err(|_| anyhow!("the key cannot be sent"))?;
        bearer.set_sensitive(true);
        let near = is_near(&base);
        if base.scheme() == "http" && !near {
            complain(&format!("note: {shown}: without https, others on the way can read the key"));
        }
        let mut http = reqwest::Client::builder()
            .tls_backend_preconfigured(trust(access.ca_file.as_deref())?)
            .user_agent(concat!("listmill/", env!("CARGO_PKG_VERSION")))
            // Whoever is sent elsewhere would take the key along.
            .redirect(redirect::Policy::none())
            .connect_timeout(access.timeout.map_or(CONNECT, |timeout| timeout.min(CONNECT)))
            .gzip(false)
            .tcp_nodelay(true);
        if near {
            http = http.no_proxy();
        }
        let http = http.build().context("cannot make an HTTP client")?;
        Ok(Self { http, base, shown, key, bearer, timeout: access.timeout })
    }

    /// Its address.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// For so long nothing may come.
    pub fn patience(&self, usual: Duration) -> Duration {
        self.timeout.unwrap_or(usual)
    }

    /// A request that is still to be sent.
    pub fn request(&self, method: Method, path: &str, query: &[(&str, String)]) -> RequestBuilder {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", self.base.path().trim_end_matches('/')));
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        self.http.request(method, url).header(AUTHORIZATION, self.bearer.clone())
    }

    /// What a GET answers.
    pub async fn get(&self, path: &str, query: &[(&str, String)]) -> Result<Value, Fault> {
        self.json(|| self.request(Method::GET, path, query).header(ACCEPT, "application/json"))
            .await
    }

    /// What a POST without a body answers; one that does the same twice.
    pub async fn post(&self, path: &str) -> Result<Value, Fault> {
        self.json(|| self.request(Method::POST, path, &[])).await
    }

    async fn json(&self, make: impl Fn() -> RequestBuilder) -> Result<Value, Fault> {
        let patience = self.patience(PATIENCE);
        let mut tries = Tries::default();
        loop {
            let answered = async { self.value(self.once(patience, make()).await?).await };
            match answered.await {
                Ok(value) => return Ok(value),
                Err(fault) => tries.again(fault).await?,
            }
        }
    }

    /// An answer whose body is read as it comes. `usual`: until it begins.
    pub async fn open(
        &self,
        usual: Duration,
        make: impl Fn() -> RequestBuilder,
    ) -> Result<Response, Fault> {
        let mut tries = Tries::default();
        loop {
            match self.once(self.patience(usual), make()).await {
                Ok(response) => return Ok(response),
                Err(fault) => tries.again(fault).await?,
            }
        }
    }

    /// One try.
    pub async fn once(
        &self,
        patience: Duration,
        request: RequestBuilder,
    ) -> Result<Response, Fault> {
        match tokio::time::timeout(patience, request.send()).await {
            Ok(Ok(response)) => self.judge(response).await,
            Ok(Err(error)) => Err(Fault::of(&self.shown, &error)),
            Err(_) => Err(self.silent(patience)),
        }
    }

    /// A success, or why it is none.
    pub async fn judge(&self, response: Response) -> Result<Response, Fault> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        let foreign = |what| Fault::Foreign { server: self.shown.clone(), what };
        if status.is_redirection() {
            let to = header(LOCATION).unwrap_or("elsewhere");
            return Err(foreign(self.without_key(&format!("sends to {to}; name that instead"))));
        }
        let wait = header(RETRY_AFTER).and_then(|wait| wait.trim().parse().ok());
        let wait = wait.map(Duration::from_secs);
        // Whatever of it there is.
        let body = self.read(response, REFUSAL).await.unwrap_or_default();
        let body = self.without_key(&String::from_utf8_lossy(&body));
        Err(match Refusal::read(status.as_u16(), wait, body.as_bytes()) {
            Some(refusal) => Fault::Refused(refusal),
            None => foreign(format!("answers {status}, not as a Listmill does")),
        })
    }

    /// The JSON of an answer.
    pub async fn value(&self, response: Response) -> Result<Value, Fault> {
        let body = self.read(response, ANSWER).await?;
        serde_json::from_slice(&body).map_err(|_| Fault::Foreign {
            server: self.shown.clone(),
            what: String::from("answers something that is no JSON"),
        })
    }

    async fn read(&self, response: Response, most: usize) -> Result<Vec<u8>, Fault> {
        let mut body = Vec::new();
        let mut pieces = std::pin::pin!(self.pieces(response, PATIENCE));
        while let Some(piece) = pieces.next().await {
            let piece = piece?;
            let room = most.saturating_sub(body.len()).min(piece.len());
            body.extend_from_slice(&piece[..room]);
            if room < piece.len() {
                break;
            }
        }
        Ok(body)
    }

    /// An answer's bytes, none of which may take longer than `usual`.
    pub fn pieces(
        &self,
        response: Response,
        usual: Duration,
    ) -> impl Stream<Item = Result<Bytes, Fault>> + Send + use<> {
        let (server, patience) = (self.shown.clone(), self.patience(usual));
        let body = Some(response.bytes_stream().boxed());
        stream::unfold((body, server), move |(body, server)| async move {
            let mut body = body?;
            match tokio::time::timeout(patience, body.next()).await {
                Ok(None) => None,
                Ok(Some(Ok(piece))) => Some((Ok(piece), (Some(body), server))),
                Ok(Some(Err(error))) => Some((Err(Fault::of(&server, &error)), (None, server))),
                Err(_) => {
                    let fault = Fault::Silent { server: server.clone(), limit: patience };
                    Some((Err(fault), (None, server)))
                }
            }
        })
    }

    /// It did not answer in time.
    pub fn silent(&self, limit: Duration) -> Fault {
        Fault::Silent { server: self.shown.clone(), limit }
    }

    /// Something in between may throw our request back at us.
    fn without_key(&self, text: &str) -> String {
        text.replace(self.key.reveal(), "…")
    }
}

/// How often something was tried, and whether once more is worth it.
pub struct Tries {
    most: u32,
    failed: u32,
    got_through: bool,
    waited: Duration,
}

impl Default for Tries {
    fn default() -> Self {
        Self { most: TRIES, failed: 0, got_through: false, waited: Duration::ZERO }
    }
}

impl Tries {
    /// Of what is worth more of them.
    pub fn of_submission() -> Self {
        Self { most: SUBMISSIONS, ..Self::default() }
    }

    /// Waits for the next try, or gives the fault back.
    pub async fn again(&mut self, fault: Fault) -> Result<(), Fault> {
        let Some(wait) = self.wait(&fault) else { return Err(fault) };
        complain(&format!("{fault}; trying again in {:.1} s", wait.as_secs_f32()));
        tokio::time::sleep(wait).await;
        Ok(())
    }

    fn wait(&mut self, fault: &Fault) -> Option<Duration> {
        self.failed += 1;
        let usual = back_off(self.failed);
        let wait = match fault {
            Fault::Broken { .. } => usual,
            // Nobody was ever there: it is the address, and waiting makes it no better.
            Fault::Unreached { .. } if self.got_through => usual,
            Fault::Refused(refusal) if refusal.is_passing() => refusal.wait.unwrap_or(usual),
            _ => return None,
        };
        self.got_through = true;
        self.waited += wait;
        (self.failed < self.most && self.waited <= WAIT).then_some(wait)
    }
}

/// After so many failures in a row.
pub fn back_off(failed: u32) -> Duration {
    (FIRST * 2u32.saturating_pow(failed.saturating_sub(1).min(16))).min(LONGEST)
}

fn address(text: &str) -> Result<Url> {
    let wanted = "wanted is an address such as https://lists.example.com";
    let Ok(url) = Url::parse(text) else { bail!("{text:?} is no address of a server: {wanted}") };
    ensure!(
        matches!(url.scheme(), "http" | "https") && url.host().is_some(),
        "{text:?} is no address of a server: {wanted}"
    );
    ensure!(
        url.username().is_empty() && url.password().is_none(),
        "the server's address holds a name or password, which it does not take: {wanted}"
    );
    ensure!(
        url.query().is_none() && url.fragment().is_none(),
        "{text:?} has more than the address of a server: {wanted}"
    );
    Ok(url)
}

/// This machine itself.
fn is_near(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost"
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// From the argument, the file or the environment, in this order.
fn key(access: &AccessArgs) -> Result<Secret> {
    let text = match (&access.key, &access.key_file) {
        (Some(key), _) => key.0.clone(),
        (None, Some(path)) => std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the key from {}", path.display()))?,
        (None, None) => {
            let key = std::env::var_os(KEY_VARIABLE).filter(|key| !key.is_empty());
            let key = key.with_context(|| {
                format!("which key? Put it into {KEY_VARIABLE}, or a file that --key-file names")
            })?;
            key.into_string().map_err(|_| anyhow!("{KEY_VARIABLE} is no text"))?
        }
    };
    let key = Secret::foreign(text.trim());
    key.context("the key is none: it is empty, or has characters that no key has")
}

/// The authorities that everybody trusts, this machine's, and those of the file.
fn trust(file: Option<&Path>) -> Result<ClientConfig> {
    let mut roots = RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    // What cannot be read is not trusted, which is the safe side.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = file {
        let shown = path.display();
        let before = roots.len();
        let all = CertificateDer::pem_file_iter(path);
        for certificate in all.map_err(|error| anyhow!("--ca-file {shown}: {error}"))? {
            let certificate = certificate.map_err(|error| anyhow!("--ca-file {shown}: {error}"))?;
            roots.add(certificate).with_context(|| format!("--ca-file {shown}"))?;
        }
        ensure!(roots.len() > before, "--ca-file {shown}: there is no certificate in it");
    }
    Ok(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_servers_are_told_from_others() {
        for right in ["http://127.0.0.1:8080", "https://lists.example.com/mill/", "http://[::1]:1"]
        {
            assert!(address(right).is_ok(), "{right}");
        }
        for wrong in ["", "lists.example.com", "localhost:8080", "ftp://x", "https://x/?a=b", "/x"]
        {
            assert!(address(wrong).is_err(), "{wrong}");
        }
        let secret = address("https://me:secret@x.example").unwrap_err().to_string();
        assert!(!secret.contains("secret@"), "{secret}");
        assert!(is_near(&address("http://[::1]:80").unwrap()));
        assert!(!is_near(&address("http://192.0.2.1").unwrap()));
    }

    fn broken() -> Fault {
        Fault::Broken { server: String::new(), why: String::new() }
    }

    fn unreached() -> Fault {
        Fault::Unreached { server: String::new(), why: String::new() }
    }

    #[test]
    fn who_is_not_there_at_first_is_not_waited_for() {
        let mut tries = Tries::default();
        assert!(tries.wait(&unreached()).is_none());
        let mut tries = Tries::default();
        assert!(tries.wait(&broken()).is_some());
        assert!(tries.wait(&unreached()).is_some(), "it is being started anew");
        let more = (0..100).filter(|_| tries.wait(&broken()).is_some()).count();
        assert!((1..100).contains(&more), "not for ever: {more}");
    }

    #[test]
    fn a_long_wait_is_not_waited_for() {
        let asks = |seconds| {
            let wait = Some(Duration::from_secs(seconds));
            let refusal = Refusal::read(429, wait, br#"{"error":"Rate limit exceeded"}"#).unwrap();
            Tries::default().wait(&Fault::Refused(refusal))
        };
        assert_eq!(asks(45), Some(Duration::from_secs(45)));
        assert_eq!(asks(20_000), None);
    }
}

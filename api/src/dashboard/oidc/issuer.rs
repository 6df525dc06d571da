//! Asking the issuer: where it is asked, by which keys it signs, and whom it has let in.
//!
//! | what | is kept | read anew |
//! | --- | --- | --- |
//! | discovery document | an hour | when that is over |
//! | keys | an hour | when that is over; for a key that is not among them at most once a minute |
//!
//! An answer has at most 256 KB. No redirect is followed, so no other host is asked than those that the issuer's
//! own document names; they are asked over TLS, or on this machine where the issuer itself is there. How long all
//! of it may take, and how many ask at once, the caller bounds. Neither the secret nor a code stands in an error.

use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use listmill_shared::app::identities::Identity;
use listmill_shared::domain::clock::Millis;
use listmill_shared::settings::oidc::is_safe_address;
use listmill_shared::settings::{Secret, Settings};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{RequestBuilder, Response, redirect};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject};
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;

use super::token::{self, Expected, Key, TokenError};

/// Bytes of an answer.
const MOST: usize = 256 * 1024;
/// What was read is good for so long.
const FRESH: Millis = 3_600_000;
/// A key that is not there is looked for at most so often.
const AGAIN: Millis = 60_000;
/// Characters of an error's name that are shown.
const LONGEST_ERROR: usize = 60;

/// All but what RFC 3986, 2.3, leaves alone.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Settings that an issuer cannot be asked with.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A file that cannot be read, or holds something else.
    #[error("oidc_ca_file {path}: {source}")]
    File {
        /// Which.
        path: String,
        /// Why.
        source: pem::Error,
    },
    /// A file without a certificate.
    #[error("oidc_ca_file {0}: there is no certificate in it (wanted: PEM, BEGIN CERTIFICATE)")]
    Empty(String),
    /// A certificate that cannot be an authority's, or TLS cannot be set up.
    #[error("oidc_ca_file: TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The HTTP client.
    #[error("oidc_issuer: HTTP: {0}")]
    Http(#[from] reqwest::Error),
}

/// Why the issuer's word is not there, or not believed.
#[derive(Debug, thiserror::Error)]
pub enum IssuerError {
    /// It takes too long.
    #[error("it did not answer in time")]
    Slow,
    /// It cannot be reached, or hung up.
    #[error("it cannot be asked: {0}")]
    Away(reqwest::Error),
    /// It answers with something else.
    #[error("{0} was answered with status {1}")]
    Status(&'static str, u16),
    /// It answers with too much.
    #[error("{0} has more than 256 KB")]
    TooLong(&'static str),
    /// It answers with no JSON, or with other fields.
    #[error("{0} is not what it should be")]
    Form(&'static str),
    /// Its document is about another issuer.
    #[error("the discovery document names another issuer than the setting oidc_issuer does")]
    Other,
    /// Its document names an address that must not be asked.
    #[error("the discovery document has no safe {0}")]
    Address(&'static str),
    /// It refuses the code.
    #[error("the token endpoint refuses: {0}")]
    Refused(String),
    /// Its word is not believed.
    #[error("the ID token is not believed for {0}")]
    Token(#[from] TokenError),
}

impl From<reqwest::Error> for IssuerError {
    fn from(error: reqwest::Error) -> Self {
        Self::Away(error.without_url())
    }
}

/// What the discovery document says (OpenID Connect Discovery 1.0, 3).
#[derive(Debug, Deserialize)]
pub struct Discovery {
    issuer: String,
    /// Where browsers are sent.
    pub authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<Value>,
}

#[derive(Deserialize)]
struct Granted {
    id_token: String,
}

#[derive(Deserialize)]
struct Denied {
    error: String,
}

#[derive(Default)]
struct Keys {
    keys: Arc<Vec<Key>>,
    /// When they were read; none yet.
    read_at: Option<Millis>,
    /// When they were asked for last.
    asked_at: Millis,
}

/// What of a log-in the issuer and its word are held against.
pub struct Attempt<'a> {
    /// The code that came back.
    pub code: &'a str,
    /// What the challenge was made of.
    pub verifier: &'a str,
    /// What the token must repeat.
    pub nonce: &'a str,
}

/// An issuer.
pub struct Issuer {
    http: reqwest::Client,
    url: String,
    client: String,
    secret: Secret,
    back: String,
    discovery: Mutex<Option<(Millis, Arc<Discovery>)>>,
    keys: Mutex<Keys>,
}

impl Issuer {
    /// The one that the settings name.
    pub fn new(url: &str, settings: &Settings) -> Result<Self, SetupError> {
        token::install();
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(trust(settings.oidc_ca_file.as_deref())?)
            .redirect(redirect::Policy::none())
            .no_proxy()
            .no_gzip()
            .build()?;
        Ok(Self {
            http,
            url: url.to_owned(),
            client: settings.oidc_client_id.clone(),
            secret: settings.oidc_client_secret.clone(),
            back: format!("{}/login/oidc/back", settings.public_url.trim_end_matches('/')),
            discovery: Mutex::default(),
            keys: Mutex::default(),
        })
    }

    /// Its name for itself.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where a browser goes to log in (RFC 6749, 4.1.1; RFC 7636, 4.3).
    pub async fn way(
        &self,
        state: &str,
        nonce: &str,
        verifier: &str,
        now: Millis,
    ) -> Result<String, IssuerError> {
        let discovery = self.discovery(now).await?;
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(verifier));
        let fields = [
            ("response_type", "code"),
            ("client_id", &self.client),
            ("redirect_uri", &self.back),
            ("scope", "openid email"),
            ("state", state),
            ("nonce", nonce),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ];
        let to = &discovery.authorization_endpoint;
        let joint = if to.contains('?') { '&' } else { '?' };
        Ok(format!("{to}{joint}{}", form(&fields)))
    }

    /// Whom the issuer has let in, by the code that it gave.
    pub async fn identity(
        &self,
        attempt: &Attempt<'_>,
        now: Millis,
    ) -> Result<Identity, IssuerError> {
        let discovery = self.discovery(now).await?;
        let token = self.redeem(&discovery, attempt).await?;
        let keys = self.keys(&discovery, &token, now).await?;
        let key = token::key_of(&token, &keys)?;
        let nonce = attempt.nonce;
        let expected = Expected { issuer: &self.url, client: &self.client, nonce, now };
        Ok(token::verify(&token, key, &expected)?)
    }

    /// What the issuer says of itself. One asks, the others of that moment wait for the answer.
    async fn discovery(&self, now: Millis) -> Result<Arc<Discovery>, IssuerError> {
        const WHAT: &str = "the discovery document";
        let mut known = self.discovery.lock().await;
        if let Some((read_at, discovery)) = known.as_ref()
            && now < read_at + FRESH
        {
            return Ok(discovery.clone());
        }
        let base = self.url.trim_end_matches('/');
        let asked = self.http.get(format!("{base}/.well-known/openid-configuration"));
        let discovery: Discovery = self.read(asked, WHAT).await?;
        if discovery.issuer != self.url {
            return Err(IssuerError::Other);
        }
        let tls = self.url.starts_with("https://");
        for (name, url) in [
            ("authorization_endpoint", &discovery.authorization_endpoint),
            ("token_endpoint", &discovery.token_endpoint),
            ("jwks_uri", &discovery.jwks_uri),
        ] {
            if !is_safe_address(url) || tls && !url.starts_with("https://") {
                return Err(IssuerError::Address(name));
            }
        }
        let discovery = Arc::new(discovery);
        *known = Some((now, discovery.clone()));
        Ok(discovery)
    }

    /// The keys, among them the one of this token if the issuer shows it.
    async fn keys(
        &self,
        discovery: &Discovery,
        token: &str,
        now: Millis,
    ) -> Result<Arc<Vec<Key>>, IssuerError> {
        let mut known = self.keys.lock().await;
        let lacks = matches!(token::key_of(token, &known.keys), Err(TokenError::Key));
        let stale = known.read_at.is_none_or(|read_at| now >= read_at + FRESH);
        if stale || lacks && now >= known.asked_at + AGAIN {
            known.asked_at = now;
            let asked = self.http.get(&discovery.jwks_uri);
            let set: KeySet = self.read(asked, "the set of keys").await?;
            (known.keys, known.read_at) = (Arc::new(token::keys(&set.keys)), Some(now));
        }
        Ok(known.keys.clone())
    }

    /// The token for a code (RFC 6749, 4.1.3).
    async fn redeem(
        &self,
        discovery: &Discovery,
        attempt: &Attempt<'_>,
    ) -> Result<String, IssuerError> {
        const WHAT: &str = "the answer of the token endpoint";
        let mut fields = vec![
            ("grant_type", "authorization_code"),
            ("code", attempt.code),
            ("redirect_uri", &self.back),
            ("code_verifier", attempt.verifier),
            ("client_id", &self.client),
        ];
        let mut request = self.http.post(&discovery.token_endpoint);
        let secret = self.secret.reveal();
        if !secret.is_empty() {
            let ways = discovery.token_endpoint_auth_methods_supported.as_deref();
            if ways.is_none_or(|ways| ways.iter().any(|way| way == "client_secret_basic")) {
                let coded = |text| utf8_percent_encode(text, RESERVED);
                let both = format!("{}:{}", coded(&self.client), coded(secret));
                let basic = format!("Basic {}", STANDARD.encode(both));
                request = request.header("authorization", basic);
            } else {
                fields.push(("client_secret", secret));
            }
        }
        let request =
            request.header("content-type", "application/x-www-form-urlencoded").body(form(&fields));
        let response = request.header("accept", "application/json").send().await?;
        let status = response.status();
        let body = whole(response, WHAT).await?;
        if status.is_success() {
            let granted: Granted = parse(&body, WHAT)?;
            return Ok(granted.id_token);
        }
        match parse::<Denied>(&body, WHAT) {
            Ok(denied) => Err(IssuerError::Refused(named(&denied.error))),
            Err(_) => Err(IssuerError::Status("the token endpoint", status.as_u16())),
        }
    }

    async fn read<T: DeserializeOwned>(
        &self,
        request: RequestBuilder,
        what: &'static str,
    ) -> Result<T, IssuerError> {
        let response = request.header("accept", "application/json").send().await?;
        match response.status().as_u16() {
            200 => parse(&whole(response, what).await?, what),
            status => Err(IssuerError::Status(what, status)),
        }
    }
}

async fn whole(mut response: Response, what: &'static str) -> Result<Vec<u8>, IssuerError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > MOST {
            return Err(IssuerError::TooLong(what));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// What does not fit is not told: an error of the parser quotes it.
fn parse<T: DeserializeOwned>(body: &[u8], what: &'static str) -> Result<T, IssuerError> {
    serde_json::from_slice(body).map_err(|_| IssuerError::Form(what))
}

/// As forms and queries write it.
fn form(fields: &[(&str, &str)]) -> String {
    let coded = |text| utf8_percent_encode(text, RESERVED);
    let pairs = fields.iter().map(|(name, value)| format!("{}={}", coded(name), coded(value)));
    pairs.collect::<Vec<_>>().join("&")
}

/// The name of an error as OAuth has them, such as `invalid_grant`; whatever else stands there is left out.
pub fn named(error: &str) -> String {
    let plain = |c: &char| c.is_ascii_alphanumeric() || "_-.".contains(*c);
    let name: String = error.chars().filter(plain).take(LONGEST_ERROR).collect();
    if name.is_empty() { String::from("unknown") } else { name }
}

/// TLS that trusts the public authorities, and those in `file`.
fn trust(file: Option<&str>) -> Result<ClientConfig, SetupError> {
    let mut roots = RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    if let Some(path) = file {
        let failed = |source| SetupError::File { path: path.to_owned(), source };
        let before = roots.len();
        for certificate in CertificateDer::pem_file_iter(Path::new(path)).map_err(failed)? {
            roots.add(certificate.map_err(failed)?)?;
        }
        if roots.len() == before {
            return Err(SetupError::Empty(path.to_owned()));
        }
    }
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ClientConfig::builder_with_provider(ring)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

//! Settings of the http provider, checked once, at the start.

use std::path::PathBuf;
use std::time::Duration;

use hyper::Uri;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use listmill_shared::domain::clock::Clock;
use listmill_shared::settings::{Secret, Settings};

use super::exchange::Exchange;
use super::mapping::{MapError, Mapping};
use super::reader::Reader;
use super::secrets::Secrets;
use super::template::{self, Template};
use super::trust::{TrustError, trust};

/// How often a service that is down is asked whether it is back.
const PROBE_EVERY: Duration = Duration::from_secs(30);
/// The wait before an address is asked about a second time; twice as long before each further time.
const BACK_OFF: Duration = Duration::from_millis(500);
/// An address to look for mistakes with.
const SAMPLE: &str = "\"a\\\" b\"@example.com";

/// What the provider needs to know; texts as in `settings.default.toml`.
#[derive(Debug, Clone)]
pub struct Config {
    /// URL with places.
    pub url: Secret,
    /// The key.
    pub key: Secret,
    /// Headers, one a line.
    pub header: Secret,
    /// JSON to POST, with places; empty = GET.
    pub body: Secret,
    /// PEM file of further authorities to trust.
    pub ca_file: Option<PathBuf>,
    /// What answers mean.
    pub map: String,
    /// What else they tell.
    pub fields: String,
    /// Time budget of one request.
    pub timeout: Duration,
    /// Further requests for one address.
    pub retries: u32,
    /// The wait before the first of them.
    pub back_off: Duration,
    /// Requests a second; 0 = no bound.
    pub rate: u32,
    /// Requests at once.
    pub concurrency: usize,
    /// How often a service that is down is asked whether it is back.
    pub probe_every: Duration,
}

impl From<&Settings> for Config {
    fn from(settings: &Settings) -> Self {
        Self {
            url: settings.http_url.clone(),
            key: settings.http_key.clone(),
            header: settings.http_header.clone(),
            body: settings.http_body.clone(),
            ca_file: settings.http_ca_file.as_ref().map(PathBuf::from),
            map: settings.http_map.clone(),
            fields: settings.http_fields.clone(),
            timeout: settings.http_timeout,
            retries: settings.http_retries,
            back_off: BACK_OFF,
            rate: settings.http_rate,
            concurrency: settings.http_concurrency,
            probe_every: PROBE_EVERY,
        }
    }
}

/// Settings that cannot be used. None of them shows a secret.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// No URL.
    #[error(
        "http_url is empty: name the service to ask, such as \
         https://api.example.com/v1/verify?email={{email}}"
    )]
    NoUrl,
    /// A URL that cannot be asked.
    #[error("http_url {0}")]
    Url(&'static str),
    /// A place that stands for nothing.
    #[error("http_url has {0}, which stands for nothing: known are {{email}} and {{key}}")]
    Place(String),
    /// The address is nowhere.
    #[error(
        "neither http_url nor http_body has {{email}}, so the service would not learn which address \
         is meant: put it into one of them"
    )]
    NoEmail,
    /// A key without a place, or a place without a key.
    #[error("{0}")]
    Key(&'static str),
    /// A line that is no header.
    #[error("http_header, line {line}: {what}")]
    Header {
        /// From 1.
        line: usize,
        /// What is wrong, and what would be right.
        what: &'static str,
    },
    /// A body that is no JSON.
    #[error(
        "http_body is not JSON at line {line}, column {column}, once the places are filled; \
         {{email}} and {{key}} go into quotes, such as {{\"email\": \"{{email}}\"}}"
    )]
    Body {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// What answers mean.
    #[error(transparent)]
    Map(#[from] MapError),
    /// TLS.
    #[error(transparent)]
    Trust(#[from] TrustError),
}

impl Config {
    /// Checks everything.
    pub(super) fn build(&self, clock: Clock) -> Result<(Exchange, Reader), SetupError> {
        let texts = [&self.url, &self.header, &self.body].map(Secret::reveal);
        let [url_text, header_text, body_text] = texts;
        let key = self.key.reveal().trim();
        match (key.is_empty(), texts.into_iter().any(template::takes_key)) {
            (true, true) => return Err(SetupError::Key("{key} is used, but http_key is empty")),
            (false, false) => {
                return Err(SetupError::Key(
                    "http_key is set, but {key} stands in none of http_url, http_header, http_body",
                ));
            }
            _ => {}
        }
        let url = url(url_text.trim(), key)?;
        let body = match body_text.trim() {
            "" => None,
            text => Some(body(text, key)?),
        };
        if !url.takes_email() && !body.as_ref().is_some_and(Template::takes_email) {
            return Err(SetupError::NoEmail);
        }
        let ours = headers(header_text, key)?;
        let secrets = Secrets::new(key, &ours, url_text, body_text);
        let mut headers = HeaderMap::new();
        headers.insert(
            USER_AGENT,
            HeaderValue::from_static(concat!("listmill/", env!("CARGO_PKG_VERSION"))),
        );
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if body.is_some() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        headers.extend(ours);
        let mapping = Mapping::new(&self.map, &self.fields)?;
        let exchange =
            Exchange::new(url, headers, body, self.timeout, trust(self.ca_file.as_deref())?, clock);
        Ok((exchange, Reader::new(mapping, secrets)))
    }
}

fn url(text: &str, key: &str) -> Result<Template, SetupError> {
    if text.is_empty() {
        return Err(SetupError::NoUrl);
    }
    if let Some(place) = template::unknown_place(text) {
        return Err(SetupError::Place(place.to_owned()));
    }
    if !["https://", "http://"].iter().any(|scheme| text.starts_with(scheme)) {
        return Err(SetupError::Url("must begin with https:// or http://"));
    }
    if text.contains('#') {
        return Err(SetupError::Url("has a #, and what follows it is never sent"));
    }
    let template = Template::new(text, key, template::percent);
    let uri: Uri =
        template.fill(SAMPLE).parse().map_err(|_| SetupError::Url("is not a valid URL"))?;
    match uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        false => Ok(template),
        true => Err(SetupError::Url(
            "has a user name in it: send it as http_header = \"Authorization: Basic …\" instead",
        )),
    }
}

fn body(text: &str, key: &str) -> Result<Template, SetupError> {
    let template = Template::new(text, key, template::json);
    match serde_json::from_str::<serde_json::Value>(&template.fill(SAMPLE)) {
        Ok(_) => Ok(template),
        Err(e) => Err(SetupError::Body { line: e.line(), column: e.column() }),
    }
}

fn headers(text: &str, key: &str) -> Result<HeaderMap, SetupError> {
    let mut headers = HeaderMap::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        let wrong = |what| SetupError::Header { line: number + 1, what };
        let (name, value) = line
            .split_once(':')
            .ok_or_else(|| wrong("must be \"Name: value\", such as \"X-Api-Key: {key}\""))?;
        let name = HeaderName::from_bytes(name.trim().as_bytes())
            .map_err(|_| wrong("what stands before the colon is no header name"))?;
        if matches!(
            name.as_str(),
            "host" | "content-length" | "transfer-encoding" | "connection" | "accept-encoding"
        ) {
            return Err(wrong("this header is set by Listmill alone"));
        }
        let value = Template::new(value.trim(), key, str::to_owned).fill("");
        let mut value = HeaderValue::from_str(&value)
            .map_err(|_| wrong("the value has a character that no header may have"))?;
        value.set_sensitive(true);
        headers.append(name, value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests;

//! Settings: defaults from one documented file ([`DEFAULTS`]), overridden by a TOML file, then by
//! `LISTMILL_*` variables. An unknown name or an unreadable value is an error that names it.

mod hidden;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

pub use hidden::{Secret, ServerUrl};
use serde::{Deserialize, Deserializer, de};

/// The documented defaults, as shipped.
pub const DEFAULTS: &str = include_str!("settings.default.toml");

/// One address may keep another service busy for so long, tries included: a single verification's
/// hold outlives it.
const MOST_PATIENCE: Duration = Duration::from_secs(120);

/// What a process runs with; each field is described in `settings.default.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "described once, in settings.default.toml")]
pub struct Settings {
    pub database_url: ServerUrl,
    pub database_connections: u32,
    #[serde(deserialize_with = "empty_is_none")]
    pub redis_url: Option<ServerUrl>,
    pub redis_namespace: String,
    pub bind: String,
    #[serde(deserialize_with = "empty_is_none")]
    pub worker_bind: Option<String>,
    pub trusted_proxies: String,
    pub key_prefix: String,
    pub key_pepper: Secret,
    pub data_dir: String,
    #[serde(deserialize_with = "empty_is_none")]
    pub github_keys_file: Option<String>,
    pub worker_concurrency: usize,
    pub batch_size: u32,
    pub max_addresses: u64,
    pub max_body_bytes: u64,
    pub max_line_bytes: usize,
    pub max_submissions: usize,
    #[serde(deserialize_with = "duration")]
    pub body_idle_timeout: Duration,
    pub provider: ProviderKind,
    #[serde(deserialize_with = "duration")]
    pub sandbox_latency: Duration,
    pub dns: String,
    pub smtp_port: u16,
    #[serde(deserialize_with = "empty_is_none")]
    pub smtp_ehlo: Option<String>,
    #[serde(deserialize_with = "empty_is_none")]
    pub smtp_from: Option<String>,
    #[serde(deserialize_with = "duration")]
    pub smtp_timeout: Duration,
    #[serde(deserialize_with = "empty_is_none")]
    pub smtp_source_ip: Option<String>,
    #[serde(deserialize_with = "empty_is_none")]
    pub smtp_socks5: Option<String>,
    #[serde(deserialize_with = "switch")]
    pub smtp_starttls: bool,
    pub smtp_host_connections: usize,
    #[serde(deserialize_with = "switch")]
    pub pace: bool,
    pub smtp_host_recipients_per_minute: u32,
    pub smtp_host_connections_per_minute: u32,
    pub pace_hosts: BTreeMap<String, PaceHosts>,
    #[serde(deserialize_with = "empty_is_none")]
    pub disposable_list: Option<String>,
    #[serde(deserialize_with = "empty_is_none")]
    pub free_list: Option<String>,
    #[serde(deserialize_with = "empty_is_none")]
    pub role_list: Option<String>,
    #[serde(deserialize_with = "empty_is_none")]
    pub classify_rules: Option<String>,
    #[serde(deserialize_with = "durations")]
    pub retry_delays: Vec<Duration>,
    pub http_url: Secret,
    pub http_key: Secret,
    pub http_header: Secret,
    pub http_body: Secret,
    #[serde(deserialize_with = "empty_is_none")]
    pub http_ca_file: Option<String>,
    pub http_map: String,
    pub http_fields: String,
    #[serde(deserialize_with = "duration")]
    pub http_timeout: Duration,
    pub http_retries: u32,
    pub http_rate: u32,
    pub http_concurrency: usize,
    #[serde(deserialize_with = "duration")]
    pub result_cache: Duration,
    #[serde(deserialize_with = "switch")]
    pub evidence: bool,
    #[serde(deserialize_with = "duration")]
    pub shutdown_grace: Duration,
    #[serde(deserialize_with = "duration")]
    pub lease_ttl: Duration,
    #[serde(deserialize_with = "duration")]
    pub sweep_interval: Duration,
    #[serde(deserialize_with = "switch")]
    pub rate_limits: bool,
    pub rate_limit_per_minute: u32,
    pub root_rate_limit_per_minute: u32,
    #[serde(deserialize_with = "duration")]
    pub idempotency_ttl: Duration,
    #[serde(deserialize_with = "switch")]
    pub request_log: bool,
    #[serde(deserialize_with = "duration")]
    pub request_log_ttl: Duration,
    pub request_log_rows: u64,
    pub request_log_accepted_per_second: u32,
    pub log: String,
    pub log_format: LogFormat,
    /// `LISTMILL_*` variables that name no setting: worth a warning, as they may be misspelt.
    #[serde(skip)]
    pub unknown: Vec<String>,
    /// What the process does, for those who look at the database's sessions.
    #[serde(skip)]
    pub role: &'static str,
}

/// Who verifies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProviderKind {
    /// DNS and the receiving mail server.
    Smtp,
    /// Another service.
    Http,
    /// Made-up answers, the same every time.
    Sandbox,
}

/// Mail hosts that share one pace. A figure that is not given is that of every host.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PaceHosts {
    /// Ends of their names, whole labels.
    pub hosts: Vec<String>,
    /// Recipients asked about in a minute.
    pub recipients_per_minute: Option<u32>,
    /// Connections opened in a minute.
    pub connections_per_minute: Option<u32>,
    /// Connections at once.
    pub connections: Option<usize>,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// Settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A file or variable that does not parse.
    #[error("settings: {0}")]
    Read(#[from] config::ConfigError),
    /// The shipped defaults do not parse.
    #[error("settings: shipped defaults: {0}")]
    Defaults(#[from] toml::de::Error),
    /// A value outside its range.
    #[error("settings: {name} must be {want}, not {got}")]
    Range {
        /// The setting.
        name: &'static str,
        /// What it may be.
        want: &'static str,
        /// What it is.
        got: String,
    },
}

impl Settings {
    /// What this process's sessions are called on a database server.
    pub fn session(&self) -> String {
        format!("listmill {} {}", self.role, std::process::id())
    }

    /// Reads defaults, then `file` (an error if named but missing), then `environment`
    /// (`LISTMILL_*` pairs; others are ignored).
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, SettingsError> {
        let mut builder = config::Config::builder()
            .add_source(config::File::from_str(DEFAULTS, config::FileFormat::Toml));
        if let Some(path) = file {
            builder = builder.add_source(config::File::from(path));
        }
        let known: toml::Table = toml::from_str(DEFAULTS)?;
        let mut unknown = Vec::new();
        for (variable, value) in environment {
            if let Some(name) = variable.strip_prefix("LISTMILL_") {
                let name = name.to_ascii_lowercase();
                match known.contains_key(&name) {
                    true => builder = builder.set_override(&name, value)?,
                    false => unknown.push(variable),
                }
            }
        }
        let mut settings: Self = builder.build()?.try_deserialize()?;
        settings.unknown = unknown;
        settings.check()?;
        Ok(settings)
    }

    fn check(&self) -> Result<(), SettingsError> {
        let range = |ok: bool, name, want, got: &dyn ToString| match ok {
            true => Ok(()),
            false => Err(SettingsError::Range { name, want, got: got.to_string() }),
        };
        let scheme = self.database_url.scheme();
        range(
            ["sqlite", "postgres", "postgresql"].contains(&scheme),
            "database_url",
            "a sqlite:// or postgres:// address",
            &if scheme.is_empty() { "text without ://" } else { scheme },
        )?;
        range(
            (1..=100_000).contains(&self.worker_concurrency),
            "worker_concurrency",
            "1 to 100000",
            &self.worker_concurrency,
        )?;
        range((1..=5_000).contains(&self.batch_size), "batch_size", "1 to 5000", &self.batch_size)?;
        range(
            (1..=4_000_000_000).contains(&self.max_addresses),
            "max_addresses",
            "1 to 4000000000",
            &self.max_addresses,
        )?;
        self.check_pace()?;
        range(
            (1..=10_000).contains(&self.http_concurrency),
            "http_concurrency",
            "1 to 10000",
            &self.http_concurrency,
        )?;
        range(self.http_retries <= 10, "http_retries", "0 to 10", &self.http_retries)?;
        range(
            self.http_timeout >= Duration::from_millis(100)
                && self.http_timeout * (self.http_retries + 1) <= MOST_PATIENCE,
            "http_timeout",
            "at least 100ms, and times (http_retries + 1) at most 120s",
            &format!("{:?}", self.http_timeout),
        )?;
        range(
            self.lease_ttl >= Duration::from_millis(500),
            "lease_ttl",
            "at least 500ms",
            &format!("{:?}", self.lease_ttl),
        )?;
        range(
            (1..=1_000_000_000_000).contains(&self.request_log_rows),
            "request_log_rows",
            "1 to 1000000000000",
            &self.request_log_rows,
        )?;
        range(
            !self.key_prefix.is_empty()
                && self.key_prefix.bytes().all(|c| c.is_ascii_alphanumeric()),
            "key_prefix",
            "letters and digits",
            &self.key_prefix,
        )
    }

    fn check_pace(&self) -> Result<(), SettingsError> {
        const WANT: &str = "at least 1";
        let given = |name, figure: Option<u64>| match figure {
            Some(0) => Err(SettingsError::Range { name, want: WANT, got: String::from("0") }),
            _ => Ok(()),
        };
        given("smtp_host_connections", Some(self.smtp_host_connections as u64))?;
        let usual = self.smtp_host_recipients_per_minute;
        given("smtp_host_recipients_per_minute", Some(usual.into()))?;
        let usual = self.smtp_host_connections_per_minute;
        given("smtp_host_connections_per_minute", Some(usual.into()))?;
        for (name, entry) in &self.pace_hosts {
            if !entry.hosts.iter().all(|host| host.contains(|c: char| c.is_alphanumeric())) {
                let (want, got) = ("ends of host names", format!("{name}: {:?}", entry.hosts));
                return Err(SettingsError::Range { name: "pace_hosts", want, got });
            }
            given(
                "pace_hosts.*.recipients_per_minute",
                entry.recipients_per_minute.map(u64::from),
            )?;
            given(
                "pace_hosts.*.connections_per_minute",
                entry.connections_per_minute.map(u64::from),
            )?;
            given("pace_hosts.*.connections", entry.connections.map(|count| count as u64))?;
        }
        Ok(())
    }

    /// The lease's length in the database's unit.
    pub fn lease_millis(&self) -> i64 {
        self.lease_ttl.as_millis() as i64
    }
}

fn empty_is_none<'de, D, T>(d: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: From<String>,
{
    Ok(Some(String::deserialize(d)?).filter(|text| !text.is_empty()).map(T::from))
}

fn switch<'de, D: Deserializer<'de>>(d: D) -> Result<bool, D::Error> {
    match String::deserialize(d)?.as_str() {
        "on" | "true" => Ok(true),
        "off" | "false" => Ok(false),
        other => Err(de::Error::custom(format!("{other:?} is neither `on` nor `off`"))),
    }
}

fn duration<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(d)?;
    parse_duration(&text).ok_or_else(|| {
        de::Error::custom(format!("{text:?} is no duration such as 250ms, 30s, 5m, 30d"))
    })
}

fn durations<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<Duration>, D::Error> {
    let text = String::deserialize(d)?;
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts
        .map(|part| {
            parse_duration(part).ok_or_else(|| {
                de::Error::custom(format!("{part:?} is no duration; wanted are such as 1m,5m,15m"))
            })
        })
        .collect()
}

/// Reads `250ms`, `30s`, `5m`, `24h`, `30d`, and `0`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    match text[digits..].trim() {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs),
        "h" => number.checked_mul(3600).map(Duration::from_secs),
        "d" => number.checked_mul(86_400).map(Duration::from_secs),
        "" if number == 0 => Some(Duration::ZERO),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(pairs: &[(&str, &str)]) -> Result<Settings, SettingsError> {
        Settings::load(None, pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())))
    }

    #[test]
    fn defaults_load_and_variables_override_them() {
        let settings = load(&[]).unwrap();
        assert_eq!((settings.batch_size, settings.redis_url), (500, None));
        assert!(settings.rate_limits);
        let settings = load(&[
            ("LISTMILL_BATCH_SIZE", "20"),
            ("LISTMILL_RATE_LIMITS", "off"),
            ("LISTMILL_SANDBOX_LATENCY", "50ms"),
            ("PATH", "/bin"),
        ])
        .unwrap();
        assert_eq!(settings.batch_size, 20);
        assert!(!settings.rate_limits);
        assert_eq!(settings.sandbox_latency, Duration::from_millis(50));
    }

    #[test]
    fn a_file_changes_adds_to_and_keeps_the_pace_of_providers() {
        let folder = std::env::temp_dir();
        let path = folder.join(format!("listmill-settings-{}.toml", std::process::id()));
        let text = "pace = \"off\"\n[pace_hosts.google]\nconnections = 2\n\
                    [pace_hosts.own]\nhosts = [\"mx.example.net\"]\nrecipients_per_minute = 7\n";
        std::fs::write(&path, text).unwrap();
        let loaded = Settings::load(Some(&path), []);
        std::fs::remove_file(&path).unwrap();
        let (settings, shipped) = (loaded.unwrap(), load(&[]).unwrap());
        assert!(shipped.pace && !settings.pace);
        let mut want = shipped.pace_hosts.clone();
        want.get_mut("google").unwrap().connections = Some(2);
        let own = PaceHosts {
            hosts: vec!["mx.example.net".into()],
            recipients_per_minute: Some(7),
            connections_per_minute: None,
            connections: None,
        };
        want.insert("own".into(), own);
        assert_eq!(settings.pace_hosts, want);
        assert!(want.len() > 10);
    }

    #[test]
    fn durations_have_a_unit() {
        for (text, seconds) in [("0", 0), ("0d", 0), ("90s", 90), ("2h", 7_200), ("30d", 2_592_000)]
        {
            assert_eq!(parse_duration(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "5", "d", "-1d", "1w", "1.5h", "999999999999999999d"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn a_misspelt_variable_is_told() {
        assert_eq!(load(&[("LISTMILL_BATCHSIZE", "20")]).unwrap().unknown, ["LISTMILL_BATCHSIZE"]);
    }

    #[test]
    fn a_wrong_value_is_named() {
        for (name, value, expect) in [
            ("LISTMILL_BATCH_SIZE", "0", "batch_size"),
            ("LISTMILL_BATCH_SIZE", "many", "batch_size"),
            ("LISTMILL_LEASE_TTL", "30", "30"),
            ("LISTMILL_DATABASE_URL", "mysql://x", "database_url"),
            ("LISTMILL_HTTP_TIMEOUT", "50s", "http_timeout"),
            ("LISTMILL_HTTP_CONCURRENCY", "0", "http_concurrency"),
            ("LISTMILL_SMTP_HOST_RECIPIENTS_PER_MINUTE", "0", "recipients_per_minute"),
            ("LISTMILL_PACE_HOSTS", "google", "pace_hosts"),
            ("LISTMILL_REQUEST_LOG_ROWS", "0", "request_log_rows"),
        ] {
            let error = load(&[(name, value)]).unwrap_err().to_string();
            assert!(error.contains(expect), "{name}={value}: {error}");
        }
    }
    #[test]
    fn secrets_are_not_shown() {
        let secret = "s3cr3t";
        let names = ["URL", "KEY", "HEADER", "BODY"].map(|name| format!("LISTMILL_HTTP_{name}"));
        let mut pairs: Vec<_> = names.iter().map(|name| (name.as_str(), secret)).collect();
        pairs.push(("LISTMILL_DATABASE_URL", "postgres://me:s3cr3t@host/db"));
        pairs.push(("LISTMILL_REDIS_URL", "redis://:s3cr3t@host"));
        let settings = load(&pairs).unwrap();
        assert_eq!(settings.http_header.reveal(), secret);
        assert!(!format!("{settings:?}").contains(secret));
    }
}

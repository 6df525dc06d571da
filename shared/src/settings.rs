//! Settings: defaults from one documented file ([`DEFAULTS`]), overridden by a TOML file, then by
//! `LISTMILL_*` variables. An unknown name or an unreadable value is an error that names it.

mod abuse;
mod hidden;
mod mail;
pub mod oidc;
mod parse;
mod shown;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

pub use hidden::{Secret, ServerUrl};
pub use mail::{MailServer, Tls};
pub use parse::parse_duration;
use parse::{duration, durations, empty_is_none, switch};
use serde::{Deserialize, Serialize};
pub use shown::Shown;

use crate::domain::abuse::Mode;

/// The documented defaults, as shipped.
pub const DEFAULTS: &str = include_str!("settings.default.toml");

/// One address may keep another service busy for so long, tries included: a single verification's
/// hold outlives it.
const MOST_PATIENCE: Duration = Duration::from_secs(120);

/// A link that shows a key is of use for so long at most.
const MOST_LINK: Duration = Duration::from_secs(7 * 86_400);

/// A download holds its place for so long at most.
const MOST_EXPORT: Duration = Duration::from_secs(86_400);

/// Far from where milliseconds overflow.
const MOST_AGE: Duration = Duration::from_secs(36_500 * 86_400);

/// What a process runs with; each field is described in `settings.default.toml`.
#[derive(Debug, Clone, Deserialize, Serialize)]
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
    pub public_url: String,
    #[serde(deserialize_with = "duration")]
    pub key_link_ttl: Duration,
    #[serde(deserialize_with = "duration")]
    pub session_ttl: Duration,
    #[serde(deserialize_with = "duration")]
    pub session_proof: Duration,
    #[serde(deserialize_with = "switch")]
    pub sign_up: bool,
    pub sign_up_credits: i64,
    #[serde(deserialize_with = "empty_is_none")]
    pub smtp_url: Option<ServerUrl>,
    #[serde(deserialize_with = "empty_is_none")]
    pub mail_from: Option<String>,
    #[serde(deserialize_with = "empty_is_none")]
    pub oidc_issuer: Option<String>,
    pub oidc_client_id: String,
    pub oidc_client_secret: Secret,
    pub oidc_name: String,
    #[serde(deserialize_with = "switch")]
    pub oidc_sign_up: bool,
    pub oidc_domains: String,
    #[serde(deserialize_with = "empty_is_none")]
    pub oidc_ca_file: Option<String>,
    #[serde(deserialize_with = "duration")]
    pub key_rotation_reminder: Duration,
    pub worker_concurrency: usize,
    pub batch_size: u32,
    pub max_addresses: u64,
    pub max_body_bytes: u64,
    pub max_line_bytes: usize,
    pub max_submissions: usize,
    pub max_workbook_bytes: u64,
    pub max_temporary_bytes: u64,
    pub min_temporary_free: u64,
    #[serde(deserialize_with = "duration")]
    pub export_timeout: Duration,
    #[serde(deserialize_with = "duration")]
    pub body_idle_timeout: Duration,
    pub provider: ProviderKind,
    #[serde(deserialize_with = "duration")]
    pub sandbox_latency: Duration,
    pub test_task_addresses: u64,
    pub dns: String,
    pub dns_control: String,
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
    pub results_ttl: Duration,
    #[serde(deserialize_with = "duration")]
    pub idempotency_ttl: Duration,
    #[serde(deserialize_with = "switch")]
    pub credits: bool,
    #[serde(deserialize_with = "switch")]
    pub request_log: bool,
    #[serde(deserialize_with = "duration")]
    pub request_log_ttl: Duration,
    pub request_log_rows: u64,
    pub request_log_accepted_per_second: u32,
    #[serde(deserialize_with = "abuse::mode")]
    pub abuse_protection: Mode,
    #[serde(deserialize_with = "abuse::mode")]
    pub abuse_rate_limits: Mode,
    pub abuse_rate_limits_threshold: u32,
    #[serde(deserialize_with = "duration")]
    pub abuse_rate_limits_spread: Duration,
    #[serde(deserialize_with = "duration")]
    pub abuse_rate_limits_first: Duration,
    #[serde(deserialize_with = "abuse::mode")]
    pub abuse_unknown_keys: Mode,
    pub abuse_unknown_keys_threshold: u32,
    #[serde(deserialize_with = "duration")]
    pub abuse_unknown_keys_first: Duration,
    #[serde(deserialize_with = "abuse::mode")]
    pub abuse_dead_keys: Mode,
    pub abuse_dead_keys_threshold: u32,
    #[serde(deserialize_with = "duration")]
    pub abuse_dead_keys_first: Duration,
    #[serde(deserialize_with = "abuse::mode")]
    pub abuse_networks: Mode,
    pub abuse_networks_threshold: u32,
    pub abuse_networks_known: u32,
    #[serde(deserialize_with = "duration")]
    pub abuse_networks_first: Duration,
    #[serde(deserialize_with = "empty_is_none")]
    pub support_contact: Option<String>,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
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
        range(
            (1..=4_000_000_000).contains(&self.test_task_addresses),
            "test_task_addresses",
            "1 to 4000000000",
            &self.test_task_addresses,
        )?;
        self.check_files()?;
        self.check_pace()?;
        self.check_abuse()?;
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
        self.check_links()?;
        self.check_mail()?;
        self.check_oidc()?;
        range(
            !self.key_prefix.is_empty()
                && self.key_prefix.bytes().all(|c| c.is_ascii_alphanumeric()),
            "key_prefix",
            "letters and digits",
            &self.key_prefix,
        )
    }

    fn check_files(&self) -> Result<(), SettingsError> {
        /// Sums of a few of these do not overflow.
        const MOST: u64 = 1 << 50;
        let bytes = |name, given: u64, least: u64| match (least..=MOST).contains(&given) {
            true => Ok(()),
            false => {
                let want = if least == 0 { "at most 2^50" } else { "1048576 to 2^50" };
                Err(SettingsError::Range { name, want, got: given.to_string() })
            }
        };
        bytes("max_workbook_bytes", self.max_workbook_bytes, 1 << 20)?;
        bytes("max_temporary_bytes", self.max_temporary_bytes, 1 << 20)?;
        bytes("min_temporary_free", self.min_temporary_free, 0)?;
        let lasts = self.export_timeout;
        if !(Duration::from_secs(1)..=MOST_EXPORT).contains(&lasts) {
            let got = format!("{lasts:?}");
            return Err(SettingsError::Range { name: "export_timeout", want: "1s to 24h", got });
        }
        Ok(())
    }

    fn check_links(&self) -> Result<(), SettingsError> {
        let url = &self.public_url;
        let host = ["https://", "http://"].iter().find_map(|scheme| url.strip_prefix(scheme));
        let plain = |c: char| c.is_ascii_graphic() && !"\"'<>\\?#@".contains(c);
        let fits = url.is_empty()
            || host.is_some_and(|host| !host.is_empty() && !host.starts_with('/'))
                && url.chars().all(plain);
        if !fits {
            let want = "an address such as https://api.example.com";
            return Err(SettingsError::Range { name: "public_url", want, got: format!("{url:?}") });
        }
        let lasts = self.key_link_ttl;
        if !(Duration::from_secs(60)..=MOST_LINK).contains(&lasts) {
            let got = format!("{lasts:?}");
            return Err(SettingsError::Range { name: "key_link_ttl", want: "1m to 7d", got });
        }
        let age = self.key_rotation_reminder;
        if age > MOST_AGE {
            let got = format!("{age:?}");
            let want = "at most 36500d";
            return Err(SettingsError::Range { name: "key_rotation_reminder", want, got });
        }
        Ok(())
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

#[cfg(test)]
mod tests;

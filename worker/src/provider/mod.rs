//! Who verifies: the sandbox, the engine that asks DNS and mail servers, and other services over HTTP.

pub mod dns;
pub mod http;
pub mod lists;
pub mod remember;
pub mod smtp;
pub mod suggest;

use std::path::PathBuf;
use std::sync::Arc;

use listmill_shared::app::provider::Provider;
pub use listmill_shared::app::sandbox::Sandbox;
use listmill_shared::domain::address::domain_to_ascii;
use listmill_shared::domain::clock::Clock;
use listmill_shared::domain::id::Ids;
use listmill_shared::queue::QueueError;
use listmill_shared::settings::{ProviderKind, ServerUrl, Settings};
use listmill_shared::throttle::pace::Pacer;

use dns::truth::KNOWN;
use http::Http;
use lists::ListFiles;
use remember::Remember;
use smtp::figures::{Figured, Figures, Together};
use smtp::{Config, SetupError, Smtp};

/// The port at which the world's mail servers listen.
const SMTP_PORT: u16 = 25;

/// Why there is no provider.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// A setting that names no address.
    #[error("settings: smtp_source_ip must be an IP address, not {0:?}")]
    SourceIp(String),
    /// A control name that is none.
    #[error("settings: dns_control must name domains (with commas), or be auto or off, not {0:?}")]
    Control(String),
    /// The engine cannot be set up.
    #[error("provider smtp: {0}")]
    Smtp(#[from] SetupError),
    /// The other service cannot be asked like this.
    #[error("provider http: {0}")]
    Http(#[from] http::SetupError),
    /// The pace cannot be shared through Redis.
    #[error("pace: {0}")]
    Pace(#[from] QueueError),
}

/// The provider that the settings name; must be called inside the runtime that will use it.
pub fn build(
    settings: &Settings,
    clock: &Clock,
    ids: &Ids,
) -> Result<Arc<dyn Provider>, ProviderError> {
    // A connection of its own: the pace must not wait behind the queue.
    let redis = settings.redis_url.as_ref().map(ServerUrl::reveal);
    let pacer = || Pacer::open(redis, &settings.redis_namespace, clock.clone(), ids);
    let provider: Arc<dyn Provider> = match settings.provider {
        // It asks nobody: there is nothing to save.
        ProviderKind::Sandbox => return Ok(Arc::new(Sandbox::new(settings.sandbox_latency))),
        ProviderKind::Smtp => {
            let config = smtp_config(settings)?;
            Arc::new(Smtp::paced(config, clock.clone(), ids.clone(), pacer()?)?)
        }
        ProviderKind::Http => {
            Arc::new(Http::paced(&settings.into(), clock.clone(), ids.clone(), pacer()?)?)
        }
    };
    Ok(Arc::new(Remember::new(provider, settings.result_cache, clock.clone())))
}

/// The smtp provider's part of the settings.
pub fn smtp_config(settings: &Settings) -> Result<Config, ProviderError> {
    let ehlo = settings.smtp_ehlo.clone().unwrap_or_else(host_name);
    let from = settings.smtp_from.clone().unwrap_or_else(|| format!("verify@{ehlo}"));
    let source_ip = settings
        .smtp_source_ip
        .as_ref()
        .map(|text| text.parse().map_err(|_| ProviderError::SourceIp(text.clone())));
    let shipped = Config::default();
    Ok(Config {
        nameservers: settings.dns.clone(),
        port: settings.smtp_port,
        ehlo,
        from,
        timeout: settings.smtp_timeout,
        source_ip: source_ip.transpose()?,
        socks5: settings.smtp_socks5.clone(),
        starttls: settings.smtp_starttls,
        limits: smtp::Limits { connections: settings.smtp_host_connections, ..shipped.limits },
        lists: ListFiles {
            disposable: settings.disposable_list.as_ref().map(PathBuf::from),
            free: settings.free_list.as_ref().map(PathBuf::from),
            roles: settings.role_list.as_ref().map(PathBuf::from),
        },
        rules: settings.classify_rules.as_ref().map(PathBuf::from),
        pace: settings.pace.then(|| figured(settings)),
        // Another port means servers of one's own.
        private_hosts: settings.smtp_port != SMTP_PORT,
        landmarks: match settings.smtp_port {
            SMTP_PORT => smtp::LANDMARKS.iter().map(|&name| name.to_owned()).collect(),
            _ => Vec::new(),
        },
        control: control(settings)?,
        ..shipped
    })
}

/// Domains that the resolver must know.
fn control(settings: &Settings) -> Result<Vec<String>, ProviderError> {
    let own = settings.smtp_port != SMTP_PORT;
    match settings.dns_control.trim() {
        "" | "off" => Ok(Vec::new()),
        // A resolver of one's own may know nothing else.
        "auto" if own => Ok(Vec::new()),
        "auto" => Ok(KNOWN.iter().map(|&name| name.to_owned()).collect()),
        list => list.split(',').map(str::trim).filter(|name| !name.is_empty()).map(named).collect(),
    }
}

fn named(name: &str) -> Result<String, ProviderError> {
    let plain = |c: u8| c.is_ascii_alphanumeric() || b"-._".contains(&c);
    let ascii = domain_to_ascii(name).map(|ascii| ascii.to_ascii_lowercase());
    ascii
        .filter(|ascii| ascii.bytes().all(plain))
        .ok_or_else(|| ProviderError::Control(name.to_owned()))
}

/// How fast each mail host is asked.
fn figured(settings: &Settings) -> Figured {
    let usual = Figures {
        recipients_per_minute: settings.smtp_host_recipients_per_minute,
        connections_per_minute: settings.smtp_host_connections_per_minute,
        connections: settings.smtp_host_connections,
    };
    let together = settings.pace_hosts.iter().map(|(name, entry)| Together {
        name: name.clone(),
        hosts: entry.hosts.clone(),
        figures: Figures {
            recipients_per_minute: entry
                .recipients_per_minute
                .unwrap_or(usual.recipients_per_minute),
            connections_per_minute: entry
                .connections_per_minute
                .unwrap_or(usual.connections_per_minute),
            connections: entry.connections.unwrap_or(usual.connections),
        },
    });
    Figured { usual, together: together.collect() }
}

/// What this machine calls itself.
pub(crate) fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => String::from("localhost"),
        name => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resolver_must_know_what_the_settings_name() {
        let known = |port: &str, names: &str| {
            let env = [("LISTMILL_SMTP_PORT", port), ("LISTMILL_DNS_CONTROL", names)];
            let env = env.map(|(name, value)| (name.to_owned(), value.to_owned()));
            smtp_config(&Settings::load(None, env).unwrap()).map(|config| config.control).ok()
        };
        assert_eq!(known("25", "auto").unwrap(), KNOWN);
        assert_eq!(known("2500", "auto").unwrap(), [""; 0]);
        assert_eq!(known("25", "off").unwrap(), [""; 0]);
        assert_eq!(
            known("2500", "One.test, bücher.test,").unwrap(),
            ["one.test", "xn--bcher-kva.test"]
        );
        assert_eq!(known("25", "no domain"), None);
    }
}

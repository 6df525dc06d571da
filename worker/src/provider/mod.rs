//! Who verifies: the sandbox, and the engine that asks DNS and mail servers.

pub mod dns;
pub mod lists;
mod sandbox;
pub mod smtp;
pub mod suggest;

use std::path::PathBuf;
use std::sync::Arc;

use listmill_shared::domain::clock::Clock;
use listmill_shared::domain::id::Ids;
use listmill_shared::domain::provider::Provider;
use listmill_shared::settings::{ProviderKind, Settings};

use lists::ListFiles;
pub use sandbox::Sandbox;
use smtp::{Config, SetupError, Smtp};

/// The port at which the world's mail servers listen.
const SMTP_PORT: u16 = 25;

/// Why there is no provider.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// The settings name one that this version does not have.
    #[error(
        "the provider `http` is not in this version of Listmill: set LISTMILL_PROVIDER=smtp (asks \
         mail servers) or LISTMILL_PROVIDER=sandbox (made-up verdicts, for trying things out)"
    )]
    NoHttp,
    /// A setting that names no address.
    #[error("settings: smtp_source_ip must be an IP address, not {0:?}")]
    SourceIp(String),
    /// The engine cannot be set up.
    #[error("provider smtp: {0}")]
    Smtp(#[from] SetupError),
}

/// The provider that the settings name; must be called inside the runtime that will use it.
pub fn build(
    settings: &Settings,
    clock: &Clock,
    ids: &Ids,
) -> Result<Arc<dyn Provider>, ProviderError> {
    match settings.provider {
        ProviderKind::Sandbox => Ok(Arc::new(Sandbox::new(settings.sandbox_latency))),
        ProviderKind::Smtp => {
            Ok(Arc::new(Smtp::new(smtp_config(settings)?, clock.clone(), ids.clone())?))
        }
        ProviderKind::Http => Err(ProviderError::NoHttp),
    }
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
        // Another port means servers of one's own.
        private_hosts: settings.smtp_port != SMTP_PORT,
        ..shipped
    })
}

/// What this machine calls itself.
pub(crate) fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => String::from("localhost"),
        name => name.to_owned(),
    }
}

//! Where a domain's mail goes: MX records in order, or the domain's own address (RFC 5321, 5.1),
//! or nowhere (null MX, RFC 7505).
//!
//! Data: one shared resolver with its cache, and above it two caches of finished answers: domain →
//! [`Route`], mail host → [`Addresses`]. Keys are names in ASCII form, lower case, without the last
//! dot. Concurrent questions about one name are one query; negative and failed answers are kept too,
//! failed ones only for [`FAILED`].
//!
//! Invariants: a `Route` lists hosts by preference; the addresses of a host are asked for only when
//! its turn comes, so most domains cost one MX and one A query.

mod lookups;
pub mod truth;

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::rr::{Name, RData};
use listmill_shared::domain::clock::{Clock, Millis};
use moka::future::Cache;

/// Answers kept.
const KEPT: u64 = 200_000;
/// Bounds for how long an answer is kept, whatever its TTL.
const SHORTEST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(3600);
/// How long "no such domain" and "no mail here" are kept.
const NEGATIVE: Duration = Duration::from_secs(300);
/// How long a failure is kept: enough to ask once for a list's many addresses of one domain.
const FAILED: Duration = Duration::from_secs(5);
/// Mail hosts of one domain that are considered; a zone with more is up to no good.
const MAX_HOSTS: usize = 20;
/// Addresses of one mail host that are considered.
const MAX_ADDRESSES: usize = 8;

/// A resolver that cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum DnsSetupError {
    /// No usable system configuration.
    #[error("the system's resolver configuration: {0}")]
    System(NetError),
    /// Not `host:port`.
    #[error("nameserver {given:?} is not host:port: {source}")]
    Nameserver {
        /// What was given.
        given: String,
        /// Why not.
        source: std::io::Error,
    },
    /// Anything else.
    #[error("resolver: {0}")]
    Build(NetError),
}

/// A look-up that failed; the domain may be fine.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{text}")]
pub struct Failed {
    /// No answer in time, rather than a bad one.
    pub timeout: bool,
    /// What the resolver said.
    pub text: Arc<str>,
}

impl Failed {
    /// The caller's patience ran out before the resolver's.
    pub fn timeout(name: &str) -> Self {
        Self { timeout: true, text: format!("DNS of {name}: no answer in time").into() }
    }
}

/// A mail host's place in the order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailHost {
    /// Lower is tried first.
    pub preference: u16,
    /// Its name.
    pub name: Arc<str>,
}

/// Where a domain's mail goes.
#[derive(Debug, Clone)]
pub enum Route {
    /// To these, lowest preference first.
    Hosts(Arc<[MailHost]>),
    /// The domain does not exist.
    NoDomain,
    /// The domain says that it takes no mail (RFC 7505).
    NullMx,
    /// Nobody could tell.
    Failed(Failed),
}

/// Addresses of a mail host; empty = it has none.
pub type Addresses = Result<Arc<[IpAddr]>, Failed>;

#[derive(Clone)]
struct Kept<T> {
    value: T,
    until: Millis,
}

/// See the module.
pub struct Dns {
    resolver: TokioResolver,
    clock: Clock,
    routes: Cache<Arc<str>, Kept<Route>>,
    addresses: Cache<Arc<str>, Kept<Addresses>>,
}

impl Dns {
    /// Asks `nameservers` (`host:port`, commas; port 53 if left out), or the system's if empty.
    /// Names among them are looked up once, here.
    pub fn new(nameservers: &str, clock: Clock) -> Result<Self, DnsSetupError> {
        let mut builder = match nameservers.trim() {
            "" => TokioResolver::builder_tokio().map_err(DnsSetupError::System)?,
            list => {
                let config = ResolverConfig::from_name_servers(name_servers(list)?);
                TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
            }
        };
        let options = builder.options_mut();
        options.timeout = Duration::from_secs(3);
        options.attempts = 2;
        // One server after the other: two at once would double the load for nothing.
        options.num_concurrent_reqs = 1;
        // Mail goes by the DNS alone, and most senders' reputation and reverse DNS are IPv4's.
        options.use_hosts_file = ResolveHosts::Never;
        options.ip_strategy = LookupIpStrategy::Ipv4thenIpv6;
        options.cache_size = KEPT;
        options.negative_max_ttl = Some(NEGATIVE);
        options.positive_max_ttl = Some(LONGEST);
        Ok(Self {
            resolver: builder.build().map_err(DnsSetupError::Build)?,
            clock,
            routes: Cache::new(KEPT),
            addresses: Cache::new(KEPT),
        })
    }

    /// Where mail for `domain` (ASCII form) goes.
    pub async fn route(&self, domain: &str) -> Route {
        let ask = async { self.keep(self.ask_route(domain).await) };
        fresh(&self.routes, domain, self.clock.now(), ask).await
    }

    /// The addresses of a mail host.
    pub async fn addresses(&self, host: &str) -> Addresses {
        let ask = async { self.keep(self.ask_addresses(host).await) };
        fresh(&self.addresses, host, self.clock.now(), ask).await
    }

    /// Forgets every answer.
    pub fn forget(&self) {
        self.resolver.clear_cache();
        self.routes.invalidate_all();
        self.addresses.invalidate_all();
    }

    fn keep<T>(&self, (value, time): (T, Duration)) -> Kept<T> {
        let millis = Millis::try_from(time.as_millis()).unwrap_or(Millis::MAX);
        Kept { value, until: self.clock.now().saturating_add(millis) }
    }

    async fn ask_route(&self, domain: &str) -> (Route, Duration) {
        let Some(name) = qualified(domain) else { return (Route::NoDomain, NEGATIVE) };
        let implicit = || MailHost { preference: 0, name: domain.into() };
        match self.resolver.mx_lookup(name).await {
            Ok(lookup) => {
                let answers = lookup.answers().iter().map(|record| &record.data);
                let route =
                    sort_hosts(answers).unwrap_or_else(|| Route::Hosts([implicit()].into()));
                (route, kept_for(lookup.valid_until()))
            }
            Err(e) if e.is_nx_domain() => (Route::NoDomain, NEGATIVE),
            Err(e) if e.is_no_records_found() => (Route::Hosts([implicit()].into()), NEGATIVE),
            Err(e) => (Route::Failed(failed(domain, &e)), FAILED),
        }
    }

    async fn ask_addresses(&self, host: &str) -> (Addresses, Duration) {
        let Some(name) = qualified(host) else { return (Ok([].into()), NEGATIVE) };
        match self.resolver.lookup_ip(name).await {
            Ok(found) => {
                let addresses: Arc<[IpAddr]> = found.iter().take(MAX_ADDRESSES).collect();
                (Ok(addresses), kept_for(found.valid_until()))
            }
            Err(e) if e.is_no_records_found() => (Ok([].into()), NEGATIVE),
            Err(e) => (Err(failed(host, &e)), FAILED),
        }
    }
}

/// What is kept for `name`, or else what `ask` finds; at most one `ask` per name runs at a time, and
/// when its caller goes away, the next one that waits takes over.
async fn fresh<T: Clone + Send + Sync + 'static>(
    cache: &Cache<Arc<str>, Kept<T>>,
    name: &str,
    now: Millis,
    ask: impl Future<Output = Kept<T>>,
) -> T {
    if let Some(kept) = cache.get(name).await.filter(|kept| kept.until > now) {
        return kept.value;
    }
    let entry = cache.entry(name.into());
    entry.or_insert_with_if(ask, |old| old.until <= now).await.into_value().value
}

/// `None` when there are no MX records at all.
fn sort_hosts<'a>(answers: impl Iterator<Item = &'a RData>) -> Option<Route> {
    let mut null = false;
    let mut hosts = Vec::new();
    for answer in answers {
        let RData::MX(mx) = answer else { continue };
        if mx.exchange.is_root() {
            null = true;
            continue;
        }
        let name = mx.exchange.to_ascii().trim_end_matches('.').to_ascii_lowercase();
        hosts.push(MailHost { preference: mx.preference, name: name.into() });
    }
    // A null MX beside real ones is a mistake, and the real ones count (RFC 7505, 3).
    match (hosts.is_empty(), null) {
        (true, true) => Some(Route::NullMx),
        (true, false) => None,
        (false, _) => {
            hosts.sort_by(|a, b| (a.preference, &a.name).cmp(&(b.preference, &b.name)));
            hosts.dedup_by(|b, a| a.name == b.name);
            hosts.truncate(MAX_HOSTS);
            Some(Route::Hosts(hosts.into()))
        }
    }
}

/// The order to try hosts in: by preference, equal ones shuffled with `random` (RFC 5321, 5.1).
pub fn order(hosts: &[MailHost], mut random: impl FnMut() -> u64) -> Vec<&MailHost> {
    let mut order: Vec<&MailHost> = hosts.iter().collect();
    for group in order.chunk_by_mut(|a, b| a.preference == b.preference) {
        for last in (1..group.len()).rev() {
            let other = random() % (last as u64 + 1);
            group.swap(last, other as usize);
        }
    }
    order
}

/// With the last dot, so that no search list is applied.
fn qualified(name: &str) -> Option<Name> {
    let mut name = Name::from_ascii(name).ok()?;
    name.set_fqdn(true);
    Some(name)
}

fn kept_for(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now()).clamp(SHORTEST, LONGEST)
}

fn failed(name: &str, error: &NetError) -> Failed {
    let timeout = matches!(error, NetError::Timeout);
    let text = match error {
        NetError::Dns(DnsError::ResponseCode(code)) => format!("DNS of {name}: {code}"),
        other => format!("DNS of {name}: {other}"),
    };
    Failed { timeout, text: text.into() }
}

fn name_servers(list: &str) -> Result<Vec<NameServerConfig>, DnsSetupError> {
    let mut servers = Vec::new();
    for given in list.split(',').map(str::trim).filter(|given| !given.is_empty()) {
        for address in socket_addresses(given)? {
            let at_port = |mut connection: ConnectionConfig| {
                connection.port = address.port();
                connection
            };
            let connections =
                vec![at_port(ConnectionConfig::udp()), at_port(ConnectionConfig::tcp())];
            servers.push(NameServerConfig::new(address.ip(), true, connections));
        }
    }
    Ok(servers)
}

fn socket_addresses(given: &str) -> Result<Vec<SocketAddr>, DnsSetupError> {
    if let Ok(ip) = given.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, 53)]);
    }
    let found = match given.contains(':') {
        true => given.to_socket_addrs(),
        false => (given, 53).to_socket_addrs(),
    };
    // A name with several addresses is one server.
    found
        .map(|addresses| addresses.take(1).collect())
        .map_err(|source| DnsSetupError::Nameserver { given: given.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_preferences_are_shuffled_and_others_keep_their_place() {
        let host = |preference, name: &str| MailHost { preference, name: name.into() };
        let hosts = [host(5, "a"), host(10, "b"), host(10, "c"), host(10, "d"), host(20, "e")];
        let mut firsts = std::collections::HashSet::new();
        for seed in 0..30 {
            let order = order(&hosts, || seed);
            assert_eq!((order[0].name.as_ref(), order[4].name.as_ref()), ("a", "e"));
            firsts.insert(order[1].name.clone());
        }
        assert_eq!(firsts.len(), 3);
    }

    #[test]
    fn nameservers_are_read() {
        let read = |list| {
            name_servers(list)
                .map(|s| s.iter().map(|s| (s.ip, s.connections[0].port)).collect::<Vec<_>>())
        };
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(
            read("127.0.0.1:5353, 9.9.9.9").unwrap(),
            [(ip("127.0.0.1"), 5353), (ip("9.9.9.9"), 53)]
        );
        assert_eq!(read("[::1]:5300,::1").unwrap(), [(ip("::1"), 5300), (ip("::1"), 53)]);
        assert!(read("127.0.0.1:notaport").is_err());
    }
}

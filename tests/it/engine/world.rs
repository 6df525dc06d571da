//! A zone, mail servers and an engine that knows only them.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use listmill_shared::domain::clock::Clock;
use listmill_shared::domain::id::Ids;
use listmill_shared::domain::verdict::Reason;
use listmill_shared::throttle::pace::Pacer;
use listmill_worker::provider::smtp::{Config, Finding, Smtp};

use super::server::{Script, Server};
use super::zone::Zone;

pub struct World {
    pub zone: Zone,
    pub clock: Clock,
    pub engine: Smtp,
    pub config: Config,
    pub port: u16,
}

/// Free on every loopback address that a test uses.
fn free_port() -> u16 {
    std::net::TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port()
}

impl World {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let zone = Zone::start().await;
        let port = free_port();
        let mut config = Config {
            nameservers: zone.address.to_string(),
            port,
            ehlo: "probe.test".into(),
            from: "verify@probe.test".into(),
            timeout: Duration::from_secs(4),
            down_for: Duration::ZERO,
            private_hosts: true,
            ..Config::default()
        };
        change(&mut config);
        let clock = Clock::manual(1_700_000_000_000);
        let engine = Smtp::new(config.clone(), clock.clone(), Ids::seeded(7)).unwrap();
        Self { zone, clock, engine, config, port }
    }

    /// Another process's engine, which keeps its pace through `redis`.
    pub fn engine_at(&self, redis: Option<&str>) -> Smtp {
        let pacer = Pacer::open(redis, "test", self.clock.clone(), &Ids::system()).unwrap();
        // A busy machine is no Redis that is away.
        let pacer = pacer.patient(Duration::from_secs(10));
        Smtp::paced(self.config.clone(), self.clock.clone(), Ids::seeded(8), pacer).unwrap()
    }

    /// Starts a server at `ip` that is the only MX of `domain`.
    pub async fn mail(&self, domain: &str, ip: &str, script: Script) -> Server {
        self.mails(domain, ip, vec![script]).await
    }

    pub async fn mails(&self, domain: &str, ip: &str, scripts: Vec<Script>) -> Server {
        let host = format!("mx-{}.{domain}", ip.replace('.', "-"));
        self.zone.mx(domain, 10, &host);
        self.zone.ip(&host, ip);
        self.server(ip, scripts).await
    }

    pub async fn server(&self, ip: &str, scripts: Vec<Script>) -> Server {
        let ip: IpAddr = ip.parse().unwrap();
        Server::start(SocketAddr::new(ip, self.port), scripts).await
    }

    pub async fn check(&self, address: &str) -> Finding {
        self.engine.check(address).await
    }

    pub async fn reason(&self, address: &str) -> (Reason, bool) {
        let verdict = self.check(address).await.verdict;
        (verdict.reason, verdict.temporary)
    }
}

//! A scripted service, and a provider that knows only it.

use std::time::Duration;

use listmill_shared::app::provider::{Health, Provider};
use listmill_shared::domain::clock::Clock;
use listmill_shared::domain::id::Ids;
use listmill_shared::domain::verdict::Reason;
use listmill_shared::throttle::pace::Pacer;
use listmill_tests::eventually;
use listmill_worker::provider::http::{Config, Finding, Http};

use super::server::{Act, Seen, Upstream};

/// What the usual service says of an address that it accepts.
pub const VALID: &str = r#"{"status":"valid"}"#;
pub const START: i64 = 1_700_000_000_000;

pub struct World {
    pub service: Upstream,
    pub provider: Http,
    pub config: Config,
}

pub fn config(base: &str) -> Config {
    Config {
        url: format!("{base}/check?email={{email}}").as_str().into(),
        key: "".into(),
        header: "".into(),
        body: "".into(),
        ca_file: None,
        map: "/status valid = accepted\n/status gone = mailbox_not_found\n/error * = down".into(),
        fields: String::new(),
        timeout: Duration::from_secs(5),
        retries: 2,
        back_off: Duration::from_millis(10),
        rate: 0,
        concurrency: 8,
        probe_every: Duration::from_millis(100),
    }
}

impl World {
    pub async fn new(script: impl Fn(&Seen) -> Act + Send + Sync + 'static) -> Self {
        Self::with(|_| {}, script).await
    }

    pub async fn with(
        change: impl FnOnce(&mut Config),
        script: impl Fn(&Seen) -> Act + Send + Sync + 'static,
    ) -> Self {
        let service = Upstream::start(script).await;
        let mut config = config(&service.base());
        change(&mut config);
        let provider = Http::new(&config, Clock::manual(START), Ids::seeded(7)).unwrap();
        Self { service, provider, config }
    }

    /// Another process's provider, which keeps its pace through `redis`, in real time as Redis does.
    pub fn provider_at(&self, redis: &str) -> Http {
        let clock = Clock::system();
        let pacer = Pacer::open(Some(redis), "test", clock.clone(), &Ids::system()).unwrap();
        // A busy machine is no Redis that is away.
        let pacer = pacer.patient(Duration::from_secs(10));
        Http::paced(&self.config, clock, Ids::seeded(8), pacer).unwrap()
    }

    pub async fn check(&self, address: &str) -> Finding {
        self.provider.check(address).await
    }

    pub async fn reason(&self, address: &str) -> (Reason, bool) {
        let verdict = self.check(address).await.verdict;
        (verdict.reason, verdict.temporary)
    }

    /// Waits until the provider is down; returns why.
    pub async fn wait_down(&self) -> String {
        let health = self.provider.health().unwrap();
        eventually("the provider is down", Duration::from_secs(10), || async {
            match &*health.borrow() {
                Health::Down { why } => Some(why.to_string()),
                Health::Working => None,
            }
        })
        .await
    }

    pub async fn wait_working(&self) {
        let mut health = self.provider.health().unwrap();
        let working = health.wait_for(|health| *health == Health::Working);
        tokio::time::timeout(Duration::from_secs(10), working).await.unwrap().unwrap();
    }

    pub fn is_working(&self) -> bool {
        *self.provider.health().unwrap().borrow() == Health::Working
    }
}

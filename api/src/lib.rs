//! The HTTP side of Listmill: the gate, the routes under `/v1` and `/api`, the documents about them,
//! and the three pages that operators poll.
//!
//! A request passes [`gate`] first, which judges its key on the state of that moment and hands the
//! handler a [`gate::Caller`]; no handler can be reached without one. Errors of every layer become
//! answers in one place, [`problem`].

mod blocks;
mod client_ip;
mod connections;
mod cursor;
mod dashboard;
mod extract;
mod gate;
mod health;
mod idempotency;
mod limits;
mod openapi;
mod problem;

mod refusals;
mod request_id;
mod request_log;
mod routes;
mod sandbox;
mod scopes;
mod v2;
mod view;

use std::ops::Deref;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use ipnet::IpNet;
use listmill_shared::app::App;
use listmill_shared::app::provider::Provider;
use listmill_shared::app::request_log::RequestLog;
use listmill_shared::throttle::requests::Limiter;
use listmill_shared::throttle::windows::Windows;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

pub use routes::audit::audit_line;
pub use routes::download::{csv_file, ndjson_file};
pub use routes::keys::key_fields;
pub use view::{entry_object, task_object};

/// Why serving could not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The listening socket.
    #[error("serving: {0}")]
    Io(#[from] std::io::Error),
    /// The recorder of metrics, or a second one.
    #[error("metrics: {0}")]
    Metrics(#[from] BuildError),
    /// A setting that does not parse.
    #[error("settings: trusted_proxies must be networks such as 10.0.0.0/8, not {0:?}")]
    TrustedProxies(String),
    /// The file of GitHub's public keys.
    #[error("settings: github_keys_file {path}: {source}")]
    GithubKeys {
        /// Which.
        path: String,
        /// Why it cannot be used.
        source: routes::github::KeysError,
    },
    /// Logging in by OpenID Connect.
    #[error("settings: {0}")]
    Oidc(#[from] dashboard::oidc::SetupError),
}

/// What handlers share; cheap to clone.
#[derive(Clone)]
pub(crate) struct Api(Arc<Shared>);

/// See [`Api`].
pub(crate) struct Shared {
    pub app: App,
    pub provider: Arc<dyn Provider>,
    pub limiter: Limiter,
    pub windows: Windows,
    pub proxies: Vec<IpNet>,
    pub blocks: blocks::Blocks,
    pub reports: routes::report::Reports,
    /// Uses of links that show a key once.
    pub links: routes::report::Reports,
    /// Logging in by OpenID Connect, where that is set up.
    pub oidc: Option<dashboard::oidc::Oidc>,
    /// Results by reason, of tasks whose page was looked at.
    pub reasons: dashboard::reasons::Counts,
    /// Mails that are written after the answer.
    pub letters: Arc<Semaphore>,
    /// Who listens to an account's events.
    pub live: routes::account_events::Hub,
    /// Where the gate's decisions are noted.
    pub log: RequestLog,
    /// Submissions that may be received at once.
    pub submissions: Arc<Semaphore>,
    /// Downloads that are made in temporary files.
    pub exports: routes::download::Exports,
    /// Streams without an end of their own stop when this is cancelled.
    pub drain: CancellationToken,
}

impl Deref for Api {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl Api {
    fn new(
        app: App,
        provider: Arc<dyn Provider>,
        drain: CancellationToken,
        log: RequestLog,
    ) -> Result<Self, ServeError> {
        let redis = app.queue.redis();
        routes::report::check(app.settings.github_keys_file.as_deref())?;
        Ok(Self(Arc::new(Shared {
            windows: Windows::new(redis.clone()),
            limiter: Limiter::new(redis),
            proxies: client_ip::parse_proxies(&app.settings.trusted_proxies)
                .map_err(ServeError::TrustedProxies)?,
            blocks: blocks::Blocks::default(),
            reports: routes::report::Reports::default(),
            links: routes::report::Reports::default(),
            oidc: dashboard::oidc::Oidc::of(&app.settings)?,
            reasons: dashboard::reasons::Counts::default(),
            letters: Arc::new(Semaphore::new(dashboard::letters::AT_ONCE)),
            live: routes::account_events::Hub::default(),
            log,
            submissions: Arc::new(Semaphore::new(app.settings.max_submissions)),
            exports: routes::download::Exports::default(),
            app,
            provider,
            drain,
        })))
    }
}

/// Serves the API. On `drain` it stops accepting, lets requests finish, and returns.
pub async fn serve(
    app: App,
    provider: Arc<dyn Provider>,
    listener: TcpListener,
    drain: CancellationToken,
) -> Result<(), ServeError> {
    let (log, writer) = RequestLog::new(&app);
    let api = Api::new(app.clone(), provider, drain.clone(), log.clone())?;
    let writing = writer.map(|writer| tokio::spawn(writer.run()));
    let served = tokio::select! {
        served = run(routes::router(api), listener, drain) => served,
        () = app.keep_time() => Ok(()),
        () = app.in_flight.serve() => Ok(()),
    };
    log.close();
    if let Some(writing) = writing
        && writing.await.is_err()
    {
        tracing::error!("the request log's writer panicked");
    }
    served
}

/// Serves `/healthz`, `/readyz` and `/metrics` only: for worker processes.
pub async fn serve_health(
    app: App,
    listener: TcpListener,
    drain: CancellationToken,
) -> Result<(), ServeError> {
    run(routes::health_router(app), listener, drain).await
}

async fn run(
    router: Router,
    listener: TcpListener,
    drain: CancellationToken,
) -> Result<(), ServeError> {
    tokio::spawn(upkeep(drain.clone()));
    connections::serve(router, listener, drain).await;
    Ok(())
}

static METRICS: OnceLock<PrometheusHandle> = OnceLock::new();

/// Seconds; what a request may take between half a millisecond and the length of an upload.
const LATENCY: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];

/// Installs the process's recorder of metrics, which `/metrics` shows. Once per process.
pub fn install_metrics() -> Result<(), ServeError> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Full(String::from(health::LATENCY)), LATENCY)?
        .install_recorder()?;
    // A second installation has failed above.
    let _ = METRICS.set(handle);
    health::describe_metrics();
    Ok(())
}

/// What `/metrics` shows; empty when no recorder is installed.
pub(crate) fn render_metrics() -> String {
    METRICS.get().map(PrometheusHandle::render).unwrap_or_default()
}

/// Folds samples into their buckets, so that they do not pile up when nobody scrapes.
async fn upkeep(drain: CancellationToken) {
    let mut tick = tokio::time::interval(Duration::from_secs(5));
    while drain.run_until_cancelled(tick.tick()).await.is_some() {
        if let Some(handle) = METRICS.get() {
            handle.run_upkeep();
        }
    }
}

//! API and worker in one process: what `up`, `demo` and `bench --embedded` run.
//!
//! Both halves hold the same drain token. When one ends before it is cancelled, something is
//! wrong, and the other is drained.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use listmill_shared::app::App;
use listmill_shared::app::provider::Provider;
use listmill_worker::Home;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Beyond the grace: for what a half does after its own deadline.
const SLACK: Duration = Duration::from_secs(5);

/// A running API and worker.
pub struct Embedded {
    drain: CancellationToken,
    grace: Duration,
    halves: JoinSet<Result<()>>,
}

impl Embedded {
    /// Starts both; the schema must be there.
    pub fn start(
        app: App,
        provider: Arc<dyn Provider>,
        listener: TcpListener,
        drain: CancellationToken,
    ) -> Self {
        let grace = app.settings.shutdown_grace;
        let mut halves = JoinSet::new();
        let api = listmill_api::serve(app.clone(), provider.clone(), listener, drain.clone());
        halves.spawn(async move { api.await.context("the API stopped") });
        let worker = listmill_worker::run(app, provider, drain.clone(), Home::Shared);
        halves.spawn(async move { worker.await.context("the worker stopped") });
        Self { drain, grace, halves }
    }

    /// Waits until a half has ended: after a drain, or by a fault.
    pub async fn ended(&mut self) -> Result<()> {
        match self.halves.join_next().await {
            None => Ok(()),
            Some(Ok(Ok(()))) if self.drain.is_cancelled() => Ok(()),
            Some(Ok(Ok(()))) => Err(anyhow!("API or worker ended by itself")),
            Some(Ok(Err(error))) => Err(error),
            Some(Err(panic)) => Err(anyhow!(panic).context("API or worker")),
        }
    }

    /// Drains both and waits for them, no longer than the grace allows.
    pub async fn stop(mut self) -> Result<()> {
        self.drain.cancel();
        let patience = self.grace + SLACK;
        let all = async {
            while !self.halves.is_empty() {
                self.ended().await?;
            }
            Ok(())
        };
        match tokio::time::timeout(patience, all).await {
            Ok(done) => done,
            Err(_) => {
                tracing::warn!("connections were still open after the grace; they are cut");
                Ok(())
            }
        }
    }
}

/// Listens, with an error that names the setting.
pub async fn listen(address: &str, setting: &str) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!(
            "cannot listen on {address} (setting `{setting}`, LISTMILL_{}): is it in use?",
            setting.to_ascii_uppercase()
        )
    })
}

/// Where a listener is reached from this machine.
pub fn url_of(address: SocketAddr) -> String {
    match address.ip().is_unspecified() {
        true => format!("http://localhost:{}", address.port()),
        false => format!("http://{address}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_address_is_shown_as_one_that_can_be_called() {
        assert_eq!(url_of(SocketAddr::from(([0, 0, 0, 0], 80))), "http://localhost:80");
        assert_eq!(url_of(SocketAddr::from(([127, 0, 0, 1], 81))), "http://127.0.0.1:81");
    }
}

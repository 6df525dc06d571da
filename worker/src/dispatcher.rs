//! One dispatcher per process: starts a round of dispatch whenever there is room or work, one round at a
//! time; what comes meanwhile starts the next. While all room is taken it waits a little between rounds.

use std::sync::Arc;

use listmill_shared::app::App;
use tokio::sync::Notify;

/// Asks for a round; cheap to clone.
#[derive(Clone, Default)]
pub struct Dispatcher(Arc<Notify>);

impl Dispatcher {
    /// There is room, or work.
    pub fn poke(&self) {
        self.0.notify_one();
    }

    /// Starts rounds until dropped.
    pub async fn run(&self, app: &App) {
        loop {
            self.0.notified().await;
            match app.dispatch().await {
                Ok(wait) => {
                    app.stuck.got_on("dispatch", "");
                    tokio::time::sleep(wait).await;
                }
                // The sweeper pokes again.
                Err(error) => {
                    app.stuck.failed("dispatch", "", app.now());
                    tracing::debug!(%error, "not dispatched");
                }
            }
        }
    }
}

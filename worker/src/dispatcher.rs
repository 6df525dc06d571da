//! One dispatcher per process: sees to it that a round of dispatch follows whenever there is room or work; what
//! comes meanwhile starts the next. The fleet's rounds are gathered: one that any worker has just begun serves
//! all, and who comes too soon asks again a little later.

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
            match app.refill().await {
                Ok((wait, to_come)) => {
                    app.stuck.got_on("dispatch", "");
                    tokio::time::sleep(wait).await;
                    if to_come {
                        self.poke();
                    }
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

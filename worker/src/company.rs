//! Who may be at work in the process beside a batch: any other, or nobody.
//!
//! A batch that must be alone looks for a quiet moment at first, and others begin meanwhile; where none
//! comes, it lets nothing new begin until those at work have ended.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

/// How often, and how long in between, a quiet moment is looked for.
const QUIET_TRIES: usize = 300;
const QUIET_WAIT: Duration = Duration::from_millis(100);

/// The company of the batches of this process that share its means.
#[derive(Debug, Clone, Default)]
pub struct House(Arc<RwLock<()>>);

/// Held while a batch is at work.
#[derive(Debug)]
pub enum Company {
    /// Others may be at work, too.
    Others(#[expect(dead_code, reason = "held")] OwnedRwLockReadGuard<()>),
    /// Nobody else is.
    Nobody(#[expect(dead_code, reason = "held")] OwnedRwLockWriteGuard<()>),
}

impl House {
    /// Joins the others, if nobody is alone or waits to be.
    pub fn try_join(&self) -> Option<Company> {
        self.0.clone().try_read_owned().ok().map(Company::Others)
    }

    /// Joins the others once nobody is alone.
    pub async fn join(&self) -> Company {
        Company::Others(self.0.clone().read_owned().await)
    }

    /// Waits until nobody else is at work.
    pub async fn alone(&self) -> Company {
        for _ in 0..QUIET_TRIES {
            if let Ok(nobody) = self.0.clone().try_write_owned() {
                return Company::Nobody(nobody);
            }
            tokio::time::sleep(QUIET_WAIT).await;
        }
        Company::Nobody(self.0.clone().write_owned().await)
    }
}

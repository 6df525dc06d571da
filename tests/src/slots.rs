//! How many deployments run at once: a heavy one runs alone, so that two cores are enough and
//! measured memory and time mean something.

use tokio::sync::{Semaphore, SemaphorePermit};

const SLOTS: u32 = 6;
static FREE: Semaphore = Semaphore::const_new(SLOTS as usize);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// A handful of requests, or mostly waiting.
    Light,
    /// Keeps a core busy for a while.
    Middle,
    /// Runs alone.
    Heavy,
    /// Beside another one of the same test, whose slots are both's: a test that waits for a second slot
    /// while it holds one could wait for ever.
    Beside,
}

pub type Slot = SemaphorePermit<'static>;

pub async fn take(weight: Weight) -> Slot {
    let slots = match weight {
        Weight::Light => 1,
        Weight::Middle => 2,
        Weight::Heavy => SLOTS,
        Weight::Beside => 0,
    };
    FREE.acquire_many(slots).await.expect("the semaphore is never closed")
}

//! How many connections a group may have at once in this process: all that the group bears where the
//! process is alone, its part where processes share (see [`listmill_shared::throttle::share`]).
//!
//! Data: slots are permits. *Held* is how many this process has, taken or free; *due* is how many it
//! should have.
//!
//! Invariants:
//! - taken ≤ held; a slot that is too many goes as soon as it is free;
//! - held grows only by [`Slots::resize`].

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, Semaphore, SemaphorePermit};

/// See the module.
pub struct Slots {
    permits: Semaphore,
    size: Mutex<Size>,
    given_up: Notify,
}

#[derive(Clone, Copy)]
struct Size {
    held: usize,
    due: usize,
}

/// One slot, taken; free, or gone, when dropped.
pub struct Slot<'a> {
    slots: &'a Slots,
    permit: Option<SemaphorePermit<'a>>,
}

impl Slots {
    /// So many, all free.
    pub fn new(count: usize) -> Self {
        let count = count.min(Semaphore::MAX_PERMITS);
        Self {
            permits: Semaphore::new(count),
            size: Mutex::new(Size { held: count, due: count }),
            given_up: Notify::new(),
        }
    }

    /// Waits for one.
    pub async fn take(&self) -> Slot<'_> {
        match self.permits.acquire().await {
            Ok(permit) => Slot { slots: self, permit: Some(permit) },
            // Nobody closes it; then there would be none.
            Err(_) => std::future::pending().await,
        }
    }

    /// Taken or free.
    pub fn held(&self) -> usize {
        self.size().held
    }

    /// Taken.
    pub fn taken(&self) -> usize {
        self.held().saturating_sub(self.permits.available_permits())
    }

    /// From now on `due` of them. Were some given up at once?
    pub fn resize(&self, due: usize) -> bool {
        let due = due.min(Semaphore::MAX_PERMITS);
        let mut size = self.size();
        size.due = due;
        if size.held < due {
            self.permits.add_permits(due - size.held);
            size.held = due;
            return false;
        }
        let gone = self.permits.forget_permits(size.held - due);
        size.held -= gone;
        gone > 0
    }

    /// Waits until one is given up that was taken.
    pub async fn given_up(&self) {
        self.given_up.notified().await;
    }

    fn size(&self) -> MutexGuard<'_, Size> {
        self.size.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        let mut size = self.slots.size();
        if size.held > size.due
            && let Some(permit) = self.permit.take()
        {
            permit.forget();
            size.held -= 1;
            self.slots.given_up.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn take(slots: &Slots) -> Option<Slot<'_>> {
        slots.take().now_or_never()
    }

    #[test]
    fn what_is_taken_is_given_up_when_it_is_free() {
        let slots = Slots::new(0);
        assert!(take(&slots).is_none());
        assert!(!slots.resize(3));
        let (one, two) = (take(&slots), take(&slots));
        assert_eq!((slots.held(), slots.taken()), (3, 2));
        // The free one goes at once, one of the others when it is dropped.
        assert!(slots.resize(1));
        assert_eq!((slots.held(), slots.taken()), (2, 2));
        assert!(slots.given_up().now_or_never().is_none());
        drop(one);
        assert_eq!((slots.held(), slots.taken()), (1, 1));
        assert!(slots.given_up().now_or_never().is_some());
        assert!(take(&slots).is_none());
        drop(two);
        assert_eq!((slots.held(), slots.taken()), (1, 0));
        assert!(take(&slots).is_some());
    }

    #[test]
    fn one_that_is_due_again_is_kept() {
        let slots = Slots::new(2);
        let (one, two) = (take(&slots), take(&slots));
        assert!(!slots.resize(0));
        assert!(!slots.resize(2));
        drop((one, two));
        assert_eq!((slots.held(), slots.taken()), (2, 0));
        assert!(slots.resize(0));
        assert_eq!(slots.held(), 0);
    }
}

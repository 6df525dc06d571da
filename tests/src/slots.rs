//! How many deployments run at once, so that two cores are enough and measured memory and time mean something.
//!
//! Data: slots for the lighter ones; how many lighter ones are at work or wait; whether a heavy one is at work.
//!
//! Invariants:
//! - a heavy one runs alone;
//! - lighter ones go first: a heavy one would otherwise wait for each of them to end, again and again, on a
//!   machine that has less and less to do. So there must be more threads than heavy tests.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::{Notify, Semaphore, SemaphorePermit};

const SLOTS: usize = 7;

static FREE: Semaphore = Semaphore::const_new(SLOTS);
static NOW: Mutex<Now> = Mutex::new(Now { lighter: 0, heavy: 0 });
static CHANGED: Notify = Notify::const_new();

struct Now {
    lighter: usize,
    heavy: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// A handful of requests, or mostly waiting.
    Light,
    /// Keeps a core busy for a while.
    Middle,
    /// Measures what others at work would disturb.
    Heavy,
    /// Beside another one of the same test, whose slots are both's: a test that waits for a second slot
    /// while it holds one could wait for ever.
    Beside,
}

/// Held until its deployment ends.
#[derive(Debug)]
pub struct Slot {
    weight: Weight,
    since: Instant,
    free: Option<SemaphorePermit<'static>>,
}

impl Slot {
    fn of(weight: Weight) -> Self {
        Self { weight, since: Instant::now(), free: None }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        tell(self.weight, self.since);
        // Before the others are told that there is room.
        self.free = None;
        match self.weight {
            Weight::Light | Weight::Middle => now().lighter -= 1,
            Weight::Heavy => now().heavy -= 1,
            Weight::Beside => {}
        }
        CHANGED.notify_waiters();
    }
}

pub async fn take(weight: Weight) -> Slot {
    let slots = match weight {
        Weight::Beside => return Slot::of(weight),
        Weight::Heavy => {
            until(|now| {
                let free = now.lighter == 0 && now.heavy == 0;
                now.heavy += usize::from(free);
                free
            })
            .await;
            return Slot::of(weight);
        }
        Weight::Light => 1,
        Weight::Middle => 2,
    };
    now().lighter += 1;
    // Counts from here on, even where its test ends while it waits.
    let mut slot = Slot::of(weight);
    until(|now| now.heavy == 0).await;
    slot.free = Some(FREE.acquire_many(slots).await.expect("it is never closed"));
    slot.since = Instant::now();
    slot
}

fn now() -> MutexGuard<'static, Now> {
    NOW.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn until(mut comes: impl FnMut(&mut Now) -> bool) {
    loop {
        let changed = CHANGED.notified();
        if comes(&mut now()) {
            return;
        }
        changed.await;
    }
}

/// With `LISTMILL_TEST_TIMES`, a line of that file for every deployment: seconds, weight, test.
fn tell(weight: Weight, since: Instant) {
    use std::io::Write as _;
    let Some(path) = std::env::var_os("LISTMILL_TEST_TIMES") else { return };
    let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
    let name = std::thread::current().name().unwrap_or("?").to_owned();
    let seconds = since.elapsed().as_secs_f64();
    let told = file.and_then(|mut file| {
        file.write_all(format!("{seconds:8.2} {weight:?} {name}\n").as_bytes())
    });
    if let Err(error) = told {
        eprintln!("LISTMILL_TEST_TIMES: {error}");
    }
}

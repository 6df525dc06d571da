//! Turns to hash a password: it takes 19 MiB and tens of milliseconds, and anybody may ask for it.
//!
//! Data: [`AT_ONCE`] turns, and how many wait for one, by network. At most [`WAIT`] wait in all and [`OF_ONE`] of a
//! network, for [`PATIENCE`] at the most; who comes beyond that is told at once. So one network never fills the line.
//! A turn lasts as long as the work, also where nobody waits for its end any more.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hashbrown::HashMap;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::domain::network::home;

/// Passwords hashed at once.
const AT_ONCE: usize = 2;
/// Who waits, in all.
const WAIT: usize = 32;
/// Who waits, of one network.
const OF_ONE: usize = 4;
/// How long one waits.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why nothing was hashed.
#[derive(Debug, thiserror::Error)]
pub enum HashError {
    /// Too many wait already, or it took too long.
    #[error("too many passwords are being looked at")]
    Busy,
    /// The work ended before it was done.
    #[error("hashing has failed: {0}")]
    Failed(#[from] tokio::task::JoinError),
}

/// Bounds the hashing of passwords.
#[derive(Debug)]
pub struct Hashing {
    turns: Arc<Semaphore>,
    waiting: Mutex<HashMap<Option<IpAddr>, usize>>,
}

impl Default for Hashing {
    fn default() -> Self {
        Self { turns: Arc::new(Semaphore::new(AT_ONCE)), waiting: Mutex::default() }
    }
}

/// A place in the line; free again when it is dropped.
struct Place<'a> {
    of: &'a Hashing,
    network: Option<IpAddr>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut waiting = self.of.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = waiting.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                waiting.remove(&self.network);
            }
        }
    }
}

impl Hashing {
    fn place(&self, network: Option<IpAddr>) -> Option<Place<'_>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = waiting.values().sum();
        let own = waiting.get(&network).copied().unwrap_or(0);
        if all >= WAIT || own >= OF_ONE {
            return None;
        }
        waiting.insert(network, own + 1);
        Some(Place { of: self, network })
    }

    /// Does it when it is its turn; `from` is who asks, if that is known.
    pub async fn run<T: Send + 'static>(
        &self,
        from: Option<IpAddr>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, HashError> {
        let turn = match Arc::clone(&self.turns).try_acquire_owned() {
            Ok(turn) => turn,
            Err(_) => {
                let _place = self.place(from.map(home)).ok_or(HashError::Busy)?;
                let turn = timeout(PATIENCE, Arc::clone(&self.turns).acquire_owned()).await;
                turn.ok().and_then(Result::ok).ok_or(HashError::Busy)?
            }
        };
        let work = move || {
            let done = work();
            drop(turn);
            done
        };
        Ok(tokio::task::spawn_blocking(work).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn one_network_never_fills_the_line() {
        let hashing = Hashing::default();
        let turns: Vec<_> =
            (0..AT_ONCE).map(|_| hashing.turns.clone().try_acquire_owned().unwrap()).collect();
        let ip = |n: u16| Some(IpAddr::from([0x2001, 0xdb8, 0, n, 0, 0, 0, 7]));
        let mut line = Vec::new();
        let mut join = |from| {
            let mut one = Box::pin(hashing.run(from, || ()));
            let refused = matches!((&mut one).now_or_never(), Some(Err(HashError::Busy)));
            line.push(one);
            !refused
        };
        for _ in 0..OF_ONE {
            assert!(join(ip(1)));
        }
        assert!(!join(ip(1)), "one too many of a network");
        let neighbour = Some(IpAddr::from([0x2001, 0xdb8, 0, 1, 1, 2, 3, 4]));
        assert!(!join(neighbour), "a /64 is one network");
        for n in 2..=u16::try_from(WAIT / OF_ONE).unwrap() {
            assert!((0..OF_ONE).all(|_| join(ip(n))), "network {n}");
        }
        assert!(!join(ip(99)) && !join(None), "the line is full");
        line.clear();
        assert!(hashing.waiting.lock().unwrap().is_empty(), "who leaves makes room");
        drop(turns);
        hashing.run(None, || ()).await.unwrap();
    }

    #[tokio::test]
    async fn a_turn_lasts_as_long_as_its_work() {
        let hashing = Hashing::default();
        let (go, wait) = std::sync::mpsc::channel::<()>();
        {
            let work = Box::pin(hashing.run(None, move || {
                let _ = wait.recv();
            }));
            assert!(work.now_or_never().is_none());
            // Whoever asked has hung up.
        }
        assert_eq!(hashing.turns.available_permits(), AT_ONCE - 1);
        drop(go);
        while hashing.turns.available_permits() < AT_ONCE {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

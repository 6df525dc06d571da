//! How many ask the issuer at once: all, and those of one network. There is a place at once, or none: nobody waits.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// At once in a process.
const AT_ONCE: usize = 16;
/// Of these, from one network.
const PER_NETWORK: usize = 2;

/// Who asks at this moment, by network.
#[derive(Debug, Default)]
pub struct Places(Mutex<HashMap<String, usize>>);

/// A place; given back when it is dropped.
#[derive(Debug)]
pub struct Place<'a> {
    places: &'a Places,
    network: String,
}

impl Places {
    /// A place, if there is one for this network.
    pub fn take(&self, network: String) -> Option<Place<'_>> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.values().sum::<usize>() >= AT_ONCE {
            return None;
        }
        let own = taken.entry(network.clone()).or_default();
        if *own >= PER_NETWORK {
            return None;
        }
        *own += 1;
        Some(Place { places: self, network })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut taken = self.places.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = taken.get_mut(&self.network) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_takes_no_place_of_the_others() {
        let places = Places::default();
        let own = [places.take("a".into()), places.take("a".into())];
        assert!(own.iter().all(Option::is_some));
        assert!(places.take("a".into()).is_none());
        let others: Vec<_> = (0..14).map(|n| places.take(n.to_string())).collect();
        assert!(others.iter().all(Option::is_some));
        assert!(places.take("b".into()).is_none(), "all are taken");
        drop(own);
        assert!(places.take("a".into()).is_some());
        drop(others);
        assert!(places.0.lock().unwrap().is_empty());
    }
}

//! Addresses that are likely one mailbox: they differ by letter case or a tag (`ada+news@`) alone.
//!
//! By the standard they are different mailboxes, and so each is verified; nearly every host takes them for one. How
//! many of a list are so is counted, at no cost for addresses in lower case without a tag: of the others alone a
//! second set of fingerprints is kept.

use std::borrow::Cow;

use crate::app::submit::dedupe::{Dedupe, Seen};
use crate::domain::address::split;

/// The fingerprints of what addresses with capitals or tags are without them.
pub(super) struct Alike {
    plain: Dedupe,
    repeated: u64,
}

impl Alike {
    /// With the key of the list's own set.
    pub fn new(dedupe_key: [u8; 32]) -> Self {
        Self { plain: Dedupe::new(dedupe_key), repeated: 0 }
    }

    /// Takes a valid address that the list did not have before.
    pub fn see(&mut self, address: &str) {
        if let Cow::Owned(plain) = plain(address)
            && let Seen::Duplicate(_) = self.plain.insert(&plain)
        {
            self.repeated += 1;
        }
    }

    /// How many of the list's distinct addresses repeat another one in this way; `all` has them all.
    pub fn count(&self, all: &Dedupe) -> u64 {
        self.repeated + all.common(&self.plain)
    }
}

/// The address without capitals and tag. Quoted local parts are taken as they are.
pub(super) fn plain(address: &str) -> Cow<'_, str> {
    let Some((local, domain)) = split(address) else { return Cow::Borrowed(address) };
    let marked = local.bytes().any(|b| b == b'+' || b.is_ascii_uppercase() || !b.is_ascii());
    if !marked || local.starts_with('"') {
        return Cow::Borrowed(address);
    }
    let name = match local.split_once('+') {
        Some((name, _)) if !name.is_empty() => name,
        _ => local,
    };
    let plain = format!("{}@{domain}", name.to_lowercase());
    if plain == address { Cow::Borrowed(address) } else { Cow::Owned(plain) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capitals_and_tags_are_taken_off() {
        for (address, wanted) in [
            ("ada@x.example", "ada@x.example"),
            ("Ada+News@x.example", "ada@x.example"),
            ("ada+a+b@x.example", "ada@x.example"),
            ("+ada@x.example", "+ada@x.example"),
            ("\"Ada+x\"@x.example", "\"Ada+x\"@x.example"),
            ("ÄDA@x.example", "äda@x.example"),
            ("broken", "broken"),
        ] {
            assert_eq!(plain(address), wanted);
        }
    }

    #[test]
    fn what_is_alike_is_counted_in_any_order() {
        let count = |addresses: &[&str]| {
            let (mut all, mut alike) = (Dedupe::new([1; 32]), Alike::new([1; 32]));
            for address in addresses {
                all.insert(address);
                alike.see(address);
            }
            alike.count(&all)
        };
        assert_eq!(count(&["ada@x.example", "bob@x.example"]), 0);
        assert_eq!(count(&["Ada@x.example", "bob@x.example"]), 0);
        assert_eq!(count(&["ada@x.example", "Ada@x.example", "ada+b@x.example"]), 2);
        assert_eq!(count(&["Ada@x.example", "ada+b@x.example", "ada@x.example"]), 2);
        assert_eq!(count(&["Ada@x.example", "ADA@x.example"]), 1);
        assert_eq!(count(&["Ada@x.example", "ADA@y.example"]), 0);
    }
}

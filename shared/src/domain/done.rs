//! Which addresses of a batch have their result.
//!
//! Data: bit `i % 8` of byte `i / 8`, lowest first, is the address at place `i`. The last byte is never
//! zero, so equal sets are equal bytes: the database compares them as they are.

/// A set of places in a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Done(Vec<u8>);

impl Done {
    /// From stored bytes.
    pub fn from_bytes(mut bytes: Vec<u8>) -> Self {
        while bytes.last() == Some(&0) {
            bytes.pop();
        }
        Self(bytes)
    }

    /// As it is stored.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Is this place in it?
    pub fn contains(&self, place: usize) -> bool {
        self.0.get(place / 8).is_some_and(|byte| byte >> (place % 8) & 1 == 1)
    }

    /// Adds a place; was it not in it before?
    pub fn insert(&mut self, place: usize) -> bool {
        if place / 8 >= self.0.len() {
            self.0.resize(place / 8 + 1, 0);
        }
        let byte = &mut self.0[place / 8];
        let before = *byte;
        *byte |= 1 << (place % 8);
        *byte != before
    }

    /// How many places.
    pub fn len(&self) -> usize {
        self.0.iter().map(|byte| byte.count_ones() as usize).sum()
    }

    /// No place?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first place that is not in it.
    pub fn first_gap(&self) -> usize {
        match self.0.iter().position(|byte| *byte != 0xff) {
            Some(at) => at * 8 + self.0[at].trailing_ones() as usize,
            None => self.0.len() * 8,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set(places in proptest::collection::vec(0..90_usize, 0..120)) {
            let (mut done, mut model) = (Done::default(), BTreeSet::new());
            for place in places {
                prop_assert_eq!(done.insert(place), model.insert(place));
            }
            prop_assert_eq!(done.len(), model.len());
            prop_assert_eq!(done.is_empty(), model.is_empty());
            prop_assert!((0..99).all(|place| done.contains(place) == model.contains(&place)));
            let gap = (0..).find(|place| !model.contains(place));
            prop_assert_eq!(Some(done.first_gap()), gap);
            let mut bytes = done.as_bytes().to_vec();
            bytes.extend([0, 0]);
            prop_assert_eq!(Done::from_bytes(bytes), done);
        }
    }
}

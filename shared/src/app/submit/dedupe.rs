//! Which addresses of a list were seen before, and where first.
//!
//! Data: one slot of 16 bytes per distinct address: 96 bits of a keyed SipHash-2-4-128
//! fingerprint and the seq (u32) of its first occurrence. 7 further bits choose one of 128
//! shards, each an open-addressing table over pages of 8 KiB.
//!
//! Invariants:
//! - seqs are given from 0 in order of first occurrence, without gaps;
//! - who does not know the key cannot make two addresses collide; by chance, 10,000,000
//!   addresses collide with a probability of 10^-17;
//! - from 100,000 addresses on, memory stays at 22–28 bytes per address at every instant: a shard
//!   grows in small steps, its old pages serve the next shard that grows, and pages of one size
//!   leave no holes in the heap.

/// Says whether an address was seen before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// First occurrence; its seq.
    New(u32),
    /// Seen before; the seq of the first occurrence.
    Duplicate(u32),
}

/// The most addresses a [`Dedupe`] takes.
pub const MAX_ADDRESSES: u32 = EMPTY;

const SHARD_BITS: u32 = 7;
const PAGE: usize = 512;
/// Addresses looked for at once.
const AT_ONCE: usize = 32;
const EMPTY: u32 = u32::MAX;
const VACANT: Slot = Slot { hash: 0, check: 0, seq: EMPTY };

/// Fingerprints of all addresses so far.
pub struct Dedupe {
    key: (u64, u64),
    shards: Vec<Shard>,
    spare: Vec<Box<Page>>,
    next: u32,
}

type Page = [Slot; PAGE];

#[derive(Clone, Copy)]
struct Slot {
    hash: u64,
    check: u32,
    seq: u32,
}

/// Linear probing over `pages`. The home of a slot is its hash scaled to the capacity, so a
/// larger table holds the slots in nearly the same order and growing runs through memory in order.
#[derive(Default)]
struct Shard {
    pages: Vec<Box<Page>>,
    used: usize,
}

impl Dedupe {
    /// An empty set. The key must be random and secret, one per list is best.
    pub fn new(key: [u8; 32]) -> Self {
        let word = |i: usize| {
            key[i * 8..i * 8 + 8].iter().rev().fold(0u64, |word, b| word << 8 | u64::from(*b))
        };
        // SipHash takes 16 bytes; folding keeps every byte of the key in play.
        let key = (word(0) ^ word(2), word(1) ^ word(3));
        let shards = (0..1 << SHARD_BITS).map(|_| Shard::default()).collect();
        Self { key, shards, spare: Vec::new(), next: 0 }
    }

    /// Number of distinct addresses.
    pub fn len(&self) -> u32 {
        self.next
    }

    /// Nothing inserted yet?
    pub fn is_empty(&self) -> bool {
        self.next == 0
    }

    /// Looks the canonical text up and remembers it if it is new.
    ///
    /// # Panics
    /// After [`MAX_ADDRESSES`] distinct addresses; the caller's limit is far below.
    pub fn insert(&mut self, text: &str) -> Seen {
        self.insert_print(sip128(self.key, text.as_bytes()))
    }

    /// Likewise for many; appends what came of each. Several are looked for in memory at once: one by one, most
    /// of the time would go into waiting for it.
    ///
    /// # Panics
    /// As [`Dedupe::insert`].
    pub fn insert_all<'a>(&mut self, texts: impl Iterator<Item = &'a str>, seen: &mut Vec<Seen>) {
        let key = self.key;
        let mut prints = texts.map(|text| sip128(key, text.as_bytes())).fuse();
        let mut some = [(0, 0); AT_ONCE];
        loop {
            let mut count = 0;
            for (place, print) in some.iter_mut().zip(&mut prints) {
                *place = print;
                count += 1;
            }
            let some = &some[..count];
            let touch = |sum, &(hash, rest)| sum ^ self.shards[shard_of(rest)].at(hash);
            std::hint::black_box(some.iter().fold(0, touch));
            seen.extend(some.iter().map(|print| self.insert_print(*print)));
            if count < AT_ONCE {
                return;
            }
        }
    }

    /// How many of another set are in this one; both have the same key.
    pub fn common(&self, other: &Self) -> u64 {
        let shards = self.shards.iter().zip(&other.shards);
        let count = |(own, other): (&Shard, &Shard)| {
            let slots = other.pages.iter().flat_map(|page| page.iter());
            slots.filter(|slot| slot.seq != EMPTY && own.holds(slot)).count() as u64
        };
        shards.map(count).sum()
    }

    fn insert_print(&mut self, (hash, rest): (u64, u64)) -> Seen {
        let shard = &mut self.shards[shard_of(rest)];
        // At most three quarters full, so that probing stays short.
        if shard.used * 4 >= shard.capacity() * 3 {
            shard.grow(&mut self.spare);
        }
        assert!(self.next < MAX_ADDRESSES, "more addresses than a seq can number");
        let slot = Slot { hash, check: rest as u32, seq: self.next };
        match shard.place::<true>(slot) {
            Some(first) => Seen::Duplicate(first),
            None => {
                self.next += 1;
                Seen::New(slot.seq)
            }
        }
    }
}

/// The shard that the second half of a fingerprint chooses.
fn shard_of(rest: u64) -> usize {
    (rest >> (64 - SHARD_BITS)) as usize
}

impl Shard {
    fn capacity(&self) -> usize {
        self.pages.len() * PAGE
    }

    /// Page and place where the search for a hash begins.
    fn home(&self, hash: u64) -> (usize, usize) {
        let home = ((u128::from(hash) * self.capacity() as u128) >> 64) as usize;
        (home / PAGE, home % PAGE)
    }

    /// What is there.
    fn at(&self, hash: u64) -> u32 {
        let (page, at) = self.home(hash);
        self.pages.get(page).map_or(0, |page| page[at].seq)
    }

    /// Is one with the same fingerprint there?
    fn holds(&self, slot: &Slot) -> bool {
        if self.pages.is_empty() {
            return false;
        }
        let (mut page, mut at) = self.home(slot.hash);
        loop {
            for found in &self.pages[page][at..] {
                if found.seq == EMPTY {
                    return false;
                }
                if found.hash == slot.hash && found.check == slot.check {
                    return true;
                }
            }
            page = if page + 1 == self.pages.len() { 0 } else { page + 1 };
            at = 0;
        }
    }

    /// Puts the slot in, or (if `COMPARE`) returns the seq of the one with the same fingerprint.
    fn place<const COMPARE: bool>(&mut self, slot: Slot) -> Option<u32> {
        let (mut page, mut at) = self.home(slot.hash);
        loop {
            for found in &mut self.pages[page][at..] {
                if found.seq == EMPTY {
                    *found = slot;
                    self.used += 1;
                    return None;
                }
                if COMPARE && found.hash == slot.hash && found.check == slot.check {
                    return Some(found.seq);
                }
            }
            page = if page + 1 == self.pages.len() { 0 } else { page + 1 };
            at = 0;
        }
    }

    fn grow(&mut self, spare: &mut Vec<Box<Page>>) {
        // Small tables take larger steps: they would move all the time, and memory is not scarce.
        let step = if self.pages.len() < 32 { 3 } else { 8 };
        let wanted = self.pages.len() + (self.pages.len() / step).max(1);
        let mut pages = Vec::with_capacity(wanted);
        while pages.len() < wanted {
            pages.push(match spare.pop() {
                Some(mut page) => {
                    page.fill(VACANT);
                    page
                }
                None => Box::new([VACANT; PAGE]),
            });
        }
        let old = std::mem::replace(&mut self.pages, pages);
        self.used = 0;
        for page in old {
            for slot in page.iter().filter(|slot| slot.seq != EMPTY) {
                self.place::<false>(*slot);
            }
            spare.push(page);
        }
    }
}

/// SipHash-2-4 with 128 bits of output (Aumasson and Bernstein), written out because std's keyed
/// hasher gives 64 bits only and the stored fingerprint needs more.
fn sip128((k0, k1): (u64, u64), bytes: &[u8]) -> (u64, u64) {
    let mut v = [
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d ^ 0xee,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ];
    let (words, tail) = bytes.as_chunks::<8>();
    for word in words {
        absorb(&mut v, u64::from_le_bytes(*word));
    }
    let mut last = [0; 8];
    last[..tail.len()].copy_from_slice(tail);
    last[7] = bytes.len() as u8;
    absorb(&mut v, u64::from_le_bytes(last));
    v[2] ^= 0xee;
    (0..4).for_each(|_| round(&mut v));
    let first = v[0] ^ v[1] ^ v[2] ^ v[3];
    v[1] ^= 0xdd;
    (0..4).for_each(|_| round(&mut v));
    (first, v[0] ^ v[1] ^ v[2] ^ v[3])
}

#[inline]
fn absorb(v: &mut [u64; 4], word: u64) {
    v[3] ^= word;
    round(v);
    round(v);
    v[0] ^= word;
}

#[inline]
fn round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[2] = v[2].wrapping_add(v[3]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[1]);
    v[0] = v[0].wrapping_add(v[3]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].rotate_left(32);
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::fmt::Write;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sip128_matches_the_reference_vectors() {
        let key = (0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908);
        let hex = |bytes: &[u8]| {
            let (a, b) = sip128(key, bytes);
            a.to_le_bytes().iter().chain(&b.to_le_bytes()).fold(String::new(), |mut s, b| {
                write!(s, "{b:02x}").unwrap();
                s
            })
        };
        assert_eq!(hex(&[]), "a3817f04ba25a8e66df67214c7550293");
        assert_eq!(hex(&[0]), "da87c1d86b99af44347659119b22fc45");
    }

    #[test]
    fn five_million_addresses_in_little_memory() {
        // A tenth of that without optimisation, to stay quick.
        let count: u32 = if cfg!(debug_assertions) { 500_000 } else { 5_000_000 };
        let mut dedupe = Dedupe::new([7; 32]);
        let mut text = String::new();
        let mut address = |i: u32| {
            text.clear();
            write!(text, "user{i}@example.com").unwrap();
            text.clone()
        };
        for i in 0..count {
            assert_eq!(dedupe.insert(&address(i)), Seen::New(i));
            if i % 65_536 == 65_535 {
                let pages: usize = dedupe.shards.iter().map(|s| s.pages.capacity()).sum();
                let bytes = (pages + dedupe.spare.len()) * (size_of::<Page>() + 24);
                // Small lists pay for whole pages; large ones must be lean.
                let most = if i < 100_000 {
                    36
                } else if i < 2_500_000 {
                    32
                } else {
                    26
                };
                assert!(bytes <= most * i as usize, "{bytes} bytes for {i} addresses");
            }
        }
        for i in (0..count).step_by(7) {
            assert_eq!(dedupe.insert(&address(i)), Seen::Duplicate(i));
        }
        assert_eq!(dedupe.len(), count);
    }

    #[test]
    fn the_key_decides_the_fingerprints() {
        let mut other = [0; 32];
        other[31] = 1;
        assert_ne!(
            sip128(Dedupe::new([0; 32]).key, b"a@example.com"),
            sip128(Dedupe::new(other).key, b"a@example.com"),
        );
    }

    proptest! {
        #[test]
        fn agrees_with_a_map(texts in prop::collection::vec("[a-c]{0,5}", 0..3000), key: [u8; 32]) {
            let (mut dedupe, mut at_once) = (Dedupe::new(key), Dedupe::new(key));
            let (mut model, mut seen) = (HashMap::new(), Vec::new());
            at_once.insert_all(texts.iter().map(String::as_str), &mut seen);
            prop_assert_eq!(seen.len(), texts.len());
            for (text, seen) in texts.into_iter().zip(seen) {
                let next = model.len() as u32;
                let want = match model.get(&text) {
                    Some(first) => Seen::Duplicate(*first),
                    None => Seen::New(next),
                };
                prop_assert_eq!(dedupe.insert(&text), want);
                prop_assert_eq!(seen, want);
                model.entry(text).or_insert(next);
            }
            prop_assert_eq!(dedupe.len() as usize, model.len());
        }
    }
}

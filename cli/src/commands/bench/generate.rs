//! Addresses to load a deployment with: a CSV body, made while it is sent.
//!
//! Address number `n` is `user` + 10 digits of `n` + `@` + one of 1,000 domains (or as many as were
//! asked for), so distinct for distinct `n`, and `deliverable` in the sandbox. Making one must stay far below the microseconds
//! that verifying one may take, or the bench would measure itself: the digits are written by hand
//! into a buffer that is used again once its last piece has been sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{BufMut, Bytes, BytesMut};

const HEADER: &[u8] = b"email\n";
const LOCAL: &[u8] = b"user";
const DIGITS: usize = 10;
/// Domains, unless told otherwise.
pub const DOMAINS: u64 = 1_000;
/// Bytes sent in one piece.
const PIECE: usize = 64 * 1024;

/// The pieces of one CSV body.
pub struct Addresses {
    first: u64,
    next: u64,
    end: u64,
    /// Times that all of them come again.
    again: u64,
    headed: bool,
    /// `@domain` and the line's end, ready to copy.
    tails: Arc<[Vec<u8>]>,
    buffer: BytesMut,
    /// Addresses made so far, over all bodies.
    made: Arc<AtomicU64>,
}

/// Domain number `n`.
pub fn domain(n: u64) -> String {
    format!("mail{n:03}.bench.example")
}

/// The number of the address that `text` starts with, if it is one of ours.
pub fn number_of(text: &[u8]) -> Option<u64> {
    let digits = text.strip_prefix(LOCAL)?.get(..DIGITS)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The ends of all lines, for so many domains; shared by all bodies.
pub fn tails(domains: u64) -> Arc<[Vec<u8>]> {
    (0..domains).map(|n| format!("@{}\n", domain(n)).into_bytes()).collect()
}

impl Addresses {
    /// Numbers `first` to `first + count - 1`.
    pub fn new(first: u64, count: u64, tails: Arc<[Vec<u8>]>, made: Arc<AtomicU64>) -> Self {
        let buffer = BytesMut::with_capacity(PIECE);
        let end = first + count;
        Self { first, next: first, end, again: 0, headed: false, tails, buffer, made }
    }

    /// All of them `times` times over, one round after the other.
    pub fn repeated(self, times: u64) -> Self {
        Self { again: times.saturating_sub(1), ..self }
    }
}

impl Iterator for Addresses {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.next == self.end && self.again > 0 {
            self.again -= 1;
            self.next = self.first;
        }
        if self.next == self.end {
            return None;
        }
        self.buffer.reserve(PIECE);
        if !self.headed {
            self.headed = true;
            self.buffer.put_slice(HEADER);
        }
        let first = self.next;
        while self.next < self.end {
            let tail = &self.tails[(self.next % self.tails.len() as u64) as usize];
            if self.buffer.len() + LOCAL.len() + DIGITS + tail.len() > PIECE {
                break;
            }
            self.buffer.put_slice(LOCAL);
            self.buffer.put_slice(&digits(self.next));
            self.buffer.put_slice(tail);
            self.next += 1;
        }
        self.made.fetch_add(self.next - first, Ordering::Relaxed);
        Some(self.buffer.split().freeze())
    }
}

fn digits(mut number: u64) -> [u8; DIGITS] {
    let mut text = [b'0'; DIGITS];
    for place in text.iter_mut().rev() {
        *place = b'0' + (number % 10) as u8;
        number /= 10;
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn body(first: u64, count: u64) -> String {
        let made = Arc::new(AtomicU64::new(0));
        let pieces: Vec<Bytes> =
            Addresses::new(first, count, tails(DOMAINS), made.clone()).collect();
        assert_eq!(made.load(Ordering::Relaxed), count);
        assert!(pieces.iter().all(|piece| piece.len() <= PIECE));
        String::from_utf8(pieces.concat()).unwrap()
    }

    #[test]
    fn addresses_are_distinct_within_and_across_bodies() {
        let (one, other) = (body(0, 30_000), body(30_000, 5_001));
        let mut seen = HashSet::new();
        for text in [&one, &other] {
            let mut lines = text.lines();
            assert_eq!(lines.next(), Some("email"));
            assert!(lines.all(|line| seen.insert(line.to_owned())));
        }
        assert_eq!(seen.len(), 35_001);
        assert!(seen.contains("user0000030000@mail000.bench.example"));
    }

    #[test]
    fn repeated_ones_come_in_rounds() {
        let made = Arc::new(AtomicU64::new(0));
        let addresses = Addresses::new(4, 2, tails(10), made.clone()).repeated(3);
        let body = String::from_utf8(addresses.collect::<Vec<Bytes>>().concat()).unwrap();
        let numbers: Vec<_> =
            body.lines().skip(1).map(|line| number_of(line.as_bytes()).unwrap()).collect();
        assert_eq!(numbers, [4, 5, 4, 5, 4, 5]);
        assert!(body.contains("@mail005.bench.example\n"));
        assert_eq!(made.load(Ordering::Relaxed), 6);
        assert_eq!(number_of(b"user00x"), None);
    }

    #[test]
    fn no_address_means_no_body() {
        assert_eq!(body(7, 0), "");
    }
}

//! Keys in text and in binary data: finding them, and hiding them.
//!
//! A key is found by its form alone (prefix, alphabet, length, checksum: see [`Secret::parse`]), wherever
//! it stands: nothing need stand around it. It is found in UTF-8 (and every encoding that keeps ASCII) and,
//! as its characters with a zero byte between them, in UTF-16 of either order.
//!
//! [`Scan`] reads a stream of any length in memory that does not grow with it. Of each piece it keeps the
//! last bytes, in which a key may have begun; a key is told when its first byte leaves what is kept, so
//! once, wherever the pieces end.
//!
//! A prefix of letters that all are in the alphabet could begin inside another key; then both are told,
//! since to miss a key is worse. The default prefix cannot.

use std::borrow::Cow;

use memchr::memchr_iter;
use memchr::memmem::Finder;

use super::key::Secret;

/// What stands for the rest of a key.
const REST: &str = "…";

/// What to look for: the keys of one prefix, in one encoding.
struct Needle {
    prefix: String,
    finder: Finder<'static>,
    /// Characters of a key.
    length: usize,
    /// Bytes from one character to the next.
    step: usize,
}

impl Needle {
    fn new(prefix: &str, step: usize) -> Self {
        let mut bytes = Vec::with_capacity(prefix.len() * step);
        for (at, byte) in prefix.bytes().enumerate() {
            bytes.resize(at * step, 0);
            bytes.push(byte);
        }
        // Every key of a prefix is as long as this one.
        let length = Secret::from_random(prefix, &[0; 31]).reveal().len();
        Self { prefix: prefix.to_owned(), finder: Finder::new(&bytes).into_owned(), length, step }
    }

    /// Bytes of a key, first character to last.
    fn span(&self) -> usize {
        (self.length - 1) * self.step + 1
    }

    /// The key that begins at `at`, if one does.
    fn read(&self, bytes: &[u8], at: usize) -> Option<Secret> {
        let bytes = bytes.get(at..at + self.span())?;
        let mut text = String::with_capacity(self.length);
        for (place, byte) in bytes.iter().enumerate() {
            match (place % self.step, byte) {
                (0, byte) if byte.is_ascii_alphanumeric() => text.push(char::from(*byte)),
                (1.., 0) => {}
                _ => return None,
            }
        }
        Secret::parse(&self.prefix, &text).ok()
    }

    /// Every key of this needle, by where it begins.
    fn find<'a>(&'a self, bytes: &'a [u8]) -> impl Iterator<Item = (usize, Secret)> + 'a {
        let mut from = 0;
        // One step on, not a prefix on: a prefix such as `aa` may begin inside itself.
        let starts = std::iter::from_fn(move || {
            let at = from + self.finder.find(bytes.get(from..)?)?;
            from = at + 1;
            Some(at)
        });
        starts.filter_map(|at| Some((at, self.read(bytes, at)?)))
    }
}

impl Secret {
    /// Every key in these bytes, by the offset of its first byte, in order.
    pub fn find_in(prefix: &str, bytes: &[u8]) -> impl Iterator<Item = (usize, Secret)> {
        let needles = [Needle::new(prefix, 1), Needle::new(prefix, 2)];
        let mut found: Vec<_> = needles.iter().flat_map(|needle| needle.find(bytes)).collect();
        found.sort_by_key(|(at, _)| *at);
        found.into_iter()
    }
}

/// The text with of each key only its first characters, which are safe to show.
pub fn mask<'a>(prefix: &str, text: &'a str) -> Cow<'a, str> {
    let needle = Needle::new(prefix, 1);
    let mut masked = String::new();
    let mut from = 0;
    for (at, secret) in needle.find(text.as_bytes()) {
        // A key is ASCII, so these are borders of characters. One that begins inside another is covered.
        if at >= from {
            masked.push_str(&text[from..at]);
            masked.push_str(secret.start());
            masked.push_str(REST);
        }
        from = at + needle.span();
    }
    match from {
        0 => Cow::Borrowed(text),
        _ => {
            masked.push_str(&text[from..]);
            Cow::Owned(masked)
        }
    }
}

/// A key that was found.
#[derive(Debug)]
pub struct Hit {
    /// Bytes before it.
    pub offset: u64,
    /// Its line, from 1.
    pub line: u64,
    /// Its place in that line, in bytes, from 1.
    pub column: u64,
    /// The key.
    pub secret: Secret,
}

/// Looks for keys in a stream.
pub struct Scan {
    needles: Vec<Needle>,
    /// Bytes of the longest key.
    longest: usize,
    /// What is not done with.
    kept: Vec<u8>,
    /// Offset of the first kept byte.
    offset: u64,
    /// Line of the first kept byte.
    line: u64,
    /// Offset of the first byte of that line.
    line_start: u64,
}

impl Scan {
    /// For keys with any of these prefixes.
    pub fn new<P: AsRef<str>>(prefixes: &[P]) -> Self {
        let of = |prefix: &P| [1, 2].map(|step| Needle::new(prefix.as_ref(), step));
        let needles: Vec<Needle> = prefixes.iter().flat_map(of).collect();
        let longest = needles.iter().map(Needle::span).max().unwrap_or(1);
        Self { needles, longest, kept: Vec::new(), offset: 0, line: 1, line_start: 0 }
    }

    /// Bytes that have come.
    pub fn seen(&self) -> u64 {
        self.offset + self.kept.len() as u64
    }

    /// The next piece, and the keys that are certain by now, in order.
    pub fn push(&mut self, piece: &[u8]) -> Vec<Hit> {
        self.kept.extend_from_slice(piece);
        self.take(self.kept.len().saturating_sub(self.longest - 1))
    }

    /// The end, and the keys that were still kept; then all begins anew.
    pub fn finish(&mut self) -> Vec<Hit> {
        let hits = self.take(self.kept.len());
        (self.offset, self.line, self.line_start) = (0, 1, 0);
        hits
    }

    /// Tells the keys that begin in the first `count` bytes, and lets go of those bytes.
    fn take(&mut self, count: usize) -> Vec<Hit> {
        let found = self.needles.iter().flat_map(|needle| needle.find(&self.kept));
        let mut found: Vec<_> = found.filter(|(at, _)| *at < count).collect();
        found.sort_by_key(|(at, _)| *at);
        let mut hits = Vec::with_capacity(found.len());
        let mut done = 0;
        for (at, secret) in found {
            self.count_lines(done, at);
            done = at;
            let offset = self.offset + at as u64;
            let column = offset - self.line_start + 1;
            hits.push(Hit { offset, line: self.line, column, secret });
        }
        self.count_lines(done, count);
        self.kept.drain(..count);
        self.offset += count as u64;
        hits
    }

    fn count_lines(&mut self, from: usize, to: usize) {
        for at in memchr_iter(b'\n', &self.kept[from..to]) {
            self.line += 1;
            self.line_start = self.offset + (from + at) as u64 + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::Ids;
    use proptest::prelude::*;

    fn key(seed: u64) -> String {
        Secret::generate("VEC", &Ids::seeded(seed)).reveal().to_owned()
    }

    /// In pieces of these lengths, over and over.
    fn scan(bytes: &[u8], lengths: &[usize]) -> Vec<Hit> {
        let mut scan = Scan::new(&["VEC"]);
        let (mut hits, mut rest) = (Vec::new(), bytes);
        for length in lengths.iter().cycle() {
            let (piece, more) = rest.split_at((*length).min(rest.len()));
            hits.extend(scan.push(piece));
            rest = more;
            if rest.is_empty() {
                break;
            }
        }
        assert_eq!(scan.seen(), bytes.len() as u64);
        hits.extend(scan.finish());
        hits
    }

    fn utf16(text: &str, little: bool) -> Vec<u8> {
        let bytes = |unit: u16| if little { unit.to_le_bytes() } else { unit.to_be_bytes() };
        text.encode_utf16().flat_map(bytes).collect()
    }

    #[test]
    fn a_key_is_found_with_its_place() {
        let key = key(7);
        let text = format!("one\nzwölf {key}\n\nx{key}y");
        for lengths in [vec![1], vec![7, 3], vec![1000]] {
            let hits = scan(text.as_bytes(), &lengths);
            let places: Vec<_> = hits.iter().map(|hit| (hit.line, hit.column)).collect();
            assert_eq!(places, [(2, 8), (4, 2)], "{lengths:?}");
            assert!(hits.iter().all(|hit| hit.secret.reveal() == key));
        }
    }

    #[test]
    fn what_is_no_key_is_not_found() {
        let key = key(7);
        let last = if key.ends_with('a') { 'b' } else { 'a' };
        let slip = format!("{}{last}", &key[..34]);
        for text in [&slip, &key[..34], &key[1..], &key.to_lowercase(), "VEC", ""] {
            assert_eq!(scan(text.as_bytes(), &[5]).len(), 0, "{text}");
        }
    }

    #[test]
    fn windows_text_is_read_too() {
        let key = key(9);
        for little in [true, false] {
            let bytes = utf16(&format!("KEY={key}\r\n"), little);
            let hits = scan(&bytes, &[3]);
            assert_eq!(hits.len(), 1);
            assert_eq!(hits[0].secret.reveal(), key);
            assert_eq!(hits[0].offset, if little { 8 } else { 9 });
        }
    }

    #[test]
    fn keys_are_masked_wherever_they_stand() {
        let (one, two) = (key(1), key(2));
        let text = format!("https://example.com/{one}?é={two}");
        let masked = mask("VEC", &text);
        assert_eq!(masked, format!("https://example.com/{}…?é={}…", &one[..8], &two[..8]));
        assert!(matches!(mask("VEC", "nothing here, VEC or not"), Cow::Borrowed(_)));
        assert_eq!(mask("VEC", &format!("{one}{two}")), format!("{}…{}…", &one[..8], &two[..8]));
    }

    #[test]
    fn a_prefix_inside_the_alphabet_misses_nothing() {
        for (prefix, seed) in ["a", "aa"].into_iter().flat_map(|p| (0..200).map(move |s| (p, s))) {
            let key = Secret::generate(prefix, &Ids::seeded(seed)).reveal().to_owned();
            let text = format!("aaaaa{key}");
            let mut found = Secret::find_in(prefix, text.as_bytes());
            assert!(found.any(|(at, secret)| at == 5 && secret.reveal() == key));
            assert!(!mask(prefix, &text).contains(&key));
        }
    }

    proptest! {
        #[test]
        fn a_key_anywhere_is_found_exactly_once(
            before in proptest::collection::vec(any::<u8>(), 0..300),
            after in proptest::collection::vec(any::<u8>(), 0..300),
            lengths in proptest::collection::vec(1usize..80, 1..6),
            seed: u64,
            wide: bool,
        ) {
            let key = key(seed);
            let written = if wide { utf16(&key, true) } else { key.clone().into_bytes() };
            let bytes = [&before[..], &written[..], &after[..]].concat();
            let hits = scan(&bytes, &lengths);
            prop_assert_eq!(hits.len(), 1);
            prop_assert_eq!(hits[0].offset, before.len() as u64);
            prop_assert_eq!(hits[0].secret.reveal(), &key);
            let lines = before.iter().filter(|byte| **byte == b'\n').count() as u64;
            let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            prop_assert_eq!(hits[0].line, lines + 1);
            prop_assert_eq!(hits[0].column, (before.len() - start) as u64 + 1);
            let at_once: Vec<_> = Secret::find_in("VEC", &bytes).map(|(at, _)| at).collect();
            prop_assert_eq!(at_once, vec![before.len()]);
        }

        /// Text that looks like keys: what is found parses, and everything that parses is found.
        #[test]
        fn found_is_what_parses(
            text in "(VEC[a-z2-9A]{0,40}|VEC|[a-zV]{0,9}){0,12}",
            lengths in proptest::collection::vec(1usize..50, 1..4),
        ) {
            let places: Vec<usize> = scan(text.as_bytes(), &lengths)
                .iter().map(|hit| hit.offset as usize).collect();
            let want: Vec<usize> = (0..text.len().saturating_sub(34))
                .filter(|at| Secret::parse("VEC", &text[*at..*at + 35]).is_ok())
                .collect();
            prop_assert_eq!(places, want);
        }
    }
}

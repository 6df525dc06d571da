//! The form of a key.
//!
//! A key is a prefix (a setting, `VEC`), 31 random characters and one checksum character, all of
//! an alphabet of 32 without look-alikes (no `0 O 1 I l`…), so 155 bits of secret. Stored are a hash
//! ([`super::pepper`]) and its first 8 characters. The checksum tells a mistyped key from an unknown one
//! without a look-up. Keys of another form, or with another prefix, exist where they were brought from
//! another system.

use sha2::{Digest, Sha256};

use super::Refusal;
use crate::domain::id::Ids;

/// 32 characters, none of which looks like another.
const ALPHABET: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz23456789A";
/// Characters after the prefix.
const LENGTH: usize = 32;
/// Characters shown in lists.
const START: usize = 8;

/// Bytes of a key of another form, at most.
const LONGEST: usize = 512;

/// Bytes of secret of a shaped key, at least, and characters of its prefix, at most.
const SHORTEST: u8 = 16;
const LONGEST_PREFIX: usize = 16;

/// A hash of a key.
pub type KeyHash = [u8; 32];

/// A key's secret text; shows itself nowhere.
pub struct Secret(String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Secret {
    /// A new key from the source of randomness.
    pub fn generate(prefix: &str, ids: &Ids) -> Self {
        Self::from_random(prefix, &ids.bytes())
    }

    /// The key that these random bytes stand for; the same bytes give the same key.
    pub fn from_random(prefix: &str, random: &[u8; LENGTH - 1]) -> Self {
        let mut text = String::with_capacity(prefix.len() + LENGTH);
        text.push_str(prefix);
        text.extend(random.iter().map(|byte| char::from(ALPHABET[usize::from(byte & 31)])));
        text.push(checksum(&text));
        Self(text)
    }

    /// A new key of another form than the gate's: `prefix` and an underscore, should there be one, and at least
    /// `bytes` bytes of secret in the same alphabet, the last character a checksum as well.
    pub fn shaped(prefix: &str, bytes: u8, ids: &Ids) -> Self {
        const MOST: usize = (u8::MAX as usize * 8).div_ceil(5);
        let length = (usize::from(bytes) * 8).div_ceil(5);
        let random: [u8; MOST] = ids.bytes();
        let mut text = String::with_capacity(prefix.len() + length + 2);
        text.push_str(prefix);
        if !prefix.is_empty() {
            text.push('_');
        }
        let body = random.iter().take(length);
        text.extend(body.map(|byte| char::from(ALPHABET[usize::from(byte & 31)])));
        text.push(checksum(&text));
        Self(text)
    }

    /// Has this the form of [`Secret::shaped`], of whatever prefix? Of what was never one of ours, one in 32 at
    /// the most has the checksum.
    pub fn is_shaped(text: &str) -> bool {
        let body = match text.rsplit_once('_') {
            Some(("", _)) => return false,
            Some((prefix, body)) => {
                let fits = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
                if prefix.len() > LONGEST_PREFIX || !prefix.bytes().all(fits) {
                    return false;
                }
                body
            }
            None => text,
        };
        let of_alphabet = body.bytes().all(|c| ALPHABET.contains(&c));
        let lengths = (SHORTEST..=u8::MAX).map(|bytes| (usize::from(bytes) * 8).div_ceil(5) + 1);
        let has_length = of_alphabet && lengths.into_iter().any(|length| length == body.len());
        let head = text.get(..text.len().saturating_sub(1)).unwrap_or_default();
        has_length && text.ends_with(checksum(head))
    }

    /// Its prefix and the first 4 characters after it, safe to show.
    pub fn start_of(&self, prefix: &str) -> &str {
        let shown = if prefix.is_empty() { START } else { prefix.len() + 1 + START / 2 };
        self.0.get(..shown).unwrap_or(&self.0)
    }

    /// Reads a key that a caller presents. A character or checksum that no key of ours has means that there is
    /// no such key, and spares the look-up.
    pub fn parse(prefix: &str, text: &str) -> Result<Self, Refusal> {
        let body = text.strip_prefix(prefix).ok_or(Refusal::Malformed)?;
        if body.len() != LENGTH || !body.bytes().all(|c| c.is_ascii_alphanumeric()) {
            return Err(Refusal::Malformed);
        }
        let (head, last) = text.split_at(text.len() - 1);
        if body.bytes().all(|c| ALPHABET.contains(&c)) && last.starts_with(checksum(head)) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Refusal::Unknown)
        }
    }

    /// A key of any form: one that was brought from another system. Up to 512 visible ASCII characters.
    pub fn foreign(text: &str) -> Option<Self> {
        let fits =
            (1..=LONGEST).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_graphic());
        fits.then(|| Self(text.to_owned()))
    }

    /// SHA-256 of it.
    pub fn hash(&self) -> KeyHash {
        Sha256::digest(self.0.as_bytes()).into()
    }

    /// Its first characters, safe to show.
    pub fn start(&self) -> &str {
        self.0.get(..START).unwrap_or(&self.0)
    }

    /// The secret itself, to hand out once.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

fn checksum(text: &str) -> char {
    let digest = Sha256::digest(text.as_bytes());
    char::from(ALPHABET[usize::from(digest[0] & 31)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn alphabet_has_no_look_alikes() {
        let mut seen = ALPHABET.to_vec();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 32);
        assert!(!ALPHABET.iter().any(|c| b"01OIlio".contains(c)));
    }

    #[test]
    fn other_forms_have_a_prefix_a_length_and_the_checksum() {
        let ids = Ids::seeded(3);
        for (prefix, bytes, length) in
            [("", 16, 27), ("prod", 16, 32), ("a_b", 32, 57), ("", 255, 409)]
        {
            let secret = Secret::shaped(prefix, bytes, &ids);
            let text = secret.reveal();
            assert_eq!(text.len(), length, "{prefix:?} {bytes}");
            assert!(prefix.is_empty() || text.starts_with(&format!("{prefix}_")));
            let (head, last) = text.split_at(text.len() - 1);
            assert!(last.starts_with(checksum(head)));
            assert_eq!(Secret::foreign(text).map(|one| one.hash()), Some(secret.hash()));
            assert_ne!(Secret::shaped(prefix, bytes, &ids).hash(), secret.hash());
            assert!(Secret::is_shaped(text), "{text}");
            let last = text.chars().last().unwrap();
            let other = if last == 'a' { 'b' } else { 'a' };
            for wrong in [
                format!("{head}{other}"),
                format!("{text}{last}"),
                format!("_{text}"),
                format!("a-b_{text}"),
                format!("{}_{text}", "x".repeat(17)),
            ] {
                assert!(!Secret::is_shaped(&wrong), "{wrong}");
            }
            let shown = secret.start_of(prefix);
            assert!(text.starts_with(shown) && shown.len() <= text.len() - 19, "{shown}");
        }
    }

    #[test]
    fn what_is_not_of_the_form() {
        let ours = Secret::generate("VEC", &Ids::seeded(1));
        for text in ["", "_", "a", "root_", "x_abc", "VECnothing", ours.reveal(), "ключ_ключ"]
        {
            assert!(!Secret::is_shaped(text), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_key_parses_and_a_mistyped_one_does_not(seed: u64, at in 3usize..35, with in 0usize..32) {
            let secret = Secret::generate("VEC", &Ids::seeded(seed));
            let text = secret.reveal();
            prop_assert_eq!(text.len(), 35);
            prop_assert_eq!(Secret::parse("VEC", text).map(|s| s.hash()), Ok(secret.hash()));
            let mut wrong = text.as_bytes().to_vec();
            wrong[at] = ALPHABET[with];
            let wrong = String::from_utf8(wrong).unwrap();
            if wrong != text {
                // One character in 32 slips past the checksum; it is still another key.
                if let Ok(other) = Secret::parse("VEC", &wrong) {
                    prop_assert_ne!(other.hash(), secret.hash());
                }
            }
            prop_assert_eq!(Secret::parse("VEC", &text[..34]).err(), Some(Refusal::Malformed));
        }
    }
}

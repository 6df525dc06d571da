//! API keys: their form, and what the gate decides about one.
//!
//! A key is a prefix (a setting, `VEC`), 31 random characters and one checksum character, all of
//! an alphabet of 32 without look-alikes (no `0 O 1 I l`…), so 155 bits of secret. Stored are its
//! SHA-256 and its first 8 characters. The checksum tells a mistyped key from an unknown one
//! without a look-up.

use sha2::{Digest, Sha256};

use super::clock::Millis;
use super::id::{AccountId, Ids, KeyId};

/// 32 characters, none of which looks like another.
const ALPHABET: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz23456789A";
/// Characters after the prefix.
const LENGTH: usize = 32;
/// Characters shown in lists.
const START: usize = 8;

/// SHA-256 of a key: what is stored and looked up.
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

    /// Reads a key that a caller presents. Prefix and length are its form; a character or checksum
    /// that no key of ours has means that there is no such key, and spares the look-up.
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

    /// What is stored instead of it.
    pub fn hash(&self) -> KeyHash {
        Sha256::digest(self.0.as_bytes()).into()
    }

    /// Its first characters, safe to show.
    pub fn start(&self) -> &str {
        &self.0[..START]
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

/// A key as stored.
#[derive(Debug, Clone)]
pub struct Key {
    /// Its id.
    pub id: KeyId,
    /// Its account.
    pub account: AccountId,
    /// Its first characters.
    pub start: String,
    /// The owner's name for it.
    pub label: String,
    /// Switched off by its owner.
    pub disabled: bool,
    /// Suspended by an operator or by abuse protection, and why.
    pub suspended: Option<String>,
    /// Gone for good.
    pub deleted_at: Option<Millis>,
    /// When it ends by itself.
    pub expires_at: Option<Millis>,
    /// Requests a minute on own routes; `None` = the default.
    pub rate_limit: Option<i64>,
    /// When it was made.
    pub created_at: Millis,
}

/// Why the gate refuses; the order of the variants is the order of the checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The caller's address is blocked.
    IpBlocked,
    /// No key, or not in the right form.
    Malformed,
    /// No such key, or deleted.
    Unknown,
    /// Switched off by its owner.
    Disabled,
    /// Suspended, and why.
    Suspended(String),
    /// Past its end.
    Expired,
}

impl Key {
    /// Checks 3 to 6 of the gate, on the state just read.
    pub fn admit(&self, now: Millis) -> Result<(), Refusal> {
        if self.deleted_at.is_some() {
            return Err(Refusal::Unknown);
        }
        if self.disabled {
            return Err(Refusal::Disabled);
        }
        if let Some(reason) = &self.suspended {
            return Err(Refusal::Suspended(reason.clone()));
        }
        if self.expires_at.is_some_and(|end| end <= now) {
            return Err(Refusal::Expired);
        }
        Ok(())
    }

    /// Its state in one word, for lists.
    pub fn status(&self, now: Millis) -> &'static str {
        match self.admit(now) {
            Ok(()) => "active",
            Err(Refusal::Disabled) => "disabled",
            Err(Refusal::Suspended(_)) => "suspended",
            Err(Refusal::Expired) => "expired",
            Err(_) => "deleted",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key() -> Key {
        let ids = Ids::seeded(1);
        Key {
            id: KeyId::new(&ids, 1),
            account: AccountId::new(&ids, 1),
            start: String::from("VECabcde"),
            label: String::from("production"),
            disabled: false,
            suspended: None,
            deleted_at: None,
            expires_at: None,
            rate_limit: None,
            created_at: 1,
        }
    }

    #[test]
    fn alphabet_has_no_look_alikes() {
        let mut seen = ALPHABET.to_vec();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 32);
        assert!(!ALPHABET.iter().any(|c| b"01OIlio".contains(c)));
    }

    #[test]
    fn checks_come_in_the_order_of_the_gate() {
        let mut key = key();
        assert_eq!(key.admit(5), Ok(()));
        key.expires_at = Some(5);
        assert_eq!(key.admit(4), Ok(()));
        assert_eq!(key.admit(5), Err(Refusal::Expired));
        key.suspended = Some(String::from("abuse"));
        assert_eq!(key.admit(5), Err(Refusal::Suspended(String::from("abuse"))));
        key.disabled = true;
        assert_eq!(key.admit(5), Err(Refusal::Disabled));
        key.deleted_at = Some(3);
        assert_eq!(key.admit(5), Err(Refusal::Unknown));
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

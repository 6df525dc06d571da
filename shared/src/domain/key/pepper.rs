//! The pepper: a secret that is not in the database.
//!
//! A key is stored as HMAC-SHA-256(pepper, SHA-256(key)), so that a copy of the database alone verifies no
//! key and cannot be tried against guesses. A pepper has an id, which stands beside each hash made with it.
//! A process may know several: the first makes new hashes, all are looked for. What is stored without one
//! (by earlier versions) is wrapped without knowing any key, as SHA-256(key) is what was stored.
//!
//! In text: `id:64 hexadecimal digits`, several with commas or on lines of their own, the newest first.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::KeyHash;
use super::secret::Secret;

/// One pepper.
#[derive(Clone)]
pub struct Pepper {
    id: String,
    secret: [u8; 32],
}

impl std::fmt::Debug for Pepper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pepper({})", self.id)
    }
}

/// A text that is no list of peppers.
#[derive(Debug, thiserror::Error)]
#[error(
    "a pepper is written as NAME:HEX, with a name of up to 40 letters and digits and 64 hexadecimal digits"
)]
pub struct BadPepper;

impl Pepper {
    /// A new one.
    pub fn new(id: impl Into<String>, secret: [u8; 32]) -> Self {
        Self { id: id.into(), secret }
    }

    /// Its name, no secret.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// As it is written in a file or setting.
    pub fn reveal(&self) -> String {
        let hex: String = self.secret.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{}:{hex}", self.id)
    }

    fn parse(text: &str) -> Result<Self, BadPepper> {
        let (id, hex) = text.split_once(':').ok_or(BadPepper)?;
        let fits = (1..=40).contains(&id.len()) && id.bytes().all(|c| c.is_ascii_alphanumeric());
        if !fits || hex.len() != 64 || !hex.is_ascii() {
            return Err(BadPepper);
        }
        let mut secret = [0; 32];
        for (at, byte) in secret.iter_mut().enumerate() {
            let digits = &hex[at * 2..at * 2 + 2];
            *byte = u8::from_str_radix(digits, 16).map_err(|_| BadPepper)?;
        }
        Ok(Self { id: id.to_owned(), secret })
    }

    /// What is stored for a key of which the SHA-256 is known.
    pub fn wrap(&self, bare: &KeyHash) -> KeyHash {
        self.mac(b"", bare)
    }

    /// What is stored for a key.
    pub fn hash(&self, secret: &Secret) -> KeyHash {
        self.wrap(&secret.hash())
    }

    /// Shows that one has this pepper, without showing it.
    pub fn proof(&self) -> KeyHash {
        self.mac(b"listmill: proof of a pepper", self.id.as_bytes())
    }

    /// Randomness that only this pepper and this salt give: what a new key's secret is made of, so that a
    /// request that is sent again is told the same secret, and nobody has to store it.
    pub fn derive(&self, purpose: &str, salt: &[u8]) -> KeyHash {
        self.mac(purpose.as_bytes(), salt)
    }

    fn mac(&self, purpose: &[u8], text: &[u8]) -> KeyHash {
        // Zeros up to the block's size change nothing (RFC 2104, 2).
        let mut block = [0; 64];
        block[..32].copy_from_slice(&self.secret);
        let mut mac = Hmac::<Sha256>::new(&block.into());
        if !purpose.is_empty() {
            mac.update(&(purpose.len() as u64).to_be_bytes());
            mac.update(purpose);
        }
        mac.update(text);
        mac.finalize().into_bytes().into()
    }
}

/// The peppers that a process knows, the newest first; at least one.
#[derive(Debug, Clone)]
pub struct Peppers {
    first: Pepper,
    others: Vec<Pepper>,
}

impl From<Pepper> for Peppers {
    fn from(first: Pepper) -> Self {
        Self { first, others: Vec::new() }
    }
}

impl Peppers {
    /// Reads a list of them.
    pub fn parse(text: &str) -> Result<Self, BadPepper> {
        let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
        let parts = lines.flat_map(|line| line.split(',')).map(str::trim);
        let mut all = parts.filter(|part| !part.is_empty()).map(Pepper::parse);
        let first = all.next().ok_or(BadPepper)??;
        let others: Vec<Pepper> = all.collect::<Result<_, _>>()?;
        let same = |one: &Pepper| one.id == first.id;
        if others.iter().any(same) {
            return Err(BadPepper);
        }
        Ok(Self { first, others })
    }

    /// The one that makes new hashes.
    pub fn newest(&self) -> &Pepper {
        &self.first
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Pepper> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// The one with this id.
    pub fn get(&self, id: &str) -> Option<&Pepper> {
        self.all().find(|pepper| pepper.id == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::Ids;

    #[test]
    fn a_list_is_read_and_written() {
        let (old, new) = (Pepper::new("a", [1; 32]), Pepper::new("b2", [0xab; 32]));
        let text = format!("# newest first, as said\n{}\n{},\n", new.reveal(), old.reveal());
        let all = Peppers::parse(&text).unwrap();
        assert_eq!((all.newest().id(), all.all().count()), ("b2", 2));
        assert_eq!(all.get("a").unwrap().proof(), old.proof());
        assert!(all.get("c").is_none());
        let twice = format!("{},{}", old.reveal(), old.reveal());
        for wrong in ["", "a", "a:12", ":00", &twice, &format!("a b:{}", "00".repeat(32))] {
            assert!(Peppers::parse(wrong).is_err(), "{wrong}");
        }
        assert!(!format!("{all:?}").contains("abab"), "no secret in a log");
    }

    #[test]
    fn a_hash_needs_the_pepper_and_not_the_key() {
        let secret = Secret::generate("VEC", &Ids::seeded(1));
        let (one, other) = (Pepper::new("a", [1; 32]), Pepper::new("b", [2; 32]));
        assert_eq!(one.wrap(&secret.hash()), one.hash(&secret), "wrapped without the key");
        assert_ne!(one.hash(&secret), other.hash(&secret));
        assert_ne!(one.hash(&secret), secret.hash());
        assert_ne!(one.derive("key", &[1; 32]), one.derive("key", &[2; 32]));
        assert_ne!(one.derive("key", &[1; 32]), one.wrap(&[1; 32]));
        assert_ne!(one.proof(), other.proof());
    }

    /// The figure comes from another implementation (`openssl dgst -sha256 -mac HMAC`).
    #[test]
    fn it_is_hmac_sha_256() {
        let got: String = Pepper::new("a", [0x0b; 32])
            .wrap(&[0x61; 32])
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        assert_eq!(got, "8ad0719ef348b8b3d9d647cf3b39d33c0656892293a9f3fc0e9e3ec6eadfefb6");
    }
}

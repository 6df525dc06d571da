//! The token of a link that shows a new key's secret once.
//!
//! 256 bits, in text 64 hexadecimal digits. The secret of the key follows from the token and the pepper, so
//! nothing that is stored holds it: the database knows the token's SHA-256 alone.

use sha2::{Digest, Sha256};

use super::KeyHash;

/// A token; shows itself nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Token([u8; 32]);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

impl From<[u8; 32]> for Token {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl Token {
    /// Reads its text; `None`: no token was ever written so.
    pub fn parse(text: &str) -> Option<Self> {
        let digits =
            text.len() == 64 && text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
        let mut bytes = [0; 32];
        for (at, byte) in bytes.iter_mut().enumerate().filter(|_| digits) {
            *byte = u8::from_str_radix(text.get(at * 2..at * 2 + 2)?, 16).ok()?;
        }
        digits.then_some(Self(bytes))
    }

    /// Its text, to hand out once.
    pub fn reveal(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// What the secret is made of.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// What is stored.
    pub fn hash(&self) -> KeyHash {
        Sha256::digest(self.0).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_token_is_read_as_it_is_written(bytes: [u8; 32]) {
            let token = Token::from(bytes);
            let text = token.reveal();
            prop_assert_eq!(Token::parse(&text), Some(token.clone()));
            prop_assert_eq!(Token::parse(&text[1..]), None);
            prop_assert_eq!(Token::parse(&format!("{}g", &text[1..])), None);
            let shown = format!("{token:?}");
            prop_assert!(!shown.contains(&text[..8]));
            prop_assert_ne!(token.hash(), bytes);
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,80}") {
            if let Some(token) = Token::parse(&text) {
                prop_assert_eq!(token.reveal(), text);
            }
        }
    }
}

//! Keys that are brought from another system, as rows of a list: by SHA-256, never by secret.
//!
//! A [`Row`] is what stands for a key (`sha256`), perhaps its first characters (`start`), and what may be said
//! of any key that is made, in the same words. In CSV a cell is text; [`cell`] makes of it what the same word
//! is elsewhere.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};

use super::KeyHash;

/// What a row may say.
pub const WORDS: [&str; 15] = [
    "sha256",
    "start",
    "label",
    "note",
    "environment",
    "stage",
    "scopes",
    "expires_at",
    "not_before",
    "allow",
    "rate_limit",
    "limits",
    "credit_limit",
    "external_id",
    "meta",
];
/// Names under which secrets are exported.
const SECRETS: [&str; 9] =
    ["key", "secret", "token", "api_key", "apikey", "api-key", "raw_key", "plaintext", "password"];
/// Characters of `start`.
const START: usize = 16;
/// The SHA-256 of nothing: what a missing column is hashed to.
const NOTHING: KeyHash = [
    0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24,
    0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
];

/// A key to be brought in.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// SHA-256 of the key.
    pub hash: KeyHash,
    /// Its first characters; empty = not known.
    pub start: String,
    /// What else is said of it.
    pub rest: Map<String, Value>,
}

impl Row {
    /// Reads what stands for the key; the rest is read by whoever makes keys. `Err`: what is wrong, and
    /// nothing of the row's values.
    pub fn read(mut row: Map<String, Value>) -> Result<Self, String> {
        let hash = match row.remove("sha256") {
            Some(Value::String(text)) => sha256(text.trim())?,
            Some(_) => return Err(String::from("sha256 must be text")),
            None => return Err(String::from("sha256 is missing")),
        };
        let start = match row.remove("start") {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) if is_start(&text) => text,
            Some(_) => {
                return Err(format!(
                    "start must be the first characters of the key, 1 to {START} visible ones of ASCII"
                ));
            }
        };
        Ok(Self { hash, start, rest: row })
    }
}

fn is_start(text: &str) -> bool {
    (1..=START).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_graphic())
}

/// Is a secret meant by this name?
pub fn names_secret(name: &str) -> bool {
    SECRETS.iter().any(|secret| name.trim().eq_ignore_ascii_case(secret))
}

/// A SHA-256: 64 hexadecimal digits, or base64 in either alphabet, with or without `=`.
fn sha256(text: &str) -> Result<KeyHash, String> {
    let hash = match text.len() {
        64 => from_hex(text),
        43 | 44 => from_base64(text.strip_suffix('=').unwrap_or(text)),
        _ => None,
    };
    match hash {
        Some(NOTHING) => Err(String::from("sha256 is the hash of nothing: the key was empty")),
        Some(hash) => Ok(hash),
        None => Err(String::from(
            "sha256 must be the SHA-256 of the key, as 64 hexadecimal digits or in base64 (44 characters)",
        )),
    }
}

fn from_hex(text: &str) -> Option<KeyHash> {
    let mut hash = [0; 32];
    for (at, byte) in hash.iter_mut().enumerate() {
        let digits = text.get(at * 2..at * 2 + 2)?;
        // `from_str_radix` takes a sign as well.
        if !digits.bytes().all(|c| c.is_ascii_hexdigit()) {
            return None;
        }
        *byte = u8::from_str_radix(digits, 16).ok()?;
    }
    Some(hash)
}

fn from_base64(text: &str) -> Option<KeyHash> {
    let bytes = STANDARD_NO_PAD.decode(text).or_else(|_| URL_SAFE_NO_PAD.decode(text));
    bytes.ok()?.try_into().ok()
}

/// What a cell of CSV says; `None`: nothing.
pub fn cell(name: &str, text: &str) -> Result<Option<Value>, String> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    let json_in = |text: &str| -> Result<Value, String> {
        serde_json::from_str(text).map_err(|_| format!("{name} must be JSON"))
    };
    let value = match name {
        "scopes" | "allow" => {
            let parts = text.split([' ', ',', ';', '\t', '\n']).filter(|part| !part.is_empty());
            parts.map(Value::from).collect()
        }
        "rate_limit" => match text.parse::<i64>() {
            Ok(number) => json!(number),
            Err(_) => return Err(format!("{name} must be a number")),
        },
        "credit_limit" => match text.parse::<i64>() {
            Ok(number) => json!({ "limit": number }),
            Err(_) => json_in(text)?,
        },
        "limits" | "meta" => json_in(text)?,
        _ => json!(text),
    };
    Ok(Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::Ids;
    use crate::domain::key::Secret;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE};
    use proptest::prelude::*;

    fn row(sha256: &str) -> Map<String, Value> {
        let row = json!({ "sha256": sha256, "start": "sk_live_", "label": "shop" });
        row.as_object().cloned().unwrap_or_default()
    }

    #[test]
    fn a_row_is_taken_apart() {
        let hash = Secret::generate("VEC", &Ids::seeded(1)).hash();
        let read = Row::read(row(&STANDARD.encode(hash))).unwrap();
        assert_eq!((read.hash, read.start.as_str()), (hash, "sk_live_"));
        assert_eq!(Value::Object(read.rest), json!({ "label": "shop" }));
        let without = json!({ "label": "shop" }).as_object().cloned().unwrap();
        assert!(Row::read(without).unwrap_err().contains("missing"));
        let nothing: String = NOTHING.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(Row::read(row(&nothing)).unwrap_err().contains("empty"));
        for start in [json!(""), json!("a b"), json!("seventeen_letters"), json!(1), json!("ä")] {
            let mut row = row(&STANDARD.encode(hash));
            row.insert(String::from("start"), start.clone());
            assert!(Row::read(row).is_err(), "{start}");
        }
    }

    #[test]
    fn cells_become_what_the_words_are() {
        for (name, text, value) in [
            ("label", " shop ", json!("shop")),
            (
                "scopes",
                "verify, tasks:read;tasks:write",
                json!(["verify", "tasks:read", "tasks:write"]),
            ),
            ("allow", "10.0.0.0/8 2001:db8::/32", json!(["10.0.0.0/8", "2001:db8::/32"])),
            ("rate_limit", "60", json!(60)),
            ("credit_limit", "1000", json!({ "limit": 1000 })),
            ("credit_limit", "{\"limit\":5}", json!({ "limit": 5 })),
            ("meta", "{\"a\":1}", json!({ "a": 1 })),
        ] {
            assert_eq!(cell(name, text), Ok(Some(value)), "{name}");
        }
        assert_eq!(cell("note", "  "), Ok(None));
        for (name, text) in [("rate_limit", "many"), ("meta", "{"), ("credit_limit", "x")] {
            assert!(cell(name, text).unwrap_err().starts_with(name), "{name}");
        }
    }

    #[test]
    fn secrets_are_known_by_their_names() {
        for name in ["key", "Secret", " TOKEN ", "api_key", "apiKey"] {
            assert!(names_secret(name), "{name}");
        }
        assert!(WORDS.iter().all(|word| !names_secret(word)));
    }

    proptest! {
        #[test]
        fn a_hash_is_read_in_every_writing(hash: [u8; 32]) {
            let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
            let padded = STANDARD.encode(hash);
            for text in [
                hex.clone(),
                hex.to_uppercase(),
                padded.clone(),
                padded.trim_end_matches('=').to_owned(),
                URL_SAFE.encode(hash),
            ] {
                prop_assert_eq!(sha256(&text), Ok(hash), "{}", text);
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,70}") {
            if let Err(what) = sha256(&text) {
                prop_assert!(what.starts_with("sha256"));
            }
        }

        #[test]
        fn what_is_no_hash_is_refused(text in "[0-9a-f+-]{64}|[A-Za-z0-9/+=_-]{43,44}") {
            let hex = text.len() == 64 && text.bytes().all(|c| c.is_ascii_hexdigit());
            if sha256(&text).is_ok() {
                prop_assert!(hex || text.len() < 64);
            } else {
                prop_assert!(!hex);
            }
        }
    }
}

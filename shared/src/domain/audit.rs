//! The audit log: who changed what, from where, in chains that show it when they are tampered with.
//!
//! | what | is |
//! | --- | --- |
//! | [`Origin`] | who asks for a change, and from where |
//! | [`Change`] | a change, to be written down |
//! | [`Row`] | a change that was written down, as it is stored |
//! | [`Head`] | number and hash of a chain's last row |
//!
//! There is a chain per account, and one for what belongs to no account ([`INSTALLATION`]). Its rows are
//! numbered from 1 without a gap. Each holds the hash of the row before it ([`START`] before the first) and
//! its own, over everything that it holds ([`Row::digest`]). So a row that is changed, removed, added or
//! moved shows ([`Verifier`]), and so does a cut end, as the head names the last row. Who can write to the
//! database may make all hashes anew from some row on, or remove a chain and its head; that shows against
//! an export which is kept elsewhere, as rows never change.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::ser::SerializeMap;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::clock::Millis;
use super::id::{AccountId, KeyId, RootKeyId};

mod verify;

pub use verify::{Break, How, Verifier};

/// The chain of what belongs to no account.
pub const INSTALLATION: AccountId = AccountId::FIRST;

/// A SHA-256.
pub type Hash = [u8; 32];

/// What stands for the row before the first.
pub const START: Hash = [0; 32];

/// Bytes of `before` or `after`; of what is longer only the length is kept.
const LONGEST: usize = 16 << 10;

/// Who makes a change.
///
/// As text (stored): `key:key_…`, `root:rootkey_…`, `person:ada@example.com`, `operator`, `system`; as JSON (shown):
/// `{"key": "key_…"}`, `{"person": "ada@example.com"}`, `{"operator": true}`, `{"system": true}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Actor {
    /// A holder of this key.
    Key(KeyId),
    /// Who is logged in with this email.
    Person(String),
    /// A holder of this root key.
    Root(RootKeyId),
    /// Who works at the command line.
    Operator,
    /// Listmill by itself.
    System,
}

/// A text that names no actor.
#[derive(Debug, thiserror::Error)]
#[error("not an actor")]
pub struct BadActor;

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Actor::Key(id) => write!(f, "key:{id}"),
            Actor::Person(email) => write!(f, "person:{email}"),
            Actor::Root(id) => write!(f, "root:{id}"),
            Actor::Operator => f.write_str("operator"),
            Actor::System => f.write_str("system"),
        }
    }
}

impl FromStr for Actor {
    type Err = BadActor;

    fn from_str(text: &str) -> Result<Self, BadActor> {
        match text.split_once(':') {
            Some(("key", id)) => id.parse().map(Actor::Key).map_err(|_| BadActor),
            Some(("root", id)) => id.parse().map(Actor::Root).map_err(|_| BadActor),
            Some(("person", email)) => Ok(Actor::Person(email.to_owned())),
            None if text == "operator" => Ok(Actor::Operator),
            None if text == "system" => Ok(Actor::System),
            _ => Err(BadActor),
        }
    }
}

impl serde::Serialize for Actor {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        match self {
            Actor::Key(id) => map.serialize_entry("key", id)?,
            Actor::Person(email) => map.serialize_entry("person", email)?,
            Actor::Root(id) => map.serialize_entry("root_key", id)?,
            Actor::Operator => map.serialize_entry("operator", &true)?,
            Actor::System => map.serialize_entry("system", &true)?,
        }
        map.end()
    }
}

/// Who asks for a change, and from where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Who.
    pub actor: Actor,
    /// The caller's address; none at the command line.
    pub ip: Option<IpAddr>,
    /// The request that asks for it; none at the command line.
    pub request_id: Option<String>,
}

impl Origin {
    /// Who works at the command line.
    pub fn operator() -> Self {
        Self { actor: Actor::Operator, ip: None, request_id: None }
    }

    /// Listmill by itself.
    pub fn system() -> Self {
        Self { actor: Actor::System, ip: None, request_id: None }
    }
}

/// A change, to be written down in the transaction that makes it.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Whose things are changed; none = the installation's.
    pub account: Option<AccountId>,
    /// Who does it.
    pub actor: Actor,
    /// The caller's address.
    pub ip: Option<IpAddr>,
    /// The request that asks for it.
    pub request_id: Option<String>,
    /// What is done, such as `key.disable`.
    pub action: &'static str,
    /// To what: an id or a network.
    pub target: String,
    /// How it was, as it is shown outside: never a hash or a secret. None = it was not there.
    pub before: Option<Value>,
    /// How it is now, likewise. None = it is gone.
    pub after: Option<Value>,
}

impl Change {
    /// A change that `by` asks for; `before` and `after` are still to be set.
    pub fn new(
        by: &Origin,
        account: Option<AccountId>,
        action: &'static str,
        target: impl fmt::Display,
    ) -> Self {
        let Origin { actor, ip, request_id } = by.clone();
        let target = target.to_string();
        Self { account, actor, ip, request_id, action, target, before: None, after: None }
    }

    /// How it was.
    pub fn before(self, before: Value) -> Self {
        Self { before: Some(before), ..self }
    }

    /// How it is now.
    pub fn after(self, after: Value) -> Self {
        Self { after: Some(after), ..self }
    }

    /// The chain that it goes to.
    pub fn chain(&self) -> AccountId {
        self.account.unwrap_or(INSTALLATION)
    }
}

/// The last row of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Its number; how many rows the chain has.
    pub seq: i64,
    /// Its hash.
    pub hash: Vec<u8>,
}

/// A change that was written down: the bytes as they are stored, whatever somebody has made of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its chain: an account, or [`INSTALLATION`].
    pub chain: AccountId,
    /// Its number in the chain, from 1.
    pub seq: i64,
    /// When.
    pub at: Millis,
    /// An [`Actor`] as text.
    pub actor: String,
    /// An IP address.
    pub ip: Option<String>,
    /// See [`Change::request_id`].
    pub request_id: Option<String>,
    /// See [`Change::action`].
    pub action: String,
    /// See [`Change::target`].
    pub target: String,
    /// JSON.
    pub before: Option<String>,
    /// JSON.
    pub after: Option<String>,
    /// Its own hash.
    pub hash: Vec<u8>,
    /// That of the row before it.
    pub previous: Vec<u8>,
}

impl Row {
    /// The row number `seq` of a chain, behind one with the hash `previous`.
    pub fn new(change: &Change, seq: i64, previous: Vec<u8>, at: Millis) -> Self {
        let mut row = Self {
            chain: change.chain(),
            seq,
            at,
            actor: change.actor.to_string(),
            ip: change.ip.map(|ip| ip.to_string()),
            request_id: change.request_id.clone(),
            action: change.action.to_owned(),
            target: change.target.clone(),
            before: change.before.as_ref().map(text),
            after: change.after.as_ref().map(text),
            hash: Vec::new(),
            previous,
        };
        row.hash = row.digest().to_vec();
        row
    }

    /// The account; none = the installation.
    pub fn account(&self) -> Option<AccountId> {
        (self.chain != INSTALLATION).then_some(self.chain)
    }

    /// The hash that it must have: SHA-256 over its fields in this order, each with its length in bytes
    /// (8 bytes, big-endian) before it. Numbers are 8 bytes, big-endian; what may be missing begins with a
    /// byte 1, or is a byte 0 alone. So no two rows are the same bytes.
    pub fn digest(&self) -> Hash {
        let mut sum = Sum(Sha256::new());
        sum.field(b"listmill audit row 1");
        sum.field(self.chain.0.as_bytes());
        sum.field(&self.seq.to_be_bytes());
        sum.field(&self.at.to_be_bytes());
        sum.field(self.actor.as_bytes());
        sum.optional(self.ip.as_deref());
        sum.optional(self.request_id.as_deref());
        sum.field(self.action.as_bytes());
        sum.field(self.target.as_bytes());
        sum.optional(self.before.as_deref());
        sum.optional(self.after.as_deref());
        sum.field(&self.previous);
        sum.0.finalize().into()
    }
}

struct Sum(Sha256);

impl Sum {
    fn field(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
    }

    fn optional(&mut self, text: Option<&str>) {
        self.0.update([u8::from(text.is_some())]);
        if let Some(text) = text {
            self.field(text.as_bytes());
        }
    }
}

/// JSON as it is stored; bounded, as a page of rows is held in memory.
fn text(value: &Value) -> String {
    let text = value.to_string();
    if text.len() <= LONGEST { text } else { format!("{{\"too_long\":{}}}", text.len()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::Ids;
    use serde_json::json;

    fn change() -> Change {
        let key = KeyId::new(&Ids::seeded(1), 1);
        let by = Origin { actor: Actor::Key(key), ip: None, request_id: Some("r1".into()) };
        Change::new(&by, None, "ip.block", "10.0.0.0/8").after(json!({ "reason": "abuse" }))
    }

    #[test]
    fn actors_survive_their_text_and_are_shown_as_json() {
        let key = KeyId::new(&Ids::seeded(1), 1);
        for (actor, shown) in [
            (Actor::Key(key), json!({ "key": key })),
            (Actor::Person("a:b@example.com".into()), json!({ "person": "a:b@example.com" })),
            (Actor::Operator, json!({ "operator": true })),
            (Actor::System, json!({ "system": true })),
        ] {
            assert_eq!(actor.to_string().parse::<Actor>().unwrap(), actor);
            assert_eq!(serde_json::to_value(&actor).unwrap(), shown);
        }
        for wrong in ["", "key", "key:", "key:key_1", "operator:", "somebody", "Operator"] {
            assert!(wrong.parse::<Actor>().is_err(), "{wrong}");
        }
    }

    /// Rows that differ only in where a field ends, or in nothing against empty, are other bytes.
    #[test]
    fn no_two_rows_are_the_same_bytes() {
        let row = Row::new(&change(), 1, START.to_vec(), 5);
        let moved = Row { action: "ip.block1".into(), target: "0.0.0.0/8".into(), ..row.clone() };
        let empty = Row { ip: Some(String::new()), ..row.clone() };
        let swapped = Row { ip: row.request_id.clone(), request_id: None, ..row.clone() };
        let before = Row { before: row.after.clone(), after: None, ..row.clone() };
        for other in [moved, empty, swapped, before] {
            assert_ne!(other.digest(), row.digest(), "{other:?}");
        }
    }

    /// The form of the hash is a promise: rows that were written must verify for ever.
    #[test]
    fn the_hash_stays_what_it_is() {
        let by = Origin { actor: Actor::Operator, ip: None, request_id: None };
        let change = Change::new(&by, None, "ip.block", "10.0.0.0/8").after(json!({ "a": 1 }));
        let row = Row::new(&change, 1, START.to_vec(), 1_700_000_000_000);
        let hex: String = row.hash.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "3343f5aa832d0c0f8ff8772c987ecf271c496ea5005fcbcb1b65b651ee122ef1");
    }

    #[test]
    fn what_is_too_long_is_not_kept() {
        let fits = Value::String("x".repeat(LONGEST - 2));
        assert_eq!(text(&fits).len(), LONGEST);
        let longer = Value::String("x".repeat(LONGEST - 1));
        assert_eq!(text(&longer), format!("{{\"too_long\":{}}}", LONGEST + 1));
    }
}

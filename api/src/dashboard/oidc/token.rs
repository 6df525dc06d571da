//! The issuer's word: an ID token (OpenID Connect Core 1.0, 2 and 3.1.3.7), and what must be true of it.
//!
//! Signatures are RS256 or ES256, by a key of the issuer's that is made for that very algorithm; they are checked
//! with `ring`. Nothing else is known here: a token without a signature, or with one that a shared secret makes,
//! names an algorithm that no key has. Times are held against Listmill's clock.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::crypto::{CryptoProvider, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::signature::{self, Verifier};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind, Validation, decode, decode_header};
use listmill_shared::app::identities::{AWAY, Identity};
use listmill_shared::domain::clock::Millis;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use serde::Deserialize;
use serde_json::Value;

/// Clocks may differ by so many seconds.
const SKEW: f64 = 60.0;
/// Bytes of the issuer's name for a person (OpenID Connect Core 1.0, 2).
const LONGEST_SUBJECT: usize = 255;
/// Keys of one set that are looked at.
const KEYS: usize = 64;

/// Why a token is not believed. It tells nothing of what stands in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is no token, or its algorithm is none of ours.
    #[error("its form, or its algorithm")]
    Form,
    /// No key of the issuer's has its number.
    #[error("its key, which the issuer does not show")]
    Key,
    /// The signature is not by that key.
    #[error("its signature")]
    Signature,
    /// Another issuer's.
    #[error("its issuer (iss)")]
    Issuer,
    /// For somebody else.
    #[error("its audience (aud, azp)")]
    Audience,
    /// Over, or not of this log-in by its time.
    #[error("its time (exp, iat)")]
    Time,
    /// Of another log-in.
    #[error("its nonce")]
    Nonce,
    /// It names nobody.
    #[error("its subject (sub)")]
    Subject,
}

impl From<Error> for TokenError {
    fn from(error: Error) -> Self {
        match error.kind() {
            ErrorKind::InvalidSignature => Self::Signature,
            ErrorKind::InvalidIssuer => Self::Issuer,
            ErrorKind::InvalidAudience => Self::Audience,
            _ => Self::Form,
        }
    }
}

/// What a token must say.
pub struct Expected<'a> {
    /// The issuer.
    pub issuer: &'a str,
    /// Us.
    pub client: &'a str,
    /// What this log-in was begun with.
    pub nonce: &'a str,
    /// Now.
    pub now: Millis,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: Audience,
    azp: Option<String>,
    exp: f64,
    iat: f64,
    nonce: Option<String>,
    email: Option<String>,
    email_verified: Option<Value>,
}

/// A key of the issuer's as it shows it (RFC 7517).
#[derive(Deserialize)]
struct Shown {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

/// A key that a signature may be by.
pub struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The keys of a set that are of use here; others are passed over.
pub fn keys(set: &[Value]) -> Vec<Key> {
    set.iter().take(KEYS).filter_map(Key::of).collect()
}

impl Key {
    fn of(shown: &Value) -> Option<Self> {
        let shown = Shown::deserialize(shown).ok()?;
        if shown.purpose.is_some_and(|purpose| purpose != "sig") {
            return None;
        }
        let bytes = |text: Option<String>| URL_SAFE_NO_PAD.decode(text?).ok();
        let (algorithm, name, key) = match (shown.kty.as_str(), shown.crv.as_deref()) {
            ("RSA", _) => {
                // Some write the sign's zero byte.
                let n = bytes(shown.n)?.into_iter().skip_while(|byte| *byte == 0);
                let (n, e) = (n.collect::<Vec<u8>>(), bytes(shown.e)?);
                (Algorithm::RS256, "RS256", DecodingKey::from_rsa_raw_components(&n, &e))
            }
            ("EC", Some("P-256")) => {
                let (x, y) = (bytes(shown.x)?, bytes(shown.y)?);
                if (x.len(), y.len()) != (32, 32) {
                    return None;
                }
                let point = [&[4], x.as_slice(), y.as_slice()].concat();
                (Algorithm::ES256, "ES256", DecodingKey::from_ec_der(&point))
            }
            _ => return None,
        };
        if shown.alg.is_some_and(|alg| alg != name) {
            return None;
        }
        Some(Self { id: shown.kid, algorithm, key })
    }
}

/// The key that a token says it is signed by; without a number it must be the only one of its algorithm.
pub fn key_of<'a>(token: &str, keys: &'a [Key]) -> Result<&'a Key, TokenError> {
    let header = decode_header(token).map_err(|_| TokenError::Form)?;
    if !matches!(header.alg, Algorithm::RS256 | Algorithm::ES256) {
        return Err(TokenError::Form);
    }
    let fits =
        |key: &&Key| key.algorithm == header.alg && (header.kid.is_none() || key.id == header.kid);
    let mut fitting = keys.iter().filter(fits);
    match (fitting.next(), fitting.next()) {
        (Some(key), None) => Ok(key),
        _ => Err(TokenError::Key),
    }
}

/// Who the issuer says that somebody is, if its word holds.
pub fn verify(token: &str, key: &Key, expected: &Expected<'_>) -> Result<Identity, TokenError> {
    let mut rules = Validation::new(key.algorithm);
    rules.set_issuer(&[expected.issuer]);
    rules.set_audience(&[expected.client]);
    rules.set_required_spec_claims(&["iss", "aud", "sub", "exp"]);
    // Below, by Listmill's clock.
    rules.validate_exp = false;
    let claims = decode::<Claims>(token, &key.key, &rules)?.claims;
    if claims.iss != expected.issuer {
        return Err(TokenError::Issuer);
    }
    let several = match &claims.aud {
        Audience::One(one) => {
            if one != expected.client {
                return Err(TokenError::Audience);
            }
            false
        }
        Audience::Many(all) => all.len() > 1,
    };
    // Whoever it is for besides us, it was asked for by us.
    match &claims.azp {
        Some(party) if party != expected.client => return Err(TokenError::Audience),
        None if several => return Err(TokenError::Audience),
        _ => {}
    }
    let (now, away) = (expected.now as f64 / 1000.0, AWAY as f64 / 1000.0);
    let in_time =
        claims.exp > now - SKEW && claims.iat < now + SKEW && claims.iat > now - away - SKEW;
    if !in_time {
        return Err(TokenError::Time);
    }
    if claims.nonce.as_deref() != Some(expected.nonce) {
        return Err(TokenError::Nonce);
    }
    if claims.sub.is_empty() || claims.sub.len() > LONGEST_SUBJECT {
        return Err(TokenError::Subject);
    }
    let tested = claims.email_verified == Some(Value::Bool(true));
    Ok(Identity { issuer: claims.iss, subject: claims.sub, email: claims.email.filter(|_| tested) })
}

/// Has signatures checked with `ring`, for the whole process.
pub fn install() {
    // Whoever comes second finds it done.
    let _ = RING.install_default();
}

static RING: CryptoProvider = CryptoProvider {
    signer_factory: |_, _| Err(ErrorKind::UnsupportedAlgorithm.into()),
    verifier_factory: ring_verifier,
    key_utils: KeyUtils::new_unimplemented(),
};

fn ring_verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, Error> {
    match (algorithm, key.kind()) {
        (Algorithm::RS256, DecodingKeyKind::RsaModulusExponent { n, e }) => {
            Ok(Box::new(Rs256(RsaPublicKeyComponents { n: n.clone(), e: e.clone() })))
        }
        (Algorithm::ES256, DecodingKeyKind::SecretOrDer(point)) => {
            Ok(Box::new(Es256(UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point.clone()))))
        }
        _ => Err(ErrorKind::UnsupportedAlgorithm.into()),
    }
}

struct Rs256(RsaPublicKeyComponents<Vec<u8>>);
struct Es256(UnparsedPublicKey<Vec<u8>>);

impl Verifier<Vec<u8>> for Rs256 {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        let checked = self.0.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature);
        checked.map_err(|_| signature::Error::new())
    }
}

impl JwtVerifier for Rs256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::RS256
    }
}

impl Verifier<Vec<u8>> for Es256 {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        self.0.verify(message, signature).map_err(|_| signature::Error::new())
    }
}

impl JwtVerifier for Es256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::ES256
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
    use serde_json::json;

    const NOW: Millis = 1_800_000_000_000;

    fn key() -> EcdsaKeyPair {
        let (kind, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let made = EcdsaKeyPair::generate_pkcs8(kind, &random).unwrap();
        EcdsaKeyPair::from_pkcs8(kind, made.as_ref(), &random).unwrap()
    }

    fn shown(key: &EcdsaKeyPair, with: Value) -> Value {
        let point = key.public_key().as_ref();
        let coded = |bytes| URL_SAFE_NO_PAD.encode(bytes);
        let (x, y) = (coded(&point[1..33]), coded(&point[33..]));
        let mut shown = json!({ "kty": "EC", "crv": "P-256", "kid": "a", "x": x, "y": y });
        shown.as_object_mut().unwrap().extend(with.as_object().unwrap().clone());
        shown
    }

    fn signed(key: &EcdsaKeyPair, header: &Value, claims: &Value) -> String {
        let coded = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", coded(header), coded(claims));
        let signature = key.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn right() -> Value {
        json!({ "iss": "https://i.example", "aud": ["us"], "sub": "ada", "exp": NOW / 1000 + 60,
            "iat": NOW as f64 / 1000.0, "nonce": "n", "email": "a@x.example", "email_verified": true })
    }

    fn judged(token: &str, keys: &[Key]) -> Result<Identity, TokenError> {
        install();
        let expected = Expected { issuer: "https://i.example", client: "us", nonce: "n", now: NOW };
        verify(token, key_of(token, keys)?, &expected)
    }

    #[test]
    fn a_right_token_names_somebody() {
        let (key, header) = (key(), json!({ "alg": "ES256", "kid": "a" }));
        let keys = keys(&[json!({ "kty": "oct", "k": "AA" }), shown(&key, json!({}))]);
        let found = judged(&signed(&key, &header, &right()), &keys).unwrap();
        assert_eq!((found.subject.as_str(), found.email.as_deref()), ("ada", Some("a@x.example")));
        for (name, value, error) in [
            ("iss", json!("https://j.example"), TokenError::Issuer),
            ("iss", json!(["https://i.example"]), TokenError::Form),
            ("aud", json!("them"), TokenError::Audience),
            ("aud", json!(["us", "them"]), TokenError::Audience),
            ("azp", json!("them"), TokenError::Audience),
            ("exp", json!(NOW / 1000 - 60), TokenError::Time),
            ("iat", json!(NOW / 1000 + 61), TokenError::Time),
            ("nonce", json!("m"), TokenError::Nonce),
            ("sub", json!(""), TokenError::Subject),
        ] {
            let mut claims = right();
            claims[name] = value;
            let refused = judged(&signed(&key, &header, &claims), &keys).unwrap_err();
            assert_eq!(refused, error, "{claims}");
        }
        let mut claims = right();
        claims["email_verified"] = json!("true");
        assert_eq!(judged(&signed(&key, &header, &claims), &keys).unwrap().email, None);
    }

    #[test]
    fn a_signature_is_by_the_key_that_it_names() {
        let (own, other) = (key(), key());
        let header = |alg: &str, kid: &str| json!({ "alg": alg, "kid": kid });
        let one = keys(&[shown(&own, json!({}))]);
        let token = |key, header: Value| signed(key, &header, &right());
        for (token, error) in [
            (token(&other, header("ES256", "a")), TokenError::Signature),
            (token(&own, header("ES256", "b")), TokenError::Key),
            (token(&own, header("RS256", "a")), TokenError::Key),
            (token(&own, header("ES384", "a")), TokenError::Form),
            (token(&own, header("HS256", "a")), TokenError::Form),
            (token(&own, header("none", "a")), TokenError::Form),
            (String::from("x"), TokenError::Form),
        ] {
            assert_eq!(judged(&token, &one).unwrap_err(), error, "{token}");
        }
        // Without a number there must be no choice.
        let unnumbered = token(&own, json!({ "alg": "ES256" }));
        assert!(judged(&unnumbered, &one).is_ok());
        let two = [shown(&own, json!({})), shown(&other, json!({ "kid": "b" }))];
        assert_eq!(judged(&unnumbered, &keys(&two)).unwrap_err(), TokenError::Key);
        // A key that is for something else is none.
        for with in [json!({ "use": "enc" }), json!({ "alg": "ES384" }), json!({ "crv": "P-384" })]
        {
            assert!(keys(&[shown(&own, with)]).is_empty());
        }
    }
}

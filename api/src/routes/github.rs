//! Signatures of GitHub's secret scanning: ECDSA on P-256 with SHA-256, over the body as it came.
//!
//! The public keys are those of a file in the form in which GitHub gives them (`{"public_keys":
//! [{"key_identifier", "key"}]}`, the key as PEM). It is read for every signed report, so that a new file
//! holds from the next report on.

use std::io::Read;
use std::path::Path;

use axum::http::{HeaderMap, HeaderName};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject;
use serde::Deserialize;

const IDENTIFIER: HeaderName = HeaderName::from_static("github-public-key-identifier");
const SIGNATURE: HeaderName = HeaderName::from_static("github-public-key-signature");
/// Bytes of the file of keys; GitHub's has some hundreds.
const LARGEST: u64 = 256 * 1024;
/// How the public key of an elliptic curve on P-256 begins in DER, up to its point (RFC 5480).
const P256: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// The file of public keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// It cannot be read.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// It holds something else.
    #[error("it is not in the form of GitHub's list of public keys: {0}")]
    Form(#[from] serde_json::Error),
    /// It holds no key.
    #[error("there is no public key in it")]
    Empty,
    /// A key that no signature of GitHub's could be of.
    #[error("the key {0:.80} is no public key on P-256 in PEM")]
    Key(String),
}

/// What a signed report says of its signature.
#[derive(Debug)]
pub struct Signed {
    identifier: String,
    signature: Vec<u8>,
}

/// Why a signature does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadSignature {
    /// One header without the other, or not in the form.
    #[error(
        "The headers Github-Public-Key-Identifier and Github-Public-Key-Signature (base64) belong together."
    )]
    Headers,
    /// Nobody's.
    #[error("No public key with that identifier is known here.")]
    Unknown,
    /// Of something else, or by somebody else.
    #[error("The signature is not one of this body.")]
    Wrong,
}

impl Signed {
    /// Reads the headers; `None` where neither is there.
    pub fn of(headers: &HeaderMap) -> Result<Option<Self>, BadSignature> {
        let (identifier, signature) = match (headers.get(IDENTIFIER), headers.get(SIGNATURE)) {
            (None, None) => return Ok(None),
            (Some(identifier), Some(signature)) => (identifier, signature),
            _ => return Err(BadSignature::Headers),
        };
        let identifier = identifier.to_str().map_err(|_| BadSignature::Headers)?.trim();
        let signature = signature.to_str().map_err(|_| BadSignature::Headers)?.trim();
        let signature = STANDARD.decode(signature).map_err(|_| BadSignature::Headers)?;
        Ok(Some(Self { identifier: identifier.to_owned(), signature }))
    }

    /// Is it the signature of this body, by one of these keys?
    pub fn verify(&self, keys: &PublicKeys, body: &[u8]) -> Result<(), BadSignature> {
        let (_, point) = keys
            .0
            .iter()
            .find(|(identifier, _)| *identifier == self.identifier)
            .ok_or(BadSignature::Unknown)?;
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point)
            .verify(body, &self.signature)
            .map_err(|_| BadSignature::Wrong)
    }
}

/// Public keys by their identifier, each as a point of the curve.
#[derive(Debug)]
pub struct PublicKeys(Vec<(String, Vec<u8>)>);

#[derive(Deserialize)]
struct File {
    public_keys: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    key_identifier: String,
    key: String,
}

impl PublicKeys {
    /// Reads the file. Blocks.
    pub fn load(path: &Path) -> Result<Self, KeysError> {
        let mut text = String::new();
        std::fs::File::open(path)?.take(LARGEST).read_to_string(&mut text)?;
        Self::parse(&text)
    }

    fn parse(text: &str) -> Result<Self, KeysError> {
        let file: File = serde_json::from_str(text)?;
        if file.public_keys.is_empty() {
            return Err(KeysError::Empty);
        }
        let keys = file.public_keys.into_iter().map(|entry| match point(&entry.key) {
            Some(point) => Ok((entry.key_identifier, point)),
            None => Err(KeysError::Key(entry.key_identifier)),
        });
        keys.collect::<Result<_, _>>().map(Self)
    }
}

fn point(pem: &str) -> Option<Vec<u8>> {
    let der = SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes()).ok()?;
    let point = der.strip_prefix(&P256)?;
    // An uncompressed point: 4, then both coordinates.
    (point.len() == 65 && point[0] == 4).then(|| point.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    // The example that GitHub publishes for those who check signatures: a test key, and what it signed.
    const IDENTITY: &str = "f9525bf080f75b3506ca1ead061add62b8633a346606dc5fe544e29231c6ee0d";
    const SIGNED: &str = "MEUCIFLZzeK++IhS+y276SRk2Pe5LfDrfvTXu6iwKKcFGCrvAiEAhHN2kDOhy2I6eGkOFmxNkOJ+L2y8oQ9A2T9GGJo6WJY=";
    const BODY: &[u8] =
        br#"[{"token":"some_token","type":"some_type","url":"some_url","source":"some_source"}]"#;
    const PEM: &str = "-----BEGIN PUBLIC KEY-----\n\
        MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEsz9ugWDj5jK5ELBK42ynytbo38gP\n\
        HzZFI03Exwz8Lh/tCfL3YxwMdLjB+bMznsanlhK0RwcGP3IDb34kQDIo3Q==\n\
        -----END PUBLIC KEY-----\n";

    fn keys() -> PublicKeys {
        let other =
            serde_json::json!({ "key_identifier": "other", "key": PEM, "is_current": false });
        let own = serde_json::json!({ "key_identifier": IDENTITY, "key": PEM, "is_current": true });
        let file = serde_json::json!({ "public_keys": [other, own] });
        PublicKeys::parse(&file.to_string()).unwrap()
    }

    fn signed(identifier: &str, signature: &str) -> Result<Option<Signed>, BadSignature> {
        let mut headers = HeaderMap::new();
        headers.insert(IDENTIFIER, identifier.parse().unwrap());
        headers.insert(SIGNATURE, signature.parse().unwrap());
        Signed::of(&headers)
    }

    #[test]
    fn the_published_example_verifies_and_nothing_else_does() {
        let verify = |identifier, signature, body| {
            signed(identifier, signature).unwrap().unwrap().verify(&keys(), body)
        };
        assert_eq!(verify(IDENTITY, SIGNED, BODY), Ok(()));
        assert_eq!(verify(IDENTITY, SIGNED, &BODY[1..]), Err(BadSignature::Wrong));
        assert_eq!(verify("nobody", SIGNED, BODY), Err(BadSignature::Unknown));
        assert_eq!(verify(IDENTITY, "", BODY), Err(BadSignature::Wrong));
        assert_eq!(verify(IDENTITY, &STANDARD.encode([0; 70]), BODY), Err(BadSignature::Wrong));
    }

    #[test]
    fn headers_come_in_pairs() {
        assert!(Signed::of(&HeaderMap::new()).unwrap().is_none());
        let mut one = HeaderMap::new();
        one.insert(SIGNATURE, SIGNED.parse().unwrap());
        assert_eq!(Signed::of(&one).unwrap_err(), BadSignature::Headers);
        assert_eq!(signed(IDENTITY, "no base64!").unwrap_err(), BadSignature::Headers);
    }

    #[test]
    fn a_file_of_something_else_is_told() {
        for text in ["", "[]", "{}", r#"{"public_keys":[]}"#] {
            assert!(PublicKeys::parse(text).is_err(), "{text}");
        }
        let rsa = PEM.replace(
            "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE",
            "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQgDQgAE",
        );
        let file = serde_json::json!({ "public_keys": [{ "key_identifier": "x", "key": rsa }] });
        assert!(matches!(PublicKeys::parse(&file.to_string()), Err(KeysError::Key(_))));
    }
}

//! A small issuer of OpenID Connect: it shows its document and keys, and gives for each code the token that a test
//! has made for it, right or wrong. What it is asked must be right.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::UNIX_EPOCH;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use listmill_tests::dashboard::Page;
use listmill_tests::{Person, Setup, Size};
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::provider::server::{Act, Seen, Upstream, say};

pub const CLIENT: &str = "listmill test";
pub const SECRET: &str = "s3cr3t: of the client?";
pub const NAME: &str = "Example ID";
/// Where browsers find the dashboard.
pub const HERE: &str = "https://listmill.example";
/// Of tests alone.
const RSA: &[u8] = include_bytes!("../../samples/oidc_rsa.pk8");

#[derive(Default)]
struct Shared {
    /// By code: the challenge that it was asked for with, and the token.
    granted: Mutex<HashMap<String, (String, String)>>,
    keys: Mutex<Vec<Value>>,
    /// How often the keys were asked for.
    asked_keys: AtomicUsize,
    stalls: AtomicBool,
    number: AtomicUsize,
}

pub struct Issuer {
    upstream: Upstream,
    shared: Arc<Shared>,
    es: EcdsaKeyPair,
    rs: RsaKeyPair,
}

/// A log-in that a browser has begun: what stands in the address that it was sent to.
pub struct Trip {
    pub to: String,
    pub fields: HashMap<String, String>,
}

impl Trip {
    pub fn field(&self, name: &str) -> &str {
        self.fields.get(name).unwrap_or_else(|| panic!("no {name} in {}", self.to))
    }
}

fn seconds() -> i64 {
    UNIX_EPOCH.elapsed().expect("after 1970").as_secs().try_into().expect("a time")
}

pub fn coded(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The fields of a query or a form.
fn fields(text: &str) -> HashMap<String, String> {
    text.split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(n, v)| (plain(n), plain(v)))
        .collect()
}

fn plain(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first == b'%' {
            let (digits, after) = rest.split_at(2);
            let digits = std::str::from_utf8(digits).expect("digits");
            bytes.push(u8::from_str_radix(digits, 16).expect("hexadecimal"));
            rest = after;
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).expect("text")
}

/// A new key of the kind that ES256 takes.
pub fn es_key() -> EcdsaKeyPair {
    let random = SystemRandom::new();
    let kind = &ECDSA_P256_SHA256_FIXED_SIGNING;
    let made = EcdsaKeyPair::generate_pkcs8(kind, &random).expect("a key");
    EcdsaKeyPair::from_pkcs8(kind, made.as_ref(), &random).expect("a key")
}

impl Issuer {
    pub async fn start() -> Self {
        let shared = Arc::new(Shared::default());
        let (es, rs) = (es_key(), RsaKeyPair::from_pkcs8(RSA).expect("a key"));
        let point = es.public_key().as_ref();
        let public = PublicKeyComponents::<Vec<u8>>::from(rs.public());
        *shared.keys.lock().expect("not poisoned") = vec![
            json!({ "kty": "OKP", "crv": "Ed25519", "kid": "other", "x": "AAAA" }),
            json!({ "kty": "EC", "crv": "P-256", "kid": "es", "use": "sig",
                "x": coded(&point[1..33]), "y": coded(&point[33..]) }),
            json!({ "kty": "RSA", "kid": "rs", "alg": "RS256",
                "n": coded(&public.n), "e": coded(&public.e) }),
        ];
        let script = shared.clone();
        let upstream = Upstream::start(move |seen| script.answer(seen)).await;
        Self { upstream, shared, es, rs }
    }

    pub fn url(&self) -> String {
        self.upstream.base()
    }

    /// A product that lets people log in by this issuer.
    pub fn setup(&self, size: Size) -> Setup {
        Setup::new(size)
            .env("LISTMILL_OIDC_ISSUER", self.url())
            .env("LISTMILL_OIDC_CLIENT_ID", CLIENT)
            .env("LISTMILL_OIDC_CLIENT_SECRET", SECRET)
            .env("LISTMILL_OIDC_NAME", NAME)
            .env("LISTMILL_PUBLIC_URL", HERE)
    }

    /// It takes requests and answers none.
    pub fn stall(&self, stalls: bool) {
        self.shared.stalls.store(stalls, SeqCst);
    }

    pub fn asked_keys(&self) -> usize {
        self.shared.asked_keys.load(SeqCst)
    }

    pub fn asked(&self) -> usize {
        self.upstream.asked()
    }

    pub async fn wait_asked(&self, count: usize) {
        self.upstream.wait_open(count).await;
    }

    /// The public part of its ES256 key, as bytes.
    pub fn public(&self) -> &[u8] {
        self.es.public_key().as_ref()
    }

    /// What a right token says.
    pub fn claims(&self, trip: &Trip, subject: &str, email: &str) -> Value {
        let now = seconds();
        json!({ "iss": self.url(), "aud": CLIENT, "sub": subject, "exp": now + 300, "iat": now,
            "nonce": trip.field("nonce"), "email": email, "email_verified": true })
    }

    pub fn es256(&self, claims: &Value) -> String {
        signed_by(&self.es, "es", claims)
    }

    pub fn rs256(&self, claims: &Value) -> String {
        signed(&json!({ "alg": "RS256", "kid": "rs" }), claims, |message| {
            let mut signature = vec![0; self.rs.public().modulus_len()];
            let random = SystemRandom::new();
            let done = self.rs.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature);
            done.expect("a signature");
            signature
        })
    }

    /// The code that this token is given for.
    pub fn grant(&self, trip: &Trip, token: String) -> String {
        let code = format!("code-{}", self.shared.number.fetch_add(1, SeqCst));
        let granted = (trip.field("code_challenge").to_owned(), token);
        self.shared.granted.lock().expect("not poisoned").insert(code.clone(), granted);
        code
    }

    /// Logs somebody in with what this token says; the page that it ends at.
    pub async fn log_in(
        &self,
        person: &Person,
        next: &str,
        token: impl FnOnce(&Trip) -> String,
    ) -> Page {
        let trip = begin(person, next).await;
        let code = self.grant(&trip, token(&trip));
        come_back(person, &code, trip.field("state")).await
    }
}

impl Shared {
    fn answer(&self, seen: &Seen) -> Act {
        if self.stalls.load(SeqCst) {
            return Act::Hang;
        }
        let base = format!("http://{}", seen.header("host").expect("a host"));
        match (seen.method.as_str(), seen.path.as_str()) {
            ("GET", "/.well-known/openid-configuration") => {
                let document = json!({ "issuer": base,
                    "authorization_endpoint": format!("{base}/authorize"),
                    "token_endpoint": format!("{base}/token"),
                    "jwks_uri": format!("{base}/keys") });
                say(200, document.to_string())
            }
            ("GET", "/keys") => {
                self.asked_keys.fetch_add(1, SeqCst);
                let keys = self.keys.lock().expect("not poisoned").clone();
                say(200, json!({ "keys": keys }).to_string())
            }
            ("POST", "/token") => self.redeem(seen),
            _ => say(404, "{}"),
        }
    }

    fn redeem(&self, seen: &Seen) -> Act {
        let refuse = |why: &str| say(400, json!({ "error": why }).to_string());
        let both = "listmill%20test:s3cr3t%3A%20of%20the%20client%3F";
        let basic = format!("Basic {}", STANDARD.encode(both));
        if seen.header("authorization") != Some(&basic) {
            return refuse("invalid_client");
        }
        let form = fields(&seen.body);
        let is = |name: &str, value: &str| form.get(name).is_some_and(|given| given == value);
        if !is("grant_type", "authorization_code")
            || !is("redirect_uri", &format!("{HERE}/login/oidc/back"))
        {
            return refuse("invalid_request");
        }
        let granted = form
            .get("code")
            .and_then(|code| self.granted.lock().expect("not poisoned").remove(code));
        let verifier = form.get("code_verifier").map_or("", String::as_str);
        match granted {
            Some((challenge, token)) if coded(Sha256::digest(verifier)) == challenge => {
                let answer = json!({ "access_token": "x", "token_type": "Bearer",
                    "id_token": token });
                say(200, answer.to_string())
            }
            _ => refuse("invalid_grant"),
        }
    }
}

/// A token with this signature.
pub fn signed(header: &Value, claims: &Value, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let message = format!("{}.{}", coded(header.to_string()), coded(claims.to_string()));
    let signature = sign(message.as_bytes());
    format!("{message}.{}", coded(signature))
}

pub fn signed_by(key: &EcdsaKeyPair, kid: &str, claims: &Value) -> String {
    signed(&json!({ "alg": "ES256", "kid": kid }), claims, |message| {
        key.sign(&SystemRandom::new(), message).expect("a signature").as_ref().to_vec()
    })
}

/// Presses the button; what comes of it.
pub async fn press(person: &Person, next: &str) -> Page {
    person.get("/login").await.expect(200);
    person.post("/login/oidc", &[("next", next)]).await
}

/// Presses the button, and is sent to the issuer.
pub async fn begin(person: &Person, next: &str) -> Trip {
    let page = press(person, next).await.expect(200);
    let refresh = page.reply.header("refresh").expect("a way on").to_owned();
    let to = refresh.strip_prefix("0;url=").expect("an address").to_owned();
    let (_, query) = to.split_once('?').expect("a query");
    Trip { fields: fields(query), to }
}

/// Is sent back by the issuer.
pub async fn come_back(person: &Person, code: &str, state: &str) -> Page {
    person.get(&format!("/login/oidc/back?code={code}&state={state}")).await
}

//! Tokens signed with a key of this run, as random claims ask for them.

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};

/// Long past, by every clock.
const PAST: i64 = 1_600_000_000;

/// How good a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quality {
    Valid,
    Expired,
    /// Signed by nobody we know.
    Forged,
}

/// The run's key, and a stranger's.
pub struct Signer {
    own: EcdsaKeyPair,
    stranger: EcdsaKeyPair,
}

impl Signer {
    pub fn new() -> Self {
        let key = || EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        Self { own: key(), stranger: key() }
    }

    /// The key set with which good tokens verify (RFC 7518 section 6.2).
    pub fn jwks(&self) -> Value {
        let point = self.own.public_key().as_ref();
        let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..65]));
        json!({"keys": [{"kty": "EC", "crv": "P-256", "alg": "ES256", "kid": "own", "x": x, "y": y}]})
    }

    /// A compact JWS over the claims.
    pub fn sign(&self, claims: &Map<String, Value>, quality: Quality) -> String {
        let mut claims = claims.clone();
        if quality == Quality::Expired {
            claims.insert("exp".to_owned(), json!(PAST));
        }
        let key = if quality == Quality::Forged { &self.stranger } else { &self.own };
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let header = json!({"alg": "ES256", "typ": "JWT", "kid": "own"});
        let input = format!("{}.{}", part(header), part(Value::Object(claims)));
        let signature = key.sign(&SystemRandom::new(), input.as_bytes()).unwrap();
        format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }
}

/// The claims as policies see them: `scope` is a list.
pub fn verified(claims: &Map<String, Value>) -> Map<String, Value> {
    let mut claims = claims.clone();
    if let Some(Value::String(scope)) = claims.get("scope") {
        let list: Vec<&str> = scope.split(' ').collect();
        let list = json!(list);
        claims.insert("scope".to_owned(), list);
    }
    claims
}

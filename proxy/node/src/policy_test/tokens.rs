//! Tokens for PolicyTest cases: signed with a key of this run, which is also what the run serves
//! as each issuer's JWKS, so that the real verification code runs.

use aws_lc_rs::{
    error::Unspecified,
    hmac,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};

const KEY_ID: &str = "policy-test";
/// How far past or ahead the times of expired and not yet valid tokens lie: well beyond the skew.
const AWAY_SECONDS: i64 = 3_600;

/// The kinds of token a case may ask for by name; anything else is a raw token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Valid,
    Expired,
    NotYetValid,
    WrongSignature,
    UnknownKey,
    WrongAlgorithm,
    Malformed,
}

impl Kind {
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "valid" => Self::Valid,
            "expired" => Self::Expired,
            "not-yet-valid" => Self::NotYetValid,
            "wrong-signature" => Self::WrongSignature,
            "unknown-key" => Self::UnknownKey,
            "wrong-algorithm" => Self::WrongAlgorithm,
            "malformed" => Self::Malformed,
            _ => return None,
        })
    }
}

/// The run's signing key and one that nobody knows.
pub(super) struct Signer {
    key: EcdsaKeyPair,
    stranger: EcdsaKeyPair,
    random: SystemRandom,
}

impl Signer {
    pub(super) fn new() -> Result<Self, Unspecified> {
        Ok(Self {
            key: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?,
            stranger: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?,
            random: SystemRandom::new(),
        })
    }

    /// The public key with which the run's tokens verify, as a JWK (RFC 7517, RFC 7518 §6.2).
    pub(super) fn jwk(&self) -> Value {
        // An uncompressed point: 0x04, x, y (SEC 1 §2.3.3).
        let point = self.key.public_key().as_ref();
        let (x, y) = point.get(1..65).unwrap_or(&[0; 64]).split_at(32);
        json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": KEY_ID,
               "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y)})
    }

    /// A token of that kind over the claims.
    pub(super) fn token(
        &self,
        kind: Kind,
        claims: &Map<String, Value>,
        now: i64,
    ) -> Result<String, Unspecified> {
        let mut claims = claims.clone();
        match kind {
            Kind::Expired => {
                claims.insert("exp".to_owned(), json!(now - AWAY_SECONDS));
            }
            Kind::NotYetValid => {
                claims.insert("nbf".to_owned(), json!(now + AWAY_SECONDS));
            }
            _ => {}
        }
        match kind {
            Kind::Malformed => Ok("malformed".to_owned()),
            Kind::UnknownKey => self.sign(&self.stranger, "nobodys-key", &claims),
            Kind::WrongSignature => self.sign(&self.stranger, KEY_ID, &claims),
            // The classic confusion (RFC 8725 §2.1): the public key as an HMAC secret.
            Kind::WrongAlgorithm => {
                let input = signing_input(&json!({"alg": "HS256", "typ": "JWT", "kid": KEY_ID}), &claims);
                let secret = hmac::Key::new(hmac::HMAC_SHA256, self.key.public_key().as_ref());
                Ok(joined(&input, hmac::sign(&secret, input.as_bytes()).as_ref()))
            }
            Kind::Valid | Kind::Expired | Kind::NotYetValid => self.sign(&self.key, KEY_ID, &claims),
        }
    }

    fn sign(
        &self,
        key: &EcdsaKeyPair,
        kid: &str,
        claims: &Map<String, Value>,
    ) -> Result<String, Unspecified> {
        let input = signing_input(&json!({"alg": "ES256", "typ": "JWT", "kid": kid}), claims);
        let signature = key.sign(&self.random, input.as_bytes())?;
        Ok(joined(&input, signature.as_ref()))
    }
}

fn signing_input(header: &Value, claims: &Map<String, Value>) -> String {
    let encoded = |value: String| URL_SAFE_NO_PAD.encode(value);
    format!("{}.{}", encoded(header.to_string()), encoded(Value::Object(claims.clone()).to_string()))
}

fn joined(input: &str, signature: &[u8]) -> String {
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
}

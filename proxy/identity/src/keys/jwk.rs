//! One JSON Web Key.

use aws_lc_rs::{
    digest,
    signature::{ParsedPublicKey, RsaPublicKeyComponents},
};
use base64::{
    Engine as _,
    alphabet::URL_SAFE,
    engine::{
        DecodePaddingMode,
        general_purpose::{GeneralPurpose, GeneralPurposeConfig},
    },
};
use serde_json::{Map, Value, json};

use crate::keys::{Algorithm, Fingerprint};

/// Key documents in the wild are padded at times.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true)
        .with_encode_padding(false),
);

/// Smallest and largest RSA modulus, in bits (NIST SP 800-131A; the upper bound is the library's).
const RSA_BITS: std::ops::RangeInclusive<usize> = 2_048..=8_192;

/// A usable public key.
pub(crate) struct Key {
    /// `kid`; an empty one is none.
    pub(crate) kid: Option<String>,
    /// The key's own `alg`.
    pub(crate) algorithm: Option<Algorithm>,
    /// Ready verifiers, one for each algorithm it may be used with.
    verifiers: Vec<(Algorithm, ParsedPublicKey)>,
    pub(crate) fingerprint: Fingerprint,
    /// Its public members.
    pub(crate) public: Value,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("kid", &self.kid).field("algorithm", &self.algorithm).finish()
    }
}

/// Whether an asymmetric key has its private part with it (RFC 7518 sections 6.2.2 and 6.3.2).
pub(super) fn is_private(jwk: &Map<String, Value>) -> bool {
    const PRIVATE: [&str; 7] = ["d", "p", "q", "dp", "dq", "qi", "oth"];
    PRIVATE.iter().any(|member| jwk.contains_key(*member))
}

/// The public number that makes a key this key, however it is named (RFC 7518 section 6, RFC 8037).
pub(super) fn material(jwk: &Map<String, Value>) -> Option<&str> {
    text(jwk, "n").or_else(|| text(jwk, "x"))
}

impl Key {
    /// The key, or `None` where it cannot or must not verify signatures.
    pub(super) fn read(jwk: &Map<String, Value>) -> Option<Self> {
        if !is_for_signatures(jwk) {
            return None;
        }
        let kid = match jwk.get("kid") {
            None => None,
            Some(Value::String(kid)) => Some(kid.clone()).filter(|kid| !kid.is_empty()),
            Some(_) => return None,
        };
        let algorithm = match jwk.get("alg") {
            None => None,
            Some(Value::String(name)) => Some(Algorithm::parse(name)?),
            Some(_) => return None,
        };
        let (mut verifiers, mut public) = match text(jwk, "kty")? {
            "RSA" => rsa(jwk)?,
            "EC" => elliptic(jwk)?,
            "OKP" => edwards(jwk)?,
            _ => return None,
        };
        if let Some(algorithm) = algorithm {
            verifiers.retain(|(own, _)| *own == algorithm);
        }
        if verifiers.is_empty() {
            return None;
        }
        if let Some(members) = public.as_object_mut() {
            members.insert("use".to_owned(), json!("sig"));
            if let Some(kid) = &kid {
                members.insert("kid".to_owned(), json!(kid));
            }
            if let Some(algorithm) = algorithm {
                members.insert("alg".to_owned(), json!(algorithm.name()));
            }
        }
        let fingerprint = fingerprint(&public);
        Some(Self { kid, algorithm, verifiers, fingerprint, public })
    }

    /// What verifies signatures of that algorithm, if this key can.
    pub(super) fn verifier(&self, algorithm: Algorithm) -> Option<&ParsedPublicKey> {
        self.verifiers.iter().find(|(own, _)| *own == algorithm).map(|(_, verifier)| verifier)
    }
}

/// `use` is `sig` and `key_ops` has `verify`, where they are there (RFC 7517 sections 4.2, 4.3).
fn is_for_signatures(jwk: &Map<String, Value>) -> bool {
    let by_use = jwk.get("use").is_none_or(|used| used == "sig");
    let by_operations = jwk.get("key_ops").is_none_or(|operations| {
        operations.as_array().is_some_and(|list| list.iter().any(|one| one == "verify"))
    });
    by_use && by_operations
}

type Read = (Vec<(Algorithm, ParsedPublicKey)>, Value);

fn rsa(jwk: &Map<String, Value>) -> Option<Read> {
    let n = without_leading_zeros(bytes(jwk, "n")?);
    let e = without_leading_zeros(bytes(jwk, "e")?);
    let bits = n.len() * 8 - usize::try_from(n.first()?.leading_zeros()).ok()?;
    // Envoy too takes these two exponents alone.
    if !RSA_BITS.contains(&bits) || !matches!(e.as_slice(), [3] | [1, 0, 1]) {
        return None;
    }
    let components = RsaPublicKeyComponents { n: &n, e: &e };
    let mut verifiers = Vec::with_capacity(Algorithm::RSA.len());
    for algorithm in Algorithm::RSA {
        verifiers.push((algorithm, components.to_parsed_public_key(algorithm.rsa()?).ok()?));
    }
    Some((verifiers, json!({"kty": "RSA", "n": LENIENT.encode(&n), "e": LENIENT.encode(&e)})))
}

fn elliptic(jwk: &Map<String, Value>) -> Option<Read> {
    let curve = text(jwk, "crv").filter(|curve| curve.starts_with("P-"))?;
    let (algorithm, verification, length) = Algorithm::of_curve(curve)?;
    let (x, y) = (bytes(jwk, "x")?, bytes(jwk, "y")?);
    if x.len() != length || y.len() != length {
        return None;
    }
    // Uncompressed point (SEC 1 section 2.3.3); parsing checks that it is on the curve.
    let point = [&[4], x.as_slice(), y.as_slice()].concat();
    let verifier = ParsedPublicKey::new(verification, point).ok()?;
    let (x, y) = (LENIENT.encode(x), LENIENT.encode(y));
    Some((vec![(algorithm, verifier)], json!({"kty": "EC", "crv": curve, "x": x, "y": y})))
}

fn edwards(jwk: &Map<String, Value>) -> Option<Read> {
    let curve = text(jwk, "crv").filter(|curve| *curve == "Ed25519")?;
    let (algorithm, verification, length) = Algorithm::of_curve(curve)?;
    let x = bytes(jwk, "x")?;
    if x.len() != length {
        return None;
    }
    let verifier = ParsedPublicKey::new(verification, &x).ok()?;
    Some((vec![(algorithm, verifier)], json!({"kty": "OKP", "crv": curve, "x": LENIENT.encode(x)})))
}

fn text<'a>(jwk: &'a Map<String, Value>, member: &str) -> Option<&'a str> {
    jwk.get(member).and_then(Value::as_str)
}

fn bytes(jwk: &Map<String, Value>, member: &str) -> Option<Vec<u8>> {
    text(jwk, member).and_then(|encoded| LENIENT.decode(encoded).ok())
}

fn without_leading_zeros(mut number: Vec<u8>) -> Vec<u8> {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.drain(..zeros);
    number
}

fn fingerprint(public: &Value) -> Fingerprint {
    let mut fingerprint = [0; 32];
    let hash = digest::digest(&digest::SHA256, public.to_string().as_bytes());
    for (to, from) in fingerprint.iter_mut().zip(hash.as_ref()) {
        *to = *from;
    }
    fingerprint
}

//! Keys made for one run. None is ever written down.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING,
    EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512,
    RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::ISSUERS;

/// A key of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyName {
    /// RSA, of the first issuer, said to be for RS256.
    A,
    /// RSA, of the second issuer, said to be for RS256.
    B,
    /// RSA, of nobody.
    Stranger,
    /// RSA, of the first issuer, for any RSA algorithm.
    AnyRsa,
    /// P-256, of the first issuer.
    P256,
    /// P-384, of the first issuer.
    P384,
    /// P-521, of the first issuer.
    P521,
    /// Ed25519, of the first issuer.
    Edwards,
    /// RSA, of the first issuer, for encryption.
    Encryption,
}

impl KeyName {
    /// Every key.
    pub const ALL: [Self; 9] = [
        Self::A,
        Self::B,
        Self::Stranger,
        Self::AnyRsa,
        Self::P256,
        Self::P384,
        Self::P521,
        Self::Edwards,
        Self::Encryption,
    ];

    /// Its `kid`. The stranger takes the first issuer's.
    #[must_use]
    pub const fn kid(self) -> &'static str {
        match self {
            Self::A | Self::Stranger => "ka",
            Self::B => "kb",
            Self::AnyRsa => "any",
            Self::P256 => "p256",
            Self::P384 => "p384",
            Self::P521 => "p521",
            Self::Edwards => "ed",
            Self::Encryption => "enc",
        }
    }

    /// The algorithm that it signs with where nothing else is asked for.
    #[must_use]
    pub const fn algorithm(self) -> &'static str {
        match self {
            Self::A | Self::B | Self::Stranger | Self::AnyRsa | Self::Encryption => "RS256",
            Self::P256 => "ES256",
            Self::P384 => "ES384",
            Self::P521 => "ES512",
            Self::Edwards => "EdDSA",
        }
    }

    const fn of_issuer(self) -> Option<usize> {
        match self {
            Self::Stranger => None,
            Self::B => Some(1),
            _ => Some(0),
        }
    }
}

enum Pair {
    Rsa(RsaKeyPair),
    Curve(EcdsaKeyPair, &'static str),
    Edwards(Ed25519KeyPair),
}

/// All keys of a run.
pub struct Ring {
    pairs: Vec<(KeyName, Pair)>,
    random: SystemRandom,
}

pub(super) fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Ring {
    /// Makes the keys; takes a second.
    ///
    /// # Panics
    /// Where the system gives no random bytes.
    #[must_use]
    #[allow(clippy::expect_used)]
    pub fn generate() -> Self {
        let rsa = || Pair::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).expect("random bytes"));
        let curve = |signing, name| Pair::Curve(EcdsaKeyPair::generate(signing).expect("random bytes"), name);
        let pair = |name| match name {
            KeyName::P256 => curve(&ECDSA_P256_SHA256_FIXED_SIGNING, "P-256"),
            KeyName::P384 => curve(&ECDSA_P384_SHA384_FIXED_SIGNING, "P-384"),
            KeyName::P521 => curve(&ECDSA_P521_SHA512_FIXED_SIGNING, "P-521"),
            KeyName::Edwards => Pair::Edwards(Ed25519KeyPair::generate().expect("random bytes")),
            _ => rsa(),
        };
        let pairs = KeyName::ALL.into_iter().map(|name| (name, pair(name))).collect();
        Self { pairs, random: SystemRandom::new() }
    }

    /// An issuer's keys as a JWKS.
    #[must_use]
    pub fn jwks(&self, issuer: &str) -> String {
        let wanted = ISSUERS.iter().position(|known| *known == issuer);
        let of_issuer = self.pairs.iter().filter(|(name, _)| wanted.is_some() && name.of_issuer() == wanted);
        let keys: Vec<Value> = of_issuer.map(|(name, pair)| jwk(*name, pair)).collect();
        json!({ "keys": keys }).to_string()
    }

    /// A signature; none by an algorithm that the key does not know.
    ///
    /// # Panics
    /// Where the system gives no random bytes.
    #[must_use]
    #[allow(clippy::expect_used)]
    pub fn sign(&self, name: KeyName, algorithm: &str, message: &[u8]) -> Option<Vec<u8>> {
        let (_, pair) = self.pairs.iter().find(|(known, _)| *known == name)?;
        let padding: &'static dyn RsaEncoding = match (pair, algorithm) {
            (Pair::Curve(pair, _), "ES256" | "ES384" | "ES512") => {
                return Some(pair.sign(&self.random, message).expect("random bytes").as_ref().to_vec());
            }
            (Pair::Edwards(pair), "EdDSA") => return Some(pair.sign(message).as_ref().to_vec()),
            (Pair::Rsa(_), "RS256") => &RSA_PKCS1_SHA256,
            (Pair::Rsa(_), "RS384") => &RSA_PKCS1_SHA384,
            (Pair::Rsa(_), "RS512") => &RSA_PKCS1_SHA512,
            (Pair::Rsa(_), "PS256") => &RSA_PSS_SHA256,
            (Pair::Rsa(_), "PS384") => &RSA_PSS_SHA384,
            (Pair::Rsa(_), "PS512") => &RSA_PSS_SHA512,
            _ => return None,
        };
        let Pair::Rsa(pair) = pair else { return None };
        let mut signature = vec![0; pair.public_modulus_len()];
        pair.sign(padding, &self.random, message, &mut signature).expect("random bytes");
        Some(signature)
    }
}

fn jwk(name: KeyName, pair: &Pair) -> Value {
    let mut jwk = match pair {
        Pair::Rsa(pair) => {
            let public = pair.public_key();
            let n = encode(public.modulus().big_endian_without_leading_zero());
            let e = encode(public.exponent().big_endian_without_leading_zero());
            json!({"kty": "RSA", "n": n, "e": e})
        }
        Pair::Curve(pair, curve) => {
            // An uncompressed point: 0x04, x, y (SEC 1 §2.3.3).
            let point = pair.public_key().as_ref().get(1..).unwrap_or_default();
            let (x, y) = point.split_at(point.len() / 2);
            json!({"kty": "EC", "crv": curve, "x": encode(x), "y": encode(y)})
        }
        Pair::Edwards(pair) => {
            json!({"kty": "OKP", "crv": "Ed25519", "x": encode(pair.public_key().as_ref())})
        }
    };
    jwk["kid"] = name.kid().into();
    if !matches!(name, KeyName::AnyRsa | KeyName::Edwards) {
        jwk["alg"] = name.algorithm().into();
    }
    jwk["use"] = if name == KeyName::Encryption { "enc" } else { "sig" }.into();
    jwk
}

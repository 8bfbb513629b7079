//! The keys of a realm, and the JWKS that publishes them.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};
use serde_json::{Value, json};

use crate::Error;

/// Rotated keys that stay published; the oldest goes first.
const MAX_OLD_KEYS: usize = 8;

/// One key that signs.
pub(super) struct SigningKey {
    kid: String,
    encoding: EncodingKey,
    decoding: DecodingKey,
    jwk: Value,
    /// SubjectPublicKeyInfo, base64, as `GET /realms/{realm}` shows it.
    public_key: String,
}

/// A realm's keys at one moment; rotation makes a new ring.
pub(super) struct KeyRing {
    rsa: Arc<SigningKey>,
    es256: Option<Arc<SigningKey>>,
    old: Vec<Arc<SigningKey>>,
    encryption: Value,
    body: Bytes,
    etag: String,
}

impl KeyRing {
    /// Fresh keys. Takes some tenths of a second: not for an async task.
    pub(super) fn generate(realm: &str, es256: bool) -> Result<Self, Error> {
        let encryption = rsa_key(realm, "enc", "RSA-OAEP")?.jwk;
        let rsa = Arc::new(rsa_key(realm, "sig", "RS256")?);
        let es256 = es256.then(ec_key).transpose()?.map(Arc::new);
        Ok(Self::publish(rsa, es256, Vec::new(), encryption))
    }

    /// New signing keys; the present ones stay published among the old.
    pub(super) fn rotated(&self, realm: &str) -> Result<Self, Error> {
        let rsa = Arc::new(rsa_key(realm, "sig", "RS256")?);
        let fresh = self.es256.as_ref().map(|_| ec_key()).transpose()?;
        let mut old: Vec<_> = self.es256.iter().cloned().collect();
        old.insert(0, Arc::clone(&self.rsa));
        old.extend(self.old.iter().cloned());
        old.truncate(MAX_OLD_KEYS);
        Ok(Self::publish(rsa, fresh.map(Arc::new), old, self.encryption.clone()))
    }

    /// Only the present keys; also says how many were dropped.
    pub(super) fn without_old(&self) -> (Self, usize) {
        let rsa = Arc::clone(&self.rsa);
        let ring = Self::publish(rsa, self.es256.clone(), Vec::new(), self.encryption.clone());
        (ring, self.old.len())
    }

    fn publish(
        rsa: Arc<SigningKey>,
        es256: Option<Arc<SigningKey>>,
        old: Vec<Arc<SigningKey>>,
        encryption: Value,
    ) -> Self {
        // Keycloak lists the encryption key among the others, in no stated order: it comes first
        // here, so that a reader that takes the first key is found out.
        let signing = std::iter::once(&rsa).chain(&es256).chain(&old).map(|key| key.jwk.clone());
        let keys: Vec<_> = std::iter::once(encryption.clone()).chain(signing).collect();
        let body = json!({ "keys": keys }).to_string();
        let etag = format!("\"{}\"", thumbprint(body.as_bytes()));
        Self { rsa, es256, old, encryption, body: Bytes::from(body), etag }
    }

    /// The JWKS document and its entity tag (with quotes).
    pub(super) fn document(&self) -> (Bytes, &str) {
        (self.body.clone(), &self.etag)
    }

    /// Key ID of the present RS256 key.
    pub(super) fn kid(&self) -> &str {
        &self.rsa.kid
    }

    /// Key ID of the present ES256 key, where there is one.
    pub(super) fn es256_kid(&self) -> Option<&str> {
        self.es256.as_deref().map(|key| key.kid.as_str())
    }

    pub(super) fn public_key(&self) -> &str {
        &self.rsa.public_key
    }

    /// Signs with the present key that fits the header's `alg`; the header is used as it is.
    pub(super) fn sign(&self, header: &Header, claims: &Value) -> Result<String, Error> {
        let key = match header.alg {
            Algorithm::ES256 => self.es256.as_deref().ok_or(Error::Key("the realm has no ES256 key"))?,
            _ => &self.rsa,
        };
        Ok(jsonwebtoken::encode(header, claims, &key.encoding)?)
    }

    /// The published key of this ID, to verify with.
    pub(super) fn verifier(&self, kid: &str) -> Option<&DecodingKey> {
        let all = std::iter::once(&self.rsa).chain(&self.es256).chain(&self.old);
        all.map(Arc::as_ref).find(|key| key.kid == kid).map(|key| &key.decoding)
    }
}

fn thumbprint(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, bytes))
}

fn rsa_key(realm: &str, usage: &str, alg: &str) -> Result<SigningKey, Error> {
    let failed = |_| Error::Key("RSA 2048 key generation failed");
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).map_err(failed)?;
    let pkcs8 = AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(&pair).map_err(failed)?;
    let public = pair.public_key();
    let spki = AsDer::<aws_lc_rs::encoding::PublicKeyX509Der<'_>>::as_der(public).map_err(failed)?;
    let certificate = certs::self_signed(pkcs8.as_ref(), realm)?;
    let modulus = URL_SAFE_NO_PAD.encode(public.modulus().big_endian_without_leading_zero());
    let exponent = URL_SAFE_NO_PAD.encode(public.exponent().big_endian_without_leading_zero());
    let kid = thumbprint(spki.as_ref());
    let jwk = json!({
        "kid": kid,
        "kty": "RSA",
        "alg": alg,
        "use": usage,
        "x5c": [STANDARD.encode(&certificate)],
        "x5t": URL_SAFE_NO_PAD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &certificate)),
        "x5t#S256": thumbprint(&certificate),
        "n": modulus,
        "e": exponent,
    });
    Ok(SigningKey {
        encoding: EncodingKey::from_rsa_pem(pem(pkcs8.as_ref()).as_bytes())?,
        decoding: DecodingKey::from_rsa_components(&modulus, &exponent)?,
        public_key: STANDARD.encode(spki.as_ref()),
        kid,
        jwk,
    })
}

fn ec_key() -> Result<SigningKey, Error> {
    let failed = |_| Error::Key("P-256 key generation failed");
    let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
    let pkcs8 =
        EcdsaKeyPair::generate_pkcs8(algorithm, &aws_lc_rs::rand::SystemRandom::new()).map_err(failed)?;
    let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref())
        .map_err(|_| Error::Key("the new P-256 key cannot be read"))?;
    let public = pair.public_key();
    // An uncompressed point: 0x04, then x and y of 32 bytes each (SEC 1, 2.3.3).
    let point = public.as_ref().strip_prefix(&[4]).and_then(|point| point.split_at_checked(32));
    let (x, y) = point.ok_or(Error::Key("the new P-256 key is not an uncompressed point"))?;
    let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
    let spki = AsDer::<aws_lc_rs::encoding::PublicKeyX509Der<'_>>::as_der(public).map_err(failed)?;
    let kid = thumbprint(spki.as_ref());
    let jwk = json!({
        "kid": kid, "kty": "EC", "alg": "ES256", "use": "sig", "crv": "P-256", "x": x, "y": y,
    });
    Ok(SigningKey {
        encoding: EncodingKey::from_ec_der(pkcs8.as_ref()),
        decoding: DecodingKey::from_ec_components(&x, &y)?,
        public_key: STANDARD.encode(spki.as_ref()),
        kid,
        jwk,
    })
}

/// The PEM form that jsonwebtoken unwraps PKCS#8 from.
fn pem(pkcs8: &[u8]) -> String {
    let body = STANDARD.encode(pkcs8);
    let mut text = String::from("-----BEGIN PRIVATE KEY-----\n");
    for (index, character) in body.chars().enumerate() {
        if index > 0 && index % 64 == 0 {
            text.push('\n');
        }
        text.push(character);
    }
    text.push_str("\n-----END PRIVATE KEY-----\n");
    text
}

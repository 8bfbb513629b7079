//! The identity provider of the benchmark: two keys, and many tokens signed before anything is timed.
//!
//! Signing with RSA takes longer than anything that is measured, so the tokens are kept below
//! `target/bench` for the next run. The private keys are not.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Tokens of each algorithm.
pub const TOKENS: usize = 60_000;
/// Tokens with a signature that is none.
pub const BAD_TOKENS: usize = 20_000;
/// How long they are good for, and how long they are kept for further runs, in seconds.
const LIFETIME: i64 = 30 * 86_400;
const KEPT: i64 = 7 * 86_400;
/// Changes whenever what is in the tokens does.
const FORM: u32 = 1;
const THREADS: usize = 2;

/// How a token is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256, 2,048 bits (RFC 7518 section 3.3).
    Rs256,
    /// ECDSA on P-256 with SHA-256 (RFC 7518 section 3.4).
    Es256,
}

impl Algorithm {
    /// As in `alg`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
        }
    }
}

/// Why there are no tokens.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Files.
    #[error("tokens: {0}")]
    Io(#[from] io::Error),
    /// The library makes no key or signature.
    #[error("tokens: no key or signature could be made")]
    Crypto,
    /// The kept description cannot be read.
    #[error("tokens: {0}")]
    Json(#[from] serde_json::Error),
}

impl From<aws_lc_rs::error::Unspecified> for TokenError {
    fn from(_: aws_lc_rs::error::Unspecified) -> Self {
        Self::Crypto
    }
}

/// What is public about the provider.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Provider {
    form: u32,
    made: i64,
    /// The upstream's port, which stands in the issuer: one peer fetches the realm from there.
    pub port: u16,
    /// Both keys.
    pub jwks: Value,
    /// SubjectPublicKeyInfo of the RSA key, in Base64.
    pub rsa: String,
    /// SubjectPublicKeyInfo of the EC key, in Base64.
    pub ec: String,
}

impl Provider {
    /// `iss` of every token.
    #[must_use]
    pub fn issuer(&self) -> String {
        format!("http://127.0.0.1:{}/realms/bench", self.port)
    }

    /// The realm as Keycloak describes it, for the peer that takes its key from there.
    #[must_use]
    pub fn realm(&self) -> String {
        let issuer = self.issuer();
        json!({
            "realm": "bench", "public_key": self.rsa, "issuer": issuer,
            "token-service": format!("{issuer}/protocol/openid-connect"), "tokens-not-before": 0,
            "authorization_endpoint": format!("{issuer}/auth"), "token_endpoint": format!("{issuer}/token"),
            "jwks_uri": format!("{issuer}/certs"),
        })
        .to_string()
    }

    /// The key of an algorithm as PEM.
    #[must_use]
    pub fn pem(&self, algorithm: Algorithm) -> String {
        let key = if algorithm == Algorithm::Rs256 { &self.rsa } else { &self.ec };
        let lines: Vec<&str> =
            key.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"))
    }
}

/// The provider and everything it has signed.
#[derive(Debug, Clone)]
pub struct Tokens {
    /// What is public.
    pub provider: Provider,
    rs256: Arc<[Box<[u8]>]>,
    es256: Arc<[Box<[u8]>]>,
    /// Right in form, of a key that is known, signed by nobody.
    pub bad: Arc<[Box<[u8]>]>,
    /// Signed rightly for someone whom no policy lets in.
    pub visitor: Box<[u8]>,
    /// Signed rightly for someone who may write.
    pub medic: Box<[u8]>,
}

impl Tokens {
    /// Those kept in `folder` where they fit `port`'s being free, or new ones.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn load_or_make(
        folder: &Path,
        count: usize,
        free_port: impl Fn(u16) -> bool,
        new_port: u16,
    ) -> Result<Self, TokenError> {
        match Self::load(folder) {
            Ok(tokens)
                if tokens.provider.is_current()
                    && tokens.rs256.len() >= count
                    && free_port(tokens.provider.port) =>
            {
                Ok(tokens)
            }
            _ => {
                let tokens = Self::make(new_port, count)?;
                tokens.keep(folder)?;
                Ok(tokens)
            }
        }
    }

    /// The tokens of an algorithm, each a different one.
    #[must_use]
    pub fn of(&self, algorithm: Algorithm) -> &Arc<[Box<[u8]>]> {
        if algorithm == Algorithm::Rs256 { &self.rs256 } else { &self.es256 }
    }

    /// Makes keys and `count` tokens of each algorithm.
    ///
    /// # Errors
    /// [`TokenError::Crypto`].
    pub fn make(port: u16, count: usize) -> Result<Self, TokenError> {
        let random = SystemRandom::new();
        let rsa = RsaKeyPair::generate(KeySize::Rsa2048)?;
        let ec = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?;
        let provider = provider(port, &rsa, &ec)?;
        let sign_rsa = |text: &[u8]| {
            let mut signature = vec![0; rsa.public_modulus_len()];
            rsa.sign(&RSA_PKCS1_SHA256, &random, text, &mut signature)?;
            Ok::<_, TokenError>(signature)
        };
        let sign_ec = |text: &[u8]| Ok::<_, TokenError>(ec.sign(&random, text)?.as_ref().to_vec());
        let issuer = provider.issuer();
        let made = provider.made;
        let by = |algorithm, role, index, sign| token(algorithm, &issuer, role, index, made, sign);
        Ok(Self {
            rs256: many(count, &|index| by(Algorithm::Rs256, "Patient", index, &sign_rsa))?,
            es256: many(count, &|index| by(Algorithm::Es256, "Patient", index, &sign_ec))?,
            bad: many(count.min(BAD_TOKENS), &|index| {
                token(Algorithm::Rs256, &issuer, "Patient", index, made, &|_| Ok(noise(index)))
            })?,
            visitor: by(Algorithm::Rs256, "Visitor", 0, &sign_rsa)?,
            medic: by(Algorithm::Rs256, "Medic", 0, &sign_rsa)?,
            provider,
        })
    }

    fn load(folder: &Path) -> Result<Self, TokenError> {
        let lines = |name: &str| Ok::<_, TokenError>(split(&fs::read(folder.join(name))?));
        Ok(Self {
            rs256: lines("rs256.txt")?,
            es256: lines("es256.txt")?,
            bad: lines("bad.txt")?,
            visitor: fs::read(folder.join("visitor.txt"))?.into(),
            medic: fs::read(folder.join("medic.txt"))?.into(),
            provider: serde_json::from_slice(&fs::read(folder.join("provider.json"))?)?,
        })
    }

    fn keep(&self, folder: &Path) -> Result<(), TokenError> {
        fs::create_dir_all(folder)?;
        // The description goes last: without it the rest is nothing.
        let provider = folder.join("provider.json");
        if provider.exists() {
            fs::remove_file(&provider)?;
        }
        fs::write(folder.join("rs256.txt"), self.rs256.join(&b'\n'))?;
        fs::write(folder.join("es256.txt"), self.es256.join(&b'\n'))?;
        fs::write(folder.join("bad.txt"), self.bad.join(&b'\n'))?;
        fs::write(folder.join("visitor.txt"), &self.visitor)?;
        fs::write(folder.join("medic.txt"), &self.medic)?;
        fs::write(provider, serde_json::to_vec(&self.provider)?)?;
        Ok(())
    }
}

impl Provider {
    fn is_current(&self) -> bool {
        self.form == FORM && (0..KEPT).contains(&(now() - self.made))
    }
}

fn split(text: &[u8]) -> Arc<[Box<[u8]>]> {
    text.split(|byte| *byte == b'\n').map(Box::from).collect()
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

fn provider(port: u16, rsa: &RsaKeyPair, ec: &EcdsaKeyPair) -> Result<Provider, TokenError> {
    let url = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let key = rsa.public_key();
    let (n, e) = (key.modulus(), key.exponent());
    // Uncompressed point: 4, then both coordinates.
    let (x, y) = ec
        .public_key()
        .as_ref()
        .get(1..)
        .unwrap_or_default()
        .split_at_checked(32)
        .ok_or(TokenError::Crypto)?;
    let rsa_jwk = json!({
        "kty": "RSA", "use": "sig", "alg": "RS256", "kid": "rs",
        "n": url(n.big_endian_without_leading_zero()), "e": url(e.big_endian_without_leading_zero()),
    });
    let ec_jwk = json!({"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": "es", "x": url(x), "y": url(y)});
    let rsa_der = AsDer::<PublicKeyX509Der<'_>>::as_der(key)?;
    let ec_der = AsDer::<PublicKeyX509Der<'_>>::as_der(ec.public_key())?;
    Ok(Provider {
        form: FORM,
        made: now(),
        port,
        jwks: json!({"keys": [rsa_jwk, ec_jwk]}),
        rsa: STANDARD.encode(rsa_der.as_ref()),
        ec: STANDARD.encode(ec_der.as_ref()),
    })
}

/// Signs on all cores.
fn many(
    count: usize,
    one: &(impl Fn(usize) -> Result<Box<[u8]>, TokenError> + Sync),
) -> Result<Arc<[Box<[u8]>]>, TokenError> {
    let share = count.div_ceil(THREADS);
    let parts = thread::scope(|scope| {
        let part =
            |at: usize| (at * share..count.min((at + 1) * share)).map(one).collect::<Result<Vec<_>, _>>();
        let threads: Vec<_> = (0..THREADS).map(|at| scope.spawn(move || part(at))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| TokenError::Crypto)?)
            .collect::<Result<Vec<_>, _>>()
    })?;
    Ok(parts.into_iter().flatten().collect())
}

/// Below every modulus of 2,048 bits, and no signature of anything.
#[allow(clippy::cast_possible_truncation)]
fn noise(index: usize) -> Vec<u8> {
    (0..256_usize).map(|at| (at.wrapping_mul(31) ^ index) as u8 & 0x7f).collect()
}

type Sign<'a> = &'a dyn Fn(&[u8]) -> Result<Vec<u8>, TokenError>;

/// A token as Keycloak makes them, about 1.1 kB; `jti` makes each a different one.
fn token(
    algorithm: Algorithm,
    issuer: &str,
    role: &str,
    index: usize,
    made: i64,
    sign: Sign<'_>,
) -> Result<Box<[u8]>, TokenError> {
    let kid = if algorithm == Algorithm::Rs256 { "rs" } else { "es" };
    let header = json!({"alg": algorithm.name(), "typ": "JWT", "kid": kid});
    let claims = json!({
        "exp": made + LIFETIME, "iat": made, "jti": format!("onrtro:5f0c1f4e-5a3c-{index:012}"), "iss": issuer,
        "aud": "fhir", "sub": "2f1c6f3e-7b1d-4f0a-9c55-0d9f6f1c2b3a", "typ": "Bearer", "azp": "idea",
        "sid": "9a1d6f0e-1c2b-4d3e-8f4a-5b6c7d8e9f00", "acr": "1", "allowed-origins": ["*"],
        "realm_access": {"roles": [role, "offline_access", "uma_authorization", "default-roles-bench"]},
        "resource_access": {"account": {"roles": ["manage-account", "manage-account-links", "view-profile"]}},
        "scope": "openid profile email patient/*.read", "email_verified": true, "name": "Alice Kovacs",
        "preferred_username": "alice", "given_name": "Alice", "family_name": "Kovacs",
        "email": "alice@hospital.example", "patient_id": "p1",
    });
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", encode(&header), encode(&claims));
    let signature = URL_SAFE_NO_PAD.encode(sign(signed.as_bytes())?);
    Ok(format!("{signed}.{signature}").into_bytes().into())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};

    use super::*;

    #[test]
    fn tokens_differ_verify_and_survive_being_kept() {
        let made = Tokens::make(18_080, 4).unwrap();
        let key = STANDARD.decode(&made.provider.rsa).unwrap();
        let verify = |token: &[u8]| {
            let dot = token.iter().rposition(|byte| *byte == b'.').unwrap();
            let (signed, signature) = (&token[..dot], &token[dot + 1..]);
            let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
            UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &key).verify(signed, &signature)
        };
        for (index, token) in made.of(Algorithm::Rs256).iter().enumerate() {
            verify(token).unwrap();
            assert!(made.of(Algorithm::Rs256).iter().skip(index + 1).all(|other| other != token));
        }
        assert!(made.bad.iter().all(|token| verify(token).is_err()));

        let folder = tempfile::tempdir().unwrap();
        made.keep(folder.path()).unwrap();
        let kept = Tokens::load_or_make(folder.path(), 4, |port| port == 18_080, 1).unwrap();
        assert_eq!((kept.of(Algorithm::Es256), &kept.bad), (made.of(Algorithm::Es256), &made.bad));
        assert_eq!(kept.provider.jwks, made.provider.jwks);
    }
}

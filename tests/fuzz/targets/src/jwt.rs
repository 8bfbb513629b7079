//! Tokens: nothing is accepted that no key has signed.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use aws_lc_rs::{
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
        RSA_PSS_SHA256, RsaKeyPair,
    },
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use identity::{Authenticator, Clock, Health, OfflineIssuer, TokenBearer};
use policy::{
    Place,
    istio::{JwtRule, KeySource, TokenPlace},
    target::{CanonicalTarget, Normalization, TargetRules, canonicalize},
};
use serde_json::{Value, json};

use crate::{input::Input, runtime};

pub(crate) const NOW: i64 = 1_800_000_000;
pub(crate) const ISSUER: &str = "https://idp.example/realms/r";
/// Most edits of one token.
const EDITS: usize = 32;

/// Tokens that are good, and who verifies them. The keys are made anew in each process, so the corpus
/// holds none of them: it says what is done to the tokens.
pub(crate) struct World {
    authenticator: Arc<Authenticator>,
    rules: Vec<Arc<JwtRule>>,
    /// Signed by a key of the issuer.
    good: Vec<String>,
    /// Signed, but to be refused: past, of another issuer, by a stranger's key.
    bad: Vec<String>,
    pub(crate) jwks: String,
}

pub(crate) static WORLD: LazyLock<World> = LazyLock::new(World::new);

impl World {
    /// A good token, by number.
    pub(crate) fn good(&self, number: u8) -> &str {
        self.good.get(usize::from(number) % self.good.len()).map_or("", String::as_str)
    }

    fn new() -> Self {
        let rsa = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key");
        let pss = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key");
        let ec = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
        let ed = Ed25519KeyPair::generate().expect("a key");
        let stranger = Ed25519KeyPair::generate().expect("a key");
        let random = SystemRandom::new();
        let with_rsa = |pair: &RsaKeyPair, encoding, message: &[u8]| {
            let mut signature = vec![0; pair.public_modulus_len()];
            pair.sign(encoding, &random, message, &mut signature).expect("a signature");
            signature
        };
        let rs256 = |message: &[u8]| with_rsa(&rsa, &RSA_PKCS1_SHA256, message);
        let ps256 = |message: &[u8]| with_rsa(&pss, &RSA_PSS_SHA256, message);
        let es256 = |message: &[u8]| ec.sign(&random, message).expect("a signature").as_ref().to_vec();
        let eddsa = |message: &[u8]| ed.sign(message).as_ref().to_vec();
        let claims = |sub: &str| {
            json!({"iss": ISSUER, "sub": sub, "exp": NOW + 300, "aud": "fhir",
            "realm_access": {"roles": ["Medic"]}, "scope": "a b"})
        };
        let good = vec![
            token("RS256", "rsa", &claims("alice"), rs256),
            token("PS256", "pss", &claims("bob"), ps256),
            token("ES256", "ec", &claims("carol"), es256),
            token("EdDSA", "ed", &claims("dave"), eddsa),
        ];
        let past = json!({"iss": ISSUER, "sub": "alice", "exp": NOW - 3600});
        let elsewhere = json!({"iss": "https://idp.example/realms/x", "sub": "alice", "exp": NOW + 300});
        let bad = vec![
            token("EdDSA", "ed", &past, eddsa),
            token("EdDSA", "ed", &elsewhere, eddsa),
            token("EdDSA", "ed", &claims("alice"), |message| stranger.sign(message).as_ref().to_vec()),
            token("RS256", "pss", &claims("alice"), |message| with_rsa(&pss, &RSA_PKCS1_SHA256, message)),
        ];
        let jwks = json!({"keys": [
            rsa_jwk("rsa", "RS256", &rsa), rsa_jwk("pss", "PS256", &pss),
            ec_jwk("ec", &ec),
            {"kty": "OKP", "kid": "ed", "crv": "Ed25519", "x": encode(ed.public_key())},
        ]})
        .to_string();
        let issuer = OfflineIssuer {
            issuer: ISSUER.to_owned(),
            jwks_uri: None,
            jwks_json: jwks.clone(),
            health: Health::Up,
        };
        let authenticator = Authenticator::offline(vec![issuer], Clock::Fixed(NOW));
        Self { authenticator, rules: vec![Arc::new(rule())], good, bad, jwks }
    }
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn token(algorithm: &str, kid: &str, claims: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let header = json!({"alg": algorithm, "typ": "JWT", "kid": kid});
    let signed = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
    let signature = sign(signed.as_bytes());
    format!("{signed}.{}", encode(signature))
}

fn rsa_jwk(kid: &str, algorithm: &str, pair: &RsaKeyPair) -> Value {
    let public = pair.public_key();
    let n = encode(public.modulus().big_endian_without_leading_zero());
    let e = encode(public.exponent().big_endian_without_leading_zero());
    json!({"kty": "RSA", "kid": kid, "alg": algorithm, "n": n, "e": e})
}

fn ec_jwk(kid: &str, pair: &EcdsaKeyPair) -> Value {
    let point = pair.public_key().as_ref();
    let (x, y) = point.get(1..).unwrap_or_default().split_at_checked(32).unwrap_or_default();
    json!({"kty": "EC", "kid": kid, "crv": "P-256", "x": encode(x), "y": encode(y)})
}

fn rule() -> JwtRule {
    JwtRule {
        issuer: ISSUER.to_owned(),
        audiences: Vec::new(),
        keys: KeySource::Discovery,
        places: vec![
            TokenPlace::Header {
                name: HeaderName::from_static("authorization"),
                prefix: "Bearer ".to_owned(),
            },
            TokenPlace::Parameter("access_token".to_owned()),
        ],
        output_payload_to_header: None,
        forward_original_token: false,
        output_claim_to_headers: Vec::new(),
        timeout: Duration::from_secs(5),
        space_delimited_claims: Vec::new(),
        origin: "RequestAuthentication ns/jwt".into(),
        place: Place { file: "fuzz.yaml".into(), line: 1, column: 1 },
    }
}

/// The first byte picks a token, the rest says how it is changed (see `edit`): byte by byte, segment by
/// segment, with parts of other tokens.
///
/// - Accepted: its signed part and its signature are those of a good token, byte by byte; and the
///   identity is that token's.
/// - The second time (from the cache) and with reasons, the answer is the same.
pub fn jwt(data: &[u8]) {
    accepts(data);
}

/// The same; tells whether the token was accepted.
pub(crate) fn accepts(data: &[u8]) -> bool {
    let world = &*WORLD;
    let mut input = Input::new(data);
    let place = input.byte();
    let token = make(world, &mut input);
    let (headers, target) = carry(place, &token);
    let method = Method::GET;
    let bearer = TokenBearer { method: &method, headers: &headers, target: &target, at: None };
    let ask = || async {
        let first = world.authenticator.authenticate(&world.rules, bearer).await;
        let second = world.authenticator.authenticate(&world.rules, bearer).await;
        let (explained, _) = world.authenticator.explain(&world.rules, bearer).await;
        [first, second, explained].map(|answer| answer.map(|passed| passed.identity))
    };
    let [first, second, explained] = runtime().block_on(ask());
    assert_eq!(first, second, "the second answer differs");
    assert_eq!(first, explained, "the explained answer differs");
    let Ok(Some(identity)) = first else { return false };
    let text = String::from_utf8_lossy(&token).into_owned();
    let genuine = world.good.iter().find(|good| same(good, &text));
    let Some(genuine) = genuine else { panic!("accepted, and nobody signed it: {text}") };
    assert_eq!(identity.claims.get("sub"), claims(genuine).get("sub"));
    assert_eq!(identity.issuer, ISSUER);
    true
}

/// The same signed part, and a signature that decodes to the same bytes. Of a header, what stands before
/// the first character that can be a token's does not count, as in Envoy.
pub(crate) fn same(good: &str, text: &str) -> bool {
    let text = text.trim_start_matches(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c)));
    let (Some((signed, signature)), Some((own, of_text))) = (good.rsplit_once('.'), text.rsplit_once('.'))
    else {
        return false;
    };
    signed == own && signature == of_text.trim_end_matches('=')
}

fn claims(token: &str) -> Value {
    let payload = token.split('.').nth(1).unwrap_or_default();
    URL_SAFE_NO_PAD
        .decode(payload)
        .ok()
        .and_then(|payload| serde_json::from_slice(&payload).ok())
        .unwrap_or_default()
}

/// In the `Authorization` header, where it can stand there and the fuzzer wants it, else in the query.
fn carry(place: u8, token: &[u8]) -> (HeaderMap, CanonicalTarget) {
    let rules = TargetRules { normalization: Normalization::Base, strict: false };
    let target = |text: &str| canonicalize(text, rules).expect("a plain target");
    let mut headers = HeaderMap::new();
    let header = HeaderValue::from_bytes(&[b"Bearer ", token].concat());
    if let (0, Ok(value)) = (place & 1, header) {
        headers.insert(http::header::AUTHORIZATION, value);
        return (headers, target("/x"));
    }
    let query = percent_encoding::percent_encode(token, percent_encoding::NON_ALPHANUMERIC);
    (headers, target(&format!("/x?access_token={query}")))
}

fn make(world: &World, input: &mut Input<'_>) -> Vec<u8> {
    let all: Vec<&String> = world.good.iter().chain(&world.bad).collect();
    let pick = |number: u8| all.get(usize::from(number) % all.len()).map_or("", |token| token.as_str());
    let mut token = pick(input.byte()).as_bytes().to_vec();
    for _ in 0..EDITS {
        let Some(operation) = input.next() else { break };
        edit(&mut token, operation, input, pick);
    }
    token
}

/// One change; bytes that ask for nothing possible change nothing.
fn edit<'a>(token: &mut Vec<u8>, operation: u8, input: &mut Input<'_>, pick: impl Fn(u8) -> &'a str) {
    let segments = |token: &[u8]| token.split(|byte| *byte == b'.').map(<[u8]>::to_vec).collect::<Vec<_>>();
    let at = |input: &mut Input<'_>, length: usize| usize::from(input.word()) % (length + 1);
    match operation % 10 {
        0 => {
            let place = at(input, token.len());
            if let Some(byte) = token.get_mut(place) {
                *byte = input.byte();
            }
        }
        1 => {
            let place = at(input, token.len());
            token.insert(place, input.byte());
        }
        2 => {
            let place = at(input, token.len());
            let count = usize::from(input.byte());
            token.drain(place..(place + count).min(token.len()));
        }
        3 => {
            let (place, text) = (at(input, token.len()), input.text());
            token.splice(place..place, text.iter().copied());
        }
        // A whole segment: from another token, of bytes as they are, or of bytes encoded.
        4..=6 => {
            let (index, from) = (input.byte(), input.byte());
            let other = match operation % 10 {
                4 => segments(pick(from).as_bytes()).into_iter().nth(usize::from(index % 3)),
                5 => Some(input.text().to_vec()),
                _ => Some(encode(input.text()).into_bytes()),
            };
            let mut own = segments(token);
            if let (Some(slot), Some(other)) = (own.get_mut(usize::from(index % 3)), other) {
                *slot = other;
            }
            *token = own.join(&b'.');
        }
        // A bit of what a segment decodes to.
        7 => {
            let (index, place, byte) = (input.byte(), input.word(), input.byte());
            let mut own = segments(token);
            if let Some(slot) = own.get_mut(usize::from(index % 3))
                && let Ok(mut decoded) = URL_SAFE_NO_PAD.decode(slot.as_slice())
                && !decoded.is_empty()
            {
                let length = decoded.len();
                if let Some(slot) = decoded.get_mut(usize::from(place) % length) {
                    *slot ^= byte;
                }
                *slot = encode(decoded).into_bytes();
            }
            *token = own.join(&b'.');
        }
        8 => {
            let mut own = segments(token);
            let length = own.len();
            own.swap(usize::from(input.byte()) % length, usize::from(input.byte()) % length);
            *token = own.join(&b'.');
        }
        _ => token.extend_from_slice(b"="),
    }
}

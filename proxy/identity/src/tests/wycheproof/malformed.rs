//! What Wycheproof's vectors do to signatures, done to whole tokens of ours.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use policy::istio::KeySource;
use serde_json::json;

use crate::tests::{
    ISSUER, bearer, claims, offline, rule,
    signer::{Signer, b64},
};

/// The curves' orders (SEC 2 sections 2.4.2, 2.5.1, 2.6.1), big-endian.
const ORDERS: [(&str, &str); 3] = [
    ("ES256", "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551"),
    (
        "ES384",
        "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf\
         581a0db248b0a77aecec196accc52973",
    ),
    (
        "ES512",
        "01fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffa\
         51868783bf2f966b7fcc0148f709a5d03bb5c9b8899c47aebb6fb71e91386409",
    ),
];

/// Ed25519's (RFC 8032 section 5.1), little-endian.
const ED25519_ORDER: &str = "edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010";

fn hex(text: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(text.get(at..at + 2).unwrap(), 16).unwrap();
    (0..text.len()).step_by(2).map(digit).collect()
}

/// A signer and the proof that its tokens are asked about.
struct Bench {
    signer: Signer,
    /// `header.payload`
    signed: String,
    signature: Vec<u8>,
}

impl Bench {
    fn new(alg: &'static str) -> Self {
        let signer = Signer::new("key", alg);
        let header = json!({"alg": alg, "kid": "key"}).to_string();
        let signed = format!("{}.{}", b64(header), b64(claims(ISSUER).to_string()));
        let signature = signer.signature(signed.as_bytes());
        Self { signer, signed, signature }
    }

    /// Whether the whole room accepts the token with this text for a signature.
    async fn accepts_text(&self, signature: &str) -> bool {
        let authenticator = offline(&[(ISSUER, &self.signer)]);
        let rules = [Arc::new(rule(ISSUER, KeySource::Discovery))];
        let token = format!("{}.{signature}", self.signed);
        let found = bearer(&token).of(&authenticator, &rules).await;
        found.is_ok_and(|authenticated| authenticated.identity.is_some())
    }

    async fn accepts(&self, signature: &[u8]) -> bool {
        self.accepts_text(&b64(signature)).await
    }

    /// The genuine one is accepted, none of the others is; gives how many there were.
    async fn check(&self, malformed: &[(&str, Vec<u8>)]) -> usize {
        assert!(self.accepts(&self.signature).await, "{}: genuine", self.signer.alg);
        for (what, signature) in malformed {
            assert_ne!(*signature, self.signature, "{what} is genuine");
            assert!(!self.accepts(signature).await, "{}: {what} is accepted", self.signer.alg);
        }
        malformed.len()
    }
}

/// Sizes, and every bit of the first, the middle and the last byte.
fn of_any_kind(genuine: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let (length, half) = (genuine.len(), genuine.len() / 2);
    let mut all = vec![
        ("all zero", vec![0; length]),
        ("all ones", vec![0xff; length]),
        ("one", [&vec![0; length - 1][..], &[1]].concat()),
        ("short by its first byte", genuine[1..].to_vec()),
        ("short by its last byte", genuine[..length - 1].to_vec()),
        ("its first half", genuine[..half].to_vec()),
        ("its second half", genuine[half..].to_vec()),
        ("one byte", genuine[..1].to_vec()),
        ("a zero before", [&[0], genuine].concat()),
        ("a zero behind", [genuine, &[0]].concat()),
        ("twice", [genuine, genuine].concat()),
        ("garbage behind", [genuine, b"garbage"].concat()),
        ("backwards", genuine.iter().rev().copied().collect()),
    ];
    for at in [0, half, length - 1] {
        for bit in 0..8 {
            let mut changed = genuine.to_vec();
            changed[at] ^= 1 << bit;
            all.push(("a bit", changed));
        }
    }
    all
}

fn der(r: &[u8], s: &[u8], long_length: bool) -> Vec<u8> {
    let integer = |number: &[u8]| {
        let zeros = number.iter().take_while(|byte| **byte == 0).count();
        let digits = &number[zeros..];
        let sign: &[u8] = if digits[0] >= 0x80 { &[0] } else { &[] };
        [&[2, u8::try_from(sign.len() + digits.len()).unwrap()], sign, digits].concat()
    };
    let body = [integer(r), integer(s)].concat();
    let length = u8::try_from(body.len()).unwrap();
    let head: &[u8] = if long_length || length >= 0x80 { &[0x30, 0x81, length] } else { &[0x30, length] };
    [head, &body].concat()
}

/// `a - b`, big-endian, of one length.
fn minus(a: &[u8], b: &[u8]) -> Vec<u8> {
    let mut borrow = 0;
    let mut digits: Vec<u8> = a
        .iter()
        .zip(b)
        .rev()
        .map(|(a, b)| {
            let digit = i16::from(*a) - i16::from(*b) - borrow;
            borrow = i16::from(digit < 0);
            u8::try_from(digit.rem_euclid(256)).unwrap()
        })
        .collect();
    digits.reverse();
    digits
}

/// `a + b`, little-endian, of one length.
fn plus(a: &[u8], b: &[u8]) -> Vec<u8> {
    let mut carry = 0;
    a.iter()
        .zip(b)
        .map(|(a, b)| {
            let digit = u16::from(*a) + u16::from(*b) + carry;
            carry = digit >> 8;
            u8::try_from(digit & 0xff).unwrap()
        })
        .collect()
}

#[tokio::test]
async fn ecdsa_tokens() {
    for (alg, order) in ORDERS {
        let bench = Bench::new(alg);
        let order = hex(order);
        let (r, s) = bench.signature.split_at(order.len());
        let zero = vec![0; order.len()];
        let one = [&zero[1..], &[1]].concat();
        let join = |r: &[u8], s: &[u8]| [r, s].concat();
        let mut malformed = of_any_kind(&bench.signature);
        malformed.extend([
            ("r = 0", join(&zero, s)),
            ("s = 0", join(r, &zero)),
            ("r = n", join(&order, s)),
            ("s = n", join(r, &order)),
            ("r = s = n", join(&order, &order)),
            ("r = 1, s = 0", join(&one, &zero)),
            ("r = s = 1", join(&one, &one)),
            ("r = n - r", join(&minus(&order, r), s)),
            ("r and s exchanged", join(s, r)),
            ("r twice", join(r, r)),
            ("DER", der(r, s, false)),
            ("BER with a long length", der(r, s, true)),
            ("DER of zeros", vec![0x30, 6, 2, 1, 0, 2, 1, 0]),
            ("a zero before each", [&[0], r, &[0], s].concat()),
        ]);
        if alg == "ES512" {
            // The others' numbers leave no room above the order.
            malformed.push(("r = 2^528 - 1", join(&[0xff; 66], s)));
        }
        assert!(bench.check(&malformed).await > 45);
        // The other of two numbers with one meaning, which neither RFC 7518 nor Wycheproof refuses:
        // nothing of ours takes a token's text for its identity.
        assert!(bench.accepts(&join(r, &minus(&order, s))).await);
    }
}

#[tokio::test]
async fn eddsa_tokens() {
    let bench = Bench::new("EdDSA");
    let (r, s) = bench.signature.split_at(32);
    let (order, zero) = (hex(ED25519_ORDER), vec![0; 32]);
    let mut malformed = of_any_kind(&bench.signature);
    malformed.extend([
        ("s + L", [r, &plus(s, &order)].concat()),
        ("s = L", [r, &order].concat()),
        ("s = 0", [r, &zero].concat()),
        ("R = 0", [&zero, s].concat()),
        ("R the neutral point, s = 0", [&[1], &zero[1..], &zero].concat()),
        ("R = p", [&[0xed], &[0xff; 30][..], &[0x7f], s].concat()),
        ("R and s exchanged", [s, r].concat()),
    ]);
    assert!(bench.check(&malformed).await > 40);
}

#[tokio::test]
async fn rsa_tokens() {
    for (alg, others) in [
        ("RS256", ["RS384", "RS512", "PS256"]),
        ("RS384", ["RS256", "RS512", "PS384"]),
        ("RS512", ["RS256", "RS384", "PS512"]),
        ("PS256", ["RS256", "PS384", "PS512"]),
        ("PS384", ["RS384", "PS256", "PS512"]),
        ("PS512", ["RS512", "PS256", "PS384"]),
    ] {
        let mut bench = Bench::new(alg);
        let jwk = bench.signer.bare_jwk();
        let modulus = URL_SAFE_NO_PAD.decode(jwk["n"].as_str().unwrap()).unwrap();
        let one = [&vec![0; modulus.len() - 1][..], &[1]].concat();
        let mut malformed = of_any_kind(&bench.signature);
        malformed.extend([
            ("n", modulus.clone()),
            ("n - 1", minus(&modulus, &one)),
            ("n - signature", minus(&modulus, &bench.signature)),
        ]);
        let signed = bench.signed.clone();
        for other in others {
            bench.signer = bench.signer.for_alg(other);
            malformed.push(("another algorithm's", bench.signer.signature(signed.as_bytes())));
        }
        bench.signer = bench.signer.for_alg(alg);
        assert!(bench.check(&malformed).await > 40);
    }
}

/// The signature's text has one form, but for whole padding.
#[tokio::test]
async fn encodings_of_signatures() {
    for alg in ["ES256", "EdDSA", "RS256"] {
        let bench = Bench::new(alg);
        let text = b64(&bench.signature);
        // 64 and 256 bytes leave two characters of padding; the last character has four idle bits.
        let last = text.chars().last().unwrap();
        let next = |c: char| char::from_u32(u32::from(c) + 1).unwrap();
        assert!(bench.accepts_text(&text).await);
        assert!(bench.accepts_text(&format!("{text}==")).await);
        let swapped: String = text
            .chars()
            .map(|c| {
                if c == '-' {
                    '+'
                } else if c == '_' {
                    '/'
                } else {
                    c
                }
            })
            .collect();
        let mut wrong = vec![
            String::new(),
            "=".to_owned(),
            format!("{text}="),
            format!("{text}==="),
            format!("{text}A"),
            format!("{text}."),
            format!(" {text}"),
            format!("{text},{text}"),
            format!("{text}.{text}"),
            format!("{}\u{e4}", &text[..text.len() - 1]),
            format!("{}{}", &text[..text.len() - 1], next(last)),
            format!("{}%3D", text),
            text.to_ascii_uppercase(),
            text.bytes().map(|byte| format!("{byte:02x}")).collect(),
        ];
        if swapped != text {
            wrong.push(swapped);
        }
        for signature in wrong {
            assert!(!bench.accepts_text(&signature).await, "{alg}: {signature:?} for {text:?}");
        }
    }
}

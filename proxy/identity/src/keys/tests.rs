//! Algorithms and key documents. Rows of RFC 8725 are named by section.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::{Value, json};

use super::*;
use crate::{
    settings::TokenSettings,
    tests::{
        ISSUER, claims,
        signer::{Signer, b64},
    },
};

const ALL: [&str; 10] =
    ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"];

fn set(keys: &[Value]) -> KeySet {
    KeySet::parse(json!({ "keys": keys }).to_string().as_bytes(), 64).unwrap()
}

fn refused(keys: &[Value]) -> JwksError {
    KeySet::parse(json!({ "keys": keys }).to_string().as_bytes(), 64).unwrap_err()
}

fn verify(set: &KeySet, token: &str) -> Result<Fingerprint, NotVerified> {
    set.verify(&Token::parse(token.as_bytes(), &TokenSettings::default()).unwrap())
}

fn reason(set: &KeySet, token: &str) -> Reason {
    verify(set, token).unwrap_err().reason
}

#[test]
fn every_algorithm_verifies_and_no_key_verifies_anothers_token() {
    let signers: Vec<Signer> = ALL.iter().map(|alg| Signer::new(alg, alg)).collect();
    for (index, signer) in signers.iter().enumerate() {
        let token = signer.token(&claims(ISSUER));
        for (other_index, other) in signers.iter().enumerate() {
            let mut jwk = other.bare_jwk();
            let by_kid = verify(&set(&[jwk.clone()]), &token).is_ok();
            // The same name for every key: only the signature tells them apart.
            jwk["kid"] = json!(signer.kid);
            let by_key = verify(&set(&[jwk]), &token).is_ok();
            assert_eq!(
                (by_kid, by_key),
                (index == other_index, index == other_index),
                "{} {}",
                signer.alg,
                other.alg
            );
        }
        let bare = signer.bare_jwk();
        assert!(verify(&set(&[signer.jwk(), bare]), &token).is_ok());
    }
}

#[test]
fn a_changed_token_does_not_verify() {
    for alg in ALL {
        let signer = Signer::new("k", alg);
        let set = set(&[signer.jwk()]);
        let token = signer.token(&claims(ISSUER));
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let (header, _) = signed.split_once('.').unwrap();
        let other = b64(claims("https://other").to_string());
        assert_eq!(
            reason(&set, &format!("{header}.{other}.{signature}")),
            Reason::VerificationFails,
            "{alg}"
        );
        let zeros = b64(vec![0; signer.signature(b"x").len()]);
        assert_eq!(reason(&set, &format!("{signed}.{zeros}")), Reason::VerificationFails, "{alg}");
    }
}

#[test]
fn rfc_8725_3_1_the_keys_own_algorithm_is_the_only_one() {
    let signer = Signer::new("k", "RS256");
    let jwk = signer.jwk();
    let signer = signer.for_alg("PS256");
    let token = signer.token(&claims(ISSUER));
    assert_eq!(reason(&set(&[jwk]), &token), Reason::NoMatchingKey);
    assert!(verify(&set(&[signer.bare_jwk()]), &token).is_ok());
}

#[test]
fn rfc_8725_2_1_a_public_key_is_never_a_shared_secret() {
    use aws_lc_rs::hmac;
    let signer = Signer::new("k", "RS256");
    let header = json!({"alg": "HS256", "kid": "k"}).to_string();
    let signed = format!("{}.{}", b64(header), b64(claims(ISSUER).to_string()));
    for secret in [signer.jwk().to_string(), signer.jwk()["n"].as_str().unwrap().to_owned()] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let token = format!("{signed}.{}", b64(hmac::sign(&key, signed.as_bytes())));
        assert_eq!(reason(&set(&[signer.jwk()]), &token), Reason::NoMatchingKey);
        assert_eq!(reason(&set(&[signer.bare_jwk()]), &token), Reason::VerificationFails);
        let failed = verify(&set(&[signer.jwk()]), &token).unwrap_err();
        assert!(!failed.newer_keys_may_help, "no provider is asked for a shared secret");
    }
    // Envoy would verify with this key: a stated difference.
    let secret = [7_u8; 32];
    let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
    let token = format!("{signed}.{}", b64(hmac::sign(&key, signed.as_bytes())));
    let oct = json!({"kty": "oct", "kid": "k", "alg": "HS256", "k": b64(secret)});
    assert_eq!(refused(std::slice::from_ref(&oct)), JwksError::NoUsableKey);
    assert_eq!(reason(&set(&[oct, signer.jwk()]), &token), Reason::NoMatchingKey);
}

#[test]
fn a_curve_has_one_algorithm() {
    let p384 = Signer::new("k", "ES384");
    let token = p384.sign(&json!({"alg": "ES256", "kid": "k"}), "{}");
    assert_eq!(reason(&set(&[p384.bare_jwk()]), &token), Reason::VerificationFails);
    let mut jwk = p384.bare_jwk();
    jwk["alg"] = json!("ES256");
    assert_eq!(refused(&[jwk]), JwksError::NoUsableKey);
}

#[test]
fn kid_picks_the_key_and_without_one_all_are_tried() {
    let (a, b) = (Signer::new("a", "ES256"), Signer::new("b", "ES256"));
    let both = set(&[a.jwk(), b.jwk()]);
    let claims = claims(ISSUER).to_string();
    assert!(verify(&both, &b.sign(&json!({"alg": "ES256", "kid": "b"}), &claims)).is_ok());
    assert!(verify(&both, &b.sign(&json!({"alg": "ES256"}), &claims)).is_ok());
    assert!(verify(&both, &b.sign(&json!({"alg": "ES256", "kid": ""}), &claims)).is_ok());
    let wrong = verify(&both, &b.sign(&json!({"alg": "ES256", "kid": "a"}), &claims)).unwrap_err();
    assert_eq!(wrong, NotVerified { reason: Reason::VerificationFails, newer_keys_may_help: false });
    let unknown = verify(&both, &b.sign(&json!({"alg": "ES256", "kid": "c"}), &claims)).unwrap_err();
    assert_eq!(unknown, NotVerified { reason: Reason::NoMatchingKey, newer_keys_may_help: true });
    // A key without kid is tried for every token; two keys may have one kid.
    let mut nameless = b.jwk();
    nameless.as_object_mut().unwrap().shift_remove("kid");
    assert!(verify(&set(&[nameless]), &b.sign(&json!({"alg": "ES256", "kid": "c"}), &claims)).is_ok());
    let mut twin = a;
    twin.kid = "b".to_owned();
    assert!(verify(&set(&[twin.jwk(), b.jwk()]), &b.token(&json!({}))).is_ok());
}

#[test]
fn keys_that_are_not_for_signatures_are_skipped() {
    let signer = Signer::new("k", "RS256");
    for change in [
        json!({"use": "enc"}),
        json!({"use": "enc", "alg": "RSA-OAEP"}),
        json!({"use": 1}),
        json!({"alg": "RSA-OAEP"}),
        json!({"alg": "HS256"}),
        json!({"alg": "none"}),
        json!({"alg": null}),
        json!({"key_ops": ["encrypt"]}),
        json!({"key_ops": "verify"}),
        json!({"kid": 7}),
        json!({"kty": "EC"}),
        json!({"kty": "rsa"}),
        json!({"n": "!!"}),
        json!({"n": ""}),
        json!({"e": b64([0])}),
        json!({"e": b64([1])}),
        json!({"e": b64([2])}),
        json!({"e": b64([1, 0, 2])}),
    ] {
        let jwk = crate::tests::with(signer.jwk(), change.clone());
        assert_eq!(refused(std::slice::from_ref(&jwk)), JwksError::NoUsableKey, "{change}");
        let mixed = set(&[jwk, signer.jwk()]);
        assert_eq!((mixed.len(), mixed.skipped()), (1, 1), "{change}");
    }
    let verifying = crate::tests::with(signer.jwk(), json!({"key_ops": ["verify"]}));
    assert_eq!(set(&[verifying]).len(), 1);
}

#[test]
fn weak_and_malformed_keys_are_skipped() {
    let n = |bytes: usize| {
        let mut n = vec![0xff_u8; bytes];
        n.insert(0, 0); // A leading zero does not make it longer.
        json!({"kty": "RSA", "n": b64(n), "e": "AQAB"})
    };
    for jwk in [n(128), n(255), n(1_025)] {
        assert_eq!(refused(&[jwk]), JwksError::NoUsableKey);
    }
    let ec = Signer::new("k", "ES256").jwk();
    let ed = Signer::new("k", "EdDSA").jwk();
    for jwk in [
        crate::tests::with(ec.clone(), json!({"crv": "secp256k1"})),
        crate::tests::with(ec.clone(), json!({"crv": "P-384", "alg": "ES384"})),
        crate::tests::with(ec.clone(), json!({"x": b64([1_u8; 32])})),
        crate::tests::with(ec.clone(), json!({"x": b64([1_u8; 31])})),
        crate::tests::with(ec.clone(), json!({"crv": "Ed25519"})),
        crate::tests::without(ec, "crv"),
        crate::tests::with(ed.clone(), json!({"crv": "X25519"})),
        crate::tests::with(ed.clone(), json!({"crv": "P-256"})),
        crate::tests::with(ed, json!({"x": b64([1_u8; 33])})),
        json!({}),
    ] {
        assert_eq!(refused(std::slice::from_ref(&jwk)), JwksError::NoUsableKey, "{jwk}");
    }
}

#[test]
fn cve_2026_31837_a_document_with_a_private_key_is_refused_whole() {
    let (good, lost) = (Signer::new("good", "RS256"), Signer::new("lost", "ES256"));
    for member in ["d", "p", "q", "dp", "dq", "qi", "oth"] {
        let leaked = crate::tests::with(lost.jwk(), json!({ member: "AQAB" }));
        assert_eq!(refused(&[good.jwk(), leaked]), JwksError::PrivateKey, "{member}");
    }
    // Whatever the key is for.
    let leaked = crate::tests::with(lost.jwk(), json!({"d": "AQAB", "use": "enc"}));
    assert_eq!(refused(&[good.jwk(), leaked]), JwksError::PrivateKey);
}

#[test]
fn documents_that_are_no_jwks_are_refused() {
    let parse = |text: &str| KeySet::parse(text.as_bytes(), 2).unwrap_err();
    assert_eq!(parse("<html>secret</html>"), JwksError::NotJson);
    assert_eq!(parse(r#"{"keys":[],"keys":[]}"#), JwksError::NotJson);
    assert_eq!(parse("{}"), JwksError::NoKeys);
    assert_eq!(parse(r#"{"keys":{}}"#), JwksError::BadKeys);
    assert_eq!(parse(r#"{"keys":["x"]}"#), JwksError::BadKeys);
    assert_eq!(parse(r#"{"keys":[]}"#), JwksError::NoUsableKey);
    assert_eq!(parse(r#"{"keys":[{},{},{}]}"#), JwksError::TooManyKeys);
}

#[test]
fn an_ed25519_signature_has_64_bytes() {
    let signer = Signer::new("k", "EdDSA");
    let header = b64(json!({"alg": "EdDSA", "kid": "k"}).to_string());
    let token = format!("{header}.{}.{}", b64("{}"), b64([0; 63]));
    assert_eq!(reason(&set(&[signer.jwk()]), &token), Reason::Ed25519SignatureLength);
}

#[test]
fn keys_survive_the_way_to_disk_and_their_order_does_not_matter() {
    let signers: Vec<Signer> = ALL.iter().map(|alg| Signer::new(alg, alg)).collect();
    let mut jwks: Vec<Value> = signers.iter().map(Signer::jwk).collect();
    let fresh = set(&jwks);
    let again = KeySet::parse(fresh.to_json().to_string().as_bytes(), 64).unwrap();
    assert_eq!(fresh.generation(), again.generation());
    jwks.reverse();
    assert_eq!(fresh.generation(), set(&jwks).generation());
    jwks.pop();
    assert_ne!(fresh.generation(), set(&jwks).generation());
    for signer in &signers {
        assert!(verify(&again, &signer.token(&claims(ISSUER))).is_ok(), "{}", signer.alg);
    }
}

#[test]
fn rfc_8725_3_10_keys_and_addresses_in_the_token_are_not_believed() {
    let (own, attacker) = (Signer::new("k", "RS256"), Signer::new("evil", "RS256"));
    let set = set(&[own.jwk()]);
    let claims = claims(ISSUER).to_string();
    for kid in ["k", "", "../../../../dev/null", "' OR 1=1 --", "http://evil/jwks", "evil"] {
        let header = json!({
            "alg": "RS256", "kid": kid, "jwk": attacker.jwk(), "jku": "http://evil/jwks",
            "x5u": "http://evil/x5c", "x5c": ["MIIB"], "typ": "JWT",
        });
        assert!(verify(&set, &attacker.sign(&header, &claims)).is_err(), "{kid}");
        let own_token = own.sign(&header, &claims);
        assert_eq!(verify(&set, &own_token).is_ok(), kid == "k" || kid.is_empty(), "{kid}");
    }
}

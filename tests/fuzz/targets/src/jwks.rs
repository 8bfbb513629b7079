//! JWKS documents: no key that must not verify is ever usable.

use base64::{
    Engine as _,
    alphabet::URL_SAFE,
    engine::{
        DecodePaddingMode,
        general_purpose::{GeneralPurpose, GeneralPurposeConfig},
    },
};
use serde_json::Value;

/// Most keys, as the settings' default has it.
const MOST: usize = 64;
const PRIVATE: [&str; 7] = ["d", "p", "q", "dp", "dq", "qi", "oth"];
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// The bytes are a JWKS document, as a provider sends it.
///
/// - Usable keys are RSA from 2048 bits with a usual exponent, EC on a named curve or Ed25519: never a shared
///   secret, never more than the limit, never one that the document gives another use.
/// - A document that publishes a private key gives none.
/// - What is kept of the keys reads as the same keys, and has no private member.
pub fn jwks(data: &[u8]) {
    let Ok((kept, skipped)) = identity::fuzzing::usable_keys(data, MOST) else { return };
    let Ok(document) = serde_json::from_slice::<Value>(data) else { panic!("usable keys, but no JSON") };
    let Some(entries) = document.get("keys").and_then(Value::as_array) else { panic!("keys of no list") };
    assert!(entries.len() <= MOST, "{} keys", entries.len());
    for member in PRIVATE {
        let stolen = entries.iter().any(|entry| entry.get(member).is_some());
        assert!(!stolen, "keys of a document with a private {member}");
    }
    let keys = kept.get("keys").and_then(Value::as_array).cloned().unwrap_or_default();
    assert!(!keys.is_empty() && keys.len() + skipped == entries.len());
    for key in &keys {
        check(key);
        assert!(entries.iter().any(|entry| is_source(entry, key)), "a key of nowhere: {key}");
    }
    let again = identity::fuzzing::usable_keys(kept.to_string().as_bytes(), MOST);
    assert_eq!(again, Ok((kept, 0)), "kept keys read differently");
}

fn text<'a>(key: &'a Value, member: &str) -> &'a str {
    key.get(member).and_then(Value::as_str).unwrap_or_default()
}

fn bytes(key: &Value, member: &str) -> Vec<u8> {
    LENIENT.decode(text(key, member)).unwrap_or_default()
}

/// Strong enough, and nothing but public.
pub(crate) fn check(key: &Value) {
    let algorithm = text(key, "alg");
    let coordinates = (bytes(key, "x").len(), bytes(key, "y").len());
    match (text(key, "kty"), text(key, "crv")) {
        ("RSA", "") => {
            let modulus = bytes(key, "n");
            let bits = modulus.len() * 8 - modulus.first().map_or(0, |byte| byte.leading_zeros() as usize);
            assert!((2048..=8192).contains(&bits), "{bits} bits");
            assert!(matches!(bytes(key, "e").as_slice(), [3] | [1, 0, 1]), "exponent of {key}");
            assert!(matches!(algorithm.get(..2), None | Some("RS" | "PS")), "{key}");
        }
        ("EC", "P-256") => assert!(coordinates == (32, 32) && matches!(algorithm, "" | "ES256"), "{key}"),
        ("EC", "P-384") => assert!(coordinates == (48, 48) && matches!(algorithm, "" | "ES384"), "{key}"),
        ("EC", "P-521") => assert!(coordinates == (66, 66) && matches!(algorithm, "" | "ES512"), "{key}"),
        ("OKP", "Ed25519") => assert!(coordinates == (32, 0) && matches!(algorithm, "" | "EdDSA"), "{key}"),
        _ => panic!("usable: {key}"),
    }
    let members = key.as_object().into_iter().flatten().map(|(name, _)| name.as_str());
    for member in members {
        assert!(
            matches!(member, "kty" | "n" | "e" | "crv" | "x" | "y" | "use" | "kid" | "alg"),
            "{member} is kept"
        );
    }
}

/// Whether the document itself gives this key, for signatures.
fn is_source(entry: &Value, key: &Value) -> bool {
    // What a kind of key does not have may stand there and mean nothing.
    let of_kind = |member: &str| key.get(member).is_some();
    let same = |member: &str| text(entry, member) == text(key, member);
    let number = |member: &str| {
        let without_zeros =
            |bytes: Vec<u8>| bytes.into_iter().skip_while(|byte| *byte == 0).collect::<Vec<_>>();
        without_zeros(bytes(entry, member)) == without_zeros(bytes(key, member))
    };
    let for_signatures = entry.get("use").is_none_or(|used| used == "sig");
    let verifies = entry.get("key_ops").is_none_or(|operations| {
        operations.as_array().is_some_and(|list| list.iter().any(|one| one == "verify"))
    });
    same("kty")
        && (!of_kind("crv") || same("crv"))
        && same("alg")
        && same("kid")
        && ["n", "e", "x"].into_iter().all(|member| !of_kind(member) || number(member))
        && for_signatures
        && verifies
}

//! What one certificate says of itself: names, key, signature, usages.

use policy::SpiffeId;
use rustls_pki_types::CertificateDer;
use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, ParsedExtension},
    oid_registry::{
        OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_NIST_EC_P521, OID_PKCS1_RSAENCRYPTION,
        OID_PKCS1_RSASSAPSS, OID_PKCS1_SHA256WITHRSA, OID_PKCS1_SHA384WITHRSA, OID_PKCS1_SHA512WITHRSA,
        OID_SIG_ECDSA_WITH_SHA256, OID_SIG_ECDSA_WITH_SHA384, OID_SIG_ECDSA_WITH_SHA512, OID_SIG_ED25519,
        OID_X509_EXT_SUBJECT_ALT_NAME, Oid,
    },
    prelude::FromDer,
    public_key::PublicKey,
};

use super::{IdError, PeerError, parse_id};

/// RSA keys of fewer bits are refused (SP 800-131A rev. 2; as the verifier of signatures has it).
const RSA_BITS_MIN: usize = 2048;
/// RSA keys of more bits cost too much to check.
const RSA_BITS_MAX: usize = 8192;

/// Reads a certificate, whole.
pub(super) fn read<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, PeerError> {
    match X509Certificate::from_der(der.as_ref()) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(PeerError::Malformed),
    }
}

/// The one SPIFFE id that a leaf names (X509-SVID §2).
pub(super) fn spiffe_id(leaf: &X509Certificate<'_>) -> Result<SpiffeId, PeerError> {
    let uri = only_uri(leaf)?;
    parse_id(uri).map_err(|error| match error {
        IdError::Invalid(_) => PeerError::InvalidId,
        IdError::NotAWorkload => PeerError::NotAWorkload,
    })
}

fn only_uri<'a>(leaf: &'a X509Certificate<'_>) -> Result<&'a str, PeerError> {
    let extension = leaf
        .get_extension_unique(&OID_X509_EXT_SUBJECT_ALT_NAME)
        .map_err(|_| PeerError::Malformed)?
        .ok_or(PeerError::NoSan)?;
    let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() else {
        return Err(PeerError::Malformed);
    };
    let mut found = None;
    for name in &names.general_names {
        match name {
            GeneralName::URI(uri) if found.is_none() => found = Some(*uri),
            GeneralName::URI(_) => return Err(PeerError::ManyUriSans),
            // It may be a URI in other bytes: whatever it is, it was not read.
            GeneralName::Invalid(..) => return Err(PeerError::Malformed),
            _ => {}
        }
    }
    found.ok_or(PeerError::NoUriSan)
}

/// X509-SVID §4.1, §4.3: a leaf is no CA and says that its key signs, and signs no certificates.
pub(super) fn check_leaf(leaf: &X509Certificate<'_>) -> Result<(), PeerError> {
    let constraints = leaf.basic_constraints().map_err(|_| PeerError::Malformed)?;
    if constraints.is_some_and(|constraints| constraints.value.ca) {
        return Err(PeerError::CaAsLeaf);
    }
    let usage = leaf.key_usage().map_err(|_| PeerError::Malformed)?.ok_or(PeerError::LeafKeyUsage)?.value;
    if !usage.digital_signature() || usage.key_cert_sign() || usage.crl_sign() {
        return Err(PeerError::LeafKeyUsage);
    }
    Ok(())
}

/// X509-SVID §4.3: who signs certificates must be allowed to.
pub(super) fn check_issuer(issuer: &X509Certificate<'_>) -> Result<(), PeerError> {
    let constraints = issuer.basic_constraints().map_err(|_| PeerError::Malformed)?;
    if !constraints.is_some_and(|constraints| constraints.value.ca) {
        return Err(PeerError::IssuerNotCa);
    }
    let usage = issuer.key_usage().map_err(|_| PeerError::Malformed)?.ok_or(PeerError::IssuerKeyUsage)?;
    if usage.value.key_cert_sign() { Ok(()) } else { Err(PeerError::IssuerKeyUsage) }
}

/// Key and signature are of kinds that still hold.
pub(super) fn check_strength(certificate: &X509Certificate<'_>) -> Result<(), PeerError> {
    check_key(certificate)?;
    check_signature(certificate)
}

/// The key alone: a root's own signature says nothing.
pub(super) fn check_key(certificate: &X509Certificate<'_>) -> Result<(), PeerError> {
    let key = certificate.public_key();
    let kind = &key.algorithm.algorithm;
    if *kind == OID_SIG_ED25519 {
        return Ok(());
    }
    if *kind == OID_KEY_TYPE_EC_PUBLIC_KEY {
        let curve = key.algorithm.parameters.as_ref().and_then(|any| any.as_oid().ok());
        let curve = curve.ok_or(PeerError::WeakCurve)?;
        let strong = [OID_EC_P256, OID_NIST_EC_P384, OID_NIST_EC_P521].contains(&curve);
        return if strong { Ok(()) } else { Err(PeerError::WeakCurve) };
    }
    if *kind != OID_PKCS1_RSAENCRYPTION {
        return Err(PeerError::UnsupportedKey);
    }
    match key.parsed() {
        Ok(PublicKey::RSA(rsa)) => match bits(rsa.modulus) {
            ..RSA_BITS_MIN => Err(PeerError::WeakKey),
            RSA_BITS_MIN..=RSA_BITS_MAX => Ok(()),
            _ => Err(PeerError::UnsupportedKey),
        },
        _ => Err(PeerError::Malformed),
    }
}

/// Bits of an unsigned big-endian number.
fn bits(number: &[u8]) -> usize {
    let first = number.iter().position(|byte| *byte != 0).unwrap_or(number.len());
    let rest = number.get(first..).unwrap_or_default();
    let unused = rest.first().map_or(0, |byte| byte.leading_zeros() as usize);
    (rest.len() * 8).saturating_sub(unused)
}

fn check_signature(certificate: &X509Certificate<'_>) -> Result<(), PeerError> {
    const STRONG: [Oid<'static>; 8] = [
        OID_PKCS1_SHA256WITHRSA,
        OID_PKCS1_SHA384WITHRSA,
        OID_PKCS1_SHA512WITHRSA,
        OID_PKCS1_RSASSAPSS,
        OID_SIG_ECDSA_WITH_SHA256,
        OID_SIG_ECDSA_WITH_SHA384,
        OID_SIG_ECDSA_WITH_SHA512,
        OID_SIG_ED25519,
    ];
    let algorithm = &certificate.signature_algorithm.algorithm;
    if STRONG.contains(algorithm) { Ok(()) } else { Err(PeerError::WeakSignature) }
}

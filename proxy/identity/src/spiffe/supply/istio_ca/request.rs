//! A key, and the request to have it certified.

use policy::SpiffeId;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, SanType};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroize;

use super::super::SupplyError;

/// A PKCS#10 request (PEM) whose only name is the SPIFFE id, and its key (P-256).
pub(super) fn make(id: &SpiffeId) -> Result<(String, PrivateKeyDer<'static>), SupplyError> {
    let failed = |error: rcgen::Error| SupplyError::Key(id.to_string(), error.to_string());
    let mut pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(id.to_string().try_into().map_err(failed)?)];
    let csr = params.serialize_request(&pair).and_then(|csr| csr.pem()).map_err(failed)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pair.serialize_der()));
    pair.zeroize();
    Ok((csr, key))
}

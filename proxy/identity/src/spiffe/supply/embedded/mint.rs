//! The certificates of the embedded authority, as X509-SVID §4 has them.

use std::time::Duration;

use policy::SpiffeId;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use zeroize::Zeroize;

use super::super::SupplyError;

/// How far `notBefore` lies in the past: peers' clocks may be a little slow.
const CLOCK_SKEW_SECONDS: i64 = 60;

/// Begin and end, in Unix seconds.
type Life = (i64, i64);

pub(super) fn root(
    trust_domain: &str,
    life: Life,
) -> Result<(CertificateDer<'static>, KeyPair), SupplyError> {
    let key = key()?;
    let name = format!("{trust_domain} root {}", life.0);
    let params = authority(trust_domain, &name, life, BasicConstraints::Constrained(1))?;
    let certificate = params.self_signed(&key).map_err(failed)?;
    Ok((certificate.der().clone(), key))
}

pub(super) fn intermediate(
    trust_domain: &str,
    life: Life,
    root: &Issuer<'static, KeyPair>,
) -> Result<(CertificateDer<'static>, Issuer<'static, KeyPair>), SupplyError> {
    let key = key()?;
    let name = format!("{trust_domain} intermediate {}", life.0);
    let mut params = authority(trust_domain, &name, life, BasicConstraints::Constrained(0))?;
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, root).map_err(failed)?;
    Ok((certificate.der().clone(), Issuer::new(params, key)))
}

/// No subject: the SPIFFE id is the name, and then its extension is critical (RFC 5280 §4.1.2.6).
pub(super) fn leaf(
    id: &SpiffeId,
    life: Life,
    issuer: &Issuer<'static, KeyPair>,
) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), SupplyError> {
    let mut pair = key()?;
    let mut params = params(life)?;
    let uri = id.to_string().try_into().map_err(failed)?;
    params.subject_alt_names = vec![SanType::URI(uri)];
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = params.signed_by(&pair, issuer).map_err(failed)?;
    let key = PrivatePkcs8KeyDer::from(pair.serialize_der());
    pair.zeroize();
    Ok((certificate.der().clone(), PrivateKeyDer::Pkcs8(key)))
}

fn authority(
    trust_domain: &str,
    name: &str,
    life: Life,
    constraints: BasicConstraints,
) -> Result<CertificateParams, SupplyError> {
    let mut params = params(life)?;
    params.distinguished_name.push(DnType::OrganizationName, trust_domain);
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(constraints);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn params((begin, end): Life) -> Result<CertificateParams, SupplyError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let at = |time: i64| {
        let since = Duration::from_secs(u64::try_from(time).unwrap_or(0));
        epoch.checked_add(since.try_into().ok()?)
    };
    let outside = || SupplyError::Sign("a time that a certificate cannot state".to_owned());
    params.not_before = at(begin - CLOCK_SKEW_SECONDS).ok_or_else(outside)?;
    params.not_after = at(end).ok_or_else(outside)?;
    Ok(params)
}

fn key() -> Result<KeyPair, SupplyError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)
}

fn failed(error: rcgen::Error) -> SupplyError {
    SupplyError::Sign(error.to_string())
}

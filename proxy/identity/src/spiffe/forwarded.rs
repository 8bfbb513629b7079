//! `x-forwarded-client-cert` as Istio sets Envoy up: who the verified client is, told to the workload.

use std::fmt::Write;

use aws_lc_rs::digest::{SHA256, digest};
use policy::SpiffeId;
use rustls_pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;

use super::{Peer, PeerError, shape, subject};

/// Longest subject told; a longer one is left out.
const SUBJECT_BYTES: usize = 1024;

/// The header's value: `By`, `Hash`, `Subject`, `URI` and, where there are, `DNS`
/// (Envoy: `forward_client_cert_details`, `set_current_client_cert_details` with subject, uri, dns).
/// `leaf` must have been verified; `by` is our own workload.
///
/// # Errors
/// [`PeerError`] where it cannot be read, which no verified leaf brings about.
pub fn forwarded_client_cert(
    by: &SpiffeId,
    leaf: &CertificateDer<'_>,
    peer: &Peer,
) -> Result<String, PeerError> {
    let certificate = shape::read(leaf)?;
    let mut text = format!("By={by};Hash=");
    for byte in digest(&SHA256, leaf.as_ref()).as_ref() {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    let subject = subject::rfc2253(certificate.subject());
    let subject = if subject.len() <= SUBJECT_BYTES { subject.as_str() } else { "" };
    let _ = write!(text, ";Subject=\"{subject}\"");
    let _ = write!(text, ";URI={}", peer.id);
    let names = certificate.subject_alternative_name().map_err(|_| PeerError::Malformed)?;
    for name in names.iter().flat_map(|names| &names.value.general_names) {
        if let GeneralName::DNSName(name) = name
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._*".contains(&byte))
        {
            let _ = write!(text, ";DNS={name}");
        }
    }
    Ok(text)
}

//! The order of a chain.

use rustls_pki_types::CertificateDer;

use crate::spiffe::shape;

/// Leaf first, as it was given; peers expect each certificate to be signed by the next (RFC 8446 §4.4.2).
pub(in super::super) fn ordered(mut issuers: Vec<CertificateDer<'static>>) -> Vec<CertificateDer<'static>> {
    let mut chain: Vec<_> = issuers.drain(..issuers.len().min(1)).collect();
    while let Some(next) = chain.last().and_then(|last| issuers.iter().position(|one| has_signed(one, last)))
    {
        chain.push(issuers.swap_remove(next));
    }
    // What does not belong to it is of no use to a peer.
    chain
}

fn has_signed(issuer: &CertificateDer<'_>, signed: &CertificateDer<'_>) -> bool {
    match (shape::read(issuer), shape::read(signed)) {
        (Ok(issuer), Ok(signed)) => issuer.subject().as_raw() == signed.issuer().as_raw(),
        _ => false,
    }
}

//! What the authority answered: a leaf, those between, and roots.

use policy::SpiffeId;
use rustls_pki_types::{CertificateDer, pem::PemObject};

use super::super::{Material, SupplyError, Svid, remote::ordered};
use crate::spiffe::{Bundle, TrustBundles, shape};

/// Most certificates in an answer.
const CERTIFICATES: usize = 64;

/// An answer whose parts can be read.
pub(super) struct Answer {
    /// Leaf first, then each one's issuer; no roots.
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) roots: Bundle,
}

impl Answer {
    /// Each text holds one certificate or more, PEM. The roots are in the last (several while they
    /// rotate); there may be others of theirs between.
    pub(super) fn read(texts: &[String]) -> Result<Self, String> {
        let mut all = Vec::new();
        let mut last_from = 0;
        for text in texts {
            last_from = all.len();
            for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
                all.push(certificate.map_err(|error| format!("it is not PEM: {error}"))?);
                if all.len() > CERTIFICATES {
                    return Err(format!("more than {CERTIFICATES} certificates"));
                }
            }
        }
        let tail = all.split_off(last_from.max(1).min(all.len()));
        let (mut roots, others): (Vec<_>, Vec<_>) = tail.into_iter().partition(is_root);
        all.extend(others);
        // Istio's own makefiles put the root into the chain too. No peer needs it (RFC 8446 §4.4.2).
        all.retain(|one| !roots.contains(one));
        if roots.is_empty() && all.len() > 1 {
            // A plugged-in authority's root may itself be signed by one that the mesh does not know.
            roots.extend(all.pop());
        }
        if all.is_empty() {
            return Err("its chain is empty".to_owned());
        }
        if roots.is_empty() {
            return Err("its chain names no root".to_owned());
        }
        let roots = Bundle::from_roots(roots).map_err(|error| format!("its root: {error}"))?;
        Ok(Self { chain: ordered(all), roots })
    }
}

/// Checks that it holds by its own roots; gives its end, in Unix seconds.
pub(super) fn check(
    id: &SpiffeId,
    material: &Material,
    roots: &Bundle,
    now: i64,
) -> Result<i64, SupplyError> {
    let trust = TrustBundles::new(0).with_domain(&id.trust_domain, roots.clone())?;
    let copy = Material { chain: material.chain.clone(), key: material.key.clone_key() };
    Ok(Svid::new(id, copy, &trust, now)?.not_after())
}

fn is_root(der: &CertificateDer<'_>) -> bool {
    shape::read(der).is_ok_and(|one| one.issuer().as_raw() == one.subject().as_raw())
}

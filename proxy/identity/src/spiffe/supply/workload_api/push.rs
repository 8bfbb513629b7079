//! One message of the Workload API: everything that we are entitled to, at this moment.

use std::collections::HashMap;

use policy::SpiffeId;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};
use zeroize::Zeroize;

use super::super::{
    Known, Material, SupplyError,
    remote::{
        messages::{X509Svid, X509SvidResponse},
        ordered,
    },
};
use crate::spiffe::{Bundle, BundleError, IdError, PeerError, id::check_trust_domain, parse_id};

/// Most certificates in one chain or bundle.
const CERTIFICATES: usize = 128;
/// Most foreign trust domains.
const FEDERATED: usize = 256;

/// What was said.
#[derive(Default)]
pub(super) struct Push {
    /// With the reason where one cannot be used.
    pub(super) svids: HashMap<SpiffeId, Result<Material, String>>,
    pub(super) known: Known,
}

impl Push {
    /// Takes it apart. Whether a certificate holds is checked where it is taken into service.
    ///
    /// # Errors
    /// [`SupplyError`]: what it says of our own trust domains or of revocation cannot be used, so
    /// that nothing of it may. Foreign roots that cannot be used vouch for nobody, and are told of.
    pub(super) fn read(said: X509SvidResponse) -> Result<Self, SupplyError> {
        let answer = |reason: &str| SupplyError::Answer("the Workload API".to_owned(), reason.to_owned());
        if said.svids.is_empty() {
            return Err(answer("it holds no certificate"));
        }
        let mut push = Self::default();
        for svid in said.svids {
            push.add(svid)?;
        }
        if push.known.domains.is_empty() {
            return Err(answer("it names nobody"));
        }
        if said.federated_bundles.len() > FEDERATED {
            return Err(BundleError::TooMany(FEDERATED, "foreign trust domains").into());
        }
        for (name, der) in said.federated_bundles {
            let own = |domain: &str| push.known.domains.iter().any(|(known, _)| known == domain);
            match federated(&name, &der, own) {
                Ok(foreign) => push.known.domains.push(foreign),
                Err(reason) => push.known.problem = Some(reason),
            }
        }
        push.known.crls = said.crl;
        Ok(push)
    }

    fn add(&mut self, mut svid: X509Svid) -> Result<(), SupplyError> {
        let id = parse_id(&svid.spiffe_id);
        if let Err(IdError::Invalid(reason)) = id {
            self.known.problem = Some(format!("{:?} is no SPIFFE id: {reason}", svid.spiffe_id));
            return Ok(());
        }
        let roots = certificates(&svid.bundle).ok_or(BundleError::Root(1, PeerError::Malformed))?;
        let domain = (trust_domain(&svid.spiffe_id).to_owned(), Bundle::from_roots(roots)?);
        if !self.known.domains.contains(&domain) {
            self.known.domains.push(domain);
        }
        // Something else may run under the same account as we: no workload of ours.
        let Ok(id) = id else { return Ok(()) };
        let key = std::mem::take(&mut svid.x509_svid_key);
        let material = match certificates(&svid.x509_svid) {
            Some(chain) if !chain.is_empty() => Ok(Material {
                chain: ordered(chain),
                key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key)),
            }),
            other => {
                let mut key = key;
                key.zeroize();
                Err(if other.is_some() { "its chain is empty" } else { "its chain cannot be read" }
                    .to_owned())
            }
        };
        // §5.2.1: the first is the one to use where several have the same name.
        self.svids.entry(id).or_insert(material);
        Ok(())
    }
}

/// Of a SPIFFE id that was found to be one.
fn trust_domain(id: &str) -> &str {
    let rest = id.strip_prefix("spiffe://").unwrap_or(id);
    rest.split_once('/').map_or(rest, |(domain, _)| domain)
}

/// A foreign trust domain and its roots; it cannot be one of our own.
fn federated(name: &str, der: &[u8], own: impl Fn(&str) -> bool) -> Result<(String, Bundle), String> {
    let wrong = |reason: &str| format!("the roots of {name:?} cannot be used: {reason}");
    let domain = name.strip_prefix("spiffe://").unwrap_or(name);
    check_trust_domain(domain).map_err(|error| wrong(&error.to_string()))?;
    if own(domain) {
        return Err(wrong("they are said to be another's, and the trust domain is ours"));
    }
    let roots = certificates(der).ok_or_else(|| wrong("they cannot be read"))?;
    let bundle = Bundle::from_roots(roots).map_err(|error| wrong(&error.to_string()))?;
    Ok((domain.to_owned(), bundle))
}

/// Certificates one after the other; `None` where that is not what the bytes are.
fn certificates(mut der: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let mut found = Vec::new();
    while !der.is_empty() {
        let (rest, _) = X509Certificate::from_der(der).ok()?;
        let length = der.len() - rest.len();
        found.push(CertificateDer::from(der.get(..length)?.to_vec()));
        if found.len() > CERTIFICATES {
            return None;
        }
        der = rest;
    }
    Some(found)
}

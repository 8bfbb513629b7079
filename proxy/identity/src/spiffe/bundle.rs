//! Whom we trust: roots by trust domain, and what they have revoked. Immutable; a change is a new value.

use std::{borrow::Cow, collections::BTreeMap};

use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, TrustAnchor, pem::PemObject};
use webpki::{CertRevocationList, OwnedCertRevocationList, anchor_from_trusted_cert};
use x509_parser::{prelude::FromDer, revocation_list::CertificateRevocationList};

use super::{PeerError, id::check_trust_domain, shape};

/// Most roots of one trust domain: rotation needs two or three.
const ROOTS: usize = 64;
/// Most revocation lists.
const CRLS: usize = 256;

/// Roots by trust domain, aliases, revocation lists: at one moment.
///
/// A root vouches for ids of its own trust domain and for no other. An alias is another name of a
/// trust domain: its ids are vouched for by that domain's roots.
#[derive(Debug)]
pub struct TrustBundles {
    version: u64,
    algorithms: WebPkiSupportedAlgorithms,
    domains: BTreeMap<String, Bundle>,
    aliases: BTreeMap<String, String>,
    /// The newest first: of an issuer's lists the first is asked.
    crls: Vec<CertRevocationList<'static>>,
    /// When each was issued.
    issued: Vec<Issued>,
}

/// When a list was issued, in Unix seconds, and its number (RFC 5280 §5.2.3): length, then big-endian.
type Issued = (i64, usize, Vec<u8>);

/// The roots of one trust domain.
#[derive(Debug, Clone, Default)]
pub struct Bundle {
    roots: Vec<Root>,
    anchors: Vec<TrustAnchor<'static>>,
}

#[derive(Debug, Clone)]
struct Root {
    der: CertificateDer<'static>,
    /// DER of the subject's name.
    subject: Vec<u8>,
    not_before: i64,
    not_after: i64,
}

/// Why roots or revocation lists cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// Not PEM.
    #[error("not PEM: {0}")]
    Pem(String),
    /// A certificate that cannot be a root.
    #[error("certificate {0} cannot be a root: {1}")]
    Root(usize, PeerError),
    /// Nothing in it.
    #[error("there is no {0} in it")]
    Empty(&'static str),
    /// Too much in it.
    #[error("more than {0} {1}")]
    TooMany(usize, &'static str),
    /// A list that cannot be used.
    #[error("revocation list {0} cannot be used: {1:?}")]
    Crl(usize, webpki::Error),
    /// No trust domain's name.
    #[error("{0:?} is no trust domain: {1}")]
    TrustDomain(String, super::IdError),
}

impl Bundle {
    /// Roots of one trust domain, from PEM.
    ///
    /// # Errors
    /// [`BundleError`], also where there is none.
    pub fn from_pem(pem: &[u8]) -> Result<Self, BundleError> {
        let roots = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
        Self::from_roots(roots.map_err(|error| BundleError::Pem(error.to_string()))?)
    }

    /// Roots of one trust domain; a root that is there twice counts once.
    ///
    /// # Errors
    /// [`BundleError`], also where there is none.
    pub fn from_roots(certificates: Vec<CertificateDer<'static>>) -> Result<Self, BundleError> {
        let mut bundle = Self::default();
        for (index, der) in certificates.into_iter().enumerate() {
            bundle.add(der).map_err(|error| BundleError::Root(index + 1, error))?;
        }
        match bundle.roots.len() {
            0 => Err(BundleError::Empty("certificate")),
            1..=ROOTS => Ok(bundle),
            _ => Err(BundleError::TooMany(ROOTS, "roots")),
        }
    }

    fn add(&mut self, der: CertificateDer<'static>) -> Result<(), PeerError> {
        if self.roots.iter().any(|root| root.der == der) {
            return Ok(());
        }
        let certificate = shape::read(&der)?;
        shape::check_issuer(&certificate)?;
        shape::check_key(&certificate)?;
        let anchor = anchor_from_trusted_cert(&der).map_err(|_| PeerError::Malformed)?.to_owned();
        let root = Root {
            subject: certificate.subject().as_raw().to_vec(),
            not_before: certificate.validity().not_before.timestamp(),
            not_after: certificate.validity().not_after.timestamp(),
            der: der.clone(),
        };
        self.anchors.push(anchor);
        self.roots.push(root);
        Ok(())
    }

    /// Both bundles' roots.
    ///
    /// # Errors
    /// [`BundleError::TooMany`]
    pub fn joined(&self, other: &Self) -> Result<Self, BundleError> {
        Self::from_roots(self.certificates().chain(other.certificates()).cloned().collect())
    }

    /// Whether all of another bundle's roots are among these.
    pub(super) fn holds(&self, other: &Self) -> bool {
        other.certificates().all(|one| self.certificates().any(|known| known == one))
    }

    /// The roots' certificates.
    pub fn certificates(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        self.roots.iter().map(|root| &root.der)
    }

    /// When the last of the roots expires, in Unix seconds.
    #[must_use]
    pub fn not_after(&self) -> Option<i64> {
        self.roots.iter().map(|root| root.not_after).max()
    }

    /// The roots that hold at a time: chain building does not look at a root's dates.
    pub(super) fn anchors(&self, now: i64) -> Cow<'_, [TrustAnchor<'static>]> {
        let holds = |root: &Root| (root.not_before..=root.not_after).contains(&now);
        if self.roots.iter().all(holds) {
            return Cow::Borrowed(&self.anchors);
        }
        let holding = self.roots.iter().zip(&self.anchors).filter(|(root, _)| holds(root));
        Cow::Owned(holding.map(|(_, anchor)| anchor.clone()).collect())
    }

    /// Whether a root bears this name (DER).
    pub(super) fn names(&self, subject: &[u8]) -> bool {
        self.roots.iter().any(|root| root.subject == subject)
    }
}

impl PartialEq for Bundle {
    fn eq(&self, other: &Self) -> bool {
        self.roots.len() == other.roots.len() && self.certificates().eq(other.certificates())
    }
}

impl TrustBundles {
    /// Nobody is trusted.
    #[must_use]
    pub fn new(version: u64) -> Self {
        Self {
            version,
            algorithms: rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms,
            domains: BTreeMap::new(),
            aliases: BTreeMap::new(),
            crls: Vec::new(),
            issued: Vec::new(),
        }
    }

    /// Trusts these roots for this trust domain; beside those it has already.
    ///
    /// # Errors
    /// [`BundleError`]
    pub fn with_domain(mut self, trust_domain: &str, bundle: Bundle) -> Result<Self, BundleError> {
        check_trust_domain(trust_domain)
            .map_err(|error| BundleError::TrustDomain(trust_domain.to_owned(), error))?;
        let joined = match self.domains.get(trust_domain) {
            Some(known) => known.joined(&bundle)?,
            None => bundle,
        };
        self.domains.insert(trust_domain.to_owned(), joined);
        Ok(self)
    }

    /// Another name of a trust domain. A bundle of that name's own goes first.
    ///
    /// # Errors
    /// [`BundleError::TrustDomain`]
    pub fn with_alias(mut self, alias: &str, trust_domain: &str) -> Result<Self, BundleError> {
        check_trust_domain(alias).map_err(|error| BundleError::TrustDomain(alias.to_owned(), error))?;
        self.aliases.insert(alias.to_owned(), trust_domain.to_owned());
        Ok(self)
    }

    /// Revocation lists, from PEM or a single DER. Of several of one issuer the newest counts.
    ///
    /// # Errors
    /// [`BundleError`], also where there is none.
    pub fn with_crls(mut self, bytes: &[u8]) -> Result<Self, BundleError> {
        let pem = bytes.starts_with(b"-----BEGIN") || bytes.windows(11).any(|part| part == b"\n-----BEGIN");
        let lists = if pem {
            CertificateRevocationListDer::pem_slice_iter(bytes)
                .collect::<Result<Vec<_>, _>>()
                .map_err(|error| BundleError::Pem(error.to_string()))?
        } else {
            vec![CertificateRevocationListDer::from(bytes.to_vec())]
        };
        if lists.is_empty() {
            return Err(BundleError::Empty("revocation list"));
        }
        for (index, list) in lists.into_iter().enumerate() {
            let unusable = |error| BundleError::Crl(index + 1, error);
            let issued = issued(list.as_ref()).ok_or(unusable(webpki::Error::BadDer))?;
            let list = OwnedCertRevocationList::from_der(list.as_ref()).map_err(unusable)?;
            let at = self.issued.partition_point(|other| *other >= issued);
            self.issued.insert(at, issued);
            self.crls.insert(at, list.into());
        }
        if self.crls.len() > CRLS { Err(BundleError::TooMany(CRLS, "revocation lists")) } else { Ok(self) }
    }

    /// Changes with every change of what is trusted.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The roots that vouch for ids of this trust domain.
    #[must_use]
    pub fn bundle(&self, trust_domain: &str) -> Option<&Bundle> {
        let alias = || self.domains.get(self.aliases.get(trust_domain)?);
        self.domains.get(trust_domain).or_else(alias)
    }

    /// Trust domains with their roots, aliases left out.
    pub fn domains(&self) -> impl Iterator<Item = (&str, &Bundle)> {
        self.domains.iter().map(|(name, bundle)| (name.as_str(), bundle))
    }

    /// The signatures that count: none of SHA-1, none of RSA below 2048 bits.
    pub(super) fn algorithms(&self) -> &WebPkiSupportedAlgorithms {
        &self.algorithms
    }

    pub(super) fn crls(&self) -> &[CertRevocationList<'static>] {
        &self.crls
    }
}

/// What is not told by the library that reads lists for use.
fn issued(list: &[u8]) -> Option<Issued> {
    let (_, list) = CertificateRevocationList::from_der(list).ok()?;
    let number = list.crl_number().map(|number| number.to_bytes_be()).unwrap_or_default();
    Some((list.last_update().timestamp(), number.len(), number))
}

//! A peer's chain: to the bundle of the trust domain that its leaf claims, and to no other.

use policy::SpiffeId;
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage, RevocationCheckDepth, RevocationOptions,
    RevocationOptionsBuilder, UnknownStatusPolicy, VerifiedPath,
};
use x509_parser::certificate::X509Certificate;

use super::{Bundle, PeerError, TrustBundles, shape};

/// Most certificates that a peer may show beside its own.
const INTERMEDIATES: usize = 8;

/// What the peer is in the handshake: its extended key usage must allow that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It called us.
    Client,
    /// We called it.
    Server,
}

/// A peer that is who it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Who.
    pub id: SpiffeId,
    /// Its certificate's end, in Unix seconds.
    pub not_after: i64,
}

/// What a leaf says of its bearer; only of a leaf that was verified is it true.
///
/// # Errors
/// [`PeerError`]: it names nobody.
pub fn peer_of(leaf: &CertificateDer<'_>) -> Result<Peer, PeerError> {
    peer(&shape::read(leaf)?)
}

fn peer(leaf: &X509Certificate<'_>) -> Result<Peer, PeerError> {
    Ok(Peer { id: shape::spiffe_id(leaf)?, not_after: leaf.validity().not_after.timestamp() })
}

impl TrustBundles {
    /// Verifies a peer's chain (X509-SVID §5; RFC 5280 §6), leaf first named, issuers in any order.
    ///
    /// # Errors
    /// [`PeerError`], the first that was found.
    pub fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        issuers: &[CertificateDer<'_>],
        role: Role,
        now: UnixTime,
    ) -> Result<Peer, PeerError> {
        if issuers.len() > INTERMEDIATES {
            return Err(PeerError::ChainTooLong);
        }
        let shown = shape::read(leaf)?;
        let peer = peer(&shown)?;
        shape::check_leaf(&shown)?;
        shape::check_strength(&shown)?;
        let bundle = self.bundle(&peer.id.trust_domain).ok_or(PeerError::UnknownTrustDomain)?;
        let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let anchors = bundle.anchors(seconds);
        if anchors.is_empty() {
            return Err(PeerError::RootExpired);
        }
        let usage = match role {
            Role::Client => KeyUsage::client_auth(),
            Role::Server => KeyUsage::server_auth(),
        };
        let crls: Vec<&CertRevocationList<'_>> = self.crls().iter().collect();
        let algorithms = self.algorithms().all;
        let end = EndEntityCert::try_from(leaf).map_err(|error| named(&error))?;
        match end.verify_for_usage(
            algorithms,
            &anchors,
            issuers,
            now,
            usage,
            revocation(&crls),
            Some(&check_path),
        ) {
            Ok(_) => Ok(peer),
            Err(error) => Err(self.explain(&error, &shown, issuers, bundle)),
        }
    }

    /// The reason in our words: chain building says only that it found no way.
    fn explain(
        &self,
        error: &webpki::Error,
        leaf: &X509Certificate<'_>,
        issuers: &[CertificateDer<'_>],
        bundle: &Bundle,
    ) -> PeerError {
        let named = named(error);
        // What could not be read names nobody.
        let issuers: Vec<_> = issuers.iter().filter_map(|der| shape::read(der).ok()).collect();
        match named {
            PeerError::UntrustedIssuer => self.where_it_ends(leaf, &issuers, bundle),
            // A weak key fails as if its signature were wrong; a CA without the right to sign, as if it were none.
            PeerError::BadSignature | PeerError::WeakSignature | PeerError::IssuerKeyUsage => {
                let weak = issuers.iter().find_map(|issuer| shape::check_strength(issuer).err());
                weak.filter(|_| named != PeerError::IssuerKeyUsage).unwrap_or(named)
            }
            other => other,
        }
    }

    fn where_it_ends(
        &self,
        leaf: &X509Certificate<'_>,
        issuers: &[X509Certificate<'_>],
        bundle: &Bundle,
    ) -> PeerError {
        let mut last = leaf;
        for _ in 0..=issuers.len() {
            let name = last.issuer().as_raw();
            if name == last.subject().as_raw() {
                break;
            }
            match issuers.iter().find(|issuer| issuer.subject().as_raw() == name) {
                Some(next) => last = next,
                None => break,
            }
        }
        let name = last.issuer().as_raw();
        if bundle.names(name) {
            PeerError::UntrustedIssuer
        } else if self.domains().any(|(_, other)| other.names(name)) {
            PeerError::WrongTrustDomain
        } else if last.subject().as_raw() != name {
            PeerError::IncompleteChain
        } else if std::ptr::eq(last, leaf) {
            PeerError::SelfSigned
        } else {
            PeerError::UntrustedIssuer
        }
    }
}

/// A list that we have is believed, expired or not signed as it should be it refuses; where there is
/// none for an issuer, nothing is known to be revoked.
fn revocation<'a>(crls: &'a [&'a CertRevocationList<'a>]) -> Option<RevocationOptions<'a>> {
    let options = RevocationOptionsBuilder::new(crls).ok()?;
    let options = options.with_depth(RevocationCheckDepth::Chain);
    let options = options.with_status_policy(UnknownStatusPolicy::Allow);
    Some(options.with_expiration_policy(ExpirationPolicy::Enforce).build())
}

/// What chain building does not look at: key usage and strength of the issuers on the way.
fn check_path(path: &VerifiedPath<'_>) -> Result<(), webpki::Error> {
    for issuer in path.intermediate_certificates() {
        let der = issuer.der();
        let issuer = shape::read(&der).map_err(|_| webpki::Error::BadDer)?;
        shape::check_issuer(&issuer).map_err(|_| KEY_USAGE)?;
        shape::check_strength(&issuer).map_err(|_| webpki::Error::InvalidSignatureForPublicKey)?;
    }
    Ok(())
}

/// How `check_path` says it: it must answer in the library's words, and building a chain never says this one.
const KEY_USAGE: webpki::Error = webpki::Error::UnsupportedNameType;

fn named(error: &webpki::Error) -> PeerError {
    use webpki::Error as E;
    match error {
        E::CertExpired { .. } | E::InvalidCertValidity => PeerError::Expired,
        E::CertNotValidYet { .. } => PeerError::NotYetValid,
        E::CaUsedAsEndEntity => PeerError::CaAsLeaf,
        E::EndEntityUsedAsCa => PeerError::IssuerNotCa,
        E::PathLenConstraintViolated => PeerError::PathLength,
        E::NameConstraintViolation => PeerError::NameConstraint,
        E::CertRevoked => PeerError::Revoked,
        E::CrlExpired { .. } => PeerError::CrlExpired,
        E::UnsupportedNameType => PeerError::IssuerKeyUsage,
        E::IssuerNotCrlSigner
        | E::InvalidCrlSignatureForPublicKey
        | E::UnsupportedCrlSignatureAlgorithmContext(_)
        | E::UnsupportedCrlSignatureAlgorithmForPublicKeyContext(_)
        | E::UnknownRevocationStatus => PeerError::CrlUnusable,
        E::UnknownIssuer => PeerError::UntrustedIssuer,
        E::InvalidSignatureForPublicKey => PeerError::BadSignature,
        E::UnsupportedSignatureAlgorithmContext(_)
        | E::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => PeerError::WeakSignature,
        E::RequiredEkuNotFoundContext(_) | E::EmptyEkuExtension => PeerError::ExtendedKeyUsage,
        E::UnsupportedCriticalExtension => PeerError::UnsupportedExtension,
        E::MaximumPathBuildCallsExceeded
        | E::MaximumPathDepthExceeded
        | E::MaximumSignatureChecksExceeded
        | E::MaximumNameConstraintComparisonsExceeded => PeerError::ChainTooLong,
        _ => PeerError::Malformed,
    }
}

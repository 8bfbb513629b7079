//! Peers as rustls asks for them: clients that call us, servers that we call.

use std::{io, sync::Arc};

use policy::SpiffeId;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{verify_tls12_signature, verify_tls13_signature},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::{Peer, PeerError, Role, TrustBundles};

/// Verifies peers against the bundles of one moment, and, where told whom to expect, that it is them.
#[derive(Debug)]
pub struct PeerVerifier {
    bundles: Arc<TrustBundles>,
    expected: Option<SpiffeId>,
}

impl PeerVerifier {
    /// Any workload of a trusted domain: for servers, where policy judges who may do what.
    #[must_use]
    pub fn anyone(bundles: Arc<TrustBundles>) -> Self {
        Self { bundles, expected: None }
    }

    /// This workload and no other: for clients. The server's name is not looked at.
    #[must_use]
    pub fn exactly(bundles: Arc<TrustBundles>, id: SpiffeId) -> Self {
        Self { bundles, expected: Some(id) }
    }

    /// Verifies a chain, leaf first.
    ///
    /// # Errors
    /// [`PeerError`], also where there is no certificate.
    pub fn verify(&self, chain: &[CertificateDer<'_>], role: Role, now: UnixTime) -> Result<Peer, PeerError> {
        let (leaf, issuers) = chain.split_first().ok_or(PeerError::NoCertificate)?;
        self.check(leaf, issuers, role, now)
    }

    fn check(
        &self,
        leaf: &CertificateDer<'_>,
        issuers: &[CertificateDer<'_>],
        role: Role,
        now: UnixTime,
    ) -> Result<Peer, PeerError> {
        let peer = self.bundles.verify(leaf, issuers, role, now)?;
        match &self.expected {
            Some(expected) if *expected != peer.id => Err(PeerError::UnexpectedIdentity),
            _ => Ok(peer),
        }
    }
}

/// The reason travels within rustls's own error, to [`handshake_reason`].
fn told(error: PeerError) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}

/// That the peer holds its certificate's key: the same for both roles, and asked for by two traits.
macro_rules! proof_of_key {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            leaf: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls12_signature(message, leaf, signed, self.bundles.algorithms())
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            leaf: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls13_signature(message, leaf, signed, self.bundles.algorithms())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.bundles.algorithms().supported_schemes()
        }
    };
}

impl ClientCertVerifier for PeerVerifier {
    /// None: a client may have several certificates, of several trust domains.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        issuers: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(leaf, issuers, Role::Client, now).map_err(told)?;
        Ok(ClientCertVerified::assertion())
    }

    proof_of_key!();
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        issuers: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(leaf, issuers, Role::Server, now).map_err(told)?;
        Ok(ServerCertVerified::assertion())
    }

    proof_of_key!();
}

/// Why a handshake failed, as a stable name in snake_case for logs and metrics: a
/// [`PeerError::name`] where the peer's certificate was at fault.
#[must_use]
pub fn handshake_reason(error: &io::Error) -> &'static str {
    let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
        return match error.kind() {
            io::ErrorKind::UnexpectedEof => "handshake_closed",
            _ => "handshake_broken",
        };
    };
    match error {
        Error::NoCertificatesPresented => PeerError::NoCertificate.name(),
        Error::InvalidCertificate(CertificateError::Other(OtherError(inner))) => {
            inner.downcast_ref::<PeerError>().map_or("malformed_certificate", |error| error.name())
        }
        // The peer does not hold the key of the certificate that it showed.
        Error::InvalidCertificate(CertificateError::BadSignature) => "bad_proof",
        Error::InvalidCertificate(_) => PeerError::Malformed.name(),
        Error::NoApplicationProtocol => "no_common_alpn",
        Error::PeerIncompatible(_) => "tls_incompatible",
        Error::AlertReceived(_) => "refused_by_peer",
        Error::InvalidMessage(_) => "tls_malformed",
        Error::PeerMisbehaved(_) | Error::InappropriateMessage { .. } | Error::DecryptError => {
            "tls_misbehaved"
        }
        Error::InappropriateHandshakeMessage { .. } => "tls_misbehaved",
        _ => "tls_failed",
    }
}

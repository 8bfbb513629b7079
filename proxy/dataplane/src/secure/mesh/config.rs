//! One workload's TLS, of one certificate and one state of the bundles.

use std::sync::Arc;

use identity::spiffe::{PeerVerifier, Svid, TrustBundles};
use rustls::{
    ServerConfig,
    server::ServerSessionMemoryCache,
    sign::SingleCertAndKey,
    version::{TLS12, TLS13},
};
use tokio_rustls::TlsAcceptor;

use crate::serve::Speaks;

/// Sessions kept for resumption, per listener: some 2 KiB each, mostly the client's chain.
const SESSIONS: usize = 256;

/// What we speak, in order of preference. HTTP's own names first, as Istio's sidecars answer; `istio`
/// before `istio-peer-exchange`, whose preamble of metadata we do not send.
const ALPN: [&[u8]; 7] =
    [b"h2", b"http/1.1", b"istio-h2", b"istio-http/1.1", b"istio-http/1.0", b"istio", b"istio-peer-exchange"];

/// Ready to shake hands.
pub(super) struct Ready {
    acceptor: TlsAcceptor,
    svid: Arc<Svid>,
    bundles: Arc<TrustBundles>,
}

impl std::fmt::Debug for Ready {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ready").field("id", self.svid.id()).finish_non_exhaustive()
    }
}

impl Ready {
    pub(super) fn new(
        svid: Arc<Svid>,
        bundles: Arc<TrustBundles>,
        tls12: bool,
    ) -> Result<Self, rustls::Error> {
        let versions: &[_] = if tls12 { &[&TLS13, &TLS12] } else { &[&TLS13] };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)?
            .with_client_cert_verifier(Arc::new(PeerVerifier::anyone(Arc::clone(&bundles))))
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(svid.key()))));
        config.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
        // Its own store: sessions end with this certificate and these bundles.
        config.session_storage = ServerSessionMemoryCache::new(SESSIONS);
        config.max_early_data_size = 0;
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), svid, bundles })
    }

    pub(super) fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor
    }

    pub(super) fn svid(&self) -> &Svid {
        &self.svid
    }

    pub(super) fn bundles(&self) -> &TrustBundles {
        &self.bundles
    }

    /// Whether it was made of these.
    pub(super) fn is_of(&self, svid: &Arc<Svid>, bundles: &Arc<TrustBundles>) -> bool {
        Arc::ptr_eq(&self.svid, svid) && Arc::ptr_eq(&self.bundles, bundles)
    }
}

/// What a protocol's name says of the bytes; `istio` names any, and no name says nothing.
pub(super) fn speaks(alpn: Option<&[u8]>) -> Option<Speaks> {
    match alpn? {
        b"h2" | b"istio-h2" => Some(Speaks::Http2),
        b"http/1.1" | b"istio-http/1.1" | b"istio-http/1.0" => Some(Speaks::Http1),
        _ => None,
    }
}

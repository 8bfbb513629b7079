//! One workload's TLS, of one certificate and one state of the bundles.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, Ordering},
};

use identity::spiffe::{PeerVerifier, Svid, TrustBundles};
use policy::SpiffeId;
use rustls::{
    ClientConfig, ServerConfig, SignatureScheme, SupportedProtocolVersion,
    client::{ResolvesClientCert, Resumption},
    crypto::CryptoProvider,
    server::NoServerSessionStorage,
    sign::{CertifiedKey, SingleCertAndKey},
    version::{TLS12, TLS13},
};
use tokio_rustls::TlsAcceptor;

use super::{Speaking, sessions::Sessions};
use crate::serve::Speaks;

/// Sessions kept for resumption, per workload and way of speaking: some 2 KiB each, mostly the client's
/// chain.
const SESSIONS: usize = 256;

/// Bytes that are encrypted at a time and wait to be written: two records. The kernel should find them in the
/// core's cache; rustls's own 64 KiB cost a 1 MiB body a third of its CPU.
pub(super) const OUTGOING: usize = 32 * 1024;

/// What we speak as a sidecar, in order of preference. HTTP's own names first, as Istio's sidecars answer;
/// `istio` before `istio-peer-exchange`, whose preamble of metadata we do not send.
const ALPN: [&[u8]; 7] =
    [b"h2", b"http/1.1", b"istio-h2", b"istio-http/1.1", b"istio-http/1.0", b"istio", b"istio-peer-exchange"];
/// HBONE is HTTP/2.
const ALPN_HBONE: [&[u8]; 1] = [b"h2"];

static TLS_NEWEST: [&SupportedProtocolVersion; 1] = [&TLS13];
static TLS_BOTH: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];

/// Ready to shake hands.
pub(super) struct Ready {
    base: ServerConfig,
    provider: Arc<CryptoProvider>,
    versions: &'static [&'static SupportedProtocolVersion],
    /// Made for who asks first: most workloads are asked in one way only.
    sidecar: OnceLock<TlsAcceptor>,
    hbone: OnceLock<TlsAcceptor>,
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
        let versions: &'static [_] = if tls12 { &TLS_BOTH } else { &TLS_NEWEST };
        let provider = provider();
        let mut base = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)?
            .with_client_cert_verifier(Arc::new(PeerVerifier::anyone(Arc::clone(&bundles))))
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(svid.key()))));
        base.max_early_data_size = 0;
        // Each way of speaking gets its own below.
        base.session_storage = Arc::new(NoServerSessionStorage {});
        let (sidecar, hbone) = (OnceLock::new(), OnceLock::new());
        Ok(Self { base, provider, versions, sidecar, hbone, svid, bundles })
    }

    /// Where we are called.
    pub(super) fn acceptor(&self, kind: Speaking) -> &TlsAcceptor {
        let (slot, alpn): (_, &[&[u8]]) = match kind {
            Speaking::Sidecar => (&self.sidecar, &ALPN),
            Speaking::Hbone => (&self.hbone, &ALPN_HBONE),
        };
        slot.get_or_init(|| {
            let mut config = self.base.clone();
            config.alpn_protocols = owned(alpn);
            // Its own store: sessions end with this certificate and these bundles.
            config.session_storage = Arc::new(Sessions::new(SESSIONS));
            TlsAcceptor::from(Arc::new(config))
        })
    }

    /// Where we call this workload, and no other.
    pub(super) fn calling(
        &self,
        expected: &SpiffeId,
        alpn: &[&[u8]],
        names_server: bool,
    ) -> Result<(Arc<ClientConfig>, Arc<Asked>), rustls::Error> {
        let own = Arc::new(Asked { own: Arc::clone(self.svid.key()).into(), asked: AtomicBool::new(false) });
        let verifier = PeerVerifier::exactly(Arc::clone(&self.bundles), expected.clone());
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(self.versions)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::clone(&own) as Arc<dyn ResolvesClientCert>);
        config.alpn_protocols = owned(alpn);
        config.enable_sni = names_server;
        // Resumed, a server is not verified again.
        config.resumption = Resumption::disabled();
        config.enable_early_data = false;
        Ok((Arc::new(config), own))
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

/// Our certificate on one connection, and whether the server wanted to see it.
#[derive(Debug)]
pub(super) struct Asked {
    own: SingleCertAndKey,
    asked: AtomicBool,
}

impl Asked {
    /// Whether the server asked who we are, and was told.
    pub(super) fn was_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }
}

impl ResolvesClientCert for Asked {
    fn resolve(&self, issuers: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let own = ResolvesClientCert::resolve(&self.own, issuers, schemes)?;
        // Asked in a way that we cannot answer, we would be nobody, too.
        own.key.choose_scheme(schemes)?;
        self.asked.store(true, Ordering::Relaxed);
        Some(own)
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// One for all: it is a table of functions.
fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider())))
}

fn owned(alpn: &[&[u8]]) -> Vec<Vec<u8>> {
    alpn.iter().map(|name| name.to_vec()).collect()
}

/// What a protocol's name says of the bytes; `istio` names any, and no name says nothing.
pub(super) fn speaks(alpn: Option<&[u8]>) -> Option<Speaks> {
    match alpn? {
        b"h2" | b"istio-h2" => Some(Speaks::Http2),
        b"http/1.1" | b"istio-http/1.1" | b"istio-http/1.0" => Some(Speaks::Http1),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use rustls::crypto::aws_lc_rs::sign::any_supported_type;

    use super::*;

    #[test]
    fn a_server_that_asks_for_what_we_do_not_have_has_not_asked_us() {
        let root = certs::Authority::mint("root").unwrap();
        let leaf = root.issue_odd(&certs::OddRequest::workload("spiffe://cluster.local/ns/n/sa/s")).unwrap();
        let key = any_supported_type(&leaf.key_der()).unwrap();
        let own = Arc::new(CertifiedKey::new(leaf.chain_der(), key));
        let asked = Asked { own: own.into(), asked: AtomicBool::new(false) };
        assert!(asked.resolve(&[], &[SignatureScheme::RSA_PSS_SHA256]).is_none() && !asked.was_asked());
        let wanted = [SignatureScheme::RSA_PSS_SHA256, SignatureScheme::ECDSA_NISTP256_SHA256];
        assert!(asked.resolve(&[], &wanted).is_some() && asked.was_asked());
    }
}

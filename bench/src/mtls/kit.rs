//! Certificates of both peers, and the client's TLS.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use certs::{Authority, Leaf, LeafRequest, Written};
use identity::spiffe::{Bundle, PeerVerifier, TrustBundles, parse_id};
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group};
use rustls::{ClientConfig, HandshakeKind};
use rustls_pki_types::ServerName;
use tempfile::TempDir;

use crate::cell::CellError;
use crate::load::Tls;
use crate::meshes::NAMESPACE;

const TRUST_DOMAIN: &str = "cluster.local";
/// What Istio's sidecars offer for HTTP/1.1, and both peers choose.
pub const ALPN: &str = "istio-http/1.1";
/// HBONE is HTTP/2.
pub const HBONE_ALPN: &str = "h2";
/// As Istio's sidecars name who they call.
const SNI: &str = "outbound_.8080_._.fhir-server.datamesh.svc.cluster.local";
/// Names of servers whose sessions the client remembers: one.
const SERVERS: usize = 1;

/// An authority, a client, and workloads with a certificate each.
pub struct Kit {
    root: Authority,
    client: Leaf,
    stranger: Leaf,
    workloads: Vec<Workload>,
    folder: TempDir,
}

/// One workload's name and files.
#[derive(Debug, Clone)]
pub struct Workload {
    /// Name of workload and service account.
    pub name: String,
    /// The folder of `files`.
    pub folder: PathBuf,
    /// The files in it.
    pub files: Written,
}

impl Kit {
    /// So many workloads (at least one), their files below `runs`.
    ///
    /// # Errors
    /// When they cannot be made or written.
    pub fn new(runs: &Path, workloads: usize) -> Result<Self, CellError> {
        let folder = tempfile::Builder::new().prefix("mtls").tempdir_in(runs)?;
        let root = Authority::mint("bench").map_err(wrong)?;
        let issue = |account: &str| {
            let leaf = root.issue(&LeafRequest::for_workload(format!("spiffe://{}", principal(account))));
            leaf.map_err(wrong)
        };
        let (client, stranger) = (issue("client")?, issue("stranger")?);
        let workload = |index: usize| {
            let name = format!("w{index:04}");
            let place = folder.path().join(&name);
            let files = issue(&name)?.write_to(&place, &root).map_err(wrong)?;
            Ok(Workload { name, folder: place, files })
        };
        let workloads = (0..workloads.max(1)).map(workload).collect::<Result<_, CellError>>()?;
        Ok(Self { root, client, stranger, workloads, folder })
    }

    /// The workloads; there is at least one.
    #[must_use]
    pub fn workloads(&self) -> &[Workload] {
        &self.workloads
    }

    /// The root, as PEM.
    #[must_use]
    pub fn roots(&self) -> PathBuf {
        self.workloads.first().map_or_else(|| self.folder.path().join("none"), |one| one.files.ca.clone())
    }

    /// The client's TLS towards a workload: kept connections, or a connection for each request whose
    /// handshakes are of this kind.
    ///
    /// # Errors
    /// When rustls does not take it.
    pub fn client(&self, workload: &Workload, each: Option<HandshakeKind>) -> Result<Tls, CellError> {
        let mut config = self.config(workload, &self.client)?;
        config.alpn_protocols = vec![ALPN.as_bytes().to_vec()];
        config.resumption = match each {
            Some(HandshakeKind::Resumed) => Resumption::in_memory_sessions(SERVERS),
            _ => Resumption::disabled(),
        };
        tls(config, each.is_some())
    }

    /// TLS of connections of HBONE towards a workload: of the client, or of somebody whom no policy names.
    ///
    /// # Errors
    /// When rustls does not take it.
    pub fn tunnels(&self, workload: &Workload, permitted: bool) -> Result<Tls, CellError> {
        let mut config = self.config(workload, if permitted { &self.client } else { &self.stranger })?;
        config.alpn_protocols = vec![HBONE_ALPN.as_bytes().to_vec()];
        config.resumption = Resumption::disabled();
        tls(config, false)
    }

    fn config(&self, workload: &Workload, own: &Leaf) -> Result<ClientConfig, CellError> {
        let bundle = Bundle::from_pem(self.root.certificate_pem().as_bytes()).map_err(wrong)?;
        let bundles = TrustBundles::new(1).with_domain(TRUST_DOMAIN, bundle).map_err(wrong)?;
        let id = parse_id(&format!("spiffe://{}", principal(&workload.name))).map_err(wrong)?;
        let mut provider = default_provider();
        provider.cipher_suites = vec![cipher_suite::TLS13_AES_128_GCM_SHA256];
        provider.kx_groups = vec![kx_group::X25519];
        ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(wrong)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(PeerVerifier::exactly(Arc::new(bundles), id)))
            .with_client_auth_cert(own.chain_der(), own.key_der())
            .map_err(wrong)
    }
}

fn tls(config: ClientConfig, each: bool) -> Result<Tls, CellError> {
    let name = ServerName::try_from(SNI).map_err(wrong)?;
    Ok(Tls { config: Arc::new(config), name, each, kind: None })
}

/// A service account as policies name it.
#[must_use]
pub fn principal(account: &str) -> String {
    format!("{TRUST_DOMAIN}/ns/{NAMESPACE}/sa/{account}")
}

pub(super) fn wrong(error: impl std::fmt::Display) -> CellError {
    CellError::Wrong(error.to_string())
}

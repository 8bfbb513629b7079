//! A workload behind the proxy, an authority for its clients, and a client.

use std::{
    fs, io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use certs::{Authority, Leaf, LeafRequest, OddRequest, Validity};
use demo::fhir_store::{self, FhirStore};
use identity::spiffe::{Bundle, PeerVerifier, TrustBundles, parse_id};
use rustls::{ClientConfig, client::Resumption};
use rustls_pki_types::ServerName;
use tests::harness::Proxy;
pub use tests::harness::datamesh::{CLIENT, SERVER, STRICT};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// A slow machine is allowed for.
pub const SOON: Duration = Duration::from_secs(30);

macro_rules! mode {
    ($mode:literal) => {
        concat!(
            "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n",
            "metadata: {name: default, namespace: datamesh}\nspec: {mtls: {mode: ",
            $mode,
            "}}\n"
        )
    };
}

pub const PERMISSIVE: &str = mode!("PERMISSIVE");
pub const DISABLE: &str = mode!("DISABLE");

/// The proxy in front of a store, with mTLS at the listener `fhir`.
pub struct Stand {
    pub proxy: Proxy,
    pub store: FhirStore,
    /// Its roots vouch for clients of `cluster.local`, beside the embedded authority's.
    pub clients: Authority,
    /// Of `partner.example`.
    pub partners: Authority,
}

impl Stand {
    /// With these manifests, and more below `identity.certificates` and in `limits`.
    pub async fn open(manifests: &str, certificates: &str, more: &str) -> Self {
        Self::with(&["fhir"], None, manifests, [certificates, more]).await
    }

    /// Under STRICT, with an entrance of HBONE beside, before another server than the store.
    pub async fn hbone_before(upstream: SocketAddr, manifests: &str) -> Self {
        Self::with(&["fhir", "hbone"], Some(upstream), manifests, ["", ""]).await
    }

    /// With an entrance of HBONE beside.
    pub async fn hbone(manifests: &str) -> Self {
        Self::with(&["fhir", "hbone"], None, manifests, ["", ""]).await
    }

    /// Before another server than the store.
    pub async fn before(upstream: SocketAddr, manifests: &str, more: &str) -> Self {
        Self::with(&["fhir"], Some(upstream), manifests, ["", more]).await
    }

    async fn with(
        names: &[&str],
        upstream: Option<SocketAddr>,
        manifests: &str,
        [certificates, more]: [&str; 2],
    ) -> Self {
        let clients = Authority::mint("clients").unwrap();
        let partners = Authority::mint("partners").unwrap();
        let list = clients.revocation_list(&[], certs::Validity::from_now().unwrap()).unwrap();
        let store = fhir_store::start(fhir_store::Settings::default()).await.unwrap();
        let upstream = upstream.unwrap_or_else(|| store.addr());
        let entrance = if names.contains(&"hbone") {
            format!(
                "- {{name: hbone, address: \"{{hbone}}\", to: datamesh/fhir-server, port: 8080, upstream: \"{upstream}\", tls: {{hbone: true}}}}\n"
            )
        } else {
            String::new()
        };
        let settings = format!(
            "listeners:
- {{name: fhir, address: \"{{fhir}}\", to: datamesh/fhir-server, port: 8080, upstream: \"{upstream}\", tls: {{mesh: true}}}}
{entrance}mesh:
  manifests: [manifests]
  workloads: [{{name: datamesh/fhir-server, labels: {{app: fhir-server}}, serviceAccount: fhir-server}}]
identity:
  certificates:
    embedded: {{folder: ca}}
    trust:
    - {{domain: cluster.local, bundles: [clients.pem]}}
    - {{domain: partner.example, bundles: [partners.pem]}}
    crls: [revoked.pem]
{certificates}
{more}"
        );
        let files = [
            ("manifests/mesh.yaml", manifests),
            ("clients.pem", &clients.certificate_pem()),
            ("partners.pem", &partners.certificate_pem()),
            ("revoked.pem", &list),
        ];
        let proxy = Proxy::start(names, &settings, &files).await.unwrap();
        let stand = Self { proxy, store, clients, partners };
        stand.eventually("ready", async || stand.proxy.page("/readyz").await.unwrap().0 == 200).await;
        stand
    }

    pub async fn eventually<F: AsyncFnMut() -> bool>(&self, what: &str, mut holds: F) {
        let began = Instant::now();
        while !holds().await {
            assert!(began.elapsed() < SOON, "not within {SOON:?}: {what}\n{}", self.proxy.log());
            sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.proxy.address("fhir")
    }

    /// A client's certificate of the clients' own authority.
    pub fn leaf(&self, id: &str) -> Leaf {
        self.clients.issue_odd(&OddRequest::workload(id)).unwrap()
    }

    /// What the client trusts, and whom it expects.
    pub fn verifier(&self) -> PeerVerifier {
        let pem = fs::read(self.proxy.folder().join("ca/bundle.pem")).unwrap();
        let bundle = Bundle::from_pem(&pem).unwrap();
        let bundles = TrustBundles::new(1).with_domain("cluster.local", bundle).unwrap();
        PeerVerifier::exactly(Arc::new(bundles), parse_id(SERVER).unwrap())
    }

    /// A client's TLS, without resumption, that verifies the proxy's own identity.
    pub fn client(&self, leaf: Option<&Leaf>, alpn: &[&str]) -> ClientConfig {
        client(self.verifier(), leaf, alpn)
    }

    /// Handshakes by outcome.
    pub async fn handshakes(&self, outcome: &str) -> f64 {
        let label = format!("outcome=\"{outcome}\"");
        self.proxy.metric("fhirward_mtls_handshakes_total", &[&label]).await.unwrap()
    }

    /// The answer to a GET with this certificate.
    pub async fn get(&self, leaf: &Leaf, path: &str) -> io::Result<String> {
        let client = Arc::new(self.client(Some(leaf), &["http/1.1"]));
        let mut io = connect(self.address(), &client, "fhir.example").await?;
        ask(&mut io, &get(path)).await
    }
}

/// The TLS of a client that trusts this root, and expects this server.
pub fn client_of(root: &Authority, server: &str, leaf: Option<&Leaf>, alpn: &[&str]) -> Arc<ClientConfig> {
    let bundle = Bundle::from_pem(root.certificate_pem().as_bytes()).unwrap();
    let bundles = TrustBundles::new(1).with_domain("cluster.local", bundle).unwrap();
    let verifier = PeerVerifier::exactly(Arc::new(bundles), parse_id(server).unwrap());
    Arc::new(client(verifier, leaf, alpn))
}

pub fn client(verifier: PeerVerifier, leaf: Option<&Leaf>, alpn: &[&str]) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match leaf {
        Some(leaf) => config.with_client_auth_cert(leaf.chain_der(), leaf.key_der()).unwrap(),
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config.resumption = Resumption::disabled();
    config
}

pub async fn connect(
    address: SocketAddr,
    client: &Arc<ClientConfig>,
    sni: &str,
) -> io::Result<TlsStream<TcpStream>> {
    let socket = TcpStream::connect(address).await?;
    let name = ServerName::try_from(sni.to_owned()).unwrap();
    timeout(SOON, TlsConnector::from(Arc::clone(client)).connect(name, socket)).await?
}

pub fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: fhir.example\r\nconnection: close\r\n\r\n")
}

/// Says it and reads what comes, to the end.
pub async fn ask(io: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin), bytes: &str) -> io::Result<String> {
    io.write_all(bytes.as_bytes()).await?;
    let mut answer = Vec::new();
    match timeout(SOON, io.read_to_end(&mut answer)).await? {
        Ok(_) => Ok(String::from_utf8_lossy(&answer).into_owned()),
        // What was answered before counts.
        Err(_) if !answer.is_empty() => Ok(String::from_utf8_lossy(&answer).into_owned()),
        Err(error) => Err(error),
    }
}

/// A good leaf, by the usual way of minting.
pub fn usual(root: &Authority, id: &str) -> Leaf {
    root.issue(&LeafRequest::for_workload(id)).unwrap()
}

/// From so many seconds from now to so many.
pub fn around_now(begin: i64, end: i64) -> Validity {
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
    Validity::between(u64::try_from(now + begin).unwrap(), u64::try_from(now + end).unwrap()).unwrap()
}

//! mTLS of the mesh at captured pods' ports.

mod bytes;
mod hello;
mod listener;
mod modes;
mod trust;

use certs::Leaf;
use identity::spiffe::{Bundle, PeerVerifier, TrustBundles, parse_id};
use rustls::{ClientConfig, SupportedProtocolVersion, client::Resumption, version::TLS13};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{apps::App, *};
use crate::{
    hbone::peers::{Peers, id},
    testing::BASE,
};

const HTTP1: &[&[u8]] = &[b"istio-http/1.1", b"istio", b"http/1.1"];
const BYTES: &[&[u8]] = &[b"istio"];

/// A node whose pods have certificates.
pub(super) struct Stage {
    pub(super) node: Node,
    peers: OnceCell<Peers>,
}

impl Stage {
    async fn new(manifests: &[&str]) -> Self {
        Self::build(Build { manifests, ..Build::default() }).await
    }

    async fn build(build: Build<'_>) -> Self {
        let peers = OnceCell::new();
        let node = Node::build(Build { peers: Some(&peers), ..build }).await;
        peers.get().unwrap().of(SERVER).await;
        Self { node, peers }
    }

    fn peers(&self) -> &Peers {
        self.peers.get().unwrap()
    }

    /// A caller from elsewhere, at an entrance of its own to an application of the server pod.
    async fn call(&self, app: &App) -> TcpStream {
        let entrance = self.node.entrance(app.address).await;
        let tcp = self.node.call(9, entrance).await;
        tcp.set_nodelay(true).unwrap();
        tcp
    }

    /// Who the caller `sleep` is.
    fn sleep(&self) -> Leaf {
        self.peers().leaf(&id("sleep"))
    }

    /// The same, as `sleep` by mTLS.
    async fn secured(&self, app: &App, alpn: &[&[u8]]) -> TlsStream<TcpStream> {
        let client = Client { leaf: Some(self.sleep()), alpn, ..Client::default() };
        client.shake(self.peers(), self.call(app).await).await.unwrap()
    }
}

/// How a client begins TLS.
struct Client<'a> {
    leaf: Option<Leaf>,
    alpn: &'a [&'a [u8]],
    sni: Option<&'static str>,
    version: &'static SupportedProtocolVersion,
}

impl Default for Client<'_> {
    fn default() -> Self {
        Self { leaf: None, alpn: HTTP1, sni: None, version: &TLS13 }
    }
}

impl Client<'_> {
    fn config(&self, peers: &Peers) -> ClientConfig {
        let bundle = Bundle::from_roots(vec![peers.root.certificate_der()]).unwrap();
        let bundles = Arc::new(TrustBundles::new(1).with_domain("cluster.local", bundle).unwrap());
        let verifier = PeerVerifier::exactly(bundles, parse_id(&id("default")).unwrap());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[self.version])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match &self.leaf {
            Some(leaf) => builder.with_client_auth_cert(leaf.chain_der(), leaf.key_der()).unwrap(),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = self.alpn.iter().map(|name| name.to_vec()).collect();
        config.resumption = Resumption::disabled();
        config
    }

    fn name(&self) -> ServerName<'static> {
        let unnamed = ServerName::IpAddress(Ipv4Addr::LOCALHOST.into());
        self.sni.map_or(unnamed, |name| ServerName::try_from(name).unwrap())
    }

    /// Shakes hands, and waits for the server to have taken its certificate where that shows.
    async fn shake<S>(&self, peers: &Peers, io: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let connector = TlsConnector::from(Arc::new(self.config(peers)));
        in_time(connector.connect(self.name(), io)).await
    }

    /// Its ClientHello, as it goes out.
    fn hello(&self, peers: &Peers) -> Vec<u8> {
        let config = Arc::new(self.config(peers));
        let mut session = rustls::ClientConnection::new(config, self.name()).unwrap();
        let mut bytes = Vec::new();
        session.write_tls(&mut bytes).unwrap();
        bytes
    }
}

/// Answers each request with its own head.
async fn mirror(ip: IpAddr) -> App {
    App::serve(ip, |_, mut stream| async move {
        let mut bytes = Vec::new();
        while let Ok(1..) = stream.read_buf(&mut bytes).await {
            while let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                let head: Vec<u8> = bytes.drain(..end + 4).collect();
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", head.len());
                let _ = stream.write_all(&[answer.as_bytes(), &head].concat()).await;
            }
        }
    })
    .await
}

/// Says hello before it is spoken to, and then sends back what comes.
async fn greeter(ip: IpAddr) -> App {
    App::serve(ip, |_, mut stream| async move {
        let _ = stream.write_all(b"\x0agreetings").await;
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
        let _ = write.shutdown().await;
    })
    .await
}

/// Asks once: status and body, in lower case.
async fn request<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, request: &str) -> (u16, String) {
    in_time(stream.write_all(request.as_bytes())).await.unwrap();
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned());
            }
        }
        assert!(in_time(stream.read_buf(&mut bytes)).await.unwrap() > 0, "closed after {text:?}");
    }
}

/// Reads to the end: the bytes, and how it ended.
async fn last<S: AsyncRead + Unpin>(stream: &mut S) -> (Vec<u8>, io::Result<()>) {
    let mut bytes = Vec::new();
    let ended = in_time(stream.read_to_end(&mut bytes)).await.map(drop);
    (bytes, ended)
}

//! For tests: an authority, workloads with certificates, and servers of the mesh that are good or bad.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use certs::{Authority, Leaf, OddRequest};
use http::{HeaderMap, Response};
use identity::{
    Clock,
    spiffe::{
        Bundle, CertificateFolder, CertificateSettings, PeerVerifier, Role, Supply, TrustBundles,
        TrustSettings,
    },
};
use mesh::Snapshot;
use policy::SpiffeId;
use rustls::{HandshakeKind, ServerConfig};
use rustls_pki_types::UnixTime;
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;

use super::Stream;
use crate::secure::{Certificates, Whose, WorkloadTls};

/// Nothing here takes so long, however busy the machine is.
const LONG: Duration = Duration::from_secs(60);

/// A mesh's authority and the certificates of our workloads.
pub(crate) struct Peers {
    folder: TempDir,
    pub(crate) root: Authority,
    pub(crate) certificates: Arc<Certificates>,
    supply: Arc<Supply>,
    stop: CancellationToken,
}

impl Drop for Peers {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// The identity of a service account, of `datamesh` where it names no namespace.
pub(crate) fn id(account: &str) -> String {
    let (namespace, name) = account.split_once('/').unwrap_or(("datamesh", account));
    format!("spiffe://cluster.local/ns/{namespace}/sa/{name}")
}

impl Peers {
    /// With certificates for these service accounts.
    pub(crate) fn new(accounts: &[&str], snapshots: watch::Receiver<Option<Arc<Snapshot>>>) -> Self {
        let (folder, root) = (tempfile::tempdir().unwrap(), Authority::mint("root").unwrap());
        let roots = folder.path().join("roots.pem");
        fs::write(&roots, root.certificate_pem()).unwrap();
        let files = accounts.iter().map(|account| {
            let folder = folder.path().join(account);
            fs::create_dir_all(&folder).unwrap();
            let (namespace, name) = account.split_once('/').unwrap_or(("datamesh", account));
            CertificateFolder { service_account: format!("{namespace}/{name}"), folder }
        });
        let settings = CertificateSettings {
            files: files.collect(),
            trust: vec![TrustSettings { domain: "cluster.local".to_owned(), bundles: vec![roots] }],
            retry_min_ms: 20,
            retry_max_ms: 200,
            ..CertificateSettings::default()
        };
        for account in accounts {
            write(folder.path(), account, &root.issue_odd(&OddRequest::workload(id(account))).unwrap());
        }
        let stop = CancellationToken::new();
        let supply = Supply::start(settings, ("cluster.local", &[]), Clock::System, stop.clone()).unwrap();
        let certificates = Certificates::new(Arc::clone(&supply), snapshots, stop.clone());
        Self { folder, root, certificates, supply, stop }
    }

    /// A workload's mTLS, once it has its certificate.
    pub(crate) async fn of(&self, workload: &str) -> Arc<WorkloadTls> {
        let tls = self.certificates.of(Whose::Workload(workload.parse().unwrap()));
        eventually(async || tls.identity().is_some()).await;
        tls
    }

    /// The certificates as another proxy of the mesh has them, which sees these snapshots.
    pub(crate) fn elsewhere(&self, snapshots: watch::Receiver<Option<Arc<Snapshot>>>) -> Arc<Certificates> {
        Certificates::new(Arc::clone(&self.supply), snapshots, self.stop.clone())
    }

    /// An account's certificate is not there yet.
    pub(crate) fn withdraw(&self, account: &str) {
        fs::remove_file(self.folder.path().join(account).join("tls.crt")).unwrap();
    }

    /// Another certificate for an account.
    pub(crate) fn renew(&self, account: &str) {
        write(self.folder.path(), account, &self.leaf(&id(account)));
    }

    /// Other roots are trusted from now on.
    pub(crate) fn trust(&self, root: &Authority) {
        fs::write(self.folder.path().join("roots.pem"), root.certificate_pem()).unwrap();
    }

    pub(crate) fn leaf(&self, id: &str) -> Leaf {
        self.root.issue_odd(&OddRequest::workload(id)).unwrap()
    }

    /// A server's side with this certificate, which asks its clients for theirs.
    pub(crate) fn acceptor(&self, leaf: &Leaf, alpn: &[&[u8]]) -> Acceptor {
        let bundle = Bundle::from_roots(vec![self.root.certificate_der()]).unwrap();
        let bundles = Arc::new(TrustBundles::new(1).with_domain("cluster.local", bundle).unwrap());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(Arc::new(PeerVerifier::anyone(Arc::clone(&bundles))))
            .with_single_cert(leaf.chain_der(), leaf.key_der())
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Acceptor { tls: TlsAcceptor::from(Arc::new(config)), bundles }
    }
}

fn write(folder: &std::path::Path, account: &str, leaf: &Leaf) {
    fs::write(folder.join(account).join("tls.key"), leaf.key_pem()).unwrap();
    fs::write(folder.join(account).join("tls.crt"), leaf.chain_pem()).unwrap();
}

pub(crate) async fn eventually(mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, waiting).await.expect("it never comes to hold");
}

#[derive(Clone)]
pub(crate) struct Acceptor {
    tls: TlsAcceptor,
    bundles: Arc<TrustBundles>,
}

/// What a server was told.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) client: Option<SpiffeId>,
    pub(crate) sni: Option<String>,
    pub(crate) alpn: Option<String>,
    pub(crate) resumed: bool,
}

/// A tunnel that was asked for.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// Which connection.
    pub(crate) connection: usize,
    pub(crate) client: Option<SpiffeId>,
    pub(crate) authority: String,
    pub(crate) headers: HeaderMap,
}

/// A server of the mesh.
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    inner: Arc<Inner>,
}

struct Inner {
    does: Does,
    seen: Mutex<Vec<Seen>>,
    asked: Mutex<Vec<Asked>>,
    failed: Mutex<Vec<String>>,
}

/// What a server does with a connection or a tunnel that was let in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Does {
    /// Sends back what comes, as one end of the connection itself.
    EchoTls,
    /// Tunnels: echoes in each.
    EchoTunnels,
    /// Leads to this address, as one end of the connection itself.
    LeadTls(SocketAddr),
    /// Tunnels lead to this address.
    Lead(SocketAddr),
    /// Tunnels: answers each CONNECT so.
    Answer(u16),
}

impl Peer {
    pub(crate) async fn start(acceptor: Acceptor, does: Does) -> Self {
        Self::at((Ipv4Addr::LOCALHOST, 0).into(), acceptor, does).await
    }

    pub(crate) async fn at(address: SocketAddr, acceptor: Acceptor, does: Does) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let inner = Arc::new(Inner {
            does,
            seen: Mutex::default(),
            asked: Mutex::default(),
            failed: Mutex::default(),
        });
        let peer = Arc::clone(&inner);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (acceptor, peer) = (acceptor.clone(), Arc::clone(&peer));
                tokio::spawn(async move { peer.serve(acceptor, socket).await });
            }
        });
        Self { address, inner }
    }

    /// Connections whose handshake succeeded.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.inner.seen.lock().unwrap().clone()
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.inner.asked.lock().unwrap().clone()
    }

    /// Connections whose handshake failed.
    pub(crate) fn failed(&self) -> usize {
        self.inner.failed.lock().unwrap().len()
    }
}

impl Inner {
    async fn serve(self: Arc<Self>, acceptor: Acceptor, socket: TcpStream) {
        let io = match acceptor.tls.accept(socket).await {
            Ok(io) => io,
            Err(error) => return self.failed.lock().unwrap().push(error.to_string()),
        };
        let seen = seen(&acceptor, &io);
        let number = {
            let mut all = self.seen.lock().unwrap();
            all.push(seen.clone());
            all.len()
        };
        match self.does {
            Does::EchoTls => echo(io).await,
            Does::LeadTls(to) => lead(io, to).await,
            _ => self.tunnels(io, number, seen.client).await,
        }
    }

    async fn tunnels(self: Arc<Self>, io: TlsStream<TcpStream>, connection: usize, client: Option<SpiffeId>) {
        let mut builder = h2::server::Builder::new();
        builder.initial_window_size(256 * 1024).initial_connection_window_size(16 * 1024 * 1024);
        let Ok(mut h2) = builder.handshake::<_, Bytes>(io).await else { return };
        while let Some(Ok((request, mut answer))) = h2.accept().await {
            self.asked.lock().unwrap().push(Asked {
                connection,
                client: client.clone(),
                authority: request.uri().to_string(),
                headers: request.headers().clone(),
            });
            let status = if let Does::Answer(status) = self.does { status } else { 200 };
            let response = Response::builder().status(status).body(()).unwrap();
            let send = answer.send_response(response, status != 200).unwrap();
            if status != 200 {
                continue;
            }
            let stream = Stream::new(send, request.into_body());
            match self.does {
                Does::Lead(to) => tokio::spawn(lead(stream, to)),
                _ => tokio::spawn(echo(stream)),
            };
        }
    }
}

async fn lead(mut io: impl AsyncRead + AsyncWrite + Unpin, to: SocketAddr) {
    let mut app = TcpStream::connect(to).await.unwrap();
    let _ = tokio::io::copy_bidirectional(&mut io, &mut app).await;
}

async fn echo(mut io: impl AsyncRead + AsyncWrite + Unpin) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match io.read(&mut buffer).await {
            Ok(0) => return io.shutdown().await.unwrap_or_default(),
            Ok(length) if io.write_all(&buffer[..length]).await.is_ok() => {
                let _ = io.flush().await;
            }
            _ => return,
        }
    }
}

fn seen(acceptor: &Acceptor, io: &TlsStream<TcpStream>) -> Seen {
    let session = io.get_ref().1;
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let client = session.peer_certificates().and_then(|chain| {
        let (leaf, issuers) = chain.split_first()?;
        acceptor.bundles.verify(leaf, issuers, Role::Client, UnixTime::since_unix_epoch(since)).ok()
    });
    Seen {
        client: client.map(|peer| peer.id),
        sni: session.server_name().map(str::to_owned),
        alpn: session.alpn_protocol().map(|alpn| String::from_utf8_lossy(alpn).into_owned()),
        resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
    }
}

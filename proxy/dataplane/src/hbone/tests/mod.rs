//! The called side over real sockets: a captured pod whose port 15008 callers reach, a listener for the same
//! workload, and clients that keep to HTTP/2 or do not.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod asked;
mod bytes;
mod floods;
mod frames;
mod judged;
mod life;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    },
    time::Duration,
};

use ::bytes::Bytes;
use certs::Leaf;
use h2::{RecvStream, SendStream, client::SendRequest};
use http::{Request, StatusCode};
use identity::spiffe::{Bundle, PeerVerifier, TrustBundles, parse_id};
use observe::Record;
use rustls::{ClientConfig, client::Resumption};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::mpsc,
    task::JoinHandle,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::sync::CancellationToken;

use super::{
    PORT,
    peers::{Peers, eventually, id},
};
use crate::{
    DrainReport, Limits, Proxy,
    accept::{Entry, Listener},
    capture::{Capture, CaptureSettings, Change, Plumbing, Pod, PodId, SocketFuture, Use},
    record::Recorder,
    secure::{Speaking, Whose},
    testing::{BASE, World},
};

/// Nothing here takes so long, however busy the machine is.
const LONG: Duration = Duration::from_secs(50);
/// Captured here; its service account is `server`.
const SERVER: &str = "datamesh/fhir-server";
/// The port of [`Stage::listener`].
const LISTENED: u16 = 8080;
const NOBODY: &[&str] = &[BASE];

/// Stands in for the kernel: every connection is to the pod's port of the mesh.
struct Kernel {
    called: SocketAddr,
    /// No socket into the pod ever comes.
    stuck: Arc<AtomicBool>,
}

impl Plumbing for Kernel {
    fn called(&self, _: &Pod, _: &TcpStream) -> io::Result<SocketAddr> {
        Ok(self.called)
    }

    fn original(&self, _: &Pod, _: &TcpStream, _: SocketAddr) -> Option<SocketAddr> {
        None
    }

    fn socket(&self, _: &Arc<Pod>, _: Use, _: bool) -> SocketFuture<'_> {
        let stuck = self.stuck.load(Ordering::Relaxed);
        Box::pin(async move {
            if stuck {
                std::future::pending::<()>().await;
            }
            let socket = TcpSocket::new_v4()?;
            socket.set_reuseaddr(true)?;
            Ok(socket)
        })
    }
}

#[derive(Debug, Default)]
struct Stories(Mutex<Vec<Record>>);

impl Recorder for Stories {
    fn record(&self, record: Record) {
        self.0.lock().unwrap().push(record);
    }
}

/// A proxy with one captured pod.
struct Stage {
    world: World,
    peers: Peers,
    stories: Arc<Stories>,
    /// The pod's address.
    ip: IpAddr,
    /// Its port of the mesh.
    entrance: SocketAddr,
    /// A listener with `tls: {hbone: true}`, to [`LISTENED`].
    listener: SocketAddr,
    /// The application is never reached.
    stuck: Arc<AtomicBool>,
    stop: CancellationToken,
    running: JoinHandle<DrainReport>,
    _changes: mpsc::Sender<Change>,
}

static NETWORKS: AtomicU32 = AtomicU32::new(0);

impl Stage {
    async fn new(manifests: &[&str]) -> Self {
        Self::with(manifests, Limits::default(), None).await
    }

    /// `upstream`: what is behind the listener.
    async fn with(manifests: &[&str], limits: Limits, upstream: Option<SocketAddr>) -> Self {
        let network = u16::try_from(NETWORKS.fetch_add(1, Ordering::Relaxed)).unwrap() + 0x2d00;
        let [second, third] = network.to_be_bytes();
        let ip = IpAddr::V4(Ipv4Addr::new(127, second, third, 2));
        let world = World::with(manifests, |mesh, _| {
            let server = &mut mesh.workloads[0];
            (server.ip, server.fhir) = (Some(ip), None);
            server.service_account = Some("server".to_owned());
            server.upstream = upstream.map(|upstream| (LISTENED, upstream)).into_iter().collect();
        });
        let peers = Peers::new(&["server"], world.mesh.subscribe());
        let stories = Arc::new(Stories::default());
        let inbound = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let entrance = inbound.local_addr().unwrap();
        let name = SERVER.parse().unwrap();
        let entry = Entry::Workload { name, port: LISTENED };
        let address = (Ipv4Addr::LOCALHOST, 0).into();
        let bound = Listener { name: "hbone".to_owned(), address, entry, tls: None }.bind().unwrap();
        let listener = bound.local_addr();
        let own = peers.of(SERVER).await;
        let bound = bound.with_mesh(own, Some(Speaking::Hbone));
        let (changes, receiver) = mpsc::channel(4);
        let id = PodId { slot: 1, generation: 1 };
        let name = SERVER.parse().unwrap();
        let pod = Pod { id, name, addresses: vec![ip], probes: Vec::new(), transparent: false };
        let take = Change::Take { pod: Arc::new(pod), inbound: vec![inbound], outbound: Vec::new() };
        changes.send(take).await.unwrap();
        let stop = CancellationToken::new();
        let stuck = Arc::<AtomicBool>::default();
        // Without a captured pod a listener's workload is reached at its own address.
        let capture = upstream.is_none().then(|| Capture {
            plumbing: Arc::new(Kernel { called: SocketAddr::new(ip, PORT), stuck: Arc::clone(&stuck) }),
            changes: receiver,
            settings: CaptureSettings { detect_timeout_ms: 50, ..CaptureSettings::default() },
            certificates: Some(Arc::clone(&peers.certificates)),
        });
        let recorder = Arc::clone(&stories) as Arc<dyn Recorder>;
        let proxy = Proxy::new(Arc::clone(&world.engine), recorder, Arc::new(limits));
        let running = tokio::spawn(proxy.run(vec![bound], capture, stop.clone()));
        assert!(peers.certificates.of(Whose::Workload(SERVER.parse().unwrap())).identity().is_some());
        Self { world, peers, stories, ip, entrance, listener, stuck, stop, running, _changes: changes }
    }

    fn publish(&self, manifests: &[&str]) {
        let version = self.world.mesh.borrow().as_ref().unwrap().version + 1;
        self.world.publish(manifests, version);
    }

    /// A client's TLS to an entrance; `account`: whose certificate it shows.
    async fn dial(&self, to: SocketAddr, account: &str) -> TlsStream<TcpStream> {
        let leaf = self.peers.leaf(&id(account));
        self.dial_with(to, Some(&leaf)).await.unwrap()
    }

    async fn dial_with(&self, to: SocketAddr, leaf: Option<&Leaf>) -> io::Result<TlsStream<TcpStream>> {
        let bundle = Bundle::from_roots(vec![self.peers.root.certificate_der()]).unwrap();
        let bundles = TrustBundles::new(1).with_domain("cluster.local", bundle).unwrap();
        let verifier = PeerVerifier::exactly(Arc::new(bundles), parse_id(&id("server")).unwrap());
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
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.resumption = Resumption::disabled();
        let socket = TcpStream::connect(to).await?;
        let name = ServerName::try_from("unknown.example").unwrap();
        in_time(TlsConnector::from(Arc::new(config)).connect(name, socket)).await
    }

    /// An HBONE connection to the pod.
    async fn open(&self, account: &str) -> Tunnels {
        Tunnels::over(self.dial(self.entrance, account).await).await
    }

    /// An authority of the pod's.
    fn at(&self, port: u16) -> String {
        SocketAddr::new(self.ip, port).to_string()
    }

    /// The stories told so far, once one of them is so.
    async fn story(&self, is: impl Fn(&Record) -> bool) -> Record {
        let told = || self.stories.0.lock().unwrap().iter().rev().find(|story| is(story)).cloned();
        let telling = timeout(LONG, eventually(async || told().is_some())).await;
        telling.unwrap_or_else(|_| panic!("not told: {:#?}", self.stories.0.lock().unwrap()));
        told().unwrap()
    }

    async fn end(self) -> DrainReport {
        self.stop.cancel();
        in_time(self.running).await.unwrap()
    }
}

/// A client's HBONE connection.
struct Tunnels {
    send: SendRequest<Bytes>,
    /// Resolves when the connection has ended, with how.
    ended: JoinHandle<Result<(), h2::Error>>,
}

type Answer = (StatusCode, RecvStream, SendStream<Bytes>);

impl Tunnels {
    async fn over(io: TlsStream<TcpStream>) -> Self {
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(256 * 1024).initial_connection_window_size(32 * 1024 * 1024);
        let (send, connection) = in_time(builder.handshake(io)).await.unwrap();
        Self { send, ended: tokio::spawn(connection) }
    }

    async fn ask(&self, request: Request<()>) -> Result<Answer, h2::Error> {
        let mut send = in_time(self.send.clone().ready()).await?;
        let (response, stream) = send.send_request(request, false)?;
        let response = in_time(response).await?;
        Ok((response.status(), response.into_body(), stream))
    }

    async fn status(&self, authority: &str) -> Result<u16, h2::Error> {
        let request = Request::connect(authority).body(()).unwrap();
        Ok(self.ask(request).await?.0.as_u16())
    }

    /// An open tunnel.
    async fn tunnel(&self, authority: &str) -> super::Stream {
        let request = Request::connect(authority).body(()).unwrap();
        let (status, body, send) = self.ask(request).await.unwrap();
        assert_eq!(status, 200, "{authority}");
        super::Stream::new(send, body)
    }
}

/// An application in the pod.
struct App {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl App {
    async fn serve<F>(ip: IpAddr, script: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind((ip, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(script(stream));
            }
        });
        Self { address, connections }
    }

    async fn echo(ip: IpAddr) -> Self {
        Self::serve(ip, |mut stream| async move {
            let (mut read, mut write) = stream.split();
            let _ = tokio::io::copy(&mut read, &mut write).await;
            let _ = write.shutdown().await;
        })
        .await
    }

    /// Answers each HTTP/1 request with its head and, where it is chunked, all of its body.
    async fn mirror(ip: IpAddr) -> Self {
        Self::serve(ip, |mut stream| async move {
            let mut bytes = Vec::new();
            while let Ok(length) = stream.read_buf(&mut bytes).await
                && length > 0
            {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
                if chunked && !(body.contains("0\r\n") && body.ends_with("\r\n\r\n")) {
                    continue;
                }
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len());
                let _ = stream.write_all(answer.as_bytes()).await;
                bytes.clear();
            }
        })
        .await
    }

    fn count(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    fn port(&self) -> u16 {
        self.address.port()
    }
}

async fn in_time<T>(work: impl Future<Output = T>) -> T {
    timeout(LONG, work).await.expect("it took too long")
}

/// Says a request in a tunnel and reads to the end.
async fn get_through(tunnel: &mut super::Stream, path: &str, headers: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nhost: fhir.example\r\nconnection: close\r\n{headers}\r\n");
    in_time(tunnel.write_all(request.as_bytes())).await.unwrap();
    let mut answer = Vec::new();
    in_time(tunnel.read_to_end(&mut answer)).await.unwrap();
    String::from_utf8(answer).unwrap()
}

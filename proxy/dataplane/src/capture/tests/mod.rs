//! Captured connections on real sockets: pods are addresses of the loopback, and a stand-in for the
//! kernel knows where connections were to go.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod apps;
mod gateway;
mod host;
mod inbound;
mod life;
mod meshed;
mod mtls;
mod outbound;
mod protocol;
mod raw;

use std::{
    cell::OnceCell,
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use observe::Record;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::mpsc,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    DrainReport, Limits, Proxy, accept::Bound, hbone::peers::Peers, record::Recorder, testing::World,
};

/// Nothing of these tests takes so long, however busy the machine is.
const LONG: Duration = Duration::from_secs(60);

/// Pods of these tests: the names of `testing`'s workloads.
pub(super) const SERVER: &str = "datamesh/fhir-server";
pub(super) const SLEEP: &str = "datamesh/sleep";

pub(super) const STRICT: &str = r#"
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: datamesh}
spec: {mtls: {mode: STRICT}}
"#;

/// Stands in for the kernel.
#[derive(Default)]
pub(super) struct Kernel {
    /// By inbound listener: the address that its callers called.
    called: Mutex<HashMap<SocketAddr, SocketAddr>>,
    /// By the caller's address: the one that it asked for.
    origins: Mutex<HashMap<SocketAddr, SocketAddr>>,
    /// Sockets that were asked for.
    sockets: Mutex<Vec<(PodId, Use)>>,
    /// No sockets are to be had.
    pub(super) barren: AtomicBool,
}

impl Plumbing for Kernel {
    fn called(&self, _: &Pod, socket: &TcpStream) -> io::Result<SocketAddr> {
        let local = socket.local_addr()?;
        Ok(self.called.lock().unwrap().get(&local).copied().unwrap_or(local))
    }

    fn original(&self, _: &Pod, _: &TcpStream, peer: SocketAddr) -> Option<SocketAddr> {
        self.origins.lock().unwrap().remove(&peer)
    }

    fn socket(&self, pod: &Arc<Pod>, what: Use, v6: bool) -> SocketFuture<'_> {
        let id = pod.id;
        Box::pin(async move {
            if self.barren.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.sockets.lock().unwrap().push((id, what));
            let socket = if v6 { TcpSocket::new_v6()? } else { TcpSocket::new_v4()? };
            socket.set_reuseaddr(true)?;
            Ok(socket)
        })
    }
}

/// Keeps every story.
#[derive(Debug, Default)]
pub(super) struct Stories(Mutex<Vec<Record>>);

impl Recorder for Stories {
    fn record(&self, record: Record) {
        self.0.lock().unwrap().push(record);
    }

    fn opened(&self, story: &Record) {
        assert!(!story.opened, "told once");
    }
}

/// A node with a proxy and captured pods.
pub(super) struct Node {
    pub(super) world: World,
    pub(super) kernel: Arc<Kernel>,
    pub(super) stories: Arc<Stories>,
    pub(super) changes: mpsc::Sender<Change>,
    pub(super) stop: CancellationToken,
    pub(super) server: Captive,
    pub(super) sleep: Captive,
    /// `10.0.0.0/8` of this node: the second and third byte of its pods' addresses.
    network: u16,
    pub(super) running: JoinHandle<DrainReport>,
}

/// A captured pod's addresses.
#[derive(Clone)]
pub(super) struct Captive {
    pub(super) pod: Arc<Pod>,
    pub(super) ip: IpAddr,
    pub(super) outbound: SocketAddr,
}

/// What differs from node to node.
#[derive(Default)]
pub(super) struct Build<'a> {
    pub(super) manifests: &'a [&'a str],
    pub(super) settings: CaptureSettings,
    pub(super) limits: Limits,
    pub(super) opaque: bool,
    pub(super) probes: Vec<Probe>,
    pub(super) services: Vec<(&'a str, u8)>,
    /// Listeners beside the capture.
    pub(super) listeners: Vec<Bound>,
    /// Where the server's port is said to be.
    pub(super) upstream: Option<(u16, SocketAddr)>,
    /// Where the pods' certificates come from; none: they have none.
    pub(super) peers: Option<&'a OnceCell<Peers>>,
}

static NETWORKS: AtomicU32 = AtomicU32::new(0);

impl Node {
    pub(super) async fn new(manifests: &[&str]) -> Self {
        Self::build(Build { manifests, ..Build::default() }).await
    }

    pub(super) async fn build(build: Build<'_>) -> Self {
        let network = u16::try_from(NETWORKS.fetch_add(1, Ordering::Relaxed)).unwrap() + 0x4d00;
        let address = |host: u8| {
            let [second, third] = network.to_be_bytes();
            IpAddr::V4(Ipv4Addr::new(127, second, third, host))
        };
        let world = World::with(build.manifests, |mesh, _| {
            for (workload, host) in mesh.workloads.iter_mut().zip([2, 3]) {
                (workload.ip, workload.fhir) = (Some(address(host)), None);
                workload.upstream = build.upstream.into_iter().collect();
            }
            for (name, host) in build.services {
                mesh.service_addresses.insert(name.to_owned(), address(host));
            }
        });
        let (changes, receiver) = mpsc::channel(16);
        let (kernel, stories) = (Arc::new(Kernel::default()), Arc::new(Stories::default()));
        let pod = |slot: u32, name: &str, host: u8| {
            Arc::new(Pod {
                id: PodId { slot, generation: 1 },
                name: name.parse().unwrap(),
                addresses: vec![address(host)],
                probes: build.probes.clone(),
                transparent: !build.opaque,
            })
        };
        let server = capture(&changes, pod(0, SERVER, 2)).await;
        let sleep = capture(&changes, pod(1, SLEEP, 3)).await;
        let stop = CancellationToken::new();
        let recorder = Arc::clone(&stories) as Arc<dyn Recorder>;
        let proxy = Proxy::new(Arc::clone(&world.engine), recorder, Arc::new(build.limits));
        let plumbing = Arc::clone(&kernel) as Arc<dyn Plumbing>;
        let certificates = build.peers.map(|cell| {
            let peers = cell.get_or_init(|| Peers::new(&["default"], world.mesh.subscribe()));
            Arc::clone(&peers.certificates)
        });
        let capture = Capture { plumbing, changes: receiver, settings: build.settings, certificates };
        let running = tokio::spawn(proxy.run(build.listeners, Some(capture), stop.clone()));
        Self { world, kernel, stories, changes, stop, server, sleep, network, running }
    }

    /// An address of this node's network.
    pub(super) fn address(&self, host: u8) -> IpAddr {
        let [second, third] = self.network.to_be_bytes();
        IpAddr::V4(Ipv4Addr::new(127, second, third, host))
    }

    /// A connection of a pod's application to an address.
    pub(super) async fn connect(&self, from: &Captive, to: SocketAddr) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let own = socket.local_addr().unwrap();
        self.kernel.origins.lock().unwrap().insert(own, to);
        in_time(socket.connect(from.outbound)).await.unwrap()
    }

    /// An inbound listener of the server pod, for callers of this port.
    pub(super) async fn entrance(&self, called: SocketAddr) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        self.kernel.called.lock().unwrap().insert(address, called);
        // A pod of its own, so that the others keep their listeners.
        let slot = u32::from(address.port()) + 16;
        let pod = Pod { id: PodId { slot, generation: 0 }, ..(*self.server.pod).clone() };
        let take = Change::Take { pod: Arc::new(pod), inbound: vec![listener], outbound: Vec::new() };
        self.changes.send(take).await.unwrap();
        address
    }

    /// A caller from elsewhere, at an entrance.
    pub(super) async fn call(&self, from: u8, entrance: SocketAddr) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((self.address(from), 0).into()).unwrap();
        in_time(socket.connect(entrance)).await.unwrap()
    }

    /// The stories told so far, once there are as many.
    pub(super) async fn stories(&self, count: usize) -> Vec<Record> {
        let enough = async {
            loop {
                let told = self.stories.0.lock().unwrap().clone();
                if told.len() >= count {
                    return told;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        in_time(enough).await
    }

    /// How many sockets of a kind were used in a pod.
    pub(super) fn sockets(&self, pod: &Captive, what: Use) -> usize {
        let sockets = self.kernel.sockets.lock().unwrap();
        sockets.iter().filter(|socket| **socket == (pod.pod.id, what)).count()
    }

    pub(super) async fn end(self) -> DrainReport {
        self.stop.cancel();
        in_time(self.running).await.unwrap()
    }
}

async fn capture(changes: &mpsc::Sender<Change>, pod: Arc<Pod>) -> Captive {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let captive =
        Captive { ip: pod.addresses[0], outbound: listener.local_addr().unwrap(), pod: Arc::clone(&pod) };
    let take = Change::Take { pod, inbound: Vec::new(), outbound: vec![listener] };
    changes.send(take).await.unwrap();
    captive
}

pub(super) async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, work).await.expect("it took too long")
}

/// Reads to the end: the bytes, and how it ended.
pub(super) async fn rest(stream: &mut TcpStream) -> (Vec<u8>, io::Result<()>) {
    let mut bytes = Vec::new();
    let ended = in_time(stream.read_to_end(&mut bytes)).await.map(|_| ());
    (bytes, ended)
}

/// A connection that is reset without one byte.
pub(super) async fn assert_reset(mut stream: TcpStream) {
    let (bytes, ended) = rest(&mut stream).await;
    assert_eq!(bytes, b"");
    assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

/// Asks once on a connection that stays open: status and body.
pub(super) async fn ask(stream: &mut TcpStream, request: &str) -> (u16, String) {
    in_time(stream.write_all(request.as_bytes())).await.unwrap();
    answer(stream).await
}

pub(super) async fn answer(stream: &mut TcpStream) -> (u16, String) {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let lower = head.to_ascii_lowercase();
            let length = lower.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
            let length: usize = length.map_or(0, |length| length.parse().unwrap());
            if body.len() >= length {
                return (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned());
            }
        }
        let read = in_time(stream.read_buf(&mut bytes)).await.unwrap();
        assert!(read > 0, "closed after {text:?}");
    }
}

pub(super) fn get(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: fhir.example\r\n{headers}\r\n")
}

//! An agent that makes its sockets on loopback, and does what a test tells it.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use socket2::{Domain, Socket, Type};
use tokio::sync::{mpsc, watch};

use super::super::memory::{Memory, OpenMemory};
use crate::agent::protocol::{
    Ask, Link, Message, PodInfo, PodKey, Refusal, Reply, Request, Seat, SocketKind, VERSION, Welcome,
};

/// The agent, running until killed.
pub struct Agent(tokio::task::JoinHandle<()>);

/// What agents of one test share: state that the kernel would hold.
pub struct Shared {
    folder: tempfile::TempDir,
    pub pods: watch::Sender<Vec<PodInfo>>,
    say: tokio::sync::broadcast::Sender<Reply>,
    /// Every question, as it came.
    pub heard: Mutex<Vec<Ask>>,
    pub listeners: Mutex<BTreeMap<PodKey, Listeners>>,
    pub serving: Mutex<BTreeSet<PodKey>>,
    /// Refuse this many more questions.
    pub refuse: AtomicU32,
    /// Answer nothing.
    pub hang: AtomicBool,
    /// Give at most this many sockets at a time.
    pub give: AtomicU32,
    pub connections: AtomicU32,
}

/// Where a pod's listeners are.
#[derive(Clone, Debug)]
pub struct Listeners {
    pub inbound: SocketAddr,
    pub outbound: SocketAddr,
    pub dns: Vec<SocketAddr>,
}

/// What the kernel would remember.
#[derive(Debug, Default)]
pub struct Remembered {
    pub originals: Mutex<BTreeMap<(u64, SocketAddr), SocketAddr>>,
    pub dns: Mutex<Option<SocketAddr>>,
}

impl Memory for Arc<Remembered> {
    fn original(&self, netns: u64, peer: SocketAddr) -> Option<SocketAddr> {
        self.originals.lock().unwrap().remove(&(netns, peer))
    }

    fn dns_server(&self, _netns: u64, _peer: SocketAddr, _server: u32) -> Option<SocketAddr> {
        *self.dns.lock().unwrap()
    }

    fn counters(&self) -> io::Result<Vec<(abi::Counter, u64)>> {
        Ok(vec![(abi::Counter::RedirectedV4, 3)])
    }
}

impl Remembered {
    pub fn open(self: &Arc<Self>) -> OpenMemory {
        let memory = Arc::clone(self);
        Arc::new(move |_| Ok(Arc::new(Arc::clone(&memory)) as Arc<dyn Memory>))
    }
}

pub fn me() -> (u32, u32) {
    (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}

/// A pod with an IPv4 address.
pub fn pod(slot: u32) -> PodInfo {
    PodInfo {
        key: PodKey { slot, netns: 1000 + u64::from(slot) },
        workload: format!("data/pod{slot}"),
        uid: None,
        addresses: vec![format!("10.77.{slot}.2").parse().unwrap()],
        transparent: true,
        accelerated: false,
        enrolment: 0,
    }
}

impl Shared {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            folder: tempfile::tempdir().unwrap(),
            pods: watch::Sender::new(Vec::new()),
            say: tokio::sync::broadcast::Sender::new(16),
            heard: Mutex::default(),
            listeners: Mutex::default(),
            serving: Mutex::default(),
            refuse: AtomicU32::new(0),
            hang: AtomicBool::new(false),
            give: AtomicU32::new(u32::MAX),
            connections: AtomicU32::new(0),
        })
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("agent.sock")
    }

    pub fn say(&self, reply: Reply) {
        self.say.send(reply).unwrap();
    }

    pub fn heard(&self, count: impl Fn(&Ask) -> bool) -> usize {
        self.heard.lock().unwrap().iter().filter(|ask| count(ask)).count()
    }
}

impl Agent {
    pub fn start(shared: &Arc<Shared>) -> Self {
        let (user, group) = me();
        let seat = Seat::open(&shared.socket(), user, group).unwrap();
        Self(tokio::spawn(accept(seat, Arc::clone(shared))))
    }

    /// As SIGKILL does it: listener and connections are gone at once.
    pub async fn kill(self) {
        self.0.abort();
        let _ = self.0.await;
    }
}

async fn accept(seat: Seat, shared: Arc<Shared>) {
    // Connections end with the agent.
    let mut guests = tokio::task::JoinSet::new();
    loop {
        let (link, _, admission) = seat.accept().await.unwrap();
        let shared = Arc::clone(&shared);
        guests.spawn(async move {
            shared.connections.fetch_add(1, SeqCst);
            let _ = serve(link, &shared).await;
            drop(admission);
        });
    }
}

async fn serve(link: Link, shared: &Arc<Shared>) -> Result<(), crate::agent::protocol::LinkError> {
    let mut pods = shared.pods.subscribe();
    let mut say = shared.say.subscribe();
    let (ask, mut asked) = mpsc::channel::<Request>(64);
    let link = Arc::new(link);
    let reader = Arc::clone(&link);
    let reading = async move {
        while let Ok(packet) = reader.receive::<Request>().await {
            if ask.send(packet.message).await.is_err() {
                return;
            }
        }
    };
    let answering = async {
        let mut welcomed = false;
        loop {
            tokio::select! {
                request = asked.recv() => match request {
                    Some(Request { id, ask }) => {
                        shared.heard.lock().unwrap().push(ask.clone());
                        if shared.hang.load(SeqCst) && welcomed {
                            continue;
                        }
                        let (reply, descriptors) = answer(shared, &ask);
                        send(&link, Some(id), reply, &descriptors).await?;
                        if !welcomed {
                            welcomed = true;
                            pods.mark_changed();
                        }
                    }
                    None => return Ok(()),
                },
                Ok(()) = pods.changed(), if welcomed => {
                    let list = pods.borrow_and_update().clone();
                    send(&link, None, Reply::Pods { more: false, pods: list }, &[]).await?;
                }
                Ok(reply) = say.recv() => send(&link, None, reply, &[]).await?,
            }
        }
    };
    tokio::select! {
        () = reading => Ok(()),
        result = answering => result,
    }
}

async fn send(
    link: &Link,
    to: Option<u64>,
    say: Reply,
    descriptors: &[OwnedFd],
) -> Result<(), crate::agent::protocol::LinkError> {
    let descriptors: Vec<BorrowedFd<'_>> = descriptors.iter().map(|fd| fd.as_fd()).collect();
    link.send(&Message { to, say }, &descriptors).await
}

fn answer(shared: &Shared, ask: &Ask) -> (Reply, Vec<OwnedFd>) {
    let refuse = !matches!(ask, Ask::Hello(_))
        && shared.refuse.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok();
    if refuse {
        return (Reply::Refused { reason: Refusal::Kernel, detail: "as told".to_owned() }, Vec::new());
    }
    match ask {
        Ask::Hello(_) => {
            let node_addresses = vec!["10.0.0.1".parse().unwrap()];
            let maps = (0..3).map(|_| tempfile::tempfile().unwrap().into()).collect();
            (Reply::Welcome(Welcome { version: VERSION, node_addresses }), maps)
        }
        Ask::Listen { pod } => {
            let (listeners, descriptors) = listeners();
            shared.listeners.lock().unwrap().insert(*pod, listeners);
            (Reply::Listeners { pod: *pod, v4: true, v6: false }, descriptors)
        }
        Ask::Serving { pod } => {
            shared.serving.lock().unwrap().insert(*pod);
            (Reply::Ready { pod: *pod }, Vec::new())
        }
        Ask::Stock { kind: SocketKind::Egress6 | SocketKind::Ingress6 | SocketKind::Dns6, .. } => {
            (Reply::Refused { reason: Refusal::Family, detail: "IPv4 alone".to_owned() }, Vec::new())
        }
        Ask::Stock { pod, kind, count } => {
            let count = (*count).min(shared.give.load(SeqCst));
            let sockets = (0..count).map(|_| socket(*kind)).collect();
            (Reply::Sockets { pod: *pod, kind: *kind }, sockets)
        }
        Ask::Status {} => unreachable!("a proxy does not ask for it"),
    }
}

fn listeners() -> (Listeners, Vec<OwnedFd>) {
    let tcp = || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        listener
    };
    let udp = || {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        socket
    };
    let (inbound, outbound) = (tcp(), tcp());
    let dns: Vec<_> = (0..abi::DNS_SERVERS).map(|_| udp()).collect();
    let addresses = Listeners {
        inbound: inbound.local_addr().unwrap(),
        outbound: outbound.local_addr().unwrap(),
        dns: dns.iter().map(|socket| socket.local_addr().unwrap()).collect(),
    };
    let descriptors = [OwnedFd::from(inbound), outbound.into()];
    (addresses, descriptors.into_iter().chain(dns.into_iter().map(OwnedFd::from)).collect())
}

fn socket(kind: SocketKind) -> OwnedFd {
    let kind = if kind == SocketKind::Dns4 { Type::DGRAM } else { Type::STREAM };
    let socket = Socket::new(Domain::IPV4, kind, None).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket.into()
}

/// Waits for something that must come.
pub async fn eventually(what: &str, mut happens: impl FnMut() -> bool) {
    let began = std::time::Instant::now();
    while !happens() {
        assert!(began.elapsed() < Duration::from_secs(60), "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

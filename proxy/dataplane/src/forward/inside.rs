//! Connections straight to an application inside its pod, and from a pod outwards, past the capture
//! that would lead them back to us.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, OnceLock},
    time::Duration,
};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use super::{pool::Pool, rooms::Rooms};
use crate::{
    Limits,
    authorize::PermittedOutside,
    capture::{Plumbing, Pod, PodId, Use},
    dice::Dice,
    refusal::UpstreamFault,
};

/// Ports for the client's own address. Outside the range from which clients are given theirs
/// (`net.ipv4.ip_local_port_range`): with the client's real port the connection would have the same
/// two ends as the one that we accepted, in the same network namespace.
const PORTS: std::ops::Range<u16> = 1024..32_768;
/// What the application sees where it is not to see its client: Istio's sidecars show the same.
const OURS_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 6));
const OURS_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6));
/// How often another port is tried.
const ATTEMPTS: usize = 8;
/// Without an answer to its SYN for so long, a connection tries another port: the one before may
/// belong to a connection that the application has not forgotten yet.
const PATIENCE: Duration = Duration::from_secs(1);
/// A peer that is silent for so long is asked for a sign of life.
const KEEPALIVE: Duration = Duration::from_secs(75);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEPALIVE_RETRIES: u32 = 5;

/// What all pods share.
pub(crate) struct Kernel {
    pub(crate) plumbing: Arc<dyn Plumbing>,
    pub(crate) dice: Dice,
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kernel").finish_non_exhaustive()
    }
}

/// A pod's inside, for one client. Connections made here are used for this client alone.
#[derive(Debug, Clone)]
pub(crate) struct Inside {
    pub(crate) kernel: Arc<Kernel>,
    pub(crate) pod: Arc<Pod>,
    /// The captured pod that calls.
    pub(crate) from: Option<PodId>,
    /// The caller's address.
    pub(crate) client: Option<IpAddr>,
}

/// The way to one port inside a pod, for one client.
#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) inside: Arc<Inside>,
    /// The pod's own address, and the container port.
    pub(crate) address: SocketAddr,
    /// Looked for once.
    pool: OnceLock<Arc<Pool>>,
}

impl Door {
    pub(crate) fn new(inside: Inside, address: SocketAddr) -> Self {
        Self { inside: Arc::new(inside), address, pool: OnceLock::new() }
    }

    pub(super) fn pool(&self, rooms: &Rooms, limits: &Arc<Limits>) -> Arc<Pool> {
        Arc::clone(self.pool.get_or_init(|| rooms.pool(&self.inside, self.address, limits)))
    }

    /// Connects to the application for raw bytes.
    pub(crate) async fn connect(&self, limit: Duration) -> Result<TcpStream, UpstreamFault> {
        in_time(self.inside.connect(self.address), limit).await
    }
}

/// A request's way through a door.
#[derive(Debug)]
pub(crate) struct Passage {
    pub(crate) door: Arc<Door>,
    /// The version that the application is spoken to in, where that is the client's: it believes to
    /// speak with its client.
    pub(crate) http2: Option<bool>,
}

/// What connections inside a pod may be shared by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct InsideKey {
    pub(crate) pod: PodId,
    address: SocketAddr,
    from: Option<PodId>,
    client: Option<IpAddr>,
}

impl Inside {
    pub(crate) fn key(&self, address: SocketAddr) -> InsideKey {
        InsideKey { pod: self.pod.id, address, from: self.from, client: self.client }
    }

    /// Connects to the application. The caller bounds the wait.
    pub(super) async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let mut left = ATTEMPTS;
        loop {
            left -= 1;
            let socket = self.kernel.plumbing.socket(&self.pod, Use::Ingress, address.is_ipv6()).await?;
            prepare(&SockRef::from(&socket))?;
            self.bind(&socket, self.source(address))?;
            if left == 0 {
                return socket.connect(address).await;
            }
            match timeout(PATIENCE, socket.connect(address)).await {
                Ok(Err(error)) if is_taken(&error) => {}
                Ok(done) => return done,
                Err(_) => {}
            }
        }
    }

    /// The address that the application is to see: its client's, where that is kept and is not its
    /// own. Never the first of the loopback, which applications trust as themselves.
    fn source(&self, address: SocketAddr) -> IpAddr {
        let same_family = |ip: &IpAddr| ip.is_ipv4() == address.is_ipv4();
        let kept = self.client.filter(|_| self.pod.transparent).filter(same_family);
        let kept = kept.filter(|ip| !self.pod.addresses.contains(ip) && !ip.is_unspecified());
        kept.unwrap_or(if address.is_ipv4() { OURS_V4 } else { OURS_V6 })
    }

    fn bind(&self, socket: &TcpSocket, ip: IpAddr) -> io::Result<()> {
        let mut left = ATTEMPTS;
        loop {
            left -= 1;
            let width = u64::from(PORTS.end - PORTS.start);
            let offset = u16::try_from(self.kernel.dice.throw() % width).unwrap_or(0);
            match socket.bind(SocketAddr::new(ip, PORTS.start + offset)) {
                Err(error) if is_taken(&error) && left > 0 => {}
                bound => return bound,
            }
        }
    }
}

/// Connects for a pod to where it asked for.
pub(crate) async fn leave(
    kernel: &Arc<Kernel>,
    permitted: &PermittedOutside,
    limit: Duration,
) -> Result<TcpStream, UpstreamFault> {
    let (pod, address) = (permitted.pod(), permitted.address());
    if permitted.what() == Use::Ingress {
        let inside =
            Inside { kernel: Arc::clone(kernel), pod: Arc::clone(pod), from: Some(pod.id), client: None };
        return in_time(inside.connect(address), limit).await;
    }
    let connecting = async {
        let socket = kernel.plumbing.socket(pod, Use::Egress, address.is_ipv6()).await?;
        prepare(&SockRef::from(&socket))?;
        socket.connect(address).await
    };
    in_time(connecting, limit).await
}

/// Connects to an application that is not in a captured pod, for raw bytes.
pub(super) async fn straight(address: SocketAddr, limit: Duration) -> Result<TcpStream, UpstreamFault> {
    let connecting = async {
        let socket = TcpStream::connect(address).await?;
        prepare(&SockRef::from(&socket))?;
        Ok(socket)
    };
    in_time(connecting, limit).await
}

async fn in_time(
    connecting: impl Future<Output = io::Result<TcpStream>>,
    limit: Duration,
) -> Result<TcpStream, UpstreamFault> {
    match timeout(limit, connecting).await {
        Ok(connected) => connected.map_err(|error| {
            tracing::debug!(%error, "cannot connect");
            UpstreamFault::ConnectFailed
        }),
        Err(_) => Err(UpstreamFault::ConnectTimeout),
    }
}

/// How sockets of captured connections are to be, on both sides: nothing is held back, urgent data
/// stay in their place among the others, and a peer that is gone is noticed.
pub(crate) fn prepare(socket: &SockRef<'_>) -> io::Result<()> {
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_RETRIES);
    socket.set_tcp_nodelay(true)?;
    socket.set_out_of_band_inline(true)?;
    socket.set_tcp_keepalive(&keepalive)
}

fn is_taken(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable)
}

//! Captured connections: those that the kernel leads to the proxy from inside a pod, or on their way
//! into one, without the application's knowing.
//!
//! This room knows pods, sockets and addresses. How sockets come to be inside a pod's network
//! namespace, and what the kernel remembers of a redirected connection, is the business of whoever
//! implements [`Plumbing`].
//!
//! | part | does |
//! |---|---|
//! | [`manage`], [`pods`] | pods come and go; the table of those that are here |
//! | [`arrive`] | a connection: who calls, whom, which way |
//! | [`way`] | from the address that was asked for to a pod here (one hop), or elsewhere |
//! | [`enter`] | into a pod from elsewhere: TLS of the mesh or plaintext, as PeerAuthentication has it |
//! | [`tell`], [`detect`], [`silence`] | HTTP, TLS or other bytes, and where nobody speaks: who does first |
//! | [`speak`] | to a workload: as HTTP through all rooms, or as bytes that policy permits |
//! | [`outside`] | out of a pod: bytes |
//! | [`captured`] | what is known beside the facts of every connection; probes |

mod arrive;
mod captured;
mod detect;
mod enter;
mod manage;
mod outside;
mod pods;
mod refuse;
mod silence;
mod speak;
mod tell;
#[cfg(test)]
mod tests;
mod way;

use std::{fmt, io, net::IpAddr, net::SocketAddr, pin::Pin, sync::Arc};

use mesh::Probe;
use policy::WorkloadName;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::mpsc,
};

use crate::secure::Certificates;

pub(crate) use captured::{Captured, DeclaredProbe, HostConnection};
pub(crate) use enter::tunnelled;
pub(crate) use manage::manage;
pub(crate) use pods::{Held, Pods};
pub(crate) use speak::{Talk, door, speak};
pub(crate) use tell::declared;

/// A pod for as long as it is captured. A slot that is used again has another generation, so an id
/// never means two pods in the life of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodId {
    /// The pod's slot in the kernel's maps.
    pub slot: u32,
    /// Which use of the slot.
    pub generation: u32,
}

impl fmt::Display for PodId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.slot, self.generation)
    }
}

/// A captured pod of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Its id.
    pub id: PodId,
    /// The workload that it is of: its policies hold, its service account is the pod's identity.
    pub name: WorkloadName,
    /// Its addresses (global scope, no loopback), IPv4 and IPv6. Inbound connections to others are
    /// refused.
    pub addresses: Vec<IpAddr>,
    /// Probes of the settings, beside those of the Pod's manifest.
    pub probes: Vec<Probe>,
    /// The application sees its clients' own addresses: [`Use::Ingress`] sockets of this pod may be
    /// bound to addresses that are not local (`IP_TRANSPARENT`).
    pub transparent: bool,
}

/// What a socket inside a pod is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Use {
    /// To connect from the pod outwards, past the capture.
    Egress,
    /// To connect to the pod's own application, past the capture. `SO_REUSEADDR` is set; where the
    /// pod is transparent, so are `IP_TRANSPARENT` or its IPv6 like.
    Ingress,
}

/// A socket on its way.
pub type SocketFuture<'a> = Pin<Box<dyn Future<Output = io::Result<TcpSocket>> + Send + 'a>>;

/// What the kernel's side does for captured connections.
pub trait Plumbing: Send + Sync + 'static {
    /// The address that was called, of a connection accepted on one of the pod's inbound listeners:
    /// the connection's own, where the kernel leads connections to the listener as they are.
    ///
    /// # Errors
    /// The connection is gone.
    fn called(&self, _pod: &Pod, socket: &TcpStream) -> io::Result<SocketAddr> {
        socket.local_addr()
    }

    /// The address that the application asked for, of a connection accepted on one of the pod's
    /// outbound listeners. Asked once for each. `None`: not known, and the connection is closed.
    fn original(&self, pod: &Pod, socket: &TcpStream, peer: SocketAddr) -> Option<SocketAddr>;

    /// A fresh socket inside the pod's network namespace, neither bound nor connected; normally from
    /// a stock, at once. The caller bounds the wait.
    fn socket(&self, pod: &Arc<Pod>, what: Use, v6: bool) -> SocketFuture<'_>;
}

/// What has changed about captured pods.
#[derive(Debug)]
pub enum Change {
    /// A pod is served from now on. Where the id is known already, the listeners given before take
    /// what is in their queue and close; connections stay.
    Take {
        /// Which.
        pod: Arc<Pod>,
        /// Connections on their way into the pod. Their local address is the one that was called.
        inbound: Vec<TcpListener>,
        /// Connections of the pod's application. Their local address is ours, [`Plumbing::original`]
        /// knows the one called.
        outbound: Vec<TcpListener>,
    },
    /// The pod is no longer ours: what is in the listeners' queues is served, they close, and the
    /// pod's connections drain as at the proxy's own end.
    Release {
        /// Which.
        id: PodId,
    },
    /// The pod is no more: its connections are reset.
    Gone {
        /// Which.
        id: PodId,
    },
    /// The node's own addresses: connections from them into a pod are the host's.
    NodeAddresses(Vec<IpAddr>),
}

/// What the host itself (kubelet probes) may do at captured pods. A host connection comes from an
/// address of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HostTraffic {
    /// Exactly the declared probes pass without policy; everything else is judged as a caller
    /// without identity.
    #[default]
    Probes,
    /// Everything passes without policy.
    All,
    /// It is judged as every caller without identity.
    None,
}

/// What an operator says of captured connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CaptureSettings {
    /// The host's own traffic.
    pub host: HostTraffic,
    /// How long a client may be silent, milliseconds, before a connection is taken for one whose
    /// server speaks first. Where policies speak of HTTP it stays HTTP.
    pub detect_timeout_ms: u64,
}

impl Default for CaptureSettings {
    fn default() -> Self {
        Self { host: HostTraffic::Probes, detect_timeout_ms: 100 }
    }
}

/// Captured pods, for [`crate::Proxy::run`].
pub struct Capture {
    /// The kernel's side.
    pub plumbing: Arc<dyn Plumbing>,
    /// Pods that come and go, in order.
    pub changes: mpsc::Receiver<Change>,
    /// Settings.
    pub settings: CaptureSettings,
    /// The pods' mTLS; none: it is spoken with nobody.
    pub certificates: Option<Arc<Certificates>>,
}

impl fmt::Debug for Capture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Capture").field("settings", &self.settings).finish_non_exhaustive()
    }
}

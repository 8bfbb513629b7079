//! Network namespaces by path. No file descriptor is kept: an open one would keep a dead pod's
//! namespace alive. So each visit opens the path again and makes sure that it is still the same.

use std::{
    io,
    net::IpAddr,
    path::{Path, PathBuf},
};

/// A network namespace: its path, and what makes sure that the path still means the same one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Netns {
    path: PathBuf,
    inode: u64,
    cookie: u64,
}

/// A network interface inside a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// As `ip link` numbers it, within its namespace.
    pub index: u32,
    /// As `ip link` names it.
    pub name: String,
    /// Whether it is the loopback interface.
    pub loopback: bool,
    /// Whether it is up.
    pub up: bool,
    /// Index of the interface at the other end, within the namespace `peer_netns` (veth), or of the
    /// one below (VLAN, macvlan).
    pub peer: Option<u32>,
    /// Id of the namespace of `peer`, as this namespace numbers others; none: the same namespace.
    pub peer_netns: Option<i32>,
    /// `veth`, `macvlan`, ... as rtnetlink calls it; empty for hardware.
    pub kind: String,
}

impl Netns {
    /// The namespace behind a path such as `/run/netns/NAME` or `/proc/PID/ns/net`.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let _ = path;
        Err(io::Error::new(io::ErrorKind::Unsupported, "not built yet"))
    }

    /// The one this process is in.
    pub fn own() -> io::Result<Self> {
        Self::open("/proc/self/ns/net")
    }

    /// Where it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Inode, as `/proc/PID/ns/net` shows it. Used again after the namespace is gone.
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// Cookie, as BPF programs see it. Never used again while the node runs.
    pub fn cookie(&self) -> u64 {
        self.cookie
    }

    /// Whether the path still leads to this namespace.
    pub fn is_there(&self) -> bool {
        Self::open(&self.path).is_ok_and(|now| now == *self)
    }

    /// Does something inside the namespace, on a thread made for it: no worker thread ever finds
    /// itself elsewhere. Sockets made by `work` stay inside.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        let _ = work;
        Err(io::Error::new(io::ErrorKind::Unsupported, "not built yet"))
    }

    /// The addresses of global scope, loopback and link-local ones left out.
    pub fn addresses(&self) -> io::Result<Vec<IpAddr>> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "not built yet"))
    }

    /// All interfaces.
    pub fn interfaces(&self) -> io::Result<Vec<Interface>> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "not built yet"))
    }
}

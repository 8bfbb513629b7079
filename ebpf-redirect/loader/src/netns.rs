//! Network namespaces by path. No file descriptor is kept: an open one would keep a dead pod's
//! namespace alive. So each visit opens the path again and makes sure that it is still the same.

use std::{
    fs::File,
    io,
    net::IpAddr,
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    thread,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use socket2::{Domain, Socket, Type};

use crate::{netlink::route, sys};

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
        let path = path.as_ref().to_path_buf();
        let (inode, cookie) =
            inside(&path, |file| -> io::Result<_> { Ok((file.metadata()?.ino(), own_cookie()?)) })??;
        Ok(Self { path, inode, cookie })
    }

    /// The one this process is in.
    pub fn own() -> io::Result<Self> {
        let path = PathBuf::from("/proc/self/ns/net");
        let inode = std::fs::metadata(&path)?.ino();
        Ok(Self { path, inode, cookie: own_cookie()? })
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
    /// itself elsewhere. Sockets made by `work` stay inside. An error if the path leads elsewhere now.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        inside(&self.path, |file| {
            if file.metadata()?.ino() != self.inode || own_cookie()? != self.cookie {
                let gone = format!("{} leads to another network namespace now", self.path.display());
                return Err(io::Error::new(io::ErrorKind::NotFound, gone));
            }
            Ok(work())
        })?
    }

    /// The namespace as a file, for what takes one; not to be kept.
    pub(crate) fn file(&self) -> io::Result<File> {
        self.run(|| File::open("/proc/thread-self/ns/net"))?
    }

    /// The addresses of global scope, loopback and link-local ones left out.
    pub fn addresses(&self) -> io::Result<Vec<IpAddr>> {
        self.run(route::addresses)?
    }

    /// All interfaces.
    pub fn interfaces(&self) -> io::Result<Vec<Interface>> {
        self.run(route::interfaces)?
    }
}

/// Does `work` on a fresh thread inside the namespace behind `path`; it gets the file it went in by.
fn inside<T: Send>(path: &Path, work: impl FnOnce(&File) -> T + Send) -> io::Result<T> {
    let file = File::open(path)?;
    let visit = || {
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
        Ok(work(&file))
    };
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("netns".to_owned()).spawn_scoped(scope, visit)?;
        thread.join().map_err(|_| io::Error::other("the thread inside the network namespace panicked"))?
    })
}

/// Cookie of the calling thread's namespace.
fn own_cookie() -> io::Result<u64> {
    let socket = Socket::new(Domain::UNIX, Type::DGRAM, None)?;
    sys::netns_cookie(socket.as_fd())
}

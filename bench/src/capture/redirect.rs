//! The same proxy behind iptables REDIRECT: what leads connections to it, and how it learns where they
//! were going, are netfilter's; all else is ours. It makes its sockets inside the pods itself, as root,
//! where ours has them made by the agent: that is in its favour.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use dataplane::capture::{Plumbing, Pod, PodId, SocketFuture, Use};
use rustix::net::sockopt;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Connections outwards are turned to this port of the pod's loopback.
pub const PORT: u16 = 15_001;
/// The mark of the proxy's own.
pub const MARK: u32 = 0x53a;

/// A pod on the command line: `namespace/name=address=/run/netns/file`.
#[derive(Debug, Clone)]
pub struct PodWord {
    /// The workload's name.
    pub name: String,
    /// The pod's address.
    pub address: IpAddr,
    /// The file of its network namespace.
    pub netns: PathBuf,
}

impl FromStr for PodWord {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.splitn(3, '=');
        let mut next = || parts.next().ok_or_else(|| format!("{text}: not name=address=netns"));
        let (name, address, netns) = (next()?.to_owned(), next()?, next()?.into());
        let address = address.parse().map_err(|error| format!("{text}: {error}"))?;
        Ok(Self { name, address, netns })
    }
}

/// Network namespaces by pod.
pub struct Redirect {
    own: File,
    pods: HashMap<PodId, File>,
}

impl Redirect {
    /// Of no pod yet.
    ///
    /// # Errors
    /// Without `/proc`.
    pub fn new() -> io::Result<Self> {
        Ok(Self { own: File::open("/proc/thread-self/ns/net")?, pods: HashMap::new() })
    }

    /// Takes a pod; gives its listener for connections outwards.
    ///
    /// # Errors
    /// When its namespace cannot be entered or the port is taken.
    pub fn take(&mut self, id: PodId, netns: &Path) -> io::Result<TcpListener> {
        self.pods.insert(id, File::open(netns)?);
        let listener = self.inside(id, || std::net::TcpListener::bind(("127.0.0.1", PORT)))?;
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    }

    /// Does something brief inside a pod's namespace, without giving up the thread.
    fn inside<T>(&self, id: PodId, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let pod = self.pods.get(&id).ok_or(io::ErrorKind::NotFound)?;
        move_into_link_name_space(pod.as_fd(), Some(LinkNameSpaceType::Network))?;
        let done = work();
        if move_into_link_name_space(self.own.as_fd(), Some(LinkNameSpaceType::Network)).is_err() {
            // A thread that stays inside a pod would serve another pod from there.
            std::process::abort();
        }
        done
    }
}

impl Plumbing for Redirect {
    fn original(&self, _: &Pod, socket: &TcpStream, _: SocketAddr) -> Option<SocketAddr> {
        sockopt::ip_original_dst(socket).ok().map(SocketAddr::V4)
    }

    fn socket(&self, pod: &Arc<Pod>, _: Use, v6: bool) -> SocketFuture<'_> {
        let make = || {
            let socket = if v6 { TcpSocket::new_v6()? } else { TcpSocket::new_v4()? };
            socket.set_reuseaddr(true)?;
            SockRef::from(&socket).set_mark(MARK)?;
            Ok(socket)
        };
        let made = self.inside(pod.id, make);
        Box::pin(std::future::ready(made))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::PodWord;

    #[test]
    fn pods_are_told_on_the_command_line() {
        let word: PodWord = "m/a=10.0.0.1=/run/netns/a".parse().unwrap();
        assert_eq!((word.name.as_str(), word.netns.to_str()), ("m/a", Some("/run/netns/a")));
        assert!("m/a=10.0.0=/run/netns/a".parse::<PodWord>().is_err());
        assert!("m/a".parse::<PodWord>().is_err());
    }
}

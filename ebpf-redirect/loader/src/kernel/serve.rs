//! The proxy's sockets in a pod, and when the pod may use them.

use std::{
    io,
    net::IpAddr,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
};

use abi::{DnsPorts, slot as listener};

use super::{Kernel, Listeners, Slot};
use crate::{
    LoadError, SocketKind,
    netlink::diag::{self, Found, Transport},
    sockets, sys,
};

/// Port of DNS servers, RFC 1035.
const DNS: u16 = 53;

/// How often connections are looked for again: each time only those that came meanwhile are left.
const ROUNDS: usize = 5;

impl Kernel {
    /// Fresh sockets inside the pod's network namespace, at most 64 at a time.
    ///
    /// # Errors
    /// Such as `EADDRNOTAVAIL` or `EAFNOSUPPORT` in a namespace without IPv6.
    pub fn sockets(&self, slot: Slot, kind: SocketKind, count: usize) -> Result<Vec<OwnedFd>, LoadError> {
        let netns = self.place(slot)?;
        let make = || (0..count.min(sockets::MOST)).map(|_| kind.make()).collect::<io::Result<Vec<_>>>();
        netns.run(make).flatten().map_err(LoadError::io(format!("make a socket in the pod in slot {slot}")))
    }

    /// Gives the pod's connections to these listeners, and its DNS queries to these ports. The
    /// listeners before them get no new ones.
    pub fn serve(&mut self, slot: Slot, listeners: &Listeners<'_>, dns: DnsPorts) -> Result<(), LoadError> {
        let pod = self.entry(slot)?;
        let places = [
            (listener::IN4, Some(listeners.in4)),
            (listener::IN6, listeners.in6),
            (listener::OUT4, Some(listeners.out4)),
            (listener::OUT6, listeners.out6),
        ];
        for (_, socket) in places {
            socket.map_or(Ok(()), |socket| is_of(socket, pod.netns_cookie))?;
        }
        for (place, socket) in places {
            let result = match socket {
                Some(socket) => self.maps.set_listener(slot, place, socket.as_raw_fd()),
                None => self.maps.remove_listener(slot, place),
            };
            result.map_err(LoadError::io(format!("give the pod in slot {slot} a listener")))?;
        }
        let result = self.maps.set_dns_ports(pod.netns_cookie, &dns);
        result.map_err(LoadError::io(format!("give the pod in slot {slot} its DNS ports")))
    }

    /// Ends TCP connections that leave the pod and are not the proxy's, and UDP sockets connected to a
    /// DNS server. Returns how many. To be called between [`Kernel::enrol`] and [`Kernel::serve`], when
    /// no new connection can come in between; later, half-open ones to the proxy end too and are tried
    /// again by their clients.
    pub fn end_old_connections(&self, slot: Slot) -> Result<u32, LoadError> {
        let netns = self.place(slot)?;
        let allowed = self.maps.allowed_cgroups().map_err(LoadError::io("read the map ALLOWED_CGROUPS"))?;
        netns
            .run(|| end(&allowed))
            .flatten()
            .map_err(LoadError::io(format!("end the old connections of the pod in slot {slot}")))
    }

    /// How many connections of the proxy's there are inside the pod: to its servers, out of it, and those
    /// that were given to it.
    pub fn under_way(&self, slot: Slot) -> Result<usize, LoadError> {
        let netns = self.place(slot)?;
        let allowed = self.maps.allowed_cgroups().map_err(LoadError::io("read the map ALLOWED_CGROUPS"))?;
        let is_ours = |socket: &Found| socket.cgroup.is_some_and(|cgroup| allowed.contains(&cgroup));
        netns
            .run(|| Ok(diag::connected(Transport::Tcp)?.iter().filter(|socket| is_ours(socket)).count()))
            .flatten()
            .map_err(LoadError::io(format!("count the connections of the pod in slot {slot}")))
    }

    /// Lets the pod open connections: to the proxy.
    ///
    /// # Errors
    /// When a program is not attached; the pod stays closed.
    pub fn ready(&mut self, slot: Slot) -> Result<(), LoadError> {
        let pod = self.entry(slot)?;
        let missing = self.missing(slot, &pod).map_err(LoadError::io("read the pins"))?;
        if let Some(program) = missing.first() {
            let reason = "it is not attached: enrol the pod again".to_owned();
            return Err(LoadError::Bpf {
                doing: format!("open the pod in slot {slot} without program {program}"),
                reason,
            });
        }
        self.maps.set_ready(pod.netns_cookie, slot).map_err(LoadError::io("write the map READY"))
    }

    /// Refuses the pod's new connections with EPERM; those under way go on.
    pub fn unready(&mut self, slot: Slot) -> Result<(), LoadError> {
        let pod = self.entry(slot)?;
        self.maps.remove_ready(pod.netns_cookie).map_err(LoadError::io("write the map READY"))
    }
}

/// Makes sure that a listener is inside the pod: connections given to another would be another's.
fn is_of(socket: BorrowedFd<'_>, netns: u64) -> Result<(), LoadError> {
    let wrong = || io::Error::new(io::ErrorKind::InvalidInput, "it is of another network namespace");
    let cookie = sys::netns_cookie(socket);
    let is_right = cookie.and_then(|cookie| if cookie == netns { Ok(()) } else { Err(wrong()) });
    is_right.map_err(LoadError::io("give the pod this listener"))
}

/// In the calling thread's namespace.
fn end(allowed: &[u64]) -> io::Result<u32> {
    let mut ended = 0;
    for round in 0..ROUNDS {
        // Half-open ones have no cgroup yet. Those that are old are here at first, and a listener of the
        // proxy's may be getting new ones all the time.
        let is_old = |socket: &Found| match socket.cgroup {
            Some(cgroup) => leaves(socket) && !allowed.contains(&cgroup),
            None => leaves(socket) && round == 0,
        };
        let mut old = diag::connected(Transport::Tcp)?;
        old.retain(is_old);
        let mut dns = diag::connected(Transport::Udp)?;
        dns.retain(|socket| socket.remote_port == DNS && is_old(socket));
        old.append(&mut dns);
        if old.is_empty() {
            return Ok(ended);
        }
        ended += diag::destroy(&old)?;
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "new ones keep coming"))
}

/// Whether the socket's other end may be outside the pod; its own addresses count as outside.
fn leaves(socket: &Found) -> bool {
    let is_loopback = |ip: IpAddr| ip.is_loopback();
    !(is_loopback(socket.local) && is_loopback(socket.remote))
}

//! Keys and values of the maps.

use crate::{Address, DNS_SERVERS};

/// Where a connection wanted to go, and who opened it. Value of `ORIGINS` and, on the
/// application's socket, of `ORIGIN_STORE`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// What the application passed to `connect`.
    pub address: Address,
    /// Cookie of the socket's network namespace: the pod.
    pub netns: u64,
    /// Cgroup of the connecting task: the container.
    pub cgroup: u64,
    /// When, in nanoseconds of CLOCK_BOOTTIME, so that entries of a proxy that died before it
    /// accepted can be told from new ones.
    pub at: u64,
}

/// Key of `ORIGINS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OriginKey {
    /// Cookie of the network namespace: loopback addresses are the same in all of them.
    pub netns: u64,
    /// The peer's address as the proxy's `accept` gives it.
    pub source: Address,
}

/// Key of `DNS_ORIGINS`, whose value is the [`Address`] of the server that was asked.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DnsKey {
    /// Cookie of the network namespace.
    pub netns: u64,
    /// The peer's address as the proxy's `recvfrom` gives it.
    pub source: Address,
    /// Which of the pod's DNS sockets the query came to, 0 to 3: the place of the server among those that the
    /// application's socket has asked.
    pub server: u32,
    /// Zero: the bytes of this struct are a map key.
    pub pad: u32,
}

/// Value of `DNS_PORTS`, by netns cookie: the ports of the proxy's DNS sockets in that namespace, in
/// host order. Zero where there is none; queries for it are refused.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct DnsPorts {
    /// On 127.0.0.1.
    pub v4: [u16; DNS_SERVERS],
    /// On `::1`.
    pub v6: [u16; DNS_SERVERS],
}

/// The DNS servers that one socket of the application has asked. Value of `DNS_STORE`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DnsServers {
    /// In the order in which they were asked.
    pub servers: [Address; DNS_SERVERS],
    /// How many places are claimed; a place without a port is not filled yet.
    pub count: u64,
}

/// Key of `FAST`: one end of an accelerated connection, as that end sees it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FastKey {
    /// Cookie of the network namespace.
    pub netns: u64,
    /// This end.
    pub local: Address,
    /// The other end.
    pub remote: Address,
}

/// Length of [`PodEntry::name`].
pub const NAME_LENGTH: usize = 200;

/// Value of `PODS`, by slot: what the loader must know of a pod to adopt its pins after a restart.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodEntry {
    /// Cookie of the pod's network namespace.
    pub netns_cookie: u64,
    /// Inode of the pod's network namespace, as `/proc/PID/ns/net` shows it.
    pub netns_inode: u64,
    /// Id of the pod's cgroup: the inode of its folder.
    pub cgroup: u64,
    /// Flags of the loader.
    pub flags: u32,
    /// How many bytes of the name count.
    pub name_length: u32,
    /// The pod's name in UTF-8, cut to fit, then zeros.
    pub name: [u8; NAME_LENGTH],
}

const _: () = assert!(size_of::<Origin>() == 48);
const _: () = assert!(size_of::<OriginKey>() == 32);
const _: () = assert!(size_of::<DnsKey>() == 40);
const _: () = assert!(size_of::<DnsPorts>() == 16);
const _: () = assert!(size_of::<DnsServers>() == 104);
const _: () = assert!(size_of::<FastKey>() == 56);
const _: () = assert!(size_of::<PodEntry>() == 232);

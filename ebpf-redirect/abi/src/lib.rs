//! What the BPF programs and their loader must agree on: map keys and values, constants, counters.
//!
//! Every type is `repr(C)`, holds no hidden padding (its bytes are a map key) and has its size
//! asserted on both sides of the kernel's border, since both compile this crate.

#![no_std]

mod address;
mod counter;
pub mod frame;
mod origin;

pub use address::{Address, is_loopback_v4, is_loopback_v6, is_mapped};
pub use counter::{Counter, MAX_COUNTERS};
pub use origin::{DnsKey, DnsPorts, DnsServers, FastKey, NAME_LENGTH, Origin, OriginKey, PodEntry};

/// Stands for everything in this crate. Pinned maps of another version are never adopted.
pub const VERSION: u32 = 1;

/// The loopback port that outbound connections are redirected to. Nothing listens on it: `inbound`
/// steers its connections to a listener on an ephemeral port, so that no one can squat on it.
pub const OUTBOUND_PORT: u16 = 15001;

/// Mark of the proxy's sockets into the pod; routes the answers to the client's address to them.
pub const MARK_INBOUND: u32 = 0x53a;
/// The routing table of marked packets in the pod's network namespace.
pub const ROUTE_TABLE: u32 = 15100;

/// The most pods that a node enrols; a pod's slot is below it.
pub const MAX_PODS: u32 = 1024;
/// How many listeners each slot has in the map `LISTEN`.
pub const SLOT_WIDTH: u32 = 4;

/// Which listener: the index in `LISTEN` is `slot * SLOT_WIDTH` and one of these.
pub mod slot {
    /// Connections that arrive at the pod, IPv4.
    pub const IN4: u32 = 0;
    /// Connections that arrive at the pod, IPv6.
    pub const IN6: u32 = 1;
    /// Connections that the pod opens, IPv4 and v4-mapped.
    pub const OUT4: u32 = 2;
    /// Connections that the pod opens, IPv6.
    pub const OUT6: u32 = 3;
}

/// How many DNS servers one socket may talk to.
pub const DNS_SERVERS: usize = 4;

/// Capacity of `ORIGINS` unless the loader sets another: connections between the application's
/// `connect` and the proxy's `accept`.
pub const MAX_ORIGINS: u32 = 65_536;
/// How many connections of one pod may be begun and not yet answered by the proxy, so that no pod fills
/// `ORIGINS` for the others. Those that are answered wait in a listener's queue, which has its own bound.
pub const MAX_HALF_OPEN: u64 = 4096;
/// Capacity of `DNS_ORIGINS`, least recently used go first.
pub const MAX_DNS_ORIGINS: u32 = 16_384;
/// Capacity of `ALLOWED_CGROUPS`: agents of this node, the running one and its predecessors.
pub const MAX_CGROUPS: u32 = 64;
/// Capacity of `FAST`: both ends of each accelerated connection.
pub const MAX_FAST: u32 = 65_536;

/// How many bytes of one direction of a connection may go from socket to socket before it goes by TCP for
/// good. The kernel bounds that queue by nothing else.
pub const FAST_BYTES: u64 = 256 * 1024;

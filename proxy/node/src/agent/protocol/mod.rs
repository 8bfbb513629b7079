//! What agent and proxy say to each other, and how it travels.
//!
//! A `SOCK_SEQPACKET` unix socket: each message is one packet of JSON, at most [`MAX_MESSAGE`] bytes,
//! with at most [`MAX_DESCRIPTORS`] file descriptors beside it (`SCM_RIGHTS`, unix(7)). The proxy asks
//! ([`Request`]), the agent answers and tells ([`Message`]). The agent takes no descriptors, and
//! whatever it cannot read costs the sender its connection and nobody else anything.
//!
//! The first request is [`Ask::Hello`]; both ends must speak the same [`VERSION`].

mod client;
mod link;
mod message;
mod news;
mod seat;
#[cfg(test)]
mod tests;

pub use client::{Client, ConnectError, Receiver, Sender};
pub use link::{Link, LinkError, Packet};
pub use message::{
    AgentStatus, Ask, Hello, Message, PodInfo, PodKey, PodStatus, ProxyStatus, Reason, Refusal, Reply,
    Request, Role, SocketKind, State, StatusPart, Welcome,
};
pub use news::{FamilyListeners, MapDescriptors, News};
pub use seat::{Admission, Peer, Seat, SeatError};

/// Of everything in this module. Ends of different versions do not talk.
pub const VERSION: u32 = 1;
/// Longest message, bytes.
pub const MAX_MESSAGE: usize = 64 * 1024;
/// Most descriptors beside one message; the kernel's own limit (`SCM_MAX_FD`, unix(7)).
pub const MAX_DESCRIPTORS: usize = 253;
/// Most sockets that one [`Ask::Stock`] may ask for.
pub const MAX_STOCK: u32 = 64;
/// Most pods that a list holds, in however many parts it comes.
pub const MAX_PODS: usize = abi::MAX_PODS as usize;
/// Most lines of a [`StatusPart`] list in all parts: pods that are enrolled and pods that are not.
pub const MAX_STATUS: usize = 65_536;
/// Connections of users other than root at a time.
pub const MAX_CLIENTS: usize = 8;
/// Connections of root at a time, beside those: `fhirward status` must work whatever proxies do.
pub const MAX_ROOT_CLIENTS: usize = 8;
/// Longest wait for the other end to say hello, or to take a message.
pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

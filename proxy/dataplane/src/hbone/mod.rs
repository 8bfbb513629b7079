//! HBONE: connections of the mesh through HTTP/2 CONNECT over mutual TLS, as Istio's ztunnel speaks it
//! (RFC 9113 §8.5; Istio's HBONE documentation).
//!
//! | part | does |
//! |---|---|
//! | [`stream`] | one tunnel's bytes |
//! | [`client`], [`pool`], [`lanes`] | calling: a connection, those that are kept, and for whom |
//! | [`entrance`] | called: where connections come in |
//! | [`server`], [`tunnel`], [`connect`] | a connection, a tunnel of it, and what its CONNECT must be |

mod client;
mod connect;
mod entrance;
mod lanes;
#[cfg(test)]
pub(crate) mod peers;
mod pool;
#[cfg(test)]
mod pool_tests;
mod server;
mod stream;
#[cfg(test)]
mod tests;
mod tunnel;

pub(crate) use client::{Ended, Lost, Patience, Until};
pub(crate) use entrance::{Entrance, PORT, To, enter};
pub(crate) use lanes::{Between, From, Lanes};
pub(crate) use pool::Lane;
pub(crate) use stream::Stream;

//! HBONE: connections of the mesh through HTTP/2 CONNECT over mutual TLS, as Istio's ztunnel speaks it
//! (RFC 9113 §8.5; Istio's HBONE documentation).
//!
//! | part | does |
//! |---|---|
//! | [`stream`] | one tunnel's bytes |

mod stream;

pub(crate) use stream::Stream;

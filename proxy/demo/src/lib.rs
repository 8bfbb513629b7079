//! The embedded other side of the proxy, all in this process, on loopback, needing nothing but
//! Rust: for `cargo xtask demo` and for the tests, never linked into the node image.
//!
//! | module | stands in for | speaks |
//! |---|---|---|
//! | [`idp`] | Keycloak 26 with the realm IDEA4RC | HTTP and HTTPS: discovery, JWKS, token endpoint |
//! | [`fhir_store`] | a HAPI FHIR server | HTTP/1.1 and h2c: FHIR R4 and R5 |
//! | [`clients`] | Alice, Bob and the rest | gets tokens, runs the tutorial's table |
//! | [`scene`] | all of it, with the real proxy in the middle | `cargo xtask demo` |
//! | [`pods`] | the pods of a node, as network namespaces | – |
//!
//! Both servers refuse to listen anywhere but on loopback or inside a pod of the demo: their passwords
//! are public and their key rotation asks for no password at all.

pub mod clients;
pub mod fhir_store;
pub mod idp;
pub mod pods;
pub mod scene;

mod faults;
mod serve;

pub use faults::Answer;

use std::net::SocketAddr;

/// Why a part of the demo cannot start or cannot do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is not on loopback, and this is no network namespace of the demo.
    #[error("{addr} is not a loopback address: the demo's servers have public passwords")]
    NotLoopback {
        /// The address asked for.
        addr: SocketAddr,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {addr}: {source}")]
    Listen {
        /// The address asked for.
        addr: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// Settings that make no sense together.
    #[error("the demo's settings are wrong: {0}")]
    Settings(String),
    /// The throw-away certificates could not be minted.
    #[error(transparent)]
    Certificates(#[from] certs::Error),
    /// The TLS stack refused its configuration.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// A key could not be generated or read.
    #[error("cannot make a signing key: {0}")]
    Key(&'static str),
    /// A token could not be signed.
    #[error("cannot sign the token: {0}")]
    Sign(#[from] jsonwebtoken::errors::Error),
    /// No such realm, user or client.
    #[error("there is no {kind} {name:?}")]
    Unknown {
        /// `realm`, `user` or `client`.
        kind: &'static str,
        /// The name asked for.
        name: String,
    },
}

//! Sockets to connections: who called which entry.

mod listener;
mod queue;

use std::{net::SocketAddr, sync::Arc};

use http::HeaderValue;
use mesh::routing::GatewayKey;
use policy::{SpiffeId, WorkloadName};

use crate::{capture::Captured, secure::WorkloadTls};

pub(crate) use listener::Place;
pub use listener::{Bound, ListenError, Listener};
pub(crate) use queue::Queue;

/// A connection, and everything known of it before its first request. Immutable.
#[derive(Debug, Clone)]
pub struct Connection {
    /// The caller's address.
    pub(crate) peer: SocketAddr,
    /// The address it called (ours).
    pub(crate) local: SocketAddr,
    /// Verified peer identity (mTLS; in-process hops).
    pub(crate) identity: Option<SpiffeId>,
    /// Whether TLS with a verified client certificate protects it.
    pub(crate) mutual_tls: bool,
    /// TLS at all: the scheme is https.
    pub(crate) tls: bool,
    /// TLS server name.
    pub(crate) sni: Option<String>,
    /// What was called.
    pub(crate) entry: Entry,
    /// `identity` in words, made once.
    pub(crate) principal: Option<Arc<str>>,
    /// The peer's address as `x-forwarded-for` has it, made once.
    pub(crate) peer_text: HeaderValue,
    /// `x-forwarded-client-cert`, where the client showed a certificate.
    pub(crate) client_certificate: Option<HeaderValue>,
    /// What more is known where it was captured.
    pub(crate) captured: Option<Arc<Captured>>,
    /// The mTLS of the workload that the entry stands for, to call others with.
    pub(crate) own: Option<Arc<WorkloadTls>>,
}

/// What a listener stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A workload's port: its policies hold.
    Workload {
        /// Which.
        name: WorkloadName,
        /// Container port.
        port: u16,
    },
    /// The ingress gateway: routes pick the destination.
    Gateway(GatewayKey),
}

/// The facts of a connection, for the makers of [`Connection`]: the listener, and offline runs.
#[derive(Debug, Clone)]
pub struct ConnectionFacts {
    /// The caller's address.
    pub peer: SocketAddr,
    /// The address it called.
    pub local: SocketAddr,
    /// Verified identity.
    pub identity: Option<SpiffeId>,
    /// mTLS.
    pub mutual_tls: bool,
    /// TLS at all.
    pub tls: bool,
    /// TLS server name.
    pub sni: Option<String>,
    /// What was called.
    pub entry: Entry,
}

impl Connection {
    /// A connection with these facts; the facts must be verified ones.
    #[must_use]
    pub fn new(facts: ConnectionFacts) -> Self {
        let ConnectionFacts { peer, local, identity, mutual_tls, tls, sni, entry } = facts;
        let principal = identity.as_ref().map(|identity| identity.to_string().into());
        // Digits, dots, colons: no address is without a header value.
        let peer_text = HeaderValue::from_str(&peer.ip().to_canonical().to_string())
            .unwrap_or_else(|_| HeaderValue::from_static("unknown"));
        Self {
            peer,
            local,
            identity,
            mutual_tls,
            tls,
            sni,
            entry,
            principal,
            peer_text,
            client_certificate: None,
            captured: None,
            own: None,
        }
    }

    /// The same connection, with what the workload is told of its client's certificate
    /// (`x-forwarded-client-cert`).
    pub(crate) fn with_client_certificate(self, client_certificate: Option<HeaderValue>) -> Self {
        Self { client_certificate, ..self }
    }

    /// The same connection, captured.
    pub(crate) fn inside(self, captured: Arc<Captured>) -> Self {
        Self { captured: Some(captured), ..self }
    }

    /// The same connection, at an entry that stands for a workload with this mTLS.
    pub(crate) fn of(self, own: Option<Arc<WorkloadTls>>) -> Self {
        Self { own, ..self }
    }

    /// The pod's own address that was called, where it was captured.
    pub(crate) fn called(&self) -> Option<SocketAddr> {
        self.captured.as_ref().map(|captured| captured.door.address)
    }
}

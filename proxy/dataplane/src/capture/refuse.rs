//! Captured connections that end before any policy is asked: by a reset, and told.

use std::{net::SocketAddr, sync::Arc};

use observe::{
    Record,
    record::{Party, Protocol},
};
use tokio::net::TcpStream;

use crate::{accept::Connection, admit::AdmitError, record, serve::House};

/// Why nobody serves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unserved {
    /// The kernel does not know which address was asked for.
    UnknownOrigin,
    /// It came to an address that is not the pod's.
    NotThePods,
    /// It was for a listener of ours.
    Loop,
    /// It was for tunnels, and nobody here has a certificate.
    NoTunnels,
    /// Nobody is behind the Service.
    NoEndpoint,
    /// There is no snapshot yet.
    NoSnapshot,
    /// Too many connections.
    TooMany,
    /// Too many connections of this pod; the others' places are kept for them.
    TooManyOfPod,
}

impl Unserved {
    fn reason(self) -> &'static str {
        match self {
            Self::UnknownOrigin => "unknown_destination",
            Self::NotThePods => "not_the_pods_address",
            Self::Loop => "own_listener",
            Self::NoTunnels => "no_own_certificate",
            Self::NoEndpoint => "no_endpoint",
            Self::NoSnapshot => "no_snapshot",
            Self::TooMany => "connections",
            Self::TooManyOfPod => "connections_per_pod",
        }
    }

    /// Envoy's flag for it.
    fn flags(self) -> &'static str {
        match self {
            Self::TooMany | Self::TooManyOfPod => "UO",
            Self::NoEndpoint => "UH",
            Self::UnknownOrigin | Self::NotThePods | Self::Loop => "NR",
            Self::NoSnapshot | Self::NoTunnels => "-",
        }
    }
}

/// Resets the connection and tells why.
pub(super) fn refuse<D>(house: &Arc<House<D>>, socket: TcpStream, peer: SocketAddr, why: Unserved) {
    reset(socket);
    tracing::debug!(%peer, reason = why.reason(), "captured connection refused");
    house.recorder.record(Record {
        source: Party { address: Some(peer), ..Party::default() },
        protocol: Protocol::Tcp,
        flags: why.flags(),
        details: why.reason().to_owned(),
        refused: Some(why.reason()),
        token: "none",
        ..Record::default()
    });
}

/// Ends a connection so that nobody takes it for one that was served.
pub(super) fn reset(socket: TcpStream) {
    let _ = socket.set_zero_linger();
}

/// Tells of a connection that layer 3/4 policy dropped.
pub(super) fn dropped<D>(house: &House<D>, connection: &Connection, error: AdmitError) {
    tracing::debug!(%error, peer = %connection.peer, "connection dropped");
    let mut story = record::begin(connection, http::Version::HTTP_11);
    record::refused(&mut story, &crate::Refusal::Dropped(error));
    house.recorder.record(*story);
}

/// Tells of a connection whose TLS of the mesh came to nothing.
pub(super) fn unsecured<D>(house: &House<D>, connection: &Connection, why: &'static str) {
    tracing::debug!(peer = %connection.peer, reason = why, "connection refused");
    let mut story = record::begin(connection, http::Version::HTTP_11);
    (story.protocol, story.http_version) = (Protocol::Tcp, "");
    why.clone_into(&mut story.details);
    story.refused = Some(why);
    house.recorder.record(*story);
}

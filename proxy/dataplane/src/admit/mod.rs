//! Layer 3/4: may this connection speak at all?
//!
//! PeerAuthentication STRICT refuses plaintext here, at connection level: such a caller gets a
//! closed connection, never an HTTP answer. A gateway admits everybody.

use std::sync::Arc;

use mesh::{Snapshot, Workload, routing::GatewayKey};
use policy::istio::MtlsMode;

use crate::{
    accept::{Connection, Entry},
    capture::DeclaredProbe,
};

/// A connection that layer 3/4 policy lets speak, with the snapshot that said so.
/// Later requests on it read the newest snapshot and are admitted again. One maker: [`admit`].
#[derive(Debug, Clone)]
pub struct Admitted<'a> {
    connection: &'a Connection,
    snapshot: Arc<Snapshot>,
    place: Place<'a>,
}

/// Where the connection arrived, found in the snapshot.
#[derive(Debug, Clone)]
pub(crate) enum Place<'a> {
    /// At a workload's container port.
    Workload { workload: Arc<Workload>, port: u16 },
    /// At a gateway, with the workload that stands for it, if there is one.
    Gateway { key: &'a GatewayKey, workload: Option<Arc<Workload>> },
}

impl Admitted<'_> {
    pub(crate) fn connection(&self) -> &Connection {
        self.connection
    }

    pub(crate) fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    pub(crate) fn place(&self) -> &Place<'_> {
        &self.place
    }
}

/// Why a connection is dropped: it gets no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdmitError {
    /// No snapshot yet.
    #[error("no mesh snapshot")]
    NoSnapshot,
    /// The entry's workload is not in the snapshot.
    #[error("workload {0} is not known")]
    UnknownWorkload(policy::WorkloadName),
    /// PeerAuthentication STRICT and no mTLS.
    #[error("PeerAuthentication is STRICT and the connection is plaintext")]
    StrictPlaintext,
    /// AuthorizationPolicy on a raw TCP connection; the rule, where one decided.
    #[error("AuthorizationPolicy refuses the connection")]
    PolicyDenied(Option<Arc<str>>),
    /// Raw TCP at a gateway: its routes are HTTP's.
    #[error("the gateway serves HTTP only")]
    NotHttp,
    /// Raw TCP at a listener whose workload has a proxy of its own elsewhere: it would arrive without the
    /// caller's identity.
    #[error("the workload is reached by the mesh's tunnels, and raw bytes at a listener are not")]
    BehindTunnel,
}

impl AdmitError {
    /// Stable name for metrics and logs, snake_case.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoSnapshot => "no_snapshot",
            Self::UnknownWorkload(_) => "unknown_workload",
            Self::StrictPlaintext => "strict_plaintext",
            Self::PolicyDenied(_) => "policy_denied",
            Self::NotHttp => "not_http",
            Self::BehindTunnel => "behind_tunnel",
        }
    }
}

/// Admits a connection under a snapshot.
///
/// # Errors
/// [`AdmitError`]: the connection is dropped.
pub(crate) fn admit(
    connection: &Connection,
    snapshot: Option<Arc<Snapshot>>,
) -> Result<Admitted<'_>, AdmitError> {
    let admitted = place(connection, snapshot)?;
    if let Place::Workload { workload, port } = &admitted.place {
        let strict = workload.policy.mtls_mode(*port) == MtlsMode::Strict;
        if strict && !connection.mutual_tls {
            return Err(AdmitError::StrictPlaintext);
        }
    }
    Ok(admitted)
}

/// Admits a declared probe of the node itself, whatever PeerAuthentication says: kubelet has no
/// certificate.
///
/// # Errors
/// [`AdmitError`]: the connection is dropped.
pub(crate) fn admit_probe<'a>(
    connection: &'a Connection,
    snapshot: Option<Arc<Snapshot>>,
    _: &DeclaredProbe,
) -> Result<Admitted<'a>, AdmitError> {
    place(connection, snapshot)
}

fn place(connection: &Connection, snapshot: Option<Arc<Snapshot>>) -> Result<Admitted<'_>, AdmitError> {
    let snapshot = snapshot.ok_or(AdmitError::NoSnapshot)?;
    let place = match &connection.entry {
        Entry::Gateway(key) => {
            let workload = snapshot.gateway_workload(key).cloned();
            Place::Gateway { key, workload }
        }
        Entry::Workload { name, port } => {
            let workload =
                snapshot.workload(name).cloned().ok_or_else(|| AdmitError::UnknownWorkload(name.clone()))?;
            Place::Workload { workload, port: *port }
        }
    };
    Ok(Admitted { connection, snapshot, place })
}

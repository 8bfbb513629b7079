//! Layer 3/4: may this connection speak at all?

use std::sync::Arc;

use mesh::Snapshot;

use crate::accept::Connection;

/// A connection that layer 3/4 policy lets speak, with the snapshot that said so.
/// Later requests on it read the newest snapshot and are admitted again.
#[derive(Debug, Clone)]
pub struct Admitted {
    pub(crate) connection: Arc<Connection>,
    pub(crate) snapshot: Arc<Snapshot>,
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
}

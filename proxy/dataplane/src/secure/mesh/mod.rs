//! mTLS of the mesh, for one workload each: with its own certificate, towards peers that prove who they
//! are, called and calling.
//!
//! | part | does |
//! |---|---|
//! | [`certificates`] | hands out each workload's [`WorkloadTls`] |
//! | [`workload`] | follows its identity, certificate and bundles; shakes hands where it is called |
//! | [`calling`] | where it calls |
//! | [`lost`] | ends what is verified no longer |
//! | [`port`], [`serve`] | a listener's port: TLS and plaintext, as PeerAuthentication has it |
//!
//! A session is resumed only under the certificate and the bundles that it began with (the store of
//! sessions goes with them), and the client's chain is then verified once more: a client certificate
//! that has expired meanwhile ends the connection. There is no early data, and no resuming where we call.
//!
//! A connection ends when its peer is trusted no longer: when the bundles change and do not vouch for it any
//! more. At its client's certificate's end it drains.

mod calling;
mod certificates;
mod config;
mod lost;
mod port;
mod serve;
mod sessions;
mod workload;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use mesh::Snapshot;
use rustls_pki_types::UnixTime;
use tokio::sync::watch;

pub(crate) use calling::{Connected, Outgoing};
pub use certificates::{Certificates, Whose};
pub(crate) use serve::mesh_connection;
pub(crate) use workload::{Client, Handshaken};
pub use workload::{WorkloadTls, WorkloadTlsStatus};

/// First byte of a TLS record that holds a handshake message (RFC 8446 §5.1): that of every ClientHello.
pub(crate) const HANDSHAKE_RECORD: u8 = 0x16;

type Snapshots = watch::Receiver<Option<Arc<Snapshot>>>;

/// What mTLS carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Speaking {
    /// The application's bytes, as between Istio's sidecars.
    Sidecar,
    /// Tunnels (HBONE): HTTP/2 and nothing else.
    Hbone,
}

/// Why a connection is refused before it says anything to the application. It gets no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct SecureError(pub(crate) &'static str);

/// Counts by outcome.
#[derive(Debug, Default)]
struct Tally(Mutex<BTreeMap<&'static str, u64>>);

impl Tally {
    fn count(&self, outcome: &'static str) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(outcome).or_default() += 1;
    }

    fn all(&self) -> Vec<(&'static str, u64)> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.iter().map(|(outcome, count)| (*outcome, *count)).collect()
    }
}

fn now() -> UnixTime {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    UnixTime::since_unix_epoch(since)
}

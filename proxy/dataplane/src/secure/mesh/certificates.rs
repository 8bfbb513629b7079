//! The mTLS of our workloads, each by its name: who serves one is handed that one.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError, Weak, atomic::AtomicU64},
};

use identity::spiffe::Supply;
use mesh::{Snapshot, routing::GatewayKey};
use policy::{SpiffeId, WorkloadName};
use tokio_util::sync::CancellationToken;

use super::{Snapshots, WorkloadTls, WorkloadTlsStatus};

/// For whom a certificate stands.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Whose {
    /// A workload.
    Workload(WorkloadName),
    /// The workload that stands for a gateway.
    Gateway(GatewayKey),
}

impl Whose {
    /// The identity that a snapshot gives it; `None`: it is not known there.
    pub(super) fn identity(&self, snapshot: &Snapshot) -> Option<SpiffeId> {
        let workload = match self {
            Self::Workload(name) => snapshot.workload(name),
            Self::Gateway(key) => snapshot.gateway_workload(key),
        };
        workload.map(|workload| workload.identity.clone())
    }
}

impl fmt::Display for Whose {
    /// `namespace/workload`, `gateway istio=ingressgateway:80`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Workload(name) => name.fmt(f),
            Self::Gateway(GatewayKey { labels, port }) => {
                let labels: Vec<String> =
                    labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
                write!(f, "gateway {}:{port}", labels.join(","))
            }
        }
    }
}

/// See the module. In the hands of the wiring, and of whoever keeps captured pods; connections hold the
/// [`WorkloadTls`] of their own workload and reach no other.
#[derive(Debug)]
pub struct Certificates {
    supply: Arc<Supply>,
    snapshots: Snapshots,
    stop: CancellationToken,
    table: Mutex<HashMap<Whose, Weak<WorkloadTls>>>,
    /// Numbers what is in service ([`WorkloadTls::generation`]).
    generations: Arc<AtomicU64>,
}

impl Certificates {
    /// Certificates from `supply`, for the identities that `snapshots` give. They are followed until `stop`.
    #[must_use]
    pub fn new(supply: Arc<Supply>, snapshots: Snapshots, stop: CancellationToken) -> Arc<Self> {
        Arc::new(Self { supply, snapshots, stop, table: Mutex::default(), generations: Arc::default() })
    }

    /// The mTLS of one workload; made where nobody has it, and kept current for as long as somebody holds
    /// it. Needs a running tokio runtime.
    #[must_use]
    pub fn of(&self, whose: Whose) -> Arc<WorkloadTls> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tls) = table.get(&whose).and_then(Weak::upgrade) {
            return tls;
        }
        table.retain(|_, tls| tls.strong_count() > 0);
        let (supply, generations) = (Arc::clone(&self.supply), Arc::clone(&self.generations));
        let tls = WorkloadTls::start(whose.clone(), supply, self.snapshots.clone(), generations, &self.stop);
        table.insert(whose, Arc::downgrade(&tls));
        tls
    }

    /// How those that are in use stand, by name.
    #[must_use]
    pub fn status(&self) -> Vec<WorkloadTlsStatus> {
        let held: Vec<_> = {
            let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
            table.values().filter_map(Weak::upgrade).collect()
        };
        let mut all: Vec<_> = held.iter().map(|tls| tls.status()).collect();
        all.sort_by(|one, other| one.whose.cmp(&other.whose));
        all
    }
}

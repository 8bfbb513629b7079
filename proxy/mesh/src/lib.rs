//! Namespaces, workloads, services, routes and policies as one immutable [`Snapshot`], and the
//! sources it comes from (a folder of manifests; Kubernetes later).

pub mod routing;
pub mod settings;
pub mod snapshot;

pub use settings::{MeshSettings, WorkloadSettings};
pub use snapshot::{Snapshot, Workload};

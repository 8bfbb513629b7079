//! Namespaces, workloads, services, routes and policies as one immutable [`Snapshot`], and the
//! sources it comes from (a folder of manifests; Kubernetes later).
//!
//! - [`snapshot`] builds and holds one moment of the mesh;
//! - [`routing`] picks the destination of a request at a gateway;
//! - [`files`] reads manifests and keeps the newest good snapshot.

mod check;
pub mod codes;
pub mod files;
pub mod routing;
pub mod settings;
pub mod snapshot;

pub use check::{Checked, check};
pub use files::read_objects;
pub use routing::destination::{Endpoint, mesh_sni};
pub use settings::{ManifestLimits, MeshSettings, TunnelKind, TunnelSettings, WorkloadSettings};
pub use snapshot::{
    Declared, HBONE_PORT, Pod, Probe, ProbeKind, ServicePortAt, Snapshot, Toward, Tunnel, TunnelWay,
    Workload, is_made_up,
};

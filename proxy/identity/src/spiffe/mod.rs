//! Workload identity on the wire: SPIFFE ids, X.509-SVIDs, trust bundles (SPIFFE X509-SVID, SPIFFE-ID).
//!
//! | part | does |
//! |---|---|
//! | `id` | text to a [`policy::SpiffeId`], strictly |
//! | `bundle` | roots by trust domain, CRLs: [`TrustBundles`], one immutable value |
//! | `shape` | what a single certificate says: names, key, usages |
//! | `verify` | a peer's chain to a [`Peer`], or a [`PeerError`] |
//! | `verifier` | the same as rustls asks for it, both ways |
//! | `supply` | certificates for our workloads: [`Supply`], one [`Handle`] per workload |

mod bundle;
mod forwarded;
mod id;
mod reason;
mod settings;
mod shape;
mod subject;
pub mod supply;
#[cfg(test)]
mod tests;
mod verifier;
mod verify;

pub use bundle::{Bundle, BundleError, TrustBundles};
pub use forwarded::forwarded_client_cert;
pub use id::{IdError, parse_id};
pub use reason::PeerError;
pub use settings::{
    CertificateFolder, CertificateSettings, EmbeddedCaSettings, IstioCaSettings, TrustSettings,
    WorkloadApiSettings,
};
pub use supply::{Handle, Supply, SupplyError, Svid};
pub use verifier::{PeerVerifier, handshake_reason};
pub use verify::{Peer, Role, peer_of};

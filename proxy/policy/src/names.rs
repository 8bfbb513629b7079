//! Names that several rooms share.

use std::{fmt, str::FromStr};

/// A workload: `namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkloadName {
    /// Kubernetes namespace.
    pub namespace: String,
    /// Name of the Deployment, StatefulSet, DaemonSet or bare Pod.
    pub name: String,
}

impl fmt::Display for WorkloadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Text that is not `namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a workload: expected namespace/name")]
pub struct NotAWorkloadName(String);

impl FromStr for WorkloadName {
    type Err = NotAWorkloadName;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((ns, name)) if !ns.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok(Self { namespace: ns.to_owned(), name: name.to_owned() })
            }
            _ => Err(NotAWorkloadName(text.to_owned())),
        }
    }
}

/// A SPIFFE ID of Istio's shape: `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.
/// (SPIFFE-ID §2; Istio's five-part form.)
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SpiffeId {
    /// Trust domain.
    pub trust_domain: String,
    /// Namespace of the workload.
    pub namespace: String,
    /// Service account of the workload.
    pub service_account: String,
}

impl SpiffeId {
    /// `<trust domain>/ns/<namespace>/sa/<service account>`: what policies compare (no scheme).
    #[must_use]
    pub fn without_scheme(&self) -> String {
        format!("{}/ns/{}/sa/{}", self.trust_domain, self.namespace, self.service_account)
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/ns/{}/sa/{}", self.trust_domain, self.namespace, self.service_account)
    }
}

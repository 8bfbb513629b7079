//! Istio's security policies: RequestAuthentication, AuthorizationPolicy, PeerAuthentication.
//!
//! Source: istio.io/latest/docs/reference/config/security, pilot/pkg/security of istio/istio.

pub mod authorization;
mod lint;
pub mod peer_authentication;
mod policies;
pub mod request_authentication;
pub mod selection;

use std::{collections::BTreeMap, sync::Arc};

use crate::{Decision, Question, Step, WorkloadName, target::Normalization};

pub use authorization::{Authorization, AuthorizationPolicy};
pub use peer_authentication::{MtlsMode, PeerAuthentication};
pub use policies::Policies;
pub use request_authentication::{JwtRule, KeySource, RequestAuthentication, TokenPlace};

/// What the mesh as a whole says (meshConfig).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeshConfig {
    /// `trustDomain`.
    pub trust_domain: String,
    /// `trustDomainAliases`.
    pub trust_domain_aliases: Vec<String>,
    /// `rootNamespace`.
    pub root_namespace: String,
    /// `pathNormalization`.
    pub path_normalization: Normalization,
}

impl Default for MeshConfig {
    fn default() -> Self {
        Self {
            trust_domain: "cluster.local".to_owned(),
            trust_domain_aliases: Vec::new(),
            root_namespace: "istio-system".to_owned(),
            path_normalization: Normalization::Base,
        }
    }
}

/// What policies select workloads by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkloadFacts {
    /// `namespace/name`.
    pub name: WorkloadName,
    /// Pod labels.
    pub labels: BTreeMap<String, String>,
    /// Names of the Services (same namespace) whose selector picks it: `targetRefs` of kind Service.
    pub services: Vec<String>,
    /// Gateway API Gateways (`namespace/name`) that this workload serves: `targetRefs` of kind Gateway.
    pub gateways: Vec<WorkloadName>,
    /// GatewayClass of those gateways, if any: `targetRefs` of kind GatewayClass.
    pub gateway_classes: Vec<String>,
}

/// The policies that hold for one workload, compiled; immutable, shared, cheap to ask.
#[derive(Debug, Clone, Default)]
pub struct WorkloadPolicy {
    authorization: Authorization,
    jwt_rules: Vec<Arc<JwtRule>>,
    mtls: peer_authentication::MtlsModes,
}

impl WorkloadPolicy {
    /// Decides, without explaining: the hot path. No allocation where no rule needs one.
    #[must_use]
    pub fn decide(&self, question: &Question<'_>) -> Decision {
        self.authorization.decide(question)
    }

    /// Decides by the same code and keeps every step.
    #[must_use]
    pub fn explain(&self, question: &Question<'_>) -> (Decision, Vec<Step>) {
        self.authorization.explain(question)
    }

    /// Whether any request of this caller could pass, whatever it says ([`Authorization::may_permit`]).
    #[must_use]
    pub fn may_permit(&self, question: &Question<'_>) -> bool {
        self.authorization.may_permit(question)
    }

    /// The JWT rules of all RequestAuthentications that select the workload, sorted by issuer.
    #[must_use]
    pub fn jwt_rules(&self) -> &[Arc<JwtRule>] {
        &self.jwt_rules
    }

    /// The mTLS mode that holds for a container port (PeerAuthentication).
    #[must_use]
    pub fn mtls_mode(&self, port: u16) -> MtlsMode {
        self.mtls.of(port)
    }
}

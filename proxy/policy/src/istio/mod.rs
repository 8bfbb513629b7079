//! Istio's security policies: RequestAuthentication, AuthorizationPolicy, PeerAuthentication.
//!
//! Source: istio.io/latest/docs/reference/config/security, pilot/pkg/security of istio/istio.

pub mod authorization;
pub mod selection;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::{
    Decision, Object, Place, Problem, Question, Step, WorkloadName, target::Normalization,
};

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

/// All Istio security policies of a mesh, checked, not yet compiled for a workload.
#[derive(Debug, Clone, Default)]
pub struct Policies {}

impl Policies {
    /// Reads the `security.istio.io` objects (v1, v1beta1); other objects are left alone.
    /// Problems of severity `Error` mean that the policies must not be used.
    #[must_use]
    pub fn read(_objects: &[Object]) -> (Self, Vec<Problem>) {
        todo!()
    }

    /// Lints: rules that can never match, Keycloak traps, CUSTOM, … (for `fhirward check`; needs all objects).
    #[must_use]
    pub fn lint(&self, _mesh: &MeshConfig, _objects: &[Object]) -> Vec<Problem> {
        todo!()
    }

    /// What holds for one workload.
    #[must_use]
    pub fn compile(&self, _mesh: &MeshConfig, _workload: &WorkloadFacts) -> WorkloadPolicy {
        todo!()
    }
}

/// The policies that hold for one workload, compiled; immutable, shared, cheap to ask.
#[derive(Debug, Clone, Default)]
pub struct WorkloadPolicy {
    jwt_rules: Vec<Arc<JwtRule>>,
}

impl WorkloadPolicy {
    /// Decides, without explaining: the hot path. No allocation where no rule needs one.
    #[must_use]
    pub fn decide(&self, _question: &Question<'_>) -> Decision {
        todo!()
    }

    /// Decides by the same code and keeps every step.
    #[must_use]
    pub fn explain(&self, _question: &Question<'_>) -> (Decision, Vec<Step>) {
        todo!()
    }

    /// The JWT rules of all RequestAuthentications that select the workload, sorted by issuer.
    #[must_use]
    pub fn jwt_rules(&self) -> &[Arc<JwtRule>] {
        &self.jwt_rules
    }

    /// The mTLS mode that holds for a container port (PeerAuthentication).
    #[must_use]
    pub fn mtls_mode(&self, _port: u16) -> MtlsMode {
        todo!()
    }
}

/// PeerAuthentication's modes, resolved (UNSET has been inherited away).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MtlsMode {
    /// Plaintext only.
    Disable,
    /// Both.
    #[default]
    Permissive,
    /// mTLS only.
    Strict,
}

/// One `jwtRules` entry, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtRule {
    /// `issuer`; empty accepts any.
    pub issuer: String,
    /// `audiences`; empty = not checked.
    pub audiences: Vec<String>,
    /// Where the keys come from.
    pub keys: KeySource,
    /// Where tokens are looked for, in order; already defaulted.
    pub places: Vec<TokenPlace>,
    /// `outputPayloadToHeader`, lower case.
    pub output_payload_to_header: Option<http::HeaderName>,
    /// `forwardOriginalToken`.
    pub forward_original_token: bool,
    /// `outputClaimToHeaders`: header and claim path split at dots.
    pub output_claim_to_headers: Vec<(http::HeaderName, Vec<String>)>,
    /// `timeout` of the JWKS fetch; default 5 s.
    pub timeout: Duration,
    /// `spaceDelimitedClaims` beside `scope` and `permission`.
    pub space_delimited_claims: Vec<String>,
    /// `RequestAuthentication namespace/name`, for reasons and logs.
    pub origin: Arc<str>,
    /// Where the entry stands.
    pub place: Place,
}

/// Where a rule's keys come from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum KeySource {
    /// `jwks`: the JWKS text itself.
    Inline(String),
    /// `jwksUri`.
    Uri(String),
    /// Neither: OpenID discovery from the issuer.
    Discovery,
}

/// A place where a token may stand.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TokenPlace {
    /// A header, and what its value must contain before the token (may be empty).
    Header {
        /// Lower case.
        name: http::HeaderName,
        /// `Bearer ` by default.
        prefix: String,
    },
    /// A query parameter.
    Parameter(String),
    /// A cookie.
    Cookie(String),
}

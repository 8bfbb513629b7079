//! Which workloads a policy holds for: `selector` or `targetRef(s)`, shared by all three kinds.
//!
//! Source: istio.io/latest/docs/reference/config/type/workload-selector and policy-targeting;
//! the CRDs' validation rules.
//!
//! A sidecar ignores `targetRefs`, a waypoint ignores `selector`. Fhirward stands in for both, as
//! the layer-7 enforcement of every workload on its node, so both select:
//! - `selector`: workloads of the policy's namespace (of all, in the root namespace) by labels;
//! - `targetRefs` of kind Service: the workloads behind that Service of the policy's namespace;
//! - of kind Gateway: the workloads that serve that Gateway of the policy's namespace;
//! - of kind GatewayClass: those that serve any Gateway of the class; root namespace only;
//! - of kind ServiceEntry: nobody, since what stands behind it is not a workload.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{MeshConfig, WorkloadFacts};
use crate::{
    Problem,
    manifest::{Located, codes},
};

/// Most targetRefs of one policy (the CRDs' `maxItems`).
pub const MAX_TARGET_REFS: usize = 16;
/// Longest label value of a selector (the CRDs' `maxLength`).
const MAX_LABEL_VALUE: usize = 63;

/// The selection of a policy, checked. Without selector and targetRefs: the whole namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Target {
    /// `selector.matchLabels`.
    pub selector: Option<BTreeMap<String, String>>,
    /// `targetRefs`, or `targetRef` as a list of one.
    pub target_refs: Vec<TargetRef>,
}

/// One `targetRefs` entry, checked; it always names an object of the policy's own namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetRef {
    /// What it points at.
    pub kind: TargetKind,
    /// The object's name.
    pub name: String,
}

/// The kinds that a policy may be attached to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetKind {
    /// `gateway.networking.k8s.io` Gateway.
    Gateway,
    /// `gateway.networking.k8s.io` GatewayClass; root namespace only.
    GatewayClass,
    /// Core Service.
    Service,
    /// `networking.istio.io` ServiceEntry.
    ServiceEntry,
}

/// `selector`, as written.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct WorkloadSelector {
    /// `matchLabels`.
    pub match_labels: BTreeMap<String, Located<String>>,
}

/// `targetRef`, or an entry of `targetRefs`, as written.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TargetRefSpec {
    /// API group; empty or `core` for the core group.
    #[serde(default)]
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
    /// Must be empty: references across namespaces are not supported.
    #[serde(default)]
    pub namespace: Option<String>,
}

/// The three fields of a spec that select, for use in the specs of all kinds.
#[derive(Debug, Clone, Default)]
pub struct TargetSpec {
    /// `selector`.
    pub selector: Option<Located<WorkloadSelector>>,
    /// `targetRef`.
    pub target_ref: Option<Located<TargetRefSpec>>,
    /// `targetRefs`.
    pub target_refs: Option<Located<Vec<Located<TargetRefSpec>>>>,
}

impl Target {
    /// Checks what was written. Problems are pushed without an object name; the target is to be
    /// used only when none of them is an error.
    #[must_use]
    pub fn read(spec: TargetSpec, problems: &mut Vec<Problem>) -> Self {
        check_exclusive(&spec, problems);
        let selector = spec.selector.map(|selector| check_labels(selector, problems));
        let refs: Vec<_> = match (spec.target_ref, spec.target_refs) {
            (Some(one), _) => vec![one],
            (None, Some(list)) => {
                if list.len() > MAX_TARGET_REFS {
                    let text = format!("{} targetRefs, at most {MAX_TARGET_REFS}", list.len());
                    problems.push(list.error(codes::TOO_MANY, text));
                }
                list.value
            }
            (None, None) => Vec::new(),
        };
        let target_refs = refs.iter().filter_map(|one| check_ref(one, problems)).collect();
        Self { selector, target_refs }
    }

    /// Whether the policy, standing in `policy_namespace`, holds for the workload.
    #[must_use]
    pub fn selects(&self, policy_namespace: &str, mesh: &MeshConfig, workload: &WorkloadFacts) -> bool {
        let in_root = policy_namespace == mesh.root_namespace;
        if !self.target_refs.is_empty() {
            return self.target_refs.iter().any(|one| one.selects(policy_namespace, in_root, workload));
        }
        (in_root || policy_namespace == workload.name.namespace)
            && self.selector.as_ref().is_none_or(|labels| labels_match(labels, workload))
    }

    /// Whether it names neither labels nor objects: the whole namespace, or mesh.
    #[must_use]
    pub fn is_namespace_wide(&self) -> bool {
        self.target_refs.is_empty() && self.selector.as_ref().is_none_or(BTreeMap::is_empty)
    }
}

impl TargetRef {
    fn selects(&self, policy_namespace: &str, in_root: bool, workload: &WorkloadFacts) -> bool {
        match self.kind {
            TargetKind::Gateway => workload
                .gateways
                .iter()
                .any(|gateway| gateway.namespace == policy_namespace && gateway.name == self.name),
            TargetKind::GatewayClass => in_root && workload.gateway_classes.contains(&self.name),
            TargetKind::Service => {
                workload.name.namespace == policy_namespace && workload.services.contains(&self.name)
            }
            TargetKind::ServiceEntry => false,
        }
    }
}

fn labels_match(wanted: &BTreeMap<String, String>, workload: &WorkloadFacts) -> bool {
    wanted.iter().all(|(key, value)| workload.labels.get(key) == Some(value))
}

fn check_exclusive(spec: &TargetSpec, problems: &mut Vec<Problem>) {
    const MESSAGE: &str = "only one of selector, targetRef and targetRefs may be set";
    let later = match (&spec.selector, &spec.target_ref, &spec.target_refs) {
        (Some(_), _, Some(refs)) | (None, Some(_), Some(refs)) => {
            refs.error(codes::SELECTOR_AND_TARGET_REF, MESSAGE)
        }
        (Some(_), Some(one), None) => one.error(codes::SELECTOR_AND_TARGET_REF, MESSAGE),
        _ => return,
    };
    problems.push(later);
}

fn check_labels(
    selector: Located<WorkloadSelector>,
    problems: &mut Vec<Problem>,
) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    for (key, value) in selector.value.match_labels {
        let complaint = if key.is_empty() {
            Some("a label name must not be empty".to_owned())
        } else if key.contains('*') || value.contains('*') {
            Some("labels are compared whole: wildcards (`*`) are not supported".to_owned())
        } else if value.len() > MAX_LABEL_VALUE {
            Some(format!("a label value has at most {MAX_LABEL_VALUE} characters"))
        } else {
            None
        };
        if let Some(text) = complaint {
            problems.push(value.error(codes::INVALID_SELECTOR, text));
        }
        labels.insert(key, value.value);
    }
    labels
}

fn check_ref(one: &Located<TargetRefSpec>, problems: &mut Vec<Problem>) -> Option<TargetRef> {
    let kind = match (one.group.as_str(), one.kind.as_str()) {
        ("gateway.networking.k8s.io", "Gateway") => Some(TargetKind::Gateway),
        ("gateway.networking.k8s.io", "GatewayClass") => Some(TargetKind::GatewayClass),
        ("" | "core", "Service") => Some(TargetKind::Service),
        ("networking.istio.io", "ServiceEntry") => Some(TargetKind::ServiceEntry),
        (group, kind) => {
            let text = format!(
                "`{group}/{kind}` cannot be targeted; these can: core/Service, \
                 networking.istio.io/ServiceEntry, gateway.networking.k8s.io/Gateway and \
                 gateway.networking.k8s.io/GatewayClass"
            );
            problems.push(one.error(codes::INVALID_TARGET_REF, text));
            None
        }
    };
    if one.name.is_empty() || one.name.len() > 253 {
        problems.push(one.error(codes::INVALID_TARGET_REF, "`name` must have 1 to 253 characters"));
    }
    if one.namespace.as_deref().is_some_and(|namespace| !namespace.is_empty()) {
        let text = "references across namespaces are not supported: leave `namespace` out";
        problems.push(one.error(codes::INVALID_TARGET_REF, text));
    }
    Some(TargetRef { kind: kind?, name: one.name.clone() })
}

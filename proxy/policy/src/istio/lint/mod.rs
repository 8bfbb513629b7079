//! What Istio admits and what does not do what it looks like. All of it is told, none refused.

use super::{MeshConfig, Policies, WorkloadFacts};
use crate::{Object, Problem};

/// See [`Policies::lint`].
pub(super) fn lint(
    _policies: &Policies,
    _mesh: &MeshConfig,
    _objects: &[Object],
    _workloads: &[WorkloadFacts],
) -> Vec<Problem> {
    Vec::new()
}

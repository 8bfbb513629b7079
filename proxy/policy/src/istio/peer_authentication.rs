//! PeerAuthentication: which connections a workload takes, plaintext or mTLS.
//!
//! Source: istio.io/latest/docs/reference/config/security/peer_authentication; precedence as
//! `ComposePeerAuthentication` of istio/istio has it.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{
    MeshConfig, WorkloadFacts,
    selection::{Target, TargetSpec, WorkloadSelector},
};
use crate::{
    Object, Place, Problem,
    manifest::{Located, codes},
};

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

/// One PeerAuthentication, checked. `None` as a mode is UNSET: inherited.
#[derive(Debug, Clone)]
pub struct PeerAuthentication {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.namespace`; `default` where none is given.
    pub namespace: String,
    /// The workloads it holds for: a selector or the whole namespace, never targetRefs.
    pub target: Target,
    /// `mtls.mode`.
    pub mode: Option<MtlsMode>,
    /// `portLevelMtls`, by container port.
    pub ports: BTreeMap<u16, Option<MtlsMode>>,
    /// Where the object begins.
    pub place: Place,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Spec {
    selector: Option<Located<WorkloadSelector>>,
    mtls: Option<Mtls>,
    port_level_mtls: Option<Located<BTreeMap<String, Located<Mtls>>>>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Mtls {
    mode: Mode,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum Mode {
    #[default]
    Unset,
    Disable,
    Permissive,
    Strict,
}

impl Mtls {
    fn mode(self) -> Option<MtlsMode> {
        match self.mode {
            Mode::Unset => None,
            Mode::Disable => Some(MtlsMode::Disable),
            Mode::Permissive => Some(MtlsMode::Permissive),
            Mode::Strict => Some(MtlsMode::Strict),
        }
    }
}

impl PeerAuthentication {
    /// Reads one object. There is a policy exactly when no problem is an error.
    #[must_use]
    pub fn read(object: &Object) -> (Option<Self>, Vec<Problem>) {
        let mut problems = Vec::new();
        let spec = match object.field::<Spec>("spec") {
            Ok(spec) => spec.unwrap_or_default(),
            Err(problem) => return (None, vec![problem]),
        };
        let selection = TargetSpec { selector: spec.selector, ..TargetSpec::default() };
        let target = Target::read(selection, &mut problems);
        let ports = read_ports(spec.port_level_mtls, &target, &mut problems);
        let policy = Self {
            name: object.metadata.name.clone(),
            namespace: object.namespace().to_owned(),
            target,
            mode: spec.mtls.and_then(Mtls::mode),
            ports,
            place: object.place.clone(),
        };
        let bad = problems.iter().any(Problem::is_error);
        let problems = problems.into_iter().map(|problem| problem.of(object.label())).collect();
        (Some(policy).filter(|_| !bad), problems)
    }

    /// Whether it is ignored for standing in the root namespace with a selector.
    #[must_use]
    pub fn is_ignored(&self, mesh: &MeshConfig) -> bool {
        self.namespace == mesh.root_namespace && !self.target.is_namespace_wide()
    }
}

fn read_ports(
    ports: Option<Located<BTreeMap<String, Located<Mtls>>>>,
    target: &Target,
    problems: &mut Vec<Problem>,
) -> BTreeMap<u16, Option<MtlsMode>> {
    let Some(ports) = ports else { return BTreeMap::new() };
    if target.is_namespace_wide() {
        let text = "portLevelMtls needs a selector with labels";
        problems.push(ports.error(codes::PORT_LEVEL_MTLS, text));
    }
    if ports.is_empty() {
        let text = "portLevelMtls must name a port; leave it out";
        problems.push(ports.error(codes::PORT_LEVEL_MTLS, text));
    }
    let mut read = BTreeMap::new();
    for (port, mtls) in ports.value {
        match port.parse::<u16>() {
            Ok(number) if number != 0 && number.to_string() == port => {
                read.insert(number, mtls.mode());
            }
            _ => {
                let text = format!("`{port}` is not a port from 1 to 65535");
                problems.push(mtls.error(codes::INVALID_PORT, text));
            }
        }
    }
    read
}

/// The modes that hold for one workload.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct MtlsModes {
    default: MtlsMode,
    ports: BTreeMap<u16, MtlsMode>,
}

impl MtlsModes {
    /// Composes the policies of the root namespace and the workload's. They come oldest first:
    /// of several at one level, the first holds.
    pub(super) fn compose<'a>(
        policies: impl Iterator<Item = &'a PeerAuthentication>,
        mesh: &MeshConfig,
        workload: &WorkloadFacts,
    ) -> Self {
        let (mut of_mesh, mut of_namespace, mut of_workload) = (None, None, None);
        let selecting = policies
            .filter(|one| !one.is_ignored(mesh) && one.target.selects(&one.namespace, mesh, workload));
        for policy in selecting {
            let level = match (policy.target.is_namespace_wide(), &policy.namespace) {
                (false, _) => &mut of_workload,
                (true, namespace) if *namespace == mesh.root_namespace => &mut of_mesh,
                (true, _) => &mut of_namespace,
            };
            level.get_or_insert(policy);
        }
        let default = [of_workload, of_namespace, of_mesh]
            .into_iter()
            .flatten()
            .find_map(|policy| policy.mode)
            .unwrap_or_default();
        let ports = of_workload
            .iter()
            .flat_map(|policy| &policy.ports)
            .map(|(port, mode)| (*port, mode.unwrap_or(default)))
            .collect();
        Self { default, ports }
    }

    pub(super) fn of(&self, port: u16) -> MtlsMode {
        self.ports.get(&port).copied().unwrap_or(self.default)
    }
}

#[cfg(test)]
#[path = "peer_authentication_tests.rs"]
mod tests;

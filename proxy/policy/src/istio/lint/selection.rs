//! Policies that select nothing.

use super::Mesh;
use crate::{
    Problem,
    istio::{
        policies::{ByNamespace, Policy},
        selection::{Target, TargetKind},
    },
    manifest::codes,
};

/// Only where workloads are known: a folder of policies alone says nothing about them.
pub(super) fn lint(mesh: &Mesh<'_>) -> Vec<Problem> {
    if mesh.workloads.is_empty() {
        return Vec::new();
    }
    let mut problems = of_kind(mesh, "AuthorizationPolicy", &mesh.policies.authorizations);
    problems.append(&mut of_kind(mesh, "RequestAuthentication", &mesh.policies.requests));
    problems.append(&mut of_kind(mesh, "PeerAuthentication", &mesh.policies.peers));
    problems
}

fn of_kind<P: Policy>(mesh: &Mesh<'_>, kind: &str, policies: &ByNamespace<P>) -> Vec<Problem> {
    policies.all().filter_map(|policy| one(mesh, kind, policy)).collect()
}

fn one(mesh: &Mesh<'_>, kind: &str, policy: &impl Policy) -> Option<Problem> {
    if mesh.selected(policy).next().is_some() {
        return None;
    }
    let object = mesh.object(kind, policy)?;
    let namespace = policy.namespace();
    let in_root = namespace == mesh.config.root_namespace;
    let populated = mesh.workloads.iter().any(|one| one.name.namespace == namespace);
    let (code, path, text): (_, &[&str], _) = if !in_root && !populated {
        let text = format!("the namespace `{namespace}` has no workloads, so the policy holds nowhere");
        (codes::EMPTY_NAMESPACE, &["metadata", "namespace"], text)
    } else {
        let (field, text) = why(policy.target(), namespace, in_root);
        (
            codes::SELECTS_NOTHING,
            if field == "selector" { &["spec", "selector"] } else { &["spec", "targetRefs"] },
            text,
        )
    };
    Some(Problem::warning(code, object.place_of(path), path.join("."), text).of(object.label()))
}

fn why(target: &Target, namespace: &str, in_root: bool) -> (&'static str, String) {
    let Some(first) = target.target_refs.first() else {
        let labels = target.selector.iter().flatten().map(|(key, value)| format!("{key}={value}"));
        let labels = labels.collect::<Vec<_>>().join(",");
        let within = if in_root { "the mesh".to_owned() } else { format!("namespace `{namespace}`") };
        return ("selector", format!("no workload of {within} has the labels `{labels}`"));
    };
    let name = &first.name;
    let text = match first.kind {
        TargetKind::ServiceEntry => {
            "what stands behind a ServiceEntry is no workload: the policy holds nowhere".to_owned()
        }
        TargetKind::GatewayClass if !in_root => {
            "a GatewayClass can be targeted from the root namespace only".to_owned()
        }
        kind => format!("no workload stands behind {kind:?} `{name}` of namespace `{namespace}`"),
    };
    ("targetRefs", text)
}

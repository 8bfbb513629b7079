//! Policies of kinds that this version reads past.

use crate::{Object, Problem, istio::policies, manifest::codes};

/// Group and kind of what would restrict traffic and is not enforced.
const KINDS: &[(&str, &str)] = &[
    ("cilium.io", "CiliumNetworkPolicy"),
    ("cilium.io", "CiliumClusterwideNetworkPolicy"),
    ("fhirward.dev", "FhirAccessPolicy"),
    ("fhirward.dev", "OutagePolicy"),
    ("networking.istio.io", "EnvoyFilter"),
    ("extensions.istio.io", "WasmPlugin"),
];

pub(super) fn lint(objects: &[Object]) -> Vec<Problem> {
    objects.iter().filter_map(one).collect()
}

fn one(object: &Object) -> Option<Problem> {
    let (group, kind) = (object.group(), object.kind.as_str());
    let text = if KINDS.contains(&(group, kind)) {
        format!("{kind} is not enforced by this version")
    } else if group != policies::GROUP && policies::KINDS.contains(&kind) {
        format!("{kind} of the group `{group}` is not Istio's (`{}`): it is not enforced", policies::GROUP)
    } else {
        return None;
    };
    let place = object.place_of(&["kind"]);
    Some(Problem::warning(codes::NOT_ENFORCED, place, "kind", text).of(object.label()))
}

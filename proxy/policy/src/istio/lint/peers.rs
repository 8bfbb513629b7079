//! PeerAuthentications that hold nowhere, because another one does or because of where they stand.

use std::collections::BTreeMap;

use super::Mesh;
use crate::{Place, Problem, istio::PeerAuthentication, manifest::codes};

/// A namespace, and the labels that are selected in it.
type Level<'a> = (&'a str, Vec<(&'a String, &'a String)>);

pub(super) fn lint(mesh: &Mesh<'_>) -> Vec<Problem> {
    let mut problems = Vec::new();
    // Of several that select the same, the oldest holds; they come oldest first.
    let mut first: BTreeMap<Level<'_>, &PeerAuthentication> = BTreeMap::new();
    for policy in mesh.policies.peers.all() {
        if policy.is_ignored(mesh.config) {
            let text = "in the root namespace a PeerAuthentication with a selector is ignored: move \
                        it to the workload's namespace";
            problems.push(ignored(policy, &policy.place, "spec.selector", text.to_owned()));
            continue;
        }
        let labels = policy.target.selector.iter().flatten().collect();
        let level = (policy.namespace.as_str(), labels);
        match first.get(&level) {
            Some(older) => {
                let text = format!(
                    "`{}` ({}) selects the same and is older: this one is ignored",
                    older.name, older.place
                );
                problems.push(ignored(policy, &policy.place, "", text));
            }
            None => {
                first.insert(level, policy);
            }
        }
    }
    problems
}

fn ignored(policy: &PeerAuthentication, place: &Place, field: &str, text: String) -> Problem {
    let object = format!("PeerAuthentication {}/{}", policy.namespace, policy.name);
    Problem::warning(codes::IGNORED_POLICY, place.clone(), field, text).of(object)
}

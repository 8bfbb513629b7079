//! What Istio admits and what does not do what it looks like. All of it is told, none refused.
//!
//! Rules that can never match by themselves are told by `authorization::lint`; here are those that
//! need to know the rest of the mesh: workloads, other policies, what Keycloak puts into tokens.

mod keycloak;
mod paths;
mod peers;
mod ports;
mod selection;
#[cfg(test)]
mod tests;
mod tokens;
mod unenforced;
mod values;

use std::{collections::HashMap, sync::Arc};

use super::{AuthorizationPolicy, JwtRule, MeshConfig, Policies, WorkloadFacts, policies::Policy};
use crate::{Object, Problem, WorkloadName};

/// See [`Policies::lint`]. Problems come sorted by place.
pub(super) fn lint(
    policies: &Policies,
    mesh: &MeshConfig,
    objects: &[Object],
    workloads: &[WorkloadFacts],
) -> Vec<Problem> {
    let mesh = Mesh::new(policies, mesh, objects, workloads);
    let mut problems = selection::lint(&mesh);
    problems.append(&mut peers::lint(&mesh));
    problems.append(&mut unenforced::lint(objects));
    problems.append(&mut keycloak::lint_rules(&mesh));
    problems.append(&mut tokens::lint_requests(&mesh));
    for policy in policies.authorizations.all() {
        problems.append(&mut policy.lint(mesh.config));
        if let Some(object) = mesh.object("AuthorizationPolicy", policy) {
            let values = values::read(object);
            let at = At { mesh: &mesh, policy, object };
            problems.append(&mut tokens::lint_policy(&at, &values));
            problems.append(&mut keycloak::lint_policy(&at, &values));
            problems.append(&mut paths::lint(&at, &values));
            problems.append(&mut ports::lint(&at, &values));
        }
    }
    problems.sort_by(|a, b| (&a.place, a.code, &a.field).cmp(&(&b.place, b.code, &b.field)));
    problems.dedup();
    problems
}

/// One AuthorizationPolicy under the eye.
struct At<'a> {
    mesh: &'a Mesh<'a>,
    policy: &'a AuthorizationPolicy,
    object: &'a Object,
}

impl At<'_> {
    /// A warning about one of its values.
    fn warn(&self, code: &'static str, value: &values::Value<'_>, text: String) -> Problem {
        let place = value.place(self.object);
        Problem::warning(code, place, value.field.clone(), text).of(self.object.label())
    }
}

/// Everything that the lints look at, indexed once.
struct Mesh<'a> {
    policies: &'a Policies,
    config: &'a MeshConfig,
    objects: HashMap<(&'a str, &'a str, &'a str), &'a Object>,
    all: &'a [Object],
    workloads: &'a [WorkloadFacts],
    /// The JWT rules that hold for each workload, in the order of `workloads`.
    jwt_rules: Vec<Vec<Arc<JwtRule>>>,
}

impl<'a> Mesh<'a> {
    fn new(
        policies: &'a Policies,
        config: &'a MeshConfig,
        all: &'a [Object],
        workloads: &'a [WorkloadFacts],
    ) -> Self {
        let key =
            |object: &'a Object| (object.kind.as_str(), object.namespace(), object.metadata.name.as_str());
        let ours = all.iter().filter(|object| object.group() == super::policies::GROUP);
        let objects = ours.map(|object| (key(object), object)).collect();
        let jwt_rules = workloads.iter().map(|one| policies.jwt_rules(config, one)).collect();
        Self { policies, config, objects, all, workloads, jwt_rules }
    }

    fn object(&self, kind: &str, policy: &impl Policy) -> Option<&'a Object> {
        self.objects.get(&(kind, policy.namespace(), policy.name())).copied()
    }

    /// The workloads that a policy selects, by their index.
    fn selected(&self, policy: &impl Policy) -> impl Iterator<Item = (usize, &'a WorkloadFacts)> {
        let selects =
            |workload: &WorkloadFacts| policy.target().selects(policy.namespace(), self.config, workload);
        self.workloads.iter().enumerate().filter(move |(_, workload)| selects(workload))
    }

    /// The JWT rules at each workload that a policy selects. Without any workloads known: those
    /// of the policy's and the root namespace (of all, for a policy in the root namespace).
    fn rules_at(&self, policy: &impl Policy) -> Vec<(Option<&'a WorkloadName>, Vec<Arc<JwtRule>>)> {
        if self.workloads.is_empty() {
            let root = &self.config.root_namespace;
            let near = |namespace: &str| {
                namespace == root || policy.namespace() == root || namespace == policy.namespace()
            };
            let requests = self.policies.requests.all().filter(|one| near(&one.namespace));
            return vec![(None, requests.flat_map(|one| one.rules.iter().cloned()).collect())];
        }
        self.selected(policy)
            .map(|(index, workload)| {
                (Some(&workload.name), self.jwt_rules.get(index).cloned().unwrap_or_default())
            })
            .collect()
    }
}

//! All policies of a mesh: read, indexed by namespace, compiled for a workload.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::{
    Authorization, AuthorizationPolicy, JwtRule, MeshConfig, PeerAuthentication, RequestAuthentication,
    WorkloadFacts, WorkloadPolicy, lint, peer_authentication::MtlsModes, selection::Target,
};
use crate::{
    Object, Place, Problem,
    manifest::{codes, suggest},
};

/// The group of the policies.
pub(super) const GROUP: &str = "security.istio.io";
/// Its kinds.
pub(super) const KINDS: &[&str] = &["AuthorizationPolicy", "PeerAuthentication", "RequestAuthentication"];
/// The fields of every object of the group.
const FIELDS: &[&str] = &["apiVersion", "kind", "metadata", "spec", "status"];

/// All Istio security policies of a mesh, checked, not yet compiled for a workload.
#[derive(Debug, Clone, Default)]
pub struct Policies {
    pub(super) requests: ByNamespace<RequestAuthentication>,
    pub(super) peers: ByNamespace<PeerAuthentication>,
    pub(super) authorizations: ByNamespace<AuthorizationPolicy>,
}

impl Policies {
    /// Reads the `security.istio.io` objects (v1, v1beta1); other objects are left alone.
    /// Problems of severity `Error` mean that the policies must not be used: those that could not
    /// be read are missing from the set.
    #[must_use]
    pub fn read(objects: &[Object]) -> (Self, Vec<Problem>) {
        let mut policies = Self::default();
        let mut problems = Vec::new();
        let mut seen: HashMap<_, &Place> = HashMap::new();
        for object in in_order(objects) {
            check_object(object, &mut problems);
            let key = (object.kind.as_str(), object.namespace(), object.metadata.name.as_str());
            if let Some(first) = seen.get(&key) {
                let text = format!("stands twice, first at {first}; remove one of them");
                let place = object.place.clone();
                let twice = Problem::error(codes::DUPLICATE_OBJECT, place, "metadata.name", text);
                problems.push(twice.of(object.label()));
                continue;
            }
            seen.insert(key, &object.place);
            problems.append(&mut policies.take(object));
        }
        (policies, problems)
    }

    fn take(&mut self, object: &Object) -> Vec<Problem> {
        let namespace = object.namespace();
        match object.kind.as_str() {
            "AuthorizationPolicy" => {
                let (policy, problems) = AuthorizationPolicy::read(object);
                self.authorizations.push(namespace, policy);
                problems
            }
            "RequestAuthentication" => {
                let (policy, problems) = RequestAuthentication::read(object);
                self.requests.push(namespace, policy);
                problems
            }
            "PeerAuthentication" => {
                let (policy, problems) = PeerAuthentication::read(object);
                self.peers.push(namespace, policy);
                problems
            }
            kind => {
                let mut text = format!("`{kind}` is not a kind of {GROUP}");
                if let Some(near) = suggest::nearest(kind, KINDS) {
                    text.push_str(&format!(", did you mean `{near}`?"));
                }
                let place = object.place_of(&["kind"]);
                vec![Problem::error(codes::UNKNOWN_KIND, place, "kind", text).of(object.label())]
            }
        }
    }

    /// Lints what Istio admits and what does not do what it looks like (for `fhirward check`):
    /// all are warnings. `objects` are all objects of the mesh, not only the policies. Without
    /// `workloads` nothing is said about what policies select.
    #[must_use]
    pub fn lint(&self, mesh: &MeshConfig, objects: &[Object], workloads: &[WorkloadFacts]) -> Vec<Problem> {
        lint::lint(self, mesh, objects, workloads)
    }

    /// What holds for one workload.
    #[must_use]
    pub fn compile(&self, mesh: &MeshConfig, workload: &WorkloadFacts) -> WorkloadPolicy {
        let authorizations = self.authorizations.selected(mesh, workload);
        WorkloadPolicy {
            authorization: Authorization::compile(authorizations, mesh),
            jwt_rules: self.jwt_rules(mesh, workload),
            mtls: MtlsModes::compose(self.peers.candidates(mesh, workload), mesh, workload),
        }
    }

    /// The JWT rules of all that select the workload, concatenated, then sorted by issuer: a
    /// stable sort, so that rules of one issuer keep their order.
    pub(super) fn jwt_rules(&self, mesh: &MeshConfig, workload: &WorkloadFacts) -> Vec<Arc<JwtRule>> {
        let selected = self.requests.selected(mesh, workload);
        let mut rules: Vec<_> = selected.flat_map(|policy| policy.rules.iter().cloned()).collect();
        rules.sort_by(|a, b| a.issuer.cmp(&b.issuer));
        rules
    }
}

/// The objects of the group, oldest first; of one age by name and namespace, as Istio orders them.
/// Those without a creation time (files) come last, by name as well: in which file a policy stands,
/// and where in it, never matters.
fn in_order(objects: &[Object]) -> Vec<&Object> {
    let mut ours: Vec<_> = objects.iter().filter(|object| object.group() == GROUP).collect();
    ours.sort_by_key(|object| {
        let at = object.metadata.creation_timestamp.as_deref();
        (at.is_none(), at, object.metadata.name.as_str(), object.namespace())
    });
    ours
}

fn check_object(object: &Object, problems: &mut Vec<Problem>) {
    let mut complain = |code, field: &str, path: &[&str], text: String| {
        problems.push(Problem::error(code, object.place_of(path), field, text).of(object.label()));
    };
    if !matches!(object.version(), "v1" | "v1beta1") {
        let text = format!("`{}` is not known, use {GROUP}/v1", object.api_version);
        complain(codes::UNKNOWN_VERSION, "apiVersion", &["apiVersion"], text);
    }
    if !is_dns_name(&object.metadata.name, 253) {
        let text = format!("`{}` is not a name of an object", object.metadata.name);
        complain(codes::INVALID_NAME, "metadata.name", &["metadata", "name"], text);
    }
    let namespace = object.namespace();
    if namespace.contains('.') || !is_dns_name(namespace, 63) {
        let text = format!("`{namespace}` is not a name of a namespace");
        complain(codes::INVALID_NAME, "metadata.namespace", &["metadata", "namespace"], text);
    }
    for (key, _) in object.root.entries() {
        if FIELDS.contains(&key.text.as_str()) {
            continue;
        }
        let mut text = format!("unknown field `{}`", key.text);
        if let Some(near) = suggest::nearest(&key.text, FIELDS) {
            text.push_str(&format!(", did you mean `{near}`?"));
        }
        let place = Place { file: object.place.file.clone(), line: key.line, column: key.column };
        let unknown = Problem::error(codes::UNKNOWN_FIELD, place, key.text.clone(), text);
        problems.push(unknown.of(object.label()));
    }
}

/// RFC 1123 labels, joined by dots.
fn is_dns_name(name: &str, longest: usize) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    name.len() <= longest
        && name.split('.').all(|label| {
            !label.is_empty() && !label.starts_with('-') && !label.ends_with('-') && label.bytes().all(fits)
        })
}

/// Policies of one kind by namespace, in order.
#[derive(Debug, Clone)]
pub(super) struct ByNamespace<T>(BTreeMap<String, Vec<Arc<T>>>);

impl<T> Default for ByNamespace<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

/// What all three kinds have: a name, a namespace and a target.
pub(super) trait Policy {
    fn name(&self) -> &str;
    fn namespace(&self) -> &str;
    fn target(&self) -> &Target;
}

macro_rules! policies {
    ($($kind:ty),*) => {$(
        impl Policy for $kind {
            fn name(&self) -> &str {
                &self.name
            }
            fn namespace(&self) -> &str {
                &self.namespace
            }
            fn target(&self) -> &Target {
                &self.target
            }
        }
    )*};
}
policies!(AuthorizationPolicy, RequestAuthentication, PeerAuthentication);

impl<T: Policy> ByNamespace<T> {
    fn push(&mut self, namespace: &str, policy: Option<T>) {
        let Some(policy) = policy else { return };
        match self.0.get_mut(namespace) {
            Some(list) => list.push(Arc::new(policy)),
            None => {
                self.0.insert(namespace.to_owned(), vec![Arc::new(policy)]);
            }
        }
    }

    /// Those of the root namespace, then those of the workload's.
    pub(super) fn candidates<'a>(
        &'a self,
        mesh: &MeshConfig,
        workload: &WorkloadFacts,
    ) -> impl Iterator<Item = &'a T> + use<'a, T> {
        let root = mesh.root_namespace.as_str();
        let own = Some(workload.name.namespace.as_str()).filter(|own| *own != root);
        // A Gateway may stand in another namespace than the workload that serves it.
        let mut others: Vec<&str> = workload.gateways.iter().map(|one| one.namespace.as_str()).collect();
        others.retain(|other| *other != root && Some(*other) != own);
        others.sort_unstable();
        others.dedup();
        let namespaces = std::iter::once(root).chain(own).chain(others);
        let lists: Vec<_> = namespaces.filter_map(|namespace| self.0.get(namespace)).collect();
        lists.into_iter().flatten().map(|policy| &**policy)
    }

    /// The candidates that select the workload.
    pub(super) fn selected<'a>(
        &'a self,
        mesh: &MeshConfig,
        workload: &WorkloadFacts,
    ) -> impl Iterator<Item = &'a T> {
        let selects = |policy: &&'a T| policy.target().selects(policy.namespace(), mesh, workload);
        self.candidates(mesh, workload).filter(selects)
    }

    /// All of them.
    pub(super) fn all(&self) -> impl Iterator<Item = &T> {
        self.0.values().flatten().map(|policy| &**policy)
    }
}

#[cfg(test)]
#[path = "policies_tests.rs"]
mod tests;

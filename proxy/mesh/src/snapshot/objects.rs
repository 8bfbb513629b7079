//! The objects of a snapshot, sorted by what they are for.

use std::collections::{BTreeMap, HashMap};

use policy::{Object, Problem, manifest::codes};

const ISTIO_NETWORKING: &str = "networking.istio.io";
const GATEWAY_API: &str = "gateway.networking.k8s.io";

/// Kinds of Istio's networking group; others of the group are slips that would silently route or
/// guard nothing.
const ISTIO_KINDS: [&str; 9] = [
    "DestinationRule",
    "EnvoyFilter",
    "Gateway",
    "ProxyConfig",
    "ServiceEntry",
    "Sidecar",
    "VirtualService",
    "WorkloadEntry",
    "WorkloadGroup",
];

/// Kinds that are not used but would have narrowed what may pass: said aloud, not only counted.
const UNENFORCED: [(&str, &str); 6] = [
    (ISTIO_NETWORKING, "EnvoyFilter"),
    ("networking.k8s.io", "NetworkPolicy"),
    ("cilium.io", "CiliumNetworkPolicy"),
    ("cilium.io", "CiliumClusterwideNetworkPolicy"),
    ("fhirward.dev", "FhirAccessPolicy"),
    ("fhirward.dev", "OutagePolicy"),
];

/// Objects by use.
#[derive(Debug, Default)]
pub(super) struct Sorted<'a> {
    pub(super) namespaces: Vec<&'a Object>,
    pub(super) services: Vec<&'a Object>,
    /// Pods and what makes pods.
    pub(super) workloads: Vec<&'a Object>,
    pub(super) istio: Vec<&'a Object>,
    pub(super) gateway_api: Vec<&'a Object>,
    /// How many of each kind (`Kind.group`) are used.
    pub(super) used: BTreeMap<String, usize>,
    /// How many of each kind are not.
    pub(super) unused: BTreeMap<String, usize>,
}

#[derive(Debug, Clone, Copy)]
enum Use {
    Namespace,
    Service,
    Workload,
    Istio,
    GatewayApi,
    /// Read by `policy`, which counts and checks on its own.
    Security,
    None,
}

impl<'a> Sorted<'a> {
    /// Sorts `objects`. Of two objects of one kind and name the later counts, as with kubectl.
    pub(super) fn sort(objects: &'a [Object], problems: &mut Vec<Problem>) -> Self {
        let mut sorted = Self::default();
        let last = last_of_each(objects);
        for (index, object) in objects.iter().enumerate() {
            let usage = usage(object);
            let count = match usage {
                Use::None => &mut sorted.unused,
                _ => &mut sorted.used,
            };
            *count.entry(kind_name(object)).or_default() += 1;
            check(object, usage, problems);
            if last.get(&identity(object)).is_some_and(|last| *last != index) {
                if !matches!(usage, Use::None | Use::Security) {
                    let text = "defined again later: that one counts".to_owned();
                    problems.push(about(object, Problem::warning, codes::DUPLICATE_OBJECT, text));
                }
                continue;
            }
            match usage {
                Use::Namespace => sorted.namespaces.push(object),
                Use::Service => sorted.services.push(object),
                Use::Workload => sorted.workloads.push(object),
                Use::Istio => sorted.istio.push(object),
                Use::GatewayApi => sorted.gateway_api.push(object),
                Use::Security | Use::None => {}
            }
        }
        sorted
    }
}

fn about(
    object: &Object,
    make: impl FnOnce(&'static str, policy::Place, String, String) -> Problem,
    code: &'static str,
    text: String,
) -> Problem {
    make(code, object.place.clone(), String::new(), text).of(object.label())
}

type Identity<'a> = (&'a str, &'a str, &'a str, &'a str);

fn identity(object: &Object) -> Identity<'_> {
    let cluster_wide = matches!(object.kind.as_str(), "Namespace" | "GatewayClass");
    let namespace = if cluster_wide { "" } else { object.namespace() };
    (object.group(), &object.kind, namespace, &object.metadata.name)
}

fn last_of_each(objects: &[Object]) -> HashMap<Identity<'_>, usize, ahash::RandomState> {
    objects.iter().enumerate().map(|(index, object)| (identity(object), index)).collect()
}

/// `Kind` of the core group, else `Kind.group`.
fn kind_name(object: &Object) -> String {
    match object.group() {
        "" => object.kind.clone(),
        group => format!("{}.{group}", object.kind),
    }
}

fn usage(object: &Object) -> Use {
    match (object.group(), object.kind.as_str()) {
        ("", "Namespace") => Use::Namespace,
        ("", "Service") => Use::Service,
        ("", "Pod" | "ReplicationController")
        | ("apps", "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet")
        | ("batch", "Job" | "CronJob") => Use::Workload,
        (ISTIO_NETWORKING, "Gateway" | "VirtualService" | "DestinationRule" | "ServiceEntry") => Use::Istio,
        (GATEWAY_API, "GatewayClass" | "Gateway" | "HTTPRoute" | "ReferenceGrant") => Use::GatewayApi,
        ("security.istio.io", _) => Use::Security,
        _ => Use::None,
    }
}

fn check(object: &Object, usage: Use, problems: &mut Vec<Problem>) {
    let (group, kind) = (object.group(), object.kind.as_str());
    let mut error = |code, text: String| problems.push(about(object, Problem::error, code, text));
    if group == ISTIO_NETWORKING && !ISTIO_KINDS.contains(&kind) {
        error(codes::UNKNOWN_KIND, format!("{group} has no kind `{kind}`"));
    }
    let versions: &[&str] = match usage {
        Use::Istio => &["v1", "v1beta1", "v1alpha3"],
        Use::GatewayApi => &["v1", "v1beta1", "v1alpha2", "v1alpha3"],
        _ => &[],
    };
    if !versions.is_empty() && !versions.contains(&object.version()) {
        error(codes::UNKNOWN_VERSION, format!("{group} has no version `{}`", object.version()));
    }
    // Pods and Jobs may leave their name to the API server.
    if object.metadata.name.is_empty() && !matches!(usage, Use::Workload | Use::None) {
        error(codes::INVALID_NAME, "`metadata.name` is missing".to_owned());
    }
    if UNENFORCED.contains(&(group, kind)) {
        let text = format!("{kind} is not enforced by this version");
        problems.push(about(object, Problem::warning, codes::NOT_ENFORCED, text));
    }
}

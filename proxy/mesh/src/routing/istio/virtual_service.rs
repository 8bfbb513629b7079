//! VirtualServices: hosts, gateways and routes, checked and compiled.
//!
//! Source: pilot/pkg/networking/core/route (`BuildHTTPRoutesForVirtualService`).

use std::{collections::BTreeMap, sync::Arc};

use policy::{
    Object, Problem,
    manifest::{Located, codes},
};

use super::{
    gateway::check_host,
    matching,
    spec::{HttpRouteSpec, MatchSpec, VirtualServiceSpec},
    terms,
};
use crate::routing::{
    GatewayKey,
    action::Route,
    condition::Condition,
    destination::{Registry, full_name},
};

/// The gateway that stands for sidecars.
const MESH: &str = "mesh";

/// A VirtualService, checked.
#[derive(Debug)]
pub(super) struct VirtualService {
    pub(super) namespace: String,
    /// Creation time, name, namespace: the order of merging.
    pub(super) age: (String, String, String),
    pub(super) hosts: Vec<String>,
    /// `namespace/name` of its gateways, without `mesh`.
    pub(super) gateways: Vec<String>,
    export_to: Vec<String>,
    routes: Vec<ScopedRoute>,
}

/// A route and the listeners that it is for.
#[derive(Debug)]
struct ScopedRoute {
    scope: Scope,
    route: Arc<Route>,
}

/// The parts of a match that are about the listener, not the request.
#[derive(Debug, Default)]
struct Scope {
    port: Option<u16>,
    /// `namespace/name`.
    gateways: Vec<String>,
    source_labels: BTreeMap<String, String>,
    source_namespace: Option<String>,
}

impl VirtualService {
    pub(super) fn read(object: &Object, registry: &Registry, problems: &mut Vec<Problem>) -> Option<Self> {
        let before = problems.len();
        let read = Self::compile(object, registry, problems);
        for problem in problems.iter_mut().skip(before) {
            problem.object = Some(object.label());
        }
        read
    }

    fn compile(object: &Object, registry: &Registry, problems: &mut Vec<Problem>) -> Option<Self> {
        let spec = match object.field::<VirtualServiceSpec>("spec") {
            Ok(spec) => spec.unwrap_or_default(),
            Err(problem) => {
                problems.push(problem);
                return None;
            }
        };
        let namespace = object.namespace();
        for unused in [&spec.tls, &spec.tcp].into_iter().flatten() {
            problems.push(unused.warning(codes::NOT_ENFORCED, "gateways route HTTP only"));
        }
        let gateways = gateway_names(&spec.gateways, namespace);
        let hosts = spec.hosts.iter().filter_map(|host| match check_host(host) {
            Ok(()) => Some(full_name(host, namespace)),
            Err(text) => {
                problems.push(host.error(codes::INVALID_VALUE, text));
                None
            }
        });
        let hosts: Vec<String> = hosts.collect();
        if spec.hosts.is_empty() && !gateways.is_empty() {
            let place = object.place_of(&["spec"]);
            let text = "`hosts` names no host; delegates are not supported";
            problems.push(Problem::error(codes::MISSING_FIELD, place, "spec.hosts", text));
        }
        let mut routes = Vec::new();
        for (index, http) in spec.http.iter().enumerate() {
            let name = route_name(object, http, index);
            let read = read_route(http, &name, (namespace, registry), problems);
            match read {
                Ok(read) => routes.extend(read),
                Err(problem) => problems.push(problem),
            }
        }
        let metadata = &object.metadata;
        let age = (
            metadata.creation_timestamp.clone().unwrap_or_default(),
            metadata.name.clone(),
            namespace.to_owned(),
        );
        let namespace = namespace.to_owned();
        Some(Self { namespace, age, hosts, gateways, export_to: spec.export_to, routes })
    }

    /// Whether a gateway proxy of that namespace sees it: 0 most narrowly exported, 2 to all.
    pub(super) fn visibility(&self, proxy_namespace: &str) -> Option<u8> {
        if self.export_to.is_empty() || self.export_to.iter().any(|to| to == "*") {
            return Some(2);
        }
        if self.export_to.iter().any(|to| to == "~") {
            return None;
        }
        let own = self.namespace == proxy_namespace;
        let private = own && self.export_to.iter().any(|to| to == "." || *to == self.namespace);
        let exported = self.export_to.iter().any(|to| to == proxy_namespace);
        if private { Some(0) } else { exported.then_some(1) }
    }

    /// Its routes for one gateway's listener, up to the first that takes everything.
    pub(super) fn routes_for(
        &self,
        key: &GatewayKey,
        gateway: &str,
        proxy_namespace: &str,
    ) -> Vec<Arc<Route>> {
        let mut routes = Vec::new();
        for scoped in &self.routes {
            if !scoped.scope.fits(key, gateway, proxy_namespace) {
                continue;
            }
            routes.push(Arc::clone(&scoped.route));
            if scoped.route.condition.is_catch_all() {
                break;
            }
        }
        routes
    }
}

impl Scope {
    fn read(spec: &MatchSpec, namespace: &str) -> Self {
        let resolve = |name: &String| gateway_name(name, namespace);
        Self {
            port: spec.port.filter(|port| *port != 0),
            gateways: spec.gateways.iter().map(resolve).collect(),
            source_labels: spec.source_labels.clone(),
            source_namespace: spec.source_namespace.clone().filter(|name| !name.is_empty()),
        }
    }

    /// `sourceMatchHTTP`: gateways, where given, make the source's labels irrelevant.
    fn fits(&self, key: &GatewayKey, gateway: &str, proxy_namespace: &str) -> bool {
        if self.port.is_some_and(|port| port != key.port) {
            return false;
        }
        if !self.gateways.is_empty() {
            return self.gateways.iter().any(|name| name == gateway);
        }
        self.source_labels.iter().all(|(name, value)| key.labels.get(name) == Some(value))
            && self.source_namespace.as_ref().is_none_or(|namespace| namespace == proxy_namespace)
    }
}

fn gateway_names(gateways: &[String], namespace: &str) -> Vec<String> {
    let named = gateways.iter().filter(|name| *name != MESH);
    named.map(|name| gateway_name(name, namespace)).collect()
}

/// `namespace/name` of a gateway as written in a namespace.
fn gateway_name(name: &str, namespace: &str) -> String {
    match name.split_once('/') {
        Some((".", name)) => format!("{namespace}/{name}"),
        Some(_) => name.to_owned(),
        None if name == MESH => MESH.to_owned(),
        None => {
            // The old form: `name.namespace.svc.cluster.local`.
            let mut parts = name.split('.');
            match (parts.next(), parts.next(), parts.next()) {
                (Some(name), Some(namespace), Some("svc")) => format!("{namespace}/{name}"),
                _ => format!("{namespace}/{name}"),
            }
        }
    }
}

fn route_name(object: &Object, http: &HttpRouteSpec, index: usize) -> Arc<str> {
    let label = object.label();
    match &http.name {
        Some(name) if !name.is_empty() => format!("{label} http[{index}] {name}").into(),
        _ => format!("{label} http[{index}]").into(),
    }
}

fn read_route(
    http: &Located<HttpRouteSpec>,
    name: &Arc<str>,
    (namespace, registry): (&str, &Registry),
    problems: &mut Vec<Problem>,
) -> Result<Vec<ScopedRoute>, Problem> {
    let terms = Arc::new(terms::read(http, namespace, registry, problems)?);
    let route = |scope: Scope, condition: Condition| ScopedRoute {
        scope,
        route: Arc::new(Route { name: Arc::clone(name), condition, terms: Arc::clone(&terms) }),
    };
    if http.matches.is_empty() {
        return Ok(vec![route(Scope::default(), Condition::default())]);
    }
    http.matches.iter().map(|spec| Ok(route(Scope::read(spec, namespace), matching::read(spec)?))).collect()
}

//! Gateway API Gateways: listeners and which routes they let attach.

use std::collections::{BTreeMap, HashSet};

use policy::{
    Object, Problem, WorkloadName,
    manifest::{Located, codes},
};

use super::spec::{AllowedRoutesSpec, GatewayClassSpec, GatewaySpec, LabelSelector, ListenerSpec};
use crate::routing::{GatewayKey, istio::check_host};

/// The API group.
pub(super) const GROUP: &str = "gateway.networking.k8s.io";
/// The label by which a gateway's pods name their Gateway.
pub(crate) const GATEWAY_NAME_LABEL: &str = "gateway.networking.k8s.io/gateway-name";
/// Classes served without a GatewayClass object.
const OWN_CLASSES: [&str; 2] = ["istio", "fhirward"];
/// Controllers whose classes are served.
const OWN_CONTROLLERS: [&str; 2] = ["istio.io/gateway-controller", "fhirward.dev/gateway-controller"];

/// A Gateway's HTTP listeners, checked.
#[derive(Debug)]
pub(crate) struct Gateway {
    pub(crate) name: WorkloadName,
    pub(crate) class: String,
    /// Whether the class is one of ours; a listener that names the Gateway serves it anyhow.
    served: bool,
    pub(super) listeners: Vec<Listener>,
}

/// One HTTP or HTTPS listener.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) section: String,
    pub(super) port: u16,
    pub(super) tls: bool,
    /// `*` where it names none.
    pub(super) hostname: String,
    from: From,
    takes_http_routes: bool,
}

/// Namespaces whose routes may attach.
#[derive(Debug)]
enum From {
    Same,
    All,
    None,
    Selector(LabelSelector),
}

impl Gateway {
    /// Whether the listener `key` is this Gateway: by the label that names it; where no label
    /// names any, by its class.
    pub(crate) fn is_served_by(&self, key: &GatewayKey) -> bool {
        let named = key.labels.get(GATEWAY_NAME_LABEL);
        named.map_or(self.served, |name| *name == self.name.name)
            && self.listeners.iter().any(|listener| listener.port == key.port)
    }

    /// Ports of its listeners.
    pub(crate) fn ports(&self) -> impl Iterator<Item = u16> {
        self.listeners.iter().map(|listener| listener.port)
    }

    pub(super) fn read(
        object: &Object,
        classes: &HashSet<String>,
        problems: &mut Vec<Problem>,
    ) -> Option<Self> {
        let spec = match object.field::<GatewaySpec>("spec") {
            Ok(Some(spec)) => spec,
            Ok(None) => {
                let place = object.place.clone();
                let problem = Problem::error(codes::MISSING_FIELD, place, "spec", "`spec` is missing");
                problems.push(problem.of(object.label()));
                return None;
            }
            Err(problem) => {
                problems.push(problem);
                return None;
            }
        };
        if let Some(tls) = spec.tls.as_ref().filter(|tls| tls.frontend.is_some()) {
            let text = "client certificates of gateways are not checked yet";
            problems.push(tls.error(codes::NOT_ENFORCED, text).of(object.label()));
        }
        let mut listeners = Vec::new();
        for listener in &spec.listeners {
            match Listener::read(listener) {
                Ok(listener) => listeners.push(listener),
                Err(problem) => problems.push(problem.of(object.label())),
            }
        }
        let class = spec.gateway_class_name;
        let served = OWN_CLASSES.contains(&class.as_str()) || classes.contains(&class);
        let name =
            WorkloadName { namespace: object.namespace().to_owned(), name: object.metadata.name.clone() };
        Some(Self { name, class, served, listeners })
    }
}

/// The name of a GatewayClass that is ours by its controller.
pub(super) fn own_class(object: &Object, problems: &mut Vec<Problem>) -> Option<String> {
    match object.field::<GatewayClassSpec>("spec") {
        Ok(spec) => spec
            .filter(|spec| OWN_CONTROLLERS.contains(&spec.controller_name.as_str()))
            .map(|_| object.metadata.name.clone()),
        Err(problem) => {
            problems.push(problem);
            None
        }
    }
}

impl Listener {
    fn read(spec: &Located<ListenerSpec>) -> Result<Self, Problem> {
        let tls = match spec.protocol.as_str() {
            "HTTP" => false,
            "HTTPS" => true,
            "TLS" | "TCP" | "UDP" => {
                let text = format!("protocol {} is not served; the listener is left out", spec.protocol);
                return Err(spec.warning(codes::NOT_ENFORCED, text));
            }
            other => return Err(spec.error(codes::INVALID_VALUE, format!("`{other}` is no protocol"))),
        };
        if let Some(settings) = &spec.tls {
            let asks = settings.options.get("gateway.istio.io/tls-terminate-mode");
            if settings.frontend_validation.is_some() || asks.is_some_and(|mode| mode != "SIMPLE") {
                let text = "client certificates of gateways are not checked yet";
                return Err(settings.error(codes::NOT_ENFORCED, text));
            }
            match settings.mode.as_deref() {
                None | Some("Terminate") => {}
                Some(other) => {
                    let text = format!("TLS mode `{other}` does not fit protocol {}", spec.protocol);
                    return Err(settings.error(codes::INVALID_VALUE, text));
                }
            }
        }
        if spec.port == 0 {
            return Err(spec.error(codes::INVALID_PORT, "a port is 1 to 65535"));
        }
        let hostname = match spec.hostname.as_ref().filter(|name| !name.is_empty()) {
            None => "*".to_owned(),
            Some(name) => {
                check_host(name).map_err(|text| name.error(codes::INVALID_VALUE, text))?;
                name.to_ascii_lowercase()
            }
        };
        Ok(Self {
            section: spec.name.clone(),
            port: spec.port,
            tls,
            hostname,
            from: From::read(&spec.allowed_routes)?,
            takes_http_routes: takes_http_routes(&spec.allowed_routes),
        })
    }

    /// Whether an HTTPRoute of that namespace (with these labels) may attach.
    pub(super) fn admits(
        &self,
        gateway_namespace: &str,
        route_namespace: &str,
        labels: Option<&BTreeMap<String, String>>,
    ) -> bool {
        self.takes_http_routes
            && match &self.from {
                From::All => true,
                From::None => false,
                From::Same => gateway_namespace == route_namespace,
                From::Selector(selector) => {
                    let mut labels = labels.cloned().unwrap_or_default();
                    // The API server gives every namespace this label.
                    let name = "kubernetes.io/metadata.name".to_owned();
                    labels.insert(name, route_namespace.to_owned());
                    selector.matches(&labels)
                }
            }
    }
}

impl From {
    fn read(spec: &AllowedRoutesSpec) -> Result<Self, Problem> {
        let Some(from) = &spec.namespaces.from else { return Ok(Self::Same) };
        match (from.as_str(), &spec.namespaces.selector) {
            ("Same", _) => Ok(Self::Same),
            ("All", _) => Ok(Self::All),
            ("None", _) => Ok(Self::None),
            ("Selector", Some(selector)) => Ok(Self::Selector(selector.clone())),
            ("Selector", None) => Err(from.error(codes::MISSING_FIELD, "`selector` is missing")),
            (other, _) => Err(from
                .error(codes::INVALID_VALUE, format!("`{other}` is none of Same, All, Selector and None"))),
        }
    }
}

fn takes_http_routes(spec: &AllowedRoutesSpec) -> bool {
    spec.kinds.is_empty()
        || spec
            .kinds
            .iter()
            .any(|kind| kind.kind == "HTTPRoute" && kind.group.as_deref().is_none_or(|group| group == GROUP))
}

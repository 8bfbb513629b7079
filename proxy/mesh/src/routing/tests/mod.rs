#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod api;
mod destinations;
mod istio;
mod policies;

use std::{collections::BTreeMap, fmt::Write as _};

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use policy::Problem;

use super::{GatewayKey, HeaderEdits, RouteDestination, RouteQuery, Routed};
use crate::{MeshSettings, Snapshot};

/// Two workloads with Services, and the tutorial's Gateway for every host.
pub(super) const BASE: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: datamesh, labels: {istio-injection: enabled}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: fhir, namespace: datamesh}
spec:
  template:
    metadata: {labels: {app: fhir}}
    spec: {containers: [{name: c, ports: [{name: http, containerPort: 8080}]}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: keycloak, namespace: auth}
spec:
  template:
    metadata: {labels: {app: keycloak}}
    spec: {containers: [{name: c, ports: [{containerPort: 9090}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: fhir-service, namespace: datamesh}
spec: {selector: {app: fhir}, ports: [{port: 80, targetPort: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: keycloak, namespace: auth}
spec: {selector: {app: keycloak}, ports: [{port: 8080, targetPort: 9090}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gw, namespace: datamesh}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]
"#;

pub(super) fn try_mesh(
    manifests: &[&str],
    settings: &MeshSettings,
) -> Result<(Snapshot, Vec<Problem>), Vec<Problem>> {
    let (objects, problems) = policy::manifest::parse("test.yaml", &manifests.join("\n---\n"));
    assert!(problems.is_empty(), "{problems:?}");
    Snapshot::build(&objects, settings, 1)
}

/// A snapshot of [`BASE`] and these manifests.
pub(super) fn mesh(manifests: &str) -> Snapshot {
    try_mesh(&[BASE, manifests], &MeshSettings::default()).unwrap().0
}

/// The problems of [`BASE`] and these manifests, as `code: message`.
pub(super) fn refused(manifests: &str) -> String {
    let problems = try_mesh(&[BASE, manifests], &MeshSettings::default()).unwrap_err();
    problems.iter().filter(|problem| problem.is_error()).map(|problem| format!("{problem}\n")).collect()
}

pub(super) fn warned(manifests: &str) -> String {
    let (_, warnings) = try_mesh(&[BASE, manifests], &MeshSettings::default()).unwrap();
    warnings.iter().map(|problem| format!("{problem}\n")).collect()
}

pub(crate) fn ingress(port: u16) -> GatewayKey {
    let labels = BTreeMap::from([("istio".to_owned(), "ingressgateway".to_owned())]);
    GatewayKey { labels, port }
}

/// A request: `GET http://host/path?query`, then headers as `name: value`.
pub(crate) struct Ask {
    method: Method,
    scheme: String,
    authority: String,
    path: String,
    query: Option<String>,
    headers: HeaderMap,
    dice: u64,
}

pub(crate) fn ask(line: &str, headers: &[&str]) -> Ask {
    let (method, url) = line.split_once(' ').unwrap();
    let (scheme, rest) = url.split_once("://").unwrap();
    let (authority, target) = rest.split_at(rest.find('/').unwrap());
    let (path, query) = target.split_once('?').map_or((target, None), |(p, q)| (p, Some(q)));
    let mut map = HeaderMap::new();
    for header in headers {
        let (name, value) = header.split_once(": ").unwrap();
        map.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    Ask {
        method: method.parse().unwrap(),
        scheme: scheme.to_owned(),
        authority: authority.to_owned(),
        path: path.to_owned(),
        query: query.map(str::to_owned),
        headers: map,
        dice: 7,
    }
}

impl Ask {
    pub(super) fn dice(mut self, dice: u64) -> Self {
        self.dice = dice;
        self
    }

    pub(crate) fn at(&self, snapshot: &Snapshot, key: &GatewayKey) -> Routed {
        snapshot.route(
            key,
            &RouteQuery {
                scheme: &self.scheme,
                authority: &self.authority,
                method: &self.method,
                path: &self.path,
                query: self.query.as_deref(),
                headers: &self.headers,
                dice: self.dice,
            },
        )
    }
}

/// Where a request goes, in short: `fhir:8080 /new-path`, `404`, `301 location`, `=200 body`.
pub(super) fn goes(snapshot: &Snapshot, line: &str, headers: &[&str]) -> String {
    told(&ask(line, headers).at(snapshot, &ingress(80)))
}

pub(crate) fn told(routed: &Routed) -> String {
    match routed {
        Routed::NotFound => "404".to_owned(),
        Routed::Redirect { status, location } => format!("{} {location}", status.as_u16()),
        Routed::Respond { status, body, delay } => {
            format!(
                "={} {body}{}",
                status.as_u16(),
                delay.map(|d| format!(" after {d:?}")).unwrap_or_default()
            )
        }
        Routed::NoDestination { status } => format!("no destination {}", status.as_u16()),
        Routed::Preflight { headers } => format!("preflight {}", pairs(headers)),
        Routed::Forward(forward) => {
            let mut text = match &forward.destination {
                RouteDestination::Workload { workload, port } => format!("{}:{port}", workload.name.name),
                RouteDestination::External { address } => format!("outside {address}"),
            };
            for part in [&forward.path, &forward.authority].into_iter().flatten() {
                write!(text, " {part}").unwrap();
            }
            text
        }
    }
}

pub(super) fn pairs(headers: &[(HeaderName, HeaderValue)]) -> String {
    let texts: Vec<String> =
        headers.iter().map(|(name, value)| format!("{name}={}", value.to_str().unwrap())).collect();
    texts.join(" ")
}

pub(super) fn edits(edits: &HeaderEdits) -> String {
    let removed: Vec<&str> = edits.remove.iter().map(HeaderName::as_str).collect();
    format!("-[{}] =[{}] +[{}]", removed.join(" "), pairs(&edits.set), pairs(&edits.add))
}

/// A VirtualService `vs` in `datamesh` for every host at the gateway `gw`.
pub(super) fn virtual_service(http: &str) -> String {
    named_service("vs", "[\"*\"]", http)
}

pub(super) fn named_service(name: &str, hosts: &str, http: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\n\
         metadata: {{name: {name}, namespace: datamesh}}\n\
         spec:\n  hosts: {hosts}\n  gateways: [gw]\n  http:\n{http}\n---\n"
    )
}

/// The usual route to the FHIR server, as the end of an `http` entry.
pub(super) const TO_FHIR: &str = "    route: [{destination: {host: fhir-service, port: {number: 80}}}]";

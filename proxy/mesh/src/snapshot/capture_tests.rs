//! What capture needs to know of pods, probes and Services.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::IpAddr;

use super::*;

fn built(manifests: &str, settings: &MeshSettings) -> (Snapshot, Vec<Problem>) {
    let (objects, problems) = policy::manifest::parse("test.yaml", manifests);
    assert!(problems.is_empty(), "{problems:?}");
    Snapshot::build(&objects, settings, 7).unwrap()
}

fn named(snapshot: &Snapshot, name: &str) -> Arc<Workload> {
    snapshot.workload(&name.parse().unwrap()).unwrap().clone()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

const PODS: &str = r#"
{apiVersion: v1, kind: Namespace, metadata: {name: apps, labels: {istio-injection: enabled}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: apps}
spec:
  template:
    metadata: {labels: {app: web}, annotations: {fhirward.dev/socket-acceleration: enabled}}
    spec:
      containers:
      - name: c
        ports: [{name: web, containerPort: 8080}, {name: health, containerPort: 8081}]
        livenessProbe: {httpGet: {path: /healthz?x=1, port: health}}
        readinessProbe: {httpGet: {path: ready, port: 8081, scheme: HTTP}}
        startupProbe: {tcpSocket: {port: 8080}}
      - name: d
        livenessProbe: {grpc: {port: 9000, service: x}}
        readinessProbe: {httpGet: {port: "8443", scheme: HTTPS}}
        startupProbe: {exec: {command: [true]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web-1, namespace: apps, uid: u-1, labels: {app: web}, ownerReferences: [{apiVersion: apps/v1, kind: StatefulSet, name: web, uid: x, controller: true}]}, spec: {}, status: {podIPs: [{ip: 10.0.0.1}, {ip: "fd00::1"}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web-2, namespace: apps, uid: u-2, labels: {app: web, fhirward.dev/mesh: disabled}, ownerReferences: [{apiVersion: apps/v1, kind: StatefulSet, name: web, uid: x, controller: true}]}, spec: {}, status: {podIP: 10.0.0.2}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web-3, namespace: apps, uid: u-3, ownerReferences: [{apiVersion: apps/v1, kind: StatefulSet, name: web, uid: x, controller: true}]}, spec: {hostNetwork: true}, status: {podIP: 192.168.0.1}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web-4, namespace: apps, uid: u-4, ownerReferences: [{apiVersion: apps/v1, kind: StatefulSet, name: web, uid: x, controller: true}]}, spec: {}, status: {phase: Succeeded, podIP: 10.0.0.4}}
---
{apiVersion: v1, kind: Pod, metadata: {name: bare, namespace: m, uid: u-5, labels: {istio.io/dataplane-mode: ambient}, annotations: {a: b}}, spec: {}, status: {podIP: 10.0.0.5}}
"#;

#[test]
fn pods_are_known_one_by_one() {
    let (snapshot, _) = built(PODS, &MeshSettings::default());
    let web = named(&snapshot, "apps/web");
    let pods: Vec<_> = web.pods.iter().map(|pod| (pod.uid.as_str(), pod.enrolled, pod.ips.len())).collect();
    assert_eq!(pods, [("u-1", true, 2), ("u-2", false, 1), ("u-3", false, 0), ("u-4", false, 0)]);
    assert!(web.pods[2].host_network && web.pods[3].finished);
    assert_eq!(web.annotations["fhirward.dev/socket-acceleration"], "enabled");
    let bare = named(&snapshot, "m/bare");
    assert!(bare.enrolled && bare.pods[0].enrolled);
    assert_eq!(bare.pods[0].annotations["a"], "b");
}

#[test]
fn probes_are_those_of_all_containers_by_number() {
    let (snapshot, _) = built(PODS, &MeshSettings::default());
    let http = |path: &str| ProbeKind::Http { path: path.to_owned() };
    let probe = |port, kind| Probe { port, kind };
    assert_eq!(
        named(&snapshot, "apps/web").probes,
        [
            probe(8081, http("/healthz?x=1")),
            probe(8081, http("/ready")),
            probe(8080, ProbeKind::Tcp),
            probe(9000, ProbeKind::Grpc),
            probe(8443, ProbeKind::Tcp),
        ]
    );
}

const SERVICES: &str = r#"
{apiVersion: v1, kind: Service, metadata: {name: web, namespace: apps}, spec: {clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1, "fd96::1"], selector: {app: web}, ports: [{name: http, port: 80, targetPort: web}, {name: dns, protocol: UDP, port: 53}, {name: grpc-x, port: 81, targetPort: 8081}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: headless, namespace: apps}, spec: {clusterIP: None, selector: {app: web}, ports: [{port: 80}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: by-hand, namespace: apps}, spec: {clusterIP: 10.96.0.2, ports: [{port: 80}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: empty, namespace: apps}, spec: {clusterIP: 10.96.0.3, selector: {app: nobody}, ports: [{port: 80}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: twice, namespace: apps}, spec: {clusterIP: 10.96.0.4, selector: {app: web}, ports: [{port: 80}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: claims, namespace: apps}, spec: {clusterIP: 10.96.0.4, selector: {app: web}, ports: [{port: 80}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: named, namespace: apps}, spec: {selector: {app: web}, ports: [{name: tcp-raw, port: 90, targetPort: 9090}]}}
"#;

#[test]
fn services_are_found_by_their_addresses() {
    let mut settings = MeshSettings::default();
    settings.service_addresses.insert("apps/named".to_owned(), ip("10.96.0.9"));
    let (snapshot, warnings) = built(&format!("{PODS}---\n{SERVICES}"), &settings);
    let at = |address: &str, port| snapshot.service_at(ip(address), port);
    for address in ["10.96.0.1", "fd96::1"] {
        let found = at(address, 80).unwrap();
        assert_eq!(
            (&*found.host, found.service.to_string()),
            ("web.apps.svc.cluster.local", "apps/web".to_owned())
        );
        let endpoints = found.endpoints.as_ref().unwrap();
        assert_eq!((endpoints.len(), endpoints[0].port), (1, 8080));
    }
    assert!(at("10.96.0.1", 53).is_none(), "UDP is not TCP");
    assert!(at("10.96.0.1", 8080).is_none());
    assert!(at("10.96.0.2", 80).unwrap().endpoints.is_none(), "by hand: not known here");
    assert!(at("10.96.0.3", 80).unwrap().endpoints.as_ref().unwrap().is_empty(), "nobody");
    assert!(at("10.96.0.4", 80).is_none() && !warnings.is_empty(), "neither's");
    assert_eq!(at("10.96.0.9", 90).unwrap().endpoints.as_ref().unwrap()[0].port, 9090);
}

#[test]
fn an_address_for_no_service_is_a_problem() {
    let mut settings = MeshSettings::default();
    settings.service_addresses.insert("apps/nobody".to_owned(), ip("10.96.0.9"));
    let (objects, _) = policy::manifest::parse("test.yaml", SERVICES);
    let problems = Snapshot::build(&objects, &settings, 1).unwrap_err();
    assert!(
        problems.iter().any(|problem| problem.field == "mesh.serviceAddresses.apps/nobody"),
        "{problems:?}"
    );
}

#[test]
fn a_bad_cluster_ip_is_a_problem() {
    let bad = "{apiVersion: v1, kind: Service, metadata: {name: a, namespace: apps}, spec: {clusterIP: x, ports: []}}";
    let (objects, _) = policy::manifest::parse("test.yaml", bad);
    let problems = Snapshot::build(&objects, &MeshSettings::default(), 1).unwrap_err();
    assert_eq!(problems[0].field, "spec.clusterIP");
}

#[test]
fn services_declare_the_protocols_of_ports_and_contradictions_declare_nothing() {
    let (snapshot, _) = built(&format!("{PODS}---\n{SERVICES}"), &MeshSettings::default());
    let web = named(&snapshot, "apps/web");
    let declared: Vec<_> = web.protocols.iter().map(|(port, declared)| (*port, *declared)).collect();
    assert_eq!(declared, [(8080, Declared::Http), (8081, Declared::Http), (9090, Declared::Tcp)]);
    let against = "{apiVersion: v1, kind: Service, metadata: {name: other, namespace: apps}, spec: {selector: {app: web}, ports: [{port: 1, targetPort: 8080, name: http, appProtocol: tcp}]}}";
    let (snapshot, _) = built(&format!("{PODS}---\n{SERVICES}---\n{against}"), &MeshSettings::default());
    assert!(!named(&snapshot, "apps/web").protocols.contains_key(&8080));
}

#[test]
fn names_of_ports_declare_as_istio_has_it() {
    use Declared::{Http, Tcp, Tls};
    for (name, app_protocol, declared) in [
        (Some("http"), None, Some(Http)),
        (Some("HTTP-api"), None, Some(Http)),
        (Some("http2"), None, Some(Http)),
        (Some("grpc-web"), None, Some(Http)),
        (Some("grpc"), None, Some(Http)),
        (Some("https"), None, Some(Tls)),
        (Some("tls-x"), None, Some(Tls)),
        (Some("tcp"), None, Some(Tcp)),
        (Some("mongo-db"), None, Some(Tcp)),
        (Some("httpx"), None, None),
        (Some("api-http"), None, None),
        (None, None, None),
        (Some("http"), Some("tcp"), Some(Tcp)),
        (Some("tcp"), Some("kubernetes.io/h2c"), Some(Http)),
        (Some("tcp"), Some("kubernetes.io/wss"), Some(Tls)),
        (Some("http"), Some("example.com/mine"), None),
    ] {
        assert_eq!(Declared::of(name, app_protocol), declared, "{name:?} {app_protocol:?}");
    }
}

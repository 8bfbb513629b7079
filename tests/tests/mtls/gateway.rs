//! A gateway, with a certificate of its own, that leads to one workload by a tunnel.

use std::{fs, net::SocketAddr, time::Duration};

use certs::Authority;
use tests::harness::Proxy;
use tokio::time::{Instant, sleep, timeout};

use super::stand::{SOON, STRICT, usual};

/// Istio's name for the account of its ingress gateway.
pub const GATEWAY: &str = "spiffe://cluster.local/ns/istio-system/sa/istio-ingressgateway-service-account";

/// A gateway that leads to the workload at whatever is at its address.
pub const ROUTES: &str = "apiVersion: v1
kind: Service
metadata: {name: fhir-service, namespace: datamesh}
spec: {selector: {app: fhir-server}, ports: [{port: 8080, targetPort: 8080, name: http}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gateway, namespace: datamesh}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: fhir, namespace: datamesh}
spec:
  hosts: ['*']
  gateways: [gateway]
  http: [{route: [{destination: {host: fhir-service.datamesh.svc.cluster.local, port: {number: 8080}}}]}]
---
";

/// Whom the world knows.
pub struct World {
    pub root: Authority,
    pub partners: Authority,
    /// More roots of the mesh's own trust domain (PEM).
    pub trusted: String,
}

impl World {
    pub fn new() -> Self {
        Self {
            root: Authority::mint("us").unwrap(),
            partners: Authority::mint("partners").unwrap(),
            trusted: String::new(),
        }
    }
}

/// The gateway, calling a server by this tunnel.
pub async fn gateway(world: &World, tunnel: &str, server: SocketAddr, list: &str) -> Proxy {
    let own = usual(&world.root, GATEWAY);
    let folder = tempfile::tempdir().unwrap();
    let own = own.write_to(folder.path(), &world.root).unwrap();
    let read = |path| fs::read_to_string(path).unwrap();
    let settings = format!(
        "listeners:
- {{name: gateway, address: \"{{gateway}}\", gateway: {{labels: {{istio: ingressgateway}}, port: 80}}}}
mesh:
  manifests: [manifests]
  workloads:
  - {{name: datamesh/fhir-server, labels: {{app: fhir-server}}, serviceAccount: fhir-server, upstream: {{8080: \"{server}\"}}}}
  tunnels: {{datamesh/fhir-server: {tunnel}}}
identity:
  certificates:
    files: [{{serviceAccount: istio-system/istio-ingressgateway-service-account, folder: own}}]
    trust:
    - {{domain: cluster.local, bundles: [own/ca.crt]}}
    - {{domain: partner.example, bundles: [partners.pem]}}
    crls: [revoked.pem]
"
    );
    let files = [
        ("manifests/mesh.yaml", format!("{ROUTES}{STRICT}")),
        ("own/tls.crt", read(&own.certificate)),
        ("own/tls.key", read(&own.key)),
        ("own/ca.crt", world.root.certificate_pem() + &world.trusted),
        ("partners.pem", world.partners.certificate_pem()),
        ("revoked.pem", list.to_owned()),
    ];
    let files: Vec<_> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let proxy = Proxy::start(&["gateway"], &settings, &files).await.unwrap();
    let began = Instant::now();
    while proxy.page("/readyz").await.unwrap().0 != 200 {
        assert!(began.elapsed() < SOON, "{}", proxy.log());
        sleep(Duration::from_millis(20)).await;
    }
    proxy
}

pub async fn get(proxy: &Proxy) -> u16 {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = client.get(format!("{}/Patient", proxy.url("gateway"))).send();
    timeout(SOON, request).await.unwrap().unwrap().status().as_u16()
}

/// The reason is told in the access log, a moment later.
pub async fn told(proxy: &Proxy, case: &str, reason: &str, before: usize) {
    let began = Instant::now();
    while count(proxy, reason) == before {
        assert!(began.elapsed() < SOON, "{case}: no {reason} in\n{}", proxy.log());
        sleep(Duration::from_millis(20)).await;
    }
}

pub fn count(proxy: &Proxy, reason: &str) -> usize {
    proxy.log().matches(reason).count()
}

//! A gateway, with a certificate of its own, that leads to one workload by a tunnel.

use std::{fs, net::SocketAddr, time::Duration};

use certs::Authority;
use tests::harness::Proxy;
pub use tests::harness::datamesh::{GATEWAY, ROUTES};
use tokio::time::{Instant, sleep, timeout};

use super::stand::{SOON, STRICT, usual};

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

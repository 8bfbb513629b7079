//! The data mesh's manifests, unchanged and with STRICT, on two machines' worth of proxies: the gateway in
//! one process, the FHIR server behind another, and between them HBONE or what sidecars speak.

use std::{fs, io, net::SocketAddr, time::Duration};

use certs::{Authority, LeafRequest};
use demo::{
    clients::{self, Tokens, tutorial_table},
    fhir_store::{self, FhirStore},
    idp::{self, Idp},
};
use tests::harness::{ISSUER_BASE, Proxy, repository};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep},
};

use super::{
    gateway::GATEWAY,
    stand::{SOON, ask, client_of, connect, get},
};

/// The tutorial's Deployment names no service account.
const SERVER: &str = "spiffe://cluster.local/ns/datamesh/sa/default";

struct Mesh {
    _idp: Idp,
    store: FhirStore,
    tokens: Tokens,
    root: Authority,
    /// In front of the FHIR server: `entrance` takes HBONE, `port` what sidecars send.
    workload: Proxy,
    manifests: Vec<(String, String)>,
    keys: String,
}

impl Mesh {
    async fn open() -> Self {
        let settings =
            idp::Settings { frontend_url: Some(ISSUER_BASE.to_owned()), ..idp::Settings::default() };
        let idp = idp::start(settings).await.unwrap();
        let keys = format!("{}/realms/IDEA4RC/protocol/openid-connect/certs", idp.base_url());
        let store = fhir_store::start(fhir_store::Settings::default()).await.unwrap();
        let tokens = Tokens::from_demo(&idp).await.unwrap();
        let root = Authority::mint("the mesh").unwrap();
        let folder = fs::read_dir(repository().join("config/data-mesh")).unwrap();
        let read = |path: std::path::PathBuf| {
            let name = format!("manifests/{}", path.file_name().unwrap().to_string_lossy());
            (name, fs::read_to_string(path).unwrap())
        };
        let manifests: Vec<_> = folder.map(|entry| read(entry.unwrap().path())).collect();
        let to = format!("to: datamesh/fhir-server, port: 8080, upstream: \"{}\"", store.addr());
        let listeners = format!(
            "listeners:
- {{name: entrance, address: \"{{entrance}}\", {to}, tls: {{hbone: true}}}}
- {{name: port, address: \"{{port}}\", {to}, tls: {{mesh: true}}}}
mesh: {{manifests: [manifests]}}
"
        );
        let workload =
            start(&["entrance", "port"], &listeners, ("datamesh/default", SERVER), &root, &manifests, &keys)
                .await;
        Self { _idp: idp, store, tokens, root, workload, manifests, keys }
    }

    /// The gateway, which reaches the FHIR server by this tunnel at this address.
    async fn gateway(&self, tunnel: &str, upstream: SocketAddr) -> Proxy {
        let listeners = format!(
            "listeners:
- {{name: ingress, address: \"{{ingress}}\", gateway: {{labels: {{istio: ingressgateway}}, port: 80}}}}
mesh:
  manifests: [manifests]
  workloads: [{{name: datamesh/fhir-server, upstream: {{8080: \"{upstream}\"}}}}]
  tunnels: {{datamesh/fhir-server: {tunnel}}}
"
        );
        let own = ("istio-system/istio-ingressgateway-service-account", GATEWAY);
        start(&["ingress"], &listeners, own, &self.root, &self.manifests, &self.keys).await
    }

    /// The whole table, as the tutorial has it.
    async fn table_holds(&self, gateway: &Proxy) {
        self.store.clear_recorded();
        let url = gateway.url("ingress");
        let outcomes = clients::run(&url, None, &self.tokens, &tutorial_table()).await.unwrap();
        let mut report = Vec::new();
        let good = clients::write_report(&mut report, &outcomes).unwrap();
        let logs = [gateway.log(), self.workload.log()];
        assert!(good, "{}\n{logs:?}", String::from_utf8_lossy(&report));
        let seen = self.store.recorded();
        assert!(!seen.is_empty());
        for request in seen {
            assert!(!request.headers.contains_key("authorization"), "{request:?}");
            let told = request.headers.get("x-forwarded-client-cert").unwrap().to_str().unwrap();
            assert!(told.starts_with(&format!("By={SERVER};")) && told.contains(GATEWAY), "{told}");
        }
        let principal = format!("source_principal=\"{GATEWAY}\"");
        let labels = ["reporter=\"destination\"", "connection_security_policy=\"mutual_tls\"", &principal];
        assert!(self.workload.metric("istio_requests_total", &labels).await.unwrap() > 0.0);
    }

    /// What a `curl` from outside of the mesh meets.
    async fn outsider_is_reset(&self) {
        let before = self.store.requests();
        for listener in ["entrance", "port"] {
            let mut socket = TcpStream::connect(self.workload.address(listener)).await.unwrap();
            let error = ask(&mut socket, &get("/Patient")).await.expect_err("a reset, not an end");
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{listener}");
        }
        assert_eq!(self.store.requests(), before);
    }
}

async fn start(
    names: &[&str],
    listeners: &str,
    (account, id): (&str, &str),
    root: &Authority,
    manifests: &[(String, String)],
    keys: &str,
) -> Proxy {
    let leaf = root.issue(&LeafRequest::for_workload(id)).unwrap();
    let settings = format!(
        "{listeners}identity:
  providers: [{{issuer: {ISSUER_BASE}/realms/IDEA4RC, jwksUri: {keys}}}]
  certificates: {{files: [{{serviceAccount: {account}, folder: own}}]}}
"
    );
    let mut files: Vec<_> = manifests.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let trusted = root.certificate_pem();
    files.extend([
        ("own/tls.crt", leaf.chain_pem()),
        ("own/tls.key", leaf.key_pem()),
        ("own/ca.crt", &trusted),
    ]);
    let proxy = Proxy::start(names, &settings, &files).await.unwrap();
    let began = Instant::now();
    while proxy.page("/readyz").await.unwrap().0 != 200 {
        assert!(began.elapsed() < SOON, "{}", proxy.log());
        sleep(Duration::from_millis(20)).await;
    }
    proxy
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tutorial_holds_through_hbone_and_the_outsider_is_reset() {
    let mesh = Mesh::open().await;
    // As a pod's address would be: it is the tunnel that is connected to.
    let pod = SocketAddr::from(([127, 0, 0, 1], 8080));
    let tunnel = format!("{{kind: hbone, address: \"{}\"}}", mesh.workload.address("entrance"));
    let gateway = mesh.gateway(&tunnel, pod).await;
    mesh.table_holds(&gateway).await;
    mesh.outsider_is_reset().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tutorial_holds_as_sidecars_speak_and_the_outsider_is_reset() {
    let mesh = Mesh::open().await;
    let gateway = mesh.gateway("{kind: sidecar}", mesh.workload.address("port")).await;
    mesh.table_holds(&gateway).await;
    mesh.outsider_is_reset().await;
    // A pod of the mesh that goes around the gateway needs a token as well.
    let visitor = "spiffe://cluster.local/ns/datamesh/sa/postgres-db";
    let leaf = mesh.root.issue(&LeafRequest::for_workload(visitor)).unwrap();
    let client = client_of(&mesh.root, SERVER, Some(&leaf), &["http/1.1"]);
    let mut io = connect(mesh.workload.address("port"), &client, "fhir.example").await.unwrap();
    assert!(ask(&mut io, &get("/Patient")).await.unwrap().starts_with("HTTP/1.1 403"));
}

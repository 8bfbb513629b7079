//! Certificates from a real SPIRE: given, renewed and rotated to the root under load, and what happens
//! when the agent is gone.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    io::Write,
    path::Path,
    process::{Command, Output, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use certs::{Authority, LeafRequest};
use demo::fhir_store::{self, FhirStore};
use serde_json::Value;
use tests::{
    harness::{
        MeshClient, MeshLoad, Proxy,
        datamesh::{CLIENT, SERVER, STRICT},
    },
    real::Spire,
};

const REQUEST: &[u8] = b"GET /metadata HTTP/1.1\r\nHost: fhir\r\nConnection: close\r\n\r\n";
/// A slow machine is allowed for.
const SOON: Duration = Duration::from_secs(120);
const HOUR: u32 = 3_600;

struct Stand {
    spire: Spire,
    proxy: Proxy,
    /// Vouches for the load's clients, beside SPIRE's roots.
    clients: Authority,
    _store: FhirStore,
}

impl Stand {
    async fn open() -> Self {
        let spire = Spire::start().await.unwrap();
        let clients = Authority::mint("clients").unwrap();
        let store = fhir_store::start(fhir_store::Settings::default()).await.unwrap();
        let settings = format!(
            "listeners:
- {{name: fhir, address: \"{{fhir}}\", to: datamesh/fhir-server, port: 8080, upstream: \"{}\", tls: {{mesh: true}}}}
mesh:
  manifests: [strict.yaml]
  workloads: [{{name: datamesh/fhir-server, serviceAccount: fhir-server}}]
identity:
  certificates:
    workloadApi: {{socket: \"unix://{}\"}}
    retryMinMs: 200
    retryMaxMs: 1000
    trust: [{{domain: cluster.local, bundles: [clients.pem]}}]
",
            store.addr(),
            spire.socket().display()
        );
        let files = [("strict.yaml", STRICT), ("clients.pem", &clients.certificate_pem())];
        let proxy = Proxy::start(&["fhir"], &settings, &files).await.unwrap();
        Self { spire, proxy, clients, _store: store }
    }

    async fn eventually(&self, what: &str, mut holds: impl AsyncFnMut() -> bool) {
        let began = Instant::now();
        while !holds().await {
            let readiness = self.proxy.readiness().await;
            assert!(
                began.elapsed() < SOON,
                "not within {SOON:?}: {what}\n{readiness:?}\n{}\n{}",
                self.proxy.log(),
                self.spire.log()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn ready(&self) {
        self.eventually("ready", async || self.proxy.page("/readyz").await.unwrap().0 == 200).await;
    }

    /// What readiness says of the one certificate.
    async fn certificate(&self) -> Value {
        self.proxy.readiness().await.unwrap()["workloads"]["certificates"][0].clone()
    }

    async fn problem(&self, part: &str) {
        let said = async || {
            let certificate = self.certificate().await;
            certificate["problem"].as_str().is_some_and(|problem| problem.contains(part))
        };
        self.eventually(part, said).await;
    }

    async fn no_problem(&self) {
        let none = async || {
            let trust = self.proxy.readiness().await.unwrap()["workloads"]["trust"]["problem"].clone();
            self.certificate().await["problem"].is_null() && trust.is_null()
        };
        self.eventually("no problem", none).await;
    }

    async fn metric(&self, name: &str) -> f64 {
        self.proxy.metric(name, &[]).await.unwrap()
    }

    async fn renewals(&self) -> f64 {
        self.metric("fhirward_workload_certificate_renewals_total").await
    }

    /// openssl, with what the agent gives, asks for a page and shows whose certificate it saw.
    async fn served_to_openssl(&self, kit: &Path) {
        let address = self.proxy.address("fhir").to_string();
        let words = ["s_client", "-connect", &address, "-ign_eof", "-alpn", "istio-http/1.1"];
        let kit_words =
            ["-CAfile", "bundle.0.pem", "-verify_return_error", "-cert", "svid.0.pem", "-key", "svid.0.key"];
        let said = openssl(&[&words[..], &kit_words[..]].concat(), kit, REQUEST).await;
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(text.contains("HTTP/1.1 200 OK"), "{text}{}", String::from_utf8_lossy(&said.stderr));
        let shown = openssl(&["x509", "-noout", "-ext", "subjectAltName"], kit, text.as_bytes()).await;
        let names = String::from_utf8_lossy(&shown.stdout);
        assert!(names.contains(&format!("URI:{SERVER}")), "{names}");
    }
}

async fn openssl(words: &[&str], folder: &Path, input: &[u8]) -> Output {
    let mut command = Command::new("openssl");
    command.args(words).current_dir(folder);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let input = input.to_vec();
    let run = move || {
        let mut child = command.spawn().expect("openssl must be installed");
        // It may have heard enough before it has read everything.
        let _ = child.stdin.take().unwrap().write_all(&input);
        child.wait_with_output().unwrap()
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_becomes_a_certificate_that_outlives_agent_and_entry() {
    let mut stand = Stand::open().await;
    // The agent is there and knows nothing of us: told, though nothing has ever worked.
    stand.problem("PermissionDenied").await;
    assert!(stand.metric("fhirward_workload_certificate_failures_total").await > 0.0);
    let entry = stand.spire.entry(SERVER, HOUR).unwrap();
    stand.ready().await;
    stand.no_problem().await;
    let kit = tempfile::tempdir().unwrap();
    stand.spire.fetch(kit.path()).unwrap();
    stand.served_to_openssl(kit.path()).await;

    let failures = stand.metric("fhirward_workload_certificate_failures_total").await;
    stand.spire.kill_agent();
    stand.problem("the Workload API at").await;
    let counted = async || stand.metric("fhirward_workload_certificate_failures_total").await > failures;
    stand.eventually("failures are counted", counted).await;
    let told = async || stand.metric("fhirward_trust_problem").await > 0.0;
    stand.eventually("roots that may be old are told of", told).await;
    let certificate = stand.certificate().await;
    assert!(certificate["valid"] == true && certificate["late"] == false, "{certificate}");
    stand.served_to_openssl(kit.path()).await;
    stand.spire.restart_agent().await.unwrap();
    stand.no_problem().await;

    // Another entry of ours, so that the agent has something to say, and ours is gone.
    stand.spire.entry(CLIENT, HOUR).unwrap();
    stand.spire.remove(&entry).unwrap();
    stand.problem("there is no certificate for").await;
    stand.served_to_openssl(kit.path()).await;
    stand.spire.entry(SERVER, HOUR).unwrap();
    stand.no_problem().await;
    stand.served_to_openssl(kit.path()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leaf_and_root_rotate_under_load_and_no_request_fails() {
    let stand = Stand::open().await;
    stand.spire.entry(SERVER, 30).unwrap();
    stand.ready().await;
    // What the clients trust: SPIRE's roots of each moment.
    let roots = Arc::new(std::sync::RwLock::new(stand.spire.bundle().unwrap()));
    let leaf = stand.clients.issue(&LeafRequest::for_workload(CLIENT)).unwrap();
    let trusted = Arc::clone(&roots);
    let mut load = MeshLoad::start(stand.proxy.address("fhir"), SERVER, move || MeshClient {
        chain: leaf.chain_der(),
        key: leaf.key_der(),
        roots: trusted.read().unwrap().clone().into_bytes(),
    });
    let renewed = async |stand: &Stand, load: &mut MeshLoad, times: f64| {
        let (renewals, [kept, fresh]) = (stand.renewals().await, load.served());
        let more = async || {
            load.check().unwrap();
            let served = load.served();
            stand.renewals().await >= renewals + times && served[0] > kept + 20 && served[1] > fresh + 20
        };
        stand.eventually("renewals, and requests meanwhile", more).await;
    };
    renewed(&stand, &mut load, 2.0).await; // by SPIRE's own clock

    let answer = stand.spire.authority("prepare", None).unwrap();
    let new = answer["prepared_authority"]["authority_id"].as_str().unwrap().to_owned();
    let shown = stand.spire.authority("show", None).unwrap();
    let old = shown["active"]["authority_id"].as_str().unwrap().to_owned();
    let trusts = async |count: u64| {
        let readiness = stand.proxy.readiness().await.unwrap();
        readiness["workloads"]["trust"]["domains"][0]["roots"].as_u64() == Some(count)
    };
    // Our clients' root is beside SPIRE's.
    stand.eventually("both roots", async || trusts(3).await).await;
    *roots.write().unwrap() = stand.spire.bundle().unwrap();
    stand.spire.authority("activate", Some(&new)).unwrap();
    stand.spire.authority("taint", Some(&old)).unwrap();
    renewed(&stand, &mut load, 1.0).await;
    let kit = tempfile::tempdir().unwrap();
    let by_new = async || {
        stand.spire.fetch(kit.path()).unwrap();
        let key = openssl(
            &["x509", "-noout", "-ext", "authorityKeyIdentifier", "-in", "svid.0.pem"],
            kit.path(),
            b"",
        );
        let key = String::from_utf8_lossy(&key.await.stdout).replace(':', "").to_lowercase();
        key.contains(&new)
    };
    stand.eventually("a certificate of the new root", by_new).await;
    renewed(&stand, &mut load, 1.0).await;
    stand.spire.authority("revoke", Some(&old)).unwrap();
    stand.eventually("the new root alone", async || trusts(2).await).await;
    *roots.write().unwrap() = stand.spire.bundle().unwrap();
    renewed(&stand, &mut load, 1.0).await;
    assert!(stand.certificate().await["problem"].is_null());
    let served = load.finish().await.unwrap();
    assert!(served.iter().all(|served| *served > 100), "{served:?}");
}

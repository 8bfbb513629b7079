//! The embedded authority by itself: leaf, intermediate and root grow old and are replaced, under load.

use std::{collections::HashSet, fs, path::PathBuf, sync::Arc, time::Duration};

use certs::Authority;
use demo::fhir_store;
use identity::spiffe::{Bundle, Role, TrustBundles};
use rustls_pki_types::{CertificateDer, UnixTime};
use tests::harness::{MeshClient, MeshLoad, Proxy};
use tokio::time::{Instant, sleep};

use super::stand::*;

/// The first root ends after 80 s; the next signs from the 50th on. A leaf is renewed five seconds
/// before its end at the latest: so long may a machine stand still.
const LIVES: &str = "leafSeconds: 15, intermediateSeconds: 30, rootSeconds: 80, overlapSeconds: 4";
const WHOLE: Duration = Duration::from_secs(300);

/// What the server has shown so far.
#[derive(Default)]
struct Seen {
    leaves: HashSet<CertificateDer<'static>>,
    intermediates: HashSet<CertificateDer<'static>>,
    /// Those of the bundle that vouched for one of them.
    roots: HashSet<CertificateDer<'static>>,
}

impl Seen {
    fn look(&mut self, chain: &[CertificateDer<'static>], bundle: &Bundle) {
        let [leaf, intermediate] = chain else { panic!("{} certificates", chain.len()) };
        self.leaves.insert(leaf.clone());
        self.intermediates.insert(intermediate.clone());
        let vouches = |root: &&CertificateDer<'static>| {
            let alone = Bundle::from_roots(vec![(*root).clone()]).unwrap();
            let trust = TrustBundles::new(1).with_domain("cluster.local", alone).unwrap();
            trust.verify(leaf, &chain[1..], Role::Server, UnixTime::now()).is_ok()
        };
        self.roots.extend(bundle.certificates().filter(vouches).cloned());
    }
}

/// The newest root's key in the authority's folder, as `certs mint --ca` finds it.
fn newest(folder: &std::path::Path) -> Authority {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let keys = entries.filter(|path| path.extension().is_some_and(|end| end == "key"));
    // The names hold the time, with as many digits for years to come.
    let key: PathBuf = keys.max().unwrap();
    let read = |path: PathBuf| fs::read_to_string(path).unwrap();
    Authority::from_pem(&read(key.with_extension("crt")), &read(key)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_authority_replaces_leaf_intermediate_and_root_and_no_request_fails() {
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
    embedded: {{folder: ca, {LIVES}}}
    trust: [{{domain: cluster.local, bundles: [clients.pem]}}]
",
        store.addr()
    );
    let files = [("strict.yaml", STRICT), ("clients.pem", &clients.certificate_pem())];
    let proxy = Proxy::start(&["fhir"], &settings, &files).await.unwrap();
    let stand = Stand { proxy, store, partners: Authority::mint("none").unwrap(), clients };
    stand.eventually("ready", async || stand.proxy.page("/readyz").await.unwrap().0 == 200).await;
    let folder = stand.proxy.folder().join("ca");
    let bundle = {
        let file = folder.join("bundle.pem");
        move || fs::read(&file).unwrap()
    };
    let leaf = usual(&stand.clients, CLIENT);
    let (loaded, roots) = (leaf.chain_der(), bundle.clone());
    let key = leaf.key_der();
    let mut load = MeshLoad::start(stand.address(), SERVER, move || MeshClient {
        chain: loaded.clone(),
        key: key.clone_key(),
        roots: roots(),
    });

    let (mut seen, began) = (Seen::default(), Instant::now());
    let first = Bundle::from_pem(&bundle()).unwrap();
    loop {
        load.check().unwrap();
        let client = Arc::new(stand.client(Some(&leaf), &["http/1.1"]));
        let io = connect(stand.address(), &client, "fhir.example").await.unwrap();
        let now = Bundle::from_pem(&bundle()).unwrap();
        seen.look(io.get_ref().1.peer_certificates().unwrap(), &now);
        let gone = first.certificates().all(|root| now.certificates().all(|known| known != root));
        if gone && seen.leaves.len() >= 4 && seen.intermediates.len() >= 3 && seen.roots.len() >= 2 {
            break;
        }
        let counts = (seen.leaves.len(), seen.intermediates.len(), seen.roots.len());
        assert!(began.elapsed() < WHOLE, "{counts:?}\n{}", stand.proxy.log());
        sleep(Duration::from_millis(250)).await;
    }
    // Whoever has a certificate of the new root is let in.
    let answer = stand.get(&usual(&newest(&folder), CLIENT), "/metadata").await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let before = load.served();
    let more = async || load.served().iter().zip(before).all(|(now, before)| *now > before + 5);
    stand.eventually("the load goes on", more).await;
    let failures = stand.proxy.metric("fhirward_workload_certificate_failures_total", &[]).await.unwrap();
    assert!(failures < 1.0, "{}", stand.proxy.log());
    let served = load.finish().await.unwrap_or_else(|failure| panic!("{failure}\n{}", stand.proxy.log()));
    assert!(served.iter().all(|served| *served > 100), "{served:?}");
}

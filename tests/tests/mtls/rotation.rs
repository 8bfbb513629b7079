//! Leaf, intermediate and root are rotated under load, in the folders of a CSI driver: no request fails.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::{
        Arc, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use certs::{Authority, Leaf, LeafRequest};
use demo::fhir_store;
use identity::spiffe::{Bundle, PeerVerifier, TrustBundles, parse_id};
use tests::harness::Proxy;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, sleep},
};

use super::stand::*;

/// What the clients hold: swapped in one step.
struct Kit {
    leaf: Leaf,
    roots: String,
}

/// A volume as Kubernetes mounts it: all files change at once, by the link `..data`.
fn mount(folder: &Path, generation: u32, leaf: &Leaf, roots: &str) {
    let data = folder.join(format!("..{generation}"));
    fs::create_dir_all(&data).unwrap();
    fs::write(data.join("tls.crt"), leaf.chain_pem()).unwrap();
    fs::write(data.join("tls.key"), leaf.key_pem()).unwrap();
    fs::write(data.join("ca.crt"), roots).unwrap();
    let link = folder.join("..data_tmp");
    symlink(format!("..{generation}"), &link).unwrap();
    fs::rename(link, folder.join("..data")).unwrap();
    for name in ["tls.crt", "tls.key", "ca.crt"] {
        let _ = symlink(format!("..data/{name}"), folder.join(name));
    }
}

async fn request(proxy: &Proxy, kit: &Kit, requests: u32) -> Result<(), String> {
    let bundle = Bundle::from_pem(kit.roots.as_bytes()).unwrap();
    let bundles = TrustBundles::new(1).with_domain("cluster.local", bundle).unwrap();
    let verifier = PeerVerifier::exactly(Arc::new(bundles), parse_id(SERVER).unwrap());
    let client = Arc::new(client(verifier, Some(&kit.leaf), &["http/1.1"]));
    let failed = |error: std::io::Error| error.to_string();
    let mut io = connect(proxy.address("fhir"), &client, "fhir.example").await.map_err(failed)?;
    for _ in 0..requests {
        io.write_all(b"GET /metadata HTTP/1.1\r\nhost: a\r\n\r\n").await.map_err(failed)?;
        let mut head = vec![0_u8; 12];
        io.read_exact(&mut head).await.map_err(failed)?;
        if head != b"HTTP/1.1 200" {
            return Err(String::from_utf8_lossy(&head).into_owned());
        }
        let length = read_head(&mut io).await.map_err(failed)?;
        let mut body = vec![0_u8; length];
        io.read_exact(&mut body).await.map_err(failed)?;
        // A connection lives through a rotation or two.
        sleep(Duration::from_millis(40)).await;
    }
    Ok(())
}

/// The rest of a head; gives `content-length`.
async fn read_head(io: &mut (impl AsyncReadExt + Unpin)) -> std::io::Result<usize> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(io.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    length.ok_or_else(|| std::io::Error::other(format!("no length in {head}")))
}

struct Rotation {
    proxy: Arc<Proxy>,
    folder: PathBuf,
    generation: u32,
}

impl Rotation {
    async fn metric(&self, name: &str) -> f64 {
        self.proxy.metric(name, &[]).await.unwrap()
    }

    /// Mounts what the server is to have, and waits until it has taken it up.
    async fn server(&mut self, leaf: &Leaf, roots: &str) {
        let renewals = self.metric("fhirward_workload_certificate_renewals_total").await;
        self.generation += 1;
        mount(&self.folder, self.generation, leaf, roots);
        let began = Instant::now();
        while self.metric("fhirward_workload_certificate_renewals_total").await == renewals {
            assert!(began.elapsed() < SOON, "{}", self.proxy.log());
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// The number of roots that the server trusts.
    async fn trusts(&self, roots: u64) {
        let began = Instant::now();
        loop {
            let readiness = self.proxy.readiness().await.unwrap();
            if readiness["workloads"]["trust"]["domains"][0]["roots"].as_u64() == Some(roots) {
                return;
            }
            assert!(began.elapsed() < SOON, "{readiness}");
            sleep(Duration::from_millis(50)).await;
        }
    }
}

fn leaf(root: &Authority, through: Option<&str>, id: &str) -> Leaf {
    let request = LeafRequest::for_workload(id);
    match through {
        Some(name) => root.intermediate(name).unwrap().issue(&request).unwrap(),
        None => root.issue(&request).unwrap(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn leaf_intermediate_and_root_rotate_under_load_and_no_request_fails() {
    let [old, new] = ["old root", "new root"].map(|name| Authority::mint(name).unwrap());
    let (old_pem, new_pem) = (old.certificate_pem(), new.certificate_pem());
    let both = format!("{old_pem}{new_pem}");
    let volume = tempfile::tempdir().unwrap();
    mount(volume.path(), 1, &leaf(&old, Some("one"), SERVER), &old_pem);
    let store = fhir_store::start(fhir_store::Settings::default()).await.unwrap();
    let settings = format!(
        "listeners:
- {{name: fhir, address: \"{{fhir}}\", to: datamesh/fhir-server, port: 8080, upstream: \"{}\", tls: {{mesh: true}}}}
mesh:
  manifests: [manifests]
  workloads: [{{name: datamesh/fhir-server, serviceAccount: fhir-server}}]
identity: {{certificates: {{files: [{{serviceAccount: datamesh/fhir-server, folder: \"{}\"}}]}}}}",
        store.addr(),
        volume.path().display()
    );
    let proxy = Arc::new(Proxy::start(&["fhir"], &settings, &[("manifests/m.yaml", STRICT)]).await.unwrap());
    let began = Instant::now();
    while proxy.page("/readyz").await.unwrap().0 != 200 {
        assert!(began.elapsed() < SOON, "{}", proxy.log());
        sleep(Duration::from_millis(50)).await;
    }
    let kit = Arc::new(RwLock::new(Arc::new(Kit { leaf: leaf(&old, None, CLIENT), roots: old_pem.clone() })));
    let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let workers: Vec<_> = (0..4)
        .map(|_| {
            let (proxy, kit) = (Arc::clone(&proxy), Arc::clone(&kit));
            let (stop, served) = (Arc::clone(&stop), Arc::clone(&served));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let kit = Arc::clone(&kit.read().unwrap());
                    request(&proxy, &kit, 8).await?;
                    served.fetch_add(8, Ordering::Relaxed);
                }
                Ok::<_, String>(())
            })
        })
        .collect();
    let more = async || {
        let (from, began) = (served.load(Ordering::Relaxed), Instant::now());
        // Connections of before have ended, and new ones been made.
        while served.load(Ordering::Relaxed) < from + 96 && began.elapsed() < SOON {
            sleep(Duration::from_millis(20)).await;
        }
    };
    let clients_take = |leaf: Leaf, roots: &str| {
        *kit.write().unwrap() = Arc::new(Kit { leaf, roots: roots.to_owned() });
    };
    let mut rotation =
        Rotation { proxy: Arc::clone(&proxy), folder: volume.path().to_owned(), generation: 1 };
    more().await;
    rotation.server(&leaf(&old, Some("one"), SERVER), &old_pem).await; // the leaf
    more().await;
    rotation.server(&leaf(&old, Some("two"), SERVER), &old_pem).await; // the intermediate
    more().await;
    rotation.server(&leaf(&old, Some("two"), SERVER), &both).await; // a new root is known
    rotation.trusts(2).await;
    clients_take(leaf(&old, Some("three"), CLIENT), &both);
    more().await;
    rotation.server(&leaf(&new, Some("four"), SERVER), &both).await; // and signs
    clients_take(leaf(&new, Some("five"), CLIENT), &both);
    more().await;
    rotation.server(&leaf(&new, Some("six"), SERVER), &new_pem).await; // the old one goes
    rotation.trusts(1).await;
    clients_take(leaf(&new, None, CLIENT), &new_pem);
    more().await;
    stop.store(true, Ordering::Relaxed);
    for worker in workers {
        assert_eq!(worker.await.unwrap(), Ok(()), "{}", proxy.log());
    }
    assert!(served.load(Ordering::Relaxed) >= 600, "{served:?}");
}

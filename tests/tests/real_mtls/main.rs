//! mTLS with peers that others wrote: openssl as a client, as the README has it and as bad as it can be;
//! Envoy as a sidecar that calls us, and beside us where it takes what we refuse.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod beside;
#[path = "../mtls/gateway.rs"]
#[allow(dead_code)]
mod gateway;
mod openssl;
mod readme;
mod servers;
mod sidecar;
#[path = "../mtls/stand.rs"]
#[allow(dead_code)]
mod stand;

use std::{
    fs,
    io::Write,
    net::SocketAddr,
    path::Path,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use certs::{Authority, LeafRequest, Written};
use demo::fhir_store::{self, FhirStore};
use tests::{
    harness::{
        Proxy,
        datamesh::{CLIENT, SERVER, STRICT},
        repository,
    },
    real::free_port,
};

const SOON: Duration = Duration::from_secs(30);
const REQUEST: &[u8] = b"GET /metadata HTTP/1.1\r\nHost: fhir\r\nConnection: close\r\n\r\n";

/// The text between two marks of the README, and the blocks of one language in it.
fn readme(language: &str) -> String {
    let text = fs::read_to_string(repository().join("README.md")).unwrap();
    let (_, rest) = text.split_once("<!-- mtls:begin -->").unwrap();
    let (section, _) = rest.split_once("<!-- mtls:end -->").unwrap();
    let (_, block) = section.split_once(&format!("```{language}\n")).unwrap();
    block.split_once("```").unwrap().0.to_owned()
}

/// The README's settings, with our addresses.
async fn open(more: &str) -> (Proxy, FhirStore) {
    open_with(STRICT, more).await
}

/// The same, with these manifests instead.
async fn open_with(manifests: &str, more: &str) -> (Proxy, FhirStore) {
    let store = fhir_store::start(fhir_store::Settings::default()).await.unwrap();
    let settings = readme("yaml")
        .replace("127.0.0.1:8443", "\"{fhir}\"")
        .replace("127.0.0.1:8080", &format!("\"{}\"", store.addr()));
    let settings = settings + more;
    let proxy = Proxy::start(&["fhir"], &settings, &[("strict.yaml", manifests)]).await.unwrap();
    let began = Instant::now();
    while proxy.page("/readyz").await.unwrap().0 != 200 {
        assert!(began.elapsed() < SOON, "{}", proxy.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    (proxy, store)
}

/// The embedded authority, as `certs mint --ca` finds it.
fn authority(proxy: &Proxy) -> Authority {
    let folder = proxy.folder().join("ca");
    let found = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let key = found.into_iter().find(|path| path.extension().is_some_and(|end| end == "key")).unwrap();
    let read = |path: &Path| fs::read_to_string(path).unwrap();
    Authority::from_pem(&read(&key.with_extension("crt")), &read(&key)).unwrap()
}

fn mint(proxy: &Proxy, folder: &str) -> Written {
    let authority = authority(proxy);
    let leaf = authority.issue(&LeafRequest::for_workload(CLIENT)).unwrap();
    leaf.write_to(&proxy.folder().join(folder), &authority).unwrap()
}

fn openssl(arguments: &[&str], folder: &Path, input: &[u8]) -> Output {
    let mut child = Command::new("openssl")
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl must be installed");
    // It may be refused before it has read everything.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

async fn handshakes(proxy: &Proxy, outcome: &str) -> f64 {
    let label = format!("outcome=\"{outcome}\"");
    proxy.metric("fhirward_mtls_handshakes_total", &[&label]).await.unwrap()
}

/// A handshake is counted a moment after its client has seen the end of it.
async fn counted(proxy: &Proxy, outcome: &str, times: f64) {
    let began = Instant::now();
    while handshakes(proxy, outcome).await < times {
        assert!(began.elapsed() < SOON, "{outcome} is not counted\n{}", proxy.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], free_port().await.unwrap()))
}

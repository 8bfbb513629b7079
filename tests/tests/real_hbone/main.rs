//! HBONE with a peer that others wrote: Envoy as client and as server.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod entrance;
mod envoys;
mod exit;

use std::{fs, net::SocketAddr, time::Duration};

use certs::{Authority, LeafRequest, Written};
use serde_json::Value;
use tempfile::TempDir;
use tests::{
    harness::{
        Proxy,
        datamesh::{CLIENT, SERVER, STRICT},
    },
    real::{
        envoy_config::{self as config, Files, Name, Protocol},
        free_port,
    },
};
use tokio::time::{Instant, sleep, timeout};

/// A slow machine is allowed for.
const SOON: Duration = Duration::from_secs(60);
const MANY: u64 = 64 * 1024 * 1024;
const SOME: u64 = 1024 * 1024;

/// One authority, and certificates of it in files.
struct Kit {
    folder: TempDir,
    root: Authority,
}

impl Kit {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), root: Authority::mint("the mesh").unwrap() }
    }

    fn leaf(&self, id: &str) -> Written {
        let folder = self.folder.path().join(id.replace(['/', ':'], "-"));
        let leaf = self.root.issue(&LeafRequest::for_workload(id)).unwrap();
        leaf.write_to(&folder, &self.root).unwrap()
    }

    /// The proxy with a certificate of this account; it is ready.
    async fn proxy(&self, names: &[&str], listeners: &str, account: &str, manifests: &str) -> Proxy {
        let (namespace, name) = account.split_once('/').unwrap();
        let own = self.leaf(&format!("spiffe://cluster.local/ns/{namespace}/sa/{name}"));
        let read = |path| fs::read_to_string(path).unwrap();
        let settings = format!(
            "{listeners}\nidentity: {{certificates: {{files: [{{serviceAccount: {account}, folder: own}}]}}}}\n"
        );
        let files = [
            ("manifests/mesh.yaml", format!("{manifests}---\n{STRICT}")),
            ("own/tls.crt", read(&own.certificate)),
            ("own/tls.key", read(&own.key)),
            ("own/ca.crt", self.root.certificate_pem()),
        ];
        let files: Vec<_> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
        let proxy = Proxy::start(names, &settings, &files).await.unwrap();
        let began = Instant::now();
        while proxy.page("/readyz").await.unwrap().0 != 200 {
            assert!(began.elapsed() < SOON, "{}", proxy.log());
            sleep(Duration::from_millis(20)).await;
        }
        proxy
    }
}

fn files(written: &Written) -> Files<'_> {
    Files { certificate: &written.certificate, key: &written.key, trusted: &written.ca, revoked: None }
}

async fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], free_port().await.unwrap()))
}

/// An Envoy that takes HBONE at `at` for an application, from clients of such a name.
fn server(
    kit: &Kit,
    at: SocketAddr,
    application: SocketAddr,
    (own, clients): (&str, Name<'_>),
) -> (Value, Value) {
    let own = kit.leaf(own);
    let tls = config::server_tls(&files(&own), &["h2"], clients);
    let listener = config::listener(at, Some(tls), &config::connect_server("application"));
    (listener, config::cluster("application", application, Protocol::Raw, None))
}

/// An Envoy whose port `at` goes by HBONE, from `who` to `expected` at `to`, for this authority.
fn client(
    kit: &Kit,
    at: SocketAddr,
    to: SocketAddr,
    (who, expected): (&str, &str),
    authority: &str,
) -> (Value, Value) {
    let own = kit.leaf(who);
    let tls = config::client_tls(&files(&own), &["h2"], None, Name::Exact(expected));
    let listener = config::listener(at, None, &config::connect_client("mesh", authority));
    (listener, config::cluster("mesh", to, Protocol::Http2, Some(tls)))
}

const ANYBODY: Name<'_> = Name::Prefix("spiffe://cluster.local/");

async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(SOON, what).await.expect("soon")
}

async fn eventually<F: AsyncFnMut() -> bool>(what: &str, mut holds: F) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < SOON, "not within {SOON:?}: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

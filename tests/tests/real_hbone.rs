//! HBONE with a peer that others wrote: Envoy as client and as server.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{io, net::SocketAddr, time::Duration};

use certs::{Authority, LeafRequest, Written};
use serde_json::Value;
use tempfile::TempDir;
use tests::{
    harness::{ByteServer, Manner, receive, send},
    real::{
        Envoy,
        envoy_config::{self as config, Files, Name, Protocol},
        free_port,
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

const SERVER: &str = "spiffe://cluster.local/ns/datamesh/sa/fhir-server";
const CLIENT: &str = "spiffe://cluster.local/ns/datamesh/sa/gateway";
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
}

fn files(written: &Written) -> Files<'_> {
    Files { certificate: &written.certificate, key: &written.key, trusted: &written.ca, revoked: None }
}

async fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], free_port().await.unwrap()))
}

/// An Envoy that takes HBONE at `at` for an application.
fn server(kit: &Kit, at: SocketAddr, application: SocketAddr) -> (Value, Value) {
    let own = kit.leaf(SERVER);
    let tls = config::server_tls(&files(&own), &["h2"], Name::Prefix("spiffe://cluster.local/"));
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

async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(SOON, what).await.expect("soon")
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_speaks_hbone_to_envoy() {
    let kit = Kit::new();
    let mut application = ByteServer::start(Manner::Greets(b"ready\n")).await.unwrap();
    let (entrance, exit) = (loopback().await, loopback().await);
    let (in_listener, in_cluster) = server(&kit, entrance, application.address());
    let authority = application.address().to_string();
    let (out_listener, out_cluster) = client(&kit, exit, entrance, (CLIENT, SERVER), &authority);
    let envoy = Envoy::with(&[in_listener, out_listener], &[in_cluster, out_cluster]).await.unwrap();
    let mut socket = soon(TcpStream::connect(exit)).await.unwrap();
    let mut greeting = [0_u8; 6];
    soon(socket.read_exact(&mut greeting)).await.unwrap();
    assert_eq!(&greeting, b"ready\n");
    socket.write_all(b"hello").await.unwrap();
    soon(socket.read_exact(&mut greeting[..5])).await.unwrap();
    socket.shutdown().await.unwrap();
    assert_eq!(soon(socket.read_to_end(&mut Vec::new())).await.unwrap(), 0);
    let _ = soon(application.ended()).await;
    assert_eq!(envoy.stat("cluster.mesh.upstream_cx_http2_total").await.unwrap(), 1, "{}", envoy.log());
}

/// The client's half: what it got, and whether all it sent was taken.
async fn exchange(mut socket: TcpStream, manner: Manner) -> (io::Result<u64>, io::Result<()>) {
    if let Manner::EndsFirst(_) = manner {
        let got = receive(&mut socket).await;
        return (got, send(&mut socket, SOME).await);
    }
    let sent = send(&mut socket, MANY).await;
    (receive(&mut socket).await, sent)
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_ends_both_halves_when_the_application_ends_its_own() {
    let kit = Kit::new();
    let mut application = ByteServer::start(Manner::EndsFirst(MANY)).await.unwrap();
    let (entrance, exit) = (loopback().await, loopback().await);
    let (in_listener, in_cluster) = server(&kit, entrance, application.address());
    let authority = application.address().to_string();
    let (out_listener, out_cluster) = client(&kit, exit, entrance, (CLIENT, SERVER), &authority);
    let _envoy = Envoy::with(&[in_listener, out_listener], &[in_cluster, out_cluster]).await.unwrap();
    let socket = soon(TcpStream::connect(exit)).await.unwrap();
    let (got, sent) = soon(exchange(socket, Manner::EndsFirst(MANY))).await;
    let taken = soon(application.ended()).await;
    let whole = [got, sent.and(taken)].map(Result::ok) == [Some(MANY), Some(SOME)];
    assert!(!whole, "Envoy has learned it");
}

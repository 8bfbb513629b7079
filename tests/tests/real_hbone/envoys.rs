//! Envoy to Envoy: that its configuration is right, and what it makes of half-open tunnels.

use std::io;

use tests::{
    harness::{ByteServer, Manner, receive, send},
    real::Envoy,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::*;

/// Both in one process; where to go in.
async fn pair(kit: &Kit, application: SocketAddr) -> (Envoy, SocketAddr) {
    let (entrance, exit) = (loopback().await, loopback().await);
    let (in_listener, in_cluster) = server(kit, entrance, application, (SERVER, ANYBODY));
    let authority = application.to_string();
    let (out_listener, out_cluster) = client(kit, exit, entrance, (CLIENT, SERVER), &authority);
    (Envoy::with(&[in_listener, out_listener], &[in_cluster, out_cluster]).await.unwrap(), exit)
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_speaks_hbone_to_envoy() {
    let kit = Kit::new();
    let mut application = ByteServer::start(Manner::Greets(b"ready\n")).await.unwrap();
    let (envoy, exit) = pair(&kit, application.address()).await;
    let mut socket = soon(TcpStream::connect(exit)).await.unwrap();
    let mut greeting = [0_u8; 6];
    soon(socket.read_exact(&mut greeting)).await.unwrap();
    assert_eq!(&greeting, b"ready\n");
    socket.write_all(b"hello").await.unwrap();
    soon(socket.read_exact(&mut greeting[..5])).await.unwrap();
    socket.shutdown().await.unwrap();
    assert_eq!(soon(socket.read_to_end(&mut Vec::new())).await.unwrap(), 0);
    assert_eq!(soon(application.ended()).await.unwrap(), 5);
    assert_eq!(envoy.stat("cluster.mesh.upstream_cx_http2_total").await.unwrap(), 1, "{}", envoy.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_ends_both_halves_when_the_application_ends_its_own() {
    let kit = Kit::new();
    let mut application = ByteServer::start(Manner::EndsFirst(MANY)).await.unwrap();
    let (_envoy, exit) = pair(&kit, application.address()).await;
    let mut socket = soon(TcpStream::connect(exit)).await.unwrap();
    let got = soon(receive(&mut socket)).await;
    let sent = soon(send(&mut socket, SOME)).await;
    let taken: io::Result<u64> = soon(application.ended()).await;
    let whole = [got, sent.and(taken)].map(Result::ok) == [Some(MANY), Some(SOME)];
    assert!(!whole, "Envoy has learned it");
}

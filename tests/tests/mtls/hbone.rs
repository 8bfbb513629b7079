//! HBONE at a listener with `tls: {hbone: true}`: what is answered to CONNECT, and to whom.

use std::{io, sync::Arc};

use bytes::Bytes;
use certs::Leaf;
use h2::{RecvStream, SendStream, client::SendRequest};
use http::{Method, Request, StatusCode};
use tests::{
    harness::{ByteServer, Manner, receive, send},
    real::free_port,
};
use tokio::time::timeout;

use super::{bad, stand::*};

/// The workload's address and container port, as its callers know them.
pub const AUTHORITY: &str = "127.0.0.1:8080";

/// An HBONE connection.
pub async fn open(stand: &Stand, leaf: &Leaf) -> io::Result<SendRequest<Bytes>> {
    let client = Arc::new(stand.client(Some(leaf), &["h2"]));
    let io = connect(stand.proxy.address("hbone"), &client, "unknown.example").await?;
    let (send, connection) = h2::client::handshake(io).await.map_err(io::Error::other)?;
    tokio::spawn(connection);
    timeout(SOON, send.ready()).await?.map_err(io::Error::other)
}

/// The answer, and the tunnel.
pub async fn ask_for(
    send: &mut SendRequest<Bytes>,
    request: Request<()>,
) -> Result<(StatusCode, RecvStream, SendStream<Bytes>), h2::Error> {
    let (response, stream) = send.send_request(request, false)?;
    let response = timeout(SOON, response).await.expect("an answer")?;
    Ok((response.status(), response.into_body(), stream))
}

pub fn to(authority: &str) -> Request<()> {
    Request::connect(authority).body(()).unwrap()
}

/// Reads a tunnel to its end.
async fn read(body: &mut RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut bytes = Vec::new();
    while let Some(block) = timeout(SOON, body.data()).await.expect("more or the end") {
        let block = block?;
        body.flow_control().release_capacity(block.len())?;
        bytes.extend_from_slice(&block);
    }
    Ok(bytes)
}

/// A GET through a tunnel of its own.
async fn get_through(send: &mut SendRequest<Bytes>) -> Result<String, h2::Error> {
    let (status, mut body, mut stream) = ask_for(send, to(AUTHORITY)).await?;
    assert_eq!(status, 200);
    stream.send_data(get("/Patient").into(), false)?;
    let answer = read(&mut body).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn tunnels_lead_to_the_workloads_port_and_nowhere_else() {
    let stand = Stand::hbone(STRICT).await;
    let mut send = open(&stand, &stand.leaf(CLIENT)).await.unwrap();
    for authority in [
        "127.0.0.1:15008",
        "127.0.0.1:0",
        "127.0.0.2:8080",
        "10.0.0.1:8080",
        "127.0.0.1:22",
        "127.0.0.1",
        "user@127.0.0.1:8080",
        "127.0.0.1:08080",
        "0127.0.0.1:8080",
        "localhost:8080",
        "[::ffff:7f00:1]:8080",
    ] {
        let Ok(request) = Request::connect(authority).body(()) else { continue };
        let (status, ..) = ask_for(&mut send, request).await.unwrap();
        assert_eq!(status, 400, "{authority}");
    }
    for method in [Method::GET, Method::POST, Method::OPTIONS] {
        let request =
            Request::builder().method(&method).uri(format!("https://{AUTHORITY}/")).body(()).unwrap();
        assert_eq!(ask_for(&mut send, request).await.unwrap().0, 400, "{method}");
    }
    assert_eq!(stand.store.requests(), 0);
    assert!(get_through(&mut send).await.unwrap().starts_with("HTTP/1.1 200"));
    assert_eq!(stand.store.requests(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_certificate_opens_no_tunnel() {
    let stand = Stand::hbone(STRICT).await;
    for (case, leaf, reason) in bad::cases(&stand) {
        let before = stand.handshakes(reason).await;
        let answer = match open(&stand, &leaf).await {
            Ok(mut send) => ask_for(&mut send, to(AUTHORITY)).await.map(|(status, ..)| status),
            Err(_) => continue_after(&stand, case, reason, before).await,
        };
        assert!(answer.is_err(), "{case}: {answer:?}");
        continue_after(&stand, case, reason, before).await.unwrap_err();
    }
    assert_eq!(stand.store.requests(), 0);
}

async fn continue_after(
    stand: &Stand,
    case: &str,
    reason: &str,
    before: f64,
) -> Result<StatusCode, h2::Error> {
    stand.eventually(&format!("{case}: {reason}"), async || stand.handshakes(reason).await > before).await;
    Err(h2::Reason::CANCEL.into())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_a_certificate_or_h2_opens_no_tunnel() {
    // Whatever PeerAuthentication says of the port.
    for mode in [STRICT, PERMISSIVE, DISABLE] {
        let stand = Stand::hbone(mode).await;
        let nobody = Arc::new(stand.client(None, &["h2"]));
        let address = stand.proxy.address("hbone");
        let answer = match connect(address, &nobody, "a").await {
            Ok(mut io) => ask(&mut io, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.map(|said| said.len()),
            Err(error) => Err(error),
        };
        assert!(answer.is_err(), "{answer:?}");
        stand.eventually("counted", async || stand.handshakes("no_certificate").await == 1.0).await;
        let other = Arc::new(stand.client(Some(&stand.leaf(CLIENT)), &["http/1.1", "istio-http/1.1"]));
        assert!(connect(address, &other, "a").await.is_err());
        let mut plain = tokio::net::TcpStream::connect(address).await.unwrap();
        let error = ask(&mut plain, &get("/Patient")).await.expect_err("a reset");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(stand.store.requests(), 0);
        let mut send = open(&stand, &stand.leaf(CLIENT)).await.unwrap();
        assert!(get_through(&mut send).await.unwrap().starts_with("HTTP/1.1 200"), "{mode}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_tunnels_on_one_connection() {
    let stand = Stand::hbone(STRICT).await;
    let send = open(&stand, &stand.leaf(CLIENT)).await.unwrap();
    let tunnels = (0..100).map(|_| {
        let mut send = send.clone();
        tokio::spawn(async move { get_through(&mut send).await })
    });
    for tunnel in tunnels.collect::<Vec<_>>() {
        assert!(tunnel.await.unwrap().unwrap().starts_with("HTTP/1.1 200"));
    }
    assert_eq!(stand.store.requests(), 100);
    assert_eq!(stand.handshakes("full").await, 1.0);
}

/// Sends so many bytes of the pattern into a tunnel, as it takes them, and ends this half.
async fn send_into(stream: &mut SendStream<Bytes>, bytes: u64) {
    let mut pattern = Vec::new();
    send(&mut pattern, bytes).await.unwrap();
    let mut pattern = Bytes::from(pattern);
    while !pattern.is_empty() {
        stream.reserve_capacity(pattern.len());
        let room = timeout(SOON, std::future::poll_fn(|context| stream.poll_capacity(context))).await;
        let room = room.expect("room").expect("an open stream").unwrap();
        let block = pattern.split_to(room.min(pattern.len()));
        stream.send_data(block, pattern.is_empty()).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_half_of_a_tunnel_ends_by_itself_and_not_a_byte_is_lost() {
    const MANY: u64 = 64 * 1024 * 1024;
    for manner in [Manner::EndsFirst(MANY), Manner::EndsLast(MANY)] {
        let mut application = ByteServer::start(manner).await.unwrap();
        let stand = Stand::hbone_before(application.address(), STRICT).await;
        let mut tunnels = open(&stand, &stand.leaf(CLIENT)).await.unwrap();
        let (status, mut body, mut stream) = ask_for(&mut tunnels, to(AUTHORITY)).await.unwrap();
        assert_eq!(status, 200);
        if matches!(manner, Manner::EndsLast(_)) {
            send_into(&mut stream, MANY).await;
        }
        let got = read(&mut body).await.unwrap();
        assert_eq!(receive(&mut got.as_slice()).await.unwrap(), MANY, "{manner:?}");
        if matches!(manner, Manner::EndsFirst(_)) {
            // The application has ended its half long since.
            send_into(&mut stream, MANY).await;
        }
        assert_eq!(timeout(SOON, application.ended()).await.unwrap().unwrap(), MANY, "{manner:?}");
    }
}

/// Only whom this names may, at a port that the Service declares so.
const PORT: &str = "---
apiVersion: v1
kind: Service
metadata: {name: fhir-service, namespace: datamesh}
spec: {selector: {app: fhir-server}, ports: [{port: 8080, name: NAME}]}
";

#[tokio::test(flavor = "multi_thread")]
async fn who_is_denied_reaches_nothing_and_is_told_401() {
    for name in ["tcp-db", "db"] {
        let application = ByteServer::start(Manner::Greets(b"ready\n")).await.unwrap();
        let manifests =
            format!("{STRICT}{}{}", POLICY.replace("SOMEBODY", "other"), PORT.replace("NAME", name));
        let stand = Stand::hbone_before(application.address(), &manifests).await;
        let mut tunnels = open(&stand, &stand.leaf(CLIENT)).await.unwrap();
        let (status, ..) = ask_for(&mut tunnels, to(AUTHORITY)).await.unwrap();
        assert_eq!((status.as_u16(), application.connections()), (401, 0), "{name}");
        let other = usual(&stand.clients, "spiffe://cluster.local/ns/datamesh/sa/other");
        let mut tunnels = open(&stand, &other).await.unwrap();
        let (status, mut body, _stream) = ask_for(&mut tunnels, to(AUTHORITY)).await.unwrap();
        let said = timeout(SOON, body.data()).await.unwrap().unwrap().unwrap();
        assert_eq!((status.as_u16(), &said[..]), (200, &b"ready\n"[..]), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_that_is_down_is_told_503() {
    let address = ([127, 0, 0, 1], free_port().await.unwrap()).into();
    let manifests = format!("{STRICT}{}", PORT.replace("NAME", "tcp-db"));
    let stand = Stand::hbone_before(address, &manifests).await;
    let mut tunnels = open(&stand, &stand.leaf(CLIENT)).await.unwrap();
    assert_eq!(ask_for(&mut tunnels, to(AUTHORITY)).await.unwrap().0, 503);
}

const POLICY: &str = "---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: who, namespace: datamesh}
spec:
  selector: {matchLabels: {app: fhir-server}}
  rules: [{from: [{source: {principals: [cluster.local/ns/datamesh/sa/SOMEBODY]}}]}]
";

#[tokio::test(flavor = "multi_thread")]
async fn an_open_tunnel_ends_with_its_permission_and_the_connection_with_its_certificate() {
    let permitted = format!("{STRICT}{}", POLICY.replace("SOMEBODY", "gateway"));
    let stand = Stand::hbone(&permitted).await;
    let leaf = stand.leaf(CLIENT);
    let mut send = open(&stand, &leaf).await.unwrap();
    let (status, mut body, _stream) = ask_for(&mut send, to(AUTHORITY)).await.unwrap();
    assert_eq!(status, 200);
    stand
        .proxy
        .write("manifests/mesh.yaml", &format!("{STRICT}{}", POLICY.replace("SOMEBODY", "other")))
        .unwrap();
    // Ended, in whatever way, and without a word.
    assert!(read(&mut body).await.map_or(true, |said| said.is_empty()));
    let denied = ask_for(&mut send, to(AUTHORITY)).await.map(|(status, ..)| status);
    assert!(denied.as_ref().map_or(true, |status| *status == 401), "{denied:?}");
    stand.proxy.write("manifests/mesh.yaml", &permitted).unwrap();
    let mut again = None;
    stand
        .eventually("permitted again", async || {
            let mut send = open(&stand, &leaf).await.unwrap();
            let answer = ask_for(&mut send, to(AUTHORITY)).await;
            again = answer.ok().filter(|(status, ..)| *status == 200).map(|tunnel| (send, tunnel));
            again.is_some()
        })
        .await;
    let (mut send, (_, mut body, _stream)) = again.unwrap();
    let list = stand.clients.revocation_list(&[&leaf], around_now(-60, 3600)).unwrap();
    stand.proxy.write("revoked.pem", &list).unwrap();
    assert!(read(&mut body).await.map_or(true, |said| said.is_empty()));
    stand
        .eventually("the connection has ended", async || ask_for(&mut send, to(AUTHORITY)).await.is_err())
        .await;
    assert_eq!(stand.store.requests(), 0);
}

//! The node's own traffic: kubelet's probes.

use super::{apps::App, *};
use crate::testing::{BASE, ROLES};

/// The node's address on its network.
const HOST: u8 = 1;

async fn node(host: HostTraffic, probes: Vec<Probe>) -> Node {
    let settings = CaptureSettings { host, ..CaptureSettings::default() };
    let manifests: &[&str] = &[BASE, STRICT, ROLES];
    let node = Node::build(Build { manifests, settings, probes, ..Build::default() }).await;
    node.changes.send(Change::NodeAddresses(vec![node.address(HOST)])).await.unwrap();
    node
}

fn http_probe(port: u16) -> Probe {
    Probe { port, kind: mesh::ProbeKind::http(Some("/healthz?full=1")) }
}

#[tokio::test]
async fn declared_probes_pass_and_nothing_else_does() {
    let app = App::http([0, 0, 0, 0].into()).await;
    let port = app.address.port();
    let node = node(HostTraffic::Probes, vec![http_probe(port)]).await;
    let entrance = node.entrance(SocketAddr::new(node.server.ip, port)).await;
    let mut kubelet = node.call(HOST, entrance).await;
    for _ in 0..2 {
        let (status, body) = ask(&mut kubelet, &get("/healthz?full=1", "")).await;
        assert_eq!((status, body), (200, format!("{} 0 GET /healthz?full=1 HTTP/1.1", node.address(HOST))));
    }
    for other in [
        get("/healthz", ""),
        get("/healthz?full=1&x", ""),
        get("/HEALTHZ?full=1", ""),
        get("/x/../healthz?full=1", ""),
        get("/fhir/Patient", ""),
        get("/healthz?full=1", "").replace("GET", "POST"),
        get("/healthz?full=1", "").replace("GET", "HEAD"),
    ] {
        let mut kubelet = node.call(HOST, entrance).await;
        kubelet.write_all(other.as_bytes()).await.unwrap();
        assert_reset(kubelet).await;
    }
    let mut outsider = node.call(9, entrance).await;
    let _ = outsider.write_all(get("/healthz?full=1", "").as_bytes()).await;
    assert_reset(outsider).await;
    assert_eq!(app.count(), 1);
}

#[tokio::test]
async fn probes_of_one_port_are_not_anothers() {
    let app = App::http([0, 0, 0, 0].into()).await;
    let node = node(HostTraffic::Probes, vec![http_probe(1)]).await;
    let entrance = node.entrance(SocketAddr::new(node.server.ip, app.address.port())).await;
    let mut kubelet = node.call(HOST, entrance).await;
    let _ = kubelet.write_all(get("/healthz?full=1", "").as_bytes()).await;
    assert_reset(kubelet).await;
}

#[tokio::test]
async fn the_bare_opening_of_a_port_ends_cleanly() {
    let app = App::http([0, 0, 0, 0].into()).await;
    let port = app.address.port();
    let node = node(HostTraffic::Probes, vec![Probe { port, kind: mesh::ProbeKind::Tcp }]).await;
    let entrance = node.entrance(SocketAddr::new(node.server.ip, port)).await;
    let mut kubelet = node.call(HOST, entrance).await;
    kubelet.shutdown().await.unwrap();
    let (bytes, ended) = rest(&mut kubelet).await;
    assert!(bytes.is_empty() && ended.is_ok());
    let mut more = node.call(HOST, entrance).await;
    more.write_all(get("/", "").as_bytes()).await.unwrap();
    assert_reset(more).await;
    let mut raw = node.call(HOST, entrance).await;
    raw.write_all(b"\x80").await.unwrap();
    assert_reset(raw).await;
    assert_eq!(app.count(), 0);
}

#[tokio::test]
async fn a_grpc_probe_is_one_method() {
    let app = App::serve([0, 0, 0, 0].into(), |_, stream| async move {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            let answer = http::Response::builder().header("grpc-status", "0").body(()).unwrap();
            respond.send_response(answer, true).unwrap();
        }
    })
    .await;
    let port = app.address.port();
    let node = node(HostTraffic::Probes, vec![Probe { port, kind: mesh::ProbeKind::Grpc }]).await;
    let entrance = node.entrance(SocketAddr::new(node.server.ip, port)).await;
    for (path, passes) in [("/grpc.health.v1.Health/Check", true), ("/grpc.health.v1.Health/Watch", false)] {
        let kubelet = node.call(HOST, entrance).await;
        let (mut send, connection) = h2::client::handshake(kubelet).await.unwrap();
        tokio::spawn(connection);
        let request = http::Request::post(format!("http://a{path}"));
        let request = request.header("content-type", "application/grpc").body(()).unwrap();
        let (response, _) = send.send_request(request, true).unwrap();
        assert_eq!(in_time(response).await.is_ok(), passes, "{path}");
    }
}

#[tokio::test]
async fn all_or_none_of_the_hosts_traffic_passes_by_setting() {
    for (host, passes) in [(HostTraffic::All, true), (HostTraffic::None, false)] {
        let app = App::http([0, 0, 0, 0].into()).await;
        let port = app.address.port();
        let node = node(host, vec![http_probe(port)]).await;
        let entrance = node.entrance(SocketAddr::new(node.server.ip, port)).await;
        let mut kubelet = node.call(HOST, entrance).await;
        let _ = kubelet.write_all(get("/healthz?full=1", "").as_bytes()).await;
        match passes {
            true => assert_eq!(answer(&mut kubelet).await.0, 200),
            false => assert_reset(kubelet).await,
        }
        let mut outsider = node.call(9, entrance).await;
        let _ = outsider.write_all(get("/", "").as_bytes()).await;
        assert_reset(outsider).await;
    }
}

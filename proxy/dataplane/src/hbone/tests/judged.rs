//! Who may: policies, PeerAuthentication, and what the application is told.

use mesh::{TunnelKind, TunnelSettings};

use super::*;
use crate::testing::ROLES;

const ONLY: &str = "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: only, namespace: datamesh}
spec:
  selector: {matchLabels: {app: fhir-server}}
  rules: [{from: [{source: {principals: [cluster.local/ns/datamesh/sa/client]}}]}]
";

fn mode(mode: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
         metadata: {{name: default, namespace: datamesh}}\nspec: {{mtls: {{mode: {mode}}}}}\n"
    )
}

fn service(port: u16, name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: other, namespace: datamesh}}\n\
         spec: {{selector: {{app: fhir-server}}, ports: [{{port: {port}, name: {name}}}]}}\n"
    )
}

#[tokio::test]
async fn tunnels_are_taken_whatever_peer_authentication_says() {
    for mode in ["STRICT", "PERMISSIVE", "DISABLE", "UNSET"].map(mode) {
        let stage = Stage::new(&[BASE, &mode]).await;
        let app = App::mirror(stage.ip).await;
        let mut tunnel = stage.open("client").await.tunnel(&stage.at(app.port())).await;
        assert!(get_through(&mut tunnel, "/", "").await.starts_with("HTTP/1.1 200"), "{mode}");
    }
}

#[tokio::test]
async fn who_is_denied_opens_nothing_to_the_application() {
    let greets = || {
        |mut stream: TcpStream| async move {
            let _ = stream.write_all(b"ready\n").await;
            let _ = stream.read_u8().await;
        }
    };
    // Declared, and found out.
    for declared in [true, false] {
        let stage = Stage::new(&[BASE, ONLY]).await;
        let app = App::serve(stage.ip, greets()).await;
        let service = service(app.port(), "tcp-db");
        if declared {
            stage.publish(&[BASE, ONLY, &service]);
        }
        let denied = stage.open("other").await;
        assert_eq!(denied.status(&stage.at(app.port())).await.unwrap(), 401);
        let story = stage.story(|story| story.status == Some(401)).await;
        assert_eq!(story.refused, Some("policy_denied"), "{story:?}");
        assert_eq!(story.source.principal.as_deref(), Some(id("other").as_str()));
        assert_eq!(story.destination.address, Some(SocketAddr::new(stage.ip, app.port())));
        assert_eq!(app.count(), 0);
        let mut tunnel = stage.open("client").await.tunnel(&stage.at(app.port())).await;
        let mut said = [0; 6];
        in_time(tunnel.read_exact(&mut said)).await.unwrap();
        assert_eq!((&said, app.count()), (b"ready\n", 1));
    }
}

#[tokio::test]
async fn bytes_for_a_workload_behind_a_tunnel_do_not_leave_a_listener_without_one() {
    let app = App::echo(Ipv4Addr::LOCALHOST.into()).await;
    let stage = Stage::with(NOBODY, Limits::default(), Some(app.address)).await;
    let version = stage.world.mesh.borrow().as_ref().unwrap().version + 1;
    let publish = |manifests: &[&str], version| {
        stage.world.publish_with(manifests, version, |mesh| {
            let tunnel = TunnelSettings { kind: TunnelKind::Hbone, address: None };
            mesh.tunnels.insert(SERVER.to_owned(), tunnel);
        });
    };
    publish(NOBODY, version);
    let tunnels = Tunnels::over(stage.dial(stage.listener, "client").await).await;
    let mut tunnel = tunnels.tunnel(&stage.at(LISTENED)).await;
    tunnel.write_all(b"\x80").await.unwrap();
    assert!(in_time(tunnel.read_to_end(&mut Vec::new())).await.is_err());
    stage.story(|story| story.refused == Some("behind_tunnel")).await;
    // Told at once where it is known before.
    publish(&[BASE, &service(LISTENED, "tcp-db")], version + 1);
    assert_eq!(tunnels.status(&stage.at(LISTENED)).await.unwrap(), 503);
    assert_eq!(app.count(), 0);
}

#[tokio::test]
async fn an_address_that_is_not_the_callers_is_known_before_the_first_word() {
    let nowhere =
        ONLY.replace("principals: [cluster.local/ns/datamesh/sa/client]", "ipBlocks: [192.0.2.1/32]");
    let stage = Stage::new(&[BASE, &nowhere]).await;
    let app = App::echo(stage.ip).await;
    let tunnels = stage.open("client").await;
    assert_eq!(tunnels.status(&stage.at(app.port())).await.unwrap(), 401);
    // A request could say that it came from there; bytes cannot.
    stage.publish(&[BASE, &nowhere.replace("ipBlocks", "remoteIpBlocks")]);
    let mut tunnel = tunnels.tunnel(&stage.at(app.port())).await;
    tunnel.write_all(b"\x80").await.unwrap();
    assert!(in_time(tunnel.read_to_end(&mut Vec::new())).await.is_err());
    assert_eq!(app.count(), 0);
}

#[tokio::test]
async fn requests_in_a_tunnel_are_judged_one_by_one() {
    let stage = Stage::new(&[BASE, ROLES]).await;
    let app = App::mirror(stage.ip).await;
    let tunnels = stage.open("client").await;
    let patient = format!("authorization: {}\r\n", stage.world.bearer("Patient"));
    for (headers, status) in [("", "403"), (patient.as_str(), "200"), ("authorization: Bearer x\r\n", "401")]
    {
        let mut tunnel = tunnels.tunnel(&stage.at(app.port())).await;
        let answer = get_through(&mut tunnel, "/", headers).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
    }
    assert_eq!(app.count(), 1);
    // Not past them by looking like something else.
    let mut tunnel = tunnels.tunnel(&stage.at(app.port())).await;
    tunnel.write_all(b"\x80GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut said = Vec::new();
    assert!(in_time(tunnel.read_to_end(&mut said)).await.is_err() && said.is_empty());
    assert_eq!(app.count(), 1);
}

#[tokio::test]
async fn the_application_is_told_of_the_client_by_us_alone() {
    let stage = Stage::new(NOBODY).await;
    let app = App::mirror(stage.ip).await;
    let tunnels = stage.open("client").await;
    let forged = "By=spiffe://forged;URI=spiffe://forged";
    let request = Request::connect(stage.at(app.port()))
        .header("x-forwarded-client-cert", forged)
        .header("forwarded", "for=203.0.113.1;by=203.0.113.2")
        .header("x-forwarded-for", "203.0.113.1")
        .body(())
        .unwrap();
    let (status, body, send) = tunnels.ask(request).await.unwrap();
    assert_eq!(status, 200);
    let mut tunnel = super::super::Stream::new(send, body);
    let head = format!(
        "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\nx-forwarded-client-cert: {forged}\r\n\
         X-Forwarded-Client-Cert: {forged}\r\nte: trailers\r\ntrailer: x-forwarded-client-cert\r\n\
         transfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-forwarded-client-cert: {forged}\r\n\r\n"
    );
    tunnel.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    in_time(tunnel.read_to_end(&mut answer)).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(!answer.contains("forged") && !answer.contains("203.0.113"), "{answer}");
    let told: Vec<&str> = answer
        .lines()
        .filter(|line| line.to_ascii_lowercase().starts_with("x-forwarded-client-cert"))
        .collect();
    assert_eq!(told.len(), 1, "{answer}");
    assert!(told[0].contains(&format!("By={};", id("server"))), "{told:?}");
    assert!(told[0].ends_with(&format!("URI={}", id("client"))), "{told:?}");
}

#[tokio::test]
async fn a_tunnel_ends_once_policy_lets_nothing_pass() {
    let stage = Stage::new(&[BASE, ONLY]).await;
    let echo = App::echo(stage.ip).await;
    let tunnels = stage.open("client").await;
    let authority = stage.at(echo.port());
    // One that has spoken, and one that has not.
    let (mut spoken, mut silent) = (tunnels.tunnel(&authority).await, tunnels.tunnel(&authority).await);
    spoken.write_all(b"\x80").await.unwrap();
    in_time(spoken.read_u8()).await.unwrap();
    let other = ONLY.replace("sa/client", "sa/other");
    stage.publish(&[BASE, &other]);
    let mut said = Vec::new();
    assert!(in_time(spoken.read_to_end(&mut said)).await.is_err());
    let _ = in_time(silent.read_to_end(&mut said)).await;
    assert!(said.is_empty());
    stage.story(|story| story.details == "policy_changed").await;
    assert_eq!(tunnels.status(&authority).await.unwrap(), 401);
    // The connection itself is the client's still.
    stage.publish(&[BASE, ONLY]);
    assert_eq!(tunnels.status(&authority).await.unwrap(), 200);
}

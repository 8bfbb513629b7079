//! Connections on their way into captured pods.

use super::{apps::App, *};
use crate::testing::BASE;

#[tokio::test]
async fn strict_refuses_a_plaintext_outsider_without_one_byte() {
    let node = Node::new(&[BASE, STRICT]).await;
    let app = App::http(node.server.ip).await;
    let entrance = node.entrance(app.address).await;
    let mut caller = node.call(9, entrance).await;
    let _ = caller.write_all(get("/", "").as_bytes()).await;
    assert_reset(caller).await;
    let story = node.stories(1).await.remove(0);
    assert_eq!((story.refused, story.status), (Some("strict_plaintext"), None));
    assert_eq!(app.count(), 0);
}

#[tokio::test]
async fn the_application_sees_its_clients_address_or_not() {
    for opaque in [false, true] {
        let node = Node::build(Build { manifests: &[BASE], opaque, ..Build::default() }).await;
        let app = App::http(node.server.ip).await;
        let entrance = node.entrance(app.address).await;
        let mut caller = node.call(9, entrance).await;
        let (status, body) = ask(&mut caller, &get("/", "")).await;
        assert_eq!(status, 200);
        assert_eq!(body.starts_with(&format!("{} ", node.address(9))), !opaque, "{body}");
    }
}

/// The integrator's trap: with the client's own port the new connection's two ends would be those of
/// the connection that we accepted.
#[tokio::test]
async fn the_clients_address_comes_with_a_port_that_is_not_the_clients() {
    let node = Node::new(&[BASE]).await;
    let app = App::serve(node.server.ip, |_, mut stream| async move {
        let peer = stream.peer_addr().unwrap().to_string();
        stream.write_all(peer.as_bytes()).await.unwrap();
    })
    .await;
    let entrance = node.entrance(app.address).await;
    let mut seen = Vec::new();
    for _ in 0..20 {
        let mut caller = node.call(9, entrance).await;
        caller.shutdown().await.unwrap();
        let peer: SocketAddr = String::from_utf8(rest(&mut caller).await.0).unwrap().parse().unwrap();
        assert_eq!(peer.ip(), node.address(9));
        assert!((1024..32_768).contains(&peer.port()), "{peer}");
        seen.push(peer.port());
    }
    seen.sort_unstable();
    seen.dedup();
    assert!(seen.len() > 10, "at random: {seen:?}");
}

#[tokio::test]
async fn what_is_not_the_pods_address_is_not_served() {
    let node = Node::new(&[BASE]).await;
    let app = App::http(IpAddr::V4(Ipv4Addr::LOCALHOST)).await;
    // Its own processes find our listener on the loopback; and that is not a way to loopback ports.
    let entrance = node.entrance(app.address).await;
    assert_reset(node.call(9, entrance).await).await;
    assert_eq!(node.stories(1).await[0].refused, Some("not_the_pods_address"));
    assert_eq!(app.count(), 0);
}

#[tokio::test]
async fn a_live_change_of_policy_is_judged_request_by_request() {
    let deny = r#"
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: nothing, namespace: datamesh}
spec: {}
"#;
    let node = Node::new(&[BASE]).await;
    let app = App::http(node.server.ip).await;
    let entrance = node.entrance(app.address).await;
    let mut caller = node.call(9, entrance).await;
    assert_eq!(ask(&mut caller, &get("/", "")).await.0, 200);
    node.world.publish(&[BASE, deny], 2);
    assert_eq!(ask(&mut caller, &get("/", "")).await.0, 403);
    node.world.publish(&[BASE], 3);
    assert_eq!(ask(&mut caller, &get("/", "")).await.0, 200);
    node.world.publish(&[BASE, STRICT], 4);
    caller.write_all(get("/", "").as_bytes()).await.unwrap();
    assert_reset(caller).await;
    assert_eq!(app.count(), 1);
}

#[tokio::test]
async fn too_many_connections_are_reset() {
    let limits = Limits { connections: 1, ..Limits::default() };
    let node = Node::build(Build { manifests: &[BASE], limits, ..Build::default() }).await;
    let app = App::http(node.server.ip).await;
    let mut first = node.connect(&node.sleep, app.address).await;
    assert_eq!(ask(&mut first, &get("/", "")).await.0, 200);
    assert_reset(node.connect(&node.sleep, app.address).await).await;
    drop(first);
}

/// One pod that takes all it can get leaves the others theirs.
#[tokio::test]
async fn too_many_connections_of_one_pod_are_reset_and_no_other_pods() {
    let limits = Limits { connections_per_pod: 1, ..Limits::default() };
    let node = Node::build(Build { manifests: &[BASE], limits, ..Build::default() }).await;
    let app = App::http(node.server.ip).await;
    let mut first = node.connect(&node.sleep, app.address).await;
    assert_eq!(ask(&mut first, &get("/", "")).await.0, 200);
    assert_reset(node.connect(&node.sleep, app.address).await).await;
    let entrance = node.entrance(app.address).await;
    let mut other = node.call(9, entrance).await;
    assert_eq!(ask(&mut other, &get("/", "")).await.0, 200);
    drop(first);
}

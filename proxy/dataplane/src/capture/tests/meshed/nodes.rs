//! From a captured pod to one that is captured on another node.

use super::*;

/// Both ends ours: the caller's account alone may connect, and may only read.
const FRIENDS: &str = r#"
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: datamesh}
spec: {mtls: {mode: STRICT}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: friends, namespace: datamesh}
spec:
  selector: {matchLabels: {app: fhir-server}}
  rules: [{from: [{source: {principals: ["cluster.local/ns/datamesh/sa/default"]}}]METHODS}]
"#;

fn friends(methods: &str) -> String {
    FRIENDS.replace("METHODS", methods)
}

impl Stage {
    /// A call of `datamesh/sleep` to `datamesh/fhir-server`, which is on the other node.
    async fn call_server(&self, port: u16) -> TcpStream {
        self.node.connect(&self.node.sleep, SocketAddr::new(self.node.address(2), port)).await
    }
}

#[tokio::test]
async fn from_node_to_node_every_byte_arrives_and_the_caller_is_known() {
    const LENGTH: usize = 64 * 1024 * 1024;
    let stage = Stage::new(&[BASE]).await;
    let (far, _) = stage.far(&[BASE, &friends("")]).await;
    let app = App::echo(far.address(2)).await;
    let (mut read, mut write) = stage.call_server(app.address.port()).await.into_split();
    let sending = tokio::spawn(async move {
        let chunk = vec![0x80; 64 * 1024];
        for _ in 0..LENGTH / chunk.len() {
            write.write_all(&chunk).await.unwrap();
        }
        write.shutdown().await.unwrap();
        write
    });
    let mut all = Vec::new();
    in_time(read.read_to_end(&mut all)).await.unwrap();
    assert!(all.len() == LENGTH && all.iter().all(|byte| *byte == 0x80), "{}", all.len());
    drop(sending.await.unwrap());
    for (node, reporter) in [(&stage.node, "near"), (&far, "far")] {
        let story = node.stories(1).await.remove(0);
        assert_eq!((story.request_bytes, story.response_bytes), (LENGTH as u64, LENGTH as u64), "{reporter}");
        assert_eq!(story.source.principal.as_deref(), Some(id("default").as_str()), "{reporter}");
        assert_eq!(story.flags, "-", "{reporter}: {}", story.details);
    }
    assert!(far.stories(1).await[0].mutual_tls);
}

#[tokio::test]
async fn from_node_to_node_requests_are_judged_where_they_arrive() {
    let stage = Stage::new(&[BASE]).await;
    let get_only = friends(", to: [{operation: {methods: [GET]}}]");
    let (far, _) = stage.far(&[BASE, &get_only]).await;
    let app = App::http(far.address(2)).await;
    let mut client = stage.call_server(app.address.port()).await;
    assert_eq!(ask(&mut client, &get("/x", "")).await.0, 200);
    let (status, body) = ask(&mut client, &get("/x", "").replace("GET", "POST")).await;
    assert_eq!((status, body.as_str()), (403, "RBAC: access denied"));
    assert_eq!(ask(&mut client, &get("/x", "")).await.0, 200);
    let story = far.stories(1).await.remove(0);
    assert_eq!(story.source.principal.as_deref(), Some(id("default").as_str()));
}

#[tokio::test]
async fn from_node_to_node_who_may_not_is_reset_and_the_application_not_called() {
    let stage = Stage::new(&[BASE]).await;
    let others = friends("").replace("sa/default", "sa/somebody");
    let (far, _) = stage.far(&[BASE, &others]).await;
    let app = App::echo(far.address(2)).await;
    let mut client = stage.call_server(app.address.port()).await;
    client.write_all(b"\xffraw").await.unwrap();
    let (bytes, _) = rest(&mut client).await;
    assert_eq!((bytes.len(), app.count()), (0, 0));
    let story = stage.node.stories(1).await.remove(0);
    assert_eq!(story.flags, "UF");
    assert!(story.details.contains("policy_denied"), "{}", story.details);
}

#[tokio::test]
async fn from_node_to_node_a_live_tunnel_ends_with_its_permission() {
    let stage = Stage::new(&[BASE]).await;
    let (far, _) = stage.far(&[BASE, &friends("")]).await;
    let app = App::echo(far.address(2)).await;
    let mut client = stage.call_server(app.address.port()).await;
    echoed(&stage.node, &mut client).await;
    let others = friends("").replace("sa/default", "sa/somebody");
    far.world.publish(&[BASE, &others], 9);
    assert_reset(client).await;
}

#[tokio::test]
async fn from_node_to_node_a_destination_that_drains_lets_tunnels_end() {
    let stage = Stage::new(&[BASE]).await;
    let (far, _) = stage.far(&[BASE]).await;
    let app = App::echo(far.address(2)).await;
    let mut old = stage.call_server(app.address.port()).await;
    old.write_all(b"\xffraw").await.unwrap();
    in_time(old.read_exact(&mut [0; 4])).await.unwrap();
    far.stop.cancel();
    old.write_all(b"\xffend").await.unwrap();
    let mut back = [0; 4];
    in_time(old.read_exact(&mut back)).await.unwrap();
    assert_eq!(&back, b"\xffend");
    // Nobody listens there any more: a new one is refused, whatever was kept of the connection.
    let (bytes, _) = rest(&mut stage.call_server(app.address.port()).await).await;
    assert_eq!(bytes, b"");
    old.shutdown().await.unwrap();
    assert_eq!(rest(&mut old).await.0, b"");
    let report = far.end().await;
    assert_eq!(report.cut, 0, "{report:?}");
}

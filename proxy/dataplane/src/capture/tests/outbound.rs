//! What applications of captured pods connect to.

use super::{apps::App, *};
use crate::testing::{BASE, ROLES};

/// Callers of the sleep pod's account alone.
const FRIENDS: &str = r#"
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: friends, namespace: datamesh}
spec:
  selector: {matchLabels: {app: fhir-server}}
  rules: [{from: [{source: {principals: ["cluster.local/ns/datamesh/sa/default"]}}], to: [{operation: {methods: [GET]}}]}]
"#;

#[tokio::test]
async fn a_call_to_a_captured_pod_is_one_pass_with_the_kernels_identity() {
    let node = Node::new(&[BASE, STRICT, FRIENDS]).await;
    let app = App::http(node.server.ip).await;
    let mut client = node.connect(&node.sleep, app.address).await;
    let (status, body) = ask(&mut client, &get("/x", "")).await;
    assert_eq!((status, body), (200, format!("{} 0 GET /x HTTP/1.1", node.sleep.ip)), "its own address");
    let story = node.stories(1).await.remove(0);
    assert!(story.mutual_tls && story.from_kernel);
    assert_eq!(story.source.principal.as_deref(), Some("spiffe://cluster.local/ns/datamesh/sa/default"));
    assert_eq!(story.source.workload.unwrap().workload, "sleep");
    assert_eq!(story.destination.workload.unwrap().workload, "fhir-server");
    assert_eq!((story.destination.address, story.upstream), (Some(app.address), Some(app.address)));
    assert_eq!((node.sockets(&node.server, Use::Ingress), node.sockets(&node.sleep, Use::Egress)), (1, 0));
    let (status, _) = ask(&mut client, &get("/x", "").replace("GET", "POST")).await;
    assert_eq!(status, 403, "and policies of layer 7 hold");
    assert_eq!(app.count(), 1);
}

#[tokio::test]
async fn tokens_are_asked_for_on_the_way() {
    let node = Node::new(&[BASE, STRICT, ROLES]).await;
    let app = App::http(node.server.ip).await;
    let mut client = node.connect(&node.sleep, app.address).await;
    assert_eq!(ask(&mut client, &get("/fhir/Patient/1", "")).await.0, 403);
    let forged = get("/fhir/Patient/1", "authorization: Bearer a.b.c\r\n");
    assert_eq!(ask(&mut client, &forged).await.0, 401);
    let token = node.world.bearer("Patient");
    let good = get("/fhir/Patient/1", &format!("authorization: {token}\r\n"));
    assert_eq!(ask(&mut client, &good).await.0, 200);
}

#[tokio::test]
async fn an_unknown_original_destination_closes() {
    let node = Node::new(&[BASE]).await;
    let client = TcpStream::connect(node.sleep.outbound).await.unwrap();
    assert_reset(client).await;
    let story = node.stories(1).await.remove(0);
    assert_eq!((story.refused, story.status), (Some("unknown_destination"), None));
    assert!(node.kernel.sockets.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_connection_to_our_own_listener_is_refused() {
    let node = Node::new(&[BASE]).await;
    let client = node.connect(&node.sleep, node.server.outbound).await;
    assert_reset(client).await;
    assert_eq!(node.stories(1).await[0].refused, Some("own_listener"));
}

#[tokio::test]
async fn connections_are_never_shared_across_pods_and_clients() {
    let node = Node::new(&[BASE]).await;
    let app = App::http(node.server.ip).await;
    let entrance = node.entrance(app.address).await;
    let mut bodies = Vec::new();
    for _ in 0..2 {
        let mut from_pod = node.connect(&node.sleep, app.address).await;
        bodies.push(ask(&mut from_pod, &get("/", "")).await.1);
        for caller in [9, 10] {
            let mut caller = node.call(caller, entrance).await;
            bodies.push(ask(&mut caller, &get("/", "")).await.1);
        }
    }
    let own = |host: u8, number: usize| format!("{} {number} GET / HTTP/1.1", node.address(host));
    assert_eq!(bodies[..3], [own(3, 0), own(9, 1), own(10, 2)]);
    assert_eq!(bodies[3..], bodies[..3], "each finds its own connection again");
}

const SERVICE: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: web, namespace: datamesh}
spec: {selector: {app: fhir-server}, ports: [{port: 80, targetPort: PORT}]}
---
apiVersion: v1
kind: Service
metadata: {name: empty, namespace: datamesh}
spec: {selector: {app: nobody}, ports: [{port: 80}]}
"#;

#[tokio::test]
async fn a_services_address_leads_to_its_pods() {
    // The port is known before the node is: the pod's address is not needed for that.
    let app = App::http([0, 0, 0, 0].into()).await;
    let manifest = SERVICE.replace("PORT", &app.address.port().to_string());
    let services = vec![("datamesh/web", 100), ("datamesh/empty", 101)];
    let node =
        Node::build(Build { manifests: &[BASE, STRICT, &manifest], services, ..Build::default() }).await;
    let to = |host: u8, port: u16| SocketAddr::new(node.address(host), port);
    let mut client = node.connect(&node.sleep, to(100, 80)).await;
    assert_eq!(ask(&mut client, &get("/", "")).await.1, format!("{} 0 GET / HTTP/1.1", node.sleep.ip));
    let mut itself = node.connect(&node.server, to(100, 80)).await;
    assert_eq!(ask(&mut itself, &get("/", "")).await.0, 200, "a hairpin through the service");
    assert_reset(node.connect(&node.sleep, to(101, 80)).await).await;
    assert_eq!(node.stories(3).await[2].refused, Some("no_endpoint"));
}

#[tokio::test]
async fn a_pod_reaches_itself_by_its_own_address_whatever_policy_says() {
    let node = Node::new(&[BASE, STRICT, ROLES]).await;
    let app = App::http(node.server.ip).await;
    let mut client = node.connect(&node.server, app.address).await;
    assert_eq!(ask(&mut client, &get("/", "")).await.0, 200);
    assert_eq!(node.sockets(&node.server, Use::Ingress), 1, "past the capture of its own inbound");
}

#[tokio::test]
async fn without_sockets_from_the_agent_nothing_goes_around() {
    let node = Node::new(&[BASE]).await;
    let app = App::http(node.server.ip).await;
    node.kernel.barren.store(true, Ordering::Relaxed);
    let mut client = node.connect(&node.sleep, app.address).await;
    assert_eq!(ask(&mut client, &get("/", "")).await.0, 503);
    let elsewhere = App::echo(node.address(50)).await;
    assert_reset(node.connect(&node.sleep, elsewhere.address).await).await;
    assert_eq!((app.count(), elsewhere.count()), (0, 0));
}

#[tokio::test]
async fn without_a_snapshot_nothing_passes() {
    let node = Node::new(&[BASE]).await;
    let app = App::http(node.server.ip).await;
    node.world.mesh.send_replace(None);
    assert_reset(node.connect(&node.sleep, app.address).await).await;
    let entrance = node.entrance(app.address).await;
    assert_reset(node.call(9, entrance).await).await;
    assert_eq!(app.count(), 0);
}

/// A pod that can change its network namespace can put any address there: the manifests say whose it is.
#[tokio::test]
async fn an_address_that_a_pod_gave_itself_is_not_its_own() {
    let app = App::http([0, 0, 0, 0].into()).await;
    let manifest = SERVICE.replace("PORT", &app.address.port().to_string());
    let services = vec![("datamesh/web", 100)];
    let node = Node::build(Build { manifests: &[BASE, &manifest], services, ..Build::default() }).await;
    let port = app.address.port();
    // It says that it is the server, a Service, and the node; and that it was there last.
    node.changes.send(Change::NodeAddresses(vec![node.address(1)])).await.unwrap();
    let claimed = vec![node.server.ip, node.address(100), node.address(1), node.sleep.ip];
    let pod = Pod { id: PodId { slot: 7, generation: 9 }, addresses: claimed, ..(*node.sleep.pod).clone() };
    let thief = super::capture(&node.changes, Arc::new(pod)).await;
    // Its own calls to what it says are its addresses stay inside; then it is captured.
    let mut client = node.connect(&thief, SocketAddr::new(node.server.ip, port)).await;
    ask(&mut client, &get("/", "")).await;
    for (host, to) in [(2, port), (100, 80)] {
        let mut client = node.connect(&node.sleep, SocketAddr::new(node.address(host), to)).await;
        let (status, body) = ask(&mut client, &get("/", "")).await;
        assert_eq!(status, 200, "{host}");
        assert!(body.starts_with(&node.sleep.ip.to_string()), "{body}");
    }
    assert_eq!(node.sockets(&thief, Use::Ingress), 1, "nothing of this is the thief's");
    // And whoever has no address of its own speaks by none.
    let pod = Pod {
        id: PodId { slot: 8, generation: 9 },
        addresses: vec![node.address(1)],
        ..(*node.sleep.pod).clone()
    };
    let nobody = super::capture(&node.changes, Arc::new(pod)).await;
    let mut client = node.connect(&nobody, SocketAddr::new(node.server.ip, port)).await;
    let (status, body) = ask(&mut client, &get("/", "")).await;
    assert_eq!(status, 200);
    assert!(body.starts_with("127.0.0.6 "), "{body}");
}

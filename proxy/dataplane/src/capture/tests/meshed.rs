//! Captured pods, and gateways, on their way to destinations of the mesh that are not here.

use mesh::{MeshSettings, TunnelKind, TunnelSettings, WorkloadSettings, routing::GatewayKey};
use observe::record::Reporter;

use super::{apps::App, *};
use crate::{
    accept::{Entry, Listener},
    hbone::peers::{Does, Peer, Peers, eventually, id},
    secure::Whose,
    testing::{BASE, GATEWAY, ROLES},
};

/// Elsewhere; its service account is `remote`, its address the network's ninth.
const REMOTE: &str = "datamesh/remote";
/// Elsewhere too, at the tenth.
const OWNER: &str = "datamesh/owner";
/// The made-up gateway's account.
const INGRESS: &str = "istio-system/istio-ingressgateway-service-account";

const SERVICE: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: remote, namespace: datamesh}
spec: {selector: {app: remote}, ports: [{port: 80, targetPort: 8080}]}
"#;

fn world(manifests: &[&str], network: u16) -> World {
    let [second, third] = network.to_be_bytes();
    let address = |host: u8| IpAddr::V4(Ipv4Addr::new(127, second, third, host));
    World::with(manifests, |mesh, _| {
        for (workload, host) in mesh.workloads.iter_mut().zip([2, 3]) {
            (workload.ip, workload.fhir) = (Some(address(host)), None);
            workload.upstream.clear();
        }
        mesh.workloads[0].service_account = Some("remote".to_owned());
        for (name, account, host) in [(REMOTE, "remote", 9), (OWNER, "owner", 10)] {
            let mut workload = WorkloadSettings::named(name);
            workload.service_account = Some(account.to_owned());
            workload.labels = [("app".to_owned(), account.to_owned())].into();
            workload.ip = Some(address(host));
            mesh.workloads.push(workload);
        }
        if manifests.contains(&SERVICE) {
            mesh.service_addresses.insert(REMOTE.to_owned(), address(100));
        }
    })
}

/// A node with one captured pod, of this workload and with this host's address.
async fn node(
    world: World,
    network: u16,
    (name, host): (&str, u8),
    listeners: Vec<Bound>,
    certificates: Option<Arc<crate::secure::Certificates>>,
) -> Node {
    let [second, third] = network.to_be_bytes();
    let (changes, receiver) = mpsc::channel(16);
    let (kernel, stories) = (Arc::new(Kernel::default()), Arc::new(Stories::default()));
    let pod = Pod {
        id: PodId { slot: 1, generation: 1 },
        name: name.parse().unwrap(),
        addresses: vec![IpAddr::V4(Ipv4Addr::new(127, second, third, host))],
        probes: Vec::new(),
        transparent: true,
    };
    let pod = capture(&changes, Arc::new(pod)).await;
    let stop = CancellationToken::new();
    let recorder = Arc::clone(&stories) as Arc<dyn Recorder>;
    let patient = Limits { connect_timeout_ms: 60_000, handshake_timeout_ms: 60_000, ..Limits::default() };
    let proxy = Proxy::new(Arc::clone(&world.engine), recorder, Arc::new(patient));
    let plumbing = Arc::clone(&kernel) as Arc<dyn Plumbing>;
    // A client that speaks is heard, however busy the machine is; only one of these tests waits for silence.
    let settings = CaptureSettings { detect_timeout_ms: 3_000, ..CaptureSettings::default() };
    let capture = Capture { plumbing, changes: receiver, settings, certificates };
    let running = tokio::spawn(proxy.run(listeners, Some(capture), stop.clone()));
    let server = pod.clone();
    Node { world, kernel, stories, changes, stop, server, sleep: pod, network, running }
}

/// A node on which `datamesh/sleep` alone is captured, and peers elsewhere.
struct Stage {
    node: Node,
    peers: Peers,
    manifests: Vec<String>,
}

impl Stage {
    async fn new(manifests: &[&str]) -> Self {
        Self::with(manifests, true, |_, _| Vec::new()).await
    }

    async fn with(
        manifests: &[&str],
        certified: bool,
        listeners: impl FnOnce(&World, &Peers) -> Vec<Bound>,
    ) -> Self {
        let network = u16::try_from(NETWORKS.fetch_add(1, Ordering::Relaxed)).unwrap() + 0x4d00;
        let world = world(manifests, network);
        let peers = Peers::new(&["default", "remote", "owner", INGRESS], world.mesh.subscribe());
        let listeners = listeners(&world, &peers);
        let certificates = certified.then(|| Arc::clone(&peers.certificates));
        let node = node(world, network, (SLEEP, 3), listeners, certificates).await;
        if certified {
            peers.of(SLEEP).await;
        }
        Self { node, peers, manifests: manifests.iter().map(|text| (*text).to_owned()).collect() }
    }

    /// Another node, on which `datamesh/fhir-server` alone is captured; and where its port 15008 is.
    async fn far(&self, manifests: &[&str]) -> (Node, SocketAddr) {
        let world = world(manifests, self.node.network);
        let certificates = self.peers.elsewhere(world.mesh.subscribe());
        let far =
            node(world, self.node.network, (SERVER, 2), Vec::new(), Some(Arc::clone(&certificates))).await;
        let entrance = far.entrance(SocketAddr::new(far.address(2), mesh::HBONE_PORT)).await;
        let tls = certificates.of(Whose::Workload(SERVER.parse().unwrap()));
        eventually(async || tls.identity().is_some()).await;
        self.lead(SERVER, TunnelKind::Hbone, Some(entrance));
        (far, entrance)
    }

    fn publish(&self, change: impl FnOnce(&mut MeshSettings)) {
        let version = self.node.world.mesh.borrow().as_ref().unwrap().version + 1;
        let manifests: Vec<&str> = self.manifests.iter().map(String::as_str).collect();
        self.node.world.publish_with(&manifests, version, change);
    }

    /// From now on the settings say how a workload is reached.
    fn lead(&self, workload: &str, kind: TunnelKind, address: Option<SocketAddr>) {
        self.publish(|mesh| {
            mesh.tunnels.insert(workload.to_owned(), TunnelSettings { kind, address });
        });
    }

    /// A peer with an account's certificate, at which [`REMOTE`] speaks HBONE.
    async fn tunnels(&self, account: &str, does: Does) -> Peer {
        let acceptor = self.peers.acceptor(&self.peers.leaf(&id(account)), &[b"h2"]);
        let peer = Peer::start(acceptor, does).await;
        self.lead(REMOTE, TunnelKind::Hbone, Some(peer.address));
        peer
    }

    /// A call of `datamesh/sleep` to [`REMOTE`].
    async fn call(&self, port: u16) -> TcpStream {
        self.node.connect(&self.node.sleep, SocketAddr::new(self.node.address(9), port)).await
    }
}

#[tokio::test]
async fn a_captured_pod_tunnels_with_its_own_identity_and_every_byte_arrives() {
    const LENGTH: usize = 64 * 1024 * 1024;
    let stage = Stage::new(&[BASE]).await;
    let peer = stage.tunnels("remote", Does::EchoTunnels).await;
    let (mut read, mut write) = stage.call(5432).await.into_split();
    let sending = tokio::spawn(async move {
        let chunk = vec![9; 64 * 1024];
        for _ in 0..LENGTH / chunk.len() {
            write.write_all(&chunk).await.unwrap();
        }
        write.shutdown().await.unwrap();
        write
    });
    let mut all = Vec::new();
    in_time(read.read_to_end(&mut all)).await.unwrap();
    assert!(all.len() == LENGTH && all.iter().all(|byte| *byte == 9), "{}", all.len());
    drop(sending.await.unwrap());
    let asked = peer.asked().remove(0);
    assert_eq!(asked.authority, SocketAddr::new(stage.node.address(9), 5432).to_string());
    assert_eq!(asked.client.unwrap().to_string(), id("default"));
    let forwarded = asked.headers["forwarded"].to_str().unwrap().to_owned();
    assert!(forwarded.starts_with(&format!("for=\"{}:", stage.node.sleep.ip)), "{forwarded}");
    let baggage = asked.headers["baggage"].to_str().unwrap();
    assert!(baggage.contains("k8s.namespace.name=datamesh,k8s.deployment.name=sleep"), "{baggage}");
    assert_eq!(stage.node.sockets(&stage.node.sleep, Use::Egress), 1, "it left from the pod");
    let story = stage.node.stories(1).await.remove(0);
    assert_eq!((story.flags, story.details.as_str()), ("-", "closed"));
    assert_eq!((story.request_bytes, story.response_bytes), (LENGTH as u64, LENGTH as u64));
    assert_eq!(story.destination.principal.as_deref(), Some(id("remote").as_str()));
    assert_eq!(story.destination.workload.unwrap().workload, "remote");
    assert_eq!(story.upstream, Some(peer.address));
}

#[tokio::test]
async fn what_the_destination_refuses_is_reset_and_told() {
    for (status, wanted) in [
        (401, "policy_denied"),
        (400, "tunnel_refused"),
        (503, "tunnel_unreached"),
        (404, "tunnel_answer_404"),
    ] {
        let stage = Stage::new(&[BASE]).await;
        stage.tunnels("remote", Does::Answer(status)).await;
        assert_reset(stage.call(5432).await).await;
        let story = stage.node.stories(1).await.remove(0);
        assert_eq!(story.flags, "UF");
        assert!(story.details.contains(wanted), "{}", story.details);
    }
}

#[tokio::test]
async fn nothing_of_the_mesh_is_reached_in_plaintext() {
    let stage = Stage::new(&[BASE]).await;
    // The application itself can be reached, and nobody listens for tunnels there.
    let app = App::echo(stage.node.address(9)).await;
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap();
    stage.lead(REMOTE, TunnelKind::Hbone, Some(closed));
    assert_reset(stage.call(app.address.port()).await).await;
    // Whoever listens is somebody else.
    let other = stage.tunnels("owner", Does::EchoTunnels).await;
    assert_reset(stage.call(app.address.port()).await).await;
    stage.lead(REMOTE, TunnelKind::Sidecar, None);
    assert_reset(stage.call(app.address.port()).await).await;
    let details: Vec<_> = stage.node.stories(3).await.into_iter().map(|story| story.details).collect();
    assert!(details[0].contains("remote_connection_failure"), "{details:?}");
    assert!(details[1].contains("unexpected_identity"), "{details:?}");
    assert!(other.asked().is_empty());
    assert_eq!(app.count(), 1, "but for the sidecar's handshake, which it does not understand");
    // Where an operator says so in so many words, it is.
    stage.lead(REMOTE, TunnelKind::None, None);
    let mut client = stage.call(app.address.port()).await;
    client.write_all(b"x").await.unwrap();
    assert_eq!(in_time(client.read_u8()).await.unwrap(), b'x');
}

#[tokio::test]
async fn without_sockets_from_the_agent_there_is_no_tunnel_either() {
    let stage = Stage::new(&[BASE]).await;
    let peer = stage.tunnels("remote", Does::EchoTunnels).await;
    stage.node.kernel.barren.store(true, Ordering::Relaxed);
    assert_reset(stage.call(5432).await).await;
    assert!(peer.seen().is_empty() && peer.failed() == 0);
}

#[tokio::test]
async fn pods_do_not_share_connections() {
    let stage = Stage::new(&[BASE]).await;
    let peer = stage.tunnels("remote", Does::EchoTunnels).await;
    let id = PodId { slot: 2, generation: 1 };
    let twin = Pod { id, addresses: vec![stage.node.address(4)], ..(*stage.node.sleep.pod).clone() };
    let twin = super::capture(&stage.node.changes, Arc::new(twin)).await;
    for from in [&stage.node.sleep, &twin, &stage.node.sleep, &twin] {
        let to = SocketAddr::new(stage.node.address(9), 5432);
        let mut client = stage.node.connect(from, to).await;
        echoed(&stage.node, &mut client).await;
    }
    let connections: Vec<_> = peer.asked().iter().map(|asked| asked.connection).collect();
    assert_eq!(connections, [1, 2, 1, 2], "though they are of one workload");
}

#[tokio::test]
async fn a_tunnel_that_leads_to_ourselves_is_refused() {
    let stage = Stage::new(&[BASE]).await;
    stage.lead(REMOTE, TunnelKind::Hbone, Some(stage.node.sleep.outbound));
    assert_reset(stage.call(5432).await).await;
    assert!(stage.node.stories(1).await[0].details.contains("own_listener"));
}

#[tokio::test]
async fn without_certificates_only_what_the_settings_name_is_refused() {
    let stage = Stage::with(&[BASE], false, |_, _| Vec::new()).await;
    let app = App::echo(stage.node.address(9)).await;
    let mut client = stage.call(app.address.port()).await;
    client.write_all(b"x").await.unwrap();
    assert_eq!(in_time(client.read_u8()).await.unwrap(), b'x');
    stage.lead(REMOTE, TunnelKind::Hbone, Some(app.address));
    assert_reset(stage.call(app.address.port()).await).await;
    drop(client);
    let refused = |story: &Record| story.details.contains("no_own_certificate");
    assert_eq!(stage.node.stories(2).await.iter().filter(|story| refused(story)).count(), 1);
    assert_eq!(app.count(), 1);
}

#[tokio::test]
async fn a_sidecar_is_told_what_the_clients_first_bytes_are() {
    let stage = Stage::new(&[BASE]).await;
    let alpn: &[&[u8]] = &[b"istio-http/1.1", b"istio-h2", b"istio"];
    let acceptor = stage.peers.acceptor(&stage.peers.leaf(&id("remote")), alpn);
    let peer = Peer::at((stage.node.address(9), 0).into(), acceptor, Does::EchoTls).await;
    stage.lead(REMOTE, TunnelKind::Sidecar, None);
    let preface: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    for (first, wanted) in [
        (&b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"[..], "istio-http/1.1"),
        (preface, "istio-h2"),
        (b"\x00\x00\x00\x08\x04\xd2\x16\x2f", "istio"),
        (b"", "istio"),
    ] {
        let mut client = stage.call(peer.address.port()).await;
        client.write_all(first).await.unwrap();
        let mut back = vec![0; first.len()];
        in_time(client.read_exact(&mut back)).await.unwrap();
        assert_eq!(back, first);
        if first.is_empty() {
            // Silent on both sides: it is taken for one whose server speaks first.
            in_time(async {
                while peer.seen().len() < 4 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            })
            .await;
        }
        let seen = peer.seen().pop().unwrap();
        assert_eq!((seen.alpn.as_deref(), seen.sni), (Some(wanted), None));
        assert_eq!(seen.client.unwrap().to_string(), id("default"));
    }
}

#[tokio::test]
async fn a_services_address_that_is_anothers_is_reached_as_that_other() {
    let stage = Stage::new(&[BASE, SERVICE]).await;
    let address = SocketAddr::new(stage.node.address(10), 8080);
    let remote = stage.peers.acceptor(&stage.peers.leaf(&id("remote")), &[b"h2"]);
    let owner = stage.peers.acceptor(&stage.peers.leaf(&id("owner")), &[b"h2"]);
    let wrong = Peer::start(remote, Does::EchoTunnels).await;
    let right = Peer::start(owner, Does::EchoTunnels).await;
    for (peer, is_right) in [(&wrong, false), (&right, true)] {
        stage.publish(|mesh| {
            let tunnel = |address| TunnelSettings { kind: TunnelKind::Hbone, address: Some(address) };
            mesh.tunnels.insert(REMOTE.to_owned(), tunnel(wrong.address));
            mesh.tunnels.insert(OWNER.to_owned(), tunnel(peer.address));
            let remote = mesh.workloads.iter_mut().find(|one| one.name == REMOTE).unwrap();
            remote.upstream = [(8080, address)].into();
        });
        let service = SocketAddr::new(stage.node.address(100), 80);
        let mut client = stage.node.connect(&stage.node.sleep, service).await;
        if !is_right {
            assert_reset(client).await;
            continue;
        }
        client.write_all(b"x").await.unwrap();
        assert_eq!(in_time(client.read_u8()).await.unwrap(), b'x');
        let asked = peer.asked().remove(0);
        assert_eq!(asked.authority, address.to_string());
        let forwarded = asked.headers["forwarded"].to_str().unwrap();
        assert!(forwarded.ends_with(";host=remote.datamesh.svc.cluster.local"), "{forwarded}");
    }
    assert!(wrong.asked().is_empty());
}

#[tokio::test]
async fn a_pod_that_is_gone_takes_its_tunnels_along() {
    let stage = Stage::new(&[BASE]).await;
    let peer = stage.tunnels("remote", Does::EchoTunnels).await;
    let mut client = stage.call(5432).await;
    client.write_all(b"x").await.unwrap();
    assert_eq!(in_time(client.read_u8()).await.unwrap(), b'x');
    stage.node.changes.send(Change::Gone { id: stage.node.sleep.pod.id }).await.unwrap();
    assert_reset(client).await;
    assert_eq!(peer.asked().len(), 1);
}

#[tokio::test]
async fn a_destination_that_is_believed_no_longer_is_left() {
    let stage = Stage::new(&[BASE]).await;
    stage.tunnels("remote", Does::EchoTunnels).await;
    let mut client = stage.call(5432).await;
    client.write_all(b"x").await.unwrap();
    assert_eq!(in_time(client.read_u8()).await.unwrap(), b'x');
    stage.peers.trust(&certs::Authority::mint("others").unwrap());
    assert_reset(client).await;
    let story = stage.node.stories(1).await.remove(0);
    assert_eq!(story.details, "incomplete_chain");
}

/// Answers each request by its whole head.
async fn mirror(ip: IpAddr) -> App {
    App::serve(ip, |_, mut stream| async move {
        let mut head = Vec::new();
        loop {
            match stream.read_buf(&mut head).await {
                Ok(length) if length > 0 => {}
                _ => return,
            }
            if head.ends_with(b"\r\n\r\n") {
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", head.len());
                stream.write_all(answer.as_bytes()).await.unwrap();
                stream.write_all(&head).await.unwrap();
                head.clear();
            }
        }
    })
    .await
}

fn gateway(peers: Option<&Peers>) -> Bound {
    let key = GatewayKey { labels: [("istio".to_owned(), "ingressgateway".to_owned())].into(), port: 80 };
    let (name, address) = ("gateway".to_owned(), (Ipv4Addr::LOCALHOST, 0).into());
    let bound = Listener { name, address, entry: Entry::Gateway(key.clone()), tls: None }.bind().unwrap();
    match peers {
        Some(peers) => bound.with_mesh(peers.certificates.of(Whose::Gateway(key)), None),
        None => bound,
    }
}

#[tokio::test]
async fn a_gateway_goes_with_its_own_identity_and_leaves_the_token_to_the_far_side() {
    for kind in [TunnelKind::Hbone, TunnelKind::Sidecar, TunnelKind::None] {
        let mut at = None;
        let stage = Stage::with(&[BASE, GATEWAY, ROLES], true, |_, peers| {
            let gateway = gateway(Some(peers));
            at = Some(gateway.local_addr());
            vec![gateway]
        })
        .await;
        let leaf = stage.peers.leaf(&id("remote"));
        let app = mirror(Ipv4Addr::LOCALHOST.into()).await;
        let (acceptor, does) = match kind {
            TunnelKind::Hbone => (stage.peers.acceptor(&leaf, &[b"h2"]), Does::Lead(app.address)),
            _ => (stage.peers.acceptor(&leaf, &[b"istio-http/1.1"]), Does::LeadTls(app.address)),
        };
        let peer = Peer::start(acceptor, does).await;
        let upstream = if kind == TunnelKind::None { app.address } else { peer.address };
        stage.publish(|mesh| {
            let address = (kind == TunnelKind::Hbone).then_some(peer.address);
            mesh.tunnels.insert(SERVER.to_owned(), TunnelSettings { kind, address });
            mesh.workloads[0].upstream = [(8080, upstream)].into();
        });
        let token = stage.node.world.bearer("Patient");
        let mut client = TcpStream::connect(at.unwrap()).await.unwrap();
        for _ in 0..2 {
            let request = get("/api/x", &format!("authorization: {token}\r\n"));
            let (status, head) = ask(&mut client, &request).await;
            assert_eq!(status, 200, "{kind:?} {:?}", stage.node.stories(1).await);
            assert!(head.starts_with("GET /x HTTP/1.1"), "{head}");
            assert_eq!(head.contains(&token), kind != TunnelKind::None, "{kind:?} {head}");
        }
        // The policies of the destination hold here already.
        let (status, _) = ask(&mut client, &get("/api/x", "")).await;
        assert_eq!(status, 403);
        let reporters: Vec<_> = stage.node.stories(2).await.iter().map(|story| story.reporter).collect();
        let ours = if kind == TunnelKind::None { Reporter::Destination } else { Reporter::Source };
        assert_eq!(reporters[..2], [ours; 2], "the far side reports the destination's");
        let seen = peer.seen();
        assert_eq!(seen.len(), usize::from(kind != TunnelKind::None), "and one connection serves all");
        for seen in seen {
            assert_eq!(seen.client.unwrap().to_string(), id(INGRESS));
            let sni = (kind == TunnelKind::Sidecar)
                .then_some("outbound_.80_._.fhir-service.datamesh.svc.cluster.local");
            assert_eq!(seen.sni.as_deref(), sni);
        }
    }
}

#[tokio::test]
async fn a_gateway_sends_nothing_where_the_far_side_is_not_believed() {
    for kind in [TunnelKind::Hbone, TunnelKind::Sidecar] {
        let mut at = None;
        let stage = Stage::with(&[BASE, GATEWAY], true, |_, peers| {
            let gateway = gateway(Some(peers));
            at = Some(gateway.local_addr());
            vec![gateway]
        })
        .await;
        let acceptor = stage.peers.acceptor(&stage.peers.leaf(&id("owner")), &[b"h2", b"istio-http/1.1"]);
        let peer = Peer::start(acceptor, Does::EchoTls).await;
        stage.publish(|mesh| {
            let address = (kind == TunnelKind::Hbone).then_some(peer.address);
            mesh.tunnels.insert(SERVER.to_owned(), TunnelSettings { kind, address });
            mesh.workloads[0].upstream = [(8080, peer.address)].into();
        });
        let mut client = TcpStream::connect(at.unwrap()).await.unwrap();
        let (status, body) = ask(&mut client, &get("/api/x", "")).await;
        assert_eq!(status, 503);
        assert!(body.ends_with("remote connection failure"), "{body}");
        let story = stage.node.stories(1).await.remove(0);
        assert_eq!(story.flags, "UF");
        assert!(story.details.contains("unexpected_identity"), "{}", story.details);
        assert!(peer.seen().is_empty());
    }
}

#[tokio::test]
async fn a_gateway_without_certificates_sends_nothing_to_what_the_settings_name() {
    let mut at = None;
    let stage = Stage::with(&[BASE, GATEWAY], false, |_, _| {
        let gateway = gateway(None);
        at = Some(gateway.local_addr());
        vec![gateway]
    })
    .await;
    let app = App::http(Ipv4Addr::LOCALHOST.into()).await;
    stage.publish(|mesh| {
        let tunnel = TunnelSettings { kind: TunnelKind::Sidecar, address: None };
        mesh.tunnels.insert(SERVER.to_owned(), tunnel);
        mesh.workloads[0].upstream = [(8080, app.address)].into();
    });
    let mut client = TcpStream::connect(at.unwrap()).await.unwrap();
    assert_eq!(ask(&mut client, &get("/api/x", "")).await.0, 503);
    assert_eq!(app.count(), 0);
}

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

/// Sends a byte and waits for it.
async fn echoed(node: &Node, client: &mut TcpStream) {
    client.write_all(b"\xff").await.unwrap();
    match in_time(client.read_u8()).await {
        Ok(byte) => assert_eq!(byte, 0xff),
        Err(error) => {
            let told: Vec<_> = node.stories(1).await.into_iter().map(|story| story.details).collect();
            panic!("{error}: {told:?}");
        }
    }
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
    assert!(story.flags != "-" || story.details != "closed", "{story:?}");
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

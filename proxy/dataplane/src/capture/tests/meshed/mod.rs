//! Captured pods, and gateways, on their way to destinations of the mesh that are not here.

mod gateway;
mod nodes;
mod pods;

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

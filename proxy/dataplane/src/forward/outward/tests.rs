//! Ways with the caller's identity, against servers of the mesh that are good and bad.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{io, net::Ipv4Addr};

use certs::{Authority, OddRequest};
use mesh::{TunnelKind, TunnelSettings, WorkloadSettings};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;
use crate::{
    capture::Pod,
    forward::Forwarder,
    hbone::peers::{Does, Peer, Peers, eventually, id},
    testing::{BASE, World},
};

/// Nothing here takes so long, however busy the machine is.
const LONG: Duration = Duration::from_secs(60);
/// The destination's workload; its service account is `remote`.
const REMOTE: &str = "datamesh/remote";

/// A mesh with `datamesh/sleep` and `datamesh/twin` (account `default`) here and [`REMOTE`] elsewhere.
struct Stage {
    world: World,
    peers: Peers,
    forwarder: Forwarder,
    kind: TunnelKind,
}

impl Stage {
    fn new(kind: TunnelKind) -> Self {
        let world = World::with(&[BASE], |mesh, _| {
            let mut remote = WorkloadSettings::named(REMOTE);
            remote.service_account = Some("remote".to_owned());
            mesh.workloads.push(remote);
            let mut late = WorkloadSettings::named("datamesh/late");
            late.service_account = Some("other".to_owned());
            mesh.workloads.push(late);
            mesh.workloads.push(WorkloadSettings::named("datamesh/twin"));
            mesh.tunnels.insert(REMOTE.to_owned(), TunnelSettings { kind, address: None });
        });
        let peers = Peers::new(&["default", "other", "remote"], world.mesh.subscribe());
        let mut limits = Limits::default();
        (limits.connect_timeout_ms, limits.handshake_timeout_ms) = (20_000, 20_000);
        Self { world, peers, forwarder: Forwarder::new(Arc::new(limits)), kind }
    }

    async fn peer(&self, account: &str, does: Does) -> Peer {
        self.peer_with(&self.peers.leaf(&id(account)), does).await
    }

    async fn peer_with(&self, leaf: &certs::Leaf, does: Does) -> Peer {
        let alpn: &[&[u8]] = match self.kind {
            TunnelKind::Hbone => &[b"h2"],
            _ => &[b"istio-http/1.1", b"istio-h2", b"istio"],
        };
        Peer::start(self.peers.acceptor(leaf, alpn), does).await
    }

    /// A new snapshot, in which [`REMOTE`] is at this address.
    fn publish(&self, to: SocketAddr, change: impl FnOnce(&mut WorkloadSettings)) {
        let address = (self.kind == TunnelKind::Hbone).then_some(to);
        let version = self.world.mesh.borrow().as_ref().unwrap().version + 1;
        self.world.publish_with(&[BASE], version, |mesh| {
            mesh.tunnels.insert(REMOTE.to_owned(), TunnelSettings { kind: self.kind, address });
            change(mesh.workloads.iter_mut().find(|one| one.name == REMOTE).unwrap());
        });
    }

    /// From `datamesh/sleep` to a server.
    async fn departure(&self, to: SocketAddr) -> Departure {
        self.publish(to, |_| {});
        let snapshot = self.world.mesh.borrow().clone().unwrap();
        let meant = snapshot.workload(&REMOTE.parse().unwrap());
        let Toward::Tunnel(tunnel) = snapshot.toward(to, meant) else { panic!("no tunnel") };
        Departure {
            own: self.peers.of("datamesh/sleep").await,
            origin: Origin::Proxy,
            tunnel,
            sni: None,
            snapshots: self.world.mesh.subscribe(),
            hints: Hints::default(),
        }
    }

    async fn reach(&self, departure: &Departure) -> Result<Reached, UpstreamFault> {
        timeout(LONG, self.forwarder.reach(departure, ALPN_BYTES)).await.expect("it took too long")
    }

    async fn fault(&self, to: SocketAddr) -> UpstreamFault {
        self.reach(&self.departure(to).await).await.map(drop).expect_err("it must not be believed")
    }
}

async fn round(wire: &mut Wire, text: &[u8]) -> io::Result<Vec<u8>> {
    let round = async {
        wire.write_all(text).await?;
        wire.flush().await?;
        let mut back = vec![0; text.len()];
        wire.read_exact(&mut back).await?;
        Ok(back)
    };
    timeout(LONG, round).await.expect("no echo")
}

fn refused(why: &'static str) -> UpstreamFault {
    TunnelFault::Handshake(why).into()
}

const KINDS: [(TunnelKind, Does); 2] =
    [(TunnelKind::Hbone, Does::EchoTunnels), (TunnelKind::Sidecar, Does::EchoTls)];

#[tokio::test]
async fn a_tunnel_says_who_calls_whom() {
    let stage = Stage::new(TunnelKind::Hbone);
    let peer = stage.peer("remote", Does::EchoTunnels).await;
    let mut departure = stage.departure(peer.address).await;
    let source = "10.0.0.7:4711".parse().unwrap();
    let labels = observe::record::WorkloadLabels {
        workload: "sleep".to_owned(),
        namespace: "datamesh".to_owned(),
        canonical_service: "sleep,service.version=forged".to_owned(),
        canonical_revision: "v1".to_owned(),
        ..Default::default()
    };
    departure.hints = Hints {
        forwarded: Hints::forwarding(source, Some("web.datamesh.svc.cluster.local")),
        baggage: Hints::baggage(&labels),
    };
    let mut reached = stage.reach(&departure).await.unwrap();
    assert_eq!(round(&mut reached.wire, b"hello").await.unwrap(), b"hello");
    let asked = peer.asked().remove(0);
    assert_eq!(asked.authority, peer.address.to_string());
    assert_eq!(asked.client.unwrap().to_string(), id("default"));
    let header = |name: &str| asked.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    assert_eq!(header("forwarded").unwrap(), "for=\"10.0.0.7:4711\";host=web.datamesh.svc.cluster.local");
    let baggage = "k8s.namespace.name=datamesh,k8s.deployment.name=sleep,service.version=v1";
    assert_eq!(header("baggage").unwrap(), baggage, "what could say two things is left out");
    let trace = header("traceparent").unwrap();
    assert!(trace.len() == 55 && trace.starts_with("00-") && trace.ends_with("-00"), "{trace}");
    let seen = peer.seen().remove(0);
    assert_eq!((seen.sni, seen.alpn.as_deref()), (None, Some("h2")));
    assert_eq!(Hints::forwarding(source, Some("a\";host=b")).unwrap(), "for=\"10.0.0.7:4711\"");
}

#[tokio::test]
async fn a_sidecar_is_told_the_protocol_and_the_server_name() {
    let stage = Stage::new(TunnelKind::Sidecar);
    let peer = stage.peer("remote", Does::EchoTls).await;
    let mut departure = stage.departure(peer.address).await;
    departure.sni = Some("outbound_.80_._.web.datamesh.svc.cluster.local".into());
    for (alpn, wanted) in [(ALPN_HTTP1, "istio-http/1.1"), (ALPN_HTTP2, "istio-h2"), (ALPN_BYTES, "istio")] {
        let mut reached = stage.forwarder.reach(&departure, alpn).await.unwrap();
        assert_eq!(round(&mut reached.wire, b"hello").await.unwrap(), b"hello");
        let seen = peer.seen().pop().unwrap();
        assert_eq!(seen.client.unwrap().to_string(), id("default"));
        assert_eq!(seen.sni.as_deref(), departure.sni.as_deref());
        assert_eq!((seen.alpn.as_deref(), seen.resumed), (Some(wanted), false), "and nothing is resumed");
    }
}

#[tokio::test]
async fn the_right_chain_and_the_wrong_identity_is_refused() {
    for (kind, does) in KINDS {
        let stage = Stage::new(kind);
        let peer = stage.peer("other", does).await;
        assert_eq!(stage.fault(peer.address).await, refused("unexpected_identity"));
        eventually(async || peer.failed() > 0).await;
        assert!(peer.seen().is_empty() && peer.asked().is_empty(), "not a word was said");
    }
}

#[tokio::test]
async fn bad_certificates_of_servers_are_refused() {
    for (kind, does) in KINDS {
        let stage = Stage::new(kind);
        let spoilt = |spoil: fn(&mut OddRequest)| {
            let mut request = OddRequest::workload(id("remote"));
            spoil(&mut request);
            stage.peers.root.issue_odd(&request).unwrap()
        };
        let strangers = Authority::mint("strangers").unwrap();
        for (leaf, why) in [
            (spoilt(|leaf| leaf.uris.push(id("other"))), "many_uri_sans"),
            (spoilt(|leaf| leaf.uris.push(id("remote"))), "many_uri_sans"),
            (spoilt(|leaf| leaf.uris.clear()), "no_san"),
            (
                spoilt(|leaf| leaf.uris = vec!["spiffe://elsewhere/ns/datamesh/sa/remote".to_owned()]),
                "unknown_trust_domain",
            ),
            (strangers.issue_odd(&OddRequest::workload(id("remote"))).unwrap(), "incomplete_chain"),
        ] {
            let peer = stage.peer_with(&leaf, does).await;
            assert_eq!(stage.fault(peer.address).await, refused(why));
            assert!(peer.asked().is_empty());
        }
    }
}

#[tokio::test]
async fn there_is_no_way_in_plaintext() {
    for (kind, _) in KINDS {
        let stage = Stage::new(kind);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let heard = Arc::new(std::sync::Mutex::new(Vec::new()));
        let hears = Arc::clone(&heard);
        let server = tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let first = socket.read_u8().await.ok();
                hears.lock().unwrap().push(first);
                let _ = socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            }
        });
        let fault = stage.fault(address).await;
        assert!(matches!(fault, UpstreamFault::Tunnel(TunnelFault::Handshake(_))), "{fault:?}");
        assert_eq!(*heard.lock().unwrap(), [Some(0x16)], "once, and TLS");
        // And where nobody listens, nobody is reached.
        server.abort();
        assert!(server.await.unwrap_err().is_cancelled());
        assert_eq!(stage.fault(address).await, UpstreamFault::ConnectFailed);
    }
}

/// The kernel's side, which hands out no socket.
struct Dry;

impl crate::capture::Plumbing for Dry {
    fn original(&self, _: &Pod, _: &TcpStream, _: SocketAddr) -> Option<SocketAddr> {
        None
    }

    fn socket(&self, _: &Arc<Pod>, _: crate::capture::Use, _: bool) -> crate::capture::SocketFuture<'_> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test]
async fn a_connection_that_does_not_come_about_is_not_waited_for_long() {
    for (kind, does) in KINDS {
        let mut stage = Stage::new(kind);
        let limits = Limits { connect_timeout_ms: 100, ..Limits::default() };
        stage.forwarder = Forwarder::new(Arc::new(limits));
        let peer = stage.peer("remote", does).await;
        let mut departure = stage.departure(peer.address).await;
        let pod = Arc::new(Pod {
            id: PodId { slot: 0, generation: 0 },
            name: "datamesh/sleep".parse().unwrap(),
            addresses: Vec::new(),
            probes: Vec::new(),
            transparent: false,
        });
        let permitted = crate::authorize::pass_outside(&pod, peer.address);
        let kernel = Kernel { plumbing: Arc::new(Dry), dice: crate::dice::Dice::new() };
        departure.origin = Origin::Pod(Arc::new(kernel), Arc::new(permitted));
        let fault = stage.reach(&departure).await.map(drop).unwrap_err();
        assert_eq!(fault, UpstreamFault::ConnectTimeout);
    }
}

#[tokio::test]
async fn without_a_certificate_nobody_is_called() {
    for (kind, does) in KINDS {
        let mut stage = Stage::new(kind);
        let limits = Limits { connect_timeout_ms: 100, ..Limits::default() };
        stage.forwarder = Forwarder::new(Arc::new(limits));
        let peer = stage.peer("remote", does).await;
        let mut departure = stage.departure(peer.address).await;
        // A workload whose account has none.
        let whose = crate::secure::Whose::Workload("datamesh/nobody".parse().unwrap());
        departure.own = stage.peers.certificates.of(whose);
        let fault = stage.reach(&departure).await.map(drop).unwrap_err();
        assert_eq!(fault, refused("no_own_certificate"));
        assert!(peer.seen().is_empty() && peer.failed() == 0);
    }
}

#[tokio::test]
async fn the_first_certificate_is_waited_for() {
    for (kind, does) in KINDS {
        let stage = Stage::new(kind);
        let peer = stage.peer("remote", does).await;
        stage.peers.withdraw("other");
        let mut departure = stage.departure(peer.address).await;
        // Of a workload whose certificate is still to come.
        let whose = crate::secure::Whose::Workload("datamesh/late".parse().unwrap());
        departure.own = stage.peers.certificates.of(whose);
        let (reached, ()) = tokio::join!(stage.reach(&departure), async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            stage.peers.renew("other");
        });
        assert_eq!(round(&mut reached.unwrap().wire, b"hello").await.unwrap(), b"hello");
        assert_eq!(peer.seen()[0].client.as_ref().unwrap().to_string(), id("other"));
    }
}

#[tokio::test]
async fn a_silent_peer_is_not_waited_for_long() {
    for (kind, _) in KINDS {
        let mut stage = Stage::new(kind);
        let limits = Limits { handshake_timeout_ms: 100, ..Limits::default() };
        stage.forwarder = Forwarder::new(Arc::new(limits));
        let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = silent.local_addr().unwrap();
        assert_eq!(stage.fault(address).await, refused("handshake_timeout"));
    }
}

#[tokio::test]
async fn a_tunnel_to_ourselves_is_refused() {
    for (kind, does) in KINDS {
        let stage = Stage::new(kind);
        let peer = stage.peer("remote", does).await;
        stage.forwarder.set_own(vec![peer.address]);
        assert_eq!(stage.fault(peer.address).await, TunnelFault::Loop.into());
        assert_eq!((peer.seen().len(), peer.failed()), (0, 0));
    }
}

#[tokio::test]
async fn tunnels_of_one_workload_share_a_connection_and_others_do_not() {
    let stage = Stage::new(TunnelKind::Hbone);
    let peer = stage.peer("remote", Does::EchoTunnels).await;
    let mut departure = stage.departure(peer.address).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(stage.reach(&departure).await.unwrap());
    }
    // Another account, and then another pod of the same.
    departure.own = stage.peers.of("datamesh/remote").await;
    held.push(stage.reach(&departure).await.unwrap());
    let connections: Vec<_> = peer.asked().iter().map(|asked| asked.connection).collect();
    assert_eq!(connections, [1, 1, 1, 2]);
    let clients: Vec<_> = peer.seen().into_iter().map(|seen| seen.client.unwrap().to_string()).collect();
    assert_eq!(clients, [id("default"), id("remote")]);
}

#[tokio::test]
async fn a_new_certificate_is_used_for_new_tunnels_and_ends_no_old_one() {
    let stage = Stage::new(TunnelKind::Hbone);
    let peer = stage.peer("remote", Does::EchoTunnels).await;
    let departure = stage.departure(peer.address).await;
    let mut old = stage.reach(&departure).await.unwrap();
    let before = departure.own.generation();
    stage.peers.renew("default");
    eventually(async || departure.own.generation() > before).await;
    let mut fresh = stage.reach(&departure).await.unwrap();
    assert_eq!(round(&mut old.wire, b"old").await.unwrap(), b"old");
    assert_eq!(round(&mut fresh.wire, b"new").await.unwrap(), b"new");
    assert_eq!(peer.seen().len(), 2);
}

#[tokio::test]
async fn who_is_trusted_no_longer_is_cut_off() {
    for (kind, does) in KINDS {
        let stage = Stage::new(kind);
        let peer = stage.peer("remote", does).await;
        let mut reached = stage.reach(&stage.departure(peer.address).await).await.unwrap();
        assert_eq!(round(&mut reached.wire, b"hello").await.unwrap(), b"hello");
        stage.peers.trust(&Authority::mint("others").unwrap());
        assert_eq!(timeout(LONG, reached.verified.lost()).await.unwrap(), "incomplete_chain");
    }
}

#[tokio::test]
async fn another_identity_at_the_destination_ends_its_connections() {
    for (kind, does) in KINDS {
        let stage = Stage::new(kind);
        let peer = stage.peer("remote", does).await;
        let departure = stage.departure(peer.address).await;
        let mut reached = stage.reach(&departure).await.unwrap();
        // The same again changes nothing.
        stage.publish(peer.address, |_| {});
        assert_eq!(round(&mut reached.wire, b"hello").await.unwrap(), b"hello");
        let lost = timeout(Duration::from_millis(50), reached.verified.lost()).await;
        assert!(lost.is_err(), "{lost:?}");
        stage.publish(peer.address, |remote| remote.service_account = Some("other".to_owned()));
        assert_eq!(timeout(LONG, reached.verified.lost()).await.unwrap(), "destination_changed");
    }
}

#[tokio::test]
async fn another_identity_of_our_own_ends_its_connections() {
    for (kind, does) in KINDS {
        let stage = Stage::new(kind);
        let peer = stage.peer("remote", does).await;
        let mut reached = stage.reach(&stage.departure(peer.address).await).await.unwrap();
        stage.world.publish_with(&[BASE], 9, |mesh| {
            let address = (kind == TunnelKind::Hbone).then_some(peer.address);
            mesh.tunnels.insert(REMOTE.to_owned(), TunnelSettings { kind, address });
            let sleep = mesh.workloads.iter_mut().find(|one| one.name == "datamesh/sleep").unwrap();
            sleep.service_account = Some("other".to_owned());
        });
        assert_eq!(timeout(LONG, reached.verified.lost()).await.unwrap(), "own_identity_changed");
    }
}

/// Each counts its own certificates: the same number of them does not make one of two.
#[tokio::test]
async fn what_one_workload_keeps_is_not_used_by_another_of_the_same_account() {
    for (kind, does) in KINDS {
        let stage = Stage::new(kind);
        let peer = stage.peer("remote", does).await;
        let sleep = stage.departure(peer.address).await;
        let twin = Departure { own: stage.peers.of("datamesh/twin").await, ..sleep.clone() };
        let outwards = &stage.forwarder.outwards;
        let kept = outwards.pool(&sleep).await.unwrap();
        stage.world.publish_with(&[BASE], 9, |mesh| {
            let address = (kind == TunnelKind::Hbone).then_some(peer.address);
            mesh.tunnels.insert(REMOTE.to_owned(), TunnelSettings { kind, address });
            let sleep = mesh.workloads.iter_mut().find(|one| one.name == "datamesh/sleep").unwrap();
            sleep.service_account = Some("other".to_owned());
        });
        eventually(async || sleep.own.identity().is_some_and(|own| own.to_string() == id("other"))).await;
        let twins = outwards.pool(&twin).await.unwrap();
        assert!(!Arc::ptr_eq(&kept, &twins));
        let _connection = twins.open().await.unwrap();
        eventually(async || !peer.seen().is_empty()).await;
        assert_eq!(peer.seen()[0].client.as_ref().unwrap().to_string(), id("default"));
    }
}

#[tokio::test]
async fn a_kept_upstream_fails_once_its_server_is_verified_no_longer() {
    let stage = Stage::new(TunnelKind::Sidecar);
    let peer = stage.peer("remote", Does::EchoTls).await;
    let Reached { wire, verified, .. } = stage.reach(&stage.departure(peer.address).await).await.unwrap();
    let Verified::Tls(lost) = verified else { panic!("TLS") };
    let mut upstream = crate::forward::Upstream::until(wire, lost);
    upstream.write_all(b"hello").await.unwrap();
    upstream.flush().await.unwrap();
    upstream.read_exact(&mut [0; 5]).await.unwrap();
    stage.peers.trust(&Authority::mint("others").unwrap());
    let ended = timeout(LONG, upstream.read(&mut [0; 1])).await.unwrap();
    assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    assert!(upstream.write_all(b"more").await.is_err());
}

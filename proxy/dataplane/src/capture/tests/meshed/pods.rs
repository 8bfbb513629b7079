//! From a captured pod to servers of these tests.

use super::*;

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

/// The addresses of these tests are loopback's, which are everybody's; of others the snapshot's own tests tell.
#[tokio::test]
async fn a_services_workload_is_reached_as_itself_at_an_address_that_is_anothers_too() {
    let stage = Stage::new(&[BASE, SERVICE]).await;
    let address = SocketAddr::new(stage.node.address(10), 8080);
    let owner = stage.tunnels("owner", Does::EchoTunnels).await;
    let remote = stage.tunnels("remote", Does::EchoTunnels).await;
    for (peer, is_right) in [(&owner, false), (&remote, true)] {
        stage.publish(|mesh| {
            let tunnel = |address| TunnelSettings { kind: TunnelKind::Hbone, address: Some(address) };
            mesh.tunnels.insert(REMOTE.to_owned(), tunnel(peer.address));
            mesh.tunnels.insert(OWNER.to_owned(), tunnel(owner.address));
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
    assert!(owner.asked().is_empty());
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

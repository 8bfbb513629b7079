//! From a gateway.

use super::*;

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

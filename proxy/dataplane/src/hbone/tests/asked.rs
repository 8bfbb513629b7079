//! What a CONNECT may be, and what is answered.

use http::Method;

use super::{frames::Frames, *};

#[tokio::test]
async fn a_tunnel_leads_to_the_pods_address_and_nowhere_else() {
    let stage = Stage::new(NOBODY).await;
    let app = App::mirror(stage.ip).await;
    let tunnels = stage.open("client").await;
    let (ip, port) = (stage.ip, app.port());
    let bad = [
        ("hbone_authority", format!("user@{ip}:{port}")),
        ("hbone_authority", format!("user:secret@{ip}:{port}")),
        ("hbone_authority", format!("[::ffff:{ip}]:{port}")),
        ("hbone_authority", format!("[fe80::1%25eth0]:{port}")),
        ("hbone_authority", format!("0{ip}:{port}")),
        ("hbone_authority", format!("{ip}:0{port}")),
        ("hbone_authority", format!("{ip}:0")),
        ("hbone_authority", format!("{ip}:65536")),
        ("hbone_authority", format!("{ip}:{}", 65_536 + u32::from(port))),
        ("hbone_authority", ip.to_string()),
        ("hbone_authority", format!("localhost:{port}")),
        ("hbone_authority", format!("fhir-service.datamesh.svc.cluster.local:{port}")),
        ("hbone_not_the_workloads_address", format!("127.0.0.1:{port}")),
        ("hbone_not_the_workloads_address", format!("10.0.0.7:{port}")),
        ("hbone_not_the_workloads_address", format!("[::1]:{port}")),
        ("hbone_not_the_workloads_address", format!("[2001:db8::1]:{port}")),
        ("hbone_own_port", format!("{ip}:15008")),
        ("hbone_own_port", format!("{ip}:15001")),
        ("hbone_own_port", format!("{ip}:15006")),
    ];
    for (reason, authority) in bad {
        let Ok(request) = Request::connect(&authority).body(()) else {
            assert_eq!(super::super::connect::address(&authority), None);
            continue;
        };
        // The codec may find it malformed by itself.
        let Ok((status, ..)) = tunnels.ask(request).await else { continue };
        assert_eq!(status, 400, "{authority}");
        let shown = authority.rsplit_once('@').map_or(&*authority, |(_, host)| host);
        let story = stage.story(|story| story.authority == shown && story.details == reason).await;
        assert_eq!((story.status, story.refused), (Some(400), Some(reason)), "{authority}");
        assert_eq!(story.source.principal.as_deref(), Some(id("client").as_str()));
        assert!(!story.authority.contains("secret"));
    }
    let connect = || Request::connect(stage.at(port));
    for (reason, request) in [
        ("hbone_body", connect().header("content-length", "5")),
        ("hbone_body", connect().header("content-length", "0")),
        ("hbone_host", connect().header("host", "elsewhere.example:80")),
    ] {
        let answer = tunnels.ask(request.body(()).unwrap()).await.map(|(status, ..)| status);
        assert!(answer.is_err() || answer.is_ok_and(|status| status == 400), "{reason}");
    }
    for method in [Method::GET, Method::POST, Method::OPTIONS, Method::DELETE] {
        let uri = format!("https://{}/", stage.at(port));
        let request = Request::builder().method(&method).uri(uri).body(()).unwrap();
        assert_eq!(tunnels.ask(request).await.unwrap().0, 400, "{method}");
        stage.story(|story| story.details == "hbone_method" && story.method == method.as_str()).await;
    }
    assert_eq!(app.count(), 0);
    let mut tunnel = tunnels.tunnel(&stage.at(port)).await;
    assert!(get_through(&mut tunnel, "/", "").await.starts_with("HTTP/1.1 200"));
    let story = stage.story(|story| story.status == Some(200)).await;
    assert_eq!(story.source.principal.as_deref(), Some(id("client").as_str()));
    assert!(story.mutual_tls && !story.from_kernel);
}

/// What an HTTP/2 library does not let one say.
#[tokio::test]
async fn a_connect_with_a_path_a_scheme_or_a_protocol_opens_nothing() {
    let stage = Stage::new(NOBODY).await;
    let app = App::mirror(stage.ip).await;
    let authority = stage.at(app.port());
    for extra in [
        vec![(":path", "/")],
        vec![(":scheme", "https")],
        vec![(":scheme", "https"), (":path", "/")],
        vec![(":protocol", "websocket")],
        vec![(":protocol", "websocket"), (":scheme", "https"), (":path", "/")],
        vec![("connection", "close")],
        vec![("transfer-encoding", "chunked")],
        vec![("content-length", "5")],
        vec![("Upper", "x")],
        vec![(":authority", "10.0.0.7:80")],
    ] {
        let mut frames = Frames::over(stage.dial(stage.entrance, "client").await).await;
        let mut fields = vec![(":method", "CONNECT"), (":authority", authority.as_str())];
        fields.extend(&extra);
        frames.headers(1, &fields, true).await;
        let seen = frames.answer(1).await;
        assert_ne!(seen, Some(200), "{extra:?}");
    }
    // Repeated ones, and none.
    for fields in [
        vec![(":method", "CONNECT")],
        vec![(":authority", authority.as_str())],
        vec![(":method", "CONNECT"), (":method", "CONNECT"), (":authority", &authority)],
    ] {
        let mut frames = Frames::over(stage.dial(stage.entrance, "client").await).await;
        frames.headers(1, &fields, true).await;
        assert_ne!(frames.answer(1).await, Some(200), "{fields:?}");
    }
    let mut frames = Frames::over(stage.dial(stage.entrance, "client").await).await;
    frames.headers(1, &[(":method", "CONNECT"), (":authority", &authority)], true).await;
    assert_eq!(frames.answer(1).await, Some(200), "the frames themselves are good");
    assert_eq!(app.count(), 0, "nobody has said anything");
}

#[tokio::test]
async fn a_listener_leads_to_its_workloads_port_alone() {
    let app = App::mirror(Ipv4Addr::LOCALHOST.into()).await;
    let stage = Stage::with(NOBODY, Limits::default(), Some(app.address)).await;
    let tunnels = Tunnels::over(stage.dial(stage.listener, "client").await).await;
    for authority in
        [stage.at(app.port()), stage.at(15_008), "127.0.0.1:22".to_owned(), "10.0.0.7:8080".to_owned()]
    {
        assert_eq!(tunnels.status(&authority).await.unwrap(), 400, "{authority}");
    }
    for authority in [stage.at(LISTENED), format!("127.0.0.1:{LISTENED}")] {
        let mut tunnel = tunnels.tunnel(&authority).await;
        let answer = get_through(&mut tunnel, "/x", "").await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("GET /x "), "{answer}");
    }
    // Raw bytes too.
    let echo = App::echo(Ipv4Addr::LOCALHOST.into()).await;
    let stage = Stage::with(NOBODY, Limits::default(), Some(echo.address)).await;
    let tunnels = Tunnels::over(stage.dial(stage.listener, "client").await).await;
    let mut tunnel = tunnels.tunnel(&stage.at(LISTENED)).await;
    tunnel.write_all(b"\x80\x01raw").await.unwrap();
    let mut back = [0; 5];
    in_time(tunnel.read_exact(&mut back)).await.unwrap();
    assert_eq!(&back, b"\x80\x01raw");
}

#[tokio::test]
async fn a_declared_port_that_nobody_listens_at_is_told_by_the_answer() {
    let closed = { TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap().port() };
    let service = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: db, namespace: datamesh}}\n\
         spec: {{selector: {{app: fhir-server}}, ports: [{{port: {closed}, name: tcp-db}}]}}\n"
    );
    let stage = Stage::new(&[BASE, &service]).await;
    let tunnels = stage.open("client").await;
    assert_eq!(tunnels.status(&stage.at(closed)).await.unwrap(), 503);
    let story = stage.story(|story| story.status == Some(503)).await;
    assert_eq!(story.flags, "UF", "{story:?}");
}

#[tokio::test]
async fn a_tunnel_too_many_is_refused_and_its_place_comes_back() {
    let limits = Limits { connections_per_pod: 2, ..Limits::default() };
    let stage = Stage::with(NOBODY, limits, None).await;
    let app = App::echo(stage.ip).await;
    // The connection itself is one.
    let tunnels = stage.open("client").await;
    let first = tunnels.tunnel(&stage.at(app.port())).await;
    assert_eq!(tunnels.status(&stage.at(app.port())).await.unwrap(), 503);
    let story = stage.story(|story| story.status == Some(503)).await;
    assert_eq!((story.flags, story.refused), ("UO", Some("connections_per_pod")));
    drop(first);
    eventually(async || tunnels.status(&stage.at(app.port())).await.unwrap() == 200).await;
}

#[tokio::test]
async fn who_has_no_certificate_or_a_bad_one_or_no_tls_opens_nothing() {
    let stage = Stage::new(NOBODY).await;
    let app = App::echo(stage.ip).await;
    let foreign = stage.peers.leaf("spiffe://elsewhere.example/ns/datamesh/sa/client");
    let other = certs::Authority::mint("other").unwrap();
    let unknown = other.issue_odd(&certs::OddRequest::workload(id("client"))).unwrap();
    for (leaf, reason) in [
        (None, "no_certificate"),
        (Some(&foreign), "unknown_trust_domain"),
        (Some(&unknown), "incomplete_chain"),
    ] {
        for entrance in [stage.entrance, stage.listener] {
            // TLS 1.3 lets the client believe that it is through.
            if let Ok(mut io) = stage.dial_with(entrance, leaf).await {
                let _ = io.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
                let mut said = Vec::new();
                let read = in_time(io.read_to_end(&mut said)).await;
                assert!(read.is_err() && said.is_empty(), "{reason}: {said:?}");
            }
        }
        let story = stage.story(|story| story.refused == Some(reason)).await;
        assert!(story.source.address.is_some() && story.source.principal.is_none());
    }
    for first in ["GET / HTTP/1.1\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "\0"] {
        let mut socket = TcpStream::connect(stage.entrance).await.unwrap();
        socket.write_all(first.as_bytes()).await.unwrap();
        let error = in_time(socket.read_u8()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        stage.story(|story| story.refused == Some("hbone_plaintext")).await;
    }
    assert_eq!(app.count(), 0);
}

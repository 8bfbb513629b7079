//! What each mode of PeerAuthentication takes and refuses.

use super::*;
use observe::record::Protocol;

const DISABLE: &str = r#"
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: datamesh}
spec: {mtls: {mode: DISABLE}}
"#;

#[tokio::test]
async fn strict_takes_the_meshs_tls_whatever_it_asks_for() {
    let stage = Stage::new(&[BASE, STRICT]).await;
    let app = mirror(stage.node.server.ip).await;
    let asked: [&[&[u8]]; 4] = [HTTP1, BYTES, &[], &[b"istio-peer-exchange", b"istio"]];
    for (index, alpn) in asked.into_iter().enumerate() {
        let mut client = stage.secured(&app, alpn).await;
        let forged = "x-forwarded-client-cert: By=x;URI=spiffe://cluster.local/ns/a/sa/b\r\n";
        let (status, head) = request(&mut client, &get("/", forged)).await;
        assert_eq!(status, 200);
        let certificates: Vec<_> =
            head.lines().filter(|l| l.starts_with("x-forwarded-client-cert")).collect();
        let wanted = format!("by={};", id("default"));
        assert!(certificates.len() == 1 && certificates[0].contains(&wanted), "{certificates:?}");
        assert!(certificates[0].contains(&format!("uri={}", id("sleep"))), "{certificates:?}");
        let story = stage.node.stories(index + 1).await.remove(index);
        assert_eq!(story.source.principal.as_deref(), Some(&*id("sleep")));
        assert_eq!((story.mutual_tls, story.from_kernel), (true, false));
    }
}

#[tokio::test]
async fn strict_refuses_everything_else_and_opens_nothing() {
    let stage = Stage::new(&[BASE, STRICT]).await;
    let app = App::echo(stage.node.server.ip).await;
    let nobody = Client::default();
    let old = Client { version: &rustls::version::TLS12, leaf: Some(stage.sleep()), ..Client::default() };
    let foreign = certs::Authority::mint("other").unwrap();
    let foreign = foreign.issue_odd(&certs::OddRequest::workload(id("sleep"))).unwrap();
    let foreign = Client { leaf: Some(foreign), ..Client::default() };
    for (index, (client, why)) in
        [(nobody, "no_certificate"), (old, "tls_incompatible"), (foreign, "incomplete_chain")]
            .into_iter()
            .enumerate()
    {
        let shaken = client.shake(stage.peers(), stage.call(&app).await).await;
        // TLS 1.3 lets a client believe that it is welcome until it reads.
        if let Ok(mut stream) = shaken {
            let _ = stream.write_all(&get("/", "").into_bytes()).await;
            let (bytes, ended) = last(&mut stream).await;
            assert!(bytes.is_empty() && ended.is_err(), "{why}");
        }
        let story = stage.node.stories(index + 1).await.remove(index);
        assert_eq!((story.refused, story.protocol), (Some(why), Protocol::Tcp));
        assert_eq!(story.source.principal, None);
    }
    assert_eq!(app.count(), 0);
}

#[tokio::test]
async fn strict_resets_plaintext_and_what_only_begins_as_tls() {
    let stage = Stage::new(&[BASE, STRICT]).await;
    let app = App::echo(stage.node.server.ip).await;
    let garbage = [&[22, 3, 1, 0, 5][..], b"hello"].concat();
    let said: [(&[u8], _); 4] = [
        (b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", "strict_plaintext"),
        (b"\0\0\0\x08\x04\xd2\x16\x2f", "strict_plaintext"),
        (b"\x15\x03\x01\0\x02\x01\0", "strict_plaintext"),
        (&garbage, "tls_malformed"),
    ];
    for (index, (bytes, why)) in said.into_iter().enumerate() {
        let mut client = stage.call(&app).await;
        let _ = client.write_all(bytes).await;
        if why == "strict_plaintext" {
            assert_reset(client).await;
        } else {
            // An alert of TLS, and nothing of the application.
            let (answer, _) = rest(&mut client).await;
            assert!(answer.is_empty() || answer.starts_with(&[0x15, 3]), "{answer:?}");
        }
        let told = stage.node.stories(index + 1).await.remove(index).refused.unwrap();
        assert!(told == why || (why == "tls_malformed" && told.starts_with("tls_")), "{told}");
    }
    assert_eq!(app.count(), 0);
}

#[tokio::test]
async fn a_refused_client_cannot_go_on_in_plaintext() {
    for manifests in [&[BASE, STRICT][..], &[BASE]] {
        let stage = Stage::new(manifests).await;
        let app = App::http(stage.node.server.ip).await;
        let mut tcp = stage.call(&app).await;
        let _ = Client::default().shake(stage.peers(), &mut tcp).await;
        let _ = tcp.write_all(get("/", "").as_bytes()).await;
        let (answer, _) = rest(&mut tcp).await;
        assert!(!String::from_utf8_lossy(&answer).contains("HTTP/1.1"), "{answer:?}");
        assert_eq!(app.count(), 0);
    }
}

#[tokio::test]
async fn permissive_tells_the_meshs_tls_from_the_applications() {
    let stage = Stage::new(&[BASE]).await;
    let app = App::echo(stage.node.server.ip).await;
    let the_meshs: [&[&[u8]]; 5] = [
        &[b"istio"],
        &[b"h2", b"istio-h2"],
        &[b"foo", b"istio-http/1.0"],
        HTTP1,
        &[b"h2", b"istio-peer-exchange"],
    ];
    for alpn in the_meshs {
        let client = Client { leaf: Some(stage.sleep()), alpn, ..Client::default() };
        client.shake(stage.peers(), stage.call(&app).await).await.unwrap();
    }
    assert_eq!(app.count(), 0, "nothing was said inside");
    let the_applications: [&[&[u8]]; 6] =
        [&[], &[b"h2"], &[b"http/1.1", b"foo"], &[b"istio2"], &[b"ISTIO"], &[b"h2,istio"]];
    for (index, alpn) in the_applications.into_iter().enumerate() {
        let client = Client { leaf: Some(stage.sleep()), alpn, sni: Some("db.example"), ..Client::default() };
        let hello = client.hello(stage.peers());
        let mut tcp = stage.call(&app).await;
        tcp.write_all(&hello).await.unwrap();
        tcp.shutdown().await.unwrap();
        assert_eq!(rest(&mut tcp).await.0, hello, "{alpn:?}: as it came");
        let story = stage.node.stories(index + 1).await.remove(index);
        assert_eq!((story.mutual_tls, story.source.principal), (false, None));
    }
}

#[tokio::test]
async fn permissive_takes_plaintext_and_mtls_side_by_side() {
    let stage = Stage::new(&[BASE]).await;
    let app = mirror(stage.node.server.ip).await;
    let mut plain = stage.call(&app).await;
    let (status, head) = request(&mut plain, &get("/", "x-forwarded-client-cert: URI=a\r\n")).await;
    assert_eq!((status, head.contains("client-cert")), (200, false), "{head}");
    let mut secured = stage.secured(&app, HTTP1).await;
    let (status, head) = request(&mut secured, &get("/", "")).await;
    assert_eq!((status, head.contains(&id("sleep"))), (200, true), "{head}");
    let stories = stage.node.stories(2).await;
    assert_eq!([stories[0].mutual_tls, stories[1].mutual_tls], [false, true]);
}

#[tokio::test]
async fn disable_passes_every_tls_on_to_the_application() {
    let stage = Stage::new(&[BASE, DISABLE]).await;
    let app = App::echo(stage.node.server.ip).await;
    for alpn in [HTTP1, &[]] {
        let hello = Client { alpn, ..Client::default() }.hello(stage.peers());
        let mut tcp = stage.call(&app).await;
        tcp.write_all(&hello).await.unwrap();
        tcp.shutdown().await.unwrap();
        assert_eq!(rest(&mut tcp).await.0, hello);
    }
}

#[tokio::test]
async fn a_port_may_have_a_mode_of_its_own() {
    let stage = Stage::new(&[BASE, STRICT]).await;
    let (one, other) = (mirror(stage.node.server.ip).await, mirror(stage.node.server.ip).await);
    let ports = format!(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: port, namespace: datamesh}}\n\
         spec: {{selector: {{matchLabels: {{app: fhir-server}}}}, mtls: {{mode: UNSET}}, \
         portLevelMtls: {{{}: {{mode: PERMISSIVE}}}}}}\n",
        one.address.port()
    );
    stage.node.world.publish(&[BASE, STRICT, &ports], 2);
    let mut plain = stage.call(&one).await;
    assert_eq!(request(&mut plain, &get("/", "")).await.0, 200);
    let mut refused = stage.call(&other).await;
    let _ = refused.write_all(get("/", "").as_bytes()).await;
    assert_reset(refused).await;
    let mut secured = stage.secured(&other, HTTP1).await;
    assert_eq!(request(&mut secured, &get("/", "")).await.0, 200);
}

#[tokio::test]
async fn a_policy_on_the_server_name_reads_the_meshs_own() {
    let deny = r#"
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: not-there, namespace: datamesh}
spec: {action: DENY, rules: [{when: [{key: connection.sni, values: [secret.example]}]}]}
"#;
    let stage = Stage::new(&[BASE, STRICT, deny]).await;
    let app = App::echo(stage.node.server.ip).await;
    for (outer, inner, passes) in
        [("open.example", "secret.example", true), ("secret.example", "open.example", false)]
    {
        let client = Client { leaf: Some(stage.sleep()), alpn: BYTES, sni: Some(outer), ..Client::default() };
        let mut stream = client.shake(stage.peers(), stage.call(&app).await).await.unwrap();
        let hello = Client { alpn: &[], sni: Some(inner), ..Client::default() }.hello(stage.peers());
        let _ = stream.write_all(&hello).await;
        let _ = stream.shutdown().await;
        let (back, _) = last(&mut stream).await;
        assert_eq!(back == hello, passes, "{outer}");
    }
}

#[tokio::test]
async fn http2_comes_by_istios_name_for_it() {
    let stage = Stage::new(&[BASE, STRICT]).await;
    let app = App::serve(stage.node.server.ip, |_, stream| async move {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((_, mut answer))) = connection.accept().await {
            answer.send_response(http::Response::new(()), true).unwrap();
        }
    })
    .await;
    let stream = stage.secured(&app, &[b"istio-h2"]).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"istio-h2"[..]));
    let (mut sender, connection) = in_time(h2::client::handshake(stream)).await.unwrap();
    let driving = tokio::spawn(connection);
    let ask = http::Request::get("https://fhir.example/").body(()).unwrap();
    let (response, _) = sender.send_request(ask, true).unwrap();
    assert_eq!(in_time(response).await.unwrap().status(), 200);
    driving.abort();
}

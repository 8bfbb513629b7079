//! STRICT, PERMISSIVE and DISABLE on one port; ALPN; what begins like TLS is never plaintext.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::sleep,
};

use super::stand::*;

async fn plain(stand: &Stand, bytes: &str) -> io::Result<String> {
    let mut socket = TcpStream::connect(stand.address()).await?;
    ask(&mut socket, bytes).await
}

#[tokio::test(flavor = "multi_thread")]
async fn strict_resets_plaintext_without_a_byte() {
    let stand = Stand::open(STRICT, "", "").await;
    for bytes in [get("/Patient").as_str(), "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "\0", "\x15\x03\x01"] {
        let error = plain(&stand, bytes).await.expect_err("a reset, not an end");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
    let label = ["reason=\"strict_plaintext\""];
    let counted =
        async || stand.proxy.metric("fhirward_connections_refused_total", &label).await.unwrap() == 4.0;
    stand.eventually("counted", counted).await;
    assert!(stand.get(&stand.leaf(CLIENT), "/Patient").await.unwrap().starts_with("HTTP/1.1 200"));
    assert_eq!(stand.store.requests(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn permissive_takes_both_on_one_port_and_strict_takes_over_while_it_runs() {
    let stand = Stand::open(PERMISSIVE, "", "").await;
    assert!(plain(&stand, &get("/Patient")).await.unwrap().starts_with("HTTP/1.1 200"));
    assert!(stand.get(&stand.leaf(CLIENT), "/Patient").await.unwrap().starts_with("HTTP/1.1 200"));
    // A connection that is open already is judged anew.
    let mut open = TcpStream::connect(stand.address()).await.unwrap();
    stand.proxy.write("manifests/mesh.yaml", STRICT).unwrap();
    stand.eventually("strict", async || plain(&stand, &get("/Patient")).await.is_err()).await;
    let answer = ask(&mut open, &get("/Patient")).await;
    assert!(answer.as_ref().map_or(true, |answer| !answer.contains("200")), "{answer:?}");
    assert!(stand.get(&stand.leaf(CLIENT), "/Patient").await.unwrap().starts_with("HTTP/1.1 200"));
}

#[tokio::test(flavor = "multi_thread")]
async fn disable_is_plaintext_only() {
    let stand = Stand::open(DISABLE, "", "").await;
    assert!(plain(&stand, &get("/Patient")).await.unwrap().starts_with("HTTP/1.1 200"));
    assert!(stand.get(&stand.leaf(CLIENT), "/Patient").await.is_err());
    assert_eq!(stand.store.requests(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_client_hello_is_never_plaintext() {
    let stand = Stand::open(PERMISSIVE, "", "limits: {handshakeTimeoutMs: 1500}").await;
    // One byte of a ClientHello, and no more: closed in time, unanswered.
    let mut socket = TcpStream::connect(stand.address()).await.unwrap();
    socket.write_all(&[0x16]).await.unwrap();
    let mut bytes = Vec::new();
    let _ = tokio::time::timeout(SOON, socket.read_to_end(&mut bytes)).await.expect("closed in time");
    assert!(!String::from_utf8_lossy(&bytes).contains("HTTP"), "{bytes:?}");
    // A first byte of TLS and then a request: no request.
    let answer = plain(&stand, &format!("\x16{}", get("/Patient"))).await;
    assert!(answer.as_ref().map_or(true, |answer| !answer.contains("HTTP")), "{answer:?}");
    // Slow to say anything at all, and TLS in the end.
    let socket = TcpStream::connect(stand.address()).await.unwrap();
    sleep(Duration::from_millis(2_000)).await;
    let client = Arc::new(stand.client(Some(&stand.leaf(CLIENT)), &[]));
    let name = rustls_pki_types::ServerName::try_from("fhir.example").unwrap();
    let mut io = tokio_rustls::TlsConnector::from(client).connect(name, socket).await.unwrap();
    assert!(ask(&mut io, &get("/Patient")).await.unwrap().starts_with("HTTP/1.1 200"));
    assert_eq!(stand.store.requests(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_name_that_sidecars_use_is_spoken() {
    let stand = Stand::open(STRICT, "", "").await;
    let leaf = stand.leaf(CLIENT);
    // What Istio's sidecars offer for HTTP/1.1, HTTP/1.0, raw bytes; each alone; none.
    for (offered, agreed) in [
        (&["istio-http/1.1", "istio", "http/1.1"][..], Some("http/1.1")),
        (&["istio-http/1.0", "istio", "http/1.0"], Some("istio-http/1.0")),
        (&["istio-peer-exchange", "istio"], Some("istio")),
        (&["istio-http/1.1"], Some("istio-http/1.1")),
        (&["istio-peer-exchange"], Some("istio-peer-exchange")),
        (&["istio"], Some("istio")),
        (&[], None),
    ] {
        let client = Arc::new(stand.client(Some(&leaf), offered));
        let mut io = connect(stand.address(), &client, "fhir.example").await.unwrap();
        let got = io.get_ref().1.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned());
        assert_eq!(got.as_deref(), agreed, "{offered:?}");
        assert!(ask(&mut io, &get("/Patient")).await.unwrap().starts_with("HTTP/1.1 200"), "{offered:?}");
    }
    for offered in [&["istio-h2", "istio", "h2"][..], &["istio-h2"], &["h2"]] {
        let client = Arc::new(stand.client(Some(&leaf), offered));
        let io = connect(stand.address(), &client, "fhir.example").await.unwrap();
        let (mut send, connection) = h2::client::handshake(io).await.unwrap();
        tokio::spawn(connection);
        let request = http::Request::get("https://fhir.example/Patient").body(()).unwrap();
        let (response, _) = send.send_request(request, true).unwrap();
        assert_eq!(response.await.unwrap().status(), 200, "{offered:?}");
    }
    let client = Arc::new(stand.client(Some(&leaf), &["smtp"]));
    assert!(connect(stand.address(), &client, "fhir.example").await.is_err());
    stand.eventually("counted", async || stand.handshakes("no_common_alpn").await == 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_1_2_only_where_it_is_allowed() {
    for (certificates, allowed) in [("", false), ("    tls12: true", true)] {
        let stand = Stand::open(STRICT, certificates, "").await;
        let leaf = stand.leaf(CLIENT);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let old = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS12])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(stand.verifier()))
            .with_client_auth_cert(leaf.chain_der(), leaf.key_der())
            .unwrap();
        let connected = connect(stand.address(), &Arc::new(old), "fhir.example").await;
        assert_eq!(connected.is_ok(), allowed, "{connected:?}");
        match connected {
            Ok(mut io) => {
                assert!(ask(&mut io, &get("/Patient")).await.unwrap().starts_with("HTTP/1.1 200"));
            }
            Err(_) => {
                let counted = async || stand.handshakes("tls_incompatible").await == 1.0;
                stand.eventually("counted", counted).await;
            }
        }
    }
}

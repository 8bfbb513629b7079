//! What is HTTP, and what is not; and that the doubt is never the policies' loss.

use super::{apps::App, *};
use crate::testing::{BASE, ROLES};

const GETS: &str = r#"
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: gets, namespace: datamesh}
spec:
  selector: {matchLabels: {app: fhir-server}}
  rules: [{to: [{operation: {methods: [GET]}}]}]
"#;

/// Verifies tokens, and says nothing about requests without one.
const TOKENS: &str = r#"
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: jwt, namespace: datamesh}
spec:
  selector: {matchLabels: {app: fhir-server}}
  jwtRules: [{issuer: "https://idp.example/realms/r", jwksUri: "https://idp.example/certs"}]
"#;

/// What is no request, or not at once.
const DISGUISES: [&[u8]; 6] = [
    b"\x80\x81\x82",
    b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00",
    b"EHLO there\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n",
    b"\0\0\0\x08\x04\xd2\x16/",
    b"HELLO\r\n",
    b"PRIX\r\n",
];

#[tokio::test]
async fn bytes_that_are_no_request_do_not_get_past_rules_of_requests() {
    for manifest in [GETS, ROLES] {
        let node = Node::new(&[BASE, manifest]).await;
        let app = App::echo(node.server.ip).await;
        for disguise in DISGUISES {
            let mut client = node.connect(&node.sleep, app.address).await;
            let _ = client.write_all(disguise).await;
            let _ = client.shutdown().await;
            let (bytes, _) = rest(&mut client).await;
            assert_eq!(bytes, b"", "{:?}", String::from_utf8_lossy(disguise));
        }
        assert_eq!(app.count(), 0, "{manifest}");
    }
}

#[tokio::test]
async fn silence_does_not_either_and_a_slow_request_is_still_judged() {
    for manifest in [GETS, TOKENS, ROLES] {
        let settings = CaptureSettings { detect_timeout_ms: 20, ..CaptureSettings::default() };
        let node = Node::build(Build { manifests: &[BASE, manifest], settings, ..Build::default() }).await;
        let (heard, mut told) = mpsc::channel(16);
        let app = App::serve(node.server.ip, move |_, mut stream| {
            let heard = heard.clone();
            async move {
                let (bytes, _) = rest(&mut stream).await;
                if !bytes.is_empty() {
                    heard.send(bytes).await.unwrap();
                }
            }
        })
        .await;
        for pause in [&b""[..], b"P", b"\r\n"] {
            let mut client = node.connect(&node.sleep, app.address).await;
            client.write_all(pause).await.unwrap();
            tokio::time::sleep(Duration::from_millis(200)).await;
            let forged = get("/", "authorization: Bearer a.b.c\r\n").replace("GET", "POST");
            let rest = forged.strip_prefix("P").filter(|_| pause == b"P").unwrap_or(&forged);
            let (status, _) = ask(&mut client, rest).await;
            assert!([401, 403].contains(&status), "{status} {pause:?} {manifest}");
        }
        assert!(told.try_recv().is_err(), "not one byte of it");
    }
}

#[tokio::test]
async fn a_server_that_speaks_first_is_none_of_http_and_one_that_closes_has_not_spoken() {
    let settings = CaptureSettings { detect_timeout_ms: 20, ..CaptureSettings::default() };
    let node = Node::build(Build { manifests: &[BASE, TOKENS], settings, ..Build::default() }).await;
    let app = App::serve(node.server.ip, |number, mut stream| async move {
        if number == 0 {
            stream.write_all(b"220 ready\r\n").await.unwrap();
            let (mut read, mut write) = stream.split();
            let _ = tokio::io::copy(&mut read, &mut write).await;
        }
    })
    .await;
    let mut client = node.connect(&node.sleep, app.address).await;
    let mut banner = [0; 11];
    in_time(client.read_exact(&mut banner)).await.unwrap();
    assert_eq!(&banner, b"220 ready\r\n");
    client.write_all(b"HELO a\r\n").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(rest(&mut client).await.0, b"HELO a\r\n");
    let mut client = node.connect(&node.sleep, app.address).await;
    assert_eq!(rest(&mut client).await.0, b"", "closed with it");
}

#[tokio::test]
async fn requests_are_http_however_they_begin() {
    let node = Node::new(&[BASE, GETS]).await;
    let app = App::http(node.server.ip).await;
    for (start, wanted) in
        [("\r\n", 200), ("", 200), ("\r\n\r\n", 400), ("  ", 400), ("\0", 400), ("\x0b", 400)]
    {
        let mut client = node.connect(&node.sleep, app.address).await;
        let (status, _) = ask(&mut client, &format!("{start}{}", get("/", ""))).await;
        assert_eq!(status, wanted, "{start:?}");
        let mut client = node.connect(&node.sleep, app.address).await;
        let post = get("/", "").replace("GET", "POST");
        let (status, _) = ask(&mut client, &format!("{start}{post}")).await;
        assert!([400, 403].contains(&status), "{status} {start:?}");
    }
    let mut client = node.connect(&node.sleep, app.address).await;
    for byte in get("/slow", "").bytes() {
        client.write_all(&[byte]).await.unwrap();
    }
    assert_eq!(answer(&mut client).await.0, 200, "byte by byte");
}

#[tokio::test]
async fn a_partial_preface_is_http_and_answered_as_such() {
    let limits = Limits { head_timeout_ms: 200, ..Limits::default() };
    let node = Node::build(Build { manifests: &[BASE, GETS], limits, ..Build::default() }).await;
    let app = App::http(node.server.ip).await;
    for partial in [&b"PRI * HTTP/2.0\r\n\r\nSM"[..], b"PRI * HT", b"PRI * HTTP/2.0\r\n\r\nXX"] {
        let mut client = node.connect(&node.sleep, app.address).await;
        client.write_all(partial).await.unwrap();
        let (said, _) = rest(&mut client).await;
        assert!(said.is_empty() || said.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&said));
    }
    assert_eq!(app.count(), 0);
}

#[tokio::test]
async fn http2_is_judged_and_reaches_the_application_as_http2() {
    let node = Node::new(&[BASE, GETS]).await;
    let app = App::serve(node.server.ip, |_, stream| async move {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            let answer = http::Response::builder().header("seen", request.uri().path()).body(()).unwrap();
            respond.send_response(answer, true).unwrap();
        }
    })
    .await;
    let client = node.connect(&node.sleep, app.address).await;
    let (mut send, connection) = h2::client::handshake(client).await.unwrap();
    tokio::spawn(connection);
    for (method, wanted) in [("GET", 200), ("POST", 403), ("GET", 200)] {
        let request = http::Request::builder().method(method).uri("http://fhir.example/p").body(()).unwrap();
        let (response, _) = send.send_request(request, true).unwrap();
        assert_eq!(in_time(response).await.unwrap().status(), wanted);
    }
    assert_eq!(app.count(), 1);
}

const DECLARED: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: declared, namespace: datamesh}
spec: {selector: {app: fhir-server}, ports: [{name: NAME, port: 80, targetPort: PORT}]}
"#;

async fn declared(name: &str, more: &str) -> (Node, App) {
    let app = App::echo([0, 0, 0, 0].into()).await;
    let service = DECLARED.replace("NAME", name).replace("PORT", &app.address.port().to_string());
    let node = Node::new(&[BASE, &service, more]).await;
    let address = SocketAddr::new(node.server.ip, app.address.port());
    (node, App { address, ..app })
}

#[tokio::test]
async fn what_a_service_declares_wins() {
    let (node, app) = declared("tcp-db", TOKENS).await;
    let mut client = node.connect(&node.sleep, app.address).await;
    let request = get("/", "authorization: Bearer a.b.c\r\n");
    client.write_all(request.as_bytes()).await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(rest(&mut client).await.0, request.as_bytes(), "raw, as declared");

    let (node, app) = declared("tcp-db", GETS).await;
    assert_reset(node.connect(&node.sleep, app.address).await).await;
    assert_eq!(app.count(), 0, "rules of requests have no ALLOW for raw bytes, declared or not");

    let (node, app) = declared("http-api", GETS).await;
    let mut client = node.connect(&node.sleep, app.address).await;
    client.write_all(b"\x80\x81\r\n\r\n").await.unwrap();
    assert!(rest(&mut client).await.0.starts_with(b"HTTP/1.1 400"), "HTTP, as declared");
    assert_eq!(app.count(), 0);
}

#[tokio::test]
async fn tls_up_to_the_application_is_judged_by_the_name_it_asks_for() {
    let deny = r#"
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: not-there, namespace: datamesh}
spec: {action: DENY, rules: [{when: [{key: connection.sni, values: [secret.example]}]}]}
"#;
    let node = Node::new(&[BASE, deny]).await;
    let app = App::echo(node.server.ip).await;
    for (name, passes) in [("open.example", true), ("secret.example", false), ("SECRET.example", false)] {
        let hello = client_hello(name);
        let mut client = node.connect(&node.sleep, app.address).await;
        let _ = client.write_all(&hello).await;
        let _ = client.shutdown().await;
        let (back, _) = rest(&mut client).await;
        assert_eq!(back == hello, passes, "{name}");
        assert_eq!(back.is_empty(), !passes, "{name}");
    }
}

fn client_hello(name: &str) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    // rustls writes names in lower case; others need not.
    let server = rustls_pki_types::ServerName::try_from(name.to_ascii_lowercase()).unwrap();
    let mut connection = rustls::ClientConnection::new(Arc::new(config), server).unwrap();
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes).unwrap();
    let (lower, wanted) = (name.to_ascii_lowercase(), name.as_bytes());
    let at = bytes.windows(lower.len()).position(|window| window == lower.as_bytes()).unwrap();
    bytes[at..at + wanted.len()].copy_from_slice(wanted);
    bytes
}

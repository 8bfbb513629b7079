//! AuthorizationPolicies on the verified identity, and what the workload is told of it.

use std::sync::Arc;

use tests::harness::{ByteServer, Manner};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::stand::*;

const POLICY: &str = "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: who, namespace: datamesh}
spec:
  selector: {matchLabels: {app: fhir-server}}
  rules:
  - from: [{source: {principals: [cluster.local/ns/datamesh/sa/gateway]}}]
    to: [{operation: {paths: [/principal]}}]
  - from: [{source: {namespaces: [lab]}}]
    to: [{operation: {paths: [/namespace]}}]
  - from: [{source: {serviceAccounts: [lab/robot]}}]
    to: [{operation: {paths: [/account]}}]
  - from: [{source: {principals: [partner.example/*]}}]
    to: [{operation: {paths: [/partner]}}]
  - to: [{operation: {paths: [/sni]}}]
    when: [{key: connection.sni, values: [fhir.sni]}]
";

#[tokio::test(flavor = "multi_thread")]
async fn policies_on_identity_hold() {
    let manifests = format!("{PERMISSIVE}---\n{POLICY}");
    let stand = Stand::open(&manifests, "", "").await;
    let gateway = stand.leaf(CLIENT);
    let robot = usual(&stand.clients, "spiffe://cluster.local/ns/lab/sa/robot");
    let other = usual(&stand.clients, "spiffe://cluster.local/ns/lab/sa/other");
    let partner = usual(&stand.partners, "spiffe://partner.example/ns/lab2/sa/robot");
    let cases = [
        ("gateway", &gateway, ["/principal"].as_slice()),
        ("robot", &robot, &["/namespace", "/account"]),
        ("other", &other, &["/namespace"]),
        ("partner", &partner, &["/partner"]),
    ];
    for (who, leaf, may) in cases {
        for path in ["/principal", "/namespace", "/account", "/partner", "/sni"] {
            let answer = stand.get(leaf, path).await.unwrap();
            let denied = answer.starts_with("HTTP/1.1 403");
            assert_eq!(!denied, may.contains(&path), "{who} {path}: {answer}");
        }
    }
    for (sni, may) in [("fhir.sni", true), ("other.sni", false)] {
        let client = Arc::new(stand.client(Some(&gateway), &[]));
        let mut io = connect(stand.address(), &client, sni).await.unwrap();
        let answer = ask(&mut io, &get("/sni")).await.unwrap();
        assert_eq!(!answer.starts_with("HTTP/1.1 403"), may, "{sni}: {answer}");
    }
    let mut socket = tokio::net::TcpStream::connect(stand.address()).await.unwrap();
    let answer = ask(&mut socket, &get("/principal")).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 403"), "plaintext has no identity: {answer}");
    let labels = [
        "connection_security_policy=\"mutual_tls\"",
        "source_principal=\"spiffe://cluster.local/ns/lab/sa/robot\"",
    ];
    assert!(stand.proxy.metric("istio_requests_total", &labels).await.unwrap() >= 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_workload_is_told_of_the_client_by_us_alone() {
    let stand = Stand::open(PERMISSIVE, "", "").await;
    let forged = "GET /Patient HTTP/1.1\r\nhost: a\r\nx-forwarded-client-cert: URI=spiffe://forged\r\n\
                  X-Forwarded-Client-Cert: URI=spiffe://forged\r\nconnection: close\r\n\r\n";
    let leaf = stand.leaf(CLIENT);
    let client = Arc::new(stand.client(Some(&leaf), &[]));
    let mut io = connect(stand.address(), &client, "fhir.example").await.unwrap();
    assert!(ask(&mut io, forged).await.unwrap().starts_with("HTTP/1.1 200"));
    let mut socket = tokio::net::TcpStream::connect(stand.address()).await.unwrap();
    assert!(ask(&mut socket, forged).await.unwrap().starts_with("HTTP/1.1 200"));
    let seen = stand.store.recorded();
    let told: Vec<Vec<_>> = seen
        .iter()
        .map(|request| request.headers.get_all("x-forwarded-client-cert").iter().collect())
        .collect();
    let [by_mtls, by_plaintext] = told.as_slice() else { panic!("{seen:?}") };
    assert!(by_plaintext.is_empty(), "{by_plaintext:?}");
    let [only] = by_mtls.as_slice() else { panic!("{by_mtls:?}") };
    let only = only.to_str().unwrap();
    assert!(only.starts_with(&format!("By={SERVER};Hash=")), "{only}");
    assert!(only.ends_with(&format!(";Subject=\"CN=odd\";URI={CLIENT}")), "{only}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_client_of_a_server_that_speaks_first_reaches_nothing() {
    let application = ByteServer::start(Manner::Greets(b"ready\n")).await.unwrap();
    let manifests = format!("{STRICT}---\n{}", ONLY.replace("SOMEBODY", "robot"));
    let stand = Stand::before(application.address(), &manifests, "").await;
    let who = |account: &str| usual(&stand.clients, &format!("spiffe://cluster.local/ns/lab/sa/{account}"));
    for (leaf, permitted) in [(who("other"), false), (who("robot"), true)] {
        let client = Arc::new(stand.client(Some(&leaf), &["istio"]));
        let mut io = connect(stand.address(), &client, "fhir.example").await.unwrap();
        let mut greeting = [0_u8; 6];
        if !permitted {
            // No request: nothing that it could say is permitted either.
            io.write_all(b"\xff").await.unwrap();
        }
        let read = timeout(SOON, io.read(&mut greeting)).await.unwrap().unwrap_or(0);
        assert_eq!(
            (read, application.connections()),
            if permitted { (6, 1) } else { (0, 0) },
            "{greeting:?}"
        );
    }
}

const ONLY: &str = "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: only, namespace: datamesh}
spec:
  selector: {matchLabels: {app: fhir-server}}
  rules: [{from: [{source: {principals: [cluster.local/ns/lab/sa/SOMEBODY]}}]}]
";

//! Sessions are resumed, and not under another certificate, another trust or after the client's end.

use std::{sync::Arc, time::Duration};

use certs::{Leaf, OddRequest, Validity};
use rustls::{ClientConfig, HandshakeKind, client::Resumption};
use tokio::time::sleep;

use super::stand::*;

fn resuming(stand: &Stand, leaf: &Leaf) -> Arc<ClientConfig> {
    let mut client = stand.client(Some(leaf), &["http/1.1"]);
    client.resumption = Resumption::in_memory_sessions(8);
    client.enable_early_data = true;
    Arc::new(client)
}

/// How the handshake went, and the answer.
async fn visit(stand: &Stand, client: &Arc<ClientConfig>) -> (Option<HandshakeKind>, bool) {
    let mut io = connect(stand.address(), client, "fhir.example").await.unwrap();
    let answer = ask(&mut io, &get("/Patient")).await;
    let session = io.get_ref().1;
    assert!(!session.is_early_data_accepted(), "there is no early data");
    (session.handshake_kind(), answer.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_with_the_trust_that_it_began_with() {
    let stand = Stand::open(STRICT, "", "").await;
    let leaf = stand.leaf(CLIENT);
    let client = resuming(&stand, &leaf);
    assert_eq!(visit(&stand, &client).await, (Some(HandshakeKind::Full), true));
    assert_eq!(visit(&stand, &client).await, (Some(HandshakeKind::Resumed), true));
    stand.eventually("counted", async || stand.handshakes("resumed").await == 1.0).await;
    // One more root: nothing that the client's chain hangs on, and still all sessions end.
    let version =
        async || stand.proxy.readiness().await.unwrap()["workloads"]["trust"]["version"].as_u64().unwrap();
    let before = version().await;
    let more = certs::Authority::mint("more").unwrap();
    stand.proxy.write("clients.pem", &(stand.clients.certificate_pem() + &more.certificate_pem())).unwrap();
    stand.eventually("new bundles", async || version().await > before).await;
    stand
        .eventually("a full handshake", async || {
            visit(&stand, &client).await == (Some(HandshakeKind::Full), true)
        })
        .await;
    assert_eq!(visit(&stand, &client).await, (Some(HandshakeKind::Resumed), true));
    // The root goes: neither resumed nor in full.
    stand.proxy.write("clients.pem", &more.certificate_pem()).unwrap();
    stand
        .eventually("refused", async || match connect(stand.address(), &client, "fhir.example").await {
            Ok(mut io) => !ask(&mut io, &get("/Patient")).await.is_ok_and(|answer| answer.contains("200")),
            Err(_) => true,
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_with_the_clients_certificate() {
    let stand = Stand::open(STRICT, "", "").await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let validity = Some(Validity::between(now - 60, now + 15).unwrap());
    let request = OddRequest { validity, ..OddRequest::workload(CLIENT) };
    let leaf = stand.clients.issue_odd(&request).unwrap();
    let client = resuming(&stand, &leaf);
    assert_eq!(visit(&stand, &client).await, (Some(HandshakeKind::Full), true));
    sleep(Duration::from_secs(17)).await;
    let served = match connect(stand.address(), &client, "fhir.example").await {
        Ok(mut io) => ask(&mut io, &get("/Patient")).await.is_ok_and(|answer| answer.contains("HTTP")),
        Err(_) => false,
    };
    assert!(!served);
    stand.eventually("counted", async || stand.handshakes("expired").await == 1.0).await;
    assert_eq!(stand.store.requests(), 1);
}

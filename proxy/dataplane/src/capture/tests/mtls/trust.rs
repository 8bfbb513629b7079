//! Connections are judged again: by policy, by trust.

use super::*;
use crate::hbone::peers::eventually;

const ONLY_OTHERS: &str = r#"
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: only-others, namespace: datamesh}
spec: {rules: [{from: [{source: {principals: [cluster.local/ns/datamesh/sa/other]}}]}]}
"#;

/// A raw connection that has carried a byte each way.
async fn open(stage: &Stage, app: &App) -> TlsStream<TcpStream> {
    let mut client = stage.secured(app, BYTES).await;
    client.write_all(b"\x80").await.unwrap();
    assert_eq!(in_time(client.read_u8()).await.unwrap(), 0x80);
    client
}

#[tokio::test]
async fn a_policy_that_changes_ends_what_it_permits_no_longer() {
    let stage = Stage::new(&[BASE, STRICT]).await;
    let app = App::echo(stage.node.server.ip).await;
    let mut client = open(&stage, &app).await;
    stage.node.world.publish(&[BASE, STRICT, ONLY_OTHERS], 2);
    let (bytes, ended) = last(&mut client).await;
    assert!(bytes.is_empty() && ended.is_err());
    assert_eq!(&*stage.node.stories(1).await.remove(0).details, "policy_changed");
}

#[tokio::test]
async fn strict_ends_plaintext_that_was_permitted() {
    let stage = Stage::new(&[BASE]).await;
    let app = App::echo(stage.node.server.ip).await;
    let mut plain = stage.call(&app).await;
    plain.write_all(b"\x80").await.unwrap();
    assert_eq!(in_time(plain.read_u8()).await.unwrap(), 0x80);
    let mut secured = open(&stage, &app).await;
    stage.node.world.publish(&[BASE, STRICT], 2);
    assert_reset(plain).await;
    secured.write_all(b"\x81").await.unwrap();
    assert_eq!(in_time(secured.read_u8()).await.unwrap(), 0x81, "mTLS stays");
}

#[tokio::test]
async fn a_root_that_is_trusted_no_longer_ends_its_clients() {
    let stage = Stage::new(&[BASE, STRICT]).await;
    let app = App::echo(stage.node.server.ip).await;
    let mut client = open(&stage, &app).await;
    stage.peers().trust(&certs::Authority::mint("other").unwrap());
    let (bytes, ended) = last(&mut client).await;
    assert!(bytes.is_empty() && ended.is_err());
    assert_eq!(&*stage.node.stories(1).await.remove(0).details, "incomplete_chain");
    let status = stage.peers().certificates.status();
    let server = status.iter().find(|one| one.whose == SERVER).unwrap();
    assert_eq!(server.ended.iter().map(|(_, count)| count).sum::<u64>(), 1, "{:?}", server.ended);
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_and_ends_nobody() {
    let stage = Stage::new(&[BASE, STRICT]).await;
    let app = App::echo(stage.node.server.ip).await;
    let mut old = open(&stage, &app).await;
    let before = old.get_ref().1.peer_certificates().unwrap()[0].clone();
    let server = stage.peers().of(SERVER).await;
    let generation = server.generation();
    stage.peers().renew("default");
    eventually(async || server.generation() > generation).await;
    let new = open(&stage, &app).await;
    assert_ne!(new.get_ref().1.peer_certificates().unwrap()[0], before);
    old.write_all(b"\x82").await.unwrap();
    assert_eq!(in_time(old.read_u8()).await.unwrap(), 0x82);
}

#[tokio::test]
async fn handshakes_are_counted_by_workload_and_outcome() {
    let stage = Stage::new(&[BASE, STRICT]).await;
    let app = App::echo(stage.node.server.ip).await;
    let _client = open(&stage, &app).await;
    if let Ok(mut stream) = Client::default().shake(stage.peers(), stage.call(&app).await).await {
        let _ = last(&mut stream).await;
    }
    stage.node.stories(1).await;
    let status = stage.peers().certificates.status();
    let server = status.iter().find(|one| one.whose == SERVER).unwrap();
    assert_eq!(server.handshakes, [("full", 1), ("no_certificate", 1)]);
    assert!(server.waits.is_none() && server.identity.as_ref().unwrap().to_string() == id("default"));
}

#[tokio::test]
async fn connections_that_have_ended_leave_nothing_behind() {
    let stage = Stage::new(&[BASE]).await;
    let (raw, http) = (App::echo(stage.node.server.ip).await, mirror(stage.node.server.ip).await);
    for _ in 0..3 {
        let mut client = open(&stage, &raw).await;
        client.shutdown().await.unwrap();
        let _ = last(&mut client).await;
        let mut client = stage.secured(&http, HTTP1).await;
        assert_eq!(request(&mut client, &get("/", "connection: close\r\n")).await.0, 200);
        let _ = last(&mut client).await;
        drop(stage.secured(&raw, BYTES).await);
        drop(stage.secured(&http, &[b"istio-h2"]).await);
    }
    let began = std::time::Instant::now();
    let report = stage.node.end().await;
    let limit = Duration::from_millis(Limits::default().drain_timeout_ms);
    assert!(report.cut == 0 && began.elapsed() < limit, "{report:?}");
}

/// Whoever has renewed in time would have to be dropped for it: databases keep their connections.
#[tokio::test]
async fn bytes_under_way_outlive_their_clients_certificate_but_not_the_trust_in_it() {
    let stage = Stage::new(&[BASE, STRICT]).await;
    let app = App::echo(stage.node.server.ip).await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let validity = Some(certs::Validity::between(now - 60, now + 10).unwrap());
    let request = certs::OddRequest { validity, ..certs::OddRequest::workload(id("sleep")) };
    let leaf = Some(stage.peers().root.issue_odd(&request).unwrap());
    let client = Client { leaf, alpn: BYTES, ..Client::default() };
    let mut stream = client.shake(stage.peers(), stage.call(&app).await).await.unwrap();
    stream.write_all(b"\x80").await.unwrap();
    assert_eq!(in_time(stream.read_u8()).await.unwrap(), 0x80);
    let ended = || {
        let status = stage.peers().certificates.status();
        status.into_iter().find(|one| one.whose == SERVER).unwrap().ended
    };
    eventually(async || ended() == [("expired", 1)]).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    stream.write_all(b"\x81").await.unwrap();
    assert_eq!(in_time(stream.read_u8()).await.unwrap(), 0x81);
    // It is nobody's who calls anew.
    let refused = client.shake(stage.peers(), stage.call(&app).await).await;
    if let Ok(mut refused) = refused {
        assert!(last(&mut refused).await.1.is_err());
    }
    stage.peers().trust(&certs::Authority::mint("other").unwrap());
    let (bytes, over) = last(&mut stream).await;
    assert!(bytes.is_empty() && over.is_err());
    assert_eq!(ended().len(), 2, "{:?}", ended());
}

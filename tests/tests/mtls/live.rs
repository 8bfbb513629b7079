//! Connections that are open when their client's certificate ends, or trust in it does.

use std::{sync::Arc, time::Duration};

use certs::{Leaf, OddRequest, Validity};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::client::TlsStream;

use super::stand::*;

const GET: &[u8] = b"GET /Patient HTTP/1.1\r\nhost: a\r\n\r\n";

/// A connection that has been served a request and is kept open.
async fn open(stand: &Stand, leaf: &Leaf) -> TlsStream<TcpStream> {
    let client = Arc::new(stand.client(Some(leaf), &["http/1.1"]));
    let mut io = connect(stand.address(), &client, "fhir.example").await.unwrap();
    io.write_all(GET).await.unwrap();
    let mut bytes = vec![0_u8; 64 * 1024];
    let length = timeout(SOON, io.read(&mut bytes)).await.unwrap().unwrap();
    assert!(bytes[..length].starts_with(b"HTTP/1.1 200"));
    io
}

/// Reads until the proxy ends the connection.
async fn ends(io: &mut TlsStream<TcpStream>) {
    let _ = timeout(SOON, io.read_to_end(&mut Vec::new())).await.expect("it is ended");
}

async fn ended(stand: &Stand, reason: &str) -> f64 {
    let label = format!("reason=\"{reason}\"");
    stand.proxy.metric("fhirward_mtls_connections_ended_total", &[&label]).await.unwrap()
}

fn until(seconds: u64) -> Option<Validity> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    Some(Validity::between(now - 60, now + seconds).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn open_connections_end_with_the_clients_certificate_and_no_others() {
    let stand = Stand::open(STRICT, "", "").await;
    let request = OddRequest { validity: until(15), ..OddRequest::workload(CLIENT) };
    let short = stand.clients.issue_odd(&request).unwrap();
    let (mut one, mut other) = (open(&stand, &short).await, open(&stand, &stand.leaf(CLIENT)).await);
    ends(&mut one).await;
    stand.eventually("counted", async || ended(&stand, "expired").await == 1.0).await;
    other.write_all(GET).await.unwrap();
    let mut first = [0_u8; 12];
    // What was left of the first answer may come before.
    while &first != b"HTTP/1.1 200" {
        first.rotate_left(1);
        first[11] = timeout(SOON, other.read_u8()).await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn open_connections_end_when_their_client_is_revoked_or_its_root_goes() {
    let stand = Stand::open(STRICT, "", "").await;
    let [bad, good] = [stand.leaf(CLIENT), stand.leaf(CLIENT)];
    let (mut revoked, mut kept) = (open(&stand, &bad).await, open(&stand, &good).await);
    let mut partner = {
        let id = "spiffe://partner.example/ns/datamesh/sa/gateway";
        open(&stand, &usual(&stand.partners, id)).await
    };
    let list = stand.clients.revocation_list(&[&bad], until(3600).unwrap()).unwrap();
    stand.proxy.write("revoked.pem", &list).unwrap();
    ends(&mut revoked).await;
    stand.eventually("counted", async || ended(&stand, "revoked").await == 1.0).await;
    let silence = timeout(Duration::from_millis(300), kept.read_to_end(&mut Vec::new())).await;
    assert!(silence.is_err(), "others stay: {silence:?}");
    let other = certs::Authority::mint("another").unwrap();
    stand.proxy.write("clients.pem", &other.certificate_pem()).unwrap();
    ends(&mut kept).await;
    let silence = timeout(Duration::from_millis(300), partner.read_to_end(&mut Vec::new())).await;
    assert!(silence.is_err(), "another domain's stay: {silence:?}");
    assert_eq!(ended(&stand, "revoked").await, 1.0);
}

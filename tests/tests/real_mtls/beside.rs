//! The same peers beside a running Envoy, set up as Istio sets up a sidecar: where it takes what we
//! refuse, and what comes of it. What Envoy does is asserted too, so that nobody needs to believe us.

use std::{
    fs, io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use certs::{Leaf, OddRequest, Purpose};
use demo::fhir_store::{self, FhirStore};
use rustls::{ClientConfig, HandshakeKind, client::Resumption};
use serde_json::Value;
use tempfile::TempDir;
use tests::{
    harness::{ByteServer, Manner},
    real::{
        Envoy,
        envoy_config::{self as config, Files, Forward, Name, Protocol},
        free_port,
    },
    smuggling::upstream::Upstream,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::stand::*;

/// Envoy in front of a store of its own, trusting the roots that ours trusts.
struct Beside {
    store: FhirStore,
    address: SocketAddr,
    _envoy: Envoy,
    _folder: TempDir,
}

/// How Envoy's server is set up.
#[derive(Clone, Copy, PartialEq)]
enum How {
    /// As Istio does it: all roots in one file, and the name's beginning.
    Istio,
    /// By its validator for SPIFFE, which knows domains apart; with a revocation list beside it.
    Spiffe,
}

impl Beside {
    async fn open(stand: &Stand, how: How, revoked: &[&Leaf]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let own = usual(&stand.clients, SERVER).write_to(folder.path(), &stand.clients).unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let (clients, partners) = (stand.clients.certificate_pem(), stand.partners.certificate_pem());
        let (first, second) = (write("clients.pem", &clients), write("partners.pem", &partners));
        let trusted = write("trusted.pem", &(clients + &partners));
        let list = stand.clients.revocation_list(revoked, around_now(-60, 3600)).unwrap();
        let list = write("revoked.pem", &list);
        let files = Files {
            certificate: &own.certificate,
            key: &own.key,
            trusted: &trusted,
            revoked: (how == How::Spiffe).then_some(list.as_path()),
        };
        let alpn = ["h2", "http/1.1"];
        let tls = match how {
            How::Istio => config::server_tls(&files, &alpn, Name::Prefix("spiffe://cluster.local/")),
            How::Spiffe => {
                let domains = [("cluster.local", first.as_path()), ("partner.example", second.as_path())];
                config::spiffe_tls(&files, &alpn, &domains)
            }
        };
        let store = fhir_store::start(fhir_store::Settings::default()).await.unwrap();
        let address = loopback().await;
        let listener = config::listener(address, Some(tls), &config::http("fhir", Some(Forward::Append)));
        let upstream = config::cluster("fhir", store.addr(), Protocol::Http1, None);
        let envoy = Envoy::with(&[listener], &[upstream]).await.unwrap();
        Self { store, address, _envoy: envoy, _folder: folder }
    }

    async fn get(&self, stand: &Stand, leaf: &Leaf) -> io::Result<String> {
        let client = envoys_client(stand, Some(leaf));
        let mut io = connect(self.address, &client, "fhir.example").await?;
        ask(&mut io, &get("/Patient")).await
    }
}

async fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], free_port().await.unwrap()))
}

/// Envoy's own certificate is of the clients' authority.
fn envoys_client(stand: &Stand, leaf: Option<&Leaf>) -> Arc<ClientConfig> {
    client_of(&stand.clients, SERVER, leaf, &["http/1.1"])
}

fn served(answer: &io::Result<String>) -> bool {
    answer.as_ref().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

/// Refused by ours for this reason, with no answer.
async fn refused_here(stand: &Stand, case: &str, leaf: &Leaf, reason: &str) {
    let before = stand.handshakes(reason).await;
    let answer = stand.get(leaf, "/Patient").await;
    assert!(answer.as_ref().map_or(true, String::is_empty), "{case}: {answer:?}");
    stand.eventually(&format!("{case}: {reason}"), async || stand.handshakes(reason).await > before).await;
}

fn spoilt(spoil: impl FnOnce(&mut OddRequest)) -> OddRequest {
    let mut request = OddRequest::workload(CLIENT);
    spoil(&mut request);
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_takes_names_and_roots_that_we_refuse() {
    let stand = Stand::open(STRICT, "", "").await;
    let beside = Beside::open(&stand, How::Istio, &[]).await;
    let of = |request: OddRequest| stand.clients.issue_odd(&request).unwrap();
    let second = "spiffe://cluster.local/ns/datamesh/sa/somebody-else";
    let mut cases = vec![
        ("two URI SANs", of(spoilt(|leaf| leaf.uris.push(second.to_owned()))), "many_uri_sans", second),
        (
            "another domain's root",
            stand.partners.issue_odd(&spoilt(|_| {})).unwrap(),
            "wrong_trust_domain",
            CLIENT,
        ),
        ("no key usage", of(spoilt(|leaf| leaf.uses.clear())), "leaf_key_usage", CLIENT),
        ("CA flag", of(spoilt(|leaf| leaf.ca = true)), "ca_as_leaf", CLIENT),
    ];
    for (case, uri) in [
        ("a quote in the id", "spiffe://cluster.local/ns/datamesh/sa/gateway\""),
        ("a query in the id", "spiffe://cluster.local/ns/datamesh/sa/gateway?a=b"),
        ("a percent sign in the id", "spiffe://cluster.local/ns/datamesh/sa/gateway%41"),
        ("an empty segment in the id", "spiffe://cluster.local//ns/datamesh/sa/gateway"),
        ("dots in the id", "spiffe://cluster.local/ns/datamesh/sa/../gateway"),
        ("a slash behind the id", "spiffe://cluster.local/ns/datamesh/sa/gateway/"),
        ("another field in the id", "spiffe://cluster.local/ns/datamesh/sa/gateway;By=spiffe://x"),
    ] {
        let leaf = of(spoilt(|leaf| leaf.uris = vec![uri.to_owned()]));
        cases.push((case, leaf, "invalid_spiffe_id", uri));
    }
    for (case, leaf, reason, told) in cases {
        let answer = beside.get(&stand, &leaf).await;
        assert!(served(&answer), "{case}: Envoy has learned to refuse it: {answer:?}");
        let seen = beside.store.recorded();
        let header = seen.last().unwrap().headers.get("x-forwarded-client-cert").unwrap();
        assert!(header.to_str().unwrap().contains(&format!("URI={told}")), "{case}: {header:?}");
        refused_here(&stand, case, &leaf, reason).await;
    }
    assert_eq!(stand.store.requests(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn envoys_validator_for_spiffe_forgets_lists_and_uses() {
    let stand = Stand::open(STRICT, "", "").await;
    let of = |request: OddRequest| stand.clients.issue_odd(&request).unwrap();
    let revoked = stand.leaf(CLIENT);
    let beside = Beside::open(&stand, How::Spiffe, &[&revoked]).await;
    let list = stand.clients.revocation_list(&[&revoked], around_now(-60, 3600)).unwrap();
    stand.proxy.write("revoked.pem", &list).unwrap();
    let taken_up = async || !served(&stand.get(&revoked, "/Patient").await);
    stand.eventually("the list is taken up", taken_up).await;
    let before = stand.store.requests();
    for (case, leaf, reason) in [
        ("revoked", revoked, "revoked"),
        ("a server's", of(spoilt(|leaf| leaf.purpose = Some(Purpose::Server))), "extended_key_usage"),
        ("two URI SANs", of(spoilt(|leaf| leaf.uris.push(SERVER.to_owned()))), "many_uri_sans"),
    ] {
        let answer = beside.get(&stand, &leaf).await;
        assert!(served(&answer), "{case}: Envoy has learned to refuse it: {answer:?}");
        refused_here(&stand, case, &leaf, reason).await;
    }
    // It does know domains apart, and key usage.
    for (case, leaf) in [
        ("another domain's root", stand.partners.issue_odd(&spoilt(|_| {})).unwrap()),
        ("no key usage", of(spoilt(|leaf| leaf.uses.clear()))),
    ] {
        assert!(!served(&beside.get(&stand, &leaf).await), "{case}");
    }
    assert_eq!(stand.store.requests(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_header_reaches_the_application_in_a_trailer_by_envoy_alone() {
    let stand = Stand::open(STRICT, "", "").await;
    let request = "POST /Patient HTTP/1.1\r\nhost: fhir.example\r\ntransfer-encoding: chunked\r\n\
                   connection: close\r\ntrailer: x-forwarded-client-cert, x-checksum\r\n\r\n\
                   2\r\n{}\r\n0\r\nx-forwarded-client-cert: URI=spiffe://forged\r\nx-checksum: 1\r\n\r\n";
    let leaf = stand.leaf(CLIENT);
    let mut arrived = Vec::new();
    // Envoy's side first: both have the application behind them that keeps every byte.
    let application = Upstream::start().await;
    let filter = config::http("application", Some(Forward::SanitizeSet));
    let (envoy, address, _folder) = raw(&stand, &[filter], None, application.address).await;
    let theirs = envoys_client(&stand, Some(&leaf));
    let mut io = connect(address, &theirs, "fhir.example").await.unwrap();
    assert!(served(&ask(&mut io, request).await));
    envoy.stop().await.unwrap();
    arrived.push(application.finish().await.concat());
    let application = Upstream::start().await;
    let ours = Stand::before(application.address, STRICT, "").await;
    let mut io =
        connect(ours.address(), &Arc::new(ours.client(Some(&ours.leaf(CLIENT)), &[])), "a").await.unwrap();
    assert!(served(&ask(&mut io, request).await));
    let Stand { mut proxy, .. } = ours;
    proxy.terminate().await.unwrap();
    arrived.push(application.finish().await.concat());
    let [theirs, ours] =
        [&arrived[0], &arrived[1]].map(|bytes| String::from_utf8_lossy(bytes).to_lowercase());
    assert!(theirs.contains("x-forwarded-client-cert: uri=spiffe://forged"), "{theirs}");
    assert!(ours.contains("x-checksum: 1") && !ours.contains("forged"), "{ours}");
}

/// A client that resumes.
fn resuming(client: &ClientConfig) -> Arc<ClientConfig> {
    let mut client = client.clone();
    client.resumption = Resumption::in_memory_sessions(8);
    Arc::new(client)
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_resumes_a_session_after_its_client_has_expired() {
    let stand = Stand::open(STRICT, "", "").await;
    let beside = Beside::open(&stand, How::Istio, &[]).await;
    let ends = 20;
    let short = stand.clients.issue_odd(&spoilt(|leaf| leaf.validity = Some(around_now(-60, ends)))).unwrap();
    let began = SystemTime::now();
    let (ours, theirs) = (
        resuming(&stand.client(Some(&short), &["http/1.1"])),
        resuming(&envoys_client(&stand, Some(&short))),
    );
    for (address, client) in [(stand.address(), &ours), (beside.address, &theirs)] {
        let mut io = connect(address, client, "fhir.example").await.unwrap();
        assert!(served(&ask(&mut io, &get("/Patient")).await));
    }
    // There is no other sign of it than the clock.
    while began.elapsed().unwrap() < Duration::from_secs(u64::try_from(ends).unwrap() + 2) {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let mut io = connect(beside.address, &theirs, "fhir.example").await.unwrap();
    let answer = ask(&mut io, &get("/Patient")).await;
    assert_eq!(io.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed));
    assert!(served(&answer), "{answer:?}");
    let answer = match connect(stand.address(), &ours, "fhir.example").await {
        Ok(mut io) => ask(&mut io, &get("/Patient")).await,
        Err(error) => Err(error),
    };
    assert!(!served(&answer), "{answer:?}");
    stand.eventually("counted", async || stand.handshakes("expired").await == 1.0).await;
}

/// An Envoy with these filters behind its mTLS; where `peek` is given, beside plaintext.
async fn raw(
    stand: &Stand,
    filters: &[Value],
    peek: Option<&str>,
    application: SocketAddr,
) -> (Envoy, SocketAddr, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let own = usual(&stand.clients, SERVER).write_to(folder.path(), &stand.clients).unwrap();
    let files = Files { certificate: &own.certificate, key: &own.key, trusted: &own.ca, revoked: None };
    let tls = config::server_tls(
        &files,
        &["istio-peer-exchange", "h2", "http/1.1"],
        Name::Prefix("spiffe://cluster.local/"),
    );
    let address = loopback().await;
    let listener = match peek {
        Some(peek) => config::permissive(address, &tls, &filters[0], peek),
        None => config::filters(address, Some(tls), filters),
    };
    let upstream = config::cluster("application", application, Protocol::Http1, None);
    (Envoy::with(&[listener], &[upstream]).await.unwrap(), address, folder)
}

/// Only these may speak to the port.
fn only(account: &str) -> String {
    format!(
        "{STRICT}---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: only, namespace: datamesh}}
spec:
  selector: {{matchLabels: {{app: fhir-server}}}}
  rules: [{{from: [{{source: {{principals: [cluster.local/ns/datamesh/sa/{account}]}}}}]}}]
"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_lets_a_denied_peer_read_what_the_server_says_first() {
    for (account, admitted) in [("gateway", true), ("other", false)] {
        let mut applications = Vec::new();
        for _ in 0..2 {
            applications.push(ByteServer::start(Manner::Greets(b"ready\n")).await.unwrap());
        }
        let [theirs, ours] = applications.as_slice() else { panic!() };
        let stand = Stand::before(ours.address(), &only(account), "").await;
        let principal = format!("spiffe://cluster.local/ns/datamesh/sa/{account}");
        let filters = [config::admits(&principal), config::tcp("application")];
        let (_envoy, address, _folder) = raw(&stand, &filters, None, theirs.address()).await;
        let client = envoys_client(&stand, Some(&stand.leaf(CLIENT)));
        let mut io = connect(address, &client, "fhir.example").await.unwrap();
        let mut greeting = [0_u8; 6];
        timeout(SOON, io.read_exact(&mut greeting)).await.unwrap().unwrap();
        assert_eq!((&greeting, theirs.connections()), (b"ready\n", 1));
        // Only its own first byte brings the denial.
        io.write_all(b"x").await.unwrap();
        assert_eq!(timeout(SOON, io.read_u8()).await.unwrap().is_ok(), admitted);
        // Here it gets nothing, not even a connection of its own behind us.
        let client = Arc::new(stand.client(Some(&stand.leaf(CLIENT)), &["istio"]));
        let mut io = connect(stand.address(), &client, "fhir.example").await.unwrap();
        let mut greeting = [0_u8; 6];
        if admitted {
            timeout(SOON, io.read_exact(&mut greeting)).await.unwrap().unwrap();
            assert_eq!((&greeting, ours.connections()), (b"ready\n", 1));
        } else {
            io.write_all(b"\xffx").await.unwrap();
            let read = timeout(SOON, io.read(&mut greeting)).await.unwrap();
            assert!(read.as_ref().map_or(true, |length| *length == 0), "{read:?}");
            assert_eq!(ours.connections(), 0);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_passes_a_slow_client_hello_on_as_plaintext() {
    let greeter = async || ByteServer::start(Manner::Greets(b"ready\n")).await.unwrap();
    let (theirs, ours) = (greeter().await, greeter().await);
    let stand = Stand::before(ours.address(), PERMISSIVE, "limits: {handshakeTimeoutMs: 1500}").await;
    let filters = [config::tcp("application")];
    let (_envoy, address, _folder) = raw(&stand, &filters, Some("0.5s"), theirs.address()).await;
    // The first bytes of a ClientHello, and no more for now.
    let hello = [0x16, 0x03, 0x01, 0x02];
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(&hello).await.unwrap();
    let mut said = [0_u8; 10];
    timeout(SOON, socket.read_exact(&mut said)).await.unwrap().unwrap();
    assert_eq!(said.strip_prefix(b"ready\n"), Some(&hello[..]), "the application has seen them");
    let mut socket = TcpStream::connect(stand.address()).await.unwrap();
    socket.write_all(&hello).await.unwrap();
    let mut said = Vec::new();
    let _ = timeout(SOON, socket.read_to_end(&mut said)).await.expect("closed in time");
    assert_eq!((said.len(), ours.connections()), (0, 0), "{said:?}");
}

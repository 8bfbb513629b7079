//! Envoy as a client's sidecar: plaintext in, the mesh's mTLS out.

use certs::{KeyKind, OddRequest};
use serde_json::Value;
use tests::real::{
    Envoy,
    envoy_config::{self as config, Files, Forward, Name, Protocol},
};

use super::*;

const SNI: &str = "outbound_.8080_._.fhir-service.datamesh.svc.cluster.local";

fn files<'a>(written: &'a Written, trusted: &'a Path) -> Files<'a> {
    Files { certificate: &written.certificate, key: &written.key, trusted, revoked: None }
}

/// An Envoy that takes plaintext at `listen` and calls `to`.
async fn sidecar(
    listen: SocketAddr,
    to: SocketAddr,
    files: &Files<'_>,
    (protocol, alpn, expected): (Protocol, &[&str], &str),
) -> Envoy {
    let tls = config::client_tls(files, alpn, Some(SNI), Name::Exact(expected));
    let filter = match protocol {
        Protocol::Raw => config::tcp("fhir"),
        _ => config::http("fhir", None),
    };
    let listener = config::listener(listen, None, &filter);
    Envoy::with(&[listener], &[config::cluster("fhir", to, protocol, Some(tls))]).await.unwrap()
}

/// What Istio's sidecars offer: for HTTP/1.1, HTTP/2, and bytes of which they know nothing, with metadata
/// exchange and without.
const OFFERS: [(Protocol, &[&str]); 4] = [
    (Protocol::Http1, &["istio-http/1.1", "istio", "http/1.1"]),
    (Protocol::Http2, &["istio-h2", "istio", "h2"]),
    (Protocol::Raw, &["istio"]),
    (Protocol::Raw, &["istio-peer-exchange", "istio"]),
];

#[tokio::test(flavor = "multi_thread")]
async fn envoy_as_a_sidecar_calls_through_strict() {
    let (proxy, store) = open("").await;
    let written = mint(&proxy, "client");
    let bundle = proxy.folder().join("ca/bundle.pem");
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for (protocol, alpn) in OFFERS {
        let listen = loopback().await;
        let own = files(&written, &bundle);
        let envoy = sidecar(listen, proxy.address("fhir"), &own, (protocol, alpn, SERVER)).await;
        store.clear_recorded();
        for number in 0..50 {
            let request = client.get(format!("http://{listen}/Patient?_count={number}"));
            let response =
                request.header("x-forwarded-client-cert", "URI=spiffe://forged").send().await.unwrap();
            assert_eq!(response.status().as_u16(), 200, "{alpn:?}: {}", proxy.log());
        }
        let seen = store.recorded();
        assert_eq!(seen.len(), 50);
        for request in seen {
            let told = request.headers.get("x-forwarded-client-cert").unwrap().to_str().unwrap();
            assert!(
                told.starts_with(&format!("By={SERVER};Hash=")) && told.contains(&format!("URI={CLIENT}")),
                "{told}"
            );
        }
        envoy.stop().await.unwrap();
    }
    let labels = ["connection_security_policy=\"mutual_tls\"", "response_code=\"200\""];
    assert_eq!(proxy.metric("istio_requests_total", &labels).await.unwrap(), 200.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_refuses_us_under_another_name_and_we_refuse_its_bad_certificate() {
    let (proxy, store) = open("").await;
    let bundle = proxy.folder().join("ca/bundle.pem");
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let twice =
        OddRequest { uris: vec![CLIENT.to_owned(), SERVER.to_owned()], ..OddRequest::workload(CLIENT) };
    let authority = authority(&proxy);
    let twice =
        authority.issue_odd(&twice).unwrap().write_to(&proxy.folder().join("twice"), &authority).unwrap();
    let good = mint(&proxy, "client");
    for (written, expected, outcome) in [(&good, CLIENT, ""), (&twice, SERVER, "many_uri_sans")] {
        let listen = loopback().await;
        let own = files(written, &bundle);
        let envoy = sidecar(listen, proxy.address("fhir"), &own, (OFFERS[0].0, OFFERS[0].1, expected)).await;
        let response = client.get(format!("http://{listen}/Patient")).send().await.unwrap();
        assert_eq!(response.status().as_u16(), 503, "{}", envoy.log());
        if !outcome.is_empty() {
            counted(&proxy, outcome, 1.0).await;
        }
        envoy.stop().await.unwrap();
    }
    assert_eq!(store.requests(), 0);
}

/// The header as the workload behind Envoy gets it, and as the one behind us does.
async fn told(client: &Written, roots: &Path, at: (SocketAddr, &FhirStore)) -> String {
    let (address, store) = at;
    let listen = loopback().await;
    let own = files(client, roots);
    let envoy = sidecar(listen, address, &own, (OFFERS[0].0, OFFERS[0].1, SERVER)).await;
    store.clear_recorded();
    let caller = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = caller.get(format!("http://{listen}/Patient"));
    let response = request.header("x-forwarded-client-cert", "URI=spiffe://forged").send().await.unwrap();
    assert_eq!(response.status().as_u16(), 200, "{}", envoy.log());
    let seen = store.recorded();
    seen[0].headers.get("x-forwarded-client-cert").unwrap().to_str().unwrap().to_owned()
}

/// Subjects of several names, as openssl's command line takes them.
const SUBJECTS: [&str; 5] = [
    "/C=AT/ST=Tirol/L=Innsbruck/O=A, B \\+ C/OU=one/CN=gateway/emailAddress=a@b.example",
    "/DC=example/DC=clinic/UID=7+CN=both",
    "/serialNumber=1/title=Dr./GN=Ann/SN=Lee/street=Way 1/postalCode=1/initials=AL/pseudonym=x",
    "/businessCategory=b/role=r/1.2.3.4=unknown",
    "/CN=Torwächter/O=\\#1",
];

/// A leaf that openssl has made, of the same authority.
fn with_subject(proxy: &Proxy, authority: &Authority, subject: &str) -> Written {
    let folder = proxy.folder().join("subject");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("ca.pem"), authority.certificate_pem()).unwrap();
    certs::write_private(&folder.join("ca.key"), &authority.key_pem_for_safekeeping()).unwrap();
    let extensions = format!(
        "subjectAltName=URI:{CLIENT}\nkeyUsage=critical,digitalSignature\nbasicConstraints=CA:FALSE\n"
    );
    fs::write(folder.join("ext"), extensions).unwrap();
    for line in [
        &[
            "req",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-utf8",
            "-subj",
            subject,
            "-keyout",
            "tls.key",
            "-out",
            "csr",
        ][..],
        &[
            "x509",
            "-req",
            "-in",
            "csr",
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "2",
            "-extfile",
            "ext",
            "-out",
            "tls.crt",
        ],
    ] {
        let output = openssl(line, &folder, b"");
        assert!(output.status.success(), "{line:?}: {}", text(&output));
    }
    Written { ca: folder.join("ca.pem"), certificate: folder.join("tls.crt"), key: folder.join("tls.key") }
}

fn named(subject: &str) -> LeafRequest {
    LeafRequest { common_name: subject.to_owned(), ..LeafRequest::for_workload(CLIENT) }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_workload_is_told_of_the_client_byte_for_byte_as_envoy_tells_it() {
    let (proxy, store) = open("").await;
    let authority = authority(&proxy);
    let roots = proxy.folder().join("ca/bundle.pem");
    let server = authority.issue(&LeafRequest::for_workload(SERVER)).unwrap();
    let server = server.write_to(&proxy.folder().join("envoy"), &authority).unwrap();
    let behind = fhir_store::start(fhir_store::Settings::default()).await.unwrap();
    let place = loopback().await;
    // Istio's gateways have SANITIZE_SET, and tell so much with a sidecar's settings.
    let tls = config::server_tls(&files(&server, &roots), &["h2", "http/1.1"], Name::Prefix("spiffe://"));
    let listener = config::listener(place, Some(tls), &config::http("fhir", Some(Forward::SanitizeSet)));
    let upstream: Value = config::cluster("fhir", behind.addr(), Protocol::Http1, None);
    let _envoy = Envoy::with(&[listener], &[upstream]).await.unwrap();
    let dns = |names: &[&str]| LeafRequest {
        dns: names.iter().map(|name| (*name).to_owned()).collect(),
        ..LeafRequest::for_workload(CLIENT)
    };
    let cases = [
        ("plain", LeafRequest::for_workload(CLIENT)),
        ("named", named("gateway")),
        ("quoted", named("a \"gateway\", of; sorts=\\ #1")),
        ("begins with a hash", named("#gateway")),
        ("spaces around", named(" gateway ")),
        ("plus and angles", named("a+b<c>d")),
        ("umlaut", named("Torwächter")),
        ("names", dns(&["gateway.example", "*.gateway.example"])),
        ("rsa", LeafRequest { key: KeyKind::Rsa2048, ..LeafRequest::for_workload(CLIENT) }),
    ];
    let minted = |request: LeafRequest| {
        let leaf = authority.issue(&request).unwrap();
        leaf.write_to(&proxy.folder().join("leaf"), &authority).unwrap()
    };
    let made = SUBJECTS.iter().map(|subject| (*subject, None));
    for (case, request) in cases.into_iter().map(|(case, request)| (case, Some(request))).chain(made) {
        let leaf = request.map_or_else(|| with_subject(&proxy, &authority, case), minted);
        let theirs = told(&leaf, &roots, (place, &behind)).await;
        let ours = told(&leaf, &roots, (proxy.address("fhir"), &store)).await;
        assert_eq!(ours, theirs, "{case}");
    }
}

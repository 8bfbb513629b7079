//! mTLS with peers that others wrote: openssl as a client, as the README has it and as bad as it can be,
//! and Envoy as a sidecar that calls us.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    fs,
    io::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use certs::{Authority, LeafRequest, OddRequest, Written};
use demo::fhir_store::{self, FhirStore};
use serde_json::{Value, json};
use tests::{
    harness::{Proxy, repository},
    real::{Envoy, EnvoyStart, free_port},
};

const SERVER: &str = "spiffe://cluster.local/ns/datamesh/sa/fhir-server";
const CLIENT: &str = "spiffe://cluster.local/ns/datamesh/sa/gateway";
const STRICT: &str = "apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: datamesh}
spec: {mtls: {mode: STRICT}}
";
const SOON: Duration = Duration::from_secs(30);
const REQUEST: &[u8] = b"GET /metadata HTTP/1.1\r\nHost: fhir\r\nConnection: close\r\n\r\n";

/// The text between two marks of the README, and the blocks of one language in it.
fn readme(language: &str) -> String {
    let text = fs::read_to_string(repository().join("README.md")).unwrap();
    let (_, rest) = text.split_once("<!-- mtls:begin -->").unwrap();
    let (section, _) = rest.split_once("<!-- mtls:end -->").unwrap();
    let (_, block) = section.split_once(&format!("```{language}\n")).unwrap();
    block.split_once("```").unwrap().0.to_owned()
}

/// The README's settings, with our addresses.
async fn open(more: &str) -> (Proxy, FhirStore) {
    let store = fhir_store::start(fhir_store::Settings::default()).await.unwrap();
    let settings = readme("yaml")
        .replace("127.0.0.1:8443", "\"{fhir}\"")
        .replace("127.0.0.1:8080", &format!("\"{}\"", store.addr()));
    let settings = settings + more;
    let proxy = Proxy::start(&["fhir"], &settings, &[("strict.yaml", STRICT)]).await.unwrap();
    let began = Instant::now();
    while proxy.page("/readyz").await.unwrap().0 != 200 {
        assert!(began.elapsed() < SOON, "{}", proxy.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    (proxy, store)
}

/// The embedded authority, as `certs mint --ca` finds it.
fn authority(proxy: &Proxy) -> Authority {
    let folder = proxy.folder().join("ca");
    let found = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let key = found.into_iter().find(|path| path.extension().is_some_and(|end| end == "key")).unwrap();
    let read = |path: &Path| fs::read_to_string(path).unwrap();
    Authority::from_pem(&read(&key.with_extension("crt")), &read(&key)).unwrap()
}

fn mint(proxy: &Proxy, folder: &str) -> Written {
    let authority = authority(proxy);
    let leaf = authority.issue(&LeafRequest::for_workload(CLIENT)).unwrap();
    leaf.write_to(&proxy.folder().join(folder), &authority).unwrap()
}

fn openssl(arguments: &[&str], folder: &Path, input: &[u8]) -> Output {
    let mut child = Command::new("openssl")
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl must be installed");
    // It may be refused before it has read everything.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

async fn handshakes(proxy: &Proxy, outcome: &str) -> f64 {
    let label = format!("outcome=\"{outcome}\"");
    proxy.metric("fhirward_mtls_handshakes_total", &[&label]).await.unwrap()
}

/// A handshake is counted a moment after its client has seen the end of it.
async fn counted(proxy: &Proxy, outcome: &str, times: f64) {
    let began = Instant::now();
    while handshakes(proxy, outcome).await < times {
        assert!(began.elapsed() < SOON, "{outcome} is not counted\n{}", proxy.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_readmes_lines_do_what_they_say() {
    let (proxy, _store) = open("").await;
    mint(&proxy, "client"); // what `certs mint --ca ca --out client` does
    let mut ran = 0;
    for line in readme("sh").lines() {
        let (command, says) = line.split_once("   # ").unwrap_or((line, ""));
        if command.starts_with("fhirward") || command.starts_with("certs") {
            continue;
        }
        let command = command.replace("127.0.0.1:8443", &proxy.address("fhir").to_string());
        let folder = proxy.folder();
        let run = tokio::task::spawn_blocking(move || {
            Command::new("sh").args(["-c", &command]).current_dir(folder).output().unwrap()
        });
        let output = run.await.unwrap();
        assert!(text(&output).contains(says), "{line}\n{}", text(&output));
        ran += 1;
    }
    assert_eq!(ran, 4, "the README has other lines now");
    counted(&proxy, "full", 1.0).await;
    counted(&proxy, "no_certificate", 1.0).await;
}

/// An RSA authority and a leaf of it, made by openssl as old ones are.
fn old_fashioned(folder: &Path, name: &str, bits: &str, digest: &str) -> (PathBuf, PathBuf, PathBuf) {
    let run = |arguments: &[&str]| {
        let output = openssl(arguments, folder, b"");
        assert!(output.status.success(), "{arguments:?}: {}", text(&output));
    };
    let file = |end: &str| format!("{name}.{end}");
    let leaf = format!(
        "subjectAltName=URI:{CLIENT}\nkeyUsage=critical,digitalSignature\nbasicConstraints=CA:FALSE\n"
    );
    fs::write(folder.join(file("ext")), leaf).unwrap();
    run(&[
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-subj",
        "/CN=old root",
        "-days",
        "2",
        "-addext",
        "keyUsage=critical,keyCertSign,cRLSign",
        "-keyout",
        &file("ca.key"),
        "-out",
        &file("ca.pem"),
    ]);
    run(&[
        "req",
        "-newkey",
        &format!("rsa:{bits}"),
        "-nodes",
        "-subj",
        "/CN=leaf",
        "-keyout",
        &file("key"),
        "-out",
        &file("csr"),
    ]);
    run(&[
        "x509",
        "-req",
        "-in",
        &file("csr"),
        "-CA",
        &file("ca.pem"),
        "-CAkey",
        &file("ca.key"),
        "-CAcreateserial",
        "-days",
        "2",
        digest,
        "-extfile",
        &file("ext"),
        "-out",
        &file("pem"),
    ]);
    (folder.join(file("ca.pem")), folder.join(file("pem")), folder.join(file("key")))
}

#[tokio::test(flavor = "multi_thread")]
async fn openssl_with_weak_keys_and_signatures_is_refused_for_that() {
    let folder = tempfile::tempdir().unwrap();
    let cases = [
        ("good", "2048", "-sha256", "full"),
        ("short", "1024", "-sha256", "weak_key"),
        ("sha1", "2048", "-sha1", "weak_signature"),
    ];
    let mut trusted = String::new();
    let mut made = Vec::new();
    for (name, bits, digest, outcome) in cases {
        let (ca, certificate, key) = old_fashioned(folder.path(), name, bits, digest);
        trusted += &fs::read_to_string(ca).unwrap();
        made.push((name, certificate, key, outcome));
    }
    fs::write(folder.path().join("trusted.pem"), trusted).unwrap();
    let more = format!(
        "\n    trust: [{{domain: cluster.local, bundles: [\"{}/trusted.pem\"]}}]\n",
        folder.path().display()
    );
    let (proxy, store) = open(&more).await;
    let address = proxy.address("fhir").to_string();
    for (name, certificate, key, outcome) in made {
        let arguments = [
            "s_client",
            "-quiet",
            "-connect",
            &address,
            "-cipher",
            "DEFAULT:@SECLEVEL=0",
            "-cert",
            certificate.to_str().unwrap(),
            "-key",
            key.to_str().unwrap(),
        ];
        let output = openssl(&arguments, folder.path(), REQUEST);
        assert_eq!(text(&output).contains("HTTP/1.1 200"), outcome == "full", "{name}: {}", text(&output));
        counted(&proxy, outcome, 1.0).await;
    }
    assert_eq!(store.requests(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn openssl_gets_no_renegotiation_and_no_early_data() {
    let (proxy, store) = open("\n    tls12: true\nlimits: {idleTimeoutMs: 2000}\n").await;
    let written = mint(&proxy, "client");
    let address = proxy.address("fhir").to_string();
    let (certificate, key) = (written.certificate.to_str().unwrap(), written.key.to_str().unwrap());
    let base = ["s_client", "-connect", &address, "-cert", certificate, "-key", key];
    // `R` at the beginning of a line asks for renegotiation, in TLS 1.2.
    let arguments = [&base[..], &["-tls1_2"]].concat();
    let output = openssl(&arguments, &proxy.folder(), b"R\n");
    let said = text(&output);
    // It is not heard, and ends with the connection.
    assert!(said.contains("RENEGOTIATING"), "{said}");
    assert_eq!(handshakes(&proxy, "full").await, 1.0);
    // A session whose ticket promises no early data, and early data all the same.
    let session = proxy.folder().join("session");
    let session = session.to_str().unwrap();
    let arguments = [&base[..], &["-quiet", "-sess_out", session]].concat();
    assert!(text(&openssl(&arguments, &proxy.folder(), REQUEST)).contains("HTTP/1.1 200"));
    fs::write(proxy.folder().join("early"), REQUEST).unwrap();
    let arguments = [&base[..], &["-quiet", "-sess_in", session, "-early_data", "early"]].concat();
    let before = store.requests();
    let said = text(&openssl(&arguments, &proxy.folder(), b""));
    assert!(!said.contains("HTTP/1.1 200"), "{said}");
    assert_eq!(store.requests(), before);
}

/// Envoy as a client's sidecar: plaintext in, the mesh's mTLS out.
fn sidecar(
    (listen, admin, upstream): (SocketAddr, SocketAddr, SocketAddr),
    files: &Written,
    bundle: &Path,
    (http2, expected): (bool, &str),
) -> String {
    let place = |address: SocketAddr| json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}});
    let (protocol, alpn): (&str, &[&str]) = if http2 {
        ("http2_protocol_options", &["istio-h2", "istio", "h2"])
    } else {
        ("http_protocol_options", &["istio-http/1.1", "istio", "http/1.1"])
    };
    let extensions = "type.googleapis.com/envoy.extensions";
    let manager = json!({
        "@type": format!("{extensions}.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "sidecar",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"],
            "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "fhir"}}]}]},
        "http_filters": [{"name": "envoy.filters.http.router",
            "typed_config": {"@type": format!("{extensions}.filters.http.router.v3.Router")}}],
    });
    let tls = json!({
        "@type": format!("{extensions}.transport_sockets.tls.v3.UpstreamTlsContext"),
        "sni": "outbound_.8080_._.fhir-service.datamesh.svc.cluster.local",
        "common_tls_context": {
            // As Istio sets it; left alone, Envoy's clients go no further than TLS 1.2.
            "tls_params": {"tls_maximum_protocol_version": "TLSv1_3"},
            "alpn_protocols": alpn,
            "tls_certificates": [{"certificate_chain": {"filename": files.certificate},
                "private_key": {"filename": files.key}}],
            "validation_context": {"trusted_ca": {"filename": bundle},
                "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": expected}}]},
        },
    });
    let options = json!({
        "@type": format!("{extensions}.upstreams.http.v3.HttpProtocolOptions"),
        "explicit_http_config": {protocol: {}},
    });
    let config: Value = json!({
        "admin": {"address": place(admin)},
        "static_resources": {
            "listeners": [{"name": "in", "address": place(listen), "filter_chains": [{"filters": [
                {"name": "http", "typed_config": manager}]}]}],
            "clusters": [{"name": "fhir", "type": "STATIC", "connect_timeout": "10s",
                "load_assignment": {"cluster_name": "fhir", "endpoints": [{"lb_endpoints": [
                    {"endpoint": {"address": place(upstream)}}]}]},
                "typed_extension_protocol_options": {
                    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
                "transport_socket": {"name": "tls", "typed_config": tls}}],
        },
    });
    config.to_string()
}

async fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], free_port().await.unwrap()))
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_as_a_sidecar_calls_through_strict() {
    let (proxy, store) = open("").await;
    let files = mint(&proxy, "client");
    let bundle = proxy.folder().join("ca/bundle.pem");
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for http2 in [false, true] {
        let places = (loopback().await, loopback().await, proxy.address("fhir"));
        let config = sidecar(places, &files, &bundle, (http2, SERVER));
        let start = EnvoyStart { config: &config, admin: places.1, concurrency: 1, prefix: &[] };
        let envoy = Envoy::start(start).await.unwrap();
        store.clear_recorded();
        for number in 0..50 {
            let request = client.get(format!("http://{}/Patient?_count={number}", places.0));
            let response =
                request.header("x-forwarded-client-cert", "URI=spiffe://forged").send().await.unwrap();
            assert_eq!(response.status().as_u16(), 200, "{}", proxy.log());
        }
        for seen in store.recorded() {
            let told = seen.headers.get("x-forwarded-client-cert").unwrap().to_str().unwrap();
            assert!(
                told.starts_with(&format!("By={SERVER};Hash=")) && told.contains(&format!("URI={CLIENT}")),
                "{told}"
            );
        }
        envoy.stop().await.unwrap();
    }
    let labels = ["connection_security_policy=\"mutual_tls\"", "response_code=\"200\""];
    assert_eq!(proxy.metric("istio_requests_total", &labels).await.unwrap(), 100.0);
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
    for (files, expected, outcome) in [(&good, CLIENT, ""), (&twice, SERVER, "many_uri_sans")] {
        let places = (loopback().await, loopback().await, proxy.address("fhir"));
        let config = sidecar(places, files, &bundle, (false, expected));
        let start = EnvoyStart { config: &config, admin: places.1, concurrency: 1, prefix: &[] };
        let envoy = Envoy::start(start).await.unwrap();
        let response = client.get(format!("http://{}/Patient", places.0)).send().await.unwrap();
        assert_eq!(response.status().as_u16(), 503, "{}", envoy.log());
        if !outcome.is_empty() {
            counted(&proxy, outcome, 1.0).await;
        }
        envoy.stop().await.unwrap();
    }
    assert_eq!(store.requests(), 0);
}

//! openssl with keys, signatures and wishes of long ago.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
};

use tests::real::{
    Envoy,
    envoy_config::{self as config, Files, Name, Protocol},
};

use super::*;

/// An RSA authority and a leaf of it, made by openssl as old ones are.
pub fn old_fashioned(
    folder: &Path,
    id: &str,
    (name, bits, digest): (&str, &str, &str),
) -> (PathBuf, PathBuf, PathBuf) {
    let run = |arguments: &[&str]| {
        let output = openssl(arguments, folder, b"");
        assert!(output.status.success(), "{arguments:?}: {}", text(&output));
    };
    let file = |end: &str| format!("{name}.{end}");
    let leaf =
        format!("subjectAltName=URI:{id}\nkeyUsage=critical,digitalSignature\nbasicConstraints=CA:FALSE\n");
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
async fn openssl_with_weak_keys_and_signatures_is_refused_here_and_served_by_envoy() {
    let folder = tempfile::tempdir().unwrap();
    let cases = [
        ("good", "2048", "-sha256", "full"),
        ("short", "1024", "-sha256", "weak_key"),
        ("sha1", "2048", "-sha1", "weak_signature"),
    ];
    let mut trusted = String::new();
    let mut made = Vec::new();
    for (name, bits, digest, outcome) in cases {
        let (ca, certificate, key) = old_fashioned(folder.path(), CLIENT, (name, bits, digest));
        trusted += &fs::read_to_string(ca).unwrap();
        made.push((name, certificate, key, outcome));
    }
    let bundle = folder.path().join("trusted.pem");
    fs::write(&bundle, trusted).unwrap();
    let more = format!("\n    trust: [{{domain: cluster.local, bundles: [\"{}\"]}}]\n", bundle.display());
    let (proxy, store) = open(&more).await;
    let own = mint(&proxy, "envoy");
    let beside = loopback().await;
    let _envoy = {
        let files = Files { certificate: &own.certificate, key: &own.key, trusted: &bundle, revoked: None };
        let tls = config::server_tls(&files, &["h2", "http/1.1"], Name::Prefix("spiffe://cluster.local/"));
        let listener = config::listener(beside, Some(tls), &config::http("fhir", None));
        let upstream = config::cluster("fhir", store.addr(), Protocol::Http1, None);
        Envoy::with(&[listener], &[upstream]).await.unwrap()
    };
    for (name, certificate, key, outcome) in made {
        let visit = |address: SocketAddr| {
            let address = address.to_string();
            let (certificate, key) = (certificate.to_str().unwrap(), key.to_str().unwrap());
            let weak = ["-cipher", "DEFAULT:@SECLEVEL=0"];
            let who = ["s_client", "-quiet", "-connect", &address, "-cert", certificate, "-key", key];
            text(&openssl(&[&who[..], &weak].concat(), folder.path(), REQUEST))
        };
        let said = visit(proxy.address("fhir"));
        assert_eq!(said.contains("HTTP/1.1 200"), outcome == "full", "{name}: {said}");
        counted(&proxy, outcome, 1.0).await;
        let said = visit(beside);
        assert!(said.contains("HTTP/1.1 200"), "{name}: Envoy has learned to refuse it: {said}");
    }
    // Each at Envoy, and the good one here.
    assert_eq!(store.requests(), 4);
}

const HTTP: &str = "apiVersion: v1
kind: Service
metadata: {name: fhir-service, namespace: datamesh}
spec: {selector: {app: fhir-server}, ports: [{port: 8080, name: http}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: fhir-server, namespace: datamesh}
spec: {selector: {matchLabels: {app: fhir-server}}, template: {metadata: {labels: {app: fhir-server}}}}
";

#[tokio::test(flavor = "multi_thread")]
async fn openssl_gets_no_renegotiation() {
    // HTTP, so that whoever says nothing is not taken for the client of a server that speaks first.
    let manifests = format!("{STRICT}---\n{HTTP}");
    let (proxy, store) = open_with(&manifests, "\n    tls12: true\nlimits: {idleTimeoutMs: 2000}\n").await;
    let written = mint(&proxy, "client");
    let address = proxy.address("fhir").to_string();
    let (certificate, key) = (written.certificate.to_str().unwrap(), written.key.to_str().unwrap());
    // `R` at the beginning of a line asks for it, in TLS 1.2.
    let arguments = ["s_client", "-tls1_2", "-connect", &address, "-cert", certificate, "-key", key];
    let said = text(&openssl(&arguments, &proxy.folder(), &[b"R\n", REQUEST].concat()));
    assert!(said.contains("RENEGOTIATING"), "{said}");
    // It is not heard, what comes behind it neither, and it ends with the connection.
    assert!(!said.contains("HTTP/1.1"), "{said}");
    assert_eq!((handshakes(&proxy, "full").await, store.requests()), (1.0, 0));
}

/// A session of a server that takes early data, though not of ours: ours promise none, and openssl
/// then sends none.
fn foreign_session(folder: &Path, written: &Written, port: u16) -> PathBuf {
    let (address, session) = (format!("127.0.0.1:{port}"), folder.join("foreign"));
    let mut server = Command::new("openssl")
        .args(["s_server", "-accept", &address, "-naccept", "1", "-early_data", "-cert"])
        .arg(&written.certificate)
        .arg("-key")
        .arg(&written.key)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("openssl must be installed");
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("ACCEPT")), "openssl's server listens");
    let mut client = Command::new("openssl")
        .args(["s_client", "-connect", &address, "-sess_out"])
        .arg(&session)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // The ticket comes behind the handshake.
    let began = Instant::now();
    while fs::metadata(&session).map_or(0, |file| file.len()) == 0 {
        assert!(began.elapsed() < SOON, "openssl got no ticket of openssl");
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(client.stdin.take());
    client.wait().unwrap();
    drop(server.stdin.take());
    lines.for_each(drop);
    server.wait().unwrap();
    session
}

#[tokio::test(flavor = "multi_thread")]
async fn openssls_early_data_is_not_heard() {
    let (proxy, store) = open("").await;
    let (written, folder) = (mint(&proxy, "client"), proxy.folder());
    let address = proxy.address("fhir").to_string();
    let (certificate, key) = (written.certificate.to_str().unwrap(), written.key.to_str().unwrap());
    let base = ["s_client", "-quiet", "-connect", &address, "-cert", certificate, "-key", key];
    fs::write(folder.join("early"), REQUEST).unwrap();
    let session = foreign_session(&folder, &written, free_port().await.unwrap());
    let early = ["-early_data", "early", "-sess_in", session.to_str().unwrap()];
    let late = b"GET /Patient HTTP/1.1\r\nHost: fhir\r\nConnection: close\r\n\r\n";
    let said = text(&openssl(&[&base[..], &early].concat(), &folder, late));
    assert!(said.contains("HTTP/1.1 200"), "what comes after the handshake is heard: {said}");
    let seen: Vec<String> = store.recorded().iter().map(|request| request.path.clone()).collect();
    assert_eq!(seen, ["/Patient"], "early data is not");
    counted(&proxy, "full", 1.0).await;
}

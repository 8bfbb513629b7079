//! openssl with keys, signatures and wishes of long ago.

use std::path::PathBuf;

use super::*;

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

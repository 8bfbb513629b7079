//! PERMISSIVE: plaintext, the mesh's mTLS and an application's own TLS on one port, from another node.

use std::{io::Write as _, net::SocketAddr};

use tests::node::{Cluster, HTTP, INNER, LINES, Program, SOON, eventually};

use crate::between::{cluster, limited};

const PERMISSIVE: &str = "---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: pods}
spec: {mtls: {mode: PERMISSIVE}}
";
/// Where a server speaks first.
const GREETS: u16 = INNER + 1;
/// A member of the mesh that is not ours.
const MEMBER: &str = "spiffe://cluster.local/ns/partners/sa/member";
/// Where an application speaks TLS of its own.
const OWN_TLS: u16 = 7443;

/// What `openssl s_client` gets on `stray` as a member of the mesh for what it says, up to `answer`; an empty
/// word, and it waits to be spoken to.
fn s_client(cluster: &Cluster, to: SocketAddr, alpn: &str, words: &str, answer: &str) {
    let certificate = cluster.certificate("member", MEMBER).unwrap();
    let mut command = cluster.actor("stray").pod.command("openssl");
    command.args(["s_client", "-quiet", "-verify_return_error", "-alpn", alpn]);
    command.args(["-connect", &to.to_string()]);
    command.arg("-CAfile").arg(cluster.authority().join("bundle.pem"));
    command.arg("-cert").arg(certificate.join("tls.crt")).arg("-key").arg(certificate.join("tls.key"));
    let mut client = Program::start("openssl s_client", command).unwrap();
    if !words.is_empty() {
        client.tell(words).unwrap();
    }
    let answered = eventually("an answer in mTLS", SOON, || {
        let ended = !client.runs().unwrap();
        let said = client.said();
        match said.contains(answer) {
            true => Ok(true),
            false if ended => Ok(false),
            false => Err(said),
        }
    });
    let what = format!("{alpn}, {words:?}: not {answer:?}");
    let answered = answered.unwrap_or_else(|error| panic!("{what}: {error}\n{}", cluster.told()));
    if !answered {
        // Its last words may still be in the pipe when it is gone.
        let (_, said) = client.finish(SOON).unwrap();
        assert!(said.contains(answer), "{what}: {said}\n{}", cluster.told());
    }
}

#[test]
fn plaintext_and_mtls_are_served_on_one_port_whoever_speaks_first() {
    let cluster = cluster(PERMISSIVE, "");
    let lines = cluster.at("far", 0, LINES);
    let said = cluster.ask("stray", lines);
    assert!(said.starts_with("through far"), "plaintext: {said}\n{}", cluster.told());
    for alpn in ["istio", "istio-peer-exchange,istio"] {
        s_client(&cluster, lines, alpn, "who", "far 1");
    }
    let http = cluster.at("far", 0, HTTP);
    let request = "GET /headers HTTP/1.1\r\nHost: far\r\nConnection: close\r\n\r";
    s_client(&cluster, http, "istio-http/1.1", request, &format!("URI={MEMBER}"));

    let greets = cluster.at("far", 0, GREETS);
    let hear = cluster.of("stray").in_pod("stray", &["hear", &greets.to_string()]).unwrap();
    let (_, said) = hear.finish(SOON).unwrap();
    assert_eq!(said, "heard hello far", "plaintext, the server first\n{}", cluster.told());
    s_client(&cluster, greets, "istio", "", "hello far");

    let told = cluster.of("far").proxy.as_ref().unwrap().said();
    assert!(told.contains("ns/partners/sa/member"), "{told}");
}

#[test]
fn an_applications_own_tls_passes_as_it_is() {
    let cluster = cluster(PERMISSIVE, "");
    let folder = cluster.of("far").node.folder().join("own");
    let authority = certs::Authority::mint("an application's own").unwrap();
    let leaf = authority.issue(&certs::LeafRequest::for_names(["own.example"])).unwrap();
    let files = leaf.write_to(&folder, &authority).unwrap();
    let mut command = cluster.actor("far").pod.command("openssl");
    command.args(["s_server", "-www", "-accept", &OWN_TLS.to_string()]);
    command.arg("-cert").arg(&files.certificate).arg("-key").arg(&files.key);
    let server = Program::start("openssl s_server", command).unwrap();
    server.line("ACCEPT", SOON).unwrap();
    let to = cluster.at("far", 0, OWN_TLS);
    let url = format!("https://own.example:{OWN_TLS}/");
    let resolve = format!("own.example:{OWN_TLS}:{}", to.ip());
    for from in ["stray", "near"] {
        eventually("the application's own TLS answers", SOON, || {
            let mut command = cluster.actor(from).pod.command("curl");
            command.args(["-sS", "--noproxy", "*", "-m", "30", "--resolve", &resolve, "-o", "/dev/null"]);
            command.args(["-w", "%{http_code} %{ssl_verify_result}", "--cacert"]).arg(&files.ca).arg(&url);
            let said = Program::run("curl", command, SOON * 2).map_err(|error| error.to_string())?;
            if said.trim() == "200 0" { Ok(()) } else { Err(said) }
        })
        .unwrap_or_else(|error| panic!("{from}: {error}\n{}\n{}", server.said(), cluster.told()));
    }
}

/// Half of a ClientHello, then silence: it is nobody's plaintext.
#[test]
fn half_a_hello_is_never_passed_on_as_plaintext() {
    let cluster = limited(PERMISSIVE, "", "limits: {handshakeTimeoutMs: 1000}\n");
    let to = cluster.at("far", 0, LINES);
    let mut stream =
        cluster.of("stray").node.namespace().run(|| std::net::TcpStream::connect(to)).unwrap().unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    // A record of 512 bytes is announced; in it stands what the server would send back as plaintext.
    stream.write_all(b"\x16\x03\x01\x02\x00\nwho\n").unwrap();
    let mut got = Vec::new();
    let end = std::io::Read::read_to_end(&mut stream, &mut got);
    let text = String::from_utf8_lossy(&got);
    assert!(!text.contains("far"), "{text:?} {end:?}\n{}", cluster.told());
    assert!(
        !matches!(&end, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock),
        "kept open: {end:?}"
    );
}

//! The data mesh of the tutorial, STRICT as its manifests have it, over two nodes.

use std::{fs, io::Write as _, path::Path, process::Stdio, time::Duration};

use tests::node::{
    Curl, DataMesh, FHIR, FHIR_SERVICE, GATEWAY, POSTGRES_SERVICE, Program, SOON, eventually, psql,
};

/// Of the database's clients.
const READERS: &str = "---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: readers, namespace: datamesh}
spec:
  selector: {matchLabels: {app: postgres-db}}
  rules:
  - from: [{source: {principals: [cluster.local/ns/datamesh/sa/client, cluster.local/ns/datamesh/sa/fhir-server]}}]
    to: [{operation: {ports: [\"5432\"]}}]
";
/// As [`READERS`], by namespace instead of by name, without the client.
const NAMESPACES: &str = "---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: readers, namespace: datamesh}
spec:
  selector: {matchLabels: {app: postgres-db}}
  rules:
  - from: [{source: {namespaces: [datamesh], notPrincipals: [cluster.local/ns/datamesh/sa/client]}}]
";
const JSON: &str = "Content-Type: application/fhir+json";
const PATIENT: &str = r#"{"resourceType":"Patient","name":[{"family":"Two-Nodes"}]}"#;
/// Rows of the table that is copied in and out, and how many bytes its text has: 48 MiB.
const ROWS: usize = 384 * 1024;
const ROW: usize = 128;
const LONG: Duration = Duration::from_secs(180);

/// The tutorial's two users, and nobody, by one way to the FHIR server.
fn tutorial(mesh: &DataMesh, way: &str, ask: impl Fn(&[&str]) -> Curl) {
    let bearer = |name: &str| format!("Authorization: Bearer {}", mesh.token(name).unwrap());
    let (alice, bob) = (bearer("alice"), bearer("bob"));
    let post = ["-X", "POST", "-H", JSON, "--data-binary", PATIENT];
    let with =
        |token: &'static str| if token == "alice" { ["-H", alice.as_str()] } else { ["-H", bob.as_str()] };
    let cases: [(&str, Vec<&str>, u16, &str); 5] = [
        ("nobody reads", vec![], 403, "RBAC: access denied"),
        ("Alice reads", with("alice").to_vec(), 200, "\"Bundle\""),
        ("Alice writes", [&with("alice"), post.as_slice()].concat(), 403, "RBAC: access denied"),
        ("Bob writes", [&with("bob"), post.as_slice()].concat(), 201, "\"Patient\""),
        ("Bob reads", with("bob").to_vec(), 403, "RBAC: access denied"),
    ];
    for (case, words, status, body) in cases {
        let seen = ask(&words);
        assert_eq!(seen.status, status, "{way}, {case}: {seen:?}\n{}", mesh.cluster.told());
        assert!(seen.body.contains(body), "{way}, {case}: {seen:?}");
    }
}

#[test]
fn both_users_of_the_tutorial_are_served_over_two_nodes_and_nothing_but_tunnels_is_on_the_wire() {
    let mesh = DataMesh::open("").unwrap();
    let wire = mesh.cluster.wire().unwrap();
    let by_service = format!("http://{FHIR_SERVICE}:{FHIR}/Patient");
    let by_pod = format!("http://{}/Patient", mesh.cluster.at("fhir-server", 0, FHIR));
    for url in [&by_service, &by_pod] {
        let ask = |words: &[&str]| mesh.curl("client", &[words, &[url]].concat()).unwrap();
        tutorial(&mesh, &format!("a captured pod to {url}"), ask);
    }
    let gateway = format!("http://127.0.0.1:{GATEWAY}/Patient");
    let ask = |words: &[&str]| mesh.curl_on_node(0, &[words, &[&gateway]].concat()).unwrap();
    tutorial(&mesh, "the gateway", ask);
    let seen = wire.seen();
    seen.assert_sealed();
    let fhir = mesh.cluster.at("fhir-server", 0, FHIR).ip();
    // Fifteen answers, each with a FHIR resource or its refusal, in few connections.
    assert!(seen.carried(fhir) > 15 * 200, "{seen:?}");
    assert!((1..=4).contains(&seen.tunnels_to(fhir)), "{} connections", seen.tunnels_to(fhir));
    let told = mesh.cluster.nodes[1].proxy.as_ref().unwrap().said();
    for account in ["client", "fhir-server"] {
        let principal = format!("cluster.local/ns/datamesh/sa/{account}");
        assert!(told.contains(&principal), "no record with {principal}\n{}", mesh.cluster.told());
    }
}

#[test]
fn both_users_of_the_tutorial_are_served_over_a_sidecars_mtls() {
    let mesh = DataMesh::open("").unwrap();
    let certificate =
        mesh.cluster.certificate("sidecar", "spiffe://cluster.local/ns/partners/sa/sidecar").unwrap();
    let (crt, key) = (certificate.join("tls.crt"), certificate.join("tls.key"));
    let (crt, key) = (crt.to_str().unwrap(), key.to_str().unwrap());
    let address = mesh.cluster.at("fhir-server", 0, FHIR);
    let url = format!("https://{address}/Patient");
    // Names of hosts are in no certificate of the mesh; the chain and the name that is there, openssl looks at.
    let tls = ["--insecure", "--cert", crt, "--key", key];
    let ask = |version: &str, words: &[&str]| {
        mesh.curl("stranger", &[&tls, words, &[version, &url]].concat()).unwrap()
    };
    tutorial(&mesh, "mTLS, HTTP/1.1", |words| ask("--http1.1", words));
    // Without a body: curl 7.88 takes an answer over HTTP/2 that comes before its words have left for an error.
    let token = |name: &str| format!("Authorization: Bearer {}", mesh.token(name).unwrap());
    for (name, status) in [("alice", 200), ("bob", 403)] {
        let seen = ask("--http2", &["-H", &token(name)]);
        assert_eq!(seen.status, status, "mTLS, HTTP/2, {name}: {seen:?}\n{}", mesh.cluster.told());
    }
    let seen = mesh.curl("stranger", &["--insecure", &url]).unwrap();
    assert!(seen.is_reset(), "without a certificate: {seen:?}");
    let alice = mesh.token("alice").unwrap();
    let said = s_client(
        &mesh,
        address,
        "istio-http/1.1",
        Some(&certificate),
        &format!(
            "GET /Patient HTTP/1.1\r\nHost: fhir\r\nAuthorization: Bearer {alice}\r\nConnection: close\r\n\r\n"
        ),
    );
    assert!(said.contains("HTTP/1.1 200 OK"), "{said}\n{}", mesh.cluster.told());
    assert!(said.contains("ALPN protocol: istio-http/1.1"), "{said}");
    assert!(said.contains("Verify return code: 0 (ok)"), "{said}");
}

/// What `openssl s_client` sees, as an Istio sidecar without HTTP/2 would speak.
fn s_client(
    mesh: &DataMesh,
    to: std::net::SocketAddr,
    alpn: &str,
    certificate: Option<&Path>,
    text: &str,
) -> String {
    let mut command = mesh.cluster.actor("stranger").pod.command("openssl");
    command.args([
        "s_client",
        "-ign_eof",
        "-alpn",
        alpn,
        "-connect",
        &to.to_string(),
        "-verify_return_error",
    ]);
    command.arg("-CAfile").arg(mesh.cluster.authority().join("bundle.pem"));
    if let Some(folder) = certificate {
        command.arg("-cert").arg(folder.join("tls.crt")).arg("-key").arg(folder.join("tls.key"));
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

#[test]
fn the_outsider_is_refused_by_reset_and_never_answered() {
    let mesh = DataMesh::open("").unwrap();
    let fhir = format!("http://{}/Patient", mesh.cluster.at("fhir-server", 0, FHIR));
    let postgres = mesh.cluster.at("postgres-db", 0, 5432);
    let alice = format!("Authorization: Bearer {}", mesh.token("alice").unwrap());
    for words in [vec![fhir.as_str()], vec!["-H", &alice, &fhir]] {
        for pod in ["stranger", "passer-by"] {
            let seen = mesh.curl(pod, &words).unwrap();
            assert!(seen.is_reset(), "{pod}: {seen:?}\n{}", mesh.cluster.told());
        }
        for node in [0, 1] {
            let seen = mesh.curl_on_node(node, &words).unwrap();
            assert!(seen.is_reset(), "node {node}: {seen:?}\n{}", mesh.cluster.told());
        }
    }
    let stage = &mesh.cluster.nodes[0];
    for pod in ["stranger", "passer-by"] {
        let command =
            psql(&mesh.cluster.actor(pod).pod, &postgres.ip().to_string(), &["-c", "select 'answered'"]);
        let (status, said) = Program::start("psql", command).unwrap().finish(SOON).unwrap();
        assert!(!status.success() && !said.contains("answered"), "{pod}: {said}");
        assert!(said.contains("reset by peer") || said.contains("closed the connection"), "{pod}: {said}");
        // By curl too, which says how: PostgreSQL does not speak HTTP, and would say so.
        let seen = mesh.curl(pod, &[&format!("http://{postgres}/")]).unwrap();
        assert!(seen.is_reset(), "{pod}: {seen:?}\n{}", stage.told());
    }
    let reached: Vec<String> = mesh
        .postgres
        .said()
        .lines()
        .filter(|line| line.contains("connection received"))
        .map(str::to_owned)
        .collect();
    assert!(reached.is_empty(), "PostgreSQL was reached: {reached:?}");
}

#[test]
fn the_fhir_server_and_its_clients_reach_postgresql_through_the_mesh() {
    let mesh = DataMesh::open(READERS).unwrap();
    let wire = mesh.cluster.wire().unwrap();
    let (service, pod) =
        (POSTGRES_SERVICE.to_string(), mesh.cluster.at("postgres-db", 0, 0).ip().to_string());
    // Of the FHIR server's node it is: the wire is not needed.
    for host in [&service, &pod] {
        ask(&mesh, "fhir-server", host);
    }
    assert_eq!(wire.seen().tunnels_to(pod.parse().unwrap()), 0);
    for host in [&service, &pod] {
        ask(&mesh, "client", host);
    }
    copy(&mesh, &service);
    let seen = wire.seen();
    seen.assert_sealed();
    let carried = seen.carried(pod.parse().unwrap());
    assert!(carried > 2 * (ROWS * ROW) as u64, "{carried} bytes in tunnels");
    let received = mesh.postgres.said().lines().filter(|line| line.contains("connection received")).count();
    refused(&mesh, "reporter", &service);
    let after = mesh.postgres.said().lines().filter(|line| line.contains("connection received")).count();
    assert_eq!(received, after, "PostgreSQL saw a connection that is refused");
}

fn ask(mesh: &DataMesh, from: &str, host: &str) {
    let command = psql(&mesh.cluster.actor(from).pod, host, &["-c", "select 6 * 7"]);
    let said = Program::run("psql", command, SOON)
        .unwrap_or_else(|error| panic!("{from} to {host}: {error}\n{}", mesh.cluster.told()));
    assert_eq!(said.trim(), "42", "{from} to {host}");
}

/// Not one byte comes back.
fn refused(mesh: &DataMesh, from: &str, host: &str) {
    let pod = &mesh.cluster.actor(from).pod;
    let (status, said) =
        Program::start("psql", psql(pod, host, &["-c", "select 'answered'"])).unwrap().finish(SOON).unwrap();
    assert!(!status.success() && !said.contains("answered"), "{from}: {said}\n{}", mesh.cluster.told());
    let seen = mesh.curl(from, &[&format!("http://{host}:5432/")]).unwrap();
    // Its own proxy may refuse it before curl has looked whether it is connected: 7.
    assert!(
        seen.is_reset() || (seen.status == 0 && seen.exit == 7),
        "{from}: {seen:?}\n{}",
        mesh.cluster.told()
    );
}

/// Some fifty MiB in, and the same out again.
fn copy(mesh: &DataMesh, host: &str) {
    let folder = mesh.cluster.nodes[0].node.folder();
    let (from, to) = (folder.join("in.tsv"), folder.join("out.tsv"));
    let line = |n: usize| {
        let filler = (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        format!("{n}\t{:<width$}\n", format!("{filler:016x}").repeat(8), width = ROW)
    };
    let text: String = (0..ROWS).map(line).collect();
    fs::write(&from, &text).unwrap();
    let script = [
        "create table copied (n int, t text)".to_owned(),
        format!("\\copy copied from '{}'", from.display()),
        format!("\\copy (select * from copied order by n) to '{}'", to.display()),
        "select count(*) from copied".to_owned(),
    ];
    let words: Vec<&str> = script.iter().flat_map(|command| ["-c", command]).collect();
    let said = Program::run("psql", psql(&mesh.cluster.actor("client").pod, host, &words), LONG)
        .unwrap_or_else(|error| panic!("{error}\n{}", mesh.cluster.told()));
    assert_eq!(said.trim(), ROWS.to_string());
    assert!(fs::read(&to).unwrap() == text.as_bytes(), "what came back is not what was sent");
}

#[test]
fn a_policy_change_ends_a_live_psql_session() {
    let mut mesh = DataMesh::open(READERS).unwrap();
    let host = POSTGRES_SERVICE.to_string();
    let session = |from: &str| {
        // One answer, and then a long wait for the next.
        let words = ["-c", "select 'begun'", "-c", "select pg_sleep(600)"];
        let running = Program::start("psql", psql(&mesh.cluster.actor(from).pod, &host, &words)).unwrap();
        running.line("begun", SOON).unwrap_or_else(|error| panic!("{error}\n{}", mesh.cluster.told()));
        running
    };
    // Over the wire, and within a node.
    let (ended, mut kept) = (session("client"), session("fhir-server"));
    mesh.cluster.policies(NAMESPACES).unwrap();
    let (status, said) =
        ended.finish(SOON).unwrap_or_else(|error| panic!("{error}\n{}", mesh.cluster.told()));
    assert!(!status.success(), "{said}");
    refused(&mesh, "client", &host);
    ask(&mesh, "reporter", &host);
    assert!(kept.runs().unwrap(), "a session that is permitted was ended: {}", kept.said());
    mesh.cluster.policies("---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: nobody, namespace: datamesh}\nspec: {selector: {matchLabels: {app: postgres-db}}}\n").unwrap();
    eventually("the session within the node ends", SOON, || {
        let runs = kept.runs().unwrap();
        if runs { Err(kept.said()) } else { Ok(()) }
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", mesh.cluster.told()));
}

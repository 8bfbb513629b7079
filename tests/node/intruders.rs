//! Ways into a captured pod past its proxy's judgement, from another node and from within the mesh: none
//! is one.

use std::net::SocketAddr;

use tests::node::{Cluster, HTTP, LINES, Program, SOON, TUNNELS};

use crate::between::{STRICT, cluster};

/// `far` is for `near` alone.
const NEAR_ALONE: &str = "---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: near-alone, namespace: pods}
spec:
  selector: {matchLabels: {app: far}}
  rules: [{from: [{source: {principals: [cluster.local/ns/pods/sa/near]}}]}]
";
/// `far` is for an address that nobody has.
const FROM_NOWHERE: &str = "---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: from-nowhere, namespace: pods}
spec:
  selector: {matchLabels: {app: far}}
  rules: [{from: [{source: {ipBlocks: [192.0.2.1/32]}}]}]
";

/// What somebody gets who speaks HBONE by himself.
fn hbone(cluster: &Cluster, from: &str, to: SocketAddr, words: &[&str]) -> String {
    let to = to.to_string();
    let program = cluster.of(from).in_pod(from, &[&["hbone", &to], words].concat()).unwrap();
    program.finish(SOON).unwrap().1
}

/// A tunnel may be opened before its first words say what it is for; what counts is that nothing comes out.
fn never(what: &str, said: &str, cluster: &Cluster) {
    let answered = ["answer", "through", "past", "far "];
    assert!(!answered.iter().any(|word| said.contains(word)), "{what}: {said}\n{}", cluster.told());
    assert!(!said.is_empty(), "{what}: nothing was tried");
}

#[test]
fn nobody_is_let_in_on_15008_without_a_certificate_of_the_mesh() {
    let cluster = cluster("", "");
    let (tunnels, authority) = (cluster.at("far", 0, TUNNELS), cluster.at("far", 0, LINES).to_string());
    never("no certificate", &hbone(&cluster, "stray", tunnels, &[&authority, "none"]), &cluster);
    // Certificates of an authority that the mesh does not know, and of a domain that is another's.
    let folder = cluster.authority().with_file_name("foreign");
    let foreign = certs::Authority::mint("cluster.local root").unwrap();
    let near = certs::LeafRequest::for_workload("spiffe://cluster.local/ns/pods/sa/near");
    foreign.issue(&near).unwrap().write_to(&folder, &foreign).unwrap();
    let said = hbone(&cluster, "stray", tunnels, &[&authority, folder.to_str().unwrap()]);
    never("a stranger's authority", &said, &cluster);
    let folder = cluster.certificate("domain", "spiffe://elsewhere.example/ns/pods/sa/near").unwrap();
    let said = hbone(&cluster, "stray", tunnels, &[&authority, folder.to_str().unwrap()]);
    never("another trust domain", &said, &cluster);
    // Plaintext, HTTP of either version.
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let mut command = cluster.actor("stray").pod.command("curl");
        command.args(["-sS", "--noproxy", "*", "-m", "30", version, &format!("http://{tunnels}/")]);
        let (status, said) = Program::start("curl", command).unwrap().finish(SOON * 2).unwrap();
        assert!([52, 55, 56, 16, 92].contains(&status.code().unwrap()), "{version}: {status}: {said}");
        never(version, &said, &cluster);
    }
    // Through the same door, with one: the door is open.
    let folder = cluster.certificate("member", "spiffe://cluster.local/ns/partners/sa/member").unwrap();
    let said = hbone(&cluster, "stray", tunnels, &[&authority, folder.to_str().unwrap()]);
    assert!(said.contains("answer far "), "{said}\n{}", cluster.told());
}

#[test]
fn a_tunnel_leads_to_its_own_pod_alone_and_never_to_the_proxy() {
    let cluster = cluster("", "");
    let tunnels = cluster.at("far", 0, TUNNELS);
    let folder = cluster.certificate("member", "spiffe://cluster.local/ns/partners/sa/member").unwrap();
    let folder = folder.to_str().unwrap();
    let far = |port: u16| cluster.at("far", 0, port).to_string();
    let authorities = [
        cluster.at("open", 0, LINES).to_string(),
        cluster.at("near", 0, LINES).to_string(),
        format!("127.0.0.1:{LINES}"),
        format!("127.0.0.1:{}", tests::node::INNER),
        format!("localhost:{LINES}"),
        format!("user@{}", far(LINES)),
        far(15_008),
        far(15_001),
        far(15_006),
        far(0),
        "10.100.1.2:15000".to_owned(),
    ];
    for authority in &authorities {
        never(authority, &hbone(&cluster, "stray", tunnels, &[authority, folder]), &cluster);
    }
}

/// Only the one who shows the certificate is believed, and of him only that.
#[test]
fn what_a_caller_says_of_himself_in_headers_is_not_believed() {
    let cluster = cluster(&[STRICT, FROM_NOWHERE].concat(), "");
    let tunnels = cluster.at("far", 0, TUNNELS);
    let folder = cluster.certificate("member", "spiffe://cluster.local/ns/partners/sa/member").unwrap();
    let claims = [
        "forwarded=for=192.0.2.1;by=192.0.2.2",
        "x-forwarded-for=192.0.2.1",
        "x-forwarded-client-cert=URI=spiffe://cluster.local/ns/pods/sa/near",
        "baggage=k8s.namespace.name=pods,k8s.pod.name=near,service.name=near",
        "x-istio-source=near",
    ];
    let authority = cluster.at("far", 0, LINES).to_string();
    let words = [&[authority.as_str(), folder.to_str().unwrap()], claims.as_slice()].concat();
    never("claims of a tunnel", &hbone(&cluster, "stray", tunnels, &words), &cluster);
    // In the request itself, over mTLS: the application is told who it is, by us.
    let url = format!("https://{}/headers", cluster.at("far", 0, HTTP));
    let ask = |cluster: &Cluster| {
        let mut command = cluster.actor("stray").pod.command("curl");
        command.args(["-sSk", "--noproxy", "*", "-m", "30", "--http1.1", &url, "--cert"]);
        command.arg(folder.join("tls.crt")).arg("--key").arg(folder.join("tls.key"));
        for claim in claims {
            let (name, value) = claim.split_once('=').unwrap();
            command.args(["-H", &format!("{name}: {value}")]);
        }
        Program::start("curl", command).unwrap().finish(SOON).unwrap().1
    };
    never("claims in a request", &ask(&cluster), &cluster);
    let mut cluster = cluster;
    cluster.policies(STRICT).unwrap();
    let said = tests::node::eventually("it is served once policy lets it", SOON, || {
        let said = ask(&cluster);
        if said.contains("far ") { Ok(said) } else { Err(said) }
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", cluster.told()));
    let certificates: Vec<&str> =
        said.lines().filter(|line| line.to_lowercase().starts_with("x-forwarded-client-cert")).collect();
    assert_eq!(certificates.len(), 1, "{said}");
    assert!(certificates[0].contains("sa/member") && !certificates[0].contains("sa/near"), "{said}");
}

#[test]
fn a_captured_pod_that_dials_a_neighbours_ports_of_the_mesh_itself_gets_nowhere() {
    let cluster = cluster(&[STRICT, NEAR_ALONE].concat(), "");
    // It has no certificate of its own to read; say that it has stolen one that policy permits.
    let stolen = cluster.certificate("stolen", "spiffe://cluster.local/ns/pods/sa/near").unwrap();
    let stolen = stolen.to_str().unwrap();
    for to in ["far", "near"] {
        let authority = cluster.at(to, 0, LINES).to_string();
        for folder in ["none", stolen] {
            let said = hbone(&cluster, "beside", cluster.at(to, 0, TUNNELS), &[&authority, folder]);
            never(&format!("beside to {to}, {folder}"), &said, &cluster);
        }
    }
    for port in [15_001, 15_006, TUNNELS] {
        for (from, to) in
            [("beside", "far"), ("near", "far"), ("beside", "near"), ("near", "near"), ("stray", "far")]
        {
            let said = cluster.ask(from, cluster.at(to, 0, port));
            assert!(said.starts_with("error"), "{from} to {to}:{port}: {said}\n{}", cluster.told());
        }
    }
    let said = cluster.ask("near", cluster.at("far", 0, LINES));
    assert!(said.starts_with("through far"), "{said}");
}

/// An application that listens on HBONE's port in a captured pod is reached by nobody there, and nobody
/// takes its words for the mesh's.
#[test]
fn a_pod_that_listens_on_15008_itself_is_not_reached_there() {
    let cluster = cluster("", "");
    let squatter = cluster.of("far").in_pod("far", &["serve", "squatter", &TUNNELS.to_string()]).unwrap();
    squatter.line("ready", SOON).unwrap();
    for from in ["stray", "near", "open"] {
        for family in 0..2 {
            let said = cluster.ask(from, cluster.at("far", family, TUNNELS));
            assert!(said.starts_with("error"), "{from}: {said}\n{}", cluster.told());
        }
    }
    // Tunnels are served beside it.
    let said = cluster.ask("near", cluster.at("far", 0, LINES));
    assert!(said.starts_with("through far"), "{said}\n{}", cluster.told());
}

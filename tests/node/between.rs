//! Two nodes: what goes between them.

use std::{
    net::{TcpListener, TcpStream},
    time::{Duration, Instant},
};

use tests::node::{CLIENT_PORTS, Cluster, HTTP, INNER, LINES, Options, Program, SOON, eventually};

pub const STRICT: &str = "---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: pods}
spec: {mtls: {mode: STRICT}}
";
/// `far` is for `near` alone, whatever the port.
const NEAR_ALONE: &str = "---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: near-alone, namespace: pods}
spec:
  selector: {matchLabels: {app: far}}
  rules: [{from: [{source: {principals: [cluster.local/ns/pods/sa/near]}}]}]
";
/// Where a server speaks first.
const GREETS: u16 = INNER + 1;
/// Lives of certificates, in seconds: a root's is over within half a minute.
const BRIEF: &str = ", leafSeconds: 5, intermediateSeconds: 10, rootSeconds: 28, overlapSeconds: 4";
const UPGRADES: u64 = 10;
/// Each way through a tunnel: 64 MiB.
const BYTES: u64 = 64 << 20;
/// Below the second after which a neighbour is asked for, or a packet sent, once more.
const AT_ONCE: Duration = Duration::from_millis(900);
const LONG: Duration = Duration::from_secs(180);

/// `near` and `beside` are captured on the first node, `far` on the second; `stray` on the first and `open`
/// on the second have no label.
pub fn cluster(policies: &str, authority: &str) -> Cluster {
    limited(policies, authority, "")
}

/// As [`cluster`], with limits.
pub fn limited(policies: &str, authority: &str, more: &str) -> Cluster {
    let options = Options { log: true, more: more.to_owned(), ..Options::default() };
    let mut cluster = Cluster::new(&options, authority).unwrap();
    let pods =
        [(0, "near", true), (0, "beside", true), (0, "stray", false), (1, "far", true), (1, "open", false)];
    for (node, name, enrolled) in pods {
        let actor = cluster.pod(node, name, enrolled).unwrap();
        actor.probes = format!("    livenessProbe: {{httpGet: {{path: /alive, port: {HTTP}}}}}\n");
    }
    cluster.policies(policies).unwrap();
    cluster.start().unwrap_or_else(|error| panic!("{error}\n{}", cluster.told()));
    cluster
}

/// What is asked first, at once after the set-up, arrives: nobody has to look for neighbours for seconds, which
/// on a busy machine ended in "no route to host".
#[test]
fn pods_of_two_nodes_reach_each_other_as_soon_as_they_are_there() {
    let mut cluster = Cluster::new(&Options::default(), "").unwrap();
    let pod = |cluster: &mut Cluster, node, name| cluster.pod(node, name, false).unwrap().pod.addresses();
    let to = pod(&mut cluster, 1, "open");
    pod(&mut cluster, 0, "stray");
    let namespace = |name| cluster.actor(name).pod.namespace();
    for address in to {
        let server = namespace("open").run(|| TcpListener::bind((address, 0))).unwrap().unwrap();
        let to = server.local_addr().unwrap();
        let client = namespace("stray").run(|| TcpStream::connect_timeout(&to, AT_ONCE)).unwrap();
        assert!(client.is_ok(), "{to}: {client:?}");
    }
}

#[test]
fn the_eye_between_nodes_sees_what_is_not_a_tunnel() {
    let cluster = cluster("", "");
    let wire = cluster.wire().unwrap();
    for family in 0..2 {
        wire.forget();
        let said = cluster.ask("stray", cluster.at("open", family, LINES));
        assert!(said.starts_with("past open"), "{said}");
        eventually("the words are seen", SOON, || {
            let seen = wire.seen();
            let words = seen.strays.iter().any(|stray| stray.contains("who"));
            if words { Ok(()) } else { Err(format!("{seen:?}")) }
        })
        .unwrap();
    }
}

#[test]
fn pods_of_two_nodes_talk_in_tunnels_alone() {
    let cluster = cluster(STRICT, "");
    let wire = cluster.wire().unwrap();
    let mut to: Vec<(&str, &str, std::net::SocketAddr)> = Vec::new();
    for (from, name) in [("near", "far"), ("far", "near")] {
        to.extend((0..2).map(|family| (from, name, cluster.at(name, family, LINES))));
        to.push((from, name, (cluster.actor(name).service, 70).into()));
    }
    for (from, name, to) in to {
        let said = cluster.ask(from, to);
        assert!(said.starts_with(&format!("through {name}")), "{from} to {to}: {said}\n{}", cluster.told());
    }
    let seen = wire.seen();
    seen.assert_sealed();
    for name in ["near", "far"] {
        for family in 0..2 {
            let address = cluster.at(name, family, 0).ip();
            assert!(seen.tunnels_to(address) > 0 && seen.carried(address) > 0, "{address}: {seen:?}");
        }
    }
    let told = cluster.of("far").proxy.as_ref().unwrap().said();
    let record = told.lines().find(|line| line.contains("sa/near")).unwrap_or_else(|| panic!("{told}"));
    for fact in ["\"mutualTls\":true", "\"reporter\":\"destination\""] {
        assert!(record.contains(fact), "{fact}: {record}");
    }
    assert!(!record.contains("\"fromKernel\":true"), "{record}");
}

#[test]
fn what_is_within_a_node_is_not_on_the_wire_and_its_identity_is_the_kernels() {
    let cluster = cluster(STRICT, "");
    let wire = cluster.wire().unwrap();
    for family in 0..2 {
        let said = cluster.ask("near", cluster.at("beside", family, LINES));
        assert!(said.starts_with("through beside"), "{said}\n{}", cluster.told());
    }
    let seen = wire.seen();
    seen.assert_sealed();
    assert_eq!(seen.tunnels_to(cluster.at("beside", 0, 0).ip()), 0);
    let told = cluster.of("beside").proxy.as_ref().unwrap().said();
    let record = told.lines().find(|line| line.contains("sa/near") && line.contains("pods/beside"));
    let record = record.unwrap_or_else(|| panic!("{told}"));
    for fact in ["\"mutualTls\":true", "\"fromKernel\":true"] {
        assert!(record.contains(fact), "{fact}: {record}");
    }
}

/// One who is refused gets not one byte, of a server that speaks first neither, over the wire and within
/// a node.
#[test]
fn a_peer_that_policy_refuses_gets_not_one_byte() {
    let cluster = cluster(&[STRICT, NEAR_ALONE].concat(), "");
    let greets = cluster.at("far", 0, GREETS);
    let heard = |from: &str| {
        let (_, said) =
            cluster.of(from).in_pod(from, &["hear", &greets.to_string()]).unwrap().finish(SOON).unwrap();
        said
    };
    assert_eq!(heard("near"), "heard hello far", "{}", cluster.told());
    let said = heard("beside");
    assert!(said.starts_with("error") && !said.contains("hello"), "{said}\n{}", cluster.told());
    let said = cluster.ask("beside", cluster.at("far", 0, LINES));
    assert!(said.starts_with("error"), "{said}");
    let said = cluster.ask("near", cluster.at("far", 0, LINES));
    assert!(said.starts_with("through far"), "{said}");
}

#[test]
fn the_nodes_own_probes_reach_a_pod_under_strict_and_nothing_else_does_by_that_way() {
    let cluster = cluster(STRICT, "");
    let to = cluster.at("far", 0, HTTP);
    let (own, other) = (cluster.of("far"), cluster.of("near"));
    let status = |stage: &tests::node::Stage, path: &str| {
        stage.get(to, path).map_or_else(|error| error.to_string(), |(status, _)| status.to_string())
    };
    assert_eq!(status(own, "/alive"), "200", "{}", cluster.told());
    for (stage, path) in [(own, "/other"), (own, "/alive/../other"), (other, "/alive"), (other, "/other")] {
        let said = status(stage, path);
        let answered = said.parse::<u16>().is_ok_and(|status| status < 400);
        assert!(!answered, "{path}: {said}\n{}", cluster.told());
    }
    // From the pod's own node too, what is not a probe is not answered as by the pod.
    let said = own.get(cluster.at("far", 0, LINES), "/alive");
    assert!(!matches!(said, Ok((200, _))), "{said:?}");
}

#[test]
fn a_destination_without_its_proxy_is_refused_and_is_back_with_it() {
    let mut cluster = cluster(STRICT, "");
    let to = cluster.at("far", 0, LINES);
    let said = cluster.ask("near", to);
    assert!(said.starts_with("through far"), "{said}\n{}", cluster.told());
    let wire = cluster.wire().unwrap();
    for _ in 0..2 {
        cluster.nodes[1].proxy.as_mut().unwrap().kill().unwrap();
        let began = Instant::now();
        let said = cluster.ask("near", to);
        assert!(said.starts_with("error"), "{said}");
        eprintln!("refused after {:?}: {said}", began.elapsed());
        cluster.nodes[1].start_proxy().unwrap();
        cluster.until_said("near", to, "through far").unwrap();
    }
    wire.seen().assert_sealed();
}

/// Whoever ends first: every byte arrives, and the other half goes on.
#[test]
fn halves_of_a_tunnelled_connection_end_by_themselves_with_all_their_bytes() {
    let cluster = cluster(STRICT, "");
    let wire = cluster.wire().unwrap();
    let (to, bytes) = (cluster.at("far", 0, LINES), BYTES.to_string());
    let run = |words: &[&str]| cluster.of("near").in_pod("near", words).unwrap();
    let (_, said) = run(&["count", &to.to_string(), &bytes]).finish(LONG).unwrap();
    assert_eq!(said, format!("count {BYTES} ok"), "the client first\n{}", cluster.told());
    let mut pull = run(&["pull", &to.to_string(), "1", &bytes]);
    pull.line("asked", SOON).unwrap();
    pull.tell("read").unwrap();
    pull.line("whole", LONG).unwrap_or_else(|error| panic!("the server first: {error}\n{}", cluster.told()));
    let seen = wire.seen();
    seen.assert_sealed();
    assert!(seen.carried(to.ip()) > 2 * BYTES, "{}", seen.carried(to.ip()));
}

/// The far proxy's successor takes over while it drains: no connection fails, new or old.
#[test]
fn upgrades_of_the_destinations_proxy_fail_nothing() {
    let mut cluster = cluster(STRICT, "");
    let to = cluster.at("far", 0, LINES);
    let load = load(&cluster, "near", to);
    for upgrade in 0..UPGRADES {
        let mut held = cluster.of("near").in_pod("near", &["hold", &to.to_string(), "5"]).unwrap();
        held.line("held 5", SOON).unwrap();
        let old = cluster.nodes[1].start_proxy().unwrap().unwrap();
        cluster.nodes[1].until_held().unwrap();
        held.tell("again").unwrap();
        held.line("held 5", SOON)
            .unwrap_or_else(|error| panic!("upgrade {upgrade}: {error}\n{}", cluster.told()));
        held.finish(SOON).unwrap();
        let (status, said) = old.finish(LONG).unwrap_or_else(|error| panic!("upgrade {upgrade}: {error}"));
        assert!(status.success(), "upgrade {upgrade}: {status}: {said}");
        cluster.until_said("near", to, "through far").unwrap();
    }
    none_failed(load, UPGRADES, &cluster);
}

/// Leaves, intermediates and a root end while connections are made all the time; none fails.
#[test]
fn certificates_of_all_ranks_rotate_under_load_between_nodes() {
    let cluster = cluster(STRICT, BRIEF);
    let first = roots(&cluster);
    let wire = cluster.wire().unwrap();
    let loads = [
        load(&cluster, "near", cluster.at("far", 0, LINES)),
        load(&cluster, "far", cluster.at("near", 1, LINES)),
    ];
    eventually("the first root is over", LONG, || {
        let now = roots(&cluster);
        if first.iter().any(|root| now.contains(root)) { Err(format!("{now:?}")) } else { Ok(()) }
    })
    .unwrap();
    // What the new root signed is in use on both sides.
    for name in ["near", "far"] {
        let identity = format!("sa/{name}");
        let renewals =
            cluster.of(name).metric("fhirward_workload_certificate_renewals_total", &[&identity]).unwrap();
        assert!(renewals > 5.0, "{name}: {renewals} renewals");
    }
    for load in loads {
        none_failed(load, 100, &cluster);
    }
    wire.seen().assert_sealed();
}

/// A connection for each exchange, all the time.
fn load(cluster: &Cluster, from: &str, to: std::net::SocketAddr) -> Program {
    let words = ["load", &to.to_string(), "2", "new", &CLIENT_PORTS.start.to_string()];
    let load = cluster.of(from).in_pod(from, &words).unwrap();
    load.line("well", SOON).unwrap_or_else(|error| panic!("{error}\n{}", cluster.told()));
    load
}

fn none_failed(load: Program, least: u64, cluster: &Cluster) {
    let (_, said) = load.finish(SOON * 2).unwrap();
    let last = said.lines().find(|line| line.starts_with("end ")).unwrap_or_default();
    eprintln!("{last}");
    let numbers: Vec<u64> = last.split(' ').skip(1).take(2).flat_map(str::parse).collect();
    assert!(matches!(numbers.as_slice(), [done, 0] if *done > least), "{said}\n{}", cluster.told());
}

/// The end of a certificate's life alone ends nothing: both sides have new ones long before.
#[test]
fn a_kept_session_outlives_the_certificates_under_which_it_began() {
    let cluster = cluster(STRICT, ", leafSeconds: 5, intermediateSeconds: 10");
    let wire = cluster.wire().unwrap();
    let to = cluster.at("far", 0, LINES).to_string();
    let kept = cluster.of("near").in_pod("near", &["load", &to, "2", "kept"]).unwrap();
    kept.line("well", SOON).unwrap_or_else(|error| panic!("{error}\n{}", cluster.told()));
    let renewals = |name: &str| {
        let identity = format!("sa/{name}\"");
        cluster.of(name).metric("fhirward_workload_certificate_renewals_total", &[&identity]).unwrap()
    };
    let before = [renewals("near"), renewals("far")];
    // Renewed after half of its life at the earliest: the certificates of the beginning, and the ones after them, are over.
    eventually("both sides' certificates are other ones", LONG, || {
        let now = [renewals("near"), renewals("far")];
        if now.iter().zip(before).all(|(now, before)| *now >= before + 5.0) {
            Ok(())
        } else {
            Err(format!("{now:?}"))
        }
    })
    .unwrap();
    none_failed(kept, 100, &cluster);
    wire.seen().assert_sealed();
}

/// The files of the roots that are trusted now.
fn roots(cluster: &Cluster) -> Vec<String> {
    let files = std::fs::read_dir(cluster.authority()).unwrap().flatten();
    let names = files.map(|file| file.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.ends_with(".crt")).collect()
}

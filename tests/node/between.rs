//! Two nodes: what goes between them.

use tests::node::{Cluster, LINES, Options};

const STRICT: &str = "---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: pods}
spec: {mtls: {mode: STRICT}}
";

/// `near` is captured on the first node, `far` on the second; `stray` on the first and `open` on the
/// second have no label.
fn cluster(policies: &str) -> Cluster {
    let mut cluster = Cluster::new(&Options { log: true, ..Options::default() }, "").unwrap();
    cluster.pod(0, "near", true).unwrap();
    cluster.pod(0, "stray", false).unwrap();
    cluster.pod(1, "far", true).unwrap();
    cluster.pod(1, "open", false).unwrap();
    cluster.policies(policies).unwrap();
    cluster.start().unwrap_or_else(|error| panic!("{error}\n{}", cluster.told()));
    cluster
}

#[test]
fn the_eye_between_nodes_sees_what_is_not_a_tunnel() {
    let cluster = cluster("");
    let wire = cluster.wire().unwrap();
    for family in 0..2 {
        wire.forget();
        let said = cluster.ask("stray", cluster.at("open", family, LINES));
        assert!(said.starts_with("past open"), "{said}");
        tests::node::eventually("the words are seen", tests::node::SOON, || {
            let seen = wire.seen();
            if seen.strays.iter().any(|stray| stray.contains("who")) {
                Ok(())
            } else {
                Err(format!("{seen:?}"))
            }
        })
        .unwrap();
    }
}

#[test]
fn pods_of_two_nodes_talk_in_tunnels_alone() {
    let cluster = cluster(STRICT);
    let wire = cluster.wire().unwrap();
    for family in 0..2 {
        for (from, to) in [("near", "far"), ("far", "near")] {
            let to_port = cluster.at(to, family, LINES);
            let said = cluster.until_said(from, to_port, &format!("through {to}")).unwrap();
            eprintln!("{said}");
            let seen = wire.seen();
            seen.assert_sealed();
            assert!(seen.tunnels_to(to_port.ip()) > 0 && seen.carried(to_port.ip()) > 0, "{seen:?}");
        }
    }
}

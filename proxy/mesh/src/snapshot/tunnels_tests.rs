//! How the proxies in front of destinations are spoken to.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;
use crate::settings::TunnelKind;

const PODS: &str = r#"
{apiVersion: v1, kind: Namespace, metadata: {name: apps, labels: {istio-injection: enabled}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: ours, namespace: apps}, spec: {}, status: {podIP: 10.0.0.1}}
---
{apiVersion: v1, kind: Pod, metadata: {name: sidecar, namespace: apps, labels: {security.istio.io/tlsMode: istio}}, spec: {}, status: {podIP: 10.0.0.2}}
---
{apiVersion: v1, kind: Pod, metadata: {name: ztunnel, namespace: other, annotations: {ambient.istio.io/redirection: enabled}}, spec: {}, status: {podIP: 10.0.0.3}}
---
{apiVersion: v1, kind: Pod, metadata: {name: both, namespace: apps, labels: {security.istio.io/tlsMode: istio, networking.istio.io/tunnel: "x,http"}}, spec: {}, status: {podIP: 10.0.0.4}}
---
{apiVersion: v1, kind: Pod, metadata: {name: stranger, namespace: other}, spec: {}, status: {podIP: 10.0.0.5}}
---
{apiVersion: v1, kind: Pod, metadata: {name: out, namespace: apps, labels: {fhirward.dev/mesh: disabled}}, spec: {}, status: {podIP: 10.0.0.6}}
---
{apiVersion: v1, kind: Pod, metadata: {name: pending, namespace: other, annotations: {ambient.istio.io/redirection: pending}, labels: {networking.istio.io/tunnel: http3}}, spec: {}, status: {podIP: 10.0.0.7}}
"#;

fn built(manifests: &str, settings: &MeshSettings) -> Snapshot {
    let (objects, problems) = policy::manifest::parse("test.yaml", manifests);
    assert!(problems.is_empty(), "{problems:?}");
    Snapshot::build(&objects, settings, 7).unwrap().0
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn way(snapshot: &Snapshot, to: &str) -> Option<TunnelWay> {
    match snapshot.toward(at(to), None) {
        Toward::Plain => None,
        Toward::Tunnel(tunnel) => Some(tunnel.way),
        Toward::Contested => panic!("contested"),
    }
}

fn hbone(to: &str) -> Option<TunnelWay> {
    Some(TunnelWay::Hbone(at(to)))
}

#[test]
fn marks_of_pods_say_how_they_are_reached() {
    let snapshot = built(PODS, &MeshSettings::default());
    for (to, wanted) in [
        ("10.0.0.1:80", hbone("10.0.0.1:15008")),
        ("10.0.0.2:80", Some(TunnelWay::Sidecar)),
        ("10.0.0.3:80", hbone("10.0.0.3:15008")),
        ("10.0.0.4:80", hbone("10.0.0.4:15008")),
        ("10.0.0.5:80", None),
        ("10.0.0.6:80", None),
        ("10.0.0.7:80", None),
        ("10.0.0.8:80", None),
        ("[::ffff:10.0.0.1]:80", hbone("10.0.0.1:15008")),
    ] {
        assert_eq!(way(&snapshot, to), wanted, "{to}");
    }
}

#[test]
fn whoever_has_the_address_is_expected_there() {
    let snapshot = built(PODS, &MeshSettings::default());
    let meant = snapshot.workload(&"apps/ours".parse().unwrap());
    for meant in [None, meant] {
        let Toward::Tunnel(tunnel) = snapshot.toward(at("10.0.0.1:80"), meant) else { panic!() };
        assert_eq!(tunnel.workload.name.to_string(), "apps/ours");
        assert_eq!(tunnel.expected(), &tunnel.workload.identity);
    }
}

/// The settings lead to an address that a pod of somebody else has by now.
#[test]
fn what_is_meant_for_one_workload_is_not_for_another_that_has_its_address() {
    let mut settings = MeshSettings::default();
    let mut moved = crate::WorkloadSettings::named("apps/moved");
    moved.upstream = [(80, at("10.0.0.5:80")), (81, at("10.0.0.1:80")), (82, at("127.0.0.1:80"))].into();
    let mut host = crate::WorkloadSettings::named("other/host");
    host.ip = Some("127.0.0.1".parse().unwrap());
    settings.workloads = vec![moved, host];
    let toward = |settings: &MeshSettings, to: &str| {
        let snapshot = built(PODS, settings);
        let meant = snapshot.workload(&"apps/moved".parse().unwrap());
        snapshot.toward(at(to), meant)
    };
    // Neither speaks: a stranger of no mesh at an address that the settings name.
    assert!(matches!(toward(&settings, "10.0.0.5:80"), Toward::Plain));
    assert!(matches!(toward(&settings, "10.0.0.1:80"), Toward::Contested), "another's identity is not taken");
    settings
        .tunnels
        .insert("apps/moved".to_owned(), TunnelSettings { kind: TunnelKind::Hbone, address: None });
    assert!(matches!(toward(&settings, "10.0.0.5:80"), Toward::Contested), "never plaintext");
    let Toward::Tunnel(tunnel) = toward(&settings, "127.0.0.1:80") else { panic!("everybody's address") };
    assert_eq!(tunnel.workload.name.to_string(), "apps/moved");
}

/// `::ffff:10.0.0.1` and `10.0.0.1` are one address: a connection to either reaches the same pod.
#[test]
fn an_address_has_one_spelling() {
    let mapped = PODS.replace("10.0.0.1}", "\"::ffff:10.0.0.1\"}");
    let snapshot = built(&mapped, &MeshSettings::default());
    assert_eq!(way(&snapshot, "10.0.0.1:80"), hbone("10.0.0.1:15008"));
    let twice = mapped.replace("10.0.0.2", "10.0.0.1");
    let snapshot = built(&twice, &MeshSettings::default());
    assert!(matches!(snapshot.toward(at("10.0.0.1:80"), None), Toward::Contested));
    let mut settings = MeshSettings::default();
    let mut workload = crate::WorkloadSettings::named("apps/alone");
    workload.ip = Some("::ffff:10.1.0.1".parse().unwrap());
    settings.workloads = vec![workload];
    assert_eq!(way(&built(PODS, &settings), "10.1.0.1:80"), hbone("10.1.0.1:15008"));
}

#[test]
fn an_address_of_several_is_reached_by_nobody() {
    let twice = PODS.replace("10.0.0.2", "10.0.0.1");
    let snapshot = built(&twice, &MeshSettings::default());
    assert!(matches!(snapshot.toward(at("10.0.0.1:80"), None), Toward::Contested));
    let meant = snapshot.workload(&"apps/ours".parse().unwrap());
    assert!(matches!(snapshot.toward(at("10.0.0.1:80"), meant), Toward::Contested));
    let strangers = PODS.replace("10.0.0.7", "10.0.0.5");
    let snapshot = built(&strangers, &MeshSettings::default());
    assert!(matches!(snapshot.toward(at("10.0.0.5:80"), None), Toward::Plain));
}

#[test]
fn a_sidecar_that_takes_plaintext_alone_gets_it() {
    let disable = r#"
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: apps}
spec: {mtls: {mode: DISABLE}}
"#;
    let snapshot = built(&format!("{PODS}{disable}"), &MeshSettings::default());
    assert_eq!(way(&snapshot, "10.0.0.2:80"), None);
    assert_eq!(way(&snapshot, "10.0.0.1:80"), hbone("10.0.0.1:15008"), "HBONE is taken in every mode");
}

#[test]
fn the_settings_say_what_labels_do_not() {
    let mut settings = MeshSettings::default();
    let tunnel = |kind, address: Option<&str>| TunnelSettings { kind, address: address.map(at) };
    for (name, tunnel) in [
        ("apps/ours", tunnel(TunnelKind::None, None)),
        ("apps/sidecar", tunnel(TunnelKind::Hbone, Some("127.0.0.1:9000"))),
        ("other/stranger", tunnel(TunnelKind::Sidecar, None)),
        ("other/pending", tunnel(TunnelKind::Hbone, None)),
    ] {
        settings.tunnels.insert(name.to_owned(), tunnel);
    }
    let snapshot = built(PODS, &settings);
    assert_eq!(way(&snapshot, "10.0.0.1:80"), None);
    assert_eq!(way(&snapshot, "10.0.0.2:80"), hbone("127.0.0.1:9000"));
    assert_eq!(way(&snapshot, "10.0.0.5:80"), Some(TunnelWay::Sidecar));
    assert_eq!(way(&snapshot, "10.0.0.7:80"), hbone("10.0.0.7:15008"));
    // Where the settings lead a port elsewhere, that is the workload too.
    let meant = snapshot.workload(&"other/stranger".parse().unwrap());
    assert!(matches!(snapshot.toward(at("127.0.0.1:80"), meant), Toward::Tunnel(_)));
}

#[test]
fn settings_of_tunnels_that_make_no_sense_are_refused() {
    let tunnel = |kind, address: &str| TunnelSettings { kind, address: Some(at(address)) };
    for (name, tunnel, wanted) in [
        ("apps/nobody", tunnel(TunnelKind::Hbone, "1.2.3.4:5"), "no workload"),
        ("nonsense", tunnel(TunnelKind::Hbone, "1.2.3.4:5"), "no workload"),
        ("apps/ours", tunnel(TunnelKind::Sidecar, "1.2.3.4:5"), "`hbone` alone"),
        ("apps/ours", tunnel(TunnelKind::Hbone, "1.2.3.4:0"), "port 0"),
        ("apps/ours", tunnel(TunnelKind::Hbone, "0.0.0.0:15008"), "names no host"),
    ] {
        let settings =
            MeshSettings { tunnels: [(name.to_owned(), tunnel)].into(), ..MeshSettings::default() };
        let (objects, _) = policy::manifest::parse("test.yaml", PODS);
        let problems = Snapshot::build(&objects, &settings, 7).unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:?}");
        let text = problems[0].to_string();
        assert!(text.contains(&format!("mesh.tunnels.{name}")) && text.contains(wanted), "{text}");
    }
}

#[test]
fn a_workload_without_pods_goes_by_its_own_marks_at_its_own_address() {
    let mut settings = MeshSettings::default();
    let mut workload = crate::WorkloadSettings::named("apps/alone");
    workload.ip = Some("10.1.0.1".parse().unwrap());
    workload.upstream = [(8080, at("10.1.0.1:8080"))].into();
    let mut made_up = crate::WorkloadSettings::named("apps/made-up");
    made_up.enrolled = Some(true);
    settings.workloads = vec![workload, made_up];
    let snapshot = built(PODS, &settings);
    assert_eq!(way(&snapshot, "10.1.0.1:80"), hbone("10.1.0.1:15008"));
    assert_eq!(way(&snapshot, "10.1.0.1:8080"), None, "the settings lead there");
    // Pods elsewhere change nothing; on the node's network they have no proxy.
    let pod = |more: &str| {
        format!(
            "{PODS}\n---\n{{apiVersion: v1, kind: Pod, metadata: {{name: alone, namespace: apps}}, {more}}}"
        )
    };
    let beside = built(&pod("spec: {}, status: {podIP: 10.1.0.2}"), &settings);
    assert_eq!(way(&beside, "10.1.0.1:80"), hbone("10.1.0.1:15008"));
    let on_node = built(&pod("spec: {hostNetwork: true}, status: {podIP: 10.1.0.2}"), &settings);
    assert_eq!(way(&on_node, "10.1.0.1:80"), None);
    let made_up = snapshot.workload(&"apps/made-up".parse().unwrap()).unwrap();
    assert!(matches!(snapshot.toward(made_up.upstream(80), None), Toward::Plain));
}

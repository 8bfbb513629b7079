#![allow(clippy::unwrap_used)]

use super::*;

const GATEWAY: &str = "listeners: [{name: a, address: \"127.0.0.1:0\", gateway: {labels: {istio: ingressgateway}, port: 80}}]\n";

#[test]
fn the_smallest_settings_are_one_listener() {
    let settings = Settings::parse("s.yaml", GATEWAY).unwrap();
    assert!(settings.admin.address.ip().is_loopback(), "loopback unless told otherwise");
    assert!(settings.mesh.strict_target);
}

#[test]
fn mistakes_name_line_and_field() {
    let cases = [
        ("listeners: []\n", "listeners", "at least one listener"),
        ("listeners: [{name: a, address: \"127.0.0.1:0\"}]\n", "listeners[0].to", "needs `to` or `gateway`"),
        ("listeners: [{name: a, address: \"127.0.0.1:0\", to: x/y}]\n", "listeners[0].to", "container port"),
        (
            "listeners: [{name: a, address: \"127.0.0.1:0\", to: nonamespace, port: 1}]\n",
            "listeners[0].to",
            "namespace/name",
        ),
        ("listeners: [{name: a, adress: \"127.0.0.1:0\"}]\n", "listeners[0].adress", "address"),
        ("listeners: [{name: a, address: nowhere}]\n", "listeners[0].address", ""),
    ];
    for (text, field, message) in cases {
        let problem = Settings::parse("s.yaml", text).unwrap_err();
        assert_eq!(problem.field, field, "{problem:?}");
        assert!(problem.message.contains(message), "{problem:?}");
    }
    let problem = Settings::parse("s.yaml", &format!("{GATEWAY}limits:\n  headByte: 3\n")).unwrap_err();
    assert_eq!((problem.place.line, problem.field.as_str()), (3, "limits.headByte"));
}

#[test]
fn a_listeners_upstream_is_its_workloads() {
    let text = "listeners:
- {name: a, address: \"127.0.0.1:0\", to: d/f, port: 8080, upstream: \"127.0.0.1:9000\"}
mesh: {workloads: [{name: d/f, labels: {app: f}}]}
";
    let settings = Settings::parse("s.yaml", text).unwrap();
    let [workload] = settings.mesh.workloads.as_slice() else { unreachable!() };
    assert_eq!(workload.upstream[&8080], "127.0.0.1:9000".parse().unwrap());
    assert_eq!(workload.labels["app"], "f");
}

#[test]
fn paths_are_taken_from_the_files_folder() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("s.yaml");
    std::fs::write(&file, format!("{GATEWAY}mesh: {{manifests: [m, /abs]}}\n")).unwrap();
    let settings = Settings::load(&file).unwrap();
    assert_eq!(settings.mesh.manifests, [folder.path().join("m"), PathBuf::from("/abs")]);
}

const POD: &str = "{name: data/fhir, netns: ns/a, cgroup: /cg/a";

#[test]
fn listeners_may_be_absent_where_pods_are_captured() {
    let text = format!("capture: {{pods: [{POD}}}]}}\n");
    let capture = Settings::parse("s.yaml", &text).unwrap().capture.unwrap();
    assert_eq!(capture.socket, PathBuf::from("/run/fhirward/agent.sock"));
    assert_eq!(capture.user, User { uid: 65_532, gid: 65_532 });
    assert_eq!((capture.host, capture.transparent_source), (HostSettings::Probes, true));
    assert!(Settings::parse("s.yaml", "mesh: {}\n").is_err(), "nothing to do");
}

#[test]
fn mistakes_in_capture_name_their_field() {
    let cases = [
        ("{}", "capture.pods", "nothing would be captured"),
        ("{pods: [{name: fhir, netns: a, cgroup: b}]}", "capture.pods[0].name", "namespace/name"),
        ("{pods: [POD}, POD}]}", "capture.pods[1].netns", "another pod"),
        (
            "{pods: [POD}, {name: data/fhir, netns: ns/b, cgroup: /cg/a}]}",
            "capture.pods[1].cgroup",
            "another pod",
        ),
        ("{pods: [POD, probes: [{port: 0}]}]}", "capture.pods[0].probes[0].port", "at least 1"),
        ("{pods: [POD, probes: [{port: 1, path: x}]}]}", "capture.pods[0].probes[0].path", "`/`"),
        ("{discover: true, user: root}", "capture.user", "uid:gid"),
        ("{discover: true, user: \"0:1\"}", "capture.user", "neither of them 0"),
        ("{discover: true, user: \"1:4294967295\"}", "capture.user", "uid:gid"),
        ("{discover: true, host: probe}", "capture.host", "probes"),
        ("{discover: true, stock: {initial: 0}}", "capture.stock", "at least 1"),
        ("{discover: true, stock: {initial: 9, most: 8}}", "capture.stock", "`most`"),
        ("{discover: true, dns: {queries: 8}}", "capture.dns", "`queries`"),
        ("{discover: true, dns: {timeoutMs: 0}}", "capture.dns.timeoutMs", "milliseconds"),
        ("{discover: true, detectTimeoutMs: 600001}", "capture.detectTimeoutMs", "milliseconds"),
    ];
    for (text, field, message) in cases {
        let text = format!("capture: {}\n", text.replace("POD", POD));
        let problem = Settings::parse("s.yaml", &text).unwrap_err();
        assert_eq!(problem.field, field, "{problem:?}");
        assert!(problem.message.contains(message), "{problem:?}");
    }
}

#[test]
fn paths_of_capture_are_taken_from_the_files_folder() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("s.yaml");
    std::fs::write(&file, format!("capture: {{socket: s, pinPath: p, cgroupRoot: c, pods: [{POD}}}]}}\n"))
        .unwrap();
    let capture = Settings::load(&file).unwrap().capture.unwrap();
    let here = |path: &str| folder.path().join(path);
    assert_eq!((capture.socket, capture.pin_path), (here("s"), here("p")));
    assert_eq!(capture.cgroup_root, Some(here("c")));
    assert_eq!(capture.pods[0].netns, here("ns/a"));
    assert_eq!(capture.pods[0].cgroup, PathBuf::from("/cg/a"));
}

#[test]
fn the_reference_names_every_setting() {
    let reference = reference();
    for row in [
        "`listeners[].address`",
        "`mesh.manifests`",
        "`identity.providers[].issuer`",
        "`limits.headBytes`",
        "`observe.accessLog.path`",
        "`admin.address`",
        "`capture.pods[].netns`",
        "| `capture.user` | text | `\"65532:65532\"` |",
        "| `capture.host` | `probes`, `all`, `none` | `\"probes\"` |",
        "| `capture.stock.most` | whole number | `256` |",
    ] {
        assert!(reference.contains(row), "{row} is missing in\n{reference}");
    }
    assert!(reference.contains("| `limits.headBytes` | whole number | `61440` |"), "{reference}");
}

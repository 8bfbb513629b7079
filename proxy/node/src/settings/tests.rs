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
    ] {
        assert!(reference.contains(row), "{row} is missing in\n{reference}");
    }
    assert!(reference.contains("| `limits.headBytes` | whole number | `61440` |"), "{reference}");
}

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

const WORKLOAD: &str = "listeners: [{name: a, address: \"127.0.0.1:0\", to: d/f, port: 80, tls: TLS}]\n";

#[test]
fn mistakes_in_mtls_name_their_field() {
    let cases = [
        ("{certificate: c}", "", "listeners[0].tls", "`key`"),
        ("{}", "", "listeners[0].tls", "`mesh: true`"),
        ("{mesh: true}", "", "listeners[0].tls", "identity.certificates"),
        ("{mesh: true}", "{trust: []}", "listeners[0].tls", "identity.certificates"),
        ("{mesh: true, key: k}", "{embedded: {folder: ca}}", "listeners[0].tls", "workload's own"),
        ("{hbone: true}", "", "listeners[0].tls", "`tls.hbone` needs `identity.certificates`"),
        ("{hbone: true, key: k}", "{embedded: {folder: ca}}", "listeners[0].tls", "workload's own"),
        ("{mesh: true, hbone: true}", "{embedded: {folder: ca}}", "listeners[0].tls", "not both"),
        ("{mesh: true}", "{embedded: {folder: ca}, files: [FILES]}", "identity.certificates.files", "both"),
        (
            "{mesh: true}",
            "{files: [{serviceAccount: f, folder: x}]}",
            "identity.certificates.files[0].serviceAccount",
            "namespace/name",
        ),
        ("{mesh: true}", "{files: [FILES, FILES]}", "identity.certificates.files[1].serviceAccount", "twice"),
        (
            "{mesh: true}",
            "{files: [FILES], trust: [{domain: A B, bundles: [x]}]}",
            "identity.certificates.trust[0].domain",
            "character",
        ),
        (
            "{mesh: true}",
            "{files: [FILES], trust: [{domain: a, bundles: []}]}",
            "identity.certificates.trust[0].bundles",
            "at least one",
        ),
        (
            "{mesh: true}",
            "{embedded: {folder: ca, leafSeconds: 1}}",
            "identity.certificates.embedded.leafSeconds",
            "5 seconds",
        ),
        (
            "{mesh: true}",
            "{embedded: {folder: ca, rootSeconds: 600000}}",
            "identity.certificates.embedded.rootSeconds",
            "twice",
        ),
    ];
    for (tls, certificates, field, message) in cases {
        let mut text = WORKLOAD.replace("TLS", tls);
        if !certificates.is_empty() {
            let files = "{serviceAccount: d/f, folder: x}";
            text += &format!("identity: {{certificates: {}}}\n", certificates.replace("FILES", files));
        }
        let problem = Settings::parse("s.yaml", &text).unwrap_err();
        assert_eq!(problem.field, field, "{problem:?}");
        assert!(problem.message.contains(message), "{problem:?}");
    }
    let gateway = GATEWAY.replace("port: 80}", "port: 80}, tls: {mesh: true}");
    let problem = Settings::parse("s.yaml", &gateway).unwrap_err();
    assert!(problem.message.contains("(`to`)"), "{problem:?}");
}

#[test]
fn paths_of_certificates_are_taken_from_the_files_folder() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("s.yaml");
    let certificates =
        "identity: {certificates: {embedded: {folder: ca}, crls: [l], trust: [{domain: a, bundles: [b]}]}}\n";
    std::fs::write(&file, WORKLOAD.replace("TLS", "{mesh: true}") + certificates).unwrap();
    let settings = Settings::load(&file).unwrap();
    assert!(settings.listeners[0].is_mesh());
    let certificates = settings.identity.certificates.unwrap();
    let here = |path: &str| folder.path().join(path);
    assert_eq!(certificates.embedded.unwrap().folder, here("ca"));
    assert_eq!(
        (certificates.crls, certificates.trust[0].bundles.clone()),
        (vec![here("l")], vec![here("b")])
    );
}

#[test]
fn certificates_come_from_exactly_one_supplier_and_its_mistakes_are_named() {
    const ISTIO: &str =
        "istioCa: {address: 'istiod.istio-system.svc:15012', caFile: ca.pem, tokenFile: token";
    const AGENT: &str = "workloadApi: {socket: unix:///run/agent.sock}";
    let istio = |more: &str| format!("{{{ISTIO}{more}}}}}");
    for (certificates, field, message) in [
        ("{crls: [x]}".to_owned(), "", "one of `embedded`, `files`, `workloadApi`, `istioCa` is needed"),
        (
            format!("{{embedded: {{folder: ca}}, {AGENT}}}"),
            ".workloadApi",
            "`embedded` or from `workloadApi`",
        ),
        (format!("{{{AGENT}, {ISTIO}}}}}"), ".istioCa", "`workloadApi` or from `istioCa`"),
        ("{workloadApi: {socket: 'tcp://127.0.0.1:80'}}".to_owned(), ".workloadApi.socket", "unix:///path"),
        ("{workloadApi: {socket: 'unix://run/a.sock'}}".to_owned(), ".workloadApi.socket", "absolute path"),
        ("{workloadApi: {socket: a, timeoutMs: 0}}".to_owned(), ".workloadApi.timeoutMs", "between 1"),
        (istio("").replace(":15012", ""), ".istioCa.address", "host:port"),
        (istio("").replace("15012", "0"), ".istioCa.address", "a port"),
        (istio("").replace("istiod.", "https://istiod."), ".istioCa.address", "neither a name"),
        (istio(", serverName: 'a b'"), ".istioCa.serverName", "neither a name"),
        (istio(", clusterId: \"a\\nb\""), ".istioCa.clusterId", "visible ASCII"),
        (istio(", leafSeconds: 1"), ".istioCa.leafSeconds", "60 seconds"),
        (istio(", timeoutMs: 600001"), ".istioCa.timeoutMs", "between 1"),
    ] {
        let plain = WORKLOAD.replace(", tls: TLS", "");
        assert_ne!(plain, WORKLOAD);
        let text = plain + &format!("identity: {{certificates: {certificates}}}\n");
        let problem = Settings::parse("s.yaml", &text).unwrap_err();
        assert_eq!(problem.field, format!("identity.certificates{field}"), "{problem:?}");
        assert!(problem.message.contains(message), "{problem:?}");
    }
    for (socket, path) in
        [("unix:///a/b", "/a/b"), ("unix:/a/b", "/a/b"), ("/a/b", "/a/b"), ("a/b", "/s/a/b")]
    {
        let text = format!("identity: {{certificates: {{workloadApi: {{socket: '{socket}'}}}}}}\n");
        let mut settings =
            Settings::parse("s.yaml", &(WORKLOAD.replace("TLS", "{mesh: true}") + &text)).unwrap();
        settings.take_paths_from(std::path::Path::new("/s"));
        let api = settings.identity.certificates.unwrap().workload_api.unwrap();
        assert_eq!((api.socket.to_str(), api.timeout_ms), (Some(path), 10_000));
    }
}

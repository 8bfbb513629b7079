#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{path::Path, time::Instant};

use policy::istio::MtlsMode;

use super::*;
use crate::{
    WorkloadSettings,
    routing::tests::{ask, ingress, told},
};

type Built = Result<(Snapshot, Vec<Problem>), Vec<Problem>>;

fn build(manifests: &str, settings: &MeshSettings) -> Built {
    let (objects, problems) = policy::manifest::parse("test.yaml", manifests);
    assert!(problems.is_empty(), "{problems:?}");
    Snapshot::build(&objects, settings, 7)
}

fn good(manifests: &str) -> Snapshot {
    build(manifests, &MeshSettings::default()).unwrap().0
}

fn named(snapshot: &Snapshot, name: &str) -> Arc<Workload> {
    let known: Vec<String> = snapshot.workloads().map(|w| w.name.to_string()).collect();
    snapshot.workload(&name.parse().unwrap()).unwrap_or_else(|| panic!("{name} not in {known:?}")).clone()
}

#[test]
fn the_tutorials_manifests_are_understood_unchanged() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/data-mesh");
    let settings = MeshSettings::default();
    let (snapshot, _) = Snapshot::load(&[folder], &settings).unwrap();
    let fhir = named(&snapshot, "datamesh/fhir-server");
    assert!(fhir.enrolled && fhir.target_rules.strict);
    assert_eq!(fhir.ports, BTreeMap::from([("http".into(), 8080), ("http-metrics".into(), 8081)]));
    assert_eq!(fhir.identity.to_string(), "spiffe://cluster.local/ns/datamesh/sa/default");
    assert_eq!(fhir.services, ["datamesh/fhir-service".parse().unwrap()]);
    assert_eq!(fhir.policy.jwt_rules().len(), 1);
    assert_eq!(fhir.policy.mtls_mode(8080), MtlsMode::Strict);
    assert!(named(&snapshot, "datamesh/postgres-db").policy.jwt_rules().is_empty());
    assert_eq!(snapshot.jwt_rules().count(), 1);
    let patient = ask("GET http://127.0.0.1:8080/fhir/Patient", &[]);
    assert_eq!(told(&patient.at(&snapshot, &ingress(80))), "fhir-server:8080");
    let stranger = ask("GET http://localhost/fhir/Patient", &[]);
    assert_eq!(told(&stranger.at(&snapshot, &ingress(80))), "404");
}

const MAKERS: &str = r#"
{apiVersion: apps/v1, kind: Deployment, metadata: {name: web, namespace: ns1}, spec: {template: {metadata: {labels: {app: web}}, spec: {serviceAccountName: web-account}}}}
---
{apiVersion: apps/v1, kind: ReplicaSet, metadata: {name: web-5f6d, namespace: ns1, ownerReferences: [{apiVersion: apps/v1, kind: Deployment, name: web, uid: u, controller: true}]}, spec: {}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web-5f6d-abcde, namespace: ns1, labels: {app: web, pod-template-hash: 5f6d}, ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: web-5f6d, uid: u, controller: true}]}, spec: {containers: []}, status: {podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}, {ip: "fd00::1"}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web-5f6d-fghij, namespace: ns1, labels: {app: web, pod-template-hash: 5f6d}, ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: web-5f6d, uid: u, controller: true}]}, spec: {containers: []}, status: {podIP: 10.0.0.2}}
---
{apiVersion: v1, kind: Pod, metadata: {name: bare, namespace: ns1, labels: {app: bare}}, spec: {serviceAccount: old, containers: [{name: c, ports: [{name: p, containerPort: 1234}]}]}, status: {podIP: 10.0.0.3}}
---
{apiVersion: v1, kind: Pod, metadata: {name: on-the-node, namespace: ns1}, spec: {hostNetwork: true, containers: []}, status: {podIP: 10.9.9.9}}
---
{apiVersion: v1, kind: Pod, metadata: {name: orphan-1-x, namespace: ns1, labels: {app: orphan}, ownerReferences: [{apiVersion: batch/v1, kind: Job, name: orphan-1, uid: u, controller: true}]}, spec: {containers: []}, status: {podIP: 10.0.0.4, phase: Running}}
---
{apiVersion: v1, kind: Pod, metadata: {name: done, namespace: ns1}, spec: {containers: []}, status: {podIP: 10.0.0.1, phase: Succeeded}}
---
{apiVersion: batch/v1, kind: CronJob, metadata: {name: nightly, namespace: ns1}, spec: {schedule: "0 0 * * *", jobTemplate: {spec: {template: {metadata: {labels: {app: nightly}}}}}}}
---
{apiVersion: apps/v1, kind: StatefulSet, metadata: {name: db}, spec: {template: {metadata: {labels: {app: db}}}}}
---
{apiVersion: apps/v1, kind: DaemonSet, metadata: {name: agent, namespace: ns1}, spec: {template: {metadata: {labels: {app: agent}}}}}
"#;

#[test]
fn workloads_are_what_makes_pods() {
    let snapshot = good(MAKERS);
    let names: Vec<String> = snapshot.workloads().map(|workload| workload.name.to_string()).collect();
    let wanted = [
        "default/db",
        "ns1/agent",
        "ns1/bare",
        "ns1/done",
        "ns1/nightly",
        "ns1/on-the-node",
        "ns1/orphan-1",
        "ns1/web",
    ];
    assert_eq!(names, wanted);
    let at = |ip: &str| snapshot.workload_at(ip.parse().unwrap()).map(|workload| workload.name.name.clone());
    for (ip, wanted) in [
        ("10.0.0.1", Some("web")),
        ("10.0.0.2", Some("web")),
        ("fd00::1", Some("web")),
        ("10.0.0.3", Some("bare")),
        ("10.0.0.4", Some("orphan-1")),
        ("10.9.9.9", None),
    ] {
        assert_eq!(at(ip).as_deref(), wanted, "{ip}");
    }
    let web = named(&snapshot, "ns1/web");
    assert_eq!(
        (web.ip.to_string().as_str(), web.identity.service_account.as_str()),
        ("10.0.0.1", "web-account")
    );
    assert_eq!(web.labels, BTreeMap::from([("app".to_owned(), "web".to_owned())]));
    let bare = named(&snapshot, "ns1/bare");
    assert_eq!((bare.ports.get("p"), bare.identity.service_account.as_str()), (Some(&1234), "old"));
    assert_eq!(bare.upstream(1234).to_string(), "10.0.0.3:1234");
}

#[test]
fn workloads_without_address_get_distinct_ones_that_stay() {
    let pod = |name: usize| {
        format!("{{apiVersion: v1, kind: Pod, metadata: {{name: p{name}}}, spec: {{containers: []}}}}\n---\n")
    };
    let few = good(&(0..10).map(pod).collect::<String>());
    let many = good(&(0..2000).map(pod).collect::<String>());
    let ips: std::collections::HashSet<IpAddr> = many.workloads().map(|workload| workload.ip).collect();
    assert_eq!(ips.len(), 2000);
    for workload in few.workloads() {
        assert_eq!(named(&many, &workload.name.to_string()).ip, workload.ip);
        assert_eq!(many.workload_at(workload.ip).unwrap().name, workload.name);
    }
}

#[test]
fn an_address_of_two_identifies_neither() {
    let manifests = MAKERS.replace("podIP: 10.0.0.3", "podIP: 10.0.0.2");
    let (snapshot, warnings) = build(&manifests, &MeshSettings::default()).unwrap();
    assert!(snapshot.workload_at("10.0.0.2".parse().unwrap()).is_none());
    assert!(snapshot.workload_at("10.0.0.1".parse().unwrap()).is_some());
    assert!(warnings.iter().any(|warning| warning.code == crate::codes::AMBIGUOUS_ADDRESS));
}

#[test]
fn settings_add_to_workloads_and_win() {
    let settings = MeshSettings {
        trust_domain: "td".to_owned(),
        workloads: vec![
            WorkloadSettings {
                ip: Some("127.0.0.1".parse().unwrap()),
                upstream: BTreeMap::from([(80, "127.0.0.1:8080".parse().unwrap())]),
                strict_target: Some(false),
                fhir: Some(FhirSettings { base: "/fhir".to_owned() }),
                enrolled: Some(true),
                ..WorkloadSettings::named("ns1/web")
            },
            WorkloadSettings {
                labels: BTreeMap::from([("istio-injection".to_owned(), "enabled".to_owned())]),
                service_account: Some("sleeper".to_owned()),
                ..WorkloadSettings::named("ns1/sleep")
            },
        ],
        ..MeshSettings::default()
    };
    let (snapshot, _) = build(MAKERS, &settings).unwrap();
    let web = named(&snapshot, "ns1/web");
    assert_eq!(
        (web.ip.to_string().as_str(), web.upstream(80).port(), web.upstream(81).port()),
        ("127.0.0.1", 8080, 81)
    );
    assert!(web.enrolled && !web.target_rules.strict && web.fhir.is_some());
    assert_eq!(web.identity.to_string(), "spiffe://td/ns/ns1/sa/web-account");
    let sleep = named(&snapshot, "ns1/sleep");
    assert!(sleep.enrolled);
    assert_eq!(sleep.identity.to_string(), "spiffe://td/ns/ns1/sa/sleeper");
    assert!(!named(&snapshot, "ns1/bare").enrolled);
    let wrong = MeshSettings { workloads: vec![WorkloadSettings::named("web")], ..MeshSettings::default() };
    let problems = build("", &wrong).unwrap_err();
    assert_eq!(
        (problems[0].code, problems[0].field.as_str()),
        (crate::codes::BAD_SETTINGS, "mesh.workloads[0].name")
    );
}

#[test]
fn other_kinds_are_counted_and_unenforced_policies_are_said_aloud() {
    let manifests = "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {x: y}}\n---\n\
        {apiVersion: v1, kind: ConfigMap, metadata: {name: b}}\n---\n\
        {apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: e}}\n---\n\
        {apiVersion: v1, kind: Namespace, metadata: {name: ns1}}\n---\n\
        {apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: c}}";
    let (snapshot, warnings) = build(&manifests.replace("x: y", "x: v"), &MeshSettings::default()).unwrap();
    let unused: Vec<(&str, usize)> =
        snapshot.unused_kinds.iter().map(|(kind, n)| (kind.as_str(), *n)).collect();
    assert_eq!(
        unused,
        [("CiliumNetworkPolicy.cilium.io", 1), ("ConfigMap", 2), ("EndpointSlice.discovery.k8s.io", 1)]
    );
    assert_eq!(snapshot.used_kinds, BTreeMap::from([("Namespace".to_owned(), 1)]));
    assert!(warnings.iter().any(|warning| warning.message.contains("not enforced")), "{warnings:?}");
}

#[test]
fn of_two_objects_of_one_name_the_later_counts() {
    let labels = |value: &str| {
        format!(
            "{{apiVersion: v1, kind: Namespace, metadata: {{name: ns1, labels: {{istio-injection: {value}}}}}}}\n---\n"
        )
    };
    let pod =
        "{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: ns1}, spec: {containers: []}}\n---\n";
    let (snapshot, warnings) =
        build(&(labels("enabled") + pod + &labels("disabled")), &MeshSettings::default()).unwrap();
    assert!(!named(&snapshot, "ns1/p").enrolled);
    assert_eq!(warnings.len(), 1);
    assert_eq!(warnings[0].place.line, 1);
}

#[test]
fn a_bad_object_refuses_all_and_every_problem_is_told() {
    let problems = build(
        "{apiVersion: apps/v1, kind: Deployment, metadata: {name: d}, spec: {template: {spec: {containers: [{ports: [{containerPort: x}]}]}}}}\n---\n\
         {apiVersion: v1, kind: Service, metadata: {name: s}, spec: {ports: [{port: 99999}]}}\n---\n\
         {apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {}, status: {podIP: nonsense}}",
        &MeshSettings::default(),
    )
    .unwrap_err();
    let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
    for (line, wanted) in [
        (1, "spec.template.spec.containers[0].ports[0].containerPort"),
        (3, "spec.ports[0].port"),
        (5, "status.podIP"),
    ] {
        let start = format!("test.yaml:{line}:");
        assert!(told.iter().any(|t| t.starts_with(&start) && t.contains(wanted)), "{wanted}: {told:#?}");
    }
}

#[test]
fn ten_thousand_workloads_policies_and_routes_build_in_seconds() {
    use std::fmt::Write as _;
    let mut text = String::new();
    for index in 0..10_000 {
        let namespace = format!("n{}", index % 100);
        write!(
            text,
            "{{apiVersion: v1, kind: Pod, metadata: {{name: p{index}, namespace: {namespace}, labels: {{app: a{index}}}}}, spec: {{containers: []}}}}\n---\n\
             {{apiVersion: v1, kind: Service, metadata: {{name: s{index}, namespace: {namespace}}}, spec: {{selector: {{app: a{index}}}, ports: [{{port: 80}}]}}}}\n---\n\
             {{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {{name: z{index}, namespace: {namespace}}}, spec: {{selector: {{matchLabels: {{app: a{index}}}}}, rules: [{{to: [{{operation: {{methods: [GET]}}}}]}}]}}}}\n---\n"
        )
        .unwrap();
    }
    let (objects, problems) = policy::manifest::parse("big.yaml", &text);
    assert!(problems.is_empty());
    let started = Instant::now();
    let (snapshot, _) = Snapshot::build(&objects, &MeshSettings::default(), 1).unwrap();
    let took = started.elapsed();
    assert_eq!(snapshot.workloads().count(), 10_000);
    assert_eq!(named(&snapshot, "n7/p9907").services.len(), 1);
    // Unoptimised, on a busy machine; quadratic work would take minutes.
    assert!(took.as_secs() < 30, "{took:?}");
}

#[test]
fn nulls_are_absent_in_kubernetes_own_kinds() {
    let snapshot = good(
        "{apiVersion: apps/v1, kind: Deployment, metadata: {name: d, labels: null, ownerReferences: null}, \
          spec: {template: {metadata: {creationTimestamp: null, labels: null}, spec: {containers: null, initContainers: null}}}}\n---\n\
         {apiVersion: v1, kind: Pod, metadata: {name: p, annotations: null}, spec: {containers: [{ports: null}]}, status: {podIP: null, podIPs: null}}\n---\n\
         {apiVersion: v1, kind: Service, metadata: {name: s}, spec: {selector: null, ports: null}}",
    );
    assert_eq!(snapshot.workloads().count(), 2);
}

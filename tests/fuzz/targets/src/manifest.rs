//! Manifests: refused with a place, or compiled and asked.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    sync::LazyLock,
};

use http::{HeaderMap, HeaderValue};
use mesh::{MeshSettings, Snapshot, Workload, WorkloadSettings, routing::GatewayKey};
use policy::{
    Destination, Problem, Question, RequestFacts, RequestIdentity, Source, SpiffeId,
    istio::{Policies, WorkloadFacts},
    manifest,
};
use serde_json::json;

const FILE: &str = "fuzz.yaml";

/// A mesh that most manifests of the corpus say something of.
static SETTINGS: LazyLock<MeshSettings> = LazyLock::new(|| {
    let workload = |name: &str, last: u8, labels: &[(&str, &str)]| {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        WorkloadSettings {
            labels: labels.collect(),
            ip: Some(IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))),
            ..WorkloadSettings::named(name)
        }
    };
    MeshSettings {
        workloads: vec![
            workload("datamesh/fhir-server", 1, &[("app", "fhir-server"), ("version", "v1")]),
            workload("default/sleep", 2, &[("app", "sleep")]),
            workload("istio-system/gateway", 3, &[("istio", "ingressgateway")]),
        ],
        ..MeshSettings::default()
    }
});

/// The bytes are a manifest file.
///
/// - Every problem names the file, a line and column that it has, and says something.
/// - A snapshot is refused for an error and for nothing else.
/// - What compiles decides, whatever is asked, and explains itself by the same verdict, rule and reason.
pub fn manifest(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (objects, problems) = manifest::parse(FILE, &text);
    let lines = text.bytes().filter(|byte| matches!(byte, b'\n' | b'\r')).count() + 2;
    tell(&problems, lines);
    if problems.iter().any(Problem::is_error) {
        return;
    }
    let (policies, found) = Policies::read(&objects);
    tell(&found, lines);
    let refused = found.iter().any(Problem::is_error);
    let workloads = match Snapshot::build(&objects, &SETTINGS, 1) {
        Err(problems) => {
            assert!(problems.iter().any(Problem::is_error), "refused without an error: {problems:?}");
            tell(&problems, lines);
            Vec::new()
        }
        Ok((snapshot, warnings)) => {
            assert!(!refused && !warnings.iter().any(Problem::is_error), "taken with an error");
            tell(&warnings, lines);
            ask(&snapshot);
            snapshot.workloads().map(|workload| facts(workload)).collect()
        }
    };
    let linted = policies.lint(&SETTINGS.mesh_config(), &objects, &workloads);
    assert!(!linted.iter().any(Problem::is_error), "a lint is no error: {linted:?}");
    tell(&linted, lines);
}

fn tell(problems: &[Problem], lines: usize) {
    for problem in problems {
        let place = &problem.place;
        assert_eq!(&*place.file, FILE, "{problem}");
        assert!(place.line >= 1 && place.column >= 1, "{problem}");
        assert!(usize::try_from(place.line).is_ok_and(|line| line <= lines), "{problem}: {lines} lines");
        assert!(!problem.message.is_empty() && !problem.code.is_empty(), "{problem:?}");
        assert!(problem.to_string().contains(problem.code));
    }
}

fn facts(workload: &Workload) -> WorkloadFacts {
    WorkloadFacts {
        name: workload.name.clone(),
        labels: workload.labels.clone(),
        services: workload.services.iter().map(|service| service.name.clone()).collect(),
        gateways: Vec::new(),
        gateway_classes: Vec::new(),
    }
}

/// Asks every workload, and the gateway, a few questions.
fn ask(snapshot: &Snapshot) {
    let labels = BTreeMap::from([("istio".to_owned(), "ingressgateway".to_owned())]);
    let gateway = snapshot.gateway_workload(&GatewayKey { labels, port: 80 });
    for workload in snapshot.workloads().chain(gateway) {
        let _ = workload.policy.mtls_mode(8080);
        ask_workload(workload);
    }
}

fn ask_workload(workload: &Workload) {
    let caller = SpiffeId {
        trust_domain: "cluster.local".to_owned(),
        namespace: "default".to_owned(),
        service_account: "sleep".to_owned(),
    };
    let mut headers = HeaderMap::new();
    headers.insert("x-token", HeaderValue::from_static("admin"));
    headers.append("accept", HeaderValue::from_static("application/fhir+json"));
    let token = token();
    let facts = [
        ("GET", "/fhir/Patient/1", Some(&token)),
        ("POST", "/", None),
        ("get", "/info", Some(&token)),
        ("DELETE", "/a//b%2fc", None),
    ];
    for (index, (method, path, identity)) in facts.into_iter().enumerate() {
        let facts = RequestFacts { method, host: "fhir.example", path, headers: &headers, identity };
        for request in [Some(facts), None] {
            let source = Source {
                ip: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)),
                remote_ip: IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7)),
                identity: (index % 2 == 0).then_some(&caller),
            };
            let destination = Destination { ip: workload.ip, port: 8080, sni: Some("fhir.example") };
            let question = Question { source, destination, request };
            let decided = workload.policy.decide(&question);
            let (explained, steps) = workload.policy.explain(&question);
            assert_eq!(decided, explained, "explain says something else");
            assert!(!steps.is_empty(), "no word of why: {decided:?}");
        }
    }
}

fn token() -> RequestIdentity {
    let claims = json!({"iss": "https://idp.example", "sub": "alice", "scope": ["a", "b"],
        "realm_access": {"roles": ["Medic", "Patient"]}, "azp": "app"});
    RequestIdentity {
        issuer: "https://idp.example".to_owned(),
        subject: "alice".to_owned(),
        presenter: Some("app".to_owned()),
        audiences: vec!["fhir".to_owned()],
        claims: claims.as_object().cloned().unwrap_or_default(),
    }
}

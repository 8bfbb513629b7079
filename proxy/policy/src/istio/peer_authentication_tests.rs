#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;
use crate::{istio::Policies, manifest::parse};

fn policies(text: &str) -> (Policies, Vec<Problem>) {
    let text: String = text
        .split("---\n")
        .map(|one| format!("apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n{one}---\n"))
        .collect();
    let (objects, problems) = parse("pa.yaml", &text);
    assert_eq!(problems, []);
    Policies::read(&objects)
}

fn workload() -> WorkloadFacts {
    WorkloadFacts {
        name: "datamesh/fhir".parse().unwrap(),
        labels: BTreeMap::from([("app".to_owned(), "fhir".to_owned())]),
        services: Vec::new(),
        gateways: Vec::new(),
        gateway_classes: Vec::new(),
    }
}

#[track_caller]
fn mode(text: &str, port: u16) -> MtlsMode {
    let (policies, problems) = policies(text);
    assert_eq!(problems, []);
    policies.compile(&MeshConfig::default(), &workload()).mtls_mode(port)
}

const MESH: &str = "metadata: {name: m, namespace: istio-system}\nspec: {mtls: {mode: STRICT}}\n";
const NAMESPACE: &str = "metadata: {name: ns, namespace: datamesh}\nspec: {mtls: {mode: DISABLE}}\n";
const WORKLOAD: &str = "metadata: {name: w, namespace: datamesh}\n\
    spec: {selector: {matchLabels: {app: fhir}}, mtls: {mode: PERMISSIVE}}\n";

#[test]
fn the_nearest_level_wins() {
    assert_eq!(MtlsMode::default(), MtlsMode::Permissive);
    assert_eq!(
        mode("metadata: {name: o, namespace: other}\nspec: {mtls: {mode: STRICT}}\n", 1),
        MtlsMode::Permissive
    );
    assert_eq!(mode(MESH, 1), MtlsMode::Strict);
    assert_eq!(mode(&format!("{NAMESPACE}---\n{MESH}"), 1), MtlsMode::Disable);
    assert_eq!(mode(&format!("{WORKLOAD}---\n{NAMESPACE}---\n{MESH}"), 1), MtlsMode::Permissive);
}

#[test]
fn unset_inherits() {
    for unset in ["{}", "{mtls: {}}", "{mtls: {mode: UNSET}}", "{mtls: null}"] {
        let namespace = format!("metadata: {{name: ns, namespace: datamesh}}\nspec: {unset}\n");
        assert_eq!(mode(&format!("{MESH}---\n{namespace}"), 1), MtlsMode::Strict, "{unset}");
    }
    let workload = "metadata: {name: w, namespace: datamesh}\nspec: {selector: {matchLabels: {app: fhir}}}\n";
    assert_eq!(mode(&format!("{workload}---\n{NAMESPACE}---\n{MESH}"), 1), MtlsMode::Disable);
}

#[test]
fn ports_have_their_own_mode() {
    let text = "metadata: {name: w, namespace: datamesh}\nspec:\n  selector: {matchLabels: {app: fhir}}\n  \
        mtls: {mode: STRICT}\n  portLevelMtls: {8080: {mode: DISABLE}, '8081': {mode: UNSET}}\n";
    assert_eq!(mode(text, 8080), MtlsMode::Disable);
    assert_eq!(mode(text, 8081), MtlsMode::Strict);
    assert_eq!(mode(text, 5432), MtlsMode::Strict);
    let text = text.replace("mode: STRICT", "mode: UNSET");
    assert_eq!(mode(&format!("{text}---\n{MESH}"), 8081), MtlsMode::Strict);
}

/// Istio's ambient mode makes such an exception for PERMISSIVE ports only; its documentation and its sidecars for
/// both.
#[test]
fn a_port_is_what_it_says_under_a_strict_parent_too() {
    for parent in ["namespace: datamesh", "namespace: istio-system"] {
        for own in ["", "mtls: {mode: UNSET}, "] {
            let text = format!(
                "metadata: {{name: parent, {parent}}}\nspec: {{mtls: {{mode: STRICT}}}}\n---\n\
                 metadata: {{name: w, namespace: datamesh}}\nspec: {{selector: {{matchLabels: {{app: fhir}}}}, {own}\
                 portLevelMtls: {{8080: {{mode: DISABLE}}, 8081: {{mode: PERMISSIVE}}, 8082: {{mode: UNSET}}}}}}\n"
            );
            let modes = [8080, 8081, 8082, 8083].map(|port| mode(&text, port));
            let wanted = [MtlsMode::Disable, MtlsMode::Permissive, MtlsMode::Strict, MtlsMode::Strict];
            assert_eq!(modes, wanted, "{parent} {own}");
        }
    }
}

#[test]
fn a_selector_in_the_root_namespace_is_ignored() {
    let text = "metadata: {name: m, namespace: istio-system}\n\
        spec: {selector: {matchLabels: {app: fhir}}, mtls: {mode: STRICT}}\n";
    assert_eq!(mode(text, 1), MtlsMode::Permissive);
}

#[test]
fn the_oldest_of_one_level_wins() {
    let made = |name: &str, when: &str, mode: &str| {
        format!(
            "metadata: {{name: {name}, namespace: datamesh, creationTimestamp: {when}}}\nspec: {{mtls: {{mode: {mode}}}}}\n"
        )
    };
    let young = made("a", "'2026-02-01T00:00:00Z'", "DISABLE");
    let old = made("b", "'2026-01-01T00:00:00Z'", "STRICT");
    assert_eq!(mode(&format!("{young}---\n{old}"), 1), MtlsMode::Strict);
}

/// A STRICT policy must not depend on which of two files is read first.
#[test]
fn of_one_age_the_first_by_name_wins_whatever_the_order_of_files() {
    for when in ["null", "'2026-01-01T00:00:00Z'"] {
        let made = |name: &str, mode: &str| {
            format!(
                "metadata: {{name: {name}, namespace: datamesh, creationTimestamp: {when}}}\nspec: {{mtls: {{mode: {mode}}}}}\n"
            )
        };
        let (one, two) = (made("a", "STRICT"), made("b", "DISABLE"));
        assert_eq!(mode(&format!("{one}---\n{two}"), 1), MtlsMode::Strict);
        assert_eq!(mode(&format!("{two}---\n{one}"), 1), MtlsMode::Strict);
    }
}

#[test]
fn what_admission_refuses_is_refused() {
    let refused = |spec: &str, code: &str, field: &str| {
        let text = format!("metadata: {{name: w, namespace: datamesh}}\nspec: {spec}\n");
        let (_, problems) = policies(&text);
        assert!(
            problems.iter().any(|one| one.code == code && one.field == field && one.is_error()),
            "{spec}: {problems:?}"
        );
    };
    let selected = "selector: {matchLabels: {app: a}}";
    refused("{mtls: {mode: strict}}", "invalid-value", "spec.mtls.mode");
    refused("{mTLS: {}}", "unknown-field", "spec.mTLS");
    refused("{targetRefs: []}", "unknown-field", "spec.targetRefs");
    refused("{portLevelMtls: {80: {}}}", "port-level-mtls", "spec.portLevelMtls");
    refused("{selector: {}, portLevelMtls: {80: {}}}", "port-level-mtls", "spec.portLevelMtls");
    refused(&format!("{{{selected}, portLevelMtls: {{}}}}"), "port-level-mtls", "spec.portLevelMtls");
    for port in ["0", "65536", "-1", "http", "'08'"] {
        let field = format!("spec.portLevelMtls.{}", port.trim_matches('\''));
        refused(&format!("{{{selected}, portLevelMtls: {{{port}: {{}}}}}}"), "invalid-port", &field);
    }
}

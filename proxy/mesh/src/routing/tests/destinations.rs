//! From destination hosts to workloads and addresses.

use crate::WorkloadSettings;

use super::*;

fn to(host: &str, port: &str) -> String {
    virtual_service(&format!("  - route: [{{destination: {{host: {host}{port}}}}}]"))
}

const MORE: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: two-ports, namespace: datamesh}
spec: {selector: {app: fhir}, ports: [{port: 80, name: a}, {port: 81, name: b, targetPort: 8081}]}
---
apiVersion: v1
kind: Service
metadata: {name: nobody, namespace: datamesh}
spec: {selector: {app: none}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: alias, namespace: datamesh}
spec: {type: ExternalName, externalName: keycloak.auth.svc.cluster.local}
---
apiVersion: v1
kind: Service
metadata: {name: by-hand, namespace: datamesh}
spec: {ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: no-such-port-name, namespace: datamesh}
spec: {selector: {app: fhir}, ports: [{port: 80, targetPort: grpc}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: out, namespace: datamesh}
spec:
  hosts: [static.example, dns.example]
  ports: [{number: 443, name: tls, protocol: TLS, targetPort: 8443}]
  resolution: STATIC
  endpoints: [{address: 192.0.2.1}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: inward, namespace: datamesh}
spec:
  hosts: [inward.example]
  ports: [{number: 80, name: http, targetPort: 8080}]
  workloadSelector: {labels: {app: fhir}}
"#;

#[test]
fn names_resolve_as_istiod_resolves_them() {
    let cases = [
        ("fhir-service", "", "fhir:8080"),
        ("fhir-service", ", port: {number: 80}", "fhir:8080"),
        ("fhir-service", ", port: {number: 8080}", "no destination 503"),
        ("fhir-service.datamesh.svc.cluster.local", "", "fhir:8080"),
        ("FHIR-service.datamesh.svc", "", "fhir:8080"),
        ("keycloak", "", "no destination 503"),
        ("keycloak.auth.svc.cluster.local", "", "keycloak:9090"),
        ("keycloak.auth", "", "no destination 503"),
        ("two-ports", "", "fhir:80"),
        ("two-ports", ", port: {number: 81}", "fhir:8081"),
        ("nobody", "", "no destination 503"),
        ("alias", ", port: {number: 8080}", "keycloak:9090"),
        ("by-hand", "", "no destination 503"),
        ("no-such-port-name", "", "no destination 503"),
        ("static.example", "", "outside 192.0.2.1:8443"),
        ("inward.example", "", "fhir:8080"),
        ("unknown.example", ", port: {number: 80}", "no destination 503"),
    ];
    for (host, port, wanted) in cases {
        let snapshot = mesh(&format!("{MORE}\n---\n{}", to(host, port)));
        assert_eq!(goes(&snapshot, "GET http://h/", &[]), wanted, "{host}{port}");
    }
}

fn with_settings(manifests: &str, settings: &MeshSettings) -> String {
    let snapshot = try_mesh(&[BASE, manifests], settings).unwrap().0;
    goes(&snapshot, "GET http://h/", &[])
}

#[test]
fn settings_say_where_hosts_outside_are() {
    let address = "127.0.0.1:9999".parse().unwrap();
    let upstreams = |name: &str| MeshSettings {
        upstreams: BTreeMap::from([(name.to_owned(), address)]),
        ..MeshSettings::default()
    };
    let outside = "outside 127.0.0.1:9999";
    let more = |host: &str, port: &str| format!("{MORE}\n---\n{}", to(host, port));
    let cases = [
        ("idp.example:443", "idp.example", ", port: {number: 443}", outside),
        ("idp.example:80", "idp.example", "", outside),
        ("idp.example:443", "idp.example", ", port: {number: 80}", "no destination 503"),
        ("dns.example:443", "dns.example", "", outside),
        ("by-hand.datamesh.svc.cluster.local:80", "by-hand", "", outside),
        // A Service with a selector is its workloads, or nobody: policies are not led around.
        ("fhir-service.datamesh.svc.cluster.local:80", "fhir-service", "", "fhir:8080"),
        ("nobody.datamesh.svc.cluster.local:80", "nobody", "", "no destination 503"),
    ];
    for (name, host, port, wanted) in cases {
        assert_eq!(with_settings(&more(host, port), &upstreams(name)), wanted, "{name}");
    }
    let problems = try_mesh(&[BASE], &upstreams("no-port")).unwrap_err();
    assert_eq!(problems[0].code, crate::codes::BAD_SETTINGS);
}

#[test]
fn an_outside_address_that_is_a_workloads_means_the_workload() {
    let address = "127.0.0.1:9999".parse().unwrap();
    let settings = MeshSettings {
        upstreams: BTreeMap::from([("sneaky.example:80".to_owned(), address)]),
        workloads: vec![WorkloadSettings {
            upstream: BTreeMap::from([(8080, address)]),
            ip: Some("192.0.2.1".parse().unwrap()),
            ..WorkloadSettings::named("datamesh/fhir")
        }],
        ..MeshSettings::default()
    };
    assert_eq!(with_settings(&to("sneaky.example", ""), &settings), "fhir:8080");
    let entry = format!("{MORE}\n---\n{}", to("static.example", ""));
    assert_eq!(with_settings(&entry, &settings), "fhir:8443");
}

/// The gateway connects from the node: a tenant's entry would lead past the policies of the workloads whose
/// servers listen there, to the admin server, to the cloud's metadata.
#[test]
fn a_service_entry_leads_past_no_policy_by_another_spelling_and_never_to_the_node() {
    let settings = MeshSettings {
        workloads: vec![WorkloadSettings {
            upstream: BTreeMap::from([(8080, "127.0.0.1:8443".parse().unwrap())]),
            ip: Some("192.0.2.1".parse().unwrap()),
            ..WorkloadSettings::named("datamesh/fhir")
        }],
        ..MeshSettings::default()
    };
    for (address, wanted) in [
        ("192.0.2.1", "fhir:8443"),
        ("::ffff:192.0.2.1", "fhir:8443"),
        ("127.0.0.1", "fhir:8080"),
        ("::ffff:127.0.0.1", "fhir:8080"),
        ("127.0.0.2", "no destination 503"),
        ("::1", "no destination 503"),
        ("0.0.0.0", "no destination 503"),
        ("::", "no destination 503"),
        ("::ffff:0.0.0.0", "no destination 503"),
        ("169.254.169.254", "no destination 503"),
        ("fe80::1", "no destination 503"),
        ("192.0.2.2", "outside 192.0.2.2:8443"),
        ("::ffff:192.0.2.2", "outside 192.0.2.2:8443"),
    ] {
        let entry = MORE.replace("address: 192.0.2.1}", &format!("address: \"{address}\"}}"));
        let manifests = format!("{entry}\n---\n{}", to("static.example", ""));
        assert_eq!(with_settings(&manifests, &settings), wanted, "{address}");
    }
}

#[test]
fn several_workloads_share_requests_and_subsets_narrow_them() {
    let manifests = |destination: &str| {
        let pod = |version: &str| {
            format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: {version}, namespace: datamesh, \
                 labels: {{app: many, version: {version}}}}}\nspec: {{containers: []}}\n---\n"
            )
        };
        format!(
            "{}{}apiVersion: v1\nkind: Service\nmetadata: {{name: many, namespace: datamesh}}\n\
             spec: {{selector: {{app: many}}, ports: [{{port: 80}}]}}\n---\n\
             apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: many, namespace: datamesh}}\n\
             spec: {{host: many, subsets: [{{name: new, labels: {{version: v2}}}}]}}\n---\n{}",
            pod("v1"),
            pod("v2"),
            to("many", destination)
        )
    };
    let both = mesh(&manifests(""));
    let first = (0..1000_u64)
        .filter(|dice| told(&ask("GET http://h/", &[]).dice(*dice).at(&both, &ingress(80))) == "v1:80")
        .count();
    assert!((420..580).contains(&first), "{first}");
    assert_eq!(goes(&mesh(&manifests(", subset: new")), "GET http://h/", &[]), "v2:80");
    assert_eq!(goes(&mesh(&manifests(", subset: old")), "GET http://h/", &[]), "no destination 503");
}

#[test]
fn on_loopback_the_port_decides_whose_an_address_is() {
    let at = |port: u16| MeshSettings {
        upstreams: BTreeMap::from([("idp.example:443".to_owned(), ([127, 0, 0, 1], port).into())]),
        workloads: vec![WorkloadSettings {
            ip: Some("127.0.0.1".parse().unwrap()),
            ..WorkloadSettings::named("datamesh/fhir")
        }],
        ..MeshSettings::default()
    };
    assert_eq!(
        with_settings(&to("idp.example", ", port: {number: 443}"), &at(8443)),
        "outside 127.0.0.1:8443"
    );
    assert_eq!(with_settings(&to("idp.example", ", port: {number: 443}"), &at(8080)), "fhir:8080");
}

#[test]
fn an_address_that_two_workloads_claim_is_not_outside() {
    let claim = |name: &str| WorkloadSettings {
        ip: Some("192.0.2.1".parse().unwrap()),
        ..WorkloadSettings::named(name)
    };
    let settings = MeshSettings {
        workloads: vec![claim("datamesh/fhir"), claim("auth/keycloak")],
        ..MeshSettings::default()
    };
    let entry = format!("{MORE}\n---\n{}", to("static.example", ""));
    assert_eq!(with_settings(&entry, &settings), "no destination 503");
}

//! Meshes of a given number of policies, and the questions put to them.

use std::{collections::BTreeMap, net::IpAddr};

use http::{HeaderMap, HeaderName, HeaderValue};
use policy::{
    Destination, Problem, Question, RequestFacts, RequestIdentity, Source, Verdict, WorkloadName,
    istio::{MeshConfig, Policies, WorkloadFacts, WorkloadPolicy},
};
use serde_json::json;

/// Of what shape the policies are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// The tutorial's, each for another role: method and claim.
    Roles,
    /// Exact paths, prefixes, templates, suffixes, claims, peers, headers, ranges and DENYs; one in
    /// four holds for another workload or another namespace.
    Mixed,
}

/// How many kinds [`Shape::Mixed`] has: that many policies hold one of each.
pub const KINDS: usize = 12;

/// What holds for the workload in a mesh of `count` policies. The first is the tutorial's: who has
/// the role `Patient` may GET.
///
/// # Panics
/// When the policy crate does not take the generated manifests.
pub fn workload_policy(shape: Shape, count: usize) -> WorkloadPolicy {
    let mut text = role("patient", "GET", "Patient");
    for index in 1..count {
        text += &match shape {
            Shape::Roles => role(&format!("role-{index}"), "GET", &format!("Role{index}")),
            Shape::Mixed => mixed(index),
        };
    }
    let (objects, problems) = policy::manifest::parse("bench.yaml", &text);
    assert_eq!(problems, []);
    let (policies, problems) = Policies::read(&objects);
    assert!(!problems.iter().any(Problem::is_error), "{problems:?}");
    policies.compile(&MeshConfig::default(), &facts())
}

fn facts() -> WorkloadFacts {
    WorkloadFacts {
        name: WorkloadName { namespace: "datamesh".to_owned(), name: "fhir-server".to_owned() },
        labels: BTreeMap::from([("app".to_owned(), "fhir-server".to_owned())]),
        services: Vec::new(),
        gateways: Vec::new(),
        gateway_classes: Vec::new(),
    }
}

fn object(name: &str, namespace: &str, app: &str, action: &str, rule: &str) -> String {
    format!(
        "---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  selector: {{matchLabels: {{app: {app}}}}}
  action: {action}
  rules: [{{{rule}}}]
"
    )
}

const TOKEN: &str = "from: [{source: {requestPrincipals: ['*']}}]";

fn role(name: &str, method: &str, role: &str) -> String {
    let rule = format!(
        "{TOKEN}, to: [{{operation: {{methods: [{method}]}}}}], \
         when: [{{key: 'request.auth.claims[realm_access][roles]', values: [{role}]}}]"
    );
    object(name, "datamesh", "fhir-server", "ALLOW", &rule)
}

fn mixed(index: usize) -> String {
    let name = format!("mixed-{index}");
    let operation = |inner: String| format!("{TOKEN}, to: [{{operation: {{{inner}}}}}]");
    let when = |key: &str, value: String| format!("{TOKEN}, when: [{{key: '{key}', values: ['{value}']}}]");
    let here = |action: &str, rule: String| object(&name, "datamesh", "fhir-server", action, &rule);
    let byte = |shift: usize| (index >> shift) & 255;
    match index % KINDS {
        0 => here("ALLOW", operation(format!("methods: [GET], paths: [/fhir/Encounter/{index}]"))),
        1 => here("ALLOW", operation(format!("methods: [GET, HEAD], paths: ['/fhir/Group/{index}/*']"))),
        2 => here("ALLOW", operation(format!("methods: [PUT], paths: ['/fhir/List/{index}/{{*}}/item']"))),
        3 => here("ALLOW", when("request.auth.claims[realm_access][roles]", format!("Role{index}"))),
        4 => here("ALLOW", when("request.auth.claims[organization]", format!("clinic-{index}"))),
        5 => {
            let peer =
                format!("from: [{{source: {{principals: [cluster.local/ns/datamesh/sa/app-{index}]}}}}]");
            here("ALLOW", peer)
        }
        6 => {
            let range = format!("10.{}.{}.0/24", 100 + byte(8) % 100, byte(0));
            here("DENY", format!("from: [{{source: {{remoteIpBlocks: [{range}]}}}}]"))
        }
        7 => here("DENY", format!("to: [{{operation: {{paths: ['/fhir/Secret/{index}/*']}}}}]")),
        8 => here("DENY", when("request.headers[x-purpose]", format!("purpose-{index}"))),
        9 => {
            let token = format!(
                "from: [{{source: {{requestPrincipals: ['https://idp.example/realms/r/user-{index}']}}}}]"
            );
            here("ALLOW", token)
        }
        10 => object(&name, "datamesh", "other", "DENY", "to: [{operation: {methods: [GET]}}]"),
        _ => object(&name, "elsewhere", "fhir-server", "DENY", "to: [{operation: {methods: [GET]}}]"),
    }
}

/// What is asked: everything that a question borrows.
pub struct Asked {
    method: &'static str,
    headers: HeaderMap,
    identity: Option<RequestIdentity>,
    /// What must come of it.
    pub verdict: Verdict,
    /// For people.
    pub name: &'static str,
}

impl Asked {
    /// The question.
    pub fn question(&self) -> Question<'_> {
        let address = IpAddr::from([10, 0, 0, 7]);
        Question {
            source: Source { ip: address, remote_ip: address, identity: None },
            destination: Destination { ip: address, port: 8080, sni: None },
            request: Some(RequestFacts {
                method: self.method,
                host: "fhir-service:8080",
                path: "/fhir/Patient/1",
                headers: &self.headers,
                identity: self.identity.as_ref(),
            }),
        }
    }
}

/// Alice reads; Alice deletes; somebody without a token reads.
pub fn asked() -> [Asked; 3] {
    let asked =
        |name, method, identity, verdict| Asked { method, headers: headers(), identity, verdict, name };
    [
        asked("allowed", "GET", Some(alice()), Verdict::Allow),
        asked("denied", "DELETE", Some(alice()), Verdict::Deny),
        asked("without a token", "GET", None, Verdict::Deny),
    ]
}

/// What a FHIR client sends.
fn headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("host", "fhir-service:8080"),
        ("accept", "application/fhir+json"),
        ("user-agent", "client/1.0"),
        ("x-forwarded-for", "10.0.0.7"),
        ("x-forwarded-proto", "http"),
        ("x-request-id", "0a0b0c0d-0000-4000-8000-000000000000"),
    ] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    headers
}

/// Alice as the tutorial's Keycloak describes her.
fn alice() -> RequestIdentity {
    let claims = json!({
        "exp": 1_790_000_000, "iat": 1_789_999_700, "jti": "4b6f", "iss": "https://idp.example/realms/r",
        "aud": "account", "sub": "alice", "typ": "Bearer", "azp": "idea", "sid": "1", "acr": "1",
        "realm_access": {"roles": ["default-roles-r", "offline_access", "Patient", "uma_authorization"]},
        "resource_access": {"account": {"roles": ["manage-account", "view-profile"]}},
        "scope": ["profile", "email"], "email_verified": true, "name": "Alice", "preferred_username": "alice",
    });
    RequestIdentity {
        issuer: "https://idp.example/realms/r".to_owned(),
        subject: "alice".to_owned(),
        presenter: Some("idea".to_owned()),
        audiences: vec!["account".to_owned()],
        claims: claims.as_object().cloned().unwrap_or_default(),
    }
}

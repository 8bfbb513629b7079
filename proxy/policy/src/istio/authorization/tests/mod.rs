#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod admission;
mod cve;
mod explain;
mod lint;
mod matching;
mod order;
mod properties;

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::{Authorization, AuthorizationPolicy};
use crate::{
    Decision, Destination, Problem, Question, RequestFacts, RequestIdentity, Source, SpiffeId, Verdict,
    istio::MeshConfig, manifest,
};

/// Owned facts that a question borrows.
#[derive(Debug, Clone)]
struct Facts {
    ip: IpAddr,
    remote_ip: IpAddr,
    peer: Option<SpiffeId>,
    destination_ip: IpAddr,
    port: u16,
    sni: Option<String>,
    tcp: bool,
    method: String,
    host: String,
    path: String,
    headers: HeaderMap,
    token: Option<RequestIdentity>,
}

impl Default for Facts {
    fn default() -> Self {
        Self {
            ip: "10.0.0.7".parse().unwrap(),
            remote_ip: "198.51.100.7".parse().unwrap(),
            peer: None,
            destination_ip: "10.0.0.9".parse().unwrap(),
            port: 8080,
            sni: None,
            tcp: false,
            method: "GET".to_owned(),
            host: "fhir-service:8080".to_owned(),
            path: "/fhir/Patient".to_owned(),
            headers: HeaderMap::new(),
            token: None,
        }
    }
}

impl Facts {
    fn question(&self) -> Question<'_> {
        Question {
            source: Source { ip: self.ip, remote_ip: self.remote_ip, identity: self.peer.as_ref() },
            destination: Destination { ip: self.destination_ip, port: self.port, sni: self.sni.as_deref() },
            request: (!self.tcp).then_some(RequestFacts {
                method: &self.method,
                host: &self.host,
                path: &self.path,
                headers: &self.headers,
                identity: self.token.as_ref(),
            }),
        }
    }

    fn tcp() -> Self {
        Self { tcp: true, ..Self::default() }
    }

    fn method(mut self, method: &str) -> Self {
        method.clone_into(&mut self.method);
        self
    }

    fn path(mut self, path: &str) -> Self {
        path.clone_into(&mut self.path);
        self
    }

    fn host(mut self, host: &str) -> Self {
        host.clone_into(&mut self.host);
        self
    }

    fn header(mut self, name: &str, value: &[u8]) -> Self {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        self.headers.append(name, HeaderValue::from_bytes(value).unwrap());
        self
    }

    /// `td/ns/<ns>/sa/<sa>`
    fn peer(mut self, principal: &str) -> Self {
        let parts: Vec<&str> = principal.split('/').collect();
        self.peer = Some(SpiffeId {
            trust_domain: parts[0].to_owned(),
            namespace: parts[2].to_owned(),
            service_account: parts[4].to_owned(),
        });
        self
    }

    fn token(mut self, claims: Value) -> Self {
        let text = |name: &str| claims[name].as_str().unwrap_or_default().to_owned();
        let audiences = match &claims["aud"] {
            Value::String(one) => vec![one.clone()],
            Value::Array(list) => list.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            _ => Vec::new(),
        };
        self.token = Some(RequestIdentity {
            issuer: text("iss"),
            subject: text("sub"),
            presenter: claims["azp"].as_str().map(str::to_owned),
            audiences,
            claims: claims.as_object().unwrap().clone(),
        });
        self
    }
}

fn read(yaml: &str) -> (Vec<AuthorizationPolicy>, Vec<Problem>) {
    let (objects, mut problems) = manifest::parse("test.yaml", yaml);
    let mut policies = Vec::new();
    for object in &objects {
        let (policy, found) = AuthorizationPolicy::read(object);
        policies.extend(policy);
        problems.extend(found);
    }
    (policies, problems)
}

/// The policies of a text that is all right.
fn policies(yaml: &str) -> Vec<AuthorizationPolicy> {
    let (policies, problems) = read(yaml);
    assert!(!problems.iter().any(Problem::is_error), "{problems:?}");
    policies
}

fn compile_in(yaml: &str, mesh: &MeshConfig) -> Authorization {
    Authorization::compile(policies(yaml).iter(), mesh)
}

fn compile(yaml: &str) -> Authorization {
    compile_in(yaml, &MeshConfig::default())
}

/// One policy of one rule, given as YAML of one line or several.
fn policy(name: &str, action: &str, rule: &str) -> String {
    let rule = rule.trim_end().replace('\n', "\n    ");
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, \
         namespace: datamesh}}\nspec:\n  action: {action}\n  rules:\n  - {rule}\n"
    )
}

/// Decides, and checks that explaining decides the same.
fn decide(authorization: &Authorization, facts: &Facts) -> Decision {
    let decision = authorization.decide(&facts.question());
    let (explained, steps) = authorization.explain(&facts.question());
    assert_eq!(decision, explained, "{steps:#?}");
    decision
}

/// Whether a rule matches, asked as ALLOW and as DENY.
fn matches_in(mesh: &MeshConfig, rule: &str, facts: &Facts) -> bool {
    let allow = compile_in(&policy("one", "ALLOW", rule), mesh);
    let deny = compile_in(&policy("one", "DENY", rule), mesh);
    let allowed = decide(&allow, facts).verdict == Verdict::Allow;
    let denied = decide(&deny, facts).verdict == Verdict::Deny;
    assert_eq!(allowed, denied, "{rule}");
    allowed
}

fn matches(rule: &str, facts: &Facts) -> bool {
    matches_in(&MeshConfig::default(), rule, facts)
}

fn alice() -> Facts {
    Facts::default().token(json!({
        "iss": "https://kc/realms/r", "sub": "alice", "azp": "idea",
        "aud": ["account", "fhir"], "realm_access": {"roles": ["Patient", "offline_access"]},
        "scope": ["openid", "patient/*.read"], "level": 3, "admin": true, "email": "a@x",
        "a.b/c": "dotted", "resource_access": {"idea": {"roles": ["reader"]}},
    }))
}

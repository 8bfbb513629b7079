//! What is generated, asked and shrunk: a workload's policies, and a request.

mod keys;
mod request;
mod token;

use serde_json::{Value, json};

pub use keys::{KeyName, Ring};
pub use request::{Body, Http, Piece, Request, Signed, Text};
pub use token::{DROPPED, Signature, Token};

use super::translate::Normalization;

/// The issuers that worlds know, in the order of [`Ring::jwks`].
pub const ISSUERS: [&str; 2] = ["https://a.example/realms/r", "https://b.example/realms/r"];
/// The port of every workload, as policies know it.
pub const PORT: u16 = 8080;
/// A policy's namespace is the world's own, unless it is this one.
pub const ROOT: &str = "istio-system";

/// One workload, and everything that is said about it.
#[derive(Debug, Clone, PartialEq)]
pub struct World {
    /// The mesh's mode.
    pub normalization: Normalization,
    /// Whether ambiguous targets are refused, which only we know how to do.
    pub strict: bool,
    /// `jwtRules` lists, one for each RequestAuthentication. `jwks` stands for the keys of `issuer`.
    pub authentications: Vec<Vec<Value>>,
    /// AuthorizationPolicies.
    pub policies: Vec<Policy>,
}

/// An AuthorizationPolicy.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// In the root namespace rather than in the workload's.
    pub root: bool,
    /// Only to be tried.
    pub dry_run: bool,
    /// `spec`; a selector of its own where `root`.
    pub spec: Value,
}

impl World {
    /// A world without any policy.
    #[must_use]
    pub const fn open(normalization: Normalization) -> Self {
        Self { normalization, strict: false, authentications: Vec::new(), policies: Vec::new() }
    }

    /// The labels of the workload.
    #[must_use]
    pub fn labels(name: &str) -> Value {
        json!({"app": "fhir", "world": name})
    }

    /// The manifests of the world by this name, which is its namespace. `jwks` gives an issuer's keys as they go
    /// into a rule.
    #[must_use]
    pub fn manifests(&self, name: &str, jwks: impl Fn(&str) -> Vec<(&'static str, Value)>) -> Vec<Value> {
        let mut objects = vec![json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": name, "labels": {"istio-injection": "enabled"}},
        })];
        for (index, rules) in self.authentications.iter().enumerate() {
            let mut rules = rules.clone();
            for rule in &mut rules {
                let keys = jwks(rule["issuer"].as_str().unwrap_or_default());
                keys.into_iter().for_each(|(field, value)| rule[field] = value);
            }
            objects.push(json!({
                "apiVersion": "security.istio.io/v1",
                "kind": "RequestAuthentication",
                "metadata": {"name": format!("tokens-{index}"), "namespace": name},
                "spec": {"selector": {"matchLabels": {"app": "fhir"}}, "jwtRules": rules},
            }));
        }
        for (index, policy) in self.policies.iter().enumerate() {
            objects.push(policy.manifest(name, index));
        }
        objects
    }
}

impl Policy {
    fn manifest(&self, world: &str, index: usize) -> Value {
        let namespace = if self.root { ROOT } else { world };
        let mut metadata = json!({"name": format!("{world}-{index}"), "namespace": namespace});
        if self.dry_run {
            metadata["annotations"] = json!({"istio.io/dry-run": "true"});
        }
        let mut spec = self.spec.clone();
        if self.root {
            spec["selector"] = json!({"matchLabels": {"world": world}});
        }
        json!({
            "apiVersion": "security.istio.io/v1",
            "kind": "AuthorizationPolicy",
            "metadata": metadata,
            "spec": spec,
        })
    }
}

//! The words that a world's policies are made of.

use serde_json::Value;

use crate::oracle::model::World;

/// Values by what they are about.
#[derive(Debug, Clone, Default)]
pub(super) struct Words {
    pub(super) paths: Vec<String>,
    pub(super) methods: Vec<String>,
    pub(super) hosts: Vec<String>,
    pub(super) addresses: Vec<String>,
    /// Names, and values that are asked for.
    pub(super) headers: Vec<(String, String)>,
    /// Paths of claims, and values that are asked for.
    pub(super) claims: Vec<(String, String)>,
}

impl Words {
    pub(super) fn of(world: &World) -> Self {
        let mut words = Self::default();
        for rule in world.policies.iter().flat_map(|policy| list(&policy.spec["rules"])) {
            for field in list(&rule["to"]).chain(list(&rule["from"])) {
                let inner = field.get("operation").or_else(|| field.get("source"));
                for (key, values) in inner.and_then(Value::as_object).into_iter().flatten() {
                    list(values).filter_map(Value::as_str).for_each(|value| words.add(key, value));
                }
            }
            for condition in list(&rule["when"]) {
                let key = condition["key"].as_str().unwrap_or_default();
                let values = list(&condition["values"]).chain(list(&condition["notValues"]));
                values.filter_map(Value::as_str).for_each(|value| words.add(key, value));
            }
        }
        words
    }

    fn add(&mut self, key: &str, value: &str) {
        let inside = |prefix: &str| {
            key.strip_prefix(prefix).and_then(|rest| rest.strip_suffix(']')).map(str::to_owned)
        };
        let value = value.to_owned();
        match key.strip_prefix("not").unwrap_or(key).to_ascii_lowercase().as_str() {
            "paths" => self.paths.push(value),
            "methods" => self.methods.push(value),
            "hosts" => self.hosts.push(value),
            "remoteipblocks" | "remote.ip" => self.addresses.push(value),
            _ => {
                if let Some(name) = inside("request.headers[") {
                    self.headers.push((name, value));
                } else if let Some(path) = inside("request.auth.claims[") {
                    self.claims.push((path, value));
                } else if key == "request.auth.presenter" {
                    self.claims.push(("azp".to_owned(), value));
                } else if key == "request.auth.audiences" {
                    self.claims.push(("aud".to_owned(), value));
                }
            }
        }
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

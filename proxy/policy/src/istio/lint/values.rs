//! The values of an AuthorizationPolicy's rules, flat, with their places.

use crate::{Object, Place, manifest::Node};

/// One value of one list.
pub(super) struct Value<'a> {
    /// Index of its rule.
    pub(super) rule: usize,
    /// `methods`, `requestPrincipals`… without `not`, or the key of a `when` condition.
    pub(super) attribute: &'a str,
    /// Whether it stands in `notX` or `notValues`.
    pub(super) negated: bool,
    /// Its text.
    pub(super) text: &'a str,
    /// Its field path.
    pub(super) field: String,
    node: &'a Node,
}

impl Value<'_> {
    /// Where it stands.
    pub(super) fn place(&self, object: &Object) -> Place {
        Place { file: object.place.file.clone(), line: self.node.line, column: self.node.column }
    }

    /// Whether it looks at a verified token.
    pub(super) fn wants_token(&self) -> bool {
        self.attribute == "requestPrincipals" || self.attribute.starts_with("request.auth.")
    }

    /// Whether it looks at HTTP.
    pub(super) fn wants_http(&self) -> bool {
        self.wants_token()
            || matches!(self.attribute, "methods" | "paths" | "hosts")
            || self.attribute.starts_with("request.")
    }
}

/// All values of a policy that has been read, in order.
pub(super) fn read(object: &Object) -> Vec<Value<'_>> {
    let mut values = Vec::new();
    let rules = object.root.at(&["spec", "rules"]).map(Node::items).unwrap_or_default();
    for (rule, node) in rules.iter().enumerate() {
        for (list, inner) in [("from", "source"), ("to", "operation")] {
            let entries = node.get(list).map(Node::items).unwrap_or_default();
            for (index, entry) in entries.iter().enumerate() {
                let Some(fields) = entry.get(inner) else { continue };
                let path = format!("spec.rules[{rule}].{list}[{index}].{inner}");
                for (key, items) in fields.entries() {
                    let (attribute, negated) = positive(&key.text);
                    let list = List { rule, attribute, negated, path: format!("{path}.{}", key.text) };
                    list.push(items, &mut values);
                }
            }
        }
        let conditions = node.get("when").map(Node::items).unwrap_or_default();
        for (index, condition) in conditions.iter().enumerate() {
            let Some(attribute) = condition.get("key").and_then(Node::as_str) else { continue };
            for (name, negated) in [("values", false), ("notValues", true)] {
                let Some(items) = condition.get(name) else { continue };
                let path = format!("spec.rules[{rule}].when[{index}].{name}");
                List { rule, attribute, negated, path }.push(items, &mut values);
            }
        }
    }
    values
}

struct List<'a> {
    rule: usize,
    attribute: &'a str,
    negated: bool,
    path: String,
}

impl<'a> List<'a> {
    fn push(&self, items: &'a Node, values: &mut Vec<Value<'a>>) {
        for (index, node) in items.items().iter().enumerate() {
            let Some(text) = node.as_str() else { continue };
            let field = format!("{}[{index}]", self.path);
            let (rule, attribute, negated) = (self.rule, self.attribute, self.negated);
            values.push(Value { rule, attribute, negated, text, field, node });
        }
    }
}

/// `notMethods` is `methods`, negated.
fn positive(field: &str) -> (&str, bool) {
    match field {
        "notPrincipals" => ("principals", true),
        "notRequestPrincipals" => ("requestPrincipals", true),
        "notNamespaces" => ("namespaces", true),
        "notServiceAccounts" => ("serviceAccounts", true),
        "notTrustDomains" => ("trustDomains", true),
        "notIpBlocks" => ("ipBlocks", true),
        "notRemoteIpBlocks" => ("remoteIpBlocks", true),
        "notHosts" => ("hosts", true),
        "notPorts" => ("ports", true),
        "notMethods" => ("methods", true),
        "notPaths" => ("paths", true),
        field => (field, false),
    }
}

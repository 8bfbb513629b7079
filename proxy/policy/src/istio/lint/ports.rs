//! HTTP fields in rules for ports that do not speak HTTP.

use super::{At, values::Value};
use crate::{
    Object, Problem,
    istio::authorization::Action,
    manifest::{Content, Node, codes},
};

/// Protocols, in a port's name or `appProtocol`, that are not HTTP (istio.io, protocol selection).
const NOT_HTTP: &[&str] = &["tcp", "tls", "mongo", "mysql", "redis", "postgres", "postgresql", "udp"];

pub(super) fn lint(at: &At<'_>, values: &[Value<'_>]) -> Vec<Problem> {
    let mut problems = Vec::new();
    let ports =
        values.iter().filter(|one| !one.negated && matches!(one.attribute, "ports" | "destination.port"));
    for value in ports {
        let http = values.iter().find(|other| other.rule == value.rule && other.wants_http());
        let Some(http) = http.filter(|_| is_tcp(at, value.text)) else { continue };
        let outcome = match at.policy.action {
            Action::Allow => "on it the whole rule is dropped, so nothing is allowed",
            _ => "on it they are dropped, and the rule matches every connection",
        };
        let text = format!(
            "port {} is declared as not HTTP, and `{}` is known in HTTP only: {outcome}",
            value.text, http.attribute
        );
        problems.push(at.warn(codes::HTTP_RULE_ON_TCP, value, text));
    }
    problems
}

/// Whether a Service of the policy's namespace says that the container port is not HTTP.
fn is_tcp(at: &At<'_>, port: &str) -> bool {
    let here = |object: &&Object| {
        object.kind == "Service" && object.group().is_empty() && object.namespace() == at.policy.namespace
    };
    let ports = at.mesh.all.iter().filter(here).filter_map(|one| one.root.at(&["spec", "ports"]));
    ports.flat_map(Node::items).any(|entry| {
        let target = entry.get("targetPort").filter(|node| !node.is_null()).or(entry.get("port"));
        let number = match target.map(|node| &node.content) {
            Some(Content::Scalar(scalar)) => scalar.text.as_str(),
            _ => return false,
        };
        number == port && protocol(entry).is_some_and(|name| NOT_HTTP.contains(&name.as_str()))
    })
}

fn protocol(port: &Node) -> Option<String> {
    let said = port.get("appProtocol").and_then(Node::as_str);
    let named = || port.get("name").and_then(Node::as_str).map(|name| name.split('-').next().unwrap_or(name));
    said.or_else(named).map(str::to_ascii_lowercase)
}

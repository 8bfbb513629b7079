//! Envoy as the called side of HBONE.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tests::real::envoy_config::{self, Protocol};

use super::kit::principal;

const EXTENSIONS: &str = "type.googleapis.com/envoy.extensions";
/// The listener within Envoy, and the cluster that leads to it.
const INSIDE: &str = "inside";
/// Under which the outer listener notes who the client is.
const WHO: &str = "bench.peer.principal";

/// Puts the listener of `config` behind tunnels that end at `target`: it listens within the process alone,
/// and its policies ask for the principal that the tunnel's listener has noted.
pub(super) fn behind_tunnels(config: &mut Value, target: SocketAddr, tls: Option<Value>) {
    let note = json!({
        "object_key": WHO,
        "factory_key": "envoy.string",
        "format_string": {"text_format_source": {"inline_string": "%DOWNSTREAM_PEER_URI_SAN%"}},
        "shared_with_upstream": "ONCE",
    });
    let note = filter("set_filter_state", "set_filter_state.v3.Config", "on_request_headers", &json!([note]));
    let outer = envoy_config::listener(target, tls, &tunnels(INSIDE, &note));
    if let Some(listeners) = config["static_resources"]["listeners"].as_array_mut() {
        for listener in listeners.iter_mut() {
            noted(listener);
            if let Some(fields) = listener.as_object_mut() {
                fields.remove("address");
                fields.insert("name".to_owned(), json!(INSIDE));
                fields.insert("internal_listener".to_owned(), json!({}));
            }
        }
        listeners.push(outer);
    }
    if let Some(clusters) = config["static_resources"]["clusters"].as_array_mut() {
        clusters.push(inside());
    }
    let kind = format!("{EXTENSIONS}.bootstrap.internal_listener.v3.InternalListener");
    config["bootstrap_extensions"] =
        json!([{"name": "envoy.bootstrap.internal_listener", "typed_config": {"@type": kind}}]);
}

/// Tunnels from `target` straight to `upstream`, the client's alone. Admin is third.
pub(super) fn raw([target, upstream, admin]: [SocketAddr; 3], tls: Option<Value>) -> Value {
    let who = json!([{"authenticated": {"principal_name": {"exact": format!("spiffe://{}", principal("client"))}}}]);
    let policies = json!({"only": {"permissions": [{"any": true}], "principals": who}});
    let rules = json!({"action": "ALLOW", "policies": policies});
    let admits = filter("rbac", "rbac.v3.RBAC", "rules", &rules);
    let listener = envoy_config::listener(target, tls, &tunnels("application", &admits));
    let cluster = envoy_config::cluster("application", upstream, Protocol::Raw, None);
    json!({
        "admin": {"address": {"socket_address":
            {"address": admin.ip().to_string(), "port_value": admin.port()}}},
        "static_resources": {"listeners": [listener], "clusters": [cluster]},
    })
}

/// HBONE's server with a filter before its router; tunnels may last.
fn tunnels(cluster: &str, first: &Value) -> Value {
    let mut server = envoy_config::connect_server(cluster);
    let manager = &mut server["typed_config"];
    if let Some(filters) = manager["http_filters"].as_array_mut() {
        filters.insert(0, first.clone());
    }
    manager["route_config"]["virtual_hosts"][0]["routes"][0]["route"]["timeout"] = json!("0s");
    server
}

/// The cluster of the listener within; what the tunnel's listener has noted goes along.
fn inside() -> Value {
    let socket = |kind: &str| format!("{EXTENSIONS}.transport_sockets.{kind}");
    let bytes = json!({"name": "envoy.transport_sockets.raw_buffer",
        "typed_config": {"@type": socket("raw_buffer.v3.RawBuffer")}});
    let place = json!({"envoy_internal_address": {"server_listener_name": INSIDE}});
    json!({
        "name": INSIDE,
        "type": "STATIC",
        "transport_socket": {"name": "envoy.transport_sockets.internal_upstream", "typed_config": {
            "@type": socket("internal_upstream.v3.InternalUpstreamTransport"), "transport_socket": bytes}},
        "load_assignment": {"cluster_name": INSIDE, "endpoints": [{"lb_endpoints": [
            {"endpoint": {"address": place}}]}]},
    })
}

/// Asks for what was noted wherever a policy asks for a certificate's name.
fn noted(value: &mut Value) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(noted),
        Value::Object(fields) => {
            if let Some(name) = fields.remove("authenticated") {
                let asks = json!({"key": WHO, "string_match": name["principal_name"]});
                fields.insert("filter_state".to_owned(), asks);
            }
            fields.values_mut().for_each(noted);
        }
        _ => {}
    }
}

fn filter(name: &str, kind: &str, field: &str, value: &Value) -> Value {
    let kind = format!("{EXTENSIONS}.filters.http.{kind}");
    json!({"name": format!("envoy.filters.http.{name}"), "typed_config": {"@type": kind, field: value}})
}

//! A sidecar's inbound listener, and the cluster behind it.

use serde_json::{Map, Value, json};

use super::manifests::{Kind, Manifests, Object};
use super::{EnvoyListener, Normalization, TranslateError, jwt, rule, socket};

const FILTERS: &str = "type.googleapis.com/envoy.extensions.filters";

pub(super) fn cluster_name(listener: &EnvoyListener) -> String {
    let protocol = if listener.upstream_http2 { "http2" } else { "http1" };
    format!("{protocol}|{}", listener.upstream)
}

pub(super) fn cluster(listener: &EnvoyListener) -> Value {
    let name = cluster_name(listener);
    let endpoint = json!({"endpoint": {"address": socket(listener.upstream)}});
    let protocol = if listener.upstream_http2 { "http2_protocol_options" } else { "http_protocol_options" };
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "10s",
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {protocol: {}},
        }},
        // The default of 1,024 requests at a time would shed load that a benchmark means to offer.
        "circuit_breakers": {"thresholds": [{"max_connections": 100_000, "max_pending_requests": 100_000, "max_requests": 100_000}]},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    })
}

pub(super) fn listener(manifests: &Manifests, listener: &EnvoyListener) -> Result<Value, TranslateError> {
    let route = json!({"cluster": cluster_name(listener), "timeout": "0s"});
    let mut manager = json!({
        "@type": format!("{FILTERS}.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": listener.name,
        "codec_type": "AUTO",
        "server_name": "istio-envoy",
        "use_remote_address": false,
        "stream_idle_timeout": "0s",
        // A connection that is refused is closed sooner than the default, which is a whole second.
        "delayed_close_timeout": "0.1s",
        "forward_client_cert_details": "APPEND_FORWARD",
        "set_current_client_cert_details": {"subject": true, "dns": true, "uri": true},
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "route_config": {"virtual_hosts": [{
            "name": "inbound",
            "domains": ["*"],
            "routes": [{"match": {"prefix": "/"}, "route": route}],
        }]},
        "http_filters": filters(manifests, listener)?,
    });
    normalise(&mut manager, listener.normalization);
    Ok(json!({
        "name": listener.name,
        "address": socket(listener.address),
        "filter_chains": [{"filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": manager,
        }]}],
    }))
}

/// (istio/istio `pilot/pkg/networking/core/listener_builder.go`.)
fn normalise(manager: &mut Value, mode: Normalization) {
    if mode >= Normalization::Base {
        manager["normalize_path"] = true.into();
    }
    if mode >= Normalization::MergeSlashes {
        manager["merge_slashes"] = true.into();
    }
    if mode >= Normalization::DecodeAndMergeSlashes {
        manager["path_with_escaped_slashes_action"] = "UNESCAPE_AND_FORWARD".into();
    }
}

fn filters(manifests: &Manifests, listener: &EnvoyListener) -> Result<Vec<Value>, TranslateError> {
    let mut filters: Vec<Value> = jwt::filter(manifests, listener)?.into_iter().collect();
    let policies: Vec<&Object> = manifests.selecting(Kind::AuthorizationPolicy, listener).collect();
    for (action, envoy) in [("AUDIT", "LOG"), ("DENY", "DENY"), ("ALLOW", "ALLOW")] {
        let of_action = |object: &&&Object| object.spec["action"].as_str().unwrap_or("ALLOW") == action;
        let chosen: Vec<&Object> = policies.iter().filter(of_action).copied().collect();
        filters.extend(rbac(&chosen, envoy, listener)?);
    }
    if policies.iter().any(|object| object.spec["action"] == "CUSTOM") {
        return Err(TranslateError("CUSTOM is not translated".to_owned()));
    }
    filters.push(json!({
        "name": "envoy.filters.http.grpc_stats",
        "typed_config": {"@type": format!("{FILTERS}.http.grpc_stats.v3.FilterConfig")},
    }));
    filters.push(json!({
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": format!("{FILTERS}.http.router.v3.Router")},
    }));
    Ok(filters)
}

/// One filter for all policies of an action; those of a dry run are its shadow rules.
fn rbac(
    policies: &[&Object],
    action: &str,
    listener: &EnvoyListener,
) -> Result<Option<Value>, TranslateError> {
    let mut config = json!({"@type": format!("{FILTERS}.http.rbac.v3.RBAC")});
    for (field, dry_run) in [("rules", false), ("shadow_rules", true)] {
        let chosen: Vec<&&Object> = policies.iter().filter(|object| object.dry_run == dry_run).collect();
        if chosen.is_empty() {
            continue;
        }
        let mut named = Map::new();
        for object in chosen {
            for index in 0..object.spec["rules"].as_array().map_or(0, Vec::len) {
                let name = format!("ns[{}]-policy[{}]-rule[{index}]", object.namespace, object.name);
                named.insert(name, rule::policy(&object.spec, index, listener)?);
            }
        }
        config[field] = json!({"action": action, "policies": named});
    }
    if config.get("rules").is_none() && config.get("shadow_rules").is_none() {
        return Ok(None);
    }
    Ok(Some(json!({"name": "envoy.filters.http.rbac", "typed_config": config})))
}

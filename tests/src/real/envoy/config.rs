//! Envoy's configuration, in the pieces that a mesh needs: sidecar-style mTLS and HBONE, as client and
//! as server, with the values that Istio gives them.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};

const EXTENSIONS: &str = "type.googleapis.com/envoy.extensions";
/// Istio's for connections of the mesh.
const CONNECT_LIMIT: &str = "10s";

/// Where a workload's certificate is, and whom it trusts.
#[derive(Debug, Clone, Copy)]
pub struct Files<'a> {
    /// Chain, leaf first.
    pub certificate: &'a Path,
    /// Its key.
    pub key: &'a Path,
    /// The roots, of all trust domains together, as Envoy has them from Istio.
    pub trusted: &'a Path,
    /// A revocation list.
    pub revoked: Option<&'a Path>,
}

/// What a URI name of the peer's certificate must be.
#[derive(Debug, Clone, Copy)]
pub enum Name<'a> {
    /// This.
    Exact(&'a str),
    /// Begin so: Istio's sidecars look at the trust domain of their clients alone.
    Prefix(&'a str),
}

/// What a cluster speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Bytes.
    Raw,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// What is made of `x-forwarded-client-cert`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forward {
    /// As Istio has it at sidecars.
    Append,
    /// As at gateways, with what is told at sidecars.
    SanitizeSet,
}

/// The whole bootstrap configuration.
#[must_use]
pub fn bootstrap(admin: SocketAddr, listeners: &[Value], clusters: &[Value]) -> String {
    let config = json!({
        "admin": {"address": place(admin)},
        "static_resources": {"listeners": listeners, "clusters": clusters},
    });
    config.to_string()
}

/// A listener with one filter, and TLS where given.
#[must_use]
pub fn listener(address: SocketAddr, tls: Option<Value>, filter: &Value) -> Value {
    filters(address, tls, std::slice::from_ref(filter))
}

/// The same with several filters.
#[must_use]
pub fn filters(address: SocketAddr, tls: Option<Value>, filters: &[Value]) -> Value {
    let mut chain = json!({"filters": filters});
    if let (Some(tls), Some(chain)) = (tls, chain.as_object_mut()) {
        chain.insert("transport_socket".to_owned(), tls);
    }
    json!({"name": format!("in-{}", address.port()), "address": place(address), "filter_chains": [chain]})
}

/// A port that takes mTLS and plaintext, as Istio's sidecars under PERMISSIVE: the first bytes are looked
/// at for so long.
#[must_use]
pub fn permissive(address: SocketAddr, tls: &Value, filter: &Value, peek: &str) -> Value {
    let inspector = typed("filters.listener.tls_inspector.v3.TlsInspector");
    json!({
        "name": format!("in-{}", address.port()),
        "address": place(address),
        "listener_filters": [{"name": "envoy.filters.listener.tls_inspector", "typed_config": inspector}],
        "listener_filters_timeout": peek,
        "continue_on_listener_filters_timeout": true,
        "filter_chains": [
            {"filter_chain_match": {"transport_protocol": "tls"}, "filters": [filter], "transport_socket": tls},
            {"filter_chain_match": {"transport_protocol": "raw_buffer"}, "filters": [filter]},
        ],
    })
}

/// An upstream.
#[must_use]
pub fn cluster(name: &str, address: SocketAddr, protocol: Protocol, tls: Option<Value>) -> Value {
    let mut cluster = json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": CONNECT_LIMIT,
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [
            {"endpoint": {"address": place(address)}}]}]},
    });
    let Some(fields) = cluster.as_object_mut() else { return cluster };
    if let Some(tls) = tls {
        fields.insert("transport_socket".to_owned(), tls);
    }
    let options = match protocol {
        Protocol::Raw => return cluster,
        Protocol::Http1 => json!({"http_protocol_options": {"enable_trailers": true}}),
        Protocol::Http2 => json!({"http2_protocol_options": {}}),
    };
    let options = json!({
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": options,
    });
    let options = json!({"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options});
    fields.insert("typed_extension_protocol_options".to_owned(), options);
    cluster
}

/// HTTP, everything to one cluster.
#[must_use]
pub fn http(cluster: &str, forward: Option<Forward>) -> Value {
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": cluster}}]);
    let mut manager = manager(&routes);
    if let (Some(forward), Some(fields)) = (forward, manager.as_object_mut()) {
        let how = match forward {
            Forward::Append => "APPEND_FORWARD",
            Forward::SanitizeSet => "SANITIZE_SET",
        };
        fields.insert("forward_client_cert_details".to_owned(), json!(how));
        let told = json!({"subject": true, "uri": true, "dns": true});
        fields.insert("set_current_client_cert_details".to_owned(), told);
        fields.insert("http_protocol_options".to_owned(), json!({"enable_trailers": true}));
    }
    filter("http", &manager)
}

/// HBONE's server: CONNECT ends here, its bytes go to one cluster.
#[must_use]
pub fn connect_server(cluster: &str) -> Value {
    let routes = json!([{
        "match": {"connect_matcher": {}},
        "route": {"cluster": cluster,
            "upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}]},
    }]);
    let mut manager = manager(&routes);
    if let Some(fields) = manager.as_object_mut() {
        fields.insert("http2_protocol_options".to_owned(), json!({"allow_connect": true}));
        fields.insert("upgrade_configs".to_owned(), json!([{"upgrade_type": "CONNECT"}]));
    }
    filter("http", &manager)
}

/// HBONE's client: bytes go into CONNECT to `authority`, by a cluster of HTTP/2.
#[must_use]
pub fn connect_client(cluster: &str, authority: &str) -> Value {
    let mut proxy = tcp_proxy(cluster);
    if let Some(fields) = proxy.as_object_mut() {
        fields.insert("tunneling_config".to_owned(), json!({"hostname": authority}));
    }
    filter("tcp", &proxy)
}

/// Bytes, all to one cluster.
#[must_use]
pub fn tcp(cluster: &str) -> Value {
    filter("tcp", &tcp_proxy(cluster))
}

/// A layer-4 authorization that admits this principal alone, as Istio writes it for raw TCP.
#[must_use]
pub fn admits(principal: &str) -> Value {
    let mut rbac = typed("filters.network.rbac.v3.RBAC");
    if let Some(fields) = rbac.as_object_mut() {
        let who = json!([{"authenticated": {"principal_name": {"exact": principal}}}]);
        let policies = json!({"only": {"permissions": [{"any": true}], "principals": who}});
        fields.insert("stat_prefix".to_owned(), json!("tcp."));
        fields.insert("rules".to_owned(), json!({"action": "ALLOW", "policies": policies}));
    }
    filter("rbac", &rbac)
}

/// TLS of a client.
#[must_use]
pub fn client_tls(files: &Files<'_>, alpn: &[&str], sni: Option<&str>, expected: Name<'_>) -> Value {
    let mut tls = typed("transport_sockets.tls.v3.UpstreamTlsContext");
    if let Some(fields) = tls.as_object_mut() {
        fields.insert("common_tls_context".to_owned(), common(files, alpn, expected));
        if let Some(sni) = sni {
            fields.insert("sni".to_owned(), json!(sni));
        }
    }
    json!({"name": "tls", "typed_config": tls})
}

/// TLS of a server, which wants a client's certificate.
#[must_use]
pub fn server_tls(files: &Files<'_>, alpn: &[&str], accepted: Name<'_>) -> Value {
    let mut tls = typed("transport_sockets.tls.v3.DownstreamTlsContext");
    if let Some(fields) = tls.as_object_mut() {
        fields.insert("common_tls_context".to_owned(), common(files, alpn, accepted));
        fields.insert("require_client_certificate".to_owned(), json!(true));
    }
    json!({"name": "tls", "typed_config": tls})
}

/// TLS of a server that knows trust domains apart: Envoy's validator for SPIFFE.
#[must_use]
pub fn spiffe_tls(files: &Files<'_>, alpn: &[&str], domains: &[(&str, &Path)]) -> Value {
    let mut tls = server_tls(files, alpn, Name::Prefix("spiffe://"));
    let domains: Vec<Value> = domains
        .iter()
        .map(|(name, bundle)| json!({"name": name, "trust_bundle": {"filename": bundle}}))
        .collect();
    let mut validator = typed("transport_sockets.tls.v3.SPIFFECertValidatorConfig");
    if let Some(fields) = validator.as_object_mut() {
        fields.insert("trust_domains".to_owned(), json!(domains));
    }
    let validator = json!({"name": "envoy.tls.cert_validator.spiffe", "typed_config": validator});
    let context = tls.pointer_mut("/typed_config/common_tls_context/validation_context");
    if let Some(fields) = context.and_then(Value::as_object_mut) {
        fields.remove("trusted_ca");
        fields.insert("custom_validator_config".to_owned(), validator);
    }
    tls
}

fn common(files: &Files<'_>, alpn: &[&str], name: Name<'_>) -> Value {
    let matcher = match name {
        Name::Exact(name) => json!({"exact": name}),
        Name::Prefix(name) => json!({"prefix": name}),
    };
    let mut validation = json!({
        "trusted_ca": {"filename": files.trusted},
        "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": matcher}],
    });
    if let (Some(list), Some(fields)) = (files.revoked, validation.as_object_mut()) {
        fields.insert("crl".to_owned(), json!({"filename": list}));
        // Otherwise a list for every issuer above is asked for.
        fields.insert("only_verify_leaf_cert_crl".to_owned(), json!(true));
    }
    json!({
        // As Istio sets it; left alone, Envoy's clients go no further than TLS 1.2.
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3"},
        "alpn_protocols": alpn,
        "tls_certificates": [{"certificate_chain": {"filename": files.certificate},
            "private_key": {"filename": files.key}}],
        "validation_context": validation,
    })
}

fn manager(routes: &Value) -> Value {
    let mut manager = typed("filters.network.http_connection_manager.v3.HttpConnectionManager");
    if let Some(fields) = manager.as_object_mut() {
        let hosts = json!([{"name": "all", "domains": ["*"], "routes": routes}]);
        let router = json!({"name": "envoy.filters.http.router",
            "typed_config": typed("filters.http.router.v3.Router")});
        fields.insert("stat_prefix".to_owned(), json!("http"));
        fields.insert("route_config".to_owned(), json!({"virtual_hosts": hosts}));
        fields.insert("http_filters".to_owned(), json!([router]));
    }
    manager
}

fn tcp_proxy(cluster: &str) -> Value {
    let mut proxy = typed("filters.network.tcp_proxy.v3.TcpProxy");
    if let Some(fields) = proxy.as_object_mut() {
        fields.insert("stat_prefix".to_owned(), json!("tcp"));
        fields.insert("cluster".to_owned(), json!(cluster));
    }
    proxy
}

fn filter(name: &str, config: &Value) -> Value {
    json!({"name": name, "typed_config": config})
}

fn typed(name: &str) -> Value {
    json!({"@type": format!("{EXTENSIONS}.{name}")})
}

fn place(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}

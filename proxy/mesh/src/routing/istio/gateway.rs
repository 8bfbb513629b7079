//! Istio Gateways: which hosts a listener serves.
//!
//! Source: pilot/pkg/model/gateway.go (`mergeGateways`, `sanitizeServerHostNamespace`).

use std::collections::BTreeMap;

use policy::{
    Object, Problem,
    manifest::{Located, codes},
};

use super::spec::{GatewaySpec, ServerSpec, ServerTlsSpec};
use crate::routing::GatewayKey;

/// A Gateway's HTTP servers, checked.
#[derive(Debug)]
pub(crate) struct Gateway {
    /// `namespace/name`, as VirtualServices name it.
    pub(crate) name: String,
    selector: BTreeMap<String, String>,
    pub(super) servers: Vec<Server>,
}

/// One HTTP or HTTPS server.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) port: u16,
    /// HTTPS: it answers on TLS connections only.
    pub(super) tls: bool,
    pub(super) https_redirect: bool,
    /// Namespace whose VirtualServices may use the host (`None`: all), and the host.
    pub(super) hosts: Vec<(Option<String>, String)>,
}

impl Gateway {
    /// Whether the listener's pods are those that the Gateway selects.
    pub(crate) fn selects(&self, key: &GatewayKey) -> bool {
        self.selector.iter().all(|(name, value)| key.labels.get(name) == Some(value))
    }

    pub(crate) fn selector(&self) -> &BTreeMap<String, String> {
        &self.selector
    }

    /// Reads a Gateway of `networking.istio.io`; problems are about its fields.
    pub(super) fn read(object: &Object, problems: &mut Vec<Problem>) -> Option<Self> {
        let spec = match object.field::<GatewaySpec>("spec") {
            Ok(spec) => spec.unwrap_or_default(),
            Err(problem) => {
                problems.push(problem);
                return None;
            }
        };
        let namespace = object.namespace();
        let mut servers = Vec::new();
        for server in &spec.servers {
            match Server::read(server, namespace, problems) {
                Ok(read) => servers.extend(read),
                Err(problem) => problems.push(problem.of(object.label())),
            }
        }
        let name = format!("{namespace}/{}", object.metadata.name);
        Some(Self { name, selector: spec.selector, servers })
    }
}

impl Server {
    /// `None` for a server that does not speak HTTP.
    fn read(
        spec: &Located<ServerSpec>,
        namespace: &str,
        problems: &mut Vec<Problem>,
    ) -> Result<Option<Self>, Problem> {
        let port = u16::try_from(spec.port.number.value)
            .ok()
            .filter(|port| *port > 0)
            .ok_or_else(|| spec.port.number.error(codes::INVALID_PORT, "a port is 1 to 65535"))?;
        let protocol = spec.port.protocol.as_ref().map_or("TCP", |protocol| protocol.as_str());
        let tls = match protocol.to_ascii_uppercase().as_str() {
            "HTTP" | "HTTP2" | "GRPC" | "GRPC-WEB" => false,
            "HTTPS" => true,
            "TLS" | "TCP" | "MONGO" | "MYSQL" | "REDIS" | "UDP" | "HBONE" => {
                let text = format!("protocol {protocol} is not served; this server is left out");
                problems.push(spec.warning(codes::NOT_ENFORCED, text));
                return Ok(None);
            }
            other => {
                return Err(spec.error(codes::INVALID_VALUE, format!("`{other}` is no protocol")));
            }
        };
        if spec.hosts.is_empty() {
            return Err(spec.error(codes::MISSING_FIELD, "`hosts` names no host"));
        }
        for unused in [&spec.bind, &spec.default_endpoint].into_iter().flatten() {
            problems.push(unused.warning(codes::NOT_ENFORCED, "not used: listeners are settings"));
        }
        let passthrough = match &spec.tls {
            Some(settings) => check_tls(settings, tls, problems)?,
            None if tls => {
                return Err(spec.error(codes::MISSING_FIELD, "an HTTPS server needs `tls`"));
            }
            None => false,
        };
        if passthrough {
            return Ok(None);
        }
        let hosts = spec.hosts.iter().map(|host| read_host(host, namespace)).collect::<Result<_, _>>()?;
        let https_redirect = spec.tls.as_ref().is_some_and(|tls| tls.https_redirect);
        Ok(Some(Self { port, tls, https_redirect, hosts }))
    }
}

/// Whether the server passes TLS through. A mode that would ask clients for a certificate is an
/// error: without that check the server would be open.
fn check_tls(
    tls: &Located<ServerTlsSpec>,
    https: bool,
    problems: &mut Vec<Problem>,
) -> Result<bool, Problem> {
    let narrows = !tls.subject_alt_names.is_empty()
        || !tls.verify_certificate_spki.is_empty()
        || !tls.verify_certificate_hash.is_empty();
    if narrows {
        let text = "client certificates of gateways are not checked yet: remove these fields";
        return Err(tls.error(codes::NOT_ENFORCED, text));
    }
    let limited = tls.min_protocol_version.is_some()
        || tls.max_protocol_version.is_some()
        || tls.cipher_suites.is_some();
    if limited {
        let text = "TLS versions and cipher suites are the proxy's own (TLS 1.2 and 1.3)";
        problems.push(tls.warning(codes::NOT_ENFORCED, text));
    }
    match tls.mode.as_deref().unwrap_or("PASSTHROUGH") {
        "SIMPLE" => Ok(false),
        "OPTIONAL_MUTUAL" => {
            let text = "client certificates are not asked for: this server behaves as SIMPLE";
            problems.push(tls.warning(codes::NOT_ENFORCED, text));
            Ok(false)
        }
        "MUTUAL" | "ISTIO_MUTUAL" => {
            Err(tls.error(codes::NOT_ENFORCED, "client certificates of gateways are not checked yet"))
        }
        // Without HTTPS the mode says nothing: `tls: {httpsRedirect: true}`.
        "PASSTHROUGH" if !https || tls.mode.is_none() => Ok(false),
        "PASSTHROUGH" | "AUTO_PASSTHROUGH" => {
            let text = "TLS is not passed through; this server is left out";
            problems.push(tls.warning(codes::NOT_ENFORCED, text));
            Ok(true)
        }
        other => Err(tls.error(codes::INVALID_VALUE, format!("`{other}` is no TLS mode"))),
    }
}

fn read_host(host: &Located<String>, namespace: &str) -> Result<(Option<String>, String), Problem> {
    let (scope, name) = match host.split_once('/') {
        None | Some(("*", _)) => (None, host.rsplit('/').next().unwrap_or_default()),
        Some((".", name)) => (Some(namespace.to_owned()), name),
        Some((scope, name)) => (Some(scope.to_owned()), name),
    };
    check_host(name).map_err(|text| host.error(codes::INVALID_VALUE, text))?;
    Ok((scope, name.to_ascii_lowercase()))
}

/// A host name, an address, `*` or `*.suffix`.
pub(crate) fn check_host(name: &str) -> Result<(), String> {
    let rest = match name.strip_prefix('*') {
        Some("") => return Ok(()),
        Some(suffix) => suffix.strip_prefix('.').unwrap_or_default(),
        None => name,
    };
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let address = rest.parse::<std::net::IpAddr>().is_ok();
    if !rest.is_empty() && (address || rest.bytes().all(fits)) {
        Ok(())
    } else {
        Err(format!("`{name}` is no host name; a wildcard is `*` or `*.suffix`"))
    }
}

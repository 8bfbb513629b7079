//! Each peer's own words for the same policy.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::{Value, json};
use tests::oracle::translate::{EnvoyListener, Manifests, envoy_config};

use super::{Purpose, StartError};
use crate::load::Protocol;
use crate::meshes::{MAIN, NAMESPACE, OTHER};

/// A line for each request with about what Istio's default format says.
const ENVOY_LOG: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" \
%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \
\"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" \
%UPSTREAM_CLUSTER% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS%\n";

/// Envoy: the oracle's translation of the manifests, for both workloads.
pub(super) fn envoy(
    manifests: &Manifests,
    [main, other]: [SocketAddr; 2],
    admin: SocketAddr,
    upstream: SocketAddr,
    cache: Option<u32>,
    log: bool,
) -> Result<String, StartError> {
    let listener = |app: &str, address| {
        let mut listener = EnvoyListener::new(app, NAMESPACE, address, upstream);
        listener.labels = BTreeMap::from([("app".to_owned(), app.to_owned())]);
        listener.jwt_cache_size = cache;
        listener
    };
    let text = envoy_config(manifests, &[listener(MAIN, main), listener(OTHER, other)], admin)?;
    if !log {
        return Ok(text);
    }
    let mut config: Value = serde_json::from_str(&text)?;
    let access_log = json!([{
        "name": "file",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": "access.log",
            "log_format": {"text_format_source": {"inline_string": ENVOY_LOG}},
        },
    }]);
    for listener in list(&mut config["static_resources"]["listeners"]) {
        for chain in list(&mut listener["filter_chains"]) {
            for filter in list(&mut chain["filters"]) {
                filter["typed_config"]["access_log"] = access_log.clone();
            }
        }
    }
    Ok(config.to_string())
}

fn list(value: &mut Value) -> impl Iterator<Item = &mut Value> {
    value.as_array_mut().into_iter().flatten()
}

/// HAProxy: the first role only, one key, the same answers.
pub(super) fn haproxy(target: SocketAddr, upstream: SocketAddr, purpose: Purpose) -> String {
    let proto = if purpose.protocol == Protocol::Http2 { " proto h2" } else { "" };
    let algorithm = purpose.algorithm.name();
    format!(
        "global
  nbthread 1
  tune.bufsize 32768
defaults
  mode http
  timeout client 60s
  timeout server 60s
  timeout connect 2s
frontend f
  bind {target}{proto}
  http-request set-var(txn.token) http_auth_bearer
  http-request set-var(txn.exp) var(txn.token),jwt_payload_query('$.exp','int')
  http-request set-var(txn.now) date()
  http-request set-var(txn.role) var(txn.token),jwt_payload_query('$.realm_access.roles[0]')
  http-request deny deny_status 403 unless {{ req.hdr(authorization) -m found }}
  http-request deny deny_status 401 unless {{ var(txn.token),jwt_verify(\"{algorithm}\",\"public.pem\") -m int 1 }}
  http-request deny deny_status 401 if {{ var(txn.exp),sub(txn.now) -m int lt 0 }}
  http-request deny deny_status 403 unless {{ var(txn.role) -m str Medic }} METH_POST || {{ var(txn.role) -m str Patient }} METH_GET
  http-request del-header authorization
  default_backend b
backend b
  http-reuse always
  server s {upstream}
"
    )
}

/// Ours: a listener for each workload. Without `defaults` there is no access log, as the others have none,
/// and one worker thread.
pub(super) fn fhirward(
    [main, other]: [SocketAddr; 2],
    admin: SocketAddr,
    upstream: SocketAddr,
    defaults: bool,
) -> String {
    let listener = |name: &str, app: &str, address: SocketAddr| {
        format!(
            "- {{name: {name}, address: \"{address}\", to: {NAMESPACE}/{app}, port: 8080, upstream: \"{upstream}\"}}\n"
        )
    };
    let workload = |app: &str| format!("  - {{name: {NAMESPACE}/{app}, labels: {{app: {app}}}}}\n");
    let (log, threads) = if defaults { ("file: access.log", "") } else { ("enabled: false", ", threads: 1") };
    format!(
        "listeners:\n{}{}mesh:\n  manifests: [manifests]\n  workloads:\n{}{}observe: {{accessLog: {{{log}}}}}\n\
         admin: {{address: \"{admin}\"{threads}}}\n",
        listener("main", MAIN, main),
        listener("other", OTHER, other),
        workload(MAIN),
        workload(OTHER),
    )
}

//! Gateway, VirtualService and DestinationRule as written.
//!
//! Source: istio.io/latest/docs/reference/config/networking. Fields that are known but not used
//! are read, so that only misspelt ones are unknown.

use std::collections::BTreeMap;

use policy::manifest::Located;
use serde::{Deserialize, de::IgnoredAny};

use crate::routing::{
    cors::CorsSpec,
    duration::ManifestDuration,
    fault::{FaultSpec, PercentSpec},
    headers::HeadersSpec,
    retry::RetrySpec,
    text::StringMatch,
};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct GatewaySpec {
    pub(super) servers: Vec<Located<ServerSpec>>,
    pub(super) selector: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ServerSpec {
    pub(super) port: ServerPortSpec,
    #[serde(default)]
    pub(super) bind: Option<Located<String>>,
    #[serde(default)]
    pub(super) hosts: Vec<Located<String>>,
    #[serde(default)]
    pub(super) tls: Option<Located<ServerTlsSpec>>,
    #[serde(default)]
    pub(super) default_endpoint: Option<Located<String>>,
    #[serde(default, rename = "name")]
    pub(super) _name: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ServerPortSpec {
    pub(super) number: Located<u32>,
    #[serde(default)]
    pub(super) protocol: Option<Located<String>>,
    #[serde(default, rename = "name")]
    pub(super) _name: Option<String>,
    #[serde(default, rename = "targetPort")]
    pub(super) _target_port: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct ServerTlsSpec {
    pub(super) https_redirect: bool,
    pub(super) mode: Option<String>,
    pub(super) subject_alt_names: Vec<String>,
    pub(super) verify_certificate_spki: Vec<String>,
    pub(super) verify_certificate_hash: Vec<String>,
    #[serde(rename = "serverCertificate")]
    pub(super) _server_certificate: Option<String>,
    #[serde(rename = "privateKey")]
    pub(super) _private_key: Option<String>,
    #[serde(rename = "caCertificates")]
    pub(super) _ca_certificates: Option<String>,
    #[serde(rename = "caCrl")]
    pub(super) _ca_crl: Option<String>,
    #[serde(rename = "caCertCredentialName")]
    pub(super) _ca_cert_credential_name: Option<String>,
    #[serde(rename = "credentialName")]
    pub(super) _credential_name: Option<String>,
    #[serde(rename = "credentialNames")]
    pub(super) _credential_names: Vec<String>,
    #[serde(rename = "tlsCertificates")]
    pub(super) _tls_certificates: Option<IgnoredAny>,
    pub(super) min_protocol_version: Option<IgnoredAny>,
    pub(super) max_protocol_version: Option<IgnoredAny>,
    pub(super) cipher_suites: Option<IgnoredAny>,
    #[serde(rename = "ecdhCurves")]
    pub(super) _ecdh_curves: Option<IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct VirtualServiceSpec {
    pub(super) hosts: Vec<Located<String>>,
    pub(super) gateways: Vec<String>,
    pub(super) http: Vec<Located<HttpRouteSpec>>,
    pub(super) tls: Option<Located<IgnoredAny>>,
    pub(super) tcp: Option<Located<IgnoredAny>>,
    pub(super) export_to: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct HttpRouteSpec {
    pub(super) name: Option<String>,
    #[serde(rename = "match")]
    pub(super) matches: Vec<Located<MatchSpec>>,
    pub(super) route: Vec<Located<RouteDestinationSpec>>,
    pub(super) redirect: Option<Located<RedirectSpec>>,
    pub(super) direct_response: Option<Located<DirectResponseSpec>>,
    pub(super) delegate: Option<Located<IgnoredAny>>,
    pub(super) rewrite: Option<Located<RewriteSpec>>,
    pub(super) timeout: Option<ManifestDuration>,
    pub(super) retries: Option<Located<RetrySpec>>,
    pub(super) fault: Option<Located<FaultSpec>>,
    pub(super) mirror: Option<Located<IgnoredAny>>,
    pub(super) mirrors: Option<Located<IgnoredAny>>,
    #[serde(rename = "mirrorPercent")]
    pub(super) _mirror_percent: Option<u32>,
    #[serde(rename = "mirrorPercentage")]
    pub(super) _mirror_percentage: Option<PercentSpec>,
    pub(super) cors_policy: Option<Located<CorsSpec>>,
    pub(super) headers: Option<Located<HeadersSpec>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct MatchSpec {
    #[serde(rename = "name")]
    pub(super) _name: Option<String>,
    pub(super) uri: Option<Located<StringMatch>>,
    pub(super) scheme: Option<Located<StringMatch>>,
    pub(super) method: Option<Located<StringMatch>>,
    pub(super) authority: Option<Located<StringMatch>>,
    pub(super) headers: BTreeMap<String, Located<StringMatch>>,
    pub(super) without_headers: BTreeMap<String, Located<StringMatch>>,
    pub(super) query_params: BTreeMap<String, Located<StringMatch>>,
    pub(super) port: Option<u16>,
    pub(super) source_labels: BTreeMap<String, String>,
    pub(super) source_namespace: Option<String>,
    pub(super) gateways: Vec<String>,
    pub(super) ignore_uri_case: bool,
    #[serde(rename = "statPrefix")]
    pub(super) _stat_prefix: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RouteDestinationSpec {
    pub(super) destination: DestinationSpec,
    #[serde(default)]
    pub(super) weight: u32,
    #[serde(default)]
    pub(super) headers: Option<Located<HeadersSpec>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct DestinationSpec {
    pub(super) host: Located<String>,
    #[serde(default)]
    pub(super) subset: Option<String>,
    #[serde(default)]
    pub(super) port: Option<PortSelectorSpec>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct PortSelectorSpec {
    pub(super) number: u16,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct RedirectSpec {
    pub(super) uri: Option<String>,
    pub(super) authority: Option<String>,
    pub(super) port: Option<u16>,
    pub(super) derive_port: Option<DerivePort>,
    pub(super) scheme: Option<String>,
    pub(super) redirect_code: Option<u16>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum DerivePort {
    FromProtocolDefault,
    FromRequestPort,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct DirectResponseSpec {
    pub(super) status: u16,
    #[serde(default)]
    pub(super) body: Option<BodySpec>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct BodySpec {
    pub(super) string: Option<String>,
    pub(super) bytes: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct RewriteSpec {
    pub(super) uri: Option<String>,
    pub(super) authority: Option<String>,
    pub(super) uri_regex_rewrite: Option<RegexRewriteSpec>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RegexRewriteSpec {
    #[serde(rename = "match")]
    pub(super) pattern: String,
    pub(super) rewrite: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct DestinationRuleSpec {
    pub(crate) host: String,
    #[serde(default)]
    pub(crate) subsets: Vec<SubsetSpec>,
    #[serde(default)]
    pub(crate) traffic_policy: Option<Located<IgnoredAny>>,
    #[serde(default, rename = "exportTo")]
    pub(crate) _export_to: Vec<String>,
    #[serde(default, rename = "workloadSelector")]
    pub(crate) _workload_selector: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct SubsetSpec {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    #[serde(default, rename = "trafficPolicy")]
    pub(crate) _traffic_policy: Option<IgnoredAny>,
}

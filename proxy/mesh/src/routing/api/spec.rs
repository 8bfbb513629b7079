//! Gateway API objects as written.
//!
//! Source: gateway-api.sigs.k8s.io reference, v1. Fields that are known but not used are read, so
//! that only misspelt ones are unknown.

use std::collections::BTreeMap;

use policy::manifest::Located;
use serde::{Deserialize, de::IgnoredAny};

use crate::routing::duration::ManifestDuration;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct GatewayClassSpec {
    pub(super) controller_name: String,
    #[serde(default, rename = "parametersRef")]
    pub(super) _parameters_ref: Option<IgnoredAny>,
    #[serde(default, rename = "description")]
    pub(super) _description: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct GatewaySpec {
    pub(super) gateway_class_name: String,
    pub(super) listeners: Vec<Located<ListenerSpec>>,
    #[serde(default, rename = "addresses")]
    pub(super) _addresses: Option<IgnoredAny>,
    #[serde(default, rename = "infrastructure")]
    pub(super) _infrastructure: Option<IgnoredAny>,
    #[serde(default, rename = "allowedListeners")]
    pub(super) _allowed_listeners: Option<IgnoredAny>,
    #[serde(default, rename = "backendTLS")]
    pub(super) _backend_tls: Option<IgnoredAny>,
    #[serde(default, rename = "defaultScope")]
    pub(super) _default_scope: Option<String>,
    #[serde(default)]
    pub(super) tls: Option<Located<GatewayTlsSpec>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct GatewayTlsSpec {
    pub(super) frontend: Option<IgnoredAny>,
    #[serde(rename = "backend")]
    pub(super) _backend: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ListenerSpec {
    pub(super) name: String,
    #[serde(default)]
    pub(super) hostname: Option<Located<String>>,
    pub(super) port: u16,
    pub(super) protocol: String,
    #[serde(default)]
    pub(super) tls: Option<Located<ListenerTlsSpec>>,
    #[serde(default)]
    pub(super) allowed_routes: AllowedRoutesSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct ListenerTlsSpec {
    pub(super) mode: Option<String>,
    #[serde(rename = "certificateRefs")]
    pub(super) _certificate_refs: Option<IgnoredAny>,
    pub(super) frontend_validation: Option<IgnoredAny>,
    pub(super) options: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct AllowedRoutesSpec {
    pub(super) namespaces: RouteNamespacesSpec,
    pub(super) kinds: Vec<RouteKindSpec>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RouteNamespacesSpec {
    pub(super) from: Option<Located<String>>,
    pub(super) selector: Option<LabelSelector>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RouteKindSpec {
    #[serde(default)]
    pub(super) group: Option<String>,
    pub(super) kind: String,
}

/// Kubernetes' LabelSelector.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct LabelSelector {
    match_labels: BTreeMap<String, String>,
    match_expressions: Vec<LabelExpression>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct LabelExpression {
    key: String,
    operator: LabelOperator,
    #[serde(default)]
    values: Vec<String>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
enum LabelOperator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

impl LabelSelector {
    pub(super) fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let has = |key: &str, value: &String| labels.get(key) == Some(value);
        self.match_labels.iter().all(|(key, value)| has(key, value))
            && self.match_expressions.iter().all(|expression| {
                let among = expression.values.iter().any(|value| has(&expression.key, value));
                match expression.operator {
                    LabelOperator::In => among,
                    LabelOperator::NotIn => !among,
                    LabelOperator::Exists => labels.contains_key(&expression.key),
                    LabelOperator::DoesNotExist => !labels.contains_key(&expression.key),
                }
            })
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct HttpRouteSpec {
    pub(super) parent_refs: Vec<Located<ParentRefSpec>>,
    pub(super) hostnames: Vec<Located<String>>,
    pub(super) rules: Option<Vec<Located<RuleSpec>>>,
    #[serde(rename = "useDefaultGateways")]
    pub(super) _use_default_gateways: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ParentRefSpec {
    #[serde(default)]
    pub(super) group: Option<String>,
    #[serde(default)]
    pub(super) kind: Option<String>,
    #[serde(default)]
    pub(super) namespace: Option<String>,
    pub(super) name: String,
    #[serde(default)]
    pub(super) section_name: Option<String>,
    #[serde(default)]
    pub(super) port: Option<u16>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct RuleSpec {
    pub(super) name: Option<String>,
    pub(super) matches: Vec<Located<MatchSpec>>,
    pub(super) filters: Vec<Located<FilterSpec>>,
    pub(super) backend_refs: Vec<Located<BackendRefSpec>>,
    pub(super) timeouts: TimeoutsSpec,
    pub(super) retry: Option<Located<RetrySpec>>,
    pub(super) session_persistence: Option<Located<IgnoredAny>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct MatchSpec {
    pub(super) path: Option<Located<ValueMatchSpec>>,
    pub(super) headers: Vec<Located<NamedMatchSpec>>,
    pub(super) query_params: Vec<Located<NamedMatchSpec>>,
    pub(super) method: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ValueMatchSpec {
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    pub(super) value: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NamedMatchSpec {
    #[serde(default, rename = "type")]
    pub(super) kind: Option<String>,
    pub(super) name: String,
    pub(super) value: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct FilterSpec {
    #[serde(rename = "type")]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) request_header_modifier: Option<HeaderModifierSpec>,
    #[serde(default)]
    pub(super) response_header_modifier: Option<HeaderModifierSpec>,
    #[serde(default)]
    pub(super) request_redirect: Option<RedirectSpec>,
    #[serde(default)]
    pub(super) url_rewrite: Option<RewriteSpec>,
    #[serde(default)]
    pub(super) cors: Option<CorsSpec>,
    #[serde(default, rename = "requestMirror")]
    pub(super) _request_mirror: Option<IgnoredAny>,
    #[serde(default, rename = "extensionRef")]
    pub(super) _extension_ref: Option<IgnoredAny>,
    #[serde(default, rename = "externalAuth")]
    pub(super) _external_auth: Option<IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct HeaderModifierSpec {
    pub(super) set: Vec<HeaderSpec>,
    pub(super) add: Vec<HeaderSpec>,
    pub(super) remove: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HeaderSpec {
    pub(super) name: String,
    pub(super) value: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct RedirectSpec {
    pub(super) scheme: Option<String>,
    pub(super) hostname: Option<String>,
    pub(super) path: Option<PathModifierSpec>,
    pub(super) port: Option<u16>,
    pub(super) status_code: Option<u16>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RewriteSpec {
    pub(super) hostname: Option<String>,
    pub(super) path: Option<PathModifierSpec>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct PathModifierSpec {
    #[serde(rename = "type")]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) replace_full_path: Option<String>,
    #[serde(default)]
    pub(super) replace_prefix_match: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct CorsSpec {
    pub(super) allow_origins: Vec<String>,
    pub(super) allow_credentials: bool,
    pub(super) allow_methods: Vec<String>,
    pub(super) allow_headers: Vec<String>,
    pub(super) expose_headers: Vec<String>,
    pub(super) max_age: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct BackendRefSpec {
    #[serde(default)]
    pub(super) group: Option<String>,
    #[serde(default)]
    pub(super) kind: Option<String>,
    pub(super) name: String,
    #[serde(default)]
    pub(super) namespace: Option<String>,
    #[serde(default)]
    pub(super) port: Option<u16>,
    #[serde(default)]
    pub(super) weight: Option<u32>,
    #[serde(default)]
    pub(super) filters: Vec<Located<FilterSpec>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct TimeoutsSpec {
    pub(super) request: Option<ManifestDuration>,
    pub(super) backend_request: Option<ManifestDuration>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct RetrySpec {
    pub(super) codes: Vec<u16>,
    pub(super) attempts: Option<u32>,
    #[serde(rename = "backoff")]
    pub(super) _backoff: Option<ManifestDuration>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ReferenceGrantSpec {
    pub(super) from: Vec<GrantFromSpec>,
    pub(super) to: Vec<GrantToSpec>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GrantFromSpec {
    pub(super) group: String,
    pub(super) kind: String,
    pub(super) namespace: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GrantToSpec {
    pub(super) group: String,
    pub(super) kind: String,
    #[serde(default)]
    pub(super) name: Option<String>,
}

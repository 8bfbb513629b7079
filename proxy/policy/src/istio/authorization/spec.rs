//! AuthorizationPolicy `spec`, as written. Every value knows its place.
//!
//! Source: istio.io/latest/docs/reference/config/security/authorization-policy.

use serde::Deserialize;

use super::super::selection::{TargetRefSpec, TargetSpec, WorkloadSelector};
use crate::manifest::Located;

/// A list of values; absent and empty are told apart.
pub(super) type Values = Option<Located<Vec<Located<String>>>>;

/// What a policy does with what it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Action {
    /// Lets it pass; what no ALLOW rule matches is refused.
    #[default]
    Allow,
    /// Refuses it.
    Deny,
    /// Marks it for the record.
    Audit,
    /// Asks an external authorizer; until those exist, refuses it.
    Custom,
}

impl Action {
    /// As manifests spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Allow => "ALLOW",
            Self::Deny => "DENY",
            Self::Audit => "AUDIT",
            Self::Custom => "CUSTOM",
        }
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Spec {
    selector: Option<Located<WorkloadSelector>>,
    target_ref: Option<Located<TargetRefSpec>>,
    target_refs: Option<Located<Vec<Located<TargetRefSpec>>>>,
    pub(super) action: Option<Located<Action>>,
    pub(super) provider: Option<Located<Provider>>,
    pub(super) rules: Option<Located<Vec<Located<RuleSpec>>>>,
}

impl Spec {
    pub(super) fn target(&mut self) -> TargetSpec {
        TargetSpec {
            selector: self.selector.take(),
            target_ref: self.target_ref.take(),
            target_refs: self.target_refs.take(),
        }
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Provider {
    pub(super) name: String,
}

/// One rule, as written and checked.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RuleSpec {
    pub(super) from: Option<Located<Vec<Located<FromSpec>>>>,
    pub(super) to: Option<Located<Vec<Located<ToSpec>>>>,
    pub(super) when: Option<Located<Vec<Located<Condition>>>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct FromSpec {
    pub(super) source: Option<Located<SourceSpec>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct SourceSpec {
    pub(super) principals: Values,
    pub(super) not_principals: Values,
    pub(super) request_principals: Values,
    pub(super) not_request_principals: Values,
    pub(super) namespaces: Values,
    pub(super) not_namespaces: Values,
    pub(super) service_accounts: Values,
    pub(super) not_service_accounts: Values,
    pub(super) trust_domains: Values,
    pub(super) not_trust_domains: Values,
    pub(super) ip_blocks: Values,
    pub(super) not_ip_blocks: Values,
    pub(super) remote_ip_blocks: Values,
    pub(super) not_remote_ip_blocks: Values,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct ToSpec {
    pub(super) operation: Option<Located<OperationSpec>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct OperationSpec {
    pub(super) hosts: Values,
    pub(super) not_hosts: Values,
    pub(super) ports: Values,
    pub(super) not_ports: Values,
    pub(super) methods: Values,
    pub(super) not_methods: Values,
    pub(super) paths: Values,
    pub(super) not_paths: Values,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Condition {
    pub(super) key: Option<Located<String>>,
    pub(super) values: Values,
    pub(super) not_values: Values,
}

/// What an attribute list is about: decides how its values are checked and compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Principals,
    RequestPrincipals,
    Namespaces,
    ServiceAccounts,
    TrustDomains,
    SourceIp,
    RemoteIp,
    Hosts,
    Ports,
    Methods,
    Paths,
}

/// One list of a source or operation.
pub(super) struct List<'a> {
    pub(super) kind: Kind,
    pub(super) negated: bool,
    pub(super) values: &'a Located<Vec<Located<String>>>,
}

fn lists<'a, const N: usize>(all: [(Kind, &'a Values, &'a Values); N]) -> Vec<List<'a>> {
    all.into_iter()
        .flat_map(|(kind, values, not_values)| {
            let list = move |values: &'a Values, negated| {
                values.as_ref().map(|values| List { kind, negated, values })
            };
            [list(values, false), list(not_values, true)]
        })
        .flatten()
        .collect()
}

impl SourceSpec {
    /// Every list that is there.
    pub(super) fn lists(&self) -> Vec<List<'_>> {
        lists([
            (Kind::Principals, &self.principals, &self.not_principals),
            (Kind::RequestPrincipals, &self.request_principals, &self.not_request_principals),
            (Kind::Namespaces, &self.namespaces, &self.not_namespaces),
            (Kind::ServiceAccounts, &self.service_accounts, &self.not_service_accounts),
            (Kind::TrustDomains, &self.trust_domains, &self.not_trust_domains),
            (Kind::SourceIp, &self.ip_blocks, &self.not_ip_blocks),
            (Kind::RemoteIp, &self.remote_ip_blocks, &self.not_remote_ip_blocks),
        ])
    }
}

impl OperationSpec {
    /// Every list that is there.
    pub(super) fn lists(&self) -> Vec<List<'_>> {
        lists([
            (Kind::Hosts, &self.hosts, &self.not_hosts),
            (Kind::Ports, &self.ports, &self.not_ports),
            (Kind::Methods, &self.methods, &self.not_methods),
            (Kind::Paths, &self.paths, &self.not_paths),
        ])
    }
}

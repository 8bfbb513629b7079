//! Worlds and questions as plain data, named as the manifests name them.

use std::{collections::BTreeMap, net::IpAddr};

use serde_json::{Map, Value};

/// A mesh: who is in it and every policy.
#[derive(Debug, Clone)]
pub struct World {
    /// `rootNamespace`.
    pub root: &'static str,
    /// `trustDomain`.
    pub trust_domain: &'static str,
    /// `trustDomainAliases`.
    pub aliases: Vec<&'static str>,
    /// Who may be called.
    pub members: Vec<Member>,
    /// AuthorizationPolicies.
    pub policies: Vec<Policy>,
    /// RequestAuthentications.
    pub requests: Vec<RequestAuthentication>,
    /// PeerAuthentications.
    pub peers: Vec<PeerAuthentication>,
}

/// A workload, with what policies select by.
#[derive(Debug, Clone)]
pub struct Member {
    /// Namespace.
    pub namespace: &'static str,
    /// Name.
    pub name: &'static str,
    /// Pod labels.
    pub labels: BTreeMap<&'static str, &'static str>,
    /// Services of its namespace that pick it.
    pub services: Vec<&'static str>,
    /// Gateways that it serves: namespace, name.
    pub gateways: Vec<(&'static str, &'static str)>,
    /// Their classes.
    pub classes: Vec<&'static str>,
}

/// Whom a policy holds for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// The whole namespace, or mesh.
    All,
    /// `selector.matchLabels`.
    Labels(BTreeMap<&'static str, &'static str>),
    /// `targetRefs`.
    Targets(Vec<Target>),
}

/// One of `targetRefs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A Service of the policy's namespace.
    Service(&'static str),
    /// A Gateway of the policy's namespace.
    Gateway(&'static str),
    /// A GatewayClass; root namespace only.
    GatewayClass(&'static str),
}

/// `action`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// `ALLOW`
    Allow,
    /// `DENY`
    Deny,
    /// `AUDIT`
    Audit,
    /// `CUSTOM`, whose authorizer does not exist here: it refuses what it matches.
    Custom,
}

/// An AuthorizationPolicy.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Namespace.
    pub namespace: &'static str,
    /// Name.
    pub name: String,
    /// Whom it holds for.
    pub selection: Selection,
    /// What it does.
    pub action: Action,
    /// `istio.io/dry-run`.
    pub dry_run: bool,
    /// `rules`.
    pub rules: Vec<Rule>,
}

/// One rule; an empty part matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    /// `from[].source`
    pub from: Vec<Vec<List>>,
    /// `to[].operation`
    pub to: Vec<Vec<List>>,
    /// `when[]`
    pub when: Vec<Condition>,
}

/// One list of a source or operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List {
    /// Without `not`: `principals`, `methods`…
    pub field: &'static str,
    /// Whether it is the `not` form.
    pub negated: bool,
    /// Its values.
    pub values: Vec<&'static str>,
}

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// `key`
    pub key: &'static str,
    /// `values`; empty: not there.
    pub values: Vec<&'static str>,
    /// `notValues`; empty: not there.
    pub not_values: Vec<&'static str>,
}

/// A RequestAuthentication.
#[derive(Debug, Clone)]
pub struct RequestAuthentication {
    /// Namespace.
    pub namespace: &'static str,
    /// Name.
    pub name: String,
    /// Whom it holds for.
    pub selection: Selection,
    /// `jwtRules`.
    pub rules: Vec<JwtRule>,
}

/// One of `jwtRules`; tokens stand in the default places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtRule {
    /// `issuer`
    pub issuer: &'static str,
    /// `audiences`; empty: not checked.
    pub audiences: Vec<&'static str>,
}

/// A PeerAuthentication.
#[derive(Debug, Clone)]
pub struct PeerAuthentication {
    /// Namespace.
    pub namespace: &'static str,
    /// Name.
    pub name: String,
    /// `creationTimestamp`, as hours of one day.
    pub created: Option<u8>,
    /// `matchLabels`; empty: no selector.
    pub labels: BTreeMap<&'static str, &'static str>,
    /// `mtls.mode`; `None`: `UNSET`.
    pub mode: Option<&'static str>,
    /// `portLevelMtls`.
    pub ports: BTreeMap<u16, Option<&'static str>>,
}

/// A question: who asks whom for what.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Index of the member that is asked.
    pub member: usize,
    /// `source.ip`
    pub ip: IpAddr,
    /// `remote.ip`
    pub remote_ip: IpAddr,
    /// Who asks, where mTLS says so.
    pub peer: Option<Peer>,
    /// `destination.ip`
    pub destination_ip: IpAddr,
    /// `destination.port`
    pub port: u16,
    /// `connection.sni`
    pub sni: Option<&'static str>,
    /// The request; `None` for raw TCP.
    pub http: Option<HttpAsked>,
}

/// A verified peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Trust domain.
    pub trust_domain: &'static str,
    /// Namespace.
    pub namespace: &'static str,
    /// Service account.
    pub account: &'static str,
}

/// The HTTP part of a question.
#[derive(Debug, Clone)]
pub struct HttpAsked {
    /// Method.
    pub method: &'static str,
    /// `:authority`
    pub host: &'static str,
    /// Canonical path.
    pub path: &'static str,
    /// Headers in order, a name may stand several times.
    pub headers: Vec<(&'static str, &'static str)>,
    /// Claims of the verified token, if there is one.
    pub claims: Option<Map<String, Value>>,
}

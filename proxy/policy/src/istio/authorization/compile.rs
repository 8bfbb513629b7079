//! Checked specs to rules that can be asked.
//!
//! Source: istio/istio `pilot/pkg/security/authz/model` and `pilot/pkg/security/trustdomain`.

use std::sync::Arc;

use super::{
    AuthorizationPolicy,
    key::{self, Key},
    predicate::{PathTest, Predicate, Test, parse_net},
    rule::Rule,
    spec::{Action, Condition, Kind, RuleSpec, Values},
    template::{Template, is_template},
    text::{Glob, Text},
    validate::parse_port,
};
use crate::istio::MeshConfig;

/// A predicate that has no translation: what then depends on the action.
pub(super) struct Untranslatable;

/// What the translation of one policy reads beside the rule itself.
pub(super) struct Context<'a> {
    mesh: &'a MeshConfig,
    namespace: &'a str,
    action: Action,
}

/// The rules of one policy, in order. A rule that cannot be translated is left out of an ALLOW
/// policy (narrower); elsewhere only the predicate is left out of the rule (wider).
pub(super) fn rules(policy: &AuthorizationPolicy, mesh: &MeshConfig) -> Vec<Rule> {
    let context = Context { mesh, namespace: &policy.namespace, action: policy.action };
    let compiled = policy.rules.iter().enumerate().filter_map(|(i, spec)| {
        let mut rule = context.rule(spec).ok()?;
        rule.id = Arc::from(rule_id(policy, i));
        rule.place = Some(spec.place.clone());
        Some(rule)
    });
    compiled.collect()
}

/// `ns[<ns>]-policy[<name>]-rule[<i>]`
pub(super) fn rule_id(policy: &AuthorizationPolicy, index: usize) -> String {
    format!("ns[{}]-policy[{}]-rule[{index}]", policy.namespace, policy.name)
}

impl Context<'_> {
    fn rule(&self, spec: &RuleSpec) -> Result<Rule, Untranslatable> {
        let mut from = Vec::new();
        for (i, one) in spec.from.iter().flat_map(|from| from.iter()).enumerate() {
            let lists = one.source.iter().flat_map(|source| source.lists());
            let mut clause = Vec::new();
            for list in lists {
                let name = source_field(list.kind, list.negated);
                let label = format!("from[{i}].source.{name}");
                let test = |values: &[&str]| self.attribute(list.kind, values);
                self.push(&mut clause, list.negated, label, list.values, test)?;
            }
            from.push(clause);
        }
        let mut to = Vec::new();
        for (i, one) in spec.to.iter().flat_map(|to| to.iter()).enumerate() {
            let lists = one.operation.iter().flat_map(|operation| operation.lists());
            let mut clause = Vec::new();
            for list in lists {
                let name = operation_field(list.kind, list.negated);
                let label = format!("to[{i}].operation.{name}");
                let test = |values: &[&str]| self.attribute(list.kind, values);
                self.push(&mut clause, list.negated, label, list.values, test)?;
            }
            to.push(clause);
        }
        let mut when = Vec::new();
        for (i, condition) in spec.when.iter().flat_map(|when| when.iter()).enumerate() {
            self.condition(i, condition, &mut when)?;
        }
        Ok(Rule::new(self.action, from, to, when))
    }

    fn condition(
        &self,
        index: usize,
        condition: &Condition,
        into: &mut Vec<Predicate>,
    ) -> Result<(), Untranslatable> {
        let key = condition.key.as_ref().map_or("", |key| key.value.as_str());
        let parsed = key::parse(key).unwrap_or(Key::Untranslatable);
        let both: [(&Values, bool, &str); 2] =
            [(&condition.values, false, "values"), (&condition.not_values, true, "notValues")];
        for (values, negated, name) in both {
            if let Some(values) = values {
                let label = format!("when[{index}].{name} {key}");
                self.push(into, negated, label, values, |values| self.keyed(&parsed, values))?;
            }
        }
        Ok(())
    }

    /// Adds one predicate, or does what the action asks for when it has no translation.
    fn push(
        &self,
        into: &mut Vec<Predicate>,
        negated: bool,
        label: String,
        values: &[crate::manifest::Located<String>],
        test: impl Fn(&[&str]) -> Result<Test, Untranslatable>,
    ) -> Result<(), Untranslatable> {
        if values.is_empty() {
            return Ok(());
        }
        let values: Vec<&str> = values.iter().map(|value| value.value.as_str()).collect();
        match test(&values) {
            Ok(test) => into.push(Predicate { negated, test, label: label.into() }),
            Err(Untranslatable) if self.action == Action::Allow => return Err(Untranslatable),
            Err(Untranslatable) => {}
        }
        Ok(())
    }

    fn attribute(&self, kind: Kind, values: &[&str]) -> Result<Test, Untranslatable> {
        Ok(match kind {
            Kind::Principals => Test::Principals(texts(&self.with_aliases(values))),
            Kind::RequestPrincipals => {
                Test::RequestPrincipals(values.iter().map(|value| request_principal(value)).collect())
            }
            Kind::Namespaces => Test::Namespaces(values.iter().map(|value| Glob::new(value)).collect()),
            Kind::ServiceAccounts => {
                Test::ServiceAccounts(values.iter().map(|value| self.account(value)).collect())
            }
            Kind::TrustDomains => Test::TrustDomains(texts(&self.trust_domains(values))),
            Kind::SourceIp => Test::SourceIp(nets(values)?),
            Kind::RemoteIp => Test::RemoteIp(nets(values)?),
            Kind::Hosts => Test::Hosts(header_texts(values)),
            Kind::Methods => Test::Methods(header_texts(values)),
            Kind::Ports => Test::Ports(
                values
                    .iter()
                    .map(|value| parse_port(value).ok_or(Untranslatable))
                    .collect::<Result<_, _>>()?,
            ),
            Kind::Paths => Test::Paths(values.iter().map(|value| path(value)).collect::<Result<_, _>>()?),
        })
    }

    fn keyed(&self, key: &Key, values: &[&str]) -> Result<Test, Untranslatable> {
        Ok(match key {
            Key::Attribute(kind) => return self.attribute(*kind, values),
            Key::Header(header) => Test::Header(header.clone(), header_texts(values)),
            Key::Claim(keys) => Test::Claim(keys.clone(), texts(values)),
            Key::Audiences => Test::Audiences(texts(values)),
            Key::Presenter => Test::Presenter(texts(values)),
            Key::DestinationIp => Test::DestinationIp(nets(values)?),
            Key::Sni => Test::Sni(texts(values)),
            Key::FilterMetadata => Test::FilterMetadata(values.iter().map(|value| (*value).into()).collect()),
            Key::Untranslatable => return Err(Untranslatable),
        })
    }

    fn account(&self, value: &str) -> (Box<str>, Box<str>) {
        let (namespace, account) = value.split_once('/').unwrap_or((self.namespace, value));
        (namespace.into(), account.into())
    }

    fn domains(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.mesh.trust_domain.as_str())
            .chain(self.mesh.trust_domain_aliases.iter().map(String::as_str))
    }

    /// `trustDomains`: a value that is one of the mesh's own stands for all of them.
    fn trust_domains(&self, values: &[&str]) -> Vec<String> {
        let mut out: Vec<String> = Vec::new();
        for value in values {
            let own = self.domains().any(|domain| domain == *value);
            let expanded: Vec<&str> = if own { self.domains().collect() } else { vec![*value] };
            out.extend(expanded.into_iter().map(str::to_owned));
        }
        unique(out)
    }

    /// `principals`: a five-part value of the mesh's domain, an alias or `cluster.local` stands for
    /// the same account in each of the mesh's domains.
    fn with_aliases(&self, values: &[&str]) -> Vec<String> {
        let mut out = Vec::new();
        for value in values {
            let (domain, rest) = value.split_once('/').unwrap_or((value, ""));
            let own = self.domains().any(|own| domain_pattern_matches(domain, own));
            if value.split('/').count() != 5 || domain == "*" || !(own || domain == "cluster.local") {
                out.push((*value).to_owned());
                continue;
            }
            for own in self.domains() {
                // A starred domain that takes this one already is kept as it stands.
                if domain.starts_with('*') && domain_pattern_matches(domain, own) {
                    out.push((*value).to_owned());
                } else {
                    out.push(format!("{own}/{rest}"));
                }
            }
        }
        unique(out)
    }
}

fn domain_pattern_matches(pattern: &str, domain: &str) -> bool {
    pattern == domain || (pattern.contains('*') && Text::parse(pattern).matches(domain.as_bytes()))
}

fn unique(values: Vec<String>) -> Vec<String> {
    let mut seen = std::collections::HashSet::new();
    values.into_iter().filter(|value| seen.insert(value.clone())).collect()
}

fn texts<T: AsRef<str>>(values: &[T]) -> Vec<Text> {
    values.iter().map(|value| Text::parse(value.as_ref())).collect()
}

fn header_texts(values: &[&str]) -> Vec<Text> {
    values.iter().map(|value| Text::parse_header(value)).collect()
}

fn nets(values: &[&str]) -> Result<Vec<ipnet::IpNet>, Untranslatable> {
    values.iter().map(|value| parse_net(value).ok_or(Untranslatable)).collect()
}

fn path(value: &str) -> Result<PathTest, Untranslatable> {
    if is_template(value) {
        return Template::parse(value).map(PathTest::Template).map_err(|_| Untranslatable);
    }
    Ok(PathTest::Text(Text::parse(value)))
}

/// `iss/sub`, cut at the LAST slash, with the forms that Istio's translation knows.
pub(super) fn request_principal(value: &str) -> (Text, Text) {
    let exact = |text: &str| Text::Exact(text.into());
    if value == "*" {
        return (Text::Present, Text::Present);
    }
    match value.rsplit_once('/') {
        // `*/sub` and `*x/sub`: the subject is literal, even where it is a star.
        Some((issuer, subject)) if value.starts_with('*') => (Text::parse(issuer), exact(subject)),
        Some((issuer, subject)) if value.ends_with('*') => (exact(issuer), Text::parse(subject)),
        Some((issuer, subject)) => (exact(issuer), exact(subject)),
        None if value.starts_with('*') => (Text::Present, Text::parse(value)),
        None if value.ends_with('*') => (Text::parse(value), Text::Present),
        None => (exact(value), exact("")),
    }
}

fn source_field(kind: Kind, negated: bool) -> &'static str {
    match (kind, negated) {
        (Kind::Principals, false) => "principals",
        (Kind::Principals, true) => "notPrincipals",
        (Kind::RequestPrincipals, false) => "requestPrincipals",
        (Kind::RequestPrincipals, true) => "notRequestPrincipals",
        (Kind::Namespaces, false) => "namespaces",
        (Kind::Namespaces, true) => "notNamespaces",
        (Kind::ServiceAccounts, false) => "serviceAccounts",
        (Kind::ServiceAccounts, true) => "notServiceAccounts",
        (Kind::TrustDomains, false) => "trustDomains",
        (Kind::TrustDomains, true) => "notTrustDomains",
        (Kind::SourceIp, false) => "ipBlocks",
        (Kind::SourceIp, true) => "notIpBlocks",
        (Kind::RemoteIp, false) => "remoteIpBlocks",
        (Kind::RemoteIp, true) => "notRemoteIpBlocks",
        (kind, negated) => operation_field(kind, negated),
    }
}

fn operation_field(kind: Kind, negated: bool) -> &'static str {
    match (kind, negated) {
        (Kind::Hosts, false) => "hosts",
        (Kind::Hosts, true) => "notHosts",
        (Kind::Ports, false) => "ports",
        (Kind::Ports, true) => "notPorts",
        (Kind::Methods, false) => "methods",
        (Kind::Methods, true) => "notMethods",
        (Kind::Paths, false) => "paths",
        (Kind::Paths, true) => "notPaths",
        _ => "",
    }
}

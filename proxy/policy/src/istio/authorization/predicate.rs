//! One attribute against a list of values.
//!
//! An absent attribute matches no value: a positive predicate is then false, a negative one TRUE.
//! Both follow from `negated != any value matches`.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};
use serde_json::{Map, Value};

use super::{
    key::HeaderKey,
    template::Template,
    text::{Glob, Text},
};
use crate::{Question, RequestFacts, RequestIdentity, SpiffeId};

/// A list of one source, operation or condition.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Predicate {
    /// `notX`, `notValues`.
    pub(super) negated: bool,
    /// What is compared.
    pub(super) test: Test,
    /// `from[0].source.principals`, for explanations.
    pub(super) label: Box<str>,
}

/// An attribute and the values that match it (any of them).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Test {
    /// Peer, `<trust domain>/ns/<namespace>/sa/<account>`.
    Principals(Vec<Text>),
    /// Peer's namespace.
    Namespaces(Vec<Glob>),
    /// Peer's namespace and service account, both whole (CVE-2026-39350).
    ServiceAccounts(Vec<(Box<str>, Box<str>)>),
    /// Peer's trust domain.
    TrustDomains(Vec<Text>),
    /// Direct peer address.
    SourceIp(Vec<IpNet>),
    /// Original client address.
    RemoteIp(Vec<IpNet>),
    /// The workload's address.
    DestinationIp(Vec<IpNet>),
    /// The workload's port.
    Ports(Vec<u16>),
    /// TLS server name.
    Sni(Vec<Text>),
    /// `iss` and `sub`.
    RequestPrincipals(Vec<(Text, Text)>),
    /// `:authority`, without case.
    Hosts(Vec<Text>),
    /// `:method`.
    Methods(Vec<Text>),
    /// Canonical path.
    Paths(Vec<PathTest>),
    /// A request header, value by value.
    Header(HeaderKey, Vec<Text>),
    /// A claim by its keys: the string, or a list that holds it.
    Claim(Vec<String>, Vec<Text>),
    /// `aud`.
    Audiences(Vec<Text>),
    /// `azp`, as any claim: a string, or a list that holds it.
    Presenter(Vec<Text>),
    /// Metadata of Envoy's filters: never there. The values are kept for explanations.
    FilterMetadata(Vec<Box<str>>),
}

/// A `paths` value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum PathTest {
    /// A plain value.
    Text(Text),
    /// A template.
    Template(Template),
}

impl PathTest {
    fn matches(&self, path: &str) -> bool {
        match self {
            Self::Text(text) => text.matches(path.as_bytes()),
            Self::Template(template) => template.matches(path),
        }
    }
}

impl Test {
    /// Whether only an HTTP request has the attribute.
    pub(super) fn http_only(&self) -> bool {
        match self {
            Self::RequestPrincipals(_)
            | Self::Hosts(_)
            | Self::Methods(_)
            | Self::Paths(_)
            | Self::Header(..)
            | Self::Claim(..)
            | Self::Audiences(_)
            | Self::Presenter(_) => true,
            Self::Principals(_)
            | Self::Namespaces(_)
            | Self::ServiceAccounts(_)
            | Self::TrustDomains(_)
            | Self::SourceIp(_)
            | Self::RemoteIp(_)
            | Self::DestinationIp(_)
            | Self::Ports(_)
            | Self::Sni(_)
            | Self::FilterMetadata(_) => false,
        }
    }

    /// Whether any value matches what the question says.
    fn any_matches(&self, question: &Question<'_>) -> bool {
        let peer = question.source.identity;
        match self {
            Self::Principals(values) => peer.is_some_and(|peer| {
                let pieces = spelled(peer);
                values.iter().any(|value| value.matches_pieces(&pieces))
            }),
            Self::Namespaces(values) => {
                peer.is_some_and(|peer| values.iter().any(|value| value.matches(&peer.namespace)))
            }
            Self::ServiceAccounts(values) => peer.is_some_and(|peer| {
                values.iter().any(|(namespace, account)| {
                    **namespace == *peer.namespace && **account == *peer.service_account
                })
            }),
            Self::TrustDomains(values) => peer.is_some_and(|peer| any(values, peer.trust_domain.as_bytes())),
            Self::SourceIp(nets) => contains(nets, question.source.ip),
            Self::RemoteIp(nets) => contains(nets, question.source.remote_ip),
            Self::DestinationIp(nets) => contains(nets, question.destination.ip),
            Self::Ports(ports) => ports.contains(&question.destination.port),
            Self::Sni(values) => question.destination.sni.is_some_and(|name| any(values, name.as_bytes())),
            Self::FilterMetadata(_) => false,
            _ => question.request.is_some_and(|request| self.any_matches_request(&request)),
        }
    }

    fn any_matches_request(&self, request: &RequestFacts<'_>) -> bool {
        match self {
            Self::Hosts(values) => {
                values.iter().any(|value| value.matches_ignoring_case(request.host.as_bytes()))
            }
            Self::Methods(values) => any(values, request.method.as_bytes()),
            Self::Paths(values) => values.iter().any(|value| value.matches(request.path)),
            Self::Header(key, values) => match key {
                HeaderKey::Named(name) => {
                    request.headers.get_all(name).iter().any(|value| any(values, value.as_bytes()))
                }
                HeaderKey::Authority => any(values, request.host.as_bytes()),
                HeaderKey::Method => any(values, request.method.as_bytes()),
                HeaderKey::Impossible(_) => false,
            },
            _ => request.identity.is_some_and(|identity| self.any_matches_identity(identity)),
        }
    }

    fn any_matches_identity(&self, identity: &RequestIdentity) -> bool {
        match self {
            Self::RequestPrincipals(values) => {
                !identity.issuer.is_empty()
                    && !identity.subject.is_empty()
                    && values.iter().any(|(issuer, subject)| {
                        issuer.matches(identity.issuer.as_bytes())
                            && subject.matches(identity.subject.as_bytes())
                    })
            }
            Self::Claim(keys, values) => any_of(values, claim(&identity.claims, keys)),
            Self::Audiences(values) => {
                identity.audiences.iter().any(|audience| any(values, audience.as_bytes()))
            }
            Self::Presenter(values) => any_of(values, identity.claims.get("azp")),
            _ => false,
        }
    }
}

impl Predicate {
    /// Whether the predicate holds.
    pub(super) fn holds(&self, question: &Question<'_>) -> bool {
        self.test.any_matches(question) != self.negated
    }
}

/// A peer's principal, in pieces.
pub(super) fn spelled(peer: &SpiffeId) -> [&str; 5] {
    [&peer.trust_domain, "/ns/", &peer.namespace, "/sa/", &peer.service_account]
}

/// The claim at the end of nested keys.
pub(super) fn claim<'a>(claims: &'a Map<String, Value>, keys: &[String]) -> Option<&'a Value> {
    let (last, outer) = keys.split_last()?;
    let mut map = claims;
    for key in outer {
        map = map.get(key)?.as_object()?;
    }
    map.get(last)
}

/// What of a claim can match: the string that it is, or those in the list that it is. Numbers,
/// booleans, objects and null match nothing.
pub(super) fn strings(claim: Option<&Value>) -> impl Iterator<Item = &str> {
    let list = match claim {
        Some(Value::Array(list)) => list.as_slice(),
        Some(one) => std::slice::from_ref(one),
        None => &[],
    };
    list.iter().filter_map(Value::as_str)
}

fn any_of(values: &[Text], claim: Option<&Value>) -> bool {
    strings(claim).any(|text| any(values, text.as_bytes()))
}

fn any(values: &[Text], value: &[u8]) -> bool {
    values.iter().any(|text| text.matches(value))
}

/// Addresses are compared unwrapped: `::ffff:10.0.0.1` is 10.0.0.1.
fn contains(nets: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    nets.iter().any(|net| net.contains(&address))
}

/// An address or CIDR range, host bits cut, IPv4-mapped IPv6 unwrapped. `None` where it is neither.
pub(super) fn parse_net(value: &str) -> Option<IpNet> {
    let net = match value.split_once('/') {
        None => IpNet::from(value.parse::<IpAddr>().ok()?),
        Some((_, bits)) => {
            let plain = bits.bytes().all(|byte| byte.is_ascii_digit());
            if !plain || (bits.len() > 1 && bits.starts_with('0')) {
                return None;
            }
            value.parse::<IpNet>().ok()?
        }
    };
    let net = match net {
        IpNet::V6(six) => match (six.addr().to_ipv4_mapped(), six.prefix_len().checked_sub(96)) {
            (Some(four), Some(bits)) => IpNet::V4(Ipv4Net::new(four, bits).ok()?),
            _ => IpNet::V6(six),
        },
        IpNet::V4(_) => net,
    };
    Some(net.trunc())
}

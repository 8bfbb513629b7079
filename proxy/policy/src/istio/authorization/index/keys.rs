//! The values that a predicate requires, as hashes.

use std::hash::{BuildHasher, Hash, Hasher};

use ahash::RandomState;
use http::HeaderName;
use ipnet::IpNet;

use super::{
    super::{
        key::HeaderKey,
        predicate::{PathTest, Test},
        text::Text,
    },
    probe::{Family, Probe},
};

/// Longest literal prefix or suffix of a path that is filed under.
pub(super) const PREFIX_LIMIT: usize = 48;

/// One value: its hash, and how a question is asked for it.
#[derive(Debug, Clone)]
pub(super) struct Key {
    pub(super) hash: u64,
    pub(super) probe: Probe,
}

/// The values of one predicate; at least one of them must be there for it to hold.
pub(super) type Keys = Vec<Key>;

/// What kinds of values there are; part of every hash.
#[derive(Debug, Clone, Copy, Hash)]
pub(super) enum Tag {
    Principal,
    Namespace,
    Account,
    TrustDomain,
    Port,
    Sni,
    Token,
    Issuer,
    Subject,
    Host,
    Method,
    Path,
    PathPrefix,
    PathSuffix,
    Header,
    Claim,
    Audience,
    Presenter,
    Ip,
}

/// Makes hashes. The same functions serve filing and asking.
#[derive(Clone, Copy)]
pub(super) struct Keyring<'a> {
    pub(super) state: &'a RandomState,
}

impl Keyring<'_> {
    /// Of anything hashable.
    pub(super) fn of(&self, tag: Tag, value: impl Hash) -> u64 {
        let mut hasher = self.state.build_hasher();
        tag.hash(&mut hasher);
        value.hash(&mut hasher);
        hasher.finish()
    }

    /// Without ASCII case.
    pub(super) fn of_host(&self, host: &[u8]) -> u64 {
        let mut hasher = self.state.build_hasher();
        Tag::Host.hash(&mut hasher);
        for byte in host {
            hasher.write_u8(byte.to_ascii_lowercase());
        }
        hasher.finish()
    }

    /// Of a principal, spelt.
    pub(super) fn of_principal(&self, pieces: &[&str]) -> u64 {
        let mut hasher = self.state.build_hasher();
        Tag::Principal.hash(&mut hasher);
        for byte in pieces.iter().flat_map(|piece| piece.bytes()) {
            hasher.write_u8(byte);
        }
        hasher.finish()
    }

    /// The values that the predicate requires; `None` where it has none to file under.
    pub(super) fn keys(&self, test: &Test) -> Option<Keys> {
        let exact = |values: &[Text], tag: Tag, probe: Probe| {
            each(values, |value| Some(Key { hash: self.of(tag, exact_bytes(value)?), probe: probe.clone() }))
        };
        match test {
            Test::Principals(values) => each(values, |value| {
                let text = std::str::from_utf8(exact_bytes(value)?).ok()?;
                Some(Key { hash: self.of_principal(&[text]), probe: Probe::Principal })
            }),
            Test::Namespaces(values) => each(values, |value| {
                let hash = self.of(Tag::Namespace, value.exact()?.as_bytes());
                Some(Key { hash, probe: Probe::Namespace })
            }),
            Test::ServiceAccounts(values) => each(values, |(namespace, account)| {
                let hash = self.of(Tag::Account, (namespace.as_bytes(), account.as_bytes()));
                Some(Key { hash, probe: Probe::Account })
            }),
            Test::TrustDomains(values) => exact(values, Tag::TrustDomain, Probe::TrustDomain),
            Test::Ports(ports) => {
                each(ports, |port| Some(Key { hash: self.of(Tag::Port, *port), probe: Probe::Port }))
            }
            Test::Sni(values) => exact(values, Tag::Sni, Probe::Sni),
            Test::SourceIp(nets) => each(nets, |net| self.net(*net, false)),
            Test::RemoteIp(nets) => each(nets, |net| self.net(*net, true)),
            Test::RequestPrincipals(values) => each(values, |value| self.request_principal(value)),
            Test::Hosts(values) => each(values, |value| {
                Some(Key { hash: self.of_host(exact_bytes(value)?), probe: Probe::Host })
            }),
            Test::Methods(values) => exact(values, Tag::Method, Probe::Method),
            Test::Paths(values) => each(values, |value| self.path(value)),
            Test::Header(HeaderKey::Named(name), values) => each(values, |value| {
                let hash = self.header(name, exact_bytes(value)?);
                Some(Key { hash, probe: Probe::Header(name.clone()) })
            }),
            Test::Claim(keys, values) => {
                let seed = self.of(Tag::Claim, keys);
                let probe = Probe::Claim(keys.clone(), seed);
                each(values, |value| {
                    Some(Key { hash: self.claim(seed, exact_bytes(value)?), probe: probe.clone() })
                })
            }
            Test::Audiences(values) => exact(values, Tag::Audience, Probe::Audience),
            Test::Presenter(values) => exact(values, Tag::Presenter, Probe::Presenter),
            Test::DestinationIp(_) | Test::Header(..) | Test::FilterMetadata(_) => None,
        }
    }

    pub(super) fn header(&self, name: &HeaderName, value: &[u8]) -> u64 {
        self.of(Tag::Header, (name.as_str(), value))
    }

    pub(super) fn claim(&self, seed: u64, value: &[u8]) -> u64 {
        self.of(Tag::Claim, (seed, value))
    }

    fn net(&self, net: IpNet, remote: bool) -> Option<Key> {
        // A range of everything is no requirement.
        let bits = (net.prefix_len() > 0).then_some(net.prefix_len())?;
        let family = if net.addr().is_ipv4() { Family::V4 } else { Family::V6 };
        let hash = self.of(Tag::Ip, (remote, net.trunc()));
        Some(Key { hash, probe: Probe::Ip { remote, family, bits } })
    }

    fn request_principal(&self, (issuer, subject): &(Text, Text)) -> Option<Key> {
        Some(match (exact_bytes(issuer), exact_bytes(subject)) {
            (Some(issuer), Some(subject)) => {
                Key { hash: self.of(Tag::Token, (issuer, subject)), probe: Probe::Token }
            }
            (Some(issuer), None) => Key { hash: self.of(Tag::Issuer, issuer), probe: Probe::Issuer },
            (None, Some(subject)) => Key { hash: self.of(Tag::Subject, subject), probe: Probe::Subject },
            (None, None) => return None,
        })
    }

    fn path(&self, test: &PathTest) -> Option<Key> {
        let prefix = |text: &[u8]| {
            let text = text.get(..text.len().min(PREFIX_LIMIT)).filter(|text| text.len() > 1)?;
            let probe = Probe::PathPrefix(text.len());
            Some(Key { hash: self.of(Tag::PathPrefix, text), probe })
        };
        match test {
            PathTest::Template(template) => prefix(template.literal_prefix().as_bytes()),
            PathTest::Text(Text::Prefix(text)) => prefix(text.as_bytes()),
            PathTest::Text(Text::Suffix(text)) => {
                let from = text.len().saturating_sub(PREFIX_LIMIT);
                let text = text.as_bytes().get(from..).filter(|text| !text.is_empty())?;
                let probe = Probe::PathSuffix(text.len());
                Some(Key { hash: self.of(Tag::PathSuffix, text), probe })
            }
            PathTest::Text(Text::Exact(text)) => {
                Some(Key { hash: self.of(Tag::Path, text.as_bytes()), probe: Probe::Path })
            }
            PathTest::Text(Text::Present | Text::Any) => None,
        }
    }
}

/// All values, or none at all: one that cannot be filed makes the predicate none.
fn each<T>(values: &[T], key: impl Fn(&T) -> Option<Key>) -> Option<Keys> {
    values.iter().map(key).collect()
}

fn exact_bytes(value: &Text) -> Option<&[u8]> {
    match value {
        Text::Exact(text) => Some(text.as_bytes()),
        Text::Prefix(_) | Text::Suffix(_) | Text::Present | Text::Any => None,
    }
}

//! How a question is asked for the values that rules are filed under.

use std::net::IpAddr;

use ahash::RandomState;
use http::HeaderName;
use ipnet::IpNet;

use super::{
    super::predicate::{spelled, strings},
    claims::ClaimTree,
    keys::{Keyring, Tag},
};
use crate::{Question, RequestFacts, RequestIdentity, Source};

/// Address families.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Family {
    V4,
    V6,
}

/// One kind of value to look up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Probe {
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
    PathPrefix(usize),
    PathSuffix(usize),
    Header(HeaderName),
    /// The keys, and the hash that stands for them.
    Claim(Vec<String>, u64),
    Audience,
    Presenter,
    Ip {
        remote: bool,
        family: Family,
        bits: u8,
    },
}

/// Every kind that some rule is filed under; what nobody asks for costs nothing.
#[derive(Debug, Clone, Default)]
pub(super) struct Probes {
    peer: Vec<Probe>,
    port: bool,
    sni: bool,
    host: bool,
    method: bool,
    path: bool,
    prefixes: Vec<usize>,
    suffixes: Vec<usize>,
    headers: Vec<HeaderName>,
    token: Vec<Probe>,
    claims: ClaimTree,
    nets: Vec<(bool, Family, u8)>,
}

fn add<T: PartialEq>(list: &mut Vec<T>, value: T) {
    if !list.contains(&value) {
        list.push(value);
    }
}

impl Probes {
    pub(super) fn add(&mut self, probe: Probe) {
        match probe {
            Probe::Principal | Probe::Namespace | Probe::Account | Probe::TrustDomain => {
                add(&mut self.peer, probe);
            }
            Probe::Port => self.port = true,
            Probe::Sni => self.sni = true,
            Probe::Host => self.host = true,
            Probe::Method => self.method = true,
            Probe::Path => self.path = true,
            Probe::PathPrefix(len) => add(&mut self.prefixes, len),
            Probe::PathSuffix(len) => add(&mut self.suffixes, len),
            // Sorted and made unique once, by `seal`: there may be many.
            Probe::Header(name) => self.headers.push(name),
            Probe::Claim(keys, seed) => self.claims.add(&keys, seed),
            Probe::Token | Probe::Issuer | Probe::Subject | Probe::Audience | Probe::Presenter => {
                add(&mut self.token, probe);
            }
            Probe::Ip { remote, family, bits } => add(&mut self.nets, (remote, family, bits)),
        }
    }

    /// To be called once, after the last `add`.
    pub(super) fn seal(&mut self) {
        self.headers.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        self.headers.dedup();
        self.prefixes.sort_unstable();
    }

    /// Gives the hash of every value that the question has and some rule may be filed under.
    pub(super) fn ask(&self, state: &RandomState, question: &Question<'_>, found: &mut impl FnMut(u64)) {
        let keyring = Keyring { state };
        self.ask_peer(keyring, &question.source, found);
        if self.port {
            found(keyring.of(Tag::Port, question.destination.port));
        }
        if let Some(sni) = question.destination.sni.filter(|_| self.sni) {
            found(keyring.of(Tag::Sni, sni.as_bytes()));
        }
        if let Some(request) = &question.request {
            self.ask_request(keyring, request, found);
            if let Some(identity) = request.identity {
                self.ask_token(keyring, identity, found);
            }
        }
    }

    fn ask_peer(&self, keyring: Keyring<'_>, source: &Source<'_>, found: &mut impl FnMut(u64)) {
        for (remote, family, bits) in &self.nets {
            let address = if *remote { source.remote_ip } else { source.ip }.to_canonical();
            let same = matches!((address, family), (IpAddr::V4(_), Family::V4) | (IpAddr::V6(_), Family::V6));
            if let Some(net) = IpNet::new(address, *bits).ok().filter(|_| same) {
                found(keyring.of(Tag::Ip, (*remote, net.trunc())));
            }
        }
        let Some(peer) = source.identity else { return };
        for probe in &self.peer {
            found(match probe {
                Probe::Principal => keyring.of_principal(&spelled(peer)),
                Probe::Namespace => keyring.of(Tag::Namespace, peer.namespace.as_bytes()),
                Probe::Account => {
                    keyring.of(Tag::Account, (peer.namespace.as_bytes(), peer.service_account.as_bytes()))
                }
                _ => keyring.of(Tag::TrustDomain, peer.trust_domain.as_bytes()),
            });
        }
    }

    fn ask_request(&self, keyring: Keyring<'_>, request: &RequestFacts<'_>, found: &mut impl FnMut(u64)) {
        let path = request.path.as_bytes();
        if self.path {
            found(keyring.of(Tag::Path, path));
        }
        for len in &self.prefixes {
            match path.get(..*len) {
                Some(prefix) => found(keyring.of(Tag::PathPrefix, prefix)),
                None => break,
            }
        }
        for len in &self.suffixes {
            if let Some(at) = path.len().checked_sub(*len) {
                found(keyring.of(Tag::PathSuffix, path.get(at..).unwrap_or_default()));
            }
        }
        if self.method {
            found(keyring.of(Tag::Method, request.method.as_bytes()));
        }
        if self.host {
            found(keyring.of_host(request.host.as_bytes()));
        }
        self.ask_headers(keyring, request, found);
    }

    fn ask_headers(&self, keyring: Keyring<'_>, request: &RequestFacts<'_>, found: &mut impl FnMut(u64)) {
        if self.headers.len() <= request.headers.keys_len() {
            for name in &self.headers {
                for value in request.headers.get_all(name) {
                    found(keyring.header(name, value.as_bytes()));
                }
            }
            return;
        }
        // More names in policies than in the request: the request is the shorter list.
        for (name, value) in request.headers {
            if self.headers.binary_search_by(|known| known.as_str().cmp(name.as_str())).is_ok() {
                found(keyring.header(name, value.as_bytes()));
            }
        }
    }

    fn ask_token(&self, keyring: Keyring<'_>, identity: &RequestIdentity, found: &mut impl FnMut(u64)) {
        let (issuer, subject) = (identity.issuer.as_bytes(), identity.subject.as_bytes());
        for probe in &self.token {
            match probe {
                Probe::Token => found(keyring.of(Tag::Token, (issuer, subject))),
                Probe::Issuer => found(keyring.of(Tag::Issuer, issuer)),
                Probe::Subject => found(keyring.of(Tag::Subject, subject)),
                Probe::Audience => {
                    for audience in &identity.audiences {
                        found(keyring.of(Tag::Audience, audience.as_bytes()));
                    }
                }
                _ => {
                    for presenter in strings(identity.claims.get("azp")) {
                        found(keyring.of(Tag::Presenter, presenter.as_bytes()));
                    }
                }
            }
        }
        self.claims.ask(&identity.claims, &mut |seed, value| found(keyring.claim(seed, value)));
    }
}

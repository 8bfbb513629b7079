//! What a predicate saw and wanted, in words. No token text is ever printed.

use std::fmt::Display;

use serde_json::Value;

use super::{
    key::HeaderKey,
    predicate::{PathTest, Predicate, Test, claim, spelled},
};
use crate::{Question, RequestFacts};

/// Longest text of what was seen, in bytes; the rest is cut.
const SEEN_LIMIT: usize = 512;
/// Most wanted values that are listed.
const WANTED_LIMIT: usize = 32;
/// Headers whose values are never shown.
const SECRET: [&str; 6] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "set-cookie",
    "x-forwarded-access-token",
    "x-forwarded-client-cert",
];

/// `claim realm_access.roles is ["Patient"], wanted one of ["Medic"]`
pub(super) fn detail(predicate: &Predicate, question: &Question<'_>) -> String {
    let verb = if predicate.negated { "none" } else { "one" };
    let mut seen = seen(&predicate.test, question);
    if seen.len() > SEEN_LIMIT {
        let cut = (0..=SEEN_LIMIT).rev().find(|at| seen.is_char_boundary(*at)).unwrap_or(0);
        seen.truncate(cut);
        seen.push('…');
    }
    format!("{seen}, wanted {verb} of {}", wanted(&predicate.test))
}

/// Claims that say what somebody may do or by which door they came, not who they are; of a nested
/// claim the last name counts.
const IMPERSONAL: [&str; 10] =
    ["roles", "groups", "scope", "scp", "permission", "permissions", "iss", "aud", "azp", "client_id"];

/// The words for logs (invariant 7): what a request says of a person is left out, and what the
/// policy wanted of it, which may name the same person. `None`: nothing had to be left out.
pub(super) fn redacted(test: &Test, question: &Question<'_>) -> Option<String> {
    let request = question.request.as_ref()?;
    match test {
        // The log has the path elsewhere, as far as its settings want it.
        Test::Paths(_) => Some("path (not shown)".to_owned()),
        Test::Header(HeaderKey::Named(name), _) if request.headers.contains_key(name) => {
            Some(format!("header {name} is there (not shown)"))
        }
        Test::Header(HeaderKey::Named(name), _) => Some(format!("header {name} is absent")),
        Test::Claim(keys, _) if keys.last().is_some_and(|key| IMPERSONAL.contains(&key.as_ref())) => None,
        Test::Claim(keys, _) => {
            let found = request.identity.and_then(|identity| claim(&identity.claims, keys)).is_some();
            let there = if found { "there (not shown)" } else { "absent" };
            Some(format!("claim {} is {there}", keys.join(".")))
        }
        Test::RequestPrincipals(_) => {
            let identity = request.identity.filter(|identity| identity.principal().is_some())?;
            Some(format!("request principal is of issuer {:?} (subject not shown)", identity.issuer))
        }
        _ => None,
    }
}

fn is(name: &str, value: Option<&str>) -> String {
    match value {
        Some(value) => format!("{name} is {value:?}"),
        None => format!("{name} is absent"),
    }
}

fn seen(test: &Test, question: &Question<'_>) -> String {
    let peer = question.source.identity;
    match test {
        Test::Principals(_) => is("principal", peer.map(|peer| spelled(peer).concat()).as_deref()),
        Test::Namespaces(_) => is("namespace", peer.map(|peer| peer.namespace.as_str())),
        Test::ServiceAccounts(_) => is(
            "service account",
            peer.map(|peer| format!("{}/{}", peer.namespace, peer.service_account)).as_deref(),
        ),
        Test::TrustDomains(_) => is("trust domain", peer.map(|peer| peer.trust_domain.as_str())),
        Test::SourceIp(_) => format!("source ip is {}", question.source.ip.to_canonical()),
        Test::RemoteIp(_) => format!("remote ip is {}", question.source.remote_ip.to_canonical()),
        Test::DestinationIp(_) => {
            format!("destination ip is {}", question.destination.ip.to_canonical())
        }
        Test::Ports(_) => format!("port is {}", question.destination.port),
        Test::Sni(_) => is("sni", question.destination.sni),
        Test::FilterMetadata(_) => "Envoy filter metadata is absent here".to_owned(),
        _ => match &question.request {
            Some(request) => seen_in_request(test, request),
            None => "there is no HTTP request".to_owned(),
        },
    }
}

fn seen_in_request(test: &Test, request: &RequestFacts<'_>) -> String {
    let identity = request.identity;
    match test {
        Test::Hosts(_) | Test::Header(HeaderKey::Authority, _) => is("host", Some(request.host)),
        Test::Methods(_) | Test::Header(HeaderKey::Method, _) => is("method", Some(request.method)),
        Test::Paths(_) => is("path", Some(request.path)),
        Test::Header(HeaderKey::Impossible(name), _) => format!("header {name} is absent"),
        Test::Header(HeaderKey::Named(name), _) => seen_header(name.as_str(), request),
        Test::RequestPrincipals(_) => match identity {
            None => "request principal is absent".to_owned(),
            Some(identity) => match identity.principal() {
                Some(principal) => is("request principal", Some(&principal)),
                None if identity.subject.is_empty() => {
                    "request principal is absent (the token has no `sub`)".to_owned()
                }
                None => "request principal is absent (the token has no `iss`)".to_owned(),
            },
        },
        Test::Claim(keys, _) => {
            let name = format!("claim {}", keys.join("."));
            match identity.and_then(|identity| claim(&identity.claims, keys)) {
                Some(value) => format!("{name} is {}", spaced(value)),
                None => format!("{name} is absent"),
            }
        }
        Test::Audiences(_) => match identity {
            Some(identity) if !identity.audiences.is_empty() => {
                format!("audience is {}", quoted(identity.audiences.iter()))
            }
            _ => "audience is absent".to_owned(),
        },
        Test::Presenter(_) => match identity.and_then(|identity| identity.claims.get("azp")) {
            Some(presenter) => format!("presenter is {}", spaced(presenter)),
            None => "presenter is absent".to_owned(),
        },
        _ => String::new(),
    }
}

fn seen_header(name: &str, request: &RequestFacts<'_>) -> String {
    let values: Vec<_> = request.headers.get_all(name).iter().collect();
    if values.is_empty() {
        return format!("header {name} is absent");
    }
    let text: Vec<_> = values.iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
    if SECRET.contains(&name) || text.iter().any(|value| looks_like_a_token(value)) {
        return format!("header {name} is there (not shown)");
    }
    match text.as_slice() {
        [one] => format!("header {name} is {one:?}"),
        several => format!("header {name} is {}", quoted(several.iter())),
    }
}

/// A compact JWS or JWE begins with base64url of `{"`.
fn looks_like_a_token(value: &str) -> bool {
    value.contains("eyJ") || value.contains("ewo") || value.contains("ewog")
}

/// JSON on one line with a space after commas and colons: `["Patient", "Medic"]`.
fn spaced(value: &Value) -> String {
    match value {
        Value::Array(list) => {
            let items: Vec<_> = list.iter().map(spaced).collect();
            format!("[{}]", items.join(", "))
        }
        other => other.to_string(),
    }
}

fn quoted<T: AsRef<str>>(values: impl Iterator<Item = T>) -> String {
    let values: Vec<_> = values.map(|value| format!("{:?}", value.as_ref())).collect();
    format!("[{}]", values.join(", "))
}

fn listed<T: Display>(values: &[T]) -> String {
    let more = if values.len() > WANTED_LIMIT { ", …" } else { "" };
    let values: Vec<_> =
        values.iter().take(WANTED_LIMIT).map(|value| format!("{:?}", value.to_string())).collect();
    format!("[{}{more}]", values.join(", "))
}

/// `["GET", "HEAD"]`
fn wanted(test: &Test) -> String {
    match test {
        Test::Principals(values)
        | Test::TrustDomains(values)
        | Test::Sni(values)
        | Test::Hosts(values)
        | Test::Methods(values)
        | Test::Header(_, values)
        | Test::Claim(_, values)
        | Test::Audiences(values)
        | Test::Presenter(values) => listed(values),
        Test::Namespaces(values) => listed(values),
        Test::ServiceAccounts(values) => {
            listed(&values.iter().map(|(ns, account)| format!("{ns}/{account}")).collect::<Vec<_>>())
        }
        Test::SourceIp(nets) | Test::RemoteIp(nets) | Test::DestinationIp(nets) => listed(nets),
        Test::Ports(ports) => listed(ports),
        Test::RequestPrincipals(values) => listed(&values.iter().map(principal_pattern).collect::<Vec<_>>()),
        Test::Paths(values) => listed(values),
        Test::FilterMetadata(values) => listed(values),
    }
}

fn principal_pattern((issuer, subject): &(super::text::Text, super::text::Text)) -> String {
    match (issuer.to_string().as_str(), subject.to_string().as_str()) {
        ("*", "*") => "*".to_owned(),
        (issuer, subject) => format!("{issuer}/{subject}"),
    }
}

impl Display for PathTest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => text.fmt(f),
            Self::Template(template) => template.fmt(f),
        }
    }
}

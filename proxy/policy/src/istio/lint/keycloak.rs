//! Traps of Keycloak's tokens: what it leaves out, and how it spells what it puts in.
//!
//! Source: Keycloak's server administration guide (client scopes, audience, protocol mappers).

use http::Uri;

use super::{At, Mesh, values::Value};
use crate::{
    Problem,
    istio::{JwtRule, KeySource},
    manifest::codes,
};

/// The way to a realm in every Keycloak URL.
const REALMS: &str = "/realms/";
/// The end of Keycloak's key endpoint.
const CERTS: &str = "/protocol/openid-connect/certs";

/// What `jwtRules` say about Keycloak.
pub(super) fn lint_rules(mesh: &Mesh<'_>) -> Vec<Problem> {
    let rules = mesh.policies.requests.all().flat_map(|request| &request.rules);
    let mut problems = Vec::new();
    for rule in rules {
        let mut warn = |code, field: &str, text: String| {
            let place = rule.place.clone();
            problems.push(Problem::warning(code, place, field, text).of(&*rule.origin));
        };
        issuer(rule, &mut warn);
        if let KeySource::Uri(uri) = &rule.keys {
            jwks_uri(&rule.issuer, uri, &mut warn);
        }
        if is_keycloak(rule) && !rule.audiences.is_empty() && !accepts_account(&rule.audiences) {
            let text = "Keycloak's default `aud` is `account`: tokens name another audience only with an \
                        audience mapper (or a client role of that audience) in the client's scopes";
            warn(codes::KEYCLOAK_AUDIENCE, "audiences", text.to_owned());
        }
    }
    problems
}

fn accepts_account(audiences: &[String]) -> bool {
    audiences.iter().any(|audience| audience == "account")
}

fn is_keycloak(rule: &JwtRule) -> bool {
    rule.issuer.contains(REALMS)
        || matches!(&rule.keys, KeySource::Uri(uri) if uri.contains(REALMS) && uri.contains(CERTS))
}

fn issuer(rule: &JwtRule, warn: &mut impl FnMut(&'static str, &str, String)) {
    let issuer = &rule.issuer;
    if issuer.contains(REALMS) && issuer.ends_with('/') {
        let text = format!(
            "Keycloak writes the issuer without the slash at the end: `{}`",
            issuer.trim_end_matches('/')
        );
        warn(codes::KEYCLOAK_ISSUER, "issuer", text);
    }
}

fn jwks_uri(issuer: &str, uri: &str, warn: &mut impl FnMut(&'static str, &str, String)) {
    let Ok(parsed) = uri.parse::<Uri>() else { return };
    if parsed.scheme_str() == Some("http") && !is_local(parsed.host().unwrap_or("")) {
        let text = format!("`{uri}` is fetched without TLS: whoever sits on the way can forge tokens");
        warn(codes::JWKS_WITHOUT_TLS, "jwksUri", text);
    }
    let Some((before, after)) = uri.split_once(REALMS) else { return };
    let realm = after.split('/').next().unwrap_or(after);
    if !parsed.path().ends_with(CERTS) {
        let text = format!("Keycloak serves the realm's keys at `{before}{REALMS}{realm}{CERTS}`");
        warn(codes::KEYCLOAK_JWKS_URI, "jwksUri", text);
    }
    if issuer.is_empty() {
        return;
    }
    match issuer.split_once(REALMS) {
        None => {
            let text = format!("Keycloak's issuer has the form `https://<host>{REALMS}{realm}`");
            warn(codes::KEYCLOAK_ISSUER, "issuer", text);
        }
        Some((origin, of)) => {
            let of = of.trim_end_matches('/');
            if of != realm {
                let text = format!("the issuer is realm `{of}`, the keys are those of realm `{realm}`");
                warn(codes::ISSUER_JWKS_MISMATCH, "jwksUri", text);
            }
            if origin != before {
                let text = format!(
                    "the issuer is at `{origin}`, its keys are fetched from `{before}`: Keycloak writes its \
                     frontend URL into `iss`, and the issuer must be exactly that"
                );
                warn(codes::ISSUER_JWKS_MISMATCH, "issuer", text);
            }
        }
    }
}

/// Hosts that are reached within the machine or the cluster.
fn is_local(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']);
    if let Ok(ip) = host.parse::<std::net::IpAddr>() {
        return match ip {
            std::net::IpAddr::V4(ip) => ip.is_loopback() || ip.is_private(),
            std::net::IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local(),
        };
    }
    let inner = [".svc", ".local", ".localhost", ".internal"];
    !host.contains('.') || inner.iter().any(|end| host.ends_with(end))
}

/// What rules say about Keycloak's claims.
pub(super) fn lint_policy(at: &At<'_>, values: &[Value<'_>]) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut last_key = "";
    for value in values {
        if value.attribute != last_key {
            last_key = value.attribute;
            if let Some(text) = claim_path(value.attribute) {
                problems.push(at.warn(codes::KEYCLOAK_CLAIM_PATH, value, text));
            }
        }
    }
    let places = at.mesh.rules_at(at.policy);
    let keycloak = places.iter().flat_map(|(_, rules)| rules).any(|rule| is_keycloak(rule));
    if !keycloak {
        return problems;
    }
    let by_subject = |one: &&Value<'_>| {
        matches!(one.attribute, "requestPrincipals" | "request.auth.principal" | "request.auth.claims[sub]")
    };
    if let Some(value) = values.iter().find(by_subject) {
        let text = format!(
            "`{}` matches tokens with a `sub` only, which Keycloak writes only for clients with the client \
             scope `basic`",
            value.text
        );
        // Right in itself; whether tokens have `sub` is decided in Keycloak.
        problems.push(at.warn(codes::KEYCLOAK_NO_SUB, value, text).as_note());
    }
    let audience = |one: &&Value<'_>| one.attribute == "request.auth.audiences" && !one.negated;
    let audiences: Vec<_> = values.iter().filter(audience).collect();
    if let Some(first) = audiences
        .first()
        .filter(|_| audiences.iter().all(|one| !one.text.starts_with("account") && one.text != "*"))
    {
        let text = "Keycloak's default `aud` is `account`: tokens name another audience only with an audience \
                    mapper in the client's scopes";
        problems.push(at.warn(codes::KEYCLOAK_AUDIENCE, first, text.to_owned()));
    }
    problems
}

/// What is wrong with a claim key, seen from Keycloak's token layout.
fn claim_path(key: &str) -> Option<String> {
    let inner = key.strip_prefix("request.auth.claims[")?.strip_suffix(']')?;
    let path: Vec<&str> = inner.split("][").collect();
    let (first, rest) = path.split_first()?;
    let never = |instead: &str| {
        Some(format!("`{key}` never matches a Keycloak token; write `request.auth.claims{instead}`"))
    };
    if let Some((head, tail)) = first.split_once('.') {
        // Istio takes a name with dots as one whole name.
        return match head {
            "realm_access" => never("[realm_access][roles]"),
            "resource_access" => {
                let client = tail.strip_suffix(".roles").unwrap_or("<client>");
                never(&format!("[resource_access][{client}][roles]"))
            }
            _ => None,
        };
    }
    match (*first, rest) {
        ("realm_access", ["roles"]) | ("resource_access", [_, "roles"]) => None,
        ("realm_access", _) => never("[realm_access][roles]"),
        ("resource_access", [client, ..]) if !client.contains('.') => {
            never(&format!("[resource_access][{client}][roles]"))
        }
        ("resource_access", _) => never("[resource_access][<client>][roles]"),
        _ => None,
    }
}

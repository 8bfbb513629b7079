//! The keys of `when` conditions.
//!
//! Source: istio.io/latest/docs/reference/config/security/conditions.

use http::HeaderName;

use super::spec::Kind;

/// A condition's key, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Key {
    /// The same attribute as a source or operation list.
    Attribute(Kind),
    /// `request.headers[name]`
    Header(HeaderKey),
    /// `request.auth.claims[a][b]`
    Claim(Vec<String>),
    /// `request.auth.audiences`
    Audiences,
    /// `request.auth.presenter`
    Presenter,
    /// `destination.ip`
    DestinationIp,
    /// `connection.sni`
    Sni,
    /// `experimental.envoy.filters.*[k]`: metadata of Envoy filters that do not exist here.
    FilterMetadata,
    /// Admitted by Istio, but its translation fails: an ALLOW rule is dropped whole, elsewhere the
    /// condition is (which widens).
    Untranslatable,
}

/// Which header a condition looks at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum HeaderKey {
    /// An ordinary header, case-insensitive (GHSA-qc2q-p7wx-3px3).
    Named(HeaderName),
    /// `host` and `:authority`, which are one.
    Authority,
    /// `:method`
    Method,
    /// A name that no header can have: never present.
    Impossible(Box<str>),
}

/// Reads a key.
///
/// # Errors
/// Why Istio's admission (or ours, where a key cannot be honoured) refuses it.
pub(super) fn parse(key: &str) -> Result<Key, String> {
    Ok(match key {
        "source.ip" => Key::Attribute(Kind::SourceIp),
        "remote.ip" => Key::Attribute(Kind::RemoteIp),
        "source.namespace" => Key::Attribute(Kind::Namespaces),
        "source.serviceAccount" => Key::Attribute(Kind::ServiceAccounts),
        "source.trustDomain" => Key::Attribute(Kind::TrustDomains),
        "source.principal" => Key::Attribute(Kind::Principals),
        "request.auth.principal" => Key::Attribute(Kind::RequestPrincipals),
        "request.auth.audiences" => Key::Audiences,
        "request.auth.presenter" => Key::Presenter,
        "destination.ip" => Key::DestinationIp,
        "destination.port" => Key::Attribute(Kind::Ports),
        "connection.sni" => Key::Sni,
        "destination.namespace" => {
            return Err("attribute destination.namespace is replaced by metadata.namespace".into());
        }
        "destination.name" | "destination.user" => {
            return Err(format!("attribute {key} existed in v1alpha1 only"));
        }
        _ if key.starts_with("destination.labels") => {
            return Err("attribute destination.labels is replaced by the workload selector".into());
        }
        _ => return parse_bracketed(key),
    })
}

fn parse_bracketed(key: &str) -> Result<Key, String> {
    let known = ["request.headers", "request.auth.claims", "experimental.envoy.filters."];
    let Some(prefix) = known.into_iter().find(|prefix| key.starts_with(*prefix)) else {
        return Err(format!("unknown attribute: {key}"));
    };
    let open = key.find('[').filter(|open| key.ends_with(']') && open + 2 < key.len());
    if open.is_none() {
        return Err(format!("bad key ({key}): it should have the form a[b]"));
    }
    let rest = key.get(prefix.len()..).unwrap_or_default();
    match prefix {
        "request.headers" => match in_brackets(rest) {
            Some(name) => header(name).map(Key::Header),
            None => Ok(Key::Untranslatable),
        },
        "request.auth.claims" => Ok(claim(rest).map_or(Key::Untranslatable, Key::Claim)),
        _ => Ok(Key::FilterMetadata),
    }
}

fn in_brackets(text: &str) -> Option<&str> {
    text.strip_prefix('[')?.strip_suffix(']')
}

fn header(name: &str) -> Result<HeaderKey, String> {
    if name.eq_ignore_ascii_case("host") || name.eq_ignore_ascii_case(":authority") {
        return Ok(HeaderKey::Authority);
    }
    if name.eq_ignore_ascii_case(":method") {
        return Ok(HeaderKey::Method);
    }
    if name.starts_with(':') {
        // Dropping it quietly would widen a DENY rule's complement: say so instead.
        return Err(format!("request.headers[{name}] is not supported; use operation fields"));
    }
    Ok(HeaderName::from_bytes(name.as_bytes())
        .map_or_else(|_| HeaderKey::Impossible(name.into()), HeaderKey::Named))
}

/// `[a][b]` to `a`, `b`. Whatever is not clean groups is one name, whole: dots never split, and
/// `[https://x/[y]]` is the claim `https://x/[y]`.
fn claim(text: &str) -> Option<Vec<String>> {
    let mut keys = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let group = rest.strip_prefix('[').and_then(|inner| inner.split_once(']'));
        match group {
            Some((name, after)) if !name.contains('[') => {
                keys.push(name.to_owned());
                rest = after;
            }
            _ => return in_brackets(text).map(|name| vec![name.to_owned()]),
        }
    }
    Some(keys)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn claims_are_split_at_brackets_only() {
        for (key, want) in [
            ("request.auth.claims[a]", vec!["a"]),
            ("request.auth.claims[realm_access][roles]", vec!["realm_access", "roles"]),
            ("request.auth.claims[a.b/c]", vec!["a.b/c"]),
            ("request.auth.claims[https://x/y]", vec!["https://x/y"]),
            ("request.auth.claims[[x]]", vec!["[x]"]),
            ("request.auth.claims[a]b[c]", vec!["a]b[c"]),
            ("request.auth.claims[a][]", vec!["a", ""]),
        ] {
            let want = Key::Claim(want.into_iter().map(str::to_owned).collect());
            assert_eq!(parse(key).unwrap(), want, "{key}");
        }
    }

    #[test]
    fn keys_that_istio_admits_but_cannot_translate() {
        assert_eq!(parse("request.headersX[a]").unwrap(), Key::Untranslatable);
        assert_eq!(parse("request.auth.claims.x[a]").unwrap(), Key::Untranslatable);
    }

    #[test]
    fn other_keys_are_refused() {
        for key in [
            "",
            "any",
            "source.user",
            "request.auth.claim[x]",
            "request.headers",
            "request.headers[]",
            "request.headers[:path]",
            "experimental.envoy.filters.a.b",
            "destination.labels[x]",
            "destination.name",
            "destination.user",
            "destination.namespace",
            "Source.ip",
        ] {
            assert!(parse(key).is_err(), "{key}");
        }
    }

    #[test]
    fn header_names_ignore_case_and_host_is_the_authority() {
        let named = |name| HeaderKey::Named(HeaderName::from_static(name));
        assert_eq!(parse("request.headers[X-Tag]").unwrap(), Key::Header(named("x-tag")));
        assert_eq!(parse("request.headers[Host]").unwrap(), Key::Header(HeaderKey::Authority));
        assert_eq!(parse("request.headers[:authority]").unwrap(), Key::Header(HeaderKey::Authority));
        assert!(matches!(parse("request.headers[a b]").unwrap(), Key::Header(HeaderKey::Impossible(_))));
    }
}

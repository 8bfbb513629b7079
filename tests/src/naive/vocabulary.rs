//! The words of random worlds: few, and near to each other, so that policies nearly match.

/// The root namespace.
pub(super) const ROOT: &str = "istio-system";
/// Where policies stand.
pub(super) const NAMESPACES: &[&str] = &[ROOT, "a", "a", "a", "b"];

/// Values of `from` fields.
pub(super) const SOURCES: &[(&str, &[&str])] = &[
    (
        "principals",
        &[
            "cluster.local/ns/a/sa/x",
            "td/ns/a/sa/x",
            "old/ns/a/sa/x",
            "td/ns/b/sa/y",
            "td/ns/a/*",
            "*/ns/a/sa/x",
            "*/sa/x",
            "*",
            "far/ns/a/sa/x",
            "*local/ns/a/sa/x",
            "td/ns/a/sa/",
            "t*",
        ],
    ),
    ("namespaces", &["a", "b", "a*", "*a", "*", "a.b", "a*b", "axb"]),
    ("serviceAccounts", &["a/x", "x", "b/y", "y", "b/x"]),
    ("trustDomains", &["td", "old", "far", "t*", "cluster.local"]),
    (
        "ipBlocks",
        &[
            "10.0.0.1",
            "10.0.0.0/8",
            "10.0.0.3/30",
            "0.0.0.0/0",
            "11.0.0.0/8",
            "::/0",
            "2001:db8::/32",
            "2001:db8::1",
            "::ffff:10.0.0.0/104",
            "127.0.0.0/8",
        ],
    ),
    ("remoteIpBlocks", &["203.0.113.7", "203.0.113.0/24", "0.0.0.0/0", "10.0.0.0/8", "::1/128"]),
    (
        "requestPrincipals",
        &[
            "*",
            "https://i/r/s",
            "https://i/r/*",
            "*/s",
            "https://j/t",
            "https://i/r/s*",
            "https*",
            "*s",
            "https://i/r",
            "*r/s",
            "https://i/*",
        ],
    ),
];

/// Values of `to` fields.
pub(super) const OPERATIONS: &[(&str, &[&str])] = &[
    ("hosts", &["h", "H:80", "h*", "*:80", "*", "h.example", "*.example"]),
    ("ports", &["80", "8080", "1", "0"]),
    ("methods", &["GET", "POST", "P*", "*", "get", "*T"]),
    (
        "paths",
        &[
            "/fhir/Patient",
            "/fhir/Patient/*",
            "*/Patient",
            "/fhir/*",
            "*",
            "/*",
            "/fhir/Patient/1",
            "/fhir/{*}",
            "/fhir/{*}/1",
            "/{*}/Patient/{**}",
            "/fhir/{**}",
            "/{**}/1",
            "/fhir/{*}/{**}/1",
            "*1",
            "/fhir/Patient*",
            "/fhir",
            "/fhir/",
            "/FHIR/*",
        ],
    ),
];

/// Values of `when` keys: every documented one.
pub(super) const KEYS: &[(&str, &[&str])] = &[
    ("request.headers[x-tag]", &["a", "b", "a*", "*", "*b", "a,b", "*a*"]),
    ("request.headers[X-Tag]", &["a", "ab"]),
    ("request.headers[host]", &["h", "h:80", "H:80", "*"]),
    ("source.ip", &["10.0.0.1", "127.0.0.1", "10.0.0.0/8", "2001:db8::/32"]),
    ("remote.ip", &["203.0.113.7", "203.0.113.0/24", "::/0"]),
    ("source.namespace", &["a", "b", "a*"]),
    ("source.serviceAccount", &["a/x", "x", "b/y"]),
    ("source.trustDomain", &["td", "old", "*d"]),
    ("source.principal", &["td/ns/a/sa/x", "*", "cluster.local/ns/b/sa/y"]),
    ("request.auth.principal", &["*", "https://i/r/s", "https://i/r/*", "*/s"]),
    ("request.auth.audiences", &["fhir", "other", "f*"]),
    ("request.auth.presenter", &["idea", "i*", "*"]),
    ("request.auth.claims[roles]", &["Medic", "Patient", "M*", "*", "*c"]),
    ("request.auth.claims[realm_access][roles]", &["Medic", "Patient", "Nurse", "*", "*edic*"]),
    ("request.auth.claims[scope]", &["openid", "openid patient", "*"]),
    ("request.auth.claims[level]", &["3", "*"]),
    ("request.auth.claims[a.b]", &["dotted"]),
    ("request.auth.claims[https://x/y]", &["url"]),
    ("destination.ip", &["10.0.0.9", "10.0.0.0/29", "10.0.0.8/29"]),
    ("destination.port", &["80", "8080"]),
    ("connection.sni", &["s.example", "*.example", "*"]),
    ("experimental.envoy.filters.a.b[c]", &["v", "[v]"]),
];

/// What CUSTOM may not ask: it runs before any identity is known.
pub(super) fn is_identity(name: &str) -> bool {
    matches!(
        name,
        "principals"
            | "requestPrincipals"
            | "namespaces"
            | "serviceAccounts"
            | "source.namespace"
            | "source.serviceAccount"
            | "source.principal"
    ) || name.starts_with("request.auth.")
}

//! The codes of all problems: stable names for machines, one place for people to look them up.

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $code:literal,)*) => {
        $($(#[doc = $doc])+ pub const $name: &str = $code;)*

        /// Every code with its meaning, for the README and for `fhirward check --help`.
        pub const ALL: &[(&str, &str)] = &[$(($code, concat!($($doc),+))),*];
    };
}

codes! {
    /// The text is not YAML or JSON that kubectl would take.
    SYNTAX = "syntax",
    /// A limit on size, depth, nodes or aliases is passed.
    TOO_LARGE = "too-large",
    /// A key stands twice in one mapping.
    DUPLICATE_KEY = "duplicate-key",
    /// An unquoted key that kubectl would read as something else than a string.
    AMBIGUOUS_KEY = "ambiguous-key",
    /// A document without `apiVersion` or `kind`.
    NOT_AN_OBJECT = "not-an-object",
    /// A field that the kind does not have.
    UNKNOWN_FIELD = "unknown-field",
    /// A required field is missing.
    MISSING_FIELD = "missing-field",
    /// A value of the wrong type.
    WRONG_TYPE = "wrong-type",
    /// A value outside of what its field allows.
    INVALID_VALUE = "invalid-value",
    /// More entries than the field allows.
    TOO_MANY = "too-many",
    /// A kind of `security.istio.io` that does not exist.
    UNKNOWN_KIND = "unknown-kind",
    /// A version of `security.istio.io` that does not exist.
    UNKNOWN_VERSION = "unknown-version",
    /// Two objects of the same kind, namespace and name.
    DUPLICATE_OBJECT = "duplicate-object",
    /// An object without a name, or with one that Kubernetes does not allow.
    INVALID_NAME = "invalid-name",
    /// More than one of selector, targetRef and targetRefs.
    SELECTOR_AND_TARGET_REF = "selector-and-target-ref",
    /// A selector with an empty key, a wildcard or a value that is too long.
    INVALID_SELECTOR = "invalid-selector",
    /// A targetRef of a kind, name or namespace that cannot be targeted.
    INVALID_TARGET_REF = "invalid-target-ref",
    /// A JWT rule with neither issuer nor jwksUri.
    JWT_RULE_WITHOUT_ISSUER = "jwt-rule-without-issuer",
    /// A JWT rule with both jwks and jwksUri.
    JWKS_TWICE = "jwks-twice",
    /// A `jwksUri` that is not an http or https URL, or carries credentials or a fragment.
    INVALID_JWKS_URI = "invalid-jwks-uri",
    /// An inline `jwks` that is not a JSON Web Key Set.
    INVALID_JWKS = "invalid-jwks",
    /// An inline `jwks` that holds a private or symmetric key: whoever reads it can forge tokens.
    PRIVATE_KEY_IN_JWKS = "private-key-in-jwks",
    /// A header name that HTTP does not allow.
    INVALID_HEADER_NAME = "invalid-header-name",
    /// A duration that is not written as Kubernetes writes them (`5s`, `100ms`), or is out of range.
    INVALID_DURATION = "invalid-duration",
    /// A port that is not a number from 1 to 65535.
    INVALID_PORT = "invalid-port",
    /// `portLevelMtls` where Istio refuses or ignores it.
    PORT_LEVEL_MTLS = "port-level-mtls",
    /// Keys are fetched without TLS: whoever sits on the way can forge tokens.
    JWKS_WITHOUT_TLS = "jwks-without-tls",
    /// A policy that selects no workload.
    SELECTS_NOTHING = "selects-nothing",
    /// A policy in a namespace that has no workloads.
    EMPTY_NAMESPACE = "empty-namespace",
    /// A PeerAuthentication that another one of the same level overrules, or that is ignored.
    IGNORED_POLICY = "ignored-policy",
    /// A rule or value that no request can match.
    NEVER_MATCHES = "never-matches",
    /// A rule needs a token at a workload where no RequestAuthentication accepts one.
    NO_REQUEST_AUTHENTICATION = "no-request-authentication",
    /// A rule names an issuer that no RequestAuthentication at the workload accepts.
    UNKNOWN_ISSUER = "unknown-issuer",
    /// A RequestAuthentication at a workload where a request without a token passes.
    TOKEN_NOT_REQUIRED = "token-not-required",
    /// `requestPrincipals` match by `sub`, which Keycloak leaves out without the `basic` scope.
    KEYCLOAK_NO_SUB = "keycloak-no-sub",
    /// Keycloak's `aud` names the client only with an audience mapper; the default is `account`.
    KEYCLOAK_AUDIENCE = "keycloak-audience",
    /// A claim written with dots, which Istio takes as one whole name.
    KEYCLOAK_CLAIM_PATH = "keycloak-claim-path",
    /// An issuer that Keycloak does not write like that: trailing slash, or no `/realms/`.
    KEYCLOAK_ISSUER = "keycloak-issuer",
    /// A `jwksUri` below `/realms/` that is not Keycloak's key endpoint.
    KEYCLOAK_JWKS_URI = "keycloak-jwks-uri",
    /// Issuer and jwksUri name different hosts, schemes or realms.
    ISSUER_JWKS_MISMATCH = "issuer-jwks-mismatch",
    /// A principal written with `spiffe://`.
    SPIFFE_PREFIX = "spiffe-prefix",
    /// A method in lower case.
    LOWER_CASE_METHOD = "lower-case-method",
    /// A path that holds a query or a fragment.
    PATH_WITH_QUERY = "path-with-query",
    /// A path with a trailing slash, which matches only that spelling.
    TRAILING_SLASH = "trailing-slash",
    /// HTTP fields in a rule for a port that does not speak HTTP.
    HTTP_RULE_ON_TCP = "http-rule-on-tcp",
    /// CUSTOM denies what it matches until external authorizers exist.
    CUSTOM_DENIES = "custom-denies",
    /// DENY, CUSTOM or AUDIT without rules.
    NO_RULES = "no-rules",
    /// `provider` missing, empty or out of place.
    INVALID_PROVIDER = "invalid-provider",
    /// Something that must not be empty, or (as a warning) counts as absent when it is.
    EMPTY_FIELD = "empty-field",
    /// Two fields that exclude each other.
    EXCLUSIVE_FIELDS = "exclusive-fields",
    /// An unknown or malformed `when` key.
    INVALID_KEY = "invalid-key",
    /// A field that CUSTOM may not use.
    UNSUPPORTED_WITH_CUSTOM = "unsupported-with-custom",
    /// A value that matches something else than it seems to.
    SURPRISING_MATCH = "surprising-match",
    /// `istio.io/dry-run` with a value other than `true` or `false`.
    DRY_RUN_VALUE = "dry-run-value",
    /// A policy of a kind that this version does not enforce.
    NOT_ENFORCED = "not-enforced",
}

#[cfg(test)]
mod tests {
    use super::ALL;

    #[test]
    fn codes_are_unique_and_kebab_case() {
        let mut seen = std::collections::HashSet::new();
        for (code, meaning) in ALL {
            assert!(seen.insert(code), "{code} twice");
            assert!(code.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{code}");
            assert!(!meaning.trim().is_empty(), "{code}");
        }
    }
}

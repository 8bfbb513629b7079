//! Why a token is refused, in Envoy's words.

/// Declares the enum with its texts, its metric names and the list of all.
macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $text:literal;)*) => {
        /// Why a token is refused. `Display` is Envoy's body text, byte for byte
        /// (envoyproxy/envoy, source/common/jwt/status.cc), except for the last ones, which Envoy lacks.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
        pub enum RejectionReason {
            $($(#[$doc])* #[error($text)] $variant,)*
        }

        impl RejectionReason {
            /// All reasons, in order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Stable name for metrics and logs, snake_case.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

reasons! {
    /// A token was required; Fhirward never requires one here (AuthorizationPolicy does).
    Missing = "missing", "Jwt is missing";
    /// `nbf` is in the future, beyond the allowed skew.
    NotYetValid = "not_yet_valid", "Jwt not yet valid";
    /// `exp` is past, with the allowed skew. `exp: 0` is past (Envoy takes it for no expiry).
    Expired = "expired", "Jwt is expired";
    /// Not three parts.
    BadFormat = "bad_format",
        "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections";
    /// Header is not base64url.
    HeaderBadBase64 = "header_bad_base64", "Jwt header is an invalid Base64url encoded";
    /// Header is not a JSON object, or has a member twice.
    HeaderBadJson = "header_bad_json", "Jwt header is an invalid JSON";
    /// `alg` is missing or no string.
    HeaderBadAlg = "header_bad_alg", "Jwt header [alg] field is required and must be a string";
    /// `alg` is unknown or `none`.
    HeaderAlgNotSupported = "header_alg_not_supported", "Jwt header [alg] is not supported";
    /// `kid` is no string.
    HeaderBadKid = "header_bad_kid", "Jwt header [kid] field is not a string";
    /// Payload is not base64url.
    PayloadBadBase64 = "payload_bad_base64", "Jwt payload is an invalid Base64url encoded";
    /// Payload is not a JSON object, has a claim twice, or is too deep or too large.
    PayloadBadJson = "payload_bad_json", "Jwt payload is an invalid JSON";
    /// `iss` is no string.
    IssNotString = "iss_not_string", "Jwt payload [iss] field is not a string";
    /// `sub` is no string.
    SubNotString = "sub_not_string", "Jwt payload [sub] field is not a string";
    /// `iat` is no number.
    IatNotInteger = "iat_not_integer", "Jwt payload [iat] field is not an integer";
    /// `iat` is negative or beyond 64 bits.
    IatOutOfRange = "iat_out_of_range", "Jwt payload [iat] field is not a positive 64 bit integer";
    /// `nbf` is no number.
    NbfNotInteger = "nbf_not_integer", "Jwt payload [nbf] field is not an integer";
    /// `nbf` is negative or beyond 64 bits.
    NbfOutOfRange = "nbf_out_of_range", "Jwt payload [nbf] field is not a positive 64 bit integer";
    /// `exp` is no number.
    ExpNotInteger = "exp_not_integer", "Jwt payload [exp] field is not an integer";
    /// `exp` is negative or beyond 64 bits.
    ExpOutOfRange = "exp_out_of_range", "Jwt payload [exp] field is not a positive 64 bit integer";
    /// `jti` is no string.
    JtiNotString = "jti_not_string", "Jwt payload [jti] field is not a string";
    /// `aud` is neither a string nor a list of strings.
    AudNotString = "aud_not_string", "Jwt payload [aud] field is not a string or string list";
    /// Signature is not base64url.
    SignatureBadBase64 = "signature_bad_base64", "Jwt signature is an invalid Base64url encoded";
    /// `iss` is not the rule's issuer.
    UnknownIssuer = "unknown_issuer", "Jwt issuer is not configured";
    /// None of the rule's audiences is in `aud`.
    AudienceNotAllowed = "audience_not_allowed", "Audiences in Jwt are not allowed";
    /// No fitting key verifies the signature.
    VerificationFails = "verification_fails", "Jwt verification fails";
    /// An Ed25519 signature that is not 64 bytes.
    Ed25519SignatureLength = "ed25519_signature_length", "Jwt ED25519 signature is wrong length";
    /// More tokens than are looked at.
    MultipleTokens = "multiple_tokens", "Found multiple Jwt tokens";
    /// No key with that `kid` and `alg`.
    NoMatchingKey = "no_matching_key", "Jwks doesn't have key to match kid or alg from Jwt";
    /// The manifest's own `jwks` has no usable key.
    NoValidKeys = "no_valid_keys", "Jwks doesn't have any valid public key";
    /// The provider's keys could not be had, or are older than the limit allows.
    KeysUnavailable = "keys_unavailable", "Jwks remote fetch is failed";
    /// `crit` or `b64` in the header: an extension that we do not honour (RFC 7515 section 4.1.11).
    HeaderCritical = "header_critical", "Jwt header has a critical extension that is not supported";
    /// Longer than the limit.
    TooLarge = "too_large", "Jwt is too large";
}

impl RejectionReason {
    /// Whether the token is refused for its audience alone: answered with 403, all else with 401
    /// (Envoy, source/extensions/filters/http/jwt_authn/filter.cc).
    #[must_use]
    pub const fn is_audience(self) -> bool {
        matches!(self, Self::AudienceNotAllowed)
    }

    /// Whether a token was there at all: `error="invalid_token"` is added to `www-authenticate`.
    #[must_use]
    pub const fn is_missing(self) -> bool {
        matches!(self, Self::Missing)
    }

    /// The two that yield to any other when several rules fail (Envoy, verifier.cc).
    pub(crate) const fn is_weak(self) -> bool {
        matches!(self, Self::Missing | Self::UnknownIssuer)
    }
}

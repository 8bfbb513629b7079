//! Why a peer's certificate is refused: each cause has a name of its own.

/// Why a peer is not who it says, or says nothing that we believe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum PeerError {
    /// It showed no certificate.
    #[error("the peer has no certificate")]
    NoCertificate,
    /// Not X.509, or not as DER has it.
    #[error("the certificate is malformed")]
    Malformed,
    /// No subject alternative name at all.
    #[error("the certificate has no subject alternative name")]
    NoSan,
    /// Names, but no URI among them.
    #[error("the certificate names no URI")]
    NoUriSan,
    /// X509-SVID §2: exactly one.
    #[error("the certificate names more than one URI")]
    ManyUriSans,
    /// SPIFFE-ID §2.
    #[error("the certificate's URI is no SPIFFE id")]
    InvalidId,
    /// A SPIFFE id that is not `/ns/<namespace>/sa/<service account>`.
    #[error("the certificate's SPIFFE id is no workload's")]
    NotAWorkload,
    /// No bundle for the trust domain it claims.
    #[error("the certificate's trust domain is not known")]
    UnknownTrustDomain,
    /// Its chain ends at a root of another trust domain than the one it claims.
    #[error("the certificate's issuer does not vouch for its trust domain")]
    WrongTrustDomain,
    /// X509-SVID §4.1.
    #[error("a CA's certificate was shown as a workload's")]
    CaAsLeaf,
    /// X509-SVID §4.3: digitalSignature, neither keyCertSign nor cRLSign.
    #[error("the certificate's key usage is not a workload's")]
    LeafKeyUsage,
    /// clientAuth for a client, serverAuth for a server, where the extension is there.
    #[error("the certificate's extended key usage does not allow this use")]
    ExtendedKeyUsage,
    /// X509-SVID §4.3: an issuer needs keyCertSign.
    #[error("an issuer's key usage does not let it sign certificates")]
    IssuerKeyUsage,
    /// RFC 5280 §4.2.1.9.
    #[error("an issuer in the chain is no CA")]
    IssuerNotCa,
    /// RFC 5280 §4.2.1.9.
    #[error("the chain is longer than an issuer allows")]
    PathLength,
    /// RFC 5280 §4.2.1.10.
    #[error("an issuer may not vouch for this name")]
    NameConstraint,
    /// More certificates, or more paths through them, than are looked at.
    #[error("the chain is too long or too tangled")]
    ChainTooLong,
    /// RSA below 2048 bits.
    #[error("a key in the chain is too short")]
    WeakKey,
    /// SHA-1, MD5 or what we do not know.
    #[error("a signature in the chain is of a weak or unknown algorithm")]
    WeakSignature,
    /// Not P-256, P-384 or P-521.
    #[error("a key in the chain is on a weak or unknown curve")]
    WeakCurve,
    /// Neither RSA (to 8192 bits) nor ECDSA nor Ed25519.
    #[error("a key in the chain is of a kind that is not supported")]
    UnsupportedKey,
    /// It vouches for itself.
    #[error("the certificate is signed by itself")]
    SelfSigned,
    /// Nobody in chain or bundle bears its issuer's name.
    #[error("an issuer is missing in the chain")]
    IncompleteChain,
    /// The chain is whole, and ends at a root that is not ours.
    #[error("the chain ends at nobody we trust")]
    UntrustedIssuer,
    /// A signature within the chain does not hold.
    #[error("a signature in the chain is wrong")]
    BadSignature,
    /// notAfter of the certificate or of an issuer.
    #[error("the certificate or an issuer's has expired")]
    Expired,
    /// notBefore.
    #[error("the certificate or an issuer's is not valid yet")]
    NotYetValid,
    /// Every root of the trust domain has expired or is not valid yet.
    #[error("no root of the trust domain is valid now")]
    RootExpired,
    /// By a CRL.
    #[error("the certificate or an issuer's is revoked")]
    Revoked,
    /// nextUpdate of the CRL has passed: it says nothing any more.
    #[error("the revocation list has expired")]
    CrlExpired,
    /// The CRL is not signed by who it says, or by a key that may not.
    #[error("the revocation list cannot be used")]
    CrlUnusable,
    /// A critical extension that we do not know (RFC 5280 §4.2).
    #[error("the certificate has a critical extension that is not supported")]
    UnsupportedExtension,
    /// Verified, but somebody else than was asked for.
    #[error("the peer is somebody else")]
    UnexpectedIdentity,
}

impl PeerError {
    /// Stable name for logs and metrics, snake_case.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NoCertificate => "no_certificate",
            Self::Malformed => "malformed_certificate",
            Self::NoSan => "no_san",
            Self::NoUriSan => "no_uri_san",
            Self::ManyUriSans => "many_uri_sans",
            Self::InvalidId => "invalid_spiffe_id",
            Self::NotAWorkload => "not_a_workload_id",
            Self::UnknownTrustDomain => "unknown_trust_domain",
            Self::WrongTrustDomain => "wrong_trust_domain",
            Self::CaAsLeaf => "ca_as_leaf",
            Self::LeafKeyUsage => "leaf_key_usage",
            Self::ExtendedKeyUsage => "extended_key_usage",
            Self::IssuerKeyUsage => "issuer_key_usage",
            Self::IssuerNotCa => "issuer_not_ca",
            Self::PathLength => "path_length",
            Self::NameConstraint => "name_constraint",
            Self::ChainTooLong => "chain_too_long",
            Self::WeakKey => "weak_key",
            Self::WeakSignature => "weak_signature",
            Self::WeakCurve => "weak_curve",
            Self::UnsupportedKey => "unsupported_key",
            Self::SelfSigned => "self_signed",
            Self::IncompleteChain => "incomplete_chain",
            Self::UntrustedIssuer => "untrusted_issuer",
            Self::BadSignature => "bad_signature",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::RootExpired => "root_expired",
            Self::Revoked => "revoked",
            Self::CrlExpired => "crl_expired",
            Self::CrlUnusable => "crl_unusable",
            Self::UnsupportedExtension => "unsupported_extension",
            Self::UnexpectedIdentity => "unexpected_identity",
        }
    }
}

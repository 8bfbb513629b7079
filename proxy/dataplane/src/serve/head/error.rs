//! Why a head is refused.

/// Why a head is refused. Statuses are `reply`'s; `Display` is what the client is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum HeadError {
    /// Neither HTTP/1 nor HTTP/2.
    #[error("HTTP/1.1 or HTTP/2 is required")]
    Version,
    /// HTTP/1 and not a registered method, or lower case.
    #[error("the method is not known")]
    Method,
    /// CONNECT and TRACE: the first opens tunnels past the policies, the second echoes credentials.
    #[error("the method is not accepted")]
    MethodNotAllowed,
    /// No `Host`, or an empty one.
    #[error("the Host header is missing")]
    MissingHost,
    /// More than one `Host`.
    #[error("there are several Host headers")]
    SeveralHosts,
    /// Not `host[:port]`; user information is refused too.
    #[error("the host is not valid")]
    BadHost,
    /// The absolute-form target or `:authority` says another scheme, host or port than `Host`.
    #[error("the request target and the Host header disagree")]
    HostMismatch,
    /// `*` with another method than OPTIONS.
    #[error("the asterisk form is for OPTIONS only")]
    AsteriskForm,
    /// `Content-Length` values that are no number or that disagree.
    #[error("the Content-Length is not valid")]
    ContentLength,
    /// Both lengths at once.
    #[error("Content-Length and Transfer-Encoding exclude each other")]
    LengthAndEncoding,
    /// Other than `chunked`.
    #[error("the Transfer-Encoding is not supported")]
    TransferEncoding,
    /// Connection-specific headers in HTTP/2.
    #[error("connection-specific headers are not allowed in HTTP/2")]
    ConnectionSpecific,
    /// A header whose name is no token.
    #[error("a header name is not valid")]
    HeaderName,
    /// `Connection` names a header that frames or routes the message.
    #[error("the Connection header names an end-to-end header")]
    Nominated,
    /// Cookie crumbs that do not make a header.
    #[error("the Cookie header is not valid")]
    Cookie,
    /// `Expect` other than `100-continue`.
    #[error("the expectation cannot be met")]
    Expectation,
}

impl HeadError {
    /// Stable name for metrics and logs, snake_case.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Version => "http_version",
            Self::Method => "method_unknown",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::MissingHost => "host_missing",
            Self::SeveralHosts => "host_several",
            Self::BadHost => "host_invalid",
            Self::HostMismatch => "host_mismatch",
            Self::AsteriskForm => "target_asterisk",
            Self::ContentLength => "content_length",
            Self::LengthAndEncoding => "length_and_encoding",
            Self::TransferEncoding => "transfer_encoding",
            Self::ConnectionSpecific => "connection_specific",
            Self::HeaderName => "header_name",
            Self::Nominated => "connection_nominated",
            Self::Cookie => "cookie",
            Self::Expectation => "expectation",
        }
    }
}
